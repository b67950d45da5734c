//! What `gdoi-agent` shows about site-to-site tunnels.

use serde::{Deserialize, Serialize};

/// All tunnels, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelsSnapshot {
    /// In the order of the configuration.
    pub tunnels: Vec<TunnelSnapshot>,
}

/// What `show tunnel` tells of one tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelSnapshot {
    /// Name in the configuration.
    pub name: String,
    /// Name of its gateway, whose IKE policy it uses.
    pub gateway: String,
    /// The profile of the gateway's peers, if one is set.
    pub profile: Option<String>,
    /// Address of the tunnel's local end.
    pub local: String,
    /// Address of the peer's end.
    pub peer: String,
    /// `active`, or why it is not.
    pub state: String,
    /// Whether every pair of networks has SAs.
    pub active: bool,
    /// How long that has been so.
    pub active_seconds: Option<u64>,
    /// The newest ISAKMP SA.
    pub isakmp_sa: Option<TunnelIsakmpSa>,
    /// Pairs of networks with their SAs.
    pub networks: Vec<TunnelNetworks>,
}

/// An ISAKMP SA of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelIsakmpSa {
    /// Sixteen hexadecimal digits (RFC 2408 §3.1).
    pub initiator_cookie: String,
    /// Sixteen hexadecimal digits (RFC 2408 §3.1).
    pub responder_cookie: String,
    /// What was negotiated, in words.
    pub transform: String,
    /// Time to its end.
    pub lifetime_left_seconds: u64,
}

/// One pair of networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelNetworks {
    /// The local network, as a prefix.
    pub local: String,
    /// On the other side.
    pub remote: String,
    /// Pairs of SAs, the one that is sent on first.
    pub sas: Vec<TunnelSas>,
}

/// A pair of ESP SAs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelSas {
    /// SPI that is received on, as `0x` and eight digits.
    pub inbound_spi: String,
    /// SPI that is sent on.
    pub outbound_spi: String,
    /// Whether packets are sent on it now.
    pub sending: bool,
    /// ESP encryption and integrity as the configuration writes them.
    pub algorithms: String,
    /// Group of perfect forward secrecy in words, or `off`.
    pub pfs: String,
    /// Who asked for it.
    pub initiator: bool,
    /// How long there have been these SAs.
    pub age_seconds: u64,
    /// Time to their end.
    pub lifetime_left_seconds: u64,
    /// Kilobytes after which they end.
    pub kilobytes: Option<u64>,
    /// Packets and octets received.
    pub received: crate::member::Traffic,
    /// Packets and octets sent.
    pub sent: crate::member::Traffic,
}
