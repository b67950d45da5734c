//! Pushes on their way: to whom they go, what comes back, and who is silent (RFC 8263 §5, §6).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gdoi::BootTime;
use gdoi::crypto::Secret;
use gdoi::event::{PushId, Transmit};
use gdoi::group::GroupId;
use gdoi::lkh::KeyTree;
use gdoi::push::ack::Acknowledged;
use gdoi::push::{Delivery, DeliveryEvent, DeliveryPolicy, Recipients, SealedPush};

use crate::config::{MulticastPath, Transport};
use crate::group::event::Event;
use crate::group::kek::Kek;
use crate::group::key_generation::Entropy;
use crate::group::push::Pushed;
use crate::group::rekey_sa::{KEPT, RekeySa};
use crate::server::KeyServer;

/// Pushes in a row without an acknowledgement after which a member may be dropped (RFC 8263 §6).
const SILENT: u64 = 3;
/// Repetitions of a push to a member that has just registered.
const LEAST_FOR_ONE: u32 = 2;

/// Pushes under one KEK whose acknowledgements are still heard when a later one has taken their
/// place.
const HEARD: usize = 4;

/// A push on its way.
#[derive(Debug)]
pub(crate) struct Delivered {
    group: GroupId,
    spi: [u8; 16],
    policy: DeliveryPolicy,
}

impl<E: Entropy> KeyServer<E> {
    /// After a restart: the last push under each KEK once more, with the octets that it had. Who
    /// has carried it out knows it again; who has not would wait in vain. Nobody has to
    /// acknowledge: who registered after it does not answer to it.
    pub(crate) fn push_again(&mut self, index: usize, now: BootTime) {
        let Some(state) = self.groups.get(index) else { return };
        let Some(rekey) = &state.rekey else { return };
        let (group, policy) = (state.group.id, rekey.settings.delivery);
        let recipients = || Recipients { excused: true, ..self.recipients(index) };
        let recent = rekey.retired.iter().filter(|retired| retired.at + KEPT > now);
        let again: Vec<_> = recent
            .map(|retired| &retired.last)
            .chain(rekey.kek().and_then(Kek::last))
            .map(|push| (push.duplicate(), recipients()))
            .collect();
        for (push, recipients) in again {
            self.deliver(group, push, recipients, policy, now);
        }
    }

    /// Pushes on their way that a restart would not send again by itself: their recipients are no
    /// members any more.
    pub(crate) fn pending(&self) -> Vec<(GroupId, DeliveryPolicy, &Delivery)> {
        let running = self.deliveries.iter().filter_map(|(id, delivered)| {
            let delivery = self.server.push_in_progress(*id)?;
            Some((delivered.group, delivered.policy, delivery))
        });
        running.filter(|(group, _, delivery)| !self.is_sent_again(*group, delivery)).collect()
    }

    /// Whether a restart sends this push again, or nobody waits for it.
    fn is_sent_again(&self, group: GroupId, delivery: &Delivery) -> bool {
        let state = self.groups.iter().find(|state| state.group.id == group);
        let rekey = state.and_then(|state| state.rekey.as_ref());
        let kept = rekey.is_some_and(|rekey| {
            let retired = rekey.retired.iter().map(|retired| &retired.last);
            let mut kept = retired.chain(rekey.kek().and_then(Kek::last));
            kept.any(|push| push.datagram() == delivery.push().datagram())
        });
        let multicast = rekey
            .is_some_and(|rekey| matches!(rekey.settings.transport, Transport::Multicast { .. }));
        let mut destinations = delivery.destinations();
        destinations.all(|(_, to, _)| kept && (multicast || self.registry.is_at(group, to)))
    }

    /// Sends a push and waits for its acknowledgements.
    pub(crate) fn deliver(
        &mut self,
        group: GroupId,
        push: SealedPush,
        recipients: Recipients,
        policy: DeliveryPolicy,
        now: BootTime,
    ) {
        self.deliveries.retain(|id, _| self.server.push_in_progress(*id).is_some());
        let spi = *push.spi();
        let id = self.server.push(push, recipients, policy, now);
        self.deliveries.insert(id, Delivered { group, spi, policy });
    }

    /// A member that has just registered gets a push that was made while it did.
    pub(crate) fn push_to_one(
        &mut self,
        index: usize,
        push: SealedPush,
        ends: (SocketAddr, SocketAddr),
        now: BootTime,
    ) {
        let Some(state) = self.groups.get(index) else { return };
        let Some(rekey) = &state.rekey else { return };
        let ip = ends.1.ip();
        let registered =
            self.registry.of_group(state.group.id).find(|(_, member)| member.address.ip() == ip);
        let leaf = registered.and_then(|(_, member)| member.leaf);
        let leaf_key = leaf.and_then(|leaf| rekey.kek()?.tree()?.leaf_key(leaf));
        let members = BTreeMap::from([(ip, leaf_key)]);
        let recipients = Recipients { destinations: vec![ends], members, excused: false };
        let group = state.group.id;
        // It comes right behind the keys, which may be lost on the way: one transmission is not
        // enough.
        let usual = rekey.settings.delivery;
        let policy = DeliveryPolicy { repetitions: usual.repetitions.max(LEAST_FOR_ONE), ..usual };
        self.deliver(group, push, recipients, policy, now);
    }

    pub(crate) fn handle_push_event(&mut self, push: PushId, event: DeliveryEvent, now: BootTime) {
        let Some(Delivered { group, .. }) = self.deliveries.get(&push) else { return };
        let group = *group;
        let index = self.index_of(group);
        match event {
            DeliveryEvent::Acknowledged(acknowledged) => {
                let Acknowledged { address, spi, sequence_number, .. } = acknowledged;
                self.registry.acknowledged(group, (address, spi, sequence_number), now);
                if let Some(rekey) = self.rekey_mut(index) {
                    rekey.counters.acknowledgements =
                        rekey.counters.acknowledgements.saturating_add(1);
                }
            }
            DeliveryEvent::Finished { missing } => {
                if !self.server.push_in_progress(push).is_some_and(Delivery::is_unsent) {
                    self.deliveries.remove(&push);
                }
                // The state has its recipients no more.
                self.changed = true;
                for address in missing {
                    self.handle_silence(index, group, address, now);
                }
            }
        }
    }

    fn handle_silence(
        &mut self,
        index: Option<usize>,
        group: GroupId,
        address: IpAddr,
        now: BootTime,
    ) {
        let Some(state) = index.and_then(|index| self.groups.get_mut(index)) else { return };
        let Some(rekey) = &mut state.rekey else { return };
        let Some(registration) = self.registry.missed(group, address) else { return };
        rekey.counters.missing = rekey.counters.missing.saturating_add(1);
        let (name, member) = (Arc::clone(&state.name), Arc::clone(&registration.name));
        // Who has never acknowledged may not know how (RFC 8263 §6).
        let droppable =
            rekey.settings.drop_silent_members && registration.last_acknowledgement.is_some();
        if !droppable || registration.silent < SILENT {
            let pushes = registration.silent;
            self.events.push_back(Event::Silent { group: name, member, pushes });
            return;
        }
        let Some(gone) = self.registry.remove_at(group, address) else { return };
        rekey.counters.dropped = rekey.counters.dropped.saturating_add(1);
        rekey.abandoned.extend(gone.leaf);
        self.changed = true;
        // By multicast it may still hear new TEKs and send with its identifier.
        if let (Some(sender), Transport::Unicast) = (gone.sender, rekey.settings.transport) {
            state.senders.release(sender, state.schedule.last_end(now));
        }
        self.events.push_back(Event::Dropped { group: name, member });
    }

    /// Sends a push to all, in the place of what is still on its way under the same KEK: nobody who
    /// gets this one could use that any more.
    pub(crate) fn begin(
        &mut self,
        index: usize,
        push: SealedPush,
        recipients: Recipients,
        purpose: &'static str,
        now: BootTime,
    ) -> Pushed {
        let sequence_number = push.sequence_number();
        let spi = *push.spi();
        let members = recipients.members.len();
        let pushed = Pushed { sequence_number, members };
        let under_it =
            self.deliveries.iter().filter(|(_, other)| other.spi == spi).map(|(id, _)| *id);
        let superseded: Vec<PushId> = under_it.collect();
        let forgotten = superseded.len().saturating_sub(HEARD);
        for (place, id) in superseded.into_iter().enumerate() {
            self.server.supersede_push(id, now);
            if place < forgotten {
                self.server.cancel_push(id);
                self.deliveries.remove(&id);
            }
        }
        let Some(state) = self.groups.get_mut(index) else { return pushed };
        let Some(rekey) = &mut state.rekey else { return pushed };
        rekey.counters.pushes = rekey.counters.pushes.saturating_add(1);
        let (id, policy, group) =
            (state.group.id, rekey.settings.delivery, Arc::clone(&state.name));
        self.deliver(id, push, recipients, policy, now);
        self.changed = true;
        self.events.push_back(Event::Pushed { group, purpose, sequence_number, members });
        pushed
    }

    pub(crate) fn recipients(&self, index: usize) -> Recipients {
        let mut recipients = Recipients::default();
        let Some(state) = self.groups.get(index) else { return recipients };
        let Some(rekey) = &state.rekey else { return recipients };
        let tree = rekey.kek().and_then(Kek::tree);
        let leaf_key =
            |leaf: Option<u16>, tree: Option<&KeyTree>| -> Option<Secret> { tree?.leaf_key(leaf?) };
        for (_, member) in self.registry.of_group(state.group.id) {
            recipients.members.insert(member.address.ip(), leaf_key(member.leaf, tree));
            if rekey.settings.transport == Transport::Unicast {
                recipients.destinations.push((member.local, member.address));
            }
        }
        if let Transport::Multicast { source, destination } = rekey.settings.transport {
            recipients.destinations.push((source, destination));
        }
        recipients
    }

    /// On which path a datagram leaves if it goes to a multicast group: as the configuration says
    /// now, or as it said when the KEK was made.
    pub fn multicast_path(&self, transmit: &Transmit) -> MulticastPath {
        let ends = (transmit.source, transmit.destination);
        if !ends.1.ip().is_multicast() {
            return MulticastPath::default();
        }
        let configured = self.groups.iter().filter_map(|state| state.group.rekey.as_ref());
        let in_effect = self
            .groups
            .iter()
            .filter_map(|state| state.rekey.as_ref())
            .map(|rekey| &rekey.settings);
        let mut all = configured.chain(in_effect);
        let meant = all.find(|rekey| match rekey.transport {
            Transport::Multicast { source, destination } => (source, destination) == ends,
            Transport::Unicast => false,
        });
        meant.map(|rekey| rekey.path.clone()).unwrap_or_default()
    }

    fn rekey_mut(&mut self, index: Option<usize>) -> Option<&mut RekeySa> {
        self.groups.get_mut(index?)?.rekey.as_mut()
    }
}
