//! What the machine's interfaces mean for one group: the address it speaks from, and its zones.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use xfrm::interface::Interface;

pub use crate::config::check::Interfaces;
use crate::config::{Group, LocalAddress};

/// The address that a group speaks from, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    pub address: IpAddr,
    /// The interface that has it.
    pub interface: String,
    /// That interface's number: another one after it was re-created.
    pub index: u32,
    /// The VRF device whose routes it uses, if it is within one.
    pub vrf: Option<String>,
}

/// A multicast group to listen to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Multicast {
    pub group: IpAddr,
    pub port: u16,
    /// Number of the interface to join it on.
    pub interface: u32,
    /// The VRF device that the interface is in, if it is in one.
    pub vrf: Option<String>,
}

/// Why a group has no address to speak from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The interfaces have not been read yet.
    Unknown,
    /// No interface has the configured address.
    Address(IpAddr),
    /// The configured interface does not exist.
    Interface(String),
    /// The configured interface has no IPv4 address.
    AddressOf(String),
}

impl std::error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the interfaces have not been read yet"),
            Self::Address(address) => write!(f, "no interface has the local address {address}"),
            Self::Interface(name) => write!(f, "interface {name} does not exist"),
            Self::AddressOf(name) => write!(f, "interface {name} has no IPv4 address"),
        }
    }
}

/// The machine's interfaces, with where the traffic of these groups leaves.
///
/// # Errors
/// They cannot be read.
pub async fn read(groups: &[Group]) -> Result<Interfaces, xfrm::Error> {
    let destinations = groups.iter().flat_map(Group::destinations).collect();
    xfrm::interface::interfaces_towards(&destinations).await
}

/// The VRF that an interface is in: that of a VRF device is itself.
pub fn vrf_of(name: &str, interface: &Interface) -> Option<String> {
    let own = || interface.vrf_table.map(|_| name.to_owned());
    interface.vrf.clone().or_else(own)
}

/// Finds the group's local address.
///
/// # Errors
/// It is missing at the moment.
pub fn local(group: &Group, interfaces: &Interfaces) -> Result<Local, Missing> {
    match &group.local {
        LocalAddress::Address(address) => {
            let wanted = *address;
            let holds =
                |interface: &Interface| interface.addresses.iter().any(|net| net.addr() == wanted);
            let (name, interface) = interfaces
                .iter()
                .find(|(_, interface)| holds(interface))
                .ok_or(Missing::Address(*address))?;
            Ok(Local {
                address: *address,
                interface: name.clone(),
                index: interface.index,
                vrf: vrf_of(name, interface),
            })
        }
        LocalAddress::Interface(name) => {
            let interface = interfaces.get(name).ok_or_else(|| Missing::Interface(name.clone()))?;
            let address = ipv4(interface).next().ok_or_else(|| Missing::AddressOf(name.clone()))?;
            Ok(Local {
                address: address.addr().into(),
                interface: name.clone(),
                index: interface.index,
                vrf: vrf_of(name, interface),
            })
        }
    }
}

/// The router's own addresses on an interface, as far as other hosts can reach them.
pub fn addresses(interface: &Interface) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = ipv4(interface).map(|net| IpAddr::V4(net.addr())).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// IPv4 addresses of an interface that other hosts can reach, in the kernel's order.
fn ipv4(interface: &Interface) -> impl Iterator<Item = ipnet::Ipv4Net> {
    let reachable = |address: Ipv4Addr| {
        !address.is_link_local() && !address.is_loopback() && !address.is_unspecified()
    };
    interface.addresses.iter().filter_map(move |net| match net {
        IpNet::V4(net) if reachable(net.addr()) => Some(*net),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, addresses: &[&str]) -> Interface {
        let addresses = addresses.iter().map(|net| net.parse().unwrap()).collect();
        Interface { index, up: true, addresses, mtu: 1500, ..Interface::default() }
    }

    #[test]
    fn addresses_are_those_that_other_hosts_reach() {
        let lan = interface(
            1,
            &["fe80::1/64", "169.254.7.7/16", "172.16.1.2/24", "172.16.1.1/24", "172.16.9.1/32"],
        );
        let expected: Vec<IpAddr> =
            ["172.16.1.1", "172.16.1.2", "172.16.9.1"].map(|text| text.parse().unwrap()).into();
        assert_eq!(addresses(&lan), expected);
        assert_eq!(addresses(&interface(1, &[])), [] as [IpAddr; 0]);
    }

    #[test]
    fn addresses_within_a_vrf_name_its_device() {
        let in_vrf = Interface {
            vrf: Some("blue".to_owned()),
            vrf_table: Some(10),
            ..interface(1, &["10.0.1.1/24"])
        };
        let device = Interface { vrf_table: Some(10), ..interface(2, &["10.9.9.9/32"]) };
        let blue = Some("blue".to_owned());
        assert_eq!((vrf_of("wan", &in_vrf), vrf_of("blue", &device)), (blue.clone(), blue));
        assert_eq!(vrf_of("lan", &interface(3, &["172.16.1.1/24"])), None);
    }

    #[test]
    fn the_first_address_that_other_hosts_reach_is_the_local_one() {
        let wan = interface(1, &["fe80::1/64", "169.254.7.7/16", "10.0.1.9/24", "10.0.1.1/24"]);
        assert_eq!(ipv4(&wan).next().map(|net| net.addr()), Some(Ipv4Addr::new(10, 0, 1, 9)));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            Missing::Interface("ppp0".to_owned()).to_string(),
            "interface ppp0 does not exist"
        );
        assert_eq!(
            Missing::AddressOf("ppp0".to_owned()).to_string(),
            "interface ppp0 has no IPv4 address"
        );
        let missing = Missing::Address(Ipv4Addr::new(10, 0, 1, 1).into());
        assert_eq!(missing.to_string(), "no interface has the local address 10.0.1.1");
    }
}
