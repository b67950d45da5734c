//! What tunnels want in the kernel: states and policies, beside those of the groups.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ike::BootTime;
use ike::phase1::NatTraversal;
use ike::phase1::nat_traversal::NAT_PORT;
use ike::quick::{Addresses, EspAlgorithms, EspEncryption, EspIntegrity, EspKeys, TrafficSelector};
use ipnet::IpNet;
use xfrm::Desired;
use xfrm::algorithm::{Aead, Encryption, Integrity, Protection};
use xfrm::key::Key;
use xfrm::model::{
    Action, Direction, Encapsulation, Install, Mode, Policy, PolicyId, Reqid, Sa, SaId, SaRole,
    Selector, Template, Unicast, Volume,
};
use xfrm::nft::Bandwidth;

use super::IKE_PORT;
use super::child_sa::Pair;
use super::flow::Flow;
use super::state::Tunnel;

/// The kernel ends an SA by itself so long after we should have.
const SLACK: Duration = Duration::from_secs(10);

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

const UDP: u8 = 17;
const ESP: u8 = 50;

/// Octets of the integrity check value of AES-GCM here.
const ICV: u8 = 16;

/// Adds what `tunnel` wants. Without SAs its policies drop what they are for.
pub(super) fn add(tunnel: &Tunnel, desired: &mut Desired, beside_groups: bool, now: BootTime) {
    ends(tunnel, desired, beside_groups);
    for flow in tunnel.flows() {
        policies(tunnel, flow, desired, now);
        guards(flow, desired);
        for pair in flow.pairs.values() {
            let (_, reqid) = flow.reqids;
            let id = SaId { destination: tunnel.config().local, spi: pair.spi() };
            let window = tunnel.config().replay_window;
            let sa = Sa {
                unicast: unicast(pair, SaRole::Inbound, window, None),
                ..common(id, reqid, pair, &pair.sas.inbound, now)
            };
            desired.sas.insert(id, sa);
        }
        if let Some(pair) = flow.sending(now) {
            let (reqid, _) = flow.reqids;
            let id = SaId { destination: pair.remote(), spi: pair.sas.outbound.spi };
            let combined = pair.sas.algorithms.encryption.is_combined();
            let volume = pair.sas.kilobytes.map(volume);
            let sa = Sa {
                role: SaRole::Outbound,
                source: tunnel.config().local,
                // A second installation would begin the same initialisation vectors once more.
                install: if combined { Install::Once } else { Install::Freely },
                // The kernel looks at no window here, and wants one beside numbers of 64 bits.
                unicast: unicast(
                    pair,
                    SaRole::Outbound,
                    pair.sas.extended_sequence_numbers.into(),
                    volume,
                ),
                ..common(id, reqid, pair, &pair.sas.outbound, now)
            };
            desired.sas.insert(id, sa);
        }
    }
}

/// Adds a policer for each gateway that has a bandwidth and tunnels.
pub(super) fn add_bandwidth(
    tunnels: &[Tunnel],
    bandwidth: &BTreeMap<String, u64>,
    desired: &mut Desired,
) {
    for (gateway, octets_per_second) in bandwidth {
        let of_gateway = tunnels.iter().filter(|one| one.config().gateway.name == *gateway);
        let ends: BTreeSet<(IpAddr, IpAddr)> = of_gateway.flat_map(esp_ends).collect();
        if !ends.is_empty() {
            let preservation = desired.preservation.get_or_insert_default();
            let bandwidth = Bandwidth { octets_per_second: *octets_per_second, ends };
            preservation.bandwidth.insert(gateway.clone(), bandwidth);
        }
    }
}

/// Between which addresses the ESP of a tunnel goes: where its peer is configured, and where that
/// has gone.
fn esp_ends(tunnel: &Tunnel) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
    let (local, peer) = (tunnel.config().local, tunnel.config().peer);
    let configured = Some(peer).filter(|peer| !peer.is_unspecified());
    let pairs = tunnel.flows().iter().flat_map(|flow| flow.pairs.values());
    configured.into_iter().chain(pairs.map(Pair::remote)).map(move |peer| (local, peer))
}

/// What both SAs of a pair have in common, with what else an inbound one has.
fn common(id: SaId, reqid: Reqid, pair: &Pair, keys: &EspKeys, now: BootTime) -> Sa {
    Sa {
        id,
        source: ANY,
        role: SaRole::Inbound,
        reqid,
        protection: protection(pair.sas.algorithms, keys),
        no_path_mtu_discovery: false,
        sequence_may_wrap: false,
        install: Install::Freely,
        hard_lifetime: Some(pair.expires().saturating_since(now) + SLACK),
        unicast: None,
    }
}

/// What an SA has beside keys; `None` where that is nothing.
fn unicast(
    pair: &Pair,
    role: SaRole,
    replay_window: u32,
    volume: Option<Volume>,
) -> Option<Unicast> {
    let extended_sequence_numbers = pair.sas.extended_sequence_numbers;
    let mode = mode(pair.sas.mode);
    let (ours, theirs) = (pair.address.local.port(), pair.address.remote.port());
    let (source_port, destination_port) = match role {
        SaRole::Inbound => (theirs, ours),
        SaRole::Outbound => (ours, theirs),
    };
    let encapsulation =
        pair.sas.encapsulated.then_some(Encapsulation { source_port, destination_port });
    let unicast = Unicast { replay_window, extended_sequence_numbers, mode, volume, encapsulation };
    Some(unicast).filter(|unicast| *unicast != Unicast::default())
}

fn mode(mode: ike::quick::Mode) -> Mode {
    match mode {
        ike::quick::Mode::Tunnel => Mode::Tunnel,
        ike::quick::Mode::Transport => Mode::Transport,
    }
}

/// A new SA is asked for when three quarters are used: the rest has to last until the peer has it,
/// also where a line is fast.
fn volume(kilobytes: u64) -> Volume {
    let hard = kilobytes.saturating_mul(1024);
    Volume { soft: hard / 4 * 3, hard }
}

fn protection(
    EspAlgorithms { encryption, integrity }: EspAlgorithms,
    keys: &EspKeys,
) -> Protection {
    let key = Key::copy_from(keys.encryption.expose());
    let Some(integrity) = integrity else {
        return Protection::Combined { aead: Aead::AesGcm, key, icv: ICV };
    };
    Protection::Separate {
        encryption: match encryption {
            EspEncryption::TripleDesCbc => Encryption::TripleDesCbc,
            _ => Encryption::AesCbc,
        },
        encryption_key: key,
        integrity: match integrity {
            EspIntegrity::HmacSha1 => Integrity::HmacSha1_96,
            EspIntegrity::HmacSha2_256 => Integrity::HmacSha2_256_128,
            EspIntegrity::HmacSha2_384 => Integrity::HmacSha2_384_192,
            EspIntegrity::HmacSha2_512 => Integrity::HmacSha2_512_256,
        },
        integrity_key: Key::copy_from(keys.integrity.expose()),
    }
}

/// What the ends say to each other passes also where they lie in networks of this tunnel, or in
/// what a group protects: IKE, and the ESP that arrives.
fn ends(tunnel: &Tunnel, desired: &mut Desired, beside_groups: bool) {
    let (local, peer) = (tunnel.config().local, tunnel.config().peer);
    let mut pairs = tunnel.config().pairs();
    let carried = pairs.any(|(ours, theirs)| ours.contains(&local) && theirs.contains(&peer));
    if !carried && !beside_groups {
        return;
    }
    let priority = tunnel.config().priority.saturating_sub(1);
    let preservation = desired.preservation.get_or_insert_default();
    let all = IpNet::new(peer, 0).unwrap_or_else(|_| peer.into());
    let peers = if peer.is_unspecified() { all } else { peer.into() };
    let between = Selector::between(local.into(), peers);
    let ports = [IKE_PORT].into_iter().chain(uses_nat(tunnel).then_some(NAT_PORT));
    for port in ports {
        // A translation in front of the peer gives it any port.
        let other = if uses_nat(tunnel) { 0 } else { port };
        let leaving = Selector {
            protocol: UDP,
            source_port: port,
            destination_port: other,
            ..between.clone()
        };
        let arriving = Selector {
            source: leaving.destination,
            destination: leaving.source,
            source_port: other,
            destination_port: port,
            ..leaving.clone()
        };
        // The guards see fragments, which carry no ports: the IN policy asks for those.
        let pieces = Selector { source_port: 0, destination_port: 0, ..arriving.clone() };
        let esp = Selector { protocol: ESP, ..pieces.clone() };
        preservation.tunnel_ends.extend([leaving.clone(), pieces.clone()]);
        if beside_groups {
            preservation.exclude.extend([leaving.clone(), pieces, esp]);
        }
        for (direction, selector) in [(Direction::Out, leaving), (Direction::In, arriving)] {
            let id = PolicyId { direction, selector };
            desired.policies.insert(id.clone(), Policy { id, priority, action: Action::Allow });
        }
    }
}

fn uses_nat(tunnel: &Tunnel) -> bool {
    tunnel.config().nat != NatTraversal::Off
}

/// What address translation takes out of its SA, or hides from the policies, what raw sockets send,
/// and everything while somebody has flushed the policies.
fn guards(flow: &Flow, desired: &mut Desired) {
    let Some(sent) = selector(flow.selectors.local, flow.selectors.remote) else { return };
    // The guards know prefixes alone.
    if sent == Selector::between(sent.source, sent.destination) {
        let preservation = desired.preservation.get_or_insert_default();
        preservation.tunnels.insert((sent.source, sent.destination));
    }
}

fn policies(tunnel: &Tunnel, flow: &Flow, desired: &mut Desired, now: BootTime) {
    let (outbound, inbound) = flow.reqids;
    let (ours, theirs) = (flow.selectors.local, flow.selectors.remote);
    let (local, peer) = (tunnel.config().local, tunnel.config().peer);
    let priority = tunnel.config().priority;
    let mode = mode(tunnel.config().policy.mode);
    let template = |source, destination, reqid| {
        Action::Protect(Template { mode, source, destination, reqid, optional: false })
    };
    // Where the peer is, it says itself, and it may be elsewhere than it is configured.
    let peer = flow.sending(now).map_or(peer, Pair::remote);
    // In transport mode the addresses are those of the packets.
    let (leaving, arriving) = match mode {
        Mode::Tunnel if peer.is_unspecified() => (Action::Block, template(ANY, local, inbound)),
        Mode::Tunnel => (template(local, peer, outbound), template(ANY, local, inbound)),
        Mode::Transport => (template(ANY, ANY, outbound), template(ANY, ANY, inbound)),
    };
    for (direction, from, to, action) in [
        (Direction::Out, ours, theirs, leaving),
        (Direction::In, theirs, ours, arriving),
        (Direction::Forward, theirs, ours, arriving),
    ] {
        let Some(selector) = selector(from, to) else { continue };
        if mode == Mode::Transport && direction == Direction::Forward {
            continue;
        }
        // Where ports decide, a fragment shows none: it would pass in clear.
        if selector.has_ports() {
            let selector = Selector {
                source_port: 0,
                destination_port: 0,
                portless: true,
                ..selector.clone()
            };
            let id = PolicyId { direction, selector };
            desired.policies.insert(id.clone(), Policy { id, priority, action: Action::Block });
        }
        let id = PolicyId { direction, selector };
        desired.policies.insert(id.clone(), Policy { id, priority, action });
    }
}

fn selector(from: TrafficSelector, to: TrafficSelector) -> Option<Selector> {
    let (Addresses::Net(source), Addresses::Net(destination)) = (from.addresses, to.addresses)
    else {
        return None;
    };
    Some(Selector {
        source,
        destination,
        protocol: from.protocol,
        source_port: from.port,
        destination_port: to.port,
        portless: false,
        interface: None,
    })
}
