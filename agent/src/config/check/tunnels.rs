//! Gateways and tunnels: what was typed, held against each other and against the groups.

use std::collections::BTreeMap;

use std::net::IpAddr;
use std::time::Duration;

use daemon::configuration::{Ike, Located, Place, phase1_policy, weak_esp, weak_parts};
use ike::config::{IKE_PORT, Identity, Phase1Mode, Phase1Policy, Phase1Transform};
use ike::crypto::{DhGroup, HashAlgorithm, Phase1Encryption};
use ike::dead_peer_detection::{self, Settings};
use ike::phase1::NatTraversal;
use ike::quick::{ChildPolicy, Mode};
use ike::wire::registry::Doi;
use ipnet::IpNet;
use policies::precedence::{BASE, TUNNEL};

use super::credentials::Named;
use super::{Check, Group};
use crate::config::file::File;
use crate::config::tunnel::{
    Gateway, GatewayConfig, GatewayTable, MOST_PAIRS, MOST_TUNNELS, Pfs, Traffic, Tunnel,
    TunnelTable,
};

/// TCP, UDP, DCCP, SCTP and UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

impl Check<'_> {
    /// All gateways and tunnels; `None` when something is missing, which is then noted.
    pub(super) fn tunnels(
        &mut self,
        file: &File,
        groups: &[Group],
    ) -> Option<(Vec<GatewayConfig>, Vec<Tunnel>)> {
        let gateways = self.gateways(&file.gateways);
        if file.tunnels.len() > MOST_TUNNELS {
            let place = file.tunnels.get(MOST_TUNNELS).and_then(|tunnel| tunnel.place.clone());
            let message =
                format!("{} tunnels; there are at most {MOST_TUNNELS}", file.tunnels.len());
            self.report.error(place, message, "remove some");
        }
        let names = file.tunnels.iter().filter_map(|tunnel| tunnel.name.as_ref());
        self.unique("tunnel.name", names);
        self.ends(&file.tunnels);
        let raised: Vec<Option<Tunnel>> =
            file.tunnels.iter().map(|typed| self.tunnel(typed, &gateways)).collect();
        self.overlaps(&file.tunnels, groups);
        let tunnels = raised.into_iter().collect::<Option<_>>()?;
        Some((gateways, tunnels))
    }

    fn gateways(&self, typed: &[GatewayTable]) -> Vec<GatewayConfig> {
        self.unique("gateway.name", typed.iter().filter_map(|gateway| gateway.name.as_ref()));
        let raised = typed.iter().filter_map(|gateway| {
            let name = gateway.name.as_ref()?.value.clone();
            let profile = gateway.profile.as_ref().map(|profile| profile.value);
            let phase1 = self.phase1(gateway);
            Some(GatewayConfig {
                gateway: Gateway { name, profile, phase1 },
                bandwidth_mbit: gateway.bandwidth_mbit.as_ref().map(|figure| figure.value),
            })
        });
        raised.collect()
    }

    /// Weak algorithms are the business of the tunnels that use the gateway.
    fn phase1(&self, gateway: &GatewayTable) -> Phase1Policy {
        let filled = gateway.profile.as_ref().map(|profile| profile.value.filled());
        let mut ike = Ike {
            place: gateway.place.clone(),
            encryption: gateway.encryption.clone(),
            hash: gateway.hash.clone(),
            dh_group: gateway.dh_group.clone(),
            lifetime: Duration::from_secs(28_800),
        };
        if let Some(filled) = filled {
            fill(&mut ike.encryption, filled.encryption);
            fill(&mut ike.hash, filled.hash);
            fill(&mut ike.dh_group, filled.dh_group);
            ike.lifetime = filled.lifetime;
        }
        if let Some(lifetime) = &gateway.lifetime {
            ike.lifetime = lifetime.value;
        }
        let offered = phase1_policy(&ike, "gateway", true, self.report);
        Phase1Policy { doi: Doi::IPSEC, port: IKE_PORT, ..offered }
    }

    fn tunnel(&mut self, typed: &TunnelTable, gateways: &[GatewayConfig]) -> Option<Tunnel> {
        let gateway = typed.gateway.as_ref().and_then(|named| {
            let all = gateways.iter().map(|config| &config.gateway);
            let found = all.into_iter().find(|gateway| gateway.name == named.value).cloned();
            if found.is_none() {
                self.error(
                    &named.place,
                    format!("tunnel.gateway: there is no gateway \"{}\"", named.value),
                    "add the [[gateway]], or remove the tunnel first: a gateway stays as long as \
                     tunnels use it",
                );
            }
            found
        });
        if !typed.names_key && typed.certificate.is_none() {
            let message =
                format!("tunnel {} has neither pre-shared key nor certificate", label(typed));
            self.no_credential(typed.place.clone(), message);
        }
        let credential = self.credential(&Named {
            pre_shared_key: &typed.pre_shared_key,
            certificate: &typed.certificate,
            path: "tunnel.certificate",
        });
        let (ours, theirs) = (typed.identity.as_ref(), typed.peer_identity.as_ref());
        self.identities(credential.as_ref(), ours, theirs, "tunnel.identity");
        let local = typed.local.as_ref().and_then(|local| self.end(local, "tunnel.local-address"));
        let peer = typed.peer.as_ref().and_then(|peer| self.end(peer, "tunnel.peer"));
        let gateway = gateway?;
        self.legacy(typed, &gateway);
        let typed_identity = |typed: &Option<Located<Identity>>| {
            typed.as_ref().map(|identity| identity.value.clone())
        };
        let nets = |list: &[Located<IpNet>]| list.iter().map(|net| net.value.trunc()).collect();
        let (local, peer) = (local?, peer?);
        let mut local_networks: Vec<IpNet> = nets(&typed.local_networks);
        let mut remote_networks: Vec<IpNet> = nets(&typed.remote_networks);
        if typed.mode == Mode::Transport {
            (local_networks, remote_networks) = (vec![local.into()], vec![peer.into()]);
        }
        self.networks(typed);
        self.translated_transport(typed);
        self.aggressive(typed, &gateway);
        self.anywhere(typed);
        let traffic = self.traffic(typed);
        let filled = gateway.profile.map(|profile| profile.filled().dead_peer_detection);
        let dead_peer_detection = Settings {
            mode: typed
                .dead_peer_detection
                .as_ref()
                .map(|mode| mode.value)
                .or(filled)
                .unwrap_or(dead_peer_detection::Mode::On),
            interval: typed.dead_peer_interval,
            ..Settings::default()
        };
        let pairs = local_networks.len().saturating_mul(remote_networks.len());
        if pairs > MOST_PAIRS {
            let message = format!("tunnel {}: {pairs} pairs of networks", label(typed));
            let remedy = format!("write fewer and wider networks: at most {MOST_PAIRS} pairs");
            self.report.error(typed.place.clone(), message, remedy);
        }
        Some(Tunnel {
            name: typed.name.as_ref()?.value.clone(),
            local,
            peer,
            identity: typed_identity(&typed.identity),
            peer_identity: typed_identity(&typed.peer_identity).unwrap_or(Identity::Address(peer)),
            local_networks,
            remote_networks,
            traffic,
            credential: credential?,
            policy: child_policy(typed, &gateway),
            gateway,
            start: typed.start,
            dead_peer_detection,
            replay_window: typed.replay_window,
            nat: typed.nat,
            mode: if typed.aggressive { Phase1Mode::Aggressive } else { Phase1Mode::Main },
            shares_address: self.shares_address(typed),
            priority: self.policy_priority.saturating_add(TUNNEL - BASE),
        })
    }

    /// Networks are what tunnel mode is about; in transport mode the ends are all there is.
    fn networks(&self, typed: &TunnelTable) {
        for (key, nets) in
            [("local-networks", &typed.local_networks), ("remote-networks", &typed.remote_networks)]
        {
            match (typed.mode, nets.first()) {
                (Mode::Tunnel, None) => {
                    let message = format!("tunnel {} has no {key}", label(typed));
                    let remedy = format!("write {key} = [\"..\"], or mode = \"transport\"");
                    self.report.error(typed.place.clone(), message, remedy);
                }
                (Mode::Transport, Some(net)) => {
                    let message = format!("tunnel.{key}: transport mode has no networks");
                    self.error(&net.place, message, "remove them: the ends are the traffic");
                }
                _ => {}
            }
        }
    }

    fn translated_transport(&self, typed: &TunnelTable) {
        if (typed.mode, typed.nat) == (Mode::Transport, NatTraversal::Always) {
            let message = format!("tunnel {}: transport mode does not travel in UDP", label(typed));
            let remedy = "write mode = \"tunnel\", or nat-traversal = \"detect\"";
            self.report.error(typed.place.clone(), message, remedy);
        }
    }

    fn traffic(&self, typed: &TunnelTable) -> Traffic {
        let protocol = typed.protocol.as_ref().map_or(0, |protocol| protocol.value);
        for (key, port) in [("local-port", &typed.local_port), ("remote-port", &typed.remote_port)]
        {
            if let Some(port) = port
                && !WITH_PORTS.contains(&protocol)
            {
                let message = format!("tunnel.{key}: a protocol with ports has to be named");
                let remedy = "write protocol = 6 (TCP), 17 (UDP) or another that has ports";
                self.error(&port.place, message, remedy);
            }
        }
        let port = |typed: &Option<Located<u16>>| typed.as_ref().map_or(0, |port| port.value);
        Traffic {
            protocol,
            local_port: port(&typed.local_port),
            remote_port: port(&typed.remote_port),
        }
    }

    fn end(&self, address: &Located<IpAddr>, key: &str) -> Option<IpAddr> {
        let value = address.value;
        if value.is_ipv6() {
            let message =
                format!("{key}: {value} is an IPv6 address, and tunnels end at IPv4 ones");
            self.error(&address.place, message, "write an IPv4 address");
            return None;
        }
        let anywhere = value.is_unspecified() && key == "tunnel.peer";
        if (value.is_unspecified() && !anywhere) || value.is_multicast() || value.is_loopback() {
            let message = format!("{key}: {value} is no host's address");
            self.error(&address.place, message, "write the address of the tunnel's end");
            return None;
        }
        Some(value)
    }

    fn legacy(&self, typed: &TunnelTable, gateway: &Gateway) {
        let policy = child_policy(typed, gateway);
        let mut weak = weak_parts(&gateway.phase1);
        weak.extend(policy.algorithms.iter().filter_map(|algorithms| weak_esp(*algorithms)));
        if let Some(group) = policy.pfs {
            let alone = Phase1Policy {
                transforms: gateway
                    .phase1
                    .transforms
                    .iter()
                    .take(1)
                    .map(|one| Phase1Transform {
                        encryption: Phase1Encryption::Aes128Cbc,
                        hash: HashAlgorithm::Sha2_256,
                        group,
                        authentication: one.authentication,
                    })
                    .collect(),
                ..gateway.phase1.clone()
            };
            weak.extend(weak_parts(&alone));
        }
        weak.sort_unstable();
        weak.dedup();
        if weak.is_empty() {
            return;
        }
        let message = format!("tunnel {} allows {}", label(typed), weak.join(", "));
        if typed.legacy {
            let remedy = "remove them as soon as the peer allows it";
            self.report.warning(typed.place.clone(), message, remedy);
        } else {
            let remedy = format!(
                "choose strong ones in gateway {} and in the tunnel, or set legacy = true in the \
                 tunnel and know why",
                gateway.name
            );
            self.report.error(typed.place.clone(), format!("{message}, which is weak"), remedy);
        }
    }

    fn overlaps(&self, tunnels: &[TunnelTable], groups: &[Group]) {
        for (number, tunnel) in tunnels.iter().enumerate() {
            self.family(tunnel);
            self.overlaps_within(tunnel);
            for theirs in &tunnel.remote_networks {
                for other in tunnels.iter().take(number) {
                    self.overlaps_other(tunnel, theirs, other);
                }
                for group in groups {
                    let covers = |net: &IpNet| group.protected.iter().any(|p| overlap(p, net));
                    let ours = tunnel.local_networks.iter().any(|ours| covers(&ours.value));
                    if ours && covers(&theirs.value) {
                        let message = format!(
                            "tunnel.remote-networks: {} and a local network of the tunnel lie in \
                             what group {} protects",
                            theirs.value, group.name
                        );
                        let remedy = "take them out of the group's protected prefixes";
                        self.error(&theirs.place, message, remedy);
                    }
                }
            }
        }
    }

    fn family(&self, tunnel: &TunnelTable) {
        for (key, nets) in [("local", &tunnel.local_networks), ("remote", &tunnel.remote_networks)]
        {
            for net in nets.iter().filter(|net| net.value.addr().is_ipv6()) {
                let message = format!(
                    "tunnel.{key}-networks: {} is an IPv6 network, and tunnels carry IPv4",
                    net.value
                );
                self.error(&net.place, message, "write IPv4 networks");
            }
        }
    }

    fn overlaps_within(&self, tunnel: &TunnelTable) {
        for (key, nets) in [("local", &tunnel.local_networks), ("remote", &tunnel.remote_networks)]
        {
            for (number, net) in nets.iter().enumerate() {
                let before = nets.iter().take(number);
                if let Some(other) = before.into_iter().find(|one| overlap(&one.value, &net.value))
                {
                    let message = format!(
                        "tunnel.{key}-networks: {} overlaps with {}",
                        net.value, other.value
                    );
                    self.error(&net.place, message, "keep the wider one");
                }
            }
        }
        for theirs in &tunnel.remote_networks {
            let ours = tunnel.local_networks.iter();
            if let Some(ours) = ours.into_iter().find(|ours| overlap(&ours.value, &theirs.value)) {
                let message = format!(
                    "tunnel.remote-networks: {} overlaps with the local network {}",
                    theirs.value, ours.value
                );
                self.error(&theirs.place, message, "the networks of both sites must differ");
            }
        }
    }

    fn overlaps_other(&self, tunnel: &TunnelTable, theirs: &Located<IpNet>, other: &TunnelTable) {
        let mut remote = other.remote_networks.iter();
        let Some(taken) = remote.find(|net| overlap(&net.value, &theirs.value)) else { return };
        let any = |ours: &Located<IpNet>| {
            other.local_networks.iter().any(|net| overlap(&net.value, &ours.value))
        };
        if tunnel.local_networks.iter().any(any) {
            let message = format!(
                "tunnel.remote-networks: {} overlaps with {} of tunnel {}",
                theirs.value,
                taken.value,
                label(other)
            );
            let remedy = "a packet can take one tunnel only: narrow one of them";
            self.error(&theirs.place, message, remedy);
        }
    }

    fn unique<'n>(&self, key: &str, names: impl Iterator<Item = &'n Located<String>>) {
        let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
        for name in names {
            if let Some(first) = seen.insert(name.as_str(), &name.place) {
                let line = self.report.line(first.start);
                let message = format!("{key}: \"{}\" is in line {line} as well", name.value);
                self.error(&name.place, message, "give each its own name");
            }
        }
    }
}

fn child_policy(typed: &TunnelTable, gateway: &Gateway) -> ChildPolicy {
    let filled = gateway.profile.map(|profile| profile.filled());
    let mut esp = typed.esp.clone();
    if let Some(filled) = &filled {
        fill(&mut esp, filled.esp);
    }
    let default = Pfs(Some(DhGroup::Modp2048));
    let pfs = typed.pfs.as_ref().map(|pfs| pfs.value);
    let lifetime = typed.lifetime.as_ref().map(|lifetime| lifetime.value);
    let kilobytes = typed.kilobytes.as_ref().map(|kilobytes| kilobytes.value);
    ChildPolicy {
        algorithms: esp.iter().map(|algorithms| algorithms.value).collect(),
        pfs: pfs.or(filled.as_ref().map(|filled| Pfs(filled.pfs))).unwrap_or(default).0,
        mode: typed.mode,
        lifetime: lifetime
            .or(filled.as_ref().map(|filled| filled.esp_lifetime))
            .unwrap_or(Duration::from_secs(3600)),
        kilobytes: kilobytes.or(filled.as_ref().and_then(|filled| filled.kilobytes)).map(u64::from),
        extended_sequence_numbers: typed.extended_sequence_numbers,
    }
}

/// Puts what a profile says in the place of a default: what was typed has a place in the file.
fn fill<T: Clone>(list: &mut Vec<Located<T>>, filled: &[T]) {
    if list.iter().all(|one| one.place == (0..0)) {
        let located = |value: &T| Located { value: value.clone(), place: 0..0 };
        *list = filled.iter().map(located).collect();
    }
}

pub(super) fn label(tunnel: &TunnelTable) -> &str {
    tunnel.name.as_ref().map_or("?", |name| name.as_str())
}

fn overlap(one: &IpNet, two: &IpNet) -> bool {
    one.contains(two) || two.contains(one)
}
