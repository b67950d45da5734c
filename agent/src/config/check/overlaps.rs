//! Exclude rules of one group that let another group's traffic pass in clear: the kernel has one
//! policy database, and one set of guards.

use std::net::IpAddr;

use gdoi::group::AddressRange;
use ipnet::IpNet;

use super::Check;
use crate::config::Group;

impl Check<'_> {
    /// Says which rules reach into the protected prefixes of another group that does not have them
    /// itself.
    pub(super) fn excludes_across_groups(&self, groups: &[Group]) {
        for group in groups {
            for (rule, number) in group.exclude.iter().zip(1..) {
                let inside = |other: &&Group| {
                    let reaches = |range| other.protected.iter().any(|net| overlaps(range, net));
                    reaches(&rule.source) && reaches(&rule.destination)
                };
                let others = groups.iter().filter(|other| {
                    other.id != group.id && !other.exclude.contains(rule) && inside(other)
                });
                for other in others {
                    let message = format!(
                        "group {}: exclude rule {number} lets traffic of group {} pass in clear as well",
                        group.name, other.name
                    );
                    let remedy = "narrow it, or write it in that group, too";
                    self.report.warning(None, message, remedy);
                }
            }
        }
    }
}

fn overlaps(range: &AddressRange, net: &IpNet) -> bool {
    let (first, last) = match range {
        AddressRange::Any => return true,
        AddressRange::Address(address) => (*address, *address),
        AddressRange::Subnet(subnet) => (subnet.network(), subnet.broadcast()),
        AddressRange::Range(first, last) => (*first, *last),
    };
    let same_family = |address: IpAddr| address.is_ipv4() == net.addr().is_ipv4();
    same_family(first) && first <= net.broadcast() && net.network() <= last
}
