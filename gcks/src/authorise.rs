//! Who may have which group: decided by the identity proved in phase 1, never by an address alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use gdoi::config::{Identity, PeerCredential};
use gdoi::group::GroupId;
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
    /// The member may not have this group.
    #[error("member {member} may not have group {group}; add it to the member's groups")]
    NotAuthorised {
        /// Name of the member.
        member: String,
        /// Name of the group.
        group: String,
    },
}

/// All members by identity.
#[derive(Debug, Default)]
pub struct Authorisation {
    identities: BTreeMap<Identity, Entry>,
    /// Members that are known by a prefix, longest first.
    prefixes: Vec<(IpNet, Entry)>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: Arc<str>,
    groups: BTreeSet<GroupId>,
}

impl Authorisation {
    /// Takes the members' identities and groups.
    pub fn new(members: &[Member]) -> Self {
        let mut authorisation = Self::default();
        for member in members {
            let entry = Entry { name: member.name.as_str().into(), groups: member.groups.clone() };
            match &member.identity {
                Some(identity) => {
                    authorisation.identities.insert(identity.clone(), entry);
                }
                None => authorisation.prefixes.push((member.addresses, entry)),
            }
        }
        authorisation.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.prefix_len()));
        authorisation
    }

    /// Whether `identity` may have `group`; the name of the member if so.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, identity: &Identity, group: GroupId, group_name: Option<&str>) -> Result<Arc<str>, Denied> {
        let entry = self.find(identity).ok_or(Denied::UnknownMember)?;
        let group_name = group_name.ok_or(Denied::UnknownGroup)?;
        if entry.groups.contains(&group) {
            return Ok(Arc::clone(&entry.name));
        }
        Err(Denied::NotAuthorised { member: entry.name.to_string(), group: group_name.to_owned() })
    }

    fn find(&self, identity: &Identity) -> Option<&Entry> {
        let by_prefix = |address: &IpAddr| {
            self.prefixes.iter().find(|(prefix, _)| prefix.contains(address)).map(|(_, entry)| entry)
        };
        self.identities.get(identity).or_else(|| match identity {
            Identity::Address(address) => by_prefix(address),
            _ => None,
        })
    }
}

/// What phase 1 needs of the members.
pub fn credentials(members: &[Member]) -> Vec<PeerCredential> {
    let credential = |member: &Member| PeerCredential {
        addresses: member.addresses,
        identity: member.identity.clone(),
        pre_shared_key: Arc::clone(&member.pre_shared_key),
    };
    members.iter().map(credential).collect()
}

#[cfg(test)]
mod tests {
    use gdoi::crypto::Secret;

    use super::*;

    fn member(name: &str, addresses: &str, identity: Option<Identity>, groups: &[u32]) -> Member {
        Member {
            name: name.to_owned(),
            addresses: addresses.parse().unwrap(),
            identity,
            pre_shared_key: Arc::new(Secret::copy_from(b"key")),
            groups: groups.iter().copied().map(GroupId).collect(),
        }
    }

    fn address(text: &str) -> Identity {
        Identity::Address(text.parse().unwrap())
    }

    #[test]
    fn identity_and_group_decide_together() {
        let authorisation = Authorisation::new(&[
            member("g1", "10.0.1.1/32", None, &[1]),
            member("g2", "10.0.2.1/32", Some(Identity::Fqdn(String::from("g2.example"))), &[1, 2]),
            member("rest", "10.0.0.0/16", None, &[2]),
        ]);
        let check = |identity: &Identity, group| {
            let name = (group < 3).then_some("name");
            authorisation.check(identity, GroupId(group), name).map(|name| name.to_string())
        };
        assert_eq!(check(&address("10.0.1.1"), 1).as_deref(), Ok("g1"));
        assert!(matches!(check(&address("10.0.1.1"), 2), Err(Denied::NotAuthorised { .. })));
        assert_eq!(check(&address("10.0.1.1"), 3), Err(Denied::UnknownGroup));
        assert_eq!(check(&Identity::Fqdn(String::from("g2.example")), 2).as_deref(), Ok("g2"));
        // The longest prefix counts, and an address in a member's prefix is not that member's name.
        assert_eq!(check(&address("10.0.9.9"), 2).as_deref(), Ok("rest"));
        assert!(check(&address("10.0.9.9"), 1).is_err());
        assert_eq!(check(&address("10.1.0.1"), 2), Err(Denied::UnknownMember));
        assert_eq!(check(&Identity::Fqdn(String::from("g1")), 1), Err(Denied::UnknownMember));
    }
}
