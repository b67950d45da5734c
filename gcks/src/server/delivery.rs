//! Pushes of all groups on their way.

use gdoi::event::{PushId, Transmit};
use gdoi::group::GroupId;
use gdoi::push::{Delivery, DeliveryEvent, DeliveryPolicy};
use ike::BootTime;

use super::KeyServer;
use crate::config::MulticastPath;
use crate::group::Group;
use crate::group::delivery::{Dispatch, PushFigures};
use crate::group::key_generation::Entropy;
use crate::state::PendingDelivery;

/// Pushes under one KEK whose acknowledgements are still accepted when a later one has taken their
/// place.
const SUPERSEDED: usize = 4;

/// A push on its way.
#[derive(Debug)]
pub(super) struct Delivered {
    group: GroupId,
    spi: [u8; 16],
    policy: DeliveryPolicy,
    path: MulticastPath,
    /// Whether a restart would not send it by what else is stored; `None` until that is known.
    pending: Option<bool>,
}

impl<E: Entropy> KeyServer<E> {
    /// Sends a push and waits for its acknowledgements.
    pub(super) fn deliver(&mut self, group: GroupId, dispatch: Dispatch, now: BootTime) {
        let Dispatch { push, recipients, policy, path, supersedes } = dispatch;
        let spi = *push.spi();
        if supersedes {
            self.supersede(&spi, now);
        }
        self.deliveries.retain(|id, _| self.server.push_in_progress(*id).is_some());
        let id = self.server.push(push, recipients, policy, now);
        if supersedes {
            // A push to everybody takes the place of the one that the group keeps.
            self.forget_pending(group);
        }
        let pending = None;
        self.deliveries.insert(id, Delivered { group, spi, policy, path, pending });
        self.unsaved.changed = true;
    }

    /// A later push under the KEK `spi` takes the place of those on their way.
    fn supersede(&mut self, spi: &[u8; 16], now: BootTime) {
        let under_it =
            self.deliveries.iter().filter(|(_, other)| other.spi == *spi).map(|(id, _)| *id);
        let superseded: Vec<PushId> = under_it.collect();
        let forgotten = superseded.len().saturating_sub(SUPERSEDED);
        for (place, id) in superseded.into_iter().enumerate() {
            self.server.supersede_push(id, now);
            if place < forgotten {
                self.server.cancel_push(id);
                self.deliveries.remove(&id);
            }
        }
    }

    pub(super) fn handle_push_event(&mut self, push: PushId, event: DeliveryEvent, now: BootTime) {
        let Some(Delivered { group, .. }) = self.deliveries.get(&push) else { return };
        let group = self.groups.get_mut(group);
        let delivery = self.server.push_in_progress(push);
        let took = delivery.map(|delivery| PushFigures {
            duration: now.saturating_since(delivery.begun()),
            retransmissions: delivery.repeated(),
        });
        match event {
            DeliveryEvent::Acknowledged(acknowledged) => {
                if let Some(group) = group {
                    group.handle_acknowledged(&acknowledged, now);
                }
            }
            DeliveryEvent::Finished { missing } => {
                if let Some(group) = group {
                    group.handle_push_finished(&missing, took, now);
                }
                if !self.server.push_in_progress(push).is_some_and(Delivery::is_unsent) {
                    self.deliveries.remove(&push);
                }
                self.unsaved.changed = true;
            }
        }
    }

    /// Pushes on their way that a restart would not send again by itself: their recipients are no
    /// members any more.
    pub(super) fn pending(&self) -> Vec<PendingDelivery<'_>> {
        let running = self.deliveries.iter().filter_map(|(id, delivered)| {
            let delivery = self.server.push_in_progress(*id)?;
            let Delivered { group, policy, ref path, .. } = *delivered;
            let pending = PendingDelivery { group, policy, path, delivery };
            delivered.pending.unwrap_or_else(|| !self.is_resent(group, delivery)).then_some(pending)
        });
        running.collect()
    }

    /// Looks at each push on its way that is new, or whose recipients may have gone: looking costs
    /// as much as it has recipients.
    pub(super) fn find_pending(&mut self) {
        let moved = self.groups.values().filter(|group| group.registry().is_moved());
        let moved: Vec<GroupId> = moved.map(Group::id).chain(self.unsaved.gone.clone()).collect();
        moved.into_iter().for_each(|group| self.forget_pending(group));
        let unknown = self.deliveries.iter().filter(|(_, delivered)| delivered.pending.is_none());
        let found = unknown.filter_map(|(id, delivered)| {
            let delivery = self.server.push_in_progress(*id)?;
            Some((*id, !self.is_resent(delivered.group, delivery)))
        });
        let found: Vec<(PushId, bool)> = found.collect();
        for (id, pending) in found {
            if let Some(delivered) = self.deliveries.get_mut(&id) {
                delivered.pending = Some(pending);
            }
        }
    }

    fn forget_pending(&mut self, group: GroupId) {
        let of_group = self.deliveries.values_mut().filter(|delivered| delivered.group == group);
        of_group.for_each(|delivered| delivered.pending = None);
    }

    fn is_resent(&self, group: GroupId, delivery: &Delivery) -> bool {
        match self.groups.get(&group) {
            Some(group) => group.is_resent(delivery),
            None => delivery.destinations().next().is_none(),
        }
    }

    /// How a datagram leaves if it goes to a multicast group: as the group was configured when the
    /// KEK of its push was made.
    pub fn multicast_path(&self, transmit: &Transmit) -> MulticastPath {
        let ends = (transmit.source, transmit.destination);
        if !ends.1.ip().is_multicast() {
            return MulticastPath::default();
        }
        // The octets tell pushes to one multicast group apart whose paths differ.
        let meant = self.deliveries.iter().find(|(id, _)| {
            let delivery = self.server.push_in_progress(**id);
            delivery.is_some_and(|delivery| delivery.push().datagram() == transmit.payload)
        });
        meant.map(|(_, delivered)| delivered.path.clone()).unwrap_or_default()
    }
}
