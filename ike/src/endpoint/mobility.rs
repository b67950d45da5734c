//! Where the peers of ISAKMP SAs are heard, and where they go.

use core::net::SocketAddr;

use super::{Endpoint, EndpointEvent, Inbound, PeerMobility};
use crate::error::NotAccepted;
use crate::phase1::{Cookies, HashVerified};
use crate::session::{Exchange, Session};

impl<X: Exchange> Endpoint<X> {
    /// The session with this cookie pair, if a message of its peer can come from `source`: with
    /// [`PeerMobility::Follow`] perhaps from anywhere, and [`follow`](Self::follow) says it was authentic.
    ///
    /// # Errors
    /// There is none, or its peer is elsewhere.
    pub fn session_at(
        &mut self,
        cookies: &Cookies,
        source: SocketAddr,
    ) -> Result<&mut Session<X>, NotAccepted> {
        let session = self.sessions.get(cookies).ok_or(NotAccepted::UnknownCookies)?;
        if !self.may_move(session) {
            session.address().check(source)?;
        }
        self.sessions.get_mut(cookies).ok_or(NotAccepted::UnknownCookies)
    }

    /// Whether the peer of `session` may change its address.
    pub(crate) fn may_move(&self, session: &Session<X>) -> bool {
        match self.config.mobility {
            PeerMobility::Fixed => false,
            PeerMobility::Follow => true,
            PeerMobility::Translated => session.sa().is_translated(),
        }
    }

    /// The peer that `proof` vouches for said something by `inbound` that was not heard before:
    /// answers go where that came from. Without [`PeerMobility::Follow`] nothing changes, as
    /// nothing is heard from elsewhere.
    pub fn follow(&mut self, proof: &HashVerified, inbound: &Inbound<'_>) {
        let cookies = proof.cookies();
        if self.sessions.get(&cookies).is_some_and(|session| self.may_move(session))
            && let Some(from) = self.sessions.follow(&cookies, proof, inbound.address())
        {
            let to = inbound.address();
            self.events.push_back(EndpointEvent::Moved { cookies, from, to });
        }
    }
}
