//! KeyGenerations on a virtual clock.

use gdoi::group::{
    AddressPreservation, AddressRange, AuthenticationAlgorithm, EncapsulationMode, EspTransform,
    GroupAssociatedPolicy, GroupId, GroupPolicy, SaDirection, TekProtection, TekProtocol,
    TrafficSelector,
};
use ike::crypto::Secret;

use super::*;

pub(super) fn at(seconds: u64) -> BootTime {
    BootTime::new(Duration::from_secs(seconds))
}

/// TEKs for traffic of their own, by their place: SPI and lifetime; and the delays.
fn sa(teks: &[(Spi, u64)], delays: (Option<u64>, Option<u64>)) -> GroupSa {
    let teks: Vec<_> =
        teks.iter().zip(1..).map(|(&(spi, life), place)| (spi, life, place)).collect();
    sa_for(&teks, delays)
}

/// TEKs for the same traffic.
pub(super) fn overlapping(teks: &[(Spi, u64)], delays: (Option<u64>, Option<u64>)) -> GroupSa {
    let teks: Vec<_> = teks.iter().map(|&(spi, life)| (spi, life, 1)).collect();
    sa_for(&teks, delays)
}

/// SPI, lifetime and IP protocol of each TEK.
fn sa_for(teks: &[(Spi, u64, u8)], delays: (Option<u64>, Option<u64>)) -> GroupSa {
    let policy = |(spi, lifetime, protocol): &(Spi, u64, u8)| TekPolicy {
        spi: *spi,
        selector: TrafficSelector {
            protocol: *protocol,
            source: AddressRange::Any,
            source_port: 0,
            destination: AddressRange::Any,
            destination_port: 0,
        },
        protection: TekProtection {
            protocol: TekProtocol::ESP,
            transform: EspTransform::AES_CBC,
            key_length: Some(128),
            authentication: Some(AuthenticationAlgorithm::HMAC_SHA2_256),
            mode: EncapsulationMode::TUNNEL,
            address_preservation: AddressPreservation::SOURCE_AND_DESTINATION,
            direction: SaDirection::SYMMETRIC,
            lifetime: Duration::from_secs(*lifetime),
            lifetime_kilobytes: None,
        },
    };
    let keys = |spi: Spi| TekKeys {
        encryption: Secret::copy_from(&spi.to_be_bytes().repeat(4)),
        integrity: Secret::copy_from(&spi.to_be_bytes().repeat(8)),
    };
    GroupSa::from_kernel(
        GroupPolicy {
            group: GroupId(1),
            kek: None,
            gap: GroupAssociatedPolicy {
                activation_time_delay: delays.0.map(Duration::from_secs),
                deactivation_time_delay: delays.1.map(Duration::from_secs),
            },
            teks: teks.iter().map(policy).collect(),
        },
        teks.iter().map(|(spi, ..)| (*spi, keys(*spi))).collect(),
    )
}

/// SPI and whether it is sent on, in the order of the SA TEKs.
fn active(generations: &KeyGenerations, seconds: u64) -> Vec<(Spi, bool)> {
    let sa_teks = generations.active(at(seconds));
    sa_teks
        .iter()
        .filter(|sa_tek| sa_tek.receive)
        .map(|sa_tek| (sa_tek.policy.spi, sa_tek.send))
        .collect()
}

#[test]
fn a_selector_whose_key_ended_before_others_keeps_its_place_and_stays_known() {
    let mut generations = KeyGenerations::default();
    generations.add(sa(&[(1, 50), (2, 100)], (None, None)), at(0));
    let flags: Vec<_> = generations
        .active(at(50))
        .iter()
        .map(|sa_tek| (sa_tek.policy.spi, sa_tek.receive, sa_tek.send))
        .collect();
    assert_eq!(flags, [(1, false, false), (2, true, true)]);
    assert_eq!(generations.teks(at(50)).len(), 1);
    // The same key again, with a longer lifetime: it is used where it came last.
    generations.add(sa(&[(1, 500), (3, 500)], (Some(10), None)), at(60));
    assert_eq!(active(&generations, 60), [(2, true), (1, false), (3, false)]);
    assert_eq!(generations.active(at(60)).len(), 3);
}

#[test]
fn a_group_sa_that_is_given_back_leaves_the_selectors_before_it() {
    let mut generations = KeyGenerations::default();
    generations.add(sa(&[(1, 100)], (None, None)), at(0));
    generations.add(sa(&[(2, 100), (3, 100)], (None, None)), at(10));
    generations.take_latest();
    assert_eq!(generations.sa_teks().iter().map(|sa_tek| sa_tek.spi).collect::<Vec<_>>(), [1]);
}

#[test]
fn the_first_generation_is_sent_on_at_once_whatever_its_activation_delay() {
    let mut generations = KeyGenerations::default();
    assert_eq!(
        generations.add(sa(&[(1, 100), (2, 50)], (Some(10), Some(30))), at(0)),
        Some(at(50))
    );
    assert_eq!(active(&generations, 0), [(1, true), (2, true)]);
    assert_eq!(active(&generations, 50), [(1, true)]);
    assert_eq!(active(&generations, 100), []);
    assert!(generations.is_empty(at(100)) && !generations.is_empty(at(99)));
}

#[test]
fn a_key_replaced_early_goes_by_the_delays() {
    let mut generations = KeyGenerations::default();
    generations.add(sa(&[(1, 3_600)], (None, None)), at(0));
    generations.add(sa(&[(2, 3_600)], (Some(10), Some(30))), at(1_000));
    assert_eq!(active(&generations, 1_000), [(1, true), (2, false)]);
    assert_eq!(generations.poll_timeout(at(1_000)), Some(at(1_010)));
    assert_eq!(active(&generations, 1_010), [(2, true), (1, false)]);
    assert_eq!(generations.poll_timeout(at(1_010)), Some(at(1_030)));
    assert_eq!(active(&generations, 1_030), [(2, true)]);
}

#[test]
fn without_delays_an_early_replacement_is_sent_on_at_once_and_the_old_key_lives_out() {
    let mut generations = KeyGenerations::default();
    generations.add(sa(&[(1, 3_600)], (None, None)), at(0));
    generations.add(sa(&[(2, 3_600)], (None, None)), at(1_000));
    assert_eq!(active(&generations, 1_000), [(2, true), (1, false)]);
    assert_eq!(active(&generations, 3_599), [(2, true), (1, false)]);
    assert_eq!(active(&generations, 3_600), [(2, true)]);
}

#[test]
fn within_the_margin_everybody_gets_time_to_pull_before_anybody_sends() {
    // Margin of an hour: 180 s. Sending on the new key begins 90 s before the old one's end, for
    // the first member that pulls as for the last.
    for (pulled, send_from) in [(3_420, 3_510), (3_480, 3_510), (3_550, 3_560)] {
        let mut generations = KeyGenerations::default();
        generations.add(sa(&[(1, 3_600)], (None, None)), at(0));
        generations.add(sa(&[(2, 3_600)], (Some(10), None)), at(pulled));
        assert_eq!(
            active(&generations, send_from - 1),
            [(1, true), (2, false)],
            "pulled at {pulled}"
        );
        assert_eq!(active(&generations, send_from), [(2, true), (1, false)], "pulled at {pulled}");
    }
}

#[test]
fn no_activation_delay_outlives_the_old_key() {
    let mut generations = KeyGenerations::default();
    generations.add(sa(&[(1, 100)], (None, None)), at(0));
    generations.add(sa(&[(2, 3_600)], (Some(1_000), None)), at(90));
    assert_eq!(active(&generations, 99), [(1, true), (2, false)]);
    assert_eq!(active(&generations, 100), [(2, true)]);
}

#[test]
fn the_same_keys_again_only_change_their_end() {
    let mut generations = KeyGenerations::default();
    generations.add(sa(&[(1, 3_600)], (None, None)), at(0));
    assert_eq!(
        generations.add(sa(&[(1, 2_600)], (Some(10), Some(10))), at(1_000)),
        Some(at(3_600))
    );
    assert_eq!(active(&generations, 1_000), [(1, true)]);
    assert_eq!(generations.poll_timeout(at(1_000)), Some(at(3_600)));
}

#[test]
fn a_key_in_two_generations_is_listed_once() {
    let mut generations = KeyGenerations::default();
    generations.add(sa(&[(1, 3_600), (2, 3_600)], (None, None)), at(0));
    generations.add(sa(&[(1, 3_500), (3, 3_600)], (Some(10), Some(30))), at(100));
    assert_eq!(active(&generations, 100), [(1, true), (2, true), (3, false)]);
    assert_eq!(active(&generations, 110), [(1, true), (3, true), (2, false)]);
    assert_eq!(active(&generations, 130), [(1, true), (3, true)]);
    assert_eq!(generations.teks(at(130)).len(), 2);
}

#[test]
fn a_second_replacement_before_the_first_was_activated_overtakes_it() {
    let mut generations = KeyGenerations::default();
    generations.add(sa(&[(1, 3_600)], (None, None)), at(0));
    generations.add(sa(&[(2, 3_600)], (Some(100), None)), at(1_000));
    generations.add(sa(&[(3, 3_600)], (Some(10), None)), at(1_050));
    assert_eq!(active(&generations, 1_050), [(1, true), (3, false), (2, false)]);
    assert_eq!(active(&generations, 1_060), [(3, true), (2, false), (1, false)]);
    assert_eq!(active(&generations, 1_100), [(3, true), (2, false), (1, false)]);
}

#[test]
fn a_timeout_tells_whether_something_changed() {
    let mut generations = KeyGenerations::default();
    generations.add(sa(&[(1, 100)], (None, None)), at(0));
    generations.add(sa(&[(2, 200)], (Some(10), None)), at(0));
    for (seconds, changed) in
        [(0, false), (9, false), (10, true), (10, false), (99, false), (100, true), (200, true)]
    {
        assert_eq!(generations.handle_timeout(at(seconds)), changed, "{seconds}");
    }
    assert_eq!(generations.poll_timeout(at(200)), None);
    assert_eq!(generations.sa_teks().len(), 1, "what was protected is still known");
}

#[test]
fn of_several_teks_for_the_same_traffic_the_one_that_lasts_longest_is_sent_on() {
    let mut generations = KeyGenerations::default();
    let teks = overlapping(&[(1, 66), (2, 3_600), (3, 96)], (None, None));
    assert_eq!(generations.add(teks, at(0)), Some(at(3_600)), "nothing is needed before");
    assert_eq!(active(&generations, 0), [(2, true), (1, false), (3, false)]);
    assert_eq!(active(&generations, 66), [(2, true), (3, false)]);
    assert_eq!(active(&generations, 96), [(2, true)]);
    assert_eq!(generations.first_end(at(96)), Some(at(3_600)));
}

#[test]
fn before_its_activation_the_key_that_others_have_is_sent_on() {
    let mut generations = KeyGenerations::default();
    generations.add(overlapping(&[(1, 66), (2, 3_600)], (Some(10), Some(30))), at(0));
    assert_eq!(active(&generations, 9), [(1, true), (2, false)]);
    assert_eq!(generations.poll_timeout(at(0)), Some(at(10)));
    assert!(!generations.handle_timeout(at(9)));
    assert!(generations.handle_timeout(at(10)));
    assert_eq!(active(&generations, 10), [(2, true), (1, false)]);
    // Nor is it waited for when the other one ends before.
    let mut generations = KeyGenerations::default();
    generations.add(overlapping(&[(1, 5), (2, 3_600)], (Some(10), None)), at(0));
    assert_eq!(active(&generations, 5), [(2, true)]);
}

#[test]
fn a_push_that_states_the_old_key_beside_the_new_one_goes_by_the_delays() {
    let mut generations = KeyGenerations::default();
    generations.add(sa(&[(1, 3_600)], (None, None)), at(0));
    let stated = overlapping(&[(1, 2_600), (2, 3_600)], (Some(10), Some(30)));
    let merged = generations.merged(stated, &[]);
    generations.push(Some(merged), &[], at(1_000));
    assert_eq!(active(&generations, 1_000), [(1, true), (2, false)]);
    assert_eq!(active(&generations, 1_010), [(2, true), (1, false)]);
    assert_eq!(active(&generations, 1_040), [(2, true), (1, false)], "it is stated until its end");
    assert_eq!(generations.first_end(at(1_040)), Some(at(4_600)));
    assert_eq!(active(&generations, 3_600), [(2, true)]);
    // The same again in a pull changes nothing.
    generations.add(overlapping(&[(1, 500), (2, 1_500)], (Some(10), Some(30))), at(3_100));
    assert_eq!(active(&generations, 3_100), [(2, true), (1, false)]);
}

#[test]
fn when_the_key_that_is_sent_on_is_deleted_the_next_one_takes_over() {
    let mut generations = KeyGenerations::default();
    generations.add(overlapping(&[(1, 600), (2, 3_600)], (None, None)), at(0));
    assert_eq!(active(&generations, 0), [(2, true), (1, false)]);
    generations.push(None, &[Deletion::Tek(TekProtocol::ESP, 2)], at(100));
    assert_eq!(active(&generations, 100), [(1, true)]);
    assert_eq!(generations.first_end(at(100)), Some(at(600)));
}

#[test]
fn concurrent_keys_keep_the_place_of_the_first() {
    let teks = [(1, 50, 6), (7, 900, 17), (2, 900, 6)];
    let mut generations = KeyGenerations::default();
    generations.add(sa_for(&teks, (None, None)), at(0));
    assert_eq!(active(&generations, 0), [(2, true), (7, true), (1, false)]);
    assert_eq!(active(&generations, 50), [(2, true), (7, true)]);
    let places: Vec<_> =
        generations.active(at(50)).iter().map(|sa_tek| sa_tek.policy.selector.protocol).collect();
    assert_eq!(places, [6, 17]);
}
