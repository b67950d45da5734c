//! Two recordings of another GDOI implementation and one of two IKEv1 implementations with each
//! other. Their private exponents are unknown, so that the shared secret stands in for the
//! arithmetic.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::auth::MainModeKeys;
use super::super::message::SaMessage;
use super::super::proposal;
use super::super::testing::{GDOI, Recording};
use super::super::*;
use super::{PHASE2, policy};
use crate::config::{Identity, Phase1Policy, Phase1Transform};
use crate::crypto::{Secret, SeededRng};
use crate::error::{Error, PeerIncompatible, PeerMisbehaved};
use crate::testing::octets;
use crate::wire::header;
use crate::wire::registry::{Doi, ExchangeType, NotifyType, PayloadKind, ProtocolId};

impl Recording {
    fn padding(&self, number: usize) -> Vec<u8> {
        octets(&self.0["messages"][number - 1]["padding"])
    }

    fn check_keys(&self, keys: &MainModeKeys, exchange: &ExchangeCipher) {
        let (derived, _) = keys.keys();
        assert_eq!(derived.skeyid.expose(), self.field("skeyid"));
        assert_eq!(derived.skeyid_d.expose(), self.field("skeyid_d"));
        assert_eq!(derived.skeyid_a.expose(), self.field("skeyid_a"));
        assert_eq!(derived.skeyid_e.expose(), self.field("skeyid_e"));
        let Phase1Transform { hash, encryption, .. } = self.transform();
        let key = crate::crypto::keymat::cipher_key(hash, &derived.skeyid_e, encryption).unwrap();
        assert_eq!(key.expose(), self.field("cipher_key"));
        assert_eq!(exchange.iv().as_slice(), self.field("first_iv"));
    }
}

#[test]
fn the_responder_answers_the_recorded_offer_octet_for_octet() {
    for name in GDOI {
        let recording = Recording::load(name);
        let policy = policy(&[recording.transform()]);
        let rng = &mut SeededRng::from_seed([9; 32]);
        let (state, answer) =
            responder::answer_offer(std::slice::from_ref(&policy), &recording.message(1), rng)
                .unwrap();
        let mut recorded = recording.message(2);
        // Only the responder's cookie is random.
        recorded[8..16].copy_from_slice(&state.cookies().responder);
        assert_eq!(answer, recorded, "{name}");
        assert_eq!(state.transform(), recording.transform());
    }
}

/// An offer of three transforms, five vendor IDs and attributes in another order than ours; only
/// the DOI is not GDOI's.
#[test]
fn the_responder_chooses_from_the_recorded_ipsec_offer() {
    let recording = Recording::load("ipsec_psk_aes128_sha256_modp2048");
    let rng = &mut SeededRng::from_seed([9; 32]);
    let mut offer = recording.message(1);
    let policy = policy(&[recording.transform()]);
    assert_eq!(
        responder::answer_offer(std::slice::from_ref(&policy), &offer, rng).unwrap_err(),
        PeerIncompatible::Doi(Doi::IPSEC).into()
    );
    assert_eq!(offer[32..36], [0, 0, 0, 1]);
    offer[35] = 2;
    let (state, answer) =
        responder::answer_offer(std::slice::from_ref(&policy), &offer, rng).unwrap();
    assert_eq!(state.transform(), recording.transform());
    // The other responder chose the same transform and left it unchanged too.
    let ours = SaMessage::read("message 2", &answer).unwrap().sa;
    let theirs = SaMessage::read("message 2", &recording.message(2)).unwrap().sa;
    assert_eq!(ours.proposals[0].transforms, theirs.proposals[0].transforms);
}

#[test]
fn the_initiator_accepts_the_recorded_choice() {
    for name in GDOI {
        let recording = Recording::load(name);
        let choice = SaMessage::read("message 2", &recording.message(2)).unwrap();
        let policy = Phase1Policy {
            lifetime: Duration::from_secs(600),
            ..policy(&[super::FAST, recording.transform()])
        };
        // The recorded lifetime has the short form, ours would have the long one.
        assert_eq!(
            proposal::check_choice(&policy, &choice.sa).unwrap().transform,
            recording.transform()
        );
        let longer = Phase1Policy { lifetime: Duration::from_secs(601), ..policy };
        assert_eq!(
            proposal::check_choice(&longer, &choice.sa),
            Err(PeerMisbehaved::ForeignTransform.into())
        );
    }
}

#[test]
fn keys_proofs_and_identities_of_the_gdoi_recordings() {
    for name in GDOI {
        let recording = Recording::load(name);
        let (keys, first) = recording.keys(None);
        recording.check_keys(&keys, &first);
        let (of_initiator, of_responder) = recording.establish(&keys, &first);
        assert_eq!(of_initiator.cookies(), of_responder.cookies());
        assert_eq!(of_responder.lifetime(), Duration::from_secs(600));

        // The proof is for one role, one identity and one place in the chain.
        let (i, r) = (recording.identity("initiator"), recording.identity("responder"));
        let open = |cipher: &ExchangeCipher, role, expected: &Identity, number| {
            keys.open("message", cipher, role, expected, &recording.message(number))
                .map(|_| ())
                .unwrap_err()
        };
        let wrong_hash = Error::from(PeerMisbehaved::WrongHash { message: "message" });
        assert_eq!(open(&first, Role::Responder, &i, 5), wrong_hash);
        assert_eq!(
            open(&first, Role::Initiator, &r, 5),
            PeerMisbehaved::WrongIdentity { expected: r.clone(), proved: i }.into()
        );
        assert_eq!(
            open(&first, Role::Responder, &r, 6),
            wrong_hash,
            "message 6 under the IV of message 5"
        );
    }
}

#[test]
fn the_recorded_pulls_open_verify_and_seal_to_the_same_octets() {
    for name in GDOI {
        let recording = Recording::load(name);
        let (keys, first) = recording.keys(None);
        let (sa, _) = recording.establish(&keys, &first);
        let message_id = header::split(&recording.message(7)).unwrap().0.message_id;
        let mut cipher = sa.exchange(PHASE2, message_id);
        let mut nonces: Vec<Vec<u8>> = Vec::new();
        for (number, hash) in [(7, "HASH(1)"), (8, "HASH(2)"), (9, "HASH(3)"), (10, "HASH(4)")] {
            let datagram = recording.message(number);
            let opened = sa.open(&cipher, &datagram).unwrap();
            let known: Vec<&[u8]> = nonces.iter().map(Vec::as_slice).collect();
            let (chain, _) = opened.authenticate(&sa, hash, &known).unwrap();
            assert_eq!(chain.padding, recording.padding(number), "{name} {hash}");

            let plaintext = recording.plaintext(number);
            let meaningful = &plaintext[..plaintext.len() - chain.padding.len()];
            let again = sa.seal(&cipher, opened.header().next_payload, meaningful).unwrap();
            assert_eq!(again.datagram(), datagram, "{name} {hash}");
            assert_eq!(again.next(), opened.next());
            let behind_hash = chain.octets_behind(0);
            let first_kind = chain.kinds().nth(1).unwrap_or(PayloadKind::NONE);
            let again = sa.seal_authenticated(&cipher, &known, first_kind, behind_hash).unwrap();
            assert_eq!(again.into_datagram(), datagram, "{name} {hash}: our HASH is theirs");

            // Without the nonces of the messages before it the HASH means nothing.
            if !known.is_empty() {
                assert_eq!(
                    opened.authenticate(&sa, hash, &[]).unwrap_err(),
                    PeerMisbehaved::WrongHash { message: hash }.into()
                );
            }
            nonces.extend(
                chain
                    .payloads
                    .iter()
                    .filter(|p| p.kind == PayloadKind::NONCE)
                    .map(|p| p.body().to_vec()),
            );
            cipher = opened.next();
        }
        assert_eq!(nonces.len(), 2);
    }
}

/// Main mode, quick mode and Informational exchanges under the IPsec DOI, between two other
/// implementations.
#[test]
fn the_ipsec_recording() {
    let recording = Recording::load("ipsec_psk_aes128_sha256_modp2048");
    let (keys, first) = recording.keys(Some(Secret::new(recording.field("skeyid"))));
    recording.check_keys(&keys, &first);
    let ivs = |message_id: u32| -> Vec<Vec<u8>> {
        recording.0["ivs"][format!("{message_id:08x}")]
            .as_array()
            .unwrap()
            .iter()
            .map(octets)
            .collect()
    };

    let (initiator, responder) = (recording.identity("initiator"), recording.identity("responder"));
    let (_, behind_5) =
        keys.open("message 5", &first, Role::Initiator, &initiator, &recording.message(5)).unwrap();
    let (_, behind_6) = keys
        .open("message 6", &behind_5, Role::Responder, &responder, &recording.message(6))
        .unwrap();
    assert_eq!([behind_5.iv().as_slice(), behind_6.iv().as_slice()].as_slice(), ivs(0));
    let id_b = |address: Ipv4Addr| [&[1, 0, 0, 0], address.octets().as_slice()].concat();
    let hash_i = keys.authenticator(Role::Initiator, &id_b(Ipv4Addr::new(10, 98, 0, 1)));
    let hash_r = keys.authenticator(Role::Responder, &id_b(Ipv4Addr::new(10, 98, 0, 2)));
    assert_eq!(hash_i.expose(), recording.field("hash_i"));
    assert_eq!(hash_r.expose(), recording.field("hash_r"));

    let (sa, _) = recording.establish(&keys, &first);
    let message_id = header::split(&recording.message(7)).unwrap().0.message_id;
    // Quick Mode shares its number with GROUPKEY-PULL; HASH(1) and HASH(2) have the same form.
    let mut cipher = sa.exchange(PHASE2, message_id);
    let mut seen = vec![cipher.iv().as_slice().to_vec()];
    let mut nonces: Vec<Vec<u8>> = Vec::new();
    for number in 7..=9 {
        let opened = sa.open(&cipher, &recording.message(number)).unwrap();
        if number < 9 {
            let known: Vec<&[u8]> = nonces.iter().map(Vec::as_slice).collect();
            let (chain, _) = opened.authenticate(&sa, "quick mode", &known).unwrap();
            let nonce =
                chain.payloads.iter().find(|payload| payload.kind == PayloadKind::NONCE).unwrap();
            nonces.push(nonce.body().to_vec());
        }
        cipher = opened.next();
        seen.push(cipher.iv().as_slice().to_vec());
    }
    assert_eq!(seen, ivs(message_id));

    let mut said = Vec::new();
    for number in 10..=15 {
        let datagram = recording.message(number);
        let message_id = header::split(&datagram).unwrap().0.message_id;
        if recording.0["ivs"].get(format!("{message_id:08x}")).is_some() {
            let first = sa.exchange(ExchangeType::INFORMATIONAL, message_id);
            assert_eq!([first.iv().as_slice().to_vec()].as_slice(), ivs(message_id));
        }
        said.extend(sa.open_informational(&datagram).unwrap().0);
    }
    let kinds: Vec<_> = said
        .iter()
        .map(|said| match said {
            Informational::Notification(notification) => {
                (Some(notification.kind), notification.protocol, false)
            }
            Informational::Delete(delete) => (None, delete.protocol, sa.is_deleted_by(delete)),
        })
        .collect();
    assert_eq!(
        kinds,
        [
            (Some(NotifyType::R_U_THERE), ProtocolId::ISAKMP, false),
            (Some(NotifyType::R_U_THERE_ACK), ProtocolId::ISAKMP, false),
            (None, ProtocolId::IPSEC_ESP, false),
            (None, ProtocolId::ISAKMP, true),
            (None, ProtocolId::IPSEC_ESP, false),
            (None, ProtocolId::ISAKMP, true),
        ]
    );
}
