//! `show server ipsec`: the TEKs that members get, a line for each.

use control::ServerSnapshot;
use serde_json::{Value, json};

use crate::format::{Table, duration, or_dash};

pub(super) fn text(snapshot: &ServerSnapshot) -> String {
    if snapshot.groups.iter().all(|group| group.teks.is_empty()) {
        return "no keys yet\n".to_owned();
    }
    let mut table = Table::new(&[
        "GROUP",
        "ID",
        "SPI",
        "ENCRYPTION",
        "INTEGRITY",
        "LIFE LEFT",
        "STATE",
        "SELECTORS",
    ]);
    for group in &snapshot.groups {
        for tek in &group.teks {
            table.row(&[
                group.name.clone(),
                group.id.to_string(),
                format!("{:#010x}", tek.spi),
                tek.encryption.clone(),
                or_dash(tek.integrity.as_ref()),
                duration(tek.lifetime_left_seconds),
                if tek.current { "current" } else { "replaced" }.to_owned(),
                tek.selectors.join("; "),
            ]);
        }
    }
    table.render(0)
}

pub(super) fn json(snapshot: &ServerSnapshot) -> Value {
    let groups = snapshot
        .groups
        .iter()
        .map(|group| json!({ "name": group.name, "id": group.id, "teks": group.teks }));
    json!({ "groups": groups.collect::<Vec<_>>() })
}
