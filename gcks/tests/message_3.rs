//! A pull changes nothing of a group before its message 3 is valid (RFC 6407 §3.2, §7.2.5), and one
//! member cannot use up what all need.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use gcks::group::event::Event as GroupEvent;
use gcks::group::key_generation::OsEntropy;
use gcks::server::KeyServer;
use gcks::server::event::Event;
use gdoi::event::{RegistrationEvent, RegistrationFailure};
use gdoi::member::Registration;
use ike::config::RetransmissionPolicy;
use support::world::server;
use support::*;

fn begin(service: &mut KeyServer<OsEntropy>, number: u8) -> Registration {
    let config = registration(number, number, 1, address(number), server());
    let mut member = Registration::new(config, [number; 32], at(1000));
    for _ in 0..3 {
        step(service, number, &mut member);
    }
    member
}

/// One message there and one back.
fn step(service: &mut KeyServer<OsEntropy>, number: u8, member: &mut Registration) {
    let sent = member.poll_transmit().unwrap();
    service.handle_datagram(address(number), server(), &sent.payload, at(1000)).unwrap();
    let answer = service.poll_transmit().unwrap();
    member.handle_datagram(server(), &answer.payload, at(1000)).unwrap();
}

#[test]
fn message_1_changes_no_state_of_the_group() {
    for settings in [pushes("lkh = true"), pushes(""), String::new()] {
        let keys = keys();
        let text = configuration_with(keys.path(), "", "10.0.0", GCM, &settings);
        let mut service = start(parse(&text));
        let mut member = begin(&mut service, 1);
        let before = service.export();
        step(&mut service, 1, &mut member);
        assert!(service.export() == before, "after message 1 alone");
        let group = service.groups().next().unwrap();
        assert_eq!(group.teks().spis().count(), 0);
        // Another member is faster: both get the same keys.
        let second = register_member(&mut service, 2, 1, at(1000)).group_sa();
        let first = loop {
            match outcome(&mut member, at(1000)) {
                Some(outcome) => break outcome.group_sa(),
                None => step(&mut service, 1, &mut member),
            }
        };
        assert_eq!(first.tek_keys(), second.tek_keys());
        assert_eq!(first.kek_keys(), second.kek_keys());
        assert_ne!(first.sender_ids(), second.sender_ids());
        assert_eq!(service.groups().next().unwrap().registry().len(), 2);
    }
}

/// A host may have several, for several groups, and address translation puts several hosts behind
/// one address and port.
#[test]
fn only_the_isakmp_sa_of_a_pull_that_was_overtaken_ends() {
    let keys = keys();
    let text = configuration_with(keys.path(), "", "10.0.0", GCM, &pushes(""));
    let mut service = start(parse(&text));
    register_member(&mut service, 1, 1, at(1000)).group_sa();
    let mut member = begin(&mut service, 1);
    step(&mut service, 1, &mut member);
    assert_eq!(service.statistics().established, 2);
    service.delete("one", at(1000)).unwrap();
    while service.poll_transmit().is_some() {}
    assert!(outcome(&mut member, at(1000)).is_none());
    let message_3 = member.poll_transmit().unwrap();
    service.handle_datagram(address(1), server(), &message_3.payload, at(1000)).unwrap();
    assert_eq!(service.statistics().established, 1);
    let delete = service.poll_transmit().unwrap();
    member.handle_datagram(server(), &delete.payload, at(1000)).unwrap();
    let failure = outcome(&mut member, at(1000)).unwrap().failure();
    assert_eq!(failure, RegistrationFailure::PeerDeleted);
}

/// Pulls at one moment take no more places than there are.
#[test]
fn the_threshold_counts_when_keys_are_given() {
    let keys = keys();
    let text = configuration_with(keys.path(), "", "10.0.0", GCM, &pushes(""));
    let text = text.replace("id = 1\n", "id = 1\nmember-threshold = 1\n");
    let mut service = start(parse(&text));
    let mut member = begin(&mut service, 1);
    step(&mut service, 1, &mut member);
    register_member(&mut service, 2, 1, at(1000)).group_sa();
    assert!(outcome(&mut member, at(1000)).is_none());
    let message_3 = member.poll_transmit().unwrap();
    service.handle_datagram(address(1), server(), &message_3.payload, at(1000)).unwrap();
    let group = service.groups().next().unwrap();
    assert_eq!((group.registry().len(), group.pull_counters().over_threshold), (1, 1));
    let held = group.sender_ids().held().0.len();
    assert_eq!(held, 1, "nothing is set aside for who gets no keys");
}

/// Message 1 again and again, of many members: nothing is set aside.
#[test]
fn pulls_that_are_not_accepted_use_nothing_up() {
    let keys = keys();
    let text = configuration_with(keys.path(), "", "10.0.0", GCM, &pushes("lkh = true"));
    let mut service = start(parse(&text));
    register_member(&mut service, 2, 1, at(1000)).group_sa();
    let leaves = |service: &KeyServer<OsEntropy>| {
        let group = service.groups().next().unwrap();
        let tree = group.rekey_sa().unwrap().kek().unwrap().tree().unwrap();
        (tree.members().len(), group.sender_ids().held().0.len())
    };
    let mut member = begin(&mut service, 1);
    step(&mut service, 1, &mut member);
    assert_eq!(leaves(&service), (1, 1));
    service.handle_timeout(at(2000));
    assert_eq!(leaves(&service), (1, 1));
}

#[test]
fn one_member_cannot_take_all_sender_identifiers() {
    let keys = keys();
    let text = configuration_with(keys.path(), "", "10.0.0", GCM, &pushes(""));
    let text = text.replace("id = 1\n", "id = 1\nsender-id-bits = 12\n");
    let mut service = start(parse(&text));
    register_member(&mut service, 2, 1, at(1000)).group_sa();
    let config = registration(1, 1, 1, address(1), server());
    let mut member = Registration::new(config, [7; 32], at(1000));
    let mut pulls = 0;
    'pulls: for _ in 0..4094 {
        for _ in 0..10 {
            let mut done = false;
            while let Some(event) = member.poll_event() {
                match event {
                    RegistrationEvent::PolicyOffered(_) => member.accept_policy(at(1000)),
                    RegistrationEvent::Registered(_) => done = true,
                    _ => {}
                }
            }
            if done {
                pulls += 1;
                member.pull_again(&RetransmissionPolicy::default(), at(1000)).unwrap();
                continue 'pulls;
            }
            while let Some(sent) = member.poll_transmit() {
                let _ = service.handle_datagram(address(1), server(), &sent.payload, at(1000));
            }
            while let Some(sent) = service.poll_transmit() {
                let _ = member.handle_datagram(server(), &sent.payload, at(1000));
            }
        }
        break;
    }
    let reinitialized =
        |event: &Event| matches!(event, Event::Group { event: GroupEvent::Reinitialized, .. });
    let events = events(&mut service);
    assert!(!events.iter().any(reinitialized), "after {pulls} pulls of one member");
    assert!((8..=64).contains(&pulls), "{pulls}");
    assert!(events.iter().any(|event| matches!(event, Event::Refused { .. })));
    // The other one is not affected.
    while service.poll_transmit().is_some() {}
    register_member(&mut service, 2, 1, at(1000)).group_sa();
    // With time, identifiers are free again.
    service.rekey("one", at(1100)).unwrap();
    while service.poll_transmit().is_some() {}
    service.handle_timeout(at(5000));
    while service.poll_transmit().is_some() {}
    register_member(&mut service, 1, 1, at(5000)).group_sa();
}
