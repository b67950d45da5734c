//! A TEK that ends before the others of its group SA, and a rekey of a group with many traffic
//! selectors.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

mod support;

use policies::precedence::SELECTORS_PER_GROUP;
use policies::{GroupState, compile};
use support::*;
use xfrm::model::{Action, Direction, SaRole};

#[test]
fn a_tek_that_has_ended_alone_closes_its_selectors_and_moves_no_other() {
    // Outside of the protected prefixes: nothing else blocks it.
    let teks = [
        tek(0x1300, "10.8.0.0/16", "10.9.0.0/16"),
        gcm(tek(0x1301, "172.16.0.0/12", "172.16.0.0/12")),
    ];
    let (cbc, gcm) = (cbc_keys(), keys(20, 0));
    let state = |ended: bool| {
        let mut sa_teks = generation(&teks[..1], &cbc, !ended, !ended);
        sa_teks.extend(generation(&teks[1..], &gcm, true, true));
        let mut group = g1(GroupState::Keyed(sa_teks));
        group.options.counter_mode_send = true;
        compile(&[group]).unwrap()
    };
    let (before, after) = (state(false), state(true));
    assert!(after.sas.values().all(|sa| sa.id.spi == 0x1301));
    assert_eq!(before.policies, after.policies);
    let outbound = |desired: &xfrm::Desired| {
        desired
            .sas
            .values()
            .find(|sa| sa.role == SaRole::Outbound && sa.id.spi == 0x1301)
            .unwrap()
            .reqid
    };
    assert_eq!(outbound(&before), outbound(&after));
    let closed = after.policies.values().filter(|policy| {
        policy.id.direction == Direction::Out
            && policy.id.selector.interface.is_none()
            && policy.id.selector.source == "10.8.0.0/16".parse().unwrap()
    });
    assert!(
        closed.clone().count() > 0 && closed.clone().all(|policy| policy.action != Action::Allow)
    );
}

#[test]
fn a_group_with_all_its_selectors_in_use_can_be_rekeyed() {
    let sa_teks = |spi: u32| -> Vec<_> {
        let sa_tek =
            |n: usize| tek(spi, &format!("172.{}.{}.0/24", 16 + n / 256, n % 256), "172.31.0.0/24");
        (0..SELECTORS_PER_GROUP).map(sa_tek).collect()
    };
    let (old, new, keys) = (sa_teks(0x1300), sa_teks(0x1301), cbc_keys());
    let mut both = generation(&new, &keys, true, true);
    both.extend(generation(&old, &keys, true, false));
    let (rekeying, settled) = (
        compile(&[g1(GroupState::Keyed(both))]).unwrap(),
        compile(&[g1(keyed(&new, &keys))]).unwrap(),
    );
    assert_eq!((rekeying.sas.len(), settled.sas.len()), (3, 2));
    assert_eq!(rekeying.policies, settled.policies);
}
