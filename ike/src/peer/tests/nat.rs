//! Two peers with address translation in front of the first (RFC 3947, RFC 3948).

use core::time::Duration;

use super::*;
use crate::phase1::nat_traversal::{KEEP_ALIVE, MARKER, NAT_PORT};
use crate::quick::Mode;

const OUTSIDE: u8 = 77;

/// The first side behind a translation; the second knows it by the outer address.
fn translated() -> Net {
    let (one, mut two) = (config(1, 2, "key", 1), config(2, 1, "key", 1));
    two.address.remote = address(OUTSIDE);
    let mut net = Net::new(one, two);
    net.nat = Some(Translation::new(OUTSIDE, 1024));
    net
}

fn is_encapsulated(net: &Net) -> bool {
    let pairs = net.sides.iter().flat_map(|side| side.sends(0));
    pairs.map(|pair| pair.encapsulated).collect::<Vec<_>>() == [true, true]
}

#[test]
fn behind_a_translation_everything_moves_to_port_4500_with_message_5() {
    let mut net = translated();
    net.negotiate(0, 0);
    net.run(Duration::from_secs(10));
    assert!(net.agrees(0) && is_encapsulated(&net));
    let ports: Vec<u16> = net
        .seen
        .iter()
        .map(|(source, to, _)| match source.port() {
            500 | NAT_PORT => source.port(),
            _ => to.port(),
        })
        .collect();
    assert_eq!(ports[..6], [500, 500, 500, 500, NAT_PORT, NAT_PORT], "main mode");
    assert!(ports[6..].iter().all(|port| *port == NAT_PORT), "quick mode");
    for (_, _, octets) in net.seen.iter().skip(4) {
        assert!(octets.starts_with(&MARKER));
    }
    let nat = |side: usize| net.sides[side].peer.keyed_sa().and_then(|sa| sa.nat()).unwrap();
    assert!(nat(0).here && !nat(0).peer && !nat(1).here && nat(1).peer);
}

#[test]
fn without_translation_everything_stays_as_it_is() {
    let mut net = Net::fitting(1);
    net.negotiate(0, 0);
    net.run(Duration::from_secs(300));
    assert!(net.agrees(0) && !net.sides[0].sends(0)[0].encapsulated);
    assert!(net.seen.iter().all(|(source, to, _)| source.port() == 500 && to.port() == 500));
    let nat = net.sides[0].peer.keyed_sa().and_then(|sa| sa.nat()).unwrap();
    assert!(!nat.is_found());
}

/// Where ESP does not pass, it is enough that one side says so.
#[test]
fn encapsulation_may_be_demanded_without_translation() {
    for side in 0..2 {
        let mut configs = [config(1, 2, "key", 1), config(2, 1, "key", 1)];
        configs[side].nat = NatTraversal::Always;
        let [one, two] = configs;
        let mut net = Net::new(one, two);
        net.negotiate(0, 0);
        net.run(Duration::from_secs(10));
        assert!(net.agrees(0) && is_encapsulated(&net), "{side}");
    }
}

#[test]
fn a_side_that_does_not_look_for_translation_is_met() {
    for side in 0..2 {
        let mut configs = [config(1, 2, "key", 1), config(2, 1, "key", 1)];
        configs[side].nat = NatTraversal::Off;
        let [one, two] = configs;
        let mut net = Net::new(one, two);
        net.negotiate(0, 0);
        net.run(Duration::from_secs(10));
        assert!(net.agrees(0) && !net.sides[0].sends(0)[0].encapsulated, "{side}");
        assert_eq!(net.sides[0].peer.keyed_sa().and_then(|sa| sa.nat()), None);
    }
}

#[test]
fn who_is_behind_a_translation_keeps_it_alive() {
    let mut net = translated();
    net.negotiate(0, 0);
    net.run(Duration::from_secs(10));
    net.seen.clear();
    net.run(Duration::from_secs(100));
    let alive: Vec<_> = net.seen.iter().filter(|(.., octets)| octets == &KEEP_ALIVE).collect();
    assert_eq!(alive.len(), 5, "one in twenty seconds");
    assert!(
        alive
            .iter()
            .all(|(source, to, _)| source.ip() == address(OUTSIDE).ip() && to.port() == NAT_PORT)
    );
}

/// A translation that was started again gives other ports: the outer side follows what is fresh and
/// authentic.
#[test]
fn the_outer_side_follows_to_another_port() {
    let mut net = translated();
    net.negotiate(0, 0);
    net.run(Duration::from_secs(10));
    let before = net.seen.last().map(|(source, ..)| *source);
    net.nat.as_mut().unwrap().forget();
    // The next question of dead peer detection, from either side, and what it says.
    net.run(Duration::from_secs(90));
    let moved = net.sides[1].events.iter().find_map(|event| match event {
        PeerEvent::Moved { from, to, .. } => Some((from.remote, to.remote)),
        _ => None,
    });
    let (from, to) = moved.unwrap();
    assert!(before.is_some_and(|before| before == from || before.port() == NAT_PORT));
    assert_eq!(from.ip(), to.ip());
    assert_ne!(from.port(), to.port());
    assert!(
        !net.sides
            .iter()
            .any(|side| { side.events.iter().any(|event| matches!(event, PeerEvent::Dead)) })
    );
    net.negotiate(1, 0);
    net.run(Duration::from_secs(10));
    assert!(net.agrees(0), "the outer side reaches the other at its new port");
}

/// Nothing moves by what anybody may have recorded.
#[test]
fn copies_and_noise_from_elsewhere_move_nobody() {
    let mut net = translated();
    net.negotiate(0, 0);
    net.run(Duration::from_secs(30));
    let elsewhere = SocketAddr::from(([198, 51, 100, 1], NAT_PORT));
    let local = SocketAddr::new(address(2).ip(), NAT_PORT);
    let to_two: Vec<Vec<u8>> = net
        .seen
        .iter()
        .filter(|(_, to, _)| to.ip() == local.ip())
        .map(|(.., octets)| octets.clone())
        .collect();
    assert!(to_two.len() > 4);
    let now = net.now;
    for octets in &to_two {
        for end in [octets.len(), octets.len() - 1] {
            let _ = net.sides[1].peer.handle_datagram(elsewhere, local, &octets[..end], now);
        }
    }
    net.collect();
    assert!(!net.seen.iter().any(|(_, to, _)| *to == elsewhere), "nobody answers there");
    assert!(!net.sides[1].events.iter().any(|event| matches!(event, PeerEvent::Moved { .. })));
}

/// An ISAKMP SA that takes the place of another begins where that one is: behind a translation the
/// peer is nowhere else.
#[test]
fn the_outer_side_renews_phase_1() {
    let mut net = translated();
    net.negotiate(0, 0);
    net.run(Duration::from_secs(10));
    net.seen.clear();
    let now = net.now;
    net.sides[1].peer.connect(now);
    net.collect();
    net.run(Duration::from_secs(10));
    assert_eq!(net.sides.each_ref().map(|side| side.peer.established()), [2, 2]);
    assert!(
        net.seen.iter().all(|(_, _, octets)| octets.starts_with(&MARKER) || octets == &KEEP_ALIVE)
    );
    assert!(net.agrees(0) && is_encapsulated(&net), "the SAs stay");
}

#[test]
fn transport_mode_is_refused() {
    let mut net = translated();
    for side in &mut net.sides {
        let mut config = side.peer.config().clone();
        config.children[0].policy.mode = Mode::Transport;
        *side = Side::new(config, 9);
    }
    net.sides[1] = Side::new(net.sides[1].peer.config().clone(), 8);
    net.negotiate(0, 0);
    net.run(Duration::from_secs(10));
    let failed = net.sides[0].events.iter().find_map(|event| match event {
        PeerEvent::Failed { failure, .. } => Some(failure.to_string()),
        _ => None,
    });
    assert!(failed.is_some_and(|text| text.contains("use mode tunnel")));
}
