//! All established peers, with the indexes that find them by cookies, identity, pull, age and
//! deadline.

use std::collections::{BTreeMap, BTreeSet};

use core::net::IpAddr;

use super::peer::{Peer, Pull};
use crate::config::{Identity, ServerLimits};
use crate::event::PullId;
use crate::phase1::Cookies;
use crate::time::BootTime;
use ike::error::NotAccepted;
use ike::event::Timer;

/// When something about a peer is due: the end of its ISAKMP SA (message identifier 0) or of the
/// wait of one pull.
pub(super) type Due = (BootTime, Timer, Cookies, u32);

/// The peers.
#[derive(Debug)]
pub(super) struct Peers {
    limits: ServerLimits,
    by_cookies: BTreeMap<Cookies, Peer>,
    by_identity: BTreeMap<(Identity, IpAddr), BTreeSet<(u64, Cookies)>>,
    by_pull: BTreeMap<PullId, (Cookies, u32)>,
    by_age: BTreeSet<(u64, Cookies)>,
    deadlines: BTreeSet<Due>,
    running: usize,
}

impl Peers {
    pub(super) fn new(limits: ServerLimits) -> Self {
        Self {
            limits,
            by_cookies: BTreeMap::new(),
            by_identity: BTreeMap::new(),
            by_pull: BTreeMap::new(),
            by_age: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            running: 0,
        }
    }

    /// Bounds for what comes from now on.
    pub(super) fn limit(&mut self, limits: ServerLimits) {
        self.limits = limits;
    }

    /// Every ISAKMP SA.
    pub(super) fn all(&self) -> Vec<Cookies> {
        self.by_cookies.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.by_cookies.len()
    }

    /// Pulls that have not come to their end.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn get(&self, cookies: &Cookies) -> Option<&Peer> {
        self.by_cookies.get(cookies)
    }

    pub(super) fn get_mut(&mut self, cookies: &Cookies) -> Option<&mut Peer> {
        self.by_cookies.get_mut(cookies)
    }

    /// Where the pull `id` is.
    pub(super) fn find_pull(&self, id: PullId) -> Option<(Cookies, u32)> {
        self.by_pull.get(&id).copied()
    }

    /// Every ISAKMP SA of `identity`.
    pub(super) fn of_identity(&self, identity: &Identity) -> Vec<Cookies> {
        let first = (identity.clone(), IpAddr::from([0_u8; 4]));
        let same = self.by_identity.range(first..).take_while(|((of, _), _)| of == identity);
        same.flat_map(|(_, cookies)| cookies.iter().map(|(_, cookies)| *cookies)).collect()
    }

    /// Which peer has to go so that one more of `identity` at `address` fits; `None` if there is
    /// room.
    pub(super) fn to_replace(
        &self,
        identity: &Identity,
        address: IpAddr,
    ) -> Result<Option<Cookies>, NotAccepted> {
        let idle = |(_, cookies): &&(u64, Cookies)| {
            self.get(cookies).is_some_and(|peer| peer.running() == 0)
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

    pub(super) fn insert(&mut self, peer: Peer) {
        let cookies = peer.sa.cookies();
        self.by_age.insert((peer.born, cookies));
        self.deadlines.insert((peer.expires, Timer::IsakmpLifetime, cookies, 0));
        self.by_identity
            .entry((peer.identity().clone(), peer.source.ip()))
            .or_default()
            .insert((peer.born, cookies));
        self.by_cookies.insert(cookies, peer);
    }

    /// Removes a peer and returns it with its pulls.
    pub(super) fn remove(&mut self, cookies: &Cookies) -> Option<Peer> {
        let peer = self.by_cookies.remove(cookies)?;
        self.by_age.remove(&(peer.born, *cookies));
        self.deadlines.remove(&(peer.expires, Timer::IsakmpLifetime, *cookies, 0));
        let key = (peer.identity().clone(), peer.source.ip());
        if let Some(same) = self.by_identity.get_mut(&key) {
            same.remove(&(peer.born, *cookies));
            if same.is_empty() {
                self.by_identity.remove(&key);
            }
        }
        for (message_id, pull) in &peer.pulls {
            self.by_pull.remove(&pull.id);
            self.deadlines.remove(&due(*cookies, *message_id, pull));
            self.running = self.running.saturating_sub(usize::from(pull.is_running()));
        }
        Some(peer)
    }

    /// Puts `pull` in the place of the one with this message identifier.
    pub(super) fn put_pull(&mut self, cookies: &Cookies, message_id: u32, pull: Pull) {
        self.take_pull(cookies, message_id);
        let Some(peer) = self.by_cookies.get_mut(cookies) else { return };
        self.by_pull.insert(pull.id, (*cookies, message_id));
        self.deadlines.insert(due(*cookies, message_id, &pull));
        self.running = self.running.saturating_add(usize::from(pull.is_running()));
        peer.pulls.insert(message_id, pull);
    }

    /// Removes a pull.
    pub(super) fn take_pull(&mut self, cookies: &Cookies, message_id: u32) -> Option<Pull> {
        let pull = self.by_cookies.get_mut(cookies)?.pulls.remove(&message_id)?;
        self.by_pull.remove(&pull.id);
        self.deadlines.remove(&due(*cookies, message_id, &pull));
        self.running = self.running.saturating_sub(usize::from(pull.is_running()));
        Some(pull)
    }

    pub(super) fn next_due(&self) -> Option<Due> {
        self.deadlines.first().copied()
    }
}

fn due(cookies: Cookies, message_id: u32, pull: &Pull) -> Due {
    let timer = if pull.is_running() { Timer::HalfOpen } else { Timer::FinishedExchange };
    (pull.deadline, timer, cookies, message_id)
}
