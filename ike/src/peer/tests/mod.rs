//! Two peers in one process on a virtual clock, with a network that may lose, repeat and reorder
//! what they say.

mod aggressive;
mod exchanges;
mod fragments;
mod nat;
mod network;
mod private_use;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::config::{
    Authentication, Credential, Identity, Phase1Mode, Phase1Policy, Phase1Transform,
    RetransmissionPolicy,
};
use crate::crypto::{DhGroup, HashAlgorithm, Phase1Encryption, Secret};
use crate::dead_peer_detection::{Mode as DetectionMode, Settings};
use crate::phase1::NatTraversal;
use crate::quick::{
    Child, ChildPolicy, EspAlgorithms, EspEncryption, Mode, Selectors, TrafficSelector,
};
use crate::session::PeerAddress;
use crate::wire::registry::Doi;

pub(super) fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 500))
}

/// What `host` is configured with towards `other`, for so many pairs of networks.
pub(super) fn config(host: u8, other: u8, psk: &str, children: u8) -> PeerConfig {
    let net = |host: u8, number: u8| {
        TrafficSelector::net(format!("10.{host}.{number}.0/24").parse().unwrap())
    };
    let policy = ChildPolicy {
        algorithms: vec![EspAlgorithms::combined(EspEncryption::Aes128Gcm)],
        pfs: None,
        mode: Mode::Tunnel,
        lifetime: Duration::from_secs(3600),
        kilobytes: None,
        extended_sequence_numbers: false,
    };
    let child = |number: u8| ChildConfig {
        selectors: Selectors { local: net(host, number), remote: net(other, number) },
        policy: policy.clone(),
    };
    PeerConfig {
        address: PeerAddress { remote: address(other), local: address(host) },
        identity: Identity::Address(address(host).ip()),
        expected_identity: Identity::Address(address(other).ip()),
        credential: Credential::PreSharedKey(Arc::new(Secret::copy_from(psk.as_bytes()))),
        phase1: Phase1Policy {
            doi: Doi::IPSEC,
            port: crate::config::IKE_PORT,
            transforms: vec![Phase1Transform {
                encryption: Phase1Encryption::Aes128Cbc,
                hash: HashAlgorithm::Sha2_256,
                group: DhGroup::Ecp256,
                authentication: Authentication::PreSharedKey,
            }],
            lifetime: Duration::from_secs(28_800),
        },
        retransmission: RetransmissionPolicy::default(),
        dead_peer_detection: Settings { mode: DetectionMode::On, ..Settings::default() },
        mode: Phase1Mode::Main,
        shares_address: false,
        nat: NatTraversal::Detect,
        vendor_ids: Vec::new(),
        children: (0..children).map(child).collect(),
    }
}

/// One side with what it holds, as the layer above would.
pub(super) struct Side {
    pub(super) peer: Peer,
    pub(super) address: SocketAddr,
    /// Pairs by our SPI: the child, the pair, and since when it may be sent on, in order.
    pub(super) pairs: BTreeMap<u32, (usize, Child, Option<usize>)>,
    confirmed: usize,
    pub(super) events: Vec<PeerEvent>,
}

impl Side {
    pub(super) fn new(config: PeerConfig, seed: u8) -> Self {
        let address = config.address.local;
        let peer = Peer::new(config, [seed; 32]);
        Self { peer, address, pairs: BTreeMap::new(), confirmed: 0, events: Vec::new() }
    }

    /// Takes the events in; pairs go where a kernel would have them.
    fn drain(&mut self) {
        while let Some(event) = self.peer.poll_event() {
            match event {
                PeerEvent::Prepared { child, sas, .. } => {
                    self.pairs.insert(sas.inbound.spi, (child, *sas, None));
                }
                PeerEvent::Confirmed { spi, .. } => {
                    if let Some(pair) = self.pairs.get_mut(&spi) {
                        self.confirmed += 1;
                        pair.2 = Some(self.confirmed);
                    }
                }
                PeerEvent::Abandoned { spi, .. } => drop(self.pairs.remove(&spi)),
                PeerEvent::Deleted { ref spis } => {
                    self.pairs.retain(|_, pair| !spis.contains(&pair.1.outbound.spi));
                    self.events.push(event);
                }
                other => self.events.push(other),
            }
        }
    }

    /// Pairs of this child that may be sent on, the newest first: that one is sent on.
    pub(super) fn sends(&self, child: usize) -> Vec<&Child> {
        let ready = self.pairs.values().filter(|pair| pair.0 == child && pair.2.is_some());
        let mut ready: Vec<_> = ready.collect();
        ready.sort_by_key(|pair| core::cmp::Reverse(pair.2));
        ready.into_iter().map(|pair| &pair.1).collect()
    }
}

/// Address and port translation: one address outside, a port for each that is used inside.
#[derive(Debug)]
pub(super) struct Translation {
    pub(super) outside: IpAddr,
    /// Ports outside, by the address inside.
    ports: BTreeMap<SocketAddr, u16>,
    next: u16,
}

impl Translation {
    pub(super) fn new(host: u8, first: u16) -> Self {
        Self { outside: address(host).ip(), ports: BTreeMap::new(), next: first }
    }

    fn outward(&mut self, inside: SocketAddr) -> SocketAddr {
        let port = *self.ports.entry(inside).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        SocketAddr::new(self.outside, port)
    }

    fn inward(&self, outside: SocketAddr) -> Option<SocketAddr> {
        let mut known = self.ports.iter().filter(|(_, port)| **port == outside.port());
        known.next().map(|(inside, _)| *inside).filter(|_| outside.ip() == self.outside)
    }

    /// All that it knew is lost: what leaves next gets other ports.
    pub(super) fn forget(&mut self) {
        self.ports.clear();
    }
}

/// A datagram for a side, from where, and to which address.
type UnderWay = (usize, SocketAddr, SocketAddr, Vec<u8>);

/// Both sides, and what is between them.
pub(super) struct Net {
    pub(super) sides: [Side; 2],
    pub(super) now: BootTime,
    /// Datagrams under way by their arrival, in order.
    queue: BTreeMap<(BootTime, u64), UnderWay>,
    /// Address translation in front of the first side.
    pub(super) nat: Option<Translation>,
    /// Every datagram between the translation and the second side: source, destination, octets.
    pub(super) seen: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    /// What happens to the next datagrams, over and over: delays in milliseconds of its copies.
    fate: Vec<Vec<u64>>,
}

impl Net {
    pub(super) fn new(one: PeerConfig, two: PeerConfig) -> Self {
        Self {
            sides: [Side::new(one, 1), Side::new(two, 2)],
            now: BootTime::new(Duration::from_secs(1000)),
            queue: BTreeMap::new(),
            nat: None,
            seen: Vec::new(),
            sent: 0,
            fate: vec![vec![1]],
        }
    }

    pub(super) fn with_fate(self, fate: Vec<Vec<u64>>) -> Self {
        Self { fate, ..self }
    }

    /// Two sides that fit each other.
    pub(super) fn fitting(children: u8) -> Self {
        Self::new(config(1, 2, "key", children), config(2, 1, "key", children))
    }

    /// Nothing arrives from now on.
    pub(super) fn cut(&mut self) {
        self.fate = vec![vec![]];
        self.queue.clear();
    }

    pub(super) fn negotiate(&mut self, side: usize, child: usize) {
        let now = self.now;
        self.sides[side].peer.negotiate(child, now);
        self.collect();
    }

    pub(super) fn collect(&mut self) {
        for from in 0..2 {
            self.sides[from].drain();
            while let Some(transmit) = self.sides[from].peer.poll_transmit() {
                let to = 1 - from;
                let (mut source, mut destination) = (transmit.source, transmit.destination);
                match &mut self.nat {
                    Some(nat) if from == 0 => source = nat.outward(source),
                    Some(nat) => {
                        self.seen.push((source, destination, transmit.payload.clone()));
                        let Some(inside) = nat.inward(destination) else { continue };
                        destination = inside;
                    }
                    None => {}
                }
                if from == 0 {
                    self.seen.push((source, destination, transmit.payload.clone()));
                }
                assert_eq!(destination.ip(), self.sides[to].address.ip());
                let fate = &self.fate[self.sent as usize % self.fate.len()];
                for (copy, delay) in fate.iter().enumerate() {
                    let at = self.now + Duration::from_millis(*delay);
                    let key = (at, self.sent * 8 + copy as u64);
                    self.queue.insert(key, (to, source, destination, transmit.payload.clone()));
                }
                self.sent += 1;
            }
        }
    }

    /// Until this much time has passed; discards are the network's doing.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let arrival = self.queue.keys().next().map(|(at, _)| *at);
            let timers = self.sides.iter().filter_map(|side| side.peer.poll_timeout());
            let next = timers.map(|deadline| deadline.at).chain(arrival).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let now = self.now;
            let due: Vec<_> = self.queue.range(..=(now, u64::MAX)).map(|(key, _)| *key).collect();
            for key in due {
                let Some((to, source, local, datagram)) = self.queue.remove(&key) else { continue };
                let _ = self.sides[to].peer.handle_datagram(source, local, &datagram, now);
                self.collect();
            }
            for side in &mut self.sides {
                side.peer.handle_timeout(now);
            }
            self.collect();
        }
        self.now = end;
    }

    /// Whether what each side sends on for `child` is what the other receives on, in both
    /// directions.
    pub(super) fn agrees(&self, child: usize) -> bool {
        (0..2).all(|side| {
            let (ours, theirs) = (&self.sides[side], &self.sides[1 - side]);
            ours.sends(child).first().is_some_and(|pair| {
                let received = theirs.pairs.get(&pair.outbound.spi);
                received.is_some_and(|other| other.1.inbound == pair.outbound)
            })
        })
    }
}
