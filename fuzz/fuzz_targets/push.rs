//! A push under a KEK that the attacker knows, as every member does. The first octet of the input
//! decides: even, the rest is the whole plain text; odd, the rest are the payloads between SEQ and
//! SIG (first their type), which the key server has signed, so that the bodies are read as well.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use ike::crypto::HashAlgorithm;
use gdoi::group::{GroupAssociatedPolicy, GroupId, GroupPolicy, GroupSa, KekKeys, KekPolicy};
use gdoi::lkh::KeyTree;
use gdoi::kek_cipher::Kek;
use gdoi::push::{AcknowledgementLength, RekeyEvent, RekeyMember, RekeySettings};
use ike::wire::Header;
use ike::wire::codec::Codec;
use ike::wire::header;
use gdoi::wire::registry::GROUPKEY_PUSH;
use ike::wire::registry::{Flags, PayloadKind};
use ike::BootTime;
use ike::crypto::{KeyKind, RsaForm, SeededRng, SigningKey, hash};

struct Group {
    sa: GroupSa,
    kek: Kek,
    signing: SigningKey,
}

static GROUP: LazyLock<Group> = LazyLock::new(|| {
    let mut rng = SeededRng::from_seed([1; 32]);
    let signing = SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut rng).expect("a curve");
    let mut tree = KeyTree::new(3, Some(128), 4, &mut rng).expect("a tree");
    let leaf = tree.join(&mut rng).expect("a leaf");
    let key = tree.kek().expect("a root").duplicate();
    let policy = KekPolicy {
        spi: [0xa0; 16],
        protocol: 17,
        source: std::net::SocketAddr::from(([192, 0, 2, 1], 848)).into(),
        destination: std::net::SocketAddr::from(([239, 192, 1, 1], 848)).into(),
        algorithm: 3,
        key_length: Some(128),
        lifetime: Duration::from_secs(86_400),
        signature_hash: Some(3),
        signature_algorithm: 4,
        signature_key_length: None,
        acknowledgement: Some(2),
    };
    let kek = Kek::new(&policy, &key, false).expect("a KEK");
    let keys = KekKeys {
        algorithm_key: key,
        signature_key: Some(signing.public_key_der().expect("a public key")),
    };
    let group = GroupPolicy {
        group: GroupId(1111),
        kek: Some(policy),
        gap: GroupAssociatedPolicy::default(),
        teks: Vec::new(),
    };
    let sa = GroupSa::from_sealed(group, keys, 0);
    Group { sa: sa.with_key_path(tree.download(leaf).expect("a path")), kek, signing }
});

const HEADER: Header = Header {
    initiator_cookie: [0xa0; 8],
    responder_cookie: [0xa0; 8],
    next_payload: PayloadKind::SEQUENCE_NUMBER,
    version: header::VERSION,
    exchange: GROUPKEY_PUSH,
    flags: Flags::ENCRYPTION,
    message_id: 0,
    length: 0,
};

fn signed(group: &Group, first: u8, payloads: &[u8]) -> Vec<u8> {
    let mut plaintext = vec![first, 0, 0, 8, 0, 0, 0, 1];
    plaintext.extend_from_slice(payloads);
    let unpadded = plaintext.len() + 4 + group.signing.signature_length();
    let mut header = HEADER;
    header.length =
        u32::try_from(header::LENGTH + unpadded.next_multiple_of(16)).expect("a short input");
    let header = header.to_octets().expect("a header");
    let digest = hash(HashAlgorithm::Sha2_256, &[b"rekey", &header, &plaintext]);
    let mut rng = SeededRng::from_seed([2; 32]);
    let signature =
        group.signing.sign(HashAlgorithm::Sha2_256, RsaForm::DigestInfo, &digest, &mut rng);
    plaintext.extend([0, 0, 0, 68]);
    plaintext.extend(signature.expect("a signature"));
    plaintext
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let group = &*GROUP;
    let Some((mode, rest)) = input.split_first() else { return };
    let is_signed = mode % 2 == 1;
    let plaintext = match rest.split_first() {
        Some((first, payloads)) if is_signed => signed(group, *first, payloads),
        _ => rest.to_vec(),
    };
    let Ok(ciphertext) = group.kek.encrypt(&plaintext) else { return };
    let Ok(datagram) = HEADER.message(&ciphertext) else { return };
    let now = BootTime::new(Duration::from_secs(1));
    let (source, local) = (
        "192.0.2.1:848".parse().expect("an address"),
        "192.0.2.9:848".parse().expect("an address"),
    );
    let settings = RekeySettings {
        address: local,
        acknowledgement_length: AcknowledgementLength::default(),
        selector_byte_order: Default::default(),
        legacy: false,
    };
    let mut member = RekeyMember::new(&group.sa, settings, now).expect("usable").expect("a KEK");
    let result = member.handle_datagram(source, local, &datagram, now);
    let mut event = member.poll_event();
    if result.is_ok() && event.is_none() {
        // Another datagram may bring the update array that this one lacks, for a while.
        let due = member.poll_timeout().expect("the end of the wait").at;
        assert!(due <= now + Duration::from_secs(2));
        member.handle_timeout(due);
        event = member.poll_event();
        assert!(matches!(event, Some(RekeyEvent::Unusable { .. })), "{event:?}");
    }
    assert_eq!(member.poll_transmit(), None, "an answer nobody asked for");
    match (result, &event) {
        (Err(_), None) => assert_eq!(member.sequence_number(), Some(0)),
        (Ok(()), Some(RekeyEvent::Accepted(_) | RekeyEvent::Unusable { .. })) => {
            assert!(is_signed, "accepted without a signature");
            assert_eq!(
                member.handle_datagram(source, local, &datagram, now).expect_err("a copy").reason(),
                "replayed"
            );
        }
        other => panic!("{other:?}"),
    }
});
