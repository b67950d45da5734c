//! The root's side: tells its sub-servers what a group has that is new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ::cluster::error::Refusal;
use ::cluster::link::Ticket;
use ::cluster::message::{Acknowledged, Ask, Commit, Content, Difference, Message, Prepare, Told};
use ::cluster::root::{RootAction, RootGroup, SubServer};
use ::cluster::{Generation, Stage};
use gdoi::group::GroupId;
use ike::BootTime;

use super::notices::Outboxes;
use super::{GroupEvent, settings};
use crate::config::Cluster;
use crate::group::Group;
use crate::group::division::Needs;
use crate::group::key_generation::Entropy;
use crate::server::KeyServer;
use crate::state::{needs, shared};

/// Figures of a group at its root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RootCounters {
    pub inits_answered: u64,
    pub inits_refused: u64,
    pub updates_sent: u64,
    pub updates_acknowledged: u64,
    pub updates_lost: u64,
    /// Generations that a sub-server was late for.
    pub late: u64,
}

/// The root's side of one group.
#[derive(Debug)]
pub struct RootSide {
    machine: RootGroup<Arc<str>>,
    names: Vec<Arc<str>>,
    /// Sub-servers that have told all their members since they were away.
    pub(super) reported: BTreeSet<Arc<str>>,
    /// What they have to hear of members.
    pub(super) outboxes: Outboxes,
    /// What the sub-servers have heard of, or are about to.
    revision: u64,
    period: Duration,
    wait: Duration,
    /// What is on its way to each sub-server.
    tickets: BTreeMap<Arc<str>, Ticket>,
    differences: BTreeMap<Arc<str>, Vec<Difference>>,
    /// Sub-servers that certainly were never told anything.
    untold: BTreeSet<Arc<str>>,
    /// Sub-servers that asked with nothing held, with their boot, and have not shown since that
    /// they got the answer: asking once more they have lost nothing.
    empty: BTreeMap<Arc<str>, u64>,
    counters: RootCounters,
}

impl RootSide {
    pub(super) fn new(part: &Cluster, group: &mut Group, now: BootTime) -> Self {
        let names = part.servers.iter().cloned();
        let until = now + part.wait;
        // Without blocks of what is divided a server answers no member.
        let divided = group.sender_blocks().is_some() || !group.leaf_blocks().is_empty();
        let is_untold = divided || group.generation().version == 0;
        let is_untold = |name: &&Arc<str>| is_untold && !group.has_granted(name);
        let untold = part.servers.iter().filter(is_untold).cloned().collect();
        Self {
            machine: RootGroup::new(group.generation(), names, until, now),
            names: part.servers.clone(),
            reported: BTreeSet::new(),
            outboxes: Outboxes::default(),
            // A restart makes another generation: sub-servers hear what the configuration changed.
            revision: 0,
            period: part.period,
            wait: part.wait,
            tickets: BTreeMap::new(),
            differences: BTreeMap::new(),
            untold,
            empty: BTreeMap::new(),
            counters: RootCounters::default(),
        }
    }

    pub fn generation(&self) -> Generation {
        self.machine.generation()
    }

    pub fn stage(&self) -> Stage {
        self.machine.stage()
    }

    /// The sub-servers by name.
    pub fn sub_servers(&self) -> impl Iterator<Item = (&Arc<str>, &SubServer)> {
        self.machine.sub_servers()
    }

    /// Where a sub-server's configuration of the group differs from ours.
    pub fn differences(&self, server: &str) -> &[Difference] {
        self.differences.get(server).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn counters(&self) -> RootCounters {
        self.counters
    }

    pub(super) fn clear_counters(&mut self) {
        self.counters = RootCounters::default();
    }

    pub(super) fn handle_up(&mut self, server: &Arc<str>) {
        if !self.tickets.contains_key(server) {
            self.machine.again(server);
        }
    }

    /// A sub-server asks. Returns whether it has lost what it was told.
    fn has_lost_state(&mut self, server: &Arc<str>, held: Generation, boot: u64) -> bool {
        let was_untold = self.untold.remove(server);
        if held != Generation::default() {
            self.note_state(server);
            return false;
        }
        let was_empty = self.empty.insert(Arc::clone(server), boot) == Some(boot);
        !was_untold && !was_empty
    }

    /// A sub-server has what it was told.
    pub(super) fn note_state(&mut self, server: &Arc<str>) {
        self.empty.remove(server);
    }

    pub(super) fn handle_dead(&mut self, server: &Arc<str>, now: BootTime) {
        self.reported.remove(server);
        self.machine.lost(server, now);
    }

    pub(super) fn handle_lost(&mut self, server: &Arc<str>, ticket: Ticket) {
        self.outboxes.end(server, ticket, true);
        if self.tickets.get(server) == Some(&ticket) {
            self.tickets.remove(server);
            self.counters.updates_lost += 1;
            self.machine.again(server);
        }
    }

    /// The group goes. Returns the generation that says so, how often it is repeated, and to whom.
    pub(super) fn end(&mut self, now: BootTime) -> (Generation, Duration, Vec<Arc<str>>) {
        self.machine.make(now, now);
        let active = self.machine.sub_servers().filter(|(_, one)| one.is_active());
        let active = active.map(|(name, _)| Arc::clone(name)).collect();
        (self.machine.generation(), self.period, active)
    }

    pub(super) fn handle_timeout(&mut self, now: BootTime) {
        self.machine.handle_timeout(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<BootTime> {
        self.machine.poll_timeout()
    }
}

impl<E: Entropy> KeyServer<E> {
    /// Makes keys that are missing, and carries out what is new for the sub-servers.
    pub(super) fn tell_sub_servers(&mut self, now: BootTime) {
        let ids: Vec<GroupId> = self.cluster.roots.keys().copied().collect();
        for id in ids {
            self.make_missing_keys(id, now);
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let Some(side) = self.cluster.roots.get_mut(&id) else { continue };
            let knows = |(name, one): (&Arc<str>, &SubServer)| {
                one.is_active() && side.reported.contains(name)
            };
            group.set_knows_everybody(side.machine.sub_servers().all(knows));
            group.set_away(side.machine.away_since());
            self.make_generation(id, now);
            while let Some(action) =
                self.cluster.roots.get_mut(&id).and_then(|side| side.machine.poll_action())
            {
                self.carry_out_as_root(id, action, now);
            }
        }
    }

    /// What has changed of the group is another generation.
    fn make_generation(&mut self, id: GroupId, now: BootTime) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(side) = self.cluster.roots.get_mut(&id) else { return };
        if side.revision != group.revision() {
            side.revision = group.revision();
            side.machine.make(group.latest_distribution(now), now);
            group.set_generation(side.machine.generation());
            group.withhold();
        }
    }

    fn make_missing_keys(&mut self, id: GroupId, now: BootTime) {
        let Some(names) = self.cluster.roots.get(&id).map(|side| side.names.clone()) else {
            return;
        };
        let Ok((group, mut keys)) = self.group_mut(id) else { return };
        let made = group.make_keys(&mut keys, now);
        group.divide(&names, &mut keys, now);
        if let Err(error) = made {
            let event = GroupEvent::NoKeys(error);
            let server = self.cluster.roots.get(&id).and_then(|side| {
                side.machine.sub_servers().next().map(|(name, _)| Arc::clone(name))
            });
            if let Some(server) = server {
                self.note(&server, id, event);
            }
        }
    }

    fn carry_out_as_root(&mut self, id: GroupId, action: RootAction<Arc<str>>, now: BootTime) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(side) = self.cluster.roots.get_mut(&id) else { return };
        let generation = |version| Generation { version, ..side.machine.generation() };
        let (server, content) = match action {
            RootAction::Prepare { sub_server, version } => {
                let (generation, state) =
                    (generation(version), shared::encode(group, &sub_server, now));
                (sub_server, Content::from(Prepare { generation, state }))
            }
            RootAction::Commit { sub_server, version } => {
                (sub_server, Content::from(Commit { generation: generation(version) }))
            }
            RootAction::Distribute { version, late } => {
                let generation = generation(version);
                side.counters.late += u64::try_from(late.len()).unwrap_or(u64::MAX);
                group.release(now);
                for server in late {
                    self.note(&server, id, GroupEvent::Late { generation });
                }
                return;
            }
        };
        let Some(link) = self.cluster.links.get_mut(&server) else { return };
        if let Some(before) = side.tickets.remove(&server) {
            link.cancel(before);
        }
        // Without a channel it waits until there is one.
        if let Ok(Some(ticket)) = link.send(&Message::new(id.0, content), side.period, now) {
            side.counters.updates_sent += 1;
            side.tickets.insert(server, ticket);
        }
    }

    pub(super) fn tell(
        &mut self,
        server: &Arc<str>,
        id: GroupId,
        ask: &Ask,
        now: BootTime,
    ) -> Result<Told, Refusal> {
        if self.cluster.sub_servers.contains_key(&id) {
            return Err(Refusal::WrongRole);
        }
        let side = self.cluster.roots.get_mut(&id).ok_or(Refusal::UnknownGroup)?;
        if side.machine.sub_servers().all(|(name, _)| name != server) {
            side.counters.inits_refused += 1;
            return Err(Refusal::UnknownGroup);
        }
        let own = side.machine.generation();
        let needs = needs::decode(ask.needs.expose(), now).map_err(|_| Refusal::Unreadable)?;
        if ask.held.epoch > own.epoch {
            side.counters.inits_refused += 1;
            return Err(Refusal::LowerEpoch { ours: own.epoch, theirs: ask.held.epoch });
        }
        if ask.held > own {
            // Our state was lost. Numbers never go back: what we have is newer than all of that.
            side.machine.overtake(ask.held, now + side.wait, now);
        }
        if own.version == 0 {
            side.counters.inits_refused += 1;
            return Err(Refusal::NoKeys);
        }
        side.counters.inits_answered += 1;
        if side.has_lost_state(server, ask.held, ask.boot) {
            let names = side.names.clone();
            let (group, mut keys) = self.group_mut(id).map_err(|_| Refusal::UnknownGroup)?;
            group.take_loss(server, now);
            group.divide(&names, &mut keys, now);
            self.make_generation(id, now);
            self.note(server, id, GroupEvent::StateLost);
        }
        if needs != Needs::default() {
            // What it needs comes with the next generation.
            let (group, mut keys) = self.group_mut(id).map_err(|_| Refusal::UnknownGroup)?;
            group.fulfil(server, needs, &mut keys, now);
            self.make_generation(id, now);
        }
        let side = self.cluster.roots.get_mut(&id).ok_or(Refusal::UnknownGroup)?;
        let group = self.groups.get(&id).ok_or(Refusal::UnknownGroup)?;
        let (generation, stage) = (side.machine.generation(), side.machine.stage());
        let differences = settings::differences(&settings::of(group.config()), &ask.settings);
        let told = Told {
            generation,
            stage,
            differences: differences.clone(),
            state: shared::encode(group, server, now),
        };
        let known = side.differences.insert(Arc::clone(server), differences.clone());
        side.machine.joined(server, now);
        let group = self.groups.get_mut(&id).ok_or(Refusal::UnknownGroup)?;
        group.set_generation(generation);
        self.note(server, id, GroupEvent::Joined { generation });
        if known.as_ref() != Some(&differences) {
            differences.into_iter().for_each(|one| self.note(server, id, GroupEvent::Differs(one)));
        }
        Ok(told)
    }

    pub(super) fn handle_acknowledgement(
        &mut self,
        server: &Arc<str>,
        id: GroupId,
        acknowledged: Acknowledged,
        now: BootTime,
    ) {
        let Some(side) = self.cluster.roots.get_mut(&id) else { return };
        let Acknowledged { generation, stage } = acknowledged;
        if generation.epoch != side.machine.generation().epoch {
            return;
        }
        side.tickets.remove(server);
        side.counters.updates_acknowledged += 1;
        side.machine.acknowledged(server, stage, generation.version, now);
        let event = match stage {
            Stage::Prepared => GroupEvent::Prepared { generation },
            Stage::Committed => {
                side.note_state(server);
                GroupEvent::Committed { generation }
            }
        };
        self.note(server, id, event);
    }
}
