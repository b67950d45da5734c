//! Counters for show commands.

use std::collections::BTreeMap;

use crate::kernel::Current;
use crate::model::SaId;

/// Packets and octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub octets: u64,
}

/// What was carried and what was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Per state.
    pub sas: BTreeMap<SaId, Counters>,
    /// Per nf_tables rule with a counter, by the rule's comment. The drops of the guards begin with [`crate::nft::DROP`].
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
    /// Clear packets that the guards dropped.
    pub fn guard_drops(&self) -> Counters {
        let drops = self.rules.iter().filter(|(comment, _)| comment.starts_with(crate::nft::DROP));
        drops.fold(Counters::default(), |sum, (_, one)| Counters {
            packets: sum.packets.saturating_add(one.packets),
            octets: sum.octets.saturating_add(one.octets),
        })
    }
}
