//! The algorithms of a TEK by the names that the configuration uses.

use daemon::configuration::{Problem, Read, choice};
use gdoi::group::{AuthenticationAlgorithm, EspTransform};
use toml::de::DeValue;

/// Encryption of a TEK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// Name in the configuration and in `gdoictl`.
    pub name: &'static str,
    pub transform: EspTransform,
    /// Key length in bits where the transform has several.
    pub key_length: Option<u16>,
    /// Octets of key and salt in the KD payload (RFC 6407 §5.6.1.1).
    pub octets: usize,
    /// How integrity comes about.
    pub kind: Kind,
}

/// What an encryption algorithm needs beside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Needs an integrity algorithm.
    Plain,
    /// The same, and weak.
    Legacy,
    /// Counter mode with integrity of its own; senders need a sender identifier each (RFC 6407
    /// §3.5).
    Combined,
}

/// Integrity of a TEK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integrity {
    /// Name in the configuration and in `gdoictl`.
    pub name: &'static str,
    pub algorithm: AuthenticationAlgorithm,
    /// Octets of the key (RFC 4868 §2.1.1, RFC 2404 §3).
    pub octets: usize,
}

const fn cipher(
    name: &'static str,
    transform: EspTransform,
    bits: u16,
    salt: usize,
    kind: Kind,
) -> Encryption {
    Encryption { name, transform, key_length: Some(bits), octets: bits as usize / 8 + salt, kind }
}

const fn gcm(name: &'static str, transform: EspTransform, bits: u16) -> Encryption {
    cipher(name, transform, bits, 4, Kind::Combined)
}

const fn ccm(name: &'static str, transform: EspTransform, bits: u16) -> Encryption {
    cipher(name, transform, bits, 3, Kind::Combined)
}

pub const ENCRYPTIONS: [Encryption; 23] = [
    cipher("aes-128-cbc", EspTransform::AES_CBC, 128, 0, Kind::Plain),
    cipher("aes-192-cbc", EspTransform::AES_CBC, 192, 0, Kind::Plain),
    cipher("aes-256-cbc", EspTransform::AES_CBC, 256, 0, Kind::Plain),
    gcm("aes-128-gcm-8", EspTransform::AES_GCM_8, 128),
    gcm("aes-192-gcm-8", EspTransform::AES_GCM_8, 192),
    gcm("aes-256-gcm-8", EspTransform::AES_GCM_8, 256),
    gcm("aes-128-gcm-12", EspTransform::AES_GCM_12, 128),
    gcm("aes-192-gcm-12", EspTransform::AES_GCM_12, 192),
    gcm("aes-256-gcm-12", EspTransform::AES_GCM_12, 256),
    gcm("aes-128-gcm-16", EspTransform::AES_GCM_16, 128),
    gcm("aes-192-gcm-16", EspTransform::AES_GCM_16, 192),
    gcm("aes-256-gcm-16", EspTransform::AES_GCM_16, 256),
    ccm("aes-128-ccm-8", EspTransform::AES_CCM_8, 128),
    ccm("aes-192-ccm-8", EspTransform::AES_CCM_8, 192),
    ccm("aes-256-ccm-8", EspTransform::AES_CCM_8, 256),
    ccm("aes-128-ccm-12", EspTransform::AES_CCM_12, 128),
    ccm("aes-192-ccm-12", EspTransform::AES_CCM_12, 192),
    ccm("aes-256-ccm-12", EspTransform::AES_CCM_12, 256),
    ccm("aes-128-ccm-16", EspTransform::AES_CCM_16, 128),
    ccm("aes-192-ccm-16", EspTransform::AES_CCM_16, 192),
    ccm("aes-256-ccm-16", EspTransform::AES_CCM_16, 256),
    Encryption {
        name: "null",
        transform: EspTransform::NULL,
        key_length: None,
        octets: 0,
        kind: Kind::Plain,
    },
    Encryption {
        name: "3des-cbc",
        transform: EspTransform::TRIPLE_DES,
        key_length: None,
        octets: 24,
        kind: Kind::Legacy,
    },
];

pub const INTEGRITIES: [Integrity; 4] = [
    Integrity { name: "hmac-sha1-96", algorithm: AuthenticationAlgorithm::HMAC_SHA1, octets: 20 },
    Integrity {
        name: "hmac-sha2-256-128",
        algorithm: AuthenticationAlgorithm::HMAC_SHA2_256,
        octets: 32,
    },
    Integrity {
        name: "hmac-sha2-384-192",
        algorithm: AuthenticationAlgorithm::HMAC_SHA2_384,
        octets: 48,
    },
    Integrity {
        name: "hmac-sha2-512-256",
        algorithm: AuthenticationAlgorithm::HMAC_SHA2_512,
        octets: 64,
    },
];

impl Read for Encryption {
    const EXAMPLE: &'static str = "\"aes-256-cbc\"";
    const TYPE: &'static str = "text";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(value, &ENCRYPTIONS.map(|encryption| (encryption.name, encryption)))
    }

    fn toml(&self) -> String {
        format!("\"{}\"", self.name)
    }

    fn names() -> Vec<String> {
        ENCRYPTIONS.iter().map(Self::toml).collect()
    }
}

impl Read for Integrity {
    const EXAMPLE: &'static str = "\"hmac-sha2-256-128\"";
    const TYPE: &'static str = "text";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(value, &INTEGRITIES.map(|integrity| (integrity.name, integrity)))
    }

    fn toml(&self) -> String {
        format!("\"{}\"", self.name)
    }

    fn names() -> Vec<String> {
        INTEGRITIES.iter().map(Self::toml).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        let names: std::collections::BTreeSet<_> =
            ENCRYPTIONS.iter().map(|encryption| encryption.name).collect();
        assert_eq!(names.len(), ENCRYPTIONS.len());
    }

    #[test]
    fn keys_are_as_long_as_the_rfcs_say() {
        let octets = |name: &str| {
            ENCRYPTIONS.iter().find(|encryption| encryption.name == name).unwrap().octets
        };
        // RFC 3602 §2.2, RFC 4106 §8.1, RFC 4309 §7.1, RFC 2451 §2.2.
        assert_eq!(["aes-128-cbc", "aes-192-cbc", "aes-256-cbc"].map(octets), [16, 24, 32]);
        assert_eq!(["aes-128-gcm-16", "aes-192-gcm-8", "aes-256-gcm-12"].map(octets), [20, 28, 36]);
        assert_eq!(["aes-128-ccm-16", "aes-192-ccm-8", "aes-256-ccm-12"].map(octets), [19, 27, 35]);
        assert_eq!(["3des-cbc", "null"].map(octets), [24, 0]);
    }
}
