//! Facts about the machine's interfaces, by rtnetlink.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::error::Error;
use crate::kernel::netlink::channel::{Channel, Route as Family};
use crate::kernel::netlink::route::{Link, Route};

/// One interface as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// The routing table of that VRF, or of the one that the interface is.
    pub vrf_table: Option<u32>,
    /// Whether a routing rule is about what arrives by this interface (`ip rule add iif`).
    pub has_rule: bool,
    /// Those of the destinations asked for whose packets leave by this interface, with their next
    /// hop.
    pub leads_to: BTreeMap<IpAddr, Option<IpAddr>>,
    /// Those of them whose route wraps packets in another header before policies and netfilter see
    /// that they leave (`ip route`, encap). None where the kernel is told to show netfilter such
    /// packets all the same (`net.netfilter.nf_hooks_lwtunnel`).
    pub wraps: BTreeSet<IpAddr>,
}

impl Interface {
    /// Whether it is the device of a VRF.
    pub fn is_vrf(&self) -> bool {
        self.vrf.is_none() && self.vrf_table.is_some()
    }
}

/// An address that nothing but a default route leads to.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(0, 0, 0, 1));
const NOWHERE_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x4000, 0, 0, 0, 0, 0, 0, 1));

/// All interfaces by name. Needs no privilege.
pub async fn interfaces() -> Result<BTreeMap<String, Interface>, Error> {
    interfaces_towards(&BTreeSet::new()).await
}

/// As [`interfaces`], with where packets to these destinations leave.
///
/// The routing table is not read, which may hold a million routes: the next hop of each interface
/// and each destination is looked up.
pub async fn interfaces_towards(
    destinations: &BTreeSet<IpAddr>,
) -> Result<BTreeMap<String, Interface>, Error> {
    let mut channel = Channel::<Family>::open()?;
    let links = channel.links().await?;
    let addresses = channel.addresses().await?;
    let ruled = channel.rule_inputs().await?;
    let vrfs: BTreeMap<u32, (String, u32)> = links
        .iter()
        .filter_map(|link| Some((link.index, (link.name.clone(), link.vrf_table?))))
        .collect();
    let shown = are_wrapped_packets_shown();
    let mut routes = routes(&mut channel, destinations, vrfs.keys().copied()).await?;
    let mut interfaces = BTreeMap::new();
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
        let Link { index, name, up, mtu, vrf_table, .. } = link;
        let mut interface = Interface {
            index,
            up,
            addresses: own,
            mtu,
            gateway,
            vrf_table: vrf.as_ref().map(|(_, table)| *table).or(vrf_table),
            vrf: vrf.map(|(name, _)| name),
            has_rule: ruled.contains(&name),
            leads_to: BTreeMap::new(),
            wraps: BTreeSet::new(),
        };
        for (destination, route) in routes.remove(&index).unwrap_or_default() {
            interface.leads_to.insert(destination, route.gateway);
            if route.wraps_early && !shown {
                interface.wraps.insert(destination);
            }
        }
        interfaces.insert(name, interface);
    }
    Ok(interfaces)
}

/// The routes to the destinations by the interface that they leave by, in the main table and in
/// those of VRF devices.
async fn routes(
    channel: &mut Channel<Family>,
    destinations: &BTreeSet<IpAddr>,
    vrfs: impl Iterator<Item = u32>,
) -> Result<BTreeMap<u32, BTreeMap<IpAddr, Route>>, Error> {
    let mut by_interface: BTreeMap<u32, BTreeMap<_, _>> = BTreeMap::new();
    for vrf in [None].into_iter().chain(vrfs.map(Some)) {
        for destination in destinations {
            if let Some(route) = channel.route_to(*destination, vrf).await? {
                by_interface.entry(route.interface).or_default().insert(*destination, route);
            }
        }
    }
    Ok(by_interface)
}

/// Whether netfilter sees what a route is about to wrap. Once set it stays so until a reboot.
fn are_wrapped_packets_shown() -> bool {
    let setting = std::fs::read_to_string("/proc/sys/net/netfilter/nf_hooks_lwtunnel");
    setting.is_ok_and(|text| text.trim() == "1")
}

/// Next hop of the default route over `interface`.
pub async fn gateway(interface: &str) -> Result<Option<IpAddr>, Error> {
    let all = interfaces().await?;
    let found = all.get(interface).ok_or_else(|| Error::NoInterface(interface.to_owned()))?;
    Ok(found.gateway)
}
