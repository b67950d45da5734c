//! All state of the key server, without input, output or clock: datagrams and the time come in,
//! datagrams and notices go out.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use daemon::entropy::EntropyError;
use gdoi::BootTime;
use gdoi::config::{Identity, ServerConfig};
use gdoi::error::Error;
use gdoi::event::{PullAbort, PullId, PullRefusal, ServerEvent, Transmit};
use gdoi::group::{GroupId, GroupSa, SenderIds, Spi};
use gdoi::server::{Server, ServerStatistics};
use thiserror::Error as ThisError;

use crate::algorithm::Kind;
use crate::authorise::{Authorisation, Denied, credentials};
use crate::config::{Config, Group};
use crate::keys::Entropy;
use crate::registry::Registry;
use crate::schedule::{Life, Schedule, policy};
use crate::senders::{Exhausted, SenderPool};

/// Something that an operator may want to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A peer proved its identity.
    Authenticated {
        /// Where it is.
        peer: SocketAddr,
        /// Who it is.
        identity: Identity,
    },
    /// A new TEK was made.
    TekMade {
        /// Name of the group.
        group: Arc<str>,
        /// SPI and end.
        life: Life,
    },
    /// Keys were sent.
    Registered {
        /// Name of the group.
        group: Arc<str>,
        /// Name of the member.
        member: Arc<str>,
        /// Where it is.
        peer: SocketAddr,
        /// Whether it had no keys before.
        new: bool,
    },
    /// A pull got no policy.
    Refused {
        /// Where the peer is.
        peer: SocketAddr,
        /// The identity proved.
        identity: Identity,
        /// The group asked for.
        group: GroupId,
        /// Why.
        reason: Refused,
    },
    /// A pull was broken off before the keys were sent.
    Aborted {
        /// Where the peer is.
        peer: SocketAddr,
        /// The identity proved.
        identity: Identity,
        /// The group asked for.
        group: GroupId,
        /// Why.
        reason: PullAbort,
    },
    /// The keys of a member ended and it did not come for new ones.
    Expired {
        /// Name of the group.
        group: Arc<str>,
        /// Name of the member.
        member: Arc<str>,
    },
    /// A peer ended its ISAKMP SA. Its keys stay valid.
    PeerDeleted {
        /// Where it is.
        peer: SocketAddr,
        /// Who it is.
        identity: Identity,
    },
}

/// Why a pull got no policy.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Refused {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Counter-mode TEKs cannot have more senders.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// No randomness for keys.
    #[error("{0}")]
    Entropy(String),
    /// The group SA cannot be sent.
    #[error("the policy cannot be sent: {0}; give the group fewer policies")]
    Answer(Error),
}

impl From<EntropyError> for Refused {
    fn from(error: EntropyError) -> Self {
        Self::Entropy(error.to_string())
    }
}

impl Refused {
    /// A short constant for limiting the rate of logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Denied(Denied::UnknownMember) => "unknown-member",
            Self::Denied(Denied::UnknownGroup) => "unknown-group",
            Self::Denied(Denied::NotAuthorised { .. }) => "not-authorised",
            Self::Exhausted(_) => "sender-identifiers-exhausted",
            Self::Entropy(_) => "no-randomness",
            Self::Answer(_) => "policy-not-sendable",
        }
    }

    /// What the member is told. It has proved its identity, so it may know.
    fn answer(&self) -> PullRefusal {
        match self {
            Self::Denied(Denied::UnknownGroup) => PullRefusal::InvalidId,
            Self::Denied(_) => PullRefusal::AuthenticationFailed,
            // The trouble is ours: the member's next server may do better.
            Self::Exhausted(_) | Self::Entropy(_) | Self::Answer(_) => PullRefusal::Silence,
        }
    }
}

/// The key server.
#[derive(Debug)]
pub struct Service<E> {
    server: Server,
    authorisation: Authorisation,
    groups: Vec<GroupState>,
    registry: Registry,
    pulls: BTreeMap<PullId, Pull>,
    notices: VecDeque<Notice>,
    counters: Counters,
    entropy: E,
}

/// Pulls that did not end with keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Refused: no such group, not authorised, or no way to answer.
    pub refused: u64,
    /// Broken off.
    pub aborted: u64,
}

/// One group and what was made for it.
#[derive(Debug)]
pub struct GroupState {
    group: Group,
    name: Arc<str>,
    schedule: Schedule,
    senders: SenderPool,
    succeeded: u64,
    failed: u64,
}

impl GroupState {
    /// The configuration.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Its TEKs.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Pulls for which keys were sent, and those that ended otherwise.
    pub fn pulls(&self) -> (u64, u64) {
        (self.succeeded, self.failed)
    }
}

/// A pull that was answered and is not complete.
#[derive(Debug)]
struct Pull {
    group: GroupId,
    member: Arc<str>,
    sender: Option<u64>,
    keys_end: BootTime,
}

impl<E: Entropy> Service<E> {
    /// The key server of `config`. `seed` comes from the operating system and is used once.
    pub fn new(config: Config, seed: [u8; 32], entropy: E) -> Self {
        let server = ServerConfig {
            identity: config.identity,
            peers: credentials(&config.members),
            phase1: config.phase1,
            group_id_byte_order: config.group_id_byte_order,
            limits: config.limits,
        };
        let state = |group: Group| GroupState {
            name: group.name.as_str().into(),
            schedule: Schedule::new(&group),
            senders: SenderPool::new(group.sender_id_bits),
            group,
            succeeded: 0,
            failed: 0,
        };
        Self {
            server: Server::new(server, seed),
            authorisation: Authorisation::new(&config.members),
            groups: config.groups.into_iter().map(state).collect(),
            registry: Registry::default(),
            pulls: BTreeMap::new(),
            notices: VecDeque::new(),
            counters: Counters::default(),
            entropy,
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

    /// The time of [`Service::poll_timeout`] has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        self.server.handle_timeout(now);
        self.handle_events(now);
        for state in &mut self.groups {
            state.schedule.handle_timeout(now);
        }
        for (group, _, registration) in self.registry.handle_timeout(now) {
            let Some(state) = self.groups.iter().find(|state| state.group.id == group) else { continue };
            self.notices.push_back(Notice::Expired { group: Arc::clone(&state.name), member: registration.name });
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.server.poll_transmit()
    }

    /// What happened next.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`Service::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        let server = self.server.poll_timeout().map(|deadline| deadline.at);
        let teks = self.groups.iter().filter_map(|state| state.schedule.poll_timeout()).min();
        [server, teks, self.registry.poll_timeout()].into_iter().flatten().min()
    }

    /// The groups in the order of the configuration.
    pub fn groups(&self) -> &[GroupState] {
        &self.groups
    }

    /// Who has keys.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Figures of the protocol.
    pub fn statistics(&self) -> &ServerStatistics {
        self.server.statistics()
    }

    /// Figures of the decisions.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn handle_events(&mut self, now: BootTime) {
        while let Some(event) = self.server.poll_event() {
            match event {
                ServerEvent::Phase1Established { peer, identity, .. } => {
                    self.notices.push_back(Notice::Authenticated { peer, identity });
                }
                ServerEvent::PullRequested { pull, peer, identity, group, .. } => {
                    if let Err(reason) = self.answer(pull, &identity, peer, group, now) {
                        self.refuse(pull, peer, identity, group, reason, now);
                    }
                }
                ServerEvent::PullCompleted { pull, peer, identity, group, .. } => {
                    self.complete(pull, peer, identity, group, now);
                }
                ServerEvent::PullAborted { pull, peer, identity, group, reason } => {
                    self.forget(pull);
                    self.counters.aborted = self.counters.aborted.saturating_add(1);
                    self.count_failure(group);
                    self.notices.push_back(Notice::Aborted { peer, identity, group, reason });
                }
                ServerEvent::PeerDeleted { peer, identity } => {
                    self.notices.push_back(Notice::PeerDeleted { peer, identity });
                }
            }
        }
    }

    fn answer(
        &mut self,
        pull: PullId,
        identity: &Identity,
        peer: SocketAddr,
        group: GroupId,
        now: BootTime,
    ) -> Result<(), Refused> {
        let index = self.groups.iter().position(|state| state.group.id == group);
        let name = index.and_then(|index| self.groups.get(index)).map(|state| state.group.name.as_str());
        let member = self.authorisation.check(identity, peer.ip(), group, name)?;
        let in_use: Vec<Spi> =
            self.groups.iter().flat_map(|state| state.schedule.lives().map(|(_, life, _)| life.spi)).collect();
        let state = index.and_then(|index| self.groups.get_mut(index)).ok_or(Denied::UnknownGroup)?;
        for life in state.schedule.renew(now, |spi| in_use.contains(&spi), &mut self.entropy)? {
            self.notices.push_back(Notice::TekMade { group: Arc::clone(&state.name), life });
        }
        let out = state.schedule.hand_out(now);
        let counter_mode = state.group.teks.iter().any(|tek| tek.encryption.kind == Kind::Combined);
        let sender = if counter_mode { Some(state.senders.take(out.last_end, now)?) } else { None };
        let senders = sender.map(|value| SenderIds { bits: state.senders.bits(), values: vec![value] });
        let sa = GroupSa::originate(policy(&state.group, out.teks), out.keys, None, None, senders);
        self.pulls.insert(pull, Pull { group, member, sender, keys_end: out.first_end });
        if let Err(error) = self.server.answer_pull(pull, sa, now) {
            self.forget(pull);
            return Err(Refused::Answer(error));
        }
        Ok(())
    }

    fn refuse(
        &mut self,
        pull: PullId,
        peer: SocketAddr,
        identity: Identity,
        group: GroupId,
        reason: Refused,
        now: BootTime,
    ) {
        // A pull that is gone already needs no refusal.
        let _ = self.server.refuse_pull(pull, reason.answer(), now);
        self.counters.refused = self.counters.refused.saturating_add(1);
        self.count_failure(group);
        self.notices.push_back(Notice::Refused { peer, identity, group, reason });
    }

    fn complete(&mut self, pull: PullId, peer: SocketAddr, identity: Identity, group: GroupId, now: BootTime) {
        let Some(pull) = self.pulls.remove(&pull) else { return };
        let Some(state) = self.groups.iter_mut().find(|state| state.group.id == group) else { return };
        state.succeeded = state.succeeded.saturating_add(1);
        let member = Arc::clone(&pull.member);
        let new = self.registry.record((group, identity), pull.member, peer, pull.keys_end, now);
        self.notices.push_back(Notice::Registered { group: Arc::clone(&state.name), member, peer, new });
    }

    /// Drops a pull whose keys were not sent.
    fn forget(&mut self, pull: PullId) {
        let Some(pull) = self.pulls.remove(&pull) else { return };
        if let (Some(sender), Some(state)) =
            (pull.sender, self.groups.iter_mut().find(|state| state.group.id == pull.group))
        {
            state.senders.give_back(sender);
        }
    }

    fn count_failure(&mut self, group: GroupId) {
        if let Some(state) = self.groups.iter_mut().find(|state| state.group.id == group) {
            state.failed = state.failed.saturating_add(1);
        }
    }
}
