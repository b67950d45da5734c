//! Signatures of another implementation, both ways.

use crypto_bigint::BoxedUint;
use crypto_bigint::modular::BoxedMontyForm;
use rsa::traits::PrivateKeyParts as _;

use super::*;
use crate::crypto::hash;
use crate::crypto::testing::{hash_named, json, octets};

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
        let mut prepared = public.clone();
        prepared.prepare();
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
        for public in [&public, &prepared] {
            let verify = |hash, signature: &[u8]| {
                public.verify(hash, RsaForm::DigestInfo, &digest, signature)
            };
            assert_eq!(verify(algorithm, &signature), Ok(()));
            assert_eq!(verify(algorithm, &ours), Ok(()));
            assert_eq!(verify(algorithm, &changed), Err(SignatureError::Mismatch));
            assert_eq!(verify(HashAlgorithm::Sha1, &ours), Err(SignatureError::Mismatch));
        }
        assert_eq!(
            private.sign(HashAlgorithm::Sha1, RsaForm::DigestInfo, &digest, &mut rng),
            Err(SignatureError::Sign)
        );
    }
}

/// Signatures over encoded messages that somebody else made up.
#[test]
fn rsa_verification_says_what_the_library_says() {
    let mut rng = SeededRng::from_seed([4; 32]);
    let digest = [0x5A; 32];
    // Moduli with a part of an octet and of a word in front, and exponents with more than one step
    // of multiplication.
    for (bits, exponent) in [(2048, 65_537_u64), (2050, 3), (2056, 0x1_0000_0001), (2110, 0x1_5555)]
    {
        let key = rsa::PrivateKey::new_with_exp(&mut rng, bits, BoxedUint::from(exponent)).unwrap();
        for form in [RsaForm::DigestInfo, RsaForm::RawDigest] {
            let scheme = scheme(HashAlgorithm::Sha2_256, form);
            let raw = |message: &[u8]| sign_raw(&key, message);
            let verify = |signature: &[u8]| {
                let library =
                    key.as_public_key().verify(scheme.clone(), &digest, signature).is_ok();
                assert_eq!(
                    rsa_key::verify(key.as_public_key(), &scheme, &digest, signature),
                    library
                );
                library
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

/// The library verifies with the key that is not prepared: it answers for the sums over pieces of
/// the scalars.
#[test]
fn a_prepared_key_says_what_the_library_says() {
    let mut rng = SeededRng::from_seed([3; 32]);
    for kind in [KeyKind::Ecdsa256, KeyKind::Ecdsa384, KeyKind::Ecdsa521] {
        // The generator itself and its negative meet in one sum, so that points are added to
        // themselves and cancel out.
        let mut keys: Vec<SigningKey> = [true, false].map(|one| special_key(kind, one)).into();
        keys.extend((0..2).map(|_| SigningKey::generate_ecdsa(kind, &mut rng).unwrap()));
        let length = kind.fixed_hash().unwrap().output_length();
        for key in keys {
            let mut random = vec![0; length];
            rng.fill(&mut random);
            for digest in [random, vec![0; length], vec![0xFF; length]] {
                verify_both_ways(&key, &digest, &mut rng);
            }
        }
    }
}

fn verify_both_ways(key: &SigningKey, digest: &[u8], rng: &mut SeededRng) {
    let hash = key.kind().fixed_hash().unwrap();
    let plain = key.public_key();
    let mut prepared = plain.clone();
    prepared.prepare();
    assert!(prepared == plain);
    let verify = |digest: &[u8], signature: &[u8]| {
        let results =
            [&plain, &prepared].map(|key| key.verify(hash, RsaForm::DigestInfo, digest, signature));
        assert_eq!(results[0], results[1], "{:?} {digest:x?} {signature:x?}", key.kind());
        results[0].is_ok()
    };
    let signature = key.sign(hash, RsaForm::DigestInfo, digest, rng).unwrap();
    assert!(verify(digest, &signature));
    let half = signature.len() / 2;
    for place in (0..signature.len()).step_by(13).chain([half - 1, half, signature.len() - 1]) {
        let mut changed = signature.clone();
        changed[place] ^= 1;
        assert!(!verify(digest, &changed));
    }
    let mut changed = digest.to_vec();
    changed[0] ^= 0x80;
    assert!(!verify(&changed, &signature));
    for (r, s) in [(0, 1), (1, 0), (1, 1), (2, 3)] {
        let mut small = vec![0; signature.len()];
        (small[half - 1], small[2 * half - 1]) = (r, s);
        assert!(!verify(digest, &small));
    }
    for foreign in [vec![0xFF; signature.len()], signature[1..].to_vec(), Vec::new()] {
        assert!(!verify(digest, &foreign));
    }
}

/// The key whose point is the generator, or its negative.
fn special_key(kind: KeyKind, one: bool) -> SigningKey {
    macro_rules! key {
        ($variant:ident, $curve:ident) => {{
            let one_scalar = $curve::Scalar::ONE;
            let scalar = if one { one_scalar } else { -one_scalar };
            Private::$variant(
                $curve::ecdsa::SigningKey::from_slice(&scalar.to_bytes()).unwrap().into(),
            )
        }};
    }
    SigningKey(match kind {
        KeyKind::Ecdsa256 => key!(Ecdsa256, p256),
        KeyKind::Ecdsa384 => key!(Ecdsa384, p384),
        KeyKind::Ecdsa521 => key!(Ecdsa521, p521),
        KeyKind::Rsa => unreachable!("only curves have a generator"),
    })
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
