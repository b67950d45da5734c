//! Fail-close: what is blocked without an SA. These are the protected prefixes and all traffic
//! selectors of the TEKs.
//!
//! Two mechanisms: XFRM block policies with the lowest precedence of all our policies and without a
//! device (traffic that arrives on a LAN is exempt by `disable_policy`, traffic that leaves by one
//! is allowed), and nf_tables guards that drop prefix pairs in clear on every interface that is not
//! a LAN.

use std::collections::BTreeSet;

use ipnet::IpNet;
use xfrm::model::{Direction, PolicyId, Selector};

use crate::group::GroupInput;
use crate::sa_tek::SaTek;
use crate::selector::{is_everything, is_plain};

/// Pairs of protected prefixes, of all groups, that get block policies. Each costs three of them,
/// and all are read back: 64 prefixes of one group take 0.3 s of processor time.
pub const BLOCKED_PAIRS: usize = 4096;

/// Which of these groups, by their protected prefixes, have more pairs of them than the groups
/// before have left of [`BLOCKED_PAIRS`]: the nf_tables guards alone close those, whose cost does
/// not depend on the number.
pub fn closed_by_guards_alone<'a>(groups: impl Iterator<Item = &'a [IpNet]>) -> Vec<bool> {
    let mut left = BLOCKED_PAIRS;
    let alone = |protected: &[IpNet]| {
        let prefixes = IpNet::aggregate(&protected.to_vec());
        let ipv4 = prefixes.iter().filter(|prefix| prefix.addr().is_ipv4()).count();
        let ipv6 = prefixes.len() - ipv4;
        let pairs = ipv4.saturating_mul(ipv4).saturating_add(ipv6.saturating_mul(ipv6));
        let rest = left.checked_sub(pairs);
        left = rest.unwrap_or(left);
        rest.is_none()
    };
    groups.map(alone).collect()
}

/// Every pair of protected prefixes, both ways round and with itself.
pub(crate) fn protected_pairs(group: &GroupInput<'_>) -> BTreeSet<(IpNet, IpNet)> {
    // Aggregated first, since each pair of prefixes costs policies.
    let prefixes = IpNet::aggregate(&group.protected);
    let same_family = |pair: &(IpNet, IpNet)| pair.0.addr().is_ipv4() == pair.1.addr().is_ipv4();
    let pairs = prefixes
        .iter()
        .flat_map(|source| prefixes.iter().map(|destination| (*source, *destination)));
    pairs.filter(same_family).collect()
}

/// The directions in which a selector is blocked.
///
/// `disable_policy` exempts arrivals on a LAN for IPv4 only. Arriving IPv6 is left to the nf_tables
/// guards.
pub(crate) fn block(selector: &Selector) -> Vec<PolicyId> {
    let directions: &[Direction] = match selector.source {
        IpNet::V4(_) => &[Direction::Out, Direction::In, Direction::Forward],
        IpNet::V6(_) => &[Direction::Out],
    };
    let id = |direction: &Direction| PolicyId { direction: *direction, selector: selector.clone() };
    directions.iter().map(id).collect()
}

/// All selectors that the group blocks.
pub(crate) fn blocked(
    pairs: &BTreeSet<(IpNet, IpNet)>,
    sa_teks: &[SaTek<'_>],
) -> BTreeSet<Selector> {
    let protected =
        pairs.iter().map(|(source, destination)| Selector::between(*source, *destination));
    protected.chain(sa_teks.iter().flat_map(SaTek::all_selectors)).collect()
}

/// What the nf_tables guard drops in clear.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// Traffic between any two of these prefixes.
    pub(crate) protected: BTreeSet<IpNet>,
    /// Pairs of prefixes that are blocked beyond those.
    pub(crate) pairs: BTreeSet<(IpNet, IpNet)>,
    /// Whatever comes from a LAN or goes to one: the policy encrypts everything. What the router
    /// itself sends and receives also keeps a WAN alive, for example DHCP, and is left to the
    /// kernel's policies.
    pub(crate) everything: bool,
}

pub(crate) fn guard(group: &GroupInput<'_>, sa_teks: &[SaTek<'_>]) -> Guard {
    let protected: BTreeSet<IpNet> = group.protected.iter().map(IpNet::trunc).collect();
    let mut guard = Guard { protected, ..Guard::default() };
    for Selector { source, destination, .. } in
        sa_teks.iter().flat_map(SaTek::all_selectors).filter(is_plain)
    {
        if is_everything(&source) && is_everything(&destination) {
            guard.everything = true;
        } else {
            guard.pairs.insert((source, destination));
        }
    }
    let protected = |net: &IpNet| guard.protected.iter().any(|prefix| prefix.contains(net));
    guard.pairs.retain(|(source, destination)| !(protected(source) && protected(destination)));
    guard
}
