//! What the peers say to each other over a network that does nothing wrong.

use core::time::Duration;

use super::{Net, config};
use crate::config::Identity;
use crate::dead_peer_detection::Mode;
use crate::endpoint::SessionEnd;
use crate::error::{Error, PeerIncompatible};
use crate::peer::{ChildFailure, PeerEvent, Phase1Failure};
use crate::quick::TrafficSelector;
use crate::wire::registry::NotifyType;

const SECOND: Duration = Duration::from_secs(1);

fn failures(net: &Net, side: usize) -> Vec<String> {
    let events = net.sides[side].events.iter();
    let text = |event: &PeerEvent| match event {
        PeerEvent::Phase1Failed(failure) => Some(failure.to_string()),
        PeerEvent::Failed { failure, .. } => Some(failure.to_string()),
        PeerEvent::Refused { error, .. } => Some(error.to_string()),
        _ => None,
    };
    events.filter_map(text).collect()
}

#[test]
fn one_isakmp_sa_carries_all_pairs_of_networks() {
    let mut net = Net::fitting(3);
    (0..3).for_each(|child| net.negotiate(0, child));
    net.run(SECOND);
    assert!((0..3).all(|child| net.agrees(child)));
    for side in &net.sides {
        assert_eq!((side.peer.established(), side.pairs.len()), (1, 3));
    }
    // The other side may ask under the same ISAKMP SA.
    net.negotiate(1, 0);
    net.run(SECOND);
    assert!(net.agrees(0));
    assert_eq!(net.sides[0].pairs.len(), 4);
    assert_eq!(net.sides[0].peer.established(), 1);
}

#[test]
fn asking_again_changes_nothing() {
    let mut net = Net::fitting(1);
    (0..5).for_each(|_| net.negotiate(0, 0));
    net.run(SECOND);
    assert_eq!((net.sides[0].pairs.len(), net.sides[1].pairs.len()), (1, 1));
}

#[test]
fn both_sides_may_begin_at_once() {
    let mut net = Net::fitting(2);
    for child in 0..2 {
        net.negotiate(0, child);
        net.negotiate(1, child);
    }
    net.run(Duration::from_secs(120));
    assert!(net.agrees(0) && net.agrees(1));
    assert_eq!(failures(&net, 0), [""; 0]);
    assert_eq!(failures(&net, 1), [""; 0]);
}

#[test]
fn a_delete_reaches_the_other_side() {
    let mut net = Net::fitting(1);
    net.negotiate(0, 0);
    net.run(SECOND);
    let spi = *net.sides[0].pairs.keys().next().unwrap();
    let now = net.now;
    net.sides[0].peer.delete(&[spi], now);
    net.collect();
    net.run(SECOND);
    assert!(net.sides[1].pairs.is_empty());
    assert!(
        matches!(net.sides[1].events.last(), Some(PeerEvent::Deleted { spis }) if *spis == [spi])
    );
}

#[test]
fn an_end_of_the_isakmp_sa_leaves_the_pairs() {
    let mut net = Net::fitting(1);
    net.negotiate(0, 0);
    net.run(SECOND);
    net.sides[0].peer.disconnect();
    net.collect();
    net.run(SECOND);
    assert_eq!(net.sides[0].peer.established() + net.sides[1].peer.established(), 0);
    let ended = |event: &PeerEvent| {
        matches!(event, PeerEvent::Ended { cause: SessionEnd::DeletedByPeer, .. })
    };
    assert!(net.sides[1].events.iter().any(ended));
    assert!(net.agrees(0));
    // A new one carries the next pair.
    net.negotiate(1, 0);
    net.run(SECOND);
    assert!(net.agrees(0));
    assert_eq!(net.sides[0].pairs.len(), 2);
}

#[test]
fn the_end_of_its_lifetime_leads_to_a_new_isakmp_sa_on_demand() {
    let mut net = Net::fitting(1);
    net.negotiate(0, 0);
    net.run(Duration::from_secs(28_801));
    assert_eq!(net.sides[0].peer.established(), 0);
    net.negotiate(0, 0);
    net.run(SECOND);
    assert!(net.agrees(0));
    assert_eq!(net.sides[0].peer.established(), 1);
}

#[test]
fn a_restarted_peer_says_so() {
    let mut net = Net::fitting(1);
    net.negotiate(0, 0);
    net.run(SECOND);
    net.sides[0] = super::Side::new(config(1, 2, "key", 1), 9);
    net.negotiate(0, 0);
    net.run(SECOND);
    let restarts = net.sides[1].events.iter().filter_map(|event| match event {
        PeerEvent::Established { restarted, .. } => Some(*restarted),
        _ => None,
    });
    assert_eq!(restarts.collect::<Vec<_>>(), [true, true]);
    assert_eq!(net.sides[1].peer.established(), 1);
}

#[test]
fn another_pre_shared_key_is_named() {
    let mut net = Net::new(config(1, 2, "key", 1), config(2, 1, "another", 1));
    net.negotiate(0, 0);
    net.run(Duration::from_secs(60));
    assert!(net.sides.iter().all(|side| side.pairs.is_empty()));
    let failed = failures(&net, 0);
    assert!(
        matches!(failed.as_slice(), [one] if one.contains("another pre-shared key")),
        "{failed:?}"
    );
}

#[test]
fn another_identity_is_named() {
    let mut other = config(2, 1, "key", 1);
    other.identity = Identity::Fqdn(String::from("elsewhere"));
    let mut net = Net::new(config(1, 2, "key", 1), other);
    net.negotiate(0, 0);
    net.run(Duration::from_secs(60));
    assert_eq!(failures(&net, 0), ["the peer is fqdn elsewhere, address 192.0.2.2 was expected"]);
}

#[test]
fn no_common_phase_1_is_named_on_both_sides() {
    let mut other = config(2, 1, "key", 1);
    other.phase1.transforms[0].hash = crate::crypto::HashAlgorithm::Sha2_512;
    let mut net = Net::new(config(1, 2, "key", 1), other);
    net.negotiate(0, 0);
    net.run(Duration::from_secs(60));
    let failed = &net.sides[0].events;
    assert!(matches!(
        failed.as_slice(),
        [PeerEvent::Phase1Failed(Phase1Failure::NoProposalChosen)]
    ));
}

#[test]
fn no_common_esp_proposal_is_named_on_both_sides() {
    let mut other = config(2, 1, "key", 1);
    other.children[0].policy.pfs = Some(crate::crypto::DhGroup::Ecp256);
    let mut net = Net::new(config(1, 2, "key", 1), other);
    net.negotiate(0, 0);
    net.run(SECOND);
    assert!(net.sides[0].events.iter().any(|event| matches!(
        event,
        PeerEvent::Failed {
            child: 0,
            failure: ChildFailure::Refused(NotifyType::NO_PROPOSAL_CHOSEN)
        }
    )));
    assert_eq!(
        failures(&net, 1),
        [
            "no common ground with the peer: no proposal chosen: proposal 1, transform 1: no perfect \
          forward secrecy, where group 19 is configured"
        ]
    );
}

#[test]
fn other_networks_are_named_on_both_sides() {
    let mut other = config(2, 1, "key", 1);
    other.children[0].selectors.local = TrafficSelector::net("10.9.0.0/16".parse().unwrap());
    let mut net = Net::new(config(1, 2, "key", 1), other);
    net.negotiate(0, 0);
    net.run(SECOND);
    assert!(net.sides[1].events.iter().any(|event| matches!(
        event,
        PeerEvent::Refused { error: Error::PeerIncompatible(PeerIncompatible::Selectors(_)), .. }
    )));
    assert_eq!(
        failures(&net, 1),
        ["no common ground with the peer: no tunnel has the networks 10.2.0.0/24 to 10.1.0.0/24"]
    );
    assert_eq!(
        failures(&net, 0),
        ["the peer has other networks for the tunnel (INVALID_ID_INFORMATION)"]
    );
}

#[test]
fn a_peer_that_is_not_there_is_given_up() {
    let mut net = Net::fitting(1).with_fate(vec![vec![]]);
    net.negotiate(0, 0);
    net.run(Duration::from_secs(60));
    assert_eq!(failures(&net, 0), ["no answer to message 1 of main mode, sent 5 times"]);
    assert!(!net.sides[0].peer.is_connecting());
}

fn deaths(net: &Net, side: usize) -> usize {
    net.sides[side].events.iter().filter(|event| matches!(event, PeerEvent::Dead)).count()
}

#[test]
fn a_peer_that_answers_is_alive() {
    let mut net = Net::fitting(1);
    net.negotiate(0, 0);
    net.run(Duration::from_secs(600));
    assert_eq!((deaths(&net, 0), deaths(&net, 1)), (0, 0));
    assert_eq!(net.sides[0].peer.established(), 1);
}

/// Five questions without an answer, ten seconds each.
#[test]
fn a_dead_peer_is_noticed_by_the_side_that_asks() {
    for asks in [[true, true], [true, false], [false, true]] {
        let [one, two] = [(1, 2, asks[0]), (2, 1, asks[1])].map(|(host, other, asks)| {
            let mut config = config(host, other, "key", 1);
            if !asks {
                config.dead_peer_detection.mode = Mode::AnswerOnly;
            }
            config
        });
        let mut net = Net::new(one, two);
        net.negotiate(0, 0);
        net.run(Duration::from_secs(30));
        net.cut();
        net.run(Duration::from_secs(90));
        assert_eq!([deaths(&net, 0), deaths(&net, 1)], asks.map(usize::from), "{asks:?}");
    }
}

#[test]
fn a_peer_without_dead_peer_detection_is_not_asked() {
    let mut silent = config(2, 1, "key", 1);
    silent.dead_peer_detection.mode = Mode::Off;
    let mut net = Net::new(config(1, 2, "key", 1), silent);
    net.negotiate(0, 0);
    net.run(Duration::from_secs(600));
    assert_eq!((deaths(&net, 0), net.sides[0].peer.established()), (0, 1));
}

/// Until side 1 waits for message 3 of Quick Mode or is confirmed, and what it heard until then.
fn heard_by_the_responder(net: &mut Net, confirmed: bool) -> Vec<Vec<u8>> {
    let mut heard: Vec<Vec<u8>> = Vec::new();
    net.negotiate(0, 0);
    for _ in 0..100 {
        for (to, _, _, datagram) in net.queue.values() {
            if *to == 1 && heard.last() != Some(datagram) {
                heard.push(datagram.clone());
            }
        }
        let pairs = &net.sides[1].pairs;
        if pairs.values().any(|pair| pair.2.is_some() == confirmed) {
            return heard;
        }
        net.run(Duration::from_millis(1));
    }
    panic!("no pair");
}

/// Whoever recorded what a peer said cannot make it seem alive with that.
#[test]
fn copies_do_not_keep_a_dead_peer_alive() {
    let mut net = Net::fitting(1);
    let heard = heard_by_the_responder(&mut net, true);
    net.cut();
    for _ in 0..30 {
        net.run(Duration::from_secs(3));
        let (source, now) = (net.sides[0].address, net.now);
        for datagram in &heard {
            let side = &mut net.sides[1];
            let _ = side.peer.handle_datagram(source, side.address, datagram, now);
        }
        net.collect();
    }
    assert_eq!(deaths(&net, 1), 1);
}

/// They are no lever for flooding the peer either.
#[test]
fn copies_of_message_1_get_a_bounded_number_of_answers() {
    let mut net = Net::fitting(1);
    let heard = heard_by_the_responder(&mut net, false);
    net.cut();
    let copy = heard.last().unwrap();
    let mut answers = 0;
    for millisecond in 0..1000 {
        let (source, now) = (net.sides[0].address, net.now + Duration::from_millis(millisecond));
        let side = &mut net.sides[1];
        let _ = side.peer.handle_datagram(source, side.address, copy, now);
        answers += std::iter::from_fn(|| side.peer.poll_transmit()).count();
    }
    assert!((1..=32).contains(&answers), "{answers}");
}

/// Servers of a cluster ask whatever else they say to each other.
#[test]
fn questions_go_on_where_they_are_asked_always() {
    let asked = |mode| {
        let mut one = config(1, 2, "key", 1);
        one.dead_peer_detection.mode = mode;
        let mut other = config(2, 1, "key", 1);
        other.dead_peer_detection.mode = Mode::AnswerOnly;
        let mut net = Net::new(one, other);
        for _ in 0..20 {
            // Traffic of the peer every 5 seconds, half of an interval.
            net.negotiate(1, 0);
            net.run(Duration::from_secs(5));
        }
        let detection = net.sides[0].peer.detection.values().next().unwrap();
        (detection.statistics().questions_sent, deaths(&net, 0))
    };
    assert_eq!(asked(Mode::On), (0, 0));
    assert!(matches!(asked(Mode::Always), (9..=10, 0)));
}
