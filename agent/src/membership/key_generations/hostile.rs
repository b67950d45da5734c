//! Overlapping TEKs under everything that a key server may do: rekeys with any lifetimes, lists in
//! any order, deletes, pulls between pushes, restarts of members. Two members that hear the same
//! must always understand each other.

use std::collections::{BTreeMap, VecDeque};

use ike::crypto::SeededRng;

use super::tests::{at, overlapping};
use super::*;

/// A TEK of the key server: SPI, and when it ends.
type Tek = (Spi, u64);

struct Group {
    rng: SeededRng,
    now: u64,
    teks: Vec<Tek>,
    /// When each TEK that ever was ends.
    ends: BTreeMap<Spi, u64>,
    next: Spi,
    delays: (Option<u64>, Option<u64>),
    members: [KeyGenerations; 2],
    /// Pushes on their way to the second member.
    on_the_way: VecDeque<(u64, GroupSa, Vec<Deletion>)>,
    history: Vec<String>,
}

impl Group {
    fn new(seed: u8) -> Self {
        let mut rng = SeededRng::from_seed([seed; 32]);
        let delays = match rng.array::<1>()[0] % 3 {
            0 => (None, None),
            1 => (Some(10), Some(30)),
            _ => (Some(10), None),
        };
        let mut group = Self {
            rng,
            now: 1000,
            teks: Vec::new(),
            ends: BTreeMap::new(),
            next: 0x1000,
            delays,
            members: Default::default(),
            on_the_way: VecDeque::new(),
            history: vec![format!("delays {delays:?}")],
        };
        group.make(120);
        group.pull(0);
        group.pull(1);
        group
    }

    fn below(&mut self, bound: u64) -> u64 {
        u64::from(u32::from_be_bytes(self.rng.array())) % bound
    }

    fn make(&mut self, lifetime: u64) {
        self.teks.push((self.next, self.now + lifetime));
        self.ends.insert(self.next, self.now + lifetime);
        self.next += 1;
    }

    /// All TEKs in any order, with the lifetime left.
    fn stated(&mut self) -> GroupSa {
        let mut teks = self.teks.clone();
        for place in (1..teks.len()).rev() {
            let other = usize::try_from(self.below(place as u64 + 1)).unwrap();
            teks.swap(place, other);
        }
        let left: Vec<(Spi, u64)> = teks.iter().map(|(spi, end)| (*spi, end - self.now)).collect();
        overlapping(&left, self.delays)
    }

    fn pull(&mut self, member: usize) {
        let sa = self.stated();
        self.members[member].add(sa, at(self.now));
        if member == 1 {
            // Their numbers are used up by the one that the pull told.
            self.on_the_way.clear();
        }
    }

    fn push(&mut self, deletions: &[Deletion]) {
        let (first, second) = (self.stated(), self.stated());
        self.deliver(0, first, deletions);
        // Within the activation delay, and after those before it.
        let last = self.on_the_way.back().map_or(self.now, |(time, ..)| *time);
        let time = last.max(self.now + self.below(8));
        self.on_the_way.push_back((time, second, deletions.to_vec()));
    }

    fn deliver(&mut self, member: usize, sa: GroupSa, deletions: &[Deletion]) {
        let member = &mut self.members[member];
        let merged = member.merged(sa, deletions);
        member.push(Some(merged), deletions, at(self.now));
    }

    /// Lets time pass, in seconds.
    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1;
            while let Some((_, sa, deletions)) =
                self.on_the_way.pop_front_if(|(time, ..)| *time <= self.now)
            {
                self.history.push(format!("{}: the push arrives at 1", self.now));
                self.deliver(1, sa, &deletions);
            }
            let now = at(self.now);
            self.members.iter_mut().for_each(|member| _ = member.handle_timeout(now));
            self.check();
        }
    }

    fn restart(&mut self, member: usize) {
        let now = at(self.now);
        let before = &self.members[member];
        let keys: BTreeMap<Spi, TekKeys> =
            before.keys(now).iter().map(|(spi, keys)| (*spi, keys.duplicate())).collect();
        let sa_teks: Vec<_> = before.sa_teks().iter().map(Into::into).collect();
        let key = |spi: Spi| keys.get(&spi).map(TekKeys::duplicate);
        self.members[member] =
            KeyGenerations::adopt(gdoi::group::GroupId(1), &before.save(), &sa_teks, key, now);
    }

    fn step(&mut self) {
        let (now, what) = (self.now, self.below(10));
        self.teks.retain(|(_, end)| *end > now);
        match what {
            0 | 1 => {
                let lifetime = 40 + self.below(200);
                self.make(lifetime);
                self.history.push(format!("{now}: push, new {:x} for {lifetime}", self.next - 1));
                self.push(&[]);
            }
            // Without a deactivation delay a delete counts from its receipt.
            2 if self.teks.len() > 1 && self.delays.1.is_some() => {
                let place = usize::try_from(self.below(self.teks.len() as u64)).unwrap();
                let (spi, _) = self.teks.remove(place);
                self.history.push(format!("{now}: delete {spi:x}"));
                self.push(&[Deletion::Tek(TekProtocol::ESP, spi)]);
            }
            3 if !self.teks.is_empty() => {
                let member = usize::try_from(self.below(2)).unwrap();
                self.history.push(format!("{now}: pull of {member}"));
                self.pull(member);
            }
            4 => {
                let member = usize::try_from(self.below(2)).unwrap();
                self.history.push(format!("{now}: restart of {member}"));
                self.restart(member);
            }
            _ => {
                let seconds = 1 + self.below(15);
                self.wait(seconds);
            }
        }
        let now = at(self.now);
        self.members.iter_mut().for_each(|member| _ = member.handle_timeout(now));
        self.check();
    }

    fn check(&self) {
        let now = at(self.now);
        let alive: Vec<&Tek> = self.teks.iter().filter(|(_, end)| *end > self.now).collect();
        let told = || self.history.join("\n");
        for (number, member) in self.members.iter().enumerate() {
            let sa_teks = member.active(now);
            let sending: Vec<Spi> = sa_teks
                .iter()
                .filter(|sa_tek| sa_tek.send)
                .map(|sa_tek| sa_tek.policy.spi)
                .collect();
            // For the same traffic never two TEKs that are sent on, and one while there is any.
            assert!(sending.len() <= 1, "{}\n{number} at {}: {sending:x?}", told(), self.now);
            assert_eq!(
                sending.is_empty(),
                !sa_teks.iter().any(|sa_tek| sa_tek.receive),
                "{}\n{number} at {}",
                told(),
                self.now
            );
            for (spi, _) in alive.iter().filter(|_| number == 0) {
                let receives =
                    |sa_tek: &ActiveSaTek<'_>| sa_tek.policy.spi == *spi && sa_tek.receive;
                assert!(
                    sa_teks.iter().any(receives),
                    "{}\n{number} at {}: {spi:x}",
                    told(),
                    self.now
                );
            }
            let ends = sa_teks.iter().filter(|sa_tek| sa_tek.receive);
            assert!(
                ends.clone().all(|sa_tek| sa_tek.remaining_lifetime > Duration::ZERO),
                "{}",
                told()
            );
            // A lifetime counts from the receipt: who gets a push late uses the key for a moment
            // after its end at the others.
            let ended = |spi: &Spi| self.ends.get(spi).is_some_and(|end| *end <= self.now);
            for spi in sending.into_iter().filter(|spi| !ended(spi)) {
                let other = self.members[1 - number].active(now);
                let receives =
                    other.iter().any(|sa_tek| sa_tek.policy.spi == spi && sa_tek.receive);
                // Where no key is left, a new one is sent on at once.
                let has_none =
                    !other.iter().any(|sa_tek| sa_tek.receive && !ended(&sa_tek.policy.spi));
                assert!(
                    receives || has_none,
                    "{}\n{number} sends on {spi:x} at {}",
                    told(),
                    self.now
                );
            }
        }
    }
}

#[test]
fn members_that_hear_the_same_understand_each_other() {
    for seed in 0..16 {
        let mut group = Group::new(seed);
        for _ in 0..150 {
            group.step();
        }
    }
}
