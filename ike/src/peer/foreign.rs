//! Peers at one address: main mode shows only at its end whose ISAKMP SA it made.

use super::exchange::Quick;
use super::{Peer, PeerEvent};
use crate::config::Identity;
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

    /// Takes in the ISAKMP SA of this peer that another value answered for.
    pub fn take_over(&mut self, foreign: Foreign, now: BootTime) {
        let Foreign(session) = foreign;
        let established = PeerEvent::Established {
            identity: session.identity().clone(),
            transform: session.sa().transform(),
            cookies: session.cookies(),
            role: Role::Responder,
            restarted: session.sa().is_initial_contact(),
        };
        let cookies = session.cookies();
        self.endpoint.adopt(*session);
        self.contacted = true;
        self.sessions.push(cookies);
        self.detect(cookies, now);
        self.events.push_back(established);
        self.settle(Some(now));
    }
}
