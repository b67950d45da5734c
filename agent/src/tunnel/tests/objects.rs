//! Tunnels as objects: one changes, the others do not notice; and what their machine lacks is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ike::config::{Credential, Identity};
use ike::crypto::Secret;
use ike::quick::Mode;
use xfrm::interface::Interface;
use xfrm::model::{Action, PolicyId, Reqid};

use super::super::show::{Paths, snapshot};
use super::*;
use crate::config::tunnel::GatewayConfig;

fn reqids(kernel: &Desired, peer: IpAddr) -> BTreeMap<PolicyId, Reqid> {
    let policies = kernel.policies.values().filter_map(|policy| match policy.action {
        Action::Protect(template)
            if template.source == peer
                || template.destination == peer
                || policy.id.selector.source == "10.2.0.0/24".parse().unwrap() =>
        {
            Some((policy.id.clone(), template.reqid))
        }
        _ => None,
    });
    policies.collect()
}

#[test]
fn a_change_of_one_tunnel_touches_no_other() {
    let site = config(1, 2, Start::Now);
    let other = Tunnel {
        name: String::from("other"),
        peer: address(3),
        peer_identity: Identity::Address(address(3)),
        remote_networks: vec!["10.9.0.0/16".parse().unwrap()],
        start: Start::Now,
        ..site.clone()
    };
    let mut net = pair([Start::Now, Start::Answer]);
    let now = net.now;
    net.ends[0].configure(&[other.clone(), site.clone()], now);
    net.settle();
    net.run(Duration::from_secs(20));
    let (before, policies) = (net.outbound(0), reqids(&net.kernels[0], address(2)));
    assert_eq!((before.len(), policies.len()), (2, 6));
    let changes: [&dyn Fn(&mut Tunnel); 12] = [
        &|tunnel| tunnel.credential = Credential::PreSharedKey(Arc::new(Secret::copy_from(b"x"))),
        &|tunnel| tunnel.peer = address(4),
        &|tunnel| tunnel.local_networks = vec!["10.8.0.0/16".parse().unwrap()],
        &|tunnel| tunnel.remote_networks.push("10.7.0.0/16".parse().unwrap()),
        &|tunnel| tunnel.remote_networks.clear(),
        &|tunnel| tunnel.policy.lifetime = Duration::from_secs(1800),
        &|tunnel| tunnel.policy.mode = Mode::Transport,
        &|tunnel| tunnel.policy.pfs = Some(DhGroup::Modp2048),
        &|tunnel| tunnel.start = Start::Traffic,
        &|tunnel| tunnel.dead_peer_detection.mode = DetectionMode::Off,
        &|tunnel| tunnel.gateway.phase1.lifetime = Duration::from_secs(600),
        &|tunnel| tunnel.name = String::from("third"),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = other.clone();
        change(&mut changed);
        let now = net.now;
        for configs in
            [vec![changed, site.clone()], vec![site.clone()], vec![other.clone(), site.clone()]]
        {
            net.ends[0].configure(&configs, now);
            while let Some(transmit) = net.ends[0].poll_transmit() {
                assert_ne!(transmit.destination.ip(), address(2), "change {number}");
            }
            net.settle();
            assert_eq!(net.outbound(0), before, "change {number}");
            assert_eq!(reqids(&net.kernels[0], address(2)), policies, "change {number}");
        }
    }
    assert!(net.is_whole());
}

/// Changed under way, it replaces a policer and touches neither SAs nor policies.
#[test]
fn bandwidth_is_a_policer_of_the_gateways_ends() {
    let mut net = pair([Start::Now, Start::Answer]);
    net.run(Duration::from_secs(20));
    let before = (net.outbound(0), reqids(&net.kernels[0], address(2)));
    let gateway = |name: &str, bandwidth_mbit| GatewayConfig {
        gateway: crate::config::tunnel::Gateway {
            name: name.to_owned(),
            ..net.ends[0].all()[0].config().gateway.clone()
        },
        bandwidth_mbit,
    };
    let steps = [
        (vec![gateway("lab", Some(10)), gateway("unused", Some(5))], Some(1_250_000)),
        (vec![gateway("lab", Some(30))], Some(3_750_000)),
        (vec![gateway("lab", None)], None),
    ];
    for (gateways, expected) in steps {
        net.ends[0].set_bandwidth(&gateways);
        net.settle();
        let bandwidth = &net.kernels[0].preservation.as_ref().unwrap().bandwidth;
        let figures: Vec<_> = bandwidth.values().map(|one| one.octets_per_second).collect();
        assert_eq!(figures, Vec::from_iter(expected));
        for one in bandwidth.values() {
            assert_eq!(one.ends, BTreeSet::from([(address(1), address(2))]));
        }
        assert_eq!((net.outbound(0), reqids(&net.kernels[0], address(2))), before);
    }
    net.ends[0].set_bandwidth(&[]);
    assert!(!net.ends[0].take_changed());
}

fn interface(addresses: &[&str], leads_to: &[(IpAddr, Option<IpAddr>)]) -> Interface {
    Interface {
        up: true,
        mtu: 1500,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        leads_to: leads_to.iter().copied().collect(),
        ..Interface::default()
    }
}

/// What `show tunnel` says about the only tunnel.
fn told(wan: Interface) -> control::tunnel::TunnelSnapshot {
    let net = pair([Start::Answer, Start::Answer]);
    let interfaces = BTreeMap::from([
        (String::from("lan"), interface(&["10.1.0.1/24"], &[])),
        (String::from("wan"), wan),
    ]);
    let remote: IpAddr = "10.2.0.1".parse().unwrap();
    let paths = Paths::new(interfaces, BTreeSet::from([address(2), remote]));
    let tunnels = &net.ends[0];
    let gateway = tunnels.all()[0].config().gateway.clone();
    let gateways = [GatewayConfig { gateway, bandwidth_mbit: None }];
    let mut shown = snapshot(&gateways, tunnels, Some(&paths), &Default::default(), net.now);
    assert_eq!(shown.gateways[0].tunnels, ["site"]);
    assert!(!shown.tunnels[0].active);
    shown.tunnels.remove(0)
}

#[test]
fn what_the_machine_lacks_is_why_a_tunnel_is_not_active() {
    let (peer, hop) = (address(2), Some(address(254)));
    let whole = told(interface(&["192.0.2.1/24"], &[(peer, hop)]));
    assert_eq!(whole.state, "waits for the peer to begin (start = \"answer\")");
    let roles: Vec<_> =
        whole.interfaces.iter().map(|one| (one.name.as_str(), one.role.as_str())).collect();
    assert_eq!(roles, [("wan", "local-address"), ("lan", "local-networks")]);
    let routes: Vec<_> = whole
        .routes
        .iter()
        .map(|one| (one.destination.as_str(), one.interface.as_deref(), one.next_hop.as_deref()))
        .collect();
    assert_eq!(
        routes,
        [("192.0.2.2", Some("wan"), Some("192.0.2.254")), ("10.2.0.0/24", None, None)]
    );
    assert_eq!(
        told(interface(&["192.0.2.9/24"], &[(peer, hop)])).state,
        "no interface has the local address 192.0.2.1: add it, or change local-address"
    );
    assert_eq!(
        told(interface(&["192.0.2.1/24"], &[])).state,
        "there is no route to the peer 192.0.2.2: add one"
    );
    let down = Interface { up: false, ..interface(&["192.0.2.1/24"], &[(peer, hop)]) };
    assert_eq!(told(down).state, "interface wan with the local address is down: set it up");
}
