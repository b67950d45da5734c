//! Expands the traffic selectors of a SAT payload (RFC 6407 §5.5.1) into those of XFRM, which has
//! prefixes but no ranges.

use core::net::IpAddr;

use gdoi::group::{AddressRange, TrafficSelector};
use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};
use xfrm::model::Selector;

use crate::error::Unusable;

/// Prefixes that one range may be split into. No IPv4 range needs more than 62.
pub const RANGE_PREFIXES: usize = 64;
/// Pairs of prefixes that one traffic selector may be split into.
pub const PAIRS_PER_SELECTOR: usize = 256;

/// Protocols whose ports XFRM looks at: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// The kernel's selectors for `selector`, in a fixed order and without an interface. `number` is
/// for errors.
pub(crate) fn expand(selector: &TrafficSelector, number: usize) -> Result<Vec<Selector>, Unusable> {
    if (selector.source_port != 0 || selector.destination_port != 0)
        && !WITH_PORTS.contains(&selector.protocol)
    {
        return Err(Unusable::Port { number, protocol: selector.protocol });
    }
    let ipv4 = match (is_ipv4(&selector.source), is_ipv4(&selector.destination)) {
        (Some(source), Some(destination)) if source != destination => {
            return Err(Unusable::Families { number });
        }
        (Some(ipv4), _) | (None, Some(ipv4)) => ipv4,
        (None, None) => true,
    };
    let sources = prefixes(&selector.source, ipv4, number)?;
    let destinations = prefixes(&selector.destination, ipv4, number)?;
    let count = sources.len().saturating_mul(destinations.len());
    if count > PAIRS_PER_SELECTOR {
        return Err(Unusable::TooManyPairs { number, count, limit: PAIRS_PER_SELECTOR });
    }
    let pairs = sources
        .iter()
        .flat_map(|source| destinations.iter().map(|destination| (*source, *destination)));
    Ok(pairs
        .map(|(source, destination)| Selector {
            protocol: selector.protocol,
            source_port: selector.source_port,
            destination_port: selector.destination_port,
            ..Selector::between(source, destination)
        })
        .collect())
}

/// The kernel's selectors for that of an SA TEK. Address preservation limits them to IPv4 unicast.
pub(crate) fn expand_tek(
    selector: &TrafficSelector,
    number: usize,
) -> Result<Vec<Selector>, Unusable> {
    let expanded = expand(selector, number)?;
    for one in &expanded {
        let (IpNet::V4(source), IpNet::V4(destination)) = (one.source, one.destination) else {
            return Err(Unusable::Ipv6 { number });
        };
        if is_multicast(source) || is_multicast(destination) {
            return Err(Unusable::Multicast { number });
        }
    }
    Ok(expanded)
}

/// The other direction of `selector`.
pub(crate) fn mirror(selector: &Selector) -> Selector {
    Selector {
        source: selector.destination,
        destination: selector.source,
        protocol: selector.protocol,
        source_port: selector.destination_port,
        destination_port: selector.source_port,
        ..selector.clone()
    }
}

/// `selector`, leaving by `interface` only.
pub(crate) fn out_of(selector: &Selector, interface: &str) -> Selector {
    Selector { interface: Some(interface.to_owned()), ..selector.clone() }
}

pub(crate) fn has_ports(selector: &Selector) -> bool {
    selector.source_port != 0 || selector.destination_port != 0
}

/// Whether the selector is about addresses only.
pub(crate) fn is_plain(selector: &Selector) -> bool {
    selector.protocol == 0 && !has_ports(selector)
}

/// All addresses of a family. The default of a prefix type is its prefix of length 0.
pub(crate) fn everything(ipv4: bool) -> IpNet {
    if ipv4 { IpNet::V4(Ipv4Net::default()) } else { IpNet::V6(Ipv6Net::default()) }
}

pub(crate) fn is_everything(prefix: &IpNet) -> bool {
    prefix.prefix_len() == 0
}

/// A range in the configuration's words.
pub(crate) fn describe(range: &AddressRange) -> String {
    match range {
        AddressRange::Any => "any".to_owned(),
        AddressRange::Address(address) => address.to_string(),
        AddressRange::Subnet(prefix) => prefix.to_string(),
        AddressRange::Range(first, last) => format!("{first}-{last}"),
    }
}

fn is_ipv4(range: &AddressRange) -> Option<bool> {
    match range {
        AddressRange::Any => None,
        AddressRange::Address(address) | AddressRange::Range(address, _) => Some(address.is_ipv4()),
        AddressRange::Subnet(prefix) => Some(prefix.addr().is_ipv4()),
    }
}

/// A prefix that merely includes the multicast space, such as 0.0.0.0/0, is not multicast.
fn is_multicast(prefix: Ipv4Net) -> bool {
    prefix.addr().is_multicast() && prefix.prefix_len() >= 4
}

fn prefixes(range: &AddressRange, ipv4: bool, number: usize) -> Result<Vec<IpNet>, Unusable> {
    let everything = everything(ipv4);
    Ok(match range {
        AddressRange::Any => vec![everything],
        AddressRange::Address(address) => vec![IpNet::from(*address)],
        AddressRange::Subnet(prefix) => vec![prefix.trunc()],
        AddressRange::Range(first, last) if last < first => return Err(Unusable::Range { number }),
        AddressRange::Range(first, last) => {
            // Stops one beyond the limit, since an IPv6 range may expand into very many.
            let split: Vec<IpNet> = match (first, last) {
                (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(*first, *last, 0)
                    .take(RANGE_PREFIXES + 1)
                    .map(IpNet::V4)
                    .collect(),
                (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(*first, *last, 0)
                    .take(RANGE_PREFIXES + 1)
                    .map(IpNet::V6)
                    .collect(),
                _ => return Err(Unusable::Families { number }),
            };
            if split.len() > RANGE_PREFIXES {
                return Err(Unusable::TooManyPairs {
                    number,
                    count: split.len(),
                    limit: RANGE_PREFIXES,
                });
            }
            split
        }
    })
}
