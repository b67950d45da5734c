//! A group member's attempt to register with one key server: main mode (RFC 2409 §5.4), then GROUPKEY-PULL (RFC 6407 §3).

use std::collections::VecDeque;

use core::net::SocketAddr;

use crate::config::RegistrationConfig;
use crate::error::{Error, NotAccepted};
use crate::event::{Deadline, RegistrationEvent, RegistrationFailure, Stage, Transmit};
use crate::time::BootTime;

/// One attempt to register one group with one key server, and the ISAKMP SA that stays afterwards.
///
/// After every `handle_*` and every wish, drain `poll_transmit` and `poll_event`, then read
/// `poll_timeout`. `now` must never go back. The value is inert: dropping it ends everything in
/// silence; [`delete_isakmp_sa`](Self::delete_isakmp_sa) says goodbye first.
#[derive(Debug)]
pub struct Registration {
    config: RegistrationConfig,
    transmits: VecDeque<Transmit>,
    events: VecDeque<RegistrationEvent>,
    stage: Stage,
}

impl Registration {
    /// Begins: message 1 of main mode is queued. `seed` must come from the operating system's generator and be used once.
    pub fn new(config: RegistrationConfig, seed: [u8; 32], now: BootTime) -> Self {
        let _ = (seed, now);
        Self { config, transmits: VecDeque::new(), events: VecDeque::new(), stage: Stage::Phase1 }
    }

    /// What the attempt was made with.
    pub fn config(&self) -> &RegistrationConfig {
        &self.config
    }

    /// A datagram arrived from `source`.
    ///
    /// # Errors
    /// The datagram is discarded and the state unchanged; count it by [`Error::reason`].
    pub fn handle_datagram(&mut self, source: SocketAddr, datagram: &[u8], now: BootTime) -> Result<(), Error> {
        let _ = (source, datagram, now);
        Err(NotAccepted::Unexpected.into())
    }

    /// The network said that the key server cannot be reached. Anybody can say that: it shortens
    /// the wait by one retransmission, and is ignored once the key server has answered.
    pub fn handle_unreachable(&mut self, now: BootTime) {
        let _ = now;
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        let _ = now;
    }

    /// The caller can use the policy offered: asks for the keys. Without an offer nothing happens.
    pub fn accept_policy(&mut self, now: BootTime) {
        let _ = now;
    }

    /// The caller cannot use the policy offered: deletes the ISAKMP SA (RFC 6407 §3.3) and fails. Without an offer nothing happens.
    pub fn refuse_policy(&mut self, now: BootTime) {
        let _ = now;
        self.stage = Stage::Ended;
        self.events.push_back(RegistrationEvent::Failed(RegistrationFailure::PolicyRefused));
    }

    /// Ends in order: tells the key server by a protected Delete if there is an ISAKMP SA.
    pub fn delete_isakmp_sa(&mut self, now: BootTime) {
        let _ = now;
        self.stage = Stage::Ended;
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
    pub fn poll_event(&mut self) -> Option<RegistrationEvent> {
        self.events.pop_front()
    }

    /// Where the registration stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }
}
