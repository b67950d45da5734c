//! An endpoint that answers: phase 1 as responder (RFC 2409 §5.4) for many peers, and the sessions
//! that come of it.
//!
//! ```text
//! source -> credential -> header -> cookies -+-> half-open exchange -> main mode
//!                                            +-> session -> informational, or (DOI, exchange type)
//! ```
//!
//! Every step that costs more than the one before is behind a check: strangers without a credential
//! cost a look-up, strangers with a credential a bounded piece of memory, and only who repeats our
//! cookie costs arithmetic. Who offers what a peer has proved before costs no memory either.
//!
//! What an exchange of phase 2 means, the protocol above decides, by the domain of interpretation
//! of the ISAKMP SA and the exchange type: Quick Mode and GROUPKEY-PULL share a number.

mod aggressive;
mod computation;
mod config;
mod credentials;
mod half_open;
mod informational;
mod main_mode;
mod mobility;
mod reconfiguration;
mod sessions;
mod stateless_cookie;
mod statistics;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use core::net::{IpAddr, SocketAddr};

use crate::config::{Identity, Phase1Transform};
use crate::crypto::SeededRng;
use crate::dead_peer_detection::Mode;
use crate::error::{Error, NotAccepted, PeerIncompatible};
use crate::event::{Deadline, Timer, Transmit};
use crate::phase1::Cookies;
use crate::retransmission::Copy;
use crate::session::{Exchange, PeerAddress, Session};
use crate::time::{BootTime, WallClock};
use crate::wire::header::{self, Header};
use crate::wire::registry::{Doi, ExchangeType, Flags};
use computation::Outstanding;
use credentials::Credentials;
use half_open::HalfOpenTable;
use sessions::Sessions;
use stateless_cookie::ProvedOffers;

pub use computation::{Arithmetic, Computation, Computed};
pub use config::{EndpointConfig, Limits, PeerMobility};
pub use informational::unprotected;
pub use statistics::Statistics;

/// What happened at an endpoint.
#[derive(Debug)]
pub enum EndpointEvent<X> {
    /// A peer has proved its identity.
    Established {
        address: PeerAddress,
        identity: Identity,
        transform: Phase1Transform,
        cookies: Cookies,
    },
    /// A peer is at another address, by an authentic message from there.
    Moved {
        /// The cookie pair of its ISAKMP SA.
        cookies: Cookies,
        from: PeerAddress,
        to: PeerAddress,
    },
    /// An ISAKMP SA is gone, with the exchanges under it.
    Ended { session: Box<Session<X>>, cause: SessionEnd },
}

/// Why an ISAKMP SA is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// Its time is over, or we ended it.
    Here,
    /// The peer deleted it (authenticated).
    DeletedByPeer,
    /// The peer has lost it and said so (INITIAL-CONTACT).
    PeerRestarted,
}

/// An exchange whose time is over.
#[derive(Debug)]
pub struct Expired<X> {
    /// Where its peer is.
    pub address: PeerAddress,
    /// The identity that the peer proved.
    pub identity: Identity,
    pub exchange: X,
}

/// A datagram on its way through the stages, with what the ones before found out.
#[derive(Clone, Copy, Debug)]
pub struct Inbound<'a> {
    /// Where it came from.
    pub source: SocketAddr,
    /// Our address that it came to.
    pub local: SocketAddr,
    pub datagram: &'a [u8],
    pub header: Header,
    pub now: BootTime,
}

impl Inbound<'_> {
    fn address(&self) -> PeerAddress {
        PeerAddress { remote: self.source, local: self.local }
    }
}

/// Phase 1 as responder, and all sessions. `X` is an exchange of the protocol above.
///
/// After every `handle_*` and every command, drain `poll_transmit`, `poll_event` and
/// `poll_computation`, then read `poll_timeout`. `now` must never go back.
#[derive(Debug)]
pub struct Endpoint<X: Exchange> {
    config: EndpointConfig,
    credentials: Credentials,
    rng: SeededRng,
    half_open: HalfOpenTable,
    offers: ProvedOffers,
    sessions: Sessions<X>,
    wall_clock: WallClock,
    arithmetic: Arithmetic,
    computations: VecDeque<Computation>,
    outstanding: Outstanding,
    transmits: VecDeque<Transmit>,
    events: VecDeque<EndpointEvent<X>>,
    statistics: Statistics,
}

impl<X: Exchange> Endpoint<X> {
    /// An endpoint without any peer. `seed` must come from the operating system's generator and be
    /// used once.
    pub fn new(config: EndpointConfig, seed: [u8; 32]) -> Self {
        let mut rng = SeededRng::from_seed(seed);
        Self {
            credentials: Credentials::new(config.peers.clone()),
            offers: ProvedOffers::new(config.limits.half_open_timeout, &mut rng),
            rng,
            half_open: HalfOpenTable::new(&config),
            sessions: Sessions::new(config.limits),
            wall_clock: WallClock::default(),
            arithmetic: Arithmetic::default(),
            computations: VecDeque::new(),
            outstanding: Outstanding::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            statistics: Statistics::default(),
            config,
        }
    }

    /// Who has ISAKMP SAs, by address and by the identity that it proved.
    pub fn peers(&self) -> impl Iterator<Item = (SocketAddr, &Identity)> {
        self.sessions.iter().map(|session| (session.address().remote, session.identity()))
    }

    /// Every peer with its ISAKMP SA.
    pub fn sessions(&self) -> impl Iterator<Item = &Session<X>> {
        self.sessions.iter()
    }

    /// Gives a session away; no event follows.
    pub(crate) fn release(&mut self, cookies: &Cookies) -> Option<Session<X>> {
        self.sessions.remove(cookies)
    }

    /// Takes in a session whose ISAKMP SA we began. No event follows.
    pub fn adopt(&mut self, session: Session<X>) {
        self.statistics.phase1_established += 1;
        self.insert(session);
    }

    /// Takes in a session whose ISAKMP SA another endpoint answered for, within the bounds of this
    /// one. No event follows.
    ///
    /// # Errors
    /// [`NotAccepted::EstablishedLimit`]: no session is idle that could make room.
    pub(crate) fn take_in(&mut self, session: Session<X>) -> Result<(), NotAccepted> {
        let address = session.address().remote.ip();
        if let Some(oldest) = self.sessions.to_replace(session.identity(), address)? {
            self.delete(&oldest);
        }
        self.adopt(session);
        Ok(())
    }

    fn insert(&mut self, session: Session<X>) {
        let detects = Mode::AnswerOnly.vendor_ids();
        let detects = detects.iter().any(|id| self.config.vendor_ids.contains(id));
        self.sessions.insert(match detects {
            true => session.with_dead_peer_detection(),
            false => session,
        });
    }

    /// What time it is from now on, for certificates.
    pub fn set_wall_clock(&mut self, wall_clock: WallClock) {
        self.wall_clock = wall_clock;
    }

    /// Where arithmetic is done from now on.
    pub fn set_arithmetic(&mut self, arithmetic: Arithmetic) {
        self.arithmetic = arithmetic;
    }

    /// Peers with the offer of main mode that each has proved: with them, nobody who forges message
    /// 1 in a peer's name can keep that peer out. For [`remember_offer`](Self::remember_offer)
    /// after a restart.
    pub fn proved_offers(&self) -> impl Iterator<Item = (IpAddr, &[u8])> {
        self.offers.iter()
    }

    /// The offer that the peer at `source` has proved.
    pub fn proved_offer(&self, source: IpAddr) -> Option<&[u8]> {
        self.offers.of(source)
    }

    /// The peer at `source` proved earlier that it makes this offer.
    pub fn remember_offer(&mut self, source: IpAddr, offer: &[u8]) {
        self.offers.prove(source, offer, self.config.limits.established);
    }

    /// The first stages: a source with a credential, or one where the peer of an ISAKMP SA may have
    /// gone, and a header.
    ///
    /// # Errors
    /// Nobody who may be at `source` has a credential, or the octets are no message.
    pub fn admit<'a>(
        &self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &'a [u8],
        now: BootTime,
    ) -> Result<Inbound<'a>, Error> {
        let known = self.credentials.find(source.ip()).is_some();
        if !known && self.config.mobility == PeerMobility::Fixed {
            return Err(NotAccepted::UnknownSource(source).into());
        }
        let (header, _) = header::split(datagram)?;
        let session = self.sessions.get(&Cookies::of(&header));
        if !known && !session.is_some_and(|session| self.may_move(session)) {
            return Err(NotAccepted::UnknownSource(source).into());
        }
        Ok(Inbound { source, local, datagram, header, now })
    }

    /// Phase 1 and Informational exchanges. For a message of another exchange under an ISAKMP SA,
    /// the answer is the domain of interpretation that says, with the exchange type, what it is.
    ///
    /// # Errors
    /// The datagram is discarded and the state unchanged.
    pub fn handle(&mut self, inbound: Inbound<'_>) -> Result<Option<Doi>, Error> {
        match inbound.header.exchange {
            ExchangeType::IDENTITY_PROTECTION => self.handle_main_mode(inbound).map(|()| None),
            ExchangeType::AGGRESSIVE if self.config.aggressive => {
                self.handle_aggressive(inbound).map(|()| None)
            }
            ExchangeType::INFORMATIONAL if inbound.header.flags.contains(Flags::ENCRYPTION) => {
                self.handle_informational(inbound).map(|()| None)
            }
            ExchangeType::INFORMATIONAL => Err(unprotected(inbound.datagram)),
            other if other.0 < FIRST_OF_DOI => Err(PeerIncompatible::ExchangeType(other.0).into()),
            _ => {
                let cookies = Cookies::of(&inbound.header);
                self.ask_for_proof(&inbound);
                Ok(Some(self.session_at(&cookies, inbound.source)?.sa().doi()))
            }
        }
    }

    /// A computation has been done. Its result counts if its exchange still waits for it.
    ///
    /// # Errors
    /// The peer's public value is unusable, or the exchange has ended.
    pub fn handle_computed(&mut self, computed: Computed, now: BootTime) -> Result<(), Error> {
        self.finish_key_exchange(computed, now)
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not. Returns
    /// exchanges whose time is over: what the session of each is called, as it may end now, too.
    pub fn handle_timeout(&mut self, now: BootTime) -> Vec<Expired<X>> {
        while self.half_open.expire(now).is_some() {
            self.statistics.half_open_expired += 1;
        }
        let mut expired = Vec::new();
        while let Some((_, timer, cookies, message_id)) =
            self.sessions.next_due().filter(|due| due.0 <= now)
        {
            match timer {
                Timer::IsakmpLifetime => self.end(&cookies, SessionEnd::Here),
                _ => expired.extend(self.expire(&cookies, message_id)),
            }
        }
        expired
    }

    fn expire(&mut self, cookies: &Cookies, message_id: u32) -> Option<Expired<X>> {
        let exchange = self.sessions.take(cookies, message_id)?;
        let session = self.sessions.get(cookies)?;
        Some(Expired { address: session.address(), identity: session.identity().clone(), exchange })
    }

    /// Ends every ISAKMP SA of `identity`, telling the peers by protected Deletes. Returns how many
    /// there were.
    pub fn delete_identity(&mut self, identity: &Identity) -> usize {
        let all = self.sessions.of_identity(identity);
        all.iter().for_each(|cookies| self.delete(cookies));
        all.len()
    }

    /// Ends every ISAKMP SA with a peer that `is_meant` names by its address and identity, telling
    /// the peers by protected Deletes. Returns who had them.
    pub fn delete_peers(
        &mut self,
        is_meant: impl Fn(SocketAddr, &Identity) -> bool,
    ) -> Vec<SocketAddr> {
        let is_meant =
            |session: &Session<X>| is_meant(session.address().remote, session.identity());
        let meant = self.sessions.find_all(is_meant);
        self.delete_sessions(&meant)
    }

    fn delete_sessions(&mut self, all: &[Cookies]) -> Vec<SocketAddr> {
        let peers = all.iter().filter_map(|cookies| {
            let peer = self.sessions.get(cookies)?.address().remote;
            self.delete(cookies);
            Some(peer)
        });
        peers.collect()
    }

    /// The session with this cookie pair.
    pub fn session(&self, cookies: &Cookies) -> Option<&Session<X>> {
        self.sessions.get(cookies)
    }

    /// Whether there is a half-open exchange or a session with this cookie pair.
    pub(crate) fn knows(&self, cookies: &Cookies) -> bool {
        self.half_open.has(cookies) || self.sessions.get(cookies).is_some()
    }

    /// Whether there is a half-open exchange behind message 3, or a session, with this cookie pair.
    pub(crate) fn is_under_way(&self, cookies: &Cookies) -> bool {
        self.half_open.expects_proof(cookies) || self.sessions.get(cookies).is_some()
    }

    /// The session with this cookie pair, and randomness for what is said under it.
    pub fn session_and_rng(
        &mut self,
        cookies: &Cookies,
    ) -> Option<(&mut Session<X>, &mut SeededRng)> {
        Some((self.sessions.get_mut(cookies)?, &mut self.rng))
    }

    /// Where the exchange `id` is.
    pub fn find(&self, id: X::Id) -> Option<(Cookies, u32)> {
        self.sessions.find(id)
    }

    /// Puts `exchange` in the place of the one with this message identifier.
    pub fn put(&mut self, cookies: &Cookies, message_id: u32, exchange: X) {
        self.sessions.put(cookies, message_id, exchange);
    }

    pub fn take(&mut self, cookies: &Cookies, message_id: u32) -> Option<X> {
        self.sessions.take(cookies, message_id)
    }

    /// Sends `payload` to a peer.
    pub fn transmit(&mut self, address: PeerAddress, payload: Vec<u8>) {
        self.statistics.datagrams_sent += 1;
        self.transmits.push_back(address.transmit(payload));
    }

    /// Sends an answer again.
    pub fn repeat(&mut self, address: PeerAddress, answer: Vec<u8>) {
        self.statistics.duplicates_answered += 1;
        self.transmit(address, answer);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next computation to run, with [`Arithmetic::HandedOut`]. Its result goes to
    /// [`handle_computed`](Self::handle_computed).
    pub fn poll_computation(&mut self) -> Option<Computation> {
        self.computations.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let half_open =
            self.half_open.next_deadline().map(|at| Deadline { at, why: Timer::HalfOpen });
        let sessions = self.sessions.next_due().map(|(at, why, ..)| Deadline { at, why });
        half_open.into_iter().chain(sessions).min()
    }

    pub fn poll_event(&mut self) -> Option<EndpointEvent<X>> {
        self.events.pop_front()
    }

    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Counts from 0 again.
    pub fn clear_statistics(&mut self) {
        self.statistics = Statistics::default();
    }

    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// Established ISAKMP SAs now.
    pub fn established(&self) -> usize {
        self.sessions.len()
    }

    /// Exchanges in progress under ISAKMP SAs now.
    pub fn running(&self) -> usize {
        self.sessions.running()
    }
}

/// The answer to repeat, if the datagram is a copy.
///
/// # Errors
/// It is a copy that gets no further answer.
pub fn answer_of(copy: Copy<'_>) -> Result<Option<Vec<u8>>, NotAccepted> {
    match copy {
        Copy::No => Ok(None),
        Copy::Unanswered => Err(NotAccepted::Replayed),
        Copy::Answer(answer) => Ok(Some(answer.to_vec())),
    }
}

/// Exchange types from here on belong to the domain of interpretation (RFC 2408 §3.1).
const FIRST_OF_DOI: u8 = 32;
