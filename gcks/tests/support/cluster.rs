//! A root server and its sub-servers in one process on a virtual clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gcks::config::Config;
use gcks::config::cluster::Role;
use gcks::group::key_generation::OsEntropy;
use gcks::group::signing_key::{self, SigningKeys};
use gcks::server::KeyServer;
use gcks::server::event::Event;
use gdoi::event::Transmit;
use ike::BootTime;

use super::{Outcome, at, configuration_with, key, outcome, parse, pushes, write};

/// Exchange type of a GROUPKEY-PUSH, and where it stands.
const PUSH: (usize, u8) = (18, 33);

/// The server with this number: 1 is the root.
pub fn server(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 9, number], 848))
}

/// What a server is for all groups.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    Alone,
    /// The root of these servers.
    RootOf(&'static [u8]),
    SubServerOf(u8),
}

/// The text of a server's configuration: the root with so many sub-servers, or one of them. `tail`
/// goes to every group behind `[group.cluster]`.
pub fn configuration(
    directory: &Path,
    number: u8,
    sub_servers: u8,
    tek: &str,
    tail: &str,
) -> String {
    let part = match number {
        1 => Part::RootOf(&[2, 3, 4, 5, 6][..usize::from(sub_servers)]),
        _ => Part::SubServerOf(1),
    };
    configuration_as(directory, number, part, tek, tail)
}

/// The same of a server with any part.
pub fn configuration_as(directory: &Path, number: u8, part: Part, tek: &str, tail: &str) -> String {
    let (role, others) = match &part {
        Part::Alone => ("", &[][..]),
        Part::RootOf(others) => ("root-server", *others),
        Part::SubServerOf(root) => ("sub-server", std::slice::from_ref(root)),
    };
    let mut head = format!("listen = [\"10.0.9.{number}\"]\n");
    for other in others {
        let pair = number.max(*other);
        let file = directory.join(format!("ks{pair}.psk"));
        write(&file, &key(100 + pair), 0o600);
        head += &format!(
            "[[cluster-server]]\nname = \"ks{other}\"\naddress = \"10.0.9.{other}\"\n\
             pre-shared-key-file = \"{}\"\n",
            file.display()
        );
    }
    let names: Vec<String> = others.iter().map(|other| format!("\"ks{other}\"")).collect();
    let table = match names.is_empty() {
        true => String::new(),
        false => format!("[group.cluster]\nrole = \"{role}\"\nservers = [{}]\n", names.join(", ")),
    };
    let tail = format!("{}\n{table}{tail}", pushes(""));
    configuration_with(directory, &head, "10.0.0", tek, &tail)
}

/// A server that may be killed and started again from its state.
pub struct Machine {
    pub key_server: Option<KeyServer<OsEntropy>>,
    text: String,
    /// Of the groups whose pushes it signs.
    keys: SigningKeys,
    /// As on the disk.
    key_files: SigningKeys,
    /// As on the disk.
    disk: gcks::state::Records,
    pub events: Vec<Event>,
    starts: u8,
    /// What it sent to others while a member registered.
    aside: Vec<Transmit>,
    /// For certificates.
    pub wall_clock: ike::WallClock,
}

impl Machine {
    pub fn new(text: String) -> Self {
        let mut machine = Self {
            key_server: None,
            text: String::new(),
            keys: SigningKeys::default(),
            key_files: SigningKeys::default(),
            disk: Default::default(),
            events: Vec::new(),
            starts: 0,
            aside: Vec::new(),
            wall_clock: Default::default(),
        };
        machine.configure(text);
        machine
    }

    /// This is its configuration, from the next start or reload on.
    pub fn configure(&mut self, text: String) {
        self.text = text;
        let mut before = std::mem::take(&mut self.key_files);
        self.keys.clear();
        for group in self.config().groups {
            let Some(rekey) = &group.rekey else { continue };
            let make = || Arc::new(signing_key::generate(rekey.signing_key).unwrap().unwrap());
            let key = before.remove(&group.name).unwrap_or_else(make);
            if group.cluster.as_ref().is_none_or(|part| part.role == Role::RootServer) {
                self.keys.insert(group.name.clone(), Arc::clone(&key));
            }
            self.key_files.insert(group.name, key);
        }
    }

    /// Its configuration.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn config(&self) -> Config {
        parse(&self.text)
    }

    /// Another text in its configuration, from the next start on.
    pub fn replace(&mut self, before: &str, after: &str) {
        assert!(self.text.contains(before), "{before}");
        self.text = self.text.replacen(before, after, 1);
    }

    /// Starts it with what is on its disk.
    pub fn start(&mut self, now: BootTime) {
        self.starts += 1;
        // No two servers, no two starts and no member have the same.
        let mut seed = [0x5a; 32];
        (seed[0], seed[1]) = (self.starts, self.config().listen[0].to_string().as_bytes()[7]);
        let mut server = match self.disk.is_empty() {
            true => KeyServer::new(self.config(), &self.keys, seed, OsEntropy),
            false => {
                let mut copy = gcks::state::Records::default();
                for (name, value) in self.disk.iter() {
                    copy.insert(name.clone(), value.duplicate());
                }
                let stored = gcks::state::Stored::Records(copy);
                let clock = daemon::sealed::codec::Clock::same(now);
                KeyServer::restore(
                    self.config(),
                    &self.keys,
                    seed,
                    OsEntropy,
                    (&stored, clock),
                    now,
                )
                .unwrap()
            }
        };
        server.set_wall_clock(self.wall_clock);
        server.keep_state();
        server.join_cluster(now);
        self.key_server = Some(server);
    }

    /// A member registers, everything at one moment; the state is written whenever it has to be.
    pub fn register(&mut self, config: gdoi::config::RegistrationConfig, now: BootTime) -> Outcome {
        let (local, server) = (config.local, config.server);
        let seed = [now.since_boot().as_secs() as u8; 32];
        let mut member = gdoi::member::Registration::new(config, seed, now);
        let mut time = now;
        for _ in 0..100 {
            if let Some(outcome) = outcome(&mut member, time) {
                return outcome;
            }
            let mut quiet = true;
            while let Some(transmit) = member.poll_transmit() {
                quiet = false;
                let key_server = self.key_server.as_mut().unwrap();
                let _ = key_server.handle_datagram(local, server, &transmit.payload, now);
            }
            self.save();
            let key_server = self.key_server.as_mut().unwrap();
            while let Some(transmit) = key_server.poll_transmit() {
                if (transmit.source, transmit.destination) != (server, local) {
                    self.aside.push(transmit);
                    continue;
                }
                quiet = false;
                let _ = member.handle_datagram(server, &transmit.payload, time);
            }
            if quiet && let Some(deadline) = member.poll_timeout() {
                time = time.max(deadline.at);
                member.handle_timeout(time);
            }
        }
        panic!("the registration does not end");
    }

    /// Writes its state, as the event loop does before anything leaves.
    pub fn save(&mut self) {
        let Some(server) = &mut self.key_server else { return };
        if server.is_unsaved() {
            self.disk.apply(server.changes());
            server.saved();
        }
    }
}

/// Whether a datagram that is sent at this time, in milliseconds, is lost.
type Loss = Box<dyn FnMut(u64, &Transmit) -> bool>;

/// All servers and the network between them. What goes to members is only recorded.
pub struct Cluster {
    pub machines: BTreeMap<u8, Machine>,
    pub now: BootTime,
    queue: BTreeMap<(BootTime, u64), Transmit>,
    sent: u64,
    /// Pairs of servers that hear nothing of each other.
    pub cut: BTreeSet<(u8, u8)>,
    /// Of the datagrams between servers, which are lost.
    pub is_lost: Loss,
    /// Pushes by the server that sent them: when, to whom, octets.
    pub pushes: Vec<(u8, BootTime, Transmit)>,
    _directory: tempfile::TempDir,
}

impl Cluster {
    pub fn new(sub_servers: u8, tek: &str, tail: &str) -> Self {
        let part = |number| match number {
            1 => Part::RootOf(&[2, 3, 4, 5][..usize::from(sub_servers)]),
            _ => Part::SubServerOf(1),
        };
        let parts: Vec<Part> = (1..=1 + sub_servers).map(part).collect();
        Self::of(&parts, tek, tail)
    }

    /// Servers with these parts, numbered from 1.
    pub fn of(parts: &[Part], tek: &str, tail: &str) -> Self {
        let directory = super::keys();
        let machines = (1..).zip(parts).map(|(number, part)| {
            let text = configuration_as(directory.path(), number, *part, tek, tail);
            (number, Machine::new(text))
        });
        Self {
            machines: machines.collect(),
            now: at(1000),
            queue: BTreeMap::new(),
            sent: 0,
            cut: BTreeSet::new(),
            is_lost: Box::new(|_, _| false),
            pushes: Vec::new(),
            _directory: directory,
        }
    }

    pub fn start(&mut self, number: u8) {
        let now = self.now;
        self.machines.get_mut(&number).unwrap().start(now);
        self.collect();
    }

    /// A server has another part and is started again, with what is on its disk.
    pub fn restart_as(&mut self, number: u8, part: Part, tek: &str, tail: &str) {
        let text = configuration_as(self._directory.path(), number, part, tek, tail);
        self.kill(number);
        self.machines.get_mut(&number).unwrap().configure(text);
        self.start(number);
    }

    /// A server reads its configuration again, with another text in it.
    pub fn reload(&mut self, number: u8, from: &str, to: &str) {
        let folder = self._directory.path().display().to_string();
        self.change(number, |text| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, &to.replace("KEYS", &folder), 1)
        });
    }

    /// The same, with its text changed by `edit`.
    pub fn change(&mut self, number: u8, edit: impl Fn(&str) -> String) {
        let now = self.now;
        let machine = self.machines.get_mut(&number).unwrap();
        let fixed = gcks::config::Fixed::of(&machine.config());
        machine.configure(edit(&machine.text));
        let path = self._directory.path().join(format!("ks{number}.toml"));
        write(&path, &machine.text, 0o644);
        let loaded = gcks::config::load_again(&path, &fixed);
        let (config, _) = loaded.unwrap_or_else(|report| panic!("{report}")).value;
        let keys = machine.keys.clone();
        machine.key_server.as_mut().unwrap().reload(config, &keys, now);
        self.collect();
    }

    pub fn kill(&mut self, number: u8) {
        self.machines.get_mut(&number).unwrap().key_server = None;
    }

    /// A server is killed and its disk is lost.
    pub fn lose_disk(&mut self, number: u8) {
        self.kill(number);
        self.machines.get_mut(&number).unwrap().disk = Default::default();
    }

    pub fn server(&mut self, number: u8) -> &mut KeyServer<OsEntropy> {
        self.machines.get_mut(&number).unwrap().key_server.as_mut().unwrap()
    }

    /// Sends what waits, once it is written.
    pub fn collect(&mut self) {
        for (number, machine) in &mut self.machines {
            machine.save();
            let Some(server) = &mut machine.key_server else { continue };
            machine.events.extend(std::iter::from_fn(|| server.poll_event()));
            let aside = std::mem::take(&mut machine.aside).into_iter();
            for transmit in aside.chain(std::iter::from_fn(|| server.poll_transmit())) {
                let (from, to) = (transmit.source, transmit.destination);
                if to.ip().to_string().starts_with("10.0.9.") {
                    self.sent += 1;
                    let ends = [from, to].map(|one| match one.ip() {
                        std::net::IpAddr::V4(ip) => ip.octets()[3],
                        std::net::IpAddr::V6(_) => 0,
                    });
                    let is_cut = self.cut.contains(&(ends[0], ends[1]))
                        || self.cut.contains(&(ends[1], ends[0]));
                    if !is_cut && !(self.is_lost)(self.sent, &transmit) {
                        let arrival = self.now + Duration::from_millis(5);
                        self.queue.insert((arrival, self.sent), transmit);
                    }
                } else if transmit.payload.get(PUSH.0) == Some(&PUSH.1) {
                    self.pushes.push((*number, self.now, transmit));
                }
            }
        }
    }

    /// Until this much time has passed.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.collect();
        loop {
            let arrival = self.queue.keys().next().map(|(at, _)| *at);
            let timers =
                self.machines.values().filter_map(|one| one.key_server.as_ref()?.poll_timeout());
            let next = timers.chain(arrival).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let now = self.now;
            while let Some((key, _)) = self.queue.range(..=(now, u64::MAX)).next() {
                let key = *key;
                let Some(transmit) = self.queue.remove(&key) else { break };
                let (from, to) = (transmit.source, transmit.destination);
                let meant = self.machines.iter_mut().find(|(number, _)| server(**number) == to);
                if let Some((_, Machine { key_server: Some(server), .. })) = meant {
                    let _ = server.handle_datagram(from, to, &transmit.payload, now);
                }
                self.collect();
            }
            for machine in self.machines.values_mut() {
                if let Some(server) = &mut machine.key_server {
                    server.handle_timeout(now);
                }
            }
            self.collect();
        }
        self.now = end;
    }

    /// Octets of pushes that a server sent to members since `since`, without repetitions.
    pub fn pushed(&self, number: u8, since: BootTime) -> BTreeSet<(SocketAddr, Vec<u8>)> {
        let own = self.pushes.iter().filter(|(by, at, _)| *by == number && *at >= since);
        own.map(|(_, _, transmit)| (transmit.destination, transmit.payload.clone())).collect()
    }
}
