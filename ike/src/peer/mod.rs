//! All of IKEv1 with one peer under the IPsec DOI: main mode and Quick Mode in both roles, deletes
//! and notifications.
//!
//! ```text
//! negotiate -> ISAKMP SA? -+-> Quick Mode, initiator -> Prepared, Confirmed
//!                          +-> main mode, initiator, then the same
//! datagram  -> attempt of ours | endpoint (main mode, responder)
//!           -> session -> Quick Mode, responder -> Prepared; message 3 -> Confirmed
//!                      -> informational -> Deleted, Failed
//! ```
//!
//! Which SAs there should be, and when, is for the layer above: this value carries out what it is
//! told, answers what the peer asks for within the configuration, and says what came of both. SAs
//! outlive the ISAKMP SA that they were negotiated under (RFC 2409 §5.5).

mod config;
mod event;
mod exchange;
mod foreign;
mod informational;
mod nat;
mod phase1;
mod private_use;
mod quick_mode;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use core::net::SocketAddr;

pub use config::{ChildConfig, PeerConfig};
pub use event::{ChildFailure, PeerEvent, Phase1Failure};
pub use foreign::Foreign;
pub use private_use::{FIRST_EXCHANGE, PrivateBody, QuestionId, RequestId};

use crate::config::{Credential, Identity};
use crate::crypto::SeededRng;
use crate::dead_peer_detection::DeadPeerDetection;
use crate::endpoint::{Endpoint, EndpointEvent, unprotected};
use crate::error::{Error, NotAccepted};
use crate::event::{Deadline, Timer, Transmit};
use crate::fragmentation::{self, Reassembly};
use crate::phase1::Cookies;
use crate::phase1::nat_traversal;
use crate::quick::QUICK_MODE;
use crate::time::{BootTime, WallClock};
use crate::wire::header;
use crate::wire::registry::{ExchangeType, Flags, NotifyType, PayloadKind};
use crate::wire::vendor::VendorId;
use exchange::Quick;
use phase1::Attempt;
use private_use::PrivateExchanges;

/// Phase 1, Quick Mode, dead peer detection and deletes with one peer.
///
/// After every `handle_*` and every command, drain `poll_event`, put what it says into the kernel,
/// then drain `poll_transmit`: what is received on belongs there before the message leaves that
/// lets the peer send. Then read `poll_timeout`. `now` must never go back.
#[derive(Debug)]
pub struct Peer {
    config: PeerConfig,
    rng: SeededRng,
    endpoint: Endpoint<Quick>,
    /// ISAKMP SAs, the newest last.
    sessions: Vec<Cookies>,
    detection: BTreeMap<Cookies, DeadPeerDetection>,
    wall_clock: WallClock,
    reassembly: Reassembly,
    /// The rest of a message that leaves in fragments, and how many have.
    pieces: VecDeque<Transmit>,
    messages_sent: u16,
    /// When a translation has to be kept alive next, and the datagram that does it.
    keep_alive_at: Option<BootTime>,
    keep_alive: Option<Transmit>,
    /// Main mode that we began.
    attempt: Option<Attempt>,
    /// What is negotiated as soon as there is an ISAKMP SA.
    wanted: BTreeSet<usize>,
    /// Exchanges under way, by name.
    running: BTreeSet<u64>,
    exchanges: u64,
    private: PrivateExchanges,
    /// Message 3 of our aggressive mode, until the peer says something under its ISAKMP SA: nothing
    /// answers that message.
    last_word: Option<(Cookies, Vec<u8>)>,
    /// ISAKMP SAs of other peers.
    foreign: VecDeque<Foreign>,
    /// Whether the peer has heard of us since we started.
    contacted: bool,
    transmits: VecDeque<Transmit>,
    events: VecDeque<PeerEvent>,
}

impl Peer {
    /// A peer that nothing has been said to. `seed` must come from the operating system's generator
    /// and be used once.
    pub fn new(config: PeerConfig, seed: [u8; 32]) -> Self {
        let mut rng = SeededRng::from_seed(seed);
        let endpoint = Endpoint::new(config.endpoint(), rng.array());
        Self {
            config,
            rng,
            endpoint,
            sessions: Vec::new(),
            detection: BTreeMap::new(),
            wall_clock: WallClock::default(),
            reassembly: Reassembly::default(),
            pieces: VecDeque::new(),
            messages_sent: 0,
            keep_alive_at: None,
            keep_alive: None,
            attempt: None,
            wanted: BTreeSet::new(),
            running: BTreeSet::new(),
            exchanges: 0,
            private: PrivateExchanges::default(),
            last_word: None,
            foreign: VecDeque::new(),
            contacted: false,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// What it was made with.
    pub fn config(&self) -> &PeerConfig {
        &self.config
    }

    /// What time it is from now on, for certificates.
    pub fn set_wall_clock(&mut self, wall_clock: WallClock) {
        self.wall_clock = wall_clock;
        self.endpoint.set_wall_clock(wall_clock);
    }

    /// The identity that we prove from now on. Changes nothing that is under way.
    pub fn set_identity(&mut self, identity: Identity) {
        self.config.identity = identity;
    }

    /// Proves our identity and the peer's in another way from now on. ISAKMP SAs that the peer
    /// proved itself for in the old way end; SAs stay. What is under way is begun again.
    pub fn set_credential(&mut self, credential: Credential, now: BootTime) {
        let authentication = credential.authentication();
        self.config.phase1 = self.config.phase1.clone().authenticated_by(authentication);
        self.config.credential = credential;
        self.endpoint.reconfigure(self.config.endpoint());
        if self.attempt.take().is_some() {
            self.begin_main_mode(now);
        }
        self.settle(Some(now));
    }

    /// Whether `source` is where the peer is.
    pub fn expects(&self, source: SocketAddr) -> bool {
        source == self.config.address.remote
    }

    /// How many ISAKMP SAs there are.
    pub fn established(&self) -> usize {
        self.endpoint.established()
    }

    /// The addresses of the newest ISAKMP SA, itself, and when it ends.
    pub fn newest_sa(
        &self,
    ) -> Option<(crate::session::PeerAddress, &crate::phase1::IsakmpSa, BootTime)> {
        let session = self.endpoint.session(self.sessions.last()?)?;
        Some((session.address(), session.sa(), session.expires()))
    }

    /// The newest ISAKMP SA: its cookies, what was negotiated, and when it ends.
    pub fn isakmp_sa(&self) -> Option<(Cookies, crate::config::Phase1Transform, BootTime)> {
        let session = self.endpoint.session(self.sessions.last()?)?;
        Some((session.cookies(), session.sa().transform(), session.expires()))
    }

    /// The newest ISAKMP SA with its keys, for tests that speak under it.
    #[cfg(any(test, feature = "testing"))]
    pub fn keyed_sa(&self) -> Option<&crate::phase1::IsakmpSa> {
        Some(self.endpoint.session(self.sessions.last()?)?.sa())
    }

    /// When an ISAKMP SA should take the place of the newest one: this long before its end, and not
    /// before three quarters of its lifetime are over.
    pub fn renewal(&self, margin: core::time::Duration) -> Option<BootTime> {
        let session = self.endpoint.session(self.sessions.last()?)?;
        Some(session.expires() - margin.min(session.sa().lifetime() / 4))
    }

    /// Whether the peer stated this vendor ID in the phase 1 of this ISAKMP SA.
    pub fn states(&self, cookies: &Cookies, vendor_id: &VendorId) -> bool {
        let session = self.endpoint.session(cookies);
        session.is_some_and(|session| session.sa().peer_vendor_ids().contains(vendor_id))
    }

    /// Whether main mode of ours is under way.
    pub fn is_connecting(&self) -> bool {
        self.attempt.is_some()
    }

    /// Negotiates SAs for the child at this position of the configuration, and an ISAKMP SA before
    /// that if there is none. Asked again while that is under way, nothing more happens.
    pub fn negotiate(&mut self, child: usize, now: BootTime) {
        if self.wanted.contains(&child) || self.is_negotiating(child) {
            return;
        }
        match self.usable(now) {
            Some(cookies) => self.begin_quick_mode(&cookies, child, now),
            None => {
                self.wanted.insert(child);
                self.begin_main_mode(now);
            }
        }
    }

    /// Begins main mode unless it is under way: an ISAKMP SA in the place of one that ends soon.
    /// SAs stay as they are.
    pub fn connect(&mut self, now: BootTime) {
        self.begin_main_mode(now);
    }

    /// Tells the peer that nothing is received any more on these SPIs of ours, if there is an
    /// ISAKMP SA to say it under.
    pub fn delete(&mut self, spis: &[u32], now: BootTime) {
        if let Some(cookies) = self.usable(now).filter(|_| !spis.is_empty()) {
            self.say_delete(&cookies, spis);
        }
    }

    /// Ends every ISAKMP SA and what is under way, telling the peer.
    pub fn disconnect(&mut self) {
        self.attempt = None;
        self.wanted.clear();
        self.running.clear();
        for cookies in core::mem::take(&mut self.sessions) {
            self.endpoint.delete(&cookies);
        }
        self.settle(None);
    }

    /// A datagram arrived from `source` at `local`.
    ///
    /// # Errors
    /// The datagram is discarded and the state unchanged.
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        if nat_traversal::is_keep_alive(local, datagram) {
            return Ok(());
        }
        let message = nat_traversal::message(local, datagram).ok_or(NotAccepted::Unexpected)?;
        self.handle_message(source, local, message, now)
    }

    fn handle_message(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        let (header, _) = header::split(datagram)?;
        let cookies = Cookies::of(&header);
        self.check_source(source, &cookies)?;
        if header.next_payload == PayloadKind::FRAGMENT {
            return self.handle_fragment(cookies, source, local, datagram, now);
        }
        if self.attempt.as_ref().is_some_and(|attempt| attempt.is_meant(cookies)) {
            return self.handle_answer(&header, datagram, now);
        }
        let inbound = self.endpoint.admit(source, local, datagram, now)?;
        // Whether it was news.
        let handled = match header.exchange {
            ExchangeType::INFORMATIONAL if header.flags.contains(Flags::ENCRYPTION) => {
                self.handle_informational(cookies, header.message_id, inbound).map(|()| true)
            }
            ExchangeType::INFORMATIONAL => Err(unprotected(datagram)),
            ExchangeType(FIRST_EXCHANGE..) => {
                self.handle_private_use(cookies, header.message_id, inbound)
            }
            QUICK_MODE => self.handle_quick_mode(cookies, header.message_id, inbound),
            _ if header.exchange.0 < 5 => self.endpoint.handle(inbound).map(|_| false),
            _ => self.endpoint.handle(inbound).and_then(|other| match other {
                // Under an ISAKMP SA that there was before, main mode has only copies.
                None => Ok(false),
                Some(_) => Err(NotAccepted::Unexpected.into()),
            }),
        };
        if handled == Ok(true) {
            self.last_word.take_if(|(of, _)| *of == cookies);
        }
        if handled == Ok(true)
            && let Some(detection) = self.detection.get_mut(&cookies)
        {
            detection.handle_traffic(now);
        }
        self.settle(Some(now));
        handled.map(drop)
    }

    /// A piece of a message of an exchange that is under way.
    fn handle_fragment(
        &mut self,
        cookies: Cookies,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        let ours = self.attempt.as_ref().is_some_and(|attempt| attempt.is_meant(cookies));
        if !ours && !self.endpoint.is_under_way(&cookies) {
            return Err(NotAccepted::UnknownCookies.into());
        }
        let Some(message) = self.reassembly.handle(datagram, now)? else { return Ok(()) };
        let (header, _) = header::split(&message)?;
        // Nothing is in pieces twice.
        if header.next_payload == PayloadKind::FRAGMENT || Cookies::of(&header) != cookies {
            return Err(NotAccepted::Unexpected.into());
        }
        self.handle_message(source, local, &message, now)
    }

    /// The network said that the peer cannot be reached: anybody can say that, and it only shortens
    /// the wait of main mode.
    pub fn handle_unreachable(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.handle_unreachable();
        }
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        self.keep_alive(now);
        self.repeat_main_mode(now);
        self.repeat_quick_modes(now);
        self.repeat_private_requests(now);
        self.ask_peer(now);
        for expired in self.endpoint.handle_timeout(now) {
            self.forget(expired.exchange);
        }
        self.settle(Some(now));
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let attempt = self.attempt.as_ref().map(Attempt::at);
        let exchanges = self.running.iter().filter_map(|id| self.quick(*id)?.repeats_at());
        let repetition = attempt.into_iter().chain(exchanges).chain(self.private.at()).min();
        let questions = self.detection.values().filter_map(DeadPeerDetection::poll_timeout);
        let repetition = repetition.into_iter().chain(questions).chain(self.keep_alive_at).min();
        let repetition = repetition.map(|at| Deadline { at, why: Timer::Retransmission });
        repetition.into_iter().chain(self.endpoint.poll_timeout()).min()
    }

    fn repeat_last_word(&mut self, cookies: &Cookies) {
        let meant = self.last_word.as_ref().filter(|(of, _)| of == cookies);
        if let Some((_, message)) = meant.cloned() {
            self.transmit(message);
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(keep_alive) = self.keep_alive.take() {
            return Some(keep_alive);
        }
        let message = self.next_message()?;
        let payload = nat_traversal::wrap(message.source, message.payload);
        Some(Transmit { payload, ..message })
    }

    fn next_message(&mut self) -> Option<Transmit> {
        if let Some(piece) = self.pieces.pop_front() {
            return Some(piece);
        }
        let transmit = self.transmits.pop_front()?;
        if !self.understands_fragments(&transmit.payload) {
            return Some(transmit);
        }
        self.messages_sent = self.messages_sent.wrapping_add(1).max(1);
        let Ok(pieces) = fragmentation::datagrams(transmit.payload.clone(), self.messages_sent)
        else {
            return Some(transmit);
        };
        let pieces = pieces.into_iter();
        self.pieces = pieces.map(|payload| Transmit { payload, ..transmit.clone() }).collect();
        self.pieces.pop_front()
    }

    /// Whether the peer of the exchange that `message` belongs to has said so.
    fn understands_fragments(&self, message: &[u8]) -> bool {
        let Ok((header, _)) = header::split(message) else { return false };
        let cookies = Cookies::of(&header);
        let session = self.endpoint.session(&cookies);
        let attempt = self.attempt.as_ref().filter(|attempt| attempt.is_meant(cookies));
        session.is_some_and(|session| fragmentation::is_understood(session.sa().peer_vendor_ids()))
            || attempt
                .is_some_and(|attempt| fragmentation::is_understood(attempt.peer_vendor_ids()))
    }

    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    fn quick(&self, id: u64) -> Option<&Quick> {
        let (cookies, message_id) = self.endpoint.find(id)?;
        self.endpoint.session(&cookies)?.exchanges().get(&message_id)
    }

    fn is_negotiating(&self, child: usize) -> bool {
        self.running.iter().filter_map(|id| self.quick(*id)).any(|quick| quick.asks_for(child))
    }

    /// The newest ISAKMP SA that lasts long enough for an exchange.
    fn usable(&self, now: BootTime) -> Option<Cookies> {
        let lasts = |cookies: &&Cookies| {
            let session = self.endpoint.session(cookies);
            session.is_some_and(|session| session.expires() > now + exchange::TIME)
        };
        self.sessions.iter().rev().find(lasts).copied()
    }

    fn transmit(&mut self, payload: Vec<u8>) {
        let address = self.place_of(&payload).unwrap_or(self.config.address);
        self.transmits.push_back(address.transmit(payload));
    }

    /// Sends a protected notification.
    fn notify(&mut self, cookies: &Cookies, kind: NotifyType) {
        self.endpoint.notify(cookies, kind);
    }

    /// Takes over what the endpoint says. Without a time nothing new is begun.
    fn settle(&mut self, now: Option<BootTime>) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                EndpointEvent::Established { identity, transform, cookies, .. } => {
                    if self.config.identity_decides()
                        && !self.config.expected_identity.covers(&identity)
                    {
                        let session = self.endpoint.release(&cookies).map(Box::new);
                        self.foreign.extend(session.map(Foreign));
                        continue;
                    }
                    let session = self.endpoint.session(&cookies);
                    let restarted =
                        session.is_some_and(|session| session.sa().is_initial_contact());
                    self.contacted = true;
                    self.sessions.push(cookies);
                    if let Some(now) = now {
                        self.detect(cookies, now);
                    }
                    let role = crate::phase1::Role::Responder;
                    let established =
                        PeerEvent::Established { identity, transform, cookies, role, restarted };
                    self.events.push_back(established);
                }
                EndpointEvent::Moved { cookies, from, to } => {
                    self.events.push_back(PeerEvent::Moved { cookies, from, to });
                }
                EndpointEvent::Ended { session, cause } => {
                    let cookies = session.cookies();
                    self.sessions.retain(|other| *other != cookies);
                    self.detection.remove(&cookies);
                    self.lose(&session);
                    let lost = self.private.end(&cookies).into_iter();
                    let lost = lost.map(|request| PeerEvent::RequestLost { request });
                    self.events.extend(lost);
                    self.events.push_back(PeerEvent::Ended { cookies, cause });
                }
            }
        }
        self.plan_keep_alive(now);
        if let Some((cookies, now)) = now.and_then(|now| Some((self.usable(now)?, now))) {
            for child in core::mem::take(&mut self.wanted) {
                self.begin_quick_mode(&cookies, child, now);
            }
        }
        while let Some(transmit) = self.endpoint.poll_transmit() {
            self.transmits.push_back(transmit);
        }
    }
}
