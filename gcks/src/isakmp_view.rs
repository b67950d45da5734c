//! What `gdoictl show server ike` sees.

use std::sync::Arc;

use ::control::key_server::ServerIsakmpSa;
use ::control::member::{IsakmpSa as Shown, IsakmpState, Role as ShownRole, Transform};
use ike::BootTime;
use ike::config::Authentication;
use ike::phase1::{IsakmpSa, Role};
use ike::session::PeerAddress;

use crate::group::key_generation::Entropy;
use crate::server::KeyServer;
use crate::text::hexadecimal;

/// Every ISAKMP SA as of `now`: with members, then with the other servers of the cluster.
pub(crate) fn isakmp_sas<E: Entropy>(
    key_server: &KeyServer<E>,
    now: BootTime,
) -> Vec<ServerIsakmpSa> {
    let members = key_server.isakmp_sas().map(|(name, one)| view(name, "member", one, now));
    let servers = key_server.cluster().links();
    let servers = servers.filter_map(|(name, link)| Some((name, link.isakmp_sa()?)));
    let servers = servers.map(|(name, one)| view(Some(Arc::clone(name)), "server", one, now));
    members.chain(servers).collect()
}

fn view(
    name: Option<Arc<str>>,
    peer: &str,
    (address, sa, expires): (PeerAddress, &IsakmpSa, BootTime),
    now: BootTime,
) -> ServerIsakmpSa {
    let transform = sa.transform();
    let authentication = match transform.authentication {
        Authentication::RsaSignature => "rsa-signature",
        Authentication::Ecdsa256 => "ecdsa-256",
        Authentication::Ecdsa384 => "ecdsa-384",
        _ => "pre-shared-key",
    };
    ServerIsakmpSa {
        name: name.map(|name| name.to_string()),
        peer: peer.to_owned(),
        sa: Shown {
            state: IsakmpState::Up,
            local: address.local,
            remote: address.remote,
            initiator_cookie: hexadecimal(&sa.cookies().initiator),
            responder_cookie: hexadecimal(&sa.cookies().responder),
            exchange_mode: "main".to_owned(),
            role: match sa.role() {
                Role::Initiator => ShownRole::Initiator,
                Role::Responder => ShownRole::Responder,
            },
            authentication: authentication.to_owned(),
            peer_identity: Some(sa.peer_identity().to_string()),
            transform: Some(Transform {
                encryption: transform.encryption.name().to_owned(),
                hash: transform.hash.name().to_owned(),
                dh_group: transform.group.number(),
            }),
            lifetime_left_seconds: Some(expires.saturating_since(now).as_secs()),
        },
    }
}
