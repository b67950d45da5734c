//! Several peers at one address, and peers that may be anywhere.

use super::*;

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
    tunnels.configure(configs, now);
    tunnels
}

impl Site {
    fn new(mode: Phase1Mode, peer: IpAddr) -> Self {
        let now = BootTime::new(Duration::from_secs(1000));
        let inner = [inner(1, mode, "one.example"), inner(3, mode, "three.example")];
        let outer: Vec<Tunnel> = inner.iter().map(|one| outer(one, peer)).collect();
        let [one, three] = &inner;
        Self {
            inside: [
                tunnels(std::slice::from_ref(one), 10, now),
                tunnels(std::slice::from_ref(three), 50, now),
            ],
            outside: tunnels(&outer, 90, now),
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
