//! `show member ike`: ISAKMP SAs.

use control::MemberSnapshot;
use control::member::{IsakmpSa, IsakmpState, Role};
use serde_json::{Value, json};

use crate::format::{Fields, clean, duration, or_dash};

pub(super) fn text(snapshot: &MemberSnapshot) -> String {
    let mut text = String::new();
    for group in &snapshot.groups {
        text.push_str(&format!("Group {} ({})\n", clean(&group.name), group.id));
        if group.isakmp_sas.is_empty() {
            text.push_str("  no ISAKMP SA\n");
        }
        text.extend(group.isakmp_sas.iter().map(sa));
    }
    text
}

fn sa(sa: &IsakmpSa) -> String {
    let mut fields = Fields::default();
    fields.add(
        "State",
        match sa.state {
            IsakmpState::Negotiating => "negotiating",
            IsakmpState::Up => "up",
        },
    );
    fields.add("Cookies", format!("{} / {}", sa.initiator_cookie, sa.responder_cookie));
    fields.add("Exchange mode", &sa.exchange_mode);
    fields.add(
        "Role",
        match sa.role {
            Role::Initiator => "initiator",
            Role::Responder => "responder",
        },
    );
    fields.add("Authentication", &sa.authentication);
    let transform = sa.transform.as_ref();
    fields.add(
        "Transform",
        or_dash(transform.map(|t| format!("{}, {}, group {}", t.encryption, t.hash, t.dh_group))),
    );
    fields.add("Peer identity", or_dash(sa.peer_identity.as_ref()));
    fields.add("Lifetime left", or_dash(sa.lifetime_left_seconds.map(duration)));
    format!("  {} -> {}\n{}", sa.local, sa.remote, fields.render(4))
}

pub(super) fn json(snapshot: &MemberSnapshot) -> Value {
    let groups = snapshot.groups.iter();
    let groups = groups
        .map(|group| json!({"name": group.name, "id": group.id, "isakmp_sas": group.isakmp_sas}));
    json!({"groups": groups.collect::<Vec<_>>()})
}
