//! What the lab says: numbered statements with their evidence, and the promises of `SECURITY.md`.

pub mod narrative;
pub mod statements;
pub mod table;
