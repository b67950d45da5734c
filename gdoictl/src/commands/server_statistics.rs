//! `show server statistics`: counters.

use control::ServerSnapshot;
use serde_json::{Value, json};

use crate::format::{Fields, Table, clean, or_dash};

pub(super) fn text(snapshot: &ServerSnapshot) -> String {
    let statistics = &snapshot.statistics;
    let mut now = Fields::default();
    now.add("Half-open exchanges", statistics.half_open)
        .add("ISAKMP SAs", statistics.isakmp_sas)
        .add("Pulls in progress", statistics.pulls);
    let mut total = Fields::default();
    total
        .add("Datagrams received", statistics.datagrams_received)
        .add("Datagrams sent", statistics.datagrams_sent)
        .add("Phase 1 established", statistics.phase1_established)
        .add("Pulls succeeded", statistics.pulls_succeeded)
        .add("Pulls refused", statistics.pulls_refused)
        .add("Pulls aborted", statistics.pulls_aborted)
        .add("Half-open timed out", statistics.half_open_expired)
        .add("Half-open evicted", statistics.half_open_evicted)
        .add("Diffie-Hellman", statistics.diffie_hellman)
        .add("Duplicates answered", statistics.duplicates_answered);
    let mut text = format!(
        "Now\n{}Since start, or since they were cleared\n{}",
        now.render(2),
        total.render(2)
    );
    if !statistics.discards.is_empty() {
        let mut discards = Fields::default();
        for (reason, count) in &statistics.discards {
            discards.add(&clean(reason), count);
        }
        text.push_str(&format!("Discarded datagrams by reason\n{}", discards.render(2)));
    }
    if !snapshot.groups.is_empty() {
        let mut table = Table::new(&[
            "GROUP",
            "ID",
            "MEMBERS",
            "PULLS SUCCEEDED",
            "PULLS FAILED",
            "OVER THRESHOLD",
        ]);
        for group in &snapshot.groups {
            table.row(&[
                group.name.clone(),
                group.id.to_string(),
                group.members.to_string(),
                group.pulls_succeeded.to_string(),
                group.pulls_failed.to_string(),
                group.pulls_over_threshold.to_string(),
            ]);
        }
        text.push_str(&format!("Pulls by group\n{}", table.render(2)));
        text.push_str(&pushes(snapshot));
    }
    text
}

fn pushes(snapshot: &ServerSnapshot) -> String {
    let mut table = Table::new(&[
        "GROUP",
        "SENT",
        "ACKNOWLEDGED",
        "UNACKNOWLEDGED",
        "DATAGRAMS SENT AGAIN",
        "LAST TOOK",
    ]);
    let mut any = false;
    for (group, rekey) in
        snapshot.groups.iter().filter_map(|group| Some((group, group.rekey.as_ref()?)))
    {
        any = true;
        table.row(&[
            group.name.clone(),
            rekey.pushes.to_string(),
            rekey.acknowledgements.to_string(),
            rekey.acknowledgements_missing.to_string(),
            rekey.retransmissions.to_string(),
            or_dash(rekey.last_push_milliseconds.map(|took| format!("{took} ms"))),
        ]);
    }
    if any { format!("Pushes by group\n{}", table.render(2)) } else { String::new() }
}

pub(super) fn json(snapshot: &ServerSnapshot) -> Value {
    let groups = snapshot.groups.iter().map(|group| {
        json!({
            "name": group.name, "id": group.id, "members": group.members,
            "pulls_succeeded": group.pulls_succeeded, "pulls_failed": group.pulls_failed,
            "pulls_over_threshold": group.pulls_over_threshold,
            "pushes": group.rekey.as_ref().map(|rekey| json!({
                "sent": rekey.pushes,
                "acknowledged": rekey.acknowledgements,
                "unacknowledged": rekey.acknowledgements_missing,
                "retransmissions": rekey.retransmissions,
                "last_push_milliseconds": rekey.last_push_milliseconds,
            })),
        })
    });
    json!({"statistics": snapshot.statistics, "groups": groups.collect::<Vec<_>>()})
}
