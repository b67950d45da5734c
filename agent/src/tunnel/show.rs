//! Tunnels as `gdoictl` shows them, and as the log tells of them.

use control::member::Traffic;
use control::tunnel::{
    GatewayBandwidth, GatewaySnapshot, TunnelIsakmpSa, TunnelNetworks, TunnelSas, TunnelSnapshot,
    TunnelsSnapshot,
};
use daemon::configuration::Read as _;
use ike::BootTime;
use ike::phase1::Role;
use tracing::{info, warn};
use xfrm::model::SaId;
use xfrm::nft::over_bandwidth;
use xfrm::statistics::Statistics;

use super::child_sa::Pair;
use super::flow::Flow;
pub use super::paths::Paths;
use super::state::{State, Tunnel};
use super::{Event, Tunnels};
use crate::config::tunnel::GatewayConfig;

/// All gateways and tunnels with the kernel's counters. `paths` is where their packets go, if that
/// could be read.
pub fn snapshot(
    gateways: &[GatewayConfig],
    tunnels: &Tunnels,
    paths: Option<&Paths>,
    statistics: &Statistics,
    now: BootTime,
) -> TunnelsSnapshot {
    let all = tunnels.all().iter();
    TunnelsSnapshot {
        gateways: gateways.iter().map(|one| gateway(one, tunnels, statistics)).collect(),
        tunnels: all.map(|tunnel| one(tunnel, paths, statistics, now)).collect(),
    }
}

fn gateway(
    GatewayConfig { gateway, bandwidth_mbit }: &GatewayConfig,
    tunnels: &Tunnels,
    statistics: &Statistics,
) -> GatewaySnapshot {
    let over = |received| {
        let counters = statistics.rules.get(&over_bandwidth(&gateway.name, received));
        counters.map_or_else(Traffic::default, |counters| Traffic {
            packets: counters.packets,
            octets: counters.octets,
        })
    };
    let users = tunnels.all().iter().map(Tunnel::config);
    let users = users.filter(|tunnel| tunnel.gateway.name == gateway.name);
    GatewaySnapshot {
        name: gateway.name.clone(),
        profile: gateway.profile.map(|profile| profile.name().to_owned()),
        transforms: gateway.phase1.transforms.iter().map(ToString::to_string).collect(),
        lifetime_seconds: gateway.phase1.lifetime.as_secs(),
        bandwidth: bandwidth_mbit.map(|mbit| GatewayBandwidth {
            mbit,
            dropped_sent: over(false),
            dropped_received: over(true),
        }),
        tunnels: users.map(|tunnel| tunnel.name.clone()).collect(),
    }
}

fn one(
    tunnel: &Tunnel,
    paths: Option<&Paths>,
    statistics: &Statistics,
    now: BootTime,
) -> TunnelSnapshot {
    let (config, state) = (tunnel.config(), tunnel.state(now));
    let hex = |cookie: [u8; 8]| cookie.iter().map(|octet| format!("{octet:02x}")).collect();
    let isakmp_sa = tunnel.peer().isakmp_sa().map(|(cookies, transform, expires)| TunnelIsakmpSa {
        initiator_cookie: hex(cookies.initiator),
        responder_cookie: hex(cookies.responder),
        transform: transform.to_string(),
        lifetime_left_seconds: expires.saturating_since(now).as_secs(),
    });
    TunnelSnapshot {
        name: config.name.clone(),
        gateway: config.gateway.name.clone(),
        profile: config.gateway.profile.map(|profile| profile.name().to_owned()),
        local: config.local.to_string(),
        peer: match config.peer.is_unspecified() {
            true => String::from("any address"),
            false => config.peer.to_string(),
        },
        active: state == State::Active,
        // What the machine lacks explains everything else.
        state: paths
            .filter(|_| state != State::Active)
            .and_then(|paths| paths.obstacle(config))
            .unwrap_or_else(|| state.to_string()),
        active_seconds: tunnel.active_since().map(|since| now.saturating_since(since).as_secs()),
        isakmp_sa,
        networks: tunnel
            .flows()
            .iter()
            .map(|flow| networks(tunnel, flow, statistics, now))
            .collect(),
        interfaces: paths.map(|paths| paths.interfaces(config)).unwrap_or_default(),
        routes: paths.map(|paths| paths.routes(config)).unwrap_or_default(),
    }
}

fn networks(
    tunnel: &Tunnel,
    flow: &Flow,
    statistics: &Statistics,
    now: BootTime,
) -> TunnelNetworks {
    let sending = flow.sending(now).map(Pair::spi);
    let mut pairs: Vec<&Pair> = flow.pairs.values().collect();
    pairs.sort_by_key(|pair| (Some(pair.spi()) != sending, pair.since()));
    let sas = pairs.into_iter().map(|pair| {
        let count = |destination, spi| {
            let found = statistics.sas.get(&SaId { destination, spi });
            found.map_or_else(Traffic::default, |sa| Traffic {
                packets: sa.packets,
                octets: sa.octets,
            })
        };
        let sas = &pair.sas;
        TunnelSas {
            inbound_spi: format!("{:#010x}", sas.inbound.spi),
            outbound_spi: format!("{:#010x}", sas.outbound.spi),
            sending: Some(pair.spi()) == sending,
            algorithms: sas.algorithms.to_string(),
            pfs: sas.pfs.map_or_else(|| String::from("off"), |group| group.toml()),
            initiator: pair.role() == Role::Initiator,
            age_seconds: now.saturating_since(pair.since()).as_secs(),
            lifetime_left_seconds: pair.expires().saturating_since(now).as_secs(),
            kilobytes: sas.kilobytes,
            received: count(tunnel.config().local, sas.inbound.spi),
            sent: count(pair.remote(), sas.outbound.spi),
        }
    });
    TunnelNetworks {
        local: flow.selectors.local.to_string(),
        remote: flow.selectors.remote.to_string(),
        sas: sas.collect(),
    }
}

/// Writes an event to the log.
pub fn log(tunnel: &str, event: &Event) {
    match event {
        Event::Connected { restarted } => info!(
            event = "tunnel-connected",
            tunnel,
            peer_restarted = restarted,
            "ISAKMP SA established with the peer of the tunnel"
        ),
        Event::IsakmpSaEnded => {
            info!(event = "tunnel-isakmp-sa-ended", tunnel, "ISAKMP SA of the tunnel ended");
        }
        Event::Negotiated { selectors, spi, rekeyed } => info!(
            event = "tunnel-sas-negotiated",
            tunnel,
            networks = %selectors,
            spi = format_args!("{spi:#010x}"),
            rekeyed,
            "SAs of the tunnel negotiated"
        ),
        Event::Moved { from, to } => info!(
            event = "tunnel-peer-moved",
            tunnel,
            %from,
            %to,
            "address translation gave the peer of the tunnel another address or port"
        ),
        Event::DeletedByPeer { selectors } => warn!(
            event = "tunnel-sas-deleted",
            tunnel,
            networks = %selectors,
            "the peer deleted the SAs of the tunnel; its traffic is blocked"
        ),
        Event::Failed { reason } => {
            warn!(
                event = "tunnel-negotiation-failed",
                tunnel, reason, "negotiation of the tunnel failed"
            );
        }
    }
}
