//! What the guards look up: one interval set for the protected prefixes, and sets of pairs for the
//! selectors outside of them, so that a packet's cost does not depend on how many there are.

use ipnet::IpNet;

use super::pairs::{Range, layers, ranges};
use super::rule::family;
use super::table::{Elements, Set};
use super::{IP6, Preservation};

/// What of one address family is guarded.
pub(crate) struct Guarded {
    /// All prefixes of all groups.
    pub(crate) any: Vec<Range>,
    /// The only one of them: two comparisons cost less than two look-ups.
    pub(crate) only: Option<IpNet>,
    /// The groups' own, where there is more than one group: what lies between the prefixes of two
    /// groups belongs to neither.
    pub(crate) groups: Vec<Vec<Range>>,
    /// Selectors outside of those.
    pub(crate) selectors: Vec<Vec<(Range, Range)>>,
    /// What tunnels send, and the same the other way round.
    pub(crate) tunnels: Vec<Vec<(Range, Range)>>,
    pub(crate) tunnels_back: Vec<Vec<(Range, Range)>>,
}

impl Guarded {
    pub(crate) fn of(preservation: &Preservation, wanted: u8) -> Self {
        let groups = preservation.protected.iter();
        let groups: Vec<Vec<Range>> = groups
            .map(|prefixes| ranges(prefixes.iter(), wanted))
            .filter(|one| !one.is_empty())
            .collect();
        let any = ranges(preservation.protected.iter().flatten(), wanted);
        let selectors = layers(preservation.guard.iter(), wanted);
        let mut nets = preservation.protected.iter().flatten().filter(|net| family(net) == wanted);
        let only = nets.next().filter(|net| nets.all(|other| other == *net)).copied();
        let tunnels = layers(preservation.tunnels.iter(), wanted);
        let back: Vec<(IpNet, IpNet)> =
            preservation.tunnels.iter().map(|(ours, theirs)| (*theirs, *ours)).collect();
        let tunnels_back = layers(back.iter(), wanted);
        let groups = if groups.len() > 1 { groups } else { Vec::new() };
        Self { any, only, groups, selectors, tunnels, tunnels_back }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.any.is_empty() && self.selectors.is_empty() && self.tunnels.is_empty()
    }

    pub(crate) fn sets(&self, wanted: u8) -> impl Iterator<Item = Set> {
        let any = (!self.any.is_empty()).then(|| Set {
            name: protected_name(wanted),
            elements: Elements::Addresses(wanted, self.any.clone()),
        });
        let groups = self.groups.iter().enumerate().map(move |(number, ranges)| Set {
            name: group_name(wanted, number),
            elements: Elements::Addresses(wanted, ranges.clone()),
        });
        let selectors = self.selectors.iter().enumerate().map(move |(number, pairs)| Set {
            name: selectors_name(wanted, number),
            elements: Elements::Pairs(wanted, pairs.clone()),
        });
        let tunnels = self.tunnels.iter().map(|pairs| (TUNNELS, pairs)).enumerate();
        let back = self.tunnels_back.iter().map(|pairs| (TUNNELS_BACK, pairs)).enumerate();
        let tunnels = tunnels.chain(back).map(move |(number, (kind, pairs))| Set {
            name: pairs_name(kind, wanted, number),
            elements: Elements::Pairs(wanted, pairs.clone()),
        });
        any.into_iter().chain(groups).chain(selectors).chain(tunnels)
    }
}

pub(crate) fn family_name(family: u8) -> &'static str {
    if family == IP6 { "ip6" } else { "ip" }
}

pub(crate) fn protected_name(family: u8) -> String {
    format!("protected_{}", family_name(family))
}

pub(crate) fn group_name(family: u8, number: usize) -> String {
    format!("protected_{}_{number}", family_name(family))
}

pub(crate) fn selectors_name(family: u8, number: usize) -> String {
    pairs_name("selectors", family, number)
}

/// Names of the sets of what tunnels send, and of what they receive.
pub(crate) const TUNNELS: &str = "tunnels";
pub(crate) const TUNNELS_BACK: &str = "tunnels_back";

pub(crate) fn pairs_name(kind: &str, family: u8, number: usize) -> String {
    format!("{kind}_{}_{number}", family_name(family))
}
