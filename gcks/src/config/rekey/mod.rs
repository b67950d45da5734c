//! `[group.rekey]`: how a group's keys are pushed (RFC 6407 §4, RFC 8263).
//!
//! `file` is what was typed, `check` raises it to the values below.

mod check;
mod file;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use daemon::configuration::{Problem, Read, choice};
use gdoi::push::DeliveryPolicy;
use ike::crypto::HashAlgorithm;
use toml::de::DeValue;

pub use self::check::{Surroundings, raise};
pub use self::file::File;

/// How a group's keys are pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekey {
    pub transport: Transport,
    /// How those leave that go by multicast.
    pub path: MulticastPath,
    /// Cipher of the KEK.
    pub encryption: KekEncryption,
    /// Kind of the signing key that is made when there is none.
    pub signing_key: SigningKeyKind,
    /// Where the signing key is kept: PKCS #8, PEM.
    pub signing_key_file: PathBuf,
    /// Hash of the signatures.
    pub signature_hash: HashAlgorithm,
    /// Lifetime of a new KEK.
    pub lifetime: Duration,
    /// When a push is repeated, and how long its acknowledgements are waited for.
    pub delivery: DeliveryPolicy,
    /// Whether members are asked for acknowledgements (RFC 8263).
    pub acknowledgements: bool,
    /// Whether a member that has acknowledged before and misses three pushes in a row is dropped (RFC
    /// 8263 §6).
    pub drop_unresponsive_members: bool,
    /// Whether members get a path through a key hierarchy (RFC 6407 §5.6.3).
    pub lkh: bool,
    /// Whether weak algorithms are allowed.
    pub legacy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// To each member, at the address and port it pulled from.
    Unicast,
    /// To all at once.
    Multicast {
        /// Our address and port.
        source: SocketAddr,
        /// The multicast group, and the port.
        destination: SocketAddr,
    },
}

/// How datagrams to a multicast group leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MulticastPath {
    /// By this interface; `None` is the one that has the source address.
    pub interface: Option<String>,
    /// Routers that they may pass, and one.
    pub ttl: u8,
}

impl Default for MulticastPath {
    fn default() -> Self {
        Self { interface: None, ttl: 64 }
    }
}

/// Cipher of a KEK (RFC 6407 §5.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KekEncryption {
    /// Name in the configuration and in `gdoictl`.
    pub name: &'static str,
    pub algorithm: u16,
    /// KEK_KEY_LENGTH in bits where the cipher has several.
    pub key_length: Option<u16>,
    /// Octets of initialization vector and key.
    pub octets: usize,
    weak: bool,
}

/// Kind of a signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKeyKind {
    /// RSA with so many bits.
    Rsa(u16),
    /// ECDSA on the 256-bit curve.
    EcdsaP256,
    /// ECDSA on the 384-bit curve.
    EcdsaP384,
}

const fn cbc(
    name: &'static str,
    algorithm: u16,
    bits: Option<u16>,
    octets: usize,
    weak: bool,
) -> KekEncryption {
    KekEncryption { name, algorithm, key_length: bits, octets, weak }
}

/// All ciphers of a KEK.
pub const KEK_ENCRYPTIONS: [KekEncryption; 5] = [
    cbc("aes-128-cbc", 3, Some(128), 32, false),
    cbc("aes-192-cbc", 3, Some(192), 40, false),
    cbc("aes-256-cbc", 3, Some(256), 48, false),
    cbc("3des-cbc", 2, None, 32, true),
    cbc("des-cbc", 1, None, 16, true),
];

impl Read for KekEncryption {
    const EXAMPLE: &'static str = "\"aes-256-cbc\"";
    const TYPE: &'static str = "text";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(value, &KEK_ENCRYPTIONS.map(|encryption| (encryption.name, encryption)))
    }

    fn toml(&self) -> String {
        format!("\"{}\"", self.name)
    }

    fn names() -> Vec<String> {
        KEK_ENCRYPTIONS.iter().map(Self::toml).collect()
    }
}

impl SigningKeyKind {
    /// The hash that the key demands (RFC 4754 §3); RSA goes with any.
    fn hash(self) -> Option<HashAlgorithm> {
        match self {
            Self::Rsa(_) => None,
            Self::EcdsaP256 => Some(HashAlgorithm::Sha2_256),
            Self::EcdsaP384 => Some(HashAlgorithm::Sha2_384),
        }
    }
}

#[cfg(test)]
mod tests {
    use gdoi::wire::{kek_octets, registry::KekAlgorithm};

    use super::*;

    #[test]
    fn keys_are_as_long_as_the_wire_demands() {
        for encryption in KEK_ENCRYPTIONS {
            let octets = kek_octets(KekAlgorithm(encryption.algorithm), encryption.key_length);
            assert_eq!(octets, Some(encryption.octets), "{}", encryption.name);
        }
    }
}
