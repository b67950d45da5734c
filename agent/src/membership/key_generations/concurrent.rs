//! Several TEKs of one generation for the same traffic (RFC 5374 §4.2.1): all are received on, one
//! is sent on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gdoi::group::{Spi, TekPolicy, concurrent};
use ike::BootTime;

use super::{ActiveSaTek, Generation};

impl Generation {
    fn sa_tek<'a>(
        &'a self,
        policy: &'a TekPolicy,
        send: bool,
        now: BootTime,
    ) -> Option<ActiveSaTek<'a>> {
        let end = self.expiry.get(&policy.spi);
        Some(ActiveSaTek {
            policy,
            keys: self.sa.tek_keys().get(&policy.spi)?,
            receive: self.is_alive(policy.spi, now),
            send,
            remaining_lifetime: end.map_or(Duration::ZERO, |end| end.saturating_since(now)),
        })
    }

    /// SA TEKs that are received on, in the order received.
    pub(super) fn alive_sa_teks(&self, now: BootTime) -> impl Iterator<Item = ActiveSaTek<'_>> {
        let alive =
            self.sa.policy().teks.iter().filter(move |sa_tek| self.is_alive(sa_tek.spi, now));
        alive.filter_map(move |sa_tek| self.sa_tek(sa_tek, false, now))
    }

    /// One SA TEK for each traffic: that of the TEK that is sent on, or the first one where none is
    /// left and `ended` says so of it.
    pub(super) fn sending_sa_teks(
        &self,
        ended: impl Fn(Spi) -> bool,
        now: BootTime,
    ) -> Vec<ActiveSaTek<'_>> {
        let teks = &self.sa.policy().teks;
        let concurrent = concurrent(teks);
        let senders = self.senders(&concurrent, now);
        let mut by_traffic = BTreeMap::new();
        for sa_tek in teks {
            by_traffic
                .entry((sa_tek.spi, sa_tek.selector, sa_tek.protection.direction.0))
                .or_insert(sa_tek);
        }
        let mut sa_teks = Vec::new();
        for first in teks.iter().filter(|sa_tek| concurrent.get(&sa_tek.spi) == Some(&sa_tek.spi)) {
            let sender = senders.get(&first.spi);
            let own = sender.and_then(|spi| {
                by_traffic.get(&(*spi, first.selector, first.protection.direction.0))
            });
            match own {
                Some(own) => sa_teks.extend(self.sa_tek(own, true, now)),
                None if ended(first.spi) => sa_teks.extend(self.sa_tek(first, false, now)),
                None => {}
            }
        }
        sa_teks
    }

    /// The TEK that is sent on for each traffic, by the first TEK of that traffic.
    fn senders(&self, concurrent: &BTreeMap<Spi, Spi>, now: BootTime) -> BTreeMap<Spi, Spi> {
        // Before the first activation others have the key that ends first, if any. What the key
        // server deleted is given up as soon as there is something else.
        let preference = |spi: Spi, end: BootTime| {
            let active = self.active_from.get(&spi).is_none_or(|from| *from <= now);
            let lifetime = end.saturating_since(now);
            let rank = if active { lifetime } else { Duration::MAX.saturating_sub(lifetime) };
            (active, !self.deleted.contains(&spi), rank)
        };
        let mut best = BTreeMap::new();
        for (spi, first) in concurrent {
            let Some(end) = self.expiry.get(spi).filter(|end| **end > now) else { continue };
            let candidate = (preference(*spi, *end), *spi);
            best.entry(*first)
                .and_modify(|known: &mut (_, Spi)| *known = candidate.max(*known))
                .or_insert(candidate);
        }
        best.into_iter().map(|(first, (_, spi))| (first, spi)).collect()
    }
}

/// When traffic is first left without a TEK that nobody deleted.
pub(super) fn first_needed(
    teks: &[TekPolicy],
    expiry: &BTreeMap<Spi, BootTime>,
    deleted: &BTreeSet<Spi>,
    now: BootTime,
) -> Option<BootTime> {
    let mut ends: BTreeMap<Spi, BootTime> = BTreeMap::new();
    for (spi, first) in concurrent(teks) {
        let Some(end) = expiry.get(&spi).filter(|end| **end > now) else { continue };
        if !deleted.contains(&spi) {
            ends.entry(first).and_modify(|known| *known = (*known).max(*end)).or_insert(*end);
        }
    }
    ends.values().min().copied()
}
