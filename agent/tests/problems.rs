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

#[test]
fn every_problem_comes_and_goes_with_its_cause() {
    if !nix::unistd::geteuid().is_root() {
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

    // All of that goes, and other things are wrong.
    sh("ip link add wan type veth peer name wanp; ip link add lan type veth peer name lanp
        for i in wan wanp lan lanp; do ip link set $i up; done
        ip addr add 10.0.1.1/24 dev wan; ip addr add 172.16.1.1/24 dev lan
        ip route add default via 10.0.1.254 dev wan
        ip link add docker0 type veth peer name inside; ip link set inside up
        ip addr add 172.16.5.1/24 dev docker0; ip link set docker0 up; ip rule add iif lan lookup main pref 100
        echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/conf/wan/disable_xfrm");
    std::fs::create_dir(at("copy")).unwrap();
    std::fs::rename(at("state"), at("elsewhere")).unwrap();
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
