//! Signatures of another implementation, both ways.

use super::*;
use crate::crypto::hash;
use crate::crypto::testing::{hash_named, json, octets};

const FORMS: [(RsaForm, &str); 2] = [(RsaForm::DigestInfo, "digest_info"), (RsaForm::RawDigest, "raw_digest")];

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
            assert_eq!(public.verify(algorithm, other, &digest, &signature), Err(SignatureError::Mismatch));
            for place in (0..signature.len()).step_by(17) {
                let mut changed = signature.clone();
                changed[place] ^= 1;
                assert_eq!(public.verify(algorithm, form, &digest, &changed), Err(SignatureError::Mismatch));
            }
            assert_eq!(public.verify(algorithm, form, &digest, &signature[1..]), Err(SignatureError::Mismatch));
            assert_eq!(public.verify(algorithm, form, &digest[1..], &signature), Err(SignatureError::Mismatch));
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
        assert_eq!((private.kind(), private.public_key_der().unwrap()), (kind, octets(&case["spki"])));
        let signature = octets(&case["signature"]);
        assert_eq!(signature.len(), private.signature_length());
        assert_eq!(public.verify(algorithm, RsaForm::DigestInfo, &digest, &signature), Ok(()));
        let ours = private.sign(algorithm, RsaForm::RawDigest, &digest, &mut rng).unwrap();
        assert_eq!(public.verify(algorithm, RsaForm::DigestInfo, &digest, &ours), Ok(()));
        let mut changed = ours.clone();
        changed[3] ^= 1;
        assert_eq!(public.verify(algorithm, RsaForm::DigestInfo, &digest, &changed), Err(SignatureError::Mismatch));
        assert_eq!(
            public.verify(HashAlgorithm::Sha1, RsaForm::DigestInfo, &digest, &ours),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            private.sign(HashAlgorithm::Sha1, RsaForm::DigestInfo, &digest, &mut rng),
            Err(SignatureError::Sign)
        );
    }
}

#[test]
fn keys_survive_their_stored_form() {
    let mut rng = SeededRng::from_seed([2; 32]);
    for kind in [KeyKind::Ecdsa256, KeyKind::Ecdsa384, KeyKind::Ecdsa521] {
        let key = SigningKey::generate_ecdsa(kind, &mut rng).unwrap();
        let again = SigningKey::from_pkcs8_der(key.to_pkcs8_der().unwrap().expose(), false).unwrap();
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
        assert_eq!(PublicKey::from_der(kind, &spki, false).unwrap_err(), SignatureError::PublicKey(kind));
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
    assert_eq!(format!("{key:?} {:?}", key.public_key()), "SigningKey(Ecdsa256) PublicKey(Ecdsa256, 256 bits)");
}
