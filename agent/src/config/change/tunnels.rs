//! Gateways and tunnels of two configurations compared.

use daemon::configuration::{Declaration as _, Name, Read as _, duration_text, name_of};
use ike::config::{Credential, Phase1Mode};
use ike::quick::ChildPolicy;

use super::{Change, Consequence, Differences, Subject, list, whole};
use crate::config::Config;
use crate::config::file::File;
use crate::config::tunnel::{
    DEAD_PEER_DETECTION, Gateway, GatewayConfig, GatewayTable, Pfs, Profile, Traffic, Tunnel,
    TunnelTable,
};

/// The three lists of a gateway's phase 1 as one.
const IKE_POLICY: Name = Name::new("IKE policy");

/// The same and the profile, in a change of a tunnel.
const IKE_POLICY_OF_GATEWAY: Name = Name::new("the gateway's IKE policy");

pub(super) fn gateway_changes(before: &Config, after: &Config) -> Vec<Change> {
    let mut all = Vec::new();
    let subject = |name: &str| Subject::Gateway(name.to_owned());
    let find = |config: &Config, name: &str| {
        config.gateways.iter().find(|other| other.gateway.name == name).cloned()
    };
    for GatewayConfig { gateway, .. } in &before.gateways {
        if find(after, &gateway.name).is_none() {
            all.push(whole(subject(&gateway.name), Some(gateway.name.clone()), None));
        }
    }
    for config in &after.gateways {
        let name = &config.gateway.name;
        match find(before, name) {
            None => all.push(whole(subject(name), None, Some(name.clone()))),
            Some(known) => {
                let mut differences = Differences::of(subject(name));
                differences.compare_gateway(&known.gateway, &config.gateway);
                let figure = |config: &GatewayConfig| {
                    let figure = config.bandwidth_mbit;
                    figure.map_or_else(|| String::from("none"), |figure| figure.to_string())
                };
                differences.add(
                    GatewayTable::bandwidth_mbit().name(),
                    figure(&known),
                    figure(config),
                );
                differences.follow(Consequence::AtOnce);
                all.extend(differences.changes);
            }
        }
    }
    all
}

pub(super) fn tunnel_changes(before: &Config, after: &Config) -> Vec<Change> {
    let mut all = Vec::new();
    let subject = |name: &str| Subject::Tunnel(name.to_owned());
    for tunnel in &before.tunnels {
        if !after.tunnels.iter().any(|other| other.name == tunnel.name) {
            all.push(whole(subject(&tunnel.name), Some(tunnel.name.clone()), None));
        }
    }
    for tunnel in &after.tunnels {
        match before.tunnels.iter().find(|other| other.name == tunnel.name) {
            None => all.push(whole(subject(&tunnel.name), None, Some(tunnel.name.clone()))),
            Some(known) if known != tunnel => {
                let mut differences = Differences::of(subject(&tunnel.name));
                differences.compare_tunnel(known, tunnel);
                all.extend(differences.changes);
            }
            Some(_) => {}
        }
    }
    all
}

impl Differences {
    fn compare_gateway(&mut self, before: &Gateway, after: &Gateway) {
        let Gateway { name: _, profile, phase1 } = before;
        let text = |profile: &Option<Profile>| {
            profile.map_or_else(|| String::from("none"), |profile| profile.name().to_owned())
        };
        self.add(GatewayTable::profile().name(), text(profile), text(&after.profile));
        self.add(IKE_POLICY, list(&phase1.transforms), list(&after.phase1.transforms));
        let lifetimes = (duration_text(phase1.lifetime), duration_text(after.phase1.lifetime));
        self.add(GatewayTable::lifetime().name(), lifetimes.0, lifetimes.1);
        self.follow(Consequence::TunnelsOfGateway);
    }

    fn compare_tunnel(&mut self, before: &Tunnel, after: &Tunnel) {
        // All fields are named, so that none is forgotten.
        let Tunnel {
            name: _,
            gateway,
            local,
            peer,
            identity,
            peer_identity,
            local_networks,
            remote_networks,
            traffic,
            credential,
            policy,
            start,
            replay_window,
            dead_peer_detection,
            priority,
            nat,
            mode,
            // It follows from the addresses of all tunnels.
            shares_address: _,
        } = before;
        type Table = TunnelTable;
        self.untold(
            match after.credential {
                Credential::PreSharedKey(_) => Table::pre_shared_key().name(),
                _ => Table::certificate().name(),
            },
            *credential != after.credential,
        );
        self.follow(Consequence::NextIsakmpSa);
        self.add(Table::gateway().name(), gateway.name.clone(), after.gateway.name.clone());
        let same_gateway = gateway.name == after.gateway.name;
        self.untold(IKE_POLICY_OF_GATEWAY, same_gateway && *gateway != after.gateway);
        self.add(Table::local().name(), local.to_string(), after.local.to_string());
        self.add(Table::peer().name(), peer.to_string(), after.peer.to_string());
        self.untold(Table::identity().name(), *identity != after.identity);
        let identities = (peer_identity.to_string(), after.peer_identity.to_string());
        self.add(Table::peer_identity().name(), identities.0, identities.1);
        let networks = (list(local_networks), list(&after.local_networks));
        self.add(Table::local_networks().name(), networks.0, networks.1);
        let networks = (list(remote_networks), list(&after.remote_networks));
        self.add(Table::remote_networks().name(), networks.0, networks.1);
        self.compare_traffic(*traffic, after.traffic);
        self.compare_policy(policy, &after.policy);
        self.value(&Table::start(), None, (start, &after.start));
        let (old, new) = (dead_peer_detection, &after.dead_peer_detection);
        let text = |mode| name_of(mode, DEAD_PEER_DETECTION).trim_matches('"').to_owned();
        self.add(Table::dead_peer_detection().name(), text(&old.mode), text(&new.mode));
        self.value(&Table::dead_peer_interval(), None, (&old.interval, &new.interval));
        self.value(&Table::replay_window(), None, (replay_window, &after.replay_window));
        self.value(&Table::nat(), None, (nat, &after.nat));
        let aggressive = |mode: Phase1Mode| mode == Phase1Mode::Aggressive;
        let modes = (aggressive(*mode), aggressive(after.mode));
        self.value(&Table::aggressive(), None, (&modes.0, &modes.1));
        self.untold(File::policy_priority().name(), *priority != after.priority);
        self.follow(Consequence::TunnelRestarts);
    }

    fn compare_traffic(&mut self, before: Traffic, after: Traffic) {
        let Traffic { protocol, local_port, remote_port } = before;
        let any = |number: u16| match number {
            0 => String::from("any"),
            number => number.to_string(),
        };
        let protocols = (any(protocol.into()), any(after.protocol.into()));
        self.add(TunnelTable::protocol().name(), protocols.0, protocols.1);
        self.add(TunnelTable::local_port().name(), any(local_port), any(after.local_port));
        self.add(TunnelTable::remote_port().name(), any(remote_port), any(after.remote_port));
    }

    fn compare_policy(&mut self, before: &ChildPolicy, after: &ChildPolicy) {
        let ChildPolicy { algorithms, pfs, mode, lifetime, kilobytes, extended_sequence_numbers } =
            before;
        type Table = TunnelTable;
        self.add(Table::esp().name(), list(algorithms), list(&after.algorithms));
        let group = |pfs| Pfs(pfs).toml().trim_matches('"').to_owned();
        self.add(Table::pfs().name(), group(*pfs), group(after.pfs));
        self.value(&Table::mode(), None, (mode, &after.mode));
        let lifetimes = (duration_text(*lifetime), duration_text(after.lifetime));
        self.add(Table::lifetime().name(), lifetimes.0, lifetimes.1);
        let most = |most: Option<u64>| most.map_or_else(|| "none".into(), |most| most.to_string());
        self.add(Table::kilobytes().name(), most(*kilobytes), most(after.kilobytes));
        let extended = (extended_sequence_numbers, &after.extended_sequence_numbers);
        self.value(&Table::extended_sequence_numbers(), None, extended);
    }
}
