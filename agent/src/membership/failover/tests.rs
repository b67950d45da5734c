//! The machine on a virtual clock.

use std::collections::BTreeSet;

use super::*;

const LIMIT: Duration = Duration::from_secs(100);

fn at(seconds: u64) -> BootTime {
    BootTime::new(Duration::from_secs(seconds))
}

fn machine(servers: usize) -> Failover {
    let mut failover = Failover::new(servers, LIMIT, 7);
    failover.start(at(0));
    failover
}

fn fail(failover: &mut Failover, reason: Reason, now: BootTime) {
    failover.handle_failure(reason, reason.name().to_owned(), now);
}

fn renewal(failover: &Failover) -> BootTime {
    match failover.state() {
        State::Served { renewal, .. } => renewal,
        other => panic!("not served but {other:?}"),
    }
}

#[test]
fn stands_still_until_it_is_started() {
    let mut failover = Failover::new(2, LIMIT, 1);
    assert_eq!((failover.poll_attempt(), failover.poll_timeout()), (None, None));
    failover.handle_timeout(at(1_000));
    assert_eq!(failover.state(), State::Suspended);
    failover.start(at(1_000));
    assert_eq!((failover.poll_attempt(), failover.poll_attempt()), (Some(0), None));
}

#[test]
fn every_reason_leads_to_the_next_server_in_order() {
    let reasons = [Reason::NoAnswer, Reason::Refused, Reason::PolicyUnusable];
    let mut failover = machine(4);
    for (server, reason) in reasons.into_iter().enumerate() {
        assert_eq!(failover.poll_attempt(), Some(server));
        fail(&mut failover, reason, at(10 * server as u64));
    }
    assert_eq!(failover.poll_attempt(), Some(3));
    failover.handle_served([at(3_630)], at(30));
    assert_eq!(failover.served_by(), Some(3));
    let passed: Vec<_> =
        failover.passed_over().iter().map(|p| (p.server, p.at, p.reason)).collect();
    assert_eq!(
        passed,
        [
            (0, at(0), Reason::NoAnswer),
            (1, at(10), Reason::Refused),
            (2, at(20), Reason::PolicyUnusable)
        ]
    );
}

#[test]
fn after_the_last_server_it_pauses_longer_each_round_and_starts_with_the_first() {
    let mut failover = machine(2);
    let mut now = at(0);
    for nominal in [5, 10, 20, 40, 60, 60, 60] {
        assert_eq!(failover.poll_attempt(), Some(0));
        fail(&mut failover, Reason::NoAnswer, now);
        assert_eq!(failover.poll_attempt(), Some(1));
        fail(&mut failover, Reason::NoAnswer, now);
        assert_eq!(failover.poll_attempt(), None);
        let deadline = failover.poll_timeout().unwrap();
        assert_eq!(deadline.why, Timer::NextRound);
        let pause = deadline.at.saturating_since(now);
        let nominal = Duration::from_secs(nominal);
        assert!(pause <= nominal && pause > nominal * 3 / 4, "{pause:?} for {nominal:?}");
        failover.handle_timeout(deadline.at - Duration::from_millis(1));
        assert_eq!(failover.poll_attempt(), None);
        now = deadline.at;
        failover.handle_timeout(now);
    }
    assert_eq!(failover.history().count(), 14);
}

#[test]
fn success_resets_the_pause() {
    let mut failover = machine(1);
    for _ in 0..5 {
        fail(&mut failover, Reason::NoAnswer, at(0));
        let deadline = failover.poll_timeout().unwrap();
        failover.handle_timeout(deadline.at);
    }
    failover.handle_served([at(4_000)], at(400));
    failover.handle_timeout(renewal(&failover));
    fail(&mut failover, Reason::NoAnswer, at(3_900));
    assert!(failover.poll_timeout().unwrap().at <= at(3_905));
}

#[test]
fn renewal_comes_a_margin_before_the_end_less_the_jitter() {
    for (lifetime, margin) in
        [(86_400, 4_320), (3_600, 180), (1_200, 60), (600, 60), (100, 50), (30, 15)]
    {
        for seed in 0..50 {
            let mut failover = Failover::new(1, LIMIT, seed);
            failover.start(at(0));
            failover.handle_served([at(lifetime)], at(0));
            let before = at(lifetime).saturating_since(renewal(&failover));
            let margin = Duration::from_secs(margin);
            assert!(
                before <= margin && before > margin * 3 / 4,
                "{lifetime} s: {before:?} before the end"
            );
        }
    }
}

#[test]
fn members_with_different_seeds_spread_out() {
    let mut times: Vec<_> = (0..100)
        .map(|seed| {
            let mut failover = Failover::new(1, LIMIT, seed);
            failover.start(at(0));
            failover.handle_served([at(3_600)], at(0));
            renewal(&failover)
        })
        .collect();
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 90);
}

#[test]
fn a_life_time_of_nothing_does_not_turn_into_a_storm() {
    let mut failover = machine(1);
    failover.handle_served([at(0)], at(0));
    assert_eq!(renewal(&failover), at(5));
}

#[test]
fn renewal_starts_with_the_first_server_while_the_old_one_still_serves() {
    let mut failover = machine(3);
    fail(&mut failover, Reason::NoAnswer, at(1));
    failover.handle_served([at(3_600)], at(2));
    assert_eq!(failover.poll_attempt(), None);
    failover.handle_timeout(renewal(&failover));
    assert_eq!(failover.poll_attempt(), Some(0));
    assert_eq!(failover.served_by(), Some(1));
    assert!(failover.passed_over().is_empty());
    failover.handle_expired(at(3_600));
    assert_eq!(failover.served_by(), None);
}

#[test]
fn an_attempt_that_never_ends_is_given_up() {
    let mut failover = machine(2);
    assert_eq!(failover.poll_attempt(), Some(0));
    assert_eq!(failover.poll_timeout(), Some(Deadline { at: at(100), why: Timer::Attempt }));
    failover.handle_timeout(at(99));
    assert_eq!(failover.poll_attempt(), None);
    assert!(failover.handle_timeout(at(100)));
    assert_eq!(failover.poll_attempt(), Some(1));
    assert_eq!(failover.passed_over()[0].reason, Reason::TookTooLong);
}

#[test]
fn results_without_an_attempt_change_nothing() {
    let mut failover = machine(2);
    failover.handle_served([at(3_600)], at(0));
    let before = failover.state();
    fail(&mut failover, Reason::Refused, at(1));
    failover.handle_served([at(9_999)], at(1));
    assert_eq!(failover.state(), before);
    failover.suspend();
    fail(&mut failover, Reason::Refused, at(1));
    assert_eq!((failover.state(), failover.poll_timeout()), (State::Suspended, None));
}

#[test]
fn keys_rejected_later_pass_their_server_over() {
    let mut failover = machine(2);
    failover.handle_served([at(3_600)], at(0));
    failover.handle_rejected(
        Reason::PolicyUnusable,
        "two groups want one selector".to_owned(),
        at(1),
    );
    assert_eq!((failover.poll_attempt(), failover.served_by()), (Some(1), None));
    assert_eq!(failover.passed_over()[0].reason, Reason::PolicyUnusable);
}

#[test]
fn history_is_bounded_and_keeps_the_latest() {
    let mut failover = machine(1);
    for second in 0..100 {
        fail(&mut failover, Reason::NoAnswer, at(second * 1_000));
        failover.handle_timeout(at(second * 1_000 + 999));
    }
    assert_eq!(failover.history().count(), HISTORY);
    assert_eq!(failover.history().last().unwrap().at, at(99_000));
}

#[test]
fn only_the_round_that_led_to_the_present_state_is_shown() {
    let mut failover = machine(2);
    fail(&mut failover, Reason::NoAnswer, at(0));
    fail(&mut failover, Reason::Refused, at(1));
    assert_eq!(failover.passed_over().len(), 2, "every server of the round that led to the pause");
    let deadline = failover.poll_timeout().unwrap();
    failover.handle_timeout(deadline.at);
    assert!(failover.passed_over().is_empty());
    fail(&mut failover, Reason::NoAnswer, deadline.at);
    failover.handle_served([at(9_000)], deadline.at);
    // The server that serves now failed in the round before.
    assert_eq!(failover.passed_over().iter().map(|passed| passed.server).collect::<Vec<_>>(), [0]);
}

#[test]
fn pushed_keys_move_the_renewal_and_end_a_pause() {
    let mut failover = machine(2);
    failover.handle_served([at(3_600)], at(0));
    failover.handle_pushed(0, [at(7_200), at(90_000)], at(3_000));
    let before = at(7_200).saturating_since(renewal(&failover));
    assert!(before <= Duration::from_secs(210) && before > Duration::from_secs(157), "{before:?}");
    // A pull that is under way when the push comes may fail without another round.
    failover.handle_timeout(renewal(&failover));
    failover.handle_pushed(0, [at(14_400)], at(7_100));
    assert!(matches!(failover.state(), State::Trying { .. }));
    fail(&mut failover, Reason::NoAnswer, at(7_110));
    fail(&mut failover, Reason::NoAnswer, at(7_120));
    assert!(renewal(&failover) > at(14_000));
    assert_eq!(failover.served_by(), Some(0));
    failover.handle_timeout(renewal(&failover));
    fail(&mut failover, Reason::NoAnswer, at(14_210));
    fail(&mut failover, Reason::NoAnswer, at(14_220));
    assert!(matches!(failover.state(), State::Pausing { .. }));
    failover.handle_pushed(0, [at(20_000)], at(14_221));
    assert!(renewal(&failover) > at(19_000));
}

#[test]
fn whoever_asks_all_members_to_come_is_answered_by_all_in_their_own_time() {
    let times: BTreeSet<_> = (0..100)
        .map(|seed| {
            let mut failover = Failover::new(1, LIMIT, seed);
            failover.start(at(0));
            failover.handle_served([at(3_600)], at(0));
            failover.renew(SPREAD, at(100));
            assert!(renewal(&failover) >= at(100) && renewal(&failover) < at(105));
            renewal(&failover)
        })
        .collect();
    assert!(times.len() > 90);
    let mut failover = machine(1);
    failover.handle_served([at(3_600)], at(0));
    assert_eq!(failover.poll_attempt(), None);
    failover.renew(Duration::ZERO, at(100));
    assert_eq!(failover.poll_attempt(), Some(0), "an operator does not wait");
}

/// A key server that gives no key early has one when the old one ends: one registration begins
/// there, whatever is waited for, and whatever is under way has failed.
#[test]
fn one_round_begins_at_the_very_end_of_the_keys() {
    let served = || {
        let mut failover = machine(1);
        failover.handle_served([at(3_600)], at(0));
        while failover.poll_attempt().is_some() {}
        let renewal = renewal(&failover);
        failover.handle_timeout(renewal);
        assert_eq!(failover.poll_attempt(), Some(0), "before the end");
        failover
    };
    let begins = |failover: &mut Failover| {
        failover.handle_expired(at(3_600));
        if matches!(failover.state(), State::Trying { .. }) {
            fail(failover, Reason::NoTek, at(3_602));
        }
        let due = failover.poll_timeout().unwrap().at;
        failover.handle_timeout(due);
        assert_eq!(failover.poll_attempt(), Some(0));
        fail(failover, Reason::NoTek, due);
        (due, failover.poll_timeout().unwrap().at)
    };
    // Long pauses between rounds that all fail.
    let mut pausing = served();
    let mut now = at(3_500);
    while now < at(3_580) {
        fail(&mut pausing, Reason::NoTek, now);
        now = pausing.poll_timeout().unwrap().at.min(at(3_580));
        pausing.handle_timeout(now);
    }
    fail(&mut pausing, Reason::NoTek, at(3_590));
    // A KEK alone, and a push that is waited for.
    let mut awaiting = served();
    awaiting.handle_served_without_tek(at(3_590));
    // An attempt that began before the end.
    let trying = served();
    for (mut failover, end) in [(pausing, 3_600), (awaiting, 3_600), (trying, 3_602)] {
        let state = failover.state();
        let (due, next) = begins(&mut failover);
        assert!(due >= at(end) && due <= at(end) + EXPIRY_SPREAD, "{state:?} {due:?}");
        assert!(next > due + FIRST_PAUSE / 2, "one, and no storm: {state:?}");
    }
}
