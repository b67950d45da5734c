//! Interfaces and addresses of the machine as of now. Names come from the configuration and are
//! always there; addresses may be missing, for example before DHCP has answered.

use core::net::IpAddr;

/// Interfaces and addresses of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// Interfaces of the protected hosts.
    pub lan: Vec<LanInterface>,
    /// Interfaces of the wide area network, the preferred one first.
    pub wan: Vec<WanInterface>,
    /// LOCAL: our address on the WAN side. Without it there are no states, and all traffic
    /// selectors are blocked.
    pub local: Option<IpAddr>,
}

/// An interface of the protected hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanInterface {
    /// The interface's name, such as `eth1`.
    pub name: String,
    /// The router's own addresses there; empty while it has none.
    pub addresses: Vec<IpAddr>,
    /// Whether it is a VRF device: what arrives by it came by any interface of the VRF before.
    pub is_vrf: bool,
}

/// An interface of the wide area network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WanInterface {
    /// The interface's name, such as `eth0`.
    pub name: String,
    /// Whether it exists and is up.
    pub up: bool,
    /// Next hop of its default route, if it has one.
    pub gateway: Option<IpAddr>,
    /// MTU of the interface in octets.
    pub mtu: u32,
    /// The routing table of its VRF; `None` for main.
    pub vrf_table: Option<u32>,
    /// Whether the routes of group traffic leave by it; `gateway` is then their next hop.
    pub carries: bool,
}

impl Zones {
    /// Names of the LAN interfaces.
    pub(crate) fn lan_names(&self) -> impl Iterator<Item = &str> {
        self.lan.iter().map(|lan| lan.name.as_str())
    }

    /// The interface that the placeholder route leaves by: of those that the group's traffic takes
    /// the one with the smallest MTU, which fits them all. Where no route tells, the first that is
    /// up, better with a next hop of that family.
    pub(crate) fn uplink(&self, ipv4: bool) -> Option<(&WanInterface, Option<IpAddr>)> {
        let gateway = |wan: &WanInterface| wan.gateway.filter(|gateway| gateway.is_ipv4() == ipv4);
        let up = || self.wan.iter().filter(|wan| wan.up);
        let carries = up().filter(|wan| wan.carries).min_by_key(|wan| wan.mtu);
        if let Some(best) = carries {
            return Some((best, gateway(best)));
        }
        let best = up().find(|wan| gateway(wan).is_some()).or_else(|| up().next())?;
        Some((best, gateway(best)))
    }
}
