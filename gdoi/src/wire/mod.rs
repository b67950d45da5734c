//! The octets of ISAKMP (RFC 2408), IKEv1 (RFC 2407, RFC 2409) and GDOI (RFC 6407).
//!
//! Decoding goes in stages, each with its own error: [`header::split`] checks the header of a
//! datagram, [`chain::walk`] cuts clear or decrypted octets into payloads,
//! [`chain::RawPayload::read`] makes one payload a struct. Raw spans stay at hand, because HASH and
//! SIG cover the octets as received.
//!
//! ```text
//! datagram -> Header + body -> [decrypt] -> Chain of RawPayload -> typed payloads
//! ```

pub mod attribute;
pub mod cert;
pub mod cert_request;
pub mod chain;
pub mod codec;
pub mod delete;
pub mod gap;
pub mod group_sa;
pub mod hash;
pub mod header;
pub mod id;
pub mod kd;
pub mod ke;
mod keys;
mod lengths;
pub mod lkh;
pub mod nat_d;
pub mod nonce;
pub mod notify;
pub mod payload;
mod policy;
pub mod proposal;
pub mod registry;
pub mod sa;
pub mod sa_kek;
pub mod sa_tek;
mod selector;
pub mod seq;
pub mod signature;
pub mod transform;
pub mod vendor;

pub use chain::{Body, Chain, RawPayload};
pub use codec::{Codec, EncodeError, InvalidMessage, Reader, Writer};
pub use header::Header;
pub use keys::{GroupKeys, KeyError, group_keys, key_download};
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
