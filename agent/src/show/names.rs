//! Algorithms and attributes by the names that the configuration has for them.

use control::member::Transform;
use gdoi::group::{AuthenticationAlgorithm, EspTransform, KekPolicy, SaDirection, TekProtection};
use gdoi::push::{AcknowledgementKind, SignedLength};
use ike::config::{Authentication, Phase1Transform};
use ike::crypto::RsaForm;

/// Encryption and integrity, such as `aes-256-cbc` and `hmac-sha2-256-128`; combined modes have no
/// integrity of their own.
pub fn algorithms(protection: &TekProtection) -> (String, Option<String>) {
    let bits = protection.key_length.unwrap_or(128);
    let encryption = match protection.transform {
        EspTransform::DES => "des-cbc".to_owned(),
        EspTransform::TRIPLE_DES => "3des-cbc".to_owned(),
        EspTransform::NULL => "null".to_owned(),
        EspTransform::AES_CBC => format!("aes-{bits}-cbc"),
        EspTransform::AES_CTR => format!("aes-{bits}-ctr"),
        EspTransform::AES_CCM_8 => return (format!("aes-{bits}-ccm-8"), None),
        EspTransform::AES_CCM_12 => return (format!("aes-{bits}-ccm-12"), None),
        EspTransform::AES_CCM_16 => return (format!("aes-{bits}-ccm-16"), None),
        EspTransform::AES_GCM_8 => return (format!("aes-{bits}-gcm-8"), None),
        EspTransform::AES_GCM_12 => return (format!("aes-{bits}-gcm-12"), None),
        EspTransform::AES_GCM_16 => return (format!("aes-{bits}-gcm-16"), None),
        other => format!("{other}"),
    };
    let integrity = protection.authentication.map(|authentication| match authentication {
        AuthenticationAlgorithm::HMAC_MD5 => "hmac-md5-96".to_owned(),
        AuthenticationAlgorithm::HMAC_SHA1 => "hmac-sha1-96".to_owned(),
        AuthenticationAlgorithm::HMAC_SHA2_256 => "hmac-sha2-256-128".to_owned(),
        AuthenticationAlgorithm::HMAC_SHA2_384 => "hmac-sha2-384-192".to_owned(),
        AuthenticationAlgorithm::HMAC_SHA2_512 => "hmac-sha2-512-256".to_owned(),
        other => format!("{other}"),
    });
    (encryption, integrity)
}

/// How peers prove their identities in phase 1.
pub fn authentication(authentication: Authentication) -> &'static str {
    match authentication {
        Authentication::RsaSignature => "rsa-signature",
        Authentication::Ecdsa256 => "ecdsa-256",
        Authentication::Ecdsa384 => "ecdsa-384",
        _ => "pre-shared-key",
    }
}

/// The SA direction attribute by name.
pub fn direction(protection: &TekProtection) -> &'static str {
    match protection.direction {
        SaDirection::SENDER_ONLY => "sender-only",
        SaDirection::RECEIVER_ONLY => "receiver-only",
        _ => "symmetric",
    }
}

/// Whether a member sends on such a TEK.
pub fn sends(protection: &TekProtection) -> bool {
    protection.direction != SaDirection::RECEIVER_ONLY
}

/// Whether a member receives on such a TEK.
pub fn receives(protection: &TekProtection) -> bool {
    protection.direction != SaDirection::SENDER_ONLY
}

/// Encryption of a rekey SA (RFC 6407 §5.3.3), such as `aes-256-cbc`.
pub fn kek_encryption(policy: &KekPolicy) -> String {
    match (policy.algorithm, policy.key_length) {
        (1, _) => "des-cbc".to_owned(),
        (2, _) => "3des-cbc".to_owned(),
        (3, bits) => format!("aes-{}-cbc", bits.unwrap_or(128)),
        (other, _) => format!("algorithm {other}"),
    }
}

/// Signature of a rekey SA (RFC 6407 §5.3.5, §5.3.6), such as `rsa with sha2-256`.
pub fn kek_signature(policy: &KekPolicy) -> String {
    let hash = match policy.signature_hash {
        Some(1) => " with md5",
        Some(2) => " with sha1",
        Some(3) => " with sha2-256",
        Some(4) => " with sha2-384",
        Some(5) => " with sha2-512",
        _ => "",
    };
    match policy.signature_algorithm {
        1 => format!("rsa{hash}"),
        2 => format!("dss{hash}"),
        3 => format!("ecdss{hash}"),
        4 => "ecdsa-p256 with sha2-256".to_owned(),
        5 => "ecdsa-p384 with sha2-384".to_owned(),
        6 => "ecdsa-p521 with sha2-512".to_owned(),
        other => format!("algorithm {other}"),
    }
}

/// The acknowledgement asked for (RFC 8263 §2).
pub fn acknowledgement(number: u16) -> String {
    match AcknowledgementKind::from_number(number) {
        Some(AcknowledgementKind::KekSha256) => "kek-sha2-256".to_owned(),
        Some(AcknowledgementKind::LkhSha256) => "lkh-sha2-256".to_owned(),
        Some(AcknowledgementKind::KekSha512) => "kek-sha2-512".to_owned(),
        Some(AcknowledgementKind::LkhSha512) => "lkh-sha2-512".to_owned(),
        None => format!("unknown {number}"),
    }
}

/// What a key server's RSA signatures cover.
pub fn signature_form(form: RsaForm) -> &'static str {
    match form {
        RsaForm::DigestInfo => "digest-info",
        RsaForm::RawDigest => "raw-digest",
    }
}

/// Which length a key server's signatures cover.
pub fn signed_length(length: SignedLength) -> &'static str {
    match length {
        SignedLength::Padded => "padded",
        SignedLength::Unpadded => "unpadded",
    }
}

pub fn transform(transform: &Phase1Transform) -> Transform {
    Transform {
        encryption: transform.encryption.name().to_owned(),
        hash: transform.hash.name().to_owned(),
        dh_group: transform.group.number(),
    }
}
