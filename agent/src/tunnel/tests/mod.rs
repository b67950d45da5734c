//! Both ends of a tunnel in one process on a virtual clock, and what each wants in its kernel.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ike::BootTime;
use ike::config::{
    Authentication, Credential, Identity, Phase1Mode, Phase1Policy, Phase1Transform,
};
use ike::crypto::{DhGroup, HashAlgorithm, Phase1Encryption, Secret};
use ike::dead_peer_detection::{Mode as DetectionMode, Settings};
use ike::phase1::NatTraversal;
use ike::phase1::nat_traversal::NAT_PORT;
use ike::quick::{ChildPolicy, EspAlgorithms, EspEncryption, Mode};
use ike::wire::registry::Doi;
use xfrm::Desired;
use xfrm::model::{Action, SaId, SaRole};

use super::state::State;
use super::{IKE_PORT, Tunnels};
use crate::config::tunnel::{Gateway, Start, Traffic, Tunnel};

mod clear;
mod nat;
mod objects;
mod shared;

const SECOND: Duration = Duration::from_secs(1);

fn address(end: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, end])
}

fn config(end: u8, other: u8, start: Start) -> Tunnel {
    let transform = Phase1Transform {
        encryption: Phase1Encryption::Aes128Cbc,
        hash: HashAlgorithm::Sha2_256,
        group: DhGroup::Ecp256,
        authentication: Authentication::PreSharedKey,
    };
    let phase1 = Phase1Policy {
        doi: Doi::IPSEC,
        port: ike::config::IKE_PORT,
        transforms: vec![transform],
        lifetime: Duration::from_secs(7200),
    };
    let net = |end: u8, number: u8| format!("10.{end}.{number}.0/24").parse().unwrap();
    Tunnel {
        name: String::from("site"),
        gateway: Gateway { name: String::from("lab"), profile: None, phase1 },
        local: address(end),
        peer: address(other),
        identity: None,
        peer_identity: Identity::Address(address(other)),
        local_networks: vec![net(end, 0), net(end, 1)],
        remote_networks: vec![net(other, 0)],
        traffic: Traffic::default(),
        credential: Credential::PreSharedKey(Arc::new(Secret::copy_from(b"key"))),
        policy: ChildPolicy {
            algorithms: vec![EspAlgorithms::combined(EspEncryption::Aes128Gcm)],
            pfs: None,
            mode: Mode::Tunnel,
            lifetime: Duration::from_secs(900),
            kilobytes: None,
            extended_sequence_numbers: false,
        },
        start,
        dead_peer_detection: Settings { mode: DetectionMode::On, ..Settings::default() },
        replay_window: 1024,
        nat: NatTraversal::Detect,
        mode: Phase1Mode::Main,
        shares_address: false,
        priority: policies::precedence::TUNNEL,
    }
}

/// The other end of `config`, with the networks of both the other way round.
fn mirrored(config: &Tunnel, start: Start) -> Tunnel {
    Tunnel {
        local: config.peer,
        peer: config.local,
        identity: Some(config.peer_identity.clone()),
        peer_identity: Identity::Address(config.local),
        local_networks: config.remote_networks.clone(),
        remote_networks: config.local_networks.clone(),
        traffic: Traffic {
            local_port: config.traffic.remote_port,
            remote_port: config.traffic.local_port,
            ..config.traffic
        },
        start,
        ..config.clone()
    }
}

/// A datagram under way.
struct Flight {
    to: usize,
    source: SocketAddr,
    local: SocketAddr,
    datagram: Vec<u8>,
}

struct Net {
    ends: [Tunnels; 2],
    kernels: [Desired; 2],
    now: BootTime,
    /// Datagrams under way, by the time of their arrival.
    queue: BTreeMap<(BootTime, u64), Flight>,
    /// Address translation in front of the first end: its address, and what it adds to ports.
    translation: Option<(IpAddr, u16)>,
    sent: u64,
    is_cut: bool,
    /// Messages under an ISAKMP SA with this cookie of its initiator are lost.
    forgotten: Option<[u8; 8]>,
}

impl Net {
    fn new(one: Tunnel, two: Tunnel) -> Self {
        let now = BootTime::new(Duration::from_secs(1000));
        let end = |config: Tunnel, seed: u8| {
            let mut next = seed;
            let mut tunnels = Tunnels::new(Box::new(move || {
                next += 2;
                Ok([next; 32])
            }));
            tunnels.configure(&[config], now);
            tunnels
        };
        let mut net = Self {
            ends: [end(one, 1), end(two, 2)],
            kernels: [Desired::default(), Desired::default()],
            now,
            queue: BTreeMap::new(),
            translation: None,
            sent: 0,
            is_cut: false,
            forgotten: None,
        };
        net.settle();
        net
    }

    /// The kernel first, datagrams afterwards, as the event loop does it.
    fn settle(&mut self) {
        for from in 0..2 {
            let tunnels = &mut self.ends[from];
            while tunnels.poll_event().is_some() {}
            if tunnels.take_changed() {
                let mut desired = Desired::default();
                tunnels.add_to(&mut desired, self.now);
                self.kernels[from] = desired;
            }
            while let Some(transmit) = self.ends[from].poll_transmit() {
                let (mut source, mut destination) = (transmit.source, transmit.destination);
                match self.translation {
                    None => assert!([IKE_PORT, NAT_PORT].contains(&destination.port())),
                    Some((outside, added)) if from == 0 => {
                        source = SocketAddr::new(outside, source.port() + added);
                    }
                    Some((outside, added)) => {
                        let port = destination.port().checked_sub(added);
                        let inside = self.ends[0].all()[0].config().local;
                        match port.filter(|port| [IKE_PORT, NAT_PORT].contains(port)) {
                            Some(port) if destination.ip() == outside => {
                                destination = SocketAddr::new(inside, port);
                            }
                            _ => continue,
                        }
                    }
                }
                let is_forgotten =
                    self.forgotten.is_some_and(|cookie| transmit.payload.starts_with(&cookie));
                if !self.is_cut && !is_forgotten {
                    let key = (self.now + Duration::from_millis(20), self.sent);
                    let datagram = transmit.payload;
                    let flight = Flight { to: 1 - from, source, local: destination, datagram };
                    self.queue.insert(key, flight);
                }
                self.sent += 1;
            }
        }
    }

    /// Until this much time has passed; `watch` sees every moment.
    fn run_and(&mut self, duration: Duration, mut watch: impl FnMut(&Self)) {
        let end = self.now + duration;
        loop {
            let now = self.now;
            let timers = self.ends.iter().filter_map(|end| end.poll_timeout(now));
            let arrival = self.queue.keys().next().map(|(at, _)| *at);
            let Some(next) = timers.chain(arrival).min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let now = self.now;
            while let Some(((at, _), _)) =
                self.queue.first_key_value().filter(|((at, _), _)| *at <= now)
            {
                let _ = at;
                let Some((_, Flight { to, source, local, datagram })) = self.queue.pop_first()
                else {
                    break;
                };
                let _ = self.ends[to].handle_datagram(source, local, &datagram, now);
                self.settle();
                watch(self);
            }
            self.ends.iter_mut().for_each(|end| end.handle_timeout(now));
            self.settle();
            watch(self);
        }
        self.now = end;
    }

    fn run(&mut self, duration: Duration) {
        self.run_and(duration, |_| {});
    }

    fn outbound(&self, end: usize) -> Vec<SaId> {
        let sas = self.kernels[end].sas.values();
        sas.filter(|sa| sa.role == SaRole::Outbound).map(|sa| sa.id).collect()
    }

    /// Whether everything that both ends send is received by the other one.
    fn is_whole(&self) -> bool {
        (0..2).all(|end| {
            let outbound = self.outbound(end);
            outbound.len() == 2
                && outbound.iter().all(|id| {
                    let (ours, theirs) = (&self.kernels[end].sas, &self.kernels[1 - end].sas);
                    theirs.get(id).is_some_and(|other| other.protection == ours[id].protection)
                })
        })
    }

    fn states(&self) -> [State; 2] {
        [0, 1].map(|end| self.ends[end].all()[0].state(self.now))
    }
}

fn pair(starts: [Start; 2]) -> Net {
    let one = config(1, 2, starts[0]);
    let two = mirrored(&one, starts[1]);
    Net::new(one, two)
}

#[test]
fn two_ends_become_active_whoever_begins() {
    for starts in
        [[Start::Now, Start::Answer], [Start::Answer, Start::Now], [Start::Now, Start::Now]]
    {
        let mut net = pair(starts);
        net.run(Duration::from_secs(20));
        assert_eq!(net.states(), [State::Active, State::Active], "{starts:?}");
        assert!(net.is_whole());
    }
}

/// Half a day of new keys every quarter of an hour, and new ISAKMP SAs every two: at no moment does
/// one end send what the other does not receive.
#[test]
fn rekeys_lose_nothing() {
    for starts in [[Start::Now, Start::Answer], [Start::Now, Start::Now]] {
        let mut net = pair(starts);
        net.run(Duration::from_secs(20));
        let mut seen = net.outbound(0);
        let mut most = 0;
        net.run_and(Duration::from_secs(43_200), |net| {
            assert!(net.is_whole(), "at {:?}", net.now);
            seen.extend(net.outbound(0));
            most = most.max(net.kernels[0].sas.len());
        });
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() >= 2 * 43_200 / 900, "{} SAs", seen.len());
        assert!(most <= 16, "{most} SAs at once");
        assert_eq!(net.states(), [State::Active, State::Active]);
    }
}

/// Policies are there before any SA and stay without one: packets are dropped, not sent in clear.
#[test]
fn policies_stand_without_keys() {
    let mut net = pair([Start::Answer, Start::Answer]);
    net.run(SECOND);
    for kernel in &net.kernels {
        assert!(kernel.sas.is_empty());
        assert_eq!(kernel.policies.len(), 6);
        let required =
            |action: &Action| matches!(action, Action::Protect(template) if !template.optional);
        assert!(kernel.policies.values().all(|policy| required(&policy.action)));
    }
    assert_eq!(net.states(), [State::WaitsForPeer, State::WaitsForPeer]);
}

#[test]
fn an_end_that_is_removed_tells_the_other() {
    let mut net = pair([Start::Now, Start::Answer]);
    net.run(Duration::from_secs(20));
    let now = net.now;
    net.ends[0].configure(&[], now);
    // The socket stays for as long as there is something to say.
    assert!(net.ends[0].local_addresses().contains(&address(1)));
    net.settle();
    assert!(net.ends[0].local_addresses().is_empty());
    assert!(net.kernels[0].sas.is_empty() && net.kernels[0].policies.is_empty());
    net.run(SECOND);
    assert!(net.kernels[1].sas.is_empty());
    assert_eq!(net.states_of(1), State::WaitsForPeer);
}

impl Net {
    fn states_of(&self, end: usize) -> State {
        self.ends[end].all()[0].state(self.now)
    }
}

#[test]
fn a_tunnel_that_did_not_change_goes_on_at_a_reload() {
    let mut net = pair([Start::Now, Start::Answer]);
    net.run(Duration::from_secs(20));
    let before = net.outbound(0);
    let (same, now) = (net.ends[0].all()[0].config().clone(), net.now);
    let other = Tunnel {
        name: String::from("other"),
        peer: address(3),
        peer_identity: Identity::Address(address(3)),
        remote_networks: vec!["10.9.0.0/16".parse().unwrap()],
        start: Start::Answer,
        ..same.clone()
    };
    net.ends[0].configure(&[other, same], now);
    net.settle();
    assert_eq!(net.outbound(0), before);
    // Each pair of networks has reqids of its own.
    let reqids = net.kernels[0].policies.values().filter_map(|policy| match policy.action {
        Action::Protect(template) => Some(template.reqid),
        _ => None,
    });
    let reqids: std::collections::BTreeSet<_> = reqids.collect();
    assert_eq!(reqids.len(), 8);
}

#[test]
fn a_limit_of_the_kernel_leads_to_new_sas() {
    let mut net = pair([Start::Now, Start::Answer]);
    net.run(Duration::from_secs(20));
    let before = net.outbound(0);
    let now = net.now;
    net.ends[0].handle_limit(&before[0], false, now);
    net.settle();
    net.run_and(Duration::from_secs(20), |net| assert!(net.is_whole()));
    assert_ne!(net.outbound(0), before);
}

#[test]
fn a_restarted_peer_is_taken_up_again() {
    let mut net = pair([Start::Now, Start::Now]);
    net.run(Duration::from_secs(20));
    let fresh = pair([Start::Now, Start::Now]);
    let [_, restarted] = fresh.ends;
    net.ends[1] = restarted;
    net.kernels[1] = Desired::default();
    net.queue.clear();
    net.settle();
    let now = net.now;
    net.ends[1].handle_timeout(now);
    net.run(Duration::from_secs(120));
    assert!(net.is_whole());
}

#[test]
fn a_peer_that_is_not_there_is_tried_again_and_again() {
    let mut net = pair([Start::Now, Start::Answer]);
    net.is_cut = true;
    net.queue.clear();
    net.run(Duration::from_secs(300));
    assert!(matches!(net.states_of(0), State::Failed(reason) if reason.contains("no answer")));
    net.is_cut = false;
    net.run(Duration::from_secs(120));
    assert_eq!(net.states(), [State::Active, State::Active]);
}

#[test]
fn a_dead_peer_loses_its_sas_and_is_taken_up_when_it_is_back() {
    let mut net = pair([Start::Now, Start::Answer]);
    net.run(Duration::from_secs(20));
    net.is_cut = true;
    net.run(Duration::from_secs(90));
    for end in 0..2 {
        assert!(net.kernels[end].sas.is_empty());
        assert_eq!(net.kernels[end].policies.len(), 6);
    }
    net.is_cut = false;
    net.run(Duration::from_secs(120));
    assert_eq!(net.states(), [State::Active, State::Active]);
    assert!(net.is_whole());
}

/// Dead peer detection works on for as long as the tunnel does.
#[test]
fn there_is_always_an_isakmp_sa() {
    let mut net = pair([Start::Now, Start::Answer]);
    net.run(Duration::from_secs(20));
    net.run_and(Duration::from_secs(30_000), |net| {
        assert!(net.ends[0].all()[0].peer().established() > 0, "at {:?}", net.now);
    });
}

#[test]
fn a_packet_begins_a_tunnel_that_waits_for_traffic() {
    let mut net = pair([Start::Traffic, Start::Answer]);
    net.run(SECOND);
    assert_eq!(net.states_of(0), State::WaitsForTraffic);
    let out: Vec<_> = net.ends[0].all()[0].flows().iter().map(|flow| flow.reqids.0).collect();
    let now = net.now;
    // One pair of networks alone.
    net.ends[0].handle_acquire(out[0], now);
    net.settle();
    net.run(SECOND);
    assert_eq!(net.outbound(0).len(), 1);
    // The end that only answers does not begin.
    let inbound = net.ends[1].all()[0].flows()[1].reqids.0;
    let now = net.now;
    net.ends[1].handle_acquire(inbound, now);
    net.settle();
    net.run(SECOND);
    assert_eq!(net.outbound(1).len(), 1);
    let now = net.now;
    net.ends[0].handle_acquire(out[1], now);
    net.settle();
    net.run(SECOND);
    assert!(net.is_whole());
}

/// A peer may keep one ISAKMP SA alone, and its Delete of the older one may be lost: nobody answers
/// questions under that one, and the peer is alive all the same.
#[test]
fn an_isakmp_sa_that_the_peer_has_forgotten_leaves_a_living_tunnel_alone() {
    let mut net = pair([Start::Now, Start::Answer]);
    net.run(Duration::from_secs(20));
    let cookie = |net: &Net| net.ends[0].all()[0].peer().isakmp_sa().unwrap().0.initiator;
    let first = cookie(&net);
    while cookie(&net) == first {
        net.run(SECOND);
    }
    net.forgotten = Some(first);
    net.run_and(Duration::from_secs(85), |net| assert!(net.is_whole(), "at {:?}", net.now));
}

/// Transport mode and sequence numbers of 64 bits reach the kernel as they were negotiated.
#[test]
fn transport_mode_and_extended_sequence_numbers() {
    for (extended, mode) in
        [(true, Mode::Transport), (true, Mode::Tunnel), (false, Mode::Transport)]
    {
        let mut one = config(1, 2, Start::Now);
        one.policy.extended_sequence_numbers = extended;
        one.policy.mode = mode;
        let two = mirrored(&one, Start::Answer);
        let mut net = Net::new(one, two);
        net.run(Duration::from_secs(10));
        assert!(net.is_whole());
        let wanted = match mode {
            Mode::Tunnel => xfrm::model::Mode::Tunnel,
            Mode::Transport => xfrm::model::Mode::Transport,
        };
        for kernel in &net.kernels {
            for sa in kernel.sas.values() {
                let unicast = sa.unicast.unwrap();
                assert_eq!((unicast.extended_sequence_numbers, unicast.mode), (extended, wanted));
                // The kernel refuses numbers of 64 bits without a window.
                assert!(unicast.replay_window > 0 || !extended);
            }
            for policy in kernel.policies.values() {
                let Action::Protect(template) = policy.action else { continue };
                assert_eq!(template.mode, wanted);
            }
        }
    }
}
