//! The roles of a cluster in the configuration: each defect with its line and its remedy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::path::Path;

use gcks::config::cluster::Role;
use gcks::config::{self, Config};
use support::{CBC, GCM, cluster, keys};

fn parse(directory: &Path, text: &str) -> Result<(Config, Vec<String>), String> {
    let path = directory.to_str().unwrap();
    match config::parse("gcks.toml", text) {
        Ok(loaded) => {
            let warnings = loaded.warnings.iter().map(ToString::to_string);
            Ok((loaded.value, warnings.collect()))
        }
        Err(report) => Err(report.to_string().replace(path, "@")),
    }
}

/// A root with two sub-servers, after a replacement; what is wrong with it, without places.
fn defects(number: u8, from: &str, to: &str) -> Vec<String> {
    let directory = keys();
    let text = cluster::configuration(directory.path(), number, 2, CBC, "");
    assert!(text.contains(from), "{from}\n{text}");
    let report = parse(directory.path(), &text.replacen(from, to, 1)).unwrap_err();
    let own = report.lines().filter_map(|line| line.split_once(": error: "));
    own.map(|(place, message)| {
        let has_line =
            place.trim_start_matches("gcks.toml:").starts_with(|one: char| one.is_ascii_digit());
        assert!(has_line, "{place}: {message}");
        message.to_owned()
    })
    .collect()
}

#[test]
fn both_roles_are_sound() {
    let directory = keys();
    for (number, role, servers) in [(1, Role::RootServer, 2), (2, Role::SubServer, 1)] {
        let text = cluster::configuration(directory.path(), number, 2, CBC, "");
        let (config, warnings) = parse(directory.path(), &text).unwrap();
        let part = config.groups.first().unwrap().cluster.clone().unwrap();
        assert_eq!((part.role, part.servers.len(), config.servers.len()), (role, servers, servers));
        let server = config.servers.first().unwrap();
        assert_eq!(server.local, cluster::server(number));
        assert_eq!((server.liveness_interval.as_secs(), server.liveness_threshold), (10, 5));
        assert_eq!((part.period.as_secs(), part.wait.as_secs()), (10, 60));
        let late = "where a message between servers is lost, members get new keys up to 30s late and cannot receive after 10s";
        assert!(warnings.iter().any(|warning| warning.contains(late)), "{warnings:?}");
    }
}

#[test]
fn each_defect_has_its_remedy() {
    let cases = [
        (
            1,
            "role = \"root-server\"\n",
            "",
            "group.cluster: no role; add role = \"root-server\" on one server of the group and role = \"sub-server\" on the others",
        ),
        (
            1,
            "servers = [\"ks2\", \"ks3\"]",
            "servers = [\"ks2\", \"ks9\"]",
            "group.cluster.servers: there is no cluster-server \"ks9\"; known are ks2, ks3",
        ),
        (
            1,
            "servers = [\"ks2\", \"ks3\"]",
            "servers = [\"ks2\", \"ks2\"]",
            "group.cluster.servers: \"ks2\" is named twice; name it once",
        ),
        (
            1,
            "role = \"root-server\"",
            "role = \"sub-server\"",
            "group.cluster.servers: 2 root servers; a sub-server names its root and no other",
        ),
        (
            1,
            "address = \"10.0.9.2\"",
            "address = \"10.0.0.1\"",
            "cluster-server.address: member g1 registers from 10.0.0.1, and no server is a member; give one of them another address",
        ),
        (
            1,
            "address = \"10.0.9.2\"",
            "address = \"2001:db8::2\"",
            "cluster-server: it is not clear which address of this server 2001:db8::2 knows; add local-address",
        ),
        (
            1,
            "address = \"10.0.9.2\"",
            "address = \"10.0.9.2\"\nlocal-address = \"10.0.9.7\"",
            "cluster-server.local-address: the server does not listen on 10.0.9.7 for 10.0.9.2; name an address of listen, of the family of address",
        ),
        (
            1,
            "activation-time-delay = \"10s\"\n",
            "",
            "group.cluster: members would send with new keys before those of other servers have them; add activation-time-delay to [group.gap]",
        ),
        (
            1,
            "[group.cluster]",
            "lifetime = \"2m\"\n[group.cluster]",
            "group.cluster: the lifetime of the KEK, 2m, leaves no time for the retransmissions to servers and members and the activation delay, 105s; make it longer, or shorten retransmission-period, liveness-interval or activation-time-delay",
        ),
        (
            2,
            "listen = [",
            "keep-state = false\nlisten = [",
            "group.cluster: a server of a cluster has to keep its state, so that no number is used twice; set keep-state = true, or remove [group.cluster]",
        ),
    ];
    for (number, from, to, expected) in cases {
        let found = defects(number, from, to);
        assert!(found.iter().any(|one| one == expected), "{from} -> {to}\n{}", found.join("\n"));
    }
}

#[test]
fn counter_modes_are_sound_and_multicast_is_refused() {
    let directory = keys();
    let text = cluster::configuration(directory.path(), 1, 2, GCM, "");
    parse(directory.path(), &text).unwrap();
    let multicast =
        "transport = \"multicast\"\nmulticast-address = \"239.192.1.1\"\n[group.cluster]";
    let found = defects(1, "[group.cluster]", multicast);
    let expected = "group.cluster: sub-servers relay pushes to their own members alone; set transport = \"unicast\" in [group.rekey]";
    assert!(found.iter().any(|one| one == expected), "{found:?}");
}

#[test]
fn a_server_has_one_role_in_all_its_groups() {
    let directory = keys();
    let text = cluster::configuration(directory.path(), 1, 1, CBC, "");
    // The second group only.
    let (first, second) = text.split_once("name = \"two\"").unwrap();
    let second = second.replacen("root-server", "sub-server", 1);
    let report = parse(directory.path(), &format!("{first}name = \"two\"{second}")).unwrap_err();
    let expected = "group.cluster.role: sub-server in group two, root-server in group one; a server has the same role in all its groups";
    assert!(report.contains(expected), "{report}");
}

#[test]
fn a_root_has_at_most_four_sub_servers() {
    let directory = keys();
    let text = cluster::configuration(directory.path(), 1, 4, CBC, "");
    parse(directory.path(), &text).unwrap();
    let text = cluster::configuration(directory.path(), 1, 5, CBC, "");
    let report = parse(directory.path(), &text).unwrap_err();
    assert!(report.contains("group.cluster.servers: 5 sub-servers; a root server has 1 to 4"));
}
