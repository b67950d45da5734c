//! What passes in clear beside a tunnel, and what must not.

use gdoi::group::{AddressRange, GroupId, TrafficSelector};
use policies::{GroupInput, GroupOptions, GroupState, LanInterface, Zones};
use xfrm::kernel::fake::{FakeKernel, Packet};
use xfrm::model::Direction;
use xfrm::{Ownership, Reconciler};

use super::*;

/// A group on LAN `lan` that protects 172.16.0.0/12, with what `change` makes of it.
fn group(change: impl FnOnce(&mut GroupInput<'_>)) -> Desired {
    let lan = LanInterface { name: String::from("lan"), addresses: vec![], is_vrf: false };
    let mut group = GroupInput {
        name: "branches",
        group: GroupId(1),
        slot: 0,
        zones: Zones { lan: vec![lan], ..Zones::default() },
        protected: vec!["172.16.0.0/12".parse().unwrap()],
        exclude: Vec::new(),
        fail_open: Vec::new(),
        servers: Vec::new(),
        pushes: None,
        options: GroupOptions::at_slot(0),
        state: GroupState::NoKey,
    };
    change(&mut group);
    policies::compile(&[group]).unwrap()
}

/// What the kernel does with this tunnel, without SAs, beside what is desired already.
async fn beside(config: Tunnel, mut desired: Desired) -> FakeKernel {
    let mut tunnels = Tunnels::new(Box::new(|| Ok([1; 32])));
    let now = BootTime::new(Duration::from_secs(1000));
    tunnels.configure(&[config], now);
    tunnels.add_to(&mut desired, now);
    let kernel = FakeKernel::new(["lan", "wan"]);
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    reconciler.apply(desired).await.unwrap();
    kernel
}

fn packet(from: &str, to: &str, protocol: u8, port: u16, interface: &str) -> Packet {
    Packet {
        source: from.parse().unwrap(),
        destination: to.parse().unwrap(),
        protocol,
        source_port: port,
        destination_port: port,
        interface: Some(interface.to_owned()),
    }
}

/// An exclude rule says what is not the group's: it opens no tunnel.
#[tokio::test]
async fn an_exclude_rule_of_a_group_does_not_open_a_tunnel() {
    let everything = TrafficSelector {
        protocol: 0,
        source: AddressRange::Any,
        source_port: 0,
        destination: AddressRange::Any,
        destination_port: 0,
    };
    let desired = group(|group| group.exclude.push(everything));
    let kernel = beside(config(1, 2, Start::Answer), desired).await;
    let leaving = packet("10.1.0.9", "10.2.0.9", 1, 0, "wan");
    assert!(!kernel.in_clear(Direction::Out, &leaving));
    let arriving = packet("10.2.0.9", "10.1.0.9", 1, 0, "wan");
    assert!(!kernel.in_clear(Direction::In, &arriving));
    assert!(!kernel.in_clear(Direction::Forward, &arriving));
    assert!(kernel.in_clear(Direction::Out, &packet("10.1.0.9", "10.3.0.9", 1, 0, "wan")));
}

/// Where the route of a tunnel's networks leads to a LAN, its packets still belong into the tunnel.
#[tokio::test]
async fn a_route_to_a_lan_does_not_open_a_tunnel() {
    let kernel = beside(config(1, 2, Start::Answer), group(|_| {})).await;
    let leaving = packet("10.1.0.9", "10.2.0.9", 17, 7, "lan");
    assert!(!kernel.in_clear(Direction::Out, &leaving));
}

/// A tunnel for one port leaves other traffic alone, but no fragment of what it is for.
#[tokio::test]
async fn a_tunnel_for_one_port_lets_no_fragment_by() {
    const TCP: u8 = 6;
    let traffic = Traffic { protocol: TCP, local_port: 0, remote_port: 179 };
    let kernel =
        beside(Tunnel { traffic, ..config(1, 2, Start::Answer) }, Desired::default()).await;
    let seen = |from: &str, to: &str, protocol, ports: (u16, u16)| Packet {
        source_port: ports.0,
        destination_port: ports.1,
        ..packet(from, to, protocol, 0, "wan")
    };
    for (protocol, ports, in_clear) in [
        (TCP, (4000, 179), false),
        // How the kernel sees a fragment.
        (TCP, (0, 0), false),
        (TCP, (4000, 180), true),
        (17, (4000, 179), true),
        (17, (0, 0), true),
    ] {
        let leaving = seen("10.1.0.9", "10.2.0.9", protocol, ports);
        assert_eq!(kernel.in_clear(Direction::Out, &leaving), in_clear, "{leaving:?}");
        let arriving = seen("10.2.0.9", "10.1.0.9", protocol, (ports.1, ports.0));
        for direction in [Direction::In, Direction::Forward] {
            assert_eq!(kernel.in_clear(direction, &arriving), in_clear, "{arriving:?}");
        }
    }
}

/// A tunnel between two hosts protects the addresses that IKE is spoken between.
#[tokio::test]
async fn ike_passes_where_the_ends_are_the_networks() {
    let hosts = Tunnel {
        local_networks: vec!["192.0.2.1/32".parse().unwrap()],
        remote_networks: vec!["192.0.2.2/32".parse().unwrap()],
        ..config(1, 2, Start::Now)
    };
    for (tunnel, desired, open_beside) in [
        (hosts, Desired::default(), true),
        // Or a group protects them.
        (
            config(1, 2, Start::Now),
            group(|one| one.protected = vec!["192.0.2.0/24".parse().unwrap()]),
            false,
        ),
    ] {
        let kernel = beside(tunnel, desired).await;
        let ike = |from, to, port| packet(from, to, 17, port, "wan");
        assert!(kernel.in_clear(Direction::Out, &ike("192.0.2.1", "192.0.2.2", IKE_PORT)));
        assert!(kernel.in_clear(Direction::In, &ike("192.0.2.2", "192.0.2.1", IKE_PORT)));
        let others = [("192.0.2.1", "192.0.2.2", 501), ("192.0.2.1", "192.0.2.3", IKE_PORT)];
        let passing =
            others.map(|(from, to, port)| kernel.in_clear(Direction::Out, &ike(from, to, port)));
        assert_eq!(passing, [false, open_beside]);
    }
}

/// The guards let the ends of a tunnel speak that a group protects, and nothing else.
#[tokio::test]
async fn guards_know_the_ends_of_a_tunnel() {
    let mut desired = group(|one| one.protected = vec!["192.0.2.0/24".parse().unwrap()]);
    let mut tunnels = Tunnels::new(Box::new(|| Ok([1; 32])));
    let now = BootTime::new(Duration::from_secs(1000));
    tunnels.configure(&[config(1, 2, Start::Now)], now);
    tunnels.add_to(&mut desired, now);
    let excluded: Vec<String> = desired
        .preservation
        .unwrap()
        .exclude
        .iter()
        .map(|one| {
            let ports = (one.source_port, one.destination_port);
            format!("{} {} {} {ports:?}", one.source, one.destination, one.protocol)
        })
        .collect();
    assert_eq!(
        excluded,
        [
            "192.0.2.1/32 192.0.2.2/32 17 (500, 0)",
            "192.0.2.1/32 192.0.2.2/32 17 (4500, 0)",
            "192.0.2.2/32 192.0.2.1/32 17 (0, 0)",
            "192.0.2.2/32 192.0.2.1/32 50 (0, 0)",
        ]
    );
}

/// A tunnel has guards of its own, with and without a group, and says nothing about LANs.
#[tokio::test]
async fn a_tunnel_is_guarded_without_a_group() {
    for (desired, lans) in [(Desired::default(), 0), (group(|_| {}), 1)] {
        let mut desired = desired;
        let mut tunnels = Tunnels::new(Box::new(|| Ok([1; 32])));
        let now = BootTime::new(Duration::from_secs(1000));
        tunnels.configure(&[config(1, 2, Start::Now)], now);
        tunnels.add_to(&mut desired, now);
        let guards = desired.preservation.unwrap();
        let tunnel = config(1, 2, Start::Now);
        let pairs = tunnel.pairs().collect();
        assert_eq!((guards.tunnels, guards.lan.len()), (pairs, lans));
    }
}
