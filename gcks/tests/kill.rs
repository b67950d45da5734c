//! The built server killed at random moments, while members follow it over UDP and an operator
//! gives orders: no number, key or identifier comes twice, nobody is forgotten, and what was said
//! to be done stays done.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use control::{GroupArgument, MemberArgument, Request, Response, ServerSnapshot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::witness::*;
use support::*;

/// `GCKS_KILLS` overrides it.
const KILLS: u32 = 100;
/// Every so many kills the orders stop until everybody has the same keys.
const CALM: u32 = 10;
/// Longest life of one server, in microseconds: some die before they have read their state.
const LIFE: u64 = 250_000;
/// Until everybody has the same keys.
const SETTLED: Duration = Duration::from_secs(12);
const GROUPS: [(u32, &str, &str); 2] = [(1, "flat", "lkh = false"), (2, "tree", "lkh = true")];
/// Numbers of the members of both groups.
const MEMBERS: [(u8, usize); 6] = [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1)];

/// xorshift64*: the same orders for the same seed.
struct Dice(u64);

impl Dice {
    /// From the environment, or a new one; shown, so that a run can be repeated.
    fn cast() -> Self {
        let fresh =
            || u64::from_be_bytes(daemon::entropy::seed().unwrap()[..8].try_into().unwrap());
        let seed = std::env::var("GCKS_KILL_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(fresh)
            | 1;
        eprintln!("GCKS_KILL_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// A server that ends with the test.
struct Server {
    child: Child,
    log: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(folder: &Path) -> Self {
        let log = folder.join("log");
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gcks"));
        command.arg("--config").arg(folder.join("gcks.toml")).env_remove("NOTIFY_SOCKET");
        Self { child: command.stdout(Stdio::null()).stderr(output).spawn().unwrap(), log }
    }

    /// Kills it after this time, whatever it does then.
    fn kill_after(&self, life: Duration) -> JoinHandle<()> {
        let process = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        spawn(move || {
            sleep(life);
            let _ = kill(process, Signal::SIGKILL);
        })
    }

    /// It must have been killed, not have ended by itself.
    fn bury(mut self) {
        let status = self.child.wait().unwrap();
        let log = || std::fs::read_to_string(&self.log).unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9),
            "{status}\n{}",
            log()
        );
    }
}

/// A folder with keys and a configuration, and the address to ask at.
fn prepare(signing_key: &str) -> (tempfile::TempDir, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().display().to_string();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    write(&directory.path().join("state.key"), "0123456789abcdef0123456789abcdef", 0o600);
    let mut text = format!(
        "control-socket = \"{folder}/control.sock\"\nlisten = [\"127.0.0.1\"]\nport = {port}\n\
         state-directory = \"{folder}\"\nstate-key-file = \"{folder}/state.key\"\n[ike]\ndh-group = [19]\n"
    );
    for (number, group) in MEMBERS {
        write(&directory.path().join(format!("k{number}")), &key(number), 0o600);
        let name = GROUPS[group].1;
        let _ = write!(
            text,
            "[[member]]\nname = \"g{number}\"\naddress = \"127.0.7.{number}\"\n\
             pre-shared-key-file = \"{folder}/k{number}\"\ngroups = [\"{name}\"]\n"
        );
    }
    for (id, name, lkh) in GROUPS {
        // Lives so short that the schedule rolls TEKs and KEKs during the test.
        let _ = write!(
            text,
            "[[group]]\nname = \"{name}\"\nid = {id}\n[[group.tek]]\nlifetime = \"40s\"\n{GCM}\n\
             [[group.tek.policy]]\nsource = \"172.16.0.0/12\"\ndestination = \"172.16.0.0/12\"\n\
             [group.rekey]\nsigning-key = \"{signing_key}\"\nlifetime = \"1m\"\nretransmission-period = \"2s\"\n\
             retransmissions = 1\n{lkh}\n"
        );
    }
    file(directory.path(), "gcks.toml", &text);
    (directory, SocketAddr::from(([127, 0, 0, 1], port)))
}

struct Lab {
    folder: tempfile::TempDir,
    handles: BTreeMap<u8, Handle>,
    members: Vec<JoinHandle<()>>,
    witness: Arc<Mutex<Witness>>,
    runtime: tokio::runtime::Runtime,
    dice: Dice,
    /// Members that the server said are removed, by group and name.
    removed: BTreeSet<(usize, String)>,
    done: u32,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.handles.values().for_each(|handle| handle.stop.store(true, Ordering::Relaxed));
    }
}

impl Lab {
    fn new() -> Self {
        let (folder, server) = prepare("ecdsa-p256");
        let witness = Arc::default();
        let (mut handles, mut members) = (BTreeMap::new(), Vec::new());
        for (number, group) in MEMBERS {
            let member = Member::new(number, GROUPS[group].0, server, &witness);
            handles.insert(number, member.handle());
            members.push(spawn(move || member.run()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (dice, removed, done) = (Dice::cast(), BTreeSet::new(), 0);
        Self { folder, handles, members, witness, runtime, dice, removed, done }
    }

    fn ask(&self, request: Request) -> Option<Response> {
        self.runtime
            .block_on(control::client::ask(&self.folder.path().join("control.sock"), request))
            .ok()
    }

    fn show(&self) -> Option<ServerSnapshot> {
        match self.ask(Request::ShowServer)? {
            Response::Server(snapshot) => Some(*snapshot),
            other => panic!("{other:?}"),
        }
    }

    /// One order, or one pull, by chance.
    fn order(&mut self) {
        let (number, group) = MEMBERS[self.dice.below(6) as usize];
        let of_group = GroupArgument { group: GROUPS[group].1.to_owned() };
        let name = format!("g{number}");
        let of_member = MemberArgument { group: of_group.group.clone(), member: name.clone() };
        let what = self.dice.below(20);
        let done = match what {
            0..6 => self.ask(Request::Rekey(of_group)),
            6..9 => self.ask(Request::Replace(of_group)),
            9..11 => self.ask(Request::Delete(of_group)),
            11 => self.ask(Request::RemoveAll(of_group)),
            12..14 => self.ask(Request::Remove(of_member)),
            14..16 => match self.removed.first().cloned() {
                Some((group, member)) => {
                    // Whether it was done is not known when the server dies over it.
                    self.removed.remove(&(group, member.clone()));
                    // It may not even know that it was out.
                    self.handles[&member[1..].parse().unwrap()].pull.store(true, Ordering::Relaxed);
                    self.ask(Request::Admit(MemberArgument {
                        group: GROUPS[group].1.to_owned(),
                        member,
                    }))
                }
                None => None,
            },
            _ => {
                self.handles[&number].pull.store(true, Ordering::Relaxed);
                None
            }
        };
        if matches!(done, Some(Response::Done(_))) {
            self.done += 1;
            if (12..14).contains(&what) {
                self.removed.insert((group, name));
            }
        }
        sleep(Duration::from_micros(self.dice.below(5_000)));
    }

    /// Nobody gives orders: all come to have the same keys by what is pushed to them, and only who
    /// was removed has to pull.
    fn calm(&mut self) {
        let snapshot = self.wait("the server answers", |lab| lab.show());
        for (index, (_, name, _)) in GROUPS.iter().enumerate() {
            let shown: BTreeSet<String> =
                snapshot.groups[index].rekey.iter().flat_map(|it| it.removed.clone()).collect();
            let told = self
                .removed
                .iter()
                .filter(|(group, _)| *group == index)
                .map(|(_, name)| name.clone());
            let forgotten: Vec<String> = told.filter(|name| !shown.contains(name)).collect();
            assert!(forgotten.is_empty(), "removed from {name} and in again: {forgotten:?}");
            for member in shown {
                let number: u8 = member[1..].parse().unwrap();
                self.ask(Request::Admit(MemberArgument { group: (*name).to_owned(), member }));
                self.handles[&number].pull.store(true, Ordering::Relaxed);
            }
        }
        self.removed.clear();
        self.wait("everybody has the keys", |lab| {
            lab.show().filter(|snapshot| lab.agrees(snapshot))
        });
    }

    /// Whether every member is registered and holds what the server has.
    fn agrees(&self, snapshot: &ServerSnapshot) -> bool {
        MEMBERS.iter().all(|(number, group)| {
            let shown = &snapshot.groups[*group];
            let view = self.handles[number].view();
            let name = format!("g{number}");
            let kek = shown.rekey.as_ref().and_then(|rekey| rekey.kek.as_ref());
            let held = view.kek.map(|(spi, number)| (hexadecimal(&spi), number));
            let current: BTreeSet<u32> =
                shown.teks.iter().filter(|tek| tek.current).map(|tek| tek.spi).collect();
            !view.pulling
                && kek.map(|kek| (kek.spi.clone(), kek.sequence_number)) == held
                && current == view.teks
                && snapshot.members.iter().any(|member| member.name == name)
        })
    }

    fn wait<T>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            if begin.elapsed() > SETTLED {
                let views = self
                    .handles
                    .iter()
                    .map(|(number, handle)| format!("{number}: {:?}\n", handle.view()));
                let views: String = views.collect();
                let groups = self.show().map(|shown| shown.groups);
                panic!("not within {SETTLED:?}: {what}\n{views}{groups:?}\n{}", self.log());
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Everybody follows one more push, and nobody has to pull for it.
    fn all_follow(&mut self) {
        let before: Vec<View> = self.handles.values().map(Handle::view).collect();
        for (_, group, _) in GROUPS {
            let done = self.ask(Request::Rekey(GroupArgument { group: group.to_owned() }));
            let Some(Response::Done(done)) = done else { panic!("{done:?}") };
            assert!(
                done.message.ends_with("goes to 3 members"),
                "somebody was forgotten: {}",
                done.message
            );
        }
        self.wait("everybody follows", |lab| lab.show().filter(|snapshot| lab.agrees(snapshot)));
        for (before, after) in before.iter().zip(self.handles.values().map(Handle::view)) {
            assert_eq!(before.pulls, after.pulls, "{}", self.log());
            assert!(after.pushes > before.pushes);
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn a_server_killed_a_hundred_times_repeats_and_forgets_nothing() {
    let mut lab = Lab::new();
    let begin = Instant::now();
    let kills = std::env::var("GCKS_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    for round in 1..=kills {
        let server = Server::start(lab.folder.path());
        if round % CALM == 0 {
            lab.calm();
            lab.all_follow();
        }
        let killer = server.kill_after(Duration::from_micros(lab.dice.below(LIFE)));
        while !killer.is_finished() {
            lab.order();
        }
        killer.join().unwrap();
        server.bury();
        let faults = std::mem::take(&mut lab.witness.lock().unwrap().faults);
        assert_eq!(faults, Vec::<String>::new(), "after kill {round}\n{}", lab.log());
    }
    let server = Server::start(lab.folder.path());
    lab.calm();
    lab.all_follow();
    drop(server);
    lab.handles.values().for_each(|handle| handle.stop.store(true, Ordering::Relaxed));
    std::mem::take(&mut lab.members).into_iter().for_each(|member| member.join().unwrap());
    let witness = lab.witness.lock().unwrap();
    assert_eq!(witness.faults, Vec::<String>::new());
    let (numbers, teks, senders) = witness.figures();
    let orders = lab.done;
    eprintln!(
        "{kills} kills in {:.1} s: {orders} orders, {numbers} pushes, {teks} TEKs, {senders} sender identifiers",
        begin.elapsed().as_secs_f32()
    );
    assert!(orders > kills / 2 && numbers > 50 && senders > 20, "the test has tried little");
    let log = lab.log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_kill_while_signing_keys_are_made_leaves_whole_keys_or_none() {
    let mut dice = Dice::cast();
    let mut made = [0; 3];
    for _ in 0..40 {
        let (folder, _) = prepare("ecdsa-p384");
        let server = Server::start(folder.path());
        server.kill_after(Duration::from_micros(dice.below(60_000))).join().unwrap();
        server.bury();
        let keys = || {
            GROUPS.map(|(_, name, _)| std::fs::read(folder.path().join(format!("{name}.pem"))).ok())
        };
        let before = keys();
        made[before.iter().flatten().count()] += 1;
        // What a write that was cut off may have left.
        write(&folder.path().join("flat.pem.new"), "-----BEGIN PRIVATE KEY-----\nMIG", 0o600);
        let server = Server::start(folder.path());
        let log = || std::fs::read_to_string(&server.log).unwrap();
        let begin = Instant::now();
        while !log().contains("key server is ready") {
            assert!(begin.elapsed() < SETTLED, "{}", log());
            sleep(Duration::from_millis(5));
        }
        for (before, after) in before.iter().zip(keys()) {
            assert!(before.is_none() || *before == after, "a key that was there is another one");
            assert!(after.is_some_and(|key| key.ends_with(b"-----END PRIVATE KEY-----\n")));
        }
    }
    eprintln!("signing keys left by a kill (none, one, both): {made:?}");
}
