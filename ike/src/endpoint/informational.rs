//! Informational exchanges of an endpoint: notifications and Deletes, with and without protection.

use super::{Endpoint, EndpointEvent, Inbound, SessionEnd};
use crate::error::{Error, NotAccepted};
use crate::phase1::Cookies;
use crate::session::Exchange;
use crate::wire::header;
use crate::wire::notify::Notification;
use crate::wire::registry::NotifyType;
use crate::wire::{RawPayload, chain};

impl<X: Exchange> Endpoint<X> {
    /// Sends a protected notification and returns it.
    pub fn notify(&mut self, cookies: &Cookies, kind: NotifyType) -> Option<Vec<u8>> {
        let session = self.sessions.get_mut(cookies)?;
        let (notification, address) = (session.sa().notification(kind), session.address());
        let message = session.notify(notification, &mut self.rng).ok()?;
        self.transmit(address, message.clone());
        Some(message)
    }

    /// A protected Informational message: only a Delete of the ISAKMP SA has a consequence.
    pub(super) fn handle_informational(&mut self, inbound: Inbound<'_>) -> Result<(), Error> {
        let cookies = Cookies::of(&inbound.header);
        let session = self.session_at(&cookies, inbound.source)?;
        let (said, proof) =
            session.open_informational(inbound.header.message_id, inbound.datagram)?;
        let deleted = session.is_deleted_by(&said);
        self.follow(&proof, &inbound);
        if deleted {
            self.end(&cookies, SessionEnd::DeletedByPeer);
        }
        Ok(())
    }

    /// Ends an ISAKMP SA and tells the peer by a protected Delete.
    pub fn delete(&mut self, cookies: &Cookies) {
        let Some(session) = self.sessions.get_mut(cookies) else { return };
        let address = session.address();
        if let Ok(payload) = session.seal_delete(&mut self.rng) {
            self.transmit(address, payload);
        }
        self.end(cookies, SessionEnd::Here);
    }

    /// Ends an ISAKMP SA in silence.
    pub(crate) fn end(&mut self, cookies: &Cookies, cause: SessionEnd) {
        if let Some(session) = self.sessions.remove(cookies) {
            let session = Box::new(session);
            self.events.push_back(EndpointEvent::Ended { session, cause });
        }
    }
}

/// A message that nobody vouches for: a hint, whatever it says.
pub fn unprotected(datagram: &[u8]) -> Error {
    let payloads = header::split(datagram)
        .and_then(|(header, body)| chain::walk_clear(header.next_payload, body, header::LENGTH));
    match payloads {
        Ok(chain) => {
            let notification = |raw: &RawPayload<'_>| raw.read::<Notification>().ok();
            match chain.payloads.iter().find_map(notification) {
                Some(notification) => NotAccepted::UnprotectedNotify(notification.kind).into(),
                None => NotAccepted::Unexpected.into(),
            }
        }
        Err(error) => error.into(),
    }
}
