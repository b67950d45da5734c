//! Which traffic a pair of SAs is for: the identities IDci and IDcr (RFC 2407 §4.6.2).

use core::fmt;
use core::net::IpAddr;

use ipnet::IpNet;

use crate::wire::id::Identification;
use crate::wire::registry::IdType;

/// Addresses of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Addresses {
    /// One address, or a subnet.
    Net(IpNet),
    /// From the first to the last, both included, of one family.
    Range(IpAddr, IpAddr),
}

/// One side of the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrafficSelector {
    pub addresses: Addresses,
    /// IP protocol, 0 for any.
    pub protocol: u8,
    /// Port, 0 for any.
    pub port: u16,
}

/// Both sides of the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selectors {
    pub local: TrafficSelector,
    pub remote: TrafficSelector,
}

impl TrafficSelector {
    /// All traffic of a network.
    pub fn net(net: IpNet) -> Self {
        Self { addresses: Addresses::Net(net.trunc()), protocol: 0, port: 0 }
    }

    /// The identity that names it. A single address is ID_IPV4_ADDR or ID_IPV6_ADDR.
    pub fn identification(&self) -> Identification {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let by_family = |v4: bool, four, six| if v4 { four } else { six };
        let (kind, data) = match self.addresses {
            Addresses::Net(net) if net.prefix_len() == net.max_prefix_len() => (
                by_family(net.addr().is_ipv4(), IdType::IPV4_ADDR, IdType::IPV6_ADDR),
                octets(net.addr()),
            ),
            Addresses::Net(net) => (
                by_family(net.addr().is_ipv4(), IdType::IPV4_ADDR_SUBNET, IdType::IPV6_ADDR_SUBNET),
                [octets(net.network()), octets(net.netmask())].concat(),
            ),
            Addresses::Range(first, last) => (
                by_family(first.is_ipv4(), IdType::IPV4_ADDR_RANGE, IdType::IPV6_ADDR_RANGE),
                [octets(first), octets(last)].concat(),
            ),
        };
        Identification { kind, protocol: self.protocol, port: self.port, data }
    }

    /// The traffic that an identity names; `None` for names, masks with holes, host bits outside of
    /// a mask, ranges that end before they begin, and ports of a protocol that is not named.
    pub fn of(id: &Identification) -> Option<Self> {
        let addresses = match id.kind {
            IdType::IPV4_ADDR | IdType::IPV6_ADDR => {
                Addresses::Net(IpNet::from(address(id.kind, &id.data)?))
            }
            IdType::IPV4_ADDR_SUBNET | IdType::IPV6_ADDR_SUBNET => {
                let (net, mask) = pair(id)?;
                let net = IpNet::with_netmask(net, mask).ok()?;
                (net.network() == net.addr()).then_some(Addresses::Net(net))?
            }
            IdType::IPV4_ADDR_RANGE | IdType::IPV6_ADDR_RANGE => {
                let (first, last) = pair(id)?;
                if first > last {
                    return None;
                }
                net_of(first, last).map_or(Addresses::Range(first, last), Addresses::Net)
            }
            _ => return None,
        };
        if id.protocol == 0 && id.port != 0 {
            return None;
        }
        Some(Self { addresses, protocol: id.protocol, port: id.port })
    }
}

/// The subnet that is exactly this range, if there is one: some peers write every network as a
/// range.
fn net_of(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let longest = if first.is_ipv4() { 32 } else { 128 };
    (0..=longest)
        .filter_map(|length| IpNet::new(first, length).ok())
        .find(|net| net.network() == first && net.broadcast() == last)
}

fn address(kind: IdType, octets: &[u8]) -> Option<IpAddr> {
    match kind {
        IdType::IPV4_ADDR | IdType::IPV4_ADDR_SUBNET | IdType::IPV4_ADDR_RANGE => {
            <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
        }
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}

fn pair(id: &Identification) -> Option<(IpAddr, IpAddr)> {
    let (one, two) = id.data.split_at_checked(id.data.len() / 2)?;
    Some((address(id.kind, one)?, address(id.kind, two)?))
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addresses {
            Addresses::Net(net) => write!(f, "{net}")?,
            Addresses::Range(first, last) => write!(f, "{first}-{last}")?,
        }
        if self.protocol != 0 {
            write!(f, " protocol {}", self.protocol)?;
        }
        match self.port {
            0 => Ok(()),
            port => write!(f, " port {port}"),
        }
    }
}

impl fmt::Display for Selectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.local, self.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(kind: IdType, data: &[u8]) -> Identification {
        Identification { kind, protocol: 0, port: 0, data: data.to_vec() }
    }

    fn read(kind: IdType, data: &[u8]) -> Option<String> {
        TrafficSelector::of(&id(kind, data)).map(|selector| selector.to_string())
    }

    #[test]
    fn addresses_subnets_and_ranges() {
        for (kind, data, text) in [
            (IdType::IPV4_ADDR, &[10, 0, 0, 1][..], "10.0.0.1/32"),
            (IdType::IPV4_ADDR_SUBNET, &[10, 1, 0, 0, 255, 255, 0, 0], "10.1.0.0/16"),
            (IdType::IPV4_ADDR_SUBNET, &[0; 8], "0.0.0.0/0"),
            (IdType::IPV4_ADDR_RANGE, &[10, 1, 0, 1, 10, 1, 0, 9], "10.1.0.1-10.1.0.9"),
            // A range that is a subnet is one.
            (IdType::IPV4_ADDR_RANGE, &[10, 1, 0, 0, 10, 1, 0, 255], "10.1.0.0/24"),
            (IdType::IPV4_ADDR_RANGE, &[0, 0, 0, 0, 255, 255, 255, 255], "0.0.0.0/0"),
        ] {
            assert_eq!(read(kind, data).as_deref(), Some(text));
        }
        let mut subnet = [0; 32];
        subnet[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        subnet[16..20].fill(255);
        assert_eq!(read(IdType::IPV6_ADDR_SUBNET, &subnet).as_deref(), Some("2001:db8::/32"));
    }

    #[test]
    fn what_names_no_traffic_is_refused() {
        for (kind, data) in [
            (IdType::FQDN, &b"gateway"[..]),
            (IdType::IPV4_ADDR, &[10, 0, 0]),
            (IdType::IPV4_ADDR, &[10, 0, 0, 1, 2]),
            // A mask with a hole, host bits, and a range that ends before it begins.
            (IdType::IPV4_ADDR_SUBNET, &[10, 0, 0, 0, 255, 0, 255, 0]),
            (IdType::IPV4_ADDR_SUBNET, &[10, 0, 0, 1, 255, 255, 255, 0]),
            (IdType::IPV4_ADDR_RANGE, &[10, 0, 0, 9, 10, 0, 0, 1]),
            (IdType::IPV4_ADDR_SUBNET, &[]),
        ] {
            assert_eq!(read(kind, data), None, "{kind} {data:?}");
        }
        let port_without_protocol =
            Identification { port: 53, ..id(IdType::IPV4_ADDR, &[10, 0, 0, 1]) };
        assert_eq!(TrafficSelector::of(&port_without_protocol), None);
    }

    #[test]
    fn every_selector_reads_back() {
        let mut all = Vec::new();
        for net in ["10.0.0.1/32", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1/128"] {
            all.push(TrafficSelector::net(net.parse().unwrap()));
        }
        let range = Addresses::Range([10, 0, 0, 1].into(), [10, 0, 0, 9].into());
        all.push(TrafficSelector { addresses: range, protocol: 17, port: 53 });
        for selector in all {
            assert_eq!(TrafficSelector::of(&selector.identification()), Some(selector));
        }
    }
}
