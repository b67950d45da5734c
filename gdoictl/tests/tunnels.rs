//! `gdoictl gateway` and `gdoictl tunnel` against a daemon with fixed answers: what is shown, what is
//! written, and what stays when something fails.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use control::edit::{Edit, EditedConfiguration};
use control::server::{Call, serve};
use control::socket::{Access, Listener};
use control::tunnel::*;
use control::{
    ConfigurationChange, ConfigurationChanges, ConfigurationConsequence, ErrorCode, Refusal,
    Request, Response,
};
use tokio::sync::mpsc;

const BEFORE: &str = "# Mine.\n[[gateway]]\nname = \"cloud\"\n";
const AFTER: &str = "# Mine.\n[[gateway]]\nname = \"cloud\"\nlifetime = \"4h\"\n";

/// Runs gdoictl; `answer` is the daemon. Returns the requests that it got, too.
fn run(
    answer: impl Fn(&Request) -> Response + Send + 'static,
    arguments: &[&str],
) -> (Output, Vec<Request>) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let output = runtime.block_on(async {
        let (sender, mut calls) = mpsc::channel::<Call>(4);
        tokio::spawn(serve(Listener::bind(&socket).unwrap(), Access::own(), sender));
        tokio::spawn(async move {
            while let Some(call) = calls.recv().await {
                seen.lock().unwrap().push(call.request().clone());
                let response = answer(call.request());
                call.answer(response);
            }
        });
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_gdoictl"));
        command.arg("--socket").arg(&socket).args(arguments).stdin(Stdio::null());
        command.output().await.unwrap()
    });
    let asked = asked.lock().unwrap().clone();
    (output, asked)
}

fn changes(dry_run: bool) -> ConfigurationChanges {
    let change = ConfigurationChange {
        subject: "gateway cloud".to_owned(),
        option: "lifetime".to_owned(),
        before: Some("8h".to_owned()),
        after: Some("4h".to_owned()),
        consequences: vec![ConfigurationConsequence {
            name: "tunnels-of-gateway".to_owned(),
            text: "its tunnels are negotiated again; others stay".to_owned(),
        }],
    };
    ConfigurationChanges {
        dry_run,
        warnings: vec!["a short key".to_owned()],
        changes: vec![change],
    }
}

/// A daemon with this configuration file, whose reload is answered so.
fn daemon(file: &Path, reload: Response) -> impl Fn(&Request) -> Response + Send + 'static {
    let file = file.to_owned();
    move |request| match request {
        Request::Edit(_) => Response::Edited(Box::new(EditedConfiguration {
            file: file.clone(),
            before: BEFORE.to_owned(),
            after: AFTER.to_owned(),
            table: Some("[[gateway]]\nname = \"cloud\"\nlifetime = \"4h\"\n".to_owned()),
            warnings: changes(true).warnings,
            changes: changes(true).changes,
        })),
        _ => reload.clone(),
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

const SET: [&str; 4] = ["gateway", "set", "cloud", "lifetime=4h"];

#[test]
fn a_dry_run_shows_everything_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, BEFORE).unwrap();
    let none = || Response::Configuration(Box::new(changes(false)));
    let (output, asked) = run(daemon(&file, none()), &[&SET[..], &["--dry-run"]].concat());
    let expected = format!(
        "{}:\n  [[gateway]]\n  name = \"cloud\"\n  lifetime = \"4h\"\nwarning: a short key\n\
         gateway cloud: lifetime from 8h to 4h\n    its tunnels are negotiated again; others stay\n\
         nothing was done; without --dry-run it is\n",
        file.display()
    );
    assert_eq!(text(&output.stdout), expected);
    let [Request::Edit(argument)] = asked.as_slice() else { panic!("{asked:?}") };
    let Edit::Set { options, unset } = &argument.edit else { panic!("{argument:?}") };
    assert_eq!((argument.name.as_str(), unset.len()), ("cloud", 0));
    assert_eq!((options[0].option.as_str(), options[0].value.as_str()), ("lifetime", "4h"));
    let (output, _) = run(daemon(&file, none()), &[&SET[..], &["--dry-run", "--json"]].concat());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["changes"][0]["after"], "4h");
    assert_eq!(json["dry_run"], true);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), BEFORE);
}

#[test]
fn a_change_is_written_and_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, BEFORE).unwrap();
    let reloaded = Response::Configuration(Box::new(changes(false)));
    let (output, asked) = run(daemon(&file, reloaded), &[&SET[..], &["--yes"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), AFTER);
    assert!(matches!(asked.as_slice(), [Request::Edit(_), Request::Reload(_)]), "{asked:?}");
    assert!(text(&output.stdout).contains("lifetime from 8h to 4h"));
}

#[test]
fn what_fails_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, BEFORE).unwrap();
    let refused = || Response::Refused(Refusal::new(ErrorCode::NotPossible, "no interface wan"));
    let fails = |answer: Response, arguments: &[&str]| {
        let (output, _) = run(daemon(&file, answer), arguments);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stderr).lines().count(), 1);
        text(&output.stderr)
    };
    let error = fails(refused(), &[&SET[..], &["--yes"]].concat());
    assert!(error.contains("is as it was") && error.contains("no interface wan"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), BEFORE);
    let error = fails(refused(), &SET);
    assert!(error.contains("add --yes, or look first with --dry-run"), "{error}");
    std::fs::write(&file, "# Somebody else's.\n").unwrap();
    let error = fails(refused(), &[&SET[..], &["--yes"]].concat());
    assert!(error.contains("somebody has changed it meanwhile"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# Somebody else's.\n");
    let (output, _) = run(move |_| refused(), &["tunnel", "delete", "one", "--yes", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["error"]["code"], "not-possible");
    let (output, _) = run(move |_| refused(), &["tunnel", "set", "one", "lifetime"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("write OPTION=VALUE"));
}

fn snapshot() -> TunnelsSnapshot {
    let interface = |name: &str, role: &str, address: &str| TunnelInterface {
        name: name.to_owned(),
        role: role.to_owned(),
        up: true,
        mtu: 1500,
        addresses: vec![address.to_owned()],
    };
    let route = |destination: &str, interface: Option<&str>| TunnelRoute {
        destination: destination.to_owned(),
        is_peer: !destination.contains('/'),
        interface: interface.map(str::to_owned),
        next_hop: interface.map(|_| "198.51.100.254".to_owned()),
    };
    let sa = TunnelSas {
        inbound_spi: "0x00001300".to_owned(),
        outbound_spi: "0x00002300".to_owned(),
        sending: true,
        algorithms: "aes-256-gcm".to_owned(),
        pfs: "14".to_owned(),
        initiator: true,
        age_seconds: 65,
        lifetime_left_seconds: 3500,
        kilobytes: Some(4096),
        received: control::member::Traffic { packets: 3, octets: 252 },
        sent: control::member::Traffic { packets: 4, octets: 336 },
    };
    let active = TunnelSnapshot {
        name: "one".to_owned(),
        gateway: "cloud".to_owned(),
        profile: Some("aws".to_owned()),
        local: "198.51.100.1".to_owned(),
        peer: "203.0.113.1".to_owned(),
        state: "active".to_owned(),
        active: true,
        active_seconds: Some(60),
        isakmp_sa: Some(TunnelIsakmpSa {
            initiator_cookie: "0123456789abcdef".to_owned(),
            responder_cookie: "fedcba9876543210".to_owned(),
            transform: "aes-256-cbc, sha2-256, group 14".to_owned(),
            lifetime_left_seconds: 28_000,
        }),
        networks: vec![TunnelNetworks {
            local: "172.20.1.0/24".to_owned(),
            remote: "192.168.0.0/24".to_owned(),
            sas: vec![sa],
        }],
        interfaces: vec![
            interface("wan", "local-address", "198.51.100.1/24"),
            interface("lan", "local-networks", "172.20.1.1/24"),
        ],
        routes: vec![route("203.0.113.1", Some("wan")), route("192.168.0.0/24", Some("wan"))],
    };
    let waiting = TunnelSnapshot {
        name: "two".to_owned(),
        peer: "203.0.113.2".to_owned(),
        state: "there is no route to the peer 203.0.113.2: add one".to_owned(),
        active: false,
        active_seconds: None,
        isakmp_sa: None,
        networks: vec![TunnelNetworks {
            local: "172.20.1.0/24".to_owned(),
            remote: "192.168.9.0/24".to_owned(),
            sas: Vec::new(),
        }],
        routes: vec![route("203.0.113.2", None), route("192.168.9.0/24", None)],
        ..active.clone()
    };
    let gateway = |name: &str, tunnels: &[&str]| GatewaySnapshot {
        name: name.to_owned(),
        profile: Some("aws".to_owned()),
        transforms: vec!["aes-256-cbc, sha2-256, group 14".to_owned()],
        lifetime_seconds: 28_800,
        bandwidth: (name == "cloud").then(|| GatewayBandwidth {
            mbit: 20,
            dropped_sent: control::member::Traffic { packets: 7, octets: 9_800 },
            dropped_received: control::member::Traffic::default(),
        }),
        tunnels: tunnels.iter().map(|name| (*name).to_owned()).collect(),
    };
    TunnelsSnapshot {
        gateways: vec![gateway("cloud", &["one", "two"]), gateway("spare", &[])],
        tunnels: vec![active, waiting],
    }
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name} differs; review, then run with UPDATE_GOLDEN=1");
}

#[test]
fn what_is_shown() {
    let answer = || |_: &Request| Response::Tunnels(Box::new(snapshot()));
    for (name, arguments) in [
        ("tunnels", &["tunnel", "show"][..]),
        ("tunnel_one", &["tunnel", "show", "one"]),
        ("tunnel_two", &["tunnel", "show", "two"]),
        ("gateways", &["gateway", "show"]),
        ("gateway_spare", &["gateway", "show", "spare"]),
    ] {
        let (output, _) = run(answer(), arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        golden(&format!("{name}.txt"), &text(&output.stdout));
        let (output, _) = run(answer(), &[arguments, &["--json"]].concat());
        golden(&format!("{name}.json"), &text(&output.stdout));
    }
    for object in ["tunnel", "gateway"] {
        let (output, _) = run(answer(), &[object, "show", "three"]);
        let error = text(&output.stderr);
        assert!(error.contains(&format!("there is no {object} three")), "{error}");
    }
}
