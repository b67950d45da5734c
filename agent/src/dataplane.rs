//! The kernel's side of the event loop: applies, repairs, and tries again what failed.
//!
//! Whatever fails, blocks and guards that are in place stay in place: after a failure the
//! reconciler removes nothing but keys that have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ike::BootTime;

use crate::membership::restore::Installed;
use tracing::{debug, error, info, warn};
use xfrm::model::SaId;
use xfrm::nft::FOREIGN_POLICY;
use xfrm::statistics::Statistics;
use xfrm::{Desired, Entry, Error, Kernel, Ownership, Parts, Reconciler, Report};

/// How often the kernel is compared with what it should hold, whether or not anything was heard of
/// a change.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How long an outbound state stays when another one has taken its place: packets under way may be
/// about to use it.
const RELEASE_AFTER: Duration = Duration::from_secs(1);
/// How long packets that a foreign policy took stay a problem after the last of them.
const FOREIGN_POLICY_PROBLEM: Duration = Duration::from_secs(300);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The desired state and how well the kernel follows it.
#[derive(Debug)]
pub struct Dataplane<K: Kernel> {
    reconciler: Reconciler<K>,
    next_check: BootTime,
    /// When the states go that others have taken the place of.
    release_at: Option<BootTime>,
    /// These were there when somebody looked last.
    leaving: BTreeSet<SaId>,
    /// Failures in a row and the latest one.
    failures: u32,
    last_error: Option<String>,
    repairs: u64,
    suppressed: BTreeSet<SaId>,
    near_exhaustion: BTreeSet<SaId>,
    unknown_esp: u64,
    integrity_failures: BTreeMap<SaId, u32>,
    missing_interfaces: BTreeSet<String>,
    foreign: BTreeMap<Entry, Error>,
    /// Packets of the group that a foreign policy took, as of the last look, and until when that is
    /// a problem.
    foreign_policy_drops: u64,
    foreign_policy_until: Option<BootTime>,
}

/// Why the kernel is updated or looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The desired state is another one.
    Desired,
    /// Interfaces, addresses or routes changed.
    Interfaces,
    /// Another program changed kernel entries, or the periodic check.
    Foreign,
    /// An operation failed before.
    Retry,
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Self::Desired => "desired-state",
            Self::Interfaces => "interfaces",
            Self::Foreign => "foreign-change",
            Self::Retry => "retry",
        }
    }
}

impl<K: Kernel> Dataplane<K> {
    /// Nothing desired, nothing touched.
    pub fn new(kernel: K, now: BootTime) -> Self {
        Self {
            reconciler: Reconciler::new(kernel, Ownership::default()),
            next_check: now + CHECK_INTERVAL,
            release_at: None,
            leaving: BTreeSet::new(),
            failures: 0,
            last_error: None,
            repairs: 0,
            suppressed: BTreeSet::new(),
            near_exhaustion: BTreeSet::new(),
            unknown_esp: 0,
            integrity_failures: BTreeMap::new(),
            missing_interfaces: BTreeSet::new(),
            foreign: BTreeMap::new(),
            foreign_policy_drops: 0,
            foreign_policy_until: None,
        }
    }

    /// Makes the kernel hold `desired` and reads it back. Entries that an earlier run left are
    /// compared, not removed first.
    ///
    /// # Errors
    /// Logged already; [`Dataplane::handle_timeout`] tries again.
    pub async fn apply(&mut self, desired: Desired, now: BootTime) -> Result<(), Error> {
        let result = self.reconciler.apply(desired).await;
        self.conclude(result, Cause::Desired, now)
    }

    /// Reads which LANs are exempt from checks by somebody else's setting, before `desired` makes
    /// all of them so. Where the kernel cannot be read, [`Dataplane::apply`] says it.
    pub async fn foresee_exempt(&mut self, desired: &Desired) {
        if let Err(error) = self.reconciler.foresee_exempt(desired).await {
            debug!(event = "kernel-unreadable", %error, "kernel entries cannot be read");
        }
    }

    /// LANs that were exempt from checks before: the setting stays when the agent goes.
    pub fn exempt_before(&self) -> &BTreeSet<String> {
        self.reconciler.exempt_before()
    }

    /// What [`Dataplane::exempt_before`] said in an earlier run.
    pub fn remember_exempt(&mut self, before: BTreeSet<String>) {
        self.reconciler.remember_exempt(before);
    }

    /// Others may have changed these parts of the kernel: they are read again before anything is
    /// decided.
    pub fn invalidate(&mut self, parts: Parts) {
        self.reconciler.invalidate(parts);
    }

    /// Reads what was invalidated, puts back what is missing and removes what should not be there.
    ///
    /// # Errors
    /// As [`Dataplane::apply`].
    pub async fn repair(&mut self, cause: Cause, now: BootTime) -> Result<(), Error> {
        let result = self.reconciler.repair(Parts::NONE).await;
        self.conclude(result, cause, now)
    }

    /// The end of what others have taken the place of, the regular look, or the next attempt after
    /// a failure, if it is due.
    pub async fn handle_timeout(&mut self, now: BootTime) {
        self.handle_release(now).await;
        if self.next_check <= now {
            let cause = if self.failures > 0 { Cause::Retry } else { Cause::Foreign };
            self.invalidate(Parts::ALL);
            // Logged there, and the next attempt is set.
            let _ = self.repair(cause, now).await;
        }
    }

    /// When [`Dataplane::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> BootTime {
        self.release_at.map_or(self.next_check, |at| at.min(self.next_check))
    }

    /// Removes the outbound states that others have taken the place of, if their time is over.
    pub async fn handle_release(&mut self, now: BootTime) {
        if self.release_at.take_if(|at| *at <= now).is_some() {
            let result = self.reconciler.release().await;
            // Logged there, and the next attempt is set.
            let _ = self.conclude(result, Cause::Desired, now);
        }
    }

    /// Outbound states that stay for packets under way alone.
    pub fn replaced(&self) -> &BTreeSet<SaId> {
        self.reconciler.replaced()
    }

    /// When [`Dataplane::handle_release`] is due.
    pub fn poll_release(&self) -> Option<BootTime> {
        self.release_at
    }

    /// Counters as they are now.
    ///
    /// # Errors
    /// The kernel cannot be read.
    pub async fn statistics(&mut self, now: BootTime) -> Result<Statistics, Error> {
        let statistics = self.reconciler.statistics().await?;
        let drops = statistics.rules.get(FOREIGN_POLICY).map_or(0, |counters| counters.packets);
        self.note_foreign_policy(drops, now);
        Ok(statistics)
    }

    /// Group traffic that went to a policy of somebody else lately, and what would help.
    pub fn foreign_policy(&self, now: BootTime) -> Option<&'static str> {
        self.foreign_policy_until.is_some_and(|until| now < until).then_some(
            "group traffic is matched by an XFRM policy of another program and dropped: exclude it \
             from the group ([[group.exclude]]), or remove that policy (`ip xfrm policy`)",
        )
    }

    fn note_foreign_policy(&mut self, drops: u64, now: BootTime) {
        // The counter starts at zero with new tables.
        if drops > 0 && drops != self.foreign_policy_drops {
            if self.foreign_policy(now).is_none() {
                warn!(
                    event = "foreign-policy-match",
                    packets = drops,
                    "group traffic is matched by an XFRM policy of another program and dropped"
                );
            }
            self.foreign_policy_until = Some(now + FOREIGN_POLICY_PROBLEM);
        }
        self.foreign_policy_drops = drops;
    }

    /// What should be in the kernel.
    pub fn desired(&self) -> &Desired {
        self.reconciler.desired()
    }

    /// How many foreign changes were repaired.
    pub fn repairs(&self) -> u64 {
        self.repairs
    }

    /// The failure that stands, if one does.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Outbound counter-mode SAs that are gone and must not be reinstalled.
    pub fn suppressed(&self) -> &BTreeSet<SaId> {
        &self.suppressed
    }

    /// Outbound SAs whose sequence number is near exhaustion (RFC 4303 §3.3.3).
    pub fn near_exhaustion(&self) -> &BTreeSet<SaId> {
        &self.near_exhaustion
    }

    /// Packets of ESP dropped for their SPI, as of the last look.
    pub fn unknown_esp(&self) -> u64 {
        self.unknown_esp
    }

    /// Integrity failures of each inbound SA, as of the last look.
    pub fn integrity_failures(&self) -> &BTreeMap<SaId, u32> {
        &self.integrity_failures
    }

    /// States of ours that the kernel holds, for example those of an earlier run.
    ///
    /// # Errors
    /// The kernel cannot be read.
    pub async fn installed(&mut self) -> Result<Installed, Error> {
        Ok(self.reconciler.read().await?.sas)
    }

    /// Entries of somebody else that stand where entries of ours should, and what would help.
    pub fn foreign(&self) -> impl Iterator<Item = (&Entry, &Error)> {
        self.foreign.iter()
    }

    /// Interfaces that entries name and that do not exist.
    pub fn missing_interfaces(&self) -> &BTreeSet<String> {
        &self.missing_interfaces
    }

    /// Notes and logs what came of a change that was made because of `cause`.
    fn conclude(
        &mut self,
        result: Result<Report, Error>,
        cause: Cause,
        now: BootTime,
    ) -> Result<(), Error> {
        let replaced = self.reconciler.replaced();
        if !replaced.is_subset(&self.leaving) {
            self.release_at = Some(now + RELEASE_AFTER);
        }
        self.leaving.clone_from(replaced);
        match result {
            Ok(report) => {
                self.note_foreign_policy(report.foreign_policy_drops, now);
                self.note(report, cause);
                if self.failures > 0 {
                    info!(
                        event = "kernel-update-recovered",
                        failures = self.failures,
                        "kernel holds the desired state again"
                    );
                }
                self.failures = 0;
                self.last_error = None;
                self.next_check = now + CHECK_INTERVAL;
                Ok(())
            }
            Err(error) => {
                let wait = FIRST_RETRY
                    .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
                    .min(LONGEST_RETRY);
                self.next_check = now + wait;
                let text = error.to_string();
                let retry_seconds = wait.as_secs();
                // The same failure again and again is one piece of news.
                if self.last_error.as_ref() == Some(&text) {
                    debug!(
                        event = "kernel-update-still-failing",
                        error = %text,
                        failures = self.failures,
                        retry_seconds,
                        "kernel update still fails"
                    );
                } else {
                    error!(
                        event = "kernel-update-failed",
                        error = %text,
                        retry_seconds,
                        "kernel update failed; fail-close policies stay installed, retrying"
                    );
                }
                self.failures = self.failures.saturating_add(1);
                self.last_error = Some(text);
                Err(error)
            }
        }
    }

    fn note(&mut self, report: Report, cause: Cause) {
        for op in &report.done {
            debug!(event = "kernel-operation", %op, cause = cause.name(), "kernel operation done");
        }
        let changes = report.done.len();
        match cause {
            _ if changes == 0 => {}
            Cause::Foreign => {
                self.repairs = self.repairs.saturating_add(1);
                warn!(
                    event = "kernel-entries-repaired",
                    changes, "kernel entries were changed by another program; repaired"
                );
            }
            Cause::Interfaces => info!(
                event = "kernel-entries-updated",
                changes,
                cause = cause.name(),
                "kernel entries follow a change of interfaces, addresses or routes"
            ),
            Cause::Desired | Cause::Retry => info!(
                event = "kernel-entries-updated",
                changes,
                cause = cause.name(),
                "kernel entries updated"
            ),
        }
        for sa in report.suppressed.difference(&self.suppressed) {
            warn!(
                event = "counter-mode-sender-suppressed",
                spi = format_args!("{:#010x}", sa.spi),
                "outbound counter-mode SA is gone and is not reinstalled, because its IVs would \
                 repeat; packets of its policy are dropped until the key server sends a new TEK"
            );
        }
        for name in report.missing_interfaces.difference(&self.missing_interfaces) {
            warn!(
                event = "interface-missing",
                interface = %name,
                "interface does not exist; its entries are installed when it appears"
            );
        }
        for (_, reason) in
            report.foreign.iter().filter(|(entry, _)| !self.foreign.contains_key(entry))
        {
            warn!(
                event = "foreign-kernel-entry",
                %reason,
                "kernel entry of another program conflicts with one of the agent; all others are installed"
            );
        }
        self.foreign = report.foreign;
        self.suppressed = report.suppressed;
        self.near_exhaustion = report.near_exhaustion;
        self.unknown_esp = report.unknown_esp;
        self.integrity_failures = report.integrity_failures;
        self.missing_interfaces = report.missing_interfaces;
    }
}
