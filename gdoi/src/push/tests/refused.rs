//! Pushes that must change nothing: forged, old, cut, reordered, or of another KEK.

use proptest::prelude::*;

use super::super::message;
use super::*;
use crate::error::{Error, NotAccepted, PeerMisbehaved};
use crate::kek_cipher::Kek;
use ike::wire::codec::Codec;
use ike::wire::header;
use ike::wire::registry::PayloadKind;

/// Encrypts what anybody with the KEK can encrypt.
fn forge(server: &KeyServer, plaintext: &[u8]) -> Vec<u8> {
    let kek = Kek::new(&server.policy, &server.key, false).unwrap();
    message::push_header(&server.policy.spi).message(&kek.encrypt(plaintext).unwrap()).unwrap()
}

fn plaintext(server: &KeyServer, datagram: &[u8]) -> Vec<u8> {
    Kek::new(&server.policy, &server.key, false).unwrap().decrypt(&datagram[28..]).unwrap().to_vec()
}

#[test]
fn signatures_of_others() {
    for kind in [KeyKind::Rsa, KeyKind::Ecdsa256] {
        let mut server = KeyServer::new(kind, 128, None);
        let mut member = server.member();
        let good = server.push_tek(0x1000);
        let plain = plaintext(&server, good.datagram());
        // A member knows the KEK: any change of what is signed, and of the signature, must show.
        for place in (0..plain.len()).filter(|place| place % 5 == 0) {
            let mut changed = plain.clone();
            changed[place] ^= 0x40;
            let result = member.handle_datagram(
                address("192.0.2.1:848"),
                address("239.192.1.1:848"),
                &forge(&server, &changed),
                at(1),
            );
            let padding = result.is_ok();
            assert!(!padding, "octet {place} of {}", plain.len());
            assert_eq!(member.sequence_number(), Some(0));
        }
        accepted(&mut member, good.datagram());
    }
}

#[test]
fn another_key_servers_signature() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    server.signing = SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut server.rng).unwrap();
    let push = server.push_tek(0x1000);
    assert_eq!(refused(&mut member, push.datagram()), PeerMisbehaved::WrongSignature.into());
}

#[test]
fn old_numbers_copies_and_reordered_pushes() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    let pushes: Vec<SealedPush> = (0..3).map(|number| server.push_tek(0x1000 + number)).collect();
    accepted(&mut member, pushes[1].datagram());
    let stale = NotAccepted::StaleSequenceNumber { last: 2, received: 1 };
    assert_eq!(refused(&mut member, pushes[0].datagram()), stale.into());
    assert_eq!(
        refused(&mut member, pushes[1].datagram()),
        ike::error::NotAccepted::Replayed.into()
    );
    accepted(&mut member, pushes[2].datagram());
    let stale = NotAccepted::StaleSequenceNumber { last: 3, received: 2 };
    assert_eq!(refused(&mut member, pushes[1].datagram()), stale.into());
}

#[test]
fn other_keks() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    let good = server.push_tek(0x1000);
    let mut other = good.datagram().to_vec();
    other[0] ^= 1;
    assert_eq!(refused(&mut member, &other), ike::error::NotAccepted::UnknownCookies.into());
    let plain = plaintext(&server, good.datagram());
    server.key = Secret::new(vec![1; 32]);
    refused(&mut member, &forge(&server, &plain));
    accepted(&mut member, good.datagram());
}

#[test]
fn headers_out_of_order() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    let good = server.push_tek(0x1000);
    for (place, value, reason) in [
        (16, 1, "missing-payload"),
        (17, 0x20, "invalid-message"),
        (18, 32, "exchange-type"),
        (19, 0, "wrong-encryption-bit"),
        (23, 1, "message-id"),
    ] {
        let mut changed = good.datagram().to_vec();
        changed[place] = value;
        assert_eq!(refused(&mut member, &changed).reason(), reason, "octet {place}");
    }
}

#[test]
fn every_truncation() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    let good = server.push_tek(0x1000);
    for length in 0..good.datagram().len() {
        let mut cut = good.datagram()[..length].to_vec();
        refused(&mut member, &cut);
        if let Some(field) = cut.get_mut(24..28) {
            // The same with a Length that agrees.
            field.copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
            refused(&mut member, &cut);
        }
    }
}

/// Nobody signs the padding: a whole block of it is more than a sender needs.
#[test]
fn a_block_of_padding() {
    for options in [SignedLength::Padded, SignedLength::Unpadded] {
        let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
        server.options.length = options;
        let mut member = server.member();
        let good = server.push_tek(0x1000);
        for more in [16, 32] {
            let mut plain = plaintext(&server, good.datagram());
            plain.resize(plain.len() + more, 0x55);
            let error = refused(&mut member, &forge(&server, &plain));
            assert_eq!(error.reason(), "invalid-message", "{error}");
        }
        accepted(&mut member, good.datagram());
    }
}

/// Chains that a member with the KEK can make, signature aside.
#[test]
fn payloads_out_of_place() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut member = server.member();
    let good = server.push_tek(0x1000);
    let good = plaintext(&server, good.datagram());
    let chain =
        ike::wire::chain::walk(PayloadKind::SEQUENCE_NUMBER, &good, header::LENGTH).unwrap();
    let body = |index: usize| chain.payloads[index].body().to_vec();
    let (seq, sa, kd, sig) = ((18, body(0)), (1, body(1)), (17, body(2)), (9, body(3)));
    let delete = (12, vec![0, 0, 0, 2, 1, 4, 0, 1, 0, 0, 0x10, 0]);
    let nonce = (10, vec![0; 16]);
    for (payloads, reason) in [
        (vec![&seq, &sig], "missing-payload"),
        (vec![&seq, &sa, &sig], "missing-payload"),
        (vec![&seq, &kd, &sig], "foreign-payload"),
        (vec![&seq, &kd, &sa, &sig], "foreign-payload"),
        (vec![&seq, &sa, &kd, &delete, &sig], "foreign-payload"),
        (vec![&seq, &sa, &kd, &kd, &sig], "foreign-payload"),
        (vec![&seq, &sa, &sa, &kd, &sig], "foreign-payload"),
        (vec![&seq, &seq, &sa, &kd, &sig], "foreign-payload"),
        (vec![&seq, &sa, &kd, &sig, &sig], "foreign-payload"),
        (vec![&seq, &nonce, &sa, &kd, &sig], "foreign-payload"),
        (vec![&seq, &sa, &kd], "missing-payload"),
        (vec![&seq], "missing-payload"),
        (vec![&seq, &delete, &sa, &kd, &sig], "wrong-signature"),
    ] {
        let mut plaintext = Vec::new();
        for (index, (_, body)) in payloads.iter().enumerate() {
            let next = payloads.get(index + 1).map_or(0, |next| next.0);
            plaintext.extend([next, 0]);
            plaintext.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
            plaintext.extend(body);
        }
        let kinds: Vec<u8> = payloads.iter().map(|payload| payload.0).collect();
        assert_eq!(refused(&mut member, &forge(&server, &plaintext)).reason(), reason, "{kinds:?}");
    }
}

/// Signed by the key server and yet of no use: the number is used up, nothing else changes, nothing
/// is acknowledged.
#[test]
fn unusable_content() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let mut member = server.member();
    let sa = IssuedSa::new(
        GroupPolicy { group: GROUP, kek: None, gap: Default::default(), teks: vec![tek(0x1000)] },
        BTreeMap::new(),
        None,
        None,
        None,
    );
    let push = server.seal(PushContent { group_sa: Some(&sa), ..PushContent::default() });
    for time in [1, 20] {
        let result = member.handle_datagram(
            address("192.0.2.1:848"),
            address("192.0.2.9:848"),
            push.datagram(),
            at(time),
        );
        assert_eq!(result.is_ok(), time == 1, "a copy is no news");
    }
    let error = PeerMisbehaved::Keys(crate::wire::KeyError::MissingTek(0x1000)).into();
    assert_eq!(member.poll_event(), Some(RekeyEvent::Unusable { sequence_number: 1, error }));
    assert_eq!((member.poll_event(), member.poll_transmit()), (None, None));
    assert_eq!(member.sequence_number(), Some(1));
    let next = server.push_tek(0x1000);
    accepted(&mut member, next.datagram());
}

#[test]
fn deletes_that_name_nothing() {
    for octets in [
        "00000001 01 04 0001 00001000",
        "00000002 00 04 0001 00001000",
        "00000002 01 10 0001 00000000000000000000000000000001",
    ] {
        let delete = ike::wire::delete::Delete::decode(&ike::testing::hex(octets)).unwrap();
        assert!(
            matches!(
                Deletion::read(&delete),
                Err(Error::PeerMisbehaved(PeerMisbehaved::Delete { .. }))
            ),
            "{octets}"
        );
    }
    let four = ike::testing::hex("00000002 00 04 0001 00000000");
    let delete = ike::wire::delete::Delete::decode(&four).unwrap();
    assert_eq!(Deletion::read(&delete), Ok(vec![Deletion::AllKeks]));
}

fn deletion() -> impl Strategy<Value = Deletion> {
    prop_oneof![
        (1..=3_u8, 256..=u32::MAX)
            .prop_map(|(protocol, spi)| Deletion::Tek(TekProtocol(protocol), spi)),
        (1..=3_u8).prop_map(|protocol| Deletion::AllTeks(TekProtocol(protocol))),
        any::<[u8; 16]>()
            .prop_filter("not all zero", |spi| *spi != [0; 16])
            .prop_map(Deletion::Kek),
        Just(Deletion::AllKeks),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn deletions_survive_the_wire(deletions in prop::collection::vec(deletion(), 0..20)) {
        let read: Vec<Deletion> =
            Deletion::write(&deletions).iter().flat_map(|delete| Deletion::read(delete).unwrap()).collect();
        prop_assert_eq!(read, deletions);
    }

    #[test]
    fn random_plaintext_is_refused(octets in prop::collection::vec(any::<u8>(), 1..400)) {
        let server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
        refused(&mut server.member(), &forge(&server, &octets));
    }

    #[test]
    fn random_datagrams_are_refused(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
        refused(&mut server.member(), &octets);
    }
}
