//! The example file and the manual page: complete, current, and nothing but defaults.

use daemon::configuration::{example, write_documents};
use ike::config::Identity;

use super::*;
use crate::config::tunnel::{Profile, Traffic};

const EXAMPLE: &str = include_str!("../../../../gdoi-agent.example.toml");

#[test]
fn the_example_loads_and_has_nothing_that_few_want() {
    let loaded = load_text(EXAMPLE).unwrap();
    assert_eq!(loaded.warnings, []);
    let config = &loaded.value;
    assert_eq!((config.groups.len(), config.tunnels.len()), (1, 0));
    let group = &config.groups[0];
    assert!(group.exclude.is_empty() && group.fail_open.is_empty());
    assert_eq!(group.failure_policy, FailurePolicy::Close);
}

#[test]
fn the_example_shows_the_defaults() {
    let in_force = example(&file::DOCUMENT, &file::outline().in_force());
    let loaded = load_text(&in_force).unwrap();
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
    for line in in_force.lines() {
        let default = line.strip_prefix('#').filter(|rest| {
            let key = rest.split(" = ").next().unwrap_or_default();
            let a_key = ["pre-shared", "state-key", "certificate", "private-key-credential"];
            let a_key = a_key.iter().any(|beginning| key.starts_with(beginning));
            let set = rest.contains(" = ") && !a_key;
            !rest.starts_with(' ') && (set || rest.starts_with('['))
        });
        text.push_str(default.unwrap_or(line));
        text.push('\n');
    }
    let spelled_out = load_text(&text).unwrap().value;
    let mut expected = load_text(&in_force).unwrap().value;
    expected.groups[0].identity = Some(Identity::Address("10.0.1.1".parse().unwrap()));
    expected.groups[0].multicast_interface = Some("wan".to_owned());
    expected.gateways[0].gateway.profile = Some(Profile::Aws);
    expected.gateways[0].bandwidth_mbit = Some(10);
    expected.tunnels[0].gateway.profile = Some(Profile::Aws);
    expected.tunnels[0].traffic = Traffic { protocol: 6, local_port: 179, remote_port: 179 };
    expected.tunnels[0].identity = Some(Identity::Address("198.51.100.1".parse().unwrap()));
    expected.tunnels[0].policy.kilobytes = Some(4_194_304);
    expected.state_file = "/var/lib/gdoi-agent/gdoi-agent.state".into();
    expected.own_state_key = Some("/var/lib/gdoi-agent/state.key".into());
    assert_eq!(format!("{spelled_out:?}"), format!("{expected:?}"));
}

#[test]
fn the_example_of_the_manual_page_loads() {
    let page = include_str!("../../../../../man/gdoi-agent.toml.5");
    let (_, example) = page.split_once(".SH EXAMPLE\n.nf\n").unwrap();
    let (example, _) = example.split_once("\n.fi\n").unwrap();
    let loaded = load_text(&example.replace("\\-", "-")).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!((loaded.value.groups.len(), loaded.value.tunnels.len()), (1, 0));
}

/// What the package installs has nothing in force; its example is the smallest configuration.
#[test]
fn the_installed_file_shows_the_smallest_configuration() {
    let installed = include_str!("../../../../../packaging/conf/gdoi-agent.toml");
    assert!(installed.lines().all(|line| line.starts_with('#')));
    let example = installed.splitn(3, "\n#\n").nth(2).unwrap();
    let example = example.replace("\n# ", "\n").replace("# [[group]]", "[[group]]");
    let (lan, wan) = (("eth1", "lan"), ("eth0", "wan"));
    let loaded = load_text(&example.replace(lan.0, lan.1).replace(wan.0, wan.1)).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!((loaded.value.groups.len(), loaded.value.groups[0].servers.len()), (1, 1));
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
        ("gateway", "[[gateway]]\nzzzzzzzz = 1\n"),
        ("tunnel", "[[tunnel]]\nzzzzzzzz = 1\n"),
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
