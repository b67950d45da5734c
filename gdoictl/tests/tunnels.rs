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

/// What a daemon with this configuration file answers to a change.
fn edited(file: &Path) -> EditedConfiguration {
    EditedConfiguration {
        file: file.canonicalize().unwrap(),
        before: BEFORE.to_owned(),
        after: AFTER.to_owned(),
        table: Some("[[gateway]]\nname = \"cloud\"\nlifetime = \"4h\"\n".to_owned()),
        warnings: changes(true).warnings,
        changes: changes(true).changes,
    }
}

/// A daemon that answers so to a change and to a reload.
fn daemon(
    edited: EditedConfiguration,
    reload: Response,
) -> impl Fn(&Request) -> Response + Send + 'static {
    move |request| match request {
        Request::Edit(_) => Response::Edited(Box::new(edited.clone())),
        _ => reload.clone(),
    }
}

/// Sets an option of a gateway in this file.
fn set<'a>(file: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let config = ["--config", file.to_str().unwrap()];
    [&["gateway", "set", "cloud", "lifetime=4h"][..], &config, more].concat()
}

fn reloaded() -> Response {
    Response::Configuration(Box::new(changes(false)))
}

/// The one line of a command that fails.
fn failure((output, _): (Output, Vec<Request>)) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert_eq!(text(&output.stderr).lines().count(), 1);
    text(&output.stderr)
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

#[test]
fn a_dry_run_shows_everything_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, BEFORE).unwrap();
    let (output, asked) = run(daemon(edited(&file), reloaded()), &set(&file, &["--dry-run"]));
    let expected = format!(
        "{}:\n  @@ -1,3 +1,4 @@\n   # Mine.\n   [[gateway]]\n   name = \"cloud\"\n  \
         +lifetime = \"4h\"\nwarning: a short key\n\
         gateway cloud: lifetime from 8h to 4h\n    its tunnels are negotiated again; others stay\n\
         nothing was done; without --dry-run it is\n",
        file.canonicalize().unwrap().display()
    );
    assert_eq!(text(&output.stdout), expected);
    let [Request::Edit(argument)] = asked.as_slice() else { panic!("{asked:?}") };
    let Edit::Set { options, unset } = &argument.edit else { panic!("{argument:?}") };
    assert_eq!((argument.name.as_str(), unset.len()), ("cloud", 0));
    assert_eq!((options[0].option.as_str(), options[0].value.as_str()), ("lifetime", "4h"));
    let arguments = set(&file, &["--dry-run", "--json"]);
    let (output, _) = run(daemon(edited(&file), reloaded()), &arguments);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["changes"][0]["after"], "4h");
    assert_eq!(json["dry_run"], true);
    assert!(json["difference"].as_str().unwrap().contains("\n+lifetime = \"4h\"\n"), "{json}");
    // A comment may change elsewhere, and that is seen.
    let mut answer = edited(&file);
    answer.after = answer.after.replace("# Mine.", "# Yours.\u{1b}");
    let (output, _) = run(daemon(answer, reloaded()), &set(&file, &["--dry-run"]));
    let error = text(&output.stderr);
    assert!(error.contains("no TOML"), "{error}");
    let mut answer = edited(&file);
    answer.after = answer.after.replace("# Mine.", "# Yours.");
    let (output, _) = run(daemon(answer, reloaded()), &set(&file, &["--dry-run"]));
    assert!(text(&output.stdout).contains("\n  -# Mine.\n  +# Yours.\n"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), BEFORE);
}

#[test]
fn a_change_is_written_and_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, BEFORE).unwrap();
    // By a symbolic link as well: the file that it leads to is the daemon's.
    let link = folder.path().join("link.toml");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let (output, asked) = run(daemon(edited(&file), reloaded()), &set(&link, &["--yes"]));
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
    let fails = |arguments: &[&str]| failure(run(daemon(edited(&file), refused()), arguments));
    let error = fails(&set(&file, &["--yes"]));
    assert!(error.contains("is as it was") && error.contains("no interface wan"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), BEFORE);
    let (output, _) = run(daemon(edited(&file), refused()), &set(&file, &["--yes", "--json"]));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["error"]["code"], "not-possible");
    let error = fails(&set(&file, &[]));
    assert!(error.contains("add --yes, or look first with --dry-run"), "{error}");
    std::fs::write(&file, "# Somebody else's.\n").unwrap();
    let error = fails(&set(&file, &["--yes"]));
    assert!(error.contains("somebody has changed it meanwhile"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# Somebody else's.\n");
    let (output, _) = run(move |_| refused(), &["tunnel", "delete", "one", "--yes", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["error"]["code"], "not-possible");
    let (output, _) = run(move |_| refused(), &["tunnel", "set", "one", "lifetime"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("write OPTION=VALUE"));
}

#[test]
fn a_daemon_chooses_neither_the_file_nor_more_than_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    let foreign = folder.path().join("passwd");
    std::fs::write(&file, BEFORE).unwrap();
    std::fs::write(&foreign, BEFORE).unwrap();
    let unwritten = |answer: EditedConfiguration, words: &str| {
        for how in ["--yes", "--dry-run"] {
            let (output, asked) = run(daemon(answer.clone(), reloaded()), &set(&file, &[how]));
            assert!(matches!(asked.as_slice(), [Request::Edit(_)]), "{asked:?}");
            let error = failure((output, asked));
            assert!(error.contains(words), "{error}");
        }
        for path in [&file, &foreign] {
            assert_eq!(std::fs::read_to_string(path).unwrap(), BEFORE);
        }
    };
    unwritten(edited(&foreign), "and that is not ");
    let other = EditedConfiguration { before: AFTER.to_owned(), ..edited(&file) };
    unwritten(other, "the daemon has read another text than it holds");
    for (after, words) in [
        (format!("include = [\"/tmp/*\"]\n{AFTER}"), "include outside gateway cloud"),
        (format!("{AFTER}profile = \"aws\"\n"), "profile of gateway cloud"),
        (AFTER.replace("4h", "5h"), "lifetime of gateway cloud has another value"),
        (String::from("root::0:0::/root:/bin/sh\n"), "not asked for: no TOML"),
    ] {
        unwritten(EditedConfiguration { after, ..edited(&file) }, words);
    }
    // Without the option it is the file of the package.
    let arguments = ["gateway", "set", "cloud", "lifetime=4h", "--yes"];
    let error = failure(run(daemon(edited(&file), reloaded()), &arguments));
    assert!(error.contains("/etc/gdoi-agent/gdoi-agent.toml"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), BEFORE);
}

#[test]
fn a_change_of_which_nothing_is_known_stays_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    let slow = Refusal::new(ErrorCode::Unavailable, "the daemon did not answer within 10 s");
    for answer in [Response::Refused(slow), Response::Tunnels(Box::new(snapshot()))] {
        std::fs::write(&file, BEFORE).unwrap();
        let error = failure(run(daemon(edited(&file), answer), &set(&file, &["--yes"])));
        assert!(
            error.contains("has the change, and whether the daemon has it is unknown"),
            "{error}"
        );
        assert!(error.contains("`gdoictl gateway show cloud`"), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), AFTER);
    }
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
