//! Aggressive mode between two peers (RFC 2409 §5.4).

use core::time::Duration;

use super::*;
use crate::phase1::nat_traversal::{MARKER, NAT_PORT};
use crate::wire::chain;

fn aggressive(host: u8, other: u8, psk: &str) -> PeerConfig {
    PeerConfig { mode: Phase1Mode::Aggressive, ..config(host, other, psk, 1) }
}

fn pair() -> Net {
    Net::new(aggressive(1, 2, "key"), aggressive(2, 1, "key"))
}

fn exchanges(net: &Net) -> Vec<u8> {
    let all = net.seen.iter().map(|(_, _, octets)| octets.strip_prefix(&MARKER).unwrap_or(octets));
    all.filter_map(|octets| octets.get(18).copied()).collect()
}

#[test]
fn three_messages_and_quick_mode_behind_them() {
    for side in 0..2 {
        let mut net = pair();
        net.negotiate(side, 0);
        net.run(Duration::from_secs(10));
        assert!(net.agrees(0), "{side}");
        let role = |side: usize| {
            net.sides[side].events.iter().find_map(|event| match event {
                PeerEvent::Established { role, .. } => Some(*role),
                _ => None,
            })
        };
        use crate::phase1::Role;
        assert_eq!(role(side), Some(Role::Initiator));
        assert_eq!(role(1 - side), Some(Role::Responder));
    }
}

/// The first message as RFC 2409 §5.4 draws it: SA, KE, Ni, IDii, then what else is stated.
#[test]
fn the_first_message() {
    let mut net = pair();
    net.negotiate(0, 0);
    let (_, _, octets) = net.seen.first().unwrap();
    let (header, body) = header::split(octets).unwrap();
    assert_eq!((header.exchange, header.message_id), (ExchangeType::AGGRESSIVE, 0));
    assert_eq!((header.responder_cookie, header.flags), ([0; 8], Flags::NONE));
    let chain = chain::walk_clear(header.next_payload, body, header::LENGTH).unwrap();
    let kinds: Vec<PayloadKind> = chain.kinds().collect();
    let expected = [
        PayloadKind::SA,
        PayloadKind::KEY_EXCHANGE,
        PayloadKind::NONCE,
        PayloadKind::IDENTIFICATION,
    ];
    assert_eq!(kinds[..4], expected);
    assert!(kinds[4..].iter().all(|kind| *kind == PayloadKind::VENDOR_ID));
    // ID_IPV4_ADDR, protocol and port 0, 192.0.2.1.
    assert_eq!(chain.payloads[3].body(), [1, 0, 0, 0, 192, 0, 2, 1]);
    assert_eq!(
        crate::phase1::aggressive::claimed_identity(octets),
        Some(Identity::Address(address(1).ip()))
    );
}

#[test]
fn whoever_did_not_ask_for_it_does_not_answer_it() {
    let mut net = Net::new(aggressive(1, 2, "key"), config(2, 1, "key", 1));
    net.negotiate(0, 0);
    net.run(Duration::from_secs(60));
    assert_eq!(net.sides[1].peer.established(), 0);
    let failed = net.sides[0].events.iter().find_map(|event| match event {
        PeerEvent::Phase1Failed(failure) => Some(failure.to_string()),
        _ => None,
    });
    assert!(failed.is_some_and(|text| text.contains("no answer to message 1 of aggressive mode")));
}

#[test]
fn another_key_is_named() {
    let mut net = Net::new(aggressive(1, 2, "key"), aggressive(2, 1, "another"));
    net.negotiate(0, 0);
    net.run(Duration::from_secs(60));
    assert_eq!(net.sides.each_ref().map(|side| side.peer.established()), [0, 0]);
    let failed = net.sides[0].events.iter().find_map(|event| match event {
        PeerEvent::Phase1Failed(failure) => Some(failure.clone()),
        _ => None,
    });
    assert_eq!(failed, Some(Phase1Failure::ForeignKey));
}

/// Somebody else's identity is refused before it costs arithmetic.
#[test]
fn a_foreign_identity_costs_nothing() {
    let mut one = aggressive(1, 2, "key");
    one.identity = Identity::Fqdn(String::from("somebody.example"));
    let mut net = Net::new(one, aggressive(2, 1, "key"));
    net.negotiate(0, 0);
    net.run(Duration::from_secs(60));
    assert_eq!(net.sides[1].peer.endpoint.statistics().diffie_hellman, 0);
    assert_eq!(net.sides[1].peer.established(), 0);
}

/// Nothing answers message 3: it goes again with what follows it.
#[test]
fn a_lost_last_message_is_made_up_for() {
    for lost in 0..4_usize {
        let mut fate = vec![vec![1]; 12];
        fate[lost] = vec![];
        let mut net = pair().with_fate(fate);
        net.negotiate(0, 0);
        net.run(Duration::from_secs(60));
        assert!(net.agrees(0), "datagram {lost} lost");
    }
}

#[test]
fn behind_a_translation_the_last_message_moves_to_port_4500() {
    let (one, mut two) = (aggressive(1, 2, "key"), aggressive(2, 1, "key"));
    two.address.remote = address(77);
    let mut net = Net::new(one, two);
    net.nat = Some(Translation::new(77, 1024));
    net.negotiate(0, 0);
    net.run(Duration::from_secs(10));
    assert!(net.agrees(0) && net.sides[1].sends(0)[0].encapsulated);
    assert_eq!(exchanges(&net)[..3], [4, 4, 4]);
    let ports: Vec<u16> = net.seen.iter().map(|(_, to, _)| to.port()).collect();
    assert_eq!((ports[0], ports[2]), (500, NAT_PORT));
}

/// A flood of first messages from one address computes a bounded number of times.
#[test]
fn a_flood_of_first_messages_is_bounded() {
    let mut net = pair();
    let now = net.now;
    for seed in 0..100_u8 {
        let mut stranger = Peer::new(aggressive(1, 2, "key"), [seed; 32]);
        stranger.negotiate(0, now);
        let message = stranger.poll_transmit().unwrap().payload;
        let side = &mut net.sides[1];
        let _ = side.peer.handle_datagram(address(1), address(2), &message, now);
    }
    let computed = net.sides[1].peer.endpoint.statistics().diffie_hellman;
    assert!(computed <= 2 * 4, "{computed} exponentiations");
}

/// Failing fast gives nobody more arithmetic than the places of one source, and those stay taken
/// until a true peer asks for one.
#[test]
fn unusable_public_values_keep_their_place() {
    // The value 1 is out of the range of every group. In the one with a subgroup only an
    // exponentiation can tell that 2 is not in it.
    for (group, value, each) in
        [(DhGroup::Ecp256, 1, 0), (DhGroup::Modp2048, 1, 0), (DhGroup::Modp2048Subgroup256, 2, 1)]
    {
        let of_group = |host, other| {
            let mut config = aggressive(host, other, "key");
            config.phase1.transforms[0].group = group;
            config
        };
        let mut net = Net::new(of_group(1, 2), of_group(2, 1));
        let now = net.now;
        let mut stranger = Peer::new(of_group(1, 2), [9; 32]);
        stranger.negotiate(0, now);
        let message = stranger.poll_transmit().unwrap().payload;
        // HDR, SA, KE: the body of KE lies behind the generic header of 4 octets.
        let sa = usize::from(u16::from_be_bytes([message[30], message[31]]));
        let (begin, length) = (header::LENGTH + sa + 4, group.public_length());
        let endpoint = |net: &Net| {
            let endpoint = &net.sides[1].peer.endpoint;
            (endpoint.statistics().diffie_hellman, endpoint.half_open())
        };
        for number in 0..100 {
            let mut forged = message.clone();
            forged[0] = number;
            forged[begin..begin + length].fill(0);
            forged[begin + length - 1] = value;
            for _ in 0..2 {
                let peer = &mut net.sides[1].peer;
                let error = peer.handle_datagram(address(1), address(2), &forged, now).unwrap_err();
                let expected = match number {
                    0..4 => ["public-value", "ended"].as_slice(),
                    _ => ["half-open-limit-of-source"].as_slice(),
                };
                assert!(expected.contains(&error.reason()), "{number}: {}", error.reason());
            }
            assert!(net.sides[1].peer.poll_transmit().is_none(), "nobody is answered");
        }
        assert_eq!(endpoint(&net), (4 * each, 4), "{group:?}");
        net.run(Duration::from_secs(6));
        net.negotiate(0, 0);
        net.run(Duration::from_secs(10));
        assert!(net.agrees(0), "{group:?}");
    }
}

/// A peer that may be anywhere is found by what it proves.
#[test]
fn a_peer_that_may_be_anywhere() {
    let one = aggressive(1, 2, "key");
    let mut two = aggressive(2, 1, "key");
    two.address.remote = SocketAddr::from(([0, 0, 0, 0], 500));
    let mut net = Net::new(one, two);
    let now = net.now;
    net.sides[1].peer.negotiate(0, now);
    net.collect();
    assert!(
        net.sides[1]
            .events
            .iter()
            .any(|event| matches!(event, PeerEvent::Phase1Failed(Phase1Failure::AddressUnknown)))
    );
    net.negotiate(0, 0);
    net.run(Duration::from_secs(10));
    assert!(net.agrees(0));
    // And it is asked where it is.
    net.negotiate(1, 0);
    net.run(Duration::from_secs(10));
    assert!(net.agrees(0) && net.sides[1].pairs.len() == 2);
}

/// First messages from many forged addresses take all places; a true peer has one as soon as they
/// are overdue, and not when their time is over.
#[test]
fn forged_sources_keep_a_peer_out_for_seconds() {
    let mut two = aggressive(2, 1, "key");
    two.address.remote = SocketAddr::from(([0, 0, 0, 0], 500));
    let mut net = Net::new(aggressive(1, 2, "key"), two);
    let refusals = |net: &mut Net, seeds: core::ops::Range<u8>| {
        let now = net.now;
        let refused = seeds.filter_map(|seed| {
            let mut stranger = Peer::new(aggressive(1, 2, "key"), [seed; 32]);
            stranger.negotiate(0, now);
            let message = stranger.poll_transmit().unwrap().payload;
            let peer = &mut net.sides[1].peer;
            let handled = peer.handle_datagram(address(100 + seed), address(2), &message, now);
            while peer.poll_transmit().is_some() {}
            handled.err().map(|error| error.reason())
        });
        Vec::from_iter(refused)
    };
    assert_eq!(refusals(&mut net, 0..17), ["half-open-limit"]);
    net.run(Duration::from_secs(4));
    assert_eq!(refusals(&mut net, 17..18), ["half-open-limit"]);
    net.run(Duration::from_secs(1));
    net.negotiate(0, 0);
    net.run(Duration::from_secs(2));
    assert!(net.agrees(0));
    assert!(net.sides[1].peer.endpoint.half_open() < 16);
}
