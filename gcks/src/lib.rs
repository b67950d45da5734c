//! gcks: a GDOI key server (RFC 6407) for groups of routers.
//!
//! [`config`] turns a file into checked values; [`service`] holds all state and does no input or
//! output of its own; [`daemon`] is the loop that feeds it datagrams and the time.

pub mod algorithm;
pub mod authorise;
pub mod config;
pub mod control;
pub mod daemon;
mod deliveries;
pub mod kek;
pub mod keys;
pub mod net;
pub mod notice;
pub mod operator;
mod pulls;
pub mod pushes;
pub mod registry;
pub mod rekey;
pub mod reload;
pub mod schedule;
pub mod senders;
pub mod service;
pub mod signing;
pub mod state;
