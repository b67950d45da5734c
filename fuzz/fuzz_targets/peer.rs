//! All of IKEv1 with one peer that has the right key and does what it likes. The first octet of the
//! input says whether there is an ISAKMP SA at the beginning and who began it, and whether by
//! aggressive mode; the rest are steps: messages of an honest
//! peer delivered, lost, repeated, changed, or made by hand under the keys of the ISAKMP SA, and
//! time that passes.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ike::BootTime;
use ike::config::{
    Authentication, Credential, Identity, Phase1Mode, Phase1Policy, Phase1Transform, RetransmissionPolicy,
};
use ike::crypto::{DhGroup, HashAlgorithm, Phase1Encryption, Secret};
use ike::dead_peer_detection::{Mode as DetectionMode, Settings};
use ike::peer::{ChildConfig, Peer, PeerConfig, PeerEvent};
use ike::quick::{
    ChildPolicy, EspAlgorithms, EspEncryption, EspIntegrity, Mode, QUICK_MODE, Selectors,
    TrafficSelector,
};
use ike::session::PeerAddress;
use ike::wire::registry::{Doi, ExchangeType, PayloadKind};
use libfuzzer_sys::fuzz_target;

/// As the endpoint of a peer is limited.
const ESTABLISHED: usize = 8;
/// No datagram, no moment and no command makes it say more than that.
const MOST_TRANSMITS: usize = 24;

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 500))
}

fn config(host: u8, other: u8, mode: Phase1Mode) -> PeerConfig {
    let net = |host: u8, number: u8| {
        TrafficSelector::net(format!("10.{host}.{number}.0/24").parse().expect("a network"))
    };
    let child = |number: u8| ChildConfig {
        selectors: Selectors { local: net(host, number), remote: net(other, number) },
        policy: ChildPolicy {
            algorithms: vec![
                EspAlgorithms::combined(EspEncryption::Aes128Gcm),
                EspAlgorithms::separate(EspEncryption::Aes256Cbc, EspIntegrity::HmacSha1),
            ],
            pfs: (number == 1).then_some(DhGroup::Ecp256),
            mode: Mode::Tunnel,
            lifetime: Duration::from_secs(3600),
            kilobytes: Some(1 << 20),
            extended_sequence_numbers: false,
        },
    };
    PeerConfig {
        address: PeerAddress { remote: address(other), local: address(host) },
        identity: Identity::Address(address(host).ip()),
        expected_identity: Identity::Address(address(other).ip()),
        credential: Credential::PreSharedKey(Arc::new(Secret::copy_from(b"a key"))),
        phase1: Phase1Policy {
            doi: Doi::IPSEC,
        port: ike::config::IKE_PORT,
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
        mode,
        shares_address: false,
        nat: ike::phase1::NatTraversal::Detect,
        vendor_ids: Vec::new(),
        children: (0..2).map(child).collect(),
    }
}

/// What the layer above knows of the pairs of SAs.
#[derive(Default)]
struct Pairs {
    /// By our SPI: the position, and whether it may be sent on.
    known: BTreeMap<u32, (usize, bool)>,
    over: BTreeSet<u32>,
    /// Every key that was ever sent with.
    sent_with: BTreeSet<Vec<u8>>,
}

impl Pairs {
    fn take(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Prepared { child, sas, .. } => {
                let spi = sas.inbound.spi;
                assert!(spi >= 256 && sas.outbound.spi >= 256 && child < 2);
                assert!(sas.algorithms.is_complete());
                assert!(self.known.insert(spi, (child, false)).is_none(), "an SPI in use");
                let key = sas.outbound.encryption.expose().to_vec();
                assert_eq!(key.len(), sas.algorithms.encryption.key_material());
                assert!(self.sent_with.insert(key), "a key is used twice");
            }
            PeerEvent::Confirmed { child, spi } => {
                let pair = self.known.get_mut(&spi).expect("confirmed and never prepared");
                assert_eq!(*pair, (child, false), "confirmed twice, or for another child");
                assert!(!self.over.contains(&spi), "confirmed after it was given up");
                pair.1 = true;
            }
            PeerEvent::Abandoned { child, spi } => {
                let pair = self.known.get(&spi).expect("given up and never prepared");
                assert_eq!(*pair, (child, false), "given up and confirmed");
                assert!(self.over.insert(spi), "given up twice");
            }
            _ => {}
        }
    }
}

struct Run<'i> {
    input: &'i [u8],
    now: BootTime,
    ours: Peer,
    pairs: Pairs,
    theirs: Peer,
    /// On their way to us and to the peer.
    to_us: Vec<Vec<u8>>,
    to_them: Vec<Vec<u8>>,
    /// What came to us before.
    past: Vec<Vec<u8>>,
}

impl Run<'_> {
    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.input.split_first()?;
        self.input = rest;
        Some(*first)
    }

    fn collect(&mut self) {
        let mut sent = 0;
        while let Some(event) = self.ours.poll_event() {
            self.pairs.take(event);
        }
        while let Some(transmit) = self.ours.poll_transmit() {
            assert_eq!((transmit.destination, transmit.source), (address(2), address(1)));
            self.to_them.push(transmit.payload);
            sent += 1;
        }
        assert!(sent <= MOST_TRANSMITS, "{sent} datagrams at once");
        assert!(self.ours.established() <= ESTABLISHED);
        while self.theirs.poll_event().is_some() {}
        while let Some(transmit) = self.theirs.poll_transmit() {
            self.to_us.push(transmit.payload);
        }
        // A peer that floods is not the one that is tested.
        self.to_us.truncate(64);
        self.to_them.truncate(64);
    }

    fn receive(&mut self, datagram: Vec<u8>) {
        let before = self.ours.established();
        let result = self.ours.handle_datagram(address(2), address(1), &datagram, self.now);
        if result.is_err() {
            assert_eq!(self.ours.established(), before, "discarded, and an ISAKMP SA came or went");
        }
        self.past.push(datagram);
        self.collect();
    }

    fn deliver_to_them(&mut self) {
        if !self.to_them.is_empty() {
            let datagram = self.to_them.remove(0);
            let _ = self.theirs.handle_datagram(address(1), address(2), &datagram, self.now);
            self.collect();
        }
    }

    fn until_quiet(&mut self) {
        for _ in 0..32 {
            if self.to_us.is_empty() && self.to_them.is_empty() {
                return;
            }
            if !self.to_us.is_empty() {
                let datagram = self.to_us.remove(0);
                self.receive(datagram);
            }
            self.deliver_to_them();
        }
    }

    fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
        let now = self.now;
        // What is due is done with: a timer that stays due would be a loop without an end.
        for _ in 0..64 {
            self.ours.handle_timeout(now);
            self.collect();
            if self.ours.poll_timeout().is_none_or(|deadline| deadline.at > now) {
                self.theirs.handle_timeout(now);
                self.collect();
                return;
            }
        }
        panic!("a deadline stays due");
    }

    /// A message of their own making under the newest ISAKMP SA.
    fn craft(&mut self) -> Option<()> {
        let (kind, first, id) = (self.octet()?, self.octet()?, self.octet()?);
        let length = usize::from(self.octet()?).min(self.input.len());
        let (payloads, rest) = self.input.split_at(length);
        self.input = rest;
        let kind = match kind % 4 {
            0 => ExchangeType::INFORMATIONAL,
            1 | 2 => QUICK_MODE,
            _ => ExchangeType(kind),
        };
        let sa = self.theirs.keyed_sa()?;
        let exchange = sa.exchange(kind, u32::from(id).max(1));
        let sealed = sa.seal_authenticated(&exchange, &[], PayloadKind(first), payloads).ok()?;
        self.receive(sealed.datagram().to_vec());
        Some(())
    }

    fn step(&mut self) -> Option<()> {
        let step = self.octet()?;
        let child = usize::from(step >> 4 & 1);
        match step & 15 {
            0 => self.ours.negotiate(child, self.now),
            1 => self.theirs.negotiate(child, self.now),
            2 if !self.to_us.is_empty() => {
                let datagram = self.to_us.remove(0);
                self.receive(datagram);
            }
            3 => self.deliver_to_them(),
            4 => drop(self.to_us.pop()),
            5 => drop(self.to_them.pop()),
            6 => {
                let place = usize::from(self.octet()?);
                let datagram = self.past.get(place % self.past.len().max(1))?.clone();
                self.receive(datagram);
            }
            7 => {
                let (place, mask) = (usize::from(self.octet()?), self.octet()?);
                let mut datagram = self.to_us.first()?.clone();
                let length = datagram.len();
                *datagram.get_mut(place % length)? ^= mask;
                self.receive(datagram);
            }
            8 | 9 => return self.craft(),
            10 => {
                let seconds = u64::from(self.octet()?);
                self.pass(Duration::from_secs(seconds));
            }
            11 => self.pass(Duration::from_secs(8 * 3600)),
            12 => self.until_quiet(),
            13 => self.theirs.connect(self.now),
            14 if child == 0 => self.theirs.disconnect(),
            14 => self.ours.disconnect(),
            _ => self.ours.handle_unreachable(),
        }
        self.collect();
        Some(())
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((start, input)) = input.split_first() else { return };
    let mode = if start & 4 == 0 { Phase1Mode::Main } else { Phase1Mode::Aggressive };
    let mut run = Run {
        input,
        now: BootTime::new(Duration::from_secs(1000)),
        ours: Peer::new(config(1, 2, mode), [1; 32]),
        pairs: Pairs::default(),
        theirs: Peer::new(config(2, 1, mode), [2; 32]),
        to_us: Vec::new(),
        to_them: Vec::new(),
        past: Vec::new(),
    };
    match start % 4 {
        0 => {}
        1 => run.theirs.connect(run.now),
        2 => run.theirs.negotiate(0, run.now),
        _ => run.ours.negotiate(0, run.now),
    }
    run.collect();
    run.until_quiet();
    assert!(start % 4 == 0 || run.ours.established() == 1, "no ISAKMP SA");
    for _ in 0..64 {
        if run.step().is_none() {
            break;
        }
    }
    // Whatever was said: it comes to rest.
    run.pass(Duration::from_secs(60));
    run.pass(Duration::from_secs(60));
});
