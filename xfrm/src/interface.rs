//! Facts about the machine's interfaces, by rtnetlink.

use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;
use netlink_packet_route::route::RouteProtocol;

use crate::error::Error;
use crate::kernel::netlink::route::Link;
use crate::kernel::netlink::rtnetlink::Routing;

/// One interface as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number. Another one after the interface was re-created.
    pub index: u32,
    /// Administratively up and with a carrier.
    pub up: bool,
    /// Its addresses with their prefix length, as configured (host part kept).
    pub addresses: Vec<IpNet>,
    /// MTU in octets.
    pub mtu: u32,
    /// Next hop of the default route of the main table over this interface, IPv4 first; the one
    /// with the smallest metric.
    pub gateway: Option<IpAddr>,
}

/// All interfaces by name. Needs no privilege.
pub async fn interfaces() -> Result<BTreeMap<String, Interface>, Error> {
    let mut routing = Routing::open()?;
    let links = routing.links().await?;
    let addresses = routing.addresses().await?;
    let defaults =
        routing.routes(RouteProtocol::Unspec, |route| route.destination.is_none()).await?;
    let gateway = |index: u32| {
        let hops = defaults
            .iter()
            .flat_map(|route| route.next_hops.iter().map(|hop| (hop, route.priority)));
        let over = hops.filter(|(hop, _)| hop.interface == index);
        let gateways = over.filter_map(|(hop, priority)| Some((hop.gateway?, priority)));
        gateways
            .min_by_key(|(gateway, priority)| (gateway.is_ipv6(), *priority))
            .map(|(gateway, _)| gateway)
    };
    let interface = |link: Link| {
        let own = addresses.iter().filter(|one| one.index == link.index).map(|one| one.address);
        let facts = Interface {
            index: link.index,
            up: link.up,
            addresses: own.collect(),
            mtu: link.mtu,
            gateway: gateway(link.index),
        };
        (link.name, facts)
    };
    Ok(links.into_iter().map(interface).collect())
}

/// Next hop of the default route over `interface`.
pub async fn gateway(interface: &str) -> Result<Option<IpAddr>, Error> {
    let all = interfaces().await?;
    let found = all.get(interface).ok_or_else(|| Error::NoInterface(interface.to_owned()))?;
    Ok(found.gateway)
}
