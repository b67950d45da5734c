//! Two configurations compared: what differs, and what follows from each difference.
//!
//! A change is a value. The log prints it when it is made, `gdoictl reload member --dry-run`
//! before.

mod tunnels;

use std::fmt::{self, Display, Formatter};

use daemon::configuration::{Declaration, Name};

use super::file::{File, Group as GroupTable, Interoperability, Rekey, Server as ServerTable};
use super::tunnel::{GatewayTable, TunnelTable};
use super::{Config, Group, LocalAddress};

/// A group's table stands at another place in the file.
const PLACE: Name = Name::new("place in the file");

/// One option that has another value, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose option it is.
    pub subject: Subject,
    /// Name of the option, as in the file.
    pub option: Name,
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
    /// The tunnel's next ISAKMP SA is authenticated with it.
    NextIsakmpSa,
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
            Self::NextIsakmpSa => "next-isakmp-sa",
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
            Self::NextIsakmpSa => "in effect with the next ISAKMP SA; SAs in use stay",
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
            differences.add(PLACE, place(slot_before), place(slot));
            differences.follow(Consequence::Moved);
        }
        all.extend(differences.changes);
    }
    all.extend(tunnels::gateway_changes(before, after));
    all.extend(tunnels::tunnel_changes(before, after));
    all
}

fn process_changes(before: &Config, after: &Config) -> Vec<Change> {
    let Config {
        control_socket,
        state_file,
        state_key,
        own_state_key,
        local_port,
        groups: _,
        gateways: _,
        tunnels: _,
        certificates: _,
    } = before;
    let mut differences = Differences::of(Subject::Agent);
    differences.value(&File::control_socket(), None, (control_socket, &after.control_socket));
    differences.value(&File::local_port(), None, (local_port, &after.local_port));
    let same_file = *state_file == after.state_file;
    differences.untold(File::state_directory().name(), !same_file);
    differences.untold(File::state_key().name(), *state_key != after.state_key);
    let keeps = |config: &Config| config.state_key.is_some() || config.own_state_key.is_some();
    if same_file && *state_key == after.state_key && *own_state_key != after.own_state_key {
        differences.value(&File::keep_keys(), None, (&keeps(before), &keeps(after)));
    }
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
    let option = match &subject {
        Subject::Gateway(_) => GatewayTable::name().name(),
        Subject::Tunnel(_) => TunnelTable::name().name(),
        Subject::Agent | Subject::Group(_) => GroupTable::name().name(),
    };
    Change { subject, option, before, after, consequence }
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

    /// Compares values of the declared type.
    fn value<V>(
        &mut self,
        option: &impl Declaration<V>,
        table: Option<Name>,
        (before, after): (&V, &V),
    ) {
        let name = table.map_or(option.name(), |table| option.name().inside(table));
        self.add(name, option.text(before), option.text(after));
    }

    fn add(&mut self, option: Name, before: String, after: String) {
        if before != after {
            self.push(option, Some(before), Some(after));
        }
    }

    /// An option whose values are not told: a secret, or a whole table.
    fn untold(&mut self, option: Name, differs: bool) {
        if differs {
            self.push(option, None, None);
        }
    }

    fn push(&mut self, option: Name, before: Option<String>, after: Option<String>) {
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
        type Table = GroupTable;
        self.add(Table::name().name(), name.clone(), after.name.clone());
        self.add(Table::lan().name(), list(lan), list(&after.lan));
        self.add(Table::wan().name(), list(wan), list(&after.wan));
        self.add(Table::protected().name(), list(protected), list(&after.protected));
        self.value(&Table::mode(), None, (mode, &after.mode));
        self.value(&Table::failure_policy(), None, (failure_policy, &after.failure_policy));
        self.value(&Table::on_exit(), None, (on_exit, &after.on_exit));
        let sends = (counter_mode_send, &after.counter_mode_send);
        self.value(&Table::counter_mode_send(), None, sends);
        self.value(&Table::dont_fragment(), None, (dont_fragment, &after.dont_fragment));
        self.value(&Table::segment_size(), None, (segment_size, &after.segment_size));
        self.value(&Table::recovery_probe(), None, (recovery_probe, &after.recovery_probe));
        self.value(&File::policy_priority(), None, (policy_priority, &after.policy_priority));
        self.untold(Table::exclude().name(), *exclude != after.exclude);
        self.untold(Table::fail_open().name(), *fail_open != after.fail_open);
        let rekey = Table::rekey().name();
        let jitters = (acknowledgement_jitter, &after.acknowledgement_jitter);
        self.value(&Rekey::acknowledgement_jitter(), Some(rekey), jitters);
        let interface = |name: &Option<String>| name.clone().unwrap_or_else(|| "its own".into());
        let interfaces = (interface(multicast_interface), interface(&after.multicast_interface));
        let option = Rekey::multicast_interface().name().inside(rekey);
        self.add(option, interfaces.0, interfaces.1);
        self.follow(Consequence::AtOnce);
        let placeholders = (placeholder.to_string(), after.placeholder.to_string());
        self.add(Table::placeholder().name(), placeholders.0, placeholders.1);
        self.follow(Consequence::Moved);
        self.add(Table::local().name(), local_text(local), local_text(&after.local));
        self.untold(Table::identity().name(), *identity != after.identity);
        let addresses = |group: &Group| list(&group.server_addresses());
        let same_addresses = addresses(before) == addresses(after);
        let server = Table::servers().name();
        let option = ServerTable::address().name().inside(server);
        self.add(option, addresses(before), addresses(after));
        self.untold(server, *servers != after.servers && same_addresses);
        self.untold(Table::ike().name(), *phase1 != after.phase1);
        self.untold(Table::retransmission().name(), *retransmission != after.retransmission);
        let interoperability = Some(Table::interoperability().name());
        let orders = (group_id_byte_order, &after.group_id_byte_order);
        self.value(&Interoperability::group_id_byte_order(), interoperability, orders);
        let orders = (selector_byte_order, &after.selector_byte_order);
        self.value(&Interoperability::selector_byte_order(), interoperability, orders);
        let lengths = (acknowledgement_length, &after.acknowledgement_length);
        self.value(&Rekey::acknowledgement_length(), Some(rekey), lengths);
        self.value(&Table::legacy(), None, (legacy, &after.legacy));
        self.follow(Consequence::RegistersAgain);
    }
}

fn list<T: Display>(values: &[T]) -> String {
    match values {
        [] => String::from("none"),
        _ => values.iter().map(T::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn local_text(local: &LocalAddress) -> String {
    match local {
        LocalAddress::Address(address) => address.to_string(),
        LocalAddress::Interface(name) => name.clone(),
    }
}
