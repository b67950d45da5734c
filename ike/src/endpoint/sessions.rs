//! All sessions, with the indexes that find them by cookies, identity, exchange, age and deadline.

use std::collections::{BTreeMap, BTreeSet};

use core::net::IpAddr;

use super::Limits;
use crate::config::Identity;
use crate::error::NotAccepted;
use crate::event::Timer;
use crate::phase1::{Cookies, HashVerified};
use crate::session::{Exchange, PeerAddress, Session};
use crate::time::BootTime;

/// When something about a session is due: the end of its ISAKMP SA (message identifier 0) or of the
/// wait of one exchange.
pub(super) type Due = (BootTime, Timer, Cookies, u32);

#[derive(Debug)]
pub(super) struct Sessions<X: Exchange> {
    limits: Limits,
    /// Each with its place in the order of age.
    by_cookies: BTreeMap<Cookies, (u64, Session<X>)>,
    /// By what a peer proved and where it is: hosts may share an identity, and a peer that moved is
    /// found where phase 1 found it as well, as it may be back there when it restarts.
    by_identity: BTreeMap<(Identity, IpAddr), BTreeSet<(u64, Cookies)>>,
    by_exchange: BTreeMap<X::Id, (Cookies, u32)>,
    by_age: BTreeSet<(u64, Cookies)>,
    deadlines: BTreeSet<Due>,
    established: u64,
    running: usize,
}

impl<X: Exchange> Sessions<X> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_cookies: BTreeMap::new(),
            by_identity: BTreeMap::new(),
            by_exchange: BTreeMap::new(),
            by_age: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            established: 0,
            running: 0,
        }
    }

    /// Bounds for what comes from now on.
    pub(super) fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Every ISAKMP SA whose session `is_meant` selects.
    pub(super) fn find_all(&self, is_meant: impl Fn(&Session<X>) -> bool) -> Vec<Cookies> {
        let meant = self.by_cookies.iter().filter(|(_, (_, session))| is_meant(session));
        meant.map(|(cookies, _)| *cookies).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.by_cookies.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session<X>> {
        self.by_cookies.values().map(|(_, session)| session)
    }

    /// Exchanges that have not come to their end.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn get(&self, cookies: &Cookies) -> Option<&Session<X>> {
        self.by_cookies.get(cookies).map(|(_, session)| session)
    }

    pub(super) fn get_mut(&mut self, cookies: &Cookies) -> Option<&mut Session<X>> {
        self.by_cookies.get_mut(cookies).map(|(_, session)| session)
    }

    /// Where the exchange `id` is.
    pub(super) fn find(&self, id: X::Id) -> Option<(Cookies, u32)> {
        self.by_exchange.get(&id).copied()
    }

    /// Every ISAKMP SA of `identity`.
    pub(super) fn of_identity(&self, identity: &Identity) -> Vec<Cookies> {
        let first = (identity.clone(), IpAddr::from([0_u8; 4]));
        let same = self.by_identity.range(first..).take_while(|((of, _), _)| of == identity);
        let all: BTreeSet<Cookies> =
            same.flat_map(|(_, cookies)| cookies.iter().map(|(_, cookies)| *cookies)).collect();
        all.into_iter().collect()
    }

    /// ISAKMP SAs of `identity` at `address` that were there before `time`.
    pub(super) fn before(
        &self,
        time: BootTime,
        identity: &Identity,
        address: IpAddr,
    ) -> Vec<Cookies> {
        let same = self.by_identity.get(&(identity.clone(), address));
        let all = same.into_iter().flatten().map(|(_, cookies)| *cookies);
        let earlier = |session: &Session<X>| session.since() < time;
        all.filter(|cookies| self.get(cookies).is_some_and(earlier)).collect()
    }

    /// Which session has to go so that one more of `identity` at `address` fits; `None` if there is
    /// room.
    pub(super) fn to_replace(
        &self,
        identity: &Identity,
        address: IpAddr,
    ) -> Result<Option<Cookies>, NotAccepted> {
        let idle = |(_, cookies): &&(u64, Cookies)| {
            self.get(cookies).is_some_and(|session| session.running() == 0)
        };
        let of_peer = self.by_identity.get(&(identity.clone(), address));
        if let Some(of_peer) =
            of_peer.filter(|of_peer| of_peer.len() >= self.limits.established_per_peer.max(1))
        {
            return of_peer
                .iter()
                .find(idle)
                .map(|(_, cookies)| Some(*cookies))
                .ok_or(NotAccepted::EstablishedLimit);
        }
        if self.by_cookies.len() < self.limits.established.max(1) {
            return Ok(None);
        }
        self.by_age
            .iter()
            .find(idle)
            .map(|(_, cookies)| Some(*cookies))
            .ok_or(NotAccepted::EstablishedLimit)
    }

    pub(super) fn insert(&mut self, session: Session<X>) {
        let cookies = session.cookies();
        self.established = self.established.saturating_add(1);
        let age = self.established;
        self.by_age.insert((age, cookies));
        self.deadlines.insert((session.expires(), Timer::IsakmpLifetime, cookies, 0));
        for key in identity_keys(&session) {
            self.by_identity.entry(key).or_default().insert((age, cookies));
        }
        self.by_cookies.insert(cookies, (age, session));
    }

    /// Moves a peer: see [`Session::follow`].
    pub(super) fn follow(
        &mut self,
        cookies: &Cookies,
        proof: &HashVerified,
        address: PeerAddress,
    ) -> Option<PeerAddress> {
        let (age, session) = self.by_cookies.get_mut(cookies)?;
        let (age, before) = (*age, identity_keys(session));
        let from = session.follow(proof, address)?;
        let after = identity_keys(session);
        for key in before {
            self.forget_identity(&key, age, *cookies);
        }
        for key in after {
            self.by_identity.entry(key).or_default().insert((age, *cookies));
        }
        Some(from)
    }

    fn forget_identity(&mut self, key: &(Identity, IpAddr), age: u64, cookies: Cookies) {
        if let Some(same) = self.by_identity.get_mut(key) {
            same.remove(&(age, cookies));
            if same.is_empty() {
                self.by_identity.remove(key);
            }
        }
    }

    /// Removes a session and returns it with its exchanges.
    pub(super) fn remove(&mut self, cookies: &Cookies) -> Option<Session<X>> {
        let (age, session) = self.by_cookies.remove(cookies)?;
        self.by_age.remove(&(age, *cookies));
        self.deadlines.remove(&(session.expires(), Timer::IsakmpLifetime, *cookies, 0));
        for key in identity_keys(&session) {
            self.forget_identity(&key, age, *cookies);
        }
        for (message_id, exchange) in session.exchanges() {
            self.by_exchange.remove(&exchange.id());
            self.deadlines.remove(&due(*cookies, *message_id, exchange));
            self.running = self.running.saturating_sub(usize::from(exchange.is_running()));
        }
        Some(session)
    }

    /// Puts `exchange` in the place of the one with this message identifier.
    pub(super) fn put(&mut self, cookies: &Cookies, message_id: u32, exchange: X) {
        self.take(cookies, message_id);
        let Some((_, session)) = self.by_cookies.get_mut(cookies) else { return };
        self.by_exchange.insert(exchange.id(), (*cookies, message_id));
        self.deadlines.insert(due(*cookies, message_id, &exchange));
        self.running = self.running.saturating_add(usize::from(exchange.is_running()));
        session.put(message_id, exchange);
    }

    pub(super) fn take(&mut self, cookies: &Cookies, message_id: u32) -> Option<X> {
        let exchange = self.by_cookies.get_mut(cookies)?.1.take(message_id)?;
        self.by_exchange.remove(&exchange.id());
        self.deadlines.remove(&due(*cookies, message_id, &exchange));
        self.running = self.running.saturating_sub(usize::from(exchange.is_running()));
        Some(exchange)
    }

    pub(super) fn next_due(&self) -> Option<Due> {
        self.deadlines.first().copied()
    }
}

fn identity_keys<X>(session: &Session<X>) -> BTreeSet<(Identity, IpAddr)> {
    let places = [session.origin(), session.address()];
    places.iter().map(|place| (session.identity().clone(), place.remote.ip())).collect()
}

fn due<X: Exchange>(cookies: Cookies, message_id: u32, exchange: &X) -> Due {
    let timer = if exchange.is_running() { Timer::HalfOpen } else { Timer::FinishedExchange };
    (exchange.deadline(), timer, cookies, message_id)
}
