//! The octets of ISAKMP (RFC 2408) and IKEv1 (RFC 2407, RFC 2409).
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
pub mod esp_mode;
pub mod fragment;
pub mod hash;
pub mod header;
pub mod id;
pub mod ke;
pub mod nat_d;
pub mod nonce;
pub mod notify;
pub mod payload;
pub mod proposal;
pub mod registry;
pub mod sa;
pub mod signature;
pub mod transform;
pub mod vendor;

pub use chain::{Body, Chain, RawPayload};
pub use codec::{Codec, EncodeError, InvalidMessage, Reader, Writer};
pub use header::Header;
pub use payload::Payload;

#[cfg(test)]
mod tests;
