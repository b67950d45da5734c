//! Every command of gdoictl against a daemon that answers fixed snapshots: text, JSON, errors, exit
//! status.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use control::cluster::*;
use control::key_server::*;
use control::member::*;
use control::server::{Call, serve};
use control::socket::{Access, Listener};
use control::{
    ClearArgument, ClearMemberArgument, MemberSnapshot, Refusal, Request, Response, ServerSnapshot,
};
use tokio::sync::mpsc;

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn member() -> MemberSnapshot {
    let passed = PassedOver {
        server: "10.0.11.1:848".parse().unwrap(),
        seconds_ago: 65,
        reason: "no-answer".to_owned(),
        detail: "no answer in phase 1 after 5 transmissions".to_owned(),
    };
    let policy = |kind, source: &str, destination: &str, spi, note: &str| PolicyLine {
        kind,
        source: source.to_owned(),
        destination: destination.to_owned(),
        protocol: 0,
        source_port: 0,
        destination_port: 0,
        spi,
        note: note.to_owned(),
    };
    let registered = MemberGroup {
        name: "branches".to_owned(),
        id: 1111,
        state: MembershipState::Registered,
        open_without_key: false,
        local: Some("10.0.1.1".parse().unwrap()),
        server: Some("10.0.12.1:848".parse().unwrap()),
        trying: None,
        servers: vec!["10.0.11.1:848".parse().unwrap(), "10.0.12.1:848".parse().unwrap()],
        passed_over: vec![passed.clone()],
        history: vec![
            PassedOver {
                seconds_ago: 90_061,
                reason: "refused".to_owned(),
                detail: "notification 24".to_owned(),
                ..passed.clone()
            },
            passed,
        ],
        next_registration_seconds: Some(3300),
        isakmp_sas: vec![
            IsakmpSa {
                state: IsakmpState::Up,
                local: "10.0.1.1:848".parse().unwrap(),
                remote: "10.0.12.1:848".parse().unwrap(),
                initiator_cookie: "0123456789abcdef".to_owned(),
                responder_cookie: "fedcba9876543210".to_owned(),
                exchange_mode: "main".to_owned(),
                role: Role::Initiator,
                authentication: "pre-shared-key".to_owned(),
                // A peer may put anything into a name.
                peer_identity: Some("s2.example\u{1b}[2J\n".to_owned()),
                transform: Some(Transform {
                    encryption: "aes-256-cbc".to_owned(),
                    hash: "sha2-256".to_owned(),
                    dh_group: 14,
                }),
                lifetime_left_seconds: Some(86_000),
            },
            IsakmpSa {
                state: IsakmpState::Negotiating,
                local: "10.0.1.1:848".parse().unwrap(),
                remote: "10.0.11.1:848".parse().unwrap(),
                initiator_cookie: "1111111111111111".to_owned(),
                responder_cookie: "0000000000000000".to_owned(),
                exchange_mode: "main".to_owned(),
                role: Role::Initiator,
                authentication: "pre-shared-key".to_owned(),
                peer_identity: None,
                transform: None,
                lifetime_left_seconds: None,
            },
        ],
        teks: vec![
            Tek {
                spi: 0x1300,
                encryption: "aes-128-cbc".to_owned(),
                integrity: Some("hmac-sha2-256-128".to_owned()),
                mode: "tunnel, addresses preserved".to_owned(),
                direction: "symmetric".to_owned(),
                sends: true,
                receives: true,
                hard_lifetime_left_seconds: 3_000,
                lifetime_kilobytes: None,
                inbound: Traffic { packets: 1234, octets: 123_456 },
                outbound: Traffic { packets: 4321, octets: 654_321 },
            },
            Tek {
                spi: 0xfeed_f00d,
                encryption: "aes-256-gcm-16".to_owned(),
                integrity: None,
                mode: "tunnel, addresses preserved".to_owned(),
                direction: "symmetric".to_owned(),
                sends: false,
                receives: true,
                hard_lifetime_left_seconds: 59,
                lifetime_kilobytes: Some(4_000_000),
                inbound: Traffic::default(),
                outbound: Traffic::default(),
            },
        ],
        policies: vec![
            PolicyLine {
                protocol: 17,
                destination_port: 848,
                ..policy(PolicyKind::Local, "10.0.1.1", "10.0.12.1", None, "key server, and back")
            },
            policy(PolicyKind::Exclude, "172.16.0.0/12", "224.0.0.5", None, "exclude rule"),
            policy(
                PolicyKind::Secure,
                "172.16.0.0/12",
                "any",
                Some(0x1300),
                "both directions; sends and receives",
            ),
            policy(
                PolicyKind::FailClose,
                "172.16.0.0/12",
                "172.16.0.0/12",
                None,
                "protected prefixes",
            ),
        ],
        counters: MemberCounters {
            attempts: 7,
            pulls_succeeded: 4,
            pulls_failed: 1,
            pulls_timed_out: 2,
            pulls_aborted: 0,
            failovers: 1,
            expirations: 0,
            pushes_accepted: 30,
            pushes_unusable: 1,
            push_to_kernel_microseconds: 2_345,
            push_to_kernel_longest_microseconds: 14_080,
            acknowledgements_sent: 33,
        },
        kek: Some(KekSa {
            spi: "00112233445566778899aabbccddeeff".to_owned(),
            encryption: "aes-256-cbc".to_owned(),
            signature: "rsa with sha2-256".to_owned(),
            destination: Some("239.192.1.1".parse().unwrap()),
            acknowledgement: Some("kek-sha2-256".to_owned()),
            lifetime_left_seconds: 40_000,
            sequence_number: 31,
            signature_form: Some("digest-info".to_owned()),
            signed_length: None,
        }),
        discards: counts(&[("bad-hash", 2), ("unknown-cookies", 5)]),
        push_discards: counts(&[("replayed", 60), ("wrong-signature", 1)]),
    };
    let suspended = MemberGroup { name: "lab".to_owned(), id: 7, ..MemberGroup::default() };
    let open = MemberGroup {
        name: "open".to_owned(),
        id: 8,
        state: MembershipState::Expired,
        open_without_key: true,
        ..MemberGroup::default()
    };
    MemberSnapshot {
        program_version: "0.1.0".to_owned(),
        uptime_seconds: 93_784,
        groups: vec![registered, suspended, open],
        discards: counts(&[("truncated", 1)]),
        problems: vec!["ip_forward is off: sysctl -w net.ipv4.ip_forward=1".to_owned()],
        guard_drops: Traffic { packets: 12, octets: 1008 },
        repairs: 1,
    }
}

fn server() -> ServerSnapshot {
    ServerSnapshot {
        problems: Vec::new(),
        program_version: "0.1.0".to_owned(),
        uptime_seconds: 3,
        listen: vec!["10.0.9.1:848".parse().unwrap()],
        groups: vec![
            ServerGroup {
                name: "branches".to_owned(),
                id: 1111,
                members: 2,
                teks: vec![
                    ServerTek {
                        spi: 0x1300,
                        encryption: "aes-128-cbc".to_owned(),
                        integrity: Some("hmac-sha2-256-128".to_owned()),
                        lifetime_left_seconds: 3599,
                        current: true,
                        selectors: vec!["172.16.0.0/12 -> 172.16.0.0/12".to_owned()],
                    },
                    ServerTek {
                        spi: 0x12ff,
                        encryption: "aes-128-gcm-16".to_owned(),
                        integrity: None,
                        lifetime_left_seconds: 0,
                        current: false,
                        selectors: vec!["any -> any".to_owned(), "10.0.0.0/8 -> any".to_owned()],
                    },
                ],
                pulls_succeeded: 3,
                pulls_failed: 1,
                pulls_over_threshold: 1,
                rekey: Some(ServerRekey {
                    transport: "unicast".to_owned(),
                    encryption: "aes-256-cbc".to_owned(),
                    signature: "rsa-2048, sha2-256".to_owned(),
                    kek: Some(ServerKek {
                        spi: "000102030405060708090a0b0c0d0e0f".to_owned(),
                        lifetime_left_seconds: 86_399,
                        sequence_number: 17,
                    }),
                    next_push_seconds: Some(3374),
                    pushes: 20,
                    acknowledgements: 39,
                    acknowledgements_missing: 1,
                    members_unresponsive: 1,
                    retransmissions: 4,
                    last_push_milliseconds: Some(10_431),
                    members_dropped: 0,
                    removed: vec!["g9".to_owned()],
                }),
            },
            ServerGroup { name: "empty".to_owned(), id: 2, ..ServerGroup::default() },
        ],
        members: vec![RegisteredMember {
            group: "branches".to_owned(),
            group_id: 1111,
            name: "g1".to_owned(),
            address: "10.0.1.1:848".parse().unwrap(),
            identity: "10.0.1.1".to_owned(),
            registered_seconds_ago: 7200,
            last_pull_seconds_ago: 61,
            pulls: 3,
            keys_left_seconds: 3539,
            acknowledgements: 19,
            last_acknowledgement_seconds_ago: Some(3),
            unacknowledged_pushes: 0,
        }],
        statistics: ServerStatistics {
            half_open: 1,
            isakmp_sas: 2,
            pulls: 3,
            datagrams_received: 4,
            datagrams_sent: 5,
            phase1_established: 6,
            pulls_succeeded: 7,
            pulls_refused: 8,
            pulls_aborted: 9,
            half_open_expired: 10,
            half_open_evicted: 11,
            diffie_hellman: 12,
            duplicates_answered: 13,
            discards: counts(&[("half-open-limit", 10_000), ("truncated", 1)]),
        },
        redundancy: None,
        cluster: Some(cluster()),
    }
}

fn cluster() -> ServerCluster {
    let server = |name: &str, address: &str, connected| ClusterServer {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        connected,
        counters: counts(&[("requests_sent", 4), ("deaths", u64::from(!connected))]),
    };
    let peer = |name: &str, status: &str, since, version| ClusterPeer {
        name: name.to_owned(),
        role: "sub-server".to_owned(),
        status: status.to_owned(),
        since_seconds: since,
        prepared_version: Some(version),
        committed_version: Some(version - 1),
        differences: Vec::new(),
    };
    let difference = ClusterDifference {
        option: "gap.activation-time-delay".to_owned(),
        root: "30s".to_owned(),
        sub_server: "10s".to_owned(),
    };
    ServerCluster {
        servers: vec![server("ks2", "10.0.12.1:848", true), server("ks3", "10.0.13.1:848", false)],
        groups: vec![ClusterGroup {
            name: "branches".to_owned(),
            id: 1111,
            role: "root-server".to_owned(),
            epoch: 1,
            version: 17,
            stage: "prepared".to_owned(),
            prepared_version: None,
            peers: vec![
                ClusterPeer {
                    differences: vec![difference],
                    ..peer("ks2", "active", Some(61), 17)
                },
                peer("ks3", "unknown", None, 2),
            ],
            counters: counts(&[("inits_answered", 2), ("updates_sent", 5)]),
        }],
    }
}

/// One of two servers that are one, with the role `role`.
fn redundant(role: ServerRole) -> Response {
    let is_active = role == ServerRole::Active;
    let redundancy = Redundancy {
        role,
        name: "ks1".to_owned(),
        active: Some(if is_active { "ks1" } else { "ks2" }.to_owned()),
        store: "etcd http://10.0.9.11:2379,http://10.0.9.12:2379 /gcks".to_owned(),
        since_seconds: 3661,
        last_write_milliseconds: is_active.then_some(3),
        problem: is_active.then(|| "etcd has no room: it is full".to_owned()),
    };
    let snapshot = ServerSnapshot { redundancy: Some(redundancy), ..ServerSnapshot::default() };
    Response::Server(Box::new(snapshot))
}

/// Runs gdoictl against a daemon that knows `response` and answers everything with it.
fn run(response: Option<Response>, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if let Some(response) = response {
            let listener = Listener::bind(&socket).unwrap();
            let (sender, mut calls) = mpsc::channel::<Call>(4);
            tokio::spawn(serve(listener, Access::own(), sender));
            tokio::spawn(async move {
                while let Some(call) = calls.recv().await {
                    call.answer(response.clone());
                }
            });
        }
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_gdoictl"));
        command.arg("--socket").arg(&socket).args(arguments).output().await.unwrap()
    })
}

/// What the daemon is asked for.
fn asked(arguments: &[&str]) -> Request {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = Listener::bind(&socket).unwrap();
        let (sender, mut calls) = mpsc::channel::<Call>(4);
        tokio::spawn(serve(listener, Access::own(), sender));
        let answered = tokio::spawn(async move {
            let call = calls.recv().await.unwrap();
            let request = call.request().clone();
            call.answer(Response::Done(control::Completed { message: "done".to_owned() }));
            request
        });
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_gdoictl"));
        let output = command.arg("--socket").arg(&socket).args(arguments).output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
        answered.await.unwrap()
    })
}

fn golden(name: &str, text: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; run once with UPDATE_GOLDEN=1 and review", path.display())
    });
    assert_eq!(text, expected, "{name} differs; review, then run with UPDATE_GOLDEN=1");
}

fn shows(name: &str, response: Response, arguments: &[&str]) {
    for (json, ending) in [(false, "txt"), (true, "json")] {
        let mut arguments = arguments.to_vec();
        if json {
            arguments.push("--json");
        }
        let output = run(Some(response.clone()), &arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains('\u{1b}') || json, "a terminal would obey this");
        golden(&format!("{name}.{ending}"), &text);
    }
}

#[test]
fn show_member() {
    let member = || Response::Member(Box::new(member()));
    shows("member", member(), &["show", "member"]);
    shows("member_ike", member(), &["show", "member", "ike"]);
    shows("member_ipsec", member(), &["show", "member", "ipsec"]);
    shows("member_policy", member(), &["show", "member", "policy"]);
    shows("member_kek", member(), &["show", "member", "kek"]);
}

#[test]
fn show_server() {
    let server = || Response::Server(Box::new(server()));
    shows("server", server(), &["show", "server"]);
    shows("server_kek", server(), &["show", "server", "kek"]);
    shows("server_ipsec", server(), &["show", "server", "ipsec"]);
    shows("server_members", server(), &["show", "server", "members"]);
    shows("server_statistics", server(), &["show", "server", "statistics"]);
    shows("server_cluster", server(), &["show", "server", "cluster"]);
    shows("server_cluster_detail", server(), &["show", "server", "cluster", "detail"]);
}

#[test]
fn show_server_ike() {
    let sa = member().groups[0].isakmp_sas[0].clone();
    let of_server = ServerIsakmpSa {
        name: Some("ks2".to_owned()),
        peer: "server".to_owned(),
        sa: IsakmpSa { role: Role::Responder, ..sa.clone() },
    };
    let of_member = ServerIsakmpSa { name: None, peer: "member".to_owned(), sa };
    let sas = Response::IsakmpSas(vec![of_member, of_server]);
    shows("server_ike", sas, &["show", "server", "ike"]);
    shows("server_ike_none", Response::IsakmpSas(Vec::new()), &["show", "server", "ike"]);
}

/// Each command, by what it asks for.
#[test]
fn what_is_cleared() {
    let clear = |group: Option<&str>, now| {
        Request::ClearServer(ClearArgument { group: group.map(str::to_owned), now })
    };
    let member = |group: Option<&str>| {
        Request::ClearMember(ClearMemberArgument { group: group.map(str::to_owned) })
    };
    for (arguments, request) in [
        (&["clear", "server"][..], clear(None, false)),
        (&["clear", "server", "now"], clear(None, true)),
        (&["clear", "server", "branches"], clear(Some("branches"), false)),
        (&["clear", "server", "branches", "now"], clear(Some("branches"), true)),
        (&["clear", "server", "statistics"], Request::ClearServerStatistics),
        (&["clear", "server", "cluster"], Request::ClearServerCluster),
        (&["clear", "member"], member(None)),
        (&["clear", "member", "branches"], member(Some("branches"))),
    ] {
        let refusal = Refusal::not_served_here("nobody", &request);
        assert_eq!(asked(arguments), request, "{arguments:?}");
        assert!(fails(Some(Response::Refused(refusal)), arguments).contains("nobody"));
    }
    assert_eq!(run(None, &["clear", "server", "branches", "soon"]).status.code(), Some(2));
    assert_eq!(run(None, &["clear", "server", "statistics", "now"]).status.code(), Some(2));
}

#[test]
fn show_server_with_others() {
    shows("server_active", redundant(ServerRole::Active), &["show", "server"]);
    shows("server_standby", redundant(ServerRole::Standby), &["show", "server"]);
}

#[test]
fn nothing_registered() {
    shows("server_members_none", Response::Server(Box::default()), &["show", "server", "members"]);
    shows("server_cluster_none", Response::Server(Box::default()), &["show", "server", "cluster"]);
}

fn fails(response: Option<Response>, arguments: &[&str]) -> String {
    let output = run(response, arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn daemon_not_running() {
    let text = fails(None, &["show", "member"]);
    assert!(
        text.contains("the daemon is not running; start it (systemctl start gdoi-agent)"),
        "{text}"
    );
    let text = fails(None, &["show", "server"]);
    assert!(text.contains("systemctl start gcks"), "{text}");
    // Both daemons reload: the remedy names the one that was meant.
    let text = fails(None, &["reload", "member"]);
    assert!(text.contains("systemctl start gdoi-agent"), "{text}");
    let text = fails(None, &["reload"]);
    assert!(text.contains("systemctl start gcks"), "{text}");
}

#[test]
fn the_wrong_daemon() {
    let refusal = Refusal::not_served_here("gcks", &Request::ShowMember);
    let text = fails(Some(Response::Refused(refusal)), &["show", "member", "ike"]);
    assert!(
        text.contains("gcks does not answer show-member: wrong --socket? (not-served-here)"),
        "{text}"
    );
    assert_eq!(text.matches("not-served-here").count(), 1, "{text}");
    let text = fails(Some(Response::Server(Box::default())), &["show", "member"]);
    assert!(text.contains("an answer to another request"), "{text}");
}

#[test]
fn a_wrong_command_line() {
    let output = run(None, &["show", "nonsense"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn commands_say_what_was_done() {
    let done = || {
        Some(Response::Done(control::Completed { message: "push 7 goes to 3 members".to_owned() }))
    };
    for arguments in [
        &["rekey", "branches"][..],
        &["replace", "branches"],
        &["delete", "branches"],
        &["remove", "branches", "g1"],
        &["remove-all", "branches"],
        &["admit", "branches", "g1"],
        &["register", "branches"],
    ] {
        let output = run(done(), arguments);
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "push 7 goes to 3 members\n",
            "{arguments:?}"
        );
        let output = run(done(), &[arguments, &["--json"]].concat());
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "{\n  \"message\": \"push 7 goes to 3 members\"\n}\n"
        );
    }
    assert!(
        fails(Some(Response::Server(Box::default())), &["rekey", "branches"])
            .contains("another request")
    );
    assert_eq!(run(None, &["remove", "branches"]).status.code(), Some(2), "a member must be named");
}

#[test]
fn a_reload_tells_what_differs() {
    let changes = control::ConfigurationChanges {
        dry_run: true,
        warnings: vec!["gcks.toml:3:1: a short key".to_owned()],
        changes: vec![control::ConfigurationChange {
            subject: "group branches".to_owned(),
            option: "rekey.encryption".to_owned(),
            before: Some("aes-256-cbc".to_owned()),
            after: Some("aes-128-cbc".to_owned()),
            consequences: vec![control::ConfigurationConsequence {
                name: "next-kek".to_owned(),
                text: "in effect with the next KEK".to_owned(),
            }],
        }],
    };
    let response = Response::Configuration(Box::new(changes));
    let output = run(Some(response.clone()), &["reload", "--dry-run"]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "warning: gcks.toml:3:1: a short key\n\
         group branches: rekey.encryption from aes-256-cbc to aes-128-cbc\n    \
         in effect with the next KEK\n\
         nothing was done; without --dry-run it is\n"
    );
    assert_eq!(run(Some(response.clone()), &["reload", "member"]).status.code(), Some(0));
    let output = run(Some(response), &["--json", "reload", "--dry-run"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["changes"][0]["consequences"][0]["name"], "next-kek");
}

#[test]
fn errors_are_json_where_json_is_asked_for() {
    let refusal = Refusal::new(control::ErrorCode::UnknownGroup, "there is no group x");
    for (response, code) in [
        (Some(Response::Refused(refusal)), "unknown-group"),
        (None, "no-answer"),
        (Some(Response::Member(Box::default())), "no-answer"),
    ] {
        let output = run(response, &["--json", "rekey", "x"]);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(1), &b""[..]));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["error"]["code"], code);
        let message = json["error"]["message"].as_str().unwrap();
        assert_eq!(message.lines().count(), 1);
        assert!(message.matches("there is no group x").count() <= 1, "{message}");
    }
}

/// What is no command is an error like the others.
#[test]
fn mistakes_in_a_command_are_json_where_json_is_asked_for() {
    for (typed, named) in [
        (&["--json", "show", "membr"][..], "unrecognized subcommand 'membr'"),
        (&["rekey", "--json"], "<GROUP>"),
        (&["show", "member", "--json", "--colour"], "unexpected argument '--colour'"),
    ] {
        let output = run(None, typed);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(2), &b""[..]));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["error"]["code"], "usage");
        let message = json["error"]["message"].as_str().unwrap();
        assert!(message.contains(named) && !message.contains('\n'), "{message}");
        assert!(!message.starts_with("error"), "{message}");
    }
    // Without it they are clap's own text.
    let output = run(None, &["show", "membr"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]));
    assert!(String::from_utf8(output.stderr).unwrap().contains("Usage:"));
}

/// The peer's credentials come from the kernel: a process of another user is refused although it
/// may open the socket file. Needs root, to start such a process.
#[tokio::test]
async fn another_user_is_refused_by_its_credentials() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it takes root to ask as another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let socket = folder.path().join("control.sock");
    let (sender, mut calls) = mpsc::channel::<Call>(4);
    tokio::spawn(serve(Listener::bind(&socket).unwrap(), Access::own(), sender));
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            call.answer(Response::Server(Box::default()));
        }
    });
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
    let gdoictl = folder.path().join("gdoictl");
    std::fs::copy(env!("CARGO_BIN_EXE_gdoictl"), &gdoictl).unwrap();
    let mut command = tokio::process::Command::new(&gdoictl);
    command.arg("--socket").arg(&socket).args(["show", "server"]).uid(65_534).gid(65_534);
    let output = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(text.contains("only root and the daemon's user and group may ask"), "{text}");
}
