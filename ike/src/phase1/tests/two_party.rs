//! Both roles with each other: every algorithm, wrong keys, wrong identities, replayed messages,
//! Informational.

use super::*;
use crate::crypto::KeyPair;
use crate::error::{NotAccepted, PeerMisbehaved};
use crate::phase1::message::{KeyExchangeMessage, MAXIMUM_OFFER, SaMessage};
use crate::phase1::proposal;
use crate::testing::GROUPS;
use crate::wire::attribute::{Attribute, AttributeValue};
use crate::wire::delete::Delete;
use crate::wire::header::{self, Header};
use crate::wire::notify::Notification;
use crate::wire::payload::{Payload, encode_chain, first_kind};
use crate::wire::registry::{Doi, ExchangeType, Flags, NotifyType, PayloadKind, ProtocolId};
use crate::wire::vendor::VendorId;
use crate::wire::{Codec, chain};

const ENCRYPTIONS: [Phase1Encryption; 5] = [
    Phase1Encryption::DesCbc,
    Phase1Encryption::TripleDesCbc,
    Phase1Encryption::Aes128Cbc,
    Phase1Encryption::Aes192Cbc,
    Phase1Encryption::Aes256Cbc,
];

const HASHES: [HashAlgorithm; 5] = [
    HashAlgorithm::Md5,
    HashAlgorithm::Sha1,
    HashAlgorithm::Sha2_256,
    HashAlgorithm::Sha2_384,
    HashAlgorithm::Sha2_512,
];

/// Every cipher with every hash over a cheap group, and every group with some cipher and hash.
fn transforms() -> Vec<Phase1Transform> {
    let mut transforms = Vec::new();
    for encryption in ENCRYPTIONS {
        for hash in HASHES {
            transforms.push(Phase1Transform { encryption, hash, ..FAST });
        }
    }
    for (index, group) in GROUPS.into_iter().enumerate() {
        transforms.push(Phase1Transform {
            encryption: ENCRYPTIONS[index % 5],
            hash: HASHES[(index + 2) % 5],
            group,
            ..FAST
        });
    }
    transforms
}

#[test]
fn every_transform_is_negotiated_and_protects_both_ways() {
    let mut rng = SeededRng::from_seed([2; 32]);
    for transform in transforms() {
        let run = run(initiator_config(&[transform]), &policy(&[transform]), &mut rng).unwrap();
        let (i, r) = (&run.initiator_sa, &run.responder_sa);
        assert_eq!((i.transform(), r.transform()), (transform, transform));
        assert_eq!((i.role(), r.role()), (Role::Initiator, Role::Responder));
        assert_eq!((i.peer_identity(), r.peer_identity()), (&server(), &member()));
        assert_eq!(i.cookies(), r.cookies());
        assert_eq!(i.lifetime(), Duration::from_secs(3600));

        // An exchange of three messages, each side sending in turn under one chain.
        let mut chains = [i, r].map(|sa| sa.exchange(PHASE2, 7));
        for (turn, length) in [4_u8, 40, 5].into_iter().enumerate() {
            let payload =
                [&[0, 0, 0, length + 4], vec![0x5a; usize::from(length)].as_slice()].concat();
            let (from, to) = if turn % 2 == 0 { (0, 1) } else { (1, 0) };
            let sas = [i, r];
            let sealed = sas[from]
                .seal_authenticated(&chains[from], &[b"nonce"], PayloadKind::NONCE, &payload)
                .unwrap();
            let opened = sas[to].open(&chains[to], sealed.datagram()).unwrap();
            let (chain, _) = opened.authenticate(sas[to], "message", &[b"nonce"]).unwrap();
            assert_eq!(chain.payloads[1].octets, payload, "{transform:?}");
            chains[from] = sealed.next();
            chains[to] = opened.next();
        }
        assert_eq!(chains[0], chains[1]);
    }
}

#[test]
fn the_keys_of_two_runs_differ() {
    let rng = &mut SeededRng::from_seed([3; 32]);
    let one = run(initiator_config(&[FAST]), &policy(&[FAST]), rng).unwrap();
    let two = run(initiator_config(&[FAST]), &policy(&[FAST]), rng).unwrap();
    assert_ne!(one.initiator_sa.skeyid_d(), two.initiator_sa.skeyid_d());
    assert_eq!(one.initiator_sa.skeyid_d(), one.responder_sa.skeyid_d());
    assert_ne!(one.initiator_sa.cookies(), two.initiator_sa.cookies());
    // The same seed gives the same octets.
    assert_eq!(fast_run().messages, fast_run().messages);
}

#[test]
fn another_pre_shared_key_fails_at_both_proofs() {
    let rng = &mut SeededRng::from_seed([4; 32]);
    let other = Credential::PreSharedKey(Arc::new(Secret::copy_from(b"a key of three")));
    let config = InitiatorConfig { credential: other.clone(), ..initiator_config(&[FAST]) };
    let (expect_sa, message_1) = Initiator::start(config, rng).unwrap();
    let (expect_ke_r, message_2) =
        responder::answer_offer(&[policy(&[FAST])], &message_1, rng).unwrap();
    let (expect_ke, message_3) = next(expect_sa.handle(&message_2, rng).unwrap());
    let received = expect_ke_r.read(&message_3).unwrap();
    // Two responders at one message 3: one with another key, and an impostor that proves the right
    // identity with it.
    let (honest, message_4) = expect_ke_r
        .compute(&received, &expect_ke_r.check(&received).unwrap(), &credential(), rng)
        .unwrap();
    let (expect_auth, message_5) = next(expect_ke.handle(&message_4, rng).unwrap());
    assert_eq!(
        honest.handle(&message_5, &server(), &member()).unwrap_err(),
        PeerMisbehaved::WrongHash { message: "message 5" }.into()
    );
    let (impostor, message_4) = expect_ke_r
        .compute(&received, &expect_ke_r.check(&received).unwrap(), &other, rng)
        .unwrap();
    let (for_impostor, message_5) = next(expect_ke.handle(&message_4, rng).unwrap());
    let (_, message_6) = impostor.handle(&message_5, &server(), &member()).unwrap();
    assert_eq!(
        expect_auth.handle(&message_6, rng).unwrap_err(),
        PeerMisbehaved::WrongHash { message: "message 6" }.into()
    );
    assert!(for_impostor.handle(&message_6, rng).is_ok(), "the message itself was good");
}

#[test]
fn another_identity_is_refused_by_either_side_and_named() {
    let rng = &mut SeededRng::from_seed([5; 32]);
    let run = run(initiator_config(&[FAST]), &policy(&[FAST]), rng).unwrap();
    let [.., message_5, _] = &run.messages;
    let stranger = Identity::Address([10, 0, 2, 1].into());
    assert_eq!(
        run.responder_expect_auth.handle(message_5, &server(), &stranger).unwrap_err(),
        PeerMisbehaved::WrongIdentity { expected: stranger.clone(), proved: member() }.into()
    );
    for posing in [
        stranger,
        Identity::UserFqdn("ks1.example".to_owned()),
        Identity::KeyId(b"ks1.example".to_vec()),
    ] {
        let (_, message_6) =
            run.responder_expect_auth.handle(message_5, &posing, &member()).unwrap();
        assert_eq!(
            run.expect_auth.handle(&message_6, rng).unwrap_err(),
            PeerMisbehaved::WrongIdentity { expected: server(), proved: posing }.into()
        );
    }
}

#[test]
fn every_type_of_identity_is_proved() {
    let rng = &mut SeededRng::from_seed([6; 32]);
    for identity in [
        Identity::Address("2001:db8::1".parse().unwrap()),
        Identity::Fqdn("g1.example".to_owned()),
        Identity::UserFqdn("g1@example".to_owned()),
        Identity::KeyId(vec![0, 0xff, 1]),
    ] {
        let config = InitiatorConfig { identity: identity.clone(), ..initiator_config(&[FAST]) };
        let (expect_sa, message_1) = Initiator::start(config, rng).unwrap();
        let (expect_ke_r, message_2) =
            responder::answer_offer(&[policy(&[FAST])], &message_1, rng).unwrap();
        let (expect_ke, message_3) = next(expect_sa.handle(&message_2, rng).unwrap());
        let received = expect_ke_r.read(&message_3).unwrap();
        let (expect_auth_r, message_4) = expect_ke_r
            .compute(&received, &expect_ke_r.check(&received).unwrap(), &credential(), rng)
            .unwrap();
        let (_, message_5) = next(expect_ke.handle(&message_4, rng).unwrap());
        let (sa, _) = expect_auth_r.handle(&message_5, &server(), &identity).unwrap();
        assert_eq!(sa.peer_identity(), &identity);
    }
}

/// Each message, given to each state that does not wait for it: an error, and the state still takes
/// the true one.
#[test]
fn messages_out_of_place_and_replays_change_nothing() {
    let rng = &mut SeededRng::from_seed([7; 32]);
    let run = run(initiator_config(&[FAST]), &policy(&[FAST]), rng).unwrap();
    let messages = &run.messages;
    for (index, message) in messages.iter().enumerate() {
        let number = index + 1;
        assert_eq!(
            run.expect_sa.handle(message, rng).is_ok(),
            number == 2,
            "ExpectSa, message {number}"
        );
        // Messages 3 and 4 have one form; message 3 is our own.
        assert_eq!(
            run.expect_ke.handle(message, rng).is_ok(),
            number == 4,
            "ExpectKe, message {number}"
        );
        assert_eq!(
            run.expect_auth.handle(message, rng).is_ok(),
            number == 6,
            "ExpectAuth, message {number}"
        );
        let answered = responder::answer_offer(&[policy(&[FAST])], message, rng).is_ok();
        assert_eq!(answered, number == 1, "answer_offer, message {number}");
        let read = run.responder_expect_ke.read(message).is_ok();
        assert_eq!(read, matches!(number, 3 | 4), "responder ExpectKe, message {number}");
        let proved = run.responder_expect_auth.handle(message, &server(), &member()).is_ok();
        assert_eq!(proved, number == 5, "responder ExpectAuth, message {number}");
    }
    // A replayed message 1 is a new exchange under a new cookie.
    let (again, answer) = responder::answer_offer(&[policy(&[FAST])], &messages[0], rng).unwrap();
    assert_ne!(again.cookies().responder, run.responder_expect_ke.cookies().responder);
    assert_ne!(answer, messages[1]);
    // Messages of one exchange mean nothing in another one.
    let other = super::run(initiator_config(&[FAST]), &policy(&[FAST]), rng).unwrap();
    assert_eq!(
        run.expect_sa.handle(&other.messages[1], rng).unwrap_err(),
        NotAccepted::UnknownCookies.into()
    );
    assert_eq!(
        run.expect_ke.handle(&other.messages[3], rng).unwrap_err(),
        NotAccepted::UnknownCookies.into()
    );
    assert_eq!(
        run.expect_auth.handle(&other.messages[5], rng).unwrap_err(),
        NotAccepted::UnknownCookies.into()
    );
    let unknown = Error::from(NotAccepted::UnknownCookies);
    assert_eq!(run.responder_expect_ke.read(&other.messages[2]).unwrap_err(), unknown);
    assert_eq!(
        run.responder_expect_auth.handle(&other.messages[4], &server(), &member()).unwrap_err(),
        unknown
    );
}

/// Somebody without the key throws the initiator's own public value and nonce back at it.
#[test]
fn a_reflected_exchange_is_refused() {
    let rng = &mut SeededRng::from_seed([8; 32]);
    let config = InitiatorConfig { expected_identity: member(), ..initiator_config(&[FAST]) };
    let (expect_sa, message_1) = Initiator::start(config, rng).unwrap();
    let mut message_2 = message_1.clone();
    message_2.copy_within(0..8, 8);
    let (expect_ke, message_3) = next(expect_sa.handle(&message_2, rng).unwrap());
    assert_eq!(
        expect_ke.handle(&message_3, rng).unwrap_err(),
        PeerMisbehaved::PublicValue { group: DhGroup::Ecp256 }.into()
    );
}

#[test]
fn unusable_public_values_are_refused_on_both_sides() {
    let rng = &mut SeededRng::from_seed([9; 32]);
    for group in [DhGroup::Modp1024, DhGroup::Modp2048Subgroup256, DhGroup::Ecp256] {
        let transform = Phase1Transform { group, ..FAST };
        let run = run(initiator_config(&[transform]), &policy(&[transform]), rng).unwrap();
        let cookies = run.initiator_sa.cookies();
        let refused = Error::from(PeerMisbehaved::PublicValue { group });
        let own = KeyPair::generate(group, rng);
        for public in [
            vec![0; group.public_length()],
            vec![0xff; group.public_length()],
            own.public()[1..].to_vec(),
        ] {
            let forged = KeyExchangeMessage::write(cookies, &public, &[1; 16], Vec::new()).unwrap();
            assert_eq!(run.expect_ke.handle(&forged, rng).unwrap_err(), refused);
            let state = &run.responder_expect_ke;
            let checked = state.read(&forged).and_then(|received| state.check(&received));
            assert_eq!(checked.map(|_| ()).unwrap_err(), refused);
        }
        assert!(run.expect_ke.handle(&run.messages[3], rng).is_ok(), "the state survived");
    }
}

/// Appends payloads to a clear message of main mode.
fn with_payloads(message: &[u8], more: Vec<Payload>) -> Vec<u8> {
    let (header, body) = header::split(message).unwrap();
    let chain = chain::walk_clear(header.next_payload, body, header::LENGTH).unwrap();
    let mut payloads: Vec<Payload> =
        chain.payloads.iter().map(|raw| Payload::Unknown(raw.kind, raw.body().to_vec())).collect();
    payloads.extend(more);
    header.message(&encode_chain(&payloads).unwrap()).unwrap()
}

#[test]
fn vendor_ids_nat_detection_and_private_payloads_are_tolerated_and_foreign_ones_are_not() {
    let rng = &mut SeededRng::from_seed([10; 32]);
    let harmless = || {
        vec![
            VendorId(vec![1; 16]).into(),
            VendorId(Vec::new()).into(),
            Payload::Unknown(PayloadKind::NAT_D, vec![2; 32]),
            Payload::Unknown(PayloadKind(130), vec![3; 32]),
            Payload::Unknown(PayloadKind(128), vec![4; 4]),
            Payload::Unknown(PayloadKind(255), Vec::new()),
        ]
    };
    let (expect_sa, message_1) = Initiator::start(initiator_config(&[FAST]), rng).unwrap();
    let message_1 = with_payloads(&message_1, harmless());
    let (expect_ke_r, message_2) =
        responder::answer_offer(&[policy(&[FAST])], &message_1, rng).unwrap();
    let message_2 = with_payloads(&message_2, harmless());
    let (expect_ke, message_3) = next(expect_sa.handle(&message_2, rng).unwrap());
    let message_3 = with_payloads(&message_3, harmless());
    let received = expect_ke_r.read(&message_3).unwrap();
    let (expect_auth_r, message_4) = expect_ke_r
        .compute(&received, &expect_ke_r.check(&received).unwrap(), &credential(), rng)
        .unwrap();
    let message_4 = with_payloads(&message_4, harmless());
    let (expect_auth, message_5) = next(expect_ke.handle(&message_4, rng).unwrap());
    let (_, message_6) = expect_auth_r.handle(&message_5, &server(), &member()).unwrap();
    let InitiatorStep::Established(sa) = expect_auth.handle(&message_6, rng).unwrap() else {
        panic!("message 6 ends main mode")
    };
    let stated = VendorId(vec![1; 16]);
    assert_eq!(sa.peer_vendor_ids().iter().filter(|id| **id == stated).count(), 2);

    for kind in [
        PayloadKind::HASH,
        PayloadKind::DELETE,
        PayloadKind::SA_KEK,
        PayloadKind(77),
        PayloadKind(127),
    ] {
        let foreign = || vec![Payload::Unknown(kind, vec![0; 16])];
        let is_refused = |result: Result<(), Error>| {
            assert!(
                matches!(result, Err(Error::PeerMisbehaved(PeerMisbehaved::ForeignPayload { kind: found, .. })) if found == kind),
                "{kind:?}: {result:?}"
            );
        };
        is_refused(
            responder::answer_offer(&[policy(&[FAST])], &with_payloads(&message_1, foreign()), rng)
                .map(|_| ()),
        );
        is_refused(expect_sa.handle(&with_payloads(&message_2, foreign()), rng).map(|_| ()));
        is_refused(expect_ke_r.read(&with_payloads(&message_3, foreign())).map(|_| ()));
        is_refused(expect_ke.handle(&with_payloads(&message_4, foreign()), rng).map(|_| ()));
    }
    for (message, payload) in
        [(&message_3, PayloadKind::NONCE), (&message_3, PayloadKind::KEY_EXCHANGE)]
    {
        let twice = with_payloads(message, vec![Payload::Unknown(payload, vec![1; 64])]);
        assert_eq!(
            expect_ke_r.read(&twice).unwrap_err(),
            PeerMisbehaved::DuplicatePayload { message: "message 3", kind: payload }.into()
        );
    }
}

#[test]
fn headers_that_are_not_main_mode_are_refused() {
    let rng = &mut SeededRng::from_seed([11; 32]);
    let run = fast_run();
    let changed = |message: &[u8], change: &dyn Fn(&mut Header)| {
        let (mut header, body) = header::split(message).unwrap();
        change(&mut header);
        header.message(body).unwrap()
    };
    for message in [&run.messages[0], &run.messages[2]] {
        let mut refuse = |change: &dyn Fn(&mut Header)| {
            let forged = changed(message, change);
            assert!(responder::answer_offer(&[policy(&[FAST])], &forged, rng).is_err());
            run.responder_expect_ke.read(&forged).unwrap_err()
        };
        assert_eq!(
            refuse(&|h| h.exchange = ExchangeType::AGGRESSIVE),
            NotAccepted::Unexpected.into()
        );
        assert_eq!(
            refuse(&|h| h.exchange = ExchangeType::INFORMATIONAL),
            NotAccepted::Unexpected.into()
        );
        assert_eq!(refuse(&|h| h.message_id = 1), PeerMisbehaved::MessageId(1).into());
        assert!(matches!(
            refuse(&|h| h.flags = Flags::ENCRYPTION),
            Error::PeerMisbehaved(PeerMisbehaved::Encryption { encrypted: true, .. })
        ));
    }
    let no_cookie = changed(&run.messages[0], &|header| header.initiator_cookie = [0; 8]);
    assert!(responder::answer_offer(&[policy(&[FAST])], &no_cookie, rng).is_err());
    let no_cookie = changed(&run.messages[1], &|header| header.responder_cookie = [0; 8]);
    assert!(run.expect_sa.handle(&no_cookie, rng).is_err());
    let clear = changed(&run.messages[4], &|header| header.flags = Flags::NONE);
    assert_eq!(
        run.responder_expect_auth.handle(&clear, &server(), &member()).unwrap_err(),
        PeerMisbehaved::Encryption { message: "message 5", encrypted: false }.into()
    );
}

/// Flags beside the encryption bit say nothing here, and peers set them.
#[test]
fn other_flags_are_tolerated_in_every_message() {
    let rng = &mut SeededRng::from_seed([15; 32]);
    let run = fast_run();
    for more in [Flags::COMMIT.0, 4, 0x80, 0xfe] {
        let flagged = |message: &[u8]| {
            let (mut header, body) = header::split(message).unwrap();
            header.flags = Flags(header.flags.0 | more);
            header.message(body).unwrap()
        };
        let [one, two, three, four, five, six] =
            [0, 1, 2, 3, 4, 5].map(|number: usize| flagged(&run.messages[number]));
        assert!(responder::answer_offer(&[policy(&[FAST])], &one, rng).is_ok());
        assert!(run.expect_sa.handle(&two, rng).is_ok());
        assert!(run.responder_expect_ke.read(&three).is_ok());
        assert!(run.expect_ke.handle(&four, rng).is_ok());
        assert!(run.responder_expect_auth.handle(&five, &server(), &member()).is_ok());
        assert!(run.expect_auth.handle(&six, rng).is_ok());
    }
}

#[test]
fn a_half_open_exchange_is_small() {
    let rng = &mut SeededRng::from_seed([12; 32]);
    assert!(size_of::<responder::ExpectKe>() <= 128, "{}", size_of::<responder::ExpectKe>());
    // What is kept of an offer is bounded. An offer of as many transforms as a proposal can number
    // is answered; one that grows by something else is not read.
    let offer = vec![FAST; 255];
    let (_, message_1) = Initiator::start(initiator_config(&offer), rng).unwrap();
    let (state, message_2) = responder::answer_offer(&[policy(&[FAST])], &message_1, rng).unwrap();
    assert_eq!(state.transform(), FAST);
    assert!(message_2.len() < message_1.len() / 100);
    let mut sa = proposal::offer(&policy(&offer)).unwrap();
    let filler = Attribute { class: 0x7000, value: AttributeValue::Long(vec![0; 8192]) };
    sa.proposals[0].transforms[254].attributes.push(filler);
    let cookies = Cookies { initiator: [1; 8], responder: [0; 8] };
    let (message_1, _) = SaMessage::write(cookies, sa, &[]).unwrap();
    let refused = responder::answer_offer(&[policy(&[FAST])], &message_1, rng).unwrap_err();
    assert!(matches!(
        refused,
        Error::InvalidMessage(crate::wire::InvalidMessage::Length {
            what: "SA payload",
            maximum: MAXIMUM_OFFER,
            ..
        })
    ));
    assert!(Initiator::start(initiator_config(&vec![FAST; 256]), rng).is_err());
    assert!(Initiator::start(initiator_config(&[]), rng).is_err());
}

#[test]
fn initial_contact_is_said_in_message_5_and_heard() {
    let rng = &mut SeededRng::from_seed([16; 32]);
    for initial_contact in [false, true] {
        let config = InitiatorConfig { initial_contact, ..initiator_config(&[FAST]) };
        let run = run(config, &policy(&[FAST]), rng).unwrap();
        assert_eq!(run.responder_sa.is_initial_contact(), initial_contact);
        assert!(!run.initiator_sa.is_initial_contact());
    }
}

#[test]
fn only_an_initial_contact_of_this_exchange_counts() {
    let cookies = Cookies { initiator: [1; 8], responder: [2; 8] };
    let good = informational::initial_contact(cookies);
    assert_eq!((good.doi, good.spi.len()), (Doi::IPSEC, 16));
    let counts = |change: &dyn Fn(&mut Notification)| {
        let mut changed = good.clone();
        change(&mut changed);
        informational::is_initial_contact(&changed, cookies)
    };
    assert!(counts(&|_| {}));
    // Other implementations leave the SPI out, or stay in the DOI of the SA.
    assert!(counts(&|contact| contact.spi.clear()));
    assert!(counts(&|contact| contact.doi = Doi::GDOI));
    assert!(!counts(&|contact| contact.spi[15] ^= 1));
    assert!(!counts(&|contact| contact.protocol = ProtocolId::IPSEC_ESP));
    assert!(!counts(&|contact| contact.kind = NotifyType::CONNECTED));
}

#[test]
fn protected_notifications_and_deletes_go_both_ways() {
    let rng = &mut SeededRng::from_seed([13; 32]);
    let run = fast_run();
    let (i, r) = (&run.initiator_sa, &run.responder_sa);
    for (from, to) in [(i, r), (r, i)] {
        let mut notification = from.notification(NotifyType::INVALID_ID_INFORMATION);
        notification.data = b"why".to_vec();
        let datagram = from.seal_notification(notification.clone(), rng.message_id()).unwrap();
        assert_eq!(
            to.open_informational(&datagram).unwrap().0,
            [Informational::Notification(notification)]
        );
        let datagram = from.seal_delete(rng.message_id()).unwrap();
        let (said, _) = to.open_informational(&datagram).unwrap();
        let [Informational::Delete(delete)] = said.as_slice() else {
            panic!("no delete in {said:?}")
        };
        assert!(to.is_deleted_by(delete));
    }
    let other = super::run(initiator_config(&[FAST]), &policy(&[FAST]), rng).unwrap();
    let datagram = i.seal_delete(rng.message_id()).unwrap();
    assert_eq!(
        other.responder_sa.open_informational(&datagram).unwrap_err(),
        NotAccepted::UnknownCookies.into()
    );
    let delete = Delete::isakmp_sa(Doi::GDOI, [1; 8], [2; 8]);
    assert!(!r.is_deleted_by(&delete));
    let esp =
        Delete { protocol: ProtocolId::IPSEC_ESP, ..Delete::isakmp_sa(Doi::GDOI, [0; 8], [0; 8]) };
    assert!(!r.is_deleted_by(&Delete { spis: vec![r.cookies().spi().to_vec()], ..esp }));
}

#[test]
fn an_informational_message_is_authentic_in_every_octet_or_nothing() {
    let rng = &mut SeededRng::from_seed([14; 32]);
    let run = fast_run();
    let (i, r) = (&run.initiator_sa, &run.responder_sa);
    let datagram = i.seal_delete(rng.message_id()).unwrap();
    let mut accepted = Vec::new();
    for place in 0..datagram.len() {
        for bit in [0x01, 0x80] {
            let mut forged = datagram.clone();
            forged[place] ^= bit;
            if r.open_informational(&forged).is_ok() {
                accepted.push((place, bit));
            }
        }
    }
    assert_eq!(accepted, [(19, 0x80)], "a flag that says nothing");
    for length in 0..datagram.len() {
        assert!(r.open_informational(&datagram[..length]).is_err());
    }
    // In clear it says nothing, whatever it says.
    let payloads =
        [Payload::from(Delete::isakmp_sa(Doi::GDOI, i.cookies().initiator, i.cookies().responder))];
    let (mut header, _) = header::split(&datagram).unwrap();
    header.flags = Flags::NONE;
    header.next_payload = first_kind(&payloads);
    let clear = header.message(&encode_chain(&payloads).unwrap()).unwrap();
    assert!(matches!(
        r.open_informational(&clear).unwrap_err(),
        Error::PeerMisbehaved(PeerMisbehaved::Encryption { encrypted: false, .. })
    ));
    // A message ID of zero belongs to phase 1.
    header.message_id = 0;
    let zero = header.message(&[0; 32]).unwrap();
    assert_eq!(r.open_informational(&zero).unwrap_err(), PeerMisbehaved::MessageId(0).into());
    // A message of another exchange is none.
    let sealed = i.seal_authenticated(&i.exchange(PHASE2, 5), &[], PayloadKind::NONE, &[]).unwrap();
    assert_eq!(
        r.open_informational(sealed.datagram()).unwrap_err(),
        NotAccepted::Unexpected.into()
    );
    // HASH has to be the first payload.
    let octets = Delete::isakmp_sa(Doi::GDOI, [1; 8], [2; 8]).to_octets().unwrap();
    let body = [&[0, 0, 0, u8::try_from(octets.len() + 4).unwrap()], octets.as_slice()].concat();
    let exchange = i.exchange(ExchangeType::INFORMATIONAL, 9);
    let without = i.seal(&exchange, PayloadKind::DELETE, &body).unwrap();
    assert_eq!(
        r.open_informational(without.datagram()).unwrap_err(),
        PeerMisbehaved::MissingPayload { message: "informational message", payload: "HASH" }.into()
    );
}
