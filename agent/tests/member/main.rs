//! A member as a whole, on a virtual clock, with scripted key servers and a fake kernel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests"
)]

mod crash;
mod declared_options;
mod failure;
mod lifecycle;
mod missing;
mod pull_again;
mod reboot;
mod rekey;
mod reload;
