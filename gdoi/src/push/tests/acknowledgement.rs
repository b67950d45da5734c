//! Acknowledgements: octets worked by hand from RFC 8263, and what a key server makes of them.

use super::super::ack::{Claim, acknowledge};
use super::super::message::push_header;
use super::*;
use crate::error::NotAccepted;
use crate::kek_cipher::Kek;
use ike::error::PeerMisbehaved;
use ike::testing::hex;

const LENGTHS: [AcknowledgementLength; 3] =
    [AcknowledgementLength::Block, AcknowledgementLength::Output, AcknowledgementLength::Key];

fn base_key() -> Secret {
    Secret::new((0x10..0x20).collect())
}

fn spi() -> [u8; 16] {
    core::array::from_fn(|index| 0xa0 + index as u8)
}

fn golden(length: AcknowledgementLength) -> Vec<u8> {
    let hash = match length {
        AcknowledgementLength::Block => {
            "48b912a1013a7cd1b9846cbec2db2aa7d3f76c50cf11344305594c3efb30a5b4"
        }
        AcknowledgementLength::Output => {
            "257a4d7503cf8d34c3610834150b495e8a5866eed73c325459a54466f750937d"
        }
        AcknowledgementLength::Key => {
            "5e0e7a5b366a486c00d2ca4dd951a4dee8ddeffc200722a027157d0c929ffd3d"
        }
    };
    hex(&format!(
        "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 08 10 23 00 00000000 00000054
         12000024 {hash} 0500000800000001 0000000c01000000c6336407"
    ))
}

#[test]
fn golden_octets_both_ways() {
    let kind = AcknowledgementKind::KekSha256;
    for length in LENGTHS {
        let octets = golden(length);
        let made =
            acknowledge(kind, length, &base_key(), &spi(), 1, "198.51.100.7".parse().unwrap());
        assert_eq!(made.as_deref(), Ok(octets.as_slice()));
        let acknowledged = Claim::read(&octets).unwrap().verify(kind, &base_key()).unwrap();
        assert_eq!((acknowledged.sequence_number, acknowledged.length), (1, length));
        assert_eq!(
            (acknowledged.spi, acknowledged.address.to_string().as_str()),
            (spi(), "198.51.100.7")
        );
    }
}

#[test]
fn every_changed_octet_is_refused() {
    let octets = golden(AcknowledgementLength::Block);
    // RESERVED of the HASH payload is covered by nothing and ignored like every other.
    for place in (0..octets.len()).filter(|place| *place != 29) {
        let mut changed = octets.clone();
        changed[place] ^= 1;
        let verified = Claim::read(&changed)
            .and_then(|claim| claim.verify(AcknowledgementKind::KekSha256, &base_key()));
        assert!(verified.is_err(), "octet {place}");
    }
    for length in 0..octets.len() {
        assert!(Claim::read(&octets[..length]).is_err());
    }
}

#[test]
fn all_kinds_verify_under_their_own_kind_alone() {
    let address = "2001:db8::7".parse().unwrap();
    let kinds = [1, 2, 3, 4].map(|number| AcknowledgementKind::from_number(number).unwrap());
    for length in LENGTHS {
        for (made, kind) in kinds.iter().enumerate() {
            let octets = acknowledge(*kind, length, &base_key(), &spi(), 9, address).unwrap();
            let claim = Claim::read(&octets).unwrap();
            assert_eq!(
                claim.verify(*kind, &base_key()).map(|verified| verified.length),
                Ok(length)
            );
            let other = kinds[(made + 2) % 4];
            assert!(claim.verify(other, &base_key()).is_err());
            assert!(claim.verify(*kind, &Secret::new(vec![1; 16])).is_err());
        }
    }
    assert_eq!(AcknowledgementKind::from_number(5), None);
}

#[test]
fn a_push_is_acknowledged_and_its_copies_again() {
    for kind in [1, 3] {
        let mut server = KeyServer::new(KeyKind::Ecdsa256, 256, Some(kind));
        let mut member = server.member();
        let push = server.push_tek(0x1000);
        let sent = accepted(&mut member, push.datagram()).acknowledgement.unwrap();
        assert_eq!(
            (sent.source, sent.destination),
            (address("198.51.100.7:848"), address("192.0.2.1:848"))
        );
        let claim = Claim::read(&sent.payload).unwrap();
        let verified = push.verify(&claim, None).unwrap();
        assert_eq!((verified.sequence_number, verified.length), (1, AcknowledgementLength::Block));

        let (from, to) = (address("192.0.2.1:848"), address("239.192.1.1:848"));
        assert!(
            member.handle_datagram(from, to, push.datagram(), at(1)).is_err(),
            "too soon after the first"
        );
        member.handle_datagram(from, to, push.datagram(), at(11)).unwrap();
        assert_eq!((member.poll_transmit(), member.poll_event()), (Some(sent), None));

        let next = server.push_tek(0x1001);
        assert_eq!(next.verify(&claim, None), Err(NotAccepted::UnexpectedAcknowledgement.into()));
    }
}

/// Another member writes other padding, which nobody signs, and sends the push from its own address
/// before the key server's arrives: the acknowledgements still reach the key server.
#[test]
fn padding_of_another_member_does_not_divert_acknowledgements() {
    let mut server = KeyServer::new(KeyKind::Rsa, 128, Some(1));
    server.options.length = SignedLength::Unpadded;
    let mut member = server.member();
    let push = server.seal(PushContent {
        deletions: &[Deletion::Kek([9; 16])],
        group_sa: Some(&tek_sa(0x1000, None)),
        ..PushContent::default()
    });
    let kek = Kek::new(&server.policy, &server.key, false).unwrap();
    let mut plain = kek.decrypt(&push.datagram()[28..]).unwrap();
    assert_eq!(plain.last(), Some(&0), "it has padding");
    *plain.last_mut().unwrap() = 0x55;
    let forged = push_header(&server.policy.spi).message(&kek.encrypt(&plain).unwrap()).unwrap();
    assert_ne!(forged, push.datagram());
    let (elsewhere, to) = (address("203.0.113.66:848"), address("239.192.1.1:848"));
    member.handle_datagram(elsewhere, to, &forged, at(1)).unwrap();
    let Some(RekeyEvent::Accepted(first)) = member.poll_event() else { panic!("not accepted") };
    assert_eq!(first.acknowledgement.unwrap().destination, elsewhere);
    for second in [2, 12, 22] {
        let from = address("192.0.2.1:848");
        member.handle_datagram(from, to, push.datagram(), at(second)).unwrap();
        let answer = member.poll_transmit().expect("an acknowledgement");
        assert_eq!((answer.destination, member.poll_event()), (from, None));
        assert!(push.verify(&Claim::read(&answer.payload).unwrap(), None).is_ok());
    }
}

#[test]
fn nothing_is_acknowledged_that_was_not_asked_for() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    let push = server.push_tek(0x1000);
    assert_eq!(accepted(&mut member, push.datagram()).acknowledgement, None);
    let made = acknowledge(
        AcknowledgementKind::KekSha256,
        AcknowledgementLength::Block,
        &Secret::copy_from(&server.key.expose()[16..]),
        push.spi(),
        1,
        "198.51.100.7".parse().unwrap(),
    );
    let claim = Claim::read(&made.unwrap()).unwrap();
    assert_eq!(push.verify(&claim, None), Err(NotAccepted::UnexpectedAcknowledgement.into()));
}

#[test]
fn a_push_asks_by_its_own_sak() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    let policy =
        KekPolicy { acknowledgement: Some(1), ..kek_policy(0xb0, KeyKind::Ecdsa256, 128, None) };
    let keys = KekKeys { algorithm_key: Secret::new(vec![3; 32]), signature_key: None };
    let push = server.seal(PushContent {
        group_sa: Some(&tek_sa(0x1000, Some((policy, keys)))),
        ..Default::default()
    });
    let sent = accepted(&mut member, push.datagram()).acknowledgement.unwrap();
    // The base key is the KEK that decrypted the push, not the new one.
    assert!(push.verify(&Claim::read(&sent.payload).unwrap(), None).is_ok());
}

#[test]
fn a_leaf_key_proves_one_member() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(2));
    let mut tree = crate::lkh::KeyTree::new(3, Some(128), 4, &mut server.rng).unwrap();
    let (one, two) = (tree.join(&mut server.rng).unwrap(), tree.join(&mut server.rng).unwrap());
    let sa = server.group_sa().with_key_path(tree.download(one).unwrap());
    let mut member = RekeyMember::new(&sa, settings(false), at(0)).unwrap().unwrap();
    let push = server.push_tek(0x1000);
    let sent = accepted(&mut member, push.datagram()).acknowledgement.unwrap();
    let claim = Claim::read(&sent.payload).unwrap();
    assert!(push.verify(&claim, tree.leaf_key(one).as_ref()).is_ok());
    assert_eq!(
        push.verify(&claim, tree.leaf_key(two).as_ref()),
        Err(PeerMisbehaved::WrongHash { message: "acknowledgement" }.into())
    );
    assert_eq!(push.verify(&claim, None), Err(NotAccepted::UnexpectedAcknowledgement.into()));
}
