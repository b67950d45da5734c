//! Facts about the machine's interfaces, by rtnetlink.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::error::Error;
use crate::kernel::netlink::channel::{Channel, Route};
use crate::kernel::netlink::route::Link;

/// One interface as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number. Another one after the interface was re-created.
    pub index: u32,
    /// Administratively up and with a carrier.
    pub up: bool,
    /// Its addresses with their prefix length, as configured (host part kept).
    pub addresses: Vec<IpNet>,
    /// MTU of the interface in octets.
    pub mtu: u32,
    /// Next hop of the default route over this interface, IPv4 first.
    pub gateway: Option<IpAddr>,
    /// The VRF device that it is enslaved to, by name.
    pub vrf: Option<String>,
}

/// An address that nothing but a default route leads to.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(0, 0, 0, 1));
const NOWHERE_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x4000, 0, 0, 0, 0, 0, 0, 1));

/// All interfaces by name. Needs no privilege.
///
/// The routing table is not read, which may hold a million routes: the next hop of each interface
/// is looked up.
pub async fn interfaces() -> Result<BTreeMap<String, Interface>, Error> {
    let mut channel = Channel::<Route>::open()?;
    let links = channel.links().await?;
    let addresses = channel.addresses().await?;
    let mut interfaces = BTreeMap::new();
    let vrfs: BTreeMap<u32, String> =
        links.iter().filter(|link| link.is_vrf).map(|vrf| (vrf.index, vrf.name.clone())).collect();
    for link in links {
        let own = addresses.iter().filter(|one| one.index == link.index).map(|one| one.address);
        let own: Vec<IpNet> = own.collect();
        let mut gateway = None;
        // The kernel takes any address for one on the link where an interface has no address.
        if link.up {
            for nowhere in [NOWHERE, NOWHERE_IPV6] {
                let speaks = own.iter().any(|own| own.addr().is_ipv4() == nowhere.is_ipv4());
                if gateway.is_none() && speaks {
                    gateway = channel.next_hop(nowhere, link.index).await?;
                }
            }
        }
        let vrf = link.master.and_then(|master| vrfs.get(&master).cloned());
        let Link { index, name, up, mtu, .. } = link;
        interfaces.insert(name, Interface { index, up, addresses: own, mtu, gateway, vrf });
    }
    Ok(interfaces)
}

/// Next hop of the default route over `interface`.
pub async fn gateway(interface: &str) -> Result<Option<IpAddr>, Error> {
    let all = interfaces().await?;
    let found = all.get(interface).ok_or_else(|| Error::NoInterface(interface.to_owned()))?;
    Ok(found.gateway)
}
