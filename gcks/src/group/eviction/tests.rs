//! Evictions that are large, or fail halfway.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use daemon::entropy::EntropyError;
use gdoi::group::{
    AddressPreservation, AddressRange, EncapsulationMode, GroupAssociatedPolicy, GroupId,
    GroupPolicy, GroupSa, SaDirection, TrafficSelector,
};
use gdoi::push::{KekChange, RekeyEvent, RekeyMember, RekeySettings};
use ike::crypto::{HashAlgorithm, KeyKind, SeededRng, SigningKey};

use super::*;
use crate::config::tek_algorithm::{ENCRYPTIONS, INTEGRITIES};
use crate::config::{self, Transport};
use crate::group::kek::Kek;
use crate::group::kek::tests::rekey;
use crate::group::key_generation::{Entropy, OsEntropy};
use crate::group::tek_schedule::Renewal;
use crate::members::registry::Pulled;

/// Gives so many draws and then none.
struct Draws(usize);

impl Entropy for Draws {
    fn fill(&mut self, octets: &mut [u8]) -> Result<(), EntropyError> {
        match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                OsEntropy.fill(octets)
            }
            None => Err(getrandom::Error::UNSUPPORTED.into()),
        }
    }
}

fn at(seconds: u64) -> BootTime {
    BootTime::new(Duration::from_secs(seconds))
}

fn ip(number: u16) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a01_0000 + u32::from(number)))
}

fn id(number: u16) -> MemberId {
    MemberId { identity: Identity::Address(ip(number)), address: ip(number) }
}

fn name(number: u16) -> Arc<str> {
    format!("m{number}").into()
}

/// A group with a key hierarchy for as many members as one can have, of which `members` are there.
fn group(members: u16) -> Group {
    let any = TrafficSelector {
        protocol: 0,
        source: AddressRange::Any,
        source_port: 0,
        destination: AddressRange::Any,
        destination_port: 0,
    };
    let template = config::TekTemplate {
        selectors: vec![any],
        encryption: ENCRYPTIONS[2],
        integrity: Some(INTEGRITIES[1]),
        direction: SaDirection::SYMMETRIC,
        mode: EncapsulationMode::TUNNEL,
        address_preservation: AddressPreservation::SOURCE_AND_DESTINATION,
        lifetime: Duration::from_secs(3600),
    };
    let rekey = config::Rekey {
        lkh: true,
        signature_hash: HashAlgorithm::Sha2_256,
        ..rekey(Transport::Unicast)
    };
    let config = config::Group {
        name: String::from("g"),
        id: GroupId(1),
        teks: vec![template],
        gap: GroupAssociatedPolicy::default(),
        sender_id_bits: 16,
        rekey: Some(rekey.clone()),
        interoperability: config::Interoperability::default(),
        member_threshold: None,
        cluster: None,
    };
    let mut rng = SeededRng::from_seed([7; 32]);
    let signing = Arc::new(SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut rng).unwrap());
    let mut group = Group::new(config, Some(Arc::clone(&signing)));
    let mut source =
        KeySource { rng: &mut rng, entropy: &mut OsEntropy, foreign_spis: BTreeSet::new() };
    let mut kek = Kek::make(&rekey, &signing, 32_768, &mut source, at(0)).unwrap();
    let prepared = group.teks.prepare(Renewal::All, true, at(0), &mut source).unwrap();
    group.teks.commit(prepared, None);
    for number in 0..members {
        let leaf = kek.tree_mut().unwrap().join(&mut rng).unwrap();
        let pulled = Pulled {
            name: name(number),
            address: SocketAddr::new(ip(number), 848),
            local: "10.0.9.1:848".parse().unwrap(),
            keys_end: None,
            leaf: Some(leaf),
        };
        group.registry.record(id(number), pulled, at(0));
    }
    group.rekey_sa.as_mut().unwrap().kek = Some(kek);
    group
}

/// What a pull gave the member.
fn rekey_member(group: &Group, number: u16) -> RekeyMember {
    let rekey_sa = group.rekey_sa().unwrap();
    let kek = rekey_sa.kek().unwrap();
    let (policy, keys) = kek.pushed(&rekey_sa.public_key, at(0));
    let policy = GroupPolicy {
        group: GroupId(1),
        kek: Some(policy),
        gap: GroupAssociatedPolicy::default(),
        teks: Vec::new(),
    };
    let leaf = group.registry.find(&id(number)).unwrap().leaf.unwrap();
    let sa = GroupSa::from_sealed(policy, keys, 0)
        .with_key_path(kek.tree().unwrap().download(leaf).unwrap());
    let settings = RekeySettings {
        address: SocketAddr::new(ip(number), 848),
        acknowledgement_length: Default::default(),
        selector_byte_order: Default::default(),
        legacy: false,
    };
    RekeyMember::new(&sa, settings, at(0)).unwrap().unwrap()
}

/// RFC 6407 §4: what leads many members to the next KEK goes in several pushes, to each member the
/// one that has its update array.
#[test]
fn update_arrays_that_fill_more_than_a_datagram() {
    let mut group = group(140);
    let gone: BTreeSet<MemberId> = (0..140).step_by(2).map(id).collect();
    let stay: Vec<u16> = (0..140).skip(1).step_by(2).collect();
    let mut members: BTreeMap<IpAddr, RekeyMember> =
        stay.iter().map(|number| (ip(*number), rekey_member(&group, *number))).collect();
    let mut rng = SeededRng::from_seed([8; 32]);
    let mut source =
        KeySource { rng: &mut rng, entropy: &mut OsEntropy, foreign_spis: BTreeSet::new() };
    let eviction = group.evict(&gone, "test", &mut source, at(10)).unwrap();
    assert!(matches!(eviction, Eviction::Rekeyed(pushed) if pushed.members == 70), "{eviction:?}");
    let dispatches: Vec<_> = std::iter::from_fn(|| group.poll_dispatch()).collect();
    let (teks, parts) = dispatches.split_last().unwrap();
    assert_eq!(parts.len(), 2, "two parts and the TEKs");
    assert_eq!(parts.iter().map(|part| part.supersedes).collect::<Vec<_>>(), [true, false]);
    let retired = group.rekey_sa().unwrap().retired.last().unwrap();
    assert_eq!(retired.last.iter().map(|push| push.sequence_number()).collect::<Vec<_>>(), [1, 2]);
    let server: SocketAddr = "10.0.9.1:848".parse().unwrap();
    for dispatch in parts.iter().chain([teks]) {
        let to = dispatch.recipients.destinations.iter().map(|(_, to)| to.ip());
        assert!(to.eq(dispatch.recipients.members.keys().copied()), "who is waited for");
        for (_, to) in &dispatch.recipients.destinations {
            let member = members.get_mut(&to.ip()).unwrap();
            member.handle_datagram(server, *to, dispatch.push.datagram(), at(10)).unwrap();
            let Some(RekeyEvent::Accepted(push)) = member.poll_event() else { panic!("{to}") };
            let has_teks = push.group_sa.is_some_and(|sa| !sa.policy().teks.is_empty());
            assert_eq!(matches!(push.kek, KekChange::Replaced { .. }), !has_teks);
        }
    }
    assert_eq!(parts.iter().map(|part| part.recipients.members.len()).sum::<usize>(), 70);
    assert_eq!(teks.recipients.members.len(), 70);
}

/// The others have a KEK that the removed member cannot reach, and still the TEKs that it has: it
/// is not forgotten before those are replaced.
#[test]
fn a_second_try_makes_up_for_teks_that_could_not_be_pushed() {
    let mut group = group(4);
    let mut rng = SeededRng::from_seed([8; 32]);
    group.remove("m1");
    let before: Vec<_> = group.teks.spis().collect();
    let mut evict = |group: &mut Group, draws: usize| {
        let mut entropy = Draws(draws);
        let mut source =
            KeySource { rng: &mut rng, entropy: &mut entropy, foreign_spis: BTreeSet::new() };
        let holders = group.holders("m1");
        assert_eq!(holders, BTreeSet::from([id(1)]));
        group.evict(&holders, "test", &mut source, at(10))
    };
    // One draw seeds the new keys of the hierarchy.
    assert!(matches!(evict(&mut group, 1), Err(PushError::Failed(_))));
    assert_eq!(group.registry.len(), 3);
    assert!(matches!(evict(&mut group, 0), Err(PushError::Failed(_))));
    let eviction = evict(&mut group, 100).unwrap();
    assert!(matches!(eviction, Eviction::Rekeyed(pushed) if pushed.members == 3), "{eviction:?}");
    assert!(group.holders("m1").is_empty());
    let current = group.teks.lifetimes().filter(|(_, _, current)| *current);
    assert!(current.map(|(_, lifetime, _)| lifetime.spi).all(|spi| !before.contains(&spi)));
}

/// Without randomness there is no next KEK: deletes need none.
#[test]
fn what_cannot_be_replaced_is_deleted() {
    let mut group = group(4);
    let mut rng = SeededRng::from_seed([8; 32]);
    let mut entropy = Draws(0);
    let mut source =
        KeySource { rng: &mut rng, entropy: &mut entropy, foreign_spis: BTreeSet::new() };
    let ids = BTreeSet::from([id(1)]);
    let lost = group.evict(&ids, "test", &mut source, at(10));
    assert!(matches!(lost, Err(PushError::HierarchyLost(_))), "{lost:?}");
    assert!(group.registry.is_empty() && group.holders("m1").is_empty(), "all were deleted");
}
