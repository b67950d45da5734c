//! The key server's side and the member's with each other: every key kind, signature encoding and
//! kind of content.

use super::*;
use crate::lkh::KeyTree;
use ike::crypto::RsaForm;

const KINDS: [KeyKind; 4] = [KeyKind::Rsa, KeyKind::Ecdsa256, KeyKind::Ecdsa384, KeyKind::Ecdsa521];

#[test]
fn every_kind_of_key_and_every_habit() {
    for kind in KINDS {
        for form in [RsaForm::DigestInfo, RsaForm::RawDigest] {
            for length in [SignedLength::Padded, SignedLength::Unpadded] {
                let mut server = KeyServer::new(kind, 256, None);
                server.options = SealOptions { form, length, ..SealOptions::default() };
                let mut member = server.member();
                for number in 1..=3 {
                    let push = server.push_tek(0x1000 + number);
                    assert_eq!(push.sequence_number(), number);
                    let push = accepted(&mut member, push.datagram());
                    let sa = push.group_sa.unwrap();
                    assert_eq!(sa.policy().teks, [tek(0x1000 + number)]);
                    assert_eq!(sa.tek_keys()[&(0x1000 + number)], tek_keys());
                }
                let encoding = member.signature_encoding().unwrap();
                assert_eq!(encoding.form, (kind == KeyKind::Rsa).then_some(form));
                assert!(encoding.length.is_none_or(|seen| seen == length));
            }
        }
    }
}

#[test]
fn deletes_alone_and_beside_new_keys() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    let deletions = [
        Deletion::Tek(TekProtocol::ESP, 0x1000),
        Deletion::Tek(TekProtocol::ESP, 0x1001),
        Deletion::AllTeks(TekProtocol::AH),
    ];
    let push = server.seal(PushContent { deletions: &deletions, ..PushContent::default() });
    let push = accepted(&mut member, push.datagram());
    assert_eq!(
        (push.deletions.as_slice(), push.group_sa, push.kek),
        (&deletions[..], None, KekChange::Unchanged)
    );

    let sa = tek_sa(0x1002, None);
    let push = server.seal(PushContent {
        deletions: &deletions[..1],
        group_sa: Some(&sa),
        ..Default::default()
    });
    let push = accepted(&mut member, push.datagram());
    assert_eq!((push.deletions.len(), push.group_sa.is_some()), (1, true));
}

#[test]
fn a_deleted_kek_is_acknowledged_and_ends_the_pushes() {
    for deletion in [Deletion::Kek([0xa0; 16]), Deletion::AllKeks] {
        let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
        let mut member = server.member();
        let all = [Deletion::AllTeks(TekProtocol::ESP), deletion];
        let gone = server.seal(PushContent { deletions: &all, ..PushContent::default() });
        let push = accepted(&mut member, gone.datagram());
        assert_eq!((push.kek, push.acknowledgement.is_some()), (KekChange::Deleted, true));
        assert_eq!((member.policy(), member.poll_timeout()), (None, None));
        let next = server.push_tek(0x1000);
        refused(&mut member, next.datagram());
        let (from, to) = (address("192.0.2.1:848"), address("239.192.1.1:848"));
        member.handle_datagram(from, to, gone.datagram(), at(20)).unwrap();
        assert_eq!(member.poll_transmit(), Some(push.acknowledgement.unwrap()));
    }
}

#[test]
fn another_keks_delete_changes_nothing() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    let push =
        server.seal(PushContent { deletions: &[Deletion::Kek([1; 16])], ..PushContent::default() });
    assert_eq!(accepted(&mut member, push.datagram()).kek, KekChange::Unchanged);
}

#[test]
fn a_kek_rolls_under_the_old_one() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    accepted(&mut member, server.push_tek(0x1000).datagram());
    let next = kek_policy(0xb0, KeyKind::Ecdsa256, 256, None);
    let key = Secret::new(vec![9; 48]);
    let keys = || KekKeys { algorithm_key: Secret::new(vec![9; 48]), signature_key: None };
    let sa = tek_sa(0x1001, Some((next.clone(), keys())));
    let roll = server.seal(PushContent { group_sa: Some(&sa), ..PushContent::default() });
    let push = accepted(&mut member, roll.datagram());
    assert_eq!(push.kek, KekChange::Replaced { old: [0xa0; 16], new: [0xb0; 16] });
    assert_eq!(push.group_sa.unwrap().kek_keys().unwrap().algorithm_key, key);
    assert_eq!((member.sequence_number(), member.expiry()), (Some(0), Some(at(86_401))));

    let late = server.push_tek(0x1002);
    refused(&mut member, late.datagram());
    server.sealer = Sealer::new(&next, &keys(), 0, false).unwrap();
    let push = server.push_tek(0x1003);
    assert_eq!(push.sequence_number(), 1);
    accepted(&mut member, push.datagram());
}

/// A key hierarchy whose root is the server's KEK, the leaves of `count` members, and the members.
fn hierarchy(server: &mut KeyServer, count: usize) -> (KeyTree, Vec<u16>, Vec<RekeyMember>) {
    let mut tree = KeyTree::new(3, Some(128), 8, &mut server.rng).unwrap();
    server.key = tree.kek().unwrap().duplicate();
    server.sealer = Sealer::new(&server.policy, &server.keys(), 0, false).unwrap();
    let leaves: Vec<u16> = (0..count).map(|_| tree.join(&mut server.rng).unwrap()).collect();
    let members = leaves.iter().map(|leaf| {
        let sa = server.group_sa().with_key_path(tree.download(*leaf).unwrap());
        RekeyMember::new(&sa, settings(false), at(0)).unwrap().unwrap()
    });
    let members = members.collect();
    (tree, leaves, members)
}

/// The KEK at the root of `tree`.
fn root(tree: &KeyTree) -> KekKeys {
    KekKeys { algorithm_key: tree.kek().unwrap().duplicate(), signature_key: None }
}

/// What is issued with the root of `tree` as the new KEK, and no TEK.
fn rooted(tree: &KeyTree, policy: &KekPolicy) -> IssuedSa {
    let kek = Some(policy.clone());
    let group = GroupPolicy { group: GROUP, kek, gap: Default::default(), teks: vec![] };
    IssuedSa::new(group, BTreeMap::new(), Some(root(tree)), None, None)
}

#[test]
fn a_removed_member_cannot_follow() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let (mut tree, leaves, mut members) = hierarchy(&mut server, 5);
    let mut removed = members.remove(2);

    for round in 0..2 {
        let kek_delivery = KekDelivery::Hierarchy(match round {
            0 => tree.remove(&leaves[2..3], &mut server.rng).unwrap(),
            _ => tree.refresh(&mut server.rng).unwrap(),
        });
        let policy = kek_policy(0xb0 + round, KeyKind::Ecdsa256, 128, None);
        let sa = rooted(&tree, &policy);
        let push = server.seal(PushContent {
            group_sa: Some(&sa),
            kek_delivery,
            ..PushContent::default()
        });
        for member in &mut members {
            let push = accepted(member, push.datagram());
            assert!(matches!(push.kek, KekChange::Replaced { .. }));
            assert_eq!(
                &push.group_sa.unwrap().kek_keys().unwrap().algorithm_key,
                tree.kek().unwrap()
            );
        }
        if round == 0 {
            removed
                .handle_datagram(
                    address("192.0.2.1:848"),
                    address("192.0.2.9:848"),
                    push.datagram(),
                    at(1),
                )
                .unwrap();
            // Another datagram may have what leads it on.
            assert_eq!(removed.poll_timeout().unwrap().at, at(3));
            removed.handle_timeout(at(2));
            assert_eq!(removed.poll_event(), None);
            removed.handle_timeout(at(3));
            let error = KekUnusable::Excluded.into();
            let told = RekeyEvent::Unusable { sequence_number: 1, error };
            assert_eq!((removed.poll_event(), removed.poll_event()), (Some(told), None));
        }
        server.sealer = Sealer::new(&policy, &root(&tree), 0, false).unwrap();
    }
    let push = server.push_tek(0x1000);
    refused(&mut removed, push.datagram());
    members
        .iter_mut()
        .for_each(|member| assert!(accepted(member, push.datagram()).group_sa.is_some()));
}

#[test]
fn keys_that_all_would_read_stay_out_of_an_update() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut tree = KeyTree::new(3, Some(128), 8, &mut server.rng).unwrap();
    tree.join(&mut server.rng).unwrap();
    let kek_delivery = KekDelivery::Hierarchy(tree.refresh(&mut server.rng).unwrap());
    let sa = tek_sa(0x1000, Some((kek_policy(0xb0, KeyKind::Ecdsa256, 128, None), root(&tree))));
    let content = PushContent { group_sa: Some(&sa), kek_delivery, ..PushContent::default() };
    let error =
        server.sealer.seal(content, &server.signing, server.options, &mut server.rng).unwrap_err();
    assert_eq!(error.reason(), "api-misuse");
    assert_eq!(server.sealer.sequence_number(), 0);
}

#[test]
fn sender_identifiers_never_leave_in_a_push() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    let policy =
        GroupPolicy { group: GROUP, kek: None, gap: Default::default(), teks: vec![tek(0x1000)] };
    let ids = Some(SenderIds { bits: 16, values: vec![7] });
    let sa = IssuedSa::new(policy, BTreeMap::from([(0x1000, tek_keys())]), None, None, ids);
    let push = server.seal(PushContent { group_sa: Some(&sa), ..PushContent::default() });
    assert_eq!(accepted(&mut member, push.datagram()).group_sa.unwrap().sender_ids(), None);
}

#[test]
fn a_kek_ends_with_its_life_time() {
    let mut member = KeyServer::new(KeyKind::Ecdsa256, 128, None).member();
    assert_eq!(member.poll_timeout().unwrap().at, at(86_400));
    member.handle_timeout(at(86_399));
    assert_eq!(member.poll_event(), None);
    member.handle_timeout(at(86_400));
    assert_eq!((member.poll_event(), member.policy()), (Some(RekeyEvent::Expired), None));
}

#[test]
fn the_number_survives_a_restart_of_either_side() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    server.sealer = Sealer::new(&server.policy, &server.keys(), 41, false).unwrap();
    let mut member = server.member();
    let push = server.push_tek(0x1000);
    assert_eq!((push.sequence_number(), member.sequence_number()), (42, Some(41)));
    accepted(&mut member, push.datagram());
    assert_eq!(member.sequence_number(), Some(42));
}

#[test]
fn a_member_goes_on_from_what_it_exported() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(2));
    let mut tree = KeyTree::new(3, Some(128), 8, &mut server.rng).unwrap();
    server.key = tree.kek().unwrap().duplicate();
    server.sealer = Sealer::new(&server.policy, &server.keys(), 0, false).unwrap();
    let leaves: Vec<u16> = (0..3).map(|_| tree.join(&mut server.rng).unwrap()).collect();
    let pulled = server.group_sa().with_key_path(tree.download(leaves[1]).unwrap());
    let mut before = RekeyMember::new(&pulled, settings(false), at(0)).unwrap().unwrap();
    let used = server.push_tek(0x1000);
    let acknowledged = accepted(&mut before, used.datagram()).acknowledgement.unwrap();
    let exported = before.export().unwrap();
    assert_eq!((exported.sequence_number(), exported.policy()), (Some(1), pulled.policy()));
    assert_eq!((exported.kek_keys(), exported.key_path()), (pulled.kek_keys(), pulled.key_path()));

    let mut after =
        RekeyMember::new(&exported, settings(false), at(1)).unwrap().unwrap().ending_by(at(86_400));
    assert_eq!(
        (before.expiry(), after.expiry()),
        (Some(at(86_400)), Some(at(86_400))),
        "not a second longer"
    );
    assert_eq!(refused(&mut after, used.datagram()).reason(), "stale-sequence-number");
    let next = server.push_tek(0x1001);
    let acknowledgement = accepted(&mut after, next.datagram()).acknowledgement.unwrap();
    assert_eq!(
        acknowledgement.payload.len(),
        acknowledged.payload.len(),
        "made with the key of the leaf"
    );
    assert_ne!(acknowledgement.payload, acknowledged.payload);

    // It follows the hierarchy to a new KEK, and exports that one.
    let kek_delivery = KekDelivery::Hierarchy(tree.remove(&leaves[..1], &mut server.rng).unwrap());
    let policy = kek_policy(0xb0, KeyKind::Ecdsa256, 128, None);
    let keys = || KekKeys { algorithm_key: tree.kek().unwrap().duplicate(), signature_key: None };
    let group = GroupPolicy {
        group: GROUP,
        kek: Some(policy.clone()),
        gap: Default::default(),
        teks: vec![],
    };
    let sa = IssuedSa::new(group, BTreeMap::new(), Some(keys()), None, None);
    let roll =
        server.seal(PushContent { group_sa: Some(&sa), kek_delivery, ..PushContent::default() });
    assert!(matches!(accepted(&mut after, roll.datagram()).kek, KekChange::Replaced { .. }));
    let exported = after.export().unwrap();
    assert_eq!(exported.policy().kek.as_ref(), Some(&policy));
    assert_eq!(&exported.kek_keys().unwrap().algorithm_key, tree.kek().unwrap());
    assert_eq!(exported.key_path(), tree.download(leaves[1]).as_ref());
}

#[test]
fn numbers_run_out() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    server.sealer = Sealer::new(&server.policy, &server.keys(), u32::MAX, false).unwrap();
    let content = PushContent { deletions: &[Deletion::AllKeks], ..PushContent::default() };
    assert!(server.sealer.seal(content, &server.signing, server.options, &mut server.rng).is_err());
}

/// What members of an older kind expect in a push, each switch by its octets.
#[test]
fn forms_for_older_members() {
    use crate::config::ByteOrder;
    use crate::wire::sa_kek::Trailer;
    let keys = || KekKeys { algorithm_key: Secret::new(vec![9; 48]), signature_key: None };
    let next = kek_policy(0xb0, KeyKind::Ecdsa256, 256, None);
    let plain = |options: SealOptions| {
        let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
        server.options = options;
        let sa = tek_sa(0x1001, Some((next.clone(), keys())));
        let settings = RekeySettings { selector_byte_order: options.selectors, ..settings(false) };
        let mut member = RekeyMember::new(&server.group_sa(), settings, at(0)).unwrap().unwrap();
        let push = server.seal(PushContent { group_sa: Some(&sa), ..PushContent::default() });
        let accepted = accepted(&mut member, push.datagram());
        assert_eq!(accepted.kek, KekChange::Replaced { old: [0xa0; 16], new: [0xb0; 16] });
        assert_eq!(accepted.group_sa.unwrap().policy().teks, sa.policy().teks);
        let kek = crate::kek_cipher::Kek::new(&server.policy, &server.key, false).unwrap();
        kek.decrypt(&push.datagram()[28..]).unwrap().to_vec()
    };
    let count = |octets: &[u8], wanted: &[u8]| {
        octets.windows(wanted.len()).filter(|window| *window == wanted).count()
    };
    let usual = plain(SealOptions::default());
    // SAK and KEK packet: SPI size 16, the SPI, KEK_ALGORITHM_KEY of 48 octets.
    let packet = |spi: u8| [&[16][..], &[spi; 16], &[0, 1, 0, 48]].concat();
    let old = plain(SealOptions { kek_packet: KekPacketSpi::Old, ..SealOptions::default() });
    assert_eq!((count(&usual, &packet(0xb0)), count(&usual, &packet(0xa0))), (1, 0));
    assert_eq!((count(&old, &packet(0xb0)), count(&old, &packet(0xa0))), (0, 1));
    // SPI, reserved octets, KEK_ALGORITHM.
    let tail = |zeros: usize| [&[0xb0; 16][..], &vec![0; zeros], &[0x80, 2, 0, 3]].concat();
    let longer = plain(SealOptions { trailer: Trailer::TwoMore, ..SealOptions::default() });
    assert_eq!((count(&usual, &tail(4)), count(&longer, &tail(6))), (1, 1));
    assert_eq!(longer.len(), usual.len());
    // 172.16.0.0/12 twice.
    let host = plain(SealOptions { selectors: ByteOrder::Host, ..SealOptions::default() });
    let prefix = [172, 16, 0, 0, 255, 240, 0, 0];
    let reversed = [0, 0, 16, 172, 0, 0, 240, 255];
    assert_eq!((count(&usual, &prefix), count(&usual, &reversed)), (2, 0));
    assert_eq!((count(&host, &prefix), count(&host, &reversed)), (0, 2));
}

/// Update arrays in two datagrams (RFC 6407 §4): each member follows by the one that has its array,
/// in whichever order they come.
#[test]
fn update_arrays_split_over_two_pushes() {
    for reordered in [false, true] {
        let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
        let (mut tree, leaves, mut members) = hierarchy(&mut server, 8);
        let updates = tree.remove(&leaves[7..], &mut server.rng).unwrap();
        let parts = updates.split(150);
        assert_eq!(parts.iter().map(|part| part.as_slice().len()).collect::<Vec<_>>(), [1, 1, 1]);
        let served: Vec<Vec<bool>> = parts
            .iter()
            .map(|part| leaves.iter().map(|leaf| part.leaves().contains(*leaf)).collect())
            .collect();
        for place in 0..7 {
            assert_eq!(served.iter().filter(|part| part[place]).count(), 1, "one part each");
        }
        assert!(served.iter().all(|part| !part[7]), "none for who was removed");
        let policy = kek_policy(0xb0, KeyKind::Ecdsa256, 128, Some(1));
        let sa = rooted(&tree, &policy);
        let mut pushes: Vec<SealedPush> = Vec::new();
        for part in parts {
            let kek_delivery = KekDelivery::Hierarchy(part);
            let content =
                PushContent { group_sa: Some(&sa), kek_delivery, ..PushContent::default() };
            pushes.push(server.seal(content));
        }
        let (source, local) = (address("192.0.2.1:848"), address("239.192.1.1:848"));
        let order: Vec<usize> = if reordered { vec![0, 2, 1] } else { vec![0, 1, 2] };
        for (place, member) in members.iter_mut().enumerate().take(7) {
            let mut replaced = Vec::new();
            for part in &order {
                let _ = member.handle_datagram(source, local, pushes[*part].datagram(), at(1));
                while let Some(event) = member.poll_event() {
                    let RekeyEvent::Accepted(push) = event else { panic!("{event:?}") };
                    assert!(push.acknowledgement.is_some());
                    replaced.push(*part);
                }
            }
            let own = served.iter().position(|part| part[place]).unwrap();
            member.handle_timeout(at(10));
            // A number that a later one has overtaken is lost, as any push that comes late.
            if reordered && own == 1 {
                assert!(matches!(member.poll_event(), Some(RekeyEvent::Unusable { .. })));
            } else {
                assert_eq!((replaced, member.poll_event()), (vec![own], None));
                assert_eq!(member.policy().unwrap().spi, [0xb0; 16]);
            }
        }
    }
}
