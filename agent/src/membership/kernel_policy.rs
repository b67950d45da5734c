//! From memberships to what the kernel should hold: the only file that calls `policies`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use control::member::{PolicyKind, PolicyLine};
use gdoi::group::{GroupPolicy, Spi};
use ike::BootTime;
use policies::explain::Kind;
use policies::{
    GroupInput, GroupOptions, GroupState, GroupUnusable, InstalledTek, LanInterface, Unusable,
    WanInterface, Zones,
};
use xfrm::Desired;
use xfrm::interface::Interface;

use super::key_generations::{ActiveSaTek, KeyGenerations};
use super::local_interface::{self, Interfaces};
use crate::config;

/// What the kernel entries of a group depend on.
#[derive(Clone, Copy, Debug)]
pub struct GroupView<'m> {
    pub config: &'m config::Group,
    /// Position among the groups.
    pub slot: u8,
    /// The interfaces that it names.
    pub interfaces: &'m Interfaces,
    /// The address that it speaks from.
    pub local: Option<IpAddr>,
    /// The multicast group and port that its pushes come by.
    pub multicast: Option<SocketAddr>,
    /// Counter-mode TEKs of an earlier run: sending on them again would repeat IVs.
    pub iv_reuse_hazard: &'m BTreeSet<Spi>,
    /// Its keys, and whether they count.
    pub keys: Keys<'m>,
}

/// The keys of a group.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'m> {
    /// Installed as long as they are valid.
    Used(&'m KeyGenerations),
    /// Not installed: fail-close policies and guards only. What was protected once stays blocked.
    Unused(&'m KeyGenerations),
}

impl<'m> GroupView<'m> {
    /// The same group with these keys.
    #[must_use]
    pub fn with_keys(self, keys: &'m KeyGenerations) -> Self {
        Self { keys: Keys::Used(keys), ..self }
    }

    /// The same group with its keys left out.
    #[must_use]
    pub fn without_keys(self) -> Self {
        let (Keys::Used(keys) | Keys::Unused(keys)) = self.keys;
        Self { keys: Keys::Unused(keys), ..self }
    }
}

/// Whether a policy can be used by this group.
///
/// # Errors
/// What this machine cannot do.
pub fn check(policy: &GroupPolicy, config: &config::Group) -> Result<(), Unusable> {
    policies::check(policy, &options(config))
}

/// What the kernel should hold for these groups.
///
/// # Errors
/// The group that cannot be used beside the others, and why.
pub fn compile<'m>(
    groups: impl Iterator<Item = GroupView<'m>>,
    now: BootTime,
) -> Result<Desired, GroupUnusable> {
    policies::compile(&inputs(groups, now))
}

fn inputs<'m>(groups: impl Iterator<Item = GroupView<'m>>, now: BootTime) -> Vec<GroupInput<'m>> {
    groups.map(|group| input(group, now)).collect()
}

/// What happens to which traffic, for show commands.
pub fn explain(group: GroupView<'_>, now: BootTime) -> Vec<PolicyLine> {
    let lines = policies::explain(&input(group, now));
    lines
        .into_iter()
        .map(|line| PolicyLine {
            kind: match line.kind {
                Kind::Secure => PolicyKind::Secure,
                Kind::Exclude => PolicyKind::Exclude,
                Kind::Local => PolicyKind::Local,
                Kind::FailOpen => PolicyKind::FailOpen,
                Kind::FailClose => PolicyKind::FailClose,
            },
            source: line.source,
            destination: line.destination,
            protocol: line.protocol,
            source_port: line.source_port,
            destination_port: line.destination_port,
            spi: line.spi,
            note: line.note,
        })
        .collect()
}

fn input(group: GroupView<'_>, now: BootTime) -> GroupInput<'_> {
    let config = group.config;
    GroupInput {
        name: &config.name,
        group: config.id,
        slot: group.slot,
        zones: zones(group),
        protected: config.protected.clone(),
        exclude: config.exclude.clone(),
        fail_open: config.fail_open.clone(),
        servers: config.server_addresses(),
        pushes: group.multicast,
        options: options(config),
        state: match group.keys {
            Keys::Used(keys) => state(keys, group.iv_reuse_hazard, now),
            Keys::Unused(keys) => without_keys(keys),
        },
    }
}

fn state<'m>(
    keys: &'m KeyGenerations,
    iv_reuse_hazard: &BTreeSet<Spi>,
    now: BootTime,
) -> GroupState<'m> {
    let sa_teks = keys.active(now);
    if sa_teks.is_empty() {
        return without_keys(keys);
    }
    let installed = |sa_tek: ActiveSaTek<'m>| InstalledTek {
        policy: sa_tek.policy,
        keys: sa_tek.keys,
        receive: sa_tek.receive,
        send: sa_tek.send,
        iv_reuse_hazard: iv_reuse_hazard.contains(&sa_tek.policy.spi),
        remaining_lifetime: Some(sa_tek.remaining_lifetime),
    };
    GroupState::Keyed(sa_teks.into_iter().map(installed).collect())
}

fn without_keys(generations: &KeyGenerations) -> GroupState<'_> {
    match generations.sa_teks() {
        [] => GroupState::NoKey,
        sa_teks => GroupState::Expired(sa_teks.iter().collect()),
    }
}

fn options(config: &config::Group) -> GroupOptions {
    GroupOptions {
        counter_mode_send: config.counter_mode_send,
        legacy: config.legacy,
        dont_fragment: config.dont_fragment,
        segment_size: config.segment_size,
        mode: config.mode,
        failure: config.failure_policy,
        placeholder: config.placeholder,
        priority: config.policy_priority,
    }
}

fn zones(group: GroupView<'_>) -> Zones {
    let GroupView { config, interfaces, .. } = group;
    // The device of a VRF need not be among the interfaces that the group names.
    let is_vrf = |name: &str| {
        interfaces.get(name).is_some_and(Interface::is_vrf)
            || interfaces.values().any(|one| one.vrf.as_deref() == Some(name))
    };
    let lan = config.lan_interfaces(interfaces).into_iter().map(|name| LanInterface {
        name: name.to_owned(),
        addresses: interfaces.get(name).map(local_interface::addresses).unwrap_or_default(),
        is_vrf: is_vrf(name),
    });
    let destinations = config.destinations();
    let wan = config.wan_interfaces(interfaces).into_iter().map(|name| {
        let interface = interfaces.get(name);
        let leads_to = |interface: &Interface| {
            destinations.iter().find_map(|one| interface.leads_to.get(one).copied())
        };
        let towards = interface.and_then(leads_to);
        WanInterface {
            name: name.to_owned(),
            up: interface.is_some_and(|interface| interface.up),
            gateway: towards.unwrap_or(interface.and_then(|interface| interface.gateway)),
            mtu: interface.map_or(0, |interface| interface.mtu),
            vrf_table: interface.and_then(|interface| interface.vrf_table),
            carries: towards.is_some(),
        }
    });
    Zones { lan: lan.collect(), wan: wan.collect(), local: group.local }
}
