//! This server's part in a cluster: channels to the other servers, and for each group the side of
//! its root or of a sub-server.
//!
//! Decisions are [`cluster`]'s; here they are carried out on groups and channels. What is said to
//! another server leaves, like everything else, when the state that it describes is written.

mod clock;
mod ending;
mod notices;
mod root;
mod settings;
mod sub_server;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ::cluster::error::{MessageError, Refusal, Stale};
use ::cluster::link::{Link, LinkConfig, LinkEvent, LinkStatistics, Question};
use ::cluster::message::{Content, Difference, Message, Refused};
use daemon::sealed::codec::StateError;
use gdoi::event::Transmit;
use gdoi::group::GroupId;
use ike::config::Identity;
use ike::peer::Phase1Failure;
use ike::session::PeerAddress;
use ike::{BootTime, WallClock};
use thiserror::Error as ThisError;

use super::KeyServer;
use super::event::Event;
use crate::config::cluster::{Role, Server};
use crate::group::Group;
use crate::group::key_generation::Entropy;
use crate::group::pending_pull::PullError;

use clock::PeerClock;
use ending::Ending;
pub use root::RootSide;
pub use sub_server::SubServerSide;

/// The other servers, and our side of each group.
#[derive(Debug, Default)]
pub struct ClusterSide {
    /// Drawn at the start, so that a root sees our restarts.
    boot: u64,
    links: BTreeMap<Arc<str>, Link>,
    roots: BTreeMap<GroupId, RootSide>,
    sub_servers: BTreeMap<GroupId, SubServerSide>,
    endings: BTreeMap<(GroupId, Arc<str>), Ending>,
    /// Of the servers with a channel.
    clocks: BTreeMap<Arc<str>, PeerClock>,
}

/// Something that an operator may want to read about another server.
#[derive(Debug)]
pub enum ClusterEvent {
    Up,
    /// It has been restarted and said so.
    Restarted,
    Down,
    /// It does not answer: for all groups it is inactive.
    Dead,
    Phase1Failed(Phase1Failure),
    /// It proved its identity and does not speak our version of the protocol.
    NotAServer,
    /// A message was not followed.
    Refused(MessageError),
    /// Something about one group.
    Group {
        group: Arc<str>,
        event: GroupEvent,
    },
}

/// Something about a group and another server.
#[derive(Debug)]
pub enum GroupEvent {
    /// A sub-server was told everything.
    Joined { generation: ::cluster::Generation },
    /// A sub-server has lost what it was told, and which members it has.
    StateLost,
    /// A generation is on its way to be prepared there.
    Prepared { generation: ::cluster::Generation },
    /// A sub-server distributes what it holds.
    Committed { generation: ::cluster::Generation },
    /// We have told members, or relayed to them, what the root made.
    Adopted { generation: ::cluster::Generation, relayed: usize, forgotten: usize },
    /// It was not waited for any longer.
    Late { generation: ::cluster::Generation },
    /// It does not follow what we said.
    RefusedByPeer(Refusal),
    /// What it said is not followed.
    NotFollowed(NotFollowed),
    /// The configurations of the group differ; the root's is served.
    Differs(Difference),
    /// Members have registered at other servers, and count there.
    Moved { members: usize },
    /// The keys ended without news: the members were forgotten.
    KeysEnded { members: usize },
    /// Keys that are missing cannot be made; it is tried again.
    NoKeys(PullError),
}

/// Why a message about a group is not followed.
#[derive(Debug, ThisError)]
pub enum NotFollowed {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Stale(#[from] Stale),
    #[error("its state cannot be read, run the same version of gcks on both: {0}")]
    Unreadable(#[from] StateError),
}

impl ClusterSide {
    /// The channels, by the name of the other server.
    pub fn links(&self) -> impl Iterator<Item = (&Arc<str>, &Link)> {
        self.links.iter()
    }

    /// Our side of a group that this server is the root of.
    pub fn root(&self, group: GroupId) -> Option<&RootSide> {
        self.roots.get(&group)
    }

    /// Our side of a group that this server is a sub-server of.
    pub fn sub_server(&self, group: GroupId) -> Option<&SubServerSide> {
        self.sub_servers.get(&group)
    }

    /// Figures of the channel to a server.
    pub fn statistics(&self, server: &str) -> LinkStatistics {
        self.links.get(server).map(Link::statistics).unwrap_or_default()
    }

    /// Whether members that are not registered here are answered for this group.
    pub(super) fn answers_new_members(&self, group: GroupId) -> bool {
        self.sub_servers.get(&group).is_none_or(SubServerSide::answers_new_members)
    }

    pub(super) fn set_wall_clock(&mut self, wall_clock: WallClock) {
        self.links.values_mut().for_each(|link| link.set_wall_clock(wall_clock));
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.links.values_mut().find_map(Link::poll_transmit)
    }

    pub(super) fn poll_timeout(&self) -> Option<BootTime> {
        let links = self.links.values().filter_map(Link::poll_timeout);
        let roots = self.roots.values().filter_map(RootSide::poll_timeout);
        let sub_servers = self.sub_servers.values().filter_map(SubServerSide::poll_timeout);
        links.chain(roots).chain(sub_servers).min()
    }

    pub(super) fn handle_timeout(&mut self, now: BootTime) {
        self.links.values_mut().for_each(|link| link.handle_timeout(now));
        self.roots.values_mut().for_each(|side| side.handle_timeout(now));
        self.sub_servers.values_mut().for_each(|side| side.handle_timeout(now));
    }

    /// The server at `source`.
    pub(super) fn link_at(&mut self, source: SocketAddr) -> Option<&mut Link> {
        self.links.values_mut().find(|link| link.expects(source))
    }

    /// When a message that arrives `now` would have arrived without delay.
    fn arrival(&mut self, server: &Arc<str>, content: &Content, now: BootTime) -> BootTime {
        let octets = match content {
            Content::Ask(ask) => &ask.needs,
            Content::Told(told) => &told.state,
            Content::Prepare(prepare) => &prepare.state,
            Content::Notice(notice) => &notice.octets,
            _ => return now,
        };
        let Ok(written) = crate::state::written(octets.expose(), now) else { return now };
        self.clocks.entry(Arc::clone(server)).or_default().arrival(written, now)
    }

    /// Channels and groups count from 0 again.
    pub(super) fn clear_counters(&mut self) {
        self.links.values_mut().for_each(Link::clear_statistics);
        self.roots.values_mut().for_each(RootSide::clear_counters);
        self.sub_servers.values_mut().for_each(SubServerSide::clear_counters);
    }

    /// Begins again with every other server: phase 1, then cluster-init. Returns how many there are.
    pub(super) fn reconnect(&mut self, now: BootTime) -> usize {
        self.links.values_mut().for_each(|link| link.reconnect(now));
        self.sub_servers.values_mut().for_each(|side| side.handle_configured(now));
        self.links.len()
    }

    /// A group was removed.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.roots.remove(&group);
        self.sub_servers.remove(&group);
    }
}

impl<E: Entropy> KeyServer<E> {
    /// Takes up this server's part in the cluster. Comes once, behind `new` or `restore`.
    pub fn join_cluster(&mut self, now: BootTime) {
        self.cluster.boot = u64::from_be_bytes(self.rng.array());
        for server in &self.servers {
            let needs_it = |group: &&Group| {
                let part = group.config().cluster.as_ref();
                part.is_some_and(|part| {
                    part.role == Role::SubServer && part.servers.contains(&server.name)
                })
            };
            let begins = self.groups.values().any(|group| needs_it(&group));
            let config = link_config(server, self.server.config(), begins);
            let mut link = Link::new(config, self.rng.array(), now);
            link.set_wall_clock(self.wall_clock);
            self.cluster.links.insert(Arc::clone(&server.name), link);
        }
        self.take_sides(now);
        self.settle(now);
    }

    /// Certificates and revocation lists were read again.
    pub(super) fn take_credentials(&mut self, servers: Vec<Server>, now: BootTime) {
        for server in servers {
            if let Some(link) = self.cluster.links.get_mut(&server.name) {
                link.set_credential(server.credential, now);
            }
        }
    }

    /// Our side of each group that has none yet.
    pub(super) fn take_sides(&mut self, now: BootTime) {
        for (id, group) in &mut self.groups {
            let Some(part) = group.config().cluster.clone() else { continue };
            if self.cluster.roots.contains_key(id) || self.cluster.sub_servers.contains_key(id) {
                continue;
            }
            match part.role {
                Role::RootServer => {
                    self.cluster.roots.insert(*id, RootSide::new(&part, group, now));
                }
                Role::SubServer => {
                    if let Some(root) = part.servers.first() {
                        let side = SubServerSide::new(Arc::clone(root), group, now);
                        self.cluster.sub_servers.insert(*id, side);
                    }
                }
            }
        }
    }

    /// A sub-server's own configuration of a group has changed: the root hears of it.
    pub(super) fn compare_with_root(&mut self, group: GroupId, now: BootTime) {
        if let Some(side) = self.cluster.sub_servers.get_mut(&group) {
            side.handle_configured(now);
        }
    }

    /// The cluster as this server sees it.
    pub fn cluster(&self) -> &ClusterSide {
        &self.cluster
    }

    /// Follows up on what other servers said and what the groups have for them.
    pub(super) fn settle_cluster(&mut self, now: BootTime) {
        loop {
            self.tell_sub_servers(now);
            self.exchange_notices(now);
            let mut is_quiet = !self.carry_out_as_sub_server(now);
            let mut heard = Vec::new();
            for (name, link) in &mut self.cluster.links {
                heard.extend(
                    std::iter::from_fn(|| link.poll_event()).map(|event| (Arc::clone(name), event)),
                );
            }
            is_quiet &= heard.is_empty();
            for (server, event) in heard {
                self.handle_link_event(server, event, now);
            }
            if is_quiet {
                return;
            }
        }
    }

    fn handle_link_event(&mut self, server: Arc<str>, event: LinkEvent, now: BootTime) {
        if matches!(event, LinkEvent::Up | LinkEvent::Restarted | LinkEvent::Down | LinkEvent::Dead)
        {
            // A reboot begins another clock.
            self.cluster.clocks.remove(&server);
        }
        let event = match event {
            LinkEvent::Up => {
                self.cluster.roots.values_mut().for_each(|side| side.handle_up(&server));
                let own = self.cluster.sub_servers.values_mut();
                own.filter(|side| *side.root() == server).for_each(|side| side.handle_up(now));
                ClusterEvent::Up
            }
            LinkEvent::Restarted => {
                let own = self.cluster.sub_servers.values_mut();
                own.filter(|side| *side.root() == server).for_each(|side| side.handle_restart(now));
                ClusterEvent::Restarted
            }
            LinkEvent::Down => ClusterEvent::Down,
            LinkEvent::Dead => {
                self.cluster.roots.values_mut().for_each(|side| side.handle_dead(&server, now));
                let own = self.cluster.sub_servers.values_mut();
                own.filter(|side| *side.root() == server).for_each(|side| side.handle_dead(now));
                ClusterEvent::Dead
            }
            LinkEvent::Phase1Failed(failure) => ClusterEvent::Phase1Failed(failure),
            LinkEvent::NotAServer => ClusterEvent::NotAServer,
            LinkEvent::Refused(error) => ClusterEvent::Refused(error),
            LinkEvent::Lost { ticket } => {
                self.cluster.roots.values_mut().for_each(|side| side.handle_lost(&server, ticket));
                self.cluster.sub_servers.values_mut().for_each(|side| side.handle_lost(ticket));
                return;
            }
            LinkEvent::Asked { question, message } => {
                return self.handle_asked(&server, question, message, now);
            }
            LinkEvent::Answered { ticket, message } => {
                let id = GroupId(message.group);
                self.cluster.arrival(&server, &message.content, now);
                match message.content {
                    Content::Told(told) => self.handle_told(&server, id, ticket, told, now),
                    Content::Acknowledged(acknowledged) => {
                        if self.end_further(&server, id, acknowledged, now) {
                            return;
                        }
                        self.handle_acknowledgement(&server, id, acknowledged, now);
                    }
                    Content::Noted(_) => self.end_notice(&server, id, ticket),
                    Content::Refused(Refused(refusal)) => {
                        if let Some(side) = self.cluster.roots.get_mut(&id) {
                            // A sub-server that takes up the group reports all its members.
                            side.outboxes.end(&server, ticket, false);
                        }
                        self.handle_refused(&server, id, ticket, refusal, now);
                        self.note(&server, id, GroupEvent::RefusedByPeer(refusal));
                    }
                    _ => {}
                }
                return;
            }
        };
        self.events.push_back(Event::Cluster { server, event });
    }

    fn handle_asked(
        &mut self,
        server: &Arc<str>,
        question: Question,
        message: Message,
        now: BootTime,
    ) {
        let id = GroupId(message.group);
        let arrival = self.cluster.arrival(server, &message.content, now);
        let answer = match message.content {
            Content::Ask(ask) => self.tell(server, id, &ask, now).map(Content::from),
            Content::Prepare(prepare) => self.prepare(server, id, prepare, now).map(Content::from),
            Content::Commit(commit) => self.commit(server, id, commit, now).map(Content::from),
            Content::Notice(notice) => {
                self.handle_notice(server, id, &notice, (arrival, now)).map(Content::from)
            }
            _ => return,
        };
        let answer = answer.unwrap_or_else(|refusal| {
            self.note(server, id, GroupEvent::NotFollowed(refusal.into()));
            Refused(refusal).into()
        });
        if let Some(link) = self.cluster.links.get_mut(server) {
            // What does not fit stays unanswered: the other server asks again.
            let _ = link.answer(question, &Message::new(id.0, answer), now);
        }
    }

    /// Tells the operator about a group and another server.
    fn note(&mut self, server: &Arc<str>, group: GroupId, event: GroupEvent) {
        let group = match self.groups.get(&group) {
            Some(group) => Arc::clone(group.name()),
            None => group.to_string().into(),
        };
        let event = ClusterEvent::Group { group, event };
        self.events.push_back(Event::Cluster { server: Arc::clone(server), event });
    }
}

fn link_config(server: &Server, own: &gdoi::config::ServerConfig, begins: bool) -> LinkConfig {
    let at = |remote: SocketAddr| PeerAddress { remote, local: server.local };
    let of_address = || Identity::Address(server.local.ip());
    // Members may prove themselves in other ways.
    let method = server.credential.authentication();
    let mut phase1 = own.phase1.clone().authenticated_by(method);
    let mut offered = Vec::new();
    phase1.transforms.retain(|one| {
        let is_new = !offered.contains(one);
        offered.push(*one);
        is_new
    });
    LinkConfig {
        address: at(server.remote),
        further: server.further.iter().copied().map(at).collect(),
        identity: own.identity.clone().unwrap_or_else(of_address),
        expected_identity: server.identity.clone(),
        credential: server.credential.clone(),
        phase1,
        liveness_interval: server.liveness_interval,
        liveness_threshold: server.liveness_threshold,
        period: ::cluster::sub_server::RETRY,
        begins,
    }
}
