//! `show server cluster [detail]`: the other key servers, and the groups shared with them.

use std::collections::BTreeMap;

use control::ServerSnapshot;
use control::cluster::{ClusterGroup, ServerCluster};
use serde_json::{Value, json};

use crate::format::{Fields, Table, clean, duration, or_dash};

const ALONE: &str = "This key server is in no cluster.\n";

pub(super) fn text(snapshot: &ServerSnapshot) -> String {
    let Some(cluster) = &snapshot.cluster else { return ALONE.to_owned() };
    let mut table = Table::new(&[
        "GROUP",
        "ID",
        "ROLE",
        "EPOCH",
        "VERSION",
        "STAGE",
        "PEER",
        "ADDRESS",
        "PEER ROLE",
        "STATUS",
        "SINCE",
    ]);
    for group in &cluster.groups {
        for peer in &group.peers {
            table.row(&[
                clean(&group.name),
                group.id.to_string(),
                clean(&group.role),
                group.epoch.to_string(),
                group.version.to_string(),
                clean(&group.stage),
                clean(&peer.name),
                address(cluster, &peer.name),
                clean(&peer.role),
                clean(&peer.status),
                or_dash(peer.since_seconds.map(duration)),
            ]);
        }
    }
    table.render(0)
}

pub(super) fn detail(snapshot: &ServerSnapshot) -> String {
    let Some(cluster) = &snapshot.cluster else { return ALONE.to_owned() };
    let mut text = String::new();
    for server in &cluster.servers {
        let mut fields = Fields::default();
        fields.add("Address", server.address);
        fields.add("ISAKMP SA", if server.connected { "established" } else { "none" });
        add_counters(&mut fields, &server.counters);
        text.push_str(&format!("Server {}\n{}", clean(&server.name), fields.render(2)));
    }
    for group in &cluster.groups {
        text.push_str(&self::group(group));
    }
    text
}

fn group(group: &ClusterGroup) -> String {
    let mut fields = Fields::default();
    fields.add("Role", clean(&group.role));
    fields.add("Epoch", group.epoch);
    fields.add("Version", format!("{}, {}", group.version, clean(&group.stage)));
    if let Some(version) = group.prepared_version {
        fields.add("Prepared version", version);
    }
    add_counters(&mut fields, &group.counters);
    let mut text = format!("Group {} ({})\n{}", clean(&group.name), group.id, fields.render(2));
    for peer in &group.peers {
        let mut fields = Fields::default();
        let since = peer.since_seconds.map(|seconds| format!(" for {}", duration(seconds)));
        let status = format!("{}{}", clean(&peer.status), since.unwrap_or_default());
        fields.add("Role", clean(&peer.role)).add("Status", status);
        if let Some(version) = peer.prepared_version {
            fields.add("Prepared version", version);
        }
        if let Some(version) = peer.committed_version {
            fields.add("Committed version", version);
        }
        for one in &peer.differences {
            let values = format!("{} at the root, {} at the sub-server", one.root, one.sub_server);
            fields.add(&format!("Differs: {}", clean(&one.option)), clean(&values));
        }
        text.push_str(&format!("  Peer {}\n{}", clean(&peer.name), fields.render(4)));
    }
    text
}

pub(super) fn json(snapshot: &ServerSnapshot) -> Value {
    json!({"cluster": snapshot.cluster})
}

fn address(cluster: &ServerCluster, name: &str) -> String {
    let server = cluster.servers.iter().find(|server| server.name == name);
    or_dash(server.map(|server| server.address))
}

fn add_counters(fields: &mut Fields, counters: &BTreeMap<String, u64>) {
    for (name, count) in counters {
        let words = clean(name).replace('_', " ");
        let mut letters = words.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        fields.add(&first.into_iter().chain(letters).collect::<String>(), count);
    }
}
