//! Every value of a file arrives in the configuration.

use daemon::configuration::Severity;
use gdoi::config::ByteOrder;
use ike::config::Identity;
use ike::crypto::DhGroup;
use xfrm::nft::DontFragment;

use crate::config::{OnExit, budget};

use super::*;

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
selector-byte-order = "host"
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
    assert_eq!(**key(&group.servers[0]), Secret::copy_from(b"sixteen octets or more"));
    assert_eq!(group.exclude[0].source_port, 22);
    assert_eq!(group.phase1.transforms.last().unwrap().group, DhGroup::Ecp256);
    assert_eq!(group.group_id_byte_order, ByteOrder::Host);
    assert_eq!(group.selector_byte_order, ByteOrder::Host);
    assert_eq!(budget(&group.retransmission), std::time::Duration::from_secs(2 + 4 + 4 + 4));
    assert_eq!(group.attempt_limit(), std::time::Duration::from_secs(5 * 14 + 10));
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
fn an_exclude_rule_that_opens_another_group_is_a_warning() {
    let rule = |source, destination| {
        format!("[[group.exclude]]\nsource = {source:?}\ndestination = {destination:?}\n")
    };
    let warnings = |first: &str, second: &str| {
        let other = GROUP
            .replace("\"branches\"", "\"second\"")
            .replace("1111", "2222")
            .replace("172.16.0.0/12", "192.168.0.0/16");
        let text = format!("{GROUP}{first}{other}{second}");
        let warnings = load_text(&text).unwrap().warnings.into_iter();
        warnings.map(|one| one.to_string()).filter(|one| one.contains("exclude rule")).collect()
    };
    let wide = rule("192.168.7.0/24", "192.0.0.0/8");
    let found: Vec<String> = warnings(&wide, "");
    assert_eq!(found.len(), 1, "{found:?}");
    let said = "group branches: exclude rule 1 lets traffic of group second pass in clear as well";
    assert!(found[0].contains(said), "{found:?}");
    assert_eq!(warnings(&wide, &wide), [""; 0]);
    assert_eq!(warnings(&rule("172.16.0.0/12", "192.168.0.0/16"), ""), [""; 0]);
}
