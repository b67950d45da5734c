//! Key exchanges that are computed elsewhere: results come late, out of order or never, on a
//! network that loses and repeats, and the exchange may have ended meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use gdoi::event::{RegistrationEvent, RegistrationFailure};
use gdoi::server::Arithmetic;
use ike::config::Credential;
use ike::crypto::Secret;
use ike::endpoint::Limits;
use proptest::prelude::*;
use support::*;

/// Members of a server whose computations take these times, then none.
fn pair(members: u8, limits: Limits, times: Vec<Option<Duration>>) -> Pair {
    let mut config = server_config();
    config.limits = limits;
    let members = (1..=members).map(|number| registration_config(member_address(number)));
    let mut pair = Pair::with(config, members.collect());
    pair.server.set_arithmetic(Arithmetic::HandedOut);
    let mut times = times.into_iter();
    pair.computing = Box::new(move || times.next().unwrap_or(Some(Duration::ZERO)));
    pair
}

fn in_seconds(times: &[u64]) -> Vec<Option<Duration>> {
    times.iter().map(|time| Some(seconds(*time))).collect()
}

fn discards(pair: &Pair, reason: &str) -> u64 {
    pair.server.statistics().discards.get(reason).copied().unwrap_or_default()
}

#[test]
fn results_may_come_late_and_in_any_order() {
    let mut pair = pair(3, Limits::default(), in_seconds(&[9, 6, 3]));
    pair.run(seconds(60));
    assert_eq!(pair.completed(), 3);
    for index in 0..3 {
        assert_eq!(pair.registered(index).unwrap(), &group_sa(GROUP));
    }
    // Copies of message 3 arrived meanwhile, and cost nothing.
    assert!(discards(&pair, "replayed") >= 3, "{:?}", pair.server_errors);
    assert_eq!(pair.server.statistics().diffie_hellman, 2 * 3);
}

#[test]
fn members_whose_result_is_there_do_not_wait_for_others() {
    let mut pair = pair(2, Limits::default(), in_seconds(&[20]));
    pair.run(seconds(1));
    assert!(!pair.is_registered(0) && pair.is_registered(1));
}

#[test]
fn a_result_that_never_comes_ends_in_the_time_limit_and_blocks_nobody() {
    let limits = Limits { computations: 1, ..Limits::default() };
    let mut pair = pair(1, limits, vec![None]);
    pair.run(seconds(120));
    assert!(matches!(pair.failure(0), Some(RegistrationFailure::NoAnswer { .. })));
    assert_eq!(pair.server.statistics().half_open, 0);
    // What was dropped takes no room.
    let config = registration_config(member_address(1));
    pair.members[0] = gdoi::member::Registration::new(config, [9; 32], pair.now);
    pair.member_events[0].clear();
    pair.run(seconds(10));
    assert!(pair.is_registered(0), "{:?}", pair.member_events);
    assert_eq!(discards(&pair, "computation-limit"), 0);
}

#[test]
fn a_result_after_the_time_limit_is_ignored_and_counted() {
    let mut pair = pair(1, Limits::default(), in_seconds(&[100]));
    pair.run(seconds(99));
    assert_eq!((discards(&pair, "ended"), pair.server.statistics().half_open), (0, 0));
    let sent = pair.server.statistics().datagrams_sent;
    pair.run(seconds(10));
    assert_eq!(discards(&pair, "ended"), 1);
    assert_eq!(pair.server.statistics().datagrams_sent, sent, "nothing is answered");
    assert!(pair.failure(0).is_some());
}

#[test]
fn a_result_with_a_credential_that_was_replaced_meanwhile_is_ignored_and_counted() {
    let mut pair = pair(1, Limits::default(), in_seconds(&[2]));
    pair.run(seconds(1));
    assert_eq!(pair.server.statistics().diffie_hellman, 2, "it is being computed");
    let mut config = server_config();
    config.peers[0].credential =
        Credential::PreSharedKey(Arc::new(Secret::copy_from(b"another key")));
    pair.server.reconfigure(config);
    assert_eq!(pair.server.statistics().half_open, 0);
    pair.run(seconds(300));
    assert_eq!(discards(&pair, "ended"), 1);
    assert!(pair.failure(0).is_some(), "{:?}", pair.member_events);
}

#[test]
fn computations_are_bounded_and_who_is_refused_gets_in_with_its_next_copy() {
    let limits = Limits { computations: 2, ..Limits::default() };
    let mut pair = pair(3, limits, in_seconds(&[1, 1, 0]));
    pair.run(Duration::from_millis(500));
    assert_eq!(discards(&pair, "computation-limit"), 1);
    assert_eq!(pair.server.statistics().diffie_hellman, 2 * 2, "refused before arithmetic");
    pair.run(seconds(60));
    assert_eq!(pair.completed(), 3);
    assert_eq!(pair.server.statistics().diffie_hellman, 2 * 3);
}

#[test]
fn a_malformed_key_exchange_is_told_from_one_that_finds_no_room() {
    let limits = Limits { computations: 1, ..Limits::default() };
    let mut pair = pair(2, limits, in_seconds(&[5]));
    pair.run(seconds(1));
    assert_eq!(discards(&pair, "computation-limit"), 1);
    let mut third =
        pair.sent.iter().rfind(|transmit| transmit.source == member_address(2)).cloned().unwrap();
    // The length of its first payload.
    third.payload[30..32].fill(0xff);
    pair.inject(third, Duration::ZERO);
    pair.run(Duration::from_millis(1));
    assert_eq!(discards(&pair, "computation-limit"), 1, "{:?}", pair.server_errors);
    assert_eq!(discards(&pair, "invalid-message"), 1, "{:?}", pair.server_errors);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the network and the workers do: one clear outcome for each member, the same on both
    /// sides, and nothing is left over.
    #[test]
    fn one_outcome_with_any_workers_on_any_network(
        times in prop::collection::vec(prop::option::weighted(0.8, 0..40_000_u64), 0..6),
        fates in prop::collection::vec(prop::collection::vec(1..3000_u64, 0..3), 0..80),
        room in 1..4_usize,
    ) {
        let limits = Limits { computations: room, ..Limits::default() };
        let times = times.into_iter().map(|time| time.map(Duration::from_millis)).collect();
        let mut pair = pair(3, limits, times);
        let mut fates = fates.into_iter();
        pair.network = Box::new(move |_| match fates.next() {
            Some(delays) => delays.into_iter().map(Duration::from_millis).collect(),
            None => vec![LATENCY],
        });
        pair.run(seconds(400));
        let mut registered = 0;
        for (index, events) in pair.member_events.iter().enumerate() {
            let ends = events.iter().filter(|event| {
                matches!(event, RegistrationEvent::Registered(_) | RegistrationEvent::Failed(_))
            });
            prop_assert_eq!(ends.count(), 1, "{:?}", events);
            match pair.failure(index) {
                None => {
                    registered += 1;
                    prop_assert_eq!(pair.registered(index).unwrap(), &group_sa(GROUP));
                }
                Some(failure) => prop_assert!(matches!(
                    failure,
                    RegistrationFailure::NoAnswer { .. } | RegistrationFailure::AuthenticationFailed
                ), "{:?}", failure),
            }
        }
        prop_assert!(pair.completed() >= registered);
        let statistics = pair.server.statistics();
        prop_assert_eq!((statistics.half_open, statistics.pulls), (0, 0));
    }
}
