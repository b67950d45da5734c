//! The lab: the built daemons, a real kernel, network namespaces, captures, and statements about
//! them that are checked.
//!
//! Nothing depends on this crate. The binary `lab` runs where the kernel has ESP and nf_tables and
//! where it is root; `cargo xtask lab` provides such a place.

pub mod bench;
pub mod lab;
pub mod observe;
pub mod report;
pub mod scenarios;
pub mod traffic;
