//! All memberships of one member, without clock, sockets or kernel: what the event loop drives.
//!
//! After every `handle_*` or [`Member::stop`], drain [`Member::poll_transmit`] and
//! [`Member::poll_event`], put [`Member::poll_desired`] into the kernel, then read
//! [`Member::poll_timeout`].

mod desired;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use gdoi::error::Error;
use gdoi::event::Transmit;
use gdoi::push::addressed_to;
use ike::error::NotAccepted;
use ike::{BootTime, WallClock};
use xfrm::Entry;
use xfrm::model::SaId;

use crate::config::{Config, Group};
use crate::kernel_drops::KernelDrops;
use crate::membership::error::RegisterError;
use crate::membership::kernel_policy;
use crate::membership::local_interface::{Interfaces, Multicast};
use crate::membership::restore::Earlier;
use crate::membership::unreachable::Unreachable;
use crate::membership::{Contacts, Event, Membership, Seeds, Suspicion};
use crate::persistence::sealed_keys::{GroupSecrets, Unsealed};
use crate::persistence::state_file::{Boot, Saved};

pub use desired::{Outcome, blocks};

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
}
