//! Members of a cluster: each counts once, and is taken out by the root wherever it is registered;
//! with a key hierarchy the others go on.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use gcks::group::Group;
use gdoi::group::GroupId;
use gdoi::push::{RekeyEvent, RekeyMember, RekeySettings};
use support::cluster::{Cluster, server};
use support::{CBC, Outcome, address, registration, seconds};

const ONE: GroupId = GroupId(1);
const LKH: &str = "[group.rekey]\nlkh = true";

/// A member that follows the pushes it gets.
struct Member {
    rekey: RekeyMember,
    server: u8,
    spis: BTreeSet<u32>,
    removed: bool,
}

struct Lab {
    cluster: Cluster,
    members: BTreeMap<u8, Member>,
    /// Pushes that have arrived.
    arrived: usize,
}

impl Lab {
    /// Members m10 to m59 beside the usual ones.
    fn new(sub_servers: u8, rekey: &str) -> Self {
        let mut cluster = Cluster::new(sub_servers, CBC, "");
        for machine in cluster.machines.values_mut() {
            let text = machine.text().to_owned();
            let key = text.split("pre-shared-key-file = \"").find(|rest| rest.contains("/k2\""));
            let key = key.unwrap().split('"').next().unwrap();
            let more: Vec<String> = (10..60)
                .map(|host| {
                    format!(
                        "[[member]]\nname = \"m{host}\"\naddress = \"10.0.0.{host}\"\n\
                         pre-shared-key-file = \"{key}\"\ngroups = [\"one\"]\n"
                    )
                })
                .collect();
            let text = text.replacen("[[group]]", &(more.concat() + "[[group]]"), 1);
            machine.configure(text.replacen("[group.rekey]", rekey, 1));
        }
        (1..=1 + sub_servers).for_each(|number| cluster.start(number));
        cluster.run(seconds(10));
        Self { cluster, members: BTreeMap::new(), arrived: 0 }
    }

    fn group(&mut self, number: u8) -> &Group {
        self.cluster.server(number).groups().find(|group| group.id() == ONE).unwrap()
    }

    /// How many members a server has, and how many the root knows elsewhere.
    fn registered(&mut self, number: u8) -> usize {
        self.group(number).registry().len()
    }

    fn join(&mut self, host: u8, number: u8) -> bool {
        let config = registration(host, 2, 1, address(host), server(number));
        let now = self.cluster.now;
        let outcome = self.cluster.machines.get_mut(&number).unwrap().register(config, now);
        self.cluster.collect();
        let Outcome::Registered(sa) = outcome else { return false };
        let settings = RekeySettings {
            address: address(host),
            acknowledgement_length: Default::default(),
            selector_byte_order: Default::default(),
            legacy: false,
        };
        let rekey = RekeyMember::new(&sa, settings, now).unwrap().unwrap();
        let spis = sa.tek_keys().keys().copied().collect();
        self.members.insert(host, Member { rekey, server: number, spis, removed: false });
        self.run(1);
        true
    }

    fn run(&mut self, duration: u64) {
        for _ in 0..duration {
            self.cluster.run(seconds(1));
            self.deliver();
        }
    }

    /// Pushes reach those whom they are sent to; who was removed overhears them all.
    fn deliver(&mut self) {
        let now = self.cluster.now;
        let mut answers = Vec::new();
        for (_, _, push) in &self.cluster.pushes[self.arrived..] {
            for (host, member) in &mut self.members {
                if !member.removed && address(*host) != push.destination {
                    continue;
                }
                let from = server(member.server);
                let _ = member.rekey.handle_datagram(from, address(*host), &push.payload, now);
                while let Some(event) = member.rekey.poll_event() {
                    if let RekeyEvent::Accepted(push) = event {
                        let sa = push.group_sa.iter();
                        member.spis.extend(sa.flat_map(|sa| sa.tek_keys().keys().copied()));
                    }
                }
                let sent = std::iter::from_fn(|| member.rekey.poll_transmit());
                answers.extend(sent.filter(|_| !member.removed).map(|one| (member.server, one)));
            }
        }
        self.arrived = self.cluster.pushes.len();
        for (number, answer) in answers {
            let Some(key_server) = &mut self.cluster.machines.get_mut(&number).unwrap().key_server
            else {
                continue;
            };
            let (from, to) = (answer.source, answer.destination);
            let _ = key_server.handle_datagram(from, to, &answer.payload, now);
        }
        self.cluster.collect();
    }

    fn remove(&mut self, host: u8) -> String {
        let now = self.cluster.now;
        let done = self.cluster.server(1).remove("one", &format!("m{host}"), now).unwrap();
        self.cluster.collect();
        if let Some(member) = self.members.get_mut(&host) {
            member.removed = true;
        }
        done
    }

    /// The TEKs that everybody sends with when the activation delay is over.
    fn current(&mut self) -> BTreeSet<u32> {
        let slots = self.group(1).teks().slots().iter();
        slots.filter_map(|slot| Some(slot.current.as_ref()?.lifetime.spi)).collect()
    }

    fn assert_left_behind(&mut self, out: &[u8]) {
        let current = self.current();
        for (host, member) in &self.members {
            let has = current.is_subset(&member.spis);
            assert_eq!(has, !out.contains(host), "m{host} of server {}", member.server);
        }
    }
}

#[test]
fn a_member_that_registers_elsewhere_counts_there() {
    let mut lab = Lab::new(2, "[group.rekey]");
    for number in [2, 3, 2, 1, 3] {
        assert!(lab.join(10, number));
        lab.run(2);
        let counts = [1, 2, 3].map(|one| lab.registered(one));
        let expected = [1, 2, 3].map(|one| usize::from(one == number));
        assert_eq!(counts, expected, "after it has registered at {number}");
    }
}

/// Both servers hear of it when they can hear the root again.
#[test]
fn a_server_that_was_away_hears_who_has_registered_elsewhere() {
    let mut lab = Lab::new(2, "[group.rekey]");
    assert!(lab.join(10, 2) && lab.join(11, 2));
    lab.cluster.cut.insert((1, 2));
    lab.run(60);
    assert!(lab.join(10, 3));
    lab.run(5);
    assert_eq!((lab.registered(2), lab.registered(3)), (2, 1));
    lab.cluster.cut.clear();
    lab.run(40);
    assert_eq!((lab.registered(2), lab.registered(3)), (1, 1));
    // The root forgets who is where, and is told.
    lab.cluster.kill(1);
    lab.run(5);
    lab.cluster.start(1);
    lab.run(30);
    let known: Vec<_> = lab.group(1).elsewhere().values().map(|one| one.server.clone()).collect();
    assert_eq!(known.len(), 2);
    assert!(lab.join(11, 3));
    lab.run(3);
    assert_eq!((lab.registered(2), lab.registered(3)), (0, 2));
}

#[test]
fn a_member_that_nobody_has_registered_disturbs_nobody_when_it_is_removed() {
    let mut lab = Lab::new(2, "[group.rekey]");
    assert!(lab.join(10, 2) && lab.join(11, 3));
    let before = lab.cluster.pushes.len();
    let done = lab.remove(12);
    assert!(done.contains("has no keys"), "{done}");
    lab.run(5);
    assert_eq!((lab.cluster.pushes.len(), lab.registered(2)), (before, 1));
    assert!(!lab.join(12, 2) && !lab.join(12, 3));
}

#[test]
fn by_the_hierarchy_a_member_of_any_server_is_left_behind_and_the_others_follow() {
    for removed in [10, 20, 30] {
        let mut lab = Lab::new(2, LKH);
        for place in 0..3 {
            assert!(lab.join(10 + place, 1) && lab.join(20 + place, 2) && lab.join(30 + place, 3));
        }
        lab.run(20);
        let done = lab.remove(removed);
        assert!(done.contains("under a KEK that it cannot reach"), "{done}");
        lab.run(15);
        lab.assert_left_behind(&[removed]);
        let counts = [1, 2, 3].map(|one| lab.registered(one));
        assert_eq!(counts.iter().sum::<usize>(), 8, "nobody registers again: {counts:?}");
        assert!(!lab.join(removed, 2));
        // And all that comes later.
        let now = lab.cluster.now;
        lab.cluster.server(1).rekey("one", now).unwrap();
        lab.run(15);
        lab.assert_left_behind(&[removed]);
        let acknowledged = lab.group(2).registry().iter().all(|(_, one)| one.acknowledgements > 0);
        assert!(acknowledged, "acknowledgements are made with the keys of leaves");
    }
}

/// What it got at the first server is excluded as well.
#[test]
fn a_removed_member_follows_by_no_leaf_that_it_ever_had() {
    let mut lab = Lab::new(2, LKH);
    assert!(lab.join(10, 2) && lab.join(20, 2) && lab.join(30, 3));
    let old = lab.members.remove(&10).unwrap();
    assert!(lab.join(10, 3));
    lab.run(20);
    let new = lab.members.insert(10, old).unwrap();
    // Under a number of its own, so that both are looked at.
    lab.members.insert(59, Member { removed: true, ..new });
    lab.remove(10);
    lab.run(15);
    lab.assert_left_behind(&[10, 59]);
}

/// A leaf is given again, with another key, and its second holder can be removed as well.
#[test]
fn leaves_are_given_again_and_more_come_before_they_run_out() {
    let mut lab = Lab::new(2, LKH);
    let mut out = Vec::new();
    for host in 10..40 {
        assert!(lab.join(host, 2), "m{host}");
        lab.run(2);
        if host % 4 == 0 {
            let done = lab.remove(host);
            assert!(done.contains("under a KEK that it cannot reach"), "{done}");
            out.push(host);
            lab.run(12);
            lab.assert_left_behind(&out);
        }
    }
    lab.cluster.kill(2);
    lab.run(2);
    lab.cluster.start(2);
    lab.run(20);
    assert!(lab.join(50, 2));
    lab.remove(11);
    out.push(11);
    lab.run(15);
    lab.assert_left_behind(&out);
}

/// Nobody knows whether it has registered there meanwhile: all keys go.
#[test]
fn without_word_of_a_server_a_removal_deletes_all_keys() {
    let mut lab = Lab::new(2, LKH);
    assert!(lab.join(10, 2) && lab.join(30, 3));
    lab.cluster.kill(3);
    lab.run(60);
    let done = lab.remove(10);
    assert!(done.contains("all keys deleted"), "{done}");
}

/// Its server's notice is repeated with the octets that it had, five seconds later.
#[test]
fn a_late_notice_makes_no_older_registration_the_newer_one() {
    for root_is_late in [false, true] {
        let mut lab = Lab::new(2, "[group.rekey]");
        assert!(lab.join(11, 2) && lab.join(12, 3));
        lab.run(60);
        if root_is_late {
            // It tells where m10 was before that it is at another server; there it is again soon.
            assert!(lab.join(10, 2));
            lab.run(60);
            lab.cluster.cut.insert((1, 2));
            assert!(lab.join(10, 3));
            lab.cluster.cut.clear();
            assert!(lab.join(10, 2));
        } else {
            lab.cluster.cut.insert((1, 3));
            assert!(lab.join(10, 3));
            lab.cluster.cut.clear();
            assert!(lab.join(10, 2));
        }
        lab.run(30);
        assert_eq!((lab.registered(2), lab.registered(3)), (2, 1), "late root: {root_is_late}");
    }
}

/// As if it had been away: it tells everything again.
#[test]
fn what_a_root_without_the_group_did_not_hear_it_hears_when_it_has_it() {
    for is_cut in [false, true] {
        let mut lab = Lab::new(1, "[group.rekey]");
        assert!(lab.join(10, 2));
        if is_cut {
            lab.cluster.cut.insert((1, 2));
        }
        lab.cluster.reload(1, "id = 1\n", "id = 9\n");
        if is_cut {
            // The notice is on its way until the root refuses it.
            assert!(lab.join(11, 2));
            lab.run(2);
            lab.cluster.cut.clear();
        }
        lab.run(60);
        let side = lab.cluster.server(2).cluster().sub_server(ONE).unwrap();
        let (sent, is_serving) = (side.counters().inits_sent, side.answers_new_members());
        assert!((5..20).contains(&sent) && !is_serving, "asked {sent} times in a minute");
        lab.cluster.reload(1, "id = 9\n", "id = 1\n");
        lab.run(30);
        assert!(lab.join(11, 2));
        lab.run(5);
        let done = lab.remove(12);
        assert!(done.contains("has no keys"), "{done}");
        assert_eq!(lab.group(1).elsewhere().len(), 1);
    }
}

/// Its members hold the KEK, and no server knows them.
#[test]
fn whom_a_sub_server_forgot_with_its_disk_is_left_behind_when_all_keys_are_deleted() {
    for (rekey, root_restarts) in [(LKH, false), (LKH, true), ("[group.rekey]", true)] {
        let mut lab = Lab::new(2, rekey);
        assert!(lab.join(10, 2) && lab.join(20, 2) && lab.join(30, 3));
        lab.cluster.lose_disk(2);
        lab.run(5);
        lab.cluster.start(2);
        lab.run(60);
        assert_eq!(lab.registered(2), 0);
        if root_restarts {
            lab.cluster.kill(1);
            lab.cluster.start(1);
            lab.run(60);
        }
        let done = lab.remove(10);
        assert!(done.contains("all keys deleted"), "{done}");
        lab.run(15);
        lab.members.remove(&20);
        assert!(lab.join(30, 3) && lab.join(21, 2) && lab.join(22, 2));
        lab.run(15);
        lab.assert_left_behind(&[10]);
        // Everybody is known again.
        let done = lab.remove(21);
        assert_eq!(rekey == LKH, done.contains("under a KEK that it cannot reach"), "{done}");
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Servers come and go, some without their disk, members move and are removed: who was removed never gets the keys of those
/// who stay, with all that it ever had and hears.
fn play(seed: u64, rekey: &str) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut lab = Lab::new(3, rekey);
    for step in 0..40 {
        let number = u8::try_from(1 + random.below(4)).unwrap();
        let is_running = lab.cluster.machines[&number].key_server.is_some();
        let host = u8::try_from(10 + random.below(25)).unwrap();
        let is_out = lab.members.get(&host).is_some_and(|member| member.removed);
        let root_runs = lab.cluster.machines[&1].key_server.is_some();
        match random.below(16) {
            0 if is_running => lab.cluster.kill(number),
            0..=2 if !is_running => lab.cluster.start(number),
            1 if number > 1 => _ = lab.cluster.cut.insert((1, number)),
            2 | 3 => lab.cluster.cut.clear(),
            4 | 5 if root_runs => {
                let joined = lab.members.iter().filter(|(_, member)| !member.removed);
                let joined: Vec<u8> = joined.map(|(host, _)| *host).collect();
                let any = usize::try_from(random.below(1000)).unwrap() % joined.len().max(1);
                let host = joined.get(any).copied().unwrap_or(host);
                let now = lab.cluster.now;
                // Without keys there is nothing to push.
                let _ = lab.cluster.server(1).remove("one", &format!("m{host}"), now);
                lab.cluster.collect();
                if let Some(member) = lab.members.get_mut(&host) {
                    member.removed = true;
                }
            }
            6 if is_running && number > 1 => {
                lab.cluster.lose_disk(number);
                if random.below(2) == 0 {
                    // Another machine takes its place.
                    lab.cluster.start(number);
                    lab.run(10);
                }
            }
            _ if is_running && !is_out => _ = lab.join(host, number),
            _ => {}
        }
        lab.run(random.below(20));
        if step % 8 == 7 && root_runs {
            // In peace everybody hears, and what waits is over.
            lab.cluster.cut.clear();
            for number in 1..=4 {
                if lab.cluster.machines[&number].key_server.is_none() {
                    lab.cluster.start(number);
                }
            }
            lab.run(150);
            let current = lab.current();
            for (host, member) in lab.members.iter().filter(|(_, member)| member.removed) {
                assert!(member.spis.is_disjoint(&current), "step {step}: m{host} has the keys");
            }
            let total: usize = (1..=4).map(|number| lab.registered(number)).sum();
            let all: BTreeSet<_> = (1..=4)
                .flat_map(|number| {
                    let group = lab.group(number);
                    group.registry().iter().map(|(id, _)| id.clone()).collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(all.len(), total, "step {step}: a member counts once");
        }
    }
}

/// A failure names its seed; `SEED=n cargo test -p gcks --test cluster_members` plays it again.
#[test]
fn whatever_happens_members_count_once_and_removed_ones_are_left_behind() {
    let only: Option<u64> = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(1..=8, |seed| seed..=seed) {
        // With a key hierarchy and without.
        for rekey in [LKH, "[group.rekey]"] {
            let result = std::panic::catch_unwind(|| play(seed, rekey));
            assert!(result.is_ok(), "seed {seed}, {rekey}");
        }
    }
}
