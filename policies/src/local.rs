//! Traffic that passes in clear: to the key servers, by exclude rules, and towards the LANs of this
//! router.

use core::net::IpAddr;
use std::collections::BTreeSet;

use gdoi::group::TrafficSelector;
use ipnet::IpNet;
use xfrm::model::{Direction, PolicyId, Selector};

use crate::error::Unusable;
use crate::group::GroupInput;
use crate::selector::{everything, expand, mirror, out_of};

const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// LOCAL to and from the key servers, their UDP port only, and their pushes by multicast.
pub(crate) fn servers(group: &GroupInput<'_>) -> Vec<PolicyId> {
    let Some(local) = group.zones.local else { return Vec::new() };
    let reachable = || group.servers.iter().filter(|server| server.is_ipv4() == local.is_ipv4());
    let by_multicast = group.pushes.into_iter().flat_map(|to| {
        reachable().map(move |server| {
            let ports = (server.port(), to.port());
            let pair = Selector::between(IpNet::from(server.ip()), IpNet::from(to.ip()));
            let selector =
                Selector { protocol: UDP, source_port: ports.0, destination_port: ports.1, ..pair };
            PolicyId { direction: Direction::In, selector }
        })
    });
    reachable()
        .flat_map(|server| {
            let out = Selector {
                protocol: UDP,
                destination_port: server.port(),
                ..Selector::between(IpNet::from(local), IpNet::from(server.ip()))
            };
            let back = mirror(&out);
            [
                PolicyId { direction: Direction::Out, selector: out },
                PolicyId { direction: Direction::In, selector: back },
            ]
        })
        .chain(by_multicast)
        .collect()
}

/// What the nf_tables guard accepts for the key servers. Responses may arrive in fragments, which
/// carry no ports where the guard hooks; the IN policy sees the reassembled packet and checks the
/// port.
pub(crate) fn servers_past_guard(group: &GroupInput<'_>) -> Vec<Selector> {
    let mut selectors: Vec<Selector> = servers(group).into_iter().map(|id| id.selector).collect();
    for selector in selectors.iter_mut().filter(|selector| selector.source_port != 0) {
        selector.source_port = 0;
    }
    selectors
}

/// The exclude rules in both directions.
pub(crate) fn excluded(group: &GroupInput<'_>) -> Result<Vec<Selector>, Unusable> {
    both_ways(&group.exclude, |rule, reason| Unusable::Exclude { rule, reason: Box::new(reason) })
}

/// Rules in both directions. No packet has a multicast source, so a rule with a multicast
/// destination is not mirrored.
pub(crate) fn both_ways(
    rules: &[TrafficSelector],
    refused: impl Fn(usize, Unusable) -> Unusable,
) -> Result<Vec<Selector>, Unusable> {
    let mut selectors = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let rule_number = index + 1;
        let expanded = expand(rule, rule_number).map_err(|reason| refused(rule_number, reason))?;
        for selector in expanded {
            if !selector.destination.addr().is_multicast() {
                selectors.push(mirror(&selector));
            }
            selectors.push(selector);
        }
    }
    Ok(selectors)
}

/// Whatever leaves by a LAN, in clear: the router's own packets, those of other LANs, and
/// decapsulated ones, which would otherwise be encrypted again. The routing table decides what
/// leaves by a LAN. Arrivals on a LAN need no policy: the interface is exempt from checks.
pub(crate) fn towards_lans(group: &GroupInput<'_>) -> Vec<PolicyId> {
    let families: BTreeSet<bool> =
        group.protected.iter().map(|prefix| prefix.addr().is_ipv4()).chain([true]).collect();
    let out = |(lan, ipv4): (&str, bool)| PolicyId {
        direction: Direction::Out,
        selector: out_of(&Selector::between(everything(ipv4), everything(ipv4)), lan),
    };
    let lans = group.zones.lan_names();
    lans.flat_map(|lan| families.iter().map(move |ipv4| (lan, *ipv4))).map(out).collect()
}

/// ICMP errors that the router sends from its addresses in the LANs: the kernel asks for their
/// policy without saying where they leave. Without them a host of the LAN would not learn that a
/// packet is too big for its path, be it the path to somebody else, while the group is blocked.
///
/// With a key the group's traffic selectors win; the tables send an error that goes to a LAN there.
pub(crate) fn errors_to_lans(group: &GroupInput<'_>) -> Vec<PolicyId> {
    let addresses = group.zones.lan.iter().flat_map(|lan| &lan.addresses);
    addresses
        .flat_map(|address| {
            let (protocol, types): (u8, &[u16]) = match address {
                IpAddr::V4(_) => (ICMP, &[3, 4, 5, 11, 12]),
                IpAddr::V6(_) => (ICMPV6, &[1, 2, 3, 4]),
            };
            let pair = Selector::between(IpNet::from(*address), everything(address.is_ipv4()));
            // XFRM matches the type of an ICMP message as its source port.
            types.iter().map(move |kind| PolicyId {
                direction: Direction::Out,
                selector: Selector { protocol, source_port: *kind, ..pair.clone() },
            })
        })
        .collect()
}
