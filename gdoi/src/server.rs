//! A key server's endpoint: GROUPKEY-PULL as key server (RFC 6407 §3) and GROUPKEY-PUSH (§4), for
//! many peers, on an [`ike::endpoint`].
//!
//! ```text
//! source -> credential -> header -+-> acknowledgement of a push, by the SPI of its KEK
//!                                 +-> phase 1, informational: ike
//!                                 +-> session -> (GDOI, GROUPKEY-PULL)
//! ```

mod pull;
mod pushes;
mod statistics;

use std::collections::VecDeque;

use core::net::{IpAddr, SocketAddr};

pub use ike::endpoint::{Arithmetic, Computation, Computed};
use ike::endpoint::{Endpoint, EndpointConfig, EndpointEvent, Expired, SessionEnd};
use ike::error::PeerIncompatible;
use ike::phase1::IsakmpSa;
use ike::session::{Exchange, PeerAddress};

use crate::config::{PolicyForm, ServerConfig};
use crate::error::Error;
use crate::event::{
    Deadline, PullAbort, PullId, PullRefusal, PushId, ServerEvent, Timer, Transmit,
};
use crate::group::{GroupPolicy, IssuedSa};
use crate::push::{Delivery, DeliveryEvent, DeliveryPolicy, Recipients, SealedPush};
use crate::wire::registry::{GROUPKEY_PULL, GROUPKEY_PUSH_ACK};
use ike::config::Identity;
use ike::time::{BootTime, WallClock};
use ike::wire::registry::Doi;
use pull::Pull;
use pushes::Pushes;

pub use statistics::ServerStatistics;

/// All exchanges of one key server.
///
/// After every `handle_*` and every command, drain `poll_transmit`, `poll_event` and
/// `poll_computation`, then read `poll_timeout`. `now` must never go back.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    endpoint: Endpoint<Pull>,
    pulls_begun: u64,
    pushes: Pushes,
    /// Datagrams of pushes among those sent.
    pushes_sent: u64,
    events: VecDeque<ServerEvent>,
    statistics: ServerStatistics,
}

impl Server {
    /// A key server without any peer. `seed` must come from the operating system's generator and be
    /// used once.
    pub fn new(config: ServerConfig, seed: [u8; 32]) -> Self {
        Self {
            endpoint: Endpoint::new(EndpointConfig::from(&config), seed),
            pulls_begun: 0,
            pushes: Pushes::default(),
            pushes_sent: 0,
            events: VecDeque::new(),
            statistics: ServerStatistics::default(),
            config,
        }
    }

    /// What the server was made with.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Takes over another configuration, and ends what it does not allow any more: see
    /// [`Endpoint::reconfigure`]. Returns who had an ISAKMP SA that ended.
    pub fn reconfigure(&mut self, config: ServerConfig) -> Vec<SocketAddr> {
        let ended = self.endpoint.reconfigure(EndpointConfig::from(&config));
        self.config = config;
        self.settle();
        ended
    }

    /// Who has an ISAKMP SA that [`reconfigure`](Self::reconfigure) would end.
    pub fn ended_by(&self, config: &ServerConfig) -> Vec<(SocketAddr, Identity)> {
        self.endpoint.ended_by(&EndpointConfig::from(config))
    }

    /// Who has ISAKMP SAs, by address and by the identity that it proved.
    pub fn peers(&self) -> impl Iterator<Item = (SocketAddr, &Identity)> {
        self.endpoint.peers()
    }

    /// Every ISAKMP SA with its addresses and its end.
    pub fn isakmp_sas(&self) -> impl Iterator<Item = (PeerAddress, &IsakmpSa, BootTime)> {
        let sessions = self.endpoint.sessions();
        sessions.map(|session| (session.address(), session.sa(), session.expires()))
    }

    /// What time it is from now on, for certificates.
    pub fn set_wall_clock(&mut self, wall_clock: WallClock) {
        self.endpoint.set_wall_clock(wall_clock);
    }

    /// Where the arithmetic of phase 1 is done from now on: within
    /// [`handle_datagram`](Self::handle_datagram), or wherever the caller runs what
    /// [`poll_computation`](Self::poll_computation) hands out.
    pub fn set_arithmetic(&mut self, arithmetic: Arithmetic) {
        self.endpoint.set_arithmetic(arithmetic);
    }

    /// The next computation to run, with [`Arithmetic::HandedOut`].
    pub fn poll_computation(&mut self) -> Option<Computation> {
        self.endpoint.poll_computation()
    }

    /// A computation has been done.
    ///
    /// # Errors
    /// The peer's public value is unusable, or the exchange has ended. Counted like a discarded
    /// datagram.
    pub fn handle_computed(&mut self, computed: Computed, now: BootTime) -> Result<(), Error> {
        let result = self.endpoint.handle_computed(computed, now).map_err(Error::from);
        self.count(&result);
        self.settle();
        result
    }

    /// Peers with the offer of main mode that each has proved: with them, nobody who forges message
    /// 1 in a peer's name can keep that peer out. For [`remember_offer`](Self::remember_offer)
    /// after a restart.
    pub fn proved_offers(&self) -> impl Iterator<Item = (IpAddr, &[u8])> {
        self.endpoint.proved_offers()
    }

    /// The offer of main mode that the peer at `source` has proved.
    pub fn proved_offer(&self, source: IpAddr) -> Option<&[u8]> {
        self.endpoint.proved_offer(source)
    }

    /// The peer at `source` proved earlier that it makes this offer.
    pub fn remember_offer(&mut self, source: IpAddr, offer: &[u8]) {
        self.endpoint.remember_offer(source, offer);
    }

    /// A datagram arrived from `source` at our address `local`.
    ///
    /// # Errors
    /// The datagram is discarded, counted by [`Error::reason`] in the statistics, and the state
    /// unchanged.
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        self.statistics.datagrams_received += 1;
        let result = self.dispatch(source, local, datagram, now);
        self.count(&result);
        self.settle();
        result
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        self.pushes.handle_timeout(now);
        for Expired { address, identity, exchange: pull } in self.endpoint.handle_timeout(now) {
            if pull.is_running() {
                let peer = (address.remote, &identity);
                self.events.push_back(aborted(peer, &pull, PullAbort::TimedOut));
            }
        }
        self.settle();
    }

    /// Answers [`ServerEvent::PullRequested`]: the peer may have the group. The policy goes out in
    /// message 2 now, in the `form` that the peer reads. Once message 3 is valid, [`ServerEvent::PullAccepted`] asks for the keys.
    ///
    /// # Errors
    /// No pull waits for this answer (it may have timed out), the group is another one, or the
    /// policy does not fit into a datagram; in all but the first case the pull still waits.
    pub fn offer_policy(
        &mut self,
        pull: PullId,
        policy: &GroupPolicy,
        form: PolicyForm,
        now: BootTime,
    ) -> Result<(), Error> {
        let result = self.give_policy(pull, (policy, form), None, now);
        self.settle();
        result
    }

    /// Answers [`ServerEvent::PullAccepted`]: the keys go out in message 4, and the peer is a
    /// member from here on (RFC 6407 §3.2).
    ///
    /// # Errors
    /// No pull waits for keys, or they are not those of the policy that was offered, or do not fit
    /// into a datagram; in all but the first case the pull still waits.
    pub fn give_keys(&mut self, pull: PullId, sa: &IssuedSa, now: BootTime) -> Result<(), Error> {
        let result = self.send_keys(pull, sa, now);
        self.settle();
        result
    }

    /// Answers [`ServerEvent::PullRequested`] with a group SA that is the same for every peer: the
    /// policy goes out in message 2 now, the keys in message 4 as soon as message 3 is valid, and
    /// [`ServerEvent::PullCompleted`] tells of it.
    ///
    /// # Errors
    /// No pull waits for this answer (it may have timed out), the group is another one, or the
    /// group SA lacks keys or does not fit into a datagram; in all but the first case the pull
    /// still waits.
    pub fn answer_pull(
        &mut self,
        pull: PullId,
        sa: IssuedSa,
        form: PolicyForm,
        now: BootTime,
    ) -> Result<(), Error> {
        let policy = sa.policy().clone();
        let result = self.give_policy(pull, (&policy, form), Some(sa), now);
        self.settle();
        result
    }

    /// Refuses a pull: by a protected notification, by the end of its ISAKMP SA, or in silence.
    ///
    /// # Errors
    /// No pull waits for this answer.
    pub fn refuse_pull(
        &mut self,
        pull: PullId,
        refusal: PullRefusal,
        now: BootTime,
    ) -> Result<(), Error> {
        let result = self.refuse_policy(pull, refusal, now);
        self.settle();
        result
    }

    /// Ends every ISAKMP SA of `identity`, telling the peers by protected Deletes. Returns how many
    /// there were.
    pub fn delete_peer(&mut self, identity: &Identity, _now: BootTime) -> usize {
        let deleted = self.endpoint.delete_identity(identity);
        self.settle();
        deleted
    }

    /// Ends every ISAKMP SA with a peer that `is_meant` names by its address and identity, telling
    /// the peers by protected Deletes. Returns who had them.
    pub fn delete_peers(
        &mut self,
        is_meant: impl Fn(SocketAddr, &Identity) -> bool,
    ) -> Vec<SocketAddr> {
        let deleted = self.endpoint.delete_peers(is_meant);
        self.settle();
        deleted
    }

    /// Sends a push to members, again and again as `policy` says, and waits for their
    /// acknowledgements. What becomes of it, [`poll_push_event`](Self::poll_push_event) tells.
    pub fn push(
        &mut self,
        push: SealedPush,
        recipients: Recipients,
        policy: DeliveryPolicy,
        now: BootTime,
    ) -> PushId {
        self.pushes.begin(Delivery::new(push, recipients, policy, now))
    }

    /// Stops a push. Returns whether it was still on its way; no event follows.
    pub fn cancel_push(&mut self, push: PushId) -> bool {
        self.pushes.cancel(push)
    }

    /// Stops sending a push because a later one says all that it says. Its acknowledgements still
    /// count while they may be on their way, and nobody is called missing.
    pub fn supersede_push(&mut self, push: PushId, now: BootTime) {
        self.pushes.supersede(push, now);
    }

    /// A push on its way.
    pub fn push_in_progress(&self, push: PushId) -> Option<&Delivery> {
        self.pushes.get(push)
    }

    /// What happened to a push next.
    pub fn poll_push_event(&mut self) -> Option<(PushId, DeliveryEvent)> {
        self.pushes.poll_event()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.poll_answer().or_else(|| self.poll_push())
    }

    /// The next answer to somebody who asked, who repeats its request if it gets none.
    pub fn poll_answer(&mut self) -> Option<Transmit> {
        self.endpoint.poll_transmit()
    }

    /// The next datagram of a push.
    pub fn poll_push(&mut self) -> Option<Transmit> {
        let transmit = self.pushes.poll_transmit()?;
        self.pushes_sent += 1;
        self.statistics.datagrams_sent += 1;
        Some(transmit)
    }

    /// Drops answers that wait to be sent, as the network might do it: who asked repeats its
    /// request. Pushes, which nobody asks for, wait on.
    pub fn discard_answers(&mut self) {
        while self.endpoint.poll_transmit().is_some() {}
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let ike = self.endpoint.poll_timeout().map(|deadline| deadline.map(Timer::Ike));
        ike.into_iter().chain(self.pushes.poll_timeout()).min()
    }

    /// What happened next; poll it until there is nothing more.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// Figures for show commands: most count since start, or since they were cleared.
    pub fn statistics(&self) -> &ServerStatistics {
        &self.statistics
    }

    /// Counts from 0 again.
    pub fn clear_statistics(&mut self) {
        self.endpoint.clear_statistics();
        self.pushes_sent = 0;
        self.statistics = ServerStatistics::default();
        self.statistics.measure(&self.endpoint, self.pushes_sent);
    }

    fn dispatch(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        let inbound = self.endpoint.admit(source, local, datagram, now)?;
        // Its cookies are the SPI of a KEK and name no ISAKMP SA.
        if inbound.header.exchange == GROUPKEY_PUSH_ACK {
            return self.pushes.handle_acknowledgement(source, datagram);
        }
        let Some(doi) = self.endpoint.handle(inbound)? else { return Ok(()) };
        match (doi, inbound.header.exchange) {
            (Doi::GDOI, GROUPKEY_PULL) => self.handle_pull(inbound),
            (_, other) => Err(PeerIncompatible::ExchangeType(other.0).into()),
        }
    }

    fn count(&mut self, result: &Result<(), Error>) {
        if let Err(error) = result {
            *self.statistics.discards.entry(error.reason()).or_default() += 1;
        }
    }

    /// Takes over what happened below.
    fn settle(&mut self) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                EndpointEvent::Established { address, identity, transform, cookies } => {
                    self.events.push_back(ServerEvent::Phase1Established {
                        peer: address.remote,
                        identity,
                        transform,
                        cookies: (cookies.initiator, cookies.responder),
                    });
                }
                // Members stay where they registered from.
                EndpointEvent::Moved { .. } => {}
                EndpointEvent::Ended { session, cause } => {
                    let running = session.exchanges().values().filter(|pull| pull.is_running());
                    let peer = (session.address().remote, session.identity());
                    let aborted = |pull| aborted(peer, pull, PullAbort::IsakmpSaEnded);
                    self.events.extend(running.map(aborted));
                    let (peer, identity) = (session.address().remote, session.identity().clone());
                    match cause {
                        SessionEnd::Here => {}
                        SessionEnd::DeletedByPeer => {
                            self.events.push_back(ServerEvent::PeerDeleted { peer, identity });
                        }
                        SessionEnd::PeerRestarted => {
                            self.events.push_back(ServerEvent::PeerRestarted { peer, identity });
                        }
                    }
                }
            }
        }
        self.statistics.measure(&self.endpoint, self.pushes_sent);
    }
}

fn aborted(
    (peer, identity): (SocketAddr, &Identity),
    pull: &Pull,
    reason: PullAbort,
) -> ServerEvent {
    let (pull, group, identity) = (pull.id, pull.group, identity.clone());
    ServerEvent::PullAborted { pull, peer, identity, group, reason }
}
