//! What the caller decides before an exchange begins.

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

pub use ike::config::{
    Authentication, Identity, PeerCredential, Phase1Policy, Phase1Transform, RetransmissionPolicy,
};
pub use ike::crypto::{DhGroup, HashAlgorithm, Phase1Encryption};

use ike::phase1::InitiatorConfig;

use crate::crypto::Secret;
use crate::group::GroupId;

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

impl From<&RegistrationConfig> for InitiatorConfig {
    fn from(config: &RegistrationConfig) -> Self {
        Self {
            identity: config.identity.clone(),
            expected_identity: config.expected_identity.clone(),
            pre_shared_key: Arc::clone(&config.pre_shared_key),
            policy: config.phase1.clone(),
        }
    }
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
