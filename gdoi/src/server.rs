//! A key server's endpoint: main mode as responder (RFC 2409 §5.4) and GROUPKEY-PULL as key server (RFC 6407 §3), for many peers.

mod statistics;

use std::collections::VecDeque;

use core::net::SocketAddr;

use crate::config::{Identity, ServerConfig};
use crate::error::{ApiMisuse, Error, NotAccepted};
use crate::event::{Deadline, PullId, PullRefusal, ServerEvent, Transmit};
use crate::group::GroupSa;
use crate::time::BootTime;

pub use statistics::ServerStatistics;

/// All exchanges of one key server.
///
/// After every `handle_*` and every wish, drain `poll_transmit` and `poll_event`, then read
/// `poll_timeout`. `now` must never go back.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    transmits: VecDeque<Transmit>,
    events: VecDeque<ServerEvent>,
    statistics: ServerStatistics,
}

impl Server {
    /// A key server without any peer. `seed` must come from the operating system's generator and be used once.
    pub fn new(config: ServerConfig, seed: [u8; 32]) -> Self {
        let _ = seed;
        Self { config, transmits: VecDeque::new(), events: VecDeque::new(), statistics: ServerStatistics::default() }
    }

    /// What the server was made with.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// A datagram arrived from `source` at our address `local`.
    ///
    /// # Errors
    /// The datagram is discarded, counted by [`Error::reason`] in the statistics, and the state unchanged.
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        let _ = (source, local, datagram, now);
        Err(NotAccepted::Unexpected.into())
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        let _ = now;
    }

    /// Answers [`ServerEvent::PullRequested`]: the peer may have the group. The policy goes out in
    /// message 2 now, the keys in message 4 once message 3 is valid.
    ///
    /// # Errors
    /// No pull waits for this answer (it may have timed out), the group is another one, or the
    /// group SA does not fit on the wire; in the last two cases the pull still waits.
    pub fn answer_pull(&mut self, pull: PullId, sa: GroupSa, now: BootTime) -> Result<(), Error> {
        let _ = (pull, sa, now);
        Err(ApiMisuse::NoSuchPull.into())
    }

    /// Refuses a pull, by a protected notification or in silence.
    ///
    /// # Errors
    /// No pull waits for this answer.
    pub fn refuse_pull(&mut self, pull: PullId, refusal: PullRefusal, now: BootTime) -> Result<(), Error> {
        let _ = (pull, refusal, now);
        Err(ApiMisuse::NoSuchPull.into())
    }

    /// Ends every ISAKMP SA of `identity`, telling the peers by protected Deletes. Returns how many there were.
    pub fn delete_peer(&mut self, identity: &Identity, now: BootTime) -> usize {
        let _ = (identity, now);
        0
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        None
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// Figures since start.
    pub fn statistics(&self) -> &ServerStatistics {
        &self.statistics
    }
}
