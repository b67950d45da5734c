//! The Quick Mode of two other implementations: read, derived and written again.

use crate::crypto::{DhGroup, Secret};
use crate::phase1::IsakmpSa;
use crate::quick::keymat::Ingredients;
use crate::quick::message::{MESSAGES, Negotiation, last, read_last};
use crate::quick::proposal;
use crate::quick::{
    ChildPolicy, EspAlgorithms, EspEncryption, EspIntegrity, Mode, QUICK_MODE, TrafficSelector,
};
use crate::testing::{Recording, octets};
use crate::wire::header;
use crate::wire::payload::{encode_chain, first_kind};

const MESSAGE_ID: u32 = 0x104f_cd15;

/// What message 1 offered and message 2 chose, and both nonces.
fn negotiations(recording: &Recording, sa: &IsakmpSa) -> [Negotiation; 2] {
    let first = sa.open(&sa.exchange(QUICK_MODE, MESSAGE_ID), &recording.message(7)).unwrap();
    let one = Negotiation::read(MESSAGES[0], sa, &first, &[]).unwrap().unwrap();
    let second = sa.open(&first.next(), &recording.message(8)).unwrap();
    let two = Negotiation::read(MESSAGES[1], sa, &second, &[&one.nonce.0]).unwrap().unwrap();
    let third = sa.open(&second.next(), &recording.message(9)).unwrap();
    read_last(sa, &third, [&one.nonce.0, &two.nonce.0]).unwrap();
    assert!(read_last(sa, &third, [&two.nonce.0, &one.nonce.0]).is_err());
    [one, two]
}

#[test]
fn the_recorded_exchange_decodes_and_gives_the_recorded_keys() {
    let recording = Recording::load("ipsec_psk_aes128_sha256_modp2048");
    let (sa, of_responder) = recording.established();
    let [one, two] = negotiations(&recording, &sa);
    let nets = one.identities.unwrap().map(|selector: TrafficSelector| selector.to_string());
    assert_eq!(two.identities, one.identities);
    assert_eq!(nets, ["192.168.1.0/24", "192.168.2.0/24"]);

    let policy = ChildPolicy {
        algorithms: vec![EspAlgorithms::separate(
            EspEncryption::Aes128Cbc,
            EspIntegrity::HmacSha2_256,
        )],
        pfs: Some(DhGroup::Modp2048),
        mode: Mode::Tunnel,
        lifetime: core::time::Duration::from_secs(86_400),
        kilobytes: None,
        extended_sequence_numbers: false,
    };
    let field = |name: &str| octets(&recording.0["quick_mode"][name]);
    let spi = |name| u32::from_be_bytes(field(name).try_into().unwrap());
    let (offered, _) =
        proposal::choose(&policy, policy.mode.number(), &one.sa, spi("responder_spi")).unwrap();
    let chosen = proposal::check_choice(&policy, policy.mode.number(), &two.sa).unwrap();
    assert_eq!(offered.spi, spi("initiator_spi"));
    assert_eq!(chosen.spi, spi("responder_spi"));

    let g_xy = Secret::new(field("g_xy"));
    for sa in [&sa, &of_responder] {
        let ingredients = Ingredients {
            sa,
            algorithms: chosen.algorithms,
            g_xy: Some(&g_xy),
            ni_b: &one.nonce.0,
            nr_b: &two.nonce.0,
        };
        // The initiator sends on the SA whose SPI the responder chose.
        for (spi, sender) in [(chosen.spi, "initiator"), (offered.spi, "responder")] {
            let keys = ingredients.derive(spi);
            assert_eq!(keys.encryption.expose(), field(&format!("{sender}_encryption_key")));
            assert_eq!(keys.integrity.expose(), field(&format!("{sender}_integrity_key")));
        }
    }
}

#[test]
fn the_recorded_messages_are_written_octet_for_octet() {
    let recording = Recording::load("ipsec_psk_aes128_sha256_modp2048");
    let (sa, _) = recording.established();
    let [one, two] = negotiations(&recording, &sa);
    let nonces = [one.nonce.0.clone(), two.nonce.0.clone()];
    let mut cipher = sa.exchange(QUICK_MODE, MESSAGE_ID);
    for (negotiation, number) in [(one, 7), (two, 8)] {
        let Negotiation { sa: offer, nonce, public, identities, .. } = negotiation;
        let public = public.as_ref().map(|public| public.0.as_slice());
        let (first, payloads) = Negotiation::payloads(offer, &nonce, public, identities).unwrap();
        let ni = [nonces[0].as_slice()];
        let before: &[&[u8]] = if number == 7 { &[] } else { &ni };
        let sealed = sa.seal_authenticated(&cipher, before, first, &payloads).unwrap();
        assert_eq!(sealed.datagram(), recording.message(number), "message {number}");
        cipher = sealed.next();
    }
    let payloads = [last(&sa, MESSAGE_ID, [&nonces[0], &nonces[1]])];
    let octets = encode_chain(&payloads).unwrap();
    let sealed = sa.seal(&cipher, first_kind(&payloads), &octets).unwrap();
    assert_eq!(sealed.datagram(), recording.message(9));
    assert_eq!(header::split(sealed.datagram()).unwrap().0.message_id, MESSAGE_ID);
}
