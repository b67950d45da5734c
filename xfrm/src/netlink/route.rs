//! Links, addresses and routes on the wire of rtnetlink: the few fields that we need.

use core::net::IpAddr;

use ipnet::IpNet;

use crate::attribute::{Attributes, array, find, text};
use crate::desired::PlaceholderRoute;

pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const DELETE_LINK: u16 = 17;
pub(crate) const GET_LINK: u16 = 18;
pub(crate) const NEW_ADDRESS: u16 = 20;
pub(crate) const DELETE_ADDRESS: u16 = 21;
pub(crate) const GET_ADDRESS: u16 = 22;
pub(crate) const NEW_ROUTE: u16 = 24;
pub(crate) const DELETE_ROUTE: u16 = 25;
pub(crate) const GET_ROUTE: u16 = 26;

/// `struct ifinfomsg`, `ifaddrmsg` and `rtmsg` of a dump: any family, nothing else.
pub(crate) const ANY_LINK: [u8; 16] = [0; 16];
pub(crate) const ANY_ADDRESS: [u8; 8] = [0; 8];
pub(crate) const ANY_ROUTE: [u8; 12] = [0; 12];

/// Marks our routes: a protocol number that no routing daemon has.
const PROTOCOL: u8 = 71;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TABLE_MAIN: u8 = 254;
const SCOPE_LINK: u8 = 253;
const UNICAST: u8 = 1;
const FLAG_UP: u32 = 1;
const FLAG_LOWER_UP: u32 = 1 << 16;
const METRIC_LOCK: u16 = 1;
const METRIC_MTU: u16 = 2;
const MTU_LOCKED: u32 = 1 << METRIC_MTU;

/// A link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
}

pub(crate) fn link(body: &[u8]) -> Option<Link> {
    let flags = ne32(body, 8)?;
    let rest = body.get(ANY_LINK.len()..)?;
    Some(Link {
        index: ne32(body, 4)?,
        name: text(find(rest, 3)?),
        up: flags & FLAG_UP != 0 && flags & FLAG_LOWER_UP != 0,
        mtu: find(rest, 4).and_then(|value| ne32(value, 0)).unwrap_or(0),
    })
}

/// An interface's index and one address of it.
pub(crate) fn interface_address(body: &[u8]) -> Option<(u32, IpNet)> {
    let [family, length, ..] = array::<4>(body, 0)?;
    let rest = body.get(ANY_ADDRESS.len()..)?;
    // On a point-to-point link IFA_ADDRESS is the other end, and IFA_LOCAL ours.
    let octets = find(rest, 2).or_else(|| find(rest, 1))?;
    Some((ne32(body, 4)?, IpNet::new(address(family, octets)?, length).ok()?))
}

/// A route of the main table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: Option<IpNet>,
    pub(crate) interface: Option<u32>,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) priority: u32,
    pub(crate) mtu_locked: Option<u32>,
    pub(crate) ours: bool,
}

pub(crate) fn route(body: &[u8]) -> Option<Route> {
    let [family, length, _, _, table, protocol, _, kind] = array::<8>(body, 0)?;
    if table != TABLE_MAIN || kind != UNICAST {
        return None;
    }
    let rest = body.get(ANY_ROUTE.len()..)?;
    let number = |octets: &[u8], kind| find(octets, kind).and_then(|value| ne32(value, 0));
    let destination = find(rest, 1).and_then(|value| IpNet::new(address(family, value)?, length).ok());
    let metrics = find(rest, 8).unwrap_or_default();
    let locked = number(metrics, METRIC_LOCK).unwrap_or(0) & MTU_LOCKED != 0;
    Some(Route {
        destination,
        interface: number(rest, 4),
        gateway: find(rest, 5).and_then(|value| address(family, value)),
        priority: number(rest, 6).unwrap_or(0),
        mtu_locked: number(metrics, METRIC_MTU).filter(|_| locked),
        ours: protocol == PROTOCOL,
    })
}

/// The body that adds or deletes a placeholder route over the interface with this index.
pub(crate) fn encode(wanted: &PlaceholderRoute, index: u32) -> Attributes {
    let (family, destination) = octets(wanted.placeholder);
    let length = u8::try_from(destination.len() * 8).unwrap_or(u8::MAX);
    let scope = if wanted.gateway.is_some() { 0 } else { SCOPE_LINK };
    let header = [family, length, 0, 0, TABLE_MAIN, PROTOCOL, scope, UNICAST, 0, 0, 0, 0];
    let body = Attributes::after(&header).octets(1, &destination).octets(4, &index.to_ne_bytes());
    let metrics = Attributes::new().octets(METRIC_LOCK, &MTU_LOCKED.to_ne_bytes());
    let body = body.nested(8, metrics.octets(METRIC_MTU, &wanted.mtu.to_ne_bytes()));
    wanted.gateway.iter().fold(body, |body, gateway| body.octets(5, &octets(*gateway).1))
}

/// The body that deletes whatever route of ours leads to this address.
pub(crate) fn encode_id(placeholder: IpAddr) -> Vec<u8> {
    let (family, destination) = octets(placeholder);
    let length = u8::try_from(destination.len() * 8).unwrap_or(u8::MAX);
    // 255: any scope.
    let header = [family, length, 0, 0, TABLE_MAIN, PROTOCOL, 255, UNICAST, 0, 0, 0, 0];
    Attributes::after(&header).octets(1, &destination).as_octets().to_vec()
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    }
}

fn address(family: u8, octets: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => array::<4>(octets, 0).map(IpAddr::from),
        AF_INET6 => array::<16>(octets, 0).map(IpAddr::from),
        _ => None,
    }
}

fn ne32(octets: &[u8], offset: usize) -> Option<u32> {
    array(octets, offset).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_reads_back() {
        let wanted = PlaceholderRoute {
            placeholder: "192.0.2.1".parse().unwrap(),
            interface: String::from("wan"),
            gateway: Some("10.0.1.254".parse().unwrap()),
            mtu: 1500,
        };
        let read = route(encode(&wanted, 7).as_octets()).unwrap();
        assert_eq!(read.destination, Some("192.0.2.1/32".parse().unwrap()));
        assert_eq!((read.interface, read.gateway, read.mtu_locked), (Some(7), wanted.gateway, Some(1500)));
        assert!(read.ours);
    }

    #[test]
    fn short_bodies_are_nothing() {
        for length in 0..12 {
            let body = vec![0xfe; length];
            assert!(route(&body).is_none());
            assert!(link(&body).is_none());
            assert!(interface_address(&body).is_none());
        }
    }
}
