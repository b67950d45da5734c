//! What the reconciler needs of a kernel, real ([`crate::netlink::Netlink`]) or made up
//! ([`crate::fake::FakeKernel`]).

use core::future::Future;
use core::ops::BitOrAssign;
use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{Desired, PlaceholderRoute};
use crate::error::Error;
use crate::model::{Policy, Sa, SaId};
use crate::nft::Fingerprint;
use crate::owner::Ownership;
use crate::plan::Op;
use crate::statistics::Counters;

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

    /// Reads these states into `current`. One that is gone, or is somebody else's, is not in it
    /// afterwards.
    ///
    /// # Errors
    /// Something cannot be read; some may have been replaced already.
    fn read_states(
        &mut self,
        ownership: &Ownership,
        states: &BTreeSet<SaId>,
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

/// Parts of [`Current`] that can be read by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Interfaces and placeholder routes.
    pub interfaces: bool,
    /// States.
    pub states: bool,
    /// Policies. Their selectors name interfaces: read both after an interface came or went.
    pub policies: bool,
    /// Chains, rules and counters of the tables, and which sets there are.
    pub tables: bool,
    /// The elements of the sets that are known.
    pub sets: bool,
}

impl Parts {
    /// Nothing.
    pub const NONE: Self =
        Self { interfaces: false, states: false, policies: false, tables: false, sets: false };
    /// Everything.
    pub const ALL: Self =
        Self { interfaces: true, states: true, policies: true, tables: true, sets: true };
    /// Interfaces and routes.
    pub const INTERFACES: Self = Self { interfaces: true, ..Self::NONE };
    /// States.
    pub const STATES: Self = Self { states: true, ..Self::NONE };
    /// Policies.
    pub const POLICIES: Self = Self { policies: true, ..Self::NONE };
    /// Tables with their sets.
    pub const TABLES: Self = Self { tables: true, sets: true, ..Self::NONE };
    /// Elements of the sets.
    pub const SETS: Self = Self { sets: true, ..Self::NONE };
}

impl BitOrAssign for Parts {
    fn bitor_assign(&mut self, other: Self) {
        self.interfaces |= other.interfaces;
        self.states |= other.states;
        self.policies |= other.policies;
        self.tables |= other.tables;
        self.sets |= other.sets;
    }
}

/// What is in the kernel and ours, as read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// All interfaces that exist now, ours or not: name to index.
    pub interfaces: BTreeMap<String, u32>,
    /// States.
    pub sas: BTreeMap<SaId, InstalledSa>,
    /// Policies by index. A selector with an interface that is gone names it `/INDEX`, which no
    /// interface can be called.
    pub policies: BTreeMap<u32, Policy>,
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
    pub unauthentic: u32,
    /// When it was added, seconds of the wall clock as the kernel saw it.
    pub added: u64,
}
