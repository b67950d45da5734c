//! From memberships to what the kernel should hold: the only file that calls `policies`.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use control::member::{PolicyKind, PolicyLine};
use gdoi::BootTime;
use gdoi::group::GroupPolicy;
use policies::explain::Kind;
use policies::{
    Compiler, GroupInput, GroupOptions, GroupState, GroupUnusable, InstalledTek, LanInterface,
    WanInterface, Zones,
};
use xfrm::Desired;

use crate::config;
use crate::membership::Membership;
use crate::membership::key_generations::{ActiveLine, KeyGenerations};
use crate::membership::local_interface;

/// Why no kernel state can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The group whose policy it is, if that is known.
    pub group: Option<String>,
    /// One line.
    pub reason: String,
}

impl core::error::Error for Unusable {}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "group {group}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// Which keys of a membership count.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'k> {
    /// Its own.
    Own,
    /// These, for a trial.
    Candidate(&'k KeyGenerations),
    /// None: blocks and guards only.
    None,
}

/// Whether a policy can be used by this group.
///
/// # Errors
/// The reason in one line.
pub fn check(policy: &GroupPolicy, config: &config::Group) -> Result<(), String> {
    policies::check(policy, &options(config)).map_err(|unusable| unusable.to_string())
}

/// What the kernel should hold for these groups.
///
/// # Errors
/// The reason in one line.
pub fn compile<'m>(
    groups: impl Iterator<Item = (&'m Membership, Keys<'m>)>,
    now: BootTime,
) -> Result<Desired, Unusable> {
    policies::compile(&inputs(groups, now)).map_err(unusable)
}

/// As [`compile`], with what `compiler` remembers.
///
/// # Errors
/// The reason in one line.
pub fn compile_with<'m>(
    compiler: &mut Compiler,
    groups: impl Iterator<Item = (&'m Membership, Keys<'m>)>,
    now: BootTime,
) -> Result<Desired, Unusable> {
    compiler.compile(&inputs(groups, now)).map_err(unusable)
}

fn inputs<'m>(
    groups: impl Iterator<Item = (&'m Membership, Keys<'m>)>,
    now: BootTime,
) -> Vec<GroupInput<'m>> {
    groups.map(|(membership, keys)| input(membership, keys, now)).collect()
}

fn unusable(error: GroupUnusable) -> Unusable {
    Unusable { group: Some(error.group), reason: error.reason.to_string() }
}

/// What happens to which traffic, for show commands.
pub fn explain(membership: &Membership, now: BootTime) -> Vec<PolicyLine> {
    let lines = policies::explain(&input(membership, Keys::Own, now));
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

fn input<'m>(membership: &'m Membership, keys: Keys<'m>, now: BootTime) -> GroupInput<'m> {
    let config = membership.config();
    GroupInput {
        name: &config.name,
        group: config.id,
        slot: membership.slot(),
        zones: zones(membership),
        protected: config.protected.clone(),
        exclude: config.exclude.clone(),
        fail_open: config.fail_open.clone(),
        servers: config.server_addresses(),
        pushes: membership
            .multicast()
            .map(|multicast| SocketAddr::new(multicast.group.into(), multicast.port)),
        options: options(config),
        state: match keys {
            Keys::Own => state(membership.generations(), membership, now),
            Keys::Candidate(generations) => state(generations, membership, now),
            Keys::None => without_keys(membership.generations()),
        },
    }
}

fn state<'g>(
    generations: &'g KeyGenerations,
    membership: &Membership,
    now: BootTime,
) -> GroupState<'g> {
    let lines = generations.active(now);
    if lines.is_empty() {
        return without_keys(generations);
    }
    GroupState::Keyed(lines.into_iter().map(|line| installed(line, membership)).collect())
}

fn installed<'g>(line: ActiveLine<'g>, membership: &Membership) -> InstalledTek<'g> {
    InstalledTek {
        policy: line.policy,
        keys: line.keys,
        receive: line.receive,
        send: line.send,
        iv_reuse_hazard: membership.spent().contains(&line.policy.spi),
        remaining_lifetime: Some(line.life_left),
    }
}

/// What was protected once stays blocked.
fn without_keys(generations: &KeyGenerations) -> GroupState<'_> {
    match generations.lines() {
        [] => GroupState::NoKey,
        lines => GroupState::Expired(lines.iter().collect()),
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
    }
}

fn zones(membership: &Membership) -> Zones {
    let config = membership.config();
    let interfaces = membership.interfaces();
    let lan = config.lan.iter().map(|name| LanInterface {
        name: name.clone(),
        prefixes: interfaces.get(name).map(local_interface::prefixes).unwrap_or_default(),
    });
    let wan = config.wan.iter().map(|name| {
        let interface = interfaces.get(name);
        WanInterface {
            name: name.clone(),
            up: interface.is_some_and(|interface| interface.up),
            gateway: interface.and_then(|interface| interface.gateway),
            mtu: interface.map_or(0, |interface| interface.mtu),
        }
    });
    Zones {
        lan: lan.collect(),
        wan: wan.collect(),
        local: membership.local_address().map(IpAddr::V4),
    }
}
