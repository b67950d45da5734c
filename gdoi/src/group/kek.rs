//! The key encryption key of a group: the SAK payload (RFC 6407 §5.3) and its keys (§5.6.2).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use ike::crypto::Secret;
use ike::wire::registry::IdType;

/// Where pushes come from or go to, as the SAK payload identifies it (RFC 6407 §5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushEndpoint {
    /// Type, which decides the form of `data`.
    pub kind: IdType,
    /// UDP port, 0 if the key server names none.
    pub port: u16,
    /// Identification data, at most 255 octets.
    pub data: Vec<u8>,
}

impl PushEndpoint {
    /// The one address that it is, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self.kind {
            IdType::IPV4_ADDR => <[u8; 4]>::try_from(self.data.as_slice()).ok().map(IpAddr::from),
            IdType::IPV6_ADDR => <[u8; 16]>::try_from(self.data.as_slice()).ok().map(IpAddr::from),
            _ => None,
        }
    }
}

impl From<SocketAddr> for PushEndpoint {
    fn from(address: SocketAddr) -> Self {
        let (kind, data) = match address.ip() {
            IpAddr::V4(ip) => (IdType::IPV4_ADDR, ip.octets().to_vec()),
            IpAddr::V6(ip) => (IdType::IPV6_ADDR, ip.octets().to_vec()),
        };
        Self { kind, port: address.port(), data }
    }
}

/// Policy of the rekey SA. Algorithm fields are the numbers of RFC 6407 §5.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekPolicy {
    /// Cookie pair of the pushes: initiator cookie, then responder cookie.
    pub spi: [u8; 16],
    /// IP protocol of a push: 17, UDP.
    pub protocol: u8,
    /// Where pushes come from.
    pub source: PushEndpoint,
    /// Where pushes go to: the multicast group, or the member.
    pub destination: PushEndpoint,
    /// KEK_ALGORITHM: 1 DES, 2 3DES, 3 AES.
    pub algorithm: u16,
    /// KEK_KEY_LENGTH in bits, the IV not counted.
    pub key_length: Option<u16>,
    /// KEK_KEY_LIFETIME, which the payload has in seconds.
    pub lifetime: Duration,
    /// SIG_HASH_ALGORITHM: 1 MD5, 2 SHA-1, 3 SHA-256, 4 SHA-384, 5 SHA-512.
    pub signature_hash: Option<u16>,
    /// SIG_ALGORITHM: 1 RSA, 2 DSS, 3 ECDSS, 4..6 ECDSA-256/384/521.
    pub signature_algorithm: u16,
    /// SIG_KEY_LENGTH in bits, where the signature's key may have several.
    pub signature_key_length: Option<u16>,
    /// KEK_ACK_REQUESTED (RFC 8263 §2): 1..4.
    pub acknowledgement: Option<u16>,
}

/// Keys of the rekey SA.
#[derive(Debug, PartialEq, Eq)]
pub struct KekKeys {
    /// KEK_ALGORITHM_KEY: initialisation vector, then key (RFC 6407 §5.6.2.1).
    pub algorithm_key: Secret,
    /// SIG_ALGORITHM_KEY: the public key that verifies pushes, a DER SubjectPublicKeyInfo; absent
    /// when it does not change.
    pub signature_key: Option<Vec<u8>>,
}
