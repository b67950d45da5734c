//! Counters for show commands.

use std::collections::BTreeMap;

use crate::counters::Counters;
use crate::kernel::Current;
use crate::model::SaId;
use crate::nft::{DROP, IN_CLEAR};

/// What was carried and what was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Counters of each ESP state.
    pub sas: BTreeMap<SaId, Counters>,
    /// Per nf_tables rule with a counter, by the rule's comment. Those of rules that drop begin
    /// with [`DROP`], and end with [`IN_CLEAR`] where the packet was in clear.
    pub rules: BTreeMap<String, Counters>,
}

impl From<&Current> for Statistics {
    fn from(current: &Current) -> Self {
        Self {
            sas: current.sas.iter().map(|(id, installed)| (*id, installed.counters)).collect(),
            rules: current.rules.clone(),
        }
    }
}

impl Statistics {
    /// Clear packets between group prefixes that the guards dropped, arriving or leaving.
    pub fn guard_drops(&self) -> Counters {
        let drops = self
            .rules
            .iter()
            .filter(|(comment, _)| comment.starts_with(DROP) && comment.ends_with(IN_CLEAR));
        drops.fold(Counters::default(), |sum, (_, one)| Counters {
            packets: sum.packets.saturating_add(one.packets),
            octets: sum.octets.saturating_add(one.octets),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guard_drops_are_the_clear_packets_only() {
        let counters = |packets| Counters { packets, octets: 10 * packets };
        let rules = [
            ("drop: arriving in clear", 1),
            ("drop: leaving in clear", 2),
            ("drop: ESP without an SA", 4),
            ("to XFRM", 8),
        ];
        let rules =
            rules.into_iter().map(|(rule, packets)| (rule.to_owned(), counters(packets))).collect();
        let statistics = Statistics { sas: BTreeMap::new(), rules };
        assert_eq!(statistics.guard_drops(), counters(3));
    }
}
