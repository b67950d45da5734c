//! One rekey of a root server with four sub-servers and thousands of members: the time until the
//! last member has the key and until the last acknowledgement, and what it costs each server.
//!
//! All servers run in one process on a virtual clock, each as on a machine of its own: it is busy
//! for as long as its turn of the event loop takes, measured in processor time, plus the time that
//! its state takes to be written to this machine's disk, measured as it passes. A datagram takes
//! a millisecond. Portions and pauses of pushes are those of the daemon; the system calls that send
//! and receive are not in it. Members are simulated: they acknowledge at once.
//!
//! `cargo bench -p gcks --bench cluster -- [--rounds N]`

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that fails has nothing to go on with"
)]

mod support;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gcks::config::{self, Config};
use gcks::group::key_generation::OsEntropy;
use gcks::group::signing_key;
use gcks::members::registry::{MemberId, Pulled};
use gcks::persistence;
use gcks::server::KeyServer;
use gcks::writer::Writer;
use gdoi::event::{RegistrationEvent, Transmit};
use gdoi::group::{GroupId, GroupSa};
use gdoi::member::Registration;
use gdoi::push::ack::acknowledge;
use gdoi::push::{AcknowledgementKind, AcknowledgementLength};
use ike::BootTime;
use ike::config::Identity;
use ike::crypto::{DhGroup, Secret};
use nix::time::{ClockId, clock_gettime};
use support::option;

const MEMBERS: [u32; 3] = [200, 2_000, 20_000];
const SUB_SERVERS: u8 = 4;
const LATENCY: Duration = Duration::from_millis(1);
/// As in the daemon's event loop: datagrams of one turn, pushes of a portion, the pause behind it.
const BATCH: usize = 64;
const PORTION: usize = 64;
const PAUSE: Duration = Duration::from_millis(4);
const GROUP: GroupId = GroupId(1);

fn main() {
    let rounds = option("--rounds", 3);
    println!(
        "{:>8}{:>16}{:>16}{:>16}{:>14}{:>18}{:>22}",
        "members",
        "last server",
        "last key",
        "last ack",
        "CPU of root",
        "CPU of sub-server",
        "of it for each member"
    );
    for members in MEMBERS {
        let mut samples: Vec<Sample> = (0..rounds).map(|_| measure(members)).collect();
        samples.sort_by_key(|sample| sample.sub_server);
        let Sample { server, key, acknowledgement, root, sub_server } = samples[samples.len() / 2];
        let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        let each = sub_server.as_secs_f64() * 1e6 * f64::from(SUB_SERVERS) / f64::from(members);
        println!(
            "{members:>8}{:>16}{:>16}{:>16}{:>14}{:>18}{:>19.1} us",
            milliseconds(server),
            milliseconds(key),
            milliseconds(acknowledgement),
            milliseconds(root),
            milliseconds(sub_server),
            each
        );
    }
}

/// What one rekey took.
#[derive(Clone, Copy)]
struct Sample {
    /// From the root's command until the last sub-server pushes.
    server: Duration,
    /// Until the last member has the key.
    key: Duration,
    /// Until the last acknowledgement is handled.
    acknowledgement: Duration,
    root: Duration,
    /// Of the sub-server that took most.
    sub_server: Duration,
}

/// A server on a machine of its own.
struct Server {
    key_server: KeyServer<OsEntropy>,
    state: Writer,
    inbox: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// When it is through with its last turn.
    free_at: BootTime,
    /// When the next portion of pushes may leave.
    resumes_at: Option<BootTime>,
    processor: Duration,
}

impl Server {
    fn new(folder: &Path, number: u8, now: BootTime) -> Self {
        let config = configuration(folder, number);
        let keys = signing_key::load_all(&config.groups).unwrap();
        let opened = persistence::open(&config, None).unwrap();
        let (mut key_server, state) = persistence::start(config, &keys, Some(opened), now).unwrap();
        key_server.join_cluster(now);
        Self {
            key_server,
            state: state.unwrap(),
            inbox: VecDeque::new(),
            free_at: now,
            resumes_at: None,
            processor: Duration::ZERO,
        }
    }

    /// When it has something to do.
    fn next(&self) -> Option<BootTime> {
        let waiting = (!self.inbox.is_empty()).then_some(self.free_at);
        let due = [waiting, self.resumes_at, self.key_server.poll_timeout()];
        due.into_iter().flatten().min().map(|at| at.max(self.free_at))
    }

    /// One turn of its event loop; what it sends leaves when it ends.
    fn turn(
        &mut self,
        now: BootTime,
        command: impl FnOnce(&mut KeyServer<OsEntropy>),
    ) -> Vec<Transmit> {
        let begin = processor_time();
        command(&mut self.key_server);
        for _ in 0..BATCH {
            let Some((source, local, octets)) = self.inbox.pop_front() else { break };
            let _ = self.key_server.handle_datagram(source, local, &octets, now);
        }
        if self.key_server.poll_timeout().is_some_and(|at| at <= now) {
            self.key_server.handle_timeout(now);
        }
        while self.key_server.poll_event().is_some() {}
        let handled = processor_time() - begin;
        let written = Instant::now();
        if self.key_server.is_unsaved() {
            self.state.save(&mut self.key_server, now);
            self.state.wait().unwrap();
        }
        let (written, begin_sending) = (written.elapsed(), processor_time());
        let mut sent: Vec<Transmit> =
            std::iter::from_fn(|| self.key_server.poll_answer()).collect();
        if self.resumes_at.is_none_or(|at| at <= now) {
            let answers = sent.len();
            let pushes = std::iter::from_fn(|| self.key_server.poll_push());
            sent.extend(pushes.take(PORTION));
            self.resumes_at = (sent.len() - answers == PORTION).then(|| now + PAUSE);
        }
        let end = processor_time();
        self.processor += end - begin;
        self.free_at = now + handled + written + (end - begin_sending);
        sent
    }
}

/// Everything on the virtual clock.
struct Cluster {
    servers: Vec<Server>,
    now: BootTime,
    wire: BTreeMap<(BootTime, u64), Transmit>,
    sent: u64,
    /// What a member needs to acknowledge.
    kek: Option<GroupSa>,
    first_keys: BTreeMap<u8, BootTime>,
    keys: BTreeMap<SocketAddr, BootTime>,
}

impl Cluster {
    fn run(&mut self, until: impl Fn(&Self) -> bool) {
        while !until(self) {
            let servers = self.servers.iter().enumerate();
            let next = servers.filter_map(|(place, one)| Some((one.next()?, place))).min();
            let arrival = self.wire.keys().next().copied();
            match (next, arrival) {
                (Some((at, place)), arrival) if arrival.is_none_or(|(first, _)| at < first) => {
                    self.now = self.now.max(at);
                    let now = self.now;
                    let sent = self.servers[place].turn(now, |_| {});
                    self.send(place, sent);
                }
                (_, Some(key)) => {
                    self.now = self.now.max(key.0);
                    let transmit = self.wire.remove(&key).unwrap();
                    self.deliver(transmit);
                }
                (_, None) => return,
            }
        }
    }

    fn send(&mut self, place: usize, sent: Vec<Transmit>) {
        let at = self.servers[place].free_at + LATENCY;
        for transmit in sent {
            self.sent += 1;
            self.wire.insert((at, self.sent), transmit);
        }
    }

    fn deliver(&mut self, transmit: Transmit) {
        let Transmit { source, destination, payload } = transmit;
        if let Some(place) = (0..=SUB_SERVERS).position(|place| server(place) == destination) {
            self.servers[place].inbox.push_back((source, destination, payload));
            return;
        }
        let Some(sa) = &self.kek else { return };
        let (kind, length) = (AcknowledgementKind::KekSha256, AcknowledgementLength::default());
        let (policy, kek) = (sa.policy().kek.as_ref().unwrap(), sa.kek_keys().unwrap());
        let base_key = Secret::copy_from(&kek.algorithm_key.expose()[16..]);
        let octets =
            acknowledge(kind, length, &base_key, &policy.spi, 1, destination.ip()).unwrap();
        let place = (0..=SUB_SERVERS).find(|place| server(*place) == source).unwrap();
        self.first_keys.entry(place).or_insert(self.now);
        self.keys.entry(destination).or_insert(self.now);
        self.sent += 1;
        let (source, destination) = (destination, source);
        let back = Transmit { source, destination, payload: octets };
        self.wire.insert((self.now + LATENCY, self.sent), back);
    }

    fn acknowledgements(&self) -> u64 {
        let groups = self.servers.iter().flat_map(|one| one.key_server.groups());
        groups.filter_map(|group| Some(group.rekey_sa()?.counters().acknowledgements)).sum()
    }
}

fn measure(members: u32) -> Sample {
    let directory = tempfile::tempdir().unwrap();
    let now = BootTime::new(Duration::from_secs(1000));
    let servers = (0..=SUB_SERVERS).map(|place| {
        let folder = directory.path().join(format!("{place}"));
        std::fs::create_dir(&folder).unwrap();
        Server::new(&folder, place, now)
    });
    let mut cluster = Cluster {
        servers: servers.collect(),
        now,
        wire: BTreeMap::new(),
        sent: 0,
        kek: None,
        first_keys: BTreeMap::new(),
        keys: BTreeMap::new(),
    };
    let settled = now + Duration::from_secs(20);
    cluster.run(|cluster| cluster.now >= settled);
    for number in 0..members {
        let place = 1 + (number % u32::from(SUB_SERVERS)) as usize;
        enter(&mut cluster.servers[place].key_server, number, place, settled);
    }
    cluster.kek = Some(register(&mut cluster, address(0)));
    for server in &mut cluster.servers {
        server.state.save(&mut server.key_server, settled);
        server.state.wait().unwrap();
        server.processor = Duration::ZERO;
    }
    let begin = cluster.now;
    cluster.servers[0].free_at = begin;
    let sent = cluster.servers[0].turn(begin, |root| _ = root.rekey("group", begin).unwrap());
    cluster.send(0, sent);
    let last = u64::from(members);
    cluster.run(|cluster| cluster.keys.len() as u64 >= last && cluster.acknowledgements() >= last);
    let server = cluster.first_keys.values().max().unwrap().saturating_since(begin);
    let key = cluster.keys.values().max().unwrap().saturating_since(begin);
    let ends = cluster.servers[1..].iter().map(|one| one.free_at).max();
    let acknowledgement = ends.unwrap().saturating_since(begin);
    let processor = cluster.servers.iter().map(|one| one.processor).collect::<Vec<_>>();
    let sub_server = processor[1..].iter().max().copied().unwrap();
    Sample { server, key, acknowledgement, root: processor[0], sub_server }
}

/// Where a server is; the root is number 0.
fn server(place: u8) -> SocketAddr {
    SocketAddr::from(([10, 255, 0, 1 + place], 848))
}

fn configuration(folder: &Path, place: u8) -> Config {
    let others: Vec<u8> = if place == 0 { (1..=SUB_SERVERS).collect() } else { vec![0] };
    let mut head = format!(
        "listen = [\"{}\"]\nstate-directory = \"{}\"",
        server(place).ip(),
        folder.display()
    );
    for other in &others {
        head += &format!(
            "\n[[cluster-server]]\nname = \"ks{other}\"\naddress = \"{}\"\npre-shared-key-file = \"{}\"",
            server(*other).ip(),
            folder.join("key").display()
        );
    }
    let names: Vec<String> = others.iter().map(|other| format!("\"ks{other}\"")).collect();
    let role = if place == 0 { "root-server" } else { "sub-server" };
    let tail = format!(
        "[group.gap]\nactivation-time-delay = \"60s\"\n[group.rekey]\nsigning-key = \"rsa-2048\"\n\
         [group.cluster]\nrole = \"{role}\"\nservers = [{}]",
        names.join(", ")
    );
    let text = support::configuration(folder, &head, "10.0.0.0/9", &tail);
    config::parse("bench.toml", &text).unwrap_or_else(|report| panic!("{report}")).value
}

fn address(number: u32) -> SocketAddr {
    let [_, high, middle, low] = (number + 1).to_be_bytes();
    SocketAddr::new(IpAddr::from([10, high, middle, low]), 848)
}

/// A member that registered before.
fn enter(key_server: &mut KeyServer<OsEntropy>, number: u32, place: usize, now: BootTime) {
    let address = address(number);
    let pulled = Pulled {
        name: Arc::from("member"),
        address,
        local: server(place as u8),
        keys_end: None,
        leaf: None,
    };
    let id = MemberId { identity: Identity::Address(address.ip()), address: address.ip() };
    key_server.group_mut(GROUP).unwrap().0.registry_mut().record(id, pulled, now);
}

/// One member registers at the first sub-server and has the KEK, which is all that the others need.
fn register(cluster: &mut Cluster, local: SocketAddr) -> GroupSa {
    let (now, remote) = (cluster.now, server(1));
    let config = support::registration(local, remote, DhGroup::Modp2048);
    let mut member = Registration::new(config, daemon::entropy::seed().unwrap(), now);
    for _ in 0..100 {
        while let Some(event) = member.poll_event() {
            match event {
                RegistrationEvent::PolicyOffered(_) => member.accept_policy(now),
                RegistrationEvent::Registered(sa) => return sa,
                RegistrationEvent::Failed(failure) => panic!("{failure}"),
                _ => {}
            }
        }
        let asked = std::iter::from_fn(|| member.poll_transmit());
        let server = &mut cluster.servers[1];
        server.inbox.extend(asked.map(|one| (local, remote, one.payload)));
        for answer in server.turn(now, |_| {}) {
            if answer.destination == local {
                let _ = member.handle_datagram(remote, &answer.payload, now);
            }
        }
    }
    panic!("the registration does not end");
}

/// Of all threads of this process: the writers of the state are some of them.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}
