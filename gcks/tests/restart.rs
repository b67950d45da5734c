//! Restarts with sealed state: members notice nothing, and no number is used twice.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use daemon::sealed::codec::Clock;
use gcks::config::Config;
use gcks::control::snapshot;
use gcks::group::event::Event as GroupEvent;
use gcks::group::key_generation::OsEntropy;
use gcks::group::signing_key::SigningKeys;
use gcks::server::KeyServer;
use gcks::server::event::Event;
use gcks::state::{Name, Records, Stored};
use gdoi::event::Transmit;
use ike::BootTime;
use ike::crypto::Secret;
use support::world::*;
use support::*;

/// A configuration that can be read again and again.
struct Configuration {
    text: String,
    _keys: tempfile::TempDir,
    signing: SigningKeys,
}

impl Configuration {
    fn new(tek: &str, settings: &str) -> Self {
        let directory = keys();
        let text = configuration_with(directory.path(), "", "10.0.0", tek, &pushes(settings));
        let signing = signing_keys(&parse(&text));
        Self { text, _keys: directory, signing }
    }

    fn config(&self) -> Config {
        parse(&self.text)
    }

    fn world(&self) -> World {
        World::new(KeyServer::new(self.config(), &self.signing, [1; 32], OsEntropy))
    }
}

/// There are as many different pushes under the KEK as it has numbers: none was used for two.
fn numbers_are_used_once(world: &World) {
    let kek = world.service.groups().next().unwrap().rekey_sa().unwrap().kek().unwrap();
    let under = |sent: &&Transmit| is_push(sent) && sent.payload[..16] == kek.spi();
    let different: BTreeSet<&[u8]> =
        world.sent.iter().filter(under).map(|sent| sent.payload.as_slice()).collect();
    assert!(kek.sequence_number() > 3);
    assert_eq!(different.len(), kek.sequence_number() as usize);
}

#[test]
fn members_notice_nothing_of_a_hundred_restarts() {
    for settings in ["", "lkh = true"] {
        let configuration = Configuration::new(CBC, settings);
        let mut world = configuration.world();
        world.join(1, 1);
        world.join(2, 1);
        world.join(3, 2);
        let mut pause = 977;
        for _ in 0..100 {
            pause = (pause * 7 + 13) % 4001;
            world.run(seconds(pause));
            world.restart(configuration.config(), &configuration.signing);
        }
        world.run(seconds(4000));
        assert_eq!(world.splits, []);
        assert!(world.nodes.iter().all(|node| node.pulls == 1 && node.unusable == 0), "{settings}");
        assert!(world.nodes.iter().all(|node| !node.errors.contains_key("stale-sequence-number")));
        assert_eq!(world.spis(1).len(), 1);
        numbers_are_used_once(&world);
        let shown = snapshot(&world.service, &[], at(0), world.now);
        assert_eq!((shown.groups[0].members, shown.groups[1].members), (2, 1));
        assert!(shown.members[0].acknowledgements > 40, "figures of members survive, too");
    }
}

#[test]
fn a_restart_at_every_moment_of_a_push_loses_nobody() {
    let configuration = Configuration::new(CBC, "");
    for offset in 0..60 {
        let mut world = configuration.world();
        world.join(1, 1);
        world.join(2, 1);
        world.run(seconds(3373));
        // The push of this second is lost to member 2, and what was on the way when the server
        // ended to all.
        let mut lost = 0;
        world.network = Box::new(move |sent| {
            lost += u32::from(is_push(sent) && sent.destination == address(2));
            if is_push(sent) && sent.destination == address(2) && lost == 1 {
                vec![]
            } else {
                vec![LATENCY]
            }
        });
        world.run(Duration::from_millis(offset * 100));
        world.restart(configuration.config(), &configuration.signing);
        world.run(seconds(40));
        assert_eq!(world.spis(1).len(), 1, "offset {offset}");
        assert!(
            world.nodes.iter().all(|node| node.accepted.len() == 1 && node.pulls == 1),
            "offset {offset}"
        );
        world.run(seconds(86_400));
        assert!(world.nodes.iter().all(|node| node.pulls == 1), "offset {offset}");
    }
}

#[test]
fn a_removed_member_stays_out_after_a_restart() {
    let configuration = Configuration::new(CBC, "lkh = true");
    let mut world = configuration.world();
    world.join(1, 1);
    world.join(2, 1);
    world.service.remove("one", "g2", world.now).unwrap();
    world.node(1).removed = true;
    world.restart(configuration.config(), &configuration.signing);
    world.run(seconds(30));
    world.pull(1);
    world.run(seconds(30));
    assert!(world.nodes[1].refused > 0 && world.nodes[1].pulls == 1);
    assert!(!world.nodes[1].receives(*world.spis(1).first().unwrap(), world.now));
    assert_eq!(world.nodes[0].pulls, 1);
}

#[test]
fn sender_identifiers_stay_taken() {
    let configuration = Configuration::new(GCM, "");
    let mut world = configuration.world();
    world.join(1, 1);
    world.join(2, 1);
    for round in 0..20 {
        world.restart(configuration.config(), &configuration.signing);
        world.pull(1);
        world.run(seconds(5));
        assert_eq!(world.nodes[1].senders.last(), Some(&(round + 2)));
    }
}

#[test]
fn groups_without_pushes_keep_their_keys_too() {
    let directory = keys();
    let text = configuration(directory.path(), "", "10.0.0", CBC);
    let mut world = World::new(start(parse(&text)));
    world.join(1, 1);
    world.run(seconds(100));
    world.restart(parse(&text), &SigningKeys::new());
    world.join(2, 1);
    assert_eq!(world.spis(1).len(), 1);
    assert_eq!(snapshot(&world.service, &[], at(0), world.now).groups[0].members, 2);
}

#[test]
fn another_signing_key_makes_members_register_again() {
    let configuration = Configuration::new(CBC, "");
    let mut world = configuration.world();
    world.join(1, 1);
    world.run(seconds(100));
    world.restart(configuration.config(), &signing_keys(&configuration.config()));
    world.run(seconds(4000));
    assert_eq!(world.nodes[0].pulls, 2, "once, because its KEK was deleted");
    world.run(seconds(86_400));
    assert_eq!(world.nodes[0].pulls, 2, "and it follows the pushes again");
    assert_eq!(world.splits, []);
}

/// Message 1 with an offer that a member has proved takes no memory: nobody who forges it keeps the
/// member out.
#[test]
fn offers_that_members_have_proved_are_known_after_a_restart() {
    let configuration = Configuration::new(CBC, "");
    let mut world = configuration.world();
    let half_open =
        |world: &World| snapshot(&world.service, &[], at(0), world.now).statistics.half_open;
    world.join(1, 1);
    let mut first = world.sent.iter().find(|sent| sent.payload[8..16] == [0; 8]).unwrap().clone();
    world.restart(configuration.config(), &configuration.signing);
    world.sent.clear();
    for (number, known) in [(1, true), (2, true), (3, false)] {
        first.payload[0] = number;
        if !known {
            let life = [0, 0, 0x0e, 0x10];
            let place = first.payload.windows(4).position(|octets| octets == life).unwrap();
            first.payload[place + 3] ^= 1;
        }
        world.service.handle_datagram(first.source, server(), &first.payload, world.now).unwrap();
        assert_eq!(half_open(&world) == 0, known);
        assert!(
            std::iter::from_fn(|| world.service.poll_transmit()).any(|sent| sent.payload[18] == 2)
        );
        world.service.saved();
    }
}

/// Its recipients are members no more when a delete is made: the registry cannot tell whom to send
/// it to.
#[test]
fn deletes_that_were_written_and_not_sent_are_sent_after_the_restart() {
    for (settings, removed) in [
        ("", None),
        ("retransmissions = 0\nacknowledgements = false", None),
        ("", Some("g2")),
        ("retransmissions = 0\nacknowledgements = false", Some("g2")),
    ] {
        let configuration = Configuration::new(CBC, settings);
        let mut world = configuration.world();
        world.join(1, 1);
        world.join(2, 1);
        let old = world.spis(1);
        let now = world.now;
        match removed {
            None => world.service.delete("one", now).unwrap(),
            Some(name) => world.service.remove("one", name, now).unwrap(),
        };
        // Twice: the second run has not sent it either.
        for _ in 0..2 {
            let state = Stored::Records(world.service.export());
            let (config, keys) = (configuration.config(), &configuration.signing);
            let clock = Clock::same(world.now);
            world.service =
                KeyServer::restore(config, keys, [7; 32], OsEntropy, (&state, clock), world.now)
                    .unwrap();
            world.service.keep_state();
        }
        world.run(seconds(30));
        let told = |node: &Node| {
            node.accepted.iter().any(|push| push.kek == gdoi::push::KekChange::Deleted)
        };
        assert!(world.nodes.iter().all(told), "{settings}");
        assert_eq!(
            world.nodes.iter().map(|node| node.pulls).collect::<Vec<_>>(),
            [2, 2 - removed.iter().count() as u64]
        );
        assert!(world.spis(1).is_disjoint(&old));
        // What was acknowledged, or sent to the end, is not sent once more.
        world.run(seconds(60));
        world.sent.clear();
        world.restart(configuration.config(), &configuration.signing);
        let pushes = world.sent.iter().filter(|sent| is_push(sent)).count();
        assert_eq!(
            pushes,
            2 - removed.iter().count(),
            "the delete to who is a member again: it does not know the KEK"
        );
    }
}

#[test]
fn a_group_or_member_that_went_while_the_server_was_down_is_told() {
    let without = |text: &str, from: &str, to: &str| {
        let start = text.find(from).unwrap();
        let end = text[start + 1..].find(to).map_or(text.len(), |end| start + 1 + end);
        format!("{}{}", &text[..start], &text[end..])
    };
    let told =
        |node: &Node| node.accepted.iter().any(|push| push.kek == gdoi::push::KekChange::Deleted);
    for settings in ["", "lkh = true"] {
        let configuration = Configuration::new(CBC, settings);
        let start = || {
            let mut world = configuration.world();
            for (number, group) in [(1, 1), (2, 1), (3, 2)] {
                world.join(number, group);
            }
            world
        };
        // The group of member 3, and with it the member.
        let mut world = start();
        let text = without(&configuration.text, "[[group]]\nname = \"two\"", "[[group]]");
        let text = without(&text, "[[member]]\nname = \"g3\"", "[[group]]");
        world.restart(parse(&text), &configuration.signing);
        world.run(seconds(5));
        assert!(told(&world.nodes[2]) && world.nodes[2].teks.is_empty());
        assert!(!told(&world.nodes[0]) && world.nodes[0].pulls == 1);
        let gone = "group two: id 2 removed: all keys are deleted: 1 member is told";
        let is_gone = |event: &Event| matches!(event, Event::ConfigurationChanged { change } if change.to_string().starts_with(gone));
        assert!(world.events.iter().any(is_gone), "{:?}", world.events);
        // Member 2 alone.
        let mut world = start();
        let text = without(&configuration.text, "[[member]]\nname = \"g2\"", "[[member]]");
        world.node(1).removed = true;
        world.restart(parse(&text), &configuration.signing);
        world.run(seconds(60));
        let lkh = !settings.is_empty();
        assert_eq!((told(&world.nodes[0]), told(&world.nodes[1])), (!lkh, !lkh));
        assert_eq!(world.nodes[0].pulls, if lkh { 1 } else { 2 });
        assert!(!world.nodes[1].receives(*world.spis(1).first().unwrap(), world.now));
        world.pull(1);
        world.run(seconds(60));
        assert_eq!(world.nodes[1].pulls, 1, "nobody knows it any more");
        // Another number.
        let mut world = start();
        world.restart(
            parse(&configuration.text.replace("id = 2\n", "id = 7\n")),
            &configuration.signing,
        );
        world.run(seconds(5));
        assert!(told(&world.nodes[2]) && !told(&world.nodes[0]));
        // No pushes any more.
        let mut world = start();
        let text = configuration.text.replace(&pushes(settings), "");
        world.restart(parse(&text), &SigningKeys::new());
        world.run(seconds(5));
        assert!(
            world.nodes.iter().all(|node| told(node) && node.pulls == 2 && node.rekey.is_none())
        );
        assert_eq!(world.splits, []);
    }
}

#[test]
fn lines_that_changed_while_the_server_was_down_are_replaced_by_a_push() {
    let configuration = Configuration::new(CBC, "");
    let mut world = configuration.world();
    world.join(1, 1);
    let old = world.spis(1);
    world.run(seconds(10));
    let changed =
        configuration.text.replace("source = \"172.16.0.0/12\"", "source = \"172.20.0.0/16\"");
    world.restart(parse(&changed), &configuration.signing);
    world.run(seconds(10));
    let push = world.nodes[0].accepted.last().unwrap();
    assert_eq!(push.deletions.len(), 1);
    assert!(world.spis(1).is_disjoint(&old) && world.nodes[0].teks.len() == 1);
}

#[test]
fn keys_age_over_a_reboot() {
    let configuration = Configuration::new(CBC, "");
    let mut world = configuration.world();
    world.join(1, 1);
    let written = world.now;
    let state = Stored::Records(world.service.export());
    let restore = |elapsed| {
        let clock = Clock { written, now: at(20), elapsed: seconds(elapsed), certain: None };
        let (config, keys) = (configuration.config(), &configuration.signing);
        let service =
            KeyServer::restore(config, keys, [3; 32], OsEntropy, (&state, clock), at(20)).unwrap();
        let shown = snapshot(&service, &[], at(0), at(20));
        let left = shown.groups[0].teks.first().map(|tek| tek.lifetime_left_seconds);
        (
            left,
            shown.groups[0].rekey.clone().unwrap().kek.map(|kek| kek.lifetime_left_seconds),
            shown.members.len(),
        )
    };
    assert_eq!(restore(600), (Some(2999), Some(85_799), 1));
    assert_eq!(restore(90_000).1, None, "the KEK has ended");
    assert_eq!(restore(90_000).2, 0, "and its members come by themselves");
}

/// A boot with a clock that is far ahead, two days here, is no reason to end keys that members
/// hold: if it is right nobody holds them, and the group comes together under the same keys.
#[test]
fn a_clock_far_ahead_ends_no_group() {
    let booted = |settings: &str, tek: &str, elapsed, certain| {
        let configuration = Configuration::new(tek, settings);
        let mut world = configuration.world();
        world.join(1, 1);
        world.join(2, 1);
        let before = world.spis(1);
        let state = Stored::Records(world.service.export());
        let (elapsed, certain) = (seconds(elapsed), Some(seconds(certain)));
        let clock = Clock { written: world.now, now: world.now, elapsed, certain };
        let (config, keys) = (configuration.config(), &configuration.signing);
        let (state, now) = ((&state, clock), world.now);
        world.service = KeyServer::restore(config, keys, [3; 32], OsEntropy, state, now).unwrap();
        world.service.keep_state();
        world.run(seconds(30));
        (world, before)
    };
    let warned = |world: &World| {
        let ahead =
            |event: &&Event| matches!(event, Event::Group { event: GroupEvent::AgeUnknown, .. });
        world.events.iter().filter(ahead).count()
    };
    for settings in ["", "lkh = true"] {
        let (mut world, before) = booted(settings, CBC, 2 * 86_400, 30);
        assert_eq!((warned(&world), world.spis(1) == before), (1, true));
        let shown = snapshot(&world.service, &[], at(0), world.now);
        // Both joined within a second; 30 s since this boot, and 30 s that passed here.
        let left = shown.groups[0].teks[0].lifetime_left_seconds;
        assert!((3538..=3540).contains(&left), "{left}");
        assert_eq!(shown.groups[0].members, 2);
        world.run(seconds(2 * 86_400));
        assert_eq!(world.splits, []);
        assert!(world.nodes.iter().all(|node| node.pulls == 1 && node.unusable == 0));
    }
    // What this boot alone has outlived has ended.
    assert_eq!(warned(&booted("", CBC, 2 * 86_400, 90_000).0), 0);
    // Under a KEK that is valid members are told of new keys.
    let (world, before) = booted("", CBC, 7_200, 30);
    assert_eq!((warned(&world), world.splits.as_slice()), (0, &[][..]));
    assert!(world.service.groups().next().unwrap().registry().len() == 2 && !before.is_empty());
}

/// Who has dropped a counter-mode TEK at its end must not get it once more: its counter would begin
/// again. Nobody knows how old those are that a clock behind leaves.
#[test]
fn counter_mode_teks_of_unknown_age_are_replaced_at_once() {
    for (elapsed, settings) in [(2 * 86_400, ""), (30, ""), (30, "lkh = true")] {
        let configuration = Configuration::new(GCM, settings);
        let mut world = configuration.world();
        world.join(1, 1);
        world.join(2, 1);
        let before = world.spis(1);
        let state = Stored::Records(world.service.export());
        let clock = Clock {
            written: world.now,
            now: world.now,
            elapsed: seconds(elapsed),
            certain: Some(seconds(30)),
        };
        let (config, keys) = (configuration.config(), &configuration.signing);
        let (state, now) = ((&state, clock), world.now);
        world.service = KeyServer::restore(config, keys, [3; 32], OsEntropy, state, now).unwrap();
        world.service.keep_state();
        world.run(seconds(60));
        let after = world.spis(1);
        assert!(after.is_disjoint(&before) && after.len() == 1, "{before:?} {after:?}");
        assert!(world.nodes.iter().all(|node| node.pulls == 1 && node.accepted.len() == 1));
    }
}

#[test]
fn records_of_another_version_or_cut_ones_are_refused() {
    let configuration = Configuration::new(GCM, "lkh = true");
    let mut world = configuration.world();
    world.join(1, 1);
    let state = world.service.export();
    let restore = |change: &dyn Fn(&Name, &[u8]) -> Vec<u8>| {
        let mut records = Records::default();
        for (name, value) in state.iter() {
            records.insert(name.clone(), Secret::new(change(name, value.expose())));
        }
        let (config, keys) = (configuration.config(), &configuration.signing);
        let stored = (&Stored::Records(records), Clock::same(at(1)));
        KeyServer::restore(config, keys, [3; 32], OsEntropy, stored, at(1)).map(|_| ())
    };
    restore(&|_, value| value.to_vec()).unwrap();
    let offer = [0, 2];
    for (name, value) in state.iter().filter(|(name, _)| !name.octets().starts_with(&offer)) {
        for length in 0..value.len() {
            let cut = |other: &Name, value: &[u8]| match other == name {
                true => value[..length].to_vec(),
                false => value.to_vec(),
            };
            assert!(restore(&cut).is_err(), "{name:?} {length}");
        }
    }
    let version = |name: &Name, value: &[u8]| match name.octets() {
        [0, 0] => vec![99],
        _ => value.to_vec(),
    };
    assert!(restore(&version).is_err());
}

/// A server is updated: it goes on with what version 5 of the state had.
#[test]
fn a_state_of_version_5_is_taken_over() {
    let configuration = Configuration::new(GCM, "lkh = true");
    let octets = include_bytes!("data/state-5");
    let now = BootTime::new(Duration::from_millis(1_041_200));
    let restore = |octets: &[u8]| {
        let stored = Stored::Version5(Secret::copy_from(octets));
        let (config, keys) = (configuration.config(), &configuration.signing);
        let stored = (&stored, Clock::same(now));
        KeyServer::restore(config, keys, [3; 32], OsEntropy, stored, now)
    };
    let mut world = World::new(restore(octets).unwrap());
    let shown = snapshot(&world.service, &[], at(0), now);
    let group = &shown.groups[0];
    let spis: BTreeSet<u32> = group.teks.iter().map(|tek| tek.spi).collect();
    assert_eq!(spis, BTreeSet::from([1_432_220_995, 4_249_705_638]));
    let rekey = group.rekey.clone().unwrap();
    assert_eq!(rekey.removed, ["g1"]);
    world.now = now;
    world.settle();
    // The configuration has another signing key: its member is told under the KEK that it has.
    assert!(rekey.kek.is_none());
    let kek = 0x1f1f_dcc9_d54d_b79e_fbfb_5fc5_bef2_a7fd_u128.to_be_bytes();
    let told = |sent: &&Transmit| is_push(sent) && sent.payload.starts_with(&kek);
    assert!(world.sent.iter().filter(told).all(|sent| sent.destination == address(2)));
    assert_eq!(world.sent.iter().filter(told).count(), 1, "the delete in place of the last push");
    world.join(1, 1);
    world.join(2, 1);
    assert_eq!((world.nodes[0].refused, world.nodes[0].pulls), (1, 0), "it stays removed");
    assert_eq!(world.nodes[1].pulls, 1);
    for length in (0..octets.len()).step_by(7) {
        assert!(restore(&octets[..length]).is_err(), "{length}");
    }
}

#[test]
fn nothing_leaves_before_the_state_is_written() {
    let directory = keys();
    let config = parse(&configuration_with(directory.path(), "", "10.0.0", CBC, &pushes("")));
    let mut service = start(config);
    service.keep_state();
    service.saved();
    let mut member = gdoi::member::Registration::new(
        registration(1, 1, 1, address(1), server()),
        [9; 32],
        at(0),
    );
    let mut written = 0;
    for _ in 0..40 {
        while let Some(transmit) = member.poll_transmit() {
            service.handle_datagram(address(1), server(), &transmit.payload, at(0)).unwrap();
        }
        if service.is_unsaved() {
            assert!(service.poll_transmit().is_none(), "keys that nobody would remember");
            service.saved();
            written += 1;
        }
        while let Some(transmit) = service.poll_transmit() {
            member.handle_datagram(server(), &transmit.payload, at(0)).unwrap();
        }
        let _ = outcome(&mut member, at(0));
    }
    assert_eq!(written, 1, "for the registration with its keys and identifier");
    service.rekey("one", at(5)).unwrap();
    assert!(service.is_unsaved() && service.poll_transmit().is_none());
    service.saved();
    assert!(service.poll_transmit().is_some_and(|push| is_push(&push)));
}

/// A member that registered after the last push never answers to it.
#[test]
fn restarts_do_not_make_members_unresponsive() {
    let configuration = Configuration::new(CBC, "drop-unresponsive-members = true");
    let mut world = configuration.world();
    world.join(1, 1);
    world.run(seconds(3500));
    world.pull(0);
    for _ in 0..5 {
        world.run(seconds(60));
        world.restart(configuration.config(), &configuration.signing);
    }
    world.run(seconds(60));
    let shown = snapshot(&world.service, &[], at(0), world.now);
    assert_eq!((shown.members.len(), shown.members[0].unacknowledged_pushes), (1, 0));
}

/// Longer than all repetitions and the wait for acknowledgements take.
#[test]
fn a_push_waits_while_the_disk_is_full() {
    for settings in
        ["drop-unresponsive-members = true", "retransmissions = 0\nacknowledgements = false"]
    {
        let configuration = Configuration::new(CBC, settings);
        let mut world = configuration.world();
        world.join(1, 1);
        world.join(2, 1);
        world.run(seconds(60));
        let (sent, old) = (world.sent.len(), world.spis(1));
        world.full = true;
        let now = world.now;
        world.service.rekey("one", now).unwrap();
        world.run(seconds(300));
        assert_eq!(world.sent.len(), sent, "nothing leaves that is not written");
        world.full = false;
        world.run(seconds(15));
        assert!(world.nodes.iter().all(|node| node.accepted.len() == 1), "{settings}");
        assert!(world.spis(1).is_disjoint(&old), "who comes now gets what both were told");
        world.run(seconds(60));
        let shown = snapshot(&world.service, &[], at(0), world.now);
        assert!(
            shown.members.iter().all(|member| member.unacknowledged_pushes == 0),
            "nobody was silent"
        );
    }
}
