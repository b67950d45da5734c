//! `show member ipsec`: data SAs.

use control::MemberSnapshot;
use control::member::Tek;
use serde_json::{Value, json};

use crate::format::{Table, clean, duration, or_dash};

pub(super) fn text(snapshot: &MemberSnapshot) -> String {
    let mut text = String::new();
    for group in &snapshot.groups {
        text.push_str(&format!(
            "Group {} ({}), server {}\n",
            clean(&group.name),
            group.id,
            or_dash(group.server)
        ));
        if group.teks.is_empty() {
            text.push_str("  no data SA\n");
            continue;
        }
        let mut table = Table::new(&[
            "SPI",
            "ENCRYPTION",
            "INTEGRITY",
            "MODE",
            "DIRECTION",
            "IN USE FOR",
            "HARD LIFETIME",
            "KILOBYTES",
            "IN PACKETS",
            "IN OCTETS",
            "OUT PACKETS",
            "OUT OCTETS",
        ]);
        for tek in &group.teks {
            table.row(&row(tek));
        }
        text.push_str(&table.render(2));
    }
    text
}

fn row(tek: &Tek) -> [String; 12] {
    let used = match (tek.sends, tek.receives) {
        (true, true) => "sending, receiving",
        (true, false) => "sending",
        (false, true) => "receiving",
        (false, false) => "nothing",
    };
    [
        format!("{:#010x}", tek.spi),
        tek.encryption.clone(),
        or_dash(tek.integrity.as_ref()),
        tek.mode.clone(),
        tek.direction.clone(),
        used.to_owned(),
        duration(tek.hard_lifetime_left_seconds),
        or_dash(tek.lifetime_kilobytes),
        tek.inbound.packets.to_string(),
        tek.inbound.octets.to_string(),
        tek.outbound.packets.to_string(),
        tek.outbound.octets.to_string(),
    ]
}

pub(super) fn json(snapshot: &MemberSnapshot) -> Value {
    let groups = snapshot.groups.iter();
    let groups =
        groups.map(|group| json!({"name": group.name, "id": group.id, "server": group.server, "teks": group.teks}));
    json!({"groups": groups.collect::<Vec<_>>()})
}
