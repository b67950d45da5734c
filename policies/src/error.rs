//! Why a policy cannot be used. Every variant names the SPI or the traffic selector and what would
//! help.

use core::net::IpAddr;

use gdoi::group::{
    AddressPreservation, AuthenticationAlgorithm, EncapsulationMode, EspTransform, Spi, TekProtocol,
};
use xfrm::model::PolicyId;

fn key_length(bits: Option<u16>) -> String {
    bits.map_or_else(
        || String::from("a policy without a key length"),
        |bits| format!("a key of {bits} bits"),
    )
}

fn integrity(algorithm: Option<AuthenticationAlgorithm>) -> String {
    algorithm.map_or_else(
        || String::from("no integrity algorithm"),
        |algorithm| format!("integrity algorithm {algorithm}"),
    )
}

/// A policy that this machine cannot enforce. Traffic selectors count from 1, in the order
/// received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages explain the variants and their fields")]
pub enum Unusable {
    #[error("the policy has no data SA (no SAT payload)")]
    NoTek,
    #[error(
        "SPI {spi:#010x}: protocol {protocol} is not ESP; AH cannot keep the addresses in XFRM, others it lacks"
    )]
    Protocol { spi: Spi, protocol: TekProtocol },
    #[error(
        "SPI {spi:#010x}: encapsulation {mode} is not tunnel mode; a transport-mode state with wildcard unicast \
         addresses is never found by XFRM, and UDP encapsulation needs one peer"
    )]
    Mode { spi: Spi, mode: EncapsulationMode },
    #[error(
        "SPI {spi:#010x}: address preservation {preservation} is not source and destination; GDOI names no outer \
         destination for it"
    )]
    Preservation { spi: Spi, preservation: AddressPreservation },
    #[error("SPI {spi:#010x}: unknown SA direction {direction}")]
    Direction { spi: Spi, direction: u16 },
    #[error("SPI {spi:#010x} is reserved (RFC 4303 section 2.1)")]
    ReservedSpi { spi: Spi },
    #[error(
        "SPI {spi:#010x} is described in two different ways by \
         traffic selectors {first} and {second}"
    )]
    TwoDescriptions { spi: Spi, first: usize, second: usize },
    #[error("SPI {spi:#010x}: ESP transform {transform} is not supported: {reason}")]
    Transform { spi: Spi, transform: EspTransform, reason: &'static str },
    #[error("SPI {spi:#010x}: {transform} is weak; it needs legacy = true")]
    Legacy { spi: Spi, transform: EspTransform },
    #[error("SPI {spi:#010x}: {} does not fit {transform}", key_length(*bits))]
    KeyLength { spi: Spi, transform: EspTransform, bits: Option<u16> },
    #[error(
        "SPI {spi:#010x}: {transform} with {} is not supported: {reason}",
        integrity(*authentication)
    )]
    Integrity {
        spi: Spi,
        transform: EspTransform,
        authentication: Option<AuthenticationAlgorithm>,
        reason: &'static str,
    },
    #[error("SPI {spi:#010x}: the {what} key has {have} octets, {need} are needed")]
    KeyOctets { spi: Spi, what: &'static str, need: usize, have: usize },
    #[error(
        "traffic selector {number}: IPv6 selectors are not supported yet: \
         nf_tables has no room for two IPv6 addresses per packet"
    )]
    Ipv6 { number: usize },
    #[error("traffic selector {number}: multicast selectors are not supported yet")]
    Multicast { number: usize },
    #[error("traffic selector {number}: source and destination are of different address families")]
    Families { number: usize },
    #[error(
        "traffic selector {number}: a port without TCP, UDP, DCCP, SCTP or UDP-Lite \
         (protocol {protocol})"
    )]
    Port { number: usize, protocol: u8 },
    #[error("traffic selector {number}: the address range ends before it begins")]
    Range { number: usize },
    #[error(
        "traffic selector {number}: its ranges make {count} pairs of prefixes, \
         at most {limit} are supported: use prefixes"
    )]
    TooManyPairs { number: usize, count: usize, limit: usize },
    #[error("{count} traffic selectors, at most {limit} are supported")]
    TooManySelectors { count: usize, limit: usize },
    #[error("{count} data SAs with different traffic selectors, at most {limit} are supported")]
    TooManyTeks { count: usize, limit: usize },
    #[error(
        "traffic selectors {first} and {second} are the same with different SPIs \
         {first_spi:#010x}, {second_spi:#010x}"
    )]
    SameSelector { first: usize, second: usize, first_spi: Spi, second_spi: Spi },
    #[error(
        "the policy {id} belongs to group {other} already, with another key: \
         make the groups' traffic selectors differ"
    )]
    TwoGroups { id: Box<PolicyId>, other: String },
    #[error(
        "SPI {spi:#010x} is in use by another group on local address {local}; the key servers chose the same number"
    )]
    SpiTwice { spi: Spi, local: IpAddr },
    #[error(
        "placeholder {placeholder} or slot {slot} is in use by group {other}: set another placeholder"
    )]
    PlaceTaken { placeholder: IpAddr, slot: u8, other: String },
    #[error("placeholder {placeholder} is the group's own local address: set another placeholder")]
    PlaceholderIsLocal { placeholder: IpAddr },
    #[error(
        "local address {local} is not IPv4, which is all that the group's data path can do yet"
    )]
    LocalFamily { local: IpAddr },
    #[error(
        "placeholder {placeholder} is not IPv4, which is all that the group's data path can do yet"
    )]
    PlaceholderFamily { placeholder: IpAddr },
    #[error(
        "{count} kernel policies in one direction, at most {limit} can be marked as ours: \
         use fewer or wider traffic selectors"
    )]
    TooManyPolicies { count: usize, limit: usize },
    #[error("exclude rule {rule} cannot be used: {reason}")]
    Exclude { rule: usize, reason: Box<Unusable> },
    #[error("fail-open rule {rule} cannot be used: {reason}")]
    FailOpen { rule: usize, reason: Box<Unusable> },
}

/// A group whose policy cannot be used beside the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group {group}: {reason}")]
pub struct GroupUnusable {
    /// Name of the group.
    pub group: String,
    /// Why its policy cannot be installed.
    #[source]
    pub reason: Unusable,
}
