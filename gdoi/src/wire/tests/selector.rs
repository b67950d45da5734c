//! Identification blocks as selectors: every type, every oddity of RFC 6407 §5.5.1.

use core::net::IpAddr;

use crate::group::{AddressRange, TrafficSelector};
use crate::wire::SelectorError;
use crate::wire::sa_kek::IdBlock;
use crate::wire::selector::{read, write};
use crate::wire::testing::hex;
use ike::wire::registry::IdType;

fn block(kind: IdType, data: &str) -> IdBlock {
    IdBlock { kind, port: 0, data: hex(data) }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn subnet(text: &str) -> AddressRange {
    AddressRange::Subnet(text.parse().expect("a subnet"))
}

/// The source range of a selector whose other side is any address.
fn source(kind: IdType, data: &str) -> Result<AddressRange, SelectorError> {
    let selector = read(0, &block(kind, data), &block(IdType::RESERVED, ""))?;
    assert_eq!(selector.destination, AddressRange::Any);
    let (one, two) = write(&selector);
    assert_eq!(read(0, &one, &two).as_ref(), Ok(&selector), "written and read again");
    Ok(selector.source)
}

#[test]
fn each_type() {
    let cases = [
        (IdType::IPV4_ADDR, "0a000001", AddressRange::Address(ip("10.0.0.1"))),
        (IdType::IPV4_ADDR_SUBNET, "0a000000 ff000000", subnet("10.0.0.0/8")),
        (IdType::IPV4_ADDR_SUBNET, "0a000001 ffffffff", AddressRange::Address(ip("10.0.0.1"))),
        (IdType::IPV4_ADDR_SUBNET, "0a010203 ff000000", subnet("10.0.0.0/8")),
        (IdType::IPV4_ADDR_SUBNET, "0a010203 00000000", AddressRange::Any),
        (
            IdType::IPV4_ADDR_RANGE,
            "0a000001 0a000005",
            AddressRange::Range(ip("10.0.0.1"), ip("10.0.0.5")),
        ),
        (IdType::IPV4_ADDR_RANGE, "0a000001 0a000001", AddressRange::Address(ip("10.0.0.1"))),
        (
            IdType::IPV4_ADDR_RANGE,
            "00000000 ffffffff",
            AddressRange::Range(ip("0.0.0.0"), ip("255.255.255.255")),
        ),
        (
            IdType::IPV6_ADDR,
            "20010db8000000000000000000000001",
            AddressRange::Address(ip("2001:db8::1")),
        ),
        (
            IdType::IPV6_ADDR_SUBNET,
            "20010db8000000000000000000000000 ffffffff000000000000000000000000",
            subnet("2001:db8::/32"),
        ),
        (
            IdType::IPV6_ADDR_RANGE,
            "20010db8000000000000000000000001 20010db8000000000000000000000002",
            AddressRange::Range(ip("2001:db8::1"), ip("2001:db8::2")),
        ),
    ];
    for (kind, data, expected) in cases {
        assert_eq!(source(kind, data), Ok(expected), "{kind} {data}");
    }
}

#[test]
fn all_zero_data_is_any_address() {
    for data in ["", "00", "0000", "000000"] {
        assert_eq!(source(IdType::RESERVED, data), Ok(AddressRange::Any), "{data}");
        assert_eq!(source(IdType::IPV4_ADDR, data), Ok(AddressRange::Any), "{data}");
    }
    assert_eq!(source(IdType::IPV4_ADDR, "00000000"), Ok(AddressRange::Any));
    assert_eq!(source(IdType::IPV4_ADDR_SUBNET, "0000000000000000"), Ok(AddressRange::Any));
    assert_eq!(source(IdType::IPV4_ADDR_RANGE, "0000000000000000"), Ok(AddressRange::Any));
}

#[test]
fn any_address_of_both_sides_keeps_its_family() {
    let zero = block(IdType::IPV6_ADDR_SUBNET, &"00".repeat(32));
    let selector = read(0, &zero, &zero).expect("any");
    assert_eq!((selector.source, selector.destination), (subnet("::/0"), subnet("::/0")));
    assert_eq!(write(&selector), (zero.clone(), zero.clone()));
    let mixed = read(0, &zero, &block(IdType::RESERVED, "000000")).expect("any");
    assert_eq!(mixed, selector);
    // One side with an address is enough.
    let other = block(IdType::IPV6_ADDR, "20010db8000000000000000000000001");
    let selector = read(0, &zero, &other).expect("any to one");
    assert_eq!(selector.source, AddressRange::Any);
    assert_eq!(write(&selector), (zero, other));
}

#[test]
fn refusals() {
    let length = |kind, need, have| Err(SelectorError::Length { kind, need, have });
    assert_eq!(source(IdType::RESERVED, "01"), length(IdType::RESERVED, 0, 1));
    assert_eq!(source(IdType::RESERVED, "00000000"), length(IdType::RESERVED, 0, 4));
    assert_eq!(source(IdType::IPV4_ADDR, "0a0000"), length(IdType::IPV4_ADDR, 4, 3));
    assert_eq!(source(IdType::IPV4_ADDR, &"20".repeat(16)), length(IdType::IPV4_ADDR, 4, 16));
    assert_eq!(source(IdType::IPV4_ADDR, "0000000000"), length(IdType::IPV4_ADDR, 4, 5));
    assert_eq!(source(IdType::IPV6_ADDR, "0a000001"), length(IdType::IPV6_ADDR, 16, 4));
    assert_eq!(
        source(IdType::IPV4_ADDR_SUBNET, "0a000000ff0000"),
        length(IdType::IPV4_ADDR_SUBNET, 8, 7)
    );
    assert_eq!(
        source(IdType::IPV6_ADDR_RANGE, &"20".repeat(31)),
        length(IdType::IPV6_ADDR_RANGE, 32, 31)
    );
    let mask = source(IdType::IPV4_ADDR_SUBNET, "0a000000 ff00ff00");
    assert_eq!(mask, Err(SelectorError::Mask(ip("255.0.255.0"))));
    let order = source(IdType::IPV4_ADDR_RANGE, "0a000005 0a000001");
    assert_eq!(order, Err(SelectorError::Order(ip("10.0.0.5"), ip("10.0.0.1"))));
    for kind in [2, 3, 9, 10, 11, 12, 13, 200].map(IdType) {
        assert_eq!(source(kind, "00"), Err(SelectorError::Type(kind)));
    }
    let (v4, v6) =
        (block(IdType::IPV4_ADDR, "0a000001"), block(IdType::IPV6_ADDR_SUBNET, &"00".repeat(32)));
    assert_eq!(read(0, &v4, &v6), Err(SelectorError::Families));
    assert_eq!(read(0, &v6, &v4), Err(SelectorError::Families));
}

#[test]
fn protocol_and_ports() {
    let source = IdBlock { kind: IdType::RESERVED, port: 123, data: vec![] };
    let destination = IdBlock { kind: IdType::IPV4_ADDR, port: 443, data: vec![10, 0, 0, 1] };
    let selector = TrafficSelector {
        protocol: 6,
        source: AddressRange::Any,
        source_port: 123,
        destination: AddressRange::Address(ip("10.0.0.1")),
        destination_port: 443,
    };
    assert_eq!(read(6, &source, &destination), Ok(selector));
    let any = IdBlock { kind: IdType::IPV4_ADDR_SUBNET, port: 123, data: vec![0; 8] };
    assert_eq!(write(&selector), (any, destination));
}
