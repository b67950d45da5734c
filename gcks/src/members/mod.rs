//! Who may have keys, and who has them.

pub mod authorization;
pub mod registry;
