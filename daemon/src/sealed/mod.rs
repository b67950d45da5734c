//! State of a daemon that survives a restart, keys included: its encoding, and the file that seals
//! it.

pub mod codec;
pub mod file;
pub mod seal;
