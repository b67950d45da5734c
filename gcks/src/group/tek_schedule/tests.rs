//! TEKs from generation to replacement, on a virtual clock.

use std::collections::BTreeSet;

use gdoi::group::{AddressRange, GroupId, TrafficSelector};
use ike::crypto::SeededRng;

use super::*;
use crate::config;
use crate::config::rekey_timing::{is_short, lead, margin};
use crate::group::key_generation::OsEntropy;

macro_rules! source {
    () => {
        KeySource {
            rng: &mut SeededRng::from_seed([7; 32]),
            entropy: &mut OsEntropy,
            foreign_spis: BTreeSet::new(),
        }
    };
}

fn at(seconds: u64) -> BootTime {
    BootTime::new(Duration::from_secs(seconds))
}

fn group(lifetimes: &[u64]) -> Group {
    let any = TrafficSelector {
        protocol: 0,
        source: AddressRange::Any,
        source_port: 0,
        destination: AddressRange::Any,
        destination_port: 0,
    };
    let template = |seconds: &u64| config::TekTemplate {
        selectors: vec![any, TrafficSelector { protocol: 6, ..any }],
        encryption: crate::config::tek_algorithm::ENCRYPTIONS[2],
        integrity: Some(crate::config::tek_algorithm::INTEGRITIES[1]),
        direction: gdoi::group::SaDirection::SYMMETRIC,
        mode: gdoi::group::EncapsulationMode::TUNNEL,
        address_preservation: gdoi::group::AddressPreservation::SOURCE_AND_DESTINATION,
        lifetime: Duration::from_secs(*seconds),
    };
    Group {
        name: String::from("g"),
        id: GroupId(1),
        teks: lifetimes.iter().map(template).collect(),
        gap: gdoi::group::GroupAssociatedPolicy::default(),
        sender_id_bits: 16,
        rekey: None,
        interoperability: crate::config::Interoperability::default(),
        member_threshold: None,
        cluster: None,
    }
}

fn pull(schedule: &mut TekSchedule, now: BootTime) -> Distribution {
    schedule.handle_timeout(now);
    let prepared = schedule.prepare(Renewal::Margin, false, now, &mut source!()).unwrap();
    schedule.commit(prepared, None);
    schedule.distribute(None, false, now)
}

#[test]
fn margins() {
    for (life, expected) in [(86_400, 4320), (3600, 180), (1200, 60), (120, 60), (60, 30)] {
        assert_eq!(margin(Duration::from_secs(life)), Duration::from_secs(expected), "{life}");
    }
}

#[test]
fn everybody_gets_the_same_tek_with_the_lifetime_it_has_left() {
    let mut schedule = TekSchedule::new(&group(&[3600]));
    let first = pull(&mut schedule, at(1000));
    assert_eq!(first.teks.len(), 2);
    assert_eq!(first.teks[0].spi, first.teks[1].spi);
    assert_eq!(first.teks[0].protection.lifetime, Duration::from_secs(3600));
    let second = pull(&mut schedule, at(2000) + Duration::from_millis(1));
    assert_eq!(second.keys, first.keys);
    // Rounded down.
    assert_eq!(second.teks[0].protection.lifetime, Duration::from_secs(2599));
}

#[test]
fn a_tek_within_its_margin_is_replaced_and_remembered_until_its_end() {
    let mut schedule = TekSchedule::new(&group(&[3600]));
    let first = pull(&mut schedule, at(0));
    assert_eq!(pull(&mut schedule, at(3419)).keys, first.keys);
    let next = pull(&mut schedule, at(3420));
    let (old, new) = (first.teks[0].spi, next.teks[0].spi);
    assert_ne!(old, new);
    assert_ne!(next.keys[&new], first.keys[&old]);
    assert_eq!(next.teks[0].protection.lifetime, Duration::from_secs(3600));
    assert!(schedule.uses(old) && schedule.uses(new));
    assert_eq!(schedule.poll_timeout(), Some(at(3600)));
    schedule.handle_timeout(at(3600));
    assert!(!schedule.uses(old) && schedule.uses(new));
    assert_eq!((next.first_end, next.last_end), (at(7020), at(7020)));
}

#[test]
fn every_sa_has_its_own_tek_and_its_own_lifetime() {
    let mut schedule = TekSchedule::new(&group(&[3600, 600]));
    let first = pull(&mut schedule, at(0));
    let spis: Vec<Spi> = first.teks.iter().map(|tek| tek.spi).collect();
    assert_eq!(spis[0], spis[1]);
    assert_eq!(spis[2], spis[3]);
    assert_ne!(spis[0], spis[2]);
    assert_eq!((first.first_end, first.last_end), (at(600), at(3600)));
    let later = pull(&mut schedule, at(550));
    assert_eq!(later.teks[0].spi, spis[0]);
    assert_ne!(later.teks[2].spi, spis[2]);
}

#[test]
fn keys_of_an_ended_tek_are_gone() {
    let mut schedule = TekSchedule::new(&group(&[60]));
    pull(&mut schedule, at(0));
    schedule.handle_timeout(at(60));
    assert_eq!(schedule.lifetimes().count(), 0);
    assert!(schedule.distribute(None, false, at(60)).keys.is_empty());
}

#[test]
fn spis_of_other_groups_are_avoided() {
    let mut schedule = TekSchedule::new(&group(&[60]));
    let mut entropy = crate::group::key_generation::tests::Counting(1);
    // The first SPI drawn would be 01020304.
    let mut source = KeySource {
        rng: &mut SeededRng::from_seed([7; 32]),
        entropy: &mut entropy,
        foreign_spis: BTreeSet::from([0x0102_0304]),
    };
    let prepared = schedule.prepare(Renewal::Margin, false, at(0), &mut source).unwrap();
    schedule.commit(prepared, None);
    assert_eq!(schedule.lifetimes().next().unwrap().1.spi, 0x0506_0708);
}

#[test]
fn a_push_comes_before_the_members_do() {
    let rekey = crate::group::kek::tests::rekey(crate::config::Transport::Unicast);
    let lead = lead(&rekey, Duration::from_secs(10));
    // Two repetitions of 10 s, the activation delay, and 15 s for acknowledgements.
    assert_eq!(lead, Duration::from_secs(45));
    let mut schedule = TekSchedule::new(&group(&[3600]));
    let prepared = schedule.prepare(Renewal::Margin, true, at(0), &mut source!()).unwrap();
    let old = schedule.commit(prepared, None)[0];
    assert_eq!(schedule.next_push(lead), Some(at(3600 - 180 - 45)));
    let due = |schedule: &TekSchedule, now| {
        !schedule.prepare(Renewal::Ahead(lead), true, now, &mut source!()).unwrap().is_empty()
    };
    assert!(!due(&schedule, at(3374)) && due(&schedule, at(3375)));
    let prepared = schedule.prepare(Renewal::Ahead(lead), true, at(3375), &mut source!()).unwrap();
    assert_ne!(schedule.distribute(Some(&prepared), false, at(3375)).teks[0].spi, old.spi);
    assert_eq!(
        schedule.distribute(None, false, at(3375)).teks[0].spi,
        old.spi,
        "nobody has it yet"
    );
    let new = schedule.commit(prepared, Some(at(3385)))[0];
    // Until the activation delay, who joins begins with the old one and gets the push.
    assert!(schedule.is_pending(at(3384)) && !schedule.is_pending(at(3385)));
    assert_eq!(schedule.distribute(None, true, at(3380)).teks[0].spi, old.spi);
    assert_eq!(schedule.distribute(None, false, at(3380)).teks[0].spi, new.spi);
    assert_eq!(schedule.poll_timeout(), Some(at(3385)));
    schedule.handle_timeout(at(3385));
    assert_eq!(
        schedule.distribute(None, true, at(3385)).teks[0].spi,
        new.spi,
        "the old keys are wiped"
    );
    assert_eq!(schedule.lifetimes().count(), 2);
    assert!(is_short(Duration::from_secs(100), lead) && !is_short(Duration::from_secs(300), lead));
}

#[test]
fn the_members_of_a_tek_from_before_pushes_come_for_the_next() {
    let mut schedule = TekSchedule::new(&group(&[3600]));
    pull(&mut schedule, at(0));
    let lead = Duration::from_secs(45);
    assert_eq!(schedule.next_push(lead), None);
    let wanted = |now| schedule.prepare(Renewal::Unpushed, true, now, &mut source!()).unwrap();
    assert!(wanted(at(3419)).is_empty() && !wanted(at(3420)).is_empty());
}
