//! Pushes to members that really follow them: months on a virtual clock, and networks that lose,
//! repeat and reorder.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use gcks::control::snapshot;
use gcks::group::event::Event as GroupEvent;
use gdoi::group::Spi;
use support::world::*;
use support::*;

const DAY: u64 = 86_400;

/// A generator that is the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn group(world: &World) -> control::key_server::ServerGroup {
    snapshot(&world.service, &[], at(0), world.now).groups.remove(0)
}

#[test]
fn a_member_of_a_group_with_pushes_gets_a_kek() {
    let mut service = pushing(CBC, "");
    let sa = register_member(&mut service, 1, 1, at(100)).group_sa();
    let kek = sa.policy().kek.as_ref().unwrap();
    assert_eq!((kek.lifetime, sa.sequence_number()), (seconds(DAY), Some(0)));
    assert_eq!((kek.signature_algorithm, kek.acknowledgement), (4, Some(1)));
    assert_eq!(kek.destination, std::net::SocketAddr::from(([10, 0, 0, 1], 848)).into());
    let other = register_member(&mut service, 2, 1, at(200)).group_sa();
    assert_eq!(other.kek_keys(), sa.kek_keys(), "one KEK for the group");
    assert_eq!(other.policy().kek.as_ref().unwrap().lifetime, seconds(DAY - 100));
    let elsewhere = register_member(&mut service, 3, 2, at(200)).group_sa();
    assert_ne!(elsewhere.kek_keys(), sa.kek_keys());
}

#[test]
fn keys_roll_for_two_months_without_a_pull_and_without_a_split() {
    let mut world = World::new(pushing(CBC, ""));
    for number in 1..=2 {
        world.join(number, 1);
    }
    world.join(3, 2);
    let mut spis: BTreeSet<Spi> = BTreeSet::new();
    let (mut keks, mut last_spi) = (0, String::new());
    for _ in 0..60 * 24 {
        world.run(seconds(3600));
        let current = world.spis(1);
        assert_eq!(current.len(), 1, "{current:?}");
        spis.extend(current);
        let spi = group(&world).rekey.unwrap().kek.unwrap().spi;
        keks += u32::from(spi != last_spi);
        last_spi = spi;
    }
    assert_eq!(world.splits, []);
    assert!(
        world.nodes.iter().all(|node| node.pulls == 1 && node.unusable == 0),
        "nobody had to pull"
    );
    let shown = group(&world).rekey.unwrap();
    // One TEK in 3375 s, one KEK in 82,035 s.
    assert_eq!(shown.pushes, 60 * DAY / 3375 + 60 * DAY / 82_035, "{shown:?}");
    assert_eq!((shown.acknowledgements, shown.acknowledgements_missing), (2 * shown.pushes, 0));
    assert!(spis.len() > 1400 && keks >= 63, "{} {keks}", spis.len());
    let pushes = world.sent.iter().filter(|sent| is_push(sent) && sent.destination == address(1));
    assert_eq!(pushes.count() as u64, shown.pushes, "who has acknowledged gets no repetition");
}

#[test]
fn a_push_comes_in_time_and_says_when_the_next_comes() {
    let mut world = World::new(pushing(CBC, ""));
    let node = world.join(1, 1);
    assert_eq!(group(&world).rekey.unwrap().next_push_seconds, Some(3374));
    world.run(seconds(3370));
    assert!(world.nodes[node].accepted.is_empty());
    world.run(seconds(10));
    let sa = world.nodes[node].accepted[0].group_sa.as_ref().unwrap();
    assert_eq!(sa.policy().teks[0].protection.lifetime, seconds(3600));
    assert_eq!(sa.policy().gap.activation_time_delay, Some(seconds(10)));
    assert!(sa.policy().kek.is_none() && sa.sender_ids().is_none());
    let shown = snapshot(&world.service, &[], at(0), world.now);
    assert_eq!((shown.members[0].acknowledgements, shown.members[0].unacknowledged_pushes), (1, 0));
    assert_eq!(
        shown.groups[0].teks.iter().map(|tek| tek.current).collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn nobody_is_pushed_to_and_keys_end_where_nobody_is() {
    let mut world = World::new(pushing(CBC, ""));
    world.run(seconds(10 * DAY));
    assert!(world.sent.is_empty() && world.service.poll_timeout().is_none());
}

#[test]
fn multicast_goes_once_to_all() {
    let multicast = "transport = \"multicast\"\nmulticast-address = \"239.1.1.1\"\nmulticast-source = \"10.0.9.1\"\nretransmissions = 1";
    let mut world = World::new(pushing(CBC, multicast));
    for number in 1..=2 {
        world.join(number, 1);
    }
    world.run(seconds(7 * DAY));
    assert_eq!(world.splits, []);
    assert!(world.nodes.iter().all(|node| node.pulls == 1));
    let shown = group(&world).rekey.unwrap();
    assert_eq!(shown.acknowledgements, 2 * shown.pushes);
    assert_eq!(shown.transport, "multicast to 239.1.1.1:848");
    let pushes: Vec<_> = world.sent.iter().filter(|sent| is_push(sent)).collect();
    assert!(pushes.iter().all(
        |push| push.destination == "239.1.1.1:848".parse().unwrap() && push.source == server()
    ));
    // Both had acknowledged before the repetition was due.
    assert_eq!(pushes.len() as u64, shown.pushes);
}

#[test]
fn every_repetition_has_the_same_octets() {
    let mut world = World::new(pushing(CBC, "retransmissions = 3\nretransmission-period = \"5s\""));
    world.join(1, 1);
    // Acknowledgements are lost, so that everything is repeated.
    world.network = Box::new(|sent| if sent.payload[18] == 35 { vec![] } else { vec![LATENCY] });
    world.run(seconds(3500));
    let pushes: Vec<_> = world.sent.iter().filter(|sent| is_push(sent)).collect();
    assert_eq!(pushes.len(), 4);
    assert!(pushes.iter().all(|push| **push == *pushes[0]));
    assert_eq!(world.nodes[0].accepted.len(), 1, "it was carried out once");
    let shown = group(&world).rekey.unwrap();
    assert_eq!(
        (shown.acknowledgements, shown.acknowledgements_missing, shown.members_unresponsive),
        (0, 1, 1)
    );
}

#[test]
fn a_network_that_loses_repeats_and_reorders() {
    for seed in 1..=4_u64 {
        // Activation waits for all five transmissions and the longest delay.
        let tail = pushes("retransmissions = 4\nretransmission-period = \"4s\"");
        let tail = tail.replace("\"10s\"", "\"20s\"").replace("\"30s\"", "\"60s\"");
        let directory = keys();
        let mut world = World::new(start(parse(&configuration_with(
            directory.path(),
            "",
            "10.0.0",
            CBC,
            &tail,
        ))));
        let mut dice = Dice(seed);
        for number in 1..=2 {
            world.join(number, 1);
        }
        world.network = Box::new(move |_| {
            let copies = match dice.below(10) {
                0..3 => 0,
                3..9 => 1,
                _ => 2,
            };
            (0..copies).map(|_| Duration::from_millis(10 + dice.below(3000))).collect()
        });
        // A push that is lost five times over is made good by a pull within the margin: such a
        // split is short.
        for _ in 0..7 * 24 {
            world.run(seconds(3600));
            let without: Vec<_> =
                world.nodes.iter().filter(|node| node.sending(world.now).is_none()).collect();
            assert!(
                without.is_empty(),
                "seed {seed}, {:?}: {without:?} {:?}",
                world.now,
                group(&world)
            );
        }
        let shown = group(&world).rekey.unwrap();
        assert!(shown.pushes >= 170, "{shown:?}");
        let split: BTreeSet<_> = world.splits.iter().map(|(_, _, _, spi)| spi).collect();
        assert!(split.len() as u64 <= shown.pushes / 40, "{} of {}", split.len(), shown.pushes);
        world.network = Box::new(|_| vec![LATENCY]);
        world.run(seconds(2 * 3600));
        assert_eq!(world.spis(1).len(), 1, "in the end all are together");
    }
}

#[test]
fn who_joins_or_pulls_around_a_push_splits_nothing() {
    // Every second from before the push until after the deactivation delay, one member joins and
    // another pulls again.
    for offset in 0..45 {
        let mut world = World::new(pushing(CBC, ""));
        world.join(1, 1);
        world.join(2, 1);
        world.run(seconds(3370 - 2 + offset));
        let late = world.join(2, 1);
        world.pull(0);
        world.run(seconds(60));
        assert_eq!(world.splits, [], "offset {offset}");
        assert_eq!(world.spis(1).len(), 1, "offset {offset}");
        assert_eq!(world.nodes[late].pulls, 1);
        world.run(seconds(2 * DAY));
        assert_eq!(world.splits, [], "offset {offset}");
        assert_eq!(world.spis(1).len(), 1);
    }
}

#[test]
fn a_push_during_a_pull_reaches_the_member_afterwards() {
    for (lifetime, settings) in
        [("1h", ""), ("30d", "lifetime = \"1h\""), ("30d", "lifetime = \"1h\"\nlkh = true")]
    {
        let mut world = World::new(pushing(&format!("{CBC}\nlifetime = \"{lifetime}\""), settings));
        world.join(1, 1);
        world.run(seconds(3374) - Duration::from_millis(900));
        // The answers to this one take so long that the push is made between message 1 and message
        // 3.
        world.network = Box::new(|sent| {
            let slow = sent.payload[18] == 32 && sent.destination == address(2);
            vec![if slow { Duration::from_millis(700) } else { Duration::from_millis(200) }]
        });
        world.join(2, 1);
        world.run(seconds(60));
        // Who has no leaf yet when the hierarchy moves on cannot follow, and pulls once more: a
        // leaf is given with message 4 only (RFC 6407 §7.2.5).
        let pulls = if settings.contains("lkh") { 2 } else { 1 };
        assert_eq!(world.nodes[1].pulls, pulls);
        assert!(
            pulls == 2 || !world.nodes[1].accepted.is_empty(),
            "{settings}: the push came after the keys"
        );
        assert_eq!(world.spis(1).len(), 1, "{settings}");
        let spi = |node: usize| world.nodes[node].rekey.as_ref().unwrap().policy().unwrap().spi;
        assert_eq!(spi(0), spi(1), "{settings}: both have the same KEK");
        world.run(seconds(2 * DAY));
        assert_eq!(world.spis(1).len(), 1);
        assert_eq!((world.nodes[0].pulls, world.nodes[1].pulls), (1, pulls), "{settings}");
    }
}

#[test]
fn unresponsive_members_are_dropped_where_that_is_wanted() {
    for wanted in [true, false] {
        let mut world = World::new(pushing(CBC, &format!("drop-unresponsive-members = {wanted}")));
        world.join(1, 1);
        world.join(2, 1);
        world.run(seconds(3500));
        assert_eq!(group(&world).rekey.unwrap().acknowledgements, 2);
        // Member 2 is off from here on.
        world.node(1).alive = false;
        world.network =
            Box::new(|sent| match [sent.source, sent.destination].contains(&address(2)) {
                true => vec![],
                false => vec![LATENCY],
            });
        world.run(seconds(2 * 3375 + 100));
        assert_eq!(
            snapshot(&world.service, &[], at(0), world.now).members[1].unacknowledged_pushes,
            2
        );
        world.run(seconds(3375));
        let shown = group(&world);
        assert_eq!(shown.members, if wanted { 1 } else { 2 });
        let rekey = shown.rekey.unwrap();
        assert_eq!((rekey.members_dropped, rekey.acknowledgements_missing), (u64::from(wanted), 3));
        assert_eq!(
            world.group_events().any(|event| matches!(event, GroupEvent::Dropped { .. })),
            wanted
        );
        // It comes back by a pull.
        world.network = Box::new(|_| vec![LATENCY]);
        world.node(1).alive = true;
        world.pull(1);
        world.run(seconds(4000));
        assert_eq!(group(&world).members, 2);
        assert_eq!(world.spis(1).len(), 1);
    }
}

/// However many are unresponsive, a push is one line in the log.
#[test]
fn one_event_tells_all_who_have_not_acknowledged_a_push() {
    let mut world = World::new(pushing(CBC, "drop-unresponsive-members = true"));
    world.join(1, 1);
    world.join(2, 1);
    world.service.rekey("one", world.now).unwrap();
    world.run(seconds(60));
    world.network = Box::new(|sent| if sent.payload[18] == 35 { vec![] } else { vec![LATENCY] });
    for in_a_row in 1..=3 {
        world.events.clear();
        world.service.rekey("one", world.now).unwrap();
        world.run(seconds(120));
        let told: Vec<(u64, usize, String)> = world
            .group_events()
            .filter_map(|event| match event {
                GroupEvent::Unacknowledged { members, most_in_a_row } => {
                    Some((*most_in_a_row, members.count, members.to_string()))
                }
                GroupEvent::Dropped { members } => Some((0, members.count, members.to_string())),
                _ => None,
            })
            .collect();
        let most = if in_a_row == 3 { 0 } else { in_a_row };
        assert_eq!(told, [(most, 2, String::from("g1, g2"))]);
    }
}

#[test]
fn a_member_that_never_acknowledged_is_not_dropped() {
    let mut world = World::new(pushing(CBC, "drop-unresponsive-members = true"));
    world.join(1, 1);
    world.network = Box::new(|sent| if sent.payload[18] == 35 { vec![] } else { vec![LATENCY] });
    world.run(seconds(DAY));
    assert_eq!((group(&world).members, world.nodes[0].pulls), (1, 1));
    assert!(group(&world).rekey.unwrap().acknowledgements_missing > 20);
}

/// Acknowledgements are on their way for three seconds, and every second another push takes the
/// place of the one before.
#[test]
fn acknowledgements_that_come_after_the_next_push_or_a_new_kek_count() {
    const ACKNOWLEDGEMENT: u8 = 35;
    for settings in ["", "lkh = true"] {
        let mut world = World::new(pushing(CBC, settings));
        world.join(1, 1);
        world.join(2, 1);
        world.network = Box::new(|sent| match sent.payload[18] {
            ACKNOWLEDGEMENT => vec![seconds(3)],
            _ => vec![LATENCY],
        });
        // The KEK is replaced 4365 s before its end, by the schedule: amid the orders that follow.
        world.run(seconds(DAY - 4365 - 15));
        let first = group(&world).rekey.unwrap().kek.unwrap().spi;
        for _ in 0..30 {
            world.service.rekey("one", world.now).unwrap();
            world.run(seconds(1));
        }
        world.run(seconds(60));
        let rekey = group(&world).rekey.unwrap();
        assert_ne!(rekey.kek.unwrap().spi, first);
        assert_eq!(
            (rekey.acknowledgements, rekey.acknowledgements_missing),
            (rekey.pushes * 2, 0),
            "{settings}"
        );
        assert_eq!(world.service.statistics().discards.get("unexpected-acknowledgement"), None);
    }
}

#[test]
fn pushes_without_acknowledgements() {
    let mut world = World::new(pushing(CBC, "acknowledgements = false"));
    world.join(1, 1);
    world.run(seconds(DAY));
    let shown = group(&world).rekey.unwrap();
    assert_eq!((shown.acknowledgements, shown.acknowledgements_missing), (0, 0));
    let pushes = world.sent.iter().filter(|sent| is_push(sent)).count() as u64;
    assert_eq!(pushes, 3 * shown.pushes, "every push is sent three times");
    assert!(world.nodes[0].pulls == 1 && world.splits.is_empty());
}

#[test]
fn forged_and_old_pushes_change_nothing() {
    let mut world = World::new(pushing(CBC, ""));
    world.join(1, 1);
    world.run(seconds(2 * 3375 + 100));
    let pushes: Vec<_> = world.sent.iter().filter(|sent| is_push(sent)).cloned().collect();
    let before = (world.spis(1), world.nodes[0].accepted.len());
    let mut wrong = pushes[1].clone();
    // In the middle of what is signed: a copy with another signature is a copy.
    let middle = wrong.payload.len() / 2;
    wrong.payload[middle] ^= 1;
    for forged in [pushes[0].clone(), wrong] {
        world.inject(forged, LATENCY);
        world.run(seconds(1));
    }
    assert_eq!((world.spis(1), world.nodes[0].accepted.len()), before);
    assert_eq!(world.nodes[0].errors.values().sum::<u64>(), 2, "{:?}", world.nodes[0].errors);
}

#[test]
fn members_keep_their_sender_identifiers_through_pushes() {
    let mut world = World::new(pushing(GCM, ""));
    world.join(1, 1);
    world.join(2, 1);
    world.run(seconds(3 * DAY));
    assert_eq!(
        (world.nodes[0].senders.as_slice(), world.nodes[1].senders.as_slice()),
        (&[0][..], &[1][..])
    );
    // A member that restarted gets another one, and nobody ever the one of a member that is there.
    for _ in 0..300 {
        world.pull(1);
        world.run(seconds(100));
    }
    let taken: BTreeSet<u64> = world.nodes[1].senders.iter().copied().collect();
    assert_eq!(taken.len(), 301);
    assert!(!taken.contains(&0));
    assert_eq!(world.spis(1).len(), 1);
}

#[test]
fn sender_identifiers_that_are_used_up_begin_anew_with_new_keys() {
    let text = |service: &str| format!("{service}\nlifetime = \"30d\"");
    let directory = keys();
    let text = configuration_with(directory.path(), "", "10.0.0", &text(GCM), &pushes(""));
    let text = text.replace("id = 1\n", "id = 1\nsender-id-bits = 8\n");
    // So many that none of them takes more than its share.
    let mut members = String::new();
    for number in 4..=22 {
        let path = directory.path().join(format!("k{number}"));
        write(&path, &key(number), 0o600);
        members += &format!(
            "[[member]]\nname = \"g{number}\"\naddress = \"10.0.0.{number}\"\n\
             pre-shared-key-file = \"{}\"\ngroups = [\"one\"]\n",
            path.display()
        );
    }
    let text = text.replacen("[[group]]", &format!("{members}[[group]]"), 1);
    let mut world = World::new(start(parse(&text)));
    world.join(1, 1);
    world.join(2, 1);
    for number in 4..=22 {
        world.join(number, 1);
    }
    let taken = |world: &World| world.nodes.iter().map(|node| node.senders.len()).sum::<usize>();
    let mut before = 0;
    let mut used: BTreeSet<(Spi, u64)> = BTreeSet::new();
    for round in 0..600 {
        let place = 1 + round % 20;
        world.pull(place);
        world.run(seconds(20));
        if world.group_events().any(|event| matches!(event, GroupEvent::Reinitialized)) {
            world.run(seconds(10));
            // 256 identifiers of the old keys, and one for each member of the new ones.
            assert_eq!(taken(&world) - before, 256 + world.nodes.len());
            before = taken(&world) - world.nodes.len();
            world.events.clear();
            assert_eq!(world.nodes[0].senders.len(), world.nodes[0].pulls as usize);
            continue;
        }
        let sender = *world.nodes[place].senders.last().unwrap();
        assert!(
            used.insert((world.nodes[place].sending(world.now).unwrap(), sender)),
            "round {round}: {sender} twice"
        );
    }
    let sender = |node: usize| *world.nodes[node].senders.last().unwrap();
    assert_ne!(sender(0), sender(1));
    assert!(world.nodes[0].pulls >= 2, "the other member had to pull, too");
    assert_eq!(world.spis(1).len(), 1);
}

/// Message 4 of a pull around a push is lost, and with it the push that follows it.
#[test]
fn a_lost_message_4_costs_nobody_the_push() {
    let mut world = World::new(pushing(CBC, "retransmissions = 0"));
    world.join(1, 1);
    world.run(seconds(60));
    world.service.rekey("one", world.now).unwrap();
    world.settle();
    world.run(seconds(1));
    let mut lost = false;
    world.network = Box::new(move |sent| {
        // Message 4 is the second of the pull that the server sends; what follows at once is the
        // push.
        let late = sent.destination == address(2)
            && matches!(sent.payload[18], 32 | 33)
            && sent.payload.len() > 300;
        let loses = late && !lost;
        lost |= sent.payload[18] == 33 && sent.destination == address(2);
        if loses { vec![] } else { vec![LATENCY] }
    });
    world.join(2, 1);
    world.run(seconds(40));
    assert_eq!(world.nodes[1].pulls, 1);
    assert_eq!(world.spis(1).len(), 1);
}
