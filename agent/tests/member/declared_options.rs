//! Every option that is declared, changed alone: a dry run of a reload names it, and what follows
//! is what the manual page says.

use std::collections::BTreeMap;

use agent::config::change::{Consequence, changes};
use agent::config::check::{Machine, parse};
use agent::config::{Config, file};
use daemon::configuration::Applies;
use daemon::secrets::SecretSource;
use ike::crypto::Secret;
use testing::member::{IKE, STATE_KEY, configuration, interfaces};

/// A group, a gateway and two tunnels.
fn text() -> String {
    let group = format!(
        "{IKE}[group.retransmission]\n[group.rekey]\n[group.interoperability]\n\
         [[group.exclude]]\nsource = \"any\"\ndestination = \"224.0.0.5\"\nprotocol = 17\n\
         [[group.fail-open]]\nsource = \"172.16.0.0/12\"\ndestination = \"172.16.9.1\"\n\
         protocol = 17\n"
    );
    let tunnels = "[[gateway]]\nname = \"cloud\"\n[[gateway]]\nname = \"other\"\n\
         [[tunnel]]\nname = \"cloud-1\"\ngateway = \"cloud\"\nlocal-address = \"10.0.1.1\"\n\
         peer = \"203.0.113.1\"\nlocal-networks = [\"192.168.1.0/24\"]\n\
         remote-networks = [\"192.168.2.0/24\"]\npre-shared-key-file = \"/tunnel\"\nprotocol = 6\n";
    let head = "state-directory = \"/state\"\n";
    format!("{head}{}{tunnels}", configuration(1, &group))
}

/// What the agent makes of a text, with secrets that differ as the names of their files do.
fn configured(text: &str) -> Result<Config, String> {
    let secret = |source: &SecretSource| {
        let name = source.to_string().repeat(8);
        Ok(Secret::copy_from(name.as_bytes()))
    };
    let state_key = |_: &SecretSource| Ok(Secret::copy_from(&STATE_KEY));
    let interfaces = interfaces();
    let machine = Machine {
        interfaces: Some(&interfaces),
        secret: &secret,
        state_key: &state_key,
        ..Machine::this(None)
    };
    let loaded = parse("test", text, &machine).map_err(|report| report.to_string());
    Ok(loaded?.value)
}

/// The declared option, from, to, and the option that is named. Nothing is the beginning.
const ROWS: &[(&str, &str, &str, &str)] = &[
    ("control-socket", "", "control-socket = \"/run/x.sock\"\n", "control-socket"),
    ("state-directory", "\"/state\"", "\"/other\"", "state-directory"),
    ("keep-keys", "", "keep-keys = false\n", "keep-keys"),
    ("state-key-file", "", "state-key-file = \"/key\"\n", "state-key"),
    ("local-port", "", "local-port = 1848\n", "local-port"),
    ("policy-priority", "", "policy-priority = 5000000\n", "policy-priority"),
    ("group.name", "branches", "offices", "name"),
    ("group.id", "1111", "2222", "name"),
    ("group.local-address", "\"wan\"\nlan", "\"10.0.1.1\"\nlan", "local-address"),
    ("group.lan", "lan = [\"lan\"]", "lan = [\"lan\", \"lan1\"]", "lan"),
    ("group.wan", "wan = [\"wan\"]", "wan = [\"wan\", \"wan1\"]", "wan"),
    ("group.protected", "16.0.0/12\"]", "16.0.0/12\", \"172.48.0.0/16\"]", "protected"),
    ("group.on-exit", "id = 1111\n", "id = 1111\non-exit = \"keep\"\n", "on-exit"),
    (
        "group.failure-policy",
        "id = 1111\n",
        "id = 1111\nfailure-policy = \"open\"\n",
        "failure-policy",
    ),
    ("group.mode", "id = 1111\n", "id = 1111\nmode = \"passive\"\n", "mode"),
    ("group.identity", "id = 1111\n", "id = 1111\nidentity = { fqdn = \"g1\" }\n", "identity"),
    ("group.pre-shared-key-file", "/psk", "/other", "server"),
    (
        "group.counter-mode-send",
        "id = 1111\n",
        "id = 1111\ncounter-mode-send = true\n",
        "counter-mode-send",
    ),
    ("group.legacy", "id = 1111\n", "id = 1111\nlegacy = true\n", "legacy"),
    ("group.df-bit", "id = 1111\n", "id = 1111\ndf-bit = \"copy\"\n", "df-bit"),
    ("group.mss-clamp", "id = 1111\n", "id = 1111\nmss-clamp = 1300\n", "mss-clamp"),
    ("group.recovery-probe", "id = 1111\n", "id = 1111\nrecovery-probe = true\n", "recovery-probe"),
    (
        "group.placeholder",
        "id = 1111\n",
        "id = 1111\nplaceholder = \"192.0.2.99\"\n",
        "placeholder",
    ),
    ("group.server.address", "10.0.11.1", "10.0.12.1", "server.address"),
    ("group.server.port", "11.1\"\n", "11.1\"\nport = 1848\n", "server.address"),
    ("group.server.identity", "11.1\"\n", "11.1\"\nidentity = { fqdn = \"ks\" }\n", "server"),
    (
        "group.server.pre-shared-key-file",
        "11.1\"\n",
        "11.1\"\npre-shared-key-file = \"/own\"\n",
        "server",
    ),
    ("group.exclude.source", "\"any\"", "\"172.16.0.0/12\"", "exclude"),
    ("group.exclude.destination", "224.0.0.5", "224.0.0.6", "exclude"),
    (
        "group.exclude.protocol",
        "224.0.0.5\"\nprotocol = 17",
        "224.0.0.5\"\nprotocol = 6",
        "exclude",
    ),
    ("group.exclude.source-port", "224.0.0.5\"\n", "224.0.0.5\"\nsource-port = 9\n", "exclude"),
    (
        "group.exclude.destination-port",
        "224.0.0.5\"\n",
        "224.0.0.5\"\ndestination-port = 9\n",
        "exclude",
    ),
    (
        "group.fail-open.source",
        "source = \"172.16.0.0/12\"",
        "source = \"172.16.0.0/16\"",
        "fail-open",
    ),
    ("group.fail-open.destination", "16.9.1", "16.9.2", "fail-open"),
    ("group.fail-open.protocol", "16.9.1\"\nprotocol = 17", "16.9.1\"\nprotocol = 6", "fail-open"),
    ("group.fail-open.source-port", "16.9.1\"\n", "16.9.1\"\nsource-port = 9\n", "fail-open"),
    (
        "group.fail-open.destination-port",
        "16.9.1\"\n",
        "16.9.1\"\ndestination-port = 9\n",
        "fail-open",
    ),
    (
        "group.ike.encryption",
        "[group.ike]\n",
        "[group.ike]\nencryption = [\"aes-128-cbc\"]\n",
        "ike",
    ),
    ("group.ike.hash", "[group.ike]\n", "[group.ike]\nhash = [\"sha2-384\"]\n", "ike"),
    ("group.ike.dh-group", "[19]", "[20]", "ike"),
    ("group.ike.lifetime", "[group.ike]\n", "[group.ike]\nlifetime = \"2h\"\n", "ike"),
    (
        "group.retransmission.initial",
        "[group.retransmission]\n",
        "[group.retransmission]\ninitial = \"2s\"\n",
        "retransmission",
    ),
    (
        "group.retransmission.maximum",
        "[group.retransmission]\n",
        "[group.retransmission]\nmaximum = \"1m\"\n",
        "retransmission",
    ),
    (
        "group.retransmission.repetitions",
        "[group.retransmission]\n",
        "[group.retransmission]\nrepetitions = 5\n",
        "retransmission",
    ),
    (
        "group.rekey.acknowledgement-length",
        "[group.rekey]\n",
        "[group.rekey]\nacknowledgement-length = \"output\"\n",
        "rekey.acknowledgement-length",
    ),
    (
        "group.rekey.acknowledgement-jitter",
        "[group.rekey]\n",
        "[group.rekey]\nacknowledgement-jitter = \"1s\"\n",
        "rekey.acknowledgement-jitter",
    ),
    (
        "group.rekey.multicast-interface",
        "[group.rekey]\n",
        "[group.rekey]\nmulticast-interface = \"lan\"\n",
        "rekey.multicast-interface",
    ),
    (
        "group.interoperability.group-id-byte-order",
        "[group.interoperability]\n",
        "[group.interoperability]\ngroup-id-byte-order = \"host\"\n",
        "interoperability.group-id-byte-order",
    ),
    (
        "group.interoperability.selector-byte-order",
        "[group.interoperability]\n",
        "[group.interoperability]\nselector-byte-order = \"host\"\n",
        "interoperability.selector-byte-order",
    ),
    (
        "gateway.profile",
        "\"cloud\"\n[[gateway]]",
        "\"cloud\"\nprofile = \"oracle\"\n[[gateway]]",
        "profile",
    ),
    (
        "gateway.encryption",
        "\"cloud\"\n[[gateway]]",
        "\"cloud\"\nencryption = [\"aes-128-cbc\"]\n[[gateway]]",
        "IKE policy",
    ),
    (
        "gateway.hash",
        "\"cloud\"\n[[gateway]]",
        "\"cloud\"\nhash = [\"sha2-384\"]\n[[gateway]]",
        "IKE policy",
    ),
    (
        "gateway.dh-group",
        "\"cloud\"\n[[gateway]]",
        "\"cloud\"\ndh-group = [19]\n[[gateway]]",
        "IKE policy",
    ),
    (
        "gateway.lifetime",
        "\"cloud\"\n[[gateway]]",
        "\"cloud\"\nlifetime = \"2h\"\n[[gateway]]",
        "lifetime",
    ),
    (
        "gateway.bandwidth-mbit",
        "\"cloud\"\n[[gateway]]",
        "\"cloud\"\nbandwidth-mbit = 10\n[[gateway]]",
        "bandwidth-mbit",
    ),
    (
        "tunnel.nat-traversal",
        "\"/tunnel\"\n",
        "\"/tunnel\"\nnat-traversal = \"off\"\n",
        "nat-traversal",
    ),
    // It offers one Diffie-Hellman group alone.
    (
        "tunnel.aggressive-mode",
        "\"cloud\"\n[[gateway]]\nname = \"other\"\n[[tunnel]]\n",
        "\"cloud\"\ndh-group = [19]\n[[gateway]]\nname = \"other\"\n[[tunnel]]\naggressive-mode = true\n",
        "aggressive-mode",
    ),
    ("tunnel.name", "cloud-1", "cloud-9", "name"),
    ("tunnel.gateway", "gateway = \"cloud\"", "gateway = \"other\"", "gateway"),
    (
        "tunnel.local-address",
        "local-address = \"10.0.1.1\"",
        "local-address = \"10.0.1.2\"",
        "local-address",
    ),
    ("tunnel.peer", "203.0.113.1", "203.0.113.2", "peer"),
    ("tunnel.local-networks", "168.1.0", "168.9.0", "local-networks"),
    ("tunnel.remote-networks", "168.2.0", "168.9.0", "remote-networks"),
    (
        "tunnel.mode",
        "local-networks = [\"192.168.1.0/24\"]\nremote-networks = [\"192.168.2.0/24\"]\n",
        "mode = \"transport\"\n",
        "mode",
    ),
    ("tunnel.protocol", "\"/tunnel\"\nprotocol = 6\n", "\"/tunnel\"\nprotocol = 17\n", "protocol"),
    ("tunnel.local-port", "\"/tunnel\"\n", "\"/tunnel\"\nlocal-port = 179\n", "local-port"),
    ("tunnel.remote-port", "\"/tunnel\"\n", "\"/tunnel\"\nremote-port = 179\n", "remote-port"),
    ("tunnel.identity", "\"/tunnel\"\n", "\"/tunnel\"\nidentity = { fqdn = \"g1\" }\n", "identity"),
    (
        "tunnel.peer-identity",
        "\"/tunnel\"\n",
        "\"/tunnel\"\npeer-identity = { fqdn = \"p\" }\n",
        "peer-identity",
    ),
    ("tunnel.pre-shared-key-file", "\"/tunnel\"", "\"/another\"", "pre-shared-key"),
    ("tunnel.esp", "\"/tunnel\"\n", "\"/tunnel\"\nesp = [\"aes-128-gcm-16\"]\n", "esp"),
    ("tunnel.pfs", "\"/tunnel\"\n", "\"/tunnel\"\npfs = \"off\"\n", "pfs"),
    ("tunnel.lifetime", "\"/tunnel\"\n", "\"/tunnel\"\nlifetime = \"2h\"\n", "lifetime"),
    (
        "tunnel.lifetime-kilobytes",
        "\"/tunnel\"\n",
        "\"/tunnel\"\nlifetime-kilobytes = 4194304\n",
        "lifetime-kilobytes",
    ),
    ("tunnel.start", "\"/tunnel\"\n", "\"/tunnel\"\nstart = \"traffic\"\n", "start"),
    (
        "tunnel.dead-peer-detection",
        "\"/tunnel\"\n",
        "\"/tunnel\"\ndead-peer-detection = \"off\"\n",
        "dead-peer-detection",
    ),
    (
        "tunnel.dead-peer-interval",
        "\"/tunnel\"\n",
        "\"/tunnel\"\ndead-peer-interval = \"20s\"\n",
        "dead-peer-interval",
    ),
    ("tunnel.replay-window", "\"/tunnel\"\n", "\"/tunnel\"\nreplay-window = 64\n", "replay-window"),
    (
        "tunnel.extended-sequence-numbers",
        "\"/tunnel\"\n",
        "\"/tunnel\"\nextended-sequence-numbers = true\n",
        "extended-sequence-numbers",
    ),
];

/// What names nothing by itself: another gateway's name comes with that of the tunnel, `legacy` of a
/// tunnel allows what other options name, and certificates are compared by their contents.
const BY_OTHERS: [&str; 2] = ["gateway.name", "tunnel.legacy"];

fn is_certificate(path: &str) -> bool {
    path.starts_with("certificate.") || path.ends_with(".certificate")
}

#[test]
fn a_dry_run_names_every_option_that_is_declared() {
    let before = configured(&text()).unwrap_or_else(|report| panic!("{report}"));
    let declared: BTreeMap<String, Applies> = file::outline().paths().into_iter().collect();
    let rows: BTreeMap<&str, _> = ROWS.iter().map(|row| (row.0, row)).collect();
    let mut problems = Vec::new();
    for (path, applies) in &declared {
        // The second key of one declaration is named by the first.
        if path.ends_with("-credential") || is_certificate(path) {
            continue;
        }
        if BY_OTHERS.contains(&path.as_str()) {
            continue;
        }
        let Some((_, from, to, named)) = rows.get(path.as_str()) else {
            problems.push(format!("{path}: no row"));
            continue;
        };
        assert!(text().contains(from), "{path}: {from}");
        let after = match configured(&text().replacen(from, to, 1)) {
            Ok(after) => after,
            Err(report) => {
                problems.push(format!("{path}: {report}"));
                continue;
            }
        };
        let changes = changes(&before, &after);
        let Some(change) = changes.iter().find(|change| change.option.to_string() == *named) else {
            problems.push(format!("{path}: {changes:?}"));
            continue;
        };
        let (restart, registers) = (Applies::Restart, Applies::NewRegistration);
        let fits = match change.consequence {
            Consequence::Restart => *applies == restart,
            Consequence::RegistersAgain | Consequence::GroupAdded | Consequence::GroupRemoved => {
                *applies == registers
            }
            _ => *applies == Applies::OnReload,
        };
        if !fits {
            problems.push(format!("{path}: {applies:?}, {change:?}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
