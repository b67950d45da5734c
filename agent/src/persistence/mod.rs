//! What outlives the process: the state file, which holds no key, and the sealed keys.

pub mod sealed_keys;
pub mod state_file;
