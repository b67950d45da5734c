//! The lab: the built daemons, a real kernel, network namespaces, captures, and statements about
//! them that are checked.
//!
//! Nothing depends on this crate. The binary `lab` runs where the kernel has ESP and nf_tables and
//! where it is root; `cargo xtask lab` provides such a place.

pub mod bench;
pub mod capture;
pub mod daemons;
pub mod drops;
pub mod esp;
pub mod firewall;
pub mod kernel;
pub mod lab;
pub mod leak;
pub mod load;
pub mod narrative;
pub mod nodes;
pub mod packet;
pub mod plan;
pub mod push_time;
pub mod pushes;
pub mod scenarios;
pub mod statements;
pub mod states;
pub mod table;
pub mod topology;
pub mod traffic;
pub mod volley;
