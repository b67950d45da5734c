//! Traffic that passes in clear: to the key servers, by exclude rules, and on the inside of this
//! router.

use gdoi::group::TrafficSelector;
use ipnet::IpNet;
use xfrm::model::{Direction, PolicyId, Selector};

use crate::error::Unusable;
use crate::failclose::protected_pairs;
use crate::group::GroupInput;
use crate::line::Line;
use crate::selector::{between, expand, mirror, out_of, overlap};

const UDP: u8 = 17;

/// A prefix on the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InsidePrefix<'a> {
    pub(crate) prefix: IpNet,
    /// The LAN it is behind; `None` for the router's own address.
    pub(crate) interface: Option<&'a str>,
}

/// The prefixes on the inside that the group has to do with.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    prefixes: Vec<InsidePrefix<'a>>,
    group_pairs: Vec<(IpNet, IpNet)>,
}

impl<'a> Inside<'a> {
    pub(crate) fn of(group: &'a GroupInput<'_>, lines: &[Line<'_>]) -> Self {
        let prefixes = group.zones.inside();
        let prefixes = prefixes
            .into_iter()
            .map(|(prefix, interface)| InsidePrefix { prefix, interface })
            .collect();
        let lines = lines
            .iter()
            .flat_map(Line::all_selectors)
            .map(|selector| (selector.source, selector.destination));
        Self { prefixes, group_pairs: protected_pairs(group).into_iter().chain(lines).collect() }
    }

    /// Pairs of prefixes on the inside whose traffic a policy of the group would stop. All others
    /// need no help.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (InsidePrefix<'a>, InsidePrefix<'a>)> + '_ {
        let all =
            self.prefixes.iter().flat_map(|from| self.prefixes.iter().map(move |to| (*from, *to)));
        // The router's own address is on the inside for the hosts behind it only.
        let all = all.filter(|(from, to)| from.interface.is_some() || to.interface.is_some());
        all.filter(|(from, to)| {
            self.group_pairs.iter().any(|(source, destination)| {
                overlap(source, &from.prefix) && overlap(destination, &to.prefix)
            })
        })
    }
}

/// LOCAL to and from the key servers, their UDP port only, and their pushes by multicast.
pub(crate) fn servers(group: &GroupInput<'_>) -> Vec<PolicyId> {
    let Some(local) = group.zones.local else { return Vec::new() };
    let reachable = || group.servers.iter().filter(|server| server.is_ipv4() == local.is_ipv4());
    let by_multicast = group.pushes.into_iter().flat_map(|to| {
        reachable().map(move |server| {
            let ports = (server.port(), to.port());
            let pair = between(IpNet::from(server.ip()), IpNet::from(to.ip()));
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
                ..between(IpNet::from(local), IpNet::from(server.ip()))
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

/// What the nf_tables guard lets pass for the key servers. An answer may come in fragments, which
/// carry no ports at the guard's place; the IN policy sees it whole, and looks at the port.
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

/// Rules in both directions. Nothing has a multicast source, so a rule with a multicast destination
/// is not turned round.
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

/// Policies that let the inside talk to itself. A forwarding one names the interface it leaves by,
/// so that nothing passes when the route to a LAN's prefix moves to a WAN. An OUT policy cannot:
/// the kernel asks it for the router's own ICMP errors without an interface, and a "fragmentation
/// needed" inside the group's ESP would never reach the host that waits for it. There the nf_tables
/// guard alone stands between a moved route and the wire.
pub(crate) fn inside(inside: &Inside<'_>) -> Vec<PolicyId> {
    let mut ids = Vec::new();
    for (from, to) in inside.pairs() {
        let selector = between(from.prefix, to.prefix);
        if let Some(lan) = to.interface {
            ids.push(PolicyId { direction: Direction::Out, selector: selector.clone() });
            ids.push(PolicyId { direction: Direction::Forward, selector: out_of(&selector, lan) });
        }
        ids.push(PolicyId { direction: Direction::In, selector });
    }
    ids
}

/// Decapsulated packets on their way to the LAN: they would be encrypted again otherwise.
pub(crate) fn towards_lan(group: &GroupInput<'_>, selector: &Selector) -> Vec<PolicyId> {
    let out = |lan| PolicyId { direction: Direction::Out, selector: out_of(selector, lan) };
    group.zones.lan_names().map(out).collect()
}
