//! The interfaces and routes that a tunnel depends on, for those who look.

use std::collections::BTreeSet;
use std::net::IpAddr;

use control::tunnel::{TunnelInterface, TunnelRoute};
use ipnet::IpNet;

use super::Tunnels;
use crate::config::tunnel::Tunnel;
use crate::membership::local_interface::Interfaces;

/// Routes that are looked up for one answer: the daemon has other work.
const MOST_DESTINATIONS: usize = 1024;

/// Where the packets of tunnels arrive and leave.
#[derive(Debug)]
pub struct Paths {
    interfaces: Interfaces,
    /// What was looked up.
    destinations: BTreeSet<IpAddr>,
}

impl Paths {
    /// Asks the kernel for the MTU of each tunnel's path.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn read(tunnels: &Tunnels) -> Result<Self, xfrm::Error> {
        let configs = tunnels.all().iter().map(super::state::Tunnel::config);
        let all = configs.flat_map(|tunnel| {
            [tunnel.peer].into_iter().chain(tunnel.remote_networks.iter().map(inside))
        });
        let destinations: BTreeSet<IpAddr> = all.take(MOST_DESTINATIONS).collect();
        let interfaces = xfrm::interface::interfaces_towards(&destinations).await?;
        Ok(Self { interfaces, destinations })
    }

    #[cfg(test)]
    pub(super) fn new(interfaces: Interfaces, destinations: BTreeSet<IpAddr>) -> Self {
        Self { interfaces, destinations }
    }

    /// Why the tunnel cannot work on this machine as it is.
    pub fn obstacle(&self, tunnel: &Tunnel) -> Option<String> {
        let (local, peer) = (tunnel.local, tunnel.peer);
        let holder = self.interfaces.iter().find(|(_, one)| holds(&one.addresses, &local.into()));
        match holder {
            None => Some(format!(
                "no interface has the local address {local}: add it, or change local-address"
            )),
            Some((name, interface)) if !interface.up => {
                Some(format!("interface {name} with the local address is down: set it up"))
            }
            Some(_) if self.route(peer).is_none() && self.destinations.contains(&peer) => {
                Some(format!("there is no route to the peer {peer}: add one"))
            }
            Some(_) => None,
        }
    }

    /// The interfaces with the local address and with addresses in the local networks.
    pub fn interfaces(&self, tunnel: &Tunnel) -> Vec<TunnelInterface> {
        let shown = |role: &str, wanted: &[IpNet]| {
            let found = self.interfaces.iter().filter(|(name, interface)| {
                name.as_str() != "lo"
                    && wanted.iter().any(|wanted| holds(&interface.addresses, wanted))
            });
            let shown = found.map(|(name, interface)| TunnelInterface {
                name: name.clone(),
                role: role.to_owned(),
                up: interface.up,
                mtu: interface.mtu,
                addresses: interface.addresses.iter().map(ToString::to_string).collect(),
            });
            shown.collect::<Vec<_>>()
        };
        let mut all = shown("local-address", &[tunnel.local.into()]);
        all.extend(shown("local-networks", &tunnel.local_networks));
        all
    }

    /// To the peer and to each remote network, as far as they were looked up.
    pub fn routes(&self, tunnel: &Tunnel) -> Vec<TunnelRoute> {
        let peer = [(tunnel.peer.to_string(), tunnel.peer, true)];
        let remote = tunnel.remote_networks.iter().map(|net| (net.to_string(), inside(net), false));
        // In transport mode the peer is the remote network.
        let remote = remote.filter(|(_, address, _)| *address != tunnel.peer);
        let all = peer.into_iter().chain(remote);
        all.filter(|(_, address, _)| self.destinations.contains(address))
            .map(|(destination, address, is_peer)| {
                let route = self.route(address);
                let next_hop = route.and_then(|(_, next_hop)| next_hop);
                TunnelRoute {
                    destination,
                    is_peer,
                    interface: route.map(|(interface, _)| interface.to_owned()),
                    next_hop: next_hop.map(|address| address.to_string()),
                }
            })
            .collect()
    }

    /// The interface that packets to this address leave by, and the next hop.
    fn route(&self, destination: IpAddr) -> Option<(&str, Option<IpAddr>)> {
        self.interfaces.iter().find_map(|(name, interface)| {
            let next_hop = interface.leads_to.get(&destination)?;
            Some((name.as_str(), *next_hop))
        })
    }
}

/// Whether one of an interface's addresses lies in a prefix.
fn holds(addresses: &[IpNet], prefix: &IpNet) -> bool {
    addresses.iter().any(|address| prefix.contains(&address.addr()))
}

/// An address of the prefix that a host can have: its first one may be the network's own.
fn inside(prefix: &IpNet) -> IpAddr {
    prefix.hosts().next().unwrap_or_else(|| prefix.addr())
}
