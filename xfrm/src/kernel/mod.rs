//! What the reconciler needs of a kernel: the real one ([`netlink::Netlink`]) or a fake
//! ([`fake::FakeKernel`]).

pub mod event;
pub mod fake;
pub mod netlink;

use core::future::Future;
use std::collections::{BTreeMap, BTreeSet};

use crate::counters::Counters;
use crate::desired::{Desired, PlaceholderRoute};
use crate::error::Error;
use crate::model::{Policy, Sa, SaId};
use crate::nft::Fingerprint;
use crate::op::Op;
use crate::ownership::Ownership;
use crate::parts::Parts;

/// Reads and changes the kernel. Every method leaves foreign entries alone.
pub trait Kernel: Send {
    /// Reads these parts of what is ours into `current`; the rest of it stays.
    ///
    /// # Errors
    /// Something cannot be read; parts may have been replaced already.
    fn read(
        &mut self,
        ownership: &Ownership,
        parts: Parts,
        current: &mut Current,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Makes one change. `desired` holds what the operation names by identity: keys and rules.
    ///
    /// Deleting what is already gone is success.
    fn execute(
        &mut self,
        op: &Op,
        desired: &Desired,
        ownership: &Ownership,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// What is in the kernel and ours, as read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// All interfaces that exist now, ours or not: name to index.
    pub interfaces: BTreeMap<String, u32>,
    /// Those whose arrivals no policy checks (`disable_policy`), whoever wanted that.
    pub exempt: BTreeSet<String>,
    /// ESP states of ours with their counters.
    pub sas: BTreeMap<SaId, InstalledSa>,
    /// Policies by index. A selector with an interface that is gone names it `/INDEX`, which no
    /// interface can be called.
    pub policies: BTreeMap<u32, Policy>,
    /// Indexes of our range that policies of somebody else have.
    pub foreign_indexes: BTreeSet<u32>,
    /// Digest of the nf_tables tables.
    pub tables: Fingerprint,
    /// Counters of nf_tables rules by the rule's comment.
    pub rules: BTreeMap<String, Counters>,
    /// Placeholder routes. One whose interface is gone is gone as well.
    pub routes: BTreeSet<PlaceholderRoute>,
}

/// A state as the kernel holds it.
#[derive(Debug, PartialEq, Eq)]
pub struct InstalledSa {
    /// The state. Whether it may be installed is not known to the kernel.
    pub sa: Sa,
    /// Packets and octets that it carried.
    pub counters: Counters,
    /// Sequence number of the last packet sent on it, 32 bits.
    pub sequence: u32,
    /// Packets that failed its integrity check.
    pub integrity_failures: u32,
    /// When it was added, seconds of the wall clock as the kernel saw it.
    pub added: u64,
}
