//! Who has keys of a group.
//!
//! Where members only pull, a member is in until the keys it got have ended. Where keys are pushed
//! it is in until it is removed or dropped, or the KEK ends without a successor.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ike::BootTime;
use ike::config::Identity;

use crate::tracked::Tracked;

/// A member that has keys.
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
    pub pulls: u64,
    /// When the first of the keys it has ends; `None` if it gets new ones by pushes.
    pub keys_end: Option<BootTime>,
    /// Its leaf in the key hierarchy.
    pub leaf: Option<u16>,
    /// Pushes that it has acknowledged.
    pub acknowledgements: u64,
    /// The last of these, by the SPI of its KEK and its number.
    pub acknowledged: Option<([u8; 16], u32)>,
    /// When it last did.
    pub last_acknowledgement: Option<BootTime>,
    /// Pushes in a row that it has not acknowledged.
    pub unacknowledged: u64,
}

/// What a pull brought a member.
#[derive(Debug)]
pub struct Pulled {
    /// Name in the configuration.
    pub name: Arc<str>,
    pub address: SocketAddr,
    /// Which of our addresses it asked.
    pub local: SocketAddr,
    /// When the first of its keys ends; `None` if it gets new ones by pushes.
    pub keys_end: Option<BootTime>,
    /// Its leaf in the key hierarchy.
    pub leaf: Option<u16>,
}

/// Names a registration: the identity proved and the address it was proved from. All hosts of a
/// prefix may prove one identity, and each of them has keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberId {
    /// The identity proved in phase 1.
    pub identity: Identity,
    /// Where the member registered from.
    pub address: IpAddr,
}

/// The members of one group that have its keys.
#[derive(Debug, Default)]
pub struct Registry {
    registrations: Tracked<MemberId, Registration>,
    /// Acknowledgements name an address (RFC 8263 §3.4).
    by_address: BTreeMap<IpAddr, MemberId>,
    /// No keys end before this. Kept because the event loop asks after every datagram, a stranger's
    /// too.
    earliest_end: Option<BootTime>,
    walks: Cell<u64>,
    /// Who has come or gone since [`Registry::take_touched`]; nobody asks outside of a cluster.
    touched: Option<BTreeSet<MemberId>>,
    /// Whether somebody went, or registered from another address, since the state was written:
    /// what is on its way there may be in no other record.
    moved: bool,
}

impl Registry {
    /// How often every member was looked at. What happens with each datagram must not, or a key
    /// server's work grows with the square of its members.
    pub fn walks(&self) -> u64 {
        self.walks.get()
    }

    fn walk(&self) {
        self.walks.set(self.walks.get().saturating_add(1));
    }

    /// Keys were sent to a member. Returns whether it had none before.
    pub fn record(&mut self, id: MemberId, pulled: Pulled, now: BootTime) -> bool {
        let Pulled { name, address, local, keys_end, leaf } = pulled;
        if let Some(keys_end) = keys_end {
            self.earliest_end =
                Some(self.earliest_end.map_or(keys_end, |earliest| earliest.min(keys_end)));
        }
        self.by_address.insert(id.address, id.clone());
        self.touch(&id);
        let before = self.registrations.get(&id);
        let new = before.is_none();
        self.moved |= before.is_some_and(|before| before.address != address);
        let entry = Registration {
            name,
            address,
            local,
            first: before.map_or(now, |before| before.first),
            last: now,
            pulls: before.map_or(0, |before| before.pulls).saturating_add(1),
            keys_end,
            leaf,
            acknowledgements: before.map_or(0, |before| before.acknowledgements),
            acknowledged: before.and_then(|before| before.acknowledged),
            last_acknowledgement: before.and_then(|before| before.last_acknowledgement),
            unacknowledged: 0,
        };
        self.registrations.insert(id, entry);
        new
    }

    /// Takes an entry of the sealed state.
    pub fn restore(&mut self, id: MemberId, registration: Registration) {
        if let Some(end) = registration.keys_end {
            self.earliest_end = Some(self.earliest_end.map_or(end, |earliest| earliest.min(end)));
        }
        self.by_address.insert(id.address, id.clone());
        self.registrations.insert(id, registration);
    }

    /// The member at `address` has acknowledged push `number` under the KEK `spi`. Returns its name
    /// if it is registered. A push that was sent again after a restart is acknowledged again, and
    /// counts once.
    pub fn acknowledged(
        &mut self,
        (address, spi, number): (IpAddr, [u8; 16], u32),
        now: BootTime,
    ) -> Option<Arc<str>> {
        let registration = self.at_mut_for_later(address)?;
        if registration.acknowledged.replace((spi, number)) != Some((spi, number)) {
            registration.acknowledgements = registration.acknowledgements.saturating_add(1);
        }
        registration.last_acknowledgement = Some(now);
        registration.unacknowledged = 0;
        Some(Arc::clone(&registration.name))
    }

    /// The member at `address` has not acknowledged a push.
    pub fn missed(&mut self, address: IpAddr) -> Option<&Registration> {
        let registration = self.at_mut_for_later(address)?;
        registration.unacknowledged = registration.unacknowledged.saturating_add(1);
        Some(registration)
    }

    /// Whether a member registered from this address and port.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        self.at(address.ip()).is_some_and(|member| member.address == address)
    }

    /// The member at `address`.
    pub fn at(&self, address: IpAddr) -> Option<&Registration> {
        self.registrations.get(self.by_address.get(&address)?)
    }

    /// What names the member at `address`.
    pub fn id_at(&self, address: IpAddr) -> Option<&MemberId> {
        self.by_address.get(&address)
    }

    /// Forgets the member at `address`.
    pub fn remove_at(&mut self, address: IpAddr) -> Option<(MemberId, Registration)> {
        let id = self.by_address.get(&address)?.clone();
        let registration = self.remove(&id)?;
        Some((id, registration))
    }

    /// No member has a leaf any more: the hierarchy is another one.
    pub fn forget_leaves(&mut self) {
        self.walk();
        self.registrations.iter_mut().for_each(|(_, registration)| registration.leaf = None);
    }

    pub fn remove(&mut self, id: &MemberId) -> Option<Registration> {
        let registration = self.registrations.remove(id)?;
        self.touch(id);
        self.moved = true;
        self.unindex(id);
        Some(registration)
    }

    /// Forgets all members; returns them.
    pub fn clear(&mut self) -> BTreeMap<MemberId, Registration> {
        self.by_address.clear();
        self.earliest_end = None;
        self.moved = true;
        let all = self.registrations.take();
        all.keys().for_each(|id| self.touch(id));
        all
    }

    /// Forgets the members whose keys have ended; returns them.
    pub fn handle_timeout(&mut self, now: BootTime) -> Vec<(MemberId, Registration)> {
        if self.earliest_end.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        self.walk();
        let over =
            |registration: &Registration| registration.keys_end.is_some_and(|end| end <= now);
        let ended = self.registrations.extract(over);
        self.moved |= !ended.is_empty();
        for (id, _) in &ended {
            self.touch(id);
            self.unindex(id);
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

    pub fn find(&self, id: &MemberId) -> Option<&Registration> {
        self.registrations.get(id)
    }

    /// All members, by identity and address.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&MemberId, &Registration)> {
        self.walk();
        self.registrations.iter()
    }

    /// The registrations of the configured member `name`: several if it is a prefix.
    pub fn named<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a MemberId, &'a Registration)> {
        self.walk();
        self.registrations.iter().filter(move |(_, entry)| entry.name.as_ref() == name)
    }

    /// The name in the configuration that each member has.
    pub fn names_mut(&mut self) -> impl Iterator<Item = (&MemberId, &mut Arc<str>)> {
        self.walk();
        self.registrations.iter_mut().map(|(id, registration)| (id, &mut registration.name))
    }

    /// Who has come, come again or gone since it was asked last.
    pub fn take_touched(&mut self) -> BTreeSet<MemberId> {
        self.touched.replace(BTreeSet::new()).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.registrations.len()
    }

    /// Whether nobody has keys.
    pub fn is_empty(&self) -> bool {
        self.registrations.is_empty()
    }

    /// The entries, with what is to be written of them.
    pub fn tracked(&self) -> &Tracked<MemberId, Registration> {
        &self.registrations
    }

    /// Whether somebody went or came from elsewhere since the state was written.
    pub fn is_moved(&self) -> bool {
        self.moved
    }

    /// The state has been written.
    pub fn saved(&mut self) {
        self.registrations.saved();
        self.moved = false;
    }

    /// Whether a member acknowledges is a figure that a crash may lose.
    fn at_mut_for_later(&mut self, address: IpAddr) -> Option<&mut Registration> {
        self.registrations.get_mut_for_later(self.by_address.get(&address)?)
    }

    fn touch(&mut self, id: &MemberId) {
        self.touched.iter_mut().for_each(|touched| _ = touched.insert(id.clone()));
    }

    /// Another identity may have registered from the address since.
    fn unindex(&mut self, id: &MemberId) {
        if self.by_address.get(&id.address) == Some(id) {
            self.by_address.remove(&id.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn pulled(keys_end: Option<BootTime>) -> Pulled {
        let (address, local) = ("10.0.1.1:848".parse().unwrap(), "10.0.9.1:848".parse().unwrap());
        Pulled { name: "g1".into(), address, local, keys_end, leaf: None }
    }

    fn id(address: &str) -> MemberId {
        MemberId { identity: Identity::Fqdn(String::from("g1")), address: address.parse().unwrap() }
    }

    #[test]
    fn a_member_that_pulls_is_registered_until_its_keys_end() {
        let mut registry = Registry::default();
        let key = || id("10.0.1.1");
        let record = |registry: &mut Registry, pulled, now| registry.record(key(), pulled, now);
        let first = record(&mut registry, pulled(Some(at(100))), at(0));
        assert!(first);
        let second = record(&mut registry, pulled(Some(at(200))), at(50));
        assert!(!second);
        assert_eq!(registry.len(), 1);
        assert_eq!(registry.poll_timeout(), Some(at(100)), "what was announced is looked at");
        assert!(registry.handle_timeout(at(100)).is_empty());
        assert_eq!(registry.poll_timeout(), Some(at(200)));
        assert!(registry.handle_timeout(at(199)).is_empty());
        let ended = registry.handle_timeout(at(200));
        assert_eq!(ended.len(), 1);
        assert_eq!((ended[0].1.pulls, ended[0].1.first, ended[0].1.last), (2, at(0), at(50)));
        assert!(registry.is_empty());
        assert_eq!(registry.poll_timeout(), None);
        assert_eq!(registry.acknowledged((key().address, [1; 16], 1), at(201)), None);
    }

    #[test]
    fn a_member_that_gets_pushes_stays_and_is_known_by_its_address() {
        let mut registry = Registry::default();
        registry.record(id("10.0.1.1"), pulled(None), at(0));
        assert!(
            registry.poll_timeout().is_none() && registry.handle_timeout(at(1 << 40)).is_empty()
        );
        let ip = "10.0.1.1".parse().unwrap();
        assert_eq!(registry.missed(ip).unwrap().unacknowledged, 1);
        assert_eq!(registry.missed(ip).unwrap().unacknowledged, 2);
        assert_eq!(registry.acknowledged((ip, [1; 16], 1), at(5)).as_deref(), Some("g1"));
        let registration = registry.find(&id("10.0.1.1")).unwrap();
        assert_eq!((registration.acknowledgements, registration.unacknowledged), (1, 0));
        assert!(registry.is_at("10.0.1.1:848".parse().unwrap()));
        assert!(!registry.is_at("10.0.1.1:500".parse().unwrap()));
        assert!(registry.remove_at(ip).is_some());
        assert_eq!(registry.acknowledged((ip, [1; 16], 1), at(7)), None);
        assert!(registry.is_empty());
    }

    #[test]
    fn hosts_with_one_identity_are_registered_each_for_itself() {
        let mut registry = Registry::default();
        for address in ["10.0.1.1", "10.0.1.2"] {
            let new = Pulled { address: (id(address).address, 848).into(), ..pulled(None) };
            assert!(registry.record(id(address), new, at(0)));
        }
        assert_eq!((registry.len(), registry.named("g1").count()), (2, 2));
        assert!(registry.remove(&id("10.0.1.1")).is_some());
        assert!(registry.at("10.0.1.2".parse().unwrap()).is_some());
    }

    #[test]
    fn an_address_with_another_identity_is_that_of_the_later_one() {
        let mut registry = Registry::default();
        let other = MemberId { identity: Identity::Fqdn(String::from("g9")), ..id("10.0.1.1") };
        registry.record(id("10.0.1.1"), pulled(None), at(0));
        let later = Pulled { name: "g9".into(), ..pulled(None) };
        registry.record(other.clone(), later, at(1));
        registry.remove(&id("10.0.1.1"));
        assert_eq!(&*registry.at(other.address).unwrap().name, "g9");
    }
}
