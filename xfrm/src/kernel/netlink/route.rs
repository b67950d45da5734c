//! Links, addresses and routes as rtnetlink's messages: the few fields that we need.

use core::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};
use rtnetlink::RouteMessageBuilder;

use crate::desired::PlaceholderRoute;
use crate::error::Error;

/// Marks our routes: a protocol number that no routing daemon has.
pub(crate) const PROTOCOL: RouteProtocol = RouteProtocol::Other(71);

/// The bit of RTAX_MTU (2) in RTAX_LOCK.
const MTU_LOCKED: u32 = 1 << 2;

/// A link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
}

pub(crate) fn link(message: &LinkMessage) -> Option<Link> {
    let (mut name, mut mtu) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Mtu(value) => mtu = *value,
            _ => {}
        }
    }
    let up = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
    Some(Link { index: message.header.index, name: name?, up, mtu })
}

/// An address and the link that has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InterfaceAddress {
    pub(crate) index: u32,
    pub(crate) address: IpNet,
}

pub(crate) fn interface_address(message: &AddressMessage) -> Option<InterfaceAddress> {
    let (mut local, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the other end, and IFA_LOCAL ours.
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            _ => {}
        }
    }
    let address = IpNet::new(local.or(other)?, message.header.prefix_len).ok()?;
    Some(InterfaceAddress { index: message.header.index, address })
}

/// Where a route leads: an interface, and a gateway unless the destination is on the link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NextHop {
    pub(crate) interface: u32,
    pub(crate) gateway: Option<IpAddr>,
}

/// A unicast route of the main table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// `None`: the default route.
    pub(crate) destination: Option<IpNet>,
    /// Several with multipath.
    pub(crate) next_hops: Vec<NextHop>,
    pub(crate) priority: u32,
    pub(crate) mtu_locked: Option<u32>,
    pub(crate) ours: bool,
}

pub(crate) fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let (mut destination, mut interface, mut priority) = (None, None, 0);
    let (mut next_hops, mut mtu, mut locked) = (Vec::new(), None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(value) => destination = Some(address(value)?),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Priority(value) => priority = *value,
            RouteAttribute::MultiPath(hops) => {
                let hop = |hop: &netlink_packet_route::route::RouteNextHop| NextHop {
                    interface: hop.interface_index,
                    gateway: gateway(&hop.attributes),
                };
                next_hops.extend(hops.iter().map(hop));
            }
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(value) => mtu = Some(*value),
                        RouteMetric::Lock(value) => locked = *value,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    next_hops.extend(
        interface.map(|interface| NextHop { interface, gateway: gateway(&message.attributes) }),
    );
    let destination = match destination {
        Some(address) => Some(IpNet::new(address, header.destination_prefix_length).ok()?),
        None => None,
    };
    let mtu_locked = mtu.filter(|_| locked & MTU_LOCKED != 0);
    Some(Route { destination, next_hops, priority, mtu_locked, ours: header.protocol == PROTOCOL })
}

/// What a dump asks for: the unicast routes of the main table, both families.
pub(crate) fn every_route(protocol: RouteProtocol) -> RouteMessage {
    RouteMessageBuilder::<IpAddr>::new().protocol(protocol).build()
}

/// The placeholder route, to be added or deleted, over the interface with this index.
pub(crate) fn placeholder(wanted: &PlaceholderRoute, index: u32) -> Result<RouteMessage, Error> {
    let scope = if wanted.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let mut builder = to(wanted.placeholder)?.scope(scope).output_interface(index);
    let metrics = vec![RouteMetric::Lock(MTU_LOCKED), RouteMetric::Mtu(wanted.mtu)];
    builder.get_mut().attributes.push(RouteAttribute::Metrics(metrics));
    if let Some(gateway) = wanted.gateway {
        builder = builder.gateway(gateway).map_err(unsupported(wanted.placeholder))?;
    }
    Ok(builder.build())
}

/// Whatever route of ours leads to this address, to be deleted.
pub(crate) fn any_placeholder(placeholder: IpAddr) -> Result<RouteMessage, Error> {
    // To the kernel this scope means any.
    Ok(to(placeholder)?.scope(RouteScope::NoWhere).build())
}

fn to(placeholder: IpAddr) -> Result<RouteMessageBuilder<IpAddr>, Error> {
    let host = IpNet::from(placeholder);
    let builder = RouteMessageBuilder::<IpAddr>::new().protocol(PROTOCOL);
    builder.destination_prefix(host.addr(), host.prefix_len()).map_err(unsupported(placeholder))
}

fn unsupported<E: core::fmt::Display>(placeholder: IpAddr) -> impl Fn(E) -> Error {
    move |reason| Error::Unsupported(format!("a route to the placeholder {placeholder}: {reason}"))
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(value) => address(value),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

fn address(value: &RouteAddress) -> Option<IpAddr> {
    match value {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable, Parseable};
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::route::RouteNextHop;

    use super::*;

    fn wanted(placeholder: &str, gateway: Option<&str>) -> PlaceholderRoute {
        PlaceholderRoute {
            placeholder: placeholder.parse().unwrap(),
            interface: String::from("wan"),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            mtu: 1500,
        }
    }

    fn octets(message: &RouteMessage) -> Vec<u8> {
        let mut octets = vec![0; message.buffer_len()];
        message.emit(&mut octets);
        octets
    }

    #[test]
    fn a_route_reads_back() {
        let (v4, v6) = ("192.0.2.1", "fd00::1");
        for (to, via) in
            [(v4, Some("10.0.1.254")), (v4, None), (v4, Some("fe80::1")), (v6, Some("fe80::1"))]
        {
            let wanted = wanted(to, via);
            let octets = octets(&placeholder(&wanted, 7).unwrap());
            let read = route(&RouteMessage::parse(&octets).unwrap()).unwrap();
            assert_eq!(read.destination, Some(IpNet::from(wanted.placeholder)));
            assert_eq!(read.next_hops, [NextHop { interface: 7, gateway: wanted.gateway }]);
            assert_eq!(read.mtu_locked, Some(1500));
            assert!(read.ours);
        }
    }

    /// `struct rtmsg` and what follows, as linux/rtnetlink.h lays them out.
    #[test]
    fn octets_are_where_the_kernel_looks() {
        let octets = octets(&placeholder(&wanted("192.0.2.1", None), 7).unwrap());
        // Family, length, table main, protocol 71, scope link, unicast.
        assert_eq!(octets[..12], [2, 32, 0, 0, 254, 71, 253, 1, 0, 0, 0, 0]);
        let held =
            |attribute: &[u8]| octets.windows(attribute.len()).any(|window| window == attribute);
        assert!(held(&[8, 0, 1, 0, 192, 0, 2, 1]), "{octets:?}");
        assert!(held(&[&[8, 0, 4, 0][..], &7u32.to_ne_bytes()].concat()), "{octets:?}");
        let metrics =
            [&[8, 0, 1, 0][..], &4u32.to_ne_bytes(), &[8, 0, 2, 0], &1500u32.to_ne_bytes()]
                .concat();
        assert!(held(&metrics), "{octets:?}");
    }

    #[test]
    fn a_deletion_names_no_interface() {
        let octets = octets(&any_placeholder("192.0.2.1".parse().unwrap()).unwrap());
        assert_eq!(octets, [2, 32, 0, 0, 254, 71, 255, 1, 0, 0, 0, 0, 8, 0, 1, 0, 192, 0, 2, 1]);
    }

    #[test]
    fn foreign_tables_and_kinds_are_left_out_and_an_unlocked_mtu_is_none() {
        let message = placeholder(&wanted("192.0.2.1", None), 7).unwrap();
        let mut table = message.clone();
        table.header.table = 255;
        let mut kind = message.clone();
        kind.header.kind = RouteType::BlackHole;
        assert_eq!((route(&table), route(&kind)), (None, None));
        let mut unlocked = message;
        unlocked.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Metrics(_)));
        unlocked.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(1500)]));
        unlocked.header.protocol = RouteProtocol::Static;
        let read = route(&unlocked).unwrap();
        assert_eq!((read.mtu_locked, read.ours), (None, false));
    }

    #[test]
    fn a_multipath_default_route_has_every_next_hop() {
        let hop = |interface: u32, gateway: &str| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = interface;
            let gateway: IpAddr = gateway.parse().unwrap();
            hop.attributes.push(RouteAttribute::Gateway(gateway.into()));
            hop
        };
        let hops = vec![hop(3, "10.0.1.254"), hop(4, "10.0.2.254")];
        let mut message = RouteMessageBuilder::<IpAddr>::new().multipath(hops).build();
        message.header.address_family = AddressFamily::Inet;
        let read = route(&RouteMessage::parse(&octets(&message)).unwrap()).unwrap();
        assert_eq!(read.destination, None);
        let next_hop = |interface, gateway: &str| NextHop {
            interface,
            gateway: Some(gateway.parse().unwrap()),
        };
        assert_eq!(read.next_hops, [next_hop(3, "10.0.1.254"), next_hop(4, "10.0.2.254")]);
    }

    #[test]
    fn our_end_of_a_point_to_point_link_counts() {
        let mut message = AddressMessage::default();
        (message.header.index, message.header.prefix_len) = (5, 32);
        message.attributes.push(AddressAttribute::Address("10.0.0.2".parse().unwrap()));
        let read = interface_address(&message).unwrap();
        assert_eq!((read.index, read.address), (5, "10.0.0.2/32".parse().unwrap()));
        message.attributes.push(AddressAttribute::Local("10.0.0.1".parse().unwrap()));
        assert_eq!(interface_address(&message).unwrap().address, "10.0.0.1/32".parse().unwrap());
        message.header.prefix_len = 33;
        assert_eq!(interface_address(&message), None);
    }

    #[test]
    fn a_link_is_up_with_a_carrier() {
        let mut message = LinkMessage::default();
        message.header.index = 5;
        assert_eq!(link(&message), None);
        message.attributes.push(LinkAttribute::IfName(String::from("wan")));
        message.attributes.push(LinkAttribute::Mtu(1400));
        for (flags, up) in [
            (LinkFlags::Up, false),
            (LinkFlags::LowerUp, false),
            (LinkFlags::Up | LinkFlags::LowerUp, true),
        ] {
            message.header.flags = flags;
            assert_eq!(
                link(&message),
                Some(Link { index: 5, name: String::from("wan"), up, mtu: 1400 })
            );
        }
    }
}
