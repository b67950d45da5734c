//! All memberships of one member, without clock, sockets or kernel: what the event loop drives.
//!
//! After every `handle_*` or [`Member::stop`], drain [`Member::poll_transmit`] and
//! [`Member::poll_event`], put [`Member::poll_desired`] into the kernel, then read
//! [`Member::poll_timeout`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use daemon::entropy;
use gdoi::error::Error;
use gdoi::event::Transmit;
use gdoi::push::addressed_to;
use ike::error::NotAccepted;
use ike::{BootTime, WallClock};
use policies::{GroupUnusable, Unusable};
use xfrm::model::SaId;
use xfrm::{Desired, Entry};

use crate::config::{Config, Group, OnExit};
use crate::kernel_drops::KernelDrops;
use crate::membership::error::RegisterError;
use crate::membership::kernel_policy;
use crate::membership::local_interface::{Interfaces, Multicast};
use crate::membership::restore::Earlier;
use crate::membership::unreachable::Unreachable;
use crate::membership::{Contacts, Event, Membership, Seeds, Suspicion};
use crate::persistence::sealed_keys::{GroupSecrets, Unsealed};
use crate::persistence::state_file::{Boot, Saved};

/// What the kernel should hold, and what could not be had.
#[derive(Debug)]
pub struct Outcome {
    /// The desired state; `None` when not even the blocks could be compiled. Then what is in the
    /// kernel stays.
    pub desired: Option<Desired>,
    /// Groups whose keys had to be left out, and why.
    pub unusable: Vec<GroupUnusable>,
}

pub struct Member {
    memberships: Vec<Membership>,
    contacts: Contacts,
    started: BootTime,
    stray: BTreeMap<&'static str, u64>,
    discards: Vec<BTreeMap<&'static str, u64>>,
    local_port: u16,
    /// Deletes of groups that are no longer configured.
    parting: VecDeque<Transmit>,
    /// Groups have come or gone.
    reshaped: bool,
    drops: KernelDrops,
}

impl Member {
    /// Memberships that wait for [`Member::handle_interfaces`]. `seeds` makes a source of seeds for
    /// each group.
    pub fn new(
        config: &Config,
        mut seeds: impl FnMut(&Group) -> (Seeds, u64),
        now: BootTime,
    ) -> Self {
        let contacts = Contacts::default();
        let memberships: Vec<Membership> = config
            .groups
            .iter()
            .zip(0_u8..)
            .map(|(group, slot)| {
                let (seeds, jitter) = seeds(group);
                let port = config.local_port;
                Membership::new(group.clone(), slot, port, seeds, contacts.clone(), jitter, now)
            })
            .collect();
        let discards = memberships.iter().map(|_| BTreeMap::new()).collect();
        Self {
            memberships,
            contacts,
            started: now,
            stray: BTreeMap::new(),
            discards,
            local_port: config.local_port,
            parting: VecDeque::new(),
            reshaped: false,
            drops: KernelDrops::default(),
        }
    }

    /// Changes over to another configuration: the difference only. Groups are the same if their
    /// number is. What belongs to the process as a whole (sockets, files) stays as it was.
    pub fn reload(
        &mut self,
        config: &Config,
        mut seeds: impl FnMut(&Group) -> (Seeds, u64),
        interfaces: &Interfaces,
        now: BootTime,
    ) {
        let discards = std::mem::take(&mut self.discards);
        let mut before: Vec<_> =
            std::mem::take(&mut self.memberships).into_iter().zip(discards).collect();
        for (group, slot) in config.groups.iter().zip(0_u8..) {
            let known =
                before.iter().position(|(membership, _)| membership.config().id == group.id);
            let (membership, discards) = match known.map(|position| before.remove(position)) {
                Some((mut membership, discards)) => {
                    membership.reconfigure(group.clone(), slot, now);
                    membership.handle_interfaces(interfaces, now);
                    (membership, discards)
                }
                None => {
                    let (seeds, jitter) = seeds(group);
                    let (port, contacts) = (self.local_port, self.contacts.clone());
                    let mut new =
                        Membership::new(group.clone(), slot, port, seeds, contacts, jitter, now);
                    new.handle_interfaces(interfaces, now);
                    (new, BTreeMap::new())
                }
            };
            self.memberships.push(membership);
            self.discards.push(discards);
        }
        for (mut gone, _) in before {
            gone.stop(now);
            self.parting.extend(std::iter::from_fn(|| gone.poll_transmit()));
            self.reshaped = true;
        }
    }

    /// What time it is from now on, for certificates.
    pub fn set_wall_clock(&mut self, wall_clock: WallClock) {
        self.memberships.iter_mut().for_each(|one| one.set_wall_clock(wall_clock));
    }

    /// Goes on with what an earlier run left. Called once, before anything else.
    pub fn restore(&mut self, mut earlier: Earlier<'_>, now: BootTime) {
        for membership in &mut self.memberships {
            membership.restore(&mut earlier, now);
        }
    }

    /// Takes up what the sealed state has for groups that have no keys. For a state that could not
    /// be read at the start.
    pub fn resume(&mut self, sealed: &mut Unsealed, now: BootTime) {
        self.memberships.iter_mut().for_each(|membership| membership.resume_late(sealed, now));
    }

    /// The keys of each group, to be sealed.
    pub fn secrets(&self, now: BootTime) -> impl ExactSizeIterator<Item = GroupSecrets<'_>> {
        self.memberships.iter().map(move |membership| membership.secrets(now))
    }

    /// What a later run needs to know, to be written before [`Member::poll_desired`]'s outcome goes
    /// into the kernel.
    pub fn save(&self, boot: Boot, now: BootTime) -> Saved {
        Saved::new(boot, self.memberships.iter().map(|membership| membership.save(now)).collect())
    }

    /// Outbound SAs whose sequence number is near exhaustion.
    pub fn handle_near_exhaustion(&mut self, senders: &BTreeSet<SaId>, now: BootTime) {
        for id in senders {
            for membership in &mut self.memberships {
                if id.destination == membership.config().placeholder {
                    membership.handle_near_exhaustion(id.spi, now);
                }
            }
        }
    }

    /// Outbound counter-mode SAs that were lost and must not be reinstalled.
    pub fn handle_suppressed(&mut self, senders: &BTreeSet<SaId>, now: BootTime) {
        for membership in &mut self.memberships {
            let placeholder = membership.config().placeholder;
            let own = senders.iter().filter(|id| id.destination == placeholder);
            membership.handle_suppressed(own.map(|id| id.spi).collect(), now);
        }
    }

    /// What keeps groups from registering, and what blocks traffic although keys are valid, each
    /// with its remedy.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.memberships.iter().flat_map(|membership| {
            let name = &membership.config().name;
            let sending = membership.sending().problems.iter().map(ToString::to_string);
            let standing = membership.standing().into_iter().map(|problem| problem.to_string());
            standing.chain(sending).map(move |problem| format!("group {name}: {problem}"))
        })
    }

    /// Whether the problem of a group tells already that this interface does not exist.
    pub fn names_missing(&self, interface: &str) -> bool {
        let standing = self.memberships.iter().flat_map(Membership::standing);
        standing.into_iter().any(|problem| problem.names(interface))
    }

    /// The group whose entry this would be, by name.
    pub fn owner(&self, entry: &Entry, now: BootTime) -> Option<&str> {
        let wants = |membership: &&Membership| {
            kernel_policy::compile(std::iter::once(membership.view()), now)
                .is_ok_and(|desired| desired.holds(entry))
        };
        self.memberships.iter().find(wants).map(|membership| membership.config().name.as_str())
    }

    /// `packets` of ESP with unknown SPIs have been dropped so far.
    pub fn handle_unknown_esp(&mut self, packets: u64, now: BootTime) {
        if self.drops.unknown_esp_rises(packets) {
            self.memberships
                .iter_mut()
                .for_each(|membership| membership.probe(Suspicion::UnknownSpi, now));
        }
    }

    /// The integrity failures of each SA so far.
    pub fn handle_integrity_failures(&mut self, packets: &BTreeMap<SaId, u32>, now: BootTime) {
        for id in self.drops.rising_integrity_failures(packets) {
            for membership in &mut self.memberships {
                if membership.local_address() == Some(id.destination)
                    && membership.receives(id.spi, now)
                {
                    membership.probe(Suspicion::IntegrityFailure(id.spi), now);
                }
            }
        }
    }

    /// The machine's interfaces as they are now.
    pub fn handle_interfaces(&mut self, interfaces: &Interfaces, now: BootTime) {
        for membership in &mut self.memberships {
            membership.handle_interfaces(interfaces, now);
        }
    }

    /// A datagram arrived from `source` at `local`, an address of ours or a multicast group. A push
    /// belongs to the membership whose KEK it names, whoever sent it; what else there is to the one
    /// whose server sent it and whose cookies it has.
    ///
    /// # Errors
    /// It belongs to none or is discarded by the one it belongs to; it is counted and nothing
    /// changed.
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        match addressed_to(datagram) {
            Some(spi) => self.handle_push(&spi, source, local, datagram, now),
            None => self.handle_registration(source, datagram, now),
        }
    }

    fn handle_push(
        &mut self,
        spi: &[u8; 16],
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        match self.memberships.iter_mut().find(|membership| membership.has_kek(spi)) {
            // Counted there.
            Some(membership) => membership.handle_push(source, local, datagram, now),
            None => {
                let error = Error::from(NotAccepted::UnknownCookies);
                let count = self.stray.entry(error.reason()).or_insert(0);
                *count = count.saturating_add(1);
                Err(error)
            }
        }
    }

    fn handle_registration(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        let mut refusal: Option<Error> = None;
        for (membership, discards) in self.memberships.iter_mut().zip(&mut self.discards) {
            if !membership.expects(source) {
                continue;
            }
            match membership.handle_datagram(source, datagram, now) {
                Ok(()) => return Ok(()),
                // Several groups may register with one server: their cookies tell them apart.
                Err(Error::Ike(ike::Error::NotAccepted(NotAccepted::UnknownCookies))) => {}
                Err(error) => {
                    let count = discards.entry(error.reason()).or_insert(0);
                    *count = count.saturating_add(1);
                    refusal = Some(error);
                    break;
                }
            }
        }
        let error = refusal.unwrap_or_else(|| {
            let expected = self.memberships.iter().any(|membership| membership.expects(source));
            let why = if expected {
                NotAccepted::UnknownCookies
            } else {
                NotAccepted::UnknownSource(source)
            };
            let error = Error::from(why);
            let count = self.stray.entry(error.reason()).or_insert(0);
            *count = count.saturating_add(1);
            error
        });
        Err(error)
    }

    /// An ICMP error about a datagram of ours arrived; it is unauthenticated, only shortens the
    /// retransmission wait and is named if the registration fails.
    pub fn handle_unreachable(&mut self, unreachable: Unreachable, now: BootTime) {
        for membership in &mut self.memberships {
            membership.handle_unreachable(unreachable, now);
        }
    }

    pub fn handle_timeout(&mut self, now: BootTime) {
        for membership in &mut self.memberships {
            membership.handle_timeout(now);
        }
    }

    /// The kernel holds what [`Member::poll_desired`] gave last: acknowledgements may leave.
    pub fn handle_applied(&mut self, now: BootTime) {
        self.memberships.iter_mut().for_each(|membership| membership.handle_applied(now));
    }

    /// Registers the group of this name again now.
    ///
    /// # Errors
    /// There is no such group, or it has no address to register from.
    pub fn register(&mut self, group: &str, now: BootTime) -> Result<(), RegisterError> {
        let found = self.memberships.iter_mut().find(|one| one.config().name == group);
        if let Some(membership) = found {
            return membership.register(now).map_err(|missing| RegisterError::NoLocalAddress {
                group: group.to_owned(),
                missing,
            });
        }
        let groups = self.memberships.iter().map(|one| one.config().name.clone()).collect();
        Err(RegisterError::UnknownGroup { group: group.to_owned(), groups })
    }

    /// Deletes the ISAKMP SAs with the key servers.
    pub fn stop(&mut self, now: BootTime) {
        for membership in &mut self.memberships {
            membership.stop(now);
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.parting
            .pop_front()
            .or_else(|| self.memberships.iter_mut().find_map(Membership::poll_transmit))
    }

    /// What happened next, and to which group (its position).
    pub fn poll_event(&mut self) -> Option<(usize, Event)> {
        self.memberships
            .iter_mut()
            .enumerate()
            .find_map(|(index, group)| Some((index, group.poll_event()?)))
    }

    /// When [`Member::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        self.memberships.iter().filter_map(Membership::poll_timeout).min()
    }

    /// What is beside the groups in the kernel has changed: [`Member::poll_desired`] says again what
    /// the groups want.
    pub fn invalidate(&mut self) {
        self.reshaped = true;
    }

    /// What the kernel should hold from now on, if that may have changed.
    ///
    /// Groups whose keys cannot be used beside the others' lose them, fall back to their blocks and
    /// try their next server.
    pub fn poll_desired(&mut self, now: BootTime) -> Option<Outcome> {
        let mut changed = std::mem::take(&mut self.reshaped);
        for membership in &mut self.memberships {
            changed |= membership.take_changed();
        }
        if !changed {
            return None;
        }
        let outcome = self.desired(now);
        self.memberships.iter_mut().for_each(|membership| membership.update_sending(now));
        Some(outcome)
    }

    /// What the kernel should hold after an orderly end; `None` if it stays as it is.
    ///
    /// # Errors
    /// Not even the blocks can be compiled.
    pub fn desired_on_exit(&self, now: BootTime) -> Result<Option<Desired>, GroupUnusable> {
        if self.memberships.iter().all(|membership| membership.config().on_exit == OnExit::Keep) {
            return Ok(None);
        }
        let left =
            self.memberships.iter().filter_map(|membership| match membership.config().on_exit {
                OnExit::Keep => Some(membership.view()),
                OnExit::Block => Some(membership.view().without_keys()),
                OnExit::Remove => None,
            });
        kernel_policy::compile(left, now).map(Some)
    }

    /// The memberships in the order of the configuration.
    pub fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    /// When the daemon started.
    pub fn started(&self) -> BootTime {
        self.started
    }

    /// Addresses that registrations leave from.
    pub fn local_addresses(&self) -> BTreeSet<IpAddr> {
        self.memberships.iter().filter_map(Membership::local_address).collect()
    }

    /// Those of them that are within a VRF, and its device.
    pub fn vrfs(&self) -> BTreeMap<IpAddr, String> {
        let local = self.memberships.iter().filter_map(|membership| membership.local().ok());
        local.filter_map(|local| Some((local.address, local.vrf.clone()?))).collect()
    }

    /// Multicast groups that pushes come by.
    pub fn multicasts(&self) -> BTreeSet<Multicast> {
        self.memberships.iter().filter_map(Membership::multicast).collect()
    }

    /// Datagrams discarded that belong to no group, by reason.
    pub fn stray_datagrams(&self) -> &BTreeMap<&'static str, u64> {
        &self.stray
    }

    /// Datagrams that a group discarded, by reason.
    pub fn discards(&self, group: usize) -> Option<&BTreeMap<&'static str, u64>> {
        self.discards.get(group)
    }

    fn desired(&mut self, now: BootTime) -> Outcome {
        let mut unusable = Vec::new();
        let (mut rejected, mut left_out) = (BTreeSet::new(), BTreeSet::new());
        // A group first loses what came last, then all its keys, so it ends.
        for _ in 0..=2 * self.memberships.len() {
            let groups = self.memberships.iter().enumerate().map(|(index, membership)| {
                let view = membership.view();
                if left_out.contains(&index) { view.without_keys() } else { view }
            });
            let error = match kernel_policy::compile(groups, now) {
                Ok(desired) => return Outcome { desired: Some(desired), unusable },
                Err(error) => error,
            };
            let error = self.blame_newest(error);
            let Some(culprit) = self.culprit(&error, &left_out) else {
                unusable.push(error);
                break;
            };
            let again = !rejected.insert(culprit);
            if let Some(membership) = self.memberships.get_mut(culprit) {
                membership.reject_latest(&error.reason, now);
                if again || membership.generations().is_empty(now) {
                    left_out.insert(culprit);
                }
            }
            unusable.push(error);
        }
        Outcome { desired: None, unusable }
    }

    /// Of two groups that cannot both have a policy the one with the newer keys gives way: a push to
    /// one must not take the other's keys.
    fn blame_newest(&self, error: GroupUnusable) -> GroupUnusable {
        let GroupUnusable { group, reason: Unusable::TwoGroups { id, other } } = error else {
            return error;
        };
        let received = |name: &str| {
            let found = self.memberships.iter().find(|one| one.config().name == name);
            found.and_then(|one| one.generations().received())
        };
        let (group, other) =
            if received(&other) > received(&group) { (other, group) } else { (group, other) };
        GroupUnusable { group, reason: Unusable::TwoGroups { id, other } }
    }

    /// Whose keys to leave out: those of the group that the error names, else those that came last.
    fn culprit(&self, error: &GroupUnusable, left_out: &BTreeSet<usize>) -> Option<usize> {
        let candidates =
            || self.memberships.iter().enumerate().filter(|(index, _)| !left_out.contains(index));
        let named = candidates().find(|(_, membership)| membership.config().name == error.group);
        let last =
            || candidates().max_by_key(|(_, membership)| membership.generations().received());
        named.or_else(last).map(|(index, _)| index)
    }
}

/// The fail-close policies and guards of a configuration for the interfaces as they are. Also tells
/// what cannot be done before anything is started.
///
/// # Errors
/// What cannot be done.
pub fn blocks(config: &Config, interfaces: &Interfaces) -> Result<Desired, GroupUnusable> {
    let seeds: fn(&Group) -> (Seeds, u64) = |_| (Box::new(entropy::seed), 0);
    let now = BootTime::default();
    let mut member = Member::new(config, seeds, now);
    member.handle_interfaces(interfaces, now);
    let blocks = member.memberships.iter().map(|membership| membership.view().without_keys());
    kernel_policy::compile(blocks, now)
}
