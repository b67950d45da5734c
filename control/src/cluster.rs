//! The part of a key server's snapshot about its cluster.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A key server's part in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerCluster {
    /// The other servers that `[[cluster-server]]` tables name.
    pub servers: Vec<ClusterServer>,
    /// Groups of the cluster, in the order of their numbers.
    pub groups: Vec<ClusterGroup>,
}

/// Another key server, and the channel to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterServer {
    /// Name in the configuration.
    pub name: String,
    /// Its address and UDP port.
    pub address: SocketAddr,
    /// Whether there is an ISAKMP SA with it.
    pub connected: bool,
    /// Figures of the channel by name, since start.
    pub counters: BTreeMap<String, u64>,
}

/// A group of the cluster as this server sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterGroup {
    /// Name in the configuration.
    pub name: String,
    /// Group identifier that members ask for.
    pub id: u32,
    /// This server's role in the group: `root-server` or `sub-server`.
    pub role: String,
    /// Counts root servers that took over from another one.
    pub epoch: u64,
    /// Counts changes of keys or policy.
    pub version: u64,
    /// `committed` when it is distributed; `prepared` while a root waits for its sub-servers.
    pub stage: String,
    /// A later version that a sub-server holds and does not distribute yet.
    pub prepared_version: Option<u64>,
    /// The sub-servers of a root, or the root of a sub-server.
    pub peers: Vec<ClusterPeer>,
    /// Outcomes of cluster-init and cluster-update by name, since start.
    pub counters: BTreeMap<String, u64>,
}

/// Another server of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPeer {
    /// Name in the configuration.
    pub name: String,
    /// This server's role in the group: `root-server` or `sub-server`.
    pub role: String,
    /// `active`, `inactive`, or `unknown` shortly after a start.
    pub status: String,
    /// Seconds since the state began; absent before it ever did.
    pub since_seconds: Option<u64>,
    /// The latest version that a sub-server has written down.
    pub prepared_version: Option<u64>,
    /// The latest version that a sub-server distributes.
    pub committed_version: Option<u64>,
    /// Where the two configurations of the group differ.
    pub differences: Vec<ClusterDifference>,
}

/// An option with different values at the root and at a sub-server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDifference {
    /// Name of the option.
    pub option: String,
    /// The root's value, which is served.
    pub root: String,
    /// The value in the sub-server's own file.
    pub sub_server: String,
}
