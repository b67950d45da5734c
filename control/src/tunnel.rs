//! What `gdoi-agent` shows about site-to-site tunnels.

use serde::{Deserialize, Serialize};

/// All tunnels, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelsSnapshot {
    /// In the order of the configuration. A daemon of an older version names none.
    #[serde(default)]
    pub gateways: Vec<GatewaySnapshot>,
    /// In the order of the configuration.
    pub tunnels: Vec<TunnelSnapshot>,
}

/// A gateway: the IKE policy that tunnels share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewaySnapshot {
    /// Name in the configuration.
    pub name: String,
    /// Whose gateway is at the other end, if that is said.
    pub profile: Option<String>,
    /// What phase 1 may negotiate, the preferred transform first.
    pub transforms: Vec<String>,
    /// Lifetime of an ISAKMP SA.
    pub lifetime_seconds: u64,
    /// What its tunnels carry together at most, if there is a limit.
    pub bandwidth: Option<GatewayBandwidth>,
    /// Names of the tunnels that use it.
    pub tunnels: Vec<String>,
}

/// The bandwidth of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayBandwidth {
    /// In megabits a second, in each direction.
    pub mbit: u32,
    /// ESP that was dropped for being over it, since the kernel's rules were last replaced.
    pub dropped_sent: crate::member::Traffic,
    /// The same of what arrived.
    pub dropped_received: crate::member::Traffic,
}

/// An interface that a tunnel depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelInterface {
    /// Name in the kernel.
    pub name: String,
    /// What it is for the tunnel: `local-address` or `local-networks`.
    pub role: String,
    /// Administratively up and with a carrier.
    pub up: bool,
    /// Largest packet inside the tunnel, in octets.
    pub mtu: u32,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<String>,
}

/// Where the kernel sends packets of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelRoute {
    /// The peer's address, or a remote network as a prefix.
    pub destination: String,
    /// Whether it is the peer's address, which ESP goes to.
    pub is_peer: bool,
    /// The interface that packets leave by; `None` where there is no route, so that none do.
    pub interface: Option<String>,
    /// The next hop, if there is one.
    pub next_hop: Option<String>,
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
    /// The interfaces with the local address and with addresses in the local networks.
    #[serde(default)]
    pub interfaces: Vec<TunnelInterface>,
    /// To the peer, and to each remote network.
    #[serde(default)]
    pub routes: Vec<TunnelRoute>,
}

/// An ISAKMP SA of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelIsakmpSa {
    /// Sixteen hexadecimal digits (RFC 2408 §3.1).
    pub initiator_cookie: String,
    /// Sixteen hexadecimal digits (RFC 2408 §3.1).
    pub responder_cookie: String,
    /// What was negotiated, as text.
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
    /// Diffie-Hellman group of perfect forward secrecy by name, or `off`.
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
