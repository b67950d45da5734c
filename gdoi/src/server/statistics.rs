//! What a key server counts.

use std::collections::BTreeMap;

use ike::endpoint::Endpoint;
use ike::session::Exchange;

/// Figures of a [`Server`](super::Server). All are totals since start, except the first three,
/// which are as of now.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ServerStatistics {
    /// Main modes that have begun and not ended.
    pub half_open: usize,
    /// Established ISAKMP SAs now.
    pub established: usize,
    /// Pulls in progress now.
    pub pulls: usize,
    /// Datagrams that arrived, whatever became of them.
    pub datagrams_received: u64,
    /// Datagrams queued for sending.
    pub datagrams_sent: u64,
    /// Main modes that ended with an ISAKMP SA.
    pub phase1_established: u64,
    /// Pulls for which keys were sent.
    pub pulls_completed: u64,
    /// Pulls refused: unknown group or not authorised.
    pub pulls_refused: u64,
    /// Half-open exchanges that ran out of time.
    pub half_open_expired: u64,
    /// Half-open exchanges that made room for another.
    pub half_open_evicted: u64,
    /// Diffie-Hellman computations (a key pair and a shared secret count as one each).
    pub diffie_hellman: u64,
    /// Duplicates answered from memory.
    pub duplicates_answered: u64,
    /// Datagrams discarded, by [`Error::reason`](crate::error::Error::reason).
    pub discards: BTreeMap<&'static str, u64>,
}

impl ServerStatistics {
    /// Takes over what the endpoint below counts; `pushes_sent` are the datagrams that it has not
    /// sent.
    pub(super) fn measure<X: Exchange>(&mut self, endpoint: &Endpoint<X>, pushes_sent: u64) {
        let ike = endpoint.statistics();
        self.half_open = endpoint.half_open();
        self.established = endpoint.established();
        self.pulls = endpoint.running();
        self.datagrams_sent = ike.datagrams_sent.saturating_add(pushes_sent);
        self.phase1_established = ike.phase1_established;
        self.half_open_expired = ike.half_open_expired;
        self.half_open_evicted = ike.half_open_evicted;
        self.diffie_hellman = ike.diffie_hellman;
        self.duplicates_answered = ike.duplicates_answered;
    }
}
