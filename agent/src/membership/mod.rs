//! One membership: the registration in use, the keys it brought, and the address it speaks from.
//!
//! Like the machines of `gdoi` it has no clock and no sockets. After every `handle_*`, drain
//! [`Membership::poll_transmit`] and [`Membership::poll_event`], then read
//! [`Membership::poll_timeout`].

pub mod error;
mod event;
pub mod failover;
mod first_contact;
pub mod jitter;
pub mod kernel_policy;
pub mod key_generations;
pub mod local_interface;
pub mod pending_ack;
mod pull_again;
mod push;
mod registration;
pub mod rekey_sa;
pub mod restore;
pub mod sending;
pub mod standing;
pub mod unreachable;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use control::member::MemberCounters;
use daemon::entropy::EntropyError;
use gdoi::error::Error;
use gdoi::event::{Stage, Transmit};
use gdoi::group::Spi;
use ike::{BootTime, WallClock};
use policies::{FailurePolicy, Mode, Unusable};

use crate::config;
use crate::persistence::sealed_keys::KeptKek;
use crate::persistence::state_file::SavedGroup;
pub use event::{Event, Suspicion};
use failover::{Failover, Reason, SPREAD, ServerIndex, State};
pub use first_contact::Contacts;
use jitter::Jitter;
use kernel_policy::{GroupView, Keys};
use key_generations::KeyGenerations;
use local_interface::{Interfaces, Local, Missing};
use registration::Attempt;
pub use registration::IsakmpSa;
use rekey_sa::Rekey;
use sending::Sending;
use unreachable::Unreachable;

/// Gives a fresh seed from the operating system for each attempt.
pub type Seeds = Box<dyn FnMut() -> Result<[u8; 32], EntropyError> + Send>;

/// ESP that no key opens, which anybody can forge, makes a group pull this often at most.
const PROBE_INTERVAL: Duration = Duration::from_secs(300);

/// The membership of one group.
pub struct Membership {
    config: config::Group,
    slot: u8,
    local_port: u16,
    seeds: Seeds,
    contacts: Contacts,
    wall_clock: WallClock,
    failover: Failover,
    jitter: Jitter,
    attempt: Option<Attempt>,
    generations: KeyGenerations,
    rekey: Rekey,
    interfaces: Interfaces,
    local: Result<Local, Missing>,
    counters: MemberCounters,
    last_server: Option<ServerIndex>,
    had_keys: bool,
    /// Counter-mode TEKs of an earlier run: sending on them again would repeat IVs.
    iv_reuse_hazard: BTreeSet<Spi>,
    /// TEKs with a sequence number near exhaustion.
    near_exhaustion: BTreeSet<Spi>,
    /// Counter-mode TEKs whose outbound SA was lost and must not be reinstalled.
    suppressed: BTreeSet<Spi>,
    sending: Sending,
    probed: Option<BootTime>,
    ticked: BootTime,
    changed: bool,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Membership {
    /// A membership that waits for [`Membership::handle_interfaces`]. `jitter` spreads members in
    /// time.
    pub fn new(
        config: config::Group,
        slot: u8,
        local_port: u16,
        seeds: Seeds,
        contacts: Contacts,
        jitter: u64,
        now: BootTime,
    ) -> Self {
        let failover = Failover::new(config.servers.len(), config.attempt_limit(), jitter);
        Self {
            config,
            slot,
            local_port,
            seeds,
            contacts,
            failover,
            // Not the failover's own sequence.
            jitter: Jitter::new(!jitter),
            attempt: None,
            generations: KeyGenerations::default(),
            rekey: Rekey::default(),
            interfaces: Interfaces::new(),
            local: Err(Missing::Unknown),
            wall_clock: WallClock::default(),
            counters: MemberCounters::default(),
            last_server: None,
            had_keys: false,
            iv_reuse_hazard: BTreeSet::new(),
            near_exhaustion: BTreeSet::new(),
            suppressed: BTreeSet::new(),
            sending: Sending::default(),
            probed: None,
            ticked: now,
            changed: true,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// What time it is from now on, for certificates.
    pub fn set_wall_clock(&mut self, wall_clock: WallClock) {
        self.wall_clock = wall_clock;
    }

    /// The configuration is another one, or the group has another place among the groups. Keys stay
    /// in use; the group registers again only if servers, identity or the way to register are
    /// others.
    pub fn reconfigure(&mut self, config: config::Group, slot: u8, now: BootTime) {
        if config == self.config && slot == self.slot {
            return;
        }
        let again = !config.registers_like(&self.config);
        if again {
            self.end_attempt(now);
        }
        self.config = config;
        self.slot = slot;
        self.changed = true;
        if again {
            self.last_server = None;
            self.failover.reset(self.config.servers.len(), self.config.attempt_limit());
            if self.local.is_ok() {
                self.failover.start(now);
            }
            self.drive(now);
        }
    }

    /// The machine's interfaces as they are now. An address that came, went or moved starts a new
    /// registration; keys that are valid stay in use under the new address.
    pub fn handle_interfaces(&mut self, interfaces: &Interfaces, now: BootTime) {
        let relevant = relevant(&self.config, interfaces);
        if relevant != self.interfaces {
            self.interfaces = relevant;
            self.changed = true;
        }
        let local = local_interface::local(&self.config, interfaces);
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
        self.resume_rekey(now);
        self.drive(now);
    }

    /// Whether a datagram from this address may be for this membership.
    pub fn expects(&self, source: SocketAddr) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.registration.config().server == source)
    }

    /// Takes a datagram of the registration that is under way.
    ///
    /// # Errors
    /// It is discarded and nothing changed.
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        let Some(attempt) = &mut self.attempt else {
            return Err(ike::error::NotAccepted::UnknownCookies.into());
        };
        let result = attempt.registration.handle_datagram(source, datagram, now);
        self.drive(now);
        result
    }

    /// An ICMP error about a datagram of ours arrived; it is unauthenticated, only shortens the
    /// retransmission wait and is named if the registration fails.
    pub fn handle_unreachable(&mut self, unreachable: Unreachable, now: BootTime) {
        if self.expects(unreachable.destination) {
            if let Some(attempt) = &mut self.attempt {
                attempt.unreachable = Some(unreachable);
                attempt.registration.handle_unreachable(now);
            }
            self.drive(now);
        }
    }

    pub fn handle_timeout(&mut self, now: BootTime) {
        self.handle_rekey_timeout(now);
        if self.generations.handle_timeout(now) {
            self.changed = true;
            if self.generations.is_empty(now) {
                self.failover.handle_expired(now);
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
            if self
                .failover
                .history()
                .last()
                .is_some_and(|passed| passed.reason == Reason::TookTooLong)
            {
                self.counters.pulls_timed_out = self.counters.pulls_timed_out.saturating_add(1);
            }
            self.report_failure(now);
        }
        self.drive(now);
    }

    /// Registers again now, as an operator commands. Keys in use stay until new ones have come.
    ///
    /// # Errors
    /// There is no address to register from.
    pub fn register(&mut self, now: BootTime) -> Result<(), Missing> {
        self.local.as_ref().map_err(Clone::clone)?;
        self.failover.renew(Duration::ZERO, now);
        self.drive(now);
        Ok(())
    }

    /// Deletes the ISAKMP SA and stands still.
    pub fn stop(&mut self, now: BootTime) {
        self.end_attempt(now);
        self.failover.suspend();
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Membership::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        let registration =
            self.attempt.as_ref().and_then(|attempt| attempt.registration.poll_timeout());
        let keys = self.generations.poll_timeout(self.ticked);
        let failover = self.failover.poll_timeout().map(|deadline| deadline.at);
        let rekey = self.rekey.poll_timeout(self.ticked);
        [registration.map(|deadline| deadline.at), keys, failover, rekey]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether what the kernel should hold may have changed since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

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
        self.local.as_ref().ok().map(|local| SocketAddr::new(local.address, self.local_port))
    }

    /// The interfaces that it names, as they are.
    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    pub fn generations(&self) -> &KeyGenerations {
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

    /// Whether its traffic passes in clear, instead of being blocked, while there is no valid key.
    pub fn is_open_without_key(&self) -> bool {
        self.config.failure_policy == FailurePolicy::Open || self.config.mode == Mode::ReceiveOnly
    }

    /// What its kernel entries depend on.
    pub fn view(&self) -> GroupView<'_> {
        GroupView {
            config: &self.config,
            slot: self.slot,
            interfaces: &self.interfaces,
            local: self.local_address(),
            multicast: self.multicast().map(|push| SocketAddr::new(push.group, push.port)),
            iv_reuse_hazard: &self.iv_reuse_hazard,
            keys: Keys::Used(&self.generations),
        }
    }

    /// Whether it receives on this SPI.
    pub fn receives(&self, spi: Spi, now: BootTime) -> bool {
        self.generations.teks(now).iter().any(|tek| tek.spi == spi)
    }

    /// Counter-mode TEKs of an earlier run: sending on them again would repeat IVs.
    pub fn iv_reuse_hazard(&self) -> &BTreeSet<Spi> {
        &self.iv_reuse_hazard
    }

    /// The sequence number of this TEK is near exhaustion (RFC 4303 §3.3.3): asks for a new TEK.
    pub fn handle_near_exhaustion(&mut self, spi: Spi, now: BootTime) {
        if self.near_exhaustion.insert(spi) {
            self.events.push_back(Event::SequenceNearExhaustion { spi });
            self.failover.renew(SPREAD, now);
        }
    }

    /// These outbound SAs were lost and must not be reinstalled.
    pub fn handle_suppressed(&mut self, spis: BTreeSet<Spi>, now: BootTime) {
        if self.suppressed != spis {
            self.suppressed = spis;
            self.update_sending(now);
        }
    }

    /// ESP arrives that no key here opens: pulls and compares, if that is configured and was not done a
    /// moment ago.
    pub fn probe(&mut self, why: Suspicion, now: BootTime) {
        let lately = self.probed.is_some_and(|at| now.saturating_since(at) < PROBE_INTERVAL);
        if self.config.recovery_probe && !lately && !self.generations.is_empty(now) {
            self.probed = Some(now);
            self.events.push_back(Event::Probing(why));
            self.failover.renew(SPREAD, now);
        }
    }

    pub(crate) fn note_sealed_keys_ended(&mut self) {
        self.events.push_back(Event::SealedKeysEnded);
    }

    /// Goes on with the keys of an earlier run, of which those that `in_kernel` does not name come
    /// from elsewhere.
    pub(crate) fn take_up(
        &mut self,
        generations: KeyGenerations,
        in_kernel: impl Fn(Spi) -> bool,
        saved: SavedGroup,
        kek: Option<KeptKek>,
    ) {
        let spis: Vec<Spi> = generations.teks(self.ticked).iter().map(|tek| tek.spi).collect();
        if !spis.is_empty() {
            self.had_keys = true;
            let sealed = spis.iter().any(|spi| !in_kernel(*spi));
            self.events.push_back(Event::Restored { spis, sealed });
        }
        self.generations = generations;
        self.iv_reuse_hazard = saved.iv_reuse_hazard;
        self.rekey.resume(saved.kek, kek);
        self.changed = true;
    }

    /// The ISAKMP SA in use and its server.
    pub fn isakmp_sa(&self) -> Option<(ServerIndex, &IsakmpSa)> {
        self.attempt
            .as_ref()
            .and_then(|attempt| attempt.isakmp.as_ref().map(|isakmp| (attempt.server, isakmp)))
    }

    /// Initiator and responder cookie of the attempt under way; the latter is zero until the key
    /// server has proved its identity.
    pub fn cookies(&self) -> Option<([u8; 8], [u8; 8])> {
        self.attempt.as_ref()?.registration.cookies()
    }

    /// The attempt under way: its server and stage.
    pub fn stage(&self) -> Option<(ServerIndex, Stage)> {
        self.attempt.as_ref().map(|attempt| (attempt.server, attempt.registration.stage()))
    }

    /// The keys received last cannot be used beside the other groups' after all: drops them. Where
    /// the serving key server gave them to a pull, the next one is tried; after a push this group
    /// pulls soon. A pull that is under way goes on: those keys are not its own.
    pub fn reject_latest(&mut self, why: &Unusable, now: BootTime) {
        let pushed = self.generations.is_latest_pushed();
        self.generations.take_latest();
        self.rekey.suppress_acknowledgements();
        self.changed = true;
        if pushed {
            self.failover.renew(SPREAD, now);
        } else if self.failover.handle_rejected(Reason::PolicyUnusable, why.to_string(), now) {
            self.counters.pulls_failed = self.counters.pulls_failed.saturating_add(1);
            self.report_failure(now);
        }
        self.drive(now);
    }
}

impl Membership {
    /// The local address, if there is one.
    pub fn local_address(&self) -> Option<IpAddr> {
        self.local.as_ref().ok().map(|local| local.address)
    }

    /// The server's address by its position.
    pub fn server(&self, index: ServerIndex) -> Option<SocketAddr> {
        self.config.servers.get(index).map(|server| server.address)
    }
}

/// The interfaces that the group's kernel entries depend on.
fn relevant(config: &config::Group, interfaces: &Interfaces) -> Interfaces {
    let named: Vec<String> = config.interfaces().map(str::to_owned).collect();
    interfaces
        .iter()
        .filter(|(name, _)| config::on_side(&named, name))
        .map(|(name, interface)| (name.clone(), interface.clone()))
        .collect()
}
