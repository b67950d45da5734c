//! What survives a restart: keys, SPIs, numbers of pushes, sender identifiers, registrations, the key hierarchy.

pub mod codec;
pub mod export;
pub mod file;
pub mod restore;
