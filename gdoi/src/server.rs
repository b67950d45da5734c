//! A key server's endpoint: main mode as responder (RFC 2409 §5.4) and GROUPKEY-PULL as key server
//! (RFC 6407 §3), for many peers.
//!
//! ```text
//! source -> credential -> header -> cookies -+-> half-open exchange -> main mode
//!                                            +-> peer -> pull, or informational
//! ```
//!
//! Every step that costs more than the one before is behind a check: strangers without a credential
//! cost a look-up, strangers with a credential a bounded piece of memory, and only who repeats our
//! cookie costs arithmetic. Who offers what a peer has proved before costs no memory either.

mod credentials;
mod half_open;
mod main_mode;
mod offers;
mod peer;
mod peers;
mod pull;
mod pushes;
mod statistics;

use std::collections::VecDeque;

use core::net::{IpAddr, SocketAddr};

use crate::config::{Identity, ServerConfig};
use crate::crypto::SeededRng;
use crate::error::Error;
use crate::event::{
    Deadline, PullAbort, PullId, PullRefusal, PushId, ServerEvent, Timer, Transmit,
};
use crate::group::GroupSa;
use crate::phase1::{Cookies, Informational};
use crate::push::{Delivery, DeliveryEvent, DeliveryPolicy, Recipients, SealedPush};
use crate::time::BootTime;
use crate::wire::header::{self, Header};
use crate::wire::notify::Notification;
use crate::wire::registry::{ExchangeType, Flags, GROUPKEY_PULL, GROUPKEY_PUSH_ACK};
use crate::wire::{RawPayload, chain};
use credentials::Credentials;
use half_open::HalfOpenTable;
use ike::error::{NotAccepted, PeerIncompatible};
use offers::Offers;
use peer::Peer;
use peers::Peers;
use pushes::Pushes;

pub use statistics::ServerStatistics;

/// All exchanges of one key server.
///
/// After every `handle_*` and every wish, drain `poll_transmit` and `poll_event`, then read
/// `poll_timeout`. `now` must never go back.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    credentials: Credentials,
    rng: SeededRng,
    half_open: HalfOpenTable,
    offers: Offers,
    peers: Peers,
    pulls_begun: u64,
    peers_born: u64,
    pushes: Pushes,
    transmits: VecDeque<Transmit>,
    events: VecDeque<ServerEvent>,
    statistics: ServerStatistics,
}

/// A datagram on its way through the stages, with what the ones before found out.
#[derive(Clone, Copy)]
struct Inbound<'a> {
    source: SocketAddr,
    local: SocketAddr,
    datagram: &'a [u8],
    header: Header,
    now: BootTime,
}

impl Server {
    /// A key server without any peer. `seed` must come from the operating system's generator and be
    /// used once.
    pub fn new(config: ServerConfig, seed: [u8; 32]) -> Self {
        let mut rng = SeededRng::from_seed(seed);
        Self {
            credentials: Credentials::new(config.peers.clone()),
            offers: Offers::new(config.limits.half_open_timeout, &mut rng),
            rng,
            half_open: HalfOpenTable::new(config.limits),
            peers: Peers::new(config.limits),
            pulls_begun: 0,
            peers_born: 0,
            pushes: Pushes::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            statistics: ServerStatistics::default(),
            config,
        }
    }

    /// What the server was made with.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Takes over another configuration. Exchanges and ISAKMP SAs that there are go on as they
    /// began: see [`delete_peer`](Self::delete_peer) and [`delete_peers`](Self::delete_peers).
    pub fn reconfigure(&mut self, config: ServerConfig) {
        self.credentials = Credentials::new(config.peers.clone());
        self.half_open.limit(config.limits);
        self.peers.limit(config.limits);
        self.config = config;
    }

    /// Peers with the offer of main mode that each has proved: with them, nobody who forges message
    /// 1 in a peer's name can keep that peer out. For [`remember_offer`](Self::remember_offer)
    /// after a restart.
    pub fn proved_offers(&self) -> impl Iterator<Item = (IpAddr, &[u8])> {
        self.offers.iter()
    }

    /// The peer at `source` proved earlier that it makes this offer.
    pub fn remember_offer(&mut self, source: IpAddr, offer: &[u8]) {
        self.offers.prove(source, offer, self.config.limits.established);
    }

    /// A datagram arrived from `source` at our address `local`.
    ///
    /// # Errors
    /// The datagram is discarded, counted by [`Error::reason`] in the statistics, and the state
    /// unchanged.
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        self.statistics.datagrams_received += 1;
        let result = self.dispatch(source, local, datagram, now);
        if let Err(error) = &result {
            *self.statistics.discards.entry(error.reason()).or_default() += 1;
        }
        self.measure();
        result
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        self.pushes.handle_timeout(now);
        while self.half_open.expire(now).is_some() {
            self.statistics.half_open_expired += 1;
        }
        while let Some((at, timer, cookies, message_id)) =
            self.peers.next_due().filter(|due| due.0 <= now)
        {
            match timer {
                ike::event::Timer::IsakmpLifetime => {
                    self.remove_peer(&cookies);
                }
                _ => self.expire_pull(&cookies, message_id),
            }
            debug_assert!(
                self.peers.next_due() != Some((at, timer, cookies, message_id)),
                "what was due is done"
            );
        }
        self.measure();
    }

    /// Answers [`ServerEvent::PullRequested`]: the peer may have the group. The policy goes out in
    /// message 2 now, the keys in message 4 once message 3 is valid.
    ///
    /// # Errors
    /// No pull waits for this answer (it may have timed out), the group is another one, or the
    /// group SA lacks keys or does not fit into a datagram; in all but the first case the pull
    /// still waits.
    pub fn answer_pull(&mut self, pull: PullId, sa: GroupSa, now: BootTime) -> Result<(), Error> {
        let result = self.give_policy(pull, &sa, now);
        self.measure();
        result
    }

    /// Refuses a pull, by a protected notification or in silence.
    ///
    /// # Errors
    /// No pull waits for this answer.
    pub fn refuse_pull(
        &mut self,
        pull: PullId,
        refusal: PullRefusal,
        now: BootTime,
    ) -> Result<(), Error> {
        let result = self.refuse_policy(pull, refusal, now);
        self.measure();
        result
    }

    /// Ends every ISAKMP SA of `identity`, telling the peers by protected Deletes. Returns how many
    /// there were.
    pub fn delete_peer(&mut self, identity: &Identity, _now: BootTime) -> usize {
        let all = self.peers.of_identity(identity);
        for cookies in &all {
            self.delete_isakmp_sa(cookies);
        }
        self.measure();
        all.len()
    }

    /// Ends every ISAKMP SA, telling the peers by protected Deletes. Returns how many there were.
    pub fn delete_peers(&mut self) -> usize {
        let all = self.peers.all();
        for cookies in &all {
            self.delete_isakmp_sa(cookies);
        }
        self.measure();
        all.len()
    }

    /// Sends a push to members, again and again as `policy` says, and waits for their
    /// acknowledgements. What becomes of it, [`poll_push_event`](Self::poll_push_event) tells.
    pub fn push(
        &mut self,
        push: SealedPush,
        recipients: Recipients,
        policy: DeliveryPolicy,
        now: BootTime,
    ) -> PushId {
        self.pushes.begin(Delivery::new(push, recipients, policy, now))
    }

    /// Stops a push. Returns whether it was still on its way; no event follows.
    pub fn cancel_push(&mut self, push: PushId) -> bool {
        self.pushes.cancel(push)
    }

    /// Stops sending a push because a later one says all that it says. Its acknowledgements still
    /// count while they may be on their way, and nobody is called missing.
    pub fn supersede_push(&mut self, push: PushId, now: BootTime) {
        self.pushes.supersede(push, now);
    }

    /// A push on its way.
    pub fn push_in_progress(&self, push: PushId) -> Option<&Delivery> {
        self.pushes.get(push)
    }

    /// What happened to a push next.
    pub fn poll_push_event(&mut self) -> Option<(PushId, DeliveryEvent)> {
        self.pushes.poll_event()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(transmit) = self.transmits.pop_front() {
            return Some(transmit);
        }
        let transmit = self.pushes.poll_transmit()?;
        self.statistics.datagrams_sent += 1;
        Some(transmit)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let half_open = self
            .half_open
            .next_deadline()
            .map(|at| Deadline { at, why: Timer::Ike(ike::event::Timer::HalfOpen) });
        let peers =
            self.peers.next_due().map(|(at, why, ..)| Deadline { at, why: Timer::Ike(why) });
        half_open.into_iter().chain(peers).chain(self.pushes.poll_timeout()).min()
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// Figures since start.
    pub fn statistics(&self) -> &ServerStatistics {
        &self.statistics
    }

    fn dispatch(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        if self.credentials.find(source.ip()).is_none() {
            return Err(NotAccepted::UnknownSource(source).into());
        }
        let (header, body) = header::split(datagram)?;
        let inbound = Inbound { source, local, datagram, header, now };
        match header.exchange {
            ExchangeType::IDENTITY_PROTECTION => self.handle_main_mode(inbound),
            GROUPKEY_PULL => self.handle_pull(inbound),
            GROUPKEY_PUSH_ACK => self.pushes.handle_acknowledgement(datagram),
            ExchangeType::INFORMATIONAL if header.flags.contains(Flags::ENCRYPTION) => {
                self.handle_informational(inbound)
            }
            ExchangeType::INFORMATIONAL => Err(unprotected(&header, body)),
            other => Err(PeerIncompatible::ExchangeType(other.0).into()),
        }
    }

    /// A protected Informational message: only a Delete of the ISAKMP SA has a consequence.
    fn handle_informational(&mut self, inbound: Inbound<'_>) -> Result<(), Error> {
        let cookies = Cookies::of(&inbound.header);
        let peer = self.peer(&cookies, inbound.source)?;
        let said = peer.open_informational(inbound.header.message_id, inbound.datagram)?;
        let sa = &peer.sa;
        if said
            .iter()
            .any(|said| matches!(said, Informational::Delete(delete) if sa.is_deleted_by(delete)))
            && let Some(peer) = self.remove_peer(&cookies)
        {
            let identity = peer.identity().clone();
            self.events.push_back(ServerEvent::PeerDeleted { peer: peer.source, identity });
        }
        Ok(())
    }

    /// The peer with this cookie pair, if `source` is where it is.
    fn peer(&mut self, cookies: &Cookies, source: SocketAddr) -> Result<&mut Peer, NotAccepted> {
        match self.peers.get_mut(cookies) {
            Some(peer) if peer.source == source => Ok(peer),
            Some(_) => Err(NotAccepted::WrongSource(source)),
            None => Err(NotAccepted::UnknownCookies),
        }
    }

    /// Ends an ISAKMP SA and says so.
    fn delete_isakmp_sa(&mut self, cookies: &Cookies) {
        let Some(peer) = self.remove_peer(cookies) else { return };
        if let Ok(payload) = peer.sa.seal_delete(&mut self.rng) {
            self.transmit(peer.local, peer.source, payload);
        }
    }

    /// Ends an ISAKMP SA in silence; pulls under it are aborted.
    fn remove_peer(&mut self, cookies: &Cookies) -> Option<Peer> {
        let peer = self.peers.remove(cookies)?;
        for pull in peer.pulls.values().filter(|pull| pull.is_running()) {
            self.events.push_back(ServerEvent::PullAborted {
                pull: pull.id,
                peer: peer.source,
                identity: peer.identity().clone(),
                group: pull.group,
                reason: PullAbort::IsakmpSaEnded,
            });
        }
        Some(peer)
    }

    fn transmit(&mut self, source: SocketAddr, destination: SocketAddr, payload: Vec<u8>) {
        self.statistics.datagrams_sent += 1;
        self.transmits.push_back(Transmit { destination, source, payload });
    }

    fn measure(&mut self) {
        self.statistics.half_open = self.half_open.len();
        self.statistics.established = self.peers.len();
        self.statistics.pulls = self.peers.running();
    }
}

/// A message that nobody vouches for: a hint, whatever it says.
fn unprotected(header: &Header, body: &[u8]) -> Error {
    match chain::walk_clear(header.next_payload, body, header::LENGTH) {
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
