//! One membership: the registration in use, the keys it brought, and the address it speaks from.
//!
//! Like the machines of `gdoi` it has no clock and no sockets. After every `handle_*`, drain
//! [`Membership::poll_transmit`] and [`Membership::poll_event`], then read [`Membership::poll_timeout`].

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::VecDeque;

use control::member::MemberCounters;
use gdoi::BootTime;
use gdoi::config::{Identity, Phase1Transform, RegistrationConfig};
use gdoi::error::Error;
use gdoi::event::{RegistrationEvent, Stage, Transmit};
use gdoi::group::{GroupPolicy, GroupSa, Spi};
use gdoi::member::Registration;

pub use crate::attempt::IsakmpSa;
use crate::attempt::{Attempt, explain};
use crate::config;
use crate::facts::{self, Interfaces, Local, Missing};
use crate::failover::{Failover, PassedOver, Reason, ServerIndex, State};
use crate::generation::Generations;
use crate::input::{self, Keys};

/// Gives a fresh seed from the operating system for each attempt, or says why it cannot.
pub type Seeds = Box<dyn FnMut() -> Result<[u8; 32], String> + Send>;

/// What happened, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The group has an address to speak from.
    LocalFound(Local),
    /// The group lost it, or never had one.
    LocalMissing(Missing),
    /// An attempt begins.
    Trying(ServerIndex),
    /// The key server proved its identity.
    Phase1Established {
        /// Which server.
        server: ServerIndex,
        /// What was negotiated.
        transform: Phase1Transform,
    },
    /// An attempt brought no key.
    PassedOver(PassedOver),
    /// All servers were passed over.
    Pausing {
        /// How long.
        pause: Duration,
    },
    /// Keys have arrived.
    Registered {
        /// From which server.
        server: ServerIndex,
        /// SPIs of the TEKs.
        spis: Vec<Spi>,
        /// Until the first of them ends.
        lifetime: Duration,
    },
    /// Keys were activated, deactivated or have ended; some are left.
    RolledOver {
        /// SPIs that are left.
        spis: Vec<Spi>,
    },
    /// All keys have ended.
    Expired,
    /// The key server ended the ISAKMP SA. Keys stay valid.
    IsakmpSaEnded(ServerIndex),
}

/// The membership of one group.
pub struct Membership {
    config: config::Group,
    slot: u8,
    local_port: u16,
    seeds: Seeds,
    failover: Failover,
    attempt: Option<Attempt>,
    generations: Generations,
    interfaces: Interfaces,
    local: Result<Local, Missing>,
    counters: MemberCounters,
    last_server: Option<ServerIndex>,
    had_keys: bool,
    ticked: BootTime,
    changed: bool,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Membership {
    /// A membership that waits for [`Membership::handle_interfaces`]. `jitter` spreads members in time.
    pub fn new(config: config::Group, slot: u8, local_port: u16, seeds: Seeds, jitter: u64, now: BootTime) -> Self {
        let failover = Failover::new(config.servers.len(), config.attempt_limit(), jitter);
        Self {
            config,
            slot,
            local_port,
            seeds,
            failover,
            attempt: None,
            generations: Generations::default(),
            interfaces: Interfaces::new(),
            local: Err(Missing::Unknown),
            counters: MemberCounters::default(),
            last_server: None,
            had_keys: false,
            ticked: now,
            changed: true,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The machine's interfaces as they are now. An address that came, went or moved starts a new registration; keys
    /// that are valid stay in use under the new address.
    pub fn handle_interfaces(&mut self, interfaces: &Interfaces, now: BootTime) {
        let relevant = relevant(&self.config, interfaces);
        if relevant != self.interfaces {
            self.interfaces = relevant;
            self.changed = true;
        }
        let local = facts::local(&self.config, interfaces);
        let suspended = self.failover.state() == State::Suspended;
        match &local {
            Ok(found) if self.local.as_ref() != Ok(found) || suspended => {
                self.abort();
                self.events.push_back(Event::LocalFound(found.clone()));
                self.failover.start(now);
            }
            Err(missing) if self.local.as_ref() != Err(missing) => {
                self.abort();
                self.events.push_back(Event::LocalMissing(missing.clone()));
                self.failover.suspend();
            }
            _ => {}
        }
        if self.local != local {
            self.local = local;
            self.changed = true;
        }
        self.drive(now);
    }

    /// Whether a datagram from this address may be for this membership.
    pub fn expects(&self, source: SocketAddr) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.registration.config().server == source)
    }

    /// A datagram arrived.
    ///
    /// # Errors
    /// It is discarded and nothing changed.
    pub fn handle_datagram(&mut self, source: SocketAddr, datagram: &[u8], now: BootTime) -> Result<(), Error> {
        let Some(attempt) = &mut self.attempt else { return Err(gdoi::error::NotAccepted::UnknownCookies.into()) };
        let result = attempt.registration.handle_datagram(source, datagram, now);
        self.drive(now);
        result
    }

    /// The network, or anybody, says that `destination` cannot be reached.
    pub fn handle_unreachable(&mut self, destination: SocketAddr, now: BootTime) {
        if self.expects(destination) {
            if let Some(attempt) = &mut self.attempt {
                attempt.registration.handle_unreachable(now);
            }
            self.drive(now);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: BootTime) {
        if self.generations.handle_timeout(now) {
            self.changed = true;
            if self.generations.is_empty(now) {
                self.failover.handle_expired();
                self.counters.expirations = self.counters.expirations.saturating_add(1);
                self.events.push_back(Event::Expired);
            } else {
                let spis = self.generations.teks(now).iter().map(|tek| tek.spi).collect();
                self.events.push_back(Event::RolledOver { spis });
            }
        }
        self.ticked = now;
        if let Some(attempt) = &mut self.attempt {
            attempt.registration.handle_timeout(now);
        }
        if self.failover.handle_timeout(now) {
            self.counters.pulls_timed_out = self.counters.pulls_timed_out.saturating_add(1);
            self.report_failure(now);
        }
        self.drive(now);
    }

    /// Says goodbye to the key server and stands still.
    pub fn stop(&mut self, now: BootTime) {
        self.end_attempt(now);
        self.failover.suspend();
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Membership::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        let registration = self.attempt.as_ref().and_then(|attempt| attempt.registration.poll_timeout());
        let keys = self.generations.poll_timeout(self.ticked);
        let failover = self.failover.poll_timeout().map(|deadline| deadline.at);
        [registration.map(|deadline| deadline.at), keys, failover].into_iter().flatten().min()
    }

    /// Whether what the kernel should hold may have changed since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The configuration.
    pub fn config(&self) -> &config::Group {
        &self.config
    }

    /// Position among the groups.
    pub fn slot(&self) -> u8 {
        self.slot
    }

    /// The address it speaks from, or why there is none.
    pub fn local(&self) -> Result<&Local, &Missing> {
        self.local.as_ref()
    }

    /// The address and port that its registrations leave from.
    pub fn local_socket(&self) -> Option<SocketAddr> {
        self.local.as_ref().ok().map(|local| SocketAddr::new(local.address.into(), self.local_port))
    }

    /// The interfaces that it names, as they are.
    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// Its keys.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Which server is tried, which serves, and why others do not.
    pub fn failover(&self) -> &Failover {
        &self.failover
    }

    /// What has happened so far.
    pub fn counters(&self) -> MemberCounters {
        self.counters
    }

    /// Whether it has had keys since the daemon started.
    pub fn had_keys(&self) -> bool {
        self.had_keys
    }

    /// The ISAKMP SA in use and its server.
    pub fn isakmp_sa(&self) -> Option<(ServerIndex, &IsakmpSa)> {
        self.attempt.as_ref().and_then(|attempt| attempt.isakmp.as_ref().map(|isakmp| (attempt.server, isakmp)))
    }

    /// The attempt under way: its server and stage.
    pub fn stage(&self) -> Option<(ServerIndex, Stage)> {
        self.attempt.as_ref().map(|attempt| (attempt.server, attempt.registration.stage()))
    }

    /// The keys received last cannot be used beside the other groups' after all: drops them and goes on to the next
    /// server.
    pub fn reject_latest(&mut self, why: String, now: BootTime) {
        self.generations.take_latest();
        self.changed = true;
        self.counters.pulls_failed = self.counters.pulls_failed.saturating_add(1);
        self.failover.handle_rejected(Reason::PolicyUnusable, why, now);
        self.report_failure(now);
        self.drive(now);
    }

    /// Begins what the failover wants and follows the registration until neither wants anything more.
    fn drive(&mut self, now: BootTime) {
        loop {
            if let Some(mut attempt) = self.attempt.take() {
                let keep = self.follow(&mut attempt, now);
                self.drain(&mut attempt);
                if keep {
                    self.attempt = Some(attempt);
                }
            }
            let Some(server) = self.failover.poll_attempt() else { break };
            self.end_attempt(now);
            self.begin(server, now);
        }
        if !matches!(self.failover.state(), State::Trying { .. } | State::Served { .. }) {
            self.end_attempt(now);
        }
    }

    fn begin(&mut self, server: ServerIndex, now: BootTime) {
        let (Some(local), Some(target)) = (self.local_socket(), self.config.servers.get(server)) else {
            self.fail(Reason::NotStarted, "no local address".to_owned(), now);
            return;
        };
        let seed = match (self.seeds)() {
            Ok(seed) => seed,
            Err(error) => {
                self.fail(Reason::NotStarted, error, now);
                return;
            }
        };
        let config = RegistrationConfig {
            server: target.address,
            local,
            group: self.config.id,
            group_id_byte_order: self.config.group_id_byte_order,
            identity: self.config.identity.clone().unwrap_or(Identity::Address(local.ip())),
            expected_identity: target.identity.clone(),
            pre_shared_key: target.pre_shared_key.clone(),
            phase1: self.config.phase1.clone(),
            retransmission: self.config.retransmission,
        };
        self.counters.attempts = self.counters.attempts.saturating_add(1);
        self.events.push_back(Event::Trying(server));
        let registration = Registration::new(config, seed, now);
        self.attempt = Some(Attempt { server, registration, isakmp: None, unusable: None });
    }

    /// Follows the events of an attempt. Returns whether it goes on.
    fn follow(&mut self, attempt: &mut Attempt, now: BootTime) -> bool {
        while let Some(event) = attempt.registration.poll_event() {
            match event {
                RegistrationEvent::Phase1Established { peer_identity, transform, lifetime, cookies } => {
                    attempt.isakmp = Some(IsakmpSa { cookies, transform, peer_identity, end: now + lifetime });
                    self.events.push_back(Event::Phase1Established { server: attempt.server, transform });
                }
                RegistrationEvent::PolicyOffered(policy) => match self.judge(&policy) {
                    Ok(()) => attempt.registration.accept_policy(now),
                    Err(why) => {
                        attempt.unusable = Some(why);
                        attempt.registration.refuse_policy(now);
                    }
                },
                RegistrationEvent::Registered(sa) => {
                    if let Err(why) = self.take_in(attempt.server, sa, now) {
                        attempt.registration.delete_isakmp_sa(now);
                        self.fail(Reason::PolicyUnusable, why, now);
                        return false;
                    }
                }
                RegistrationEvent::PeerDeleted | RegistrationEvent::IsakmpSaExpired => {
                    attempt.isakmp = None;
                    self.events.push_back(Event::IsakmpSaEnded(attempt.server));
                }
                RegistrationEvent::Failed(failure) => {
                    let (reason, detail) = explain(failure, attempt.unusable.take());
                    self.fail(reason, detail, now);
                    return false;
                }
            }
        }
        true
    }

    /// Whether the kernel can do what the key server wants, before any key is asked for.
    fn judge(&self, policy: &GroupPolicy) -> Result<(), String> {
        input::check(policy, &self.config)
    }

    fn take_in(&mut self, server: ServerIndex, sa: GroupSa, now: BootTime) -> Result<(), String> {
        let mut candidate = Generations::default();
        let first_end = candidate.add(sa, now);
        let trial = std::iter::once((&*self, Keys::Candidate(&candidate)));
        input::compile(trial, now).map_err(|unusable| unusable.reason)?;
        let Some(sa) = candidate.take_latest() else { return Err("the key server sent no TEK".to_owned()) };
        let Some(first_end) = first_end.filter(|end| *end > now) else {
            return Err("the key server sent no TEK with life left".to_owned());
        };
        let spis = sa.tek_keys().keys().copied().collect();
        self.generations.add(sa, now);
        self.failover.handle_served(first_end, now);
        self.had_keys = true;
        self.changed = true;
        self.counters.pulls_succeeded = self.counters.pulls_succeeded.saturating_add(1);
        if self.last_server.is_some_and(|last| last != server) {
            self.counters.failovers = self.counters.failovers.saturating_add(1);
        }
        self.last_server = Some(server);
        self.events.push_back(Event::Registered { server, spis, lifetime: first_end.saturating_since(now) });
        Ok(())
    }

    fn fail(&mut self, reason: Reason, detail: String, now: BootTime) {
        let counter = match reason {
            Reason::NoAnswer | Reason::TookTooLong => &mut self.counters.pulls_timed_out,
            _ => &mut self.counters.pulls_failed,
        };
        *counter = counter.saturating_add(1);
        self.failover.handle_failure(reason, detail, now);
        self.report_failure(now);
    }

    fn report_failure(&mut self, now: BootTime) {
        if let Some(passed) = self.failover.history().last() {
            self.events.push_back(Event::PassedOver(passed.clone()));
        }
        if let State::Pausing { until } = self.failover.state() {
            self.events.push_back(Event::Pausing { pause: until.saturating_since(now) });
        }
    }

    /// Ends an attempt that another one replaces, with a protected Delete if there is an ISAKMP SA.
    fn end_attempt(&mut self, now: BootTime) {
        if let Some(mut attempt) = self.attempt.take() {
            attempt.registration.delete_isakmp_sa(now);
            self.drain(&mut attempt);
        }
    }

    /// Drops an attempt that has lost its meaning. Nothing can be said to the server: the address is gone.
    fn abort(&mut self) {
        if let Some(attempt) = self.attempt.take()
            && attempt.registration.stage() != Stage::Registered
            && attempt.registration.stage() != Stage::Ended
        {
            self.counters.pulls_aborted = self.counters.pulls_aborted.saturating_add(1);
        }
    }

    fn drain(&mut self, attempt: &mut Attempt) {
        while let Some(transmit) = attempt.registration.poll_transmit() {
            self.transmits.push_back(transmit);
        }
    }
}

impl Membership {
    /// The local address, if there is one.
    pub fn local_address(&self) -> Option<Ipv4Addr> {
        self.local.as_ref().ok().map(|local| local.address)
    }

    /// The server's address by its position.
    pub fn server(&self, index: ServerIndex) -> Option<SocketAddr> {
        self.config.servers.get(index).map(|server| server.address)
    }
}

/// The interfaces that the group's kernel entries depend on.
fn relevant(config: &config::Group, interfaces: &Interfaces) -> Interfaces {
    config
        .interfaces()
        .filter_map(|name| interfaces.get(name).map(|interface| (name.to_owned(), interface.clone())))
        .collect()
}
