//! The keys of one group over time: which TEKs are received on, which are sent on, and until when.
//!
//! A new generation is received on at once. It is sent on at its activation delay (RFC 6407
//! §5.4.1), and the one before is received on until the deactivation delay (§5.4.2) or its own end.
//! A generation may have several TEKs for the same traffic (RFC 5374 §4.2.1): all of them are
//! received on, and the one with the longest remaining lifetime is sent on once its activation
//! delay is over.
//! All points in time are on the boot-time clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gdoi::group::{GroupSa, Spi, TekKeys, TekPolicy, TekProtocol};
use gdoi::push::Deletion;
use ike::BootTime;

use crate::membership::failover::margin;
use concurrent::first_needed;

/// How long members go on sending on the old TEK where a push states no activation delay: the first
/// repetition of the push reaches those that missed it (RFC 6407 §5.4.1 leaves the delay to us
/// then).
const PUSH_ACTIVATION: Duration = Duration::from_secs(15);

/// One group SA as received.
#[derive(Debug)]
struct Generation {
    sa: GroupSa,
    received: BootTime,
    /// When sending on it begins.
    send_from: BootTime,
    /// When receiving on it ends because a newer one took over.
    receive_until: Option<BootTime>,
    /// End of lifetime by SPI.
    expiry: BTreeMap<Spi, BootTime>,
    /// When a TEK may be sent on where another one protects the same traffic.
    active_from: BTreeMap<Spi, BootTime>,
    /// SPIs that the key server deleted.
    deleted: BTreeSet<Spi>,
    /// Whether it came by push.
    pushed: bool,
    /// The SA TEKs that its own took the place of.
    sa_teks_before: Vec<TekPolicy>,
}

/// One TEK as it is to be in the kernel now.
#[derive(Clone, Copy, Debug)]
pub struct ActiveTek<'a> {
    pub spi: Spi,
    /// The first of its SA TEKs.
    pub policy: &'a TekPolicy,
    pub expiry: BootTime,
    /// Whether packets are sent on it. All active TEKs are received on.
    pub send: bool,
}

/// One SA TEK with the TEK that it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct ActiveSaTek<'a> {
    /// The SA TEK, in the order received.
    pub policy: &'a TekPolicy,
    /// Keys of its SPI.
    pub keys: &'a TekKeys,
    /// Whether packets are received on it. Otherwise its TEK has ended before others of its group
    /// SA, and its traffic stays blocked.
    pub receive: bool,
    /// Whether packets are sent on it.
    pub send: bool,
    /// Time to its end.
    pub remaining_lifetime: Duration,
}

/// All generations of one group, oldest first.
#[derive(Debug, Default)]
pub struct KeyGenerations {
    generations: Vec<Generation>,
    /// SA TEKs of the latest group SA. They outlive its keys: what was protected stays blocked.
    sa_teks: Vec<TekPolicy>,
    /// SPIs in use and whether they are sent on, when somebody looked last.
    shown: Vec<(Spi, bool)>,
}

impl KeyGenerations {
    /// Takes in what a registration brought: the group's whole policy. Returns the first end of its
    /// TEKs.
    pub fn add(&mut self, sa: GroupSa, now: BootTime) -> Option<BootTime> {
        let gap = &sa.policy().gap;
        let activation = gap.activation_time_delay.unwrap_or(Duration::ZERO);
        let counted_from =
            self.sending(now).map_or(now, |current| delays_count_from(current, activation, now));
        let delays = Delays { counted_from, activation, deactivation: gap.deactivation_time_delay };
        let expiry = expiries(&sa, now);
        let first_end = first_needed(&sa.policy().teks, &expiry, &BTreeSet::new(), now);
        if !self.is_ahead_of(&sa, now) {
            self.insert(sa, expiry, delays, false, now);
        }
        first_end
    }

    /// Whether a push has brought more than this pull knows. While members change over to a pushed
    /// key, a key server may answer a pull with the keys before, and expects the member to follow
    /// its last push: this one has done so.
    fn is_ahead_of(&self, pulled: &GroupSa, now: BootTime) -> bool {
        let Some((latest, earlier)) = self.generations.split_last() else { return false };
        let usable = |generation: &Generation, spi: &Spi| {
            let alive = generation.expiry.get(spi).is_some_and(|end| *end > now)
                && !generation.is_over(now);
            alive && !generation.deleted.contains(spi)
        };
        let mut newer = latest.expiry.keys().filter(|spi| !pulled.tek_keys().contains_key(*spi));
        let mut pulled = pulled.tek_keys().keys();
        latest.pushed
            && newer.any(|spi| usable(latest, spi))
            && pulled.all(|spi| earlier.iter().any(|generation| usable(generation, spi)))
    }

    /// `sa`, which a push brought, over what is in use: a push need not repeat what stays (RFC 6407
    /// §4.3).
    pub fn merged(&self, sa: GroupSa, deletions: &[Deletion]) -> GroupSa {
        match self.generations.last() {
            Some(latest) => {
                sa.over(&latest.sa, |spi| latest.deleted.contains(&spi) || names(deletions, spi))
            }
            None => sa,
        }
    }

    /// Carries a push out: deletes, then the new SAs, which [`KeyGenerations::merged`] has put over
    /// the old ones. Where there is a deactivation delay, what is deleted is received on until then
    /// (RFC 6407 §5.4.2).
    pub fn push(&mut self, merged: Option<GroupSa>, deletions: &[Deletion], now: BootTime) {
        let Some(sa) = merged else {
            self.delete(deletions, now);
            self.shown = self.in_use(now);
            return;
        };
        let delays = push_delays(&sa, now);
        self.delete(
            deletions,
            delays.deactivation.map_or(now, |delay| now + delay.max(delays.activation)),
        );
        let mut expiry = expiries(&sa, now);
        if let Some(latest) = self.generations.last() {
            // What was carried over ends when it always did.
            let carried = |spi: &Spi| latest.sa.tek_keys().get(spi) == sa.tek_keys().get(spi);
            for (spi, end) in &latest.expiry {
                if carried(spi) && !latest.deleted.contains(spi) {
                    expiry.entry(*spi).and_modify(|new| *new = (*new).min(*end));
                }
            }
        }
        self.insert(sa, expiry, delays, true, now);
    }

    /// Ends the SAs that `deletions` name.
    fn delete(&mut self, deletions: &[Deletion], until: BootTime) {
        for generation in &mut self.generations {
            for (spi, end) in
                generation.expiry.iter_mut().filter(|(spi, _)| names(deletions, **spi))
            {
                *end = until.min(*end);
                generation.deleted.insert(*spi);
            }
        }
    }

    fn insert(
        &mut self,
        sa: GroupSa,
        expiry: BTreeMap<Spi, BootTime>,
        delays: Delays,
        pushed: bool,
        now: BootTime,
    ) {
        self.drop_ended(now);
        let sa_teks_before = std::mem::replace(&mut self.sa_teks, sa.policy().teks.clone());
        // The same keys again, with what is left of their lifetime: nothing rolls over.
        if let Some(latest) = self.generations.last_mut()
            && latest.sa.tek_keys() == sa.tek_keys()
        {
            latest.sa = sa;
            latest.expiry = expiry;
            latest.deleted.clear();
            latest.received = now;
            self.shown = self.in_use(now);
            return;
        }

        let mut send_from = now;
        if let Some(current) = self.sending(now) {
            // What is replaced and gone, or goes before the delay is over, is not waited for.
            let replaced =
                current.expiry.iter().filter(|(spi, _)| !sa.tek_keys().contains_key(*spi));
            let end = replaced.map(|(_, end)| *end).min().unwrap_or(current.last_end());
            send_from = (delays.counted_from + delays.activation).min(end).max(now);
            if let Some(deactivation) = delays.deactivation {
                let until = (delays.counted_from + deactivation).max(send_from);
                for old in &mut self.generations {
                    old.receive_until =
                        Some(old.receive_until.map_or(until, |earlier| earlier.min(until)));
                }
            }
        }
        let known = |spi: &Spi| {
            let generations = self.generations.iter().rev();
            let mut same =
                generations.filter(|one| one.sa.tek_keys().get(spi) == sa.tek_keys().get(spi));
            same.find_map(|one| one.active_from.get(spi).copied())
        };
        let active_from = expiry
            .keys()
            .map(|spi| (*spi, known(spi).unwrap_or(delays.counted_from + delays.activation)))
            .collect();
        // A generation that waits for its activation is overtaken; it stays for receiving.
        self.generations.push(Generation {
            sa,
            received: now,
            send_from,
            receive_until: None,
            expiry,
            active_from,
            deleted: BTreeSet::new(),
            pushed,
            sa_teks_before,
        });
        self.shown = self.in_use(now);
    }

    /// Whether a push brought what was received last.
    pub fn is_latest_pushed(&self) -> bool {
        self.generations.last().is_some_and(|latest| latest.pushed)
    }

    /// What was received last and not merged into what was there. What was protected before it
    /// counts again.
    pub fn take_latest(&mut self) -> Option<GroupSa> {
        let latest = self.generations.pop()?;
        self.sa_teks = latest.sa_teks_before;
        Some(latest.sa)
    }

    /// Drops what has ended. Returns whether other keys are in use than before, or in another way.
    pub fn handle_timeout(&mut self, now: BootTime) -> bool {
        self.drop_ended(now);
        let in_use = self.in_use(now);
        let changed = in_use != self.shown;
        self.shown = in_use;
        changed
    }

    /// When [`KeyGenerations::handle_timeout`] has something to do next after `now`.
    pub fn poll_timeout(&self, now: BootTime) -> Option<BootTime> {
        self.generations
            .iter()
            .flat_map(Generation::deadlines)
            .filter(|deadline| *deadline > now)
            .min()
    }

    /// Whether there is no usable TEK.
    pub fn is_empty(&self, now: BootTime) -> bool {
        self.generations.iter().all(|generation| generation.is_over(now))
    }

    /// When traffic of the newest generation is first left without a TEK that nobody deleted: when
    /// a further key is needed.
    pub fn first_end(&self, now: BootTime) -> Option<BootTime> {
        let latest = self.generations.last()?;
        first_needed(&latest.sa.policy().teks, &latest.expiry, &latest.deleted, now)
    }

    /// SA TEKs with keys: the sending generation's SA TEKs in the order received, then what
    /// older and newer generations add for receiving. An SPI appears under one generation only.
    ///
    /// Of several TEKs for the same traffic the one that is sent on has the place of the first, so
    /// that nothing moves when another one takes over; the others follow. SA TEKs of the sending
    /// generation whose traffic has no TEK left keep their place.
    pub fn active(&self, now: BootTime) -> Vec<ActiveSaTek<'_>> {
        let sending = self.sending(now);
        let others = self.generations.iter().rev().filter(|generation| {
            sending.is_none_or(|sending| !std::ptr::eq(*generation, sending))
                && !generation.is_over(now)
        });
        let mut sa_teks = Vec::new();
        let mut seen = BTreeSet::new();
        if let Some(generation) = sending {
            let ended = |spi| !self.is_alive(spi, now);
            sa_teks = generation.sending_sa_teks(ended, now);
            seen.extend(sa_teks.iter().map(|sa_tek| sa_tek.policy.spi));
        }
        for generation in sending.into_iter().chain(others) {
            let fresh =
                generation.alive_sa_teks(now).filter(|sa_tek| !seen.contains(&sa_tek.policy.spi));
            let fresh: Vec<ActiveSaTek<'_>> = fresh.collect();
            seen.extend(fresh.iter().map(|sa_tek| sa_tek.policy.spi));
            sa_teks.extend(fresh);
        }
        sa_teks
    }

    /// SA TEKs of the latest group SA, whether or not its keys are still valid.
    pub fn sa_teks(&self) -> &[TekPolicy] {
        &self.sa_teks
    }

    /// The TEKs in use, one entry per SPI, for show commands.
    pub fn teks(&self, now: BootTime) -> Vec<ActiveTek<'_>> {
        let mut teks: Vec<ActiveTek<'_>> = Vec::new();
        for sa_tek in self.active(now).into_iter().filter(|sa_tek| sa_tek.receive) {
            let spi = sa_tek.policy.spi;
            if teks.iter().any(|known| known.spi == spi) {
                continue;
            }
            let end =
                self.generations.iter().rev().find_map(|generation| generation.expiry.get(&spi));
            let expiry = end.copied().unwrap_or(now);
            teks.push(ActiveTek { spi, policy: sa_tek.policy, expiry, send: sa_tek.send });
        }
        teks
    }

    /// When the newest generation was received.
    pub fn received(&self) -> Option<BootTime> {
        self.generations.last().map(|generation| generation.received)
    }

    /// The newest generation whose activation has come and that is not over.
    fn sending(&self, now: BootTime) -> Option<&Generation> {
        let usable = |generation: &&Generation| !generation.is_over(now);
        let active = |generation: &&Generation| generation.send_from <= now;
        let newest = self.generations.iter().rev().filter(usable).find(active);
        // Without an older key nothing is gained by waiting.
        newest.or_else(|| self.generations.iter().find(usable))
    }

    fn in_use(&self, now: BootTime) -> Vec<(Spi, bool)> {
        self.active(now)
            .iter()
            .filter(|sa_tek| sa_tek.receive)
            .map(|sa_tek| (sa_tek.policy.spi, sa_tek.send))
            .collect()
    }

    fn is_alive(&self, spi: Spi, now: BootTime) -> bool {
        let mut usable = self.generations.iter().filter(|generation| !generation.is_over(now));
        usable.any(|generation| generation.expiry.get(&spi).is_some_and(|end| *end > now))
    }

    fn drop_ended(&mut self, now: BootTime) {
        self.generations.retain(|generation| !generation.is_over(now));
    }
}

impl Generation {
    fn is_over(&self, now: BootTime) -> bool {
        self.receive_until.is_some_and(|until| until <= now) || self.last_end() <= now
    }

    fn last_end(&self) -> BootTime {
        self.expiry.values().max().copied().unwrap_or_default()
    }

    fn deadlines(&self) -> impl Iterator<Item = BootTime> {
        let teks = self.expiry.values().chain(self.active_from.values()).copied();
        teks.chain(Some(self.send_from)).chain(self.receive_until)
    }

    fn is_alive(&self, spi: Spi, now: BootTime) -> bool {
        self.expiry.get(&spi).is_some_and(|end| *end > now)
    }
}

/// From when the delays of a new generation count, and how long they are.
#[derive(Clone, Copy, Debug)]
struct Delays {
    counted_from: BootTime,
    activation: Duration,
    deactivation: Option<Duration>,
}

/// A push reaches all members at the same time: its delays count from there.
fn push_delays(sa: &GroupSa, now: BootTime) -> Delays {
    let gap = &sa.policy().gap;
    let deactivation = gap.deactivation_time_delay;
    let unstated = deactivation.map_or(PUSH_ACTIVATION, |delay| PUSH_ACTIVATION.min(delay / 2));
    Delays {
        counted_from: now,
        activation: gap.activation_time_delay.unwrap_or(unstated),
        deactivation,
    }
}

/// Whether one of `deletions` names the ESP SA `spi`.
fn names(deletions: &[Deletion], spi: Spi) -> bool {
    deletions.iter().any(|one| match one {
        Deletion::Tek(protocol, named) => *protocol == TekProtocol::ESP && *named == spi,
        Deletion::AllTeks(protocol) => *protocol == TekProtocol::ESP,
        Deletion::Kek(_) | Deletion::AllKeks => false,
    })
}

/// End of lifetime by SPI: the shortest lifetime of the SA TEKs that share it.
fn expiries(sa: &GroupSa, now: BootTime) -> BTreeMap<Spi, BootTime> {
    let mut expiry = BTreeMap::new();
    for tek in &sa.policy().teks {
        let end = now + tek.protection.lifetime;
        expiry
            .entry(tek.spi)
            .and_modify(|known: &mut BootTime| *known = end.min(*known))
            .or_insert(end);
    }
    expiry
}

/// The moment from which the delays of a new generation count.
///
/// A push reaches all members at once, and delays count from its receipt. Members that pull instead
/// come one after the other within the margin before the old key's end, and each must have the new
/// key before anybody sends on it: within that margin the delays count so that sending begins at
/// half of it. A key that is replaced long before its end was replaced for a reason, and is not
/// waited for.
fn delays_count_from(current: &Generation, activation: Duration, now: BootTime) -> BootTime {
    let teks = &current.sa.policy().teks;
    let Some(end) = first_needed(teks, &current.expiry, &BTreeSet::new(), now) else { return now };
    let margin = margin(end.saturating_since(current.received));
    if end.saturating_since(now) > margin {
        return now;
    }
    now.max(end - margin / 2 - activation)
}

mod concurrent;
#[cfg(test)]
mod hostile;
mod restored;
#[cfg(test)]
mod tests;
