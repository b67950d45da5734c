//! The traffic of one TEK: identification types of RFC 2407 §4.6.2.1 as a SAT carries them (RFC
//! 6407 §5.5.1).

use core::net::IpAddr;

/// The addresses of one side of a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressRange {
    /// Any address of the other side's family; all-zero identification data.
    Any,
    /// ID_IPV4_ADDR, ID_IPV6_ADDR, or a subnet of full length.
    Address(IpAddr),
    /// ID_IPV4_ADDR_SUBNET, ID_IPV6_ADDR_SUBNET: network address without host bits and a contiguous
    /// mask.
    Subnet(ipnet::IpNet),
    /// ID_IPV4_ADDR_RANGE, ID_IPV6_ADDR_RANGE: first and last address of one family, first <= last.
    Range(IpAddr, IpAddr),
}

/// Which packets a TEK protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrafficSelector {
    /// IP protocol, 0 for any.
    pub protocol: u8,
    /// Addresses that packets come from.
    pub source: AddressRange,
    /// Source port, 0 for any.
    pub source_port: u16,
    /// Addresses that packets go to.
    pub destination: AddressRange,
    /// Destination port, 0 for any.
    pub destination_port: u16,
}
