//! The group security association: what a GROUPKEY-PULL or GROUPKEY-PUSH delivers (RFC 6407 §1.3).

mod gap;
mod kek;
mod keys;
mod lkh;
pub mod proof;
mod sa;
mod selector;
mod sender;
mod tek;
#[cfg(test)]
pub(crate) mod testing;

pub use gap::GroupAssociatedPolicy;
pub use kek::{KekKeys, KekPolicy, PushEndpoint};
pub use keys::GroupKeys;
pub use lkh::{LkhDownload, LkhKey, LkhUpdate};
pub use sa::{GroupSa, IssuedSa, PolicyAndKeys};
pub use selector::{AddressRange, TrafficSelector};
pub use sender::SenderIds;
pub use tek::{
    AddressPreservation, AuthenticationAlgorithm, EncapsulationMode, EspTransform, SaDirection,
    Spi, TekKeys, TekPolicy, TekProtection, TekProtocol, concurrent,
};

/// The number that names a group: an ID_KEY_ID payload of 4 octets (RFC 6407 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl core::fmt::Display for GroupId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

/// Policy of a group without any key: the SA payload with its SAK, GAP and SAT payloads (RFC 6407
/// §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPolicy {
    /// The group that the policy is for.
    pub group: GroupId,
    /// Policy of the rekey SA, if the key server pushes.
    pub kek: Option<KekPolicy>,
    /// Policy for the group as a whole.
    pub gap: GroupAssociatedPolicy,
    /// One entry per SAT payload, in the order received. Several may share one SPI.
    pub teks: Vec<TekPolicy>,
}
