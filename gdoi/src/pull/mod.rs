//! GROUPKEY-PULL (RFC 6407 §3): a member registers with a key server under the protection of an
//! ISAKMP SA.
//!
//! ```text
//! GM -> GCKS   HDR*, HASH(1), Ni, ID
//! GM <- GCKS   HDR*, HASH(2), Nr, SA
//! GM -> GCKS   HDR*, HASH(3) [, GAP ]
//! GM <- GCKS   HDR*, HASH(4) [, SEQ ], KD
//! ```
//!
//! A message goes through stages that are types: decrypted octets, a chain whose HASH was
//! verified, a message struct read whole. Only then does a state consume it.

pub mod member;
pub mod message;
pub mod server;

#[cfg(test)]
mod tests;
