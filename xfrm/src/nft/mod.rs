//! The nf_tables tables: what they say, how they are written, and how they are recognised.

mod addresses;
pub(crate) mod content;
pub(crate) mod dump;
pub(crate) mod excluded;
mod field;
pub(crate) mod guarded;
mod header_preservation;
pub(crate) mod pairs;
pub(crate) mod rule;
pub(crate) mod table;

use std::collections::{BTreeMap, BTreeSet};

use crate::ownership::Ownership;

pub use header_preservation::{
    Bandwidth, DontFragment, GroupPreservation, Preservation, SegmentSize, over_bandwidth,
};

/// How the comments of rules that drop a packet begin.
pub const DROP: &str = "drop: ";
/// Comment of the rules that drop ESP between group prefixes whose SPI is not known here.
pub const UNKNOWN_ESP: &str = "drop: ESP without an SA";
/// Comment of the rules that drop group packets which a policy of somebody else would put into an
/// SA of its own.
pub const FOREIGN_POLICY: &str = "drop: taken by a foreign policy";
/// How the comments of rules that drop a clear packet end.
pub const IN_CLEAR: &str = " in clear";

/// Numbers of the families.
pub(crate) const NETDEV: u8 = 5;
pub(crate) const IP: u8 = 2;
pub(crate) const IP6: u8 = 10;
pub(crate) const ALL_FAMILIES: [u8; 3] = [NETDEV, IP, IP6];

/// Kinds of user data: the comment that nft shows, and ours.
const USER_COMMENT: u8 = 0;
const USER_DIGEST: u8 = 0x47;

/// Elements of one set to add and to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetChange {
    /// Name of the set in the `ip` table.
    pub set: String,
    /// SPIs that come into the set.
    pub add: BTreeSet<u32>,
    /// SPIs that leave the set.
    pub remove: BTreeSet<u32>,
}

/// What tells one content of the tables from another: chains, a digest of each rule, and the
/// elements of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Per table (name, family number) and chain: digest of its hook, then of each rule. The empty
    /// chain name holds the table's flags, and one that begins with `@` the digest of a set whose
    /// elements do not change.
    pub chains: BTreeMap<(String, u8, String), Vec<u64>>,
    /// Per table and set of the `ip` family: its elements.
    pub sets: BTreeMap<(String, String), BTreeSet<u32>>,
}

impl Fingerprint {
    /// What `preservation` looks like in the kernel while these interfaces exist.
    pub fn wanted(
        preservation: &Preservation,
        interfaces: &BTreeMap<String, u32>,
        ownership: &Ownership,
    ) -> Self {
        let mut fingerprint = Self::default();
        let mut tables = content::main_tables(preservation, interfaces, ownership);
        tables.extend(content::guard_tables(preservation, ownership, table::OWNED));
        for table in tables {
            let key = |chain: &str| (table.name.clone(), table.family, chain.to_owned());
            fingerprint.chains.insert(key(""), vec![u64::from(table.flags)]);
            for chain in &table.chains {
                let hook = chain.hook.as_ref().map_or(0, table::Hook::digest);
                let digests =
                    [hook].into_iter().chain(chain.rules.iter().map(rule::Rule::digest)).collect();
                fingerprint.chains.insert(key(&chain.name), digests);
            }
            for set in &table.sets {
                match (&set.elements, set.digest()) {
                    (table::Elements::Spis(spis), _) => {
                        let key = (table.name.clone(), set.name.clone());
                        fingerprint.sets.insert(key, spis.clone());
                    }
                    (_, digest) => {
                        let digests = digest.into_iter().collect();
                        fingerprint.chains.insert(key(&set_key(&set.name)), digests);
                    }
                }
            }
        }
        fingerprint
    }

    /// Puts the SPIs of `preservation` into the sets.
    pub(crate) fn with_spis(mut self, preservation: &Preservation) -> Self {
        for (placeholder, group) in &preservation.groups {
            let name = addresses::set_name(*placeholder);
            for ((_, set), elements) in &mut self.sets {
                if *set == name {
                    elements.clone_from(&group.inbound_spis);
                }
            }
        }
        self
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
        fn chains<'a>(
            of: &'a Fingerprint,
            name: &str,
        ) -> impl Iterator<Item = (&'a (String, u8, String), &'a Vec<u64>)> {
            of.chains.iter().filter(move |((table, ..), _)| table == name)
        }
        fn sets<'a>(of: &'a Fingerprint, name: &str) -> impl Iterator<Item = &'a (String, String)> {
            of.sets.keys().filter(move |(table, _)| table == name)
        }
        chains(self, name).eq(chains(other, name)) && sets(self, name).eq(sets(other, name))
    }

    /// How the sets of table `name` in `now` have to change.
    pub fn set_changes(&self, now: &Self, name: &str) -> Vec<SetChange> {
        let ours = self.sets.iter().filter(|((table, _), _)| table == name);
        ours.filter_map(|(key, wanted)| {
            let empty = BTreeSet::new();
            let present = now.sets.get(key).unwrap_or(&empty);
            let (add, remove): (BTreeSet<u32>, BTreeSet<u32>) = (
                wanted.difference(present).copied().collect(),
                present.difference(wanted).copied().collect(),
            );
            (!add.is_empty() || !remove.is_empty()).then(|| SetChange {
                set: key.1.clone(),
                add,
                remove,
            })
        })
        .collect()
    }
}

/// Name of the chain that guards this interface's ingress, in letters that nft reads back.
pub(crate) fn chain_name(interface: &str) -> String {
    device_chain("guard_", interface)
}

/// Name of the chain that guards this interface's egress.
pub(crate) fn egress_name(interface: &str) -> String {
    device_chain("egress_", interface)
}

fn device_chain(prefix: &str, interface: &str) -> String {
    let mut name = String::from(prefix);
    for character in interface.chars() {
        match character {
            '.' | '-' => name.push(character),
            _ if character.is_ascii_alphanumeric() => name.push(character),
            // An underscore introduces a number, so that no two interfaces share a chain.
            _ => name.push_str(&format!("_{:x}_", u32::from(character))),
        }
    }
    name
}

/// Where a fingerprint keeps a set that does not change: no chain is called so.
fn set_key(name: &str) -> String {
    format!("@{name}")
}

/// User data with a comment, as nft writes it.
fn comment(text: &str) -> Vec<u8> {
    if text.is_empty() {
        return Vec::new();
    }
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut data = vec![USER_COMMENT, length];
    data.extend(text.as_bytes().iter().take(usize::from(length) - 1));
    data.push(0);
    data
}

/// FNV-1a over parts and their lengths: tells an older content of ours from this one. Not against
/// forgery: whoever can write the tables does not need one.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        let length = (part.len() as u64).to_be_bytes();
        for octet in length.iter().chain(part) {
            state = (state ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    state
}

#[cfg(test)]
mod tests;
