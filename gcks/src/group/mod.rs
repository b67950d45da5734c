//! One group: its keys, and what they are distributed with.

pub mod event;
pub mod kek;
pub mod key_generation;
pub mod push;
pub mod rekey_sa;
pub mod sender_ids;
pub mod signing_key;
pub mod tek_schedule;
