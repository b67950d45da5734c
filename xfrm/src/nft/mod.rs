//! The nf_tables tables: what they say, how they are written, and how they are recognised.

use std::collections::{BTreeMap, BTreeSet};

use crate::owner::Ownership;
use crate::preserve::Preservation;

/// How the comments of rules that drop a clear packet begin.
pub const DROP: &str = "drop: ";

/// Number of the netdev family.
pub(crate) const NETDEV: u8 = 5;

/// Elements of one set to add and to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetChange {
    /// Name of the set in the `ip` table.
    pub set: String,
    /// SPIs to add.
    pub add: BTreeSet<u32>,
    /// SPIs to remove.
    pub remove: BTreeSet<u32>,
}

/// What tells one content of the tables from another: chains, a digest of each rule, and the elements of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Per table (name, family number) and chain: digests of its rules.
    pub chains: BTreeMap<(String, u8, String), Vec<u64>>,
    /// Per table and set of the `ip` family: its elements.
    pub sets: BTreeMap<(String, String), BTreeSet<u32>>,
}

impl Fingerprint {
    /// What `preservation` looks like in the kernel while these interfaces exist.
    pub fn wanted(preservation: &Preservation, interfaces: &BTreeMap<String, u32>, ownership: &Ownership) -> Self {
        let _ = (preservation, interfaces, ownership);
        Self::default()
    }

    /// Name of the chain that guards this interface's ingress.
    pub(crate) fn netdev_chain(interface: &str) -> String {
        format!("guard_{interface}")
    }

    /// Forgets table `name` in all families.
    pub(crate) fn remove(&mut self, name: &str) {
        self.chains.retain(|(table, ..), _| table != name);
        self.sets.retain(|(table, _), _| table != name);
    }

    /// Takes table `name` over from another fingerprint.
    pub(crate) fn take_from(&mut self, other: Self, name: &str) {
        self.chains.extend(other.chains.into_iter().filter(|((table, ..), _)| table == name));
        self.sets.extend(other.sets.into_iter().filter(|((table, _), _)| table == name));
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty()
    }

    /// Whether table `name` has the same chains, rules and set names in both.
    pub fn same_rules(&self, other: &Self, name: &str) -> bool {
        let chains = |of: &Self| -> Vec<_> {
            of.chains.iter().filter(|((table, ..), _)| table == name).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let sets = |of: &Self| -> Vec<_> { of.sets.keys().filter(|(table, _)| table == name).cloned().collect() };
        chains(self) == chains(other) && sets(self) == sets(other)
    }

    /// How the sets of table `name` in `now` have to change.
    pub fn set_changes(&self, now: &Self, name: &str) -> Vec<SetChange> {
        let ours = self.sets.iter().filter(|((table, _), _)| table == name);
        ours.filter_map(|(key, wanted)| {
            let empty = BTreeSet::new();
            let present = now.sets.get(key).unwrap_or(&empty);
            let (add, remove): (BTreeSet<u32>, BTreeSet<u32>) =
                (wanted.difference(present).copied().collect(), present.difference(wanted).copied().collect());
            (!add.is_empty() || !remove.is_empty()).then(|| SetChange { set: key.1.clone(), add, remove })
        })
        .collect()
    }
}
