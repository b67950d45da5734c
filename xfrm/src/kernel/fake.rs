//! A fake kernel of maps, with faults on request: for tests of this crate and of the daemons.
//!
//! It keeps XFRM's rules that matter to a plan: a selector is there once for each direction,
//! whoever owns it; a state is unique by destination and SPI; "already gone" is success.
//! [`FakeKernel::in_clear`] asks its policies as the kernel would.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::algorithm::Protection;
use crate::counters::Counters;
use crate::desired::{Desired, PlaceholderRoute};
use crate::error::{EEXIST, EINTR, ENOENT, EPERM, Error};
use crate::kernel::{Current, InstalledSa, Kernel};
use crate::model::{Direction, Install, Policy, PolicyId, Sa, SaId};
use crate::nft::Fingerprint;
use crate::op::Op;
use crate::ownership::Ownership;
use crate::parts::Parts;

/// A fault for one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation is done, and its acknowledgement gets lost.
    LoseAcknowledgement,
    /// The operation is not done; the kernel answers with this error number.
    Refuse(i32),
    /// The process stops here: this operation and all later ones fail and are not done.
    Stop,
}

/// A packet for the policy lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address of the packet.
    pub source: IpAddr,
    /// Destination address of the packet.
    pub destination: IpAddr,
    /// IP protocol, for example 17 for UDP.
    pub protocol: u8,
    /// Source port; 0 where the protocol has none.
    pub source_port: u16,
    /// Destination port; 0 where the protocol has none.
    pub destination_port: u16,
    /// Outgoing interface by name.
    pub interface: Option<String>,
}

/// The fake kernel. Clones share one state, so that a test can look into it while a reconciler
/// owns a clone.
#[derive(Clone, Debug, Default)]
pub struct FakeKernel(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    interfaces: BTreeMap<String, u32>,
    exempt: BTreeSet<String>,
    next_interface: u32,
    sas: BTreeMap<SaId, Sa>,
    sequences: BTreeMap<SaId, u32>,
    integrity_failures: BTreeMap<SaId, u32>,
    /// Seconds of the wall clock, and what it showed when each state was added.
    wall: u64,
    added: BTreeMap<SaId, u64>,
    rules: BTreeMap<String, Counters>,
    foreign_sas: BTreeSet<SaId>,
    policies: BTreeMap<u32, Policy>,
    foreign_policies: Vec<Policy>,
    tables: Fingerprint,
    routes: BTreeSet<PlaceholderRoute>,
    interruptions: u32,
    faults: BTreeMap<u64, Fault>,
    stopped: bool,
    log: Vec<Op>,
    reads: Vec<Parts>,
    attempts: u64,
}

impl FakeKernel {
    /// A kernel with these interfaces.
    pub fn new<'a>(interfaces: impl IntoIterator<Item = &'a str>) -> Self {
        let kernel = Self::default();
        interfaces.into_iter().for_each(|name| kernel.create_interface(name));
        kernel
    }

    /// Lets something happen to the `n`-th operation from now on, counted from 0.
    pub fn fail(&self, n: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.attempts.saturating_add(n);
        state.faults.insert(at, fault);
    }

    /// Interrupts so many readings from now on, as a change by others does (EINTR).
    pub fn interrupt(&self, readings: u32) {
        self.state().interruptions = readings;
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.stopped = false;
    }

    /// Creates an interface, or re-creates it under a new index. Policies keep the old one.
    pub fn create_interface(&self, name: &str) {
        let mut state = self.state();
        self.forget_interface(&mut state, name);
        state.next_interface += 1;
        let index = state.next_interface;
        state.interfaces.insert(name.to_owned(), index);
    }

    fn forget_interface(&self, state: &mut State, name: &str) {
        let Some(index) = state.interfaces.remove(name) else { return };
        state.exempt.remove(name);
        let old = format!("/{index}");
        for policy in state.policies.values_mut() {
            if policy.id.selector.interface.as_deref() == Some(name) {
                policy.id.selector.interface = Some(old.clone());
            }
        }
        state.routes.retain(|route| route.interface != name);
        let hooked = [crate::nft::chain_name(name), crate::nft::egress_name(name)];
        state
            .tables
            .chains
            .retain(|(_, family, key), _| *family != crate::nft::NETDEV || !hooked.contains(key));
    }

    /// Lets so many packets have been sent on a state.
    pub fn send(&self, id: SaId, packets: u32) {
        self.state().sequences.insert(id, packets);
    }

    /// Sets the wall clock, in seconds.
    pub fn set_clock(&self, seconds: u64) {
        self.state().wall = seconds;
    }

    /// Lets so many packets have failed the integrity check of a state.
    pub fn forge(&self, id: SaId, packets: u32) {
        self.state().integrity_failures.insert(id, packets);
    }

    /// Lets so many packets have met the nf_tables rules with this comment.
    pub fn count(&self, comment: &str, packets: u64) {
        self.state().rules.insert(comment.to_owned(), Counters { packets, octets: 100 * packets });
    }

    /// Adds a policy of somebody else.
    pub fn add_foreign_policy(&self, policy: Policy) {
        self.state().foreign_policies.push(policy);
    }

    /// Adds a state of somebody else.
    pub fn add_foreign_sa(&self, id: SaId) {
        self.state().foreign_sas.insert(id);
    }

    /// `ip xfrm policy flush`, by somebody else.
    pub fn flush_policies(&self) {
        let mut state = self.state();
        state.policies.clear();
        state.foreign_policies.clear();
    }

    /// `ip xfrm state flush`, by somebody else.
    pub fn flush_states(&self) {
        let mut state = self.state();
        state.sas.clear();
        state.foreign_sas.clear();
    }

    /// `nft flush ruleset`, by somebody else: the tables owned by our socket stay.
    pub fn flush_ruleset(&self, ownership: &Ownership) {
        let mut state = self.state();
        state.tables.remove(&ownership.table);
    }

    /// The process that owned tables has ended, however: the kernel removes them.
    pub fn end_of_process(&self, ownership: &Ownership) {
        self.heal();
        self.state().tables.remove(&ownership.guard_table());
    }

    /// Operations that were done, in order.
    pub fn log(&self) -> Vec<Op> {
        self.state().log.clone()
    }

    /// What was read, in order.
    pub fn reads(&self) -> Vec<Parts> {
        self.state().reads.clone()
    }

    /// The states that it holds for us.
    pub fn sas(&self) -> BTreeSet<SaId> {
        self.state().sas.keys().copied().collect()
    }

    /// The policies that it holds for us.
    pub fn policies(&self) -> Vec<Policy> {
        self.state().policies.values().cloned().collect()
    }

    /// The policies that others have put there.
    pub fn foreign_policies(&self) -> Vec<Policy> {
        self.state().foreign_policies.clone()
    }

    /// The states that others have put there.
    pub fn foreign_sas(&self) -> BTreeSet<SaId> {
        self.state().foreign_sas.clone()
    }

    /// Interfaces whose arrivals no policy checks.
    pub fn exempt(&self) -> BTreeSet<String> {
        self.state().exempt.clone()
    }

    /// `sysctl net.ipv4.conf.NAME.disable_policy=0`, by somebody else.
    pub fn check_again(&self, name: &str) {
        self.state().exempt.remove(name);
    }

    /// Whether the tables stand.
    pub fn has_tables(&self) -> bool {
        !self.state().tables.is_empty()
    }

    /// Whether this packet finds no policy of ours that closes. Ties of priority count as open, the
    /// worse case.
    pub fn in_clear(&self, direction: Direction, packet: &Packet) -> bool {
        let state = self.state();
        let matching =
            state.policies.values().filter(|policy| matches(&policy.id, direction, packet));
        matching
            .min_by_key(|policy| (policy.priority, policy.action.closes()))
            .is_none_or(|p| !p.action.closes())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn matches(id: &PolicyId, direction: Direction, packet: &Packet) -> bool {
    let selector = &id.selector;
    id.direction == direction
        && selector.source.contains(&packet.source)
        && selector.destination.contains(&packet.destination)
        && (selector.protocol == 0 || selector.protocol == packet.protocol)
        && (!selector.portless || (packet.source_port, packet.destination_port) == (0, 0))
        && (selector.source_port == 0 || selector.source_port == packet.source_port)
        && (selector.destination_port == 0 || selector.destination_port == packet.destination_port)
        && (selector.interface.is_none() || selector.interface == packet.interface)
}

impl Kernel for FakeKernel {
    async fn read(
        &mut self,
        _: &Ownership,
        parts: Parts,
        current: &mut Current,
    ) -> Result<(), Error> {
        let mut state = self.state();
        if state.stopped {
            return Err(stopped());
        }
        if let Some(left) = state.interruptions.checked_sub(1) {
            state.interruptions = left;
            return Err(Error::from_errno("list entries", EINTR, None));
        }
        state.reads.push(parts);
        if parts.interfaces {
            current.interfaces.clone_from(&state.interfaces);
            current.exempt.clone_from(&state.exempt);
            current.routes.clone_from(&state.routes);
        }
        if parts.states {
            current.sas = state.sas.iter().map(|(id, sa)| (*id, state.installed(sa))).collect();
        }
        if parts.policies {
            current.policies.clone_from(&state.policies);
        }
        if parts.tables {
            let sets = state.tables.sets.keys().map(|key| (key.clone(), BTreeSet::new()));
            // Elements that are not asked for stay as they were.
            let known = core::mem::take(&mut current.tables.sets);
            current.tables.sets = sets.collect();
            current
                .tables
                .sets
                .extend(known.into_iter().filter(|(key, _)| state.tables.sets.contains_key(key)));
            current.tables.chains.clone_from(&state.tables.chains);
            current.rules.clone_from(&state.rules);
        }
        if parts.sets {
            for (key, elements) in &mut current.tables.sets {
                *elements = state.tables.sets.get(key).cloned().unwrap_or_default();
            }
        }
        Ok(())
    }

    async fn execute(
        &mut self,
        op: &Op,
        desired: &Desired,
        ownership: &Ownership,
    ) -> Result<(), Error> {
        let mut state = self.state();
        let attempt = state.attempts;
        state.attempts += 1;
        let fault = state.faults.remove(&attempt);
        match fault {
            Some(Fault::Refuse(errno)) => {
                return Err(Error::from_errno(op.to_string(), errno, None));
            }
            Some(Fault::Stop) => state.stopped = true,
            Some(Fault::LoseAcknowledgement) | None => {}
        }
        if state.stopped {
            return Err(stopped());
        }
        state.make(op, desired, ownership)?;
        state.log.push(op.clone());
        match fault {
            Some(Fault::LoseAcknowledgement) => {
                Err(Error::Timeout { operation: op.to_string(), limit: core::time::Duration::ZERO })
            }
            _ => Ok(()),
        }
    }
}

impl State {
    fn installed(&self, sa: &Sa) -> InstalledSa {
        InstalledSa {
            sa: copy(sa),
            counters: Counters::default(),
            sequence: self.sequences.get(&sa.id).copied().unwrap_or_default(),
            integrity_failures: self.integrity_failures.get(&sa.id).copied().unwrap_or_default(),
            added: self.added.get(&sa.id).copied().unwrap_or_default(),
        }
    }

    fn make(&mut self, op: &Op, desired: &Desired, ownership: &Ownership) -> Result<(), Error> {
        match op {
            Op::AddRoute(route) => {
                let place = |route: &PlaceholderRoute| (route.placeholder, route.table);
                self.routes.retain(|other| place(other) != place(route));
                self.routes.insert(route.clone());
            }
            Op::DeleteRoute(route) => {
                self.routes.remove(route);
            }
            Op::Exempt { interface, exempt: true } => drop(self.exempt.insert(interface.clone())),
            Op::Exempt { interface, exempt: false } => drop(self.exempt.remove(interface)),
            Op::ReplaceGuard => self.replace(&ownership.guard_table(), desired, ownership),
            Op::ReplaceTables => self.replace(&ownership.table, desired, ownership),
            Op::UpdateSets(changes) => {
                for change in changes {
                    let key = (ownership.table.clone(), change.set.clone());
                    let missing = || Error::from_errno(op.to_string(), ENOENT, None);
                    let set = self.tables.sets.get_mut(&key).ok_or_else(missing)?;
                    set.retain(|spi| !change.remove.contains(spi));
                    set.extend(&change.add);
                }
            }
            Op::RemoveTables => self.tables = Fingerprint::default(),
            Op::AddPolicy { index, policy } => self.add_policy(*index, policy)?,
            Op::UpdatePolicy { index, policy } => {
                self.refuse_foreign(policy)?;
                self.policies.insert(*index, policy.clone());
            }
            Op::DeletePolicy { index, .. } => {
                self.policies.remove(index);
            }
            Op::InstallSa(id) => {
                let sa =
                    desired.sas.get(id).ok_or_else(|| Error::NotDesired(Box::new(op.clone())))?;
                if self.foreign_sas.contains(id) {
                    return Err(Error::ForeignState(*id));
                }
                if self.sas.contains_key(id) {
                    return Err(Error::from_errno(op.to_string(), EEXIST, None));
                }
                self.sas.insert(*id, copy(sa));
                self.added.insert(*id, self.wall);
            }
            Op::UpdateSa { id, hard_lifetime } => {
                let sa =
                    desired.sas.get(id).ok_or_else(|| Error::NotDesired(Box::new(op.clone())))?;
                let missing = || Error::from_errno(op.to_string(), ENOENT, None);
                let updated = Sa { hard_lifetime: *hard_lifetime, ..copy(sa) };
                *self.sas.get_mut(id).ok_or_else(missing)? = updated;
            }
            Op::DeleteSa(id) => {
                self.sas.remove(id);
            }
        }
        Ok(())
    }

    fn add_policy(&mut self, index: u32, policy: &Policy) -> Result<(), Error> {
        self.refuse_foreign(policy)?;
        let taken = self.policies.contains_key(&index)
            || self.policies.values().any(|other| other.id == policy.id);
        if taken || policy.id.direction.number() != index & 7 {
            return Err(Error::from_errno(format!("add policy {policy}"), EEXIST, None));
        }
        self.policies.insert(index, policy.clone());
        Ok(())
    }

    fn refuse_foreign(&self, policy: &Policy) -> Result<(), Error> {
        match self.foreign_policies.iter().any(|other| other.id == policy.id) {
            true => Err(Error::ForeignPolicy(policy.id.clone())),
            false => Ok(()),
        }
    }

    fn replace(&mut self, table: &str, desired: &Desired, ownership: &Ownership) {
        let Some(preservation) = &desired.preservation else { return };
        let wanted = Fingerprint::wanted(preservation, &self.interfaces, ownership);
        self.tables.remove(table);
        self.tables.take_from(wanted, table);
    }
}

fn stopped() -> Error {
    Error::from_errno("go on (the fake kernel is stopped)", EPERM, None)
}

fn copy(sa: &Sa) -> Sa {
    Sa {
        id: sa.id,
        source: sa.source,
        role: sa.role,
        reqid: sa.reqid,
        protection: match &sa.protection {
            Protection::Separate { encryption, encryption_key, integrity, integrity_key } => {
                Protection::Separate {
                    encryption: *encryption,
                    encryption_key: encryption_key.duplicate(),
                    integrity: *integrity,
                    integrity_key: integrity_key.duplicate(),
                }
            }
            Protection::Combined { aead, key, icv } => {
                Protection::Combined { aead: *aead, key: key.duplicate(), icv: *icv }
            }
        },
        no_path_mtu_discovery: sa.no_path_mtu_discovery,
        sequence_may_wrap: sa.sequence_may_wrap,
        install: Install::Freely,
        hard_lifetime: sa.hard_lifetime,
        unicast: sa.unicast,
    }
}
