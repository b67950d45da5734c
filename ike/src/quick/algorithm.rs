//! ESP algorithms that Quick Mode negotiates, and the lengths of their keys.

use core::fmt;

use crate::wire::registry::{AuthenticationAlgorithm, EspTransformId};

/// Encryption of ESP. The combined modes have an integrity check value of 16 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EspEncryption {
    TripleDesCbc,
    Aes128Cbc,
    Aes192Cbc,
    Aes256Cbc,
    Aes128Gcm,
    Aes192Gcm,
    Aes256Gcm,
}

/// Integrity algorithm of ESP, truncated as RFC 2404 §2 and RFC 4868 §2.3 say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EspIntegrity {
    HmacSha1,
    HmacSha2_256,
    HmacSha2_384,
    HmacSha2_512,
}

/// How an ESP SA protects packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EspAlgorithms {
    pub encryption: EspEncryption,
    /// Integrity: none with a combined mode, one with every other encryption.
    pub integrity: Option<EspIntegrity>,
}

impl EspEncryption {
    pub const ALL: [Self; 7] = [
        Self::TripleDesCbc,
        Self::Aes128Cbc,
        Self::Aes192Cbc,
        Self::Aes256Cbc,
        Self::Aes128Gcm,
        Self::Aes192Gcm,
        Self::Aes256Gcm,
    ];

    /// Whether it protects integrity as well.
    pub fn is_combined(self) -> bool {
        matches!(self, Self::Aes128Gcm | Self::Aes192Gcm | Self::Aes256Gcm)
    }

    pub fn transform_id(self) -> EspTransformId {
        match self {
            Self::TripleDesCbc => EspTransformId::TRIPLE_DES,
            Self::Aes128Cbc | Self::Aes192Cbc | Self::Aes256Cbc => EspTransformId::AES_CBC,
            Self::Aes128Gcm | Self::Aes192Gcm | Self::Aes256Gcm => EspTransformId::AES_GCM_16,
        }
    }

    /// KEY_LENGTH of a transform in bits: only ciphers with keys of several lengths have it.
    pub fn key_length_attribute(self) -> Option<u16> {
        match self {
            Self::TripleDesCbc => None,
            Self::Aes128Cbc | Self::Aes128Gcm => Some(128),
            Self::Aes192Cbc | Self::Aes192Gcm => Some(192),
            Self::Aes256Cbc | Self::Aes256Gcm => Some(256),
        }
    }

    /// Octets of key material: the key, and the salt of a combined mode behind it (RFC 4106 §8.1).
    pub fn key_material(self) -> usize {
        match self {
            Self::TripleDesCbc | Self::Aes192Cbc => 24,
            Self::Aes128Cbc => 16,
            Self::Aes256Cbc => 32,
            Self::Aes128Gcm => 20,
            Self::Aes192Gcm => 28,
            Self::Aes256Gcm => 36,
        }
    }
}

impl EspIntegrity {
    pub const ALL: [Self; 4] =
        [Self::HmacSha1, Self::HmacSha2_256, Self::HmacSha2_384, Self::HmacSha2_512];

    /// The number of the Authentication Algorithm attribute.
    pub fn number(self) -> AuthenticationAlgorithm {
        match self {
            Self::HmacSha1 => AuthenticationAlgorithm::HMAC_SHA1,
            Self::HmacSha2_256 => AuthenticationAlgorithm::HMAC_SHA2_256,
            Self::HmacSha2_384 => AuthenticationAlgorithm::HMAC_SHA2_384,
            Self::HmacSha2_512 => AuthenticationAlgorithm::HMAC_SHA2_512,
        }
    }

    /// Octets of key material: the hash's output (RFC 2404 §3, RFC 4868 §2.1.1).
    pub fn key_material(self) -> usize {
        match self {
            Self::HmacSha1 => 20,
            Self::HmacSha2_256 => 32,
            Self::HmacSha2_384 => 48,
            Self::HmacSha2_512 => 64,
        }
    }
}

impl EspAlgorithms {
    /// Encryption and integrity apart.
    pub const fn separate(encryption: EspEncryption, integrity: EspIntegrity) -> Self {
        Self { encryption, integrity: Some(integrity) }
    }

    pub const fn combined(encryption: EspEncryption) -> Self {
        Self { encryption, integrity: None }
    }

    /// Whether there is an integrity algorithm exactly where one is needed.
    pub fn is_complete(&self) -> bool {
        self.encryption.is_combined() == self.integrity.is_none()
    }

    /// Whether a part of it is weak: 3DES.
    pub fn is_legacy(&self) -> bool {
        self.encryption == EspEncryption::TripleDesCbc
    }
}

impl fmt::Display for EspAlgorithms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.encryption {
            EspEncryption::TripleDesCbc => "3des-cbc",
            EspEncryption::Aes128Cbc => "aes-128-cbc",
            EspEncryption::Aes192Cbc => "aes-192-cbc",
            EspEncryption::Aes256Cbc => "aes-256-cbc",
            EspEncryption::Aes128Gcm => "aes-128-gcm-16",
            EspEncryption::Aes192Gcm => "aes-192-gcm-16",
            EspEncryption::Aes256Gcm => "aes-256-gcm-16",
        })?;
        match self.integrity {
            None => Ok(()),
            Some(EspIntegrity::HmacSha1) => f.write_str(" with hmac-sha1-96"),
            Some(EspIntegrity::HmacSha2_256) => f.write_str(" with hmac-sha2-256-128"),
            Some(EspIntegrity::HmacSha2_384) => f.write_str(" with hmac-sha2-384-192"),
            Some(EspIntegrity::HmacSha2_512) => f.write_str(" with hmac-sha2-512-256"),
        }
    }
}
