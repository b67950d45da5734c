//! Identification blocks of a SAT as traffic selectors, and back (RFC 6407 §5.5.1, RFC 2407
//! §4.6.2).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::sa_kek::IdBlock;
use crate::group::{AddressRange, TrafficSelector};
use ike::wire::registry::IdType;

/// Why identification blocks describe no traffic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages explain the fields")]
pub enum SelectorError {
    /// A type other than addresses, subnets and ranges.
    #[error("identification type {0} cannot select traffic")]
    Type(IdType),
    /// Data that is not as long as the type demands.
    #[error("{kind} has {have} octets, needs {need}")]
    Length {
        kind: IdType,
        /// Octets the type demands.
        need: usize,
        have: usize,
    },
    /// A mask with a one behind a zero, which is no prefix.
    #[error("subnet mask {0} is not contiguous")]
    Mask(IpAddr),
    /// Such a mask, or a range that runs backwards, of IPv4 addresses that are a subnet or a range
    /// with their octets in reverse.
    #[error(
        "{0} to {1} is no range or subnet, and is one with the octets of each reversed: the key \
         server copies addresses as they lie in its memory; set selector-byte-order = \"host\""
    )]
    Reversed(IpAddr, IpAddr),
    /// A range whose first address is above its last.
    #[error("range {0} to {1} runs backwards")]
    Order(IpAddr, IpAddr),
    /// One IPv4 and one IPv6 side.
    #[error("source and destination are of different address families")]
    Families,
}

/// The selector that a SAT's blocks describe. Host bits of a subnet do not count.
pub(super) fn read(
    protocol: u8,
    source: &IdBlock,
    destination: &IdBlock,
) -> Result<TrafficSelector, SelectorError> {
    let (one, two) = (family(source.kind), family(destination.kind));
    if matches!((one, two), (Some(one), Some(two)) if one != two) {
        return Err(SelectorError::Families);
    }
    let (mut from, mut to) = (range_or_hint(source)?, range_or_hint(destination)?);
    if from == AddressRange::Any && to == AddressRange::Any && (one.or(two)) == Some(Family::V6) {
        // With no address on either side only the prefix can tell that IPv6 is meant.
        let everything = AddressRange::Subnet(IpNet::V6(ipnet::Ipv6Net::default()));
        (from, to) = (everything, everything);
    }
    Ok(TrafficSelector {
        protocol,
        source: from,
        source_port: source.port,
        destination: to,
        destination_port: destination.port,
    })
}

/// `block` with the octets of each IPv4 address and mask in reverse; other blocks as they are.
pub(super) fn reversed(block: &IdBlock) -> IdBlock {
    let mut block = block.clone();
    if family(block.kind) == Some(Family::V4) {
        block.data.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    }
    block
}

/// The blocks of a selector: source, then destination.
pub(super) fn write(selector: &TrafficSelector) -> (IdBlock, IdBlock) {
    let family = range_family(&selector.source)
        .or(range_family(&selector.destination))
        .unwrap_or(Family::V4);
    let block = |range: &AddressRange, port| {
        let (kind, data) = id(range, family);
        IdBlock { kind, port, data }
    };
    (
        block(&selector.source, selector.source_port),
        block(&selector.destination, selector.destination_port),
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

fn family(kind: IdType) -> Option<Family> {
    match kind {
        IdType::IPV4_ADDR | IdType::IPV4_ADDR_SUBNET | IdType::IPV4_ADDR_RANGE => Some(Family::V4),
        IdType::IPV6_ADDR | IdType::IPV6_ADDR_SUBNET | IdType::IPV6_ADDR_RANGE => Some(Family::V6),
        _ => None,
    }
}

fn range_family(range: &AddressRange) -> Option<Family> {
    let address = match range {
        AddressRange::Any => return None,
        AddressRange::Address(address) | AddressRange::Range(address, _) => *address,
        AddressRange::Subnet(subnet) => subnet.addr(),
    };
    Some(if address.is_ipv4() { Family::V4 } else { Family::V6 })
}

/// As [`range`], with an error that says so where the addresses make sense in reverse.
fn range_or_hint(block: &IdBlock) -> Result<AddressRange, SelectorError> {
    range(block).map_err(|error| {
        let is_hint = matches!(error, SelectorError::Mask(_) | SelectorError::Order(..))
            && family(block.kind) == Some(Family::V4)
            && range(&reversed(block)).is_ok();
        let pair = block.data.split_at_checked(4);
        let pair = pair.and_then(|(first, second)| Some((address(first)?, address(second)?)));
        match pair.filter(|_| is_hint) {
            Some((first, second)) => SelectorError::Reversed(first, second),
            None => error,
        }
    })
}

fn range(block: &IdBlock) -> Result<AddressRange, SelectorError> {
    let data = block.data.as_slice();
    // RFC 6407 §5.5.1 writes "3 octets or zero" for a group with many sources. No type has that
    // length, so that up to three octets of zero under any of them mean every address, and so does
    // a proper form that is all zero.
    let unspecific = data.iter().all(|octet| *octet == 0);
    let need = match block.kind {
        IdType::RESERVED => 0,
        IdType::IPV4_ADDR => 4,
        IdType::IPV4_ADDR_SUBNET | IdType::IPV4_ADDR_RANGE => 8,
        IdType::IPV6_ADDR => 16,
        IdType::IPV6_ADDR_SUBNET | IdType::IPV6_ADDR_RANGE => 32,
        kind => return Err(SelectorError::Type(kind)),
    };
    if unspecific && (data.len() <= 3 || data.len() == need) {
        return Ok(AddressRange::Any);
    }
    let wrong = SelectorError::Length { kind: block.kind, need, have: data.len() };
    let (first, second) = match block.kind {
        IdType::IPV4_ADDR | IdType::IPV6_ADDR => {
            return address(data)
                .map(AddressRange::Address)
                .filter(|_| data.len() == need)
                .ok_or(wrong);
        }
        IdType::RESERVED => return Err(wrong),
        _ if data.len() != need => return Err(wrong),
        _ => data.split_at_checked(need / 2).ok_or(wrong.clone())?,
    };
    let (Some(first), Some(second)) = (address(first), address(second)) else { return Err(wrong) };
    if matches!(block.kind, IdType::IPV4_ADDR_SUBNET | IdType::IPV6_ADDR_SUBNET) {
        let subnet =
            IpNet::with_netmask(first, second).map_err(|_| SelectorError::Mask(second))?.trunc();
        return Ok(match subnet.prefix_len() {
            0 => AddressRange::Any,
            length if length == subnet.max_prefix_len() => AddressRange::Address(subnet.addr()),
            _ => AddressRange::Subnet(subnet),
        });
    }
    match first.cmp(&second) {
        core::cmp::Ordering::Less => Ok(AddressRange::Range(first, second)),
        core::cmp::Ordering::Equal => Ok(AddressRange::Address(first)),
        core::cmp::Ordering::Greater => Err(SelectorError::Order(first, second)),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

fn id(range: &AddressRange, family: Family) -> (IdType, Vec<u8>) {
    let octets = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let pair = |first: &IpAddr, second: &IpAddr| [octets(first), octets(second)].concat();
    let by_family = |v4, v6, address: &IpAddr| if address.is_ipv4() { v4 } else { v6 };
    match range {
        AddressRange::Any => match family {
            Family::V4 => (IdType::IPV4_ADDR_SUBNET, [Ipv4Addr::UNSPECIFIED.octets(); 2].concat()),
            Family::V6 => (IdType::IPV6_ADDR_SUBNET, [Ipv6Addr::UNSPECIFIED.octets(); 2].concat()),
        },
        // As a plain address of zeros it would be read as "every address".
        AddressRange::Address(address) if address.is_unspecified() => (
            by_family(IdType::IPV4_ADDR_SUBNET, IdType::IPV6_ADDR_SUBNET, address),
            [octets(address), vec![0xff; octets(address).len()]].concat(),
        ),
        AddressRange::Address(address) => {
            (by_family(IdType::IPV4_ADDR, IdType::IPV6_ADDR, address), octets(address))
        }
        AddressRange::Subnet(subnet) => (
            by_family(IdType::IPV4_ADDR_SUBNET, IdType::IPV6_ADDR_SUBNET, &subnet.addr()),
            pair(&subnet.network(), &subnet.netmask()),
        ),
        AddressRange::Range(first, last) => {
            (by_family(IdType::IPV4_ADDR_RANGE, IdType::IPV6_ADDR_RANGE, first), pair(first, last))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the fuzz target `sa_group`.
    #[test]
    fn the_unspecified_address_alone_is_not_every_address() {
        for zeros in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            let selector = TrafficSelector {
                protocol: 0,
                source: AddressRange::Address(zeros),
                source_port: 0,
                destination: AddressRange::Address(zeros),
                destination_port: 0,
            };
            let (source, destination) = write(&selector);
            assert_eq!(read(0, &source, &destination), Ok(selector));
        }
    }
}
