//! The same over networks that lose, repeat and reorder.

use core::time::Duration;

use proptest::prelude::*;

use super::Net;

/// What becomes of a datagram: lost, delivered once or several times, each after a while.
fn fate() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![
        2 => Just(vec![]),
        6 => (1_u64..40).prop_map(|delay| vec![delay]),
        2 => (1_u64..40, 1_u64..3000).prop_map(|(one, two)| vec![one, two]),
        1 => (800_u64..2500).prop_map(|delay| vec![delay]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the network does for a while: once it works again, asking as often as a tunnel does
    /// leads to pairs on which both sides agree.
    #[test]
    fn both_sides_come_to_agree(
        fate in prop::collection::vec(fate(), 1..12),
        begins in prop_oneof![Just([true, false]), Just([false, true]), Just([true, true])],
    ) {
        let mut net = Net::fitting(2).with_fate(fate);
        for _ in 0..4 {
            ask(&mut net, begins);
            net.run(Duration::from_secs(30));
        }
        net.fate = vec![vec![1]];
        net.run(Duration::from_secs(120));
        for _ in 0..2 {
            ask(&mut net, begins);
            net.run(Duration::from_secs(60));
        }
        prop_assert!(net.agrees(0) && net.agrees(1));
    }

    /// A pair that one side may send on is always one that the other side receives on, whatever
    /// the network does.
    #[test]
    fn nobody_sends_on_what_the_other_does_not_receive(
        fate in prop::collection::vec(fate(), 1..12),
    ) {
        let mut net = Net::fitting(1).with_fate(fate);
        net.negotiate(0, 0);
        for _ in 0..60 {
            net.run(Duration::from_millis(500));
            let [one, two] = &net.sides;
            for (ours, theirs) in [(one, two), (two, one)] {
                for pair in ours.sends(0) {
                    let received = theirs.pairs.get(&pair.outbound.spi);
                    // The responder gives up what was never confirmed to it.
                    let given_up = received.is_none() && ours.peer.established() > 0;
                    prop_assert!(given_up || received.is_some_and(|other| other.1.inbound == pair.outbound));
                }
            }
        }
    }
}

/// Asks for what a side does not have, as the layer above does.
fn ask(net: &mut Net, begins: [bool; 2]) {
    for side in (0..2).filter(|side| begins[*side]) {
        for child in 0..2 {
            let lacks = net.sides[side].sends(child).is_empty();
            if lacks || !net.agrees(child) {
                net.negotiate(side, child);
            }
        }
    }
}
