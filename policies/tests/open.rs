//! Traffic in clear by failure policy and during a migration: policies, guard and words.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests"
)]

mod support;

use gdoi::group::{AddressRange, TrafficSelector};
use policies::explain::Kind;
use policies::{FailurePolicy, GroupInput, GroupState, Mode, compile, explain};
use support::*;
use xfrm::Desired;
use xfrm::model::{Action, Direction};

fn rule() -> TrafficSelector {
    TrafficSelector {
        protocol: 17,
        source: AddressRange::Subnet("172.16.0.0/12".parse().unwrap()),
        source_port: 0,
        destination: AddressRange::Address("172.16.9.1".parse().unwrap()),
        destination_port: 123,
    }
}

fn allowed(desired: &Desired, direction: Direction) -> Vec<String> {
    let allowed = desired.policies.values().filter(|policy| policy.action == Action::Allow);
    let own = allowed.filter(|policy| policy.id.direction == direction && policy.priority > 1003);
    own.map(|policy| policy.id.selector.to_string()).collect()
}

fn excluded(desired: &Desired) -> Vec<String> {
    desired.preservation.as_ref().unwrap().exclude.iter().map(ToString::to_string).collect()
}

const THERE: &str = "172.16.0.0/12 -> 172.16.9.1/32 protocol 17 destination port 123";
const BACK: &str = "172.16.9.1/32 -> 172.16.0.0/12 protocol 17 source port 123";

#[test]
fn fail_open_rules_open_policies_and_guard_without_a_key_and_neither_with_one() {
    let keys = keys(16, 32);
    let teks = [tek(0x1300, "172.16.0.0/12", "172.16.0.0/12")];
    let with = |state| GroupInput { fail_open: vec![rule()], ..g1(state) };
    for state in [GroupState::NoKey, GroupState::Expired(teks.iter().collect())] {
        let group = with(state);
        let lines = explain(&group);
        let desired = compile(&[group]).unwrap();
        for direction in [Direction::Out, Direction::In, Direction::Forward] {
            let mut open = allowed(&desired, direction);
            open.retain(|selector| selector.contains("172.16.9.1"));
            assert_eq!(open.len(), 2, "{direction}: {open:?}");
        }
        let guard = excluded(&desired);
        assert!(guard.contains(&THERE.to_owned()) && guard.contains(&BACK.to_owned()), "{guard:?}");
        assert!(
            lines
                .iter()
                .any(|line| line.kind == Kind::FailOpen && line.note.contains("passes in clear"))
        );
    }
    let group = with(GroupState::Keyed(generation(&teks, &keys, true, true)));
    assert!(
        explain(&group)
            .iter()
            .any(|line| line.kind == Kind::FailOpen && line.note.starts_with("only while"))
    );
    let desired = compile(&[group]).unwrap();
    assert!(excluded(&desired).iter().all(|selector| !selector.contains("172.16.9.1")));
    assert!(desired.policies.keys().all(|id| !id.selector.to_string().contains("172.16.9.1")));
}

#[test]
fn failing_open_wins_over_the_traffic_selectors_that_have_ended() {
    let teks = [tek(0x1300, "172.16.0.0/12", "172.16.0.0/12")];
    let mut group = g1(GroupState::Expired(teks.iter().collect()));
    group.options.failure = FailurePolicy::Open;
    let desired = compile(&[group]).unwrap();
    let of = |direction| {
        let both = |policy: &&xfrm::model::Policy| {
            policy.id.direction == direction
                && policy.id.selector.to_string().starts_with("172.16.0.0/12 -> 172.16.0.0/12")
        };
        desired.policies.values().filter(both).min_by_key(|policy| policy.priority).unwrap().action
    };
    for direction in [Direction::Out, Direction::In, Direction::Forward] {
        assert_eq!(of(direction), Action::Allow, "{direction}");
    }
}

#[test]
fn modes_say_what_is_sent_and_what_is_taken() {
    let keys = keys(16, 32);
    let teks = [tek(0x1300, "172.16.0.0/12", "172.16.0.0/12")];
    for (mode, senders, optional) in
        [(Mode::Normal, 1, false), (Mode::ReceiveOnly, 0, true), (Mode::Passive, 1, true)]
    {
        let mut group = g1(GroupState::Keyed(generation(&teks, &keys, true, true)));
        group.options.mode = mode;
        let desired = compile(&[group]).unwrap();
        let outbound = desired.sas.values().filter(|sa| sa.role == xfrm::model::SaRole::Outbound);
        assert_eq!(outbound.count(), senders, "{mode:?}");
        for policy in desired.policies.values() {
            if let Action::Protect(template) = policy.action {
                let expected = optional && policy.id.direction != Direction::Out;
                assert_eq!(template.optional, expected, "{mode:?} {policy}");
            }
        }
        let all = "172.16.0.0/12 -> 172.16.0.0/12".to_owned();
        let arriving = &desired.preservation.as_ref().unwrap().exclude_arriving;
        let arriving: Vec<String> = arriving.iter().map(ToString::to_string).collect();
        // What a member sends as ESP the guard does not let out in clear.
        assert_eq!(excluded(&desired).contains(&all), mode == Mode::ReceiveOnly, "{mode:?}");
        assert_eq!(arriving.contains(&all), mode == Mode::Passive, "{mode:?}");
    }
}

#[test]
fn pushes_by_multicast_come_in_from_the_key_servers_alone() {
    let mut group = g1(GroupState::NoKey);
    group.pushes = Some("239.192.1.1:848".parse().unwrap());
    let desired = compile(&[group]).unwrap();
    let selectors: Vec<String> = desired.policies.keys().map(ToString::to_string).collect();
    let expected =
        "in 10.0.9.1/32 -> 239.192.1.1/32 protocol 17 source port 848 destination port 848";
    assert_eq!(
        selectors.iter().filter(|text| text.contains("239.192.1.1")).collect::<Vec<_>>(),
        [expected]
    );
}

/// So many prefixes without neighbours.
fn prefixes(count: u16) -> Vec<ipnet::IpNet> {
    (0..count).map(|n| format!("10.{}.{}.0/24", n / 128, n % 128 * 2).parse().unwrap()).collect()
}

fn blocks(desired: &Desired) -> usize {
    desired.policies.values().filter(|policy| policy.action == Action::Block).count()
}

#[test]
fn beyond_a_number_of_pairs_the_guards_alone_close_the_protected_prefixes() {
    let keys = keys(16, 32);
    let teks = [tek(0x1300, "10.0.0.0/8", "10.0.0.0/8")];
    let with = |count, state| GroupInput { protected: prefixes(count), ..g1(state) };
    assert_eq!(blocks(&compile(&[with(64, GroupState::NoKey)]).unwrap()), 64 * 64 * 3);
    let many = with(200, GroupState::NoKey);
    assert_eq!(explain(&many).iter().filter(|line| line.kind == Kind::FailClose).count(), 200);
    let small = GroupInput { name: "small", slot: 1, ..with(10, GroupState::NoKey) };
    let small = GroupInput { options: policies::GroupOptions::at_slot(1), ..small };
    let desired = compile(&[many, small]).unwrap();
    assert_eq!(blocks(&desired), 10 * 10 * 3);
    let guarded = &desired.preservation.unwrap().protected;
    assert!(guarded.contains(&prefixes(200).into_iter().collect()), "{guarded:?}");
    // What the traffic selectors cover has policies all the same, in every state of the keys.
    let keyed = compile(&[with(200, keyed(&teks, &keys))]).unwrap();
    assert_eq!(blocks(&keyed), 0);
    assert!(keyed.policies.values().any(|policy| matches!(policy.action, Action::Protect(_))));
    let expired = compile(&[with(200, GroupState::Expired(teks.iter().collect()))]).unwrap();
    assert_eq!(blocks(&expired), 3);
}

#[test]
fn a_group_that_the_guards_alone_close_opens_like_any_other() {
    let keys = keys(16, 32);
    let teks = [tek(0x1300, "10.0.0.0/8", "10.0.0.0/8")];
    let guards = |failure, mode, state| {
        let mut group = GroupInput { protected: prefixes(200), ..g1(state) };
        (group.options.failure, group.options.mode) = (failure, mode);
        let desired = compile(&[group]).unwrap();
        !desired.preservation.unwrap().protected.is_empty()
    };
    let keyless = || GroupState::NoKey;
    assert!(guards(FailurePolicy::Close, Mode::Normal, keyless()));
    assert!(!guards(FailurePolicy::Open, Mode::Normal, keyless()));
    assert!(guards(FailurePolicy::Open, Mode::Normal, keyed(&teks, &keys)));
    assert!(!guards(FailurePolicy::Close, Mode::ReceiveOnly, keyless()));
    assert!(!guards(FailurePolicy::Close, Mode::ReceiveOnly, keyed(&teks, &keys)));
    assert!(guards(FailurePolicy::Close, Mode::Passive, keyed(&teks, &keys)));
}
