//! Records of the state: what changes by itself is stored by itself.
//!
//! ```text
//! 0 | part (1) | ...               of the server
//! 1 | group (4) | part (1) | ...   of one group
//! ```

use std::collections::BTreeMap;

use daemon::sealed::codec::{Clock, Decoder, Encoder, StateError};
use gdoi::group::GroupId;
use ike::BootTime;
use ike::config::Identity;
use ike::crypto::Secret;

use crate::members::registry::MemberId;

const SERVER: u8 = 0;
const GROUP: u8 = 1;

/// What a record of the server holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerPart {
    /// The version of all octets.
    Version = 0,
    /// Some of the members of the configuration, in order.
    Members = 1,
    /// The offer that one peer has proved.
    Offer = 2,
    /// Pushes whose recipients are no members any more.
    Pending = 3,
}

/// What a record of a group holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupPart {
    /// Settings, TEKs, KEK and pushes: what does not grow with members.
    Core = 0,
    /// Width of sender identifiers, and the next one.
    Numbers = 1,
    Registration = 2,
    /// Who holds one sender identifier.
    Sender = 3,
    /// A member that was dropped and holds the KEK.
    Abandoned = 4,
    /// A member that is no longer registered and holds TEKs.
    TekHolder = 5,
    /// The key of one node of the key hierarchy.
    Node = 6,
    /// Generations of a group of a cluster.
    Cluster = 8,
    /// New counter-mode TEKs that a member waits for; missing where none does.
    FreshCounters = 7,
    /// Which server of a cluster gives which sender identifiers; missing where nobody else does.
    SenderBlocks = 9,
    /// Somebody may hold the KEK whom no server of the cluster knows; missing where nobody may.
    Strangers = 10,
}

/// Names a record. Some names are the beginning of those of several records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Name {
    /// The beginning of all names.
    pub fn everything() -> Self {
        Self(Vec::new())
    }

    pub(super) fn of_server(part: ServerPart) -> Self {
        Self(vec![SERVER, part as u8])
    }

    /// All records of a group.
    pub fn of_group(group: GroupId) -> Self {
        Self([&[GROUP][..], &group.0.to_be_bytes()].concat())
    }

    pub(super) fn in_group(group: GroupId, part: GroupPart) -> Self {
        let Self(mut octets) = Self::of_group(group);
        octets.push(part as u8);
        Self(octets)
    }

    pub(super) fn with(&self, key: &[u8]) -> Self {
        Self([&self.0, key].concat())
    }

    pub(super) fn with_address(&self, address: std::net::IpAddr) -> Self {
        let mut out = Encoder::default();
        out.address(address);
        self.with(out.finish().expose())
    }

    pub(super) fn with_member(&self, id: &MemberId) -> Self {
        let mut out = Encoder::default();
        out.identity(&id.identity);
        out.address(id.address);
        self.with(out.finish().expose())
    }

    /// A name from its octets.
    pub fn from_octets(octets: &[u8]) -> Self {
        Self(octets.to_vec())
    }

    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

/// Reads the member that a name ends with.
pub(super) fn member_id(key: &[u8]) -> Result<MemberId, StateError> {
    let mut from = Decoder::new(key, Clock::same(BootTime::default()));
    let identity: Identity = from.identity()?;
    let address = from.address()?;
    from.finish()?;
    Ok(MemberId { identity, address })
}

/// One step from the stored state to the present one.
#[derive(Debug)]
pub enum Change {
    /// All records whose names begin like that go.
    Clear(Name),
    /// A record is new or another one.
    Put(Name, Secret),
    Remove(Name),
}

/// All records of a state, unsealed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records(BTreeMap<Name, Secret>);

impl Records {
    pub fn insert(&mut self, name: Name, value: Secret) {
        self.0.insert(name, value);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Name, &Secret)> {
        self.0.iter()
    }

    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match change {
                Change::Clear(prefix) => {
                    self.0.retain(|name, _| !name.octets().starts_with(prefix.octets()));
                }
                Change::Put(name, value) => _ = self.0.insert(name, value),
                Change::Remove(name) => _ = self.0.remove(&name),
            }
        }
    }

    /// The record with this name.
    pub(super) fn get(&self, name: &Name) -> Option<&Secret> {
        self.0.get(name)
    }

    /// The records whose names begin like that, by the rest of their names.
    pub(super) fn beginning(&self, prefix: Name) -> impl Iterator<Item = (&[u8], &Secret)> {
        let from_it_on = self.0.range(prefix.clone()..);
        from_it_on.map_while(move |(name, value)| {
            Some((name.octets().strip_prefix(prefix.octets())?, value))
        })
    }

    /// The groups that have records.
    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> {
        let id = |name: &Name| match name.octets().split_first() {
            Some((&GROUP, rest)) => {
                let (number, part) = rest.split_first_chunk()?;
                (part == [GroupPart::Core as u8]).then(|| GroupId(u32::from_be_bytes(*number)))
            }
            _ => None,
        };
        self.0.keys().filter_map(id)
    }
}
