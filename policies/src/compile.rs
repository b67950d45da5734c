//! Compiles all groups of the machine into one desired state of the kernel.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use gdoi::group::{GroupPolicy, Spi, TekKeys};
use ipnet::IpNet;
use xfrm::desired::{Desired, MAIN_TABLE, PlaceholderRoute};
use xfrm::model::{
    Action, Direction, Install, Policy, PolicyId, Sa, SaId, SaRole, Selector, Template,
};
use xfrm::nft::{DontFragment, GroupPreservation, Preservation};

use crate::error::{GroupUnusable, Unusable};
use crate::failclose;
use crate::group::{GroupInput, GroupOptions, Mode};
use crate::local;
use crate::mirror::Named;
use crate::open;
use crate::precedence::{
    self, BLOCK, ERRORS, EXCLUDE, LOCAL, Lane, MIGRATING, POLICIES_PER_DIRECTION, SERVER,
};
use crate::rollover;
use crate::sa_tek::{self, SaTek};
use crate::selector::has_ports;

/// Whether XFRM can enforce `policy`. Asked before keys arrive (RFC 6407 §3.3).
///
/// # Errors
/// What it cannot do, and why.
pub fn check(policy: &GroupPolicy, options: &GroupOptions) -> Result<(), Unusable> {
    if policy.teks.is_empty() {
        return Err(Unusable::NoTek);
    }
    let sa_teks = sa_tek::offered(&policy.teks, options)?;
    rollover::lanes(&sa_teks).map(|_| ())
}

/// Everything that the kernel has to hold for these groups.
///
/// # Errors
/// The group that cannot be used, and why. The others can be compiled without it, or with it in the
/// state [`NoKey`](crate::GroupState::NoKey).
pub fn compile(groups: &[GroupInput<'_>]) -> Result<Desired, GroupUnusable> {
    let mut ordered: Vec<&GroupInput<'_>> = groups.iter().collect();
    ordered.sort_by_key(|group| group.slot);
    let protected = ordered.iter().map(|group| group.protected.as_slice());
    let by_guards_alone = failclose::closed_by_guards_alone(protected);
    let mut parts = Vec::new();
    for (group, by_guards_alone) in ordered.into_iter().zip(by_guards_alone) {
        let sa_teks = sa_tek::of_group(group).map_err(|reason| unusable(group, reason))?;
        let pairs = match by_guards_alone {
            true => BTreeSet::new(),
            false => failclose::protected_pairs(group),
        };
        parts.push(Part { group, sa_teks, pairs, by_guards_alone });
    }
    places(&parts)?;
    let mut builder = Builder::default();
    // In order of precedence: of two policies with one identity the one that would win is kept.
    for step in [
        Builder::servers,
        Builder::excludes,
        Builder::towards_lans,
        Builder::opened,
        Builder::sa_teks,
        Builder::unencrypted,
        Builder::errors_to_lans,
        Builder::blocks,
    ] {
        for part in &parts {
            step(&mut builder, part).map_err(|reason| unusable(part.group, reason))?;
        }
    }
    for part in &parts {
        builder.preservation(part).map_err(|reason| unusable(part.group, reason))?;
    }
    let Some(last) = parts.last() else { return Ok(builder.desired) };
    builder.count().map_err(|reason| unusable(last.group, reason))?;
    let first = parts.first().map_or(precedence::BASE, |part| part.group.options.priority);
    for policy in builder.desired.policies.values_mut() {
        policy.priority = first.saturating_add(policy.priority.saturating_sub(precedence::BASE));
    }
    Ok(builder.desired)
}

fn unusable(group: &GroupInput<'_>, reason: Unusable) -> GroupUnusable {
    GroupUnusable { group: group.name.to_owned(), reason }
}

/// No two groups may share a slot or a placeholder.
fn places(parts: &[Part<'_>]) -> Result<(), GroupUnusable> {
    let mut slots: BTreeMap<u8, &str> = BTreeMap::new();
    let mut placeholders = BTreeMap::new();
    for Part { group, .. } in parts {
        let GroupInput { name, slot, .. } = **group;
        let placeholder = group.options.placeholder;
        if let Some(other) = slots.insert(slot, name).or(placeholders.insert(placeholder, name)) {
            return Err(unusable(
                group,
                Unusable::PlaceTaken { placeholder, slot, other: other.to_owned() },
            ));
        }
        if group.zones.local == Some(placeholder) {
            return Err(unusable(group, Unusable::PlaceholderIsLocal { placeholder }));
        }
    }
    Ok(())
}

struct Part<'a> {
    group: &'a GroupInput<'a>,
    sa_teks: Vec<SaTek<'a>>,
    /// Pairs of protected prefixes that get block policies.
    pairs: BTreeSet<(IpNet, IpNet)>,
    /// Too many pairs for block policies: the nf_tables guards alone drop their traffic.
    by_guards_alone: bool,
}

impl Part<'_> {
    /// Whether the group has nothing to protect.
    fn is_empty(&self) -> bool {
        self.group.protected.is_empty() && self.sa_teks.is_empty()
    }

    fn endpoint(&self) -> Result<Option<IpAddr>, Unusable> {
        endpoint(self.group, &self.sa_teks)
    }
}

/// LOCAL, if the group has keys and the machine an address to use them with.
fn endpoint(group: &GroupInput<'_>, sa_teks: &[SaTek<'_>]) -> Result<Option<IpAddr>, Unusable> {
    if !sa_teks.iter().any(|sa_tek| sa_tek.keys.is_some()) {
        return Ok(None);
    }
    let placeholder = group.options.placeholder;
    match group.zones.local {
        None => Ok(None),
        Some(local) if local.is_ipv6() => Err(Unusable::LocalFamily { local }),
        Some(_) if placeholder.is_ipv6() => Err(Unusable::PlaceholderFamily { placeholder }),
        local => Ok(local),
    }
}

#[derive(Default)]
struct Builder {
    desired: Desired,
    /// The group and SA TEK that each policy comes from.
    owners: BTreeMap<PolicyId, String>,
}

impl Builder {
    /// Adds a policy unless a better one has the same identity.
    fn add(&mut self, id: PolicyId, priority: u32, action: Action) {
        self.desired.policies.entry(id.clone()).or_insert(Policy { id, priority, action });
    }

    fn servers(&mut self, part: &Part<'_>) -> Result<(), Unusable> {
        for id in local::servers(part.group) {
            self.add(id, SERVER, Action::Allow);
        }
        Ok(())
    }

    fn excludes(&mut self, part: &Part<'_>) -> Result<(), Unusable> {
        for selector in local::excluded(part.group)? {
            for direction in [Direction::Out, Direction::In, Direction::Forward] {
                self.add(
                    PolicyId { direction, selector: selector.clone() },
                    EXCLUDE,
                    Action::Allow,
                );
            }
        }
        Ok(())
    }

    /// Group traffic is checked neither on its way to a LAN nor when it arrives from one.
    fn towards_lans(&mut self, part: &Part<'_>) -> Result<(), Unusable> {
        if !part.is_empty() {
            for id in local::towards_lans(part.group) {
                self.add(id, LOCAL, Action::Allow);
            }
            let lans = part.group.zones.lan_names().map(str::to_owned);
            self.desired.exempt.extend(lans);
        }
        Ok(())
    }

    fn errors_to_lans(&mut self, part: &Part<'_>) -> Result<(), Unusable> {
        if !part.is_empty() {
            for id in local::errors_to_lans(part.group) {
                self.add(id, ERRORS, Action::Allow);
            }
        }
        Ok(())
    }

    /// What may pass in clear while there is no valid key.
    fn opened(&mut self, part: &Part<'_>) -> Result<(), Unusable> {
        for selector in open::opened(part.group, &part.pairs, &part.sa_teks)? {
            self.allow(&selector, precedence::fail_open(part.group.slot));
        }
        Ok(())
    }

    fn unencrypted(&mut self, part: &Part<'_>) -> Result<(), Unusable> {
        for selector in open::unencrypted(part.group, &part.pairs, &part.sa_teks) {
            self.allow(&selector, MIGRATING);
        }
        Ok(())
    }

    fn allow(&mut self, selector: &Selector, priority: u32) {
        for direction in [Direction::Out, Direction::In, Direction::Forward] {
            self.add(PolicyId { direction, selector: selector.clone() }, priority, Action::Allow);
        }
    }

    fn sa_teks(&mut self, part: &Part<'_>) -> Result<(), Unusable> {
        let Some(local) = part.endpoint()? else { return self.shut_sa_teks(part) };
        let lanes = rollover::lanes(&part.sa_teks)?;
        let named = Named::by(&part.sa_teks);
        let slot = part.group.slot;
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let placeholder = part.group.options.placeholder;
        let optional = open::takes_clear(part.group);
        for sa_tek in &part.sa_teks {
            let priority = precedence::selector(slot, sa_tek.place);
            let lane = lanes.get(&sa_tek.policy.spi).copied().unwrap_or_default();
            let selectors = named.with_mirror(sa_tek);
            if part.group.options.mode == Mode::ReceiveOnly {
                for selector in &selectors {
                    self.add(
                        PolicyId { direction: Direction::Out, selector: selector.clone() },
                        priority,
                        Action::Allow,
                    );
                }
            }
            if sa_tek.sends() {
                let template = Template {
                    mode: xfrm::model::Mode::Tunnel,
                    source: local,
                    destination: placeholder,
                    reqid: lane.outbound(slot),
                    optional: false,
                };
                for selector in &selectors {
                    let id = PolicyId { direction: Direction::Out, selector: selector.clone() };
                    self.protect(part, id, priority, template)?;
                }
            }
            if sa_tek.receives() {
                let template = Template {
                    mode: xfrm::model::Mode::Tunnel,
                    source: unspecified,
                    destination: local,
                    reqid: lane.inbound(slot),
                    optional,
                };
                for selector in &selectors {
                    for direction in [Direction::In, Direction::Forward] {
                        let id = PolicyId { direction, selector: selector.clone() };
                        self.protect(part, id, priority, template)?;
                    }
                }
            }
        }
        self.sas(part.group, &part.sa_teks, &lanes)
    }

    /// SA TEKs without an SA keep their precedence and block their traffic.
    fn shut_sa_teks(&mut self, part: &Part<'_>) -> Result<(), Unusable> {
        let named = Named::by(&part.sa_teks);
        for sa_tek in &part.sa_teks {
            let priority = precedence::selector(part.group.slot, sa_tek.place);
            for selector in named.with_mirror(sa_tek) {
                for id in failclose::block(&selector) {
                    self.add(id, priority, Action::Block);
                }
            }
        }
        Ok(())
    }

    fn protect(
        &mut self,
        part: &Part<'_>,
        id: PolicyId,
        priority: u32,
        template: Template,
    ) -> Result<(), Unusable> {
        // An earlier SA TEK of the same group wins; only another group's key makes it an error.
        if let Some(other) = self.owners.get(&id)
            && other != part.group.name
        {
            return Err(Unusable::TwoGroups { id: Box::new(id), other: other.clone() });
        }
        self.owners.entry(id.clone()).or_insert_with(|| part.group.name.to_owned());
        self.add(id, priority, Action::Protect(template));
        Ok(())
    }

    fn blocks(&mut self, part: &Part<'_>) -> Result<(), Unusable> {
        for selector in failclose::blocked(&part.pairs, &part.sa_teks) {
            for id in failclose::block(&selector) {
                self.add(id, BLOCK, Action::Block);
            }
        }
        Ok(())
    }

    /// The states of one group that has an address.
    fn sas(
        &mut self,
        group: &GroupInput<'_>,
        sa_teks: &[SaTek<'_>],
        lanes: &BTreeMap<Spi, Lane>,
    ) -> Result<(), Unusable> {
        let Some(local) = endpoint(group, sa_teks)? else { return Ok(()) };
        let (slot, options) = (group.slot, &group.options);
        let placeholder = options.placeholder;
        let mut done = BTreeSet::new();
        for sa_tek in sa_teks {
            let spi = sa_tek.policy.spi;
            let Some(keys) = sa_tek.keys.filter(|_| done.insert(spi)) else { continue };
            let lane = lanes.get(&spi).copied().unwrap_or_default();
            let unknown = is_hidden(keys);
            let hard_lifetime = sa_tek.remaining_lifetime.map(|left| left + KERNEL_SLACK);
            let of_spi = || sa_teks.iter().filter(|sa_tek| sa_tek.policy.spi == spi);
            if of_spi().any(|sa_tek| sa_tek.receive && sa_tek.receives()) {
                self.install(Sa {
                    id: SaId { destination: local, spi },
                    source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    role: SaRole::Inbound,
                    reqid: lane.inbound(slot),
                    protection: sa_tek.suite.with_keys(spi, keys)?,
                    no_path_mtu_discovery: false,
                    sequence_may_wrap: false,
                    install: if unknown { Install::Never } else { Install::Freely },
                    hard_lifetime,
                    unicast: None,
                })?;
            }
            let counter_mode = sa_tek.suite.is_counter_mode();
            if of_spi().any(|sa_tek| sa_tek.send && sa_tek.sends())
                && (!counter_mode || options.counter_mode_send)
            {
                self.install(Sa {
                    id: SaId { destination: placeholder, spi },
                    source: local,
                    role: SaRole::Outbound,
                    reqid: lane.outbound(slot),
                    protection: sa_tek.suite.with_keys(spi, keys)?,
                    no_path_mtu_discovery: options.dont_fragment == DontFragment::Clear,
                    sequence_may_wrap: !counter_mode,
                    install: match counter_mode {
                        _ if unknown => Install::Never,
                        true if sa_tek.iv_reuse_hazard => Install::Never,
                        true => Install::Once,
                        false => Install::Freely,
                    },
                    hard_lifetime,
                    unicast: None,
                })?;
            }
        }
        Ok(())
    }

    fn install(&mut self, sa: Sa) -> Result<(), Unusable> {
        let SaId { destination, spi } = sa.id;
        match self.desired.sas.insert(sa.id, sa) {
            None => Ok(()),
            Some(_) => Err(Unusable::SpiTwice { spi, local: destination }),
        }
    }

    fn preservation(&mut self, part: &Part<'_>) -> Result<(), Unusable> {
        if part.is_empty() {
            return Ok(());
        }
        let Part { group, sa_teks, pairs, by_guards_alone } = part;
        let mut guard = failclose::guard(group, sa_teks);
        if *by_guards_alone && open::opens_everything(group, sa_teks) {
            // No block policy covers these pairs, so the guards have to.
            guard.protected.clear();
        }
        let mut excluded = local::excluded(group)?;
        excluded.extend(open::opened(group, pairs, sa_teks)?);
        excluded.extend(open::unencrypted(group, pairs, sa_teks));
        let taken = sa_teks.iter().flat_map(SaTek::all_selectors);
        let mut arriving = BTreeSet::new();
        match group.options.mode {
            Mode::Normal => {}
            Mode::ReceiveOnly => excluded.extend(taken),
            // It sends ESP: nothing of it leaves in clear, whoever flushes its policies.
            Mode::Passive => arriving.extend(taken),
        }
        let preservation = self.desired.preservation.get_or_insert_with(Preservation::default);
        for lan in &group.zones.lan {
            let names = if lan.is_vrf { &mut preservation.vrf } else { &mut preservation.lan };
            names.insert(lan.name.clone());
        }
        preservation.wan.extend(group.zones.wan.iter().map(|wan| wan.name.clone()));
        if !guard.protected.is_empty() {
            preservation.protected.insert(guard.protected);
        }
        preservation.guard.extend(guard.pairs);
        preservation.guard_everything |= guard.everything;
        let ported = |selector: &Selector| has_ports(selector);
        preservation.defragment |= excluded.iter().any(ported);
        preservation.defragment |= sa_teks.iter().any(|sa_tek| sa_tek.selectors.iter().any(ported));
        preservation.exclude.extend(excluded);
        preservation.exclude_arriving.extend(arriving);
        preservation.exclude.extend(local::servers_past_guard(group));
        let Some(local) = part.endpoint()? else { return Ok(()) };
        let placeholder = group.options.placeholder;
        let lanes = rollover::lanes(sa_teks)?;
        let reqids: BTreeSet<_> = lanes.values().map(|lane| lane.outbound(group.slot)).collect();
        let of_group = |sa: &&Sa| sa.role == SaRole::Outbound && reqids.contains(&sa.reqid);
        let entry = GroupPreservation {
            local,
            outbound_reqids: self
                .desired
                .sas
                .values()
                .filter(of_group)
                .map(|sa| sa.reqid)
                .collect(),
            inbound_spis: inbound_spis(&self.desired.sas, &lanes, group.slot),
            fragments: fragments(sa_teks),
            dont_fragment: group.options.dont_fragment,
            segment_size: group.options.segment_size,
        };
        preservation.groups.insert(placeholder, entry);
        if let Some((uplink, gateway)) = group.zones.uplink(placeholder.is_ipv4()) {
            self.desired.routes.insert(PlaceholderRoute {
                placeholder,
                interface: uplink.name.clone(),
                gateway,
                mtu: uplink.mtu,
                table: uplink.vrf_table.unwrap_or(MAIN_TABLE),
            });
        }
        Ok(())
    }

    fn count(&self) -> Result<(), Unusable> {
        for direction in [Direction::Out, Direction::In, Direction::Forward] {
            let count = self.desired.policies.keys().filter(|id| id.direction == direction).count();
            if count > POLICIES_PER_DIRECTION {
                return Err(Unusable::TooManyPolicies { count, limit: POLICIES_PER_DIRECTION });
            }
        }
        Ok(())
    }
}

/// SPIs that the group at `slot` is received on.
fn inbound_spis(sas: &BTreeMap<SaId, Sa>, lanes: &BTreeMap<Spi, Lane>, slot: u8) -> BTreeSet<Spi> {
    let reqids: BTreeSet<_> = lanes.values().map(|lane| lane.inbound(slot)).collect();
    let of_group = |sa: &&Sa| sa.role == SaRole::Inbound && reqids.contains(&sa.reqid);
    sas.values().filter(of_group).map(|sa| sa.id.spi).collect()
}

/// A key that a kernel in lockdown showed as zeros: the installed state works, but it cannot be
/// installed again.
fn is_hidden(keys: &TekKeys) -> bool {
    let mut octets = keys.encryption.expose().iter().chain(keys.integrity.expose());
    octets.all(|octet| *octet == 0)
}

/// How long after the end of a TEK the kernel's own lifetime limit takes effect. The daemon removes
/// the state on time; the limit is for a daemon that has died.
const KERNEL_SLACK: Duration = Duration::from_secs(30);

/// Pairs between which received ESP may come in fragments.
fn fragments(sa_teks: &[SaTek<'_>]) -> BTreeSet<(IpNet, IpNet)> {
    let received = sa_teks.iter().filter(|sa_tek| sa_tek.receives()).flat_map(SaTek::all_selectors);
    received.map(|selector| (selector.source, selector.destination)).collect()
}
