//! Makes the kernel what it should be: read, compare, change in order, read back.
//!
//! What was read is kept, and is read again where we changed it or where somebody said that it may
//! have changed ([`Reconciler::invalidate`]): a new key costs a reading of the states and of the
//! sets, not of every rule and policy. Measured natively with one line, reading the tables takes
//! 0.3 ms of processor time, computing the digests of their rules 0.2 ms, and everything else
//! together less than 0.1 ms. Everything is compared each time.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::Desired;
use crate::error::{EINTR, Error, Failure};
use crate::kernel::{Current, Kernel};
use crate::model::{Install, Sa, SaId, SaRole};
use crate::nft::{FOREIGN_POLICY, Fingerprint, Preservation, UNKNOWN_ESP};
use crate::op::{Entry, Op};
use crate::ownership::Ownership;
use crate::parts::Parts;
use crate::plan::{self, Exemptions};
use crate::statistics::Statistics;

/// Rounds of reading and changing before the reconciler says that the kernel does not converge.
const ROUNDS: u32 = 4;

/// How often a part of the kernel is read when somebody else changes it meanwhile (EINTR).
const READINGS: u32 = 16;

/// Sequence number from which a sender that must not wrap needs a new TEK: a quarter of 2^32
/// packets is left, 17 minutes at a million a second.
const NEAR_EXHAUSTION: u32 = 0xc000_0000;

/// Keeps one desired state in the kernel.
#[derive(Debug)]
pub struct Reconciler<K: Kernel> {
    kernel: K,
    ownership: Ownership,
    desired: Desired,
    /// Counter-mode senders that were installed: putting one back would start a second
    /// initialisation vector sequence.
    iv_reuse_hazard: BTreeSet<SaId>,
    /// Outbound states that others have taken the place of, and that packets under way may still be
    /// about to use.
    replaced: BTreeSet<SaId>,
    /// What the tables look like in the kernel, without SPIs, and what that was computed from:
    /// rules outlast many keys, and their digests are most of what a comparison costs.
    tables: Option<(Preservation, BTreeMap<String, u32>, Fingerprint)>,
    exemptions: Exemptions,
    current: Current,
    /// What may be different by now.
    stale: Parts,
}

/// What an [`apply`](Reconciler::apply) or [`repair`](Reconciler::repair) did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations done, in order. Empty: the kernel already was as desired.
    pub done: Vec<Op>,
    /// Counter-mode senders that are gone from the kernel and were not put back: each needs a new
    /// TEK. Until then their packets are dropped.
    pub suppressed: BTreeSet<SaId>,
    /// Senders whose sequence number must not wrap and has come near its end: each needs a new TEK.
    pub near_exhaustion: BTreeSet<SaId>,
    /// Packets of ESP between group prefixes that were dropped because their SPI is not known here,
    /// since the tables were made.
    pub unknown_esp: u64,
    /// Packets between group prefixes that were dropped because a policy of somebody else took
    /// them, since the tables were made.
    pub foreign_policy_drops: u64,
    /// Packets that failed the integrity check of an inbound state, since the state was made; only
    /// where there were any.
    pub integrity_failures: BTreeMap<SaId, u32>,
    /// What somebody else's entry of the same identity keeps out of the kernel. The rest of the
    /// desired state is there.
    pub foreign: BTreeMap<Entry, Error>,
    /// Interfaces that are named but do not exist now. Repair again when one appears.
    pub missing_interfaces: BTreeSet<String>,
}

impl<K: Kernel> Reconciler<K> {
    /// A reconciler with nothing desired. It does not touch the kernel yet.
    pub fn new(kernel: K, ownership: Ownership) -> Self {
        let (desired, current) = Default::default();
        Self {
            kernel,
            ownership,
            desired,
            iv_reuse_hazard: BTreeSet::new(),
            replaced: BTreeSet::new(),
            tables: None,
            exemptions: Exemptions::default(),
            current,
            stale: Parts::ALL,
        }
    }

    /// These parts of the kernel may have been changed by others: they are read before anything is
    /// decided.
    pub fn invalidate(&mut self, parts: Parts) {
        self.stale |= parts;
    }

    /// Makes the kernel hold `desired` and nothing else of ours. When it returns, everything has
    /// been read back.
    ///
    /// `desired` is kept for repairs even when this fails. What others changed and nobody
    /// [invalidates](Self::invalidate) yet is not seen. An outbound state that another one takes
    /// the place of stays until [`Reconciler::release`]: the kernel gives packets the newer one,
    /// and drops (XfrmOutStateInvalid) those that were given the older one when that goes. The
    /// newer one is the one added later by the wall clock; after a step back that is the one that
    /// was replaced, and it goes at once.
    ///
    /// # Errors
    /// The kernel cannot be read, refused a change, or does not hold what it acknowledged. What
    /// closes was done as far as possible; nothing that opens was done after a failure. A state
    /// that cannot be brought about at all ([`Error::Unsupported`]) changes nothing, and what was
    /// desired before stays.
    pub async fn apply(&mut self, mut desired: Desired) -> Result<Report, Error> {
        desired.preservation.iter().try_for_each(Preservation::check)?;
        self.keep_replaced(&mut desired);
        // A new key under an old identity is a new SA and may be installed once itself.
        let old = &self.desired.sas;
        self.iv_reuse_hazard.retain(|id| match (old.get(id), desired.sas.get(id)) {
            (Some(old), Some(new)) => old.protection == new.protection,
            _ => false,
        });
        let strict = self.desired.preservation.take().zip(desired.preservation.as_mut());
        let strict = strict.and_then(|(before, after)| after.tolerate(&before));
        self.desired = desired;
        let mut report = self.reconcile().await;
        if let Some(strict) = strict {
            // Also after a failure: what closes is done as far as possible.
            self.desired.preservation = Some(strict);
            let tolerant = report;
            report = self.reconcile().await;
            let before = tolerant?.done;
            report.iter_mut().for_each(|report| {
                report.done.splice(..0, before.iter().cloned());
            });
        }
        let mut report = report?;
        if self.prefers_replaced() {
            let released = self.release().await?;
            report = Report { done: [report.done, released.done].concat(), ..released };
        }
        Ok(report)
    }

    /// Makes the kernel hold the desired state again, after somebody else changed these parts of
    /// it.
    ///
    /// # Errors
    /// As [`Reconciler::apply`].
    pub async fn repair(&mut self, parts: Parts) -> Result<Report, Error> {
        self.invalidate(parts);
        self.reconcile().await
    }

    /// Outbound states that [`Reconciler::apply`] left for packets under way.
    pub fn replaced(&self) -> &BTreeSet<SaId> {
        &self.replaced
    }

    /// Removes them, in a while: a packet needs far less than a second from the choice of its state
    /// to the use of it.
    ///
    /// # Errors
    /// As [`Reconciler::apply`].
    pub async fn release(&mut self) -> Result<Report, Error> {
        for id in core::mem::take(&mut self.replaced) {
            self.desired.sas.remove(&id);
        }
        self.reconcile().await
    }

    fn keep_replaced(&mut self, desired: &mut Desired) {
        let kept = |id: &SaId, old: &mut Sa| {
            !desired.sas.contains_key(id) && desired.sas.values().any(|new| takes_place(old, new))
        };
        let kept: Vec<(SaId, Sa)> = self.desired.sas.extract_if(.., kept).collect();
        self.replaced = kept.iter().map(|(id, _)| *id).collect();
        desired.sas.extend(kept);
    }

    /// Replaced states that are missing stay away: installed again, they would be as young as what
    /// took their place.
    fn forget_missing_replaced(&mut self) {
        let (desired, current) = (&mut self.desired.sas, &self.current.sas);
        self.replaced.retain(|id| {
            let there = desired
                .get(id)
                .zip(current.get(id))
                .is_some_and(|(wanted, now)| plan::same_in_kernel(wanted, &now.sa));
            if !there {
                desired.remove(id);
            }
            there
        });
    }

    /// Whether the kernel gives packets a state that another one has taken the place of.
    fn prefers_replaced(&self) -> bool {
        let added = |id: &SaId| self.current.sas.get(id).map(|now| now.added);
        let stands_behind = |old: &SaId| {
            let Some(replaced) = self.desired.sas.get(old) else { return false };
            let successors = self.desired.sas.values().filter(|new| takes_place(replaced, new));
            let mut successors = successors.filter(|new| !self.replaced.contains(&new.id));
            successors.any(|new| added(&new.id) < added(old))
        };
        self.replaced.iter().any(stands_behind)
    }

    /// Reads, compares and changes until there is nothing left to do.
    async fn reconcile(&mut self) -> Result<Report, Error> {
        let mut report = Report::default();
        let mut failures = Vec::new();
        for _ in 0..ROUNDS {
            let ops = self.difference(&mut report).await?;
            if ops.is_empty() {
                return Ok(report);
            }
            failures = self.execute(ops, &mut report).await;
            // What the kernel refuses for good it refuses again; the rest is worth another look.
            if failures.iter().any(|failure| !failure.cause.is_transient()) {
                break;
            }
            if !failures.is_empty() {
                // Somebody may have taken away what the operation relied on.
                self.stale = Parts::ALL;
            }
        }
        if failures.is_empty() {
            let remaining = self.difference(&mut report).await?;
            if remaining.is_empty() {
                return Ok(report);
            }
            self.stale = Parts::ALL;
            return Err(Error::NotConverged { rounds: ROUNDS, remaining });
        }
        self.stale = Parts::ALL;
        Err(Error::Incomplete { failures, done: report.done })
    }

    /// Reads what may be different and plans.
    async fn difference(&mut self, report: &mut Report) -> Result<Vec<Op>, Error> {
        self.refresh().await?;
        self.forget_missing_replaced();
        self.note_installed();
        report.near_exhaustion = self.near_exhaustion();
        let packets = |rule| self.current.rules.get(rule).map_or(0, |counters| counters.packets);
        report.unknown_esp = packets(UNKNOWN_ESP);
        report.foreign_policy_drops = packets(FOREIGN_POLICY);
        report.integrity_failures = self.integrity_failures();
        report.missing_interfaces = plan::missing_interfaces(&self.current, &self.desired);
        let wanted = self.wanted_tables();
        let (current, desired) = (&self.current, &self.desired);
        self.exemptions.note_read(current, desired);
        let exempt = &self.exemptions;
        let mut ops = plan::plan_for(current, desired, wanted.as_ref(), exempt, &self.ownership);
        // Tried once: the owner of what is in the way may keep it for ever.
        ops.retain(|op| !op.adds().is_some_and(|entry| report.foreign.contains_key(&entry)));
        Ok(self.without_suppressed(ops, &mut report.suppressed))
    }

    fn wanted_tables(&mut self) -> Option<Fingerprint> {
        let preservation = self.desired.preservation.as_ref()?;
        let mut rules = preservation.clone();
        rules.groups.values_mut().for_each(|group| group.inbound_spis.clear());
        let among = &self.current.interfaces;
        let known = self.tables.take().filter(|(known, of, _)| *known == rules && of == among);
        let (.., fingerprint) = self.tables.insert(known.unwrap_or_else(|| {
            let fingerprint = Fingerprint::wanted(&rules, among, &self.ownership);
            (rules, among.clone(), fingerprint)
        }));
        Some(fingerprint.clone().with_spis(preservation))
    }

    async fn refresh(&mut self) -> Result<(), Error> {
        // Selectors and chains name interfaces.
        if self.stale.interfaces {
            self.stale |= Parts::POLICIES;
            self.stale |= Parts::TABLES;
        }
        if self.stale != Parts::NONE {
            let mut attempt = 1;
            loop {
                match self.kernel.read(&self.ownership, self.stale, &mut self.current).await {
                    Err(error) if error.errno() == Some(EINTR) && attempt < READINGS => {
                        attempt += 1;
                    }
                    other => break other?,
                }
            }
            self.stale = Parts::NONE;
        }
        Ok(())
    }

    /// Interfaces that were exempt from checks before they were to be: they stay so, whatever is
    /// desired. Nothing in the kernel says whose setting it is, so that a process has to tell the
    /// next one ([`remember_exempt`](Self::remember_exempt)).
    pub fn exempt_before(&self) -> &BTreeSet<String> {
        self.exemptions.before()
    }

    /// Interfaces that were exempt before an earlier process changed anything.
    pub fn remember_exempt(&mut self, before: BTreeSet<String>) {
        self.exemptions.remember(before);
    }

    /// Reads what [`exempt_before`](Self::exempt_before) says once `desired` is applied. Changes
    /// nothing.
    ///
    /// # Errors
    /// The kernel cannot be read.
    pub async fn foresee_exempt(&mut self, desired: &Desired) -> Result<(), Error> {
        self.refresh().await?;
        self.exemptions.note_read(&self.current, desired);
        Ok(())
    }

    /// What should be in the kernel.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Removes everything of ours, whoever put it there.
    pub async fn purge(&mut self) -> Result<Report, Error> {
        self.apply(Desired::default()).await
    }

    /// Everything of ours that the kernel holds now, for example what an earlier run left.
    pub async fn read(&mut self) -> Result<Current, Error> {
        self.stale = Parts::ALL;
        self.refresh().await?;
        self.stale = Parts::ALL;
        Ok(core::mem::take(&mut self.current))
    }

    /// Counters as they are now.
    pub async fn statistics(&mut self) -> Result<Statistics, Error> {
        self.stale |= Parts::STATES;
        self.stale |= Parts::TABLES;
        self.refresh().await?;
        Ok(Statistics::from(&self.current))
    }

    /// What the owner ranges are.
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// The kernel, for what is not reconciled.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    async fn execute(&mut self, ops: Vec<Op>, report: &mut Report) -> Vec<Failure> {
        let mut failures = Vec::new();
        for op in ops {
            // Closing on is safe with a failure behind us; opening and removing rely on what
            // failed.
            if !failures.is_empty() && op.opens() {
                continue;
            }
            // Before its end is known: an acknowledgement may be lost.
            self.stale |= op.touches();
            if let Op::Exempt { interface, exempt: true } = &op {
                self.exemptions.note_set(interface);
            }
            match self.kernel.execute(&op, &self.desired, &self.ownership).await {
                Ok(()) => {
                    match &op {
                        Op::InstallSa(id) => self.spend(*id),
                        Op::Exempt { interface, exempt: false } => {
                            self.exemptions.note_ended(interface);
                        }
                        _ => {}
                    }
                    report.done.push(op);
                }
                // Nothing of ours depends on it: the entry in the way decides about these packets,
                // and the guards stand behind it.
                Err(cause) if cause.is_foreign_entry() => {
                    report.foreign.extend(op.adds().map(|entry| (entry, cause)));
                }
                Err(cause) => failures.push(Failure { op, cause }),
            }
        }
        failures
    }

    /// An acknowledgement may be lost: what is found installed counts as installed by us.
    fn note_installed(&mut self) {
        for (id, sa) in &self.desired.sas {
            if sa.install == Install::Once
                && self.current.sas.get(id).is_some_and(|now| plan::same_in_kernel(sa, &now.sa))
            {
                self.iv_reuse_hazard.insert(*id);
            }
        }
    }

    fn near_exhaustion(&self) -> BTreeSet<SaId> {
        let near_exhaustion = |id: &SaId, wanted: &Sa| {
            let limited = wanted.role == SaRole::Outbound && !wanted.sequence_may_wrap;
            limited && self.current.sas.get(id).is_some_and(|now| now.sequence >= NEAR_EXHAUSTION)
        };
        self.desired
            .sas
            .iter()
            .filter(|(id, sa)| near_exhaustion(id, sa))
            .map(|(id, _)| *id)
            .collect()
    }

    fn integrity_failures(&self) -> BTreeMap<SaId, u32> {
        let inbound =
            |id: &SaId| self.desired.sas.get(id).is_some_and(|sa| sa.role == SaRole::Inbound);
        let failed = self.current.sas.iter().map(|(id, now)| (*id, now.integrity_failures));
        failed.filter(|(id, packets)| *packets > 0 && inbound(id)).collect()
    }

    fn spend(&mut self, id: SaId) {
        if self.desired.sas.get(&id).is_some_and(|sa| sa.install == Install::Once) {
            self.iv_reuse_hazard.insert(id);
        }
    }

    fn without_suppressed(&self, ops: Vec<Op>, suppressed: &mut BTreeSet<SaId>) -> Vec<Op> {
        suppressed.clear();
        let never =
            |id: &SaId| self.desired.sas.get(id).is_some_and(|sa| sa.install == Install::Never);
        let keep = |op: &Op| match op {
            Op::InstallSa(id) if self.iv_reuse_hazard.contains(id) || never(id) => {
                suppressed.insert(*id);
                false
            }
            _ => true,
        };
        ops.into_iter().filter(keep).collect()
    }
}

/// Whether packets that were sent on `old` are sent on `new`.
fn takes_place(old: &Sa, new: &Sa) -> bool {
    let path = |sa: &Sa| (sa.role, sa.reqid, sa.source, sa.id.destination);
    old.role == SaRole::Outbound && path(old) == path(new)
}
