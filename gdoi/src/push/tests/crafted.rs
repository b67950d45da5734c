//! Pushes of other key servers: signed and well-formed, and such as ours does not make.

use super::*;
use crate::error::PeerIncompatible;
use crate::lkh::KeyTree;
use crate::wire::gap::Gap;
use crate::wire::kd::{KeyPacket, SecretAttribute};
use crate::wire::lkh::LkhAttribute;
use crate::wire::registry::LkhAttributeClass;
use crate::wire::sa_kek::Trailer;
use crate::wire::{key_download, security_association};
use ike::wire::attribute::Attribute;
use ike::wire::payload::Payload as Isakmp;
use ike::wire::vendor::VendorId;

/// MD5("draft-weis-delay-detection-01").
const DELAY_DETECTION: &str = "110088397f51fe9669b9630476358bec";

/// SA and KD of a new TEK with one more GAP attribute.
fn tek_with_gap(spi: Spi, attribute: u16) -> [Payload; 2] {
    let sa = tek_sa(spi, None);
    let mut policy = security_association(sa.policy(), Trailer::Standard);
    let gap = policy.gap.get_or_insert_with(Gap::default);
    gap.attributes.push(Attribute::short(attribute, 1_u16));
    [Payload::GroupSecurityAssociation(policy), Payload::KeyDownload(key_download(&sa))]
}

fn event(member: &mut RekeyMember, datagram: &[u8]) -> RekeyEvent {
    let (from, to) = (address("192.0.2.1:848"), address("239.192.1.1:848"));
    member.handle_datagram(from, to, datagram, at(1)).unwrap();
    member.poll_event().unwrap()
}

fn is_refused_for_delay_detection(event: &RekeyEvent) -> bool {
    let refused = PeerIncompatible::DelayDetection { attribute: 130 };
    matches!(event, RekeyEvent::Unusable { error, .. } if *error == refused.clone().into())
}

/// Members that have IP-D3P discard what those send that do not (draft-weis-delay-detection-03
/// §2.3): the keys would look healthy and all traffic be lost.
#[test]
fn delay_detection_that_the_key_server_announced_in_phase_1() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let push = server.sign(1, &tek_with_gap(0x1000, 130));
    // An attribute of private use means nothing by itself.
    assert!(matches!(event(&mut server.member(), &push), RekeyEvent::Accepted(_)));
    let sa = server.group_sa().announcing_delay_detection(true);
    let mut member = RekeyMember::new(&sa, settings(false), at(0)).unwrap().unwrap();
    assert!(is_refused_for_delay_detection(&event(&mut member, &push)));
    // Across a restart, and under the next KEK.
    let kept = member.export().unwrap();
    let mut resumed = RekeyMember::new(&kept, settings(false), at(0)).unwrap().unwrap();
    let next = kek_policy(0xb0, KeyKind::Ecdsa256, 128, None);
    let keys = || KekKeys { algorithm_key: Secret::new(vec![9; 32]), signature_key: None };
    let roll = tek_sa(0x1001, Some((next.clone(), keys())));
    server.sealer = Sealer::new(&server.policy, &server.keys(), 1, false).unwrap();
    let roll = server.seal(PushContent { group_sa: Some(&roll), ..PushContent::default() });
    accepted(&mut resumed, roll.datagram());
    (server.policy, server.key) = (next, Secret::new(vec![9; 32]));
    let push = server.sign(1, &tek_with_gap(0x1002, 130));
    assert!(is_refused_for_delay_detection(&event(&mut resumed, &push)));
}

#[test]
fn delay_detection_that_the_push_itself_announces() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    let vendor_id = Payload::Isakmp(Isakmp::VendorId(VendorId(ike::testing::hex(DELAY_DETECTION))));
    let [sa, kd] = tek_with_gap(0x1000, 130);
    let push = server.sign(1, &[vendor_id, sa, kd]);
    assert!(is_refused_for_delay_detection(&event(&mut member, &push)));
    accepted(&mut member, &server.sign(2, &tek_with_gap(0x1001, 131)));
}

/// SIG_ALGORITHM_KEY of an LKH packet (RFC 6407 §5.6.3.3) beside update arrays: later pushes are
/// signed with that key.
#[test]
fn a_new_signing_key_in_the_lkh_packet() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut tree = KeyTree::new(3, Some(128), 8, &mut server.rng).unwrap();
    server.key = tree.kek().unwrap().duplicate();
    let leaf = tree.join(&mut server.rng).unwrap();
    let sa = server.group_sa().with_key_path(tree.download(leaf).unwrap());
    let mut member = RekeyMember::new(&sa, settings(false), at(0)).unwrap().unwrap();
    let next = SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut server.rng).unwrap();

    let policy = kek_policy(0xb0, KeyKind::Ecdsa256, 128, None);
    let group = GroupPolicy {
        group: GROUP,
        kek: Some(policy.clone()),
        gap: Default::default(),
        teks: vec![],
    };
    let updates = tree.refresh(&mut server.rng).unwrap().into_vec().into_iter();
    let key = Secret::new(next.public_key_der().unwrap());
    let key = SecretAttribute::new(LkhAttributeClass::SIG_ALGORITHM_KEY, key);
    let attributes = updates.map(LkhAttribute::Update).chain([LkhAttribute::Other(key)]).collect();
    let kd = crate::wire::kd::KeyDownload {
        packets: vec![KeyPacket::Lkh { spi: policy.spi, attributes }],
    };
    let sa = security_association(&group, Trailer::Standard);
    let roll = server.sign(1, &[Payload::GroupSecurityAssociation(sa), Payload::KeyDownload(kd)]);
    let push = accepted(&mut member, &roll);
    assert_eq!(push.kek, KekChange::Replaced { old: [0xa0; 16], new: [0xb0; 16] });

    (server.policy, server.key) = (policy, tree.kek().unwrap().duplicate());
    server.sealer = Sealer::new(&server.policy, &server.keys(), 0, false).unwrap();
    let before = server.push_tek(0x1000);
    assert_eq!(refused(&mut member, before.datagram()).reason(), "wrong-signature");
    server.signing = next;
    server.sealer = Sealer::new(&server.policy, &server.keys(), 0, false).unwrap();
    accepted(&mut member, server.push_tek(0x1001).datagram());
    // And across a restart.
    let kept = member.export().unwrap();
    let mut resumed = RekeyMember::new(&kept, settings(false), at(0)).unwrap().unwrap();
    accepted(&mut resumed, server.push_tek(0x1002).datagram());
}

/// The same without another KEK: the SAK states the one in use once more.
#[test]
fn a_new_signing_key_under_the_same_kek() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    let next = SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut server.rng).unwrap();
    let signature_key = Some(next.public_key_der().unwrap());
    let keys = KekKeys { algorithm_key: server.key.duplicate(), signature_key };
    let sa = tek_sa(0x1000, Some((server.policy.clone(), keys)));
    let push = server.seal(PushContent { group_sa: Some(&sa), ..PushContent::default() });
    assert_eq!(accepted(&mut member, push.datagram()).kek, KekChange::Unchanged);
    let before = server.push_tek(0x1001);
    assert_eq!(refused(&mut member, before.datagram()).reason(), "wrong-signature");
    server.signing = next;
    accepted(&mut member, server.push_tek(0x1002).datagram());
}
