//! What operators see: the snapshot behind gdoictl, the log and the status line.

pub mod log;
pub mod names;
pub mod snapshot;
