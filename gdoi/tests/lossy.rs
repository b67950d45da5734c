//! A network that loses, repeats, delays and reorders: a registration ends in its keys or in a
//! clean failure, and below the retransmission budget always in its keys.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use gdoi::event::{RegistrationEvent, RegistrationFailure, Stage, Transmit};
use proptest::prelude::*;
use support::*;

/// What happens to the n-th datagram: nothing arrives, or copies after these milliseconds.
#[derive(Clone, Debug)]
enum Impairment {
    Lost,
    Copies(Vec<u64>),
}

fn impairment() -> impl Strategy<Value = Impairment> {
    prop_oneof![
        3 => Just(Impairment::Lost),
        4 => Just(Impairment::Copies(vec![20])),
        2 => (1..3000_u64).prop_map(|delay| Impairment::Copies(vec![delay])),
        2 => (1..200_u64, 1..5000_u64).prop_map(|(one, two)| Impairment::Copies(vec![one, two])),
    ]
}

fn run(impairments: Vec<Impairment>) -> Pair {
    let mut pair = Pair::new(1);
    let mut impairments = impairments.into_iter();
    pair.network = Box::new(move |_| match impairments.next() {
        Some(Impairment::Lost) => vec![],
        Some(Impairment::Copies(delays)) => delays.into_iter().map(Duration::from_millis).collect(),
        None => vec![LATENCY],
    });
    pair.run(seconds(300));
    pair
}

/// Whatever happened: one clear outcome, and both sides agree about it.
fn check(pair: &Pair) {
    let outcomes = pair.member_events[0]
        .iter()
        .filter(|event| {
            matches!(event, RegistrationEvent::Registered(_) | RegistrationEvent::Failed(_))
        })
        .count();
    assert_eq!(outcomes, 1, "{:?}", pair.member_events[0]);
    match pair.failure(0) {
        None => {
            assert_eq!(pair.registered(0).unwrap(), &group_sa(GROUP));
            assert_eq!(pair.members[0].stage(), Stage::Registered);
            assert_eq!(pair.completed(), 1);
        }
        Some(failure) => {
            let clean = matches!(
                failure,
                RegistrationFailure::NoAnswer { .. } | RegistrationFailure::AuthenticationFailed
            );
            assert!(clean, "{failure:?}");
            assert_eq!(pair.members[0].stage(), Stage::Ended);
            assert_eq!(pair.members[0].poll_timeout(), None);
            assert!(pair.completed() <= 1);
        }
    }
    // Half-open exchanges and pulls are gone by now, whatever became of them.
    assert_eq!((pair.server.statistics().half_open, pair.server.statistics().pulls), (0, 0));
    assert!(pair.server.statistics().established <= 1, "{:?}", pair.server.statistics());
}

/// A registration over a network on which the tries of each step meet these fates.
fn lose(fates: Vec<Vec<u8>>, delay: u64) -> Pair {
    let mut pair = Pair::new(1);
    let mut tries: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut steps: Vec<Vec<u8>> = Vec::new();
    let mut lose_answer = false;
    pair.network = Box::new(move |transmit: &Transmit| {
        let arrives = vec![Duration::from_millis(delay)];
        if transmit.source == server_address() {
            return if std::mem::take(&mut lose_answer) { vec![] } else { arrives };
        }
        if !steps.contains(&transmit.payload) {
            steps.push(transmit.payload.clone());
        }
        let step = steps.iter().position(|step| *step == transmit.payload).unwrap();
        let count = tries.entry(transmit.payload.clone()).or_default();
        *count += 1;
        match fates.get(step).and_then(|fates| fates.get(*count - 1)) {
            // The request is lost.
            Some(1) => vec![],
            // Its answer is.
            Some(2) => {
                lose_answer = true;
                arrives
            }
            // It arrives twice.
            Some(3) => vec![arrives[0], arrives[0] + Duration::from_millis(7)],
            _ => arrives,
        }
    });
    pair.run(seconds(300));
    pair
}

/// The key server has kept message 1 for 15 s when its fifth copy is answered, and message 3 takes
/// its whole budget after that.
#[test]
fn the_budget_of_message_3_begins_with_the_answer_that_arrived() {
    let pair = lose(vec![vec![2, 1, 1, 1], vec![1, 1, 1, 1]], 1);
    assert!(pair.is_registered(0), "{:?}", pair.failure(0));
    check(&pair);
}

/// The same in a pull.
#[test]
fn the_budget_of_message_3_of_a_pull_begins_with_the_answer_that_arrived() {
    let none = vec![0; 4];
    let fates = vec![none.clone(), none.clone(), none, vec![2, 1, 1, 1], vec![1, 1, 1, 1]];
    let pair = lose(fates, 1);
    assert!(pair.is_registered(0), "{:?}", pair.failure(0));
    check(&pair);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_outcome_on_any_network(impairments in prop::collection::vec(impairment(), 0..60)) {
        check(&run(impairments));
    }

    /// Each request is sent five times. If at most four of the tries of one step fail, by a loss on
    /// either way, and answers come within the first wait, every step succeeds.
    #[test]
    fn loss_below_the_budget_always_registers(
        // For each of the five steps, which way fails on each of the first four tries.
        fates in prop::collection::vec(prop::collection::vec(0..4_u8, 4), 5),
        delay in 1..400_u64,
    ) {
        let pair = lose(fates, delay);
        prop_assert!(pair.is_registered(0), "{:?}", pair.failure(0));
        check(&pair);
    }
}

/// The same for each single datagram of a registration: lost, repeated at once, repeated late,
/// overtaken.
#[test]
fn each_datagram_impaired_alone() {
    for index in 0..10 {
        for fate in
            [vec![], vec![20, 20], vec![20, 70], vec![20, 2000], vec![1500], vec![20, 29_000]]
        {
            let mut impairments = vec![Impairment::Copies(vec![20]); index];
            impairments.push(Impairment::Copies(fate.clone()));
            let pair = run(impairments);
            assert!(pair.is_registered(0), "datagram {index} {fate:?}: {:?}", pair.failure(0));
            check(&pair);
        }
    }
}

/// Ten members at once over a network that loses a third of everything.
#[test]
fn ten_members_on_a_bad_network() {
    let mut pair = Pair::new(10);
    let mut rng = ike::crypto::SeededRng::from_seed([5; 32]);
    pair.network = Box::new(move |_| match rng.array::<1>()[0] {
        0..=84 => vec![],
        85..=120 => vec![LATENCY, seconds(2)],
        _ => vec![LATENCY],
    });
    pair.run(seconds(300));
    let registered = (0..10).filter(|index| pair.is_registered(*index)).count();
    assert!(
        registered >= 5,
        "{registered} of 10: {:?}",
        (0..10).map(|index| pair.failure(index)).collect::<Vec<_>>()
    );
    assert!((0..10).all(|index| pair.is_registered(index) || pair.failure(index).is_some()));
    assert_eq!(pair.server.statistics().pulls_completed, pair.completed() as u64);
}
