//! The octets of GDOI (RFC 6407), on those of ISAKMP and IKEv1 in [`ike::wire`].
//!
//! Decoding goes in stages, each with its own error: [`ike::wire::header::split`] checks the header
//! of a datagram, [`ike::wire::chain::walk`] cuts clear or decrypted octets into payloads,
//! [`RawPayload::read`](ike::wire::RawPayload::read) makes one payload a struct. Raw spans stay at
//! hand, because HASH and SIG cover the octets as received.
//!
//! ```text
//! datagram -> Header + body -> [decrypt] -> Chain of RawPayload -> typed payloads
//! ```

pub mod byte_order;
pub mod gap;
pub mod group_id;
pub mod group_sa;
pub mod kd;
mod keys;
mod lengths;
pub mod lkh;
pub mod payload;
mod policy;
pub mod registry;
pub mod sa_kek;
pub mod sa_tek;
mod selector;
pub mod seq;

pub use crate::group::GroupKeys;
pub use keys::{KeyError, group_keys, key_download};
pub use lengths::{KeyLengths, kek_octets};
pub use payload::Payload;
pub use policy::{
    AttributeName, PolicyError, group_policy, ignored_attributes, security_association,
    sender_id_request,
};
pub use selector::SelectorError;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;
