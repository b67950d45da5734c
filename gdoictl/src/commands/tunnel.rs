//! `show tunnel`: site-to-site tunnels.

use anyhow::bail;
use control::tunnel::{TunnelSas, TunnelSnapshot, TunnelsSnapshot};

use super::pretty;
use crate::format::{Fields, Table, duration, or_dash};

pub(super) fn text(snapshot: &TunnelsSnapshot) -> String {
    if snapshot.tunnels.is_empty() {
        return String::from("no tunnel is configured\n");
    }
    let mut table = Table::new(&["Tunnel", "Gateway", "Local", "Peer", "Networks", "State"]);
    for tunnel in &snapshot.tunnels {
        let protected = tunnel.networks.iter().filter(|one| one.sas.iter().any(|sa| sa.sending));
        table.row(&[
            tunnel.name.clone(),
            tunnel.gateway.clone(),
            tunnel.local.clone(),
            tunnel.peer.clone(),
            format!("{} of {}", protected.count(), tunnel.networks.len()),
            tunnel.state.clone(),
        ]);
    }
    table.render(0)
}

/// One tunnel with everything, or a line for each.
///
/// # Errors
/// There is none of this name.
pub(super) fn shown(
    snapshot: &TunnelsSnapshot,
    name: Option<&str>,
    json: bool,
) -> anyhow::Result<String> {
    let Some(name) = name else {
        return if json { pretty(snapshot) } else { Ok(text(snapshot)) };
    };
    match snapshot.tunnels.iter().find(|tunnel| tunnel.name == name) {
        None => bail!("there is no tunnel {name}; `gdoictl tunnel show` shows all"),
        Some(tunnel) if json => pretty(tunnel),
        Some(tunnel) => Ok(one(tunnel)),
    }
}

pub(super) fn detail(snapshot: &TunnelsSnapshot) -> String {
    snapshot.tunnels.iter().map(one).collect()
}

fn one(tunnel: &TunnelSnapshot) -> String {
    let mut fields = Fields::default();
    fields.add("Tunnel", &tunnel.name);
    fields.add("State", &tunnel.state);
    fields.add("Active for", or_dash(tunnel.active_seconds.map(duration)));
    let profile = tunnel.profile.as_ref().map(|profile| format!(" (profile {profile})"));
    fields.add("Gateway", format!("{}{}", tunnel.gateway, profile.unwrap_or_default()));
    fields.add("Ends", format!("{} -> {}", tunnel.local, tunnel.peer));
    match &tunnel.isakmp_sa {
        Some(sa) => {
            fields.add("ISAKMP SA", format!("{} / {}", sa.initiator_cookie, sa.responder_cookie));
            fields.add("", &sa.transform);
            fields.add("", format!("lifetime left {}", duration(sa.lifetime_left_seconds)));
        }
        None => {
            fields.add("ISAKMP SA", "-");
        }
    }
    for networks in &tunnel.networks {
        fields.add("Networks", format!("{} -> {}", networks.local, networks.remote));
        if networks.sas.is_empty() {
            fields.add("", "no SA: packets are dropped");
        }
        networks.sas.iter().for_each(|sa| sas(&mut fields, sa));
    }
    paths(&mut fields, std::slice::from_ref(tunnel));
    fields.render(0) + "\n"
}

/// The interfaces and routes of tunnels, each once.
pub(super) fn paths(fields: &mut Fields, tunnels: &[TunnelSnapshot]) {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for interface in tunnels.iter().flat_map(|tunnel| &tunnel.interfaces) {
        let state = if interface.up { "up" } else { "down" };
        let addresses = interface.addresses.join(", ");
        let line = format!("{} {state}, MTU {}, {addresses}", interface.name, interface.mtu);
        lines.push(("Interfaces", line));
    }
    for route in tunnels.iter().flat_map(|tunnel| &tunnel.routes) {
        let hop = route.next_hop.as_ref().map(|hop| format!(" via {hop}")).unwrap_or_default();
        let way = match &route.interface {
            Some(interface) => format!("{hop} dev {interface}"),
            None if route.is_peer => String::from(": no route"),
            None => String::from(": no route, so that no packet gets to the tunnel; add one"),
        };
        lines.push(("Routes", format!("{}{way}", route.destination)));
    }
    let mut seen: Vec<&(&str, String)> = Vec::new();
    for line in &lines {
        if seen.contains(&line) {
            continue;
        }
        let is_first = !seen.iter().any(|(name, _)| *name == line.0);
        fields.add(if is_first { line.0 } else { "" }, &line.1);
        seen.push(line);
    }
}

fn sas(fields: &mut Fields, sa: &TunnelSas) {
    let role = if sa.initiator { "initiator" } else { "responder" };
    let use_ = if sa.sending { "sent on" } else { "received on" };
    fields.add("", format!("in {} out {}, {use_}, {role}", sa.inbound_spi, sa.outbound_spi));
    let kilobytes = sa.kilobytes.map(|kilobytes| format!(", {kilobytes} kilobytes"));
    fields.add(
        "",
        format!(
            "  {}, PFS {}, age {}, lifetime left {}{}",
            sa.algorithms,
            sa.pfs,
            duration(sa.age_seconds),
            duration(sa.lifetime_left_seconds),
            kilobytes.unwrap_or_default()
        ),
    );
    fields.add(
        "",
        format!(
            "  received {} packets, {} octets; sent {} packets, {} octets",
            sa.received.packets, sa.received.octets, sa.sent.packets, sa.sent.octets
        ),
    );
}
