//! ISAKMP (RFC 2408) and IKEv1 (RFC 2407, RFC 2409), for both roles and any domain of
//! interpretation.
//!
//! The crate does no input or output, reads no clock and draws no operating system randomness:
//! time comes in as [`BootTime`], datagrams as slices, randomness as a 32-octet seed. What a
//! machine wants done comes out of its `poll_*` methods as plain data.
//!
//! Methods use one vocabulary: getters, `handle_*` (the world happened), imperative verbs (the
//! user commands), `poll_*` (what the machine wants done).

mod address;
pub mod certificate;
pub mod config;
pub mod crypto;
pub mod dead_peer_detection;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod fragmentation;
mod number;
pub mod peer;
pub mod phase1;
pub mod quick;
pub mod retransmission;
pub mod session;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod wire;

pub use error::Error;
pub use time::{BootTime, WallClock};
