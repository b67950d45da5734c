//! `show member kek`: what pushes come under, a block for each group.

use control::MemberSnapshot;
use control::member::MemberGroup;
use serde_json::{Value, json};

use crate::format::{Fields, clean, or_dash};

pub(super) fn text(snapshot: &MemberSnapshot) -> String {
    let blocks: Vec<String> = snapshot.groups.iter().map(group).collect();
    blocks.join("\n")
}

fn group(group: &MemberGroup) -> String {
    let head = format!("Group {} ({})\n", clean(&group.name), group.id);
    let Some(sa) = &group.kek else { return head + "  no KEK: this group has no pushes\n" };
    let mut fields = Fields::default();
    fields.add("Key server", or_dash(group.server));
    super::member::kek(&mut fields, sa);
    let counters = &group.counters;
    fields
        .add("Pushes accepted", counters.pushes_accepted)
        .add("Pushes unusable", counters.pushes_unusable)
        .add("Pushes discarded", group.push_discards.values().sum::<u64>())
        .add("Acknowledgements", counters.acknowledgements_sent);
    head + &fields.render(2)
}

pub(super) fn json(snapshot: &MemberSnapshot) -> Value {
    let groups = snapshot.groups.iter().map(|group| {
        let counters = &group.counters;
        json!({
            "name": group.name,
            "id": group.id,
            "server": group.server,
            "kek": group.kek,
            "pushes_accepted": counters.pushes_accepted,
            "pushes_unusable": counters.pushes_unusable,
            "push_discards": group.push_discards,
            "acknowledgements_sent": counters.acknowledgements_sent,
        })
    });
    json!({ "groups": groups.collect::<Vec<_>>() })
}
