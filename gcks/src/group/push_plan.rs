//! When a push is due by schedule.

use std::time::Duration;

use ike::BootTime;

use super::Group;
use super::event::Event;
use super::key_generation::KeySource;
use super::tek_schedule::Renewal;
use crate::config::Rekey;

/// After a push that could not be made.
const RETRY: Duration = Duration::from_secs(10);

/// Which keys a push replaces.
#[derive(Clone, Copy, Debug)]
pub struct RekeyRequest {
    /// Which TEKs are replaced.
    pub renewal: Renewal,
    /// Whether the KEK is replaced, too.
    pub roll: bool,
    /// Whether members delete the TEKs in use at once.
    pub delete: bool,
    pub purpose: &'static str,
}

impl Group {
    /// When the next push is due by schedule.
    pub fn next_push(&self) -> Option<BootTime> {
        let rekey_sa = self.rekey_sa.as_ref()?;
        rekey_sa.kek()?;
        if !self.has_audience() || self.is_sub_server() {
            return None;
        }
        let activation = self.settling();
        let teks = self.teks.next_push(rekey_sa.lead(activation));
        let usual = teks.into_iter().chain(rekey_sa.next_roll(activation));
        let usual = usual.chain(self.fresh_counters.due()).min()?;
        // What had to wait until all members get pushes is due then.
        let due = if self.can_catch_up() { BootTime::default() } else { usual };
        Some(rekey_sa.retry_at.map_or(due, |retry_at| due.max(retry_at)))
    }

    /// Whether [`Group::push_due`] has something to do.
    pub fn is_push_due(&self, now: BootTime) -> bool {
        self.next_push().is_some_and(|due| due <= now)
    }

    /// Makes the push that is due by schedule, if one is.
    pub fn push_due(&mut self, keys: &mut KeySource<'_>, now: BootTime) {
        if !self.is_push_due(now) {
            return;
        }
        if self.can_catch_up() {
            self.catch_up(keys, now);
            return;
        }
        let Some(rekey_sa) = &self.rekey_sa else { return };
        let activation = self.settling();
        let lead = rekey_sa.lead(activation);
        let roll = rekey_sa.next_roll(activation).is_some_and(|due| due <= now);
        let asked = self.fresh_counters.take(now);
        let (renewal, purpose) = match asked {
            Some(restart) => (Renewal::CountersBefore(restart, lead), "restart of a member"),
            None => (Renewal::Ahead(lead), "schedule"),
        };
        if asked.is_some_and(|restart| !self.teks.has_counter_mode_before(restart))
            && !self.teks.wants(Renewal::Missing, now)
            && !self.is_push_due(now)
        {
            // They have been replaced meanwhile.
            return;
        }
        let request = RekeyRequest { renewal, roll, delete: false, purpose };
        if let Err(error) = self.push_keys(request, keys, now) {
            self.events.push_back(Event::PushFailed { error });
            if let Some(rekey_sa) = &mut self.rekey_sa {
                rekey_sa.retry_at = Some(now + RETRY);
            }
            if let Some(restart) = asked {
                self.fresh_counters.again(restart, now);
            }
        }
    }

    /// How long members send with the old TEKs after a push.
    pub(super) fn activation(&self) -> Duration {
        self.served().gap.activation_time_delay.unwrap_or_default()
    }

    /// Whether the next KEK comes out of the hierarchy of this one: a hierarchy has one cipher.
    pub(super) fn keeps_tree(&self) -> bool {
        self.keeps_tree_under(self.config.rekey.as_ref())
    }

    /// Whether it would with these settings.
    pub(super) fn keeps_tree_under(&self, settings: Option<&Rekey>) -> bool {
        let Some(rekey_sa) = &self.rekey_sa else { return false };
        let same =
            settings.is_some_and(|to| to.lkh && to.encryption == rekey_sa.settings.encryption);
        same && rekey_sa.kek().is_some_and(|kek| kek.tree().is_some())
    }
}
