//! What the caller decides before an exchange begins.

use core::net::SocketAddr;

use ike::config::{
    Credential, Identity, PeerCredential, Phase1Mode, Phase1Policy, RetransmissionPolicy,
};
use ike::endpoint::{EndpointConfig, Limits, PeerMobility};
use ike::phase1::{InitiatorConfig, NatTraversal};

use crate::group::GroupId;
pub use crate::wire::byte_order::ByteOrder;
pub use crate::wire::sa_kek::Trailer;

/// How a pull is answered to a member that reads RFC 6407 in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PolicyForm {
    /// Order of the octets of the group id in its request.
    pub group_id: ByteOrder,
    /// Reserved octets of the SAK that it expects.
    pub trailer: Trailer,
    /// Order of the octets of IPv4 addresses and masks in traffic selectors.
    pub selectors: ByteOrder,
}

/// One attempt to register with one key server.
#[derive(Clone, Debug)]
pub struct RegistrationConfig {
    /// The key server, port included (848 by RFC 6407 §2.2).
    pub server: SocketAddr,
    /// Our address and port, as the key server sees them without address translation.
    pub local: SocketAddr,
    /// The group to register in.
    pub group: GroupId,
    /// Interoperability switch for the group id.
    pub group_id_byte_order: ByteOrder,
    /// Interoperability switch for IPv4 addresses and masks in traffic selectors.
    pub selector_byte_order: ByteOrder,
    /// How many sender identifiers to ask for; `None` where one is enough, which needs no request
    /// (RFC 6407 §3.5).
    pub sender_ids: Option<u16>,
    /// The identity that we prove in phase 1.
    pub identity: Identity,
    /// The identity that the key server must prove.
    pub expected_identity: Identity,
    /// What proves our identity and the key server's.
    pub credential: Credential,
    /// Whether this host has no other ISAKMP SA with the key server: message 5 says so, and the key
    /// server ends those that it has from before a restart (RFC 2407 §4.6.3.3).
    pub initial_contact: bool,
    /// What phase 1 may negotiate.
    pub phase1: Phase1Policy,
    /// When messages are repeated.
    pub retransmission: RetransmissionPolicy,
    /// When it begins, in seconds since 1970: the key server's certificate must be valid then.
    /// Without certificates nobody asks.
    pub unix_seconds: u64,
}

impl From<&RegistrationConfig> for InitiatorConfig {
    fn from(config: &RegistrationConfig) -> Self {
        Self {
            identity: config.identity.clone(),
            expected_identity: config.expected_identity.clone(),
            credential: config.credential.clone(),
            initial_contact: config.initial_contact,
            policy: config.phase1.clone().authenticated_by(config.credential.authentication()),
            vendor_ids: Vec::new(),
            mode: Phase1Mode::Main,
            nat: None,
            unix_seconds: config.unix_seconds,
        }
    }
}

/// A key server's endpoint. Members stay where phase 1 found them ([`PeerMobility::Fixed`]).
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Our phase-1 identity; `None` is the address the member wrote to.
    pub identity: Option<Identity>,
    /// Credentials of the peers that may connect.
    pub peers: Vec<PeerCredential>,
    /// What phase 1 may negotiate.
    pub phase1: Phase1Policy,
    /// Bounds on work for strangers.
    pub limits: Limits,
}

impl From<&ServerConfig> for EndpointConfig {
    fn from(config: &ServerConfig) -> Self {
        Self {
            identity: config.identity.clone(),
            peers: config.peers.clone(),
            phase1: vec![config.phase1.clone()],
            // Pushes go to the address that a member registered from, and ESP with preserved
            // addresses does not pass address translation: a member that moved registers again.
            mobility: PeerMobility::Fixed,
            aggressive: false,
            nat: NatTraversal::Off,
            vendor_ids: Vec::new(),
            limits: config.limits,
        }
    }
}
