//! Pushes on their way: to whom they go, what comes back, and who is silent (RFC 8263 §5, §6).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gdoi::BootTime;
use gdoi::crypto::Secret;
use gdoi::event::PushId;
use gdoi::group::GroupId;
use gdoi::lkh::KeyTree;
use gdoi::push::{DeliveryEvent, DeliveryPolicy, Recipients, SealedPush};

use crate::config::Transport;
use crate::kek::Kek;
use crate::keys::Entropy;
use crate::notice::Notice;
use crate::pushes::Pushed;
use crate::rekey::{GroupRekey, KEPT};
use crate::service::Service;

/// Pushes in a row without an acknowledgement after which a member may be dropped (RFC 8263 §6).
const SILENT: u64 = 3;
/// Repetitions of a push to a member that has just registered.
const LEAST_FOR_ONE: u32 = 2;

/// A push on its way.
#[derive(Debug)]
pub(crate) struct Delivered {
    group: GroupId,
    spi: [u8; 16],
}

impl<E: Entropy> Service<E> {
    /// After a restart: the last push under each KEK once more, with the octets that it had. Who has carried it out knows
    /// it again; who has not would wait in vain. Nobody is waited for: who registered after it does not answer to it.
    pub(crate) fn push_again(&mut self, index: usize, now: BootTime) {
        let recipients = || Recipients { members: BTreeMap::new(), ..self.recipients(index) };
        let Some(state) = self.groups.get(index) else { return };
        let Some(rekey) = &state.rekey else { return };
        let recent = rekey.retired.iter().filter(|retired| retired.at + KEPT > now);
        let retired = recent.map(|retired| &retired.last);
        let last = retired.chain(rekey.kek().and_then(Kek::last));
        let (group, policy) = (state.group.id, rekey.settings.delivery);
        let again: Vec<_> = last.map(|push| (push.duplicate(), recipients())).collect();
        for (push, recipients) in again {
            let spi = *push.spi();
            let id = self.server.push(push, recipients, policy, now);
            self.deliveries.insert(id, Delivered { group, spi });
        }
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
        let registered = self.registry.of_group(state.group.id).find(|(_, member)| member.address.ip() == ip);
        let leaf = registered.and_then(|(_, member)| member.leaf);
        let leaf_key = leaf.and_then(|leaf| rekey.kek()?.tree()?.leaf_key(leaf));
        let recipients = Recipients { destinations: vec![ends], members: BTreeMap::from([(ip, leaf_key)]) };
        let delivered = Delivered { group: state.group.id, spi: *push.spi() };
        // It comes right behind the keys, which may be lost on the way: one transmission is not enough.
        let usual = rekey.settings.delivery;
        let policy = DeliveryPolicy { repetitions: usual.repetitions.max(LEAST_FOR_ONE), ..usual };
        let id = self.server.push(push, recipients, policy, now);
        self.deliveries.insert(id, delivered);
    }

    pub(crate) fn handle_push_event(&mut self, push: PushId, event: DeliveryEvent, now: BootTime) {
        let Some(Delivered { group, .. }) = self.deliveries.get(&push) else { return };
        let group = *group;
        let index = self.index_of(group);
        match event {
            DeliveryEvent::Acknowledged(acknowledged) => {
                self.registry.acknowledged(group, acknowledged.address, now);
                if let Some(rekey) = self.rekey_mut(index) {
                    rekey.counters.acknowledgements = rekey.counters.acknowledgements.saturating_add(1);
                }
            }
            DeliveryEvent::Finished { missing } => {
                self.deliveries.remove(&push);
                for address in missing {
                    self.handle_silence(index, group, address, now);
                }
            }
        }
    }

    fn handle_silence(&mut self, index: Option<usize>, group: GroupId, address: IpAddr, now: BootTime) {
        let Some(state) = index.and_then(|index| self.groups.get_mut(index)) else { return };
        let Some(rekey) = &mut state.rekey else { return };
        let Some(registration) = self.registry.missed(group, address) else { return };
        rekey.counters.missing = rekey.counters.missing.saturating_add(1);
        let (name, member) = (Arc::clone(&state.name), Arc::clone(&registration.name));
        // Who has never acknowledged may not know how (RFC 8263 §6).
        let droppable = rekey.settings.drop_silent_members && registration.last_acknowledgement.is_some();
        if !droppable || registration.silent < SILENT {
            let pushes = registration.silent;
            self.notices.push_back(Notice::Silent { group: name, member, pushes });
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
        self.notices.push_back(Notice::Dropped { group: name, member });
    }

    /// Sends a push to all, in the place of what is still on its way under the same KEK: nobody who gets this one could
    /// use that any more.
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
        let superseded: Vec<PushId> =
            self.deliveries.iter().filter(|(_, other)| other.spi == spi).map(|(id, _)| *id).collect();
        for id in superseded {
            self.server.cancel_push(id);
            self.deliveries.remove(&id);
        }
        let Some(state) = self.groups.get_mut(index) else { return pushed };
        let Some(rekey) = &mut state.rekey else { return pushed };
        rekey.counters.pushes = rekey.counters.pushes.saturating_add(1);
        let id = self.server.push(push, recipients, rekey.settings.delivery, now);
        self.deliveries.insert(id, Delivered { group: state.group.id, spi });
        self.changed = true;
        let group = Arc::clone(&state.name);
        self.notices.push_back(Notice::Pushed { group, purpose, sequence_number, members });
        pushed
    }

    pub(crate) fn recipients(&self, index: usize) -> Recipients {
        let mut recipients = Recipients::default();
        let Some(state) = self.groups.get(index) else { return recipients };
        let Some(rekey) = &state.rekey else { return recipients };
        let tree = rekey.kek().and_then(Kek::tree);
        let leaf_key = |leaf: Option<u16>, tree: Option<&KeyTree>| -> Option<Secret> { tree?.leaf_key(leaf?) };
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

    fn rekey_mut(&mut self, index: Option<usize>) -> Option<&mut GroupRekey> {
        self.groups.get_mut(index?)?.rekey.as_mut()
    }
}
