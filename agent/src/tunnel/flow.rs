//! One pair of networks of a tunnel: its SAs, and when others are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ike::BootTime;
use ike::quick::Selectors;
use xfrm::model::Reqid;

use super::child_sa::Pair;
use crate::config::tunnel::Start;

pub(super) const FIRST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// A pair of networks with its SAs.
#[derive(Debug)]
pub struct Flow {
    pub selectors: Selectors,
    /// Request identifiers of the outbound and of the inbound SA.
    pub reqids: (Reqid, Reqid),
    pub number: u16,
    pub pairs: BTreeMap<u32, Pair>,
    /// The kernel has a packet for it.
    pub(super) acquired: bool,
    /// A new pair is being asked for, in the place of these.
    pub(super) asking: Option<BTreeSet<u32>>,
    pub(super) retry_at: Option<BootTime>,
    pub(super) failures: u32,
    /// Why the last attempt failed.
    pub(super) reason: Option<String>,
    /// The pair that was sent on when the kernel's desired state was last made.
    pub(super) sent_on: Option<u32>,
}

impl Flow {
    /// The pair that is sent on: of those that may be, the latest.
    pub fn sending(&self, now: BootTime) -> Option<&Pair> {
        self.latest(|pair| pair.sends(now))
    }

    pub(super) fn latest(&self, is_meant: impl Fn(&Pair) -> bool) -> Option<&Pair> {
        let meant = self.pairs.values().filter(|pair| is_meant(pair));
        meant.max_by_key(|pair| (pair.send_from(), pair.spi()))
    }

    pub(super) fn fail(&mut self, reason: Option<String>, now: BootTime) {
        self.asking = None;
        let wait = FIRST_RETRY
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(LONGEST_RETRY);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + wait);
        self.reason = reason;
    }

    /// Whether a new pair is to be asked for.
    pub(super) fn wants(&self, start: Start, now: BootTime) -> bool {
        if self.asking.is_some() || self.retry_at.is_some_and(|at| at > now) {
            return false;
        }
        match self.latest(|pair| pair.send_from().is_some()) {
            Some(newest) => newest.is_due(now),
            // One that is not confirmed yet is the peer's.
            None => (start == Start::Now || self.acquired) && self.pairs.is_empty(),
        }
    }

    pub(super) fn retire_replaced(&mut self, now: BootTime) {
        let replaced: BTreeSet<u32> =
            self.pairs.values().filter_map(|pair| pair.replaced(now)).flatten().copied().collect();
        for spi in replaced {
            if let Some(pair) = self.pairs.get_mut(&spi) {
                pair.retire(now);
            }
        }
    }

    pub(super) fn next(&self, now: BootTime) -> Option<BootTime> {
        let retry = self.retry_at.filter(|at| *at > now);
        let pairs = self.pairs.values().filter_map(|pair| pair.next(now));
        retry.into_iter().chain(pairs).min()
    }
}
