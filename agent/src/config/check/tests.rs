//! Golden reports: each defect alone, and many at once.

use std::io;

use daemon::configuration::{Severity, write_documents};
use gdoi::config::{ByteOrder, DhGroup, Identity};
use xfrm::nft::DontFragment;

use super::super::{OnExit, budget};
use super::*;

const EXAMPLE: &str = include_str!("../../../gdoi-agent.example.toml");

fn interfaces() -> Interfaces {
    let interface = |index: u32, address: &str| Interface {
        index,
        up: true,
        addresses: vec![address.parse().unwrap()],
        mtu: 1500,
        gateway: None,
        vrf: None,
    };
    [
        ("lan", interface(2, "172.16.1.1/24")),
        ("wan", interface(3, "10.0.1.1/24")),
        ("wan2", interface(4, "10.0.2.1/24")),
    ]
    .map(|(name, interface)| (name.to_owned(), interface))
    .into()
}

/// Good key files are called `*.psk`, one called `open` is readable by everybody, others are
/// missing.
fn secret(source: &SecretSource) -> Result<Secret, SecretError> {
    let SecretSource::File(path) = source else {
        return Ok(Secret::copy_from(b"from the service manager"));
    };
    if path.ends_with("open") {
        return Err(SecretError::Exposed {
            origin: source.clone(),
            who: "everybody",
            path: path.clone(),
        });
    }
    if path.extension().is_some_and(|extension| extension == "psk") {
        return Ok(Secret::copy_from(b"sixteen octets or more"));
    }
    let error = io::Error::from(io::ErrorKind::NotFound);
    Err(SecretError::Unreadable {
        origin: source.clone(),
        error,
        remedy: "create it, or correct the path",
    })
}

fn state_key(source: &SecretSource) -> Result<Secret, SecretError> {
    match source {
        SecretSource::File(path) if path.ends_with("short") => {
            Err(SecretError::KeyLength { origin: source.clone(), have: 5 })
        }
        _ => Ok(Secret::new(vec![7; 32])),
    }
}

fn load_text(text: &str) -> Result<Loaded<Config>, String> {
    let interfaces = interfaces();
    let machine = Machine { interfaces: Some(&interfaces), secret: &secret, state_key: &state_key };
    parse("f", text, &machine).map_err(|report| report.to_string())
}

const GROUP: &str = r#"
[[group]]
name = "branches"
id = 1111
local-address = "10.0.1.1"
lan = ["lan"]
wan = ["wan"]
protected = ["172.16.0.0/12"]
pre-shared-key-file = "/k.psk"
[[group.server]]
address = "10.0.9.1"
"#;

/// The report about the group above after a replacement that must apply.
fn defect(from: &str, to: &str) -> String {
    assert!(GROUP.contains(from), "{from}");
    load_text(&GROUP.replace(from, to)).map(|_| ()).unwrap_err()
}

#[test]
fn the_example_loads_and_shows_the_defaults() {
    let loaded = load_text(EXAMPLE).unwrap();
    assert_eq!(loaded.warnings, []);
    let group = &loaded.value.groups[0];
    assert_eq!((group.name.as_str(), group.id), ("branches", GroupId(1111)));
    assert_eq!(group.local, LocalAddress::Address(Ipv4Addr::new(10, 0, 1, 1).into()));
    assert_eq!(
        group.server_addresses(),
        ["10.0.9.1:848".parse().unwrap(), "10.0.10.1:848".parse().unwrap()]
    );
    assert_eq!(group.exclude.len(), 1);
    // Turning the commented defaults on changes nothing.
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        let default = line.strip_prefix('#').filter(|rest| {
            let key = rest.split(" = ").next().unwrap_or_default();
            let a_key = key.starts_with("pre-shared") || key.starts_with("state-key");
            !rest.starts_with(' ') && rest.contains(" = ") && !a_key
        });
        text.push_str(default.unwrap_or(line));
        text.push('\n');
    }
    let spelled_out = load_text(&text).unwrap().value;
    let mut expected = load_text(EXAMPLE).unwrap().value;
    expected.groups[0].identity = Some(Identity::Address("10.0.1.1".parse().unwrap()));
    expected.groups[0].multicast_interface = Some("wan".to_owned());
    expected.state_file = "/var/lib/gdoi-agent/gdoi-agent.state".into();
    assert_eq!(format!("{spelled_out:?}"), format!("{expected:?}"));
}

#[test]
fn the_documents_are_what_the_declarations_say() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    write_documents(&workspace, &file::documents(), true).unwrap();
}

#[test]
fn the_example_names_every_key() {
    // A report about an unknown key lists the known ones; each must be in the example.
    for (table, text) in [
        ("", "zzzzzzzz = 1\n"),
        ("group", "[[group]]\nzzzzzzzz = 1\n"),
        ("server", "[[group]]\n[[group.server]]\nzzzzzzzz = 1\n"),
        ("exclude", "[[group]]\n[[group.exclude]]\nzzzzzzzz = 1\n"),
        ("ike", "[[group]]\n[group.ike]\nzzzzzzzz = 1\n"),
        ("retransmission", "[[group]]\n[group.retransmission]\nzzzzzzzz = 1\n"),
        ("rekey", "[[group]]\n[group.rekey]\nzzzzzzzz = 1\n"),
        ("interoperability", "[[group]]\n[group.interoperability]\nzzzzzzzz = 1\n"),
    ] {
        let report = load_text(text).unwrap_err();
        let line = report.lines().find(|line| line.contains("zzzzzzzz")).unwrap();
        let keys = line.split("known keys are ").nth(1).unwrap();
        for key in keys.split(", ") {
            let named = EXAMPLE.lines().any(|line| {
                let line = line.trim_start_matches('#');
                line.starts_with(&format!("{key} = "))
                    || line.contains(&format!("[group.{key}]"))
                    || line == format!("[[{key}]]")
            });
            assert!(named, "{table}: {key} is not in the example");
        }
    }
}

#[test]
fn a_state_key_needs_a_place_that_survives() {
    let directory = "state-directory = \"/var/lib/a\"\n";
    for source in ["state-key-file = \"/state.key\"\n", "state-key-credential = \"state\"\n"] {
        let config = load_text(&format!("{directory}{source}{GROUP}")).unwrap().value;
        assert_eq!(config.state_key.map(|key| key.len()), Some(32));
        let report = load_text(&format!("{source}{GROUP}")).unwrap_err();
        assert!(report.contains("f:1:") && report.contains("add state-directory = "), "{report}");
    }
    let report =
        load_text(&format!("{directory}state-key-file = \"/short\"\n{GROUP}")).unwrap_err();
    assert!(report.contains("f:2:18: error: state key: file /short holds 5 octets"), "{report}");
    let both = "state-key-file = \"/k\"\nstate-key-credential = \"k\"\n";
    let report = load_text(&format!("{directory}{both}{GROUP}")).unwrap_err();
    assert!(report.contains("state-key-file and state-key-credential are both named"), "{report}");
    assert_eq!(load_text(GROUP).unwrap().value.state_key, None);
}

#[test]
fn all_values_arrive() {
    let text = r#"
control-socket = "/tmp/c.sock"
local-port = 1848
[[group]]
name = "a"
id = 0x01020304
local-address = "wan"
lan = ["lan"]
wan = ["wan", "wan2"]
protected = ["172.16.0.0/12", "192.168.0.0/16"]
on-exit = "keep"
identity = { fqdn = "g1.example" }
pre-shared-key-credential = "a"
counter-mode-send = true
legacy = true
df-bit = "set"
placeholder = "198.51.100.9"
[[group.server]]
address = "10.0.9.1"
port = 1848
identity = { key-id = "s1" }
pre-shared-key-file = "/s1.psk"
[[group.exclude]]
source = "any"
destination = "any"
protocol = 6
source-port = 22
[group.ike]
encryption = ["3des-cbc"]
hash = ["sha1"]
dh-group = [2, 19]
lifetime = "2h"
[group.retransmission]
initial = "2s"
maximum = "4s"
repetitions = 3
[group.interoperability]
group-id-byte-order = "host"
"#;
    let loaded = load_text(text).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(loaded.warnings[0].severity, Severity::Warning);
    let config = loaded.value;
    assert_eq!((config.control_socket.to_str(), config.local_port), (Some("/tmp/c.sock"), 1848));
    let group = &config.groups[0];
    assert_eq!(group.local, LocalAddress::Interface("wan".to_owned()));
    assert_eq!(group.on_exit, OnExit::Keep);
    assert_eq!(group.identity, Some(Identity::Fqdn("g1.example".to_owned())));
    assert!(group.counter_mode_send && group.legacy);
    assert_eq!(group.dont_fragment, DontFragment::Set);
    assert_eq!(group.placeholder, Ipv4Addr::new(198, 51, 100, 9));
    assert_eq!(group.servers[0].identity, Identity::KeyId(b"s1".to_vec()));
    assert_eq!(*group.servers[0].pre_shared_key, Secret::copy_from(b"sixteen octets or more"));
    assert_eq!(group.exclude[0].source_port, 22);
    assert_eq!(group.phase1.transforms.last().unwrap().group, DhGroup::Ecp256);
    assert_eq!(group.group_id_byte_order, ByteOrder::Host);
    assert_eq!(budget(&group.retransmission), core::time::Duration::from_secs(2 + 4 + 4 + 4));
    assert_eq!(group.attempt_limit(), core::time::Duration::from_secs(5 * 14 + 10));
}

#[test]
fn each_defect_names_its_place_and_its_remedy() {
    let cases = [
        (
            "\"10.0.9.1\"",
            "\"2001:db8::1\"",
            "f:11:11: error: group.server.address: 2001:db8::1 is an IPv6 address, and groups are IPv4 in this version; \
             write an IPv4 address",
        ),
        (
            "\"10.0.1.1\"",
            "\"2001:db8::1\"",
            "f:5:17: error: group.local-address: 2001:db8::1 is an IPv6 address, and groups are IPv4 in this version; \
             write an IPv4 address",
        ),
        (
            "wan = ",
            "placeholder = \"2001:db8::1\"\nwan = ",
            "f:7:15: error: group.placeholder: 2001:db8::1 is an IPv6 address, and groups are IPv4 in this version; \
             write an IPv4 address",
        ),
        (
            "\"10.0.1.1\"",
            "\"10.0.1.256\"",
            "f:5:17: error: group.local-address: \"10.0.1.256\" is neither an address nor an interface name; write one such \
             as \"192.0.2.1\" or \"eth0\"",
        ),
        (
            "\"10.0.1.1\"",
            "\"ppp0\"",
            "f:5:17: error: group.local-address: there is no interface \"ppp0\"; create it first, or correct the name: \
             there are lan, wan, wan2",
        ),
        (
            "wan = [\"wan\"]",
            "wan = [\"wam\"]",
            "f:7:8: error: group.wan: there is no interface \"wam\"; create it first, or correct the name: there are lan, \
             wan, wan2",
        ),
        (
            "wan = [\"wan\"]",
            "wan = [\"wan\", \"lan\"]",
            "f:7:15: error: group.wan: lan is in lan as well, line 6; an interface is on one side: remove it from the other \
             list",
        ),
        (
            "lan = [\"lan\"]",
            "lan = [\"lan\", \"lan\"]",
            "f:6:15: error: group.lan: lan is named twice; name it once",
        ),
        (
            "172.16.0.0/12",
            "172.16.1.0/12",
            "f:8:14: error: group.protected: \"172.16.1.0/12\" has host bits; write \"172.16.0.0/12\" or \"172.16.1.0\"",
        ),
        (
            "[\"172.16.0.0/12\"]",
            "[]",
            "f:8:13: error: group.protected: the list is empty; write [\"192.0.2.0/24\"]",
        ),
        (
            "172.16.0.0/12",
            "0.0.0.0/0",
            "f:8:14: error: group.protected: 0.0.0.0/0 would block all traffic of this machine; name the group's own \
             prefixes, such as \"172.16.0.0/12\"",
        ),
        (
            "\"172.16.0.0/12\"",
            "\"172.16.0.0/12\", \"172.17.0.0/16\"",
            "f:8:31: error: group.protected: 172.17.0.0/16 lies within 172.16.0.0/12; remove the narrower prefix",
        ),
        (
            "/k.psk",
            "/open",
            "f:9:23: error: pre-shared key: file /open is readable by everybody; run `chmod 600 /open`",
        ),
        (
            "/k.psk",
            "/missing",
            "f:9:23: error: pre-shared key: file /missing: entity not found; create it, or correct the path",
        ),
        (
            "pre-shared-key-file = \"/k.psk\"\n",
            "",
            "f:9:1: error: group branches: no pre-shared key for this key server; add pre-shared-key-file or \
             pre-shared-key-credential to the group or to the server",
        ),
        ("name =", "nam =", "f:3:1: error: unknown key \"nam\" in group; did you mean \"name\"?"),
        (
            "\"10.0.9.1\"",
            "\"10.0.1.1\"",
            "f:11:11: error: group.server.address: 10.0.1.1 is our own address, it is on wan; write the key server's \
             address; a member is not its own key server",
        ),
        (
            "\"10.0.9.1\"",
            "\"224.0.0.1\"",
            "f:11:11: error: group.server.address: 224.0.0.1 is no host's address; write the address of one key server",
        ),
        (
            "\"10.0.9.1\"\n",
            "\"10.0.9.1\"\n[[group.server]]\naddress = \"10.0.9.1\"\n",
            "f:13:11: error: group.server.address: 10.0.9.1:848 is the server of line 11 again; name each key server once; \
             the order is the order of trying",
        ),
        (
            "id = 1111",
            "id = 1111\nplaceholder = \"172.16.0.9\"",
            "f:5:15: error: group.placeholder: 172.16.0.9 is within the protected prefix 172.16.0.0/12; write placeholder = \
             \"..\" with an IPv4 address that no host has",
        ),
        (
            "id = 1111",
            "id = 1111\nplaceholder = \"10.0.2.1\"",
            "f:5:15: error: group.placeholder: 10.0.2.1 is in use on wan2; write placeholder = \"..\" with an IPv4 address \
             that no host has",
        ),
        (
            "id = 1111",
            "id = 1111\non-exit = \"blok\"",
            "f:5:11: error: group.on-exit: \"blok\" is not known; did you mean \"block\"?",
        ),
        (
            "[[group.server]]\n",
            "[group.retransmission]\ninitial = \"8s\"\nmaximum = \"1s\"\n[[group.server]]\n",
            "f:10:1: error: group.retransmission.maximum is shorter than group.retransmission.initial; make maximum at least \
             as long as initial",
        ),
        (
            "[[group.server]]\n",
            "[[group.exclude]]\nsource = \"any\"\ndestination = \"any\"\n[[group.server]]\n",
            "f:10:1: error: group.exclude: this rule excludes all traffic, so nothing would be encrypted; narrow it down to \
             what must stay in clear",
        ),
        (
            "[[group.server]]\n",
            "[[group.exclude]]\nsource = \"any\"\ndestination = \"2001:db8::1-2001:db8::9\"\n[[group.server]]\n",
            "f:10:1: error: group.exclude.destination: 2001:db8::1 is an IPv6 address, and groups are IPv4 in this version; \
             write an IPv4 address",
        ),
    ];
    for (from, to, line) in cases {
        let report = defect(from, to);
        assert!(report.lines().any(|found| found == line), "expected\n{line}\nin\n{report}");
    }
}

#[test]
fn a_fifth_server_is_refused() {
    let mut text = GROUP.to_owned();
    for last in 2..=4 {
        text.push_str(&format!("[[group.server]]\naddress = \"10.0.9.{last}\"\n"));
    }
    assert_eq!(load_text(&text).unwrap().value.groups[0].servers.len(), 4);
    text.push_str("[[group.server]]\naddress = \"10.0.9.5\"\n");
    assert_eq!(
        load_text(&text).map(|_| ()).unwrap_err(),
        "f:18:1: error: group branches has 5 key servers; at most 4 are tried; remove the ones that matter least\n\
         f: 1 error; nothing was started\n"
    );
}

#[test]
fn groups_must_differ() {
    let text =
        format!("{GROUP}{}", GROUP.replace("10.0.9.1", "10.0.9.2").replace("\"wan\"", "\"wan2\""));
    let report = load_text(&text).map(|_| ()).unwrap_err();
    assert_eq!(
        report,
        "f:14:8: error: group.name: branches is the name of two groups, the first in line 3; give each group its own name, \
         or remove one of them\n\
         f:15:6: error: group.id: 1111 is the id of two groups, the first in line 4; give each group its own id, or remove \
         one of them\n\
         f: 2 errors; nothing was started\n"
    );
    let second = GROUP
        .replace("branches", "other")
        .replace("1111", "2222")
        .replace("[\"lan\"]", "[\"wan\"]");
    let report = load_text(&format!("{GROUP}{second}")).map(|_| ()).unwrap_err();
    assert!(report.contains("group.lan: wan is in wan as well, line 7"), "{report}");
}

#[test]
fn two_groups_may_share_key_servers_and_their_key_but_no_placeholder() {
    let second = GROUP
        .replace("branches", "other")
        .replace("1111", "2222")
        .replace("172.16.0.0/12", "192.168.0.0/16");
    let text = format!("{GROUP}{second}");
    let config = load_text(&text).unwrap().value;
    assert_eq!(config.groups[1].placeholder, Ipv4Addr::new(192, 0, 2, 2));
    assert!(Arc::ptr_eq(
        &config.groups[0].servers[0].pre_shared_key,
        &config.groups[1].servers[0].pre_shared_key
    ));
    let report = load_text(&text.replace("id = 2222", "id = 2222\nplaceholder = \"192.0.2.1\""))
        .map(|_| ())
        .unwrap_err();
    assert!(
        report
            .contains("group.placeholder: 192.0.2.1 is the placeholder of group branches as well"),
        "{report}"
    );
}

#[test]
fn all_defects_come_at_once() {
    let text = r#"
port = 848
[[group]]
name = "a"
local-address = "2001:db8::1"
lan = ["eth7"]
wan = []
protected = ["172.16.0.1/12"]
pre-shared-key-file = "/open"
df-bit = "maybe"
[[group.server]]
adress = "10.0.9.1"
[[group.server]]
address = "10.0.1.1"
pre-shared-key-file = "relative"
[group.ike]
hash = ["md5"]
"#;
    assert_eq!(
        load_text(text).map(|_| ()).unwrap_err(),
        "\
f:2:1: error: unknown key \"port\"; known keys are control-socket, group, local-port, state-directory, state-key-credential, state-key-file
f:3:1: error: group.id is missing; add id = 1
f:5:17: error: group.local-address: 2001:db8::1 is an IPv6 address, and groups are IPv4 in this version; write an IPv4 address
f:6:8: error: group.lan: there is no interface \"eth7\"; create it first, or correct the name: there are lan, wan, wan2
f:7:7: error: group.wan: the list is empty; write [\"eth0\"]
f:8:14: error: group.protected: \"172.16.0.1/12\" has host bits; write \"172.16.0.0/12\" or \"172.16.0.1\"
f:9:23: error: pre-shared key: file /open is readable by everybody; run `chmod 600 /open`
f:10:10: error: group.df-bit: \"maybe\" is not known; write one of \"clear\", \"copy\", \"set\"
f:11:1: error: group.server.address is missing; add address = \"192.0.2.1\"
f:12:1: error: unknown key \"adress\" in group.server; did you mean \"address\"?
f:14:11: error: group.server.address: 10.0.1.1 is our own address, it is on wan; write the key server's address; a member is not its own key server
f:15:23: error: group.server.pre-shared-key-file: \"relative\" is not an absolute path; begin it with /
f:17:9: error: group.ike.hash: MD5 is weak; choose a strong one, or set legacy = true and know why
f: 13 errors; nothing was started
"
    );
}

#[test]
fn an_empty_file_is_an_error() {
    assert!(
        load_text("").map(|_| ()).unwrap_err().contains("there is no group; add a [[group]] table")
    );
}

#[test]
fn a_short_key_is_a_warning() {
    let machine = Machine {
        interfaces: None,
        secret: &|_| Ok(Secret::copy_from(b"short")),
        state_key: &state_key,
    };
    let loaded = parse("f", GROUP, &machine).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].to_string().contains("5 octets only"));
}

#[test]
fn no_report_shows_a_key() {
    let loaded = load_text(GROUP).unwrap();
    assert!(!format!("{:?}", loaded.value).contains("sixteen"));
}

#[test]
fn ipv6_prefixes_may_be_protected_which_blocks_them() {
    let text = GROUP.replace("[\"172.16.0.0/12\"]", "[\"172.16.0.0/12\", \"fd00:1::/32\"]");
    let config = load_text(&text).unwrap().value;
    let protected: Vec<String> =
        config.groups[0].protected.iter().map(ToString::to_string).collect();
    assert_eq!(protected, ["172.16.0.0/12", "fd00:1::/32"]);
}

#[test]
fn a_machine_may_be_its_own_only_host() {
    let config = load_text(&GROUP.replace("lan = [\"lan\"]", "lan = []")).unwrap().value;
    assert!(config.groups[0].lan.is_empty());
    let missing = load_text(&GROUP.replace("lan = [\"lan\"]\n", "")).map(|_| ()).unwrap_err();
    assert!(missing.contains("group.lan is missing"), "{missing}");
}

#[test]
fn names_of_interfaces_may_be_patterns() {
    let text = GROUP.replace("[\"lan\"]", "[\"wan*\", \"lan\", \"absent*\"]");
    let config = load_text(&text).unwrap().value;
    let group = &config.groups[0];
    // What the other side names is not meant.
    assert_eq!(group.lan_interfaces(&interfaces()), ["wan2", "lan"]);
    assert_eq!(group.wan_interfaces(&interfaces()), ["wan"]);
    for wrong in ["*", "e*h0", "br-**"] {
        let error = load_text(&GROUP.replace("[\"lan\"]", &format!("[\"{wrong}\"]")));
        let error = error.map(|_| ()).unwrap_err();
        assert!(error.contains("cannot be an interface"), "{wrong}: {error}");
    }
}

/// On both sides it would be trusted like a LAN, and group traffic would leave by it in clear.
#[test]
fn what_patterns_of_both_sides_match_is_a_wan() {
    let text = GROUP.replace("[\"lan\"]", "[\"lan\", \"wa*\"]");
    let text = text.replace("[\"wan\"]", "[\"wan*\"]");
    let config = load_text(&text).unwrap().value;
    let group = &config.groups[0];
    assert_eq!(group.lan_interfaces(&interfaces()), ["lan"]);
    assert_eq!(group.wan_interfaces(&interfaces()), ["wan", "wan2"]);
}

/// The guards are shared: a LAN of one group is trusted in all, and the other's traffic would leave
/// by it in clear.
#[test]
fn a_pattern_of_lans_leaves_out_the_wans_of_other_groups() {
    let other = GROUP
        .replace("\"branches\"", "\"second\"")
        .replace("1111", "2222")
        .replace("[\"wan\"]", "[\"wan2\"]");
    let first = GROUP.replace("[\"lan\"]", "[\"lan\", \"wan*\"]");
    let report = load_text(&format!("{first}{other}")).map(|_| ()).unwrap_err();
    assert!(
        report.contains("group.lan: wan* covers interfaces that wan2 in line 18 makes a WAN"),
        "{report}"
    );
    // Who says that it is no LAN of his is not refused for that.
    let named = first.replace("wan = [\"wan\"]", "wan = [\"wan\", \"wan2\"]");
    let report = load_text(&format!("{named}{other}")).map(|_| ());
    assert!(report.is_ok() || !report.unwrap_err().contains("covers interfaces"));
}

#[test]
fn prefixes_that_the_guards_alone_close_are_a_warning() {
    let with = |count: usize| {
        let prefixes: Vec<String> = (0..count).map(|n| format!("172.{}.0.0/24", 16 + n)).collect();
        let text = GROUP.replace("[\"172.16.0.0/12\"]", &format!("{prefixes:?}"));
        let warnings = load_text(&text).unwrap().warnings;
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(!with(64).iter().any(|warning| warning.contains("guards alone")));
    let warnings = with(65);
    assert!(
        warnings.iter().any(|warning| warning.contains("guards alone close its 65 protected")),
        "{warnings:?}"
    );
}

#[test]
fn interfaces_on_the_wrong_side_are_a_warning() {
    let swapped = GROUP.replace("[\"lan\"]", "[\"x\"]").replace("[\"wan\"]", "[\"lan\"]");
    let loaded = load_text(&swapped.replace("[\"x\"]", "[\"wan\"]")).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings.iter().any(|warning| warning.contains("local-address is on wan, a LAN")),
        "{warnings:?}"
    );
}

#[test]
fn the_vrf_device_of_a_lan_is_a_lan() {
    let mut interfaces = interfaces();
    interfaces.get_mut("lan").unwrap().vrf = Some("red".to_owned());
    interfaces.get_mut("wan").unwrap().vrf = Some("red".to_owned());
    let config = load_text(GROUP).unwrap().value;
    assert_eq!(config.groups[0].lan_interfaces(&interfaces), ["lan", "red"]);
    assert_eq!(config.groups[0].wan_interfaces(&interfaces), ["wan"]);
}
