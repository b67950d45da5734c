//! All state of the key server, without input, output or clock: datagrams and the time come in,
//! datagrams and events go out.

pub mod command;
pub(crate) mod delivery;
pub(crate) mod pull;
pub mod reload;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use gdoi::BootTime;
use gdoi::config::{Identity, ServerConfig};
use gdoi::crypto::SeededRng;
use gdoi::error::Error;
use gdoi::event::{PullId, PushId, ServerEvent, Transmit};
use gdoi::group::GroupId;
use gdoi::server::{Server, ServerStatistics};

use crate::config::{Config, Group, Member};
use crate::group::event::Event;
use crate::group::key_generation::Entropy;
use crate::group::rekey_sa::RekeySa;
use crate::group::sender_ids::SenderIdPool;
use crate::group::signing_key::SigningKeys;
use crate::group::tek_schedule::TekSchedule;
use crate::members::authorization::{Authorization, credentials};
use crate::members::registry::{Pulled, Registry};
use crate::server::delivery::Delivered;
use crate::server::pull::Pull;

/// The key server.
#[derive(Debug)]
pub struct KeyServer<E> {
    pub(crate) server: Server,
    pub(crate) authorization: Authorization,
    pub(crate) members: Vec<Member>,
    pub(crate) groups: Vec<GroupState>,
    pub(crate) registry: Registry,
    /// Members that the operator removed, by group and name.
    pub(crate) removed: BTreeSet<(GroupId, String)>,
    pub(crate) pulls: BTreeMap<PullId, Pull>,
    pub(crate) deliveries: BTreeMap<PushId, Delivered>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) counters: Counters,
    pub(crate) rng: SeededRng,
    pub(crate) entropy: E,
    /// Whether there is something that must not be forgotten.
    pub(crate) changed: bool,
    /// Whether datagrams wait until the state is written.
    keeps_state: bool,
}

/// Pulls that did not end with keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Refused: no such group, not authorized, or no way to answer.
    pub refused: u64,
    /// Broken off.
    pub aborted: u64,
}

/// One group and what was made for it.
#[derive(Debug)]
pub struct GroupState {
    pub(crate) group: Group,
    pub(crate) name: Arc<str>,
    pub(crate) schedule: TekSchedule,
    pub(crate) senders: SenderIdPool,
    pub(crate) rekey: Option<RekeySa>,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
}

impl GroupState {
    pub(crate) fn new(group: Group, keys: &SigningKeys) -> Self {
        let signing = keys.get(&group.name).map(Arc::clone);
        let rekey = group.rekey.clone().zip(signing);
        Self {
            name: group.name.as_str().into(),
            schedule: TekSchedule::new(&group),
            senders: SenderIdPool::new(group.sender_id_bits),
            // A key that was loaded has a public form.
            rekey: rekey.and_then(|(settings, signing)| RekeySa::new(settings, signing).ok()),
            group,
            succeeded: 0,
            failed: 0,
        }
    }

    /// The configuration.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Its TEKs.
    pub fn schedule(&self) -> &TekSchedule {
        &self.schedule
    }

    /// How its keys are pushed.
    pub fn rekey(&self) -> Option<&RekeySa> {
        self.rekey.as_ref()
    }

    /// Pulls for which keys were sent, and those that ended otherwise.
    pub fn pulls(&self) -> (u64, u64) {
        (self.succeeded, self.failed)
    }
}

impl<E: Entropy> KeyServer<E> {
    /// The key server of `config`, whose groups sign pushes with `keys`. `seed` comes from the
    /// operating system and is used once.
    pub fn new(config: Config, keys: &SigningKeys, seed: [u8; 32], entropy: E) -> Self {
        let mut rng = SeededRng::from_seed(seed);
        Self {
            server: Server::new(server_config(&config), rng.array()),
            authorization: Authorization::new(&config.members),
            members: config.members,
            groups: config.groups.into_iter().map(|group| GroupState::new(group, keys)).collect(),
            registry: Registry::default(),
            removed: BTreeSet::new(),
            pulls: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            rng,
            entropy,
            changed: false,
            keeps_state: config.state_key.is_some(),
        }
    }

    /// A datagram arrived from `source` at our address `local`.
    ///
    /// # Errors
    /// It is discarded and counted; no state changed.
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        let result = self.server.handle_datagram(source, local, datagram, now);
        self.handle_events(now);
        result
    }

    /// The time of [`KeyServer::poll_timeout`] has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        self.server.handle_timeout(now);
        self.handle_events(now);
        for index in 0..self.groups.len() {
            if let Some(state) = self.groups.get_mut(index) {
                state.schedule.handle_timeout(now);
            }
            self.expire_kek(index, now);
            self.push_due(index, now);
        }
        for (group, _, registration) in self.registry.handle_timeout(now) {
            self.changed = true;
            let Some(state) = self.groups.iter().find(|state| state.group.id == group) else {
                continue;
            };
            self.events.push_back(Event::Expired {
                group: Arc::clone(&state.name),
                member: registration.name,
            });
        }
        self.handle_events(now);
    }

    /// The next datagram to send. Where the state is kept, nothing is sent before it is: see
    /// [`KeyServer::is_unsaved`].
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        match self.is_unsaved() {
            true => None,
            false => self.server.poll_transmit(),
        }
    }

    /// Whether the state has to be written, by [`KeyServer::export`] and [`KeyServer::saved`], before
    /// anything is sent.
    pub fn is_unsaved(&self) -> bool {
        self.keeps_state && self.changed
    }

    /// The state has been written.
    pub fn saved(&mut self) {
        self.changed = false;
    }

    /// The state cannot be written: what waits is dropped, as the network might do it.
    pub fn discard_transmits(&mut self) {
        while self.server.poll_transmit().is_some() {}
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`KeyServer::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        let server = self.server.poll_timeout().map(|deadline| deadline.at);
        let teks = self.groups.iter().filter_map(|state| state.schedule.poll_timeout()).min();
        let keks =
            self.groups.iter().filter_map(|state| Some(state.rekey.as_ref()?.kek()?.ends())).min();
        let pushes = (0..self.groups.len()).filter_map(|index| self.next_push(index)).min();
        [server, teks, keks, pushes, self.registry.poll_timeout()].into_iter().flatten().min()
    }

    /// The groups in the order of the configuration.
    pub fn groups(&self) -> &[GroupState] {
        &self.groups
    }

    /// Who has keys.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// When the next push of a group is due by schedule.
    pub fn next_push_of(&self, group: GroupId) -> Option<BootTime> {
        self.next_push(self.index_of(group)?)
    }

    /// Names of the members that the operator removed from `group`.
    pub fn removed(&self, group: GroupId) -> impl Iterator<Item = &str> {
        self.removed.iter().filter(move |(of, _)| *of == group).map(|(_, name)| name.as_str())
    }

    /// Enters a member that has the keys of its group by other means than a pull, for example a
    /// simulated one.
    pub fn enrol(&mut self, key: (GroupId, Identity), pulled: Pulled, now: BootTime) {
        self.registry.record(key, pulled, now);
        self.changed = true;
    }

    /// Figures of the protocol.
    pub fn statistics(&self) -> &ServerStatistics {
        self.server.statistics()
    }

    /// Figures of the decisions.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub(crate) fn handle_events(&mut self, now: BootTime) {
        while let Some(event) = self.server.poll_event() {
            match event {
                ServerEvent::Phase1Established { peer, identity, .. } => {
                    self.events.push_back(Event::Authenticated { peer, identity });
                }
                ServerEvent::PullRequested { pull, local, peer, identity, group } => {
                    if let Err(reason) = self.answer(pull, &identity, (local, peer), group, now) {
                        self.refuse(pull, peer, identity, group, reason, now);
                    }
                }
                ServerEvent::PullCompleted { pull, local, peer, identity, group } => {
                    self.complete(pull, (local, peer), identity, group, now);
                }
                ServerEvent::PullAborted { pull, peer, identity, group, reason } => {
                    self.forget(pull);
                    self.counters.aborted = self.counters.aborted.saturating_add(1);
                    self.count_failure(group);
                    self.events.push_back(Event::Aborted { peer, identity, group, reason });
                }
                ServerEvent::PeerDeleted { peer, identity } => {
                    self.events.push_back(Event::PeerDeleted { peer, identity });
                }
            }
        }
        while let Some((push, event)) = self.server.poll_push_event() {
            self.handle_push_event(push, event, now);
        }
    }

    /// The place of the group with this number.
    pub(crate) fn index_of(&self, group: GroupId) -> Option<usize> {
        self.groups.iter().position(|state| state.group.id == group)
    }

    pub(crate) fn count_failure(&mut self, group: GroupId) {
        if let Some(state) = self.groups.iter_mut().find(|state| state.group.id == group) {
            state.failed = state.failed.saturating_add(1);
        }
    }
}

/// The protocol's part of a configuration.
pub(crate) fn server_config(config: &Config) -> ServerConfig {
    ServerConfig {
        identity: config.identity.clone(),
        peers: credentials(&config.members),
        phase1: config.phase1.clone(),
        group_id_byte_order: config.group_id_byte_order,
        limits: config.limits,
    }
}
