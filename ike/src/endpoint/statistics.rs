//! What an endpoint counts.

/// Figures of an [`Endpoint`](super::Endpoint): totals since start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Datagrams queued for sending.
    pub datagrams_sent: u64,
    pub phase1_established: u64,
    /// Half-open exchanges that ran out of time.
    pub half_open_expired: u64,
    /// Half-open exchanges that made room for another.
    pub half_open_evicted: u64,
    /// Diffie-Hellman computations (a key pair and a shared secret count as one each).
    pub diffie_hellman: u64,
    /// Duplicates answered from memory.
    pub duplicates_answered: u64,
}
