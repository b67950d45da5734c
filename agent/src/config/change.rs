//! Two configurations compared: what differs, and what follows from each difference.
//!
//! A change is a value. The log prints it when it is made, `gdoictl reload member --dry-run`
//! before.

mod tunnels;

use std::fmt::{self, Display, Formatter};

use daemon::configuration::{Names, duration_text, name_of};
use gdoi::config::ByteOrder;
use xfrm::nft::SegmentSize;

use super::file::{
    ACKNOWLEDGEMENT_LENGTH, BYTE_ORDER, CLAMP, DF_BIT, FAILURE_POLICY, MODE, ON_EXIT,
};
use super::{Config, Group, LocalAddress};

/// One option that has another value, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose option it is.
    pub subject: Subject,
    /// Name of the option, as in the file.
    pub option: &'static str,
    /// Its value so far; `None` for one that was not set, or that is not told.
    pub before: Option<String>,
    pub after: Option<String>,
    pub consequence: Consequence,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The daemon as a whole.
    Agent,
    /// A group, by its name so far.
    Group(String),
    Gateway(String),
    Tunnel(String),
}

/// What follows from a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Kernel entries follow; nothing is sent.
    AtOnce,
    /// The group registers again.
    RegistersAgain,
    GroupAdded,
    GroupRemoved,
    /// Reqids and placeholder of the group are those of another place in the file.
    Moved,
    GatewayAdded,
    GatewayRemoved,
    /// Each tunnel of the gateway, which has a line of its own.
    TunnelsOfGateway,
    TunnelAdded,
    TunnelRemoved,
    TunnelRestarts,
    /// The tunnel's ISAKMP SA.
    ProvenAnew,
    /// Nothing, until the daemon is restarted.
    Restart,
}

impl Consequence {
    /// A stable name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "in-effect",
            Self::RegistersAgain => "registers-again",
            Self::GroupAdded => "group-added",
            Self::GroupRemoved => "group-removed",
            Self::Moved => "entries-replaced",
            Self::GatewayAdded => "gateway-added",
            Self::GatewayRemoved => "gateway-removed",
            Self::TunnelsOfGateway => "tunnels-of-gateway",
            Self::TunnelAdded => "tunnel-added",
            Self::TunnelRemoved => "tunnel-removed",
            Self::TunnelRestarts => "tunnel-restarts",
            Self::ProvenAnew => "proven-anew",
            Self::Restart => "restart-required",
        }
    }
}

impl Display for Consequence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtOnce => "in effect at once",
            Self::RegistersAgain => "registers again; keys in use stay until new ones come",
            Self::GroupAdded => "its prefixes are blocked, and it registers",
            Self::GroupRemoved => "its keys and blocks are removed",
            Self::Moved => "its kernel entries are replaced; packets under way may be lost",
            Self::GatewayAdded => "tunnels can use it",
            Self::GatewayRemoved => "no tunnel uses it",
            Self::TunnelsOfGateway => "its tunnels are negotiated again; others stay",
            Self::TunnelAdded => "its networks are blocked until its SAs are negotiated",
            Self::TunnelRemoved => {
                "its SAs are deleted, the peer is told, and its blocks are removed"
            }
            Self::TunnelRestarts => "its SAs are removed and negotiated again",
            Self::ProvenAnew => "counts from the next ISAKMP SA on; SAs stay",
            Self::Restart => "in effect after a restart; the value before stays",
        })
    }
}

impl Display for Subject {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent => f.write_str("member"),
            Self::Group(name) => write!(f, "group {name}"),
            Self::Gateway(name) => write!(f, "gateway {name}"),
            Self::Tunnel(name) => write!(f, "tunnel {name}"),
        }
    }
}

/// What differs between the configuration in use and another one, in the order of the file.
pub fn changes(before: &Config, after: &Config) -> Vec<Change> {
    let mut all = process_changes(before, after);
    for group in &before.groups {
        if !after.groups.iter().any(|other| other.id == group.id) {
            let name = Some(group.name.clone());
            all.push(whole(Subject::Group(group.name.clone()), name, None));
        }
    }
    for (slot, group) in after.groups.iter().enumerate() {
        let known = before.groups.iter().enumerate().find(|(_, other)| other.id == group.id);
        let Some((slot_before, known)) = known else {
            let name = Some(group.name.clone());
            all.push(whole(Subject::Group(group.name.clone()), None, name));
            continue;
        };
        let mut differences = Differences::of(Subject::Group(known.name.clone()));
        differences.compare_group(known, group);
        if slot != slot_before {
            let place = |slot: usize| slot.saturating_add(1).to_string();
            differences.add("place in the file", place(slot_before), place(slot));
            differences.follow(Consequence::Moved);
        }
        all.extend(differences.changes);
    }
    all.extend(tunnels::gateway_changes(before, after));
    all.extend(tunnels::tunnel_changes(before, after));
    all
}

fn process_changes(before: &Config, after: &Config) -> Vec<Change> {
    let mut differences = Differences::of(Subject::Agent);
    let path = |path: &std::path::Path| path.display().to_string();
    differences.add("control-socket", path(&before.control_socket), path(&after.control_socket));
    differences.add("local-port", before.local_port.to_string(), after.local_port.to_string());
    differences.untold("state-directory", before.state_file != after.state_file);
    let key = before.state_key != after.state_key || before.own_state_key != after.own_state_key;
    differences.untold("state key", key && before.state_file == after.state_file);
    differences.follow(Consequence::Restart);
    differences.changes
}

/// A whole table that came or went.
fn whole(subject: Subject, before: Option<String>, after: Option<String>) -> Change {
    let consequence = match (&subject, after.is_some()) {
        (Subject::Gateway(_), true) => Consequence::GatewayAdded,
        (Subject::Gateway(_), false) => Consequence::GatewayRemoved,
        (Subject::Tunnel(_), true) => Consequence::TunnelAdded,
        (Subject::Tunnel(_), false) => Consequence::TunnelRemoved,
        (_, true) => Consequence::GroupAdded,
        (_, false) => Consequence::GroupRemoved,
    };
    Change { subject, option: "name", before, after, consequence }
}

/// The changes of one subject.
struct Differences {
    subject: Subject,
    changes: Vec<Change>,
    /// How many of them have their consequence.
    followed: usize,
}

impl Differences {
    fn of(subject: Subject) -> Self {
        Self { subject, changes: Vec::new(), followed: 0 }
    }

    fn add(&mut self, option: &'static str, before: String, after: String) {
        if before != after {
            self.push(option, Some(before), Some(after));
        }
    }

    /// An option whose values are not told: a secret, or a whole table.
    fn untold(&mut self, option: &'static str, differs: bool) {
        if differs {
            self.push(option, None, None);
        }
    }

    fn push(&mut self, option: &'static str, before: Option<String>, after: Option<String>) {
        let (subject, consequence) = (self.subject.clone(), Consequence::AtOnce);
        self.changes.push(Change { subject, option, before, after, consequence });
    }

    /// What follows from all that was added since the last call.
    fn follow(&mut self, consequence: Consequence) {
        let new = self.changes.iter_mut().skip(self.followed);
        new.for_each(|change| change.consequence = consequence);
        self.followed = self.changes.len();
    }

    fn compare_group(&mut self, before: &Group, after: &Group) {
        // All fields are named, so that none is forgotten.
        let Group {
            name,
            id: _,
            local,
            lan,
            wan,
            protected,
            exclude,
            fail_open,
            failure_policy,
            mode,
            on_exit,
            identity,
            servers,
            phase1,
            retransmission,
            group_id_byte_order,
            selector_byte_order,
            counter_mode_send,
            legacy,
            dont_fragment,
            segment_size,
            recovery_probe,
            policy_priority,
            placeholder,
            acknowledgement_length,
            acknowledgement_jitter,
            multicast_interface,
        } = before;
        self.add("name", name.clone(), after.name.clone());
        self.add("lan", list(lan), list(&after.lan));
        self.add("wan", list(wan), list(&after.wan));
        self.add("protected", list(protected), list(&after.protected));
        self.names("mode", (mode, &after.mode), MODE);
        self.names("failure-policy", (failure_policy, &after.failure_policy), FAILURE_POLICY);
        self.names("on-exit", (on_exit, &after.on_exit), ON_EXIT);
        self.flag("counter-mode-send", *counter_mode_send, after.counter_mode_send);
        self.names("df-bit", (dont_fragment, &after.dont_fragment), DF_BIT);
        self.add("mss-clamp", clamp(segment_size), clamp(&after.segment_size));
        self.flag("recovery-probe", *recovery_probe, after.recovery_probe);
        let priority = (policy_priority.to_string(), after.policy_priority.to_string());
        self.add("policy-priority", priority.0, priority.1);
        self.untold("exclude", *exclude != after.exclude);
        self.untold("fail-open", *fail_open != after.fail_open);
        let jitter = (*acknowledgement_jitter, after.acknowledgement_jitter);
        let jitter = (duration_text(jitter.0), duration_text(jitter.1));
        self.add("rekey.acknowledgement-jitter", jitter.0, jitter.1);
        let interface = |name: &Option<String>| name.clone().unwrap_or_else(|| "its own".into());
        let multicast = (interface(multicast_interface), interface(&after.multicast_interface));
        self.add("rekey.multicast-interface", multicast.0, multicast.1);
        self.follow(Consequence::AtOnce);
        self.add("placeholder", placeholder.to_string(), after.placeholder.to_string());
        self.follow(Consequence::Moved);
        self.add("local-address", local_text(local), local_text(&after.local));
        self.untold("identity", *identity != after.identity);
        let addresses = |group: &Group| list(&group.server_addresses());
        self.add("server.address", addresses(before), addresses(after));
        let same_addresses = addresses(before) == addresses(after);
        let key_or_identity = *servers != after.servers && same_addresses;
        self.untold("server", key_or_identity);
        self.untold("ike", *phase1 != after.phase1);
        self.untold("retransmission", *retransmission != after.retransmission);
        let orders = (group_id_byte_order, &after.group_id_byte_order);
        self.names::<ByteOrder>("interoperability.group-id-byte-order", orders, BYTE_ORDER);
        let orders = (selector_byte_order, &after.selector_byte_order);
        self.names::<ByteOrder>("interoperability.selector-byte-order", orders, BYTE_ORDER);
        let lengths = (acknowledgement_length, &after.acknowledgement_length);
        self.names("rekey.acknowledgement-length", lengths, ACKNOWLEDGEMENT_LENGTH);
        self.flag("legacy", *legacy, after.legacy);
        self.follow(Consequence::RegistersAgain);
    }

    fn names<T: PartialEq>(
        &mut self,
        option: &'static str,
        (before, after): (&T, &T),
        names: Names<T>,
    ) {
        self.add(option, name_of(before, names), name_of(after, names));
    }

    fn flag(&mut self, option: &'static str, before: bool, after: bool) {
        self.add(option, before.to_string(), after.to_string());
    }
}

fn list<T: Display>(values: &[T]) -> String {
    match values {
        [] => String::from("none"),
        _ => values.iter().map(T::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn clamp(size: &SegmentSize) -> String {
    match size {
        SegmentSize::AtMost(octets) => octets.to_string(),
        named => name_of(named, CLAMP),
    }
}

fn local_text(local: &LocalAddress) -> String {
    match local {
        LocalAddress::Address(address) => address.to_string(),
        LocalAddress::Interface(name) => name.clone(),
    }
}
