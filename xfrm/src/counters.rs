//! A pair of counters, as states and rules keep them.

/// Packets and octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub octets: u64,
}
