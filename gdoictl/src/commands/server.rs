//! `show server`: groups and their keys.

use control::ServerSnapshot;
use control::key_server::{Redundancy, ServerGroup, ServerRekey, ServerRole};

use crate::format::{Fields, Table, clean, duration, or_dash};

pub(super) fn text(snapshot: &ServerSnapshot) -> String {
    let listen: Vec<String> = snapshot.listen.iter().map(ToString::to_string).collect();
    let mut fields = Fields::default();
    fields
        .add("Version", &snapshot.program_version)
        .add("Running for", duration(snapshot.uptime_seconds))
        .add("Listening on", listen.join(", "))
        .add("Members", snapshot.members.len());
    if let Some(redundancy) = &snapshot.redundancy {
        self::redundancy(redundancy, &mut fields);
    }
    for problem in &snapshot.problems {
        fields.add("Problem", problem);
    }
    let mut text = fields.render(0);
    for group in &snapshot.groups {
        text.push('\n');
        text.push_str(&self::group(group));
    }
    text
}

fn redundancy(redundancy: &Redundancy, fields: &mut Fields) {
    let Redundancy { role, name, active, store, since_seconds, last_write_milliseconds, problem } =
        redundancy;
    let role = match role {
        ServerRole::Active => "active",
        ServerRole::Standby => "standby",
    };
    fields.add("Role", format!("{role} for {}", duration(*since_seconds)));
    fields.add("Name", clean(name));
    if *active != Some(name.clone()) {
        fields.add("Active server", or_dash(active.as_deref().map(clean).as_ref()));
    }
    fields.add("State", clean(store));
    if let Some(milliseconds) = last_write_milliseconds {
        fields.add("Last write took", format!("{milliseconds} ms"));
    }
    if let Some(problem) = problem {
        fields.add("Problem", clean(problem));
    }
}

fn group(group: &ServerGroup) -> String {
    let mut fields = Fields::default();
    fields.add("Members", group.members);
    fields.add(
        "Pulls",
        format!("{} succeeded, {} failed", group.pulls_succeeded, group.pulls_failed),
    );
    if let Some(rekey) = &group.rekey {
        self::rekey(rekey, &mut fields);
    }
    let mut text = format!("Group {} ({})\n{}", clean(&group.name), group.id, fields.render(2));
    if group.teks.is_empty() {
        text.push_str("  no key yet\n");
        return text;
    }
    let mut table =
        Table::new(&["SPI", "ENCRYPTION", "INTEGRITY", "LIFETIME LEFT", "STATE", "SELECTORS"]);
    for tek in &group.teks {
        table.row(&[
            format!("{:#010x}", tek.spi),
            tek.encryption.clone(),
            or_dash(tek.integrity.as_ref()),
            duration(tek.lifetime_left_seconds),
            if tek.current { "current" } else { "replaced" }.to_owned(),
            tek.selectors.join("; "),
        ]);
    }
    text.push_str(&table.render(2));
    text
}

fn rekey(rekey: &ServerRekey, fields: &mut Fields) {
    fields.add(
        "Rekey",
        format!("{}, {}, signed with {}", rekey.transport, rekey.encryption, rekey.signature),
    );
    let kek = rekey.kek.as_ref().map(|kek| {
        let left = duration(kek.lifetime_left_seconds);
        format!("{}, lifetime left {left}, last push {}", clean(&kek.spi), kek.sequence_number)
    });
    fields.add("KEK", kek.unwrap_or_else(|| String::from("none yet")));
    fields.add("Next push", rekey.next_push_seconds.map_or_else(|| String::from("-"), duration));
    let (missing, unresponsive) = (rekey.acknowledgements_missing, rekey.members_unresponsive);
    fields.add("Pushes", rekey.pushes);
    fields
        .add("Acknowledgements", format!("{} received, {missing} missing", rekey.acknowledgements));
    fields.add(
        "Unresponsive members",
        format!("{unresponsive} now, {} dropped", rekey.members_dropped),
    );
    if !rekey.removed.is_empty() {
        let names: Vec<String> = rekey.removed.iter().map(|name| clean(name)).collect();
        fields.add("Removed members", names.join(", "));
    }
}
