//! What `gdoictl show server cluster` sees.

use std::collections::BTreeMap;

use ::cluster::message::Difference;
use ::cluster::root::{Activity, SubServer};
use ::cluster::sub_server::RootActivity;
use ::control::cluster::{
    ClusterDifference, ClusterGroup, ClusterPeer, ClusterServer, ServerCluster,
};
use ike::BootTime;

use crate::config::cluster::Role;
use crate::group::Group;
use crate::group::key_generation::Entropy;
use crate::server::KeyServer;
use crate::server::cluster::{RootSide, SubServerSide};

/// This server's part in a cluster as of `now`; `None` if it is on its own.
pub(crate) fn snapshot<E: Entropy>(
    key_server: &KeyServer<E>,
    now: BootTime,
) -> Option<ServerCluster> {
    let cluster = key_server.cluster();
    let servers = cluster.links().map(|(name, link)| {
        let figures = link.statistics();
        ClusterServer {
            name: name.to_string(),
            address: link.remote(),
            connected: link.is_up(),
            counters: counters(&[
                ("requests_sent", figures.requests_sent),
                ("requests_received", figures.requests_received),
                ("answers_received", figures.answers_received),
                ("requests_lost", figures.requests_lost),
                ("messages_refused", figures.messages_refused),
                ("deaths", figures.deaths),
            ]),
        }
    });
    let groups = key_server.groups().filter_map(|group| {
        let as_root = cluster.root(group.id()).map(|side| root(group, side, now));
        as_root.or_else(|| cluster.sub_server(group.id()).map(|side| sub_server(group, side, now)))
    });
    let (servers, groups): (Vec<_>, Vec<_>) = (servers.collect(), groups.collect());
    (!servers.is_empty()).then_some(ServerCluster { servers, groups })
}

fn root(group: &Group, side: &RootSide, now: BootTime) -> ClusterGroup {
    let generation = side.generation();
    let figures = side.counters();
    let peer = |(name, sub_server): (&std::sync::Arc<str>, &SubServer)| {
        let (status, since) = match sub_server.activity {
            Activity::Unknown { .. } => ("unknown", None),
            Activity::Active { since } => ("active", Some(since)),
            Activity::Inactive { since } => ("inactive", Some(since)),
        };
        ClusterPeer {
            name: name.to_string(),
            role: Role::SubServer.name().to_owned(),
            status: status.to_owned(),
            since_seconds: since.map(|since| now.saturating_since(since).as_secs()),
            prepared_version: Some(sub_server.prepared),
            committed_version: Some(sub_server.committed),
            differences: differences(side.differences(name)),
        }
    };
    ClusterGroup {
        name: group.name().to_string(),
        id: group.id().0,
        role: Role::RootServer.name().to_owned(),
        epoch: generation.epoch,
        version: generation.version,
        stage: side.stage().name().to_owned(),
        prepared_version: None,
        peers: side.sub_servers().map(peer).collect(),
        counters: counters(&[
            ("inits_answered", figures.inits_answered),
            ("inits_refused", figures.inits_refused),
            ("updates_sent", figures.updates_sent),
            ("updates_acknowledged", figures.updates_acknowledged),
            ("updates_lost", figures.updates_lost),
            ("updates_late", figures.late),
        ]),
    }
}

fn sub_server(group: &Group, side: &SubServerSide, now: BootTime) -> ClusterGroup {
    let generation = side.generation();
    let figures = side.counters();
    let (status, since) = match side.activity() {
        RootActivity::Active { since } => ("active", since),
        RootActivity::Inactive { since } => ("inactive", since),
    };
    let peer = ClusterPeer {
        name: side.root().to_string(),
        role: Role::RootServer.name().to_owned(),
        status: status.to_owned(),
        since_seconds: Some(now.saturating_since(since).as_secs()),
        prepared_version: None,
        committed_version: None,
        differences: differences(side.differences()),
    };
    ClusterGroup {
        name: group.name().to_string(),
        id: group.id().0,
        role: Role::SubServer.name().to_owned(),
        epoch: generation.epoch,
        version: generation.version,
        stage: ::cluster::Stage::Committed.name().to_owned(),
        prepared_version: side.prepared().map(|prepared| prepared.version),
        peers: vec![peer],
        counters: counters(&[
            ("inits_sent", figures.inits_sent),
            ("inits_succeeded", figures.inits_succeeded),
            ("inits_failed", figures.inits_failed),
            ("updates_received", figures.updates_received),
            ("updates_installed", figures.updates_installed),
            ("updates_refused", figures.updates_refused),
            ("pushes_relayed", figures.pushes_relayed),
        ]),
    }
}

fn differences(all: &[Difference]) -> Vec<ClusterDifference> {
    let one = |one: &Difference| ClusterDifference {
        option: one.name.clone(),
        root: one.root.clone(),
        sub_server: one.sub_server.clone(),
    };
    all.iter().map(one).collect()
}

fn counters(all: &[(&str, u64)]) -> BTreeMap<String, u64> {
    all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}
