//! A root server and its sub-servers, end to end: phase 1 between them, cluster-init,
//! cluster-update, members at each of them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::Duration;

use cluster::{Generation, Stage};
use gcks::group::Group;
use gcks::server::cluster::{ClusterEvent, GroupEvent};
use gcks::server::event::{Event, Refused};
use gdoi::group::GroupId;
use support::cluster::{Cluster, server};
use support::{CBC, Outcome, address, registration, seconds};

const ONE: GroupId = GroupId(1);

fn started(sub_servers: u8) -> Cluster {
    let mut cluster = Cluster::new(sub_servers, CBC, "");
    (1..=1 + sub_servers).for_each(|number| cluster.start(number));
    cluster.run(seconds(10));
    cluster
}

fn group(cluster: &mut Cluster, number: u8) -> &Group {
    cluster.server(number).groups().find(|group| group.id() == ONE).unwrap()
}

fn generation(cluster: &mut Cluster, number: u8) -> Generation {
    group(cluster, number).generation()
}

/// A member registers at a server, which writes its state whenever it has to.
fn join(cluster: &mut Cluster, member: u8, number: u8) -> Outcome {
    let config = registration(member, member, 1, address(member), server(number));
    let now = cluster.now;
    let machine = cluster.machines.get_mut(&number).unwrap();
    let outcome = machine.register(config, now);
    cluster.collect();
    outcome
}

fn spis(cluster: &mut Cluster, number: u8) -> Vec<u32> {
    group(cluster, number).teks().spis().collect()
}

#[test]
fn sub_servers_get_everything_in_any_order_of_starts() {
    for order in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
        let mut cluster = Cluster::new(2, CBC, "");
        for number in order {
            cluster.start(number);
            cluster.run(seconds(7));
        }
        cluster.run(seconds(10));
        let root = generation(&mut cluster, 1);
        assert!(root.version >= 1, "{order:?}");
        for number in [2, 3] {
            assert_eq!(generation(&mut cluster, number), root, "{order:?}");
            assert_eq!(spis(&mut cluster, number), spis(&mut cluster, 1));
            assert!(group(&mut cluster, number).rekey_sa().unwrap().is_relaying());
        }
    }
}

#[test]
fn members_have_the_same_keys_whichever_server_they_register_at() {
    let mut cluster = started(2);
    let one = join(&mut cluster, 1, 2).group_sa();
    let two = join(&mut cluster, 2, 3).group_sa();
    assert_eq!(one.tek_keys(), two.tek_keys());
    assert_eq!(one.kek_keys().unwrap().algorithm_key, two.kek_keys().unwrap().algorithm_key);
    assert_eq!(
        one.kek_keys().unwrap().signature_key,
        two.kek_keys().unwrap().signature_key,
        "pushes of the root are verified by both"
    );
}

#[test]
fn sub_servers_relay_the_very_octets_of_the_root() {
    let mut cluster = started(2);
    join(&mut cluster, 1, 2).group_sa();
    join(&mut cluster, 2, 3).group_sa();
    let since = cluster.now;
    cluster.server(1).rekey("one", since).unwrap();
    cluster.run(seconds(1));
    let sealed = group(&mut cluster, 1).rekey_sa().unwrap().kek().unwrap().last().unwrap();
    let octets = sealed.datagram().to_vec();
    for (number, member) in [(2, 1), (3, 2)] {
        let pushed: Vec<_> = cluster.pushed(number, since).into_iter().collect();
        assert_eq!(pushed, [(address(member), octets.clone())]);
    }
    assert_eq!(cluster.pushed(1, since).len(), 0, "the root has no members of its own");
    assert_eq!(generation(&mut cluster, 2), generation(&mut cluster, 1));
}

/// Invariant: nobody sends on a key that a member of another server cannot receive on yet.
#[test]
fn no_push_leaves_before_all_active_sub_servers_hold_the_keys() {
    let mut cluster = started(2);
    join(&mut cluster, 1, 2).group_sa();
    join(&mut cluster, 2, 3).group_sa();
    let since = cluster.now;
    // The third server hears nothing for 25 seconds.
    cluster.cut.insert((1, 3));
    cluster.server(1).rekey("one", since).unwrap();
    cluster.run(seconds(25));
    assert!(cluster.pushes.is_empty());
    let root = generation(&mut cluster, 1);
    assert_eq!(group(&mut cluster, 2).prepared().unwrap().generation, root);
    assert!(generation(&mut cluster, 2) < root);
    cluster.cut.clear();
    cluster.run(seconds(11));
    assert_eq!((cluster.pushed(2, since).len(), cluster.pushed(3, since).len()), (1, 1));
    let times: Vec<_> = [2, 3]
        .map(|number| cluster.pushes.iter().find(|(by, ..)| *by == number).unwrap().1)
        .to_vec();
    let apart = times[0].max(times[1]).saturating_since(times[0].min(times[1]));
    assert!(apart < Duration::from_millis(50), "{apart:?}");
}

#[test]
fn a_dead_sub_server_is_not_waited_for_and_catches_up() {
    let mut cluster = started(2);
    join(&mut cluster, 1, 2).group_sa();
    join(&mut cluster, 2, 3).group_sa();
    cluster.kill(3);
    let since = cluster.now;
    cluster.server(1).rekey("one", since).unwrap();
    cluster.run(seconds(75));
    assert_eq!(cluster.pushed(2, since).len(), 1);
    let side = cluster.server(1).cluster().root(ONE).unwrap();
    assert_eq!(side.stage(), Stage::Committed);
    // From its disk: its members are still registered, and get what they have missed.
    let since = cluster.now;
    cluster.start(3);
    cluster.run(seconds(20));
    assert_eq!(generation(&mut cluster, 3), generation(&mut cluster, 1));
    assert_eq!(group(&mut cluster, 3).registry().len(), 1);
    let sealed = group(&mut cluster, 1).rekey_sa().unwrap().kek().unwrap().last().unwrap();
    let octets = sealed.datagram().to_vec();
    assert!(cluster.pushed(3, since).contains(&(address(2), octets)));
}

#[test]
fn a_lost_root_changes_nothing_for_members_and_new_ones_are_not_answered() {
    let mut cluster = started(2);
    join(&mut cluster, 1, 2).group_sa();
    cluster.kill(1);
    cluster.run(seconds(120));
    assert!(!cluster.server(2).cluster().sub_server(ONE).unwrap().answers_new_members());
    assert_eq!(group(&mut cluster, 2).registry().len(), 1);
    assert!(cluster.pushes.is_empty(), "nobody is told to delete anything");
    let refused = join(&mut cluster, 2, 2);
    assert!(matches!(refused, Outcome::Failed(_)));
    let events = std::mem::take(&mut cluster.machines.get_mut(&2).unwrap().events);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Refused { reason: Refused::RootInactive, .. }))
    );
    // One that is registered pulls again.
    join(&mut cluster, 1, 2).group_sa();
    cluster.start(1);
    cluster.run(seconds(20));
    join(&mut cluster, 2, 2).group_sa();
}

#[test]
fn keys_that_end_without_news_take_the_members_with_them() {
    let mut cluster = started(1);
    join(&mut cluster, 1, 2).group_sa();
    cluster.kill(1);
    cluster.run(seconds(3500));
    assert_eq!(group(&mut cluster, 2).registry().len(), 1);
    cluster.run(seconds(200));
    assert_eq!(group(&mut cluster, 2).registry().len(), 0);
    assert!(cluster.pushes.is_empty());
    let events = &cluster.machines[&2].events;
    let ended = events.iter().filter(|event| {
        matches!(
            event,
            Event::Cluster {
                event: ClusterEvent::Group { event: GroupEvent::KeysEnded { .. }, .. },
                ..
            }
        )
    });
    assert_eq!(ended.count(), 2, "of both groups");
}

/// Killed with the push sealed and not yet distributed: whatever was written is taken up again.
#[test]
fn a_root_that_is_killed_during_a_rekey_finishes_it_when_it_is_back() {
    for cut_at in [0, 1, 2, 3, 4] {
        let mut cluster = started(2);
        join(&mut cluster, 1, 2).group_sa();
        join(&mut cluster, 2, 3).group_sa();
        let before = generation(&mut cluster, 1);
        let since = cluster.now;
        cluster.server(1).rekey("one", since).unwrap();
        cluster.run(Duration::from_millis(5 * cut_at + 1));
        cluster.kill(1);
        cluster.run(seconds(20));
        cluster.start(1);
        cluster.run(seconds(120));
        let root = generation(&mut cluster, 1);
        assert!(root > before, "{cut_at}");
        assert_eq!(generation(&mut cluster, 2), root, "{cut_at}");
        assert_eq!(generation(&mut cluster, 3), root, "{cut_at}");
        assert_eq!(spis(&mut cluster, 2), spis(&mut cluster, 1), "{cut_at}");
        let pushed = [cluster.pushed(2, since), cluster.pushed(3, since)];
        let octets = pushed.clone().map(|all| {
            all.into_iter().map(|(_, octets)| octets).collect::<std::collections::BTreeSet<_>>()
        });
        assert_eq!(octets[0], octets[1], "both relay the same, {cut_at}");
        assert!(!octets[0].is_empty(), "{cut_at}");
    }
}

#[test]
fn a_scheduled_push_comes_early_enough_for_all_servers() {
    let mut cluster = started(2);
    join(&mut cluster, 1, 2).group_sa();
    let since = cluster.now;
    cluster.run(seconds(3600));
    let pushed = cluster.pushed(2, since);
    assert_eq!(pushed.len(), 1);
    assert_eq!(group(&mut cluster, 2).registry().len(), 1);
}

/// They get no push: the others go on with the keys that they have, until they have come to another
/// server of their list, within their own margin before the end.
#[test]
fn members_of_a_dead_sub_server_have_time_to_go_down_their_list() {
    let mut cluster = started(2);
    join(&mut cluster, 1, 2).group_sa();
    join(&mut cluster, 2, 3).group_sa();
    let end = support::at(4600);
    cluster.kill(3);
    let since = cluster.now;
    let until = end.saturating_since(cluster.now) - seconds(170);
    cluster.run(until);
    assert_eq!(cluster.pushed(2, since).len(), 0, "usually it would have come by now");
    join(&mut cluster, 2, 2).group_sa();
    cluster.run(seconds(90));
    let told: Vec<_> = cluster.pushed(2, since).into_iter().map(|(to, _)| to).collect();
    assert_eq!(told, [address(1), address(2)], "both switch together");
    let first = cluster.pushes.iter().map(|(_, at, _)| *at).min().unwrap();
    let before = end.saturating_since(first).as_secs();
    assert!((85..=90).contains(&before), "half of the members' margin, {before} s");
}

#[test]
fn a_member_is_removed_by_the_root_wherever_it_is_registered() {
    let mut cluster = started(2);
    join(&mut cluster, 1, 2).group_sa();
    join(&mut cluster, 2, 3).group_sa();
    let now = cluster.now;
    let refused = cluster.server(2).remove("one", "g2", now).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the keys of group one are made by its root server; give the command there"
    );
    cluster.server(1).remove("one", "g2", now).unwrap();
    cluster.run(seconds(2));
    assert_eq!((cluster.pushed(2, now).len(), cluster.pushed(3, now).len()), (1, 1));
    assert_eq!(group(&mut cluster, 2).registry().len(), 0, "all register again");
    join(&mut cluster, 1, 3).group_sa();
    for number in [2, 3] {
        assert!(matches!(join(&mut cluster, 2, number), Outcome::Failed(_)));
    }
}

#[test]
fn one_more_member_than_the_threshold_gets_no_answer() {
    let mut cluster = Cluster::new(2, CBC, "");
    for machine in cluster.machines.values_mut() {
        machine.replace("id = 1\n", "id = 1\nmember-threshold = 1\n");
    }
    (1..=3).for_each(|number| cluster.start(number));
    cluster.run(seconds(10));
    join(&mut cluster, 1, 2).group_sa();
    assert!(matches!(join(&mut cluster, 2, 2), Outcome::Failed(_)));
    join(&mut cluster, 2, 3).group_sa();
    join(&mut cluster, 1, 2).group_sa();
    assert_eq!(group(&mut cluster, 2).pull_counters().over_threshold, 1);
}

#[test]
fn differences_are_named_on_both_sides_and_the_roots_policy_is_served() {
    let mut cluster = Cluster::new(1, CBC, "");
    cluster
        .machines
        .get_mut(&2)
        .unwrap()
        .replace("activation-time-delay = \"10s\"", "activation-time-delay = \"11s\"");
    cluster.start(1);
    cluster.start(2);
    cluster.run(seconds(10));
    for number in [1, 2] {
        let events = &cluster.machines[&number].events;
        let named: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Cluster {
                    event: ClusterEvent::Group { group, event: GroupEvent::Differs(one) },
                    ..
                } if **group == *"one" => Some((one.name.as_str(), &*one.root, &*one.sub_server)),
                _ => None,
            })
            .collect();
        assert_eq!(named, [("gap.activation-time-delay", "10s", "11s")], "{number}");
    }
    let sa = join(&mut cluster, 1, 2).group_sa();
    assert_eq!(sa.policy().gap.activation_time_delay, Some(seconds(10)));
}

/// TEKs that a member gets that registers.
fn pulled(cluster: &mut Cluster, member: u8, number: u8) -> Vec<u32> {
    join(cluster, member, number).group_sa().tek_keys().keys().copied().collect()
}

/// SPIs of the TEKs that are distributed now.
fn current(cluster: &mut Cluster, number: u8) -> Vec<u32> {
    let slots = group(cluster, number).teks().slots().iter();
    slots.filter_map(|slot| Some(slot.current.as_ref()?.lifetime.spi)).collect()
}

/// The activation delay of the last rekey is over when it is killed, and nothing was written since:
/// nobody sends on the TEK before any more, and soon nobody receives on it.
#[test]
fn a_root_that_comes_back_does_not_give_out_the_tek_before() {
    for away in [3, 60] {
        let mut cluster = started(2);
        join(&mut cluster, 1, 2).group_sa();
        join(&mut cluster, 2, 3).group_sa();
        let now = cluster.now;
        cluster.server(1).rekey("one", now).unwrap();
        cluster.run(seconds(15));
        let spis = current(&mut cluster, 1);
        cluster.kill(1);
        cluster.run(seconds(away));
        cluster.start(1);
        for second in 0..30 {
            for (member, number) in [(1, 2), (2, 3), (1, 1)] {
                let pulled = pulled(&mut cluster, member, number);
                assert_eq!(pulled, spis, "{second} s after {away} s, at {number}");
            }
            cluster.run(seconds(1));
        }
    }
}

/// Members send with the first TEK until they have the third: nobody was told of the second.
#[test]
fn a_rekey_that_takes_the_place_of_another_leaves_members_the_tek_that_they_have() {
    let mut cluster = started(2);
    join(&mut cluster, 1, 2).group_sa();
    let before = current(&mut cluster, 1);
    cluster.cut.insert((1, 3));
    for _ in 0..2 {
        let now = cluster.now;
        cluster.server(1).rekey("one", now).unwrap();
        cluster.run(seconds(5));
    }
    assert_eq!(pulled(&mut cluster, 2, 1), before, "at the root");
    cluster.cut.clear();
    while group(&mut cluster, 1).is_withheld() {
        cluster.run(seconds(1));
    }
    cluster.run(seconds(1));
    for number in [1, 2, 3] {
        assert_eq!(pulled(&mut cluster, 2, number), before, "within the activation delay");
    }
    cluster.run(seconds(11));
    let spis = current(&mut cluster, 1);
    assert_ne!(spis, before);
    for number in [1, 2, 3] {
        assert_eq!(pulled(&mut cluster, 2, number), spis);
    }
}

/// A change without a new TEK does not bring the one before back, however long it is waited for.
#[test]
fn a_change_that_waits_for_a_dead_sub_server_does_not_give_out_the_tek_before() {
    let mut cluster = started(2);
    join(&mut cluster, 1, 2).group_sa();
    let now = cluster.now;
    cluster.server(1).rekey("one", now).unwrap();
    cluster.run(seconds(2));
    let spis = current(&mut cluster, 1);
    cluster.kill(3);
    cluster.reload(1, "id = 1\n", "id = 1\nmember-threshold = 9\n");
    assert!(group(&mut cluster, 1).is_withheld());
    cluster.run(seconds(11));
    for second in 0..80 {
        for (member, number) in [(1, 2), (1, 1)] {
            assert_eq!(pulled(&mut cluster, member, number), spis, "{second} s, at {number}");
        }
        cluster.run(seconds(1));
    }
    assert!(!group(&mut cluster, 1).is_withheld());
}

/// It waits for no sub-server any more, and the TEK before is not held for its whole lifetime.
#[test]
fn a_root_that_comes_back_on_its_own_distributes_what_it_made_last() {
    let mut cluster = started(2);
    join(&mut cluster, 1, 1).group_sa();
    let before = current(&mut cluster, 1);
    cluster.cut.extend([(1, 2), (1, 3)]);
    let now = cluster.now;
    cluster.server(1).rekey("one", now).unwrap();
    cluster.run(seconds(5));
    assert!(group(&mut cluster, 1).is_withheld());
    cluster.kill(1);
    let root = "[group.cluster]\nrole = \"root-server\"\nservers = [\"ks2\", \"ks3\"]\n";
    let machine = cluster.machines.get_mut(&1).unwrap();
    (0..2).for_each(|_| machine.replace(root, ""));
    cluster.run(seconds(60));
    let since = cluster.now;
    cluster.start(1);
    cluster.run(seconds(1));
    assert!(!group(&mut cluster, 1).is_withheld());
    assert_eq!(pulled(&mut cluster, 2, 1), before, "within the activation delay");
    assert!(cluster.pushed(1, since).iter().any(|(to, _)| *to == address(1)));
    cluster.run(seconds(10));
    let spis = current(&mut cluster, 1);
    assert_ne!(spis, before);
    assert_eq!(pulled(&mut cluster, 2, 1), spis);
}
