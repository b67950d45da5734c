//! Pushes on their way to members, and the acknowledgements that come back (RFC 6407 §4, RFC 8263).

use std::collections::{BTreeMap, VecDeque};

use core::net::SocketAddr;

use crate::error::{Error, NotAccepted};
use crate::event::{Deadline, PushId, Transmit};
use crate::push::ack::Claim;
use crate::push::{Delivery, DeliveryEvent};
use ike::time::BootTime;

/// Deliveries in progress, oldest first. A finished one is forgotten: what comes for it later is
/// unexpected.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    begun: u64,
    running: BTreeMap<PushId, Delivery>,
    events: VecDeque<(PushId, DeliveryEvent)>,
}

impl Pushes {
    pub(super) fn begin(&mut self, delivery: Delivery) -> PushId {
        self.begun = self.begun.saturating_add(1);
        let id = PushId(self.begun);
        self.running.insert(id, delivery);
        self.collect();
        id
    }

    /// Forgets a delivery: nothing more is sent, nobody is waited for.
    pub(super) fn cancel(&mut self, id: PushId) -> bool {
        self.running.remove(&id).is_some()
    }

    /// Stops sending; acknowledgements on their way still count.
    pub(super) fn supersede(&mut self, id: PushId, now: BootTime) {
        if let Some(delivery) = self.running.get_mut(&id) {
            delivery.supersede(now);
            self.collect();
        }
    }

    pub(super) fn get(&self, id: PushId) -> Option<&Delivery> {
        self.running.get(&id)
    }

    pub(super) fn handle_acknowledgement(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Error> {
        let claim = Claim::read(datagram)?.from_source(source.ip());
        // One push may be on its way twice: to all, and to a member that came later.
        let meant = self.running.values_mut().find(|delivery| delivery.expects(&claim));
        let result =
            meant.ok_or(NotAccepted::UnexpectedAcknowledgement)?.handle_acknowledgement(&claim);
        self.collect();
        result
    }

    pub(super) fn handle_timeout(&mut self, now: BootTime) {
        self.running.values_mut().for_each(|delivery| delivery.handle_timeout(now));
        self.collect();
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.running.values_mut().find_map(Delivery::poll_transmit);
        if transmit.is_none() {
            self.running.retain(|_, delivery| !delivery.is_finished());
        }
        transmit
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.running.values().filter_map(Delivery::poll_timeout).min()
    }

    pub(super) fn poll_event(&mut self) -> Option<(PushId, DeliveryEvent)> {
        self.events.pop_front()
    }

    fn collect(&mut self) {
        for (id, delivery) in &mut self.running {
            while let Some(event) = delivery.poll_event() {
                self.events.push_back((*id, event));
            }
        }
    }
}
