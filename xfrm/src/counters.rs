//! A pair of counters, as states and rules keep them.

/// How much traffic an SA or a rule has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets since the entry was made.
    pub packets: u64,
    /// Octets of these packets, as the kernel counts them.
    pub octets: u64,
}
