//! Whatever was compiled before, a compiler that remembers gives what a fresh one gives.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

mod support;

use gdoi::group::{SaDirection, TekKeys, TekPolicy};
use policies::{Compiler, FailurePolicy, GroupState, InstalledTek, Mode, compile};
use proptest::prelude::*;
use support::*;
use xfrm::model::SaRole;

/// One line. Selector and keys are positions.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    spi: u32,
    selector: usize,
    gcm: bool,
    direction: u16,
    keys: usize,
    receive: bool,
    send: bool,
    iv_reuse_hazard: bool,
}

/// What may differ from one moment to the next.
#[derive(Clone, Debug)]
struct Moment {
    lines: Vec<Drawn>,
    expired: bool,
    local: Option<u8>,
    lans: usize,
    up: bool,
    excluded: bool,
    mode: Mode,
    failure: FailurePolicy,
    slot: u8,
}

const SELECTORS: [(&str, &str); 3] = [
    ("172.16.0.0/12", "172.16.0.0/12"),
    ("172.16.1.0/24", "172.16.2.0/24"),
    ("any", "10.9.0.0/16"),
];

fn moment() -> impl Strategy<Value = Moment> {
    let line = (
        0x1300_u32..0x1304,
        0_usize..3,
        prop::bool::weighted(0.1),
        1_u16..=3,
        0_usize..3,
        any::<[bool; 3]>(),
    )
        .prop_map(|(spi, selector, gcm, direction, keys, [receive, send, iv_reuse_hazard])| {
            Drawn { spi, selector, gcm, direction, keys, receive, send, iv_reuse_hazard }
        });
    let lines = prop::collection::vec(line, 0..4);
    let mode = prop_oneof![8 => Just(Mode::Normal), 1 => Just(Mode::ReceiveOnly), 1 => Just(Mode::Passive)];
    let failure = prop_oneof![3 => Just(FailurePolicy::Close), 1 => Just(FailurePolicy::Open)];
    let facts = (prop::bool::weighted(0.1), prop::option::weighted(0.9, 1_u8..3), 1_usize..3);
    (lines, facts, any::<[bool; 2]>(), mode, failure, 0_u8..2).prop_map(
        |(lines, (expired, local, lans), [up, excluded], mode, failure, slot)| Moment {
            lines,
            expired,
            local,
            lans,
            up,
            excluded,
            mode,
            failure,
            slot,
        },
    )
}

fn tek_of(drawn: &Drawn) -> TekPolicy {
    let (source, destination) = SELECTORS[drawn.selector];
    let line = directed(tek(drawn.spi, source, destination), SaDirection(drawn.direction));
    if drawn.gcm { gcm(line) } else { line }
}

fn group<'a>(
    moment: &Moment,
    teks: &'a [TekPolicy],
    keys: &'a [TekKeys; 3],
) -> policies::GroupInput<'a> {
    let installed = |(policy, drawn): (&'a TekPolicy, &Drawn)| {
        let Drawn { keys: which, receive, send, iv_reuse_hazard, .. } = *drawn;
        InstalledTek {
            policy,
            keys: &keys[which],
            receive,
            send,
            iv_reuse_hazard,
            remaining_lifetime: None,
        }
    };
    let state = match (teks, moment.expired) {
        ([], _) => GroupState::NoKey,
        (teks, true) => GroupState::Expired(teks.iter().collect()),
        (teks, false) => GroupState::Keyed(teks.iter().zip(&moment.lines).map(installed).collect()),
    };
    let mut group = g1(state);
    group.zones.local = moment.local.map(|last| [10, 0, 1, last].into());
    group.zones.wan[0].up = moment.up;
    for number in 1..moment.lans {
        let mut lan = group.zones.lan[0].clone();
        lan.name = format!("lan{number}");
        group.zones.lan.push(lan);
    }
    if moment.excluded {
        group.exclude.push(selector("172.16.1.9", "any"));
    }
    group.slot = moment.slot;
    group.options = policies::GroupOptions {
        mode: moment.mode,
        failure: moment.failure,
        counter_mode_send: true,
        ..policies::GroupOptions::at_slot(moment.slot)
    };
    group
}

proptest! {
    // What a shape leaves out shows only where two moments differ in that alone.
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_compiled_before_makes_no_difference(
        moments in prop::collection::vec(moment(), 1..4),
        order in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..3, 0_u8..10, any::<Option<[bool; 2]>>()), 1..16),
    ) {
        let keys = [cbc_keys(), keys(20, 0), keys(16, 0)];
        let mut compiler = Compiler::default();
        for (index, shift, other, second) in order {
            let mut moment = index.get(&moments).clone();
            // Or nearly the same moment: one thing is different.
            if let Some(line) = moment.lines.first_mut() {
                match other {
                    1 => line.spi = 0x1303,
                    2 => line.selector = (line.selector + 1) % 3,
                    3 => line.direction = line.direction % 3 + 1,
                    4 => line.receive = !line.receive,
                    5 => line.send = !line.send,
                    _ => {}
                }
            }
            // The same lines with other SPIs are what it remembers.
            moment.lines.iter_mut().for_each(|line| line.spi += 0x100 * shift);
            let teks: Vec<_> = moment.lines.iter().map(tek_of).collect();
            let others = [tek(0x2300 + shift, "10.77.0.0/16", "10.77.0.0/16")];
            let groups = || {
                let mut both = vec![group(&moment, &teks, &keys)];
                if let Some([receive, send]) = second {
                    both.push(policies::GroupInput {
                        name: "others",
                        group: gdoi::group::GroupId(2222),
                        slot: 5,
                        options: policies::GroupOptions::at_slot(5),
                        ..g1(GroupState::Keyed(generation(&others, &keys[0], receive, send)))
                    });
                }
                both
            };
            let fresh = compile(&groups());
            let remembered = compiler.compile(&groups());
            prop_assert_eq!(remembered.map_err(|error| error.to_string()), fresh.map_err(|error| error.to_string()));
        }
    }
}

#[test]
fn a_rekey_changes_states_and_sets_alone() {
    let keys = cbc_keys();
    let lines = |spi| [tek(spi, "172.16.0.0/12", "172.16.0.0/12")];
    let teks: Vec<_> = (0x1300..0x1308).map(lines).collect();
    let mut compiler = Compiler::default();
    for pair in teks.windows(2) {
        let [old, new] = pair else { panic!() };
        let moments = |send_on_new: bool| {
            let (first, second) = if send_on_new { (new, old) } else { (old, new) };
            let mut lines = generation(first, &keys, true, true);
            lines.extend(generation(second, &keys, true, false));
            GroupState::Keyed(lines)
        };
        for state in [moments(false), moments(true), keyed(new, &keys)] {
            let desired = compiler.compile(&[g1(state)]).unwrap();
            let inbound: Vec<_> =
                desired.sas.values().filter(|sa| sa.role == SaRole::Inbound).collect();
            let preserved = &desired.preservation.as_ref().unwrap().groups[&[192, 0, 2, 1].into()];
            assert!(preserved.inbound_spis.iter().copied().eq(inbound.iter().map(|sa| sa.id.spi)));
            assert!(preserved.inbound_spis.contains(&new[0].spi));
        }
    }
}

/// Without an address there are no states, and nobody asks for lanes that would not suffice.
#[test]
fn more_teks_than_lanes_matter_only_with_an_address() {
    let keys = cbc_keys();
    let teks: Vec<_> =
        (0..129).map(|n| tek(0x1300 + n, &format!("10.0.{n}.0/24"), "10.9.0.0/16")).collect();
    let mut compiler = Compiler::default();
    for local in [None, None, Some([10, 0, 1, 1].into()), None] {
        let groups = || {
            let mut group = g1(keyed(&teks, &keys));
            group.zones.local = local;
            [group]
        };
        let fresh = compile(&groups()).map_err(|error| error.to_string());
        assert_eq!(fresh.is_ok(), local.is_none());
        assert_eq!(compiler.compile(&groups()).map_err(|error| error.to_string()), fresh);
    }
}
