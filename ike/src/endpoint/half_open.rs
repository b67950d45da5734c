//! Half-open exchanges of main mode: the part of a key server that strangers can reach.
//!
//! A message 1 costs the memory of its offer and no arithmetic. Only a message 3 from the same
//! address proves that the address is real, because it repeats the cookie that went there; from
//! then on the exchange is *running* and nothing but its own time limit ends it. Until then it is a
//! *stranger's* and makes room for newer ones, the oldest first: a flood from forged addresses must
//! outrun a round trip to push an honest member out.
//!
//! Running exchanges of one address are few, because each has cost arithmetic, and one that failed
//! keeps its place until its time is over: failing faster gives nobody more of it. Exchanges from
//! IKE's own port and those of the policies are counted apart from all others of the address. Whoever shares the
//! address of a member without being it (an unprivileged process, hosts behind its address
//! translation) has other ports, so that what it begins never stands in the member's way. Where a
//! translation gives it such a port, nothing tells it from the member before message 5: once all
//! places are taken, a new exchange gets that of the one that has waited longest, if a live peer
//! would have answered long ago. So nobody holds a place for long, and an address has the server
//! compute no more than its places in that time.

use std::collections::{BTreeMap, BTreeSet};

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::{EndpointConfig, Inbound, Limits};
use crate::config::PeerCredential;
use crate::error::NotAccepted;
use crate::phase1::Cookies;
use crate::phase1::aggressive::ExpectProof;
use crate::phase1::nat_traversal::NAT_PORT;
use crate::phase1::responder::{ExpectAuth, ExpectKe};
use crate::retransmission::{Answered, Copy, Digest};
use crate::session::PeerAddress;
use crate::time::BootTime;
use crate::wire::header::Cookie;
use crate::wire::registry::Doi;

/// One exchange of main mode that has not come to its end.
#[derive(Debug)]
pub(super) struct HalfOpen {
    pub(super) address: PeerAddress,
    pub(super) doi: Doi,
    pub(super) phase: Phase,
    /// What keys are derived with, from message 3 on.
    pub(super) credential: Option<PeerCredential>,
    /// The last request and our answer.
    pub(super) answered: Answered,
    pub(super) began: BootTime,
    /// How many messages 5 came whose proof was refused.
    refused: u8,
    deadline: BootTime,
    /// Since when it waits for the peer.
    since: BootTime,
    /// No other exchange has this number, whatever its cookies.
    pub(super) born: u64,
}

/// What it waits for.
#[derive(Debug)]
pub(super) enum Phase {
    /// Message 3; how many came whose public value was unusable.
    ExpectKe(ExpectKe, u8),
    /// The arithmetic of the message 3 with this digest, which somebody does elsewhere.
    Computing(Digest),
    ExpectAuth(Box<ExpectAuth>),
    /// Message 3 of aggressive mode.
    ExpectProof(Box<ExpectProof>),
    /// Nothing any more: it came to no good, and its place is free when its time is over.
    Failed,
}

/// Whose places an exchange takes: those of its address, apart for the ports of the protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    address: IpAddr,
    own_port: bool,
}

impl Origin {
    fn of(source: SocketAddr, ports: &BTreeSet<u16>) -> Self {
        Self { address: source.ip(), own_port: ports.contains(&source.port()) }
    }
}

/// All of them, within bounds.
#[derive(Debug)]
pub(super) struct HalfOpenTable {
    limits: Limits,
    /// Ports that IKE and the protocols under it are spoken on, as when the endpoint was made.
    ports: BTreeSet<u16>,
    by_cookies: BTreeMap<Cookies, HalfOpen>,
    by_first_message: BTreeMap<(SocketAddr, Cookie), Cookies>,
    by_source: BTreeMap<Origin, Source>,
    strangers: BTreeSet<(u64, Cookies)>,
    /// By the moment since which each waits for the peer.
    running: BTreeSet<(BootTime, Cookies)>,
    deadlines: BTreeSet<(BootTime, Cookies)>,
    born: u64,
}

#[derive(Debug, Default)]
struct Source {
    strangers: BTreeSet<(u64, Cookies)>,
    /// By the moment since which each waits for the peer.
    running: BTreeSet<(BootTime, Cookies)>,
}

impl Source {
    fn len(&self) -> usize {
        self.strangers.len().saturating_add(self.running.len())
    }

    /// The exchange that gives its place to a new one of this source.
    fn to_evict(&self, now: BootTime) -> Option<Cookies> {
        to_evict(&self.strangers, &self.running, now)
    }
}

/// The oldest stranger, or the exchange that has waited longest for its peer, if that is overdue.
fn to_evict(
    strangers: &BTreeSet<(u64, Cookies)>,
    running: &BTreeSet<(BootTime, Cookies)>,
    now: BootTime,
) -> Option<Cookies> {
    let stranger = strangers.first().map(|(_, cookies)| *cookies);
    let overdue = running.first().filter(|(since, _)| *since + LONGEST_ROUND_TRIP <= now);
    stranger.or_else(|| overdue.map(|(_, cookies)| *cookies))
}

impl HalfOpenTable {
    pub(super) fn new(config: &EndpointConfig) -> Self {
        Self {
            limits: config.limits,
            ports: config.ports(),
            by_cookies: BTreeMap::new(),
            by_first_message: BTreeMap::new(),
            by_source: BTreeMap::new(),
            strangers: BTreeSet::new(),
            running: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            born: 0,
        }
    }

    /// Bounds for what comes from now on.
    pub(super) fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(super) fn len(&self) -> usize {
        self.by_cookies.len()
    }

    pub(super) fn has(&self, cookies: &Cookies) -> bool {
        self.by_cookies.contains_key(cookies)
    }

    /// Whether an exchange waits for message 5.
    pub(super) fn expects_proof(&self, cookies: &Cookies) -> bool {
        let exchange = self.by_cookies.get(cookies);
        let waits = |phase: &Phase| matches!(phase, Phase::ExpectAuth(_) | Phase::ExpectProof(_));
        exchange.is_some_and(|exchange| waits(&exchange.phase))
    }

    pub(super) fn get_mut(&mut self, cookies: &Cookies) -> Option<&mut HalfOpen> {
        self.by_cookies.get_mut(cookies)
    }

    /// The exchange that a message 1 with this cookie from `source` began.
    pub(super) fn begun_by(&mut self, source: SocketAddr, cookie: Cookie) -> Option<&mut HalfOpen> {
        let cookies = self.by_first_message.get(&(source, cookie))?;
        self.by_cookies.get_mut(cookies)
    }

    /// Whether a new exchange of `source` can be taken in, perhaps in the place of an older
    /// stranger's or of one whose peer is overdue.
    pub(super) fn has_room(&self, source: SocketAddr, now: BootTime) -> Result<(), NotAccepted> {
        let of_source = self.by_source.get(&Origin::of(source, &self.ports));
        if of_source.is_some_and(|of_source| {
            of_source.len() >= self.per_source() && of_source.to_evict(now).is_none()
        }) {
            return Err(NotAccepted::HalfOpenLimitOfSource(source));
        }
        if self.by_cookies.len() >= self.limits.half_open
            && to_evict(&self.strangers, &self.running, now).is_none()
        {
            return Err(NotAccepted::HalfOpenLimit);
        }
        Ok(())
    }

    /// Whether a new exchange of `source` would be taken in without another one's place.
    pub(super) fn has_free_place(&self, source: SocketAddr) -> bool {
        let of_source = self.by_source.get(&Origin::of(source, &self.ports));
        of_source.is_none_or(|of_source| of_source.len() < self.per_source())
            && self.by_cookies.len() < self.limits.half_open
    }

    /// Takes a new exchange in, for which there must be room; returns how many others had to go.
    pub(super) fn insert(
        &mut self,
        address: PeerAddress,
        cookies: Cookies,
        doi: Doi,
        phase: Phase,
        answered: Answered,
        now: BootTime,
    ) -> u64 {
        let source = address.remote;
        let mut evicted = 0;
        if let Some(of_source) = self.by_source.get(&Origin::of(source, &self.ports))
            && of_source.len() >= self.per_source()
            && let Some(oldest) = of_source.to_evict(now)
        {
            self.remove(&oldest);
            evicted += 1;
        }
        if self.by_cookies.len() >= self.limits.half_open
            && let Some(oldest) = to_evict(&self.strangers, &self.running, now)
        {
            self.remove(&oldest);
            evicted += 1;
        }
        self.born = self.born.saturating_add(1);
        let (born, deadline) = (self.born, now + self.limits.half_open_timeout);
        self.strangers.insert((born, cookies));
        self.by_source
            .entry(Origin::of(source, &self.ports))
            .or_default()
            .strangers
            .insert((born, cookies));
        self.by_first_message.insert((source, cookies.initiator), cookies);
        self.deadlines.insert((deadline, cookies));
        let credential = None;
        let exchange = HalfOpen {
            address,
            doi,
            phase,
            credential,
            answered,
            began: now,
            refused: 0,
            deadline,
            since: now,
            born,
        };
        self.by_cookies.insert(cookies, exchange);
        evicted
    }

    /// The source has returned our cookie and the arithmetic begins: from here on the exchange is
    /// running.
    pub(super) fn compute(
        &mut self,
        cookies: &Cookies,
        credential: PeerCredential,
        request: Digest,
    ) {
        let Some(exchange) = self.by_cookies.get_mut(cookies) else { return };
        exchange.phase = Phase::Computing(request);
        exchange.credential = Some(credential);
        self.occupy(cookies);
    }

    /// The arithmetic was done for its first message: the exchange is running.
    pub(super) fn run(&mut self, cookies: &Cookies, credential: PeerCredential) {
        let Some(exchange) = self.by_cookies.get_mut(cookies) else { return };
        exchange.credential = Some(credential);
        self.occupy(cookies);
    }

    /// The arithmetic is done: the exchange waits for message 5.
    pub(super) fn computed(
        &mut self,
        cookies: &Cookies,
        state: ExpectAuth,
        answered: Answered,
        now: BootTime,
    ) {
        let Some(exchange) = self.by_cookies.get_mut(cookies) else { return };
        exchange.phase = Phase::ExpectAuth(Box::new(state));
        exchange.answered = answered;
        self.wait_anew(cookies, now);
    }

    /// Message 1 was answered once more: its sender may have got no answer before, and has the whole
    /// time for message 3. A stranger gains nothing by that, as it makes room for newer ones all the
    /// same; a running exchange keeps its time.
    pub(super) fn repeated(&mut self, source: SocketAddr, cookie: Cookie, now: BootTime) {
        let Some(cookies) = self.by_first_message.get(&(source, cookie)).copied() else { return };
        let exchange = self.by_cookies.get(&cookies);
        if exchange.is_some_and(|exchange| self.strangers.contains(&(exchange.born, cookies))) {
            self.wait_anew(&cookies, now);
        }
    }

    fn wait_anew(&mut self, cookies: &Cookies, now: BootTime) {
        let Some(exchange) = self.by_cookies.get_mut(cookies) else { return };
        self.deadlines.remove(&(exchange.deadline, *cookies));
        exchange.deadline = now + self.limits.half_open_timeout;
        self.deadlines.insert((exchange.deadline, *cookies));
        let before = core::mem::replace(&mut exchange.since, now);
        if let Some(of_source) =
            self.by_source.get_mut(&Origin::of(exchange.address.remote, &self.ports))
            && of_source.running.remove(&(before, *cookies))
        {
            of_source.running.insert((now, *cookies));
            self.running.remove(&(before, *cookies));
            self.running.insert((now, *cookies));
        }
    }

    /// The public value was unusable: the exchange waits for another message 3, or has failed.
    pub(super) fn refuse(&mut self, cookies: &Cookies) {
        let Some(exchange) = self.by_cookies.get_mut(cookies) else { return };
        let Phase::ExpectKe(_, unusable) = &mut exchange.phase else { return };
        *unusable = unusable.saturating_add(1);
        if *unusable > TOLERATED_PUBLIC_VALUES {
            self.fail(cookies);
        }
    }

    /// A proof was refused that costs arithmetic to look at: the exchange waits for another message
    /// 5, or has failed.
    pub(super) fn refuse_proof(&mut self, cookies: &Cookies) {
        let Some(exchange) = self.by_cookies.get_mut(cookies) else { return };
        exchange.refused = exchange.refused.saturating_add(1);
        if exchange.refused > TOLERATED_PROOFS {
            self.fail(cookies);
        }
    }

    /// The source has returned our cookie and the exchange cannot come to a good end: it keeps its
    /// place until its time is over.
    pub(super) fn fail(&mut self, cookies: &Cookies) {
        let Some(exchange) = self.by_cookies.get_mut(cookies) else { return };
        exchange.phase = Phase::Failed;
        self.occupy(cookies);
    }

    /// Nobody evicts this exchange any more until its peer is overdue.
    fn occupy(&mut self, cookies: &Cookies) {
        let Some(exchange) = self.by_cookies.get(cookies) else { return };
        let key = (exchange.born, *cookies);
        self.strangers.remove(&key);
        let of_source =
            self.by_source.entry(Origin::of(exchange.address.remote, &self.ports)).or_default();
        if of_source.strangers.remove(&key) {
            of_source.running.insert((exchange.since, *cookies));
            self.running.insert((exchange.since, *cookies));
        }
    }

    /// Keeps the exchanges that `is_kept` selects.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&HalfOpen) -> bool) {
        let ended = self.by_cookies.iter().filter(|(_, exchange)| !is_kept(exchange));
        let ended: Vec<Cookies> = ended.map(|(cookies, _)| *cookies).collect();
        for cookies in &ended {
            self.remove(cookies);
        }
    }

    pub(super) fn remove(&mut self, cookies: &Cookies) -> Option<HalfOpen> {
        let exchange = self.by_cookies.remove(cookies)?;
        self.by_first_message.remove(&(exchange.address.remote, cookies.initiator));
        self.strangers.remove(&(exchange.born, *cookies));
        self.running.remove(&(exchange.since, *cookies));
        self.deadlines.remove(&(exchange.deadline, *cookies));
        let origin = Origin::of(exchange.address.remote, &self.ports);
        if let Some(of_source) = self.by_source.get_mut(&origin) {
            of_source.strangers.remove(&(exchange.born, *cookies));
            of_source.running.remove(&(exchange.since, *cookies));
            if of_source.len() == 0 {
                self.by_source.remove(&origin);
            }
        }
        Some(exchange)
    }

    /// Forgets one exchange whose time is over, if there is one.
    pub(super) fn expire(&mut self, now: BootTime) -> Option<HalfOpen> {
        let (deadline, cookies) = self.deadlines.first().copied()?;
        if deadline > now { None } else { self.remove(&cookies) }
    }

    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    fn per_source(&self) -> usize {
        self.limits.half_open_per_source.max(1)
    }
}

/// Unusable public values that one exchange may send before it is given up: somebody else may have
/// written them.
const TOLERATED_PUBLIC_VALUES: u8 = 2;

/// A live peer answers sooner, its repetitions included: who has not until then may lose its place
/// to another exchange of its address.
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(5);

/// Refused signatures that one exchange may send before it is given up: somebody else may have
/// written them, and each costs a look at a chain of certificates.
const TOLERATED_PROOFS: u8 = 2;

impl HalfOpen {
    /// The answer once more, as often as copies get it.
    pub(super) fn again(&mut self, now: BootTime) -> Option<Vec<u8>> {
        self.answered.again(now).map(|answer| answer.to_vec())
    }

    /// Whether `inbound` comes from where the peer is. Behind address translation its message 5
    /// leaves from another port (RFC 3947 §4), and may be given another address as well.
    ///
    /// # Errors
    /// [`NotAccepted::WrongSource`].
    pub(super) fn check(&self, inbound: &Inbound<'_>) -> Result<(), NotAccepted> {
        match &self.phase {
            Phase::ExpectAuth(state)
                if inbound.local.port() == NAT_PORT
                    && state.nat().is_some_and(|nat| nat.is_found()) =>
            {
                Ok(())
            }
            Phase::ExpectProof(state)
                if inbound.local.port() == NAT_PORT && state.looks_for_nat() =>
            {
                Ok(())
            }
            _ => self.address.check(inbound.source),
        }
    }

    /// Whether a datagram is a copy of the last request, and the answer to it.
    pub(super) fn copy(&mut self, digest: &Digest, now: BootTime) -> Copy<'_> {
        self.answered.handle(digest, now)
    }
}
