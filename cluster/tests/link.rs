//! The channel between two servers: long messages in parts, losses, and peers that are none.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::error::Refusal;
use cluster::link::{Link, LinkConfig, LinkEvent, Question, Ticket};
use cluster::message::{Acknowledged, Ask, Content, LONGEST, Message, Prepare, Refused, Told};
use cluster::{Generation, Stage};
use ike::BootTime;
use ike::config::{
    Authentication, Credential, Identity, Phase1Policy, Phase1Transform, RetransmissionPolicy,
};
use ike::crypto::{DhGroup, HashAlgorithm, Phase1Encryption, Secret};
use ike::dead_peer_detection::Settings;
use ike::peer::{Peer, PeerConfig};
use ike::session::PeerAddress;
use ike::wire::registry::Doi;

const GENERATION: Generation = Generation { epoch: 1, version: 5 };
const SECOND: Duration = Duration::from_secs(1);

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 848))
}

fn phase1() -> Phase1Policy {
    Phase1Policy {
        doi: Doi::GDOI,
        port: 848,
        transforms: vec![Phase1Transform {
            encryption: Phase1Encryption::Aes256Cbc,
            hash: HashAlgorithm::Sha2_256,
            group: DhGroup::Ecp256,
            authentication: Authentication::PreSharedKey,
        }],
        lifetime: Duration::from_secs(28_800),
    }
}

fn config(host: u8, other: u8) -> LinkConfig {
    LinkConfig {
        address: PeerAddress { remote: address(other), local: address(host) },
        identity: Identity::Address(address(host).ip()),
        further: Vec::new(),
        expected_identity: None,
        credential: Credential::PreSharedKey(Arc::new(Secret::copy_from(b"between servers"))),
        phase1: phase1(),
        liveness_interval: SECOND * 10,
        liveness_threshold: 5,
        period: SECOND * 2,
        begins: host == 2,
    }
}

struct Net {
    links: [Link; 2],
    events: [Vec<LinkEvent>; 2],
    now: BootTime,
    queue: BTreeMap<(BootTime, u64), (usize, Vec<u8>)>,
    sent: u64,
    /// Of the datagrams, every so many-th is lost.
    lose: u64,
    longest: usize,
}

impl Net {
    fn new() -> Self {
        let now = BootTime::new(SECOND * 1000);
        Self {
            links: [Link::new(config(1, 2), [1; 32], now), Link::new(config(2, 1), [2; 32], now)],
            events: [Vec::new(), Vec::new()],
            now,
            queue: BTreeMap::new(),
            sent: 0,
            lose: u64::MAX,
            longest: 0,
        }
    }

    fn collect(&mut self) {
        for side in 0..2 {
            while let Some(event) = self.links[side].poll_event() {
                self.events[side].push(event);
            }
            while let Some(transmit) = self.links[side].poll_transmit() {
                self.sent += 1;
                self.longest = self.longest.max(transmit.payload.len());
                let is_there = [1, 2].map(address).contains(&transmit.destination);
                if is_there && !self.sent.is_multiple_of(self.lose) {
                    let arrival = self.now + Duration::from_millis(3);
                    self.queue.insert((arrival, self.sent), (1 - side, transmit.payload));
                }
            }
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.collect();
            let arrival = self.queue.keys().next().map(|(at, _)| *at);
            let next = self.links.iter().filter_map(Link::poll_timeout).chain(arrival).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            while let Some((key, _)) = self.queue.range(..=(self.now, u64::MAX)).next() {
                let key = *key;
                let (to, octets) = self.queue.remove(&key).unwrap();
                let (source, local) = (address(2 - to as u8), address(1 + to as u8));
                let _ = self.links[to].handle_datagram(source, local, &octets, self.now);
                self.collect();
            }
            self.links.iter_mut().for_each(|link| link.handle_timeout(self.now));
        }
        self.now = end;
    }

    fn send(&mut self, side: usize, message: &Message) -> Ticket {
        let now = self.now;
        let ticket = self.links[side].send(message, SECOND * 2, now).unwrap().unwrap();
        self.collect();
        ticket
    }

    fn answer(&mut self, side: usize, question: Question, message: &Message) {
        let now = self.now;
        self.links[side].answer(question, message, now).unwrap();
        self.collect();
    }

    fn asked(&self, side: usize) -> (Question, &Message) {
        let asked = self.events[side].iter().rev().find_map(|event| match event {
            LinkEvent::Asked { question, message } => Some((*question, message)),
            _ => None,
        });
        asked.unwrap()
    }

    fn answered(&self, side: usize, wanted: Ticket) -> Option<&Content> {
        self.events[side].iter().find_map(|event| match event {
            LinkEvent::Answered { ticket, message } if *ticket == wanted => Some(&message.content),
            _ => None,
        })
    }
}

fn connected() -> Net {
    let mut net = Net::new();
    net.run(SECOND * 3);
    assert!(net.links.iter().all(Link::is_up));
    net
}

fn ask() -> Message {
    Message::new(
        7,
        Ask { held: GENERATION, boot: 1, settings: Vec::new(), needs: Secret::new(Vec::new()) },
    )
}

fn state(octets: usize) -> Secret {
    Secret::new((0..octets).map(|place| (place / 251) as u8).collect())
}

fn told(octets: usize) -> Told {
    let differences = Vec::new();
    Told { generation: GENERATION, stage: Stage::Committed, differences, state: state(octets) }
}

#[test]
fn short_and_long_answers_arrive_whole() {
    for octets in [0, 1000, LONGEST, LONGEST * 3 + 7] {
        for lose in [u64::MAX, 3] {
            let mut net = connected();
            net.lose = lose;
            let ticket = net.send(1, &ask());
            net.run(SECOND * 4);
            let (question, message) = net.asked(0);
            assert_eq!(*message, ask());
            net.answer(0, question, &Message::new(7, told(octets)));
            net.run(SECOND * 40);
            let answer = net.answered(1, ticket);
            assert_eq!(answer, Some(&Content::from(told(octets))), "{octets} octets, {lose}");
            assert!(net.longest < 65_507, "it fits into a UDP datagram");
        }
    }
}

#[test]
fn short_and_long_requests_arrive_whole_and_are_told_again_until_they_are_answered() {
    for octets in [0, LONGEST * 2 + 7] {
        let mut net = connected();
        net.lose = 4;
        let prepare = || Message::new(7, Prepare { generation: GENERATION, state: state(octets) });
        let ticket = net.send(0, &prepare());
        net.run(SECOND * 20);
        let asked = net.events[1].iter().filter(
            |event| matches!(event, LinkEvent::Asked { message, .. } if *message == prepare()),
        );
        assert!(asked.count() > 1, "again and again while it is not answered");
        let (question, _) = net.asked(1);
        let acknowledged = Acknowledged { generation: GENERATION, stage: Stage::Prepared };
        net.answer(1, question, &Message::new(7, acknowledged));
        net.run(SECOND * 20);
        assert_eq!(net.answered(0, ticket), Some(&Content::from(acknowledged)), "{octets}");
    }
}

#[test]
fn a_request_that_cannot_be_followed_is_refused_in_words() {
    let mut net = connected();
    let ticket = net.send(1, &ask());
    net.run(SECOND);
    let (question, _) = net.asked(0);
    net.answer(0, question, &Message::new(7, Refused(Refusal::UnknownGroup)));
    net.run(SECOND);
    assert_eq!(net.answered(1, ticket), Some(&Content::from(Refused(Refusal::UnknownGroup))));
}

#[test]
fn a_message_in_the_wrong_exchange_changes_nothing() {
    let mut net = connected();
    // An acknowledgement is no request.
    let acknowledged = Acknowledged { generation: GENERATION, stage: Stage::Prepared };
    net.send(0, &Message::new(7, acknowledged));
    net.run(SECOND);
    let refused = net.events[1].iter().find_map(|event| match event {
        LinkEvent::Refused(error) => Some(error.to_string()),
        _ => None,
    });
    let text = "an acknowledgement has no place in a cluster-update exchange";
    assert_eq!(refused.as_deref(), Some(text));
}

#[test]
fn a_silent_server_is_dead_after_its_time_and_its_requests_are_lost() {
    let mut net = connected();
    let ticket = net.send(0, &Message::new(7, Prepare { generation: GENERATION, state: state(1) }));
    net.lose = 1;
    net.run(SECOND * 75);
    for side in 0..2 {
        let dead = net.events[side].iter().filter(|event| matches!(event, LinkEvent::Dead));
        assert_eq!(dead.count(), 1, "said once");
        assert!(!net.links[side].is_up());
    }
    let lost =
        |event: &&LinkEvent| matches!(event, LinkEvent::Lost { ticket: lost } if *lost == ticket);
    assert_eq!(net.events[0].iter().filter(lost).count(), 1);
    assert_eq!(net.links[0].send(&ask(), SECOND, net.now), Ok(None), "nothing to say it on");
    net.lose = u64::MAX;
    net.run(SECOND * 60);
    assert!(net.links.iter().all(Link::is_up), "and up again");
}

/// Two machines are one server, and the second one is active.
#[test]
fn a_server_is_tried_at_all_its_addresses_in_order() {
    let further = vec![PeerAddress { remote: address(1), local: address(2) }];
    for root_begins in [true, false] {
        let mut net = Net::new();
        let config = LinkConfig { further: further.clone(), ..config(2, 9) };
        net.links[1] = Link::new(config, [2; 32], net.now);
        assert_eq!(net.links[1].remote(), address(9));
        if !root_begins {
            // It hears nothing before the sub-server has given up the first address.
            net.lose = 1;
            net.run(SECOND * 20);
            net.lose = u64::MAX;
            assert!(!net.links[1].is_up());
        }
        net.run(SECOND * if root_begins { 3 } else { 40 });
        assert!(net.links.iter().all(Link::is_up), "the root begins: {root_begins}");
        assert_eq!(net.links[1].remote(), address(1));
        let ticket = net.send(1, &ask());
        net.run(SECOND);
        let (question, _) = net.asked(0);
        net.answer(0, question, &Message::new(7, Refused(Refusal::NoKeys)));
        net.run(SECOND);
        assert!(net.answered(1, ticket).is_some());
        // Dead there, it is tried at the first one again.
        net.lose = 1;
        net.run(SECOND * 61);
        let dead = net.events[1].iter().filter(|event| matches!(event, LinkEvent::Dead));
        assert_eq!(dead.count(), 1);
        net.lose = u64::MAX;
        net.run(SECOND * 60);
        assert!(net.links.iter().all(Link::is_up));
    }
}

/// Without the vendor ID no cluster message is taken, whoever proved its identity.
#[test]
fn a_peer_that_speaks_no_cluster_protocol_is_left_alone() {
    let mut now = BootTime::new(SECOND * 1000);
    let mut link = Link::new(config(1, 2), [1; 32], now);
    let mut stranger = Peer::new(
        PeerConfig {
            address: PeerAddress { remote: address(1), local: address(2) },
            identity: Identity::Address(address(2).ip()),
            expected_identity: Identity::Address(address(1).ip()),
            credential: Credential::PreSharedKey(Arc::new(Secret::copy_from(b"between servers"))),
            phase1: phase1(),
            retransmission: RetransmissionPolicy::default(),
            dead_peer_detection: Settings::default(),
            mode: ike::config::Phase1Mode::Main,
            shares_address: false,
            nat: ike::phase1::NatTraversal::Off,
            vendor_ids: Vec::new(),
            children: Vec::new(),
        },
        [3; 32],
    );
    stranger.connect(now);
    for _ in 0..40 {
        while let Some(transmit) = stranger.poll_transmit() {
            let _ = link.handle_datagram(address(2), address(1), &transmit.payload, now);
        }
        while let Some(transmit) = link.poll_transmit() {
            let _ = stranger.handle_datagram(address(1), address(2), &transmit.payload, now);
        }
        now = now + Duration::from_millis(100);
        stranger.handle_timeout(now);
    }
    let events: Vec<LinkEvent> = std::iter::from_fn(|| link.poll_event()).collect();
    assert!(events.iter().any(|event| matches!(event, LinkEvent::NotAServer)), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, LinkEvent::Up)));
    assert!(!link.is_up());
}
