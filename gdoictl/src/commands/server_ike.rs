//! `show server ike`: ISAKMP SAs, a line for each.

use control::key_server::ServerIsakmpSa;
use control::member::Role;
use serde_json::{Value, json};

use crate::format::{Table, duration, or_dash};

pub(super) fn text(sas: &[ServerIsakmpSa]) -> String {
    if sas.is_empty() {
        return "no ISAKMP SA\n".to_owned();
    }
    let mut table = Table::new(&[
        "PEER",
        "NAME",
        "ADDRESS",
        "IDENTITY",
        "ROLE",
        "COOKIES",
        "AUTHENTICATION",
        "TRANSFORM",
        "LIFETIME LEFT",
    ]);
    for ServerIsakmpSa { name, peer, sa } in sas {
        let transform = sa.transform.as_ref();
        table.row(&[
            peer.clone(),
            or_dash(name.as_ref()),
            sa.remote.to_string(),
            or_dash(sa.peer_identity.as_ref()),
            match sa.role {
                Role::Initiator => "initiator",
                Role::Responder => "responder",
            }
            .to_owned(),
            format!("{} / {}", sa.initiator_cookie, sa.responder_cookie),
            sa.authentication.clone(),
            or_dash(
                transform.map(|t| format!("{}, {}, group {}", t.encryption, t.hash, t.dh_group)),
            ),
            or_dash(sa.lifetime_left_seconds.map(duration)),
        ]);
    }
    table.render(0)
}

pub(super) fn json(sas: &[ServerIsakmpSa]) -> Value {
    json!({ "isakmp_sas": sas })
}
