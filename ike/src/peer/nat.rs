//! Address translation between us and the peer: where it may be heard from, where it is spoken to,
//! and what keeps the translation alive.

use core::net::SocketAddr;
use core::time::Duration;

use super::Peer;
use super::phase1::Attempt;
use crate::error::NotAccepted;
use crate::phase1::Cookies;
use crate::phase1::nat_traversal::{self, NatTraversal};
use crate::session::PeerAddress;
use crate::time::BootTime;
use crate::wire::header;

/// How often a translation is kept alive (RFC 3948 §4).
const KEEP_ALIVE: Duration = Duration::from_secs(20);

impl Peer {
    /// Whether a datagram that came to `local` names an exchange or an ISAKMP SA of this peer,
    /// wherever it came from. Nothing is proved by that.
    pub fn recognises(&self, local: SocketAddr, datagram: &[u8]) -> bool {
        let Some(message) = nat_traversal::message(local, datagram) else { return false };
        let Ok((header, _)) = header::split(message) else { return false };
        let cookies = Cookies::of(&header);
        self.attempt.as_ref().is_some_and(|attempt| attempt.is_meant(cookies))
            || self.endpoint.knows(&cookies)
    }

    /// Whether the peer may be at `source`: translation gives it any port before phase 1, and may
    /// give it another address afterwards.
    pub(super) fn check_source(
        &self,
        source: SocketAddr,
        cookies: &Cookies,
    ) -> Result<(), NotAccepted> {
        let remote = self.config.address.remote;
        let attempt = self.attempt.as_ref().filter(|attempt| attempt.is_meant(*cookies));
        if let Some(attempt) = attempt {
            return attempt.address().check(source);
        }
        let session = self.endpoint.session(cookies);
        let moves = session.is_some_and(|session| self.endpoint.may_move(session));
        let same =
            source.ip().to_canonical() == remote.ip().to_canonical() || self.config.is_anywhere();
        match self.config.nat {
            NatTraversal::Off => self.config.address.check(source),
            _ if same || moves => Ok(()),
            _ => Err(NotAccepted::WrongSource(source)),
        }
    }

    /// Where the peer of the exchange that `message` belongs to is.
    pub(super) fn place_of(&self, message: &[u8]) -> Option<PeerAddress> {
        let cookies = Cookies::of(&header::split(message).ok()?.0);
        let attempt = self.attempt.as_ref().filter(|attempt| attempt.is_meant(cookies));
        let session = self.endpoint.session(&cookies);
        attempt.map(Attempt::address).or(session.map(|session| session.address()))
    }

    /// Where main mode begins: where the newest ISAKMP SA is if translation moved that to port 4500,
    /// as a peer behind one cannot be reached elsewhere.
    pub(super) fn beginning(&self) -> PeerAddress {
        let newest = self.sessions.last().and_then(|cookies| self.endpoint.session(cookies));
        let anywhere = self.config.is_anywhere();
        let moved = newest.filter(|session| anywhere || session.sa().is_translated());
        moved.map_or(self.config.address, |session| session.address())
    }

    /// Whether the newest ISAKMP SA found this side behind a translation, and where the peer is.
    fn kept_alive(&self) -> Option<PeerAddress> {
        let session = self.endpoint.session(self.sessions.last()?)?;
        session.sa().nat().filter(|nat| nat.here).map(|_| session.address())
    }

    /// Sends what keeps a translation alive, if that is due (RFC 3948 §4).
    pub(super) fn keep_alive(&mut self, now: BootTime) {
        if self.keep_alive_at.is_some_and(|at| at <= now) {
            let address = self.kept_alive();
            let payload = nat_traversal::KEEP_ALIVE.to_vec();
            self.keep_alive = address.map(|address| address.transmit(payload));
            self.keep_alive_at = None;
        }
    }

    /// Takes up when the translation is to be kept alive, or gives it up.
    pub(super) fn plan_keep_alive(&mut self, now: Option<BootTime>) {
        self.keep_alive_at = match (self.kept_alive(), now) {
            (Some(_), Some(now)) => self.keep_alive_at.or(Some(now + KEEP_ALIVE)),
            (Some(_), None) => self.keep_alive_at,
            (None, _) => None,
        };
    }
}
