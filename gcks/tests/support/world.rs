//! `World`: a key server and members that really hold keys, in one process, with a virtual clock
//! between them and a network that does what the test tells it to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

use daemon::sealed::codec::Clock;
use gcks::config::Config;
use gcks::group::event::Event as GroupEvent;
use gcks::group::key_generation::OsEntropy;
use gcks::group::signing_key::SigningKeys;
use gcks::server::KeyServer;
use gcks::server::event::Event;
use gcks::state::{Records, Stored};
use gdoi::event::{RegistrationEvent, RegistrationFailure, Transmit};
use gdoi::group::{GroupSa, Spi, TekKeys};
use gdoi::member::Registration;
use gdoi::push::{
    AcknowledgementLength, Deletion, KekChange, PushAccepted, RekeyEvent, RekeyMember,
    RekeySettings,
};
use ike::BootTime;
use ike::config::RetransmissionPolicy;

use super::{SERVER, address, at, registration};

/// Bound and default of delays on the way.
pub const LATENCY: Duration = Duration::from_millis(20);

/// A TEK that a member holds.
#[derive(Debug)]
pub struct Held {
    pub spi: Spi,
    pub keys: TekKeys,
    pub ends: BootTime,
    pub send_from: BootTime,
    pub receive_until: BootTime,
}

/// A member: what `gdoi-agent` does with keys, and no more.
#[derive(Debug)]
pub struct Node {
    pub number: u8,
    pub group: u32,
    pub registration: Option<Registration>,
    pub rekey: Option<RekeyMember>,
    pub teks: Vec<Held>,
    pub senders: Vec<u64>,
    pub pulls: u64,
    pub accepted: Vec<PushAccepted>,
    pub unusable: u64,
    pub errors: BTreeMap<&'static str, u64>,
    pub refused: u64,
    /// Whether it pulls again by itself.
    pub alive: bool,
    /// Whether it was removed: it need not understand the others.
    pub removed: bool,
    again_at: Option<BootTime>,
}

/// What the network does to a datagram: a delay for each copy that arrives.
pub type Fate = Box<dyn FnMut(&Transmit) -> Vec<Duration>>;

pub struct World {
    pub now: BootTime,
    pub service: KeyServer<OsEntropy>,
    /// What the key server has written.
    pub records: Records,
    /// Whether nothing can be written.
    pub full: bool,
    pub nodes: Vec<Node>,
    pub network: Fate,
    pub events: Vec<Event>,
    pub sent: Vec<Transmit>,
    /// Multicast pushes go to everybody.
    wire: BinaryHeap<Reverse<(BootTime, u64)>>,
    in_flight: BTreeMap<u64, Transmit>,
    number: u64,
    /// Sender and receiver pairs that could not talk, and when it was looked at last.
    pub splits: Vec<(BootTime, u8, u8, Spi)>,
    pub watch: bool,
}

pub fn server() -> SocketAddr {
    SERVER.parse().unwrap()
}

/// A push on the wire.
pub fn is_push(transmit: &Transmit) -> bool {
    transmit.payload[18] == 33
}

impl World {
    /// Nobody has asked for anything yet.
    pub fn new(mut service: KeyServer<OsEntropy>) -> Self {
        service.keep_state();
        Self {
            now: at(1000),
            service,
            records: Records::default(),
            full: false,
            nodes: Vec::new(),
            network: Box::new(|_| vec![LATENCY]),
            events: Vec::new(),
            sent: Vec::new(),
            wire: BinaryHeap::new(),
            in_flight: BTreeMap::new(),
            number: 0,
            splits: Vec::new(),
            watch: true,
        }
    }

    /// Member `number` begins to register for `group`. Returns its place.
    pub fn join(&mut self, number: u8, group: u32) -> usize {
        self.nodes.push(Node {
            number,
            group,
            registration: None,
            rekey: None,
            teks: Vec::new(),
            senders: Vec::new(),
            pulls: 0,
            accepted: Vec::new(),
            unusable: 0,
            errors: BTreeMap::new(),
            refused: 0,
            alive: true,
            removed: false,
            again_at: Some(self.now),
        });
        let place = self.nodes.len() - 1;
        self.run(Duration::from_millis(400));
        place
    }

    /// The key server ends and starts again with the state it kept; datagrams on the way are lost.
    pub fn restart(&mut self, config: Config, keys: &SigningKeys) {
        // What was written piece by piece is all that there is, figures that may be lost included.
        let groups: Vec<_> = self.service.groups().map(|group| group.id()).collect();
        for group in groups {
            self.service.group_mut(group).unwrap().0.registry_mut();
        }
        self.persist();
        assert_eq!(self.records, self.service.export());
        let state = Stored::Records(std::mem::take(&mut self.records));
        let clock = Clock::same(self.now);
        let seed = [self.number as u8 ^ 0x55; 32];
        self.service =
            KeyServer::restore(config, keys, seed, OsEntropy, (&state, clock), self.now).unwrap();
        self.service.keep_state();
        self.persist();
        self.wire.clear();
        self.in_flight.clear();
        self.settle();
    }

    /// Writes down what has changed, as the daemon does before it sends.
    fn persist(&mut self) {
        if self.full && self.service.is_unsaved() {
            self.service.discard_answers();
        } else if self.service.is_unsaved() {
            let changes = self.service.changes();
            self.records.apply(changes);
            self.service.saved();
        }
    }

    /// The member pulls now.
    pub fn pull(&mut self, place: usize) {
        self.nodes[place].again_at = Some(self.now);
    }

    pub fn node(&mut self, place: usize) -> &mut Node {
        &mut self.nodes[place]
    }

    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.settle();
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            while let Some(Reverse((_, number))) =
                self.wire.peek().copied().filter(|Reverse((at, _))| *at <= self.now)
            {
                self.wire.pop();
                let transmit = self.in_flight.remove(&number).unwrap();
                self.deliver(&transmit);
                self.settle();
            }
            self.service.handle_timeout(self.now);
            let now = self.now;
            self.nodes.iter_mut().for_each(|node| node.handle_timeout(now));
            self.settle();
            self.look();
        }
        self.now = end;
    }

    fn next(&self) -> Option<BootTime> {
        let arrival = self.wire.peek().map(|Reverse((at, _))| *at);
        let nodes = self.nodes.iter().filter_map(|node| node.poll_timeout(self.now));
        arrival.into_iter().chain(self.service.poll_timeout()).chain(nodes).min()
    }

    pub fn settle(&mut self) {
        loop {
            self.persist();
            self.events.extend(std::iter::from_fn(|| self.service.poll_event()));
            let mut sent: Vec<Transmit> =
                std::iter::from_fn(|| self.service.poll_transmit()).collect();
            let now = self.now;
            self.nodes.iter_mut().for_each(|node| sent.extend(node.settle(now)));
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

    pub fn inject(&mut self, transmit: Transmit, delay: Duration) {
        self.number += 1;
        self.wire.push(Reverse((self.now + delay, self.number)));
        self.in_flight.insert(self.number, transmit);
    }

    fn deliver(&mut self, transmit: &Transmit) {
        let Transmit { destination, source, payload } = transmit;
        if *destination == server() {
            let _ = self.service.handle_datagram(*source, *destination, payload, self.now);
        }
        let now = self.now;
        for node in &mut self.nodes {
            if destination.ip().is_multicast() || *destination == address(node.number) {
                node.handle_datagram(*source, *destination, payload, now);
            }
        }
    }

    /// Whether everybody can decrypt what everybody sends.
    fn look(&mut self) {
        if !self.watch {
            return;
        }
        for sender in self.nodes.iter().filter(|node| !node.removed) {
            let Some(spi) = sender.sending(self.now) else { continue };
            for receiver in self
                .nodes
                .iter()
                .filter(|other| other.group == sender.group && other.alive && !other.removed)
            {
                if receiver.sending(self.now).is_some() && !receiver.receives(spi, self.now) {
                    self.splits.push((self.now, sender.number, receiver.number, spi));
                }
            }
        }
    }

    /// What happened in the groups.
    pub fn group_events(&self) -> impl Iterator<Item = &GroupEvent> {
        self.events.iter().filter_map(|event| match event {
            Event::Group { event, .. } => Some(event),
            _ => None,
        })
    }

    /// Distinct SPIs that anybody holds now.
    pub fn spis(&self, group: u32) -> BTreeSet<Spi> {
        let nodes =
            self.nodes.iter().filter(|node| node.group == group && node.alive && !node.removed);
        nodes.filter_map(|node| node.sending(self.now)).collect()
    }
}

impl Node {
    /// The TEK that it sends with.
    pub fn sending(&self, now: BootTime) -> Option<Spi> {
        let alive = |held: &&Held| held.ends > now && held.receive_until > now;
        let active = self.teks.iter().filter(alive).rfind(|held| held.send_from <= now);
        active.or_else(|| self.teks.iter().find(alive)).map(|held| held.spi)
    }

    pub fn receives(&self, spi: Spi, now: BootTime) -> bool {
        self.teks.iter().any(|held| held.spi == spi && held.ends > now && held.receive_until > now)
    }

    /// Takes keys in: received on at once, sent on after the activation delay, the ones before gone
    /// after the deactivation delay.
    fn take(&mut self, sa: &GroupSa, now: BootTime) {
        let gap = &sa.policy().gap;
        let spis: BTreeSet<Spi> = sa.policy().teks.iter().map(|tek| tek.spi).collect();
        let first = !self.teks.iter().any(|held| held.ends > now && held.receive_until > now);
        for spi in &spis {
            let tek = sa.policy().teks.iter().find(|tek| tek.spi == *spi).unwrap();
            let ends = now + tek.protection.lifetime;
            if let Some(held) = self.teks.iter_mut().find(|held| held.spi == *spi) {
                held.ends = ends;
                continue;
            }
            let keys = &sa.tek_keys()[spi];
            let keys = TekKeys {
                encryption: keys.encryption.duplicate(),
                integrity: keys.integrity.duplicate(),
            };
            let delay = gap.activation_time_delay.filter(|_| !first).unwrap_or_default();
            let send_from = now + delay;
            self.teks.push(Held { spi: *spi, keys, ends, send_from, receive_until: ends });
            if let Some(delay) = gap.deactivation_time_delay {
                for old in self.teks.iter_mut().filter(|old| !spis.contains(&old.spi)) {
                    old.receive_until = old.receive_until.min(now + delay);
                }
            }
        }
        self.plan(now);
    }

    /// When it comes by itself if no push does: 60 s or a twentieth before the first end.
    fn plan(&mut self, now: BootTime) {
        // Less a little, as the agent's jitter does: the server replaces keys a full margin before
        // their end.
        let jitter = Duration::from_secs(2);
        let margin = |left: Duration| {
            Duration::from_secs(60).max(left / 20).min(left / 2) - jitter.min(left / 4)
        };
        let newest = self.teks.last().map(|held| held.ends);
        let kek = self.rekey.as_ref().and_then(RekeyMember::expiry);
        let ends = newest.into_iter().chain(kek);
        self.again_at =
            ends.map(|end| end - margin(end.saturating_since(now))).min().map(|at| at.max(now));
    }

    fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) {
        let result = if datagram[18] == 33 {
            match &mut self.rekey {
                Some(rekey) => rekey.handle_datagram(source, local, datagram, now),
                None => return,
            }
        } else {
            match &mut self.registration {
                Some(registration) => registration.handle_datagram(source, datagram, now),
                None => return,
            }
        };
        if let Err(error) = result {
            *self.errors.entry(error.reason()).or_default() += 1;
        }
    }

    fn handle_timeout(&mut self, now: BootTime) {
        if let Some(registration) = &mut self.registration {
            registration.handle_timeout(now);
        }
        if let Some(rekey) = &mut self.rekey {
            rekey.handle_timeout(now);
        }
        self.teks.retain(|held| held.ends > now && held.receive_until > now);
        if self.alive && self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            let mut seed = [self.number; 32];
            seed[..8].copy_from_slice(&now.since_boot().as_nanos().to_be_bytes()[8..]);
            let mut config =
                registration(self.number, self.number, self.group, address(self.number), server());
            config.retransmission = RetransmissionPolicy::default();
            self.registration = Some(Registration::new(config, seed, now));
        }
    }

    fn poll_timeout(&self, now: BootTime) -> Option<BootTime> {
        let registration = self.registration.as_ref().and_then(Registration::poll_timeout);
        let rekey = self.rekey.as_ref().and_then(RekeyMember::poll_timeout);
        let machines = [registration, rekey].into_iter().flatten().map(|deadline| deadline.at);
        let teks = self.teks.iter().flat_map(|held| [held.receive_until, held.send_from]);
        // What has passed is not waited for again.
        let own = teks.filter(|at| *at > now).chain(self.again_at.filter(|_| self.alive));
        machines.chain(own).min()
    }

    /// Does what the machines want; returns what they send.
    fn settle(&mut self, now: BootTime) -> Vec<Transmit> {
        let mut sent = Vec::new();
        let mut registered = None;
        if let Some(registration) = &mut self.registration {
            while let Some(event) = registration.poll_event() {
                match event {
                    RegistrationEvent::PolicyOffered(_) => registration.accept_policy(now),
                    RegistrationEvent::Registered(sa) => registered = Some(sa),
                    RegistrationEvent::Failed(failure) => {
                        let refused = matches!(failure, RegistrationFailure::Refused { .. });
                        self.refused += u64::from(refused);
                        self.again_at =
                            Some(now + Duration::from_secs(if refused { 3600 } else { 5 }));
                    }
                    _ => {}
                }
            }
            sent.extend(std::iter::from_fn(|| registration.poll_transmit()));
        }
        if let Some(sa) = registered {
            self.pulls += 1;
            self.senders.extend(sa.sender_ids().iter().flat_map(|ids| ids.values.clone()));
            let acknowledgement_length = AcknowledgementLength::default();
            let settings = RekeySettings {
                address: address(self.number),
                acknowledgement_length,
                selector_byte_order: Default::default(),
                legacy: false,
            };
            self.rekey = RekeyMember::new(&sa, settings, now).unwrap();
            self.take(&sa, now);
        }
        let mut events = Vec::new();
        if let Some(rekey) = &mut self.rekey {
            events.extend(std::iter::from_fn(|| rekey.poll_event()));
            sent.extend(std::iter::from_fn(|| rekey.poll_transmit()));
        }
        for event in events {
            match event {
                RekeyEvent::Accepted(push) => {
                    self.carry_out(&push, now);
                    sent.extend(push.acknowledgement.clone());
                    self.accepted.push(*push);
                }
                RekeyEvent::Unusable { .. } => {
                    self.unusable += 1;
                    self.again_at = Some(now + Duration::from_secs(5));
                }
                RekeyEvent::Expired => self.again_at = Some(now),
            }
        }
        sent
    }

    fn carry_out(&mut self, push: &PushAccepted, now: BootTime) {
        for deletion in &push.deletions {
            match deletion {
                Deletion::Tek(_, spi) => self.teks.retain(|held| held.spi != *spi),
                Deletion::AllTeks(_) => self.teks.clear(),
                _ => {}
            }
        }
        if let Some(sa) = &push.group_sa {
            self.take(sa, now);
        }
        match push.kek {
            KekChange::Deleted => {
                self.rekey = None;
                self.again_at = Some(now);
            }
            _ => self.plan(now),
        }
    }
}
