//! A whole cluster in one process: a root, four sub-servers and their members on a virtual clock,
//! over a network that loses, repeats, delays and divides, with servers that are killed and come
//! back from their disks. What must always hold is checked after every step.
//!
//! A failure names its seed; `SEED=n cargo test -p cluster --test simulation` plays it again.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::root::{RootAction, RootGroup};
use cluster::sub_server::{Arrival, SubServerAction, SubServerGroup};
use cluster::{Generation, Stage};
use ike::BootTime;

const SUB_SERVERS: usize = 4;
const SEEDS: u64 = 1000;
const TICK: u64 = 200;
/// Ten minutes of trouble, then five of peace.
const TROUBLE: u64 = 600_000;
const PEACE: u64 = 300_000;
/// Liveness: 10 s, five times. A root waits one more retransmission.
const DEAD: u64 = 50_000;
const WAIT: u64 = 60_000;
const PERIOD: u64 = 5_000;
/// Members get a push three times, and send with its keys after this delay: longer than a commit
/// and a push take where every other copy is lost.
const ACTIVATION: u64 = 60_000;
/// No message is lost more often than this in a row.
const LOST_IN_A_ROW: u32 = 1;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn at(milliseconds: u64) -> BootTime {
    BootTime::new(Duration::from_millis(1_000_000 + milliseconds))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Message {
    Ask(Generation),
    Told(Generation, Stage),
    Update(Generation, Stage),
    Acknowledged(Generation, Stage),
}

/// What a restart finds.
#[derive(Clone, Copy, Default)]
struct Disk {
    held: Generation,
    prepared: Option<Generation>,
}

struct Sub {
    machine: Option<SubServerGroup>,
    disk: Disk,
    /// Whether it and the root can hear each other, and since when that is so.
    cut: bool,
    reachable_since: Option<u64>,
    unreachable_since: u64,
    buried: bool,
    /// By direction.
    lost_in_a_row: [u32; 2],
    /// What the root repeats, and when next.
    request: Option<(Message, u64)>,
    /// Versions of the member, and from when it sends with each.
    member: BTreeMap<u64, u64>,
    /// Pushes to the member that are repeated.
    pushes: Vec<(u64, u64)>,
    /// Whether the root was restarted, and the sub-server does not know yet: phase 1 says so.
    to_be_told: bool,
}

struct World {
    now: u64,
    random: Random,
    root: Option<RootGroup<usize>>,
    disk: Generation,
    subs: Vec<Sub>,
    /// Arrival, order, to whom (a sub-server, or the root from it), message.
    queue: BTreeMap<(u64, u64), (usize, bool, Message)>,
    sent: u64,
    loss: u64,
    committed: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let sub = || Sub {
            machine: Some(SubServerGroup::new(Generation::default(), at(0))),
            disk: Disk::default(),
            cut: false,
            reachable_since: Some(0),
            unreachable_since: 0,
            buried: false,
            lost_in_a_row: [0; 2],
            request: None,
            member: BTreeMap::new(),
            pushes: Vec::new(),
            to_be_told: false,
        };
        let fresh = Generation { epoch: 1, version: 0 };
        let mut world = Self {
            now: 0,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            root: Some(RootGroup::new(fresh, 0..SUB_SERVERS, at(WAIT), at(0))),
            disk: fresh,
            subs: (0..SUB_SERVERS).map(|_| sub()).collect(),
            queue: BTreeMap::new(),
            sent: 0,
            loss: 0,
            committed: 0,
        };
        world.make();
        world
    }

    /// The root has new keys: written first.
    fn make(&mut self) {
        let now = self.now;
        if let Some(root) = &mut self.root {
            root.make(at(now + WAIT), at(now));
            self.disk = root.generation();
        }
        self.carry_out();
    }

    fn send(&mut self, sub: usize, to_root: bool, message: Message) {
        let copies = if self.random.below(10) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            let is_unlucky = self.random.below(100) < self.loss;
            let in_a_row = &mut self.subs[sub].lost_in_a_row[usize::from(to_root)];
            if is_unlucky && *in_a_row < LOST_IN_A_ROW {
                *in_a_row += 1;
                continue;
            }
            *in_a_row = 0;
            let delay = TICK + self.random.below(1500);
            self.sent += 1;
            self.queue.insert((self.now + delay, self.sent), (sub, to_root, message));
        }
    }

    /// Does what the machines want.
    fn carry_out(&mut self) {
        let now = self.now;
        while let Some(action) = self.root.as_mut().and_then(RootGroup::poll_action) {
            let generation = self.root.as_ref().unwrap().generation();
            let of = |version| Generation { version, ..generation };
            match action {
                RootAction::Prepare { sub_server, version } => {
                    let message = Message::Update(of(version), Stage::Prepared);
                    self.subs[sub_server].request = Some((message, now));
                }
                RootAction::Commit { sub_server, version } => {
                    let message = Message::Update(of(version), Stage::Committed);
                    self.subs[sub_server].request = Some((message, now));
                }
                RootAction::Distribute { version, late } => {
                    self.check_held(of(version), &late);
                    self.committed = self.committed.max(version);
                }
            }
        }
        for number in 0..SUB_SERVERS {
            let machine = self.subs[number].machine.as_mut();
            let actions: Vec<_> = machine
                .map(|one| std::iter::from_fn(|| one.poll_action()).collect())
                .unwrap_or_default();
            for action in actions {
                match action {
                    SubServerAction::Ask => {
                        let held = self.subs[number].machine.as_ref().unwrap().held();
                        self.send(number, true, Message::Ask(held));
                    }
                    SubServerAction::Forget => panic!("no key ends in this test"),
                }
            }
        }
    }

    /// Invariant: all that can be reached hold a generation before it is distributed.
    fn check_held(&self, generation: Generation, late: &[usize]) {
        for (number, sub) in self.subs.iter().enumerate() {
            let long = sub.reachable_since.is_some_and(|since| self.now - since > DEAD + WAIT);
            if long {
                assert!(!late.contains(&number), "sub-server {number} was late");
                let holds = sub.disk.held >= generation || sub.disk.prepared >= Some(generation);
                assert!(holds, "sub-server {number} does not hold {generation}");
            }
        }
    }

    fn arrive(&mut self, number: usize, to_root: bool, message: Message) {
        let now = at(self.now);
        if self.subs[number].cut || self.root.is_none() || self.subs[number].machine.is_none() {
            return;
        }
        if to_root {
            let root = self.root.as_mut().unwrap();
            match message {
                Message::Ask(held) => {
                    assert!(held <= root.generation(), "a sub-server is ahead of its root");
                    let told = Message::Told(root.generation(), root.stage());
                    root.joined(&number, now);
                    self.send(number, false, told);
                }
                Message::Acknowledged(generation, stage) => {
                    let awaited = Message::Update(generation, stage);
                    if self.subs[number].request.is_some_and(|(request, _)| request == awaited) {
                        self.subs[number].request = None;
                    }
                    root.acknowledged(&number, stage, generation.version, now);
                }
                _ => {}
            }
            return;
        }
        let sub = &mut self.subs[number];
        let machine = sub.machine.as_mut().unwrap();
        match message {
            Message::Told(generation, stage) => match machine.told(generation, stage, now) {
                Ok(Arrival::New) => install(sub, generation, stage, self.now),
                Ok(Arrival::Held) | Err(_) => {}
            },
            Message::Update(generation, stage) => {
                let arrival = match stage {
                    Stage::Prepared => machine.prepare(generation),
                    Stage::Committed => machine.commit(generation, now),
                };
                match arrival {
                    Ok(Arrival::New) => install(sub, generation, stage, self.now),
                    Ok(Arrival::Held) => {}
                    Err(_) => return,
                }
                self.send(number, true, Message::Acknowledged(generation, stage));
            }
            _ => {}
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        let now = self.now;
        while let Some((key, _)) = self.queue.range(..=(now, u64::MAX)).next() {
            let key = *key;
            let (number, to_root, message) = self.queue.remove(&key).unwrap();
            self.arrive(number, to_root, message);
            self.carry_out();
        }
        for number in 0..SUB_SERVERS {
            self.watch(number);
            let due = self.subs[number].request.filter(|(_, next)| *next <= now);
            if let Some((message, _)) = due.filter(|_| self.root.is_some()) {
                self.subs[number].request = Some((message, now + PERIOD));
                self.send(number, false, message);
            }
            self.push(number);
        }
        if let Some(root) = &mut self.root {
            root.handle_timeout(at(now));
        }
        for sub in &mut self.subs {
            if let Some(machine) = &mut sub.machine {
                machine.handle_timeout(at(now));
            }
        }
        self.carry_out();
        self.check_members();
    }

    /// Liveness, on both sides.
    fn watch(&mut self, number: usize) {
        let now = self.now;
        let up =
            self.root.is_some() && self.subs[number].machine.is_some() && !self.subs[number].cut;
        let sub = &mut self.subs[number];
        match (up, sub.reachable_since) {
            (true, None) => {
                (sub.reachable_since, sub.buried) = (Some(now), false);
                if let Some(root) = &mut self.root {
                    root.again(&number);
                }
            }
            (false, Some(_)) => (sub.reachable_since, sub.unreachable_since) = (None, now),
            _ => {}
        }
        if up && std::mem::take(&mut sub.to_be_told) {
            sub.machine.as_mut().unwrap().ask(at(now));
        }
        if !up && !sub.buried && now - sub.unreachable_since >= DEAD {
            sub.buried = true;
            sub.request = None;
            if let Some(machine) = &mut sub.machine {
                machine.lost(at(now));
            }
            if let Some(root) = &mut self.root {
                root.lost(&number, at(now));
            }
        }
    }

    /// Pushes to the member of a sub-server, three times, each of which may be lost but the last.
    fn push(&mut self, number: usize) {
        let now = self.now;
        if self.subs[number].machine.is_none() {
            return;
        }
        let due: Vec<u64> =
            self.subs[number].pushes.iter().filter(|(_, at)| *at <= now).map(|(v, _)| *v).collect();
        for version in due {
            let first = self.subs[number].pushes.iter().filter(|(v, _)| *v == version).count() > 1;
            let is_lost = first && self.random.below(100) < self.loss;
            let sub = &mut self.subs[number];
            let place = sub.pushes.iter().position(|(v, at)| *v == version && *at <= now).unwrap();
            sub.pushes.remove(place);
            if !is_lost {
                sub.member.entry(version).or_insert(now + ACTIVATION);
            }
        }
    }

    /// Invariant: nobody sends on a key that a member of a server which can be reached has not.
    fn check_members(&self) {
        let long = |sub: &&Sub| {
            sub.reachable_since.is_some_and(|since| self.now - since > DEAD + WAIT + ACTIVATION)
        };
        let sends = self.subs.iter().filter(long).filter_map(|sub| {
            sub.member.iter().filter(|(_, from)| **from <= self.now).map(|(v, _)| *v).max()
        });
        let Some(newest) = sends.max() else { return };
        for (number, sub) in self.subs.iter().enumerate().filter(|(_, sub)| long(sub)) {
            let newest_held = sub.member.keys().max().copied().unwrap_or_default();
            assert!(
                newest_held >= newest,
                "a member sends with version {newest}, that of sub-server {number} has {newest_held}"
            );
        }
    }

    fn trouble(&mut self) {
        let number = self.random.below(SUB_SERVERS as u64) as usize;
        match self.random.below(12) {
            0..=3 => self.make(),
            4 => self.subs[number].cut = true,
            5 => self.subs[number].cut = false,
            6 => self.loss = self.random.below(60),
            7 => {
                self.subs[number].machine = None;
                self.subs[number].request = None;
            }
            8 => self.start(number),
            9 => self.root = None,
            _ => self.start_root(),
        }
    }

    fn start(&mut self, number: usize) {
        let sub = &mut self.subs[number];
        if sub.machine.is_none() {
            let Disk { held, prepared } = sub.disk;
            sub.machine = Some(SubServerGroup::new(held, at(self.now)).with_prepared(prepared));
        }
    }

    fn start_root(&mut self) {
        if self.root.is_some() {
            return;
        }
        let (disk, now) = (self.disk, at(self.now));
        self.root = Some(RootGroup::new(disk, 0..SUB_SERVERS, at(self.now + WAIT), now));
        for sub in &mut self.subs {
            (sub.request, sub.to_be_told) = (None, true);
        }
        // Whatever was under way is made once more.
        self.make();
    }
}

/// Written to the disk, then in effect. Numbers never go back there.
fn install(sub: &mut Sub, generation: Generation, stage: Stage, now: u64) {
    sub.machine.as_mut().unwrap().installed(generation, stage);
    match stage {
        Stage::Prepared => sub.disk.prepared = Some(generation),
        Stage::Committed => {
            assert!(generation > sub.disk.held, "{generation} behind {}", sub.disk.held);
            sub.disk.held = generation;
            sub.disk.prepared = sub.disk.prepared.filter(|prepared| *prepared > generation);
            sub.pushes.extend((0..3).map(|copy| (generation.version, now + copy * PERIOD)));
        }
    }
}

fn play(seed: u64) {
    let mut world = World::new(seed);
    let mut next = 20_000;
    while world.now < TROUBLE {
        world.tick();
        if world.now >= next {
            world.trouble();
            next = world.now + 1000 + world.random.below(30_000);
        }
    }
    world.loss = 0;
    world.start_root();
    for number in 0..SUB_SERVERS {
        world.start(number);
        world.subs[number].cut = false;
    }
    while world.now < TROUBLE + PEACE {
        world.tick();
    }
    let root = world.root.as_ref().unwrap();
    assert_eq!(root.stage(), Stage::Committed);
    for (number, sub) in world.subs.iter().enumerate() {
        assert_eq!(sub.disk.held, root.generation(), "sub-server {number} in peace");
        assert!(sub.machine.as_ref().unwrap().answers_new_members());
        assert!(sub.member.contains_key(&root.generation().version));
    }
    assert!(root.sub_servers().all(|(_, one)| one.is_active()));
}

#[test]
fn whatever_happens_the_invariants_hold() {
    let only = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(1..=SEEDS, |seed: u64| seed..=seed);
    for seed in seeds {
        let result = std::panic::catch_unwind(|| play(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}
