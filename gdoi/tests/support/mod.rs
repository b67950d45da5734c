//! `Pair`: members and a key server in one process, with a virtual clock between them and a network
//! that does what the test tells it to.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gdoi::config::{ByteOrder, RegistrationConfig, ServerConfig};
use gdoi::error::Error;
use gdoi::event::{PullRefusal, RegistrationEvent, RegistrationFailure, ServerEvent, Transmit};
use gdoi::group::{
    AddressPreservation, AddressRange, AuthenticationAlgorithm, EncapsulationMode, EspTransform,
    GroupAssociatedPolicy, GroupId, GroupPolicy, GroupSa, IssuedSa, SaDirection, TekKeys,
    TekPolicy, TekProtection, TekProtocol, TrafficSelector,
};
use gdoi::member::Registration;
use gdoi::server::{Computed, Server};
use ike::BootTime;
use ike::config::{
    Authentication, Credential, Identity, PeerCredential, Phase1Policy, Phase1Transform,
    RetransmissionPolicy,
};
use ike::crypto::Secret;
use ike::crypto::{DhGroup, HashAlgorithm, Phase1Encryption};
use ike::endpoint::Limits;
use ike::wire::registry::Doi;

pub const GROUP: GroupId = GroupId(1111);
pub const SPI: u32 = 0x0bad_c0de;

pub fn server_address() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 9, 1)), 848)
}

/// Address of member `number`.
pub fn member_address(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, number, 1)), 848)
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// ECP 256 keeps the tests quick.
pub fn transform() -> Phase1Transform {
    Phase1Transform {
        encryption: Phase1Encryption::Aes128Cbc,
        hash: HashAlgorithm::Sha2_256,
        group: DhGroup::Ecp256,
        authentication: Authentication::PreSharedKey,
    }
}

pub fn phase1() -> Phase1Policy {
    Phase1Policy {
        doi: Doi::GDOI,
        port: gdoi::PORT,
        transforms: vec![transform()],
        lifetime: seconds(3600),
    }
}

pub fn key() -> Credential {
    Credential::PreSharedKey(Arc::new(Secret::copy_from(b"lab-psk")))
}

pub fn registration_config(member: SocketAddr) -> RegistrationConfig {
    RegistrationConfig {
        unix_seconds: 0,
        server: server_address(),
        local: member,
        group: GROUP,
        group_id_byte_order: ByteOrder::Network,
        selector_byte_order: ByteOrder::Network,
        sender_ids: None,
        identity: Identity::Address(member.ip()),
        expected_identity: Identity::Address(server_address().ip()),
        credential: key(),
        initial_contact: false,
        phase1: phase1(),
        retransmission: RetransmissionPolicy::default(),
    }
}

/// A key server that knows every member of 10.0.0.0/16 by the same key.
pub fn server_config() -> ServerConfig {
    ServerConfig {
        identity: None,
        peers: vec![PeerCredential {
            addresses: "10.0.0.0/16".parse().unwrap(),
            identity: None,
            credential: key(),
        }],
        phase1: phase1(),
        limits: Limits::default(),
    }
}

/// One TEK, two selectors, AES-CBC-128 with HMAC-SHA2-256.
pub fn group_policy(group: GroupId) -> GroupPolicy {
    let subnet = |text: &str| AddressRange::Subnet(text.parse().unwrap());
    let tek = |source: &str, destination: &str| TekPolicy {
        spi: SPI,
        selector: TrafficSelector {
            protocol: 0,
            source: subnet(source),
            source_port: 0,
            destination: subnet(destination),
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
            lifetime: seconds(3600),
            lifetime_kilobytes: None,
        },
    };
    GroupPolicy {
        group,
        kek: None,
        gap: GroupAssociatedPolicy {
            activation_time_delay: Some(seconds(10)),
            deactivation_time_delay: Some(seconds(30)),
        },
        teks: vec![tek("172.16.1.0/24", "172.16.0.0/12"), tek("172.16.0.0/12", "172.16.1.0/24")],
    }
}

pub fn group_sa(group: GroupId) -> IssuedSa {
    let keys =
        TekKeys { encryption: Secret::new(vec![0x30; 16]), integrity: Secret::new(vec![0x40; 32]) };
    IssuedSa::new(group_policy(group), BTreeMap::from([(SPI, keys)]), None, None, None)
}

/// What the network does to one datagram: one delay for each copy that arrives, none for a loss.
pub type Fate = Vec<Duration>;

pub const LATENCY: Duration = Duration::from_millis(20);

/// A network without faults.
pub fn fair() -> Box<dyn FnMut(&Transmit) -> Fate> {
    Box::new(|_| vec![LATENCY])
}

/// What the caller of the server answers to a request.
pub enum Answer {
    Grant,
    Refuse(PullRefusal),
    /// The daemon is asleep.
    Nothing,
}

/// Members and one key server.
pub struct Pair {
    pub now: BootTime,
    pub server: Server,
    pub members: Vec<Registration>,
    pub network: Box<dyn FnMut(&Transmit) -> Fate>,
    pub answer: Box<dyn FnMut(&ServerEvent) -> Answer>,
    /// What is handed out.
    pub keys: Box<dyn Fn(GroupId) -> IssuedSa>,
    /// Whether members accept what is offered.
    pub accept: bool,
    pub server_events: Vec<ServerEvent>,
    pub member_events: Vec<Vec<RegistrationEvent>>,
    pub server_errors: Vec<Error>,
    pub member_errors: Vec<Error>,
    /// How long each computation takes that the server hands out; `None` is for ever.
    pub computing: Box<dyn FnMut() -> Option<Duration>>,
    /// Every datagram sent, in order.
    pub sent: Vec<Transmit>,
    computed: BTreeMap<(BootTime, u64), Computed>,
    wire: BinaryHeap<Reverse<(BootTime, u64)>>,
    in_flight: BTreeMap<u64, Transmit>,
    number: u64,
}

impl Pair {
    /// `members` members of addresses 10.0.1.1, 10.0.2.1, ... begin at time 0.
    pub fn new(members: u8) -> Self {
        Self::with(
            server_config(),
            (1..=members).map(|number| registration_config(member_address(number))).collect(),
        )
    }

    pub fn with(server: ServerConfig, members: Vec<RegistrationConfig>) -> Self {
        let now = BootTime::new(seconds(1000));
        let begin = |(number, config)| Registration::new(config, [number; 32], now);
        let members: Vec<_> = (1..).zip(members).map(begin).collect();
        Self {
            now,
            server: Server::new(server, [0xee; 32]),
            member_events: members.iter().map(|_| Vec::new()).collect(),
            members,
            network: fair(),
            answer: Box::new(|_| Answer::Grant),
            keys: Box::new(group_sa),
            accept: true,
            server_events: Vec::new(),
            server_errors: Vec::new(),
            member_errors: Vec::new(),
            computing: Box::new(|| Some(Duration::ZERO)),
            sent: Vec::new(),
            computed: BTreeMap::new(),
            wire: BinaryHeap::new(),
            in_flight: BTreeMap::new(),
            number: 0,
        }
    }

    /// Puts a datagram on the wire, whoever sends it.
    pub fn inject(&mut self, transmit: Transmit, delay: Duration) {
        self.number += 1;
        self.wire.push(Reverse((self.now + delay, self.number)));
        self.in_flight.insert(self.number, transmit);
    }

    /// Drains both sides until nothing more comes out at this moment.
    pub fn settle(&mut self) {
        loop {
            let mut sent = VecDeque::new();
            for (member, events) in self.members.iter_mut().zip(&mut self.member_events) {
                while let Some(event) = member.poll_event() {
                    if matches!(event, RegistrationEvent::PolicyOffered(_)) {
                        match self.accept {
                            true => member.accept_policy(self.now),
                            false => member.refuse_policy(self.now),
                        }
                    }
                    events.push(event);
                }
                sent.extend(std::iter::from_fn(|| member.poll_transmit()));
            }
            while let Some(event) = self.server.poll_event() {
                if let ServerEvent::PullRequested { pull, group, .. } = event {
                    match (self.answer)(&event) {
                        Answer::Grant => self
                            .server
                            .answer_pull(pull, (self.keys)(group), Default::default(), self.now)
                            .unwrap(),
                        Answer::Refuse(refusal) => {
                            self.server.refuse_pull(pull, refusal, self.now).unwrap()
                        }
                        Answer::Nothing => {}
                    }
                }
                self.server_events.push(event);
            }
            while let Some(computation) = self.server.poll_computation() {
                if let Some(time) = (self.computing)() {
                    self.number += 1;
                    self.computed.insert((self.now + time, self.number), computation.run());
                }
            }
            sent.extend(std::iter::from_fn(|| self.server.poll_transmit()));
            if sent.is_empty() {
                return;
            }
            for transmit in sent {
                for delay in (self.network)(&transmit) {
                    self.inject(transmit.clone(), delay);
                }
                self.sent.push(transmit);
            }
        }
    }

    /// When something happens next.
    pub fn next(&self) -> Option<BootTime> {
        let arrival = self.wire.peek().map(|Reverse((at, _))| *at);
        let computed = self.computed.first_key_value().map(|((at, _), _)| *at);
        let timers = self.members.iter().filter_map(Registration::poll_timeout);
        let timers = timers.chain(self.server.poll_timeout()).map(|deadline| deadline.at);
        arrival.into_iter().chain(computed).chain(timers).min()
    }

    /// Moves the clock to the next thing that happens, and lets it happen. False if nothing is left
    /// to happen before `end`.
    pub fn step(&mut self, end: BootTime) -> bool {
        self.settle();
        let Some(next) = self.next().filter(|next| *next <= end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(next);
        while let Some(Reverse((at, number))) =
            self.wire.peek().copied().filter(|Reverse((at, _))| *at <= self.now)
        {
            self.wire.pop();
            let transmit = self.in_flight.remove(&number).unwrap();
            self.deliver(&transmit, at);
        }
        while let Some(first) =
            self.computed.first_entry().filter(|first| first.key().0 <= self.now)
        {
            if let Err(error) = self.server.handle_computed(first.remove(), self.now) {
                self.server_errors.push(error);
            }
        }
        self.members.iter_mut().for_each(|member| member.handle_timeout(self.now));
        self.server.handle_timeout(self.now);
        self.settle();
        true
    }

    fn deliver(&mut self, transmit: &Transmit, _at: BootTime) {
        let Transmit { destination, source, payload } = transmit;
        if *destination == server_address()
            && let Err(error) =
                self.server.handle_datagram(*source, *destination, payload, self.now)
        {
            self.server_errors.push(error);
        }
        for member in self.members.iter_mut().filter(|member| member.config().local == *destination)
        {
            if let Err(error) = member.handle_datagram(*source, payload, self.now) {
                self.member_errors.push(error);
            }
        }
        self.settle();
    }

    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
    }

    /// Whether member `index` has its keys.
    pub fn is_registered(&self, index: usize) -> bool {
        self.registered(index).is_some()
    }

    pub fn registered(&self, index: usize) -> Option<&GroupSa> {
        self.member_events[index].iter().find_map(|event| match event {
            RegistrationEvent::Registered(sa) => Some(sa),
            _ => None,
        })
    }

    pub fn failure(&self, index: usize) -> Option<&RegistrationFailure> {
        self.member_events[index].iter().find_map(|event| match event {
            RegistrationEvent::Failed(failure) => Some(failure),
            _ => None,
        })
    }

    pub fn completed(&self) -> usize {
        self.server_events
            .iter()
            .filter(|event| matches!(event, ServerEvent::PullCompleted { .. }))
            .count()
    }
}

/// `(exchange type, message identifier is zero, length)` of a datagram, for tests that pick one.
pub fn exchange_type(datagram: &[u8]) -> u8 {
    datagram[18]
}
