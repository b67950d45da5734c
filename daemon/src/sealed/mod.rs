//! What a daemon keeps on disk across a restart, keys included: octets, and the file that seals
//! them.

pub mod codec;
pub mod file;
