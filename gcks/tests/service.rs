//! The key server without sockets: who gets which keys, and for how long.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod support;

use std::time::Duration;

use gcks::control::snapshot;
use gcks::group::event::Event as GroupEvent;
use gcks::members::authorization::Denied;
use gcks::server::event::{Event, Refused};
use gdoi::event::RegistrationFailure;
use gdoi::group::{EspTransform, GroupId, Spi};
use ike::wire::registry::NotifyType;
use support::*;

#[test]
fn all_members_of_a_group_get_the_same_tek() {
    let mut service = service(CBC);
    let first = register_member(&mut service, 1, 1, at(100)).group_sa();
    let second = register_member(&mut service, 2, 1, at(200)).group_sa();
    assert_eq!(first.policy().group, GroupId(1));
    assert!(first.policy().kek.is_none(), "no SAK while there are no pushes");
    let tek = &first.policy().teks[0];
    assert!(tek.spi >= 256);
    assert_eq!(tek.protection.transform, EspTransform::AES_CBC);
    assert_eq!(tek.protection.lifetime, Duration::from_secs(3600));
    assert_eq!(second.policy().teks[0].protection.lifetime, Duration::from_secs(3500));
    assert_eq!(first.tek_keys(), second.tek_keys());
    assert_eq!(first.sender_ids(), None);
    let keys = &first.tek_keys()[&tek.spi];
    assert_eq!((keys.encryption.len(), keys.integrity.len()), (32, 32));
    assert!(keys.encryption.expose().iter().any(|octet| *octet != 0));
}

#[test]
fn groups_have_nothing_in_common() {
    let mut service = service(CBC);
    let one = register_member(&mut service, 1, 1, at(0)).group_sa();
    let two = register_member(&mut service, 3, 2, at(0)).group_sa();
    let spi = |sa: &gdoi::group::GroupSa| -> Spi { sa.policy().teks[0].spi };
    assert_ne!(spi(&one), spi(&two));
    assert_ne!(one.tek_keys()[&spi(&one)], two.tek_keys()[&spi(&two)]);
}

#[test]
fn a_tek_near_its_end_is_replaced_for_everybody() {
    let mut service = service(CBC);
    let old = register_member(&mut service, 1, 1, at(0)).group_sa();
    assert_eq!(register_member(&mut service, 1, 1, at(3000)).group_sa().tek_keys(), old.tek_keys());
    let new = register_member(&mut service, 1, 1, at(3500)).group_sa();
    assert_ne!(new.tek_keys(), old.tek_keys());
    assert_eq!(register_member(&mut service, 2, 1, at(3501)).group_sa().tek_keys(), new.tek_keys());
    let shown = snapshot(&service, &[], at(0), at(3502));
    assert_eq!(
        shown.groups[0].teks.iter().map(|tek| tek.current).collect::<Vec<_>>(),
        [true, false]
    );
    service.handle_timeout(at(3600));
    let shown = snapshot(&service, &[], at(0), at(3600));
    assert_eq!(shown.groups[0].teks.iter().map(|tek| tek.current).collect::<Vec<_>>(), [true]);
}

#[test]
fn counter_mode_senders_get_identifiers_that_nobody_else_has() {
    let mut service = service(GCM);
    let mut identifiers = Vec::new();
    // The same member twice: after a restart it does not know its packet counter.
    for member in [1, 2, 1] {
        let sa = register_member(&mut service, member, 1, at(10)).group_sa();
        let ids = sa.sender_ids().expect("a sender identifier");
        assert_eq!((ids.bits, ids.values.len()), (16, 1));
        identifiers.push(ids.values[0]);
        assert_eq!(sa.tek_keys().values().next().unwrap().encryption.len(), 36);
    }
    assert_eq!(identifiers, [0, 1, 2]);
}

#[test]
fn a_member_gets_no_other_group() {
    let mut service = service(CBC);
    let failure = register_member(&mut service, 1, 2, at(0)).failure();
    assert_eq!(failure, RegistrationFailure::Refused { notify: NotifyType::AUTHENTICATION_FAILED });
    let denied = Denied::NotAuthorized { member: String::from("g1"), group: String::from("two") };
    assert!(events(&mut service).iter().any(|event| matches!(
        event,
        Event::Refused { reason: Refused::Denied(reason), group: GroupId(2), .. } if *reason == denied
    )));
    let failure = register_member(&mut service, 1, 77, at(0)).failure();
    assert_eq!(
        failure,
        RegistrationFailure::Refused { notify: NotifyType::INVALID_ID_INFORMATION }
    );
    assert!(events(&mut service).iter().any(|event| matches!(
        event,
        Event::Refused { reason: Refused::Denied(Denied::UnknownGroup), .. }
    )));
    let shown = snapshot(&service, &[], at(0), at(1));
    assert_eq!((shown.statistics.pulls_refused, shown.statistics.pulls_succeeded), (2, 0));
    assert_eq!(shown.groups[1].pulls_failed, 1);
    assert!(shown.members.is_empty());
    assert!(
        shown.groups.iter().all(|group| group.teks.is_empty()),
        "no key is made for a refused pull"
    );
}

#[test]
fn a_wrong_key_gets_nothing_and_is_counted() {
    let mut service = service(CBC);
    let config = registration(1, 2, 1, address(1), SERVER.parse().unwrap());
    register(&mut service, config, at(0)).failure();
    let shown = snapshot(&service, &[], at(0), at(0));
    assert_eq!((shown.statistics.phase1_established, shown.statistics.pulls_succeeded), (0, 0));
    assert!(
        shown.statistics.discards.values().sum::<u64>() >= 1,
        "{:?}",
        shown.statistics.discards
    );
}

#[test]
fn strangers_cost_no_arithmetic() {
    let mut service = service(CBC);
    let config = registration(1, 1, 1, "10.9.9.9:848".parse().unwrap(), SERVER.parse().unwrap());
    register(&mut service, config, at(0)).failure();
    let shown = snapshot(&service, &[], at(0), at(0)).statistics;
    assert_eq!((shown.diffie_hellman, shown.half_open), (0, 0));
    assert_eq!(shown.discards.get("unknown-source"), Some(&2), "{:?}", shown.discards);
}

#[test]
fn a_flood_of_first_messages_leaves_members_alone() {
    let mut service = service(CBC);
    let server = SERVER.parse().unwrap();
    for number in 0..10_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let source = std::net::SocketAddr::new(std::net::IpAddr::from([10, 77, high, low]), 848);
        let mut first = vec![0; 120];
        first[..4].copy_from_slice(&number.to_be_bytes());
        first[4] = 1;
        assert!(service.handle_datagram(source, server, &first, at(0)).is_err());
        if number % 1000 == 0 {
            register_member(&mut service, 1, 1, at(0)).group_sa();
        }
    }
    let shown = snapshot(&service, &[], at(0), at(0)).statistics;
    assert_eq!(shown.pulls_succeeded, 10);
    assert_eq!(shown.discards.values().sum::<u64>(), 10_000, "{:?}", shown.discards);
    assert!(events(&mut service).iter().all(|event| !matches!(event, Event::Refused { .. })));
}

#[test]
fn the_snapshot_tells_who_has_keys_until_they_end() {
    let mut service = service(CBC);
    let sa = register_member(&mut service, 1, 1, at(100)).group_sa();
    register_member(&mut service, 1, 1, at(160)).group_sa();
    let shown = snapshot(&service, &["127.0.0.1:848".parse().unwrap()], at(0), at(200));
    let member = &shown.members[0];
    assert_eq!(
        (member.name.as_str(), member.group.as_str(), member.identity.as_str()),
        ("g1", "one", "address 10.0.0.1")
    );
    assert_eq!(
        (member.registered_seconds_ago, member.last_pull_seconds_ago, member.pulls),
        (100, 40, 2)
    );
    assert_eq!(member.keys_left_seconds, 3500);
    assert_eq!(shown.groups[0].teks[0].spi, sa.policy().teks[0].spi);
    assert_eq!(shown.groups[0].teks[0].selectors, ["172.16.0.0/12 -> 172.16.0.0/12"]);
    assert_eq!(
        (shown.groups[0].members, shown.groups[0].pulls_succeeded, shown.uptime_seconds),
        (1, 2, 200)
    );
    // No octet of a key can be in it: keys have no text form, and the SPI is all that is shown of a
    // TEK.
    events(&mut service);
    service.handle_timeout(at(3700));
    assert!(snapshot(&service, &[], at(0), at(3700)).members.is_empty());
    assert!(matches!(
        events(&mut service).as_slice(),
        [Event::Group { event: GroupEvent::Expired { .. }, .. }]
    ));
}

#[test]
fn a_pull_that_breaks_off_is_told_and_has_taken_no_identifier() {
    let mut service = service(GCM);
    let server = SERVER.parse().unwrap();
    let mut member =
        gdoi::member::Registration::new(registration(1, 1, 1, address(1), server), [9; 32], at(0));
    // Up to the offer of the policy: message 3 never comes.
    for _ in 0..20 {
        while let Some(transmit) = member.poll_transmit() {
            service.handle_datagram(address(1), server, &transmit.payload, at(0)).unwrap();
        }
        while let Some(transmit) = service.poll_transmit() {
            member.handle_datagram(server, &transmit.payload, at(0)).unwrap();
        }
    }
    assert_eq!(snapshot(&service, &[], at(0), at(0)).statistics.pulls, 1);
    service.handle_timeout(at(600));
    let aborted = |event: &Event| matches!(event, Event::Aborted { group: GroupId(1), .. });
    assert!(events(&mut service).iter().any(aborted));
    assert_eq!(snapshot(&service, &[], at(0), at(600)).statistics.pulls_aborted, 1);
    // No identifier was taken for it.
    let sa = register_member(&mut service, 2, 1, at(601)).group_sa();
    assert_eq!(sa.sender_ids().unwrap().values, [0]);
    let pool = register_member(&mut service, 2, 1, at(602)).group_sa();
    assert_eq!(pool.sender_ids().unwrap().values, [1]);
}
