//! What stays shut whatever happens: the protected prefixes, and every selector that a TEK covers.
//!
//! The kernel's part is block policies that lose against everything else of ours. OUT and IN have
//! no device. Forwarding is blocked towards the LANs only: a packet on its way out passes the
//! forward check first, and OUT decides about it. The nf_tables part is prefix pairs that are
//! dropped in clear on any interface that is not a LAN.

use std::collections::BTreeSet;

use ipnet::IpNet;
use xfrm::model::{Direction, PolicyId, Selector};

use crate::group::GroupInput;
use crate::line::Line;
use crate::local::Inside;
use crate::selector::{between, is_everything, is_plain, out_of};

/// Every pair of protected prefixes, both ways round and with itself.
pub(crate) fn protected_pairs(group: &GroupInput<'_>) -> BTreeSet<(IpNet, IpNet)> {
    let prefixes = || group.protected.iter().map(IpNet::trunc);
    let same_family = |pair: &(IpNet, IpNet)| pair.0.addr().is_ipv4() == pair.1.addr().is_ipv4();
    prefixes()
        .flat_map(|source| prefixes().map(move |destination| (source, destination)))
        .filter(same_family)
        .collect()
}

/// Where a selector is blocked.
pub(crate) fn block(group: &GroupInput<'_>, selector: &Selector) -> Vec<PolicyId> {
    let everywhere = |direction| PolicyId { direction, selector: selector.clone() };
    let towards = |lan| PolicyId { direction: Direction::Forward, selector: out_of(selector, lan) };
    let mut ids = vec![everywhere(Direction::Out), everywhere(Direction::In)];
    ids.extend(group.zones.lan_names().map(towards));
    ids
}

/// Everything that the group's block policies are about.
pub(crate) fn blocked(group: &GroupInput<'_>, lines: &[Line<'_>]) -> BTreeSet<Selector> {
    let protected = protected_pairs(group)
        .into_iter()
        .map(|(source, destination)| between(source, destination));
    protected.chain(lines.iter().flat_map(Line::all_selectors)).collect()
}

/// What the nf_tables guard drops in clear.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// Between any two of these.
    pub(crate) protected: BTreeSet<IpNet>,
    /// Pairs beyond those.
    pub(crate) pairs: BTreeSet<(IpNet, IpNet)>,
    /// Whatever comes from a LAN or goes to one: the policy encrypts everything. What the router
    /// itself sends and receives also keeps a WAN alive, for example DHCP, and is left to the
    /// kernel's policies.
    pub(crate) everything: bool,
}

pub(crate) fn guard(group: &GroupInput<'_>, lines: &[Line<'_>], inside: &Inside<'_>) -> Guard {
    let protected: BTreeSet<IpNet> = group.protected.iter().map(IpNet::trunc).collect();
    let mut guard = Guard { protected, ..Guard::default() };
    for Selector { source, destination, .. } in
        lines.iter().flat_map(Line::all_selectors).filter(is_plain)
    {
        if is_everything(&source) && is_everything(&destination) {
            guard.everything = true;
        } else {
            guard.pairs.insert((source, destination));
        }
    }
    // A policy that lets a LAN's own traffic pass would let in a packet with a forged source.
    let local = inside.pairs().map(|(source, destination)| (source.prefix, destination.prefix));
    guard.pairs.extend(local);
    let protected = |net: &IpNet| guard.protected.iter().any(|prefix| prefix.contains(net));
    guard.pairs.retain(|(source, destination)| !(protected(source) && protected(destination)));
    guard
}
