//! Algorithms of IKEv1 as the transforms of phase 1 name them. Which may be used is the business of
//! the policy.

/// Encryption algorithm of phase 1 (RFC 2409 appendix A, RFC 3602 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase1Encryption {
    DesCbc,
    TripleDesCbc,
    Aes128Cbc,
    Aes192Cbc,
    Aes256Cbc,
}

impl Phase1Encryption {
    /// The name in configurations, logs and show commands, such as `aes-256-cbc`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DesCbc => "des-cbc",
            Self::TripleDesCbc => "3des-cbc",
            Self::Aes128Cbc => "aes-128-cbc",
            Self::Aes192Cbc => "aes-192-cbc",
            Self::Aes256Cbc => "aes-256-cbc",
        }
    }

    /// KEY_LENGTH of a transform in bits: only ciphers with keys of several lengths have it.
    pub fn key_length_attribute(self) -> Option<u16> {
        match self {
            Self::DesCbc | Self::TripleDesCbc => None,
            Self::Aes128Cbc => Some(128),
            Self::Aes192Cbc => Some(192),
            Self::Aes256Cbc => Some(256),
        }
    }
}

/// Hash algorithm of phase 1; HMAC with it is the prf (RFC 2409 §5, RFC 4868 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashAlgorithm {
    Md5,
    Sha1,
    Sha2_256,
    Sha2_384,
    Sha2_512,
}

impl HashAlgorithm {
    /// The name in configurations, logs and show commands, such as `sha2-256`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha2_256 => "sha2-256",
            Self::Sha2_384 => "sha2-384",
            Self::Sha2_512 => "sha2-512",
        }
    }
}

/// Diffie-Hellman group (RFC 2409 §6, RFC 3526, RFC 5114 §2.3, RFC 5903).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DhGroup {
    Modp768,
    Modp1024,
    Modp1536,
    Modp2048,
    Modp3072,
    Modp4096,
    Modp2048Subgroup256,
    Ecp256,
    Ecp384,
}

impl DhGroup {
    /// The number in IANA's registry, by which configurations and show commands name it.
    pub fn number(self) -> u16 {
        match self {
            Self::Modp768 => 1,
            Self::Modp1024 => 2,
            Self::Modp1536 => 5,
            Self::Modp2048 => 14,
            Self::Modp3072 => 15,
            Self::Modp4096 => 16,
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::Modp2048Subgroup256 => 24,
        }
    }
}

impl core::fmt::Display for DhGroup {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "DH group {}", self.number())
    }
}
