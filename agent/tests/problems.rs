//! What `gdoictl show member` calls a problem, each with its cause set and removed: the built daemon
//! in a network namespace of its own. Needs root.
//!
//! Whatever kernel runs the test may have no ESP, which is the one problem that stays.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use control::{Request, Response};
use ike::certificate::testing::{Authority, Contents, DAY, key};
use ike::crypto::{KeyKind, SigningKey};
use nix::sched::{CloneFlags, unshare};
use testing::process::{Running, sh};

fn problems(socket: &Path) -> Option<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match runtime.block_on(control::client::ask(socket, Request::ShowMember)) {
        Ok(Response::Member(snapshot)) => {
            let no_esp = |problem: &String| problem.contains("the kernel has no ESP");
            Some(snapshot.problems.into_iter().filter(|problem| !no_esp(problem)).collect())
        }
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

/// Waits until the problems are these, by what each contains, in any order. Settings and files are
/// looked at every 30 s.
fn become_these(socket: &Path, expected: &[&str]) {
    let since = Instant::now();
    loop {
        let told = problems(socket);
        let is_expected = told.as_ref().is_some_and(|told| {
            let found = |part: &&str| told.iter().filter(|one| one.contains(*part)).count() == 1;
            told.len() == expected.len() && expected.iter().all(found)
        });
        if is_expected {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "{told:#?}\nfor\n{expected:#?}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The same as people see them, if gdoictl is built too.
fn shown(socket: &Path, expected: &[&str]) {
    let gdoictl: PathBuf = Path::new(env!("CARGO_BIN_EXE_gdoi-agent")).with_file_name("gdoictl");
    if !gdoictl.exists() {
        eprintln!("not compared with what gdoictl shows: {} is not built", gdoictl.display());
        return;
    }
    let run = |arguments: &[&str]| {
        let output =
            Command::new(&gdoictl).arg("--socket").arg(socket).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["show", "member"]);
    let json: serde_json::Value =
        serde_json::from_str(&run(&["--json", "show", "member"])).unwrap();
    for part in expected {
        let mut lines = text.lines().filter(|line| line.starts_with("Problem"));
        assert!(lines.any(|line| line.contains(part)), "{part}\n{text}");
        let told = json["problems"].as_array().unwrap();
        assert!(told.iter().any(|one| one.as_str().unwrap().contains(part)), "{part}");
    }
}

/// The state of the only tunnel, as both forms show it.
fn tunnel_becomes(socket: &Path, expected: &str) {
    let since = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    loop {
        let shown = match runtime.block_on(control::client::ask(socket, Request::ShowTunnel)) {
            Ok(Response::Tunnels(shown)) => shown.tunnels[0].state.clone(),
            other => panic!("{other:?}"),
        };
        if shown.contains(expected) {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "{shown}\nfor\n{expected}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// A certificate that ended as long ago as this, or ends in so many days.
fn certificate(authority: &Authority, key: &SigningKey, days: i64) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let end = now.checked_add_signed(days * DAY as i64).unwrap();
    let contents = Contents::new("CN=m1,O=Example").dns("m1.example");
    authority.certify(Contents { valid: (now - 700 * DAY, end), ..contents }, key)
}

/// Files that others can read, a certificate that has ended, a policy of another program in the
/// way, a tunnel without its address and its port.
#[test]
fn problems_of_files_certificates_policies_and_tunnels_come_and_go() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it takes root to make a network namespace");
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    sh("ip link set lo up
        ip link add wan type veth peer name wanp; ip link add lan type veth peer name lanp
        for i in wan wanp lan lanp; do ip link set $i up; done
        ip addr add 10.0.1.1/24 dev wan; ip addr add 172.16.1.1/24 dev lan
        ip route add default via 10.0.1.254 dev wan
        echo 1 > /proc/sys/net/ipv4/ip_forward
        ip xfrm policy add dir out src 172.16.0.0/12 dst 172.16.0.0/12 action allow priority 5");
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let private = |name: &str, text: &str, mode: u32| {
        std::fs::write(at(name), text).unwrap();
        std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    let pem = |label: &str, der: &[u8]| {
        pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der).unwrap()
    };
    let own = key(KeyKind::Ecdsa256, 9);
    let contents = Contents::authority("CN=Root of the tests,O=Example");
    let authority = Authority::with(1, Contents { valid: (0, u32::MAX.into()), ..contents });
    private("psk", "a key of thirty-two octets or so\n", 0o600);
    private("site.key", &pem("PRIVATE KEY", own.to_pkcs8_der().unwrap().expose()), 0o600);
    private("site.crt", &pem("CERTIFICATE", &certificate(&authority, &own, -3)), 0o644);
    private("ca.crt", &pem("CERTIFICATE", &authority.der()), 0o644);
    let folder = directory.path().display();
    let text = format!(
        "control-socket = \"{folder}/control.sock\"\nstate-directory = \"{folder}/state\"\n\
         [[certificate]]\nname = \"site\"\nchain-file = \"{folder}/site.crt\"\n\
         private-key-file = \"{folder}/site.key\"\nauthority-files = [\"{folder}/ca.crt\"]\n\
         [[group]]\nname = \"branches\"\nid = 1\nlocal-address = \"wan\"\nlan = [\"lan\"]\n\
         wan = [\"wan\"]\nprotected = [\"172.16.0.0/12\"]\npre-shared-key-file = \"{folder}/psk\"\n\
         [[group.server]]\naddress = \"10.0.9.1\"\n\
         [[gateway]]\nname = \"cloud\"\n\
         [[tunnel]]\nname = \"headquarters\"\ngateway = \"cloud\"\nlocal-address = \"10.0.1.7\"\n\
         peer = \"10.0.9.7\"\nlocal-networks = [\"10.7.0.0/16\"]\n\
         remote-networks = [\"10.9.0.0/16\"]\ncertificate = \"site\"\n"
    );
    std::fs::create_dir(at("state")).unwrap();
    private("agent.toml", &text, 0o600);
    let port = UdpSocket::bind("0.0.0.0:500").unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_gdoi-agent"));
    agent.arg("--config").arg(at("agent.toml"));
    agent.arg("--accepted").arg(at("accepted.toml")).env_remove("NOTIFY_SOCKET");
    agent.stderr(std::fs::File::create(at("log")).unwrap());
    let agent = Running(agent.spawn().unwrap());
    let socket = at("control.sock");
    let reload = || sh(&format!("kill -HUP {}", agent.0.id()));

    // The server is not there all the time.
    const SERVER: &str = "group branches: no key server has given keys in";
    const CERTIFICATE: &str = "certificate site: the certificate of CN=m1,O=Example ended at";
    let foreign =
        "group branches: a policy for out 172.16.0.0/12 -> 172.16.0.0/12 exists that is not ours";
    let first = [CERTIFICATE, foreign, "10.0.1.7:500: Cannot assign requested address", SERVER];
    become_these(&socket, &first);
    shown(&socket, &first);
    tunnel_becomes(&socket, "no interface has the local address 10.0.1.7");

    // The foreign policy and the certificate are mended, and the pre-shared key is open to all.
    sh("ip xfrm policy delete dir out src 172.16.0.0/12 dst 172.16.0.0/12");
    private("site.crt", &pem("CERTIFICATE", &certificate(&authority, &own, 300)), 0o644);
    reload();
    become_these(&socket, &["10.0.1.7:500: Cannot assign requested address", SERVER]);
    private("psk", "a key of thirty-two octets or so\n", 0o644);
    sh("ip addr add 10.0.1.7/24 dev wan");
    reload();
    let second = [
        "configuration not reloaded, the previous one stays in use",
        "10.0.1.7:500: Address already in use",
        SERVER,
    ];
    become_these(&socket, &second);
    shown(&socket, &second);

    drop(port);
    private("psk", "a key of thirty-two octets or so\n", 0o600);
    reload();
    become_these(&socket, &[SERVER]);
    tunnel_becomes(&socket, "no answer to message 1 of main mode");
}

#[test]
fn every_problem_comes_and_goes_with_its_cause() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it takes root to make a network namespace");
        return;
    }
    // The thread of the test alone moves, and everything it starts.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    sh("ip link set lo up");
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("psk"), "a key of thirty-two octets or so\n").unwrap();
    std::fs::set_permissions(at("psk"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::create_dir(at("state")).unwrap();
    let folder = directory.path().display();
    let text = format!(
        "control-socket = \"{folder}/control.sock\"\nstate-directory = \"{folder}/state\"\n\
         [[group]]\nname = \"branches\"\nid = 1\nlocal-address = \"wan\"\nlan = [\"lan\"]\n\
         wan = [\"wan\"]\nprotected = [\"172.16.0.0/12\"]\npre-shared-key-file = \"{folder}/psk\"\n\
         [[group.server]]\naddress = \"10.0.9.1\"\n"
    );
    std::fs::write(at("agent.toml"), text).unwrap();
    // Somebody has the port already.
    let port = UdpSocket::bind("0.0.0.0:848").unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_gdoi-agent"));
    agent.arg("--config").arg(at("agent.toml"));
    agent.arg("--accepted").arg(at("copy/accepted.toml")).env_remove("NOTIFY_SOCKET");
    agent.stderr(std::fs::File::create(at("log")).unwrap());
    let _agent = Running(agent.spawn().unwrap());
    let socket = at("control.sock");

    let nothing_there = [
        "IPv4 forwarding is off: sysctl -w net.ipv4.ip_forward=1",
        "copy of the configuration for the boot",
        "group branches: interface wan does not exist: registration waits for it",
        "group branches: no WAN interface is up (wan)",
        "interface lan is missing: create it",
    ];
    become_these(&socket, &nothing_there);
    shown(&socket, &nothing_there);

    // All of that goes, and other things are wrong. The state is written when interfaces change.
    std::fs::create_dir(at("copy")).unwrap();
    std::fs::rename(at("state"), at("elsewhere")).unwrap();
    sh("ip link add wan type veth peer name wanp; ip link add lan type veth peer name lanp
        for i in wan wanp lan lanp; do ip link set $i up; done
        ip addr add 10.0.1.1/24 dev wan; ip addr add 172.16.1.1/24 dev lan
        ip route add default via 10.0.1.254 dev wan
        ip link add docker0 type veth peer name inside; ip link set inside up
        ip addr add 172.16.5.1/24 dev docker0; ip link set docker0 up; ip rule add iif lan lookup main pref 100
        echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/conf/wan/disable_xfrm");
    let now_wrong = [
        "10.0.1.1:848: Address already in use",
        // As there is none; and the datagrams did not even leave.
        "the datagram could not be sent: Cannot assign requested address",
        "disable_xfrm",
        "docker0",
        "a routing rule is about what arrives by lan",
        "state file",
    ];
    become_these(&socket, &now_wrong);
    shown(&socket, &now_wrong);

    drop(port);
    sh("ip link del docker0; ip rule del pref 100
        echo 0 > /proc/sys/net/ipv4/conf/wan/disable_xfrm");
    std::fs::rename(at("elsewhere"), at("state")).unwrap();
    become_these(&socket, &["group branches: no key server has given keys in"]);
}
