//! Facts about the machine's interfaces, by rtnetlink.

use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::error::Error;
use crate::netlink::channel::{Channel, Message};
use crate::netlink::{NETLINK_ROUTE, route};

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
    /// Next hop of the default route of the main table over this interface, IPv4 first; the one with the smallest metric.
    pub gateway: Option<IpAddr>,
}

/// All interfaces by name. Needs no privilege.
pub async fn interfaces() -> Result<BTreeMap<String, Interface>, Error> {
    let mut channel = Channel::open(NETLINK_ROUTE)?;
    let mut links = Vec::new();
    let each = |message: Message<'_>| {
        links.extend(route::link(message.body));
        Ok(())
    };
    channel.dump("list interfaces", route::GET_LINK, &route::ANY_LINK, each).await?;
    let mut addresses = Vec::new();
    let each = |message: Message<'_>| {
        addresses.extend(route::interface_address(message.body));
        Ok(())
    };
    channel.dump("list addresses", route::GET_ADDRESS, &route::ANY_ADDRESS, each).await?;
    let mut defaults = Vec::new();
    let each = |message: Message<'_>| {
        defaults.extend(route::route(message.body).filter(|route| route.destination.is_none()));
        Ok(())
    };
    channel.dump("list routes", route::GET_ROUTE, &route::ANY_ROUTE, each).await?;
    let gateway = |index: u32| {
        let over = defaults.iter().filter(|route| route.interface == Some(index));
        let hops = over.filter_map(|route| Some((route.gateway?, route.priority)));
        hops.min_by_key(|(hop, priority)| (hop.is_ipv6(), *priority)).map(|(hop, _)| hop)
    };
    let interface = |link: route::Link| {
        let own = addresses.iter().filter(|(index, _)| *index == link.index).map(|(_, address)| *address);
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
