//! Offers of main mode that peers have proved, and the cookies by which their exchanges cost no
//! memory (RFC 2408 §2.5.3).
//!
//! Message 1 carries the offer, which HASH_I covers and message 3 does not repeat: a responder has
//! to keep it, and whoever forges message 1 in a member's name can make it keep others instead. But
//! a member always makes the same offer. Once one has been proved, by a complete phase 1, its
//! message 1 is answered from what is known: the responder cookie says which offer it was, under a
//! MAC over everything else, and memory is taken when it comes back.
//!
//! ```text
//! CKY-R = place (1) | HMAC-SHA-256(secret, source | local | CKY-I | place | offer) (7)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::crypto::{HashAlgorithm, Secret, SeededRng, constant_time_eq, prf};
use crate::phase1::Cookies;
use crate::session::PeerAddress;
use crate::time::BootTime;
use crate::wire::header::Cookie;

/// Different offers that are kept. Members of one network make few.
const PLACES: usize = 256;

/// What peers have proved.
#[derive(Debug)]
pub(super) struct ProvedOffers {
    by_place: BTreeMap<u8, Offer>,
    /// The same the other way round.
    places: BTreeMap<Vec<u8>, u8>,
    /// Each peer holds one offer, so that none can take the others' places.
    by_source: BTreeMap<IpAddr, (u64, u8)>,
    by_age: BTreeSet<(u64, IpAddr)>,
    proved: u64,
    secret: Secret,
    /// A cookie that was made before the change is still good.
    before: Option<Secret>,
    changes: BootTime,
    period: Duration,
}

#[derive(Debug)]
struct Offer {
    /// SAi_b, the body of the initiator's SA payload.
    octets: Vec<u8>,
    holders: usize,
}

impl ProvedOffers {
    /// None yet. Cookies are good for one to two times `period`.
    pub(super) fn new(period: Duration, rng: &mut SeededRng) -> Self {
        Self {
            by_place: BTreeMap::new(),
            places: BTreeMap::new(),
            by_source: BTreeMap::new(),
            by_age: BTreeSet::new(),
            proved: 0,
            secret: fresh(rng),
            before: None,
            changes: BootTime::default() + period,
            period,
        }
    }

    /// The peer at `source` has proved that it made this offer. `most` peers are remembered.
    pub(super) fn prove(&mut self, source: IpAddr, offer: &[u8], most: usize) {
        let known = self.places.get(offer).copied();
        let free = || (0..=u8::MAX).take(PLACES).find(|place| !self.by_place.contains_key(place));
        let own = self.by_source.get(&source).map(|(_, place)| *place);
        if known.is_some() && known == own {
            self.touch(source, known.unwrap_or_default());
            return;
        }
        let Some(place) = known.or_else(free) else { return };
        self.forget(source);
        while self.by_source.len() >= most.max(1) {
            let Some((_, oldest)) = self.by_age.first().copied() else { break };
            self.forget(oldest);
        }
        let entry = self
            .by_place
            .entry(place)
            .or_insert_with(|| Offer { octets: offer.to_vec(), holders: 0 });
        entry.holders = entry.holders.saturating_add(1);
        self.places.insert(offer.to_vec(), place);
        self.touch(source, place);
    }

    /// What the peer at `source` has proved.
    pub(super) fn of(&self, source: IpAddr) -> Option<&[u8]> {
        let (_, place) = self.by_source.get(&source)?;
        self.by_place.get(place).map(|offer| offer.octets.as_slice())
    }

    /// Every peer with the offer that it has proved.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &[u8])> {
        let offer = |place: &u8| self.by_place.get(place).map(|offer| offer.octets.as_slice());
        self.by_source.iter().filter_map(move |(source, (_, place))| Some((*source, offer(place)?)))
    }

    /// The responder cookie for this offer, if a peer has proved it.
    pub(super) fn cookie(
        &mut self,
        address: PeerAddress,
        initiator: Cookie,
        offer: &[u8],
        now: BootTime,
        rng: &mut SeededRng,
    ) -> Option<Cookie> {
        let place = *self.places.get(offer)?;
        self.change_secret(now, rng);
        Some(make(&self.secret, address, initiator, place, offer))
    }

    /// The offer that `cookies` were made for, if they were made here and not long ago.
    pub(super) fn recognise(
        &mut self,
        address: PeerAddress,
        cookies: Cookies,
        now: BootTime,
        rng: &mut SeededRng,
    ) -> Option<&[u8]> {
        let [place, ..] = cookies.responder;
        self.change_secret(now, rng);
        let offer = self.by_place.get(&place)?;
        let secrets = [Some(&self.secret), self.before.as_ref()];
        let made = |secret| make(secret, address, cookies.initiator, place, &offer.octets);
        let known = secrets
            .into_iter()
            .flatten()
            .any(|secret| constant_time_eq(&made(secret), &cookies.responder));
        known.then_some(offer.octets.as_slice())
    }

    fn touch(&mut self, source: IpAddr, place: u8) {
        self.proved = self.proved.saturating_add(1);
        if let Some((age, _)) = self.by_source.insert(source, (self.proved, place)) {
            self.by_age.remove(&(age, source));
        }
        self.by_age.insert((self.proved, source));
    }

    fn forget(&mut self, source: IpAddr) {
        let Some((age, place)) = self.by_source.remove(&source) else { return };
        self.by_age.remove(&(age, source));
        let Some(offer) = self.by_place.get_mut(&place) else { return };
        offer.holders = offer.holders.saturating_sub(1);
        if offer.holders == 0
            && let Some(offer) = self.by_place.remove(&place)
        {
            self.places.remove(&offer.octets);
        }
    }

    fn change_secret(&mut self, now: BootTime, rng: &mut SeededRng) {
        if now < self.changes {
            return;
        }
        let old = core::mem::replace(&mut self.secret, fresh(rng));
        // Nobody has asked for so long that the old one is too old already.
        self.before = (now < self.changes + self.period).then_some(old);
        self.changes = now + self.period;
    }
}

fn fresh(rng: &mut SeededRng) -> Secret {
    Secret::new(rng.array::<32>().to_vec())
}

fn make(
    secret: &Secret,
    address: PeerAddress,
    initiator: Cookie,
    place: u8,
    offer: &[u8],
) -> Cookie {
    let (source, local) = (octets(address.remote), octets(address.local));
    let mac = prf(
        HashAlgorithm::Sha2_256,
        secret.expose(),
        &[&source, &local, &initiator, &[place], offer],
    );
    let mut cookie = [place; 8];
    for (octet, of_mac) in cookie.iter_mut().skip(1).zip(mac.expose()) {
        *octet = *of_mac;
    }
    // Zero means that there is no cookie.
    if cookie == [0; 8] { [0, 0, 0, 0, 0, 0, 0, 1] } else { cookie }
}

/// Of fixed length, so that no two pairs read alike.
fn octets(address: SocketAddr) -> [u8; 18] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut octets = [0; 18];
    for (octet, from) in
        octets.iter_mut().zip(ip.octets().into_iter().chain(address.port().to_be_bytes()))
    {
        *octet = from;
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIATOR: Cookie = [7; 8];

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn ends(last: u8) -> PeerAddress {
        PeerAddress {
            remote: SocketAddr::from(([192, 0, 2, last], 848)),
            local: SocketAddr::from(([192, 0, 2, 250], 848)),
        }
    }

    fn offers() -> (ProvedOffers, SeededRng) {
        let mut rng = SeededRng::from_seed([9; 32]);
        (ProvedOffers::new(Duration::from_secs(30), &mut rng), rng)
    }

    #[test]
    fn a_cookie_is_good_for_its_exchange_alone_and_for_a_while() {
        let (mut offers, mut rng) = offers();
        assert_eq!(
            offers.cookie(ends(1), INITIATOR, b"offer", at(5), &mut rng),
            None,
            "nobody has proved it"
        );
        offers.prove(ends(1).remote.ip(), b"offer", 10);
        let responder = offers.cookie(ends(1), INITIATOR, b"offer", at(5), &mut rng).unwrap();
        assert_eq!(
            offers.cookie(ends(1), INITIATOR, b"offer", at(29), &mut rng),
            Some(responder),
            "no memory"
        );
        assert_eq!(offers.cookie(ends(1), INITIATOR, b"another", at(5), &mut rng), None);
        let cookies = Cookies { initiator: INITIATOR, responder };
        let mut good = |ends, cookies, now| {
            offers.recognise(ends, cookies, at(now), &mut rng).map(<[u8]>::to_vec)
        };
        assert_eq!(good(ends(1), cookies, 6).as_deref(), Some(b"offer".as_slice()));
        assert_eq!(good(ends(2), cookies, 6), None, "of another address");
        assert_eq!(
            good(PeerAddress { remote: ends(1).local, local: ends(1).remote }, cookies, 6),
            None
        );
        assert_eq!(good(ends(1), Cookies { initiator: [8; 8], ..cookies }, 6), None);
        for octet in 0..8 {
            let mut forged = responder;
            forged[octet] ^= 1;
            assert_eq!(good(ends(1), Cookies { responder: forged, ..cookies }, 6), None);
        }
        assert!(good(ends(1), cookies, 59).is_some(), "the secret before");
        assert!(good(ends(1), cookies, 95).is_none(), "two secrets later");
    }

    #[test]
    fn members_with_the_same_offer_vouch_for_each_other_and_each_holds_one() {
        let (mut offers, mut rng) = offers();
        offers.prove(ends(1).remote.ip(), b"usual", 100);
        assert!(offers.cookie(ends(2), INITIATOR, b"usual", at(1), &mut rng).is_some());
        for round in 0..1000_u32 {
            offers.prove(ends(3).remote.ip(), &round.to_be_bytes(), 100);
        }
        assert_eq!(offers.by_place.len(), 2, "one peer, one offer");
        assert!(offers.cookie(ends(1), INITIATOR, b"usual", at(1), &mut rng).is_some());
        assert!(offers.cookie(ends(3), INITIATOR, &7_u32.to_be_bytes(), at(1), &mut rng).is_none());
        let shown: Vec<_> = offers.iter().collect();
        assert_eq!(
            shown,
            [
                (ends(1).remote.ip(), b"usual".as_slice()),
                (ends(3).remote.ip(), [0, 0, 3, 231].as_slice())
            ]
        );
    }

    #[test]
    fn peers_and_offers_are_bounded_and_the_newest_stay() {
        let (mut offers, mut rng) = offers();
        for peer in 1..=200_u8 {
            offers.prove(ends(peer).remote.ip(), &[peer], 50);
            offers.prove(ends(1).remote.ip(), &[1], 50);
        }
        assert_eq!(
            (offers.by_source.len(), offers.by_age.len(), offers.places.len()),
            (50, 50, 50)
        );
        for (peer, kept) in [(1, true), (200, true), (152, true), (151, false), (2, false)] {
            assert_eq!(
                offers.cookie(ends(peer), INITIATOR, &[peer], at(1), &mut rng).is_some(),
                kept,
                "{peer}"
            );
        }
        let (mut offers, _) = self::offers();
        for peer in 0..1000_u32 {
            offers.prove(IpAddr::from(peer.to_be_bytes()), &peer.to_be_bytes(), 5000);
        }
        assert_eq!((offers.by_place.len(), offers.by_source.len()), (PLACES, PLACES));
    }
}
