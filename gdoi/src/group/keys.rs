//! The keys of a group SA, apart from its policy (RFC 6407 §5.6).

use std::collections::BTreeMap;

use super::{KekKeys, LkhDownload, SenderIds, Spi, TekKeys};

/// What a KD payload adds to a policy to make a [`GroupSa`](crate::group::GroupSa).
#[derive(Debug, PartialEq, Eq, Default)]
pub struct GroupKeys {
    /// Keys of the data SAs: exactly the SPIs of the policy.
    pub tek_keys: BTreeMap<Spi, TekKeys>,
    /// Keys of the rekey SA, if the policy has one.
    pub kek_keys: Option<KekKeys>,
    /// Sender identifiers for counter modes (RFC 6407 §5.6.4).
    pub sender_ids: Option<SenderIds>,
    /// The member's path through the key hierarchy, if the group has one.
    pub lkh: Option<LkhDownload>,
}
