//! `show member policy`: what is encrypted, what passes in clear, what is blocked.

use control::MemberSnapshot;
use control::member::{PolicyKind, PolicyLine};
use serde_json::{Value, json};

use crate::format::{Table, clean, or_any, or_dash};

pub(super) fn text(snapshot: &MemberSnapshot) -> String {
    let mut text = String::new();
    for group in &snapshot.groups {
        text.push_str(&format!(
            "Group {} ({}), the first match decides\n",
            clean(&group.name),
            group.id
        ));
        if group.policies.is_empty() {
            text.push_str("  no policy\n");
            continue;
        }
        let mut table = Table::new(&[
            "TYPE",
            "SOURCE",
            "DESTINATION",
            "PROTOCOL",
            "SPORT",
            "DPORT",
            "SPI",
            "NOTE",
        ]);
        for line in &group.policies {
            table.row(&row(line));
        }
        text.push_str(&table.render(2));
    }
    text
}

fn row(line: &PolicyLine) -> [String; 8] {
    let kind = match line.kind {
        PolicyKind::Secure => "secure",
        PolicyKind::Exclude => "exclude",
        PolicyKind::Local => "local",
        PolicyKind::FailOpen => "fail-open",
        PolicyKind::FailClose => "fail-close",
    };
    [
        kind.to_owned(),
        line.source.clone(),
        line.destination.clone(),
        or_any(line.protocol.into()),
        or_any(line.source_port),
        or_any(line.destination_port),
        or_dash(line.spi.map(|spi| format!("{spi:#010x}"))),
        line.note.clone(),
    ]
}

pub(super) fn json(snapshot: &MemberSnapshot) -> Value {
    let groups = snapshot.groups.iter();
    let groups =
        groups.map(|group| json!({"name": group.name, "id": group.id, "policies": group.policies}));
    json!({"groups": groups.collect::<Vec<_>>()})
}
