//! Who may have which group: decided by the identity proved in phase 1, never by an address alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use gdoi::config::ByteOrder;
use gdoi::group::GroupId;
use ike::config::{Credential, Identity, PeerCredential};
use ipnet::IpNet;
use thiserror::Error;

use crate::config::Member;

/// Why a pull gets no policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    /// The identity is no member's.
    #[error("no member has this identity; add a [[member]] with it")]
    UnknownMember,
    /// The group does not exist.
    #[error("there is no such group; add a [[group]] or correct the member's configuration")]
    UnknownGroup,
    /// The group does not exist, and one has the number with its octets reversed.
    #[error(
        "there is no such group, and group {group} has this number in reverse octet order: set \
         group-id-byte-order = \"{order}\" in [member.interoperability] of {member}"
    )]
    ReversedGroup {
        /// Name of the member.
        member: String,
        /// Name of the group with the number reversed.
        group: String,
        /// What the option has to say.
        order: &'static str,
    },
    /// The member may not have this group.
    #[error("member {member} may not have group {group}; add it to the member's groups")]
    NotAuthorized {
        /// Name of the member.
        member: String,
        /// Name of the group.
        group: String,
    },
    /// The operator removed the member.
    #[error(
        "member {member} was removed from group {group}; gdoictl admit {group} {member} lets it in again"
    )]
    Removed {
        /// Name of the member.
        member: String,
        /// Name of the group.
        group: String,
    },
}

/// All members by the addresses that use their key.
///
/// Phase 1 proved an identity with the key of one member: the one whose prefix covers the source
/// most closely. Only that member may be meant. Another member's identity proved with this key,
/// which happens if members are known by private addresses behind translation, must not give that
/// member's groups.
#[derive(Debug, Default)]
pub struct Authorization {
    /// Members with certificates may share a prefix; the first whose identity is meant counts.
    by_prefix: BTreeMap<IpNet, Vec<Entry>>,
    /// Prefix lengths in use.
    lengths: BTreeSet<u8>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: Arc<str>,
    identity: Option<Identity>,
    /// Whether the identity may be a pattern.
    certified: bool,
    groups: BTreeSet<GroupId>,
    group_id_byte_order: ByteOrder,
}

impl Authorization {
    /// Takes the members' addresses, identities and groups.
    pub fn new(members: &[Member]) -> Self {
        let entry = |member: &Member| Entry {
            name: member.name.as_str().into(),
            identity: member.identity.clone(),
            certified: matches!(member.credential, Credential::Certificate(_)),
            groups: member.groups.clone(),
            group_id_byte_order: member.group_id_byte_order,
        };
        let mut by_prefix: BTreeMap<IpNet, Vec<Entry>> = BTreeMap::new();
        for member in members {
            by_prefix.entry(member.addresses.trunc()).or_default().push(entry(member));
        }
        let lengths = by_prefix.keys().map(IpNet::prefix_len).collect();
        Self { by_prefix, lengths }
    }

    /// Whether `identity`, which was proved from the address `source`, may have `group`; the name
    /// of the member if so. The names are those of the group and of the one whose number has these
    /// octets in reverse.
    ///
    /// # Errors
    /// Why the member may not have the group.
    pub fn check(
        &self,
        identity: &Identity,
        source: IpAddr,
        group: GroupId,
        (group_name, reversed_name): (Option<&str>, Option<&str>),
    ) -> Result<Arc<str>, Denied> {
        let entry = self.find(identity, source.to_canonical()).ok_or(Denied::UnknownMember)?;
        let group_name = group_name.ok_or_else(|| match reversed_name {
            Some(group) => Denied::ReversedGroup {
                member: entry.name.to_string(),
                group: group.to_owned(),
                order: match entry.group_id_byte_order {
                    ByteOrder::Network => "host",
                    ByteOrder::Host => "network",
                },
            },
            None => Denied::UnknownGroup,
        })?;
        if entry.groups.contains(&group) {
            return Ok(Arc::clone(&entry.name));
        }
        Err(Denied::NotAuthorized { member: entry.name.to_string(), group: group_name.to_owned() })
    }

    /// In which order the member with this identity writes group ids.
    pub fn group_id_byte_order(&self, identity: &Identity, source: IpAddr) -> ByteOrder {
        let entry = self.find(identity, source.to_canonical());
        entry.map_or(ByteOrder::default(), |entry| entry.group_id_byte_order)
    }

    /// The member that proved `identity` from the address `source`, or is meant by that.
    pub fn member_of(&self, identity: &Identity, source: IpAddr) -> Option<&Arc<str>> {
        let source = source.to_canonical();
        let found = self.find(identity, source).or_else(|| self.covering(source)?.first());
        found.map(|entry| &entry.name)
    }

    fn find(&self, identity: &Identity, source: IpAddr) -> Option<&Entry> {
        let is_proved = |entry: &&Entry| match &entry.identity {
            Some(expected) if entry.certified => expected.covers(identity),
            Some(expected) => expected == identity,
            None => *identity == Identity::Address(source),
        };
        self.covering(source)?.iter().find(is_proved)
    }

    /// The longest prefix counts.
    fn covering(&self, source: IpAddr) -> Option<&Vec<Entry>> {
        let covering = |length: &u8| self.by_prefix.get(&IpNet::new(source, *length).ok()?.trunc());
        self.lengths.iter().rev().find_map(covering)
    }
}

/// What phase 1 needs of the members. Of several with one prefix, who have the same certificate,
/// it cannot tell whose identity is meant: [`Authorization::check`] does.
pub fn credentials(members: &[Member]) -> Vec<PeerCredential> {
    let mut by_prefix: BTreeMap<IpNet, PeerCredential> = BTreeMap::new();
    for member in members {
        let credential = PeerCredential {
            addresses: member.addresses,
            identity: member.identity.clone(),
            credential: member.credential.clone(),
        };
        by_prefix
            .entry(member.addresses.trunc())
            .and_modify(|one| one.identity = None)
            .or_insert(credential);
    }
    by_prefix.into_values().collect()
}

#[cfg(test)]
mod tests {
    use ike::crypto::Secret;

    use super::*;

    fn member(name: &str, addresses: &str, identity: Option<Identity>, groups: &[u32]) -> Member {
        Member {
            name: name.to_owned(),
            addresses: addresses.parse().unwrap(),
            identity,
            credential: Credential::PreSharedKey(Arc::new(Secret::copy_from(b"key"))),
            groups: groups.iter().copied().map(GroupId).collect(),
            group_id_byte_order: ByteOrder::Network,
        }
    }

    fn address(text: &str) -> Identity {
        Identity::Address(text.parse().unwrap())
    }

    #[test]
    fn identity_and_group_decide_together() {
        let authorization = Authorization::new(&[
            member("g1", "10.0.1.1/32", None, &[1]),
            member("g2", "10.0.2.1/32", Some(Identity::Fqdn(String::from("g2.example"))), &[1, 2]),
            member("rest", "10.0.0.0/16", None, &[2]),
        ]);
        let check = |identity: &Identity, source: &str, group| {
            let name = (group < 3).then_some("name");
            let source = source.parse().unwrap();
            let names = (name, None);
            let member = authorization.check(identity, source, GroupId(group), names);
            member.map(|name| name.to_string())
        };
        let own = |source: &str, group| check(&address(source), source, group);
        assert_eq!(own("10.0.1.1", 1).as_deref(), Ok("g1"));
        assert!(matches!(own("10.0.1.1", 2), Err(Denied::NotAuthorized { .. })));
        assert_eq!(own("10.0.1.1", 3), Err(Denied::UnknownGroup));
        let g2 = Identity::Fqdn(String::from("g2.example"));
        assert_eq!(check(&g2, "10.0.2.1", 2).as_deref(), Ok("g2"));
        assert_eq!(check(&g2, "::ffff:10.0.2.1", 2).as_deref(), Ok("g2"));
        // The longest prefix counts, and an address in a member's prefix is not that member's name.
        assert_eq!(own("10.0.9.9", 2).as_deref(), Ok("rest"));
        assert!(own("10.0.9.9", 1).is_err());
        assert_eq!(own("10.1.0.1", 2), Err(Denied::UnknownMember));
        assert_eq!(
            check(&Identity::Fqdn(String::from("g1")), "10.0.1.1", 1),
            Err(Denied::UnknownMember)
        );
        // Somebody else's identity, whoever proved it with another key.
        assert_eq!(check(&g2, "10.0.9.9", 2), Err(Denied::UnknownMember));
        assert_eq!(check(&address("10.0.9.9"), "10.0.1.1", 2), Err(Denied::UnknownMember));
    }

    /// A member behind address translation proves its private address, which a host of another
    /// member's prefix has too.
    #[test]
    fn the_key_of_one_member_gives_no_groups_of_another() {
        let authorization = Authorization::new(&[
            member("translated", "203.0.113.9/32", Some(address("10.0.1.5")), &[1]),
            member("branches", "10.0.0.0/16", None, &[2]),
        ]);
        let proved = address("10.0.1.5");
        let check = |source: &str, group| {
            let source = source.parse().unwrap();
            authorization
                .check(&proved, source, GroupId(group), (Some("name"), None))
                .map(|name| name.to_string())
        };
        assert_eq!(check("203.0.113.9", 1).as_deref(), Ok("translated"));
        assert!(matches!(check("10.0.1.5", 1), Err(Denied::NotAuthorized { .. })));
        assert_eq!(check("10.0.1.5", 2).as_deref(), Ok("branches"));
    }
}
