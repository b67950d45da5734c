//! Counter modes in a cluster: no two members, wherever they registered, send under one TEK with
//! the same sender identifier (RFC 6407 §3.5), whatever happens to the servers meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use gcks::group::Group;
use gcks::group::event::Event as GroupEvent;
use gcks::server::event::Event;
use gdoi::group::GroupId;
use support::cluster::{Cluster, server};
use support::{CBC, GCM, Outcome, address, at, registration, seconds};

const ONE: GroupId = GroupId(1);

/// A root and its sub-servers with identifiers of 8 bits; member g1 is a prefix with many hosts.
fn cluster(sub_servers: u8, tek: &str) -> Cluster {
    let mut cluster = Cluster::new(sub_servers, tek, "");
    for machine in cluster.machines.values_mut() {
        machine.replace("id = 1\n", "id = 1\nsender-id-bits = 8\n");
        machine.replace("address = \"10.0.0.1\"", "address = \"10.0.0.128/25\"");
    }
    cluster
}

fn started(sub_servers: u8) -> Cluster {
    let mut cluster = cluster(sub_servers, GCM);
    (1..=1 + sub_servers).for_each(|number| cluster.start(number));
    cluster.run(seconds(10));
    cluster
}

fn group(cluster: &mut Cluster, number: u8) -> &Group {
    cluster.server(number).groups().find(|group| group.id() == ONE).unwrap()
}

fn join(cluster: &mut Cluster, host: u8, number: u8) -> Outcome {
    let config = registration(host, 1, 1, address(host), server(number));
    let now = cluster.now;
    let outcome = cluster.machines.get_mut(&number).unwrap().register(config, now);
    cluster.collect();
    outcome
}

/// What a registration brought: TEKs and identifiers.
fn given(outcome: Outcome) -> (BTreeSet<u32>, Vec<u64>) {
    let sa = outcome.group_sa();
    let senders = sa.sender_ids().unwrap();
    assert_eq!(senders.bits, 8);
    (sa.tek_keys().keys().copied().collect(), senders.values.clone())
}

fn reinitialized(cluster: &Cluster) -> usize {
    let events = cluster.machines[&1].events.iter();
    let is_meant =
        |event: &&Event| matches!(event, Event::Group { event: GroupEvent::Reinitialized, .. });
    events.filter(is_meant).count()
}

#[test]
fn each_server_gives_identifiers_of_its_own() {
    let mut cluster = started(4);
    let mut all = BTreeSet::new();
    for host in 0..15 {
        let number = 1 + host % 5;
        let (_, senders) = given(join(&mut cluster, 128 + host, number));
        assert!(all.insert(senders[0]), "{senders:?} of server {number}");
    }
    let blocks: Vec<BTreeSet<u16>> = (1..=5)
        .map(|number| group(&mut cluster, number).sender_ids().division().unwrap().blocks)
        .collect();
    assert_eq!(blocks.iter().flatten().collect::<BTreeSet<_>>().len(), 5, "{blocks:?}");
    let taken = group(&mut cluster, 1).sender_blocks().unwrap().grants().len();
    assert_eq!(taken, 5, "who asks for the first time has lost nothing");
}

/// A block has 16 identifiers; another one comes whenever half of them are given, and never two.
#[test]
fn a_sub_server_that_runs_short_gets_more_and_nobody_waits() {
    let mut cluster = started(1);
    let mut all = BTreeSet::new();
    for host in 0..40 {
        let (_, senders) = given(join(&mut cluster, 128 + host, 2));
        assert!(all.insert(senders[0]));
        cluster.run(seconds(2));
        let blocks = group(&mut cluster, 2).sender_ids().division().unwrap().blocks;
        assert_eq!(blocks.len(), 1 + all.len() / 8, "{blocks:?} of {} identifiers", all.len());
    }
    assert_eq!(reinitialized(&cluster), 0);
}

/// It does not know which identifiers it has given: they rest.
#[test]
fn a_sub_server_that_lost_its_disk_gives_other_identifiers() {
    let mut cluster = started(2);
    let (teks, before) = given(join(&mut cluster, 130, 2));
    let (_, other) = given(join(&mut cluster, 140, 3));
    for root_restarts in [false, true] {
        cluster.lose_disk(2);
        if root_restarts {
            cluster.kill(1);
            cluster.start(1);
        }
        cluster.run(seconds(5));
        cluster.start(2);
        cluster.run(seconds(60));
        let (same, after) = given(join(&mut cluster, 131, 2));
        assert_eq!(teks, same);
        assert!(before[0] / 16 != after[0] / 16 && other[0] / 16 != after[0] / 16, "{after:?}");
    }
    let blocks = group(&mut cluster, 1).sender_blocks().unwrap();
    assert_eq!((blocks.of(Some("ks2")).len(), blocks.grants().len()), (1, 5));
    // With its disk it goes on with what it has.
    cluster.kill(2);
    cluster.start(2);
    cluster.run(seconds(60));
    assert_eq!(group(&mut cluster, 1).sender_blocks().unwrap().grants().len(), 5);
    assert_eq!(reinitialized(&cluster), 0);
}

/// As on a server of its own: new keys for everybody, and identifiers count again (RFC 6407 §3.5).
#[test]
fn when_all_identifiers_are_given_the_group_begins_anew() {
    let mut cluster = started(1);
    let mut seen: BTreeSet<(u32, u64)> = BTreeSet::new();
    // Everybody pulls again and again within the lifetime of the TEK.
    for round in 0..4 {
        for host in 0..80 {
            cluster.run(seconds(3));
            let Outcome::Registered(sa) = join(&mut cluster, 128 + host, 2) else { continue };
            for sender in &sa.sender_ids().unwrap().values {
                for spi in sa.tek_keys().keys() {
                    assert!(
                        seen.insert((*spi, *sender)),
                        "round {round}: {sender} under {spi:08x}"
                    );
                }
            }
        }
    }
    assert!(reinitialized(&cluster) > 0);
    let (_, senders) = given(join(&mut cluster, 250, 2));
    let own = group(&mut cluster, 2).sender_ids().division().unwrap();
    assert!(own.era > 1 && own.blocks.contains(&u16::try_from(senders[0] / 16).unwrap()));
    assert_eq!(own.era, group(&mut cluster, 1).sender_blocks().unwrap().era());
}

/// A Linux kernel that restarted must not go on with the TEKs that it had: see `fresh_counters`.
#[test]
fn a_restart_of_a_member_of_a_sub_server_makes_the_root_push_new_teks() {
    let mut cluster = started(2);
    given(join(&mut cluster, 130, 2));
    let (before, _) = given(join(&mut cluster, 140, 3));
    cluster.run(seconds(100));
    let since = cluster.now;
    let config = registration(130, 1, 1, address(130), server(2));
    let config = gdoi::config::RegistrationConfig { initial_contact: true, ..config };
    let now = cluster.now;
    cluster.machines.get_mut(&2).unwrap().register(config, now).group_sa();
    cluster.collect();
    cluster.run(seconds(10));
    for (number, host) in [(2, 130), (3, 140)] {
        let pushed: Vec<_> = cluster.pushed(number, since).into_iter().map(|(to, _)| to).collect();
        assert_eq!(pushed, [address(host)], "server {number}");
    }
    cluster.run(seconds(20));
    let (after, _) = given(join(&mut cluster, 141, 3));
    assert!(before.is_disjoint(&after));
    // Once is enough.
    let since = cluster.now;
    cluster.run(seconds(200));
    assert!(cluster.pushed(2, since).is_empty());
}

/// Members of CBC have no identifiers: they register again where counter mode comes.
#[test]
fn members_register_again_where_counter_mode_comes() {
    let mut cluster = cluster(1, CBC);
    (1..=2).for_each(|number| cluster.start(number));
    cluster.run(seconds(10));
    assert!(join(&mut cluster, 130, 2).group_sa().sender_ids().is_none());
    for number in [1, 2] {
        cluster.reload(number, CBC, GCM);
        cluster.run(seconds(2));
    }
    assert!(group(&mut cluster, 2).registry().is_empty());
    let (_, senders) = given(join(&mut cluster, 130, 2));
    assert_eq!(senders.len(), 1);
}

/// Another width is another space of identifiers: all keys go.
#[test]
fn another_width_begins_with_other_keys() {
    let mut cluster = started(1);
    let (before, _) = given(join(&mut cluster, 130, 2));
    cluster.reload(1, "sender-id-bits = 8", "sender-id-bits = 16");
    cluster.run(seconds(2));
    let sa = join(&mut cluster, 130, 2).group_sa();
    assert_eq!(sa.sender_ids().unwrap().bits, 16);
    assert!(sa.tek_keys().keys().all(|spi| !before.contains(spi)));
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

/// Servers are killed, cut off and restarted, sub-servers lose their disks, keys are replaced, hosts register anywhere: no pair
/// of TEK and identifier is ever given twice.
fn play(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut cluster = cluster(3, GCM);
    let mut holders: BTreeMap<(u32, u64), (u8, u8)> = BTreeMap::new();
    (1..=4).for_each(|number| cluster.start(number));
    cluster.run(seconds(10));
    let mut registered = 0;
    for _ in 0..60 {
        let number = u8::try_from(1 + random.below(4)).unwrap();
        let is_running = cluster.machines[&number].key_server.is_some();
        match random.below(16) {
            0 if is_running => cluster.kill(number),
            0..=2 if !is_running => cluster.start(number),
            1 if number > 1 => _ = cluster.cut.insert((1, number)),
            2 | 3 => cluster.cut.clear(),
            4 if cluster.machines[&1].key_server.is_some() => {
                let now = cluster.now;
                let _ = cluster.server(1).rekey("one", now);
                cluster.collect();
            }
            5 if is_running && number > 1 => cluster.lose_disk(number),
            _ if is_running => {
                let host = u8::try_from(128 + random.below(100)).unwrap();
                let Outcome::Registered(sa) = join(&mut cluster, host, number) else { continue };
                registered += 1;
                for sender in &sa.sender_ids().unwrap().values {
                    for spi in sa.tek_keys().keys() {
                        let before = holders.insert((*spi, *sender), (host, number));
                        assert_eq!(before, None, "{sender} under {spi:08x}: {host} at {number}");
                    }
                }
            }
            _ => {}
        }
        cluster.run(seconds(random.below(40)));
    }
    assert!(cluster.now > at(1000) && registered > 5, "{registered} registrations");
}

/// A failure names its seed; `SEED=n cargo test -p gcks --test cluster_senders` plays it again.
#[test]
fn whatever_happens_no_identifier_is_given_twice() {
    let only: Option<u64> = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(1..=12, |seed| seed..=seed) {
        let result = std::panic::catch_unwind(|| play(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}
