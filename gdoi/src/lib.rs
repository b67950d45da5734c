//! The protocols of a GDOI group (RFC 6407) on IKEv1 ([`ike`]), for both roles.
//!
//! The crate does no input or output, reads no clock and draws no operating system randomness:
//! time comes in as [`BootTime`](ike::BootTime), datagrams as slices, randomness as a 32-octet
//! seed. What a machine wants done comes out of its `poll_*` methods as plain data.
//!
//! Methods use one vocabulary: getters, `handle_*` (the world happened), imperative verbs (the
//! user commands), `poll_*` (what the machine wants done).

#![warn(missing_docs)]

pub mod config;
mod delay_detection;
pub mod error;
pub mod event;
pub mod group;
pub mod kek_cipher;
pub mod lkh;
pub mod member;
pub mod pull;
pub mod push;
pub mod server;
pub mod wire;

pub use error::Error;

/// UDP port of the protocols (RFC 6407 §2.2).
pub const PORT: u16 = 848;
