//! Peers at one address: main mode shows only at its end whose ISAKMP SA it made.

use super::exchange::Quick;
use super::{Peer, PeerEvent};
use crate::config::Identity;
use crate::error::{Error, NotAccepted, PeerMisbehaved};
use crate::phase1::Role;
use crate::session::Session;
use crate::time::BootTime;

/// An ISAKMP SA that waits for the value that stands for its peer.
#[derive(Debug)]
pub struct Foreign(pub(super) Box<Session<Quick>>);

impl Foreign {
    /// The identity that its peer proved.
    pub fn identity(&self) -> &Identity {
        self.0.identity()
    }
}

impl Peer {
    /// The ISAKMP SA of another peer at the same address: main mode showed only at its end whose it
    /// is. For the peer that expects its identity; dropped, it is forgotten in silence.
    pub fn poll_foreign(&mut self) -> Option<Foreign> {
        self.foreign.pop_front()
    }

    /// Takes in the ISAKMP SA of this peer that another value answered for. Whoever calls this has
    /// made sure that the two differ in nothing that the peer was admitted by.
    ///
    /// # Errors
    /// It is forgotten: this value would not have accepted its identity, its credential or its
    /// transform, or every ISAKMP SA that could make room has exchanges under way.
    pub fn take_over(&mut self, foreign: Foreign, now: BootTime) -> Result<(), Error> {
        let Foreign(session) = foreign;
        if !self.config.expected_identity.covers(session.identity()) {
            let (expected, proved) =
                (self.config.expected_identity.clone(), session.identity().clone());
            return Err(PeerMisbehaved::WrongIdentity { expected, proved }.into());
        }
        let credential = session.credential().map(|proved| &proved.credential);
        if !self.config.identity_decides()
            || credential != Some(&self.config.credential)
            || !self.config.phase1.transforms.contains(&session.sa().transform())
        {
            return Err(NotAccepted::Unexpected.into());
        }
        let established = PeerEvent::Established {
            identity: session.identity().clone(),
            transform: session.sa().transform(),
            cookies: session.cookies(),
            role: Role::Responder,
            restarted: session.sa().is_initial_contact(),
        };
        let cookies = session.cookies();
        self.endpoint.take_in(*session)?;
        self.contacted = true;
        self.sessions.push(cookies);
        self.detect(cookies, now);
        self.events.push_back(established);
        self.settle(Some(now));
        Ok(())
    }
}
