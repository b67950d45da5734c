//! One group: its keys, its members, and the pushes that keep them in step.
//!
//! A group is a value with methods that knows nothing of other groups, of sockets or of phase 1.
//! What it wants sent is data: after every call, drain [`Group::poll_dispatch`] and
//! [`Group::poll_event`], then read [`Group::poll_timeout`].

pub mod cluster;
pub mod delivery;
pub mod division;
pub mod elsewhere;
pub mod event;
pub mod eviction;
pub mod fresh_counters;
pub mod kek;
pub mod key_generation;
pub mod pending_pull;
pub mod push;
pub mod push_plan;
pub mod reconfiguration;
pub mod rekey_sa;
pub mod sender_blocks;
pub mod sender_ids;
pub mod signing_key;
pub mod tek_schedule;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use gdoi::event::PullId;
use gdoi::group::{GroupId, GroupPolicy, KekPolicy, TekPolicy};
use gdoi::lkh::KeyTree;
use ike::BootTime;
use ike::crypto::SigningKey;

use self::cluster::Membership;
use crate::config;
use crate::members::registry::{MemberId, Registry};
use crate::tracked::Tracked;
use delivery::Dispatch;
use event::Event;
use eviction::TekHolder;
use fresh_counters::FreshCounters;
use kek::Kek;
use pending_pull::{PendingPull, Prospect};
use rekey_sa::RekeySa;
use sender_ids::SenderIdPool;
use tek_schedule::TekSchedule;

/// A group with everything that was made for it.
#[derive(Debug)]
pub struct Group {
    config: config::Group,
    name: Arc<str>,
    teks: TekSchedule,
    sender_ids: SenderIdPool,
    rekey_sa: Option<RekeySa>,
    registry: Registry,
    /// Names of members that the operator removed.
    removed: BTreeSet<String>,
    /// Members that are no longer registered, have no KEK and hold TEKs.
    tek_holders: Tracked<MemberId, TekHolder>,
    pulls: BTreeMap<PullId, PendingPull>,
    /// Keys that pulls were promised and nobody has yet.
    prospect: Option<Prospect>,
    /// How many there were, and the last that came into use.
    prospects: u64,
    fulfilled: u64,
    /// How many members a key hierarchy is made for.
    capacity: usize,
    /// Whether data SAs or sender identifiers are those of a configuration before: see
    /// [`Group::note_outdated`].
    is_outdated: bool,
    pull_counters: PullCounters,
    /// New counter-mode TEKs for a member that restarted.
    fresh_counters: FreshCounters,
    dispatches: VecDeque<Dispatch>,
    events: VecDeque<Event>,
    cluster: Membership,
    /// Whether there is something that a restart must not forget.
    changed: bool,
}

/// Pulls of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullCounters {
    pub succeeded: u64,
    pub failed: u64,
    /// Not answered because as many members are registered as may be.
    pub over_threshold: u64,
}

/// The parts of a group that a restart must not forget.
#[derive(Debug)]
pub struct Parts {
    /// The configuration that they were made under.
    pub config: config::Group,
    pub teks: TekSchedule,
    /// Sender identifiers of counter modes.
    pub sender_ids: SenderIdPool,
    /// The rekey SA, if the group's keys are pushed.
    pub rekey_sa: Option<RekeySa>,
    pub registry: Registry,
    /// Names of members that the operator removed.
    pub removed: BTreeSet<String>,
    /// Members that are no longer registered, have no KEK and hold TEKs.
    pub tek_holders: Tracked<MemberId, TekHolder>,
    /// New counter-mode TEKs that a member waits for that restarted.
    pub fresh_counters: FreshCounters,
}

impl Group {
    /// A group without keys, whose pushes are signed by `signing_key`; without one it pushes
    /// nothing.
    pub fn new(config: config::Group, signing_key: Option<Arc<SigningKey>>) -> Self {
        let rekey = config.rekey.clone().zip(signing_key);
        Self::from_parts(Parts {
            teks: TekSchedule::new(&config),
            sender_ids: SenderIdPool::new(config.sender_id_bits),
            // A key that was loaded has a public form.
            rekey_sa: rekey.and_then(|(settings, signing)| RekeySa::new(settings, signing).ok()),
            registry: Registry::default(),
            removed: BTreeSet::new(),
            tek_holders: Tracked::default(),
            fresh_counters: FreshCounters::default(),
            config,
        })
    }

    /// The group that had these parts before a restart.
    pub fn from_parts(parts: Parts) -> Self {
        let Parts {
            config,
            teks,
            sender_ids,
            rekey_sa,
            registry,
            removed,
            tek_holders,
            fresh_counters,
        } = parts;
        let mut group = Self {
            name: config.name.as_str().into(),
            config,
            teks,
            sender_ids,
            rekey_sa,
            registry,
            removed,
            tek_holders,
            pulls: BTreeMap::new(),
            prospect: None,
            prospects: 0,
            fulfilled: 0,
            capacity: 0,
            is_outdated: false,
            pull_counters: PullCounters::default(),
            fresh_counters,
            dispatches: VecDeque::new(),
            events: VecDeque::new(),
            cluster: Membership::default(),
            changed: false,
        };
        group.note_outdated();
        group
    }

    /// The number by which members ask for it.
    pub fn id(&self) -> GroupId {
        self.config.id
    }

    /// Name for logs and `gdoictl`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn config(&self) -> &config::Group {
        &self.config
    }

    pub fn teks(&self) -> &TekSchedule {
        &self.teks
    }

    pub fn sender_ids(&self) -> &SenderIdPool {
        &self.sender_ids
    }

    /// How its keys are pushed, if they are.
    pub fn rekey_sa(&self) -> Option<&RekeySa> {
        self.rekey_sa.as_ref()
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Enters members without a pull: what the sealed state has, or simulated ones.
    pub fn registry_mut(&mut self) -> &mut Registry {
        self.changed = true;
        &mut self.registry
    }

    /// Names of the members that the operator removed.
    pub fn removed(&self) -> &BTreeSet<String> {
        &self.removed
    }

    /// Members that are no longer registered, have no KEK and hold TEKs.
    pub fn tek_holders(&self) -> &Tracked<MemberId, TekHolder> {
        &self.tek_holders
    }

    /// New counter-mode TEKs that a member waits for that restarted.
    pub fn fresh_counters(&self) -> &FreshCounters {
        &self.fresh_counters
    }

    pub fn pull_counters(&self) -> PullCounters {
        self.pull_counters
    }

    /// Pulls and pushes count from 0 again.
    pub fn clear_counters(&mut self) {
        self.pull_counters = PullCounters::default();
        if let Some(rekey_sa) = &mut self.rekey_sa {
            rekey_sa.counters = rekey_sa::RekeyCounters::default();
        }
    }

    /// How many members a key hierarchy is to be made for.
    pub fn set_capacity(&mut self, members: usize) {
        self.capacity = members;
    }

    /// Whether anybody has keys of the group: at a root its sub-servers have.
    pub fn has_audience(&self) -> bool {
        !self.registry.is_empty() || self.is_root()
    }

    /// Forgets what has ended. [`Group::push_due`] makes what takes its place. Harmless before
    /// [`Group::poll_timeout`].
    pub fn handle_timeout(&mut self, now: BootTime) {
        self.teks.handle_timeout(now);
        self.expire_kek(now);
        self.tek_holders.extract(|holder| holder.until <= now);
        for (_, registration) in self.registry.handle_timeout(now) {
            self.changed = true;
            self.events.push_back(Event::Expired { member: registration.name });
        }
    }

    /// When [`Group::handle_timeout`] or [`Group::push_due`] is due.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        let kek = self.rekey_sa.as_ref().and_then(|rekey_sa| Some(rekey_sa.kek()?.ends()));
        let registry = self.registry.poll_timeout();
        [self.teks.poll_timeout(), kek, self.next_push(), registry].into_iter().flatten().min()
    }

    /// Something happened that an operator may want to read.
    pub(crate) fn note(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next push to send.
    pub fn poll_dispatch(&mut self) -> Option<Dispatch> {
        if self.is_withheld() {
            return None;
        }
        self.dispatches.pop_front()
    }

    /// Whether there is something new that a restart must not forget.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The state has been written.
    pub fn saved(&mut self) {
        self.changed = false;
        self.registry.saved();
        self.sender_ids.saved();
        self.tek_holders.saved();
        if let Some(rekey_sa) = &mut self.rekey_sa {
            rekey_sa.abandoned.saved();
            rekey_sa.kek.as_mut().and_then(Kek::tree_mut).into_iter().for_each(KeyTree::saved);
        }
    }

    /// The group's policy with these keys.
    fn policy(&self, kek: Option<KekPolicy>, teks: Vec<TekPolicy>) -> GroupPolicy {
        policy(self.served(), kek, teks)
    }
}

fn policy(config: &config::Group, kek: Option<KekPolicy>, teks: Vec<TekPolicy>) -> GroupPolicy {
    GroupPolicy { group: config.id, kek, gap: config.gap.clone(), teks }
}
