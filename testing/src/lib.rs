//! What the tests of several crates share. No daemon depends on it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests"
)]

#[cfg(feature = "member")]
pub mod member;
pub mod process;
pub mod secret_search;
