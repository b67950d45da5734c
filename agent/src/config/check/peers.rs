//! Peers of tunnels that their address alone does not tell apart, and aggressive mode.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ike::quick::Mode;

use super::Check;
use super::tunnels::label;
use crate::config::tunnel::{Gateway, Start, TunnelTable};

impl Check<'_> {
    /// What aggressive mode shows, and what it cannot offer.
    pub(super) fn aggressive(&self, typed: &TunnelTable, gateway: &Gateway) {
        if !typed.aggressive {
            return;
        }
        let groups: BTreeSet<_> =
            gateway.phase1.transforms.iter().map(|transform| transform.group).collect();
        if groups.len() > 1 {
            let message = format!(
                "tunnel {}: aggressive mode offers one Diffie-Hellman group, and gateway {} has {}",
                label(typed),
                gateway.name,
                groups.len()
            );
            let remedy = "write one dh-group into the gateway";
            self.report.error(typed.place.clone(), message, remedy);
        }
        if typed.names_key {
            let message = format!(
                "tunnel {}: with aggressive mode and a pre-shared key, anybody who asks gets a hash \
                 to try keys against",
                label(typed)
            );
            let remedy =
                "have a long random key (32 octets of /dev/urandom), or better a certificate";
            self.report.warning(typed.place.clone(), message, remedy);
        }
    }

    /// A peer that may be anywhere begins, and something else than its address says who it is.
    pub(super) fn anywhere(&self, typed: &TunnelTable) {
        let Some(peer) = typed.peer.as_ref().filter(|peer| peer.value.is_unspecified()) else {
            return;
        };
        let name = label(typed);
        if typed.start != Start::Answer {
            let message = format!("tunnel {name}: a peer that may be anywhere cannot be asked");
            self.error(&peer.place, message, "write start = \"answer\"");
        }
        if typed.peer_identity.is_none() {
            let message = format!("tunnel {name}: a peer that may be anywhere has no identity");
            self.error(&peer.place, message, "write the peer-identity that it proves");
        }
        if typed.names_key && !typed.aggressive {
            let message = format!(
                "tunnel {name}: main mode finds a pre-shared key by the address of the peer, which \
                 may be any"
            );
            let remedy = "use a certificate, or aggressive-mode = true and know why";
            self.error(&peer.place, message, remedy);
        }
        if typed.mode == Mode::Transport {
            let message = format!("tunnel {name}: transport mode is between two known addresses");
            self.error(&peer.place, message, "write mode = \"tunnel\", or the address");
        }
    }

    /// In main mode with a pre-shared key the addresses are all there is to tell tunnels apart by.
    pub(super) fn shares_address(&self, typed: &TunnelTable) -> bool {
        self.shared.contains(&(
            typed.local.as_ref().map(|local| local.value),
            typed.peer.as_ref().map(|peer| peer.value),
        ))
    }

    pub(super) fn ends(&mut self, tunnels: &[TunnelTable]) {
        let mut seen: BTreeMap<(IpAddr, IpAddr), Vec<&TunnelTable>> = BTreeMap::new();
        for tunnel in tunnels {
            let (Some(local), Some(peer)) = (&tunnel.local, &tunnel.peer) else { continue };
            if local.value == peer.value {
                let message = format!("tunnel.peer: {} is this end as well", peer.value);
                self.error(&peer.place, message, "write the address of the other end");
            }
            let others = seen.entry((local.value, peer.value)).or_default();
            if !others.is_empty() {
                self.shared.insert((Some(local.value), Some(peer.value)));
            }
            // One defect of a tunnel is enough to read.
            let conflict = others.iter().find_map(|other| Some((other, conflict(tunnel, other)?)));
            if let Some((other, (problem, remedy))) = conflict {
                let message = format!(
                    "tunnel.peer: tunnel {} goes from {} to {} as well{problem}",
                    label(other),
                    local.value,
                    peer.value
                );
                self.error(&peer.place, message, remedy);
            }
            others.push(tunnel);
        }
    }
}

/// Why two tunnels with the same ends cannot be told apart, and the remedy.
fn conflict(one: &TunnelTable, other: &TunnelTable) -> Option<(&'static str, &'static str)> {
    let told_apart =
        |one: &TunnelTable| one.peer_identity.is_some() && (!one.names_key || one.aggressive);
    if !told_apart(one) || !told_apart(other) {
        let remedy = "write the networks of both into one tunnel; or tell the peers apart by \
                      peer-identity, with certificates or aggressive-mode = true";
        return Some(("", remedy));
    }
    let identity = |one: &TunnelTable| one.peer_identity.as_ref().map(|one| one.value.clone());
    if identity(one) == identity(other) {
        let remedy = "give each peer its own, or write one tunnel";
        return Some((", with the same peer-identity", remedy));
    }
    let main = !one.aggressive && !other.aggressive;
    let text = |one: &TunnelTable| {
        let of = |text: &Option<daemon::configuration::Located<String>>| {
            text.as_ref().map(|text| text.value.clone())
        };
        (of(&one.certificate), of(&one.gateway))
    };
    let late = ", and main mode shows the identity of the peer too late to choose between two \
                gateways or certificates";
    (main && text(one) != text(other))
        .then_some((late, "give both the same gateway and certificate"))
}
