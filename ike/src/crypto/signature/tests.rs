//! Signatures of another implementation, both ways.

use std::collections::BTreeMap;

use crypto_bigint::BoxedUint;
use crypto_bigint::modular::BoxedMontyForm;
use rsa::traits::PrivateKeyParts as _;

use super::*;
use crate::crypto::hash;
use crate::testing::{hash_named, hex, json, octets};

const FORMS: [(RsaForm, &str); 2] =
    [(RsaForm::DigestInfo, "digest_info"), (RsaForm::RawDigest, "raw_digest")];

fn kind(name: &str) -> KeyKind {
    match name {
        "ecdsa-256" => KeyKind::Ecdsa256,
        "ecdsa-384" => KeyKind::Ecdsa384,
        _ => KeyKind::Ecdsa521,
    }
}

#[test]
fn rsa_signatures_are_read_and_made_alike() {
    let data = json("crypto/signature.json");
    let private = SigningKey::from_pkcs8_der(&octets(&data["rsa_2048_pkcs8"]), false).unwrap();
    assert_eq!(private.public_key_der().unwrap(), octets(&data["rsa_2048_spki"]));
    let public = PublicKey::from_der(KeyKind::Rsa, &octets(&data["rsa_2048_spki"]), false).unwrap();
    let bare = PublicKey::from_der(KeyKind::Rsa, &octets(&data["rsa_2048_pkcs1"]), false).unwrap();
    assert!(public == bare && public == private.public_key() && public.bits() == 2048);
    let mut rng = SeededRng::from_seed([1; 32]);
    for case in data["rsa_signatures"].as_array().unwrap() {
        let algorithm = hash_named(&case["hash"]);
        let digest = hash(algorithm, &[&octets(&data["message"])]);
        for (form, name) in FORMS {
            let signature = octets(&case[name]);
            assert_eq!(public.verify(algorithm, form, &digest, &signature), Ok(()));
            assert_eq!(private.sign(algorithm, form, &digest, &mut rng), Ok(signature.clone()));
            let (other, _) = FORMS[usize::from(form == RsaForm::DigestInfo)];
            assert_eq!(
                public.verify(algorithm, other, &digest, &signature),
                Err(SignatureError::Mismatch)
            );
            for place in (0..signature.len()).step_by(17) {
                let mut changed = signature.clone();
                changed[place] ^= 1;
                assert_eq!(
                    public.verify(algorithm, form, &digest, &changed),
                    Err(SignatureError::Mismatch)
                );
            }
            assert_eq!(
                public.verify(algorithm, form, &digest, &signature[1..]),
                Err(SignatureError::Mismatch)
            );
            assert_eq!(
                public.verify(algorithm, form, &digest[1..], &signature),
                Err(SignatureError::Mismatch)
            );
        }
    }
}

#[test]
fn ecdsa_signatures_of_others_are_read_and_ours_verify() {
    let data = json("crypto/signature.json");
    let mut rng = SeededRng::from_seed([1; 32]);
    for case in data["ecdsa"].as_array().unwrap() {
        let kind = kind(case["kind"].as_str().unwrap());
        let algorithm = hash_named(&case["hash"]);
        assert_eq!(kind.fixed_hash(), Some(algorithm));
        let digest = hash(algorithm, &[&octets(&data["message"])]);
        let public = PublicKey::from_der(kind, &octets(&case["spki"]), false).unwrap();
        let private = SigningKey::from_pkcs8_der(&octets(&case["pkcs8"]), false).unwrap();
        assert_eq!(
            (private.kind(), private.public_key_der().unwrap()),
            (kind, octets(&case["spki"]))
        );
        let signature = octets(&case["signature"]);
        assert_eq!(signature.len(), private.signature_length());
        let ours = private.sign(algorithm, RsaForm::RawDigest, &digest, &mut rng).unwrap();
        let mut changed = ours.clone();
        changed[3] ^= 1;
        let verify =
            |hash, signature: &[u8]| public.verify(hash, RsaForm::DigestInfo, &digest, signature);
        assert_eq!(verify(algorithm, &signature), Ok(()));
        assert_eq!(verify(algorithm, &ours), Ok(()));
        assert_eq!(verify(algorithm, &changed), Err(SignatureError::Mismatch));
        assert_eq!(verify(HashAlgorithm::Sha1, &ours), Err(SignatureError::Mismatch));
        assert_eq!(
            private.sign(HashAlgorithm::Sha1, RsaForm::DigestInfo, &digest, &mut rng),
            Err(SignatureError::Sign)
        );
    }
}

/// 1,554 RSA and 860 ECDSA signatures chosen to tell a lenient verification from a strict one.
#[test]
fn published_signatures_are_judged_as_published() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/crypto/wycheproof_signatures.txt");
    #[allow(clippy::disallowed_methods, reason = "tests read their data")]
    let text = std::fs::read_to_string(path).unwrap();
    let octets_of = |field: &str| if field == "-" { Vec::new() } else { hex(field) };
    let mut key = None;
    let mut judged = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields.as_slice() {
            ["key", name, algorithm, der] => {
                let kind = if *name == "rsa" { KeyKind::Rsa } else { kind(name) };
                let public = PublicKey::from_der(kind, &hex(der), false).unwrap();
                key = Some((public, hash_named(&(*algorithm).into())));
            }
            [verdict @ ("valid" | "invalid"), message, signature] => {
                let (public, algorithm) = key.as_ref().unwrap();
                let digest = hash(*algorithm, &[&octets_of(message)]);
                let signature = octets_of(signature);
                let result = public.verify(*algorithm, RsaForm::DigestInfo, &digest, &signature);
                assert_eq!(result.is_ok(), *verdict == "valid", "line {}", number + 1);
                *judged.entry((public.kind(), result.is_ok())).or_insert(0) += 1;
            }
            _ => panic!("line {} is of no known form", number + 1),
        }
    }
    let counts = [
        (KeyKind::Rsa, [1507, 47]),
        (KeyKind::Ecdsa256, [89, 173]),
        (KeyKind::Ecdsa384, [87, 193]),
        (KeyKind::Ecdsa521, [87, 231]),
    ];
    for (kind, [invalid, valid]) in counts {
        assert_eq!(judged.get(&(kind, false)), Some(&invalid), "{kind:?}");
        assert_eq!(judged.get(&(kind, true)), Some(&valid), "{kind:?}");
    }
}

/// Signatures over encoded messages that somebody else made up, in both forms: the vectors of
/// others know no bare digest.
#[test]
fn malformed_encoded_messages_are_refused() {
    let mut rng = SeededRng::from_seed([4; 32]);
    let digest = [0x5A; 32];
    // Moduli with a part of an octet and of a word in front, and exponents with more than one step
    // of multiplication.
    for (bits, exponent) in [(2048, 65_537_u64), (2050, 3), (2056, 0x1_0000_0001), (2110, 0x1_5555)]
    {
        let key = rsa::PrivateKey::new_with_exp(&mut rng, bits, BoxedUint::from(exponent)).unwrap();
        let public = PublicKey(Public::Rsa(Box::new(key.to_public_key())));
        for form in [RsaForm::DigestInfo, RsaForm::RawDigest] {
            let scheme = scheme(HashAlgorithm::Sha2_256, form);
            let raw = |message: &[u8]| sign_raw(&key, message);
            let verify = |signature: &[u8]| {
                public.verify(HashAlgorithm::Sha2_256, form, &digest, signature).is_ok()
            };
            let good = key.sign(scheme.clone(), &digest).unwrap();
            assert!(verify(&good));
            let message = open_raw(key.as_public_key(), &good);
            assert_eq!(raw(&message), good);
            for place in [
                0,
                1,
                2,
                9,
                message.len() - 52,
                message.len() - 33,
                message.len() - 32,
                message.len() - 1,
            ] {
                let mut changed = message.clone();
                changed[place] ^= 1;
                // The first octet must stay below the modulus.
                assert!(place == 0 || !verify(&raw(&changed)), "octet {place}");
                changed = good.clone();
                changed[place] ^= 0x80;
                assert!(!verify(&changed));
            }
            // Padding that ends early, with room behind the digest: what a lenient reader accepts
            // and a forger can reach.
            let tail = message.len() - scheme.prefix.len() - 33;
            let forged = [&message[..10], &message[tail..], &vec![7; tail - 10][..]].concat();
            assert_eq!(forged.len(), message.len());
            assert!(!verify(&raw(&forged)));
            for wrong in [
                good[1..].to_vec(),
                [&[0], good.as_slice()].concat(),
                vec![0xFF; good.len()],
                vec![0; good.len()],
            ] {
                assert!(!verify(&wrong));
            }
            if bits % 8 != 0 {
                // The same number modulo the modulus fits into the octets as well.
                let number = BoxedUint::from_be_slice(&good, key.n_bits_precision()).unwrap();
                let octets = number.wrapping_add(key.n().as_ref()).to_be_bytes();
                assert!(!verify(&octets[octets.len() - good.len()..]));
            }
        }
    }
}

fn sign_raw(key: &rsa::PrivateKey, message: &[u8]) -> Vec<u8> {
    raised(key.as_public_key(), message, key.d())
}

fn open_raw(key: &rsa::PublicKey, signature: &[u8]) -> Vec<u8> {
    raised(key, signature, key.e())
}

/// A number in octets to a power.
fn raised(key: &rsa::PublicKey, octets: &[u8], exponent: &BoxedUint) -> Vec<u8> {
    let number = BoxedUint::from_be_slice(octets, key.n_bits_precision()).unwrap();
    let power = BoxedMontyForm::new(number, key.n_params()).pow(exponent).retrieve().to_be_bytes();
    power[power.len() - key.size()..].to_vec()
}

#[test]
fn keys_survive_their_stored_form() {
    let mut rng = SeededRng::from_seed([2; 32]);
    for kind in [KeyKind::Ecdsa256, KeyKind::Ecdsa384, KeyKind::Ecdsa521] {
        let key = SigningKey::generate_ecdsa(kind, &mut rng).unwrap();
        let again =
            SigningKey::from_pkcs8_der(key.to_pkcs8_der().unwrap().expose(), false).unwrap();
        assert!(again.public_key() == key.public_key());
        let public = PublicKey::from_der(kind, &key.public_key_der().unwrap(), false).unwrap();
        assert!(public == key.public_key());
    }
    let data = json("crypto/signature.json");
    let key = SigningKey::from_pkcs8_der(&octets(&data["rsa_2048_pkcs8"]), false).unwrap();
    assert_eq!(key.to_pkcs8_der().unwrap().expose(), octets(&data["rsa_2048_pkcs8"]));
}

#[test]
fn keys_of_no_use() {
    let data = json("crypto/signature.json");
    let short = octets(&data["rsa_1024_spki"]);
    let length = SignatureError::ModulusLength { bits: 1024, minimum: 2048, maximum: 8192 };
    assert_eq!(PublicKey::from_der(KeyKind::Rsa, &short, false).unwrap_err(), length);
    assert_eq!(PublicKey::from_der(KeyKind::Rsa, &short, true).unwrap().bits(), 1024);
    let spki = octets(&data["rsa_2048_spki"]);
    for kind in [KeyKind::Ecdsa256, KeyKind::Ecdsa384, KeyKind::Ecdsa521] {
        assert_eq!(
            PublicKey::from_der(kind, &spki, false).unwrap_err(),
            SignatureError::PublicKey(kind)
        );
    }
    for length in 0..spki.len() {
        assert!(PublicKey::from_der(KeyKind::Rsa, &spki[..length], false).is_err());
    }
    assert_eq!(SigningKey::from_pkcs8_der(&spki, false).unwrap_err(), SignatureError::PrivateKey);
    let mut rng = SeededRng::from_seed([1; 32]);
    assert!(SigningKey::generate_rsa(1024, &mut rng).is_err());
    assert!(SigningKey::generate_ecdsa(KeyKind::Rsa, &mut rng).is_err());
}

#[test]
fn no_private_number_is_shown() {
    let mut rng = SeededRng::from_seed([1; 32]);
    let key = SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut rng).unwrap();
    assert_eq!(
        format!("{key:?} {:?}", key.public_key()),
        "SigningKey(Ecdsa256) PublicKey(Ecdsa256, 256 bits)"
    );
}
