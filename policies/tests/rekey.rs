//! What a rekey changes of the desired state.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

mod support;

use policies::{GroupState, compile};
use support::*;
use xfrm::model::SaRole;

#[test]
fn a_rekey_changes_states_and_sets_alone() {
    let keys = cbc_keys();
    let sa_teks = |spi| [tek(spi, "172.16.0.0/12", "172.16.0.0/12")];
    let teks: Vec<_> = (0x1300..0x1308).map(sa_teks).collect();
    let first = compile(&[g1(keyed(&teks[0], &keys))]).unwrap();
    for pair in teks.windows(2) {
        let [old, new] = pair else { panic!() };
        let moments = |send_on_new: bool| {
            let (first, second) = if send_on_new { (new, old) } else { (old, new) };
            let mut sa_teks = generation(first, &keys, true, true);
            sa_teks.extend(generation(second, &keys, true, false));
            GroupState::Keyed(sa_teks)
        };
        for state in [moments(false), moments(true), keyed(new, &keys)] {
            let desired = compile(&[g1(state)]).unwrap();
            assert_eq!((&desired.policies, &desired.routes), (&first.policies, &first.routes));
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
    for local in [None, Some([10, 0, 1, 1].into())] {
        let mut group = g1(keyed(&teks, &keys));
        group.zones.local = local;
        assert_eq!(compile(&[group]).is_ok(), local.is_none());
    }
}
