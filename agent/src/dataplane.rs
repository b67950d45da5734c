//! The kernel's side of the event loop: applies, repairs, and tries again what failed.
//!
//! Whatever fails, blocks and guards that are in place stay in place: after a failure the
//! reconciler removes nothing but keys that have ended.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use gdoi::BootTime;

use crate::membership::restore::Installed;
use tracing::{debug, error, info, warn};
use xfrm::model::SaId;
use xfrm::reconcile::Changed;
use xfrm::statistics::Statistics;
use xfrm::{Desired, Error, Kernel, Ownership, Parts, Reconciler, Report};

/// How often the kernel is compared with what it should hold, whether or not anything was heard of
/// a change.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How long an outbound state stays when another one has taken its place: packets under way may be
/// about to use it.
const RELEASE_AFTER: Duration = Duration::from_secs(1);
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
    withheld: BTreeSet<SaId>,
    worn: BTreeSet<SaId>,
    unknown_esp: u64,
    unauthentic: BTreeMap<SaId, u32>,
    missing_interfaces: BTreeSet<String>,
}

/// Why the kernel is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// We want something else.
    Desired,
    /// Something changed that is not ours to decide: interfaces, addresses, routes.
    Facts,
    /// Somebody else changed kernel entries, or the regular look.
    Foreign,
    /// An operation failed before.
    Retry,
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
            withheld: BTreeSet::new(),
            worn: BTreeSet::new(),
            unknown_esp: 0,
            unauthentic: BTreeMap::new(),
            missing_interfaces: BTreeSet::new(),
        }
    }

    /// Makes the kernel hold `desired`. Entries that an earlier run left are compared, not removed
    /// first.
    ///
    /// # Errors
    /// Logged already; [`Dataplane::handle_timeout`] tries again.
    pub async fn apply(&mut self, desired: Desired, now: BootTime) -> Result<(), Error> {
        let changed = self.change(desired).await;
        let result = self.confirm(changed).await;
        self.conclude(result, Cause::Desired, now)
    }

    /// The change alone: when it returns, the kernel has the keys. [`Dataplane::confirm`] reads
    /// them back, and what came of it goes to [`Dataplane::conclude`], which logs it: who waits for
    /// the kernel need not wait for the log.
    ///
    /// # Errors
    /// Neither logged nor tried again yet.
    pub async fn change(&mut self, desired: Desired) -> Result<Changed, Error> {
        self.reconciler.change(desired).await
    }

    /// Reads back what was changed.
    ///
    /// # Errors
    /// As [`Dataplane::change`].
    pub async fn confirm(&mut self, changed: Result<Changed, Error>) -> Result<Report, Error> {
        self.reconciler.confirm(changed?).await
    }

    /// Others may have changed these parts of the kernel: nothing is decided before they are read
    /// again.
    pub fn invalidate(&mut self, parts: Parts) {
        self.reconciler.invalidate(parts);
    }

    /// Reads what is in doubt, puts back what is missing and removes what should not be there.
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
    pub async fn statistics(&mut self) -> Result<Statistics, Error> {
        self.reconciler.statistics().await
    }

    /// What should be in the kernel.
    pub fn desired(&self) -> &Desired {
        self.reconciler.desired()
    }

    /// How often foreign changes were repaired.
    pub fn repairs(&self) -> u64 {
        self.repairs
    }

    /// The failure that stands, if one does.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Counter-mode senders that are gone and were not put back.
    pub fn withheld(&self) -> &BTreeSet<SaId> {
        &self.withheld
    }

    /// Senders whose sequence numbers have nearly been used up.
    pub fn worn(&self) -> &BTreeSet<SaId> {
        &self.worn
    }

    /// Packets of ESP dropped for their SPI, as of the last look.
    pub fn unknown_esp(&self) -> u64 {
        self.unknown_esp
    }

    /// Packets that failed the integrity check of a state, as of the last look.
    pub fn unauthentic(&self) -> &BTreeMap<SaId, u32> {
        &self.unauthentic
    }

    /// States of ours that the kernel holds, for example those of an earlier run.
    ///
    /// # Errors
    /// The kernel cannot be read.
    pub async fn installed(&mut self) -> Result<Installed, Error> {
        Ok(self.reconciler.read().await?.sas)
    }

    /// Interfaces that entries name and that do not exist.
    pub fn missing_interfaces(&self) -> &BTreeSet<String> {
        &self.missing_interfaces
    }

    /// Notes and logs what came of a change that was made because of `cause`.
    ///
    /// # Errors
    /// As [`Dataplane::apply`].
    pub fn conclude(
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
                self.note(report, cause);
                if self.failures > 0 {
                    info!(failures = self.failures, "the kernel holds what it should again");
                }
                self.failures = 0;
                self.last_error = None;
                self.next_check = now + CHECK_INTERVAL;
                Ok(())
            }
            Err(error) => {
                let wait = FIRST_RETRY
                    .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
                self.next_check = now + wait.min(LONGEST_RETRY);
                let text = error.to_string();
                // The same failure again and again is one piece of news.
                if self.last_error.as_ref() == Some(&text) {
                    debug!(error = %text, failures = self.failures, "the kernel still does not hold what it should");
                } else {
                    error!(error = %text, "the kernel does not hold what it should; blocks stay, trying again");
                }
                self.failures = self.failures.saturating_add(1);
                self.last_error = Some(text);
                Err(error)
            }
        }
    }

    fn note(&mut self, report: Report, cause: Cause) {
        for op in &report.done {
            debug!(%op, ?cause, "kernel changed");
        }
        if !report.done.is_empty() {
            match cause {
                Cause::Foreign => {
                    self.repairs = self.repairs.saturating_add(1);
                    warn!(
                        changes = report.done.len(),
                        "somebody else changed kernel entries of ours; they are put back"
                    );
                }
                Cause::Facts => {
                    info!(changes = report.done.len(), "kernel entries follow the interfaces")
                }
                Cause::Desired | Cause::Retry => {
                    info!(changes = report.done.len(), "kernel entries changed")
                }
            }
        }
        for sa in report.suppressed.difference(&self.withheld) {
            warn!(
                spi = format_args!("{:#010x}", sa.spi),
                "a counter-mode sender is gone and is not put back; packets of its policy are dropped until the key \
                 server gives a new TEK"
            );
        }
        for name in report.missing_interfaces.difference(&self.missing_interfaces) {
            warn!(interface = %name, "interface is missing; its entries follow when it is back");
        }
        self.withheld = report.suppressed;
        self.worn = report.near_exhaustion;
        self.unknown_esp = report.unknown_esp;
        self.unauthentic = report.integrity_failures;
        self.missing_interfaces = report.missing_interfaces;
    }
}
