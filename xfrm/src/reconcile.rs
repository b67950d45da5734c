//! Makes the kernel what it should be: read, compare, change in order, read back.

use std::collections::BTreeSet;

use crate::desired::Desired;
use crate::error::{Error, Failure};
use crate::kernel::{Current, Kernel};
use crate::model::{Install, Sa, SaId, SaRole};
use crate::nft::UNKNOWN_ESP;
use crate::owner::Ownership;
use crate::plan::{self, Op};
use crate::statistics::Statistics;

/// Rounds of reading and changing before the reconciler says that the kernel does not converge.
const ROUNDS: u32 = 4;

/// Sequence number from which a sender that must not wrap needs a new TEK: a quarter of 2^32 packets is left, 17 minutes
/// at a million a second.
const WORN: u32 = 0xc000_0000;

/// Keeps one desired state in the kernel.
#[derive(Debug)]
pub struct Reconciler<K: Kernel> {
    kernel: K,
    ownership: Ownership,
    desired: Desired,
    /// Counter-mode senders that were installed: putting one back would start a second initialisation vector sequence.
    spent: BTreeSet<SaId>,
}

/// What an [`apply`](Reconciler::apply) or [`repair`](Reconciler::repair) did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations done, in order. Empty: the kernel already was as desired.
    pub done: Vec<Op>,
    /// Counter-mode senders that are gone from the kernel and were not put back: each needs a new TEK. Until then their
    /// packets are dropped.
    pub withheld: BTreeSet<SaId>,
    /// Senders whose sequence number must not wrap and has come near its end: each needs a new TEK.
    pub worn: BTreeSet<SaId>,
    /// Packets of ESP between group prefixes that were dropped because their SPI is not known here, since the tables were
    /// made.
    pub unknown_esp: u64,
    /// Interfaces that are named but do not exist now. Repair again when one appears.
    pub missing_interfaces: BTreeSet<String>,
}

impl<K: Kernel> Reconciler<K> {
    /// A reconciler with nothing desired. It does not touch the kernel yet.
    pub fn new(kernel: K, ownership: Ownership) -> Self {
        Self { kernel, ownership, desired: Desired::default(), spent: BTreeSet::new() }
    }

    /// Makes the kernel hold `desired` and nothing else of ours.
    ///
    /// `desired` is kept for repairs even when this fails.
    pub async fn apply(&mut self, desired: Desired) -> Result<Report, Error> {
        // A new key under an old identity is a new SA and may be installed once itself.
        let old = &self.desired.sas;
        self.spent.retain(|id| match (old.get(id), desired.sas.get(id)) {
            (Some(old), Some(new)) => old.protection == new.protection,
            _ => false,
        });
        self.desired = desired;
        self.repair().await
    }

    /// Makes the kernel hold the desired state again, after somebody else changed it or an interface came or went.
    pub async fn repair(&mut self) -> Result<Report, Error> {
        let mut report = Report::default();
        let mut failures = Vec::new();
        for _ in 0..ROUNDS {
            let ops = self.difference(&mut report).await?;
            if ops.is_empty() {
                return Ok(report);
            }
            failures = self.execute(ops, &mut report.done).await;
            // What the kernel refuses for good it refuses again; the rest is worth another look.
            if failures.iter().any(|failure| !failure.cause.is_transient()) {
                break;
            }
        }
        if !failures.is_empty() {
            return Err(Error::Incomplete { failures, done: report.done });
        }
        let remaining = self.difference(&mut report).await?;
        if remaining.is_empty() { Ok(report) } else { Err(Error::NotConverged { rounds: ROUNDS, remaining }) }
    }

    /// Reads the kernel and plans.
    async fn difference(&mut self, report: &mut Report) -> Result<Vec<Op>, Error> {
        let current = self.kernel.read(&self.ownership).await?;
        self.note_installed(&current);
        report.worn = self.worn(&current);
        report.unknown_esp = current.rules.get(UNKNOWN_ESP).map_or(0, |counters| counters.packets);
        report.missing_interfaces = plan::missing_interfaces(&current, &self.desired);
        let ops = plan::plan(&current, &self.desired, &self.ownership);
        Ok(self.without_spent(ops, &mut report.withheld))
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
        self.kernel.read(&self.ownership).await
    }

    /// Counters as they are now.
    pub async fn statistics(&mut self) -> Result<Statistics, Error> {
        Ok(Statistics::from(&self.kernel.read(&self.ownership).await?))
    }

    /// What the owner ranges are.
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// The kernel, for what is not reconciled.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    async fn execute(&mut self, ops: Vec<Op>, done: &mut Vec<Op>) -> Vec<Failure> {
        let mut failures = Vec::new();
        for op in ops {
            // Closing on is safe with a failure behind us; opening and removing rely on what failed.
            if !failures.is_empty() && op.opens() {
                continue;
            }
            match self.kernel.execute(&op, &self.desired, &self.ownership).await {
                Ok(()) => {
                    if let Op::InstallSa(id) = op {
                        self.spend(id);
                    }
                    done.push(op);
                }
                Err(cause) => failures.push(Failure { op, cause }),
            }
        }
        failures
    }

    /// An acknowledgement may be lost: what is found installed counts as installed by us.
    fn note_installed(&mut self, current: &Current) {
        for (id, sa) in &self.desired.sas {
            if sa.install == Install::Once && current.sas.get(id).is_some_and(|now| plan::same_in_kernel(sa, &now.sa)) {
                self.spent.insert(*id);
            }
        }
    }

    fn worn(&self, current: &Current) -> BTreeSet<SaId> {
        let worn = |id: &SaId, wanted: &Sa| {
            let limited = wanted.role == SaRole::Outbound && !wanted.sequence_may_wrap;
            limited && current.sas.get(id).is_some_and(|now| now.sequence >= WORN)
        };
        self.desired.sas.iter().filter(|(id, sa)| worn(id, sa)).map(|(id, _)| *id).collect()
    }

    fn spend(&mut self, id: SaId) {
        if self.desired.sas.get(&id).is_some_and(|sa| sa.install == Install::Once) {
            self.spent.insert(id);
        }
    }

    fn without_spent(&self, ops: Vec<Op>, withheld: &mut BTreeSet<SaId>) -> Vec<Op> {
        withheld.clear();
        let never = |id: &SaId| self.desired.sas.get(id).is_some_and(|sa| sa.install == Install::Never);
        let keep = |op: &Op| match op {
            Op::InstallSa(id) if self.spent.contains(id) || never(id) => {
                withheld.insert(*id);
                false
            }
            _ => true,
        };
        ops.into_iter().filter(keep).collect()
    }
}
