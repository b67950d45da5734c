//! Who has keys: one entry a member and group, until the keys it got have ended.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use gdoi::BootTime;
use gdoi::config::Identity;
use gdoi::group::GroupId;

/// A member that has keys of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Where it registered from last.
    pub address: SocketAddr,
    /// When it first registered.
    pub first: BootTime,
    /// When it last registered.
    pub last: BootTime,
    /// How often.
    pub pulls: u64,
    /// When the first of the keys it has ends.
    pub keys_end: BootTime,
}

/// All registrations.
#[derive(Debug, Default)]
pub struct Registry {
    registrations: BTreeMap<(GroupId, Identity), Registration>,
    /// No keys end before this. Kept because the loop asks after every datagram, a stranger's too.
    earliest_end: Option<BootTime>,
}

impl Registry {
    /// Keys were sent to a member. Returns whether it had none before.
    pub fn record(
        &mut self,
        (group, identity): (GroupId, Identity),
        name: Arc<str>,
        address: SocketAddr,
        keys_end: BootTime,
        now: BootTime,
    ) -> bool {
        let mut new = false;
        let entry = self.registrations.entry((group, identity)).or_insert_with(|| {
            new = true;
            Registration { name, address, first: now, last: now, pulls: 0, keys_end }
        });
        entry.address = address;
        entry.last = now;
        entry.pulls = entry.pulls.saturating_add(1);
        entry.keys_end = keys_end;
        self.earliest_end = Some(self.earliest_end.map_or(keys_end, |earliest| earliest.min(keys_end)));
        new
    }

    /// Forgets the members whose keys have ended; returns them.
    pub fn handle_timeout(&mut self, now: BootTime) -> Vec<(GroupId, Identity, Registration)> {
        if self.earliest_end.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        let ended = self.registrations.extract_if(.., |_, registration| registration.keys_end <= now);
        let ended = ended.map(|((group, identity), registration)| (group, identity, registration)).collect();
        self.earliest_end = self.registrations.values().map(|registration| registration.keys_end).min();
        ended
    }

    /// When the next member's keys end, or a moment before: a member that has registered again may have had them.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        self.earliest_end
    }

    /// All registrations by group and identity.
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, &Identity, &Registration)> {
        self.registrations.iter().map(|((group, identity), registration)| (*group, identity, registration))
    }

    /// How many members a group has.
    pub fn count(&self, group: GroupId) -> usize {
        self.registrations.keys().filter(|(of, _)| *of == group).count()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    #[test]
    fn a_member_is_there_until_its_keys_end() {
        let mut registry = Registry::default();
        let identity = Identity::Fqdn(String::from("g1"));
        let key = || (GroupId(1), identity.clone());
        let peer: SocketAddr = "10.0.1.1:848".parse().unwrap();
        assert!(registry.record(key(), "g1".into(), peer, at(100), at(0)));
        assert!(!registry.record(key(), "g1".into(), peer, at(200), at(50)));
        assert_eq!(registry.count(GroupId(1)), 1);
        assert_eq!(registry.count(GroupId(2)), 0);
        assert_eq!(registry.poll_timeout(), Some(at(100)), "what was announced is looked at");
        assert!(registry.handle_timeout(at(100)).is_empty());
        assert_eq!(registry.poll_timeout(), Some(at(200)));
        assert!(registry.handle_timeout(at(199)).is_empty());
        let ended = registry.handle_timeout(at(200));
        assert_eq!(ended.len(), 1);
        assert_eq!((ended[0].2.pulls, ended[0].2.first, ended[0].2.last), (2, at(0), at(50)));
        assert_eq!(registry.count(GroupId(1)), 0);
        assert_eq!(registry.poll_timeout(), None);
    }
}
