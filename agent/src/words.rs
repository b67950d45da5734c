//! Attributes of a TEK in the configuration's words, for show commands.

use gdoi::group::{AuthenticationAlgorithm, EspTransform, SaDirection, TekProtection};

/// Encryption and integrity, such as `aes-256-cbc` and `hmac-sha2-256-128`; combined modes have no integrity of their
/// own.
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

/// The SA direction attribute as one word.
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
