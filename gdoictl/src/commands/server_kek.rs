//! `show server kek`: what pushes come under, a block for each group.

use control::ServerSnapshot;
use control::key_server::ServerGroup;
use serde_json::{Value, json};

use crate::format::{Fields, clean, duration};

pub(super) fn text(snapshot: &ServerSnapshot) -> String {
    let blocks: Vec<String> = snapshot.groups.iter().filter_map(group).collect();
    match blocks.is_empty() {
        true => "no group has pushes\n".to_owned(),
        false => blocks.join("\n"),
    }
}

fn group(group: &ServerGroup) -> Option<String> {
    let rekey = group.rekey.as_ref()?;
    let mut fields = Fields::default();
    match &rekey.kek {
        Some(kek) => fields
            .add("SPI", &kek.spi)
            .add("Lifetime left", duration(kek.lifetime_left_seconds))
            .add("Last push", kek.sequence_number),
        None => fields.add("SPI", "none yet"),
    };
    fields
        .add("Encryption", &rekey.encryption)
        .add("Signature", &rekey.signature)
        .add("Transport", &rekey.transport)
        .add("Next push", rekey.next_push_seconds.map_or_else(|| String::from("-"), duration))
        .add("Pushes sent", rekey.pushes)
        .add("Pushes acknowledged", rekey.acknowledgements)
        .add("Pushes unacknowledged", rekey.acknowledgements_missing);
    Some(format!("Group {} ({})\n{}", clean(&group.name), group.id, fields.render(2)))
}

pub(super) fn json(snapshot: &ServerSnapshot) -> Value {
    let groups = snapshot.groups.iter().filter_map(|group| {
        let rekey = group.rekey.as_ref()?;
        Some(json!({ "name": group.name, "id": group.id, "rekey": rekey }))
    });
    json!({ "groups": groups.collect::<Vec<_>>() })
}
