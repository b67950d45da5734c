//! What the caller decides before an exchange begins.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use crate::crypto::Secret;
use crate::group::GroupId;

/// Phase-1 identity (RFC 2407 §4.6.2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    Address(IpAddr),
    /// ID_FQDN.
    Fqdn(String),
    /// ID_USER_FQDN.
    UserFqdn(String),
    /// ID_KEY_ID: opaque octets.
    KeyId(Vec<u8>),
}

/// Order of the 4 octets of a group id. RFC 6407 §5.1 means network order; some implementations
/// copy host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ByteOrder {
    /// Network order, most significant octet first.
    #[default]
    Network,
    /// The order of a little-endian host.
    Host,
}

/// Encryption algorithm of phase 1 (RFC 2409 appendix A, RFC 3602 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "registry names explain themselves")]
pub enum Phase1Encryption {
    DesCbc,
    TripleDesCbc,
    Aes128Cbc,
    Aes192Cbc,
    Aes256Cbc,
}

/// Hash algorithm of phase 1; HMAC with it is the prf (RFC 2409 §5, RFC 4868 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "registry names explain themselves")]
pub enum HashAlgorithm {
    Md5,
    Sha1,
    Sha2_256,
    Sha2_384,
    Sha2_512,
}

/// Diffie-Hellman group (RFC 2409 §6, RFC 3526, RFC 5114 §2.3, RFC 5903).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "registry names explain themselves")]
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

/// One phase-1 transform: encryption, hash and group belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phase1Transform {
    /// Encryption algorithm.
    pub encryption: Phase1Encryption,
    /// Hash algorithm.
    pub hash: HashAlgorithm,
    /// Diffie-Hellman group.
    pub group: DhGroup,
}

impl Phase1Transform {
    /// Whether a part of it is weak: DES, 3DES, MD5, MODP 768, 1024, 1536.
    pub fn is_legacy(&self) -> bool {
        matches!(self.encryption, Phase1Encryption::DesCbc | Phase1Encryption::TripleDesCbc)
            || self.hash == HashAlgorithm::Md5
            || matches!(self.group, DhGroup::Modp768 | DhGroup::Modp1024 | DhGroup::Modp1536)
    }
}

/// What phase 1 may negotiate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase1Policy {
    /// Acceptable transforms in order of preference; the member offers them all.
    pub transforms: Vec<Phase1Transform>,
    /// Life time of the ISAKMP SA that the member offers; the responder accepts any and applies the
    /// smaller.
    pub lifetime: Duration,
}

/// Retransmission by the initiator (RFC 2408 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetransmissionPolicy {
    /// Wait before the first repetition.
    pub initial: Duration,
    /// Longest wait; each wait is twice the one before.
    pub maximum: Duration,
    /// How many times one message is sent again before the exchange is given up.
    pub repetitions: u32,
}

impl Default for RetransmissionPolicy {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), maximum: Duration::from_secs(8), repetitions: 4 }
    }
}

/// One attempt to register with one key server.
#[derive(Clone, Debug)]
pub struct RegistrationConfig {
    /// The key server, port included (848 by RFC 6407 §2.2).
    pub server: SocketAddr,
    /// Our address and port, as the key server sees them without address translation.
    pub local: SocketAddr,
    /// The group.
    pub group: GroupId,
    /// Interoperability switch for the group id.
    pub group_id_byte_order: ByteOrder,
    /// Our phase-1 identity.
    pub identity: Identity,
    /// The identity that the key server must prove.
    pub expected_identity: Identity,
    /// The pre-shared key.
    pub pre_shared_key: Arc<Secret>,
    /// What phase 1 may negotiate.
    pub phase1: Phase1Policy,
    /// When messages are repeated.
    pub retransmission: RetransmissionPolicy,
}

/// A peer that may start phase 1 with a key server.
#[derive(Clone, Debug)]
pub struct PeerCredential {
    /// Addresses that use this key: a host or a prefix. The longest match wins (RFC 2409 §5.4: main
    /// mode knows no more).
    pub addresses: ipnet::IpNet,
    /// The identity that the peer must prove; `None` accepts the one that equals its address.
    pub identity: Option<Identity>,
    /// The pre-shared key.
    pub pre_shared_key: Arc<Secret>,
}

/// A key server's endpoint.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Our phase-1 identity; `None` is the address the member wrote to.
    pub identity: Option<Identity>,
    /// Who may connect.
    pub peers: Vec<PeerCredential>,
    /// What phase 1 may negotiate.
    pub phase1: Phase1Policy,
    /// Interoperability switch for the group id.
    pub group_id_byte_order: ByteOrder,
    /// Bounds on work for strangers.
    pub limits: ServerLimits,
}

/// Bounds that keep a flood of first messages from costing memory or arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Half-open exchanges in all.
    pub half_open: usize,
    /// Half-open exchanges of one source address.
    pub half_open_per_source: usize,
    /// How long a half-open exchange may wait for its next message.
    pub half_open_timeout: Duration,
    /// Established ISAKMP SAs in all.
    pub established: usize,
    /// Established ISAKMP SAs of one peer; a further one replaces the oldest.
    pub established_per_peer: usize,
    /// Pulls in progress under one ISAKMP SA.
    pub pulls: usize,
    /// How long the answer to a last message is kept for duplicates of it.
    pub finished_exchange: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            half_open: 4096,
            half_open_per_source: 4,
            half_open_timeout: Duration::from_secs(30),
            established: 20_000,
            established_per_peer: 4,
            pulls: 8,
            finished_exchange: Duration::from_secs(60),
        }
    }
}
