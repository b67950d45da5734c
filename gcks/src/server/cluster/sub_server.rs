//! A sub-server's side: takes over what its root makes, and asks for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use ::cluster::error::Refusal;
use ::cluster::link::Ticket;
use ::cluster::message::{Acknowledged, Ask, Commit, Difference, Message, Prepare, Told};
use ::cluster::sub_server::{Arrival, RETRY, RootActivity, SubServerAction, SubServerGroup};
use ::cluster::{Generation, Stage};
use gdoi::group::GroupId;
use ike::BootTime;

use super::{GroupEvent, NotFollowed, settings};
use crate::group::Group;
use crate::group::cluster::{Adopted, PreparedState};
use crate::group::division::Needs;
use crate::group::key_generation::Entropy;
use crate::members::registry::MemberId;
use crate::server::KeyServer;
use crate::state::{needs, shared};

/// Figures of a group at a sub-server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubServerCounters {
    pub inits_sent: u64,
    pub inits_succeeded: u64,
    pub inits_failed: u64,
    pub updates_received: u64,
    pub updates_installed: u64,
    pub updates_refused: u64,
    pub pushes_relayed: u64,
}

/// A sub-server's side of one group.
#[derive(Debug)]
pub struct SubServerSide {
    root: Arc<str>,
    machine: SubServerGroup,
    asking: Option<Ticket>,
    /// What the root hears of us with the request on its way.
    asked: Needs,
    /// What it was told last, with how many sender identifiers there were then: it is told once.
    told: (Needs, (u64, usize)),
    /// Members that the root has not heard of, or all.
    pub(super) touched: BTreeSet<MemberId>,
    pub(super) report_all: bool,
    pub(super) notice: Option<Ticket>,
    differences: Vec<Difference>,
    counters: SubServerCounters,
}

impl SubServerSide {
    pub(super) fn new(root: Arc<str>, group: &Group, now: BootTime) -> Self {
        let prepared = group.prepared().map(|prepared| prepared.generation);
        let machine = SubServerGroup::new(group.generation(), now).with_prepared(prepared);
        let mut side = Self {
            root,
            machine,
            asking: None,
            asked: Needs::default(),
            told: Default::default(),
            touched: BTreeSet::new(),
            report_all: true,
            notice: None,
            differences: Vec::new(),
            counters: SubServerCounters::default(),
        };
        side.set_lifetimes(group);
        side
    }

    /// Name of the root server.
    pub fn root(&self) -> &Arc<str> {
        &self.root
    }

    pub fn activity(&self) -> RootActivity {
        self.machine.root()
    }

    /// The generation that members get.
    pub fn generation(&self) -> Generation {
        self.machine.held()
    }

    /// What is written down and waits for its commit.
    pub fn prepared(&self) -> Option<Generation> {
        self.machine.prepared()
    }

    /// Where our configuration of the group differs from the root's.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    pub fn counters(&self) -> SubServerCounters {
        self.counters
    }

    pub(super) fn clear_counters(&mut self) {
        self.counters = SubServerCounters::default();
    }

    pub fn answers_new_members(&self) -> bool {
        self.machine.answers_new_members()
    }

    pub(super) fn handle_up(&mut self, now: BootTime) {
        if matches!(self.machine.root(), RootActivity::Inactive { .. }) {
            self.machine.ask(now);
        }
    }

    pub(super) fn handle_restart(&mut self, now: BootTime) {
        self.report_all = true;
        self.machine.ask(now);
    }

    /// Our configuration of the group has changed.
    pub(super) fn handle_configured(&mut self, now: BootTime) {
        self.machine.ask(now);
    }

    pub(super) fn handle_dead(&mut self, now: BootTime) {
        self.report_all = true;
        self.machine.lost(now);
    }

    pub(super) fn handle_lost(&mut self, ticket: Ticket) {
        if self.notice.take_if(|notice| *notice == ticket).is_some() {
            self.report_all = true;
        }
        if self.asking == Some(ticket) {
            self.asking = None;
            self.counters.inits_failed += 1;
        }
    }

    pub(super) fn handle_timeout(&mut self, now: BootTime) {
        self.machine.handle_timeout(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<BootTime> {
        self.machine.poll_timeout()
    }

    /// Asks when there is something that the root alone can give.
    fn watch_needs(&mut self, group: &Group, now: BootTime) {
        let needs = (group.needs(), group.own_share());
        if self.asking.is_none() && needs != self.told && needs.0 != Needs::default() {
            // Not again before it is answered, or tried again.
            self.told = needs;
            self.machine.ask(now);
            self.machine.handle_timeout(now);
        }
    }

    fn set_lifetimes(&mut self, group: &Group) {
        let (soft, hard) = group.lifetimes();
        self.machine.set_lifetimes(soft, hard);
    }
}

impl<E: Entropy> KeyServer<E> {
    /// Asks roots and forgets members, as it is due. Returns whether anything was.
    pub(super) fn carry_out_as_sub_server(&mut self, now: BootTime) -> bool {
        let mut actions = Vec::new();
        for (id, side) in &mut self.cluster.sub_servers {
            if let Some(group) = self.groups.get(id) {
                side.watch_needs(group, now);
            }
            let due = std::iter::from_fn(|| side.machine.poll_action());
            actions.extend(due.map(|action| (*id, action)));
        }
        let any = !actions.is_empty();
        for (id, action) in actions {
            match action {
                SubServerAction::Ask => self.ask_root(id, now),
                SubServerAction::Forget => {
                    let Some(group) = self.groups.get_mut(&id) else { continue };
                    let members = group.forget_all(now);
                    let root = self.cluster.sub_servers.get(&id).map(|side| Arc::clone(&side.root));
                    if let Some(root) = root {
                        self.note(&root, id, GroupEvent::KeysEnded { members });
                    }
                }
            }
        }
        any
    }

    fn ask_root(&mut self, id: GroupId, now: BootTime) {
        let boot = self.cluster.boot;
        let Some(side) = self.cluster.sub_servers.get_mut(&id) else { return };
        let Some(link) = self.cluster.links.get_mut(&side.root) else { return };
        let Some(group) = self.groups.get(&id) else { return };
        if let Some(before) = side.asking.take() {
            link.cancel(before);
            side.counters.inits_failed += 1;
        }
        let held = side.machine.held();
        side.asked = group.needs();
        let needs = needs::encode(side.asked, now);
        let ask = Ask { held, boot, settings: settings::of(group.config()), needs };
        if let Ok(Some(ticket)) = link.send(&Message::new(id.0, ask), RETRY, now) {
            side.asking = Some(ticket);
            side.counters.inits_sent += 1;
        }
    }

    /// The root has answered cluster-init.
    pub(super) fn handle_told(
        &mut self,
        server: &Arc<str>,
        id: GroupId,
        ticket: Ticket,
        told: Told,
        now: BootTime,
    ) {
        let Some(side) = self.cluster.sub_servers.get_mut(&id) else { return };
        if side.asking != Some(ticket) || side.root != *server {
            return;
        }
        side.asking = None;
        if let Some(group) = self.groups.get_mut(&id) {
            group.note_told(side.asked, now);
            side.told = (group.needs(), group.own_share());
        }
        let Told { generation, stage, differences, state } = told;
        if side.differences != differences {
            side.differences.clone_from(&differences);
            differences.into_iter().for_each(|one| self.note(server, id, GroupEvent::Differs(one)));
        }
        let result = self.take_over(server, id, (generation, stage), state, now);
        let Some(side) = self.cluster.sub_servers.get_mut(&id) else { return };
        match result {
            Ok(()) => side.counters.inits_succeeded += 1,
            Err(error) => {
                side.counters.inits_failed += 1;
                self.note(server, id, GroupEvent::NotFollowed(error));
            }
        }
    }

    /// The root does not follow a notice, or does not answer cluster-init. Without the group it is
    /// the root of nothing.
    pub(super) fn handle_refused(
        &mut self,
        server: &Arc<str>,
        id: GroupId,
        ticket: Ticket,
        refusal: Refusal,
        now: BootTime,
    ) {
        let Some(side) = self.cluster.sub_servers.get_mut(&id) else { return };
        if side.root != *server {
            return;
        }
        if side.notice.take_if(|notice| *notice == ticket).is_some() {
            // What was in it is told again when the root has answered.
            side.report_all = true;
            side.machine.refused(now);
        }
        if side.asking != Some(ticket) {
            return;
        }
        side.asking = None;
        side.counters.inits_failed += 1;
        if refusal == Refusal::UnknownGroup {
            side.report_all = true;
            side.machine.refused(now);
        }
    }

    fn take_over(
        &mut self,
        server: &Arc<str>,
        id: GroupId,
        (generation, stage): (Generation, Stage),
        octets: ike::crypto::Secret,
        now: BootTime,
    ) -> Result<(), NotFollowed> {
        let (Some(side), Some(group)) =
            (self.cluster.sub_servers.get_mut(&id), self.groups.get_mut(&id))
        else {
            return Ok(());
        };
        let shared = shared::decode(octets.expose(), now)?;
        if side.machine.told(generation, stage, now)? == Arrival::Held {
            return Ok(());
        }
        match stage {
            Stage::Prepared => {
                let prepared = PreparedState { generation, octets, received: now };
                group.prepare_generation(Some(prepared));
                side.machine.installed(generation, Stage::Prepared);
            }
            Stage::Committed => {
                let adopted = group.adopt(shared, generation, false, now);
                side.machine.installed(generation, Stage::Committed);
                side.set_lifetimes(group);
                self.note_adopted(server, id, generation, adopted);
            }
        }
        Ok(())
    }

    /// Keys that are not distributed yet.
    pub(super) fn prepare(
        &mut self,
        server: &Arc<str>,
        id: GroupId,
        prepare: Prepare,
        now: BootTime,
    ) -> Result<Acknowledged, Refusal> {
        let (side, group) = self.side_under(server, id)?;
        side.counters.updates_received += 1;
        let Prepare { generation, state } = prepare;
        let arrival = side.machine.prepare(generation);
        if !matches!(arrival, Ok(Arrival::Held)) {
            let readable = shared::decode(state.expose(), now).is_ok();
            if let Err(refusal) =
                arrival.and(if readable { Ok(()) } else { Err(Refusal::Unreadable) })
            {
                side.counters.updates_refused += 1;
                return Err(refusal);
            }
            let prepared = PreparedState { generation, octets: state, received: now };
            group.prepare_generation(Some(prepared));
            side.machine.installed(generation, Stage::Prepared);
        }
        Ok(Acknowledged { generation, stage: Stage::Prepared })
    }

    /// What was prepared is distributed.
    pub(super) fn commit(
        &mut self,
        server: &Arc<str>,
        id: GroupId,
        commit: Commit,
        now: BootTime,
    ) -> Result<Acknowledged, Refusal> {
        let Commit { generation } = commit;
        let (side, group) = self.side_under(server, id)?;
        side.counters.updates_received += 1;
        let arrival = side.machine.commit(generation, now);
        side.counters.updates_refused += u64::from(arrival.is_err());
        if arrival? == Arrival::New {
            let prepared = group.prepared().ok_or(Refusal::NotPrepared(generation))?;
            let shared = shared::decode(prepared.octets.expose(), prepared.received)
                .map_err(|_| Refusal::Unreadable)?;
            let adopted = group.adopt(shared, generation, true, now);
            side.machine.installed(generation, Stage::Committed);
            if group.rekey_sa().is_none_or(|rekey_sa| rekey_sa.kek().is_none()) {
                // All SAs are deleted.
                side.machine.ask(now);
            }
            side.set_lifetimes(group);
            side.counters.updates_installed += 1;
            self.note_adopted(server, id, generation, adopted);
        }
        Ok(Acknowledged { generation, stage: Stage::Committed })
    }

    fn side_under(
        &mut self,
        server: &Arc<str>,
        id: GroupId,
    ) -> Result<(&mut SubServerSide, &mut Group), Refusal> {
        if self.cluster.roots.contains_key(&id) {
            return Err(Refusal::WrongRole);
        }
        let side = self.cluster.sub_servers.get_mut(&id).filter(|side| side.root == *server);
        let side = side.ok_or(Refusal::UnknownGroup)?;
        Ok((side, self.groups.get_mut(&id).ok_or(Refusal::UnknownGroup)?))
    }

    fn note_adopted(
        &mut self,
        server: &Arc<str>,
        id: GroupId,
        generation: Generation,
        adopted: Adopted,
    ) {
        let Adopted { relayed, forgotten } = adopted;
        if let Some(side) = self.cluster.sub_servers.get_mut(&id) {
            side.counters.pushes_relayed += u64::try_from(relayed).unwrap_or(u64::MAX);
        }
        self.note(server, id, GroupEvent::Adopted { generation, relayed, forgotten });
    }
}
