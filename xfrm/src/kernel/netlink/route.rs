//! Links, addresses and routes as rtnetlink's messages: the few fields that we need.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::libc::{
    IFA_ADDRESS, IFA_LOCAL, IFF_LOWER_UP, IFF_UP, IFLA_AF_SPEC, IFLA_EXT_MASK, IFLA_IFNAME,
    IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU, RT_SCOPE_LINK,
    RT_SCOPE_NOWHERE, RT_SCOPE_UNIVERSE, RT_TABLE_COMPAT, RT_TABLE_LOCAL, RT_TABLE_UNSPEC, RTA_DST,
    RTA_GATEWAY, RTA_METRICS, RTA_OIF, RTA_TABLE, RTM_DELROUTE, RTM_NEWROUTE, RTN_UNICAST,
};
use socket2::SockFilter;

use crate::attribute::{Attributes, array, find, text};
use crate::desired::PlaceholderRoute;
use crate::error::{Error, Unsupported};

/// Where `disable_policy` stands in a link's IPv4 settings (linux/ip.h, linux/if_link.h).
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_NOPOLICY: u16 = 16;

/// Of a VRF device (linux/if_link.h).
const IFLA_VRF_TABLE: u16 = 1;
/// The interface that packets arrive by, of a routing rule (linux/fib_rules.h).
const FRA_IIFNAME: u16 = 3;

/// Marks our routes: a protocol number (`rtm_protocol`) that no routing daemon has.
const PROTOCOL: u8 = 71;

/// `RTAX_LOCK` and `RTAX_MTU`, attributes inside of `RTA_METRICS`.
const METRIC_LOCK: u16 = 1;
const METRIC_MTU: u16 = 2;
/// The bit of `RTAX_MTU` in `RTAX_LOCK`.
const MTU_LOCKED: u32 = 1 << METRIC_MTU;
/// `RTEXT_FILTER_SKIP_STATS`: a list of interfaces without their counters.
const SKIP_STATISTICS: u32 = 1 << 3;
/// `RTM_F_FIB_MATCH`: a look-up answers with the route that matched. With `RTM_F_LOOKUP_TABLE` it
/// says in which table; it names the main one otherwise.
const FIB_MATCH: u32 = 0x2000 | 0x1000;

/// A next hop of the other family, as `struct rtvia`.
const RTA_VIA: u16 = 18;
/// What a route wraps packets in (linux/lwtunnel.h).
const RTA_ENCAP_TYPE: u16 = 21;
/// Of those, the kinds that take a packet before it is forwarded: ILA, SRv6, a program, RPL. What
/// MPLS and tunnel devices wrap has passed policies and netfilter.
const WRAPPED_EARLY: [u16; 4] = [3, 5, 6, 8];

const ANY_FAMILY: u8 = 0;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// Lengths of `struct ifinfomsg`, `ifaddrmsg` and `rtmsg`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    /// Whether `net.ipv4.conf.NAME.disable_policy` is set.
    pub(crate) exempt: bool,
    /// The index of the device that it is enslaved to.
    pub(crate) master: Option<u32>,
    /// The routing table, if it is a VRF device.
    pub(crate) vrf_table: Option<u32>,
}

/// The body that lists all links.
pub(crate) fn every_link() -> Attributes {
    Attributes::after(&[0; LINK_HEADER]).octets(IFLA_EXT_MASK, &SKIP_STATISTICS.to_ne_bytes())
}

pub(crate) fn link(body: &[u8]) -> Option<Link> {
    let index = array(body, 4).map(u32::from_ne_bytes)?;
    let flags = array(body, 8).map(u32::from_ne_bytes)?;
    let both = (IFF_UP | IFF_LOWER_UP).unsigned_abs();
    let rest = body.get(LINK_HEADER..)?;
    Some(Link {
        index,
        name: text(find(rest, IFLA_IFNAME)?),
        up: flags & both == both,
        mtu: find(rest, IFLA_MTU).and_then(number).unwrap_or(0),
        exempt: is_exempt(rest).unwrap_or(false),
        master: find(rest, IFLA_MASTER).and_then(number),
        vrf_table: find(rest, IFLA_LINKINFO).and_then(vrf_table),
    })
}

fn vrf_table(information: &[u8]) -> Option<u32> {
    let kind = find(information, IFLA_INFO_KIND).map(text)?;
    let table = find(find(information, IFLA_INFO_DATA)?, IFLA_VRF_TABLE).and_then(number)?;
    (kind == "vrf").then_some(table)
}

/// The settings are an array of numbers, counted from 1.
fn is_exempt(link: &[u8]) -> Option<bool> {
    let settings = find(find(find(link, IFLA_AF_SPEC)?, IPV4.into())?, IFLA_INET_CONF)?;
    let position = usize::from(IPV4_DEVCONF_NOPOLICY - 1) * size_of::<u32>();
    array(settings, position).map(|value| u32::from_ne_bytes(value) != 0)
}

/// The body that sets `disable_policy` of an interface. Needs CAP_NET_ADMIN only, and works where
/// `/proc/sys` cannot be written.
pub(crate) fn exemption(index: u32, exempt: bool) -> Attributes {
    let mut header = [0; LINK_HEADER];
    header.iter_mut().skip(4).zip(index.to_ne_bytes()).for_each(|(to, from)| *to = from);
    let setting = Attributes::new().octets(IPV4_DEVCONF_NOPOLICY, &u32::from(exempt).to_ne_bytes());
    let settings = Attributes::new().nested(IFLA_INET_CONF, setting);
    Attributes::after(&header).nested(IFLA_AF_SPEC, Attributes::new().nested(IPV4.into(), settings))
}

/// An address and the link that has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InterfaceAddress {
    pub(crate) index: u32,
    pub(crate) address: IpNet,
}

/// The body that lists all addresses.
pub(crate) fn every_address() -> Attributes {
    Attributes::after(&[0; ADDRESS_HEADER])
}

pub(crate) fn interface_address(body: &[u8]) -> Option<InterfaceAddress> {
    let prefix = *body.get(1)?;
    let index = array(body, 4).map(u32::from_ne_bytes)?;
    let rest = body.get(ADDRESS_HEADER..)?;
    // On a point-to-point link IFA_ADDRESS is the other end, and IFA_LOCAL ours.
    let own = find(rest, IFA_LOCAL).or_else(|| find(rest, IFA_ADDRESS))?;
    Some(InterfaceAddress { index, address: IpNet::new(address(own)?, prefix).ok()? })
}

/// A unicast route with one next hop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// `None`: the default route.
    pub(crate) destination: Option<IpNet>,
    pub(crate) interface: u32,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) mtu_locked: Option<u32>,
    pub(crate) table: u32,
    pub(crate) ours: bool,
    /// Whether it wraps packets of others in another header before any policy or hook of netfilter
    /// sees that they leave.
    pub(crate) wraps_early: bool,
}

pub(crate) fn route(body: &[u8]) -> Option<Route> {
    let header: [u8; ROUTE_HEADER] = array(body, 0)?;
    let [_, prefix, _, _, table, protocol, _, kind, ..] = header;
    let rest = body.get(ROUTE_HEADER..)?;
    let table = find(rest, RTA_TABLE).and_then(number).unwrap_or_else(|| u32::from(table));
    if table == u32::from(RT_TABLE_LOCAL) || kind != RTN_UNICAST {
        return None;
    }
    let destination = match find(rest, RTA_DST) {
        Some(value) => Some(IpNet::new(address(value)?, prefix).ok()?),
        None => None,
    };
    let metrics = find(rest, RTA_METRICS).unwrap_or_default();
    let metric = |kind| find(metrics, kind).and_then(number);
    let locked = metric(METRIC_LOCK).unwrap_or(0) & MTU_LOCKED != 0;
    Some(Route {
        destination,
        interface: find(rest, RTA_OIF).and_then(number)?,
        gateway: gateway(rest),
        mtu_locked: metric(METRIC_MTU).filter(|_| locked),
        table,
        ours: protocol == PROTOCOL,
        wraps_early: find(rest, RTA_ENCAP_TYPE)
            .and_then(|kind| array(kind, 0))
            .is_some_and(|kind| WRAPPED_EARLY.contains(&u16::from_ne_bytes(kind))),
    })
}

/// The body that lists the IPv4 routing rules.
pub(crate) fn every_rule() -> Attributes {
    Attributes::after(&[IPV4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// The interface whose arrivals a routing rule is about.
pub(crate) fn rule_input(body: &[u8]) -> Option<String> {
    find(body.get(ROUTE_HEADER..)?, FRA_IIFNAME).map(text)
}

/// The body that lists the routes of ours, of all tables and both families.
pub(crate) fn every_route_of_ours() -> Attributes {
    Attributes::after(&[ANY_FAMILY, 0, 0, 0, RT_TABLE_UNSPEC, PROTOCOL, 0, RTN_UNICAST, 0, 0, 0, 0])
}

/// The body that looks up the route which matches `destination` in the main table, or in that of a
/// VRF device.
pub(crate) fn lookup(destination: IpAddr, vrf: Option<u32>) -> Attributes {
    ask(destination, vrf, FIB_MATCH)
}

/// The body that looks up where a packet to `destination` would go over this interface. The kernel
/// takes a destination that no route leads to for one on the link.
pub(crate) fn lookup_by(destination: IpAddr, interface: u32) -> Attributes {
    ask(destination, Some(interface), 0)
}

fn ask(destination: IpAddr, interface: Option<u32>, flags: u32) -> Attributes {
    let host = IpNet::from(destination);
    let [a, b, c, d] = flags.to_ne_bytes();
    let header = [family(destination), host.prefix_len(), 0, 0, 0, 0, 0, 0, a, b, c, d];
    let body = Attributes::after(&header).octets(RTA_DST, &octets(destination));
    interface.into_iter().fold(body, |body, index| body.octets(RTA_OIF, &index.to_ne_bytes()))
}

/// The next hop that a look-up has found.
pub(crate) fn next_hop(body: &[u8]) -> Option<IpAddr> {
    gateway(body.get(ROUTE_HEADER..)?)
}

/// The program that leaves out, in the kernel, notifications of routes that do not
/// [concern us](concerns_us): a routing daemon may load a million of them. Whatever is no route
/// passes.
pub(crate) fn filter() -> [SockFilter; 9] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_OCTET: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // A netlink header of 16 octets comes before `struct rtmsg`.
    const KIND: u32 = 4;
    const PREFIX: u32 = 16 + 1;
    const PROTOCOL_OF_ROUTE: u32 = 16 + 5;
    // The program loads numbers in network byte order.
    let kind = |kind: u16| u32::from(kind.to_be());
    [
        SockFilter::new(LOAD_HALF, 0, 0, KIND),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, kind(RTM_NEWROUTE)),
        SockFilter::new(JUMP_IF_EQUAL, 0, 5, kind(RTM_DELROUTE)),
        SockFilter::new(LOAD_OCTET, 0, 0, PREFIX),
        SockFilter::new(JUMP_IF_EQUAL, 3, 0, 0),
        SockFilter::new(LOAD_OCTET, 0, 0, PROTOCOL_OF_ROUTE),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, u32::from(PROTOCOL)),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// Whether a notification is about a default route or a route of ours: no other route matters.
pub(crate) fn concerns_us(body: &[u8]) -> bool {
    let header: Option<[u8; ROUTE_HEADER]> = array(body, 0);
    header.is_some_and(|[_, prefix, _, _, _, protocol, ..]| prefix == 0 || protocol == PROTOCOL)
}

/// The placeholder route, to be added or deleted, over the interface with this index.
pub(crate) fn placeholder(wanted: &PlaceholderRoute, index: u32) -> Result<Attributes, Error> {
    let scope = if wanted.gateway.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
    let metrics = Attributes::new()
        .octets(METRIC_LOCK, &MTU_LOCKED.to_ne_bytes())
        .octets(METRIC_MTU, &wanted.mtu.to_ne_bytes());
    let body = to(wanted.placeholder, scope, wanted.table)
        .octets(RTA_OIF, &index.to_ne_bytes())
        .nested(RTA_METRICS, metrics);
    match (wanted.placeholder, wanted.gateway) {
        (_, None) => Ok(body),
        (IpAddr::V4(_), Some(gateway @ IpAddr::V4(_)))
        | (IpAddr::V6(_), Some(gateway @ IpAddr::V6(_))) => {
            Ok(body.octets(RTA_GATEWAY, &octets(gateway)))
        }
        // IPv4 over an IPv6 next hop (RFC 5549): `struct rtvia`.
        (IpAddr::V4(_), Some(IpAddr::V6(gateway))) => {
            let via = [&u16::from(IPV6).to_ne_bytes()[..], &gateway.octets()].concat();
            Ok(body.octets(RTA_VIA, &via))
        }
        (placeholder @ IpAddr::V6(_), Some(gateway)) => {
            Err(Error::Unsupported(Unsupported::NextHop { placeholder, gateway }))
        }
    }
}

/// Whatever route of ours leads to this address in a table, to be deleted.
pub(crate) fn any_placeholder(placeholder: IpAddr, table: u32) -> Attributes {
    // To the kernel this scope means any.
    to(placeholder, RT_SCOPE_NOWHERE, table)
}

fn to(placeholder: IpAddr, scope: u8, table: u32) -> Attributes {
    let (family, length) = (family(placeholder), IpNet::from(placeholder).prefix_len());
    let short = u8::try_from(table).ok();
    let header = [
        family,
        length,
        0,
        0,
        short.unwrap_or(RT_TABLE_COMPAT),
        PROTOCOL,
        scope,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let body = Attributes::after(&header).octets(RTA_DST, &octets(placeholder));
    if short.is_some() { body } else { body.octets(RTA_TABLE, &table.to_ne_bytes()) }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { IPV4 } else { IPV6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn gateway(rest: &[u8]) -> Option<IpAddr> {
    let via = || find(rest, RTA_VIA).and_then(|via| address(via.get(2..)?));
    find(rest, RTA_GATEWAY).and_then(address).or_else(via)
}

/// An address by its length.
fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => array(value, 0).map(|octets: [u8; 4]| IpAddr::V4(Ipv4Addr::from(octets))),
        16 => array(value, 0).map(|octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets))),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<u32> {
    array(value, 0).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::MAIN_TABLE;

    fn wanted(placeholder: &str, gateway: Option<&str>) -> PlaceholderRoute {
        PlaceholderRoute {
            placeholder: placeholder.parse().unwrap(),
            interface: String::from("wan"),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            mtu: 1500,
            table: MAIN_TABLE,
        }
    }

    #[test]
    fn a_route_reads_back() {
        let (v4, v6) = ("192.0.2.1", "fd00::1");
        for (to, via) in
            [(v4, Some("10.0.1.254")), (v4, None), (v4, Some("fe80::1")), (v6, Some("fe80::1"))]
        {
            let wanted = wanted(to, via);
            let read = route(placeholder(&wanted, 7).unwrap().as_octets()).unwrap();
            assert_eq!(read.destination, Some(IpNet::from(wanted.placeholder)));
            assert_eq!((read.interface, read.gateway), (7, wanted.gateway));
            assert_eq!(read.mtu_locked, Some(1500));
            assert!(read.ours);
            for table in [MAIN_TABLE, 10, 1_001] {
                let of_vrf = placeholder(&PlaceholderRoute { table, ..wanted.clone() }, 7).unwrap();
                assert_eq!(route(of_vrf.as_octets()).unwrap().table, table);
            }
        }
        assert!(placeholder(&wanted(v6, Some("10.0.1.254")), 7).is_err());
    }

    /// `struct rtmsg` and what follows, as linux/rtnetlink.h lays them out.
    #[test]
    fn octets_are_where_the_kernel_looks() {
        let body = placeholder(&wanted("192.0.2.1", None), 7).unwrap();
        let octets = body.as_octets();
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
        let body = any_placeholder("192.0.2.1".parse().unwrap(), MAIN_TABLE);
        assert_eq!(
            body.as_octets(),
            [2, 32, 0, 0, 254, 71, 255, 1, 0, 0, 0, 0, 8, 0, 1, 0, 192, 0, 2, 1]
        );
    }

    #[test]
    fn foreign_tables_and_kinds_are_left_out_and_an_unlocked_mtu_is_none() {
        let body = placeholder(&wanted("192.0.2.1", None), 7).unwrap();
        let with = |offset: usize, value: u8| {
            let mut changed = body.as_octets().to_vec();
            changed[offset] = value;
            route(&changed)
        };
        // Table local; a black hole.
        assert_eq!((with(4, 255), with(7, 6)), (None, None));
        // Of a routing daemon.
        assert!(!with(5, 4).unwrap().ours);
        // `RTAX_LOCK` as another metric.
        let lock = body.as_octets().windows(4).position(|octets| octets == [4, 0, 0, 0]).unwrap();
        assert_eq!(with(lock, 0).unwrap().mtu_locked, None);
    }

    #[test]
    fn a_short_message_is_nothing() {
        let body = placeholder(&wanted("192.0.2.1", Some("10.0.1.254")), 7).unwrap();
        for length in 0..ROUTE_HEADER + 8 {
            let cut = &body.as_octets()[..length];
            assert_eq!((route(cut), link(cut), interface_address(cut)), (None, None, None));
        }
    }

    #[test]
    fn only_default_routes_and_ours_concern_us() {
        let ours = placeholder(&wanted("192.0.2.1", None), 7).unwrap();
        let mut octets = ours.as_octets().to_vec();
        assert!(concerns_us(&octets));
        octets[5] = 186;
        assert!(!concerns_us(&octets), "a host route of a routing daemon");
        octets[1] = 0;
        assert!(concerns_us(&octets), "a default route");
        assert!(!concerns_us(&octets[..ROUTE_HEADER - 1]));
    }

    #[test]
    fn our_end_of_a_point_to_point_link_counts() {
        let begin = |prefix: u8| Attributes::after(&[2, prefix, 0, 0, 5, 0, 0, 0]);
        let read = interface_address(begin(32).octets(IFA_ADDRESS, &[10, 0, 0, 2]).as_octets());
        let read = read.unwrap();
        assert_eq!((read.index, read.address), (5, "10.0.0.2/32".parse().unwrap()));
        let both = |prefix| {
            begin(prefix).octets(IFA_ADDRESS, &[10, 0, 0, 2]).octets(IFA_LOCAL, &[10, 0, 0, 1])
        };
        let read = interface_address(both(32).as_octets()).unwrap();
        assert_eq!(read.address, "10.0.0.1/32".parse().unwrap());
        assert_eq!(interface_address(both(33).as_octets()), None);
    }

    #[test]
    fn a_link_is_up_with_a_carrier() {
        let message = |flags: i32| {
            let header = [[0; 4], 5u32.to_ne_bytes(), flags.to_ne_bytes(), [0; 4]].concat();
            let body = Attributes::after(&header).text(IFLA_IFNAME, "wan");
            body.octets(IFLA_MTU, &1400u32.to_ne_bytes())
        };
        for (flags, up) in [(IFF_UP, false), (IFF_LOWER_UP, false), (IFF_UP | IFF_LOWER_UP, true)] {
            assert_eq!(
                link(message(flags).as_octets()),
                Some(Link {
                    index: 5,
                    name: String::from("wan"),
                    up,
                    mtu: 1400,
                    exempt: false,
                    master: None,
                    vrf_table: None
                })
            );
        }
        assert_eq!(link(Attributes::after(&[0; LINK_HEADER]).as_octets()), None);
    }
}
