//! GROUPKEY-PUSH (RFC 6407 §4) and its acknowledgement (RFC 8263), both roles.
//!
//! ```text
//! GCKS -> GM   HDR*, SEQ, [D, ...] SA, KD, SIG        new keys
//! GCKS -> GM   HDR*, SEQ, D, ... SIG                  deletes alone
//! GCKS <- GM   HDR, HASH, SEQ, ID                     acknowledgement
//! ```
//!
//! A push goes through stages that are types, in this order:
//!
//! ```text
//! datagram -> Opened -> WellFormed -> Fresh -> VerifiedPush -> PushAccepted
//!             KEK       payloads      SEQ      SIG             policy and keys
//! ```
//!
//! Only [`open::VerifiedPush`] reads payload bodies, so that no key of an unverified push can leave
//! this module. The state of a rekey SA moves after SIG was verified and never before. A bad push
//! is answered by silence.

pub mod ack;
mod apply;
pub mod delivery;
pub mod member;
pub mod message;
pub mod open;
pub mod rekey_sa;
pub mod replay;
pub mod seal;

#[cfg(test)]
mod tests;

pub use crate::kek_cipher::{KekUnusable, check_kek};
pub use ack::{AcknowledgementKind, AcknowledgementLength};
pub use apply::{KekChange, PushAccepted};
pub use delivery::{Delivery, DeliveryEvent, DeliveryPolicy, Recipients};
pub use member::{RekeyEvent, RekeyMember, RekeySettings};
pub use message::{Deletion, SignatureEncoding, SignedLength, addressed_to};
pub use seal::{KekDelivery, KekPacketSpi, PushContent, SealOptions, SealedPush, Sealer};
