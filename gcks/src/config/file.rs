//! What was typed: every key with its type, its default and its place, without any meaning yet.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use daemon::configuration::{
    Located, Place, Problem, Read, Table, choice, phase1_policy, pre_shared_key_source,
    state_key_source, traffic_selector,
};
use daemon::secrets::SecretSource;
use gdoi::config::{ByteOrder, Identity, Phase1Policy, ServerLimits};
use gdoi::group::{
    AddressPreservation, EncapsulationMode, GroupAssociatedPolicy, SaDirection, TrafficSelector,
};
use ipnet::IpNet;
use toml::de::DeValue;

use super::rekey;
use crate::config::tek_algorithm::{Encryption, Integrity};

/// UDP port of GDOI (RFC 6407 §2.2).
const PORT: u16 = 848;

/// Shortest life of a TEK: a member needs time to pull the next one before the end.
const SHORTEST_TEK: Duration = Duration::from_secs(30);
const LONGEST_TEK: Duration = Duration::from_secs(30 * 86_400);
const DEFAULT_TEK: Duration = Duration::from_secs(3600);

/// The whole file. What is wrong in it has been noted.
pub struct File {
    pub(super) control_socket: PathBuf,
    pub(super) listen: Vec<Located<IpAddr>>,
    pub(super) port: u16,
    pub(super) identity: Option<Identity>,
    pub(super) legacy: bool,
    pub(super) phase1: Phase1Policy,
    pub(super) group_id_byte_order: ByteOrder,
    pub(super) limits: ServerLimits,
    pub(super) state_directory: PathBuf,
    pub(super) state_key: Option<Located<SecretSource>>,
    pub(super) members: Vec<Member>,
    pub(super) groups: Vec<Group>,
}

/// One `[[member]]`.
pub struct Member {
    pub(super) name: Option<Located<String>>,
    pub(super) address: Option<Located<IpNet>>,
    pub(super) identity: Option<Located<Identity>>,
    pub(super) pre_shared_key: Option<Located<SecretSource>>,
    pub(super) groups: Vec<Located<String>>,
}

/// One `[[group]]`.
pub struct Group {
    pub(super) place: Option<Place>,
    pub(super) name: Option<Located<String>>,
    pub(super) id: Option<Located<u32>>,
    pub(super) teks: Vec<Tek>,
    pub(super) gap: GroupAssociatedPolicy,
    pub(super) sender_id_bits: u16,
    pub(super) rekey: Option<rekey::File>,
}

/// One `[[group.tek]]`, with the group's defaults filled in.
pub struct Tek {
    pub(super) place: Option<Place>,
    pub(super) lifetime: Duration,
    pub(super) encryption: Option<Located<Encryption>>,
    pub(super) integrity: Option<Located<Integrity>>,
    pub(super) direction: SaDirection,
    pub(super) mode: EncapsulationMode,
    pub(super) address_preservation: AddressPreservation,
    pub(super) selectors: Vec<Located<TrafficSelector>>,
}

/// The keys that `[group.tek-defaults]` and `[[group.tek]]` share.
#[derive(Clone, Default)]
struct TekKeys {
    lifetime: Option<Duration>,
    encryption: Option<Located<Encryption>>,
    integrity: Option<Located<Integrity>>,
    direction: Option<Direction>,
    mode: Option<Mode>,
    address_preservation: Option<Preservation>,
}

#[derive(Clone, Copy)]
struct Direction(SaDirection);

impl Read for Direction {
    const EXAMPLE: &'static str = "\"symmetric\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let choices = [
            ("symmetric", SaDirection::SYMMETRIC),
            ("sender-only", SaDirection::SENDER_ONLY),
            ("receiver-only", SaDirection::RECEIVER_ONLY),
        ];
        choice(value, &choices).map(Self)
    }
}

#[derive(Clone, Copy)]
struct Mode(EncapsulationMode);

impl Read for Mode {
    const EXAMPLE: &'static str = "\"tunnel\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(
            value,
            &[("tunnel", EncapsulationMode::TUNNEL), ("transport", EncapsulationMode::TRANSPORT)],
        )
        .map(Self)
    }
}

#[derive(Clone, Copy)]
struct Preservation(AddressPreservation);

impl Read for Preservation {
    const EXAMPLE: &'static str = "\"both\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let choices = [
            ("both", AddressPreservation::SOURCE_AND_DESTINATION),
            ("source", AddressPreservation::SOURCE_ONLY),
            ("destination", AddressPreservation::DESTINATION_ONLY),
            ("none", AddressPreservation::NONE),
        ];
        choice(value, &choices).map(Self)
    }
}

#[derive(Clone, Copy)]
struct Order(ByteOrder);

impl Read for Order {
    const EXAMPLE: &'static str = "\"network\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(value, &[("network", ByteOrder::Network), ("host", ByteOrder::Host)]).map(Self)
    }
}

/// Reads the file's top-level table.
pub fn read(mut root: Table<'_>) -> File {
    let legacy = root.or("legacy", false);
    let file = File {
        control_socket: root.or("control-socket", PathBuf::from(::control::SERVER_SOCKET)),
        listen: listen(&mut root),
        port: root.bounded("port", 1..=u16::MAX, PORT),
        identity: root.optional("identity").map(|identity| identity.value),
        legacy,
        phase1: phase1_policy(root.table("ike"), legacy),
        group_id_byte_order: root.table("interoperability").map_or(ByteOrder::Network, byte_order),
        limits: root.table("limits").map_or_else(ServerLimits::default, limits),
        state_directory: root.or("state-directory", PathBuf::from("/var/lib/gcks")),
        state_key: state_key_source(&mut root),
        members: root.tables("member").into_iter().map(member).collect(),
        groups: root.tables("group").into_iter().map(group).collect(),
    };
    root.finish();
    file
}

fn listen(root: &mut Table<'_>) -> Vec<Located<IpAddr>> {
    if root.has("listen") {
        return root.required_list("listen");
    }
    // Asked for all the same, or the key would count as unknown.
    let _ = root.list::<IpAddr>("listen");
    vec![Located { value: IpAddr::V4(Ipv4Addr::UNSPECIFIED), place: 0..0 }]
}

fn byte_order(mut table: Table<'_>) -> ByteOrder {
    let order = table.or("group-id-byte-order", Order(ByteOrder::Network)).0;
    table.finish();
    order
}

fn limits(mut table: Table<'_>) -> ServerLimits {
    let usual = ServerLimits::default();
    let mut number = |key, most: u32, usual: usize| {
        let default = u32::try_from(usual).unwrap_or(most);
        usize::try_from(table.bounded(key, 1..=most, default)).unwrap_or(usual)
    };
    let half_open = number("half-open", 1_000_000, usual.half_open);
    let half_open_per_source = number("half-open-per-source", 1000, usual.half_open_per_source);
    let established = number("established", 1_000_000, usual.established);
    let half_open_timeout = table.duration(
        "half-open-timeout",
        Duration::from_secs(5)..=Duration::from_secs(300),
        usual.half_open_timeout,
    );
    table.finish();
    ServerLimits { half_open, half_open_per_source, half_open_timeout, established, ..usual }
}

fn member(mut table: Table<'_>) -> Member {
    let member = Member {
        name: table.required("name"),
        address: table.required("address"),
        identity: table.optional("identity"),
        pre_shared_key: pre_shared_key_source(&mut table),
        groups: table.required_list("groups"),
    };
    if !table.has("pre-shared-key-file") && !table.has("pre-shared-key-credential") {
        table.error(
            "member: no pre-shared key",
            "add pre-shared-key-file = \"/path/to/file\" or pre-shared-key-credential = \"name\"",
        );
    }
    table.finish();
    member
}

fn group(mut table: Table<'_>) -> Group {
    let defaults = table.table("tek-defaults").map(|mut table| {
        let keys = tek_keys(&mut table);
        table.finish();
        keys
    });
    let defaults = defaults.unwrap_or_default();
    let teks = table.tables("tek");
    if !table.has("tek") {
        table.error("group: no TEK", "add [[group.tek]] with [[group.tek.policy]]");
    }
    let group = Group {
        place: table.place(),
        name: table.required("name"),
        id: table.required("id"),
        teks: teks.into_iter().map(|table| tek(table, &defaults)).collect(),
        gap: table.table("gap").map_or_else(GroupAssociatedPolicy::default, gap),
        sender_id_bits: table.bounded("sender-id-bits", 8..=32, 16),
        rekey: table.table("rekey").map(rekey::read),
    };
    table.finish();
    group
}

fn gap(mut table: Table<'_>) -> GroupAssociatedPolicy {
    // The attributes are 16-bit numbers of seconds (RFC 6407 §5.4.1).
    let bounds = Duration::ZERO..=Duration::from_secs(u64::from(u16::MAX));
    let gap = GroupAssociatedPolicy {
        activation_time_delay: table.optional_duration("activation-time-delay", bounds.clone()),
        deactivation_time_delay: table.optional_duration("deactivation-time-delay", bounds),
    };
    if let (Some(activation), Some(deactivation)) =
        (gap.activation_time_delay, gap.deactivation_time_delay)
        && deactivation < activation
    {
        table.error(
            "group.gap: the old keys go before the new ones are used",
            "make deactivation-time-delay longer than activation-time-delay",
        );
    }
    table.finish();
    gap
}

fn tek_keys(table: &mut Table<'_>) -> TekKeys {
    TekKeys {
        lifetime: table.optional_duration("lifetime", SHORTEST_TEK..=LONGEST_TEK),
        encryption: table.optional("encryption"),
        integrity: table.optional("integrity"),
        direction: table.optional("direction").map(|direction| direction.value),
        mode: table.optional("mode").map(|mode| mode.value),
        address_preservation: table
            .optional("address-preservation")
            .map(|preservation| preservation.value),
    }
}

fn tek(mut table: Table<'_>, defaults: &TekKeys) -> Tek {
    let own = tek_keys(&mut table);
    let policies = table.tables("policy");
    if !table.has("policy") {
        table.error("group.tek: no policy", "add [[group.tek.policy]] with source and destination");
    }
    let encryption = own.encryption.or_else(|| defaults.encryption.clone());
    if encryption.is_none() && !table.has("encryption") {
        let remedy = "add encryption = \"aes-256-cbc\" here or in [group.tek-defaults]";
        table.error("group.tek: no encryption", remedy);
    }
    let tek = Tek {
        place: table.place(),
        lifetime: own.lifetime.or(defaults.lifetime).unwrap_or(DEFAULT_TEK),
        encryption,
        integrity: own.integrity.or_else(|| defaults.integrity.clone()),
        direction: own
            .direction
            .or(defaults.direction)
            .map_or(SaDirection::SYMMETRIC, |direction| direction.0),
        mode: own.mode.or(defaults.mode).map_or(EncapsulationMode::TUNNEL, |mode| mode.0),
        address_preservation: own
            .address_preservation
            .or(defaults.address_preservation)
            .map_or(AddressPreservation::SOURCE_AND_DESTINATION, |preservation| preservation.0),
        selectors: policies.into_iter().filter_map(policy).collect(),
    };
    table.finish();
    tek
}

fn policy(mut table: Table<'_>) -> Option<Located<TrafficSelector>> {
    let selector = traffic_selector(&mut table);
    let place = table.place().unwrap_or_default();
    table.finish();
    selector.map(|value| Located { value, place })
}
