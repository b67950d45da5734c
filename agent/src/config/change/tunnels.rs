//! Gateways and tunnels of two configurations compared.

use daemon::configuration::{Read as _, duration_text, name_of};

use super::{Change, Consequence, Differences, Subject, list, whole};
use crate::config::Config;
use crate::config::tunnel::{
    DEAD_PEER_DETECTION, Gateway, GatewayConfig, MODE, NAT_TRAVERSAL, Pfs, START, Tunnel,
};

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
                differences.add("bandwidth-mbit", figure(&known), figure(config));
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
        let profile = |gateway: &Gateway| {
            gateway
                .profile
                .map_or_else(|| String::from("none"), |profile| profile.name().to_owned())
        };
        self.add("profile", profile(before), profile(after));
        let policy = |gateway: &Gateway| list(&gateway.phase1.transforms);
        self.add("IKE policy", policy(before), policy(after));
        let lifetime = |gateway: &Gateway| duration_text(gateway.phase1.lifetime);
        self.add("lifetime", lifetime(before), lifetime(after));
        self.follow(Consequence::TunnelsOfGateway);
    }

    fn compare_tunnel(&mut self, before: &Tunnel, after: &Tunnel) {
        self.untold("credential", before.credential != after.credential);
        self.follow(Consequence::ProvenAnew);
        self.add("gateway", before.gateway.name.clone(), after.gateway.name.clone());
        if before.gateway.name == after.gateway.name {
            self.untold("the gateway's IKE policy", before.gateway != after.gateway);
        }
        self.add("local-address", before.local.to_string(), after.local.to_string());
        self.add("peer", before.peer.to_string(), after.peer.to_string());
        self.untold("identity", before.identity != after.identity);
        self.add(
            "peer-identity",
            before.peer_identity.to_string(),
            after.peer_identity.to_string(),
        );
        self.add("local-networks", list(&before.local_networks), list(&after.local_networks));
        self.add("remote-networks", list(&before.remote_networks), list(&after.remote_networks));
        let number = |number: u16| match number {
            0 => String::from("any"),
            number => number.to_string(),
        };
        let (old, new) = (before.traffic, after.traffic);
        self.add("protocol", number(old.protocol.into()), number(new.protocol.into()));
        self.add("local-port", number(old.local_port), number(new.local_port));
        self.add("remote-port", number(old.remote_port), number(new.remote_port));
        let (old, new) = (&before.policy, &after.policy);
        self.add("esp", list(&old.algorithms), list(&new.algorithms));
        self.add("pfs", Pfs(old.pfs).toml(), Pfs(new.pfs).toml());
        self.names("mode", (&old.mode, &new.mode), MODE);
        self.add("lifetime", duration_text(old.lifetime), duration_text(new.lifetime));
        let kilobytes = |limit: Option<u64>| {
            limit.map_or_else(|| String::from("none"), |limit| limit.to_string())
        };
        self.add("lifetime-kilobytes", kilobytes(old.kilobytes), kilobytes(new.kilobytes));
        let extended = (old.extended_sequence_numbers, new.extended_sequence_numbers);
        self.flag("extended-sequence-numbers", extended.0, extended.1);
        self.names("start", (&before.start, &after.start), START);
        let (old, new) = (&before.dead_peer_detection, &after.dead_peer_detection);
        let mode = |mode| name_of(mode, DEAD_PEER_DETECTION);
        self.add("dead-peer-detection", mode(&old.mode), mode(&new.mode));
        let interval = (duration_text(old.interval), duration_text(new.interval));
        self.add("dead-peer-interval", interval.0, interval.1);
        let window = (before.replay_window.to_string(), after.replay_window.to_string());
        self.add("replay-window", window.0, window.1);
        self.names("nat-traversal", (&before.nat, &after.nat), NAT_TRAVERSAL);
        // Whatever else there may be: nothing restarts without a line that says so.
        let other = self.changes.is_empty() && before != after;
        self.untold("options", other);
        self.follow(Consequence::TunnelRestarts);
    }
}
