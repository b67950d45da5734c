//! New TEKs for members that restarted in a group with counter modes.
//!
//! A Linux kernel has no sender identifier: its counter is all that keeps it from using an IV
//! twice, and a restart loses it. Such a member receives with the TEKs that it had before and must
//! not send with them. New ones, which it has never used, let it send again.

use std::time::Duration;

use ike::BootTime;

use super::Group;
use crate::members::registry::MemberId;

/// Message 4 comes first, and other members may restart together with this one.
const SETTLING: Duration = Duration::from_secs(2);

/// At least so far apart, however often members restart.
const LEAST_INTERVAL: Duration = Duration::from_secs(60);

/// When counter-mode TEKs are replaced because a member restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreshCounters {
    /// When that is due, and the latest restart: older TEKs are replaced.
    pub due: Option<(BootTime, BootTime)>,
    /// When it was done last.
    pub last: Option<BootTime>,
}

impl FreshCounters {
    /// When it is due.
    pub(super) fn due(&self) -> Option<BootTime> {
        self.due.map(|(at, _)| at)
    }

    /// Which TEKs are to be replaced now: those that are older than the result.
    pub(super) fn take(&mut self, now: BootTime) -> Option<BootTime> {
        let (_, restart) = self.due.take_if(|(at, _)| *at <= now)?;
        self.last = Some(now);
        Some(restart)
    }

    /// The push could not be made: it is due at once.
    pub(super) fn again(&mut self, restart: BootTime, now: BootTime) {
        self.due = Some((now, restart));
    }

    fn ask(&mut self, restart: BootTime, interval: Duration, now: BootTime) {
        let earliest = self.last.map_or(now, |last| last + interval);
        let at = earliest.max(now + SETTLING);
        let latest = self.due.map_or(restart, |(_, before)| before.max(restart));
        self.due = Some((self.due.map_or(at, |(before, _)| before), latest));
    }
}

impl Group {
    /// A member that said INITIAL-CONTACT at `restart` is about to be registered.
    pub(super) fn note_restart(&mut self, id: &MemberId, restart: BootTime, now: BootTime) {
        let Some(rekey_sa) = &self.rekey_sa else { return };
        let held = self.registry.find(id).is_some_and(|entry| entry.last < restart)
            || rekey_sa.abandoned.contains_key(id)
            || self.tek_holders.contains_key(id);
        if held && self.teks.has_counter_mode_before(restart) {
            self.ask_for_fresh_counters(restart, now);
        }
    }

    /// A member that has counter-mode TEKs restarted, here or at another server.
    pub(super) fn ask_for_fresh_counters(&mut self, restart: BootTime, now: BootTime) {
        // Twice as long as old TEKs stay beside new ones: two generations at a time are enough.
        let deactivation = self.served().gap.deactivation_time_delay.unwrap_or_default();
        let interval = deactivation.saturating_mul(2).max(LEAST_INTERVAL);
        self.fresh_counters.ask(restart, interval, now);
        self.changed = true;
    }
}
