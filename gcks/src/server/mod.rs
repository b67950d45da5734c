//! All groups behind one endpoint, without I/O or clock: datagrams and the time come in, datagrams
//! and events go out.
//!
//! The server knows who may do what and which group is meant; what a group does is the
//! [`Group`]'s own.

mod clear;
pub mod cluster;
pub mod command;
mod delivery;
pub mod event;
mod plan;
mod pull;
mod reload;
pub mod statistics;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use daemon::configuration::NamedCertificate;
use gdoi::config::ServerConfig;
use gdoi::error::Error;
use gdoi::event::{PushId, ServerEvent, Transmit};
use gdoi::group::{GroupId, Spi};
use gdoi::server::{Arithmetic, Computation, Computed, Server, ServerStatistics};
use ike::crypto::SeededRng;
use ike::phase1::IsakmpSa;
use ike::session::PeerAddress;
use ike::{BootTime, WallClock};
use thiserror::Error as ThisError;

use self::cluster::ClusterSide;
use crate::config::cluster::Role;
use crate::config::{Config, Member, Server as ClusterServer};
use crate::group::Group;
use crate::group::key_generation::{Entropy, KeySource};
use crate::group::pending_pull::Acceptance;
use crate::group::signing_key::SigningKeys;
use crate::members::authorization::{Authorization, credentials};
use crate::state::{self, Change, Name, Records, Stored};
use daemon::count;
use daemon::sealed::codec::{Clock, StateError};
use delivery::Delivered;
use event::Event;
use statistics::Counters;

/// A key hierarchy has room for so many times the members that the configuration names.
const HEADROOM: usize = 2;
const SMALLEST_TREE: usize = 64;
const LARGEST_TREE: usize = 32_768;

#[derive(Debug)]
pub struct KeyServer<E> {
    server: Server,
    authorization: Authorization,
    members: Vec<Member>,
    /// The other servers of the cluster.
    servers: Vec<ClusterServer>,
    /// Members that may be registered here.
    most_members: Option<usize>,
    cluster: ClusterSide,
    groups: BTreeMap<GroupId, Group>,
    deliveries: BTreeMap<PushId, Delivered>,
    events: VecDeque<Event>,
    counters: Counters,
    rng: SeededRng,
    entropy: E,
    certificates: Vec<NamedCertificate>,
    wall_clock: WallClock,
    /// Whether datagrams wait until the state is written.
    keeps_state: bool,
    unsaved: Unsaved,
}

/// What the stored state does not have yet, outside of the groups.
#[derive(Debug)]
struct Unsaved {
    /// Whether there is something that must not be forgotten.
    changed: bool,
    /// Whether nothing of what is stored counts.
    all: bool,
    /// Whether the members of the configuration are others.
    members: bool,
    /// Peers that have proved an offer.
    offers: BTreeSet<IpAddr>,
    /// Groups that have gone.
    gone: BTreeSet<GroupId>,
}

impl Unsaved {
    fn everything() -> Self {
        let (offers, gone) = (BTreeSet::new(), BTreeSet::new());
        Self { changed: true, all: true, members: false, offers, gone }
    }

    fn nothing() -> Self {
        Self { changed: false, all: false, ..Self::everything() }
    }
}

/// There is no group with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[error("there is no group {0}")]
pub struct UnknownGroup(pub GroupId);

impl<E: Entropy> KeyServer<E> {
    /// The key server of `config`, whose groups sign pushes with `keys`. `seed` comes from the
    /// operating system and is used once.
    pub fn new(config: Config, keys: &SigningKeys, seed: [u8; 32], entropy: E) -> Self {
        let mut rng = SeededRng::from_seed(seed);
        let server = Server::new(server_config(&config), rng.array());
        let authorization = Authorization::new(&config.members);
        let groups = config.groups.into_iter().map(|group| {
            let signing_key = keys.get(&group.name).cloned();
            (group.id, Group::new(group, signing_key))
        });
        let mut key_server = Self {
            server,
            authorization,
            groups: groups.collect(),
            members: config.members,
            servers: config.servers,
            most_members: config.most_members,
            cluster: ClusterSide::default(),
            deliveries: BTreeMap::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            rng,
            entropy,
            certificates: config.certificates,
            wall_clock: WallClock::default(),
            keeps_state: false,
            unsaved: Unsaved::everything(),
        };
        key_server.size_hierarchies();
        key_server
    }

    /// Nothing is sent from now on before the state is written: see [`KeyServer::is_unsaved`].
    pub fn keep_state(&mut self) {
        self.keeps_state = true;
    }

    /// The key server of `config` with a state that [`KeyServer::changes`] told. What was on its
    /// way when it ended is sent again, and what the configuration says differently since then is
    /// done as [`KeyServer::reload`] does it.
    ///
    /// # Errors
    /// This is no state of this version.
    pub fn restore(
        mut config: Config,
        keys: &SigningKeys,
        seed: [u8; 32],
        entropy: E,
        (stored, clock): (&Stored, Clock),
        now: BootTime,
    ) -> Result<Self, StateError> {
        let groups = std::mem::take(&mut config.groups);
        let mut key_server = Self::new(config, keys, seed, entropy);
        let restored = state::decode(stored, clock, &key_server.members, now)?;
        for (source, offer) in &restored.offers {
            key_server.server.remember_offer(*source, offer);
        }
        for mut group in restored.groups {
            let is_root = |config: &crate::config::Group| {
                let part = config.cluster.as_ref();
                config.id == group.id() && part.is_some_and(|one| one.role == Role::RootServer)
            };
            if groups.iter().any(is_root) {
                // Nobody knows whether sub-servers hold what the last push is about.
                group.withhold();
            } else {
                // No longer a root: it waits for nobody.
                group.release(now);
            }
            group.resend_last_pushes(now);
            key_server.groups.insert(group.id(), group);
        }
        key_server.size_hierarchies();
        key_server.dispatch(now);
        for (group, dispatch) in restored.pending {
            key_server.deliver(group, dispatch, now);
        }
        let changes = key_server.reload_restored(&restored.members, groups, keys, now);
        let changes = changes.into_iter().map(|change| Event::ConfigurationChanged { change });
        key_server.events.extend(changes);
        // Points in time of the stored records may be those of another boot.
        key_server.unsaved = Unsaved::everything();
        Ok(key_server)
    }

    /// All that a restart must not forget.
    pub fn export(&self) -> Records {
        let mut records = Records::default();
        records.apply(self.everything());
        records
    }

    fn everything(&self) -> Vec<Change> {
        let mut changes = vec![Change::Clear(Name::everything())];
        state::put_members(&mut changes, &self.members);
        for (source, offer) in self.server.proved_offers() {
            state::put_offer(&mut changes, source, offer);
        }
        state::put_pending(&mut changes, &self.pending());
        self.groups.values().for_each(|group| state::put_group(&mut changes, group, true));
        changes
    }

    /// What has to be written before anything is sent, after which [`KeyServer::saved`] is to be
    /// called. What a registration changes does not depend on the number of members.
    pub fn changes(&mut self) -> Vec<Change> {
        self.find_pending();
        if self.unsaved.all {
            return self.everything();
        }
        let mut changes = Vec::new();
        if self.unsaved.members {
            state::put_members(&mut changes, &self.members);
        }
        for source in &self.unsaved.offers {
            if let Some(offer) = self.server.proved_offer(*source) {
                state::put_offer(&mut changes, *source, offer);
            }
        }
        state::put_pending(&mut changes, &self.pending());
        changes.extend(self.unsaved.gone.iter().map(|id| Change::Clear(Name::of_group(*id))));
        for group in self.groups.values().filter(|group| group.is_changed()) {
            state::put_group(&mut changes, group, false);
        }
        changes
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
        let result = match self.cluster.link_at(source) {
            Some(link) => link.handle_datagram(source, local, datagram, now).map_err(Error::from),
            None => self.server.handle_datagram(source, local, datagram, now),
        };
        self.settle(now);
        result
    }

    /// What time it is from now on, for certificates.
    pub fn set_wall_clock(&mut self, wall_clock: WallClock) {
        self.wall_clock = wall_clock;
        self.server.set_wall_clock(wall_clock);
        self.cluster.set_wall_clock(wall_clock);
    }

    /// Everything that an operator should mend, each with its remedy.
    pub fn problems(&self, now: BootTime) -> Vec<String> {
        let unix_seconds = self.wall_clock.at(now);
        let certificates = self.certificates.iter();
        certificates.flat_map(|certificate| certificate.problems(unix_seconds)).collect()
    }

    /// Where key exchanges are computed from now on: see [`Server::set_arithmetic`].
    pub fn set_arithmetic(&mut self, arithmetic: Arithmetic) {
        self.server.set_arithmetic(arithmetic);
    }

    /// The next computation to run, for [`KeyServer::handle_computed`].
    pub fn poll_computation(&mut self) -> Option<Computation> {
        self.server.poll_computation()
    }

    /// A computation has been done.
    ///
    /// # Errors
    /// The result is discarded and counted: the member's public value is unusable, or the exchange
    /// has ended.
    pub fn handle_computed(&mut self, computed: Computed, now: BootTime) -> Result<(), Error> {
        let result = self.server.handle_computed(computed, now);
        self.settle(now);
        result
    }

    /// The time of [`KeyServer::poll_timeout`] has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        self.server.handle_timeout(now);
        self.cluster.handle_timeout(now);
        self.settle(now);
        let mut due = Vec::new();
        for (id, group) in &mut self.groups {
            group.handle_timeout(now);
            due.extend(group.is_push_due(now).then_some(*id));
        }
        for id in due {
            if let Ok((group, mut keys)) = self.group_mut(id) {
                group.push_due(&mut keys, now);
            }
        }
        self.settle(now);
    }

    /// The next datagram to send. Where the state is kept, nothing is sent before it is: see
    /// [`KeyServer::is_unsaved`].
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        match self.is_unsaved() {
            true => None,
            false => self.server.poll_transmit().or_else(|| self.cluster.poll_transmit()),
        }
    }

    /// As [`KeyServer::poll_transmit`], answers alone: who asked repeats its request if it gets none.
    pub fn poll_answer(&mut self) -> Option<Transmit> {
        match self.is_unsaved() {
            true => None,
            false => self.server.poll_answer(),
        }
    }

    /// As [`KeyServer::poll_transmit`], what nobody asks for again: pushes, and messages to other
    /// servers, which do not wait for a push to thousands of members.
    pub fn poll_push(&mut self) -> Option<Transmit> {
        match self.is_unsaved() {
            true => None,
            false => self.cluster.poll_transmit().or_else(|| self.server.poll_push()),
        }
    }

    /// Whether the state has to be written, by [`KeyServer::changes`] and [`KeyServer::saved`],
    /// before anything is sent.
    pub fn is_unsaved(&self) -> bool {
        self.keeps_state && (self.unsaved.changed || self.groups.values().any(Group::is_changed))
    }

    /// What [`KeyServer::changes`] told has been written.
    pub fn saved(&mut self) {
        let all = std::mem::replace(&mut self.unsaved, Unsaved::nothing()).all;
        let changed = self.groups.values_mut().filter(|group| all || group.is_changed());
        changed.for_each(Group::saved);
    }

    /// The state cannot be written: answers are dropped, as the network might do it, and pushes
    /// wait until it can be.
    pub fn discard_answers(&mut self) {
        self.server.discard_answers();
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`KeyServer::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        let server = self.server.poll_timeout().map(|deadline| deadline.at);
        let groups = self.groups.values().filter_map(Group::poll_timeout);
        groups.chain(server).chain(self.cluster.poll_timeout()).min()
    }

    /// The groups, by number.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Group> {
        self.groups.values()
    }

    /// Groups and members in one line, for the service manager.
    pub fn summary(&self) -> String {
        format!("{}, {}", count(self.groups.len(), "group"), count(self.members.len(), "member"))
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Every ISAKMP SA with a member: its name in the configuration, addresses, SA and end.
    pub fn isakmp_sas(
        &self,
    ) -> impl Iterator<Item = (Option<Arc<str>>, (PeerAddress, &IsakmpSa, BootTime))> {
        self.server.isakmp_sas().map(|(address, sa, expires)| {
            let name = self.authorization.member_of(sa.peer_identity(), address.remote.ip());
            (name.cloned(), (address, sa, expires))
        })
    }

    /// Figures of the protocol.
    pub fn statistics(&self) -> &ServerStatistics {
        self.server.statistics()
    }

    /// Figures of the decisions.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The group with this number, and where it gets new keys from.
    ///
    /// # Errors
    /// The server has no group of that number.
    pub fn group_mut(&mut self, id: GroupId) -> Result<(&mut Group, KeySource<'_>), UnknownGroup> {
        let others = self.groups.values().filter(|group| group.id() != id);
        let foreign_spis: BTreeSet<Spi> = others.flat_map(|group| group.teks().spis()).collect();
        let group = self.groups.get_mut(&id).ok_or(UnknownGroup(id))?;
        let keys = KeySource { rng: &mut self.rng, entropy: &mut self.entropy, foreign_spis };
        Ok((group, keys))
    }

    /// Follows up on what happened at the endpoint and in the groups.
    fn settle(&mut self, now: BootTime) {
        while let Some(event) = self.server.poll_event() {
            match event {
                ServerEvent::Phase1Established { peer, identity, .. } => {
                    self.unsaved.offers.insert(peer.ip());
                    self.events.push_back(Event::Authenticated { peer, identity });
                }
                ServerEvent::PullRequested { pull, local, peer, identity, group } => {
                    self.handle_pull_requested(pull, (local, peer), identity, group, now);
                }
                ServerEvent::PullAccepted {
                    pull,
                    peer,
                    identity,
                    group,
                    sender_ids,
                    initial_contact,
                    ..
                } => {
                    let said = Acceptance { sender_ids, initial_contact };
                    self.handle_pull_accepted(pull, peer, identity, (group, said), now);
                }
                // Only answers that bring their keys along are completed like that.
                ServerEvent::PullCompleted { .. } => {}
                ServerEvent::PullAborted { pull, peer, identity, group, reason } => {
                    if let Some(group) = self.groups.get_mut(&group) {
                        group.abort_pull(pull);
                        group.count_failed_pull();
                    }
                    self.counters.aborted = self.counters.aborted.saturating_add(1);
                    self.events.push_back(Event::Aborted { peer, identity, group, reason });
                }
                ServerEvent::PeerRestarted { peer, identity } => {
                    self.events.push_back(Event::PeerRestarted { peer, identity });
                }
                ServerEvent::PeerDeleted { peer, identity } => {
                    self.events.push_back(Event::PeerDeleted { peer, identity });
                }
            }
        }
        self.settle_cluster(now);
        self.dispatch(now);
        while let Some((push, event)) = self.server.poll_push_event() {
            self.handle_push_event(push, event, now);
        }
        self.dispatch(now);
    }

    /// Sends what the groups want sent, and takes over what they tell.
    fn dispatch(&mut self, now: BootTime) {
        let mut dispatches = Vec::new();
        for (id, group) in &mut self.groups {
            let name = group.name().clone();
            while let Some(event) = group.poll_event() {
                self.events.push_back(Event::Group { group: name.clone(), event });
            }
            dispatches.extend(std::iter::from_fn(|| group.poll_dispatch()).map(|one| (*id, one)));
        }
        for (id, dispatch) in dispatches {
            self.deliver(id, dispatch, now);
        }
    }

    /// How many members the key hierarchies are made for.
    fn size_hierarchies(&mut self) {
        for (id, group) in &mut self.groups {
            let members = self.members.iter().filter(|member| member.groups.contains(id));
            let hosts = members.map(|member| {
                let bits =
                    member.addresses.max_prefix_len().saturating_sub(member.addresses.prefix_len());
                1_usize.checked_shl(bits.into()).unwrap_or(LARGEST_TREE)
            });
            let hosts = hosts.fold(0, usize::saturating_add);
            // Other servers have leaves that they have not given yet.
            let servers = if group.role().is_some() { 2 } else { 1 };
            let capacity =
                hosts.saturating_mul(HEADROOM * servers).clamp(SMALLEST_TREE, LARGEST_TREE);
            group.set_capacity(capacity);
        }
    }
}

/// The protocol's part of a configuration.
fn server_config(config: &Config) -> ServerConfig {
    ServerConfig {
        identity: config.identity.clone(),
        peers: credentials(&config.members),
        phase1: config.phase1.clone(),
        limits: config.limits,
    }
}
