//! First step: the file as it was typed. Every value has its place; nothing is decided here.

use core::net::IpAddr;
use core::time::Duration;
use std::path::PathBuf;

use daemon::configuration::{
    Located, Place, Problem, Read, Table, choice, phase1_policy, pre_shared_key_source,
    state_key_source, traffic_selector,
};
use daemon::secrets::SecretSource;
use gdoi::config::{ByteOrder, Identity, Phase1Policy, RetransmissionPolicy};
use gdoi::group::TrafficSelector;
use gdoi::push::AcknowledgementLength;
use ipnet::IpNet;
use policies::{FailurePolicy, Mode};
use toml::de::DeValue;
use xfrm::nft::{DontFragment, SegmentSize};

use super::{CONTROL_SOCKET, GDOI_PORT, OnExit};
use crate::membership::pending_ack::{JITTER, LONGEST_JITTER};

/// IFNAMSIZ less the terminating zero.
const LONGEST_INTERFACE_NAME: usize = 15;

/// The whole file.
#[derive(Debug)]
pub struct File {
    /// `control-socket`.
    pub control_socket: PathBuf,
    /// `state-directory`.
    pub state_directory: Option<PathBuf>,
    /// `state-key-file` or `state-key-credential`.
    pub state_key: Option<Located<SecretSource>>,
    /// `local-port`.
    pub local_port: u16,
    /// `[[group]]`.
    pub groups: Vec<Group>,
}

/// One `[[group]]`. What is missing or wrong is `None` and noted already.
#[derive(Debug)]
pub struct Group {
    /// Where it begins.
    pub place: Option<Place>,
    /// `name`.
    pub name: Option<Located<String>>,
    /// `id`.
    pub id: Option<Located<u32>>,
    /// `local-address`.
    pub local: Option<Located<String>>,
    /// `lan`.
    pub lan: Vec<Located<String>>,
    /// `wan`.
    pub wan: Vec<Located<String>>,
    /// `protected`.
    pub protected: Vec<Located<IpNet>>,
    /// `[[group.exclude]]`.
    pub exclude: Vec<Located<TrafficSelector>>,
    /// `[[group.fail-open]]`.
    pub fail_open: Vec<Located<TrafficSelector>>,
    /// `failure-policy`.
    pub failure_policy: FailurePolicy,
    /// `mode`.
    pub mode: Mode,
    /// `on-exit`.
    pub on_exit: OnExit,
    /// `identity`.
    pub identity: Option<Located<Identity>>,
    /// `pre-shared-key-file` or `pre-shared-key-credential`.
    pub pre_shared_key: Option<Located<SecretSource>>,
    /// `[[group.server]]`.
    pub servers: Vec<Server>,
    /// `[group.ike]`.
    pub phase1: Phase1Policy,
    /// `[group.retransmission]`.
    pub retransmission: RetransmissionPolicy,
    /// `[group.interoperability]`.
    pub group_id_byte_order: ByteOrder,
    /// `counter-mode-send`.
    pub counter_mode_send: bool,
    /// `legacy`.
    pub legacy: bool,
    /// `df-bit`.
    pub dont_fragment: DontFragment,
    /// `mss-clamp`.
    pub segment_size: SegmentSize,
    /// `recovery-probe`.
    pub recovery_probe: bool,
    /// `placeholder`.
    pub placeholder: Option<Located<IpAddr>>,
    /// `[group.rekey]`.
    pub rekey: Rekey,
}

/// `[group.rekey]`.
#[derive(Debug)]
pub struct Rekey {
    /// `acknowledgement-length`.
    pub acknowledgement_length: AcknowledgementLength,
    /// `acknowledgement-jitter`.
    pub acknowledgement_jitter: Duration,
    /// `multicast-interface`.
    pub multicast_interface: Option<Located<String>>,
}

/// One `[[group.server]]`.
#[derive(Debug)]
pub struct Server {
    /// Where it begins.
    pub place: Option<Place>,
    /// `address`.
    pub address: Option<Located<IpAddr>>,
    /// `port`.
    pub port: u16,
    /// `identity`.
    pub identity: Option<Located<Identity>>,
    /// Overrides the group's key.
    pub pre_shared_key: Option<Located<SecretSource>>,
    /// Whether a key of its own was named, right or wrong.
    pub names_key: bool,
}

impl File {
    /// Reads the top level.
    pub fn read(mut root: Table<'_>) -> Self {
        let control_socket = root.or("control-socket", PathBuf::from(CONTROL_SOCKET));
        let state_directory = root.optional::<PathBuf>("state-directory").map(|path| path.value);
        let state_key = state_key_source(&mut root);
        let local_port = root.bounded("local-port", 1..=u16::MAX, GDOI_PORT);
        let place = root.place_of("group");
        let tables = root.tables("group");
        if tables.is_empty() && place.is_none() {
            root.error("there is no group", "add a [[group]] table as in the example file");
        }
        let groups = tables.into_iter().map(Group::read).collect();
        root.finish();
        Self { control_socket, state_directory, state_key, local_port, groups }
    }
}

impl Group {
    fn read(mut table: Table<'_>) -> Self {
        let legacy = table.or("legacy", false);
        let group = Self {
            place: table.place(),
            name: table.required("name"),
            id: table.required("id"),
            local: table.required("local-address"),
            lan: interfaces(lans(&mut table)),
            wan: interfaces(table.required_list("wan")),
            protected: table.required_list("protected"),
            exclude: table.tables("exclude").into_iter().filter_map(exclude).collect(),
            fail_open: table.tables("fail-open").into_iter().filter_map(exclude).collect(),
            failure_policy: table.or("failure-policy", Failure(FailurePolicy::Close)).0,
            mode: table.or("mode", GroupMode(Mode::Normal)).0,
            on_exit: table.or("on-exit", OnExit::Block),
            identity: table.optional("identity"),
            pre_shared_key: pre_shared_key_source(&mut table),
            servers: servers(&mut table),
            phase1: phase1_policy(table.table("ike"), legacy),
            retransmission: retransmission(table.table("retransmission")),
            group_id_byte_order: byte_order(table.table("interoperability")),
            counter_mode_send: table.or("counter-mode-send", false),
            legacy,
            dont_fragment: table.or("df-bit", Df(DontFragment::Clear)).0,
            segment_size: table.or("mss-clamp", Clamp(SegmentSize::Unchanged)).0,
            recovery_probe: table.or("recovery-probe", false),
            placeholder: table.optional("placeholder"),
            rekey: rekey(table.table("rekey")),
        };
        table.finish();
        group
    }

    /// The name for messages.
    pub fn label(&self) -> &str {
        self.name.as_ref().map_or("?", |name| name.as_str())
    }
}

/// The list must be there, and may be empty: a machine that is its own only host.
fn lans(table: &mut Table<'_>) -> Vec<Located<InterfaceName>> {
    match table.has("lan") {
        true => table.list("lan").unwrap_or_default(),
        false => table.required_list("lan"),
    }
}

fn interfaces(names: Vec<Located<InterfaceName>>) -> Vec<Located<String>> {
    names.into_iter().map(|name| name.map(|name| name.0)).collect()
}

fn servers(table: &mut Table<'_>) -> Vec<Server> {
    let named = table.has("server");
    let servers: Vec<Server> = table.tables("server").into_iter().map(Server::read).collect();
    if !named {
        table.error("the group has no key server", "add a [[group.server]] table with its address");
    }
    servers
}

impl Server {
    fn read(mut table: Table<'_>) -> Self {
        let names_key = table.has("pre-shared-key-file") || table.has("pre-shared-key-credential");
        let server = Self {
            place: table.place(),
            address: table.required("address"),
            port: table.bounded("port", 1..=u16::MAX, GDOI_PORT),
            identity: table.optional("identity"),
            pre_shared_key: pre_shared_key_source(&mut table),
            names_key,
        };
        table.finish();
        server
    }
}

fn exclude(mut table: Table<'_>) -> Option<Located<TrafficSelector>> {
    let place = table.place().unwrap_or_default();
    let selector = traffic_selector(&mut table);
    table.finish();
    Some(Located { value: selector?, place })
}

fn retransmission(table: Option<Table<'_>>) -> RetransmissionPolicy {
    let default = RetransmissionPolicy::default();
    let Some(mut table) = table else { return default };
    let seconds = Duration::from_secs;
    let policy = RetransmissionPolicy {
        initial: table.duration("initial", seconds(1)..=seconds(60), default.initial),
        maximum: table.duration("maximum", seconds(1)..=seconds(300), default.maximum),
        repetitions: table.bounded("repetitions", 0..=20, default.repetitions),
    };
    if policy.maximum < policy.initial {
        table.error(
            format!("{} is shorter than {}", table.key_path("maximum"), table.key_path("initial")),
            "make maximum at least as long as initial",
        );
    }
    table.finish();
    policy
}

fn rekey(table: Option<Table<'_>>) -> Rekey {
    let Some(mut table) = table else {
        return Rekey {
            acknowledgement_length: AcknowledgementLength::default(),
            acknowledgement_jitter: JITTER,
            multicast_interface: None,
        };
    };
    let interface: Option<Located<InterfaceName>> = table.optional("multicast-interface");
    let rekey = Rekey {
        acknowledgement_length: table
            .or("acknowledgement-length", Length(AcknowledgementLength::Block))
            .0,
        acknowledgement_jitter: table.duration(
            "acknowledgement-jitter",
            Duration::ZERO..=LONGEST_JITTER,
            JITTER,
        ),
        multicast_interface: interface.map(|name| name.map(|name| name.0)),
    };
    table.finish();
    rekey
}

fn byte_order(table: Option<Table<'_>>) -> ByteOrder {
    let Some(mut table) = table else { return ByteOrder::Network };
    let order = table.or("group-id-byte-order", Order(ByteOrder::Network)).0;
    table.finish();
    order
}

/// Name of a network interface.
struct InterfaceName(String);

impl Read for InterfaceName {
    const EXAMPLE: &'static str = "\"eth0\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let name = String::read(value)?;
        if name.len() > LONGEST_INTERFACE_NAME
            || name.contains(|c: char| c == '/' || c.is_whitespace())
            || name.strip_suffix('*').unwrap_or(&name).contains('*')
            || name == "*"
        {
            let remedy = format!(
                "write a name that `ip link` shows, of at most {LONGEST_INTERFACE_NAME} octets, or \
                 the beginning of such names with a * behind it"
            );
            return Err(Problem::new(format!("\"{name}\" cannot be an interface"), remedy));
        }
        Ok(Self(name))
    }
}

impl Read for OnExit {
    const EXAMPLE: &'static str = "\"block\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(value, &[("block", Self::Block), ("keep", Self::Keep), ("remove", Self::Remove)])
    }
}

/// A word of the file for a type of another crate.
struct Df(DontFragment);

impl Read for Df {
    const EXAMPLE: &'static str = "\"clear\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let choices = [
            ("clear", DontFragment::Clear),
            ("copy", DontFragment::Copy),
            ("set", DontFragment::Set),
        ];
        choice(value, &choices).map(Self)
    }
}

/// A word of the file for a type of another crate.
struct Length(AcknowledgementLength);

impl Read for Length {
    const EXAMPLE: &'static str = "\"printed\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let choices = [
            ("printed", AcknowledgementLength::Block),
            ("output", AcknowledgementLength::Output),
            ("key", AcknowledgementLength::Key),
        ];
        choice(value, &choices).map(Self)
    }
}

/// Smallest and largest segment size that makes sense (RFC 9293 §3.7.1).
const SEGMENT_SIZES: core::ops::RangeInclusive<u16> = 536..=8_960;

/// A word or a number of the file for a type of another crate.
struct Clamp(SegmentSize);

impl Read for Clamp {
    const EXAMPLE: &'static str = "\"path\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        if matches!(value, DeValue::Integer(_)) {
            let octets = u16::read(value)?;
            return match SEGMENT_SIZES.contains(&octets) {
                true => Ok(Self(SegmentSize::AtMost(octets))),
                false => {
                    let (least, most) = (SEGMENT_SIZES.start(), SEGMENT_SIZES.end());
                    let message = format!("{octets} octets are no segment size");
                    Err(Problem::new(
                        message,
                        format!("write a number from {least} to {most}, or \"path\""),
                    ))
                }
            };
        }
        choice(value, &[("off", SegmentSize::Unchanged), ("path", SegmentSize::Path)]).map(Self)
    }
}

/// A word of the file for a type of another crate.
struct Failure(FailurePolicy);

impl Read for Failure {
    const EXAMPLE: &'static str = "\"close\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(value, &[("close", FailurePolicy::Close), ("open", FailurePolicy::Open)]).map(Self)
    }
}

/// A word of the file for a type of another crate.
struct GroupMode(Mode);

impl Read for GroupMode {
    const EXAMPLE: &'static str = "\"normal\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let choices = [
            ("normal", Mode::Normal),
            ("receive-only", Mode::ReceiveOnly),
            ("passive", Mode::Passive),
        ];
        choice(value, &choices).map(Self)
    }
}

/// A word of the file for a type of another crate.
struct Order(ByteOrder);

impl Read for Order {
    const EXAMPLE: &'static str = "\"network\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(value, &[("network", ByteOrder::Network), ("host", ByteOrder::Host)]).map(Self)
    }
}
