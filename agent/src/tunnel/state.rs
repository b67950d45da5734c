//! One tunnel: an IKE peer, and for each pair of networks the SAs that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use gdoi::event::Transmit;
use ike::config::{Credential, Identity, RetransmissionPolicy};
use ike::crypto::SeededRng;
use ike::dead_peer_detection::Mode;
use ike::error::{Error, NotAccepted, PeerMisbehaved};
use ike::peer::{ChildConfig, Foreign, Peer, PeerConfig, PeerEvent};
use ike::session::PeerAddress;
use ike::{BootTime, WallClock};
use xfrm::model::{Reqid, SaId};

use super::child_sa::Pair;
use super::flow::{FIRST_RETRY, Flow};
pub use super::status::State;
use super::{Event, IKE_PORT};
use crate::config::tunnel::{self as config, Start};

/// How long before the end of an ISAKMP SA a new one is begun.
const RENEWAL: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub struct Tunnel {
    config: config::Tunnel,
    peer: Peer,
    flows: Vec<Flow>,
    rng: SeededRng,
    /// Why the ISAKMP SA cannot be had, or why the peer's last request was refused.
    reason: Option<String>,
    since: Option<BootTime>,
    pub(super) changed: bool,
    pub(super) events: Vec<Event>,
}

impl Tunnel {
    /// A tunnel of which nothing has been said. `numbers` gives each pair of networks its reqids.
    pub fn new(config: config::Tunnel, numbers: &[(u16, Reqid, Reqid)], seed: [u8; 32]) -> Self {
        let mut rng = SeededRng::from_seed(seed);
        let flows: Vec<Flow> = config
            .selectors()
            .zip(numbers)
            .map(|(selectors, (number, outbound, inbound))| Flow {
                selectors,
                reqids: (*outbound, *inbound),
                number: *number,
                pairs: BTreeMap::new(),
                acquired: false,
                asking: None,
                retry_at: None,
                failures: 0,
                reason: None,
                sent_on: None,
            })
            .collect();
        let children = flows
            .iter()
            .map(|flow| ChildConfig { selectors: flow.selectors, policy: config.policy.clone() });
        let peer = PeerConfig {
            nat: config.nat,
            mode: config.mode,
            shares_address: config.shares_address,
            vendor_ids: Vec::new(),
            address: PeerAddress {
                remote: SocketAddr::new(config.peer, IKE_PORT),
                local: SocketAddr::new(config.local, IKE_PORT),
            },
            identity: identity(&config),
            expected_identity: config.peer_identity.clone(),
            credential: config.credential.clone(),
            phase1: config
                .gateway
                .phase1
                .clone()
                .authenticated_by(config.credential.authentication()),
            retransmission: RetransmissionPolicy::default(),
            dead_peer_detection: config.dead_peer_detection,
            children: children.collect(),
        };
        let peer = Peer::new(peer, rng.array());
        let (reason, since, changed, events) = (None, None, true, Vec::new());
        Self { config, peer, flows, rng, reason, since, changed, events }
    }

    /// What time it is from now on, for certificates.
    pub fn set_wall_clock(&mut self, wall_clock: WallClock) {
        self.peer.set_wall_clock(wall_clock);
    }

    /// Takes over a configuration with another credential and nothing else: SAs stay.
    pub fn set_credential(&mut self, config: &config::Tunnel, now: BootTime) {
        self.config = config.clone();
        self.peer.set_identity(identity(config));
        self.peer.set_credential(config.credential.clone(), now);
        self.take_events(now);
        self.advance(now);
    }

    pub fn config(&self) -> &config::Tunnel {
        &self.config
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// Since when all pairs of networks have SAs.
    pub fn active_since(&self) -> Option<BootTime> {
        self.since
    }

    /// `active`, or why not.
    pub fn state(&self, now: BootTime) -> State {
        let lacking = self.flows.iter().find(|flow| flow.sending(now).is_none());
        let Some(flow) = lacking else { return State::Active };
        let reason = flow.reason.clone().or_else(|| self.reason.clone());
        match (reason, self.config.start) {
            (Some(reason), _) => State::Failed(reason),
            (None, Start::Answer) => State::WaitsForPeer,
            (None, Start::Traffic) if !self.flows.iter().any(|flow| flow.asking.is_some()) => {
                State::WaitsForTraffic
            }
            (None, Start::Now | Start::Traffic) => State::Connecting,
        }
    }

    /// A datagram came from the peer.
    ///
    /// # Errors
    /// It is discarded, and nothing changed.
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        let handled = self.peer.handle_datagram(source, local, datagram, now);
        if let Err(error) = &handled {
            self.note_discard(error);
        }
        self.take_events(now);
        self.advance(now);
        handled
    }

    /// What an operator should see of discarded datagrams: a peer whose proof cannot be read has
    /// another key, and one whose offer is not accepted another policy.
    fn note_discard(&mut self, error: &Error) {
        let reason = match error {
            Error::PeerMisbehaved(PeerMisbehaved::WrongHash { .. }) | Error::InvalidMessage(_)
                if matches!(self.config.credential, Credential::PreSharedKey(_)) =>
            {
                String::from(
                    "the peer's proof in main mode cannot be read: it may have another pre-shared \
                     key",
                )
            }
            Error::PeerIncompatible(error) => error.to_string(),
            Error::PeerMisbehaved(
                error @ (PeerMisbehaved::WrongIdentity { .. }
                | PeerMisbehaved::Certificate(_)
                | PeerMisbehaved::WrongSignature { .. }),
            ) => error.to_string(),
            _ => return,
        };
        self.reason = Some(reason);
    }

    /// The ISAKMP SA of another tunnel's peer that this one answered for.
    pub fn poll_foreign(&mut self) -> Option<Foreign> {
        self.peer.poll_foreign()
    }

    /// Takes in an ISAKMP SA of this tunnel's peer that another tunnel answered for.
    ///
    /// # Errors
    /// It is forgotten, and nothing changed.
    pub fn take_over(&mut self, foreign: Foreign, now: BootTime) -> Result<(), Error> {
        let taken = self.peer.take_over(foreign, now);
        self.take_events(now);
        self.advance(now);
        taken
    }

    pub fn handle_unreachable(&mut self) {
        self.peer.handle_unreachable();
    }

    /// Does what is due at `now`; [`poll_timeout`](Self::poll_timeout) says when to call it.
    pub fn handle_timeout(&mut self, now: BootTime) {
        self.peer.handle_timeout(now);
        self.take_events(now);
        self.advance(now);
    }

    /// The kernel says that an SA of this tunnel came to a limit.
    pub fn handle_limit(&mut self, id: &SaId, hard: bool, now: BootTime) {
        for pair in self.flows.iter_mut().flat_map(|flow| flow.pairs.values_mut()) {
            let inbound = id.destination == self.config.local && id.spi == pair.spi();
            let outbound = id.destination == pair.remote() && id.spi == pair.sas.outbound.spi;
            if inbound || outbound {
                if hard { pair.ended(now) } else { pair.near_end(now) }
            }
        }
        self.advance(now);
    }

    /// A packet found the outbound policy with this reqid and no SA.
    pub fn handle_acquire(&mut self, reqid: Reqid, now: BootTime) {
        if self.config.start == Start::Answer {
            return;
        }
        if let Some(flow) = self.flows.iter_mut().find(|flow| flow.reqids.0 == reqid) {
            flow.acquired = true;
        }
        self.advance(now);
    }

    /// Ends everything, telling the peer.
    pub fn stop(&mut self, now: BootTime) {
        let spis: Vec<u32> =
            self.flows.iter().flat_map(|flow| flow.pairs.keys().copied()).collect();
        self.peer.delete(&spis, now);
        self.peer.disconnect();
        self.flows.iter_mut().for_each(|flow| flow.pairs.clear());
        self.changed = true;
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.peer.poll_transmit()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self, now: BootTime) -> Option<BootTime> {
        let peer = self.peer.poll_timeout().map(|deadline| deadline.at);
        let flows = self.flows.iter().filter_map(|flow| flow.next(now));
        let renewal = self.renewal().filter(|at| *at > now);
        peer.into_iter().chain(flows).chain(renewal).min()
    }

    fn take_events(&mut self, now: BootTime) {
        while let Some(event) = self.peer.poll_event() {
            self.take_event(event, now);
        }
    }

    fn take_event(&mut self, event: PeerEvent, now: BootTime) {
        match event {
            PeerEvent::Established { restarted, .. } => {
                self.reason = None;
                if restarted {
                    let flows = self.flows.iter_mut();
                    flows.for_each(|flow| flow.pairs.clear());
                    self.changed = true;
                }
                self.events.push(Event::Connected { restarted });
            }
            PeerEvent::Phase1Failed(failure) => {
                let reason = failure.to_string();
                for flow in &mut self.flows {
                    if flow.asking.is_some() {
                        flow.fail(None, now);
                    }
                }
                self.fail(reason);
            }
            PeerEvent::Moved { from, to, .. } => self.handle_moved(from, to, now),
            PeerEvent::Ended { .. } => self.events.push(Event::IsakmpSaEnded),
            PeerEvent::Prepared { child, address, sas, role } => {
                let jitter = self.rng.array::<1>()[0];
                let Some(flow) = self.flows.get_mut(child) else { return };
                let replaces = match role {
                    ike::phase1::Role::Initiator => flow.asking.take().unwrap_or_default(),
                    ike::phase1::Role::Responder => BTreeSet::new(),
                };
                let pair = Pair::new(*sas, address, role, replaces, jitter, now);
                flow.pairs.insert(pair.spi(), pair);
                self.changed = true;
            }
            PeerEvent::Confirmed { child, spi } => {
                let Some(flow) = self.flows.get_mut(child) else { return };
                let others = flow.sending(now).is_some();
                if let Some(pair) = flow.pairs.get_mut(&spi) {
                    pair.confirm(others, now);
                }
                (flow.reason, flow.failures, flow.retry_at) = (None, 0, None);
                let selectors = flow.selectors;
                self.changed = true;
                self.events.push(Event::Negotiated { selectors, spi, rekeyed: others });
            }
            PeerEvent::Abandoned { child, spi } => {
                if let Some(flow) = self.flows.get_mut(child) {
                    flow.pairs.remove(&spi);
                    self.changed = true;
                }
            }
            PeerEvent::Failed { child, failure } => {
                let reason = failure.to_string();
                let Some(flow) = self.flows.get_mut(child) else { return };
                let news = flow.reason.as_ref() != Some(&reason);
                flow.fail(Some(reason.clone()), now);
                if news {
                    self.events.push(Event::Failed { reason });
                }
            }
            PeerEvent::Refused { error, .. } => self.fail(error.to_string()),
            PeerEvent::Dead => {
                for flow in &mut self.flows {
                    flow.pairs.clear();
                    flow.asking = None;
                    flow.retry_at = None;
                }
                self.changed = true;
                self.fail(String::from("the peer does not answer dead peer detection"));
            }
            PeerEvent::Deleted { spis } => self.delete(&spis, now),
            // No tunnel has exchanges of private use: what a peer asks by one stays unanswered.
            PeerEvent::Asked { .. }
            | PeerEvent::Answered { .. }
            | PeerEvent::RequestLost { .. } => {}
        }
    }

    fn fail(&mut self, reason: String) {
        if self.reason.as_ref() != Some(&reason) {
            self.events.push(Event::Failed { reason: reason.clone() });
        }
        self.reason = Some(reason);
    }

    /// The peer does not receive on these any more.
    fn delete(&mut self, spis: &[u32], now: BootTime) {
        for flow in &mut self.flows {
            let before = flow.pairs.len();
            flow.pairs.retain(|_, pair| !spis.contains(&pair.sas.outbound.spi));
            if flow.pairs.len() < before {
                self.changed = true;
                if flow.pairs.is_empty() {
                    // The peer may be restarting, or about to ask itself.
                    flow.retry_at = Some(now + FIRST_RETRY);
                    self.events.push(Event::DeletedByPeer { selectors: flow.selectors });
                }
            }
        }
    }

    /// All that goes to the peer goes by the same translation. Another port is changed in the
    /// kernel; SAs to another address would begin their sequence numbers once more, so that new ones
    /// take their place.
    fn handle_moved(&mut self, from: PeerAddress, to: PeerAddress, now: BootTime) {
        for pair in self.flows.iter_mut().flat_map(|flow| flow.pairs.values_mut()) {
            if !pair.sas.encapsulated {
                continue;
            }
            match pair.remote() == to.remote.ip() {
                true => pair.address = to,
                false => pair.near_end(now),
            }
        }
        self.changed = true;
        self.events.push(Event::Moved { from: from.remote, to: to.remote });
    }

    /// Dead peer detection needs an ISAKMP SA: a new one takes over before the old one ends.
    fn renew_isakmp_sa(&mut self, now: BootTime) {
        if self.renewal().is_some_and(|at| at <= now) && !self.peer.is_connecting() {
            self.peer.connect(now);
        }
    }

    /// When a new ISAKMP SA is due.
    fn renewal(&self) -> Option<BootTime> {
        let asks = self.config.dead_peer_detection.mode == Mode::On;
        let begins = self.config.start == Start::Now && self.since.is_some();
        self.peer.renewal(RENEWAL).filter(|_| asks && begins)
    }

    /// What is due now: new pairs, and the end of old ones.
    fn advance(&mut self, now: BootTime) {
        let mut over = Vec::new();
        let mut wanted = Vec::new();
        for (child, flow) in self.flows.iter_mut().enumerate() {
            flow.retire_replaced(now);
            let ended: Vec<u32> =
                flow.pairs.values().filter(|pair| pair.is_over(now)).map(Pair::spi).collect();
            for spi in ended {
                flow.pairs.remove(&spi);
                over.push(spi);
            }
            if flow.wants(self.config.start, now) {
                flow.acquired = false;
                flow.asking = Some(flow.pairs.keys().copied().collect());
                wanted.push(child);
            }
            let sent_on = flow.sending(now).map(Pair::spi);
            self.changed |= sent_on != flow.sent_on;
            flow.sent_on = sent_on;
        }
        self.changed |= !over.is_empty();
        self.peer.delete(&over, now);
        for child in wanted {
            self.peer.negotiate(child, now);
        }
        // What could not be begun at all.
        self.take_events(now);
        self.renew_isakmp_sa(now);
        let active = self.flows.iter().all(|flow| flow.sending(now).is_some());
        self.since = active.then(|| self.since.unwrap_or(now));
    }
}

/// The identity that we prove.
fn identity(config: &config::Tunnel) -> Identity {
    match (&config.identity, &config.credential) {
        (Some(identity), _) => identity.clone(),
        (None, Credential::Certificate(own)) => own.identity(config.local),
        (None, _) => Identity::Address(config.local),
    }
}

/// Whether a datagram from `source` to `local` is for this tunnel.
pub(super) fn is_meant(tunnel: &Tunnel, source: SocketAddr, local: SocketAddr) -> bool {
    let peer = tunnel.config.peer;
    (source.ip() == peer || peer.is_unspecified()) && local.ip() == tunnel.config.local
}

/// A datagram that belongs to no tunnel.
pub(super) fn stray(source: SocketAddr) -> Error {
    NotAccepted::UnknownSource(source).into()
}
