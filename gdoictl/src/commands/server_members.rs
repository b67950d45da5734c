//! `show server members`: who has keys.

use control::ServerSnapshot;
use serde_json::{Value, json};

use crate::format::{Table, duration};

pub(super) fn text(snapshot: &ServerSnapshot) -> String {
    if snapshot.members.is_empty() {
        return "no registered members\n".to_owned();
    }
    let mut table = Table::new(&[
        "GROUP",
        "ID",
        "MEMBER",
        "ADDRESS",
        "IDENTITY",
        "REGISTERED",
        "LAST PULL",
        "PULLS",
        "KEYS LEFT",
        "ACKS",
        "LAST ACK",
        "UNACKED",
    ]);
    for member in &snapshot.members {
        table.row(&[
            member.group.clone(),
            member.group_id.to_string(),
            member.name.clone(),
            member.address.to_string(),
            member.identity.clone(),
            format!("{} ago", duration(member.registered_seconds_ago)),
            format!("{} ago", duration(member.last_pull_seconds_ago)),
            member.pulls.to_string(),
            duration(member.keys_left_seconds),
            member.acknowledgements.to_string(),
            member
                .last_acknowledgement_seconds_ago
                .map_or_else(|| "-".to_owned(), |ago| format!("{} ago", duration(ago))),
            member.unacknowledged_pushes.to_string(),
        ]);
    }
    table.render(0)
}

pub(super) fn json(snapshot: &ServerSnapshot) -> Value {
    json!({"members": snapshot.members})
}
