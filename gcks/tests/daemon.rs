//! The built daemon on the loopback interface: real datagrams, real control socket, real signals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use control::{Request, Response, ServerSnapshot};
use daemon::clock;
use gdoi::member::Registration;
use support::*;
use testing::process::Running;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gcks");

struct Daemon {
    child: Running,
    port: u16,
    directory: tempfile::TempDir,
    log: std::thread::JoinHandle<String>,
}

impl Daemon {
    fn start(head: &str) -> Self {
        let directory = keys();
        let port = free_port();
        let head = format!("listen = [\"127.0.0.1\", \"127.0.0.2\"]\nport = {port}\n{head}");
        let text = configuration(directory.path(), &head, "127.0.7", CBC);
        Self::start_in(directory, port, &text)
    }

    fn start_in(directory: tempfile::TempDir, port: u16, text: &str) -> Self {
        let config = file(directory.path(), "gcks.toml", text);
        let mut child = Running(
            Command::new(PROGRAM)
                .arg("--config")
                .arg(config)
                .args(["--log", "trace"])
                .env_remove("NOTIFY_SOCKET")
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut lines = BufReader::new(child.0.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains("key server is ready") {
            assert_ne!(lines.read_line(&mut log).unwrap(), 0, "the daemon ended: {log}");
        }
        let log = std::thread::spawn(move || {
            lines.read_to_string(&mut log).unwrap();
            log
        });
        Self { child, port, directory, log }
    }

    fn address(&self, last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], self.port))
    }

    fn ask(&self, request: Request) -> Result<Response, control::client::ClientError> {
        let path = self.directory.path().join("control.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(control::client::ask(&path, request))
    }

    /// Is killed; what is left is its folder.
    fn kill(mut self) -> tempfile::TempDir {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
        self.log.join().unwrap();
        self.directory
    }

    fn show(&self) -> ServerSnapshot {
        match self.ask(Request::ShowServer).unwrap() {
            Response::Server(snapshot) => *snapshot,
            other => panic!("{other:?}"),
        }
    }

    /// Sends SIGTERM; the log and how long the end took.
    fn stop(mut self) -> (String, Duration) {
        let begin = Instant::now();
        signal(&self, "-TERM");
        let status = self.child.0.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(!self.directory.path().join("control.sock").exists());
        (self.log.join().unwrap(), begin.elapsed())
    }
}

fn signal(daemon: &Daemon, signal: &str) {
    let status =
        Command::new("kill").args([signal, &daemon.child.0.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Registers over a socket of the member's own address.
fn register_over_udp(number: u8, key_of: u8, group: u32, server: SocketAddr) -> Outcome {
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 7, number], 0))).unwrap();
    register_on(&socket, number, key_of, group, server)
}

fn register_on(
    socket: &UdpSocket,
    number: u8,
    key_of: u8,
    group: u32,
    server: SocketAddr,
) -> Outcome {
    let config = registration(number, key_of, group, socket.local_addr().unwrap(), server);
    register_by(socket, config, server).0
}

fn check(directory: &std::path::Path, text: &str) -> Output {
    let config = file(directory, "gcks.toml", text);
    Command::new(PROGRAM).arg("--config").arg(config).arg("--check").output().unwrap()
}

#[test]
fn members_register_on_every_address_and_show_up() {
    let daemon = Daemon::start("");
    let one = register_over_udp(1, 1, 1, daemon.address(1)).group_sa();
    let two = register_over_udp(2, 2, 1, daemon.address(2)).group_sa();
    assert_eq!(one.tek_keys(), two.tek_keys());
    let shown = daemon.show();
    assert_eq!(shown.listen, [daemon.address(1), daemon.address(2)]);
    let names: Vec<&str> = shown.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["g1", "g2"]);
    assert_eq!(shown.statistics.pulls_succeeded, 2);
    let (log, took) = daemon.stop();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(
        log.contains("member registered")
            && log.contains("TEK created")
            && log.contains("key server stopped"),
        "{log}"
    );
    for keys in one.tek_keys().values() {
        let hex: String =
            keys.encryption.expose().iter().map(|octet| format!("{octet:02x}")).collect();
        assert!(!log.contains(&hex), "the log shows a key");
    }
    assert!(!log.contains(&key(1)), "the log shows a pre-shared key");
}

/// Names of the daemon's threads.
fn threads(daemon: &Daemon) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.child.0.id())).unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap().trim().to_owned()
    };
    tasks.map(name).collect()
}

#[test]
fn members_register_at_a_time_while_the_configuration_is_read_again() {
    let daemon = Daemon::start("");
    let expected = std::thread::available_parallelism().unwrap().get();
    let workers =
        || threads(&daemon).iter().filter(|name| name.starts_with("key-exchange-")).count();
    // A thread takes its name when it first runs, which may be after the daemon answers.
    let patience = Instant::now() + Duration::from_secs(5);
    while workers() < expected && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(workers(), expected);
    let server = daemon.address(1);
    let rounds = 4;
    let members: Vec<_> = [(1, 1), (2, 1), (3, 2)]
        .into_iter()
        .map(|(number, group)| {
            std::thread::spawn(move || {
                for _ in 0..rounds {
                    register_over_udp(number, number, group, server).group_sa();
                }
            })
        })
        .collect();
    while !members.iter().all(std::thread::JoinHandle::is_finished) {
        signal(&daemon, "-HUP");
        std::thread::sleep(Duration::from_millis(20));
    }
    members.into_iter().for_each(|member| member.join().unwrap());
    let shown = daemon.show().statistics;
    assert_eq!((shown.pulls_succeeded, shown.half_open), (3 * rounds, 0), "{shown:?}");
    assert_eq!(shown.diffie_hellman, 2 * 3 * rounds, "{shown:?}");
    daemon.stop();
}

#[test]
fn the_daemon_ends_at_once_while_it_computes() {
    let daemon = Daemon::start("[ike]\ndh-group = [16]\n");
    // Key exchanges of the largest group from every member at a time.
    let mut sockets = Vec::new();
    for number in [1, 2, 3].repeat(4) {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 7, number], 0))).unwrap();
        let mut config =
            registration(number, number, 1, socket.local_addr().unwrap(), daemon.address(1));
        config.phase1.transforms[0].group = ike::crypto::DhGroup::Modp4096;
        let mut member = Registration::new(config, daemon::entropy::seed().unwrap(), clock::now());
        let first = member.poll_transmit().unwrap();
        socket.send_to(&first.payload, first.destination).unwrap();
        let mut answer = [0; 4096];
        let (length, source) = socket.recv_from(&mut answer).unwrap();
        member.handle_datagram(source, &answer[..length], clock::now()).unwrap();
        sockets.push((socket, member.poll_transmit().unwrap()));
    }
    for (socket, third) in &sockets {
        socket.send_to(&third.payload, third.destination).unwrap();
    }
    let hears = Instant::now();
    while daemon.show().statistics.diffie_hellman < 2 * 12 {
        assert!(hears.elapsed() < Duration::from_secs(5), "{:?}", daemon.show());
    }
    let (log, took) = daemon.stop();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(log.contains("key server stopped") && !log.contains("panicked"), "{log}");
}

#[test]
fn unauthorised_members_get_no_policy_and_a_line() {
    let daemon = Daemon::start("");
    register_over_udp(1, 1, 2, daemon.address(1)).failure();
    register_over_udp(2, 1, 1, daemon.address(1)).failure();
    let shown = daemon.show();
    assert_eq!((shown.statistics.pulls_succeeded, shown.statistics.pulls_refused), (0, 1));
    let (log, _) = daemon.stop();
    let refused: Vec<&str> = log.lines().filter(|line| line.contains("pull refused")).collect();
    assert_eq!(refused.len(), 1, "{log}");
    assert!(refused[0].contains("member g1 may not have group two"), "{refused:?}");
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("127.0.7.2")), "{log}");
}

#[test]
fn junk_is_counted_logged_at_a_bounded_rate_and_disturbs_nobody() {
    let daemon = Daemon::start("");
    // From a stranger's address and from a member's, of all lengths.
    for address in ["127.0.8.1:0", "127.0.7.2:0"] {
        let socket = UdpSocket::bind(address).unwrap();
        let mut octets = vec![0; 65_507];
        daemon::entropy::fill(&mut octets).unwrap();
        for round in 0..500 {
            let length = if round == 0 { octets.len() } else { round * 3 % 600 };
            socket.send_to(&octets[..length], daemon.address(1)).unwrap();
            // The kernel's buffer is bounded: let the daemon read.
            if round % 20 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    register_over_udp(1, 1, 1, daemon.address(1)).group_sa();
    let shown = daemon.show().statistics;
    let discarded: u64 = shown.discards.values().sum();
    assert!(discarded >= 900, "{shown:?}");
    assert_eq!((shown.diffie_hellman, shown.half_open), (2, 0), "{shown:?}");
    let (log, _) = daemon.stop();
    let lines = log.lines().filter(|line| line.contains("discarded")).count();
    assert!((1..100).contains(&lines), "{lines} lines");
}

#[test]
fn check_reports_and_starts_nothing() {
    let directory = keys();
    let sound = configuration(directory.path(), "", "10.0.0", CBC);
    let output = check(directory.path(), &sound);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("no errors; 2 groups, 3 members"));
    let output = check(directory.path(), &sound.replace("id = 2", "id = 1").replace("lan", "wan"));
    assert!(!output.status.success());
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        report.contains("group.id: the same as in line")
            && report.ends_with("1 error; nothing was started\n"),
        "{report}"
    );
    assert!(!directory.path().join("control.sock").exists());
}

#[test]
fn a_taken_port_is_one_clear_line() {
    let daemon = Daemon::start("");
    let other = keys();
    let head = format!("listen = [\"127.0.0.1\"]\nport = {}", daemon.port);
    let config =
        file(other.path(), "gcks.toml", &configuration(other.path(), &head, "127.0.7", CBC));
    let output = Command::new(PROGRAM).arg("--config").arg(config).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("another process holds this port"), "{text}");
    daemon.stop();
}

#[test]
fn the_service_manager_is_told() {
    let directory = keys();
    let manager = std::os::unix::net::UnixDatagram::bind(directory.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!("listen = [\"127.0.0.1\"]\nport = {}", free_port());
    let config = file(
        directory.path(),
        "gcks.toml",
        &configuration(directory.path(), &head, "127.0.7", CBC),
    );
    let mut child = Running(
        Command::new(PROGRAM)
            .arg("--config")
            .arg(&config)
            .env("NOTIFY_SOCKET", directory.path().join("notify"))
            .env("WATCHDOG_USEC", "400000")
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut messages = String::new();
    let mut buffer = [0; 4096];
    while !messages.contains("WATCHDOG=1") {
        let length = manager.recv(&mut buffer).expect("a message to the service manager");
        messages += &String::from_utf8_lossy(&buffer[..length]);
        messages.push('\n');
    }
    assert!(messages.starts_with("READY=1\nSTATUS=2 groups, 3 members\n"), "{messages}");
    let signal = |name: &str| {
        let id = child.0.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    };
    let mut wait_for = |text: &str| {
        let mut messages = String::new();
        while !messages.contains(text) {
            let length = manager.recv(&mut buffer).expect("the status of a reload");
            messages += &String::from_utf8_lossy(&buffer[..length]);
        }
    };
    // `systemctl reload` only sends a signal: the status line says what became of it.
    let sound = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{sound}\nnonsense = 1\n")).unwrap();
    signal("-HUP");
    wait_for("STATUS=configuration not reloaded, the previous one stays in use: ");
    std::fs::write(&config, sound).unwrap();
    signal("-HUP");
    wait_for("STATUS=2 groups, 3 members");
    signal("-TERM");
    while !messages.contains("STOPPING=1") {
        let length = manager.recv(&mut buffer).expect("word of the end");
        messages += &String::from_utf8_lossy(&buffer[..length]);
    }
    assert!(child.0.wait().unwrap().success());
}

/// A configuration with pushes and sealed state in `directory`.
fn keeping(directory: &std::path::Path, port: u16) -> String {
    write(&directory.join("state.key"), "0123456789abcdef0123456789abcdef", 0o600);
    let folder = directory.display();
    let head = format!(
        "listen = [\"127.0.0.1\"]\nport = {port}\nstate-directory = \"{folder}\"\nstate-key-file = \"{folder}/state.key\""
    );
    configuration_with(directory, &head, "127.0.7", CBC, &pushes("retransmissions = 0"))
}

#[test]
fn a_killed_server_goes_on_with_the_keys_and_numbers_that_it_had() {
    let directory = keys();
    let port = free_port();
    let text = keeping(directory.path(), port);
    let daemon = Daemon::start_in(directory, port, &text);
    let before = register_over_udp(1, 1, 1, daemon.address(1)).group_sa();
    let group = |name: &str| control::GroupArgument { group: name.to_owned() };
    let Response::Done(done) = daemon.ask(Request::Rekey(group("one"))).unwrap() else { panic!() };
    assert_eq!(done.message, "new keys for group one: push 1 goes to 1 member");
    let mut directory = daemon.kill();
    for round in 2..5 {
        let daemon = Daemon::start_in(directory, port, &text);
        let shown = daemon.show();
        let kek = shown.groups[0].rekey.clone().unwrap().kek.unwrap();
        assert_eq!((shown.members.len(), kek.sequence_number), (1, round - 1));
        let Response::Done(done) = daemon.ask(Request::Rekey(group("one"))).unwrap() else {
            panic!()
        };
        assert_eq!(done.message, format!("new keys for group one: push {round} goes to 1 member"));
        let after = register_over_udp(1, 1, 1, daemon.address(1)).group_sa();
        assert_eq!(after.kek_keys(), before.kek_keys());
        directory = daemon.kill();
    }
    let state = directory.path().join("gcks.db");
    assert_eq!(
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&state).unwrap()) & 0o777,
        0o600
    );
    let mut octets = std::fs::read(&state).unwrap();
    octets.iter_mut().filter(|octet| **octet != 0).for_each(|octet| *octet ^= 1);
    std::fs::write(&state, octets).unwrap();
    let output = Command::new(PROGRAM)
        .arg("--config")
        .arg(directory.path().join("gcks.toml"))
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        !output.status.success()
            && text.contains("the state is damaged or was sealed with another key"),
        "{text}"
    );
}

/// Without a key of the operator's the server makes one of its own.
#[test]
fn the_state_is_kept_by_default() {
    let directory = keys();
    let port = free_port();
    let text = |head: &str| {
        let head = format!("listen = [\"127.0.0.1\"]\nport = {port}\n{head}");
        configuration_with(directory.path(), &head, "127.0.7", CBC, &pushes(""))
    };
    let (kept, not_kept) = (text(""), text("keep-state = false"));
    let daemon = Daemon::start_in(directory, port, &not_kept);
    register_over_udp(1, 1, 1, daemon.address(1)).group_sa();
    let directory = daemon.kill();
    for name in ["gcks.db", "state.key"] {
        assert!(!directory.path().join(name).exists(), "{name}");
    }
    let daemon = Daemon::start_in(directory, port, &kept);
    assert!(daemon.show().members.is_empty());
    let before = register_over_udp(1, 1, 1, daemon.address(1)).group_sa();
    let directory = daemon.kill();
    for name in ["gcks.db", "state.key"] {
        let mode = std::os::unix::fs::MetadataExt::mode(
            &std::fs::metadata(directory.path().join(name)).unwrap(),
        );
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let daemon = Daemon::start_in(directory, port, &kept);
    assert_eq!(daemon.show().members.len(), 1);
    let after = register_over_udp(1, 1, 1, daemon.address(1)).group_sa();
    assert_eq!((after.kek_keys(), after.tek_keys()), (before.kek_keys(), before.tek_keys()));
}

#[test]
fn a_state_directory_that_cannot_be_used_is_said_at_the_start() {
    let directory = keys();
    let head = format!("port = {}\nstate-directory = \"/proc/gcks\"", free_port());
    let text = configuration(directory.path(), &head, "127.0.7", CBC);
    let config = file(directory.path(), "gcks.toml", &text);
    let output = Command::new(PROGRAM).arg("--config").arg(config).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("/proc/gcks/state.key: the state key cannot be made: "), "{text}");
    assert!(text.contains("make the state directory"), "{text}");
}

/// A small file system that ends with the test; `None` where the test may not mount one.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(path: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=4m", "none"];
        let mounted = Command::new("mount").args(mount).arg(&path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A push that meets a full disk is sent when there is room again, to the member that waits for it
/// and with the key that the others get.
#[test]
fn a_full_disk_delays_a_push_and_loses_none() {
    let directory = keys();
    let Some(disk) = Disk::mount(directory.path().join("small")) else {
        eprintln!("skipped: no file system may be mounted here");
        return;
    };
    let port = free_port();
    let head = format!(
        "listen = [\"127.0.0.1\"]\nport = {port}\nstate-directory = \"{}\"",
        disk.0.display()
    );
    let settings = "retransmission-period = \"2s\"\nretransmissions = 1";
    let text = configuration_with(directory.path(), &head, "127.0.7", CBC, &pushes(settings));
    let daemon = Daemon::start_in(directory, port, &text);
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 7, 1], 0))).unwrap();
    register_on(&socket, 1, 1, 1, daemon.address(1)).group_sa();
    let filling = disk.0.join("filling");
    let mut file = std::fs::File::create(&filling).unwrap();
    while std::io::Write::write(&mut file, &[0; 1024]).is_ok() {}
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut octets = [0; 65_535];
    let mut receive =
        || socket.recv_from(&mut octets).ok().map(|(length, _)| octets[..length].to_vec());
    // Pages of the file that are free again take some.
    let mut orders = 0;
    let refusal = loop {
        orders += 1;
        let group = control::GroupArgument { group: "one".to_owned() };
        match daemon.ask(Request::Rekey(group)) {
            Err(refusal) => break refusal.to_string(),
            Ok(_) => assert!(orders < 500, "the disk is never full"),
        }
        while receive().is_some() {}
    };
    assert!(
        refusal.contains("the state cannot be written and nothing is sent until it can be"),
        "{refusal}"
    );
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        assert_eq!(receive(), None, "nothing leaves that is not written");
    }
    std::fs::remove_file(&filling).unwrap();
    drop(file);
    let until = Instant::now() + Duration::from_secs(10);
    let push = loop {
        assert!(Instant::now() < until, "no push");
        if let Some(push) = receive() {
            break push;
        }
    };
    assert_eq!(push[18], 33, "a push");
    let rekey = daemon.show().groups[0].rekey.clone().unwrap();
    assert_eq!(rekey.kek.unwrap().sequence_number, orders);
    assert_eq!(rekey.members_unresponsive, 0);
    // Who comes now gets what was pushed.
    let second = register_over_udp(2, 2, 1, daemon.address(1)).group_sa();
    assert_eq!(second.sequence_number(), Some(orders - 1), "and the push itself in a moment");
}

#[test]
fn no_key_is_in_the_log_the_state_or_an_answer() {
    let directory = keys();
    let port = free_port();
    let text = keeping(directory.path(), port);
    let daemon = Daemon::start_in(directory, port, &text);
    let mut secrets = BTreeMap::new();
    secrets.insert("state key".to_owned(), b"0123456789abcdef0123456789abcdef".to_vec());
    for number in 1..=3 {
        secrets.insert(format!("pre-shared key {number}"), key(number).into_bytes());
    }
    let mut note = |sa: gdoi::group::GroupSa| {
        let kek = sa.kek_keys().unwrap();
        secrets.insert("KEK".to_owned(), kek.algorithm_key.expose().to_vec());
        for (spi, keys) in sa.tek_keys() {
            secrets
                .insert(format!("encryption key of {spi:#x}"), keys.encryption.expose().to_vec());
            secrets.insert(format!("integrity key of {spi:#x}"), keys.integrity.expose().to_vec());
        }
    };
    let group = || control::GroupArgument { group: "one".to_owned() };
    let mut shown = Vec::new();
    for _ in 0..3 {
        note(register_over_udp(1, 1, 1, daemon.address(1)).group_sa());
        shown.extend(
            format!("{:?} {:?}", daemon.ask(Request::Rekey(group())).unwrap(), daemon.show())
                .into_bytes(),
        );
        // A wrong key and junk have their lines as well.
        register_over_udp(2, 1, 1, daemon.address(1)).failure();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[0x5a; 60], daemon.address(1)).unwrap();
        shown.extend(std::fs::read(daemon.directory.path().join("gcks.db")).unwrap());
    }
    let (log, _) = daemon.stop();
    assert!(log.contains("command") && log.contains("datagram discarded"), "{log}");
    shown.extend(log.into_bytes());
    assert!(secrets.len() > 8, "{:?}", secrets.keys());
    assert_eq!(testing::secret_search::found(&shown, &secrets), None);
}

#[test]
fn sighup_reads_the_configuration_again() {
    let daemon = Daemon::start("");
    register_over_udp(1, 1, 1, daemon.address(1)).group_sa();
    let path = daemon.directory.path().join("gcks.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let hang_up = |text: &str| {
        std::fs::write(&path, text).unwrap();
        assert!(
            Command::new("kill")
                .args(["-HUP", &daemon.child.0.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        std::thread::sleep(Duration::from_millis(300));
        daemon.show().groups.into_iter().map(|group| group.name).collect::<Vec<_>>()
    };
    assert_eq!(hang_up(&text), ["one", "two"]);
    assert_eq!(
        hang_up(&text.replace("id = 2", "id = 1")),
        ["one", "two"],
        "a file with defects changes nothing"
    );
    assert_eq!(hang_up(&text.replace("\"two\"", "\"three\"")), ["one", "three"]);
    let (log, _) = daemon.stop();
    assert!(
        log.contains("event=\"configuration-reloaded\" changed=false")
            && log.contains("configuration not reloaded"),
        "{log}"
    );
    for (group, consequence) in [("two", "group-ends"), ("three", "group-made")] {
        let is_told = |line: &str| {
            line.contains("configuration changed event=\"configuration-changed\"")
                && line.contains(&format!("subject=\"group {group}\" option=\"id\""))
                && line.contains(&format!("consequence=\"{consequence}\""))
        };
        assert!(log.lines().any(is_told), "{log}");
    }
}
