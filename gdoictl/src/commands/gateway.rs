//! `gateway show`: IKE policies, with the interfaces, routes and tunnels that belong to them.

use anyhow::bail;
use control::tunnel::{GatewaySnapshot, TunnelSnapshot, TunnelsSnapshot};

use super::{pretty, tunnel};
use crate::format::{Fields, duration, or_dash};

/// One gateway, or all.
///
/// # Errors
/// There is none of this name.
pub(super) fn shown(
    snapshot: &TunnelsSnapshot,
    name: Option<&str>,
    json: bool,
) -> anyhow::Result<String> {
    let TunnelsSnapshot { gateways, tunnels } = snapshot;
    let is_shown = |gateway: &&GatewaySnapshot| name.is_none_or(|name| gateway.name == name);
    let gateways: Vec<GatewaySnapshot> = gateways.iter().filter(is_shown).cloned().collect();
    if let (Some(name), true) = (name, gateways.is_empty()) {
        bail!("there is no gateway {name}; `gdoictl gateway show` shows all");
    }
    let of_gateway = |name: &str| {
        let tunnels = tunnels.iter().filter(move |tunnel| tunnel.gateway == name);
        tunnels.cloned().collect::<Vec<TunnelSnapshot>>()
    };
    if json {
        let tunnels = gateways.iter().flat_map(|gateway| of_gateway(&gateway.name)).collect();
        return pretty(&TunnelsSnapshot { gateways, tunnels });
    }
    if gateways.is_empty() {
        return Ok(String::from("no gateway is configured\n"));
    }
    let texts: Vec<String> =
        gateways.iter().map(|gateway| one(gateway, &of_gateway(&gateway.name))).collect();
    Ok(texts.join("\n"))
}

fn one(gateway: &GatewaySnapshot, tunnels: &[TunnelSnapshot]) -> String {
    let mut fields = Fields::default();
    fields.add("Gateway", &gateway.name);
    fields.add("Profile", or_dash(gateway.profile.as_ref()));
    for (number, transform) in gateway.transforms.iter().enumerate() {
        fields.add(if number == 0 { "IKE policy" } else { "" }, transform);
    }
    fields.add("Lifetime", duration(gateway.lifetime_seconds));
    match &gateway.bandwidth {
        None => drop(fields.add("Bandwidth", "no limit")),
        Some(bandwidth) => {
            fields.add("Bandwidth", format!("{} Mbit/s in each direction", bandwidth.mbit));
            let (sent, received) = (bandwidth.dropped_sent, bandwidth.dropped_received);
            fields.add(
                "",
                format!(
                    "dropped for being over it: {} packets sent, {} received",
                    sent.packets, received.packets
                ),
            );
        }
    }
    for (number, tunnel) in tunnels.iter().enumerate() {
        fields.add(if number == 0 { "Tunnels" } else { "" }, tunnel_line(tunnel));
    }
    if tunnels.is_empty() {
        fields.add("Tunnels", "-");
    }
    tunnel::paths(&mut fields, tunnels);
    fields.render(0)
}

fn tunnel_line(tunnel: &TunnelSnapshot) -> String {
    format!("{} {} -> {}: {}", tunnel.name, tunnel.local, tunnel.peer, tunnel.state)
}
