//! Several peers at one address, and peers that may be anywhere.

use ike::WallClock;
use ike::certificate::testing::{Authority, Contents, NOW as WALL, key};
use ike::crypto::KeyKind;

use super::*;
use crate::config::tunnel::GatewayConfig;

/// Ends with numbers 1 and 3 behind one translation, and one with two tunnels to it.
struct Site {
    inside: [Tunnels; 2],
    outside: Tunnels,
    now: BootTime,
}

const SHARED: u8 = 77;

fn inner(end: u8, mode: Phase1Mode, name: &str) -> Tunnel {
    Tunnel {
        identity: Some(Identity::Fqdn(name.to_owned())),
        local_networks: vec![format!("10.{end}.0.0/24").parse().unwrap()],
        mode,
        ..config(end, 2, Start::Now)
    }
}

fn outer(inner: &Tunnel, peer: IpAddr) -> Tunnel {
    Tunnel {
        name: format!("to-{}", inner.local),
        peer,
        peer_identity: inner.identity.clone().unwrap(),
        shares_address: true,
        ..mirrored(inner, Start::Answer)
    }
}

fn tunnels(configs: &[Tunnel], seed: u8, now: BootTime) -> Tunnels {
    let mut next = seed;
    let mut tunnels = Tunnels::new(Box::new(move || {
        next += 1;
        Ok([next; 32])
    }));
    tunnels.set_wall_clock(WallClock::new(now, WALL));
    tunnels.configure(configs, now);
    tunnels
}

impl Site {
    fn new(mode: Phase1Mode, peer: IpAddr) -> Self {
        let inner = [inner(1, mode, "one.example"), inner(3, mode, "three.example")];
        let outer: Vec<Tunnel> = inner.iter().map(|one| outer(one, peer)).collect();
        Self::of(&inner, &outer)
    }

    fn of([one, three]: &[Tunnel; 2], outer: &[Tunnel]) -> Self {
        let now = BootTime::new(Duration::from_secs(1000));
        Self {
            inside: [
                tunnels(std::slice::from_ref(one), 10, now),
                tunnels(std::slice::from_ref(three), 50, now),
            ],
            outside: tunnels(outer, 90, now),
            now,
        }
    }

    /// The translation adds 1000 to the ports of the first and 2000 to those of the second.
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now = self.now + Duration::from_millis(100);
            let now = self.now;
            for (number, end) in self.inside.iter_mut().enumerate() {
                let added = 1000 * (number as u16 + 1);
                end.handle_timeout(now);
                while let Some(sent) = end.poll_transmit() {
                    let source = SocketAddr::new(address(SHARED), sent.source.port() + added);
                    let _ =
                        self.outside.handle_datagram(source, sent.destination, &sent.payload, now);
                }
            }
            self.outside.handle_timeout(now);
            while let Some(sent) = self.outside.poll_transmit() {
                let port = sent.destination.port();
                let number = usize::from(port % 500 == 0 && (port / 500) % 2 == 0);
                let (number, port) = match port {
                    1500 | 5500 => (0, port - 1000),
                    2500 | 6500 => (1, port - 2000),
                    _ => (number, 0),
                };
                assert_ne!(port, 0, "{}", sent.destination);
                let local = SocketAddr::new(self.inside[number].all()[0].config().local, port);
                let _ = self.inside[number].handle_datagram(sent.source, local, &sent.payload, now);
            }
        }
    }

    fn states(&self) -> Vec<State> {
        self.outside.all().iter().map(|tunnel| tunnel.state(self.now)).collect()
    }
}

/// In aggressive mode each has its own key, which its identity finds.
#[test]
fn two_peers_behind_one_translation_are_told_apart() {
    for peer in [address(SHARED), IpAddr::from([0, 0, 0, 0])] {
        let mut site = Site::new(Phase1Mode::Aggressive, peer);
        site.run(20);
        assert_eq!(site.states(), [State::Active, State::Active], "{peer}");
        let mut kernel = Desired::default();
        site.outside.add_to(&mut kernel, site.now);
        let ports = kernel.sas.values().filter(|sa| sa.role == SaRole::Outbound);
        let ports: Vec<u16> =
            ports.filter_map(|sa| Some(sa.unicast?.encapsulation?.destination_port)).collect();
        let mut ports = ports;
        ports.sort_unstable();
        assert_eq!(ports, [5500, 6500], "each goes to its own port");
    }
}

/// Nothing leaves in clear while nobody knows where the peer is.
#[test]
fn policies_block_until_the_peer_has_come() {
    let site = Site::new(Phase1Mode::Aggressive, IpAddr::from([0, 0, 0, 0]));
    let mut kernel = Desired::default();
    site.outside.add_to(&mut kernel, site.now);
    let outward = kernel.policies.values().filter(|policy| {
        policy.id.direction == xfrm::model::Direction::Out && policy.id.selector.protocol == 0
    });
    assert!(outward.clone().count() == 2);
    assert!(outward.clone().all(|policy| policy.action == Action::Block));
}

/// A policer is about the addresses that ESP goes between, wherever the configuration says the peers
/// are.
#[test]
fn the_bandwidth_holds_for_peers_that_may_be_anywhere() {
    let mut site = Site::new(Phase1Mode::Aggressive, IpAddr::from([0, 0, 0, 0]));
    let gateway = site.outside.all()[0].config().gateway.clone();
    site.outside.set_bandwidth(&[GatewayConfig { gateway, bandwidth_mbit: Some(10) }]);
    let ends = |site: &Site| {
        let mut kernel = Desired::default();
        site.outside.add_to(&mut kernel, site.now);
        let bandwidth = kernel.preservation.unwrap().bandwidth.remove("lab");
        bandwidth.map(|one| Vec::from_iter(one.ends))
    };
    assert_eq!(ends(&site), None, "nobody is there");
    site.run(20);
    assert_eq!(ends(&site), Some(vec![(address(2), address(SHARED))]));
}

/// A certificate of `authority` for the end with this number and name, which believes that alone.
fn certificate(authority: &Authority, end: u8, name: &str) -> Credential {
    let contents = Contents::new(&format!("CN=h{end}"));
    let contents = contents.address(&format!("192.0.2.{end}")).dns(name);
    Credential::Certificate(Arc::new(authority.credential(contents, key(KeyKind::Ecdsa256, end))))
}

/// Both ends behind the translation with certificates of `authority`, in main mode, and the tunnels
/// to them.
fn certified(authority: &Authority) -> ([Tunnel; 2], [Tunnel; 2]) {
    let of = |end: u8, name: &str| Tunnel {
        credential: certificate(authority, end, name),
        ..inner(end, Phase1Mode::Main, name)
    };
    let inside = [of(1, "one.example"), of(3, "three.example")];
    let outside = [0, 1].map(|number: usize| Tunnel {
        credential: certificate(authority, 2, "two.example"),
        ..outer(&inside[number], address(SHARED))
    });
    (inside, outside)
}

/// Main mode shows at its end whose ISAKMP SA it made, and the first tunnel answers for both.
#[test]
fn main_mode_hands_an_isakmp_sa_to_the_tunnel_of_its_peer() {
    let (inside, outside) = certified(&Authority::new(1));
    let mut site = Site::of(&inside, &outside);
    site.run(20);
    assert_eq!(site.states(), [State::Active, State::Active]);
}

/// Whoever an authority of one tunnel vouches for is not the peer of another one by that.
#[test]
fn an_isakmp_sa_stays_where_its_peer_was_admitted() {
    let (inside, [first, second]) = certified(&Authority::new(1));
    let stronger = |gateway: &Gateway| {
        let mut gateway = Gateway { name: String::from("strong"), ..gateway.clone() };
        gateway.phase1.transforms[0].encryption = Phase1Encryption::Aes256Cbc;
        gateway
    };
    let others = [
        Tunnel { credential: certificate(&Authority::new(2), 2, "two.example"), ..second.clone() },
        Tunnel {
            credential: Credential::PreSharedKey(Arc::new(Secret::copy_from(b"key"))),
            ..second.clone()
        },
        Tunnel { gateway: stronger(&second.gateway), ..second.clone() },
        Tunnel { mode: Phase1Mode::Aggressive, ..second.clone() },
        Tunnel { peer: address(SHARED + 1), ..second.clone() },
        Tunnel { shares_address: false, ..second.clone() },
    ];
    for (number, other) in others.into_iter().enumerate() {
        let mut site = Site::of(&inside, &[first.clone(), other]);
        site.run(20);
        let second = &site.outside.all()[1];
        assert_eq!(second.peer().established(), 0, "{number}");
        assert!(second.flows().iter().all(|flow| flow.pairs.is_empty()), "{number}");
        assert_eq!(site.states()[0], State::Active, "{number}");
    }
}

/// Aggressive mode says first who the peer is: no tunnel answers for another one.
#[test]
fn aggressive_mode_with_certificates_answers_its_own_peer_alone() {
    let (inside, outside) = certified(&Authority::new(1));
    let aggressive = |one: &Tunnel| Tunnel { mode: Phase1Mode::Aggressive, ..one.clone() };
    let strangers = Tunnel {
        identity: Some(Identity::Fqdn(String::from("four.example"))),
        credential: certificate(&Authority::new(1), 3, "four.example"),
        ..aggressive(&inside[1])
    };
    let outside = outside.each_ref().map(aggressive);
    let mut site = Site::of(&[aggressive(&inside[0]), strangers], &outside);
    site.run(20);
    let established =
        |site: &Site| [0, 1].map(|end| site.inside[end].all()[0].peer().established());
    assert_eq!(established(&site), [1, 0]);
    let mut site = Site::of(&inside.each_ref().map(aggressive), &outside);
    site.run(20);
    assert_eq!(established(&site), [1, 1]);
}

/// A peer that begins again and again has no more ISAKMP SAs than one that its own tunnel answers.
#[test]
fn what_is_handed_over_is_bounded() {
    let (inside, outside) = certified(&Authority::new(1));
    let mut site = Site::of(&inside, &outside);
    for seed in 100..112 {
        site.inside[1] = tunnels(&inside[1..], seed, site.now);
        site.run(2);
    }
    let established = site.outside.all()[1].peer().established();
    assert!((1..=8).contains(&established), "{established}");
    assert_eq!(site.states()[1], State::Active);
}
