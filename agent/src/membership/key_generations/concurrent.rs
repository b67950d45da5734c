//! Several TEKs of one generation for the same traffic (RFC 5374 §4.2.1): all are received on, one
//! is sent on.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use gdoi::group::{Spi, TekPolicy, concurrent};
use ike::BootTime;

use super::{ActiveLine, Generation};

impl Generation {
    fn line<'a>(
        &'a self,
        policy: &'a TekPolicy,
        send: bool,
        now: BootTime,
    ) -> Option<ActiveLine<'a>> {
        let end = self.expiry.get(&policy.spi);
        Some(ActiveLine {
            policy,
            keys: self.sa.tek_keys().get(&policy.spi)?,
            receive: self.is_alive(policy.spi, now),
            send,
            remaining_lifetime: end.map_or(Duration::ZERO, |end| end.saturating_since(now)),
        })
    }

    /// Lines that are received on, in the order received.
    pub(super) fn alive_lines(&self, now: BootTime) -> impl Iterator<Item = ActiveLine<'_>> {
        let alive = self.sa.policy().teks.iter().filter(move |line| self.is_alive(line.spi, now));
        alive.filter_map(move |line| self.line(line, false, now))
    }

    /// One line for each traffic: that of the TEK that is sent on, or the first one where none is
    /// left and `ended` says so of it.
    pub(super) fn sending_lines(
        &self,
        ended: impl Fn(Spi) -> bool,
        now: BootTime,
    ) -> Vec<ActiveLine<'_>> {
        let teks = &self.sa.policy().teks;
        let concurrent = concurrent(teks);
        let senders = self.senders(&concurrent, now);
        let mut by_traffic = BTreeMap::new();
        for line in teks {
            by_traffic
                .entry((line.spi, line.selector, line.protection.direction.0))
                .or_insert(line);
        }
        let mut lines = Vec::new();
        for first in teks.iter().filter(|line| concurrent.get(&line.spi) == Some(&line.spi)) {
            let sender = senders.get(&first.spi);
            let own = sender.and_then(|spi| {
                by_traffic.get(&(*spi, first.selector, first.protection.direction.0))
            });
            match own {
                Some(own) => lines.extend(self.line(own, true, now)),
                None if ended(first.spi) => lines.extend(self.line(first, false, now)),
                None => {}
            }
        }
        lines
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
