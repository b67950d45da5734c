//! Who has keys: one entry a member and group.
//!
//! Where members only pull, a member is in until the keys it got have ended. Where keys are pushed
//! it is in until it is removed or dropped, or the KEK ends without a successor.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gdoi::BootTime;
use gdoi::config::Identity;
use gdoi::group::GroupId;

/// A member that has keys of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Where it registered from last: unicast pushes go there.
    pub address: SocketAddr,
    /// Which of our addresses it asked then: unicast pushes leave from there.
    pub local: SocketAddr,
    /// When it first registered.
    pub first: BootTime,
    /// When it last registered.
    pub last: BootTime,
    /// How often.
    pub pulls: u64,
    /// When the first of the keys it has ends; `None` if it gets new ones by pushes.
    pub keys_end: Option<BootTime>,
    /// Its sender identifier for counter modes.
    pub sender: Option<u64>,
    /// Its leaf in the key hierarchy.
    pub leaf: Option<u16>,
    /// Pushes that it has acknowledged.
    pub acknowledgements: u64,
    /// The last of these, by the SPI of its KEK and its number.
    pub acknowledged: Option<([u8; 16], u32)>,
    /// When it last did.
    pub last_acknowledgement: Option<BootTime>,
    /// Pushes in a row that it has not acknowledged.
    pub silent: u64,
}

/// What a pull brought a member.
#[derive(Debug)]
pub struct Pulled {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Where it is.
    pub address: SocketAddr,
    /// Which of our addresses it asked.
    pub local: SocketAddr,
    /// When the first of its keys ends; `None` if it gets new ones by pushes.
    pub keys_end: Option<BootTime>,
    /// Its sender identifier.
    pub sender: Option<u64>,
    /// Its leaf in the key hierarchy.
    pub leaf: Option<u16>,
}

/// All registrations.
#[derive(Debug, Default)]
pub struct Registry {
    registrations: BTreeMap<(GroupId, Identity), Registration>,
    /// Acknowledgements name an address (RFC 8263 §3.4).
    by_address: BTreeMap<(GroupId, IpAddr), Identity>,
    /// No keys end before this. Kept because the loop asks after every datagram, a stranger's too.
    earliest_end: Option<BootTime>,
}

impl Registry {
    /// Keys were sent to a member. Returns the sender identifier that it had before and uses no
    /// more, and whether it had no keys before.
    pub fn record(
        &mut self,
        key: (GroupId, Identity),
        pulled: Pulled,
        now: BootTime,
    ) -> (Option<u64>, bool) {
        let Pulled { name, address, local, keys_end, sender, leaf } = pulled;
        if let Some(keys_end) = keys_end {
            self.earliest_end =
                Some(self.earliest_end.map_or(keys_end, |earliest| earliest.min(keys_end)));
        }
        if let Some(old) = self.registrations.get(&key) {
            self.by_address.remove(&(key.0, old.address.ip()));
        }
        self.by_address.insert((key.0, address.ip()), key.1.clone());
        let mut new = false;
        let entry = self.registrations.entry(key).or_insert_with(|| {
            new = true;
            Registration {
                name: Arc::clone(&name),
                address,
                local,
                first: now,
                last: now,
                pulls: 0,
                keys_end,
                sender: None,
                leaf,
                acknowledgements: 0,
                acknowledged: None,
                last_acknowledgement: None,
                silent: 0,
            }
        });
        let before = entry.sender.filter(|before| Some(*before) != sender);
        (entry.name, entry.address, entry.local, entry.last) = (name, address, local, now);
        (entry.keys_end, entry.sender, entry.leaf, entry.silent) = (keys_end, sender, leaf, 0);
        entry.pulls = entry.pulls.saturating_add(1);
        (before, new)
    }

    /// Takes an entry of the sealed state.
    pub fn restore(&mut self, key: (GroupId, Identity), registration: Registration) {
        if let Some(end) = registration.keys_end {
            self.earliest_end = Some(self.earliest_end.map_or(end, |earliest| earliest.min(end)));
        }
        self.by_address.insert((key.0, registration.address.ip()), key.1.clone());
        self.registrations.insert(key, registration);
    }

    /// A member of `group` has acknowledged push `number` under the KEK `spi`. Returns its name if
    /// it is there. A push that was sent again after a restart is acknowledged again, and counts
    /// once.
    pub fn acknowledged(
        &mut self,
        group: GroupId,
        (address, spi, number): (IpAddr, [u8; 16], u32),
        now: BootTime,
    ) -> Option<Arc<str>> {
        let registration = self.at_mut(group, address)?;
        if registration.acknowledged.replace((spi, number)) != Some((spi, number)) {
            registration.acknowledgements = registration.acknowledgements.saturating_add(1);
        }
        registration.last_acknowledgement = Some(now);
        registration.silent = 0;
        Some(Arc::clone(&registration.name))
    }

    /// A member of `group` has not acknowledged a push.
    pub fn missed(&mut self, group: GroupId, address: IpAddr) -> Option<&Registration> {
        let registration = self.at_mut(group, address)?;
        registration.silent = registration.silent.saturating_add(1);
        Some(registration)
    }

    /// Whether a member of `group` registered from this address and port.
    pub fn is_at(&self, group: GroupId, address: SocketAddr) -> bool {
        let identity = self.by_address.get(&(group, address.ip()));
        identity
            .and_then(|identity| self.find(group, identity))
            .is_some_and(|member| member.address == address)
    }

    /// Forgets the member of `group` at `address`.
    pub fn remove_at(&mut self, group: GroupId, address: IpAddr) -> Option<Registration> {
        let identity = self.by_address.get(&(group, address))?.clone();
        self.remove(group, &identity)
    }

    /// Forgets a member.
    pub fn remove(&mut self, group: GroupId, identity: &Identity) -> Option<Registration> {
        let registration = self.registrations.remove(&(group, identity.clone()))?;
        self.by_address.remove(&(group, registration.address.ip()));
        Some(registration)
    }

    /// Forgets all members of `group`; returns them.
    pub fn remove_group(&mut self, group: GroupId) -> Vec<(Identity, Registration)> {
        self.by_address.retain(|(of, _), _| *of != group);
        let gone = self.registrations.extract_if(.., |(of, _), _| *of == group);
        gone.map(|((_, identity), registration)| (identity, registration)).collect()
    }

    /// Forgets the members whose keys have ended; returns them.
    pub fn handle_timeout(&mut self, now: BootTime) -> Vec<(GroupId, Identity, Registration)> {
        if self.earliest_end.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        let over =
            |registration: &Registration| registration.keys_end.is_some_and(|end| end <= now);
        let ended = self.registrations.extract_if(.., |_, registration| over(registration));
        let ended: Vec<_> = ended
            .map(|((group, identity), registration)| (group, identity, registration))
            .collect();
        for (group, _, registration) in &ended {
            self.by_address.remove(&(*group, registration.address.ip()));
        }
        self.earliest_end =
            self.registrations.values().filter_map(|registration| registration.keys_end).min();
        ended
    }

    /// When the next member's keys end, or a moment before: a member that has registered again may
    /// have had them.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        self.earliest_end
    }

    /// A member's entry.
    pub fn find(&self, group: GroupId, identity: &Identity) -> Option<&Registration> {
        self.registrations.get(&(group, identity.clone()))
    }

    /// All registrations by group and identity.
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, &Identity, &Registration)> {
        self.registrations
            .iter()
            .map(|((group, identity), registration)| (*group, identity, registration))
    }

    /// The members of a group.
    pub fn of_group(&self, group: GroupId) -> impl Iterator<Item = (&Identity, &Registration)> {
        let first = (group, Identity::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let members =
            self.registrations.range(first..).take_while(move |((of, _), _)| *of == group);
        members.map(|((_, identity), registration)| (identity, registration))
    }

    /// How many members a group has.
    pub fn count(&self, group: GroupId) -> usize {
        self.of_group(group).count()
    }

    fn at_mut(&mut self, group: GroupId, address: IpAddr) -> Option<&mut Registration> {
        let identity = self.by_address.get(&(group, address))?.clone();
        self.registrations.get_mut(&(group, identity))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn pulled(keys_end: Option<BootTime>, sender: Option<u64>) -> Pulled {
        let (address, local) = ("10.0.1.1:848".parse().unwrap(), "10.0.9.1:848".parse().unwrap());
        Pulled { name: "g1".into(), address, local, keys_end, sender, leaf: None }
    }

    #[test]
    fn a_member_that_pulls_is_there_until_its_keys_end() {
        let mut registry = Registry::default();
        let key = || (GroupId(1), Identity::Fqdn(String::from("g1")));
        assert_eq!(registry.record(key(), pulled(Some(at(100)), Some(7)), at(0)), (None, true));
        assert_eq!(
            registry.record(key(), pulled(Some(at(200)), Some(8)), at(50)),
            (Some(7), false)
        );
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
        assert_eq!(
            registry.acknowledged(GroupId(1), ("10.0.1.1".parse().unwrap(), [1; 16], 1), at(201)),
            None
        );
    }

    #[test]
    fn a_member_that_gets_pushes_stays_and_is_known_by_its_address() {
        let mut registry = Registry::default();
        let identity = Identity::Fqdn(String::from("g1"));
        registry.record((GroupId(1), identity.clone()), pulled(None, None), at(0));
        assert!(
            registry.poll_timeout().is_none() && registry.handle_timeout(at(1 << 40)).is_empty()
        );
        let ip = "10.0.1.1".parse().unwrap();
        assert_eq!(registry.missed(GroupId(1), ip).unwrap().silent, 1);
        assert_eq!(registry.missed(GroupId(1), ip).unwrap().silent, 2);
        assert_eq!(
            registry.acknowledged(GroupId(1), (ip, [1; 16], 1), at(5)).as_deref(),
            Some("g1")
        );
        assert_eq!(registry.acknowledged(GroupId(2), (ip, [1; 16], 1), at(5)), None);
        let registration = registry.find(GroupId(1), &identity).unwrap();
        assert_eq!((registration.acknowledgements, registration.silent), (1, 0));
        let moved = Pulled { address: "10.0.7.7:500".parse().unwrap(), ..pulled(None, None) };
        registry.record((GroupId(1), identity.clone()), moved, at(6));
        assert_eq!(
            registry.acknowledged(GroupId(1), (ip, [1; 16], 1), at(7)),
            None,
            "it is elsewhere"
        );
        assert!(registry.remove_at(GroupId(1), "10.0.7.7".parse().unwrap()).is_some());
        assert_eq!(registry.count(GroupId(1)), 0);
    }
}
