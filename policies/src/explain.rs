//! Which traffic is encrypted, passes or is dropped, in an operator's terms: for `gdoictl show
//! member policy`.

use gdoi::group::{SaDirection, Spi, TrafficSelector};

use crate::group::{FailurePolicy, GroupInput, GroupState, InstalledTek, Mode};
use crate::sa_tek::{self, SaTek};
use crate::selector::describe;

/// Beyond this number of protected prefixes, the listing has one line per prefix instead of one per
/// pair.
const MOST_PROTECTED_IN_PAIRS: usize = 64;

/// What happens to the traffic of a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Encrypted with the group's key.
    Secure,
    /// Passes in clear because the configuration says so.
    Exclude,
    /// Passes in clear to a key server.
    Local,
    /// Passes in clear while there is no valid key.
    FailOpen,
    /// Dropped while there is no valid key.
    FailClose,
}

/// One line, in the order in which lines apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLine {
    /// Whether it is encrypted, passes or is dropped.
    pub kind: Kind,
    /// Source: prefix, address, range or `any`.
    pub source: String,
    /// Destination: prefix, address, range or `any`.
    pub destination: String,
    /// IP protocol, 0 for any.
    pub protocol: u8,
    /// Source port, 0 for any.
    pub source_port: u16,
    /// Destination port, 0 for any.
    pub destination_port: u16,
    /// The TEK of a secure line.
    pub spi: Option<Spi>,
    /// The origin of the line, such as a configuration option, and what deserves a remark.
    pub note: String,
}

impl PolicyLine {
    fn of(kind: Kind, selector: &TrafficSelector, spi: Option<Spi>, note: String) -> Self {
        Self {
            kind,
            source: describe(&selector.source),
            destination: describe(&selector.destination),
            protocol: selector.protocol,
            source_port: selector.source_port,
            destination_port: selector.destination_port,
            spi,
            note,
        }
    }
}

/// The lines of one group. A group that cannot be compiled is explained by its error instead.
pub fn explain(group: &GroupInput<'_>) -> Vec<PolicyLine> {
    let mut lines = Vec::new();
    for server in group
        .zones
        .local
        .iter()
        .flat_map(|local| group.servers.iter().map(move |server| (local, server)))
    {
        let (local, server) = server;
        lines.push(PolicyLine {
            kind: Kind::Local,
            source: local.to_string(),
            destination: server.ip().to_string(),
            protocol: 17,
            source_port: 0,
            destination_port: server.port(),
            spi: None,
            note: "key server, and back".to_owned(),
        });
    }
    for rule in &group.exclude {
        lines.push(PolicyLine::of(Kind::Exclude, rule, None, "exclude rule".to_owned()));
    }
    let keyless = !matches!(group.state, GroupState::Keyed(_));
    let opens =
        group.options.failure == FailurePolicy::Open || group.options.mode == Mode::ReceiveOnly;
    let without_key = if opens { Kind::FailOpen } else { Kind::FailClose };
    for rule in &group.fail_open {
        let note = if keyless {
            "no valid key: passes in clear"
        } else {
            "only while there is no valid key"
        };
        lines.push(PolicyLine::of(Kind::FailOpen, rule, None, note.to_owned()));
    }
    let usable = sa_tek::of_group(group).is_ok() && group.zones.local.is_some();
    match &group.state {
        GroupState::NoKey => {}
        GroupState::Expired(policies) => lines.extend(policies.iter().map(|policy| {
            let kind = if without_key == Kind::FailOpen { Kind::FailOpen } else { Kind::FailClose };
            PolicyLine::of(
                kind,
                &policy.selector,
                Some(policy.spi),
                "expired: no valid key".to_owned(),
            )
        })),
        GroupState::Keyed(teks) => lines.extend(teks.iter().map(|tek| {
            let (kind, note) = if usable {
                note(tek, group)
            } else {
                (Kind::FailClose, "no local address".to_owned())
            };
            PolicyLine::of(kind, &tek.policy.selector, Some(tek.policy.spi), note)
        })),
    }
    // One line per prefix; one per pair would be thousands.
    let many = group.protected.len() > MOST_PROTECTED_IN_PAIRS;
    let any = many.then(|| "any protected prefix".to_owned());
    for source in &group.protected {
        let pairs = group.protected.iter().map(|destination| destination.trunc().to_string());
        for destination in pairs.take(if many { 0 } else { usize::MAX }).chain(any.clone()) {
            lines.push(PolicyLine {
                kind: if keyless || group.options.mode == Mode::ReceiveOnly {
                    without_key
                } else {
                    Kind::FailClose
                },
                source: source.trunc().to_string(),
                destination,
                protocol: 0,
                source_port: 0,
                destination_port: 0,
                spi: None,
                note: "protected prefixes, whatever no line above covers".to_owned(),
            });
        }
    }
    lines
}

fn note(tek: &InstalledTek<'_>, group: &GroupInput<'_>) -> (Kind, String) {
    let direction = match tek.policy.protection.direction {
        SaDirection::SENDER_ONLY => "sender only",
        SaDirection::RECEIVER_ONLY => "receiver only",
        _ => "both directions",
    };
    let suite = sa_tek::offered(std::slice::from_ref(tek.policy), &group.options);
    let counter_mode =
        suite.is_ok_and(|teks| teks.iter().any(|tek: &SaTek<'_>| tek.suite.is_counter_mode()));
    match group.options.mode {
        Mode::Normal => {}
        Mode::ReceiveOnly => {
            return (
                Kind::Secure,
                format!("{direction}; receive-only mode: sends in clear, takes both"),
            );
        }
        Mode::Passive => {
            return (Kind::Secure, format!("{direction}; passive mode: sends ESP, takes both"));
        }
    }
    let use_now = match (tek.send, tek.receive) {
        (true, _) if counter_mode && !group.options.counter_mode_send => {
            "receives only: sending in counter mode needs counter-mode-send, until then packets are dropped"
        }
        (true, true) => "sends and receives",
        (true, false) => "sends only",
        (false, true) => "receives only, another key sends or will send",
        (false, false) => return (Kind::FailClose, format!("{direction}; no valid key")),
    };
    (Kind::Secure, format!("{direction}; {use_now}"))
}
