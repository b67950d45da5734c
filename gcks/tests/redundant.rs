//! Two key servers on a real etcd: one active, one standby, over real sockets, signals and kills.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use control::key_server::ServerRole;
use control::{GroupArgument, Request, Response, ServerSnapshot};
use daemon::clock;
use gdoi::member::Registration;
use support::etcd::{Etcd, is_installed};
use support::*;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gcks");

/// One key server of a pair.
struct Server {
    process: Child,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Pair {
    etcd: Etcd,
    port: u16,
    /// The key of the state, and the configuration but for what each server has of its own.
    shared: tempfile::TempDir,
}

impl Pair {
    fn new(nodes: usize) -> Self {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let shared = keys();
        write(&shared.path().join("state.key"), &"k".repeat(32), 0o600);
        Self { etcd: Etcd::start(nodes), port, shared }
    }

    fn text(&self, folder: &Path, number: u8, state_key: &Path) -> String {
        let mut head = format!(
            "listen = [\"127.0.0.{number}\"]\nport = {}\nstate-directory = \"{}\"\n\
             state-key-file = \"{}\"\n[etcd]\nname = \"ks{number}\"\nlease = \"2s\"\nendpoints = [",
            self.port,
            folder.display(),
            state_key.display()
        );
        for endpoint in self.etcd.endpoints() {
            let _ = write!(head, "\"{endpoint}\", ");
        }
        head += "]\n";
        let text = configuration_with(self.shared.path(), &head, "127.0.7", CBC, &pushes(""));
        let socket = |folder: &Path| format!("{}/control.sock", folder.display());
        text.replace(&socket(self.shared.path()), &socket(folder))
    }

    fn start(&self, number: u8) -> Server {
        self.start_with(number, &self.shared.path().join("state.key"))
    }

    fn start_with(&self, number: u8, state_key: &Path) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let text = self.text(folder.path(), number, state_key);
        self.start_in(number, folder, &text)
    }

    fn start_in(&self, number: u8, folder: tempfile::TempDir, text: &str) -> Server {
        let config = file(folder.path(), "gcks.toml", text);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(PROGRAM)
            .arg("--config")
            .arg(config)
            .args(["--log", "debug"])
            .env_remove("NOTIFY_SOCKET")
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, number], self.port));
        Server { process, folder, address }
    }
}

impl Server {
    fn ask(&self, request: Request) -> Result<Response, control::client::ClientError> {
        let path = self.folder.path().join("control.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(control::client::ask(&path, request))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits until `show server` is as it should be.
    fn shows(&self, what: &str, is_so: impl Fn(&ServerSnapshot) -> bool) -> ServerSnapshot {
        let begin = Instant::now();
        loop {
            if let Ok(Response::Server(shown)) = self.ask(Request::ShowServer)
                && is_so(&shown)
            {
                return *shown;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "not {what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_active(&self) -> ServerSnapshot {
        self.shows("active", |shown| role(shown) == ServerRole::Active)
    }

    fn is_standby(&self) -> ServerSnapshot {
        self.shows("standby", |shown| {
            let known = shown.redundancy.as_ref().is_some_and(|known| known.active.is_some());
            role(shown) == ServerRole::Standby && known
        })
    }

    fn has_problem(&self, part: &str) -> String {
        let problem = |shown: &ServerSnapshot| shown.redundancy.as_ref()?.problem.clone();
        let shown =
            self.shows(part, |shown| problem(shown).is_some_and(|text| text.contains(part)));
        let problem = problem(&shown).unwrap();
        assert_eq!(problem.lines().count(), 1, "{problem}");
        problem
    }

    fn has_no_problem(&self) {
        self.shows("free of problems", |shown| {
            shown.redundancy.as_ref().is_some_and(|known| known.problem.is_none())
        });
    }
}

fn role(shown: &ServerSnapshot) -> ServerRole {
    shown.redundancy.as_ref().unwrap().role
}

/// A member with a socket of its own.
struct Member {
    number: u8,
    socket: UdpSocket,
}

impl Member {
    fn new(number: u8) -> Self {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 7, number], 0))).unwrap();
        Self { number, socket }
    }

    fn register(&self, server: SocketAddr) -> gdoi::group::GroupSa {
        let local = self.socket.local_addr().unwrap();
        let config = registration(self.number, self.number, 1, local, server);
        let mut member = Registration::new(config, daemon::entropy::seed().unwrap(), clock::now());
        let mut buffer = vec![0; 65_535];
        loop {
            if let Some(outcome) = outcome(&mut member, clock::now()) {
                return outcome.group_sa();
            }
            while let Some(transmit) = member.poll_transmit() {
                self.socket.send_to(&transmit.payload, transmit.destination).unwrap();
            }
            let wait = member.poll_timeout().unwrap().at.saturating_since(clock::now());
            self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).unwrap();
            match self.socket.recv_from(&mut buffer) {
                Ok((length, source)) => {
                    let _ = member.handle_datagram(source, &buffer[..length], clock::now());
                }
                Err(_) => member.handle_timeout(clock::now()),
            }
        }
    }

    /// What arrives within `time`, with where it came from.
    fn hears(&self, time: Duration) -> Vec<(SocketAddr, Vec<u8>)> {
        let (end, mut heard) = (Instant::now() + time, Vec::new());
        let mut buffer = vec![0; 65_535];
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            if let Ok((length, source)) = self.socket.recv_from(&mut buffer) {
                heard.push((source, buffer[..length].to_vec()));
            }
        }
        heard
    }
}

fn rekey() -> Request {
    Request::Rekey(GroupArgument { group: "one".to_owned() })
}

fn done(response: Result<Response, control::client::ClientError>) -> String {
    match response {
        Ok(Response::Done(done)) => done.message,
        other => panic!("{other:?}"),
    }
}

fn refused(response: Result<Response, control::client::ClientError>) -> String {
    match response {
        Err(control::client::ClientError::Refused { source, .. }) => source.to_string(),
        other => panic!("{other:?}"),
    }
}

fn kek(shown: &ServerSnapshot) -> (String, u32) {
    let kek = shown.groups[0].rekey.as_ref().unwrap().kek.as_ref().unwrap();
    (kek.spi.clone(), kek.sequence_number)
}

#[test]
fn a_fail_over_takes_over_registrations_keys_and_numbers() {
    if !is_installed() {
        return;
    }
    let pair = Pair::new(1);
    let mut one = pair.start(1);
    one.is_active();
    let two = pair.start(2);
    let standby = two.is_standby();
    assert_eq!(standby.redundancy.unwrap().active.as_deref(), Some("ks1"));
    assert!(refused(two.ask(rekey())).starts_with("this key server is standby; ask ks1"));
    let member = Member::new(1);
    let keys = member.register(one.address);
    done(one.ask(rekey()));
    assert_eq!(member.hears(Duration::from_millis(500)).len(), 1, "one push");
    let before = one.is_active();
    let begin = Instant::now();
    one.kill();
    let after = two.is_active();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(kek(&after), kek(&before), "the same KEK and number");
    let spis = |shown: &ServerSnapshot| -> Vec<u32> {
        shown.groups[0].teks.iter().map(|tek| tek.spi).collect()
    };
    assert_eq!(spis(&after), spis(&before));
    assert_eq!(after.members.len(), 1);
    assert!(keys.tek_keys().keys().all(|spi| spis(&after).contains(spi)));
    // The push on its way is sent again, then a new one with the next number; both from here.
    done(two.ask(rekey()));
    assert_eq!(kek(&two.is_active()).1, kek(&before).1 + 1);
    let heard = member.hears(Duration::from_secs(1));
    assert!(!heard.is_empty() && heard.iter().all(|(source, _)| *source == two.address));
    member.register(two.address);
    // The first one comes back, and finds another one active.
    let mut one = pair.start(1);
    one.is_standby();
    // An orderly end hands over at once.
    let begin = Instant::now();
    two.signal("-TERM");
    one.is_active();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    one.kill();
}

#[test]
fn a_server_that_was_stopped_sends_nothing_when_it_goes_on() {
    if !is_installed() {
        return;
    }
    let pair = Pair::new(1);
    let (one, member) = (pair.start(1), Member::new(1));
    one.is_active();
    let two = pair.start(2);
    two.is_standby();
    member.register(one.address);
    // A push whose repetitions are due while the server is stopped and after.
    done(one.ask(rekey()));
    assert_eq!(member.hears(Duration::from_millis(300)).len(), 1);
    one.signal("-STOP");
    // Questions that wait for it: the first message of a main mode.
    let local = member.socket.local_addr().unwrap();
    let config = registration(1, 1, 1, local, one.address);
    let mut asking = Registration::new(config, [9; 32], clock::now());
    let question = asking.poll_transmit().unwrap();
    for _ in 0..3 {
        member.socket.send_to(&question.payload, one.address).unwrap();
    }
    two.is_active();
    std::thread::sleep(Duration::from_secs(10));
    member.hears(Duration::from_millis(100));
    one.signal("-CONT");
    member.socket.send_to(&question.payload, one.address).unwrap();
    let heard = member.hears(Duration::from_secs(4));
    let from_one = heard.iter().filter(|(source, _)| *source == one.address).count();
    assert_eq!(from_one, 0, "{}", one.log());
    one.is_standby();
    assert!(one.log().contains("key server is no longer active"), "{}", one.log());
    two.is_active();
}

#[test]
fn a_quorum_that_is_lost_silences_the_server_until_it_is_back() {
    if !is_installed() {
        return;
    }
    let mut pair = Pair::new(3);
    let (one, two, member) = (pair.start(1), pair.start(2), Member::new(1));
    let active = loop {
        let found = [&one, &two].into_iter().find(|server| {
            matches!(server.ask(Request::ShowServer), Ok(Response::Server(shown)) if role(&shown) == ServerRole::Active)
        });
        if let Some(found) = found {
            break found;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    member.register(active.address);
    // One of three is no loss.
    pair.etcd.nodes[0].kill();
    done(active.ask(rekey()));
    assert_eq!(member.hears(Duration::from_secs(1)).len(), 1);
    member.register(active.address);
    pair.etcd.nodes[1].kill();
    active.has_problem("no etcd server answers");
    let asked = Instant::now();
    let refusal = refused(active.ask(rekey()));
    assert!(refusal.contains("do not repeat the command"), "{refusal}");
    assert!(asked.elapsed() < Duration::from_secs(15));
    member.hears(Duration::from_secs(1));
    assert!(member.hears(Duration::from_secs(3)).is_empty(), "nothing leaves without quorum");
    // The loop answers all the while.
    assert!(matches!(active.ask(Request::ShowServer), Ok(Response::Server(_))));
    pair.etcd.nodes[0].start();
    pair.etcd.nodes[1].start();
    active.has_no_problem();
    let begin = Instant::now();
    while [&one, &two].iter().all(|server| {
        !matches!(server.ask(Request::ShowServer), Ok(Response::Server(shown)) if role(&shown) == ServerRole::Active)
    }) {
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
    assert!(!member.hears(Duration::from_secs(4)).is_empty(), "the push that waited");
}

#[test]
fn another_state_key_is_one_line_and_no_candidate() {
    if !is_installed() {
        return;
    }
    let pair = Pair::new(1);
    let mut one = pair.start(1);
    one.is_active();
    Member::new(1).register(one.address);
    let other = pair.shared.path().join("other.key");
    write(&other, &"o".repeat(32), 0o600);
    let two = pair.start_with(2, &other);
    let problem = two.has_problem("sealed with another state key");
    assert!(problem.contains("give all key servers of it the same state-key-file"), "{problem}");
    one.kill();
    std::thread::sleep(Duration::from_secs(4));
    two.has_problem("sealed with another state key");
    let one = pair.start(1);
    assert_eq!(one.is_active().members.len(), 1);
}

/// A way to an etcd server, and how many milliseconds whatever goes there takes.
fn delayed(endpoint: &str) -> (String, Arc<AtomicU64>) {
    let target = endpoint.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = format!("http://{}", listener.local_addr().unwrap());
    let delay = Arc::new(AtomicU64::new(0));
    let of_connections = Arc::clone(&delay);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(&target)) else { continue };
            let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let delay = Arc::clone(&of_connections);
            std::thread::spawn(move || forward(client, server, &delay));
            std::thread::spawn(move || forward(back.0, back.1, &AtomicU64::new(0)));
        }
    });
    (own, delay)
}

fn forward(mut from: TcpStream, mut to: TcpStream, delay: &AtomicU64) {
    let mut buffer = [0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        std::thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn a_slow_etcd_is_one_clear_line() {
    if !is_installed() {
        return;
    }
    let pair = Pair::new(1);
    let endpoint = pair.etcd.endpoints()[0].clone();
    let (slow, delay) = delayed(&endpoint);
    let folder = tempfile::tempdir().unwrap();
    let text = pair.text(folder.path(), 1, &pair.shared.path().join("state.key"));
    let text = text.replace(&endpoint, &slow).replace("lease = \"2s\"", "lease = \"20s\"");
    let server = pair.start_in(1, folder, &text);
    server.is_active();
    let member = Member::new(1);
    member.register(server.address);
    delay.store(1200, Ordering::Relaxed);
    done(server.ask(rekey()));
    server.has_problem("the last write of the state took");
    let log = server.log();
    let told = log.lines().filter(|line| line.contains("writing the state is slow"));
    assert_eq!(told.count(), 1, "{log}");
    delay.store(0, Ordering::Relaxed);
    done(server.ask(rekey()));
    server.has_no_problem();
}
