//! Second step: from what was typed to values that the daemon can act on, held against the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use daemon::configuration::{
    self, CertificateTable, Certificates, Loaded, Located, Place, Report, Section as _, Selector,
    Table, phase1_policy, state_key, weak_parts,
};
use daemon::secrets::{SecretError, SecretSource, read_aes_key, read_pre_shared_key};
use gdoi::group::{AddressRange, GroupId, TrafficSelector};
use ike::config::{Credential, RetransmissionPolicy};
use ike::crypto::Secret;
use ipnet::IpNet;
use policies::{FailurePolicy, Mode};
use xfrm::interface::Interface;

use super::file::{self, File};
use super::{Config, Group, LocalAddress, MOST_GROUPS};

/// Interfaces of the machine by name.
pub type Interfaces = BTreeMap<String, Interface>;

/// What the configuration is held against.
pub struct Machine<'m> {
    /// Its interfaces; `None` where they could not be read, then nothing is said about them.
    pub interfaces: Option<&'m Interfaces>,
    /// Reads a pre-shared key.
    pub secret: &'m dyn Fn(&SecretSource) -> Result<Secret, SecretError>,
    /// Reads the state key.
    pub state_key: &'m dyn Fn(&SecretSource) -> Result<Secret, SecretError>,
    /// Reads the files of a certificate; notes what is wrong.
    pub certificate: ReadCertificate<'m>,
}

/// Reads the files of a certificate.
pub type ReadCertificate<'m> = &'m dyn Fn(&CertificateTable, &Report) -> Option<Credential>;

impl<'m> Machine<'m> {
    /// The machine that this runs on.
    pub fn this(interfaces: Option<&'m Interfaces>) -> Self {
        Self {
            interfaces,
            secret: &read_pre_shared_key,
            state_key: &read_aes_key,
            certificate: &credentials::read,
        }
    }

    /// A machine of which nothing is there yet. Secrets are made up: nothing is sent by such a
    /// configuration.
    pub fn unseen() -> Self {
        let secret: &dyn Fn(&SecretSource) -> Result<Secret, SecretError> =
            &|_| Ok(Secret::new(vec![0; 32]));
        Self { interfaces: None, secret, state_key: secret, certificate: &credentials::placeholder }
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// One report of everything that is wrong.
pub fn load(path: &Path, machine: &Machine<'_>) -> Result<Loaded<Config>, Report> {
    configuration::load(path, "remove what is not needed", |root| {
        let report = root.report();
        raise(typed(root), report, machine)
    })
}

/// Checks `text`, which messages call `name`.
///
/// # Errors
/// As [`load`].
pub fn parse(name: &str, text: &str, machine: &Machine<'_>) -> Result<Loaded<Config>, Report> {
    configuration::parse(name, text, |root| {
        let report = root.report();
        raise(typed(root), report, machine)
    })
}

fn typed(mut root: Table<'_>) -> File {
    let file = File::read(&mut root);
    root.finish();
    file
}

/// Raises the file; `None` when something is missing, which is then noted.
fn raise(file: file::File, report: &Report, machine: &Machine<'_>) -> Option<Config> {
    let policy_priority = file.policy_priority;
    let certificates = Certificates::new(&file.certificates, report, machine.certificate);
    let secrets = BTreeMap::new();
    let shared = BTreeSet::new();
    let mut check = Check { report, machine, policy_priority, secrets, certificates, shared };
    if file.groups.len() > MOST_GROUPS {
        let place = file.groups.get(MOST_GROUPS).and_then(|group| group.place.clone());
        let message = format!("{} groups; a member has at most {MOST_GROUPS}", file.groups.len());
        report.error(place, message, "remove some");
    }
    check.duplicates(&file, "name", |group| {
        group.name.as_ref().map(|name| (name.value.clone(), name.place.clone()))
    });
    check.duplicates(&file, "id", |group| {
        group.id.as_ref().map(|id| (id.value.to_string(), id.place.clone()))
    });
    check.zones(&file);
    let groups: Vec<Option<Group>> =
        file.groups.iter().zip(0_u8..).map(|(group, slot)| check.group(group, slot)).collect();
    let groups: Vec<Group> = groups.into_iter().collect::<Option<_>>()?;
    check.placeholders(&file, &groups);
    check.placement(&groups);
    check.closed_by_guards_alone(&groups);
    check.excludes_across_groups(&groups);
    let (gateways, tunnels) = check.tunnels(&file, &groups)?;
    if groups.is_empty() && tunnels.is_empty() {
        // A file that was emptied by mistake must not open what is blocked: one that is meant to
        // be filled from the command line has a gateway.
        if gateways.is_empty() {
            let remedy = "add a [[group]] table as in the example file, or a [[tunnel]]";
            report.error(None, "there is no group and no tunnel", remedy);
            return None;
        }
        let remedy = "add one with `gdoictl tunnel create`";
        report.warning(None, "there is no group and no tunnel: nothing is protected", remedy);
    }
    let state_file = match &file.state_directory {
        Some(directory) => directory.value.join("gdoi-agent.state"),
        None => file.control_socket.with_extension("state"),
    };
    let state_key = file.state_key.as_ref().and_then(|origin| {
        if file.state_directory.is_none() {
            let message =
                "a state key without state-directory: what it seals would be lost with the reboot";
            report.error(
                Some(origin.place.clone()),
                message,
                "add state-directory = \"/var/lib/gdoi-agent\"",
            );
        }
        if !file.keep_keys {
            let message = "a state key, and keep-keys = false: there are no keys to seal";
            report.error(Some(origin.place.clone()), message, "remove one of the two");
        }
        state_key(report, origin, machine.state_key).map(Arc::new)
    });
    let directory = file.state_directory.filter(|_| file.keep_keys && file.state_key.is_none());
    let own_state_key = directory.map(|directory| directory.value.join("state.key"));
    Some(Config {
        control_socket: file.control_socket,
        state_file,
        state_key,
        own_state_key,
        local_port: file.local_port,
        groups,
        gateways,
        tunnels,
        certificates: (&check.certificates).into(),
    })
}

struct Check<'c> {
    report: &'c Report,
    machine: &'c Machine<'c>,
    policy_priority: u32,
    /// A key that several groups or servers use is read once and complained about once.
    secrets: BTreeMap<SecretSource, Option<Arc<Secret>>>,
    certificates: Certificates,
    /// Local and remote addresses of several tunnels.
    shared: BTreeSet<(Option<IpAddr>, Option<IpAddr>)>,
}

impl Check<'_> {
    fn error(&self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.report.error(Some(place.clone()), message, remedy);
    }

    fn duplicates(
        &self,
        file: &file::File,
        what: &str,
        value: impl Fn(&file::Group) -> Option<(String, Place)>,
    ) {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (text, place) in file.groups.iter().filter_map(value) {
            let line = self.report.line(place.start);
            if let Some(first) = seen.get(&text) {
                let message = format!(
                    "group.{what}: {text} is the {what} of two groups, the first in line {first}"
                );
                self.error(
                    &place,
                    message,
                    format!("give each group its own {what}, or remove one of them"),
                );
            } else {
                seen.insert(text, line);
            }
        }
    }

    fn group(&mut self, group: &file::Group, slot: u8) -> Option<Group> {
        let local = group.local.as_ref().and_then(|local| self.local(local));
        let servers = self.servers(group, local.as_ref());
        let protected = self.protected(&group.protected);
        let exclude: Vec<TrafficSelector> =
            group.exclude.iter().filter_map(|rule| self.clear_rule(rule, "exclude")).collect();
        let fail_open =
            group.fail_open.iter().filter_map(|rule| self.clear_rule(rule, "fail-open")).collect();
        let phase1 = phase1_policy(&group.ike, "group.ike", group.legacy, self.report);
        if group.failure_policy == FailurePolicy::Open {
            let message = format!(
                "group {}: without a valid key all of its traffic passes in clear",
                group.label()
            );
            let remedy = "whoever can block UDP port 848 can bring that about; prefer fail-open rules for what needs it";
            self.report.warning(group.place.clone(), message, remedy);
        }
        if group.mode != Mode::Normal {
            let message =
                format!("group {}: clear packets are taken, as its mode says", group.label());
            self.report.warning(
                group.place.clone(),
                message,
                "set mode = \"normal\" when all members send ESP",
            );
        }
        if let Some(name) = &group.rekey.multicast_interface {
            self.interface(name, "group.rekey.multicast-interface");
        }
        let placeholder = match &group.placeholder {
            Some(placeholder) => {
                self.usable(placeholder.value, &placeholder.place, "group.placeholder")
            }
            None => Some(Ipv4Addr::new(192, 0, 2, slot.saturating_add(1)).into()),
        };
        if let Some(weak) = Some(weak_parts(&phase1)).filter(|weak| !weak.is_empty()) {
            let message = format!("group {} allows {} in phase 1", group.label(), weak.join(", "));
            self.report.warning(
                group.place.clone(),
                message,
                "remove them as soon as the key servers allow it",
            );
        }
        Some(Group {
            name: group.name.as_ref()?.value.clone(),
            id: GroupId(group.id.as_ref()?.value),
            local: local?,
            lan: group.lan.iter().map(|name| name.value.clone()).collect(),
            wan: group.wan.iter().map(|name| name.value.clone()).collect(),
            protected,
            exclude,
            fail_open,
            failure_policy: group.failure_policy,
            mode: group.mode,
            on_exit: group.on_exit,
            identity: group.identity.as_ref().map(|identity| identity.value.clone()),
            servers: servers?,
            phase1,
            retransmission: self.retransmission(&group.retransmission),
            group_id_byte_order: group.interoperability.group_id_byte_order,
            selector_byte_order: group.interoperability.selector_byte_order,
            counter_mode_send: group.counter_mode_send,
            legacy: group.legacy,
            dont_fragment: group.dont_fragment,
            segment_size: group.segment_size,
            recovery_probe: group.recovery_probe,
            placeholder: placeholder?,
            policy_priority: self.policy_priority,
            acknowledgement_length: group.rekey.acknowledgement_length,
            acknowledgement_jitter: group.rekey.acknowledgement_jitter,
            multicast_interface: group
                .rekey
                .multicast_interface
                .as_ref()
                .map(|name| name.value.clone()),
        })
    }

    fn retransmission(&self, typed: &file::Retransmission) -> RetransmissionPolicy {
        let &file::Retransmission { initial, maximum, repetitions, .. } = typed;
        if maximum < initial {
            let message =
                "group.retransmission.maximum is shorter than group.retransmission.initial";
            let remedy = "make maximum at least as long as initial";
            self.report.error(typed.place.clone(), message, remedy);
        }
        RetransmissionPolicy { initial, maximum, repetitions }
    }

    fn local(&self, local: &Located<String>) -> Option<LocalAddress> {
        const KEY: &str = "group.local-address";
        let text = local.as_str();
        if let Ok(address) = text.parse::<IpAddr>() {
            return self.usable(address, &local.place, KEY).map(LocalAddress::Address);
        }
        if text.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.') || text.contains('/') {
            let message = format!("{KEY}: \"{text}\" is neither an address nor an interface name");
            self.error(&local.place, message, "write one such as \"192.0.2.1\" or \"eth0\"");
            return None;
        }
        self.interface(local, KEY);
        Some(LocalAddress::Interface(text.to_owned()))
    }

    fn protected(&self, prefixes: &[Located<IpNet>]) -> Vec<IpNet> {
        const KEY: &str = "group.protected";
        let mut protected: Vec<IpNet> = Vec::new();
        for prefix in prefixes {
            let net = prefix.value;
            if protected.contains(&prefix.value) {
                self.error(&prefix.place, format!("{KEY}: {net} is named twice"), "name it once");
            } else if let Some(wider) = protected.iter().find(|wider| wider.contains(&prefix.value))
            {
                self.error(
                    &prefix.place,
                    format!("{KEY}: {net} lies within {wider}"),
                    "remove the narrower prefix",
                );
            } else if net.prefix_len() == 0 {
                let remedy = "name the group's own prefixes, such as \"172.16.0.0/12\"";
                self.error(
                    &prefix.place,
                    format!("{KEY}: {net} would block all traffic of this machine"),
                    remedy,
                );
            } else {
                protected.push(prefix.value);
            }
        }
        protected
    }

    /// A rule of `table` for traffic that passes in clear.
    fn clear_rule(&self, rule: &Selector, table: &str) -> Option<TrafficSelector> {
        let rule = rule.raise(&format!("group.{table}"), self.report)?;
        let side = |range: AddressRange, key: &str| match range {
            AddressRange::Any => Some(range),
            AddressRange::Address(address) | AddressRange::Range(address, _) => {
                self.usable(address, &rule.place, key).map(|_| range)
            }
            AddressRange::Subnet(prefix) => {
                self.usable(prefix.addr(), &rule.place, key).map(|_| range)
            }
        };
        let everything = |range| match range {
            AddressRange::Any => true,
            AddressRange::Subnet(prefix) => prefix.prefix_len() == 0,
            _ => false,
        };
        let source = side(rule.source, &format!("group.{table}.source"));
        let destination = side(rule.destination, &format!("group.{table}.destination"));
        if everything(source?) && everything(destination?) && rule.protocol == 0 {
            let (message, remedy) = match table {
                "exclude" => (
                    "group.exclude: this rule excludes all traffic, so nothing would be encrypted",
                    "narrow it down to what must stay in clear",
                ),
                _ => (
                    "group.fail-open: this rule opens the whole group",
                    "narrow it down, or set failure-policy = \"open\" and know why",
                ),
            };
            self.error(&rule.place, message, remedy);
            return None;
        }
        Some(rule.value)
    }

    /// A placeholder is an address that no packet ever carries.
    fn placeholders(&self, file: &file::File, groups: &[Group]) {
        let mut seen: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (group, typed) in groups.iter().zip(&file.groups) {
            let place = match &typed.placeholder {
                Some(placeholder) => Some(placeholder.place.clone()),
                None => typed.place.clone(),
            };
            let placeholder = group.placeholder;
            let taken_by = if let Some(other) = seen.get(&placeholder) {
                Some(format!("the placeholder of group {other} as well"))
            } else if let Some(prefix) =
                groups.iter().flat_map(|group| &group.protected).find(|p| p.contains(&placeholder))
            {
                Some(format!("within the protected prefix {prefix}"))
            } else if groups
                .iter()
                .flat_map(|group| &group.servers)
                .any(|server| server.ip() == placeholder)
            {
                Some("a key server's address".to_owned())
            } else if placeholder.is_unspecified()
                || placeholder.is_multicast()
                || placeholder.is_loopback()
                || is_broadcast(placeholder)
            {
                Some("no host's address".to_owned())
            } else {
                self.machine
                    .interfaces
                    .and_then(|all| holder(all, placeholder))
                    .map(|name| format!("in use on {name}"))
            };
            if let Some(taken_by) = taken_by {
                let message = format!("group.placeholder: {placeholder} is {taken_by}");
                self.report.error(
                    place,
                    message,
                    "write placeholder = \"..\" with an IPv4 address that no host has",
                );
            }
            seen.insert(placeholder, &group.name);
        }
    }

    /// An address of the family that groups are about in this version.
    fn usable(&self, address: IpAddr, place: &Place, key: &str) -> Option<IpAddr> {
        if address.is_ipv6() {
            let message =
                format!("{key}: {address} is an IPv6 address, and groups are IPv4 in this version");
            self.error(place, message, "write an IPv4 address");
            return None;
        }
        Some(address)
    }
}

/// Whether it reaches everybody on the link.
const fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

/// The interface that has this address.
fn holder(interfaces: &Interfaces, address: IpAddr) -> Option<&str> {
    let has = |interface: &Interface| interface.addresses.iter().any(|net| net.addr() == address);
    interfaces.iter().find(|(_, interface)| has(interface)).map(|(name, _)| name.as_str())
}

mod credentials;
mod overlaps;
mod peers;
mod servers;
mod sides;
#[cfg(test)]
mod tests;
mod tunnels;
