//! Figures of the decisions on pulls.

/// Pulls that did not end with keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Refused: no such group, not authorized, or no way to answer.
    pub refused: u64,
    pub aborted: u64,
}
