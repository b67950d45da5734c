//! The kernel's counters of ESP that it dropped, from one look to the next: which rises are worth a
//! pull.

use std::collections::BTreeMap;

use xfrm::model::SaId;

/// Packets of ESP with unknown SPIs between two looks that are worth a pull: late ones of a key
/// that has ended are not.
const UNKNOWN_ESP: u64 = 10;
/// Integrity failures of one SA between two looks that are worth a pull: now and then a line
/// damages a packet.
const INTEGRITY_FAILURES: u32 = 10;

/// The counters at the last look; nothing before the first one, because what an earlier run saw is
/// no news.
#[derive(Debug, Default)]
pub(crate) struct KernelDrops {
    unknown_esp: Option<u64>,
    integrity_failures: Option<BTreeMap<SaId, u32>>,
}

impl KernelDrops {
    /// Takes the packets with unknown SPIs that were dropped so far; true when a pull is worth it.
    pub(crate) fn unknown_esp_rises(&mut self, packets: u64) -> bool {
        // The counter starts at zero with new tables.
        let before = self.unknown_esp.replace(packets).unwrap_or(packets).min(packets);
        packets - before >= UNKNOWN_ESP
    }

    /// Takes the integrity failures of each SA so far; the SAs for which a pull is worth it.
    pub(crate) fn rising_integrity_failures(&mut self, packets: &BTreeMap<SaId, u32>) -> Vec<SaId> {
        let Some(before) = self.integrity_failures.replace(packets.clone()) else {
            return Vec::new();
        };
        // A counter starts at zero with a new SA.
        let earlier = |id: &SaId, now: u32| {
            before.get(id).copied().filter(|earlier| *earlier <= now).unwrap_or_default()
        };
        packets
            .iter()
            .filter(|&(id, now)| now - earlier(id, *now) >= INTEGRITY_FAILURES)
            .map(|(id, _)| *id)
            .collect()
    }
}
