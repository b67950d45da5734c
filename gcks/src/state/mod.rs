//! What survives a restart: keys, SPIs, numbers of pushes, sender identifiers, registrations, the
//! key hierarchy.

pub mod export;
pub mod restore;
mod settings;
