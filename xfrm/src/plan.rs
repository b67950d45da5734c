//! The difference between the kernel and the desired state, as operations in a safe order.
//!
//! **No moment in clear.** An entry *closes* (block; protect with a required SA) or *opens* (allow;
//! protect with an optional SA). The plan first makes every change that can only close: closing
//! policies are added or win more often, opening ones go or win less often. Only then come the
//! changes that can only open. So a packet that found a closing policy before and finds one
//! afterwards finds one after every single operation in between: in the first half nothing opens,
//! and in the second half everything is still at least as closed as at the end.
//!
//! Where nothing of ours is in the kernel yet there is no closing policy to lose, and what only
//! opens comes first: traffic that is to pass in clear does not stop at a start.
//!
//! Inside the first half the order keeps traffic flowing: guards and blocks, inbound SAs, the
//! policies that demand them, outbound SAs, the policies that use them. SAs are deleted last.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{Desired, PlaceholderRoute};
use crate::kernel::Current;
use crate::model::{Action, Direction, Policy, PolicyId, Sa, SaRole, Unicast};
use crate::nft::Fingerprint;
use crate::op::Op;
use crate::ownership::Ownership;

/// Names in `desired` that no interface has now. What depends on them is left out of the plan until
/// they appear.
pub fn missing_interfaces(current: &Current, desired: &Desired) -> BTreeSet<String> {
    let policies = desired.policies.keys().filter_map(|id| id.selector.interface.as_ref());
    let routes = desired.routes.iter().map(|route| &route.interface);
    let zones = desired
        .preservation
        .iter()
        .flat_map(|preservation| preservation.wan.iter().chain(&preservation.lan));
    policies
        .chain(routes)
        .chain(zones)
        .chain(&desired.exempt)
        .filter(|name| !current.interfaces.contains_key(*name))
        .cloned()
        .collect()
}

/// Computes the operations that turn `current` into `desired`, in order. Nothing to do gives an
/// empty plan.
pub fn plan(current: &Current, desired: &Desired, ownership: &Ownership) -> Vec<Op> {
    let wanted = desired
        .preservation
        .as_ref()
        .map(|preservation| Fingerprint::wanted(preservation, &current.interfaces, ownership));
    let mut exempt = Exemptions::default();
    exempt.note_read(current, desired);
    plan_for(current, desired, wanted.as_ref(), &exempt, ownership)
}

/// As [`plan`], with what the desired tables look like in the kernel, and who has exempted
/// interfaces.
pub(crate) fn plan_for(
    current: &Current,
    desired: &Desired,
    wanted: Option<&Fingerprint>,
    exempt: &Exemptions,
    ownership: &Ownership,
) -> Vec<Op> {
    let mut steps = Steps::default();
    routes(current, desired, &mut steps);
    exemptions(current, desired, exempt, &mut steps);
    tables(current, wanted, ownership, &mut steps);
    sas(current, desired, &mut steps);
    policies(current, desired, ownership, &mut steps);
    if current.policies.is_empty() && current.tables.is_empty() {
        // Nothing of ours is there and everything passes: what is to pass on need not meet the
        // blocks first.
        steps.openings_kept = std::mem::take(&mut steps.openings);
    }
    steps.in_order()
}

/// The steps in the order in which they are made.
#[derive(Default)]
struct Steps {
    exempted: Vec<Op>,
    routes_added: Vec<Op>,
    openings_kept: Vec<Op>,
    tables: Vec<Op>,
    blocks: Vec<Op>,
    inbound_sas: Vec<Op>,
    sets: Vec<Op>,
    demands: Vec<Op>,
    outbound_sas: Vec<Op>,
    uses: Vec<Op>,
    openings_closed: Vec<Op>,
    openings: Vec<Op>,
    closings_opened: Vec<Op>,
    outbound_sas_deleted: Vec<Op>,
    inbound_sas_deleted: Vec<Op>,
    routes_deleted: Vec<Op>,
    tables_removed: Vec<Op>,
    checked_again: Vec<Op>,
}

impl Steps {
    fn in_order(self) -> Vec<Op> {
        [
            self.exempted,
            self.routes_added,
            self.openings_kept,
            self.tables,
            self.blocks,
            self.inbound_sas,
            self.sets,
            self.demands,
            self.outbound_sas,
            self.uses,
            self.openings_closed,
            self.openings,
            self.closings_opened,
            self.outbound_sas_deleted,
            self.inbound_sas_deleted,
            self.routes_deleted,
            self.tables_removed,
            self.checked_again,
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Where a change belongs that leaves `action` in the kernel and only closes.
    fn closing(&mut self, direction: Direction, action: &Action) -> &mut Vec<Op> {
        match (direction, action) {
            (_, Action::Block) => &mut self.blocks,
            (Direction::Out, Action::Protect(template)) if !template.optional => &mut self.uses,
            (_, Action::Protect(template)) if !template.optional => &mut self.demands,
            _ => &mut self.openings_closed,
        }
    }
}

fn routes(current: &Current, desired: &Desired, steps: &mut Steps) {
    let possible = |route: &&PlaceholderRoute| current.interfaces.contains_key(&route.interface);
    let wanted: BTreeSet<&PlaceholderRoute> = desired.routes.iter().filter(possible).collect();
    let place = |route: &PlaceholderRoute| (route.placeholder, route.table);
    let replaced: BTreeSet<_> = wanted.iter().map(|route| place(route)).collect();
    steps.routes_added = wanted
        .iter()
        .filter(|r| !current.routes.contains(**r))
        .map(|r| Op::AddRoute((*r).clone()))
        .collect();
    let obsolete = current
        .routes
        .iter()
        .filter(|route| !wanted.contains(route) && !replaced.contains(&place(route)));
    steps.routes_deleted = obsolete.cloned().map(Op::DeleteRoute).collect();
}

/// Which interfaces this process has exempted, and which were exempt before.
///
/// The setting bears no mark.
#[derive(Debug, Default)]
pub(crate) struct Exemptions {
    /// Set by us: taken back when they are not wanted any more.
    ours: BTreeSet<String>,
    /// Set by somebody else before we wanted it: stay.
    before: BTreeSet<String>,
}

impl Exemptions {
    /// What was read says who has set it. An interface that an earlier run has exempted is one that
    /// a policy of ours lets everything leave by: so does every LAN.
    pub(crate) fn note_read(&mut self, current: &Current, desired: &Desired) {
        self.ours.retain(|name| current.interfaces.contains_key(name));
        // Who takes the setting back, or the interface away, has none any more.
        self.before.retain(|name| current.exempt.contains(name));
        let earlier = current
            .policies
            .values()
            .filter(|policy| policy.action == Action::Allow)
            .filter_map(|policy| policy.id.selector.interface.as_ref())
            .filter(|name| current.exempt.contains(*name) && !self.before.contains(*name));
        self.ours.extend(earlier.cloned());
        let theirs = desired.exempt.intersection(&current.exempt);
        self.before.extend(theirs.filter(|name| !self.ours.contains(*name)).cloned());
    }

    /// Names whose setting is somebody else's.
    pub(crate) fn before(&self) -> &BTreeSet<String> {
        &self.before
    }

    /// What an earlier process knew: nothing in the kernel tells it.
    pub(crate) fn remember(&mut self, before: BTreeSet<String>) {
        self.before = before;
    }

    /// It was not set, and we set it.
    pub(crate) fn note_set(&mut self, interface: &str) {
        self.before.remove(interface);
        self.ours.insert(interface.to_owned());
    }

    /// We took it back.
    pub(crate) fn note_ended(&mut self, interface: &str) {
        self.ours.remove(interface);
    }
}

/// Before the first policy that would stop a LAN's own traffic, and back after the last one.
fn exemptions(current: &Current, desired: &Desired, known: &Exemptions, steps: &mut Steps) {
    let set = |interface: &String, exempt| Op::Exempt { interface: interface.clone(), exempt };
    let missing =
        |name: &&String| current.interfaces.contains_key(*name) && !current.exempt.contains(*name);
    steps.exempted = desired.exempt.iter().filter(missing).map(|name| set(name, true)).collect();
    let ours = current.exempt.intersection(&known.ours);
    let ended = ours.filter(|name| !desired.exempt.contains(*name));
    steps.checked_again = ended.map(|name| set(name, false)).collect();
}

fn tables(
    current: &Current,
    wanted: Option<&Fingerprint>,
    ownership: &Ownership,
    steps: &mut Steps,
) {
    let Some(wanted) = wanted else {
        if !current.tables.is_empty() {
            steps.tables_removed.push(Op::RemoveTables);
        }
        return;
    };
    let (guard, main) = (ownership.guard_table(), &ownership.table);
    if !wanted.same_rules(&current.tables, &guard) {
        steps.tables.push(Op::ReplaceGuard);
    }
    if !wanted.same_rules(&current.tables, main) {
        steps.tables.push(Op::ReplaceTables);
    } else {
        let changes = wanted.set_changes(&current.tables, main);
        if !changes.is_empty() {
            steps.sets.push(Op::UpdateSets(changes));
        }
    }
}

fn sas(current: &Current, desired: &Desired, steps: &mut Steps) {
    for (id, sa) in &desired.sas {
        let step = match sa.role {
            SaRole::Inbound => &mut steps.inbound_sas,
            SaRole::Outbound => &mut steps.outbound_sas,
        };
        match current.sas.get(id) {
            Some(installed) if same_in_kernel(sa, &installed.sa) => {}
            Some(installed) if same_but_ports(sa, &installed.sa) => {
                step.push(Op::UpdateSa { id: *id, hard_lifetime: installed.sa.hard_lifetime });
            }
            // XFRM cannot change keys in place. The packets of the gap are dropped, not sent in
            // clear.
            Some(_) => step.extend([Op::DeleteSa(*id), Op::InstallSa(*id)]),
            None => step.push(Op::InstallSa(*id)),
        }
    }
    for (id, installed) in &current.sas {
        if !desired.sas.contains_key(id) {
            match installed.sa.role {
                SaRole::Inbound => steps.inbound_sas_deleted.push(Op::DeleteSa(*id)),
                SaRole::Outbound => steps.outbound_sas_deleted.push(Op::DeleteSa(*id)),
            }
        }
    }
}

fn policies(current: &Current, desired: &Desired, ownership: &Ownership, steps: &mut Steps) {
    let installed: BTreeMap<&PolicyId, (u32, &Policy)> =
        current.policies.iter().map(|(index, policy)| (&policy.id, (*index, policy))).collect();
    let mut free = FreeIndexes::new(current, ownership);
    for (id, policy) in &desired.policies {
        if id.selector.interface.as_ref().is_some_and(|name| !current.interfaces.contains_key(name))
        {
            continue;
        }
        match installed.get(id) {
            Some((_, now)) if *now == policy => {}
            Some((index, now)) => {
                let op = Op::UpdatePolicy { index: *index, policy: policy.clone() };
                if only_closes(now, policy) {
                    steps.closing(id.direction, &policy.action).push(op);
                } else if policy.action.closes() {
                    steps.closings_opened.push(op);
                } else {
                    steps.openings.push(op);
                }
            }
            None => {
                // Without a free index the policy cannot be marked as ours; the read-back reports
                // it as remaining.
                let index = free.take(id.direction).unwrap_or(*ownership.policy_indexes.end());
                let op = Op::AddPolicy { index, policy: policy.clone() };
                if policy.action.closes() {
                    steps.closing(id.direction, &policy.action).push(op);
                } else {
                    steps.openings.push(op);
                }
            }
        }
    }
    for (index, policy) in &current.policies {
        let gone = policy
            .id
            .selector
            .interface
            .as_ref()
            .is_some_and(|name| !current.interfaces.contains_key(name));
        if gone || !desired.policies.contains_key(&policy.id) {
            let op = Op::DeletePolicy { index: *index, id: policy.id.clone() };
            if policy.action.closes() {
                steps.closings_opened.push(op);
            } else {
                steps.openings_closed.push(op);
            }
        }
    }
}

/// Hands out policy indexes that no policy of ours has.
struct FreeIndexes<'a> {
    current: &'a Current,
    ownership: &'a Ownership,
    /// The lowest that may still be free.
    next: BTreeMap<Direction, u32>,
}

impl<'a> FreeIndexes<'a> {
    fn new(current: &'a Current, ownership: &'a Ownership) -> Self {
        Self { current, ownership, next: BTreeMap::new() }
    }

    fn take(&mut self, direction: Direction) -> Option<u32> {
        let from = self.next.get(&direction).copied().unwrap_or(0);
        let mut all = self.ownership.indexes(direction, from);
        let index = all.find(|index| !self.is_taken(*index))?;
        self.next.insert(direction, index.saturating_add(1));
        Some(index)
    }

    fn is_taken(&self, index: u32) -> bool {
        self.current.policies.contains_key(&index) || self.current.foreign_indexes.contains(&index)
    }
}

/// Whether turning `old` into `new` cannot let any packet pass in clear that did not before.
fn only_closes(old: &Policy, new: &Policy) -> bool {
    match (old.action.closes(), new.action.closes()) {
        (true, true) => new.priority <= old.priority,
        (true, false) => false,
        (false, true) => true,
        (false, false) => new.priority >= old.priority,
    }
}

/// Whether the kernel holds this state with other UDP ports.
fn same_but_ports(wanted: &Sa, installed: &Sa) -> bool {
    let ports = |sa: &Sa| sa.unicast.and_then(|unicast| unicast.encapsulation);
    let (Some(_), Some(encapsulation)) = (ports(wanted), ports(installed)) else { return false };
    same_with(wanted, installed, |unicast| Unicast {
        encapsulation: Some(encapsulation),
        ..unicast
    })
}

/// Whether the kernel holds this state. A kernel in lockdown shows keys as zeros: then they count
/// as equal.
pub(crate) fn same_in_kernel(wanted: &Sa, installed: &Sa) -> bool {
    same_with(wanted, installed, |unicast| unicast)
}

fn same_with(wanted: &Sa, installed: &Sa, changed: impl Fn(Unicast) -> Unicast) -> bool {
    let facts = |sa: &Sa| {
        let flags = (sa.no_path_mtu_discovery, sa.sequence_may_wrap);
        (sa.id, sa.source, sa.reqid, flags, changed(sa.unicast.unwrap_or_default()))
    };
    facts(wanted) == facts(installed)
        && wanted.hard_lifetime.is_some() == installed.hard_lifetime.is_some()
        && wanted.protection.same_in_kernel(&installed.protection)
}
