//! The channel between two servers: an ISAKMP SA that is kept up, and messages under it.
//!
//! Both servers may begin phase 1; two ISAKMP SAs at once are harmless. A peer that does not state
//! our vendor ID is not spoken to. Requests are repeated until they are answered, and lost when the
//! ISAKMP SA ends: what is still wanted then is for the layer above, which hears of both.

mod answer;
mod config;
mod event;
mod request;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use ike::config::Credential;
use ike::crypto::{Secret, SeededRng};
use ike::error::Error;
use ike::event::Transmit;
use ike::peer::{Peer, PeerEvent, PrivateBody, QuestionId, RequestId};
use ike::phase1::IsakmpSa;
use ike::session::PeerAddress;
use ike::wire::registry::ExchangeType;
use ike::{BootTime, WallClock};

pub use config::LinkConfig;
pub use event::{LinkEvent, Question, Ticket};

use crate::error::MessageError;
use crate::message::{
    Assembly, CLUSTER_INIT, CLUSTER_NOTICE, CLUSTER_UPDATE, Content, Message, PAYLOAD, Part, split,
};
use crate::vendor::vendor_id;

/// How long before its end another ISAKMP SA takes the place of one.
const RENEWAL: Duration = Duration::from_secs(300);

/// How often an ISAKMP SA is tried by the side that needs it, and by the other one.
const RECONNECT: Duration = Duration::from_secs(5);
const RECONNECT_OTHER: Duration = Duration::from_secs(30);

/// Figures of the channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStatistics {
    pub requests_sent: u64,
    pub requests_received: u64,
    pub answers_received: u64,
    pub requests_lost: u64,
    pub messages_refused: u64,
    pub deaths: u64,
}

/// A request on its way.
#[derive(Debug)]
struct Outgoing {
    ticket: Ticket,
    exchange: ExchangeType,
    /// Parts that are to follow.
    parts: VecDeque<Part>,
    /// A long answer as it comes.
    answer: Option<Assembly>,
}

/// The channel to one server.
///
/// After every `handle_*` and every command, drain `poll_event` and `poll_transmit`, then read
/// `poll_timeout`. `now` must never go back.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    peer: Peer,
    /// Which of the addresses the peer is at.
    place: usize,
    /// When a datagram from another address was followed there.
    followed_at: Option<BootTime>,
    rng: SeededRng,
    wall_clock: WallClock,
    tickets: u64,
    serial: u32,
    outgoing: BTreeMap<RequestId, Outgoing>,
    /// A long request as it comes.
    incoming: Option<(Assembly, Option<QuestionId>)>,
    /// Requests of the peer that wait for our answer.
    open: BTreeMap<QuestionId, ExchangeType>,
    /// A long answer that is asked for part by part.
    answer: Option<Vec<Part>>,
    is_up: bool,
    /// Since when there has been no ISAKMP SA, while the peer is not called dead.
    lost_since: Option<BootTime>,
    connect_at: BootTime,
    events: VecDeque<LinkEvent>,
    statistics: LinkStatistics,
}

impl Link {
    /// A channel that nothing has been said on. `seed` must come from the operating system's
    /// generator and be used once.
    pub fn new(config: LinkConfig, seed: [u8; 32], now: BootTime) -> Self {
        let mut rng = SeededRng::from_seed(seed);
        let peer = Peer::new(config.peer(0, vendor_id()), rng.array());
        Self {
            peer,
            place: 0,
            followed_at: None,
            wall_clock: WallClock::default(),
            tickets: 0,
            serial: u32::from_be_bytes(rng.array()) >> 1,
            rng,
            outgoing: BTreeMap::new(),
            incoming: None,
            open: BTreeMap::new(),
            answer: None,
            is_up: false,
            lost_since: None,
            connect_at: now,
            events: VecDeque::new(),
            statistics: LinkStatistics::default(),
            config,
        }
    }

    /// What it was made with.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Whether `source` is where the server may be.
    pub fn expects(&self, source: SocketAddr) -> bool {
        self.config.addresses().any(|address| address.remote == source)
    }

    /// Where the server is, or is tried now.
    pub fn remote(&self) -> SocketAddr {
        self.config.addresses().nth(self.place).unwrap_or(self.config.address).remote
    }

    /// What time it is from now on, for certificates.
    pub fn set_wall_clock(&mut self, wall_clock: WallClock) {
        self.wall_clock = wall_clock;
        self.peer.set_wall_clock(wall_clock);
    }

    /// Proves our identity and the server's in this way from now on.
    pub fn set_credential(&mut self, credential: Credential, now: BootTime) {
        if self.config.credential != credential {
            self.config.credential = credential.clone();
            self.peer.set_credential(credential, now);
            self.settle(now);
        }
    }

    /// Whether there is an ISAKMP SA.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    pub fn statistics(&self) -> LinkStatistics {
        self.statistics
    }

    /// Counts from 0 again.
    pub fn clear_statistics(&mut self) {
        self.statistics = LinkStatistics::default();
    }

    /// The addresses of the newest ISAKMP SA, itself, and when it ends.
    pub fn isakmp_sa(&self) -> Option<(PeerAddress, &IsakmpSa, BootTime)> {
        self.peer.newest_sa()
    }

    /// Sends a request; `None` without an ISAKMP SA. It is repeated every `period`.
    ///
    /// # Errors
    /// The message does not fit.
    pub fn send(
        &mut self,
        message: &Message,
        period: Duration,
        now: BootTime,
    ) -> Result<Option<Ticket>, Error> {
        let exchange = match message.content {
            Content::Ask(_) | Content::NextPart(_) => CLUSTER_INIT,
            Content::Notice(_) => CLUSTER_NOTICE,
            _ => CLUSTER_UPDATE,
        };
        let octets = message.encode()?;
        self.serial = self.serial.wrapping_add(1);
        let mut parts: VecDeque<Part> = split(self.serial, &octets).into();
        let first = match parts.pop_front() {
            Some(part) => Message::new(message.group, part).encode()?,
            None => octets,
        };
        self.tickets = self.tickets.saturating_add(1);
        let ticket = Ticket(self.tickets);
        let outgoing = Outgoing { ticket, exchange, parts, answer: None };
        let sent = self.ask(first, outgoing, period, now)?;
        self.statistics.requests_sent += u64::from(sent);
        Ok(sent.then_some(ticket))
    }

    /// Stops repeating a request; no event follows.
    pub fn cancel(&mut self, ticket: Ticket) {
        for (request, _) in self.outgoing.extract_if(.., |_, outgoing| outgoing.ticket == ticket) {
            self.peer.cancel(request);
        }
    }

    /// Answers [`LinkEvent::Asked`]. Without an answer the peer repeats its request, and it is
    /// told again.
    ///
    /// # Errors
    /// The message does not fit.
    pub fn answer(
        &mut self,
        question: Question,
        message: &Message,
        now: BootTime,
    ) -> Result<(), Error> {
        let octets = message.encode()?;
        self.serial = self.serial.wrapping_add(1);
        let parts = split(self.serial, &octets);
        let octets = match parts.first() {
            Some(Part { serial, number, count, octets }) => {
                let (serial, number, count) = (*serial, *number, *count);
                let part = Part { serial, number, count, octets: octets.duplicate() };
                Message::new(message.group, part).encode()?
            }
            None => octets,
        };
        if !parts.is_empty() {
            self.answer = Some(parts);
        }
        self.reply(question.0, octets, now)
    }

    /// Ends every ISAKMP SA, tells the peer, and begins phase 1 again.
    pub fn reconnect(&mut self, now: BootTime) {
        self.peer.disconnect();
        self.connect_at = now;
        self.settle(now);
    }

    /// Ends every ISAKMP SA and tells the peer: the server is to be no peer any more.
    pub fn close(&mut self) {
        self.peer.disconnect();
        self.is_up = false;
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
        if !self.peer.expects(source) && self.peer.established() == 0 {
            // Another machine is active now, and has begun. Who forges that disturbs little.
            let place = self.config.addresses().position(|address| address.remote == source);
            let may_move = self.followed_at.is_none_or(|at| at + RECONNECT <= now);
            if let Some(place) = place.filter(|_| may_move) {
                self.followed_at = Some(now);
                self.move_to(place);
            }
        }
        let result = self.peer.handle_datagram(source, local, datagram, now);
        self.settle(now);
        result
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        self.peer.handle_timeout(now);
        self.settle(now);
        let renew = self.peer.renewal(RENEWAL).is_some_and(|at| at <= now);
        let is_due = self.connect_at <= now && (self.peer.established() == 0 || renew);
        if is_due && !self.peer.is_connecting() {
            self.connect_at = now + if self.config.begins { RECONNECT } else { RECONNECT_OTHER };
            self.peer.connect(now);
            self.settle(now);
        }
        if self.lost_since.is_some_and(|since| since + self.config.time_to_live() <= now) {
            self.bury(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        let peer = self.peer.poll_timeout().map(|deadline| deadline.at);
        let renewal = self.peer.renewal(RENEWAL).map(|at| at.max(self.connect_at));
        let connect = (self.peer.established() == 0).then_some(self.connect_at).or(renewal);
        let connect = connect.filter(|_| !self.peer.is_connecting());
        let death = self.lost_since.map(|since| since + self.config.time_to_live());
        [peer, connect, death].into_iter().flatten().min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.peer.poll_transmit()
    }

    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    fn ask(
        &mut self,
        octets: Secret,
        outgoing: Outgoing,
        period: Duration,
        now: BootTime,
    ) -> Result<bool, Error> {
        let body = PrivateBody { kind: PAYLOAD, octets };
        let Some(request) = self.peer.ask(outgoing.exchange, &body, period, now)? else {
            return Ok(false);
        };
        self.outgoing.insert(request, outgoing);
        Ok(true)
    }

    fn reply(&mut self, question: QuestionId, octets: Secret, now: BootTime) -> Result<(), Error> {
        self.open.remove(&question);
        let body = PrivateBody { kind: PAYLOAD, octets };
        self.peer.answer_question(question, &body, now).map(drop)
    }

    /// The server is tried at another of its addresses.
    fn move_on(&mut self, now: BootTime) {
        let count = self.config.addresses().count();
        if count > 1 && self.peer.established() == 0 {
            self.move_to(self.place.wrapping_add(1).checked_rem(count).unwrap_or(0));
            self.connect_at = now;
        }
    }

    /// Requests on their way are lost there, and nothing else is.
    fn move_to(&mut self, place: usize) {
        self.place = place;
        self.peer = Peer::new(self.config.peer(place, vendor_id()), self.rng.array());
        self.peer.set_wall_clock(self.wall_clock);
        (self.incoming, self.answer) = (None, None);
        self.open.clear();
        for Outgoing { ticket, .. } in std::mem::take(&mut self.outgoing).into_values() {
            self.lose(ticket);
        }
    }

    fn settle(&mut self, now: BootTime) {
        while let Some(event) = self.peer.poll_event() {
            match event {
                PeerEvent::Established { cookies, restarted, .. } => {
                    if self.peer.states(&cookies, &vendor_id()) {
                        self.lost_since = None;
                        if !std::mem::replace(&mut self.is_up, true) {
                            self.events.push_back(LinkEvent::Up);
                        }
                        if restarted {
                            self.events.push_back(LinkEvent::Restarted);
                        }
                    } else {
                        self.peer.disconnect();
                        self.events.push_back(LinkEvent::NotAServer);
                    }
                }
                PeerEvent::Phase1Failed(failure) => {
                    self.events.push_back(LinkEvent::Phase1Failed(failure));
                    self.move_on(now);
                }
                PeerEvent::Ended { .. } if self.is_up && self.peer.established() == 0 => {
                    self.is_up = false;
                    self.lost_since = Some(now);
                    self.connect_at = self.connect_at.min(now + RECONNECT);
                    self.events.push_back(LinkEvent::Down);
                }
                PeerEvent::Dead => self.bury(now),
                PeerEvent::Asked { question, kind, body, .. } => {
                    if let Err(error) = self.handle_request(question, kind, &body, now) {
                        self.refuse(error);
                    }
                }
                PeerEvent::Answered { request, body } => {
                    if let Some(outgoing) = self.outgoing.remove(&request)
                        && let Err(error) = self.handle_answer(outgoing, &body, now)
                    {
                        self.refuse(error);
                    }
                }
                PeerEvent::RequestLost { request } => {
                    if let Some(Outgoing { ticket, .. }) = self.outgoing.remove(&request) {
                        self.lose(ticket);
                    }
                }
                // There are no SAs of phase 2.
                _ => {}
            }
        }
    }

    fn bury(&mut self, now: BootTime) {
        self.lost_since = None;
        self.is_up = self.peer.established() > 0;
        self.statistics.deaths += 1;
        self.events.push_back(LinkEvent::Dead);
        self.move_on(now);
    }

    fn lose(&mut self, ticket: Ticket) {
        self.statistics.requests_lost += 1;
        self.events.push_back(LinkEvent::Lost { ticket });
    }

    fn refuse(&mut self, error: MessageError) {
        self.statistics.messages_refused += 1;
        self.events.push_back(LinkEvent::Refused(error));
    }
}
