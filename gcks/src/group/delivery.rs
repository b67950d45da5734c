//! Pushes on their way: to whom they go, what comes back, and who is unresponsive (RFC 8263 §5,
//! §6).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gdoi::push::ack::Acknowledged;
use gdoi::push::{Delivery, DeliveryPolicy, Recipients, SealedPush};
use ike::BootTime;
use ike::config::Identity;

use super::Group;
use super::event::{Event, Members};
use super::kek::Kek;
use super::push::{Audience, Pushed};
use super::rekey_sa::{Abandoned, KEPT, RekeySa};
use crate::config::{MulticastPath, Transport};
use crate::members::registry::MemberId;

/// Pushes in a row without an acknowledgement after which a member may be dropped (RFC 8263 §6).
const UNRESPONSIVE: u64 = 3;
/// Repetitions of a push to a member that has just registered.
const LEAST_FOR_ONE: u32 = 2;

/// A push to send.
#[derive(Debug)]
pub struct Dispatch {
    /// The octets, with what verifies their acknowledgements.
    pub push: SealedPush,
    /// Whom it goes to.
    pub recipients: Recipients,
    /// Repetitions, and how long acknowledgements are waited for.
    pub policy: DeliveryPolicy,
    /// How it leaves if it goes by multicast.
    pub path: MulticastPath,
    /// Whether it takes the place of what is still on its way under the same KEK: nobody who gets
    /// this push could use that any more.
    pub supersedes: bool,
}

/// What became of a member that has not acknowledged a push.
enum Missed {
    Kept { name: Arc<str>, in_a_row: u64 },
    Dropped { name: Arc<str> },
}

/// What a push took.
#[derive(Clone, Copy, Debug)]
pub struct PushFigures {
    pub duration: Duration,
    /// Datagrams that were sent again.
    pub retransmissions: u64,
}

impl Group {
    /// After a restart: sends the last push under each KEK once more, with the octets that it had.
    /// Members that have carried it out recognise it; the others would wait in vain. Nobody has to
    /// acknowledge: members that registered after it do not answer to it.
    pub fn resend_last_pushes(&mut self, now: BootTime) {
        let Some(rekey_sa) = &self.rekey_sa else { return };
        let (policy, path) = (rekey_sa.settings.delivery, &rekey_sa.settings.path);
        let recent = rekey_sa.retired.iter().filter(|retired| retired.at + KEPT > now);
        let again =
            recent.flat_map(|retired| &retired.last).chain(rekey_sa.kek().and_then(Kek::last));
        let again: Vec<Dispatch> = again
            .map(|push| Dispatch {
                push: push.duplicate(),
                recipients: Recipients { excused: true, ..self.recipients() },
                policy,
                path: path.clone(),
                supersedes: false,
            })
            .collect();
        self.dispatches.extend(again);
    }

    /// Whether a restart sends this push again, or nobody waits for it.
    pub fn is_resent(&self, delivery: &Delivery) -> bool {
        let rekey_sa = self.rekey_sa.as_ref();
        let kept = rekey_sa.is_some_and(|rekey_sa| {
            let retired = rekey_sa.retired.iter().flat_map(|retired| &retired.last);
            let mut kept = retired.chain(rekey_sa.kek().and_then(Kek::last));
            kept.any(|push| push.datagram() == delivery.push().datagram())
        });
        let multicast = rekey_sa.is_some_and(RekeySa::is_multicast);
        let mut destinations = delivery.destinations();
        destinations.all(|(_, to, _)| kept && (multicast || self.registry.is_at(to)))
    }

    /// A member has carried out a push.
    pub fn handle_acknowledged(&mut self, acknowledged: &Acknowledged, now: BootTime) {
        let Acknowledged { address, spi, sequence_number, .. } = *acknowledged;
        self.registry.acknowledged((address, spi, sequence_number), now);
        if let Some(rekey_sa) = &mut self.rekey_sa {
            let counters = &mut rekey_sa.counters;
            counters.acknowledgements = counters.acknowledgements.saturating_add(1);
        }
    }

    /// A push has come to its end, and these members have not acknowledged it.
    pub fn handle_push_finished(
        &mut self,
        missing: &[IpAddr],
        took: Option<PushFigures>,
        now: BootTime,
    ) {
        if let (Some(rekey_sa), Some(PushFigures { duration, retransmissions })) =
            (&mut self.rekey_sa, took)
        {
            let counters = &mut rekey_sa.counters;
            counters.retransmissions = counters.retransmissions.saturating_add(retransmissions);
            counters.last_push = Some(duration);
        }
        // The state no longer has its recipients.
        self.changed = true;
        let (mut unacknowledged, mut dropped) = (Members::default(), Members::default());
        let mut most_in_a_row = 0;
        for address in missing {
            match self.handle_missing(*address, now) {
                Some(Missed::Kept { name, in_a_row }) => {
                    unacknowledged.add(name);
                    most_in_a_row = most_in_a_row.max(in_a_row);
                }
                Some(Missed::Dropped { name }) => dropped.add(name),
                None => {}
            }
        }
        if unacknowledged.count > 0 {
            self.events.push_back(Event::Unacknowledged { members: unacknowledged, most_in_a_row });
        }
        if dropped.count > 0 {
            self.events.push_back(Event::Dropped { members: dropped });
        }
    }

    fn handle_missing(&mut self, address: IpAddr, now: BootTime) -> Option<Missed> {
        let rekey_sa = self.rekey_sa.as_mut()?;
        let registration = self.registry.missed(address)?;
        rekey_sa.counters.missing = rekey_sa.counters.missing.saturating_add(1);
        let (name, in_a_row) = (Arc::clone(&registration.name), registration.unacknowledged);
        // Who has never acknowledged may not know how (RFC 8263 §6).
        let droppable = rekey_sa.settings.drop_unresponsive_members
            && registration.last_acknowledgement.is_some();
        if !droppable || in_a_row < UNRESPONSIVE {
            return Some(Missed::Kept { name, in_a_row });
        }
        let (id, gone) = self.registry.remove_at(address)?;
        rekey_sa.counters.dropped = rekey_sa.counters.dropped.saturating_add(1);
        let abandoned = Abandoned { name: gone.name, leaf: gone.leaf };
        rekey_sa.abandoned.insert(id.clone(), abandoned);
        self.changed = true;
        // By multicast it may still hear new TEKs and send with its identifier.
        if !rekey_sa.is_multicast() {
            self.sender_ids.release(&id, self.teks.last_end(now));
        }
        Some(Missed::Dropped { name })
    }

    /// Sends a push to `audience`.
    pub(super) fn begin(
        &mut self,
        push: SealedPush,
        audience: Audience,
        purpose: &'static str,
    ) -> Pushed {
        self.begin_part(push, audience, purpose, true)
    }

    /// The same; without `supersedes`, what was sent before under the same KEK goes on.
    pub(super) fn begin_part(
        &mut self,
        push: SealedPush,
        audience: Audience,
        purpose: &'static str,
        supersedes: bool,
    ) -> Pushed {
        let Audience { recipients, policy, path } = audience;
        let sequence_number = push.sequence_number();
        let members = recipients.members.len();
        if let Some(rekey_sa) = &mut self.rekey_sa {
            rekey_sa.counters.pushes = rekey_sa.counters.pushes.saturating_add(1);
        }
        self.revise();
        self.dispatches.push_back(Dispatch { push, recipients, policy, path, supersedes });
        self.events.push_back(Event::Pushed { purpose, sequence_number, members });
        let sequence_number = Some(sequence_number);
        Pushed { sequence_number, members, unreached: self.tek_holders.len() }
    }

    /// A member that has just registered gets a push that was made while it did.
    pub(super) fn push_to_one(&mut self, push: SealedPush, ends: (SocketAddr, SocketAddr)) {
        let Some(rekey_sa) = &self.rekey_sa else { return };
        let ip = ends.1.ip();
        let leaf = self.registry.at(ip).and_then(|member| member.leaf);
        let leaf_key = leaf.and_then(|leaf| rekey_sa.kek()?.tree()?.leaf_key(leaf));
        let members = BTreeMap::from([(ip, leaf_key)]);
        let identities = self.registry.id_at(ip).and_then(translated).into_iter().collect();
        let destinations = vec![ends];
        // It comes right behind the keys, which may be lost on the way: one transmission is not
        // enough.
        let usual = rekey_sa.settings.delivery;
        self.dispatches.push_back(Dispatch {
            push,
            recipients: Recipients { destinations, members, identities, excused: false },
            policy: DeliveryPolicy { repetitions: usual.repetitions.max(LEAST_FOR_ONE), ..usual },
            path: rekey_sa.settings.path.clone(),
            supersedes: false,
        });
    }

    pub(super) fn recipients(&self) -> Recipients {
        self.recipients_with(|_| true)
    }

    /// The members whose leaf `is_meant`, and where pushes by multicast go.
    pub(super) fn recipients_with(&self, is_meant: impl Fn(Option<u16>) -> bool) -> Recipients {
        let mut recipients = Recipients::default();
        let Some(rekey_sa) = &self.rekey_sa else { return recipients };
        let tree = rekey_sa.kek().and_then(Kek::tree);
        for (id, member) in self.registry.iter().filter(|(_, member)| is_meant(member.leaf)) {
            let leaf_key = member.leaf.and_then(|leaf| tree?.leaf_key(leaf));
            recipients.members.insert(id.address, leaf_key);
            recipients.identities.extend(translated(id));
            if !rekey_sa.is_multicast() {
                recipients.destinations.push((member.local, member.address));
            }
        }
        if let Transport::Multicast { source, destination } = rekey_sa.settings.transport {
            recipients.destinations.push((source, destination));
        }
        recipients
    }
}

/// A member whose identity is another address than the one that it registered from: that is what
/// its acknowledgements name.
fn translated(id: &MemberId) -> Option<(IpAddr, IpAddr)> {
    match id.identity {
        Identity::Address(own) if own != id.address => Some((own, id.address)),
        _ => None,
    }
}
