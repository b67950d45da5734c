//! The snapshot of a key server: groups, TEKs, KEKs, members, statistics.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::cluster::ServerCluster;
use crate::member::IsakmpSa;

/// A key server daemon as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSnapshot {
    /// Version of the program.
    pub program_version: String,
    /// How long the daemon runs.
    pub uptime_seconds: u64,
    /// Addresses and ports that members reach it at.
    pub listen: Vec<SocketAddr>,
    /// Groups in the order of the configuration.
    pub groups: Vec<ServerGroup>,
    /// Registered members, by group and address.
    pub members: Vec<RegisteredMember>,
    /// Figures of the whole server.
    pub statistics: ServerStatistics,
    /// What is wrong, each with its remedy.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Its part in a cluster; absent where it is on its own.
    #[serde(default)]
    pub cluster: Option<ServerCluster>,
    /// Where several servers are one; absent where this is the only one.
    #[serde(default)]
    pub redundancy: Option<Redundancy>,
}

/// A server that is one with others: they share a state, and one of them is active.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redundancy {
    /// What this server is.
    pub role: ServerRole,
    /// Its name in the daemon's configuration.
    pub name: String,
    /// Name of the active server, where it is known.
    pub active: Option<String>,
    /// Where the state is.
    pub store: String,
    /// How long it is what it is.
    pub since_seconds: u64,
    /// How long the last write of the state took, at the active server.
    pub last_write_milliseconds: Option<u64>,
    /// What is wrong now: one line with the remedy.
    pub problem: Option<String>,
}

/// What one of several servers is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerRole {
    /// It serves the members.
    Active,
    /// It takes the active one's place.
    #[default]
    Standby,
}

/// A group as its key server sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerGroup {
    /// Name in the configuration.
    pub name: String,
    /// Group identifier that members ask for.
    pub id: u32,
    /// How many members are registered now.
    pub members: u64,
    /// TEKs being distributed, and older ones that have not expired.
    pub teks: Vec<ServerTek>,
    /// Pulls for which keys were sent.
    pub pulls_succeeded: u64,
    /// Pulls refused or broken off.
    pub pulls_failed: u64,
    /// Pulls left without an answer because as many members are registered as may be.
    #[serde(default)]
    pub pulls_over_threshold: u64,
    /// How the group is rekeyed by pushes; absent where members only pull.
    #[serde(default)]
    pub rekey: Option<ServerRekey>,
}

/// Pushes of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRekey {
    /// `unicast`, or `multicast` with the address.
    pub transport: String,
    /// Algorithm of the KEK, for example `aes-256-cbc`.
    pub encryption: String,
    /// What signs, for example `rsa-2048, sha2-256`.
    pub signature: String,
    /// The KEK; absent before the first pull and after a delete.
    pub kek: Option<ServerKek>,
    /// Until the next push by schedule.
    pub next_push_seconds: Option<u64>,
    /// Pushes made, repetitions not counted.
    pub pushes: u64,
    /// Acknowledgements that passed their check (RFC 8263).
    pub acknowledgements: u64,
    /// Requested acknowledgements that did not arrive in time.
    pub acknowledgements_missing: u64,
    /// Datagrams of pushes that were sent again, since no acknowledgement had come.
    #[serde(default)]
    pub retransmissions: u64,
    /// How long the last push took, from its first datagram until the last acknowledgement or the end
    /// of the wait for it.
    #[serde(default)]
    pub last_push_milliseconds: Option<u64>,
    /// Members that missed the latest push.
    pub members_unresponsive: u64,
    /// Members dropped because they were unresponsive.
    pub members_dropped: u64,
    /// Members removed by the operator, which may not register.
    pub removed: Vec<String>,
}

/// The KEK that pushes come under.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerKek {
    /// The SPI, which is the cookie pair of pushes: 32 hexadecimal digits.
    pub spi: String,
    /// Seconds until the end of its lifetime.
    pub lifetime_left_seconds: u64,
    /// Number of the last push under it.
    pub sequence_number: u32,
}

/// A TEK that the server made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTek {
    /// SPI in host order.
    pub spi: u32,
    /// ESP encryption, for example `aes-256-cbc`.
    pub encryption: String,
    /// For example `hmac-sha2-256-128`; absent for combined-mode algorithms.
    pub integrity: Option<String>,
    /// Seconds until the end of its lifetime.
    pub lifetime_left_seconds: u64,
    /// Whether it is the one being distributed.
    pub current: bool,
    /// Traffic selectors, as text.
    pub selectors: Vec<String>,
}

/// A member that has keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredMember {
    /// Name of the group.
    pub group: String,
    /// Identifier of the group it registered in.
    pub group_id: u32,
    /// Name of the member in the configuration.
    pub name: String,
    /// Where it registered from.
    pub address: SocketAddr,
    /// The identity it proved.
    pub identity: String,
    /// Since its first registration.
    pub registered_seconds_ago: u64,
    /// Since its latest registration.
    pub last_pull_seconds_ago: u64,
    /// How often it got keys.
    pub pulls: u64,
    /// Until the keys it has end.
    pub keys_left_seconds: u64,
    /// Pushes that it has acknowledged.
    #[serde(default)]
    pub acknowledgements: u64,
    /// Since its latest acknowledgement.
    #[serde(default)]
    pub last_acknowledgement_seconds_ago: Option<u64>,
    /// Pushes in a row that it has not acknowledged.
    #[serde(default)]
    pub unacknowledged_pushes: u64,
}

/// An ISAKMP SA of a key server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerIsakmpSa {
    /// Name of the peer in the configuration; absent for a member that has none there any more.
    pub name: Option<String>,
    /// `member`, or `server` for one of the cluster.
    pub peer: String,
    /// What was negotiated, and between whom.
    #[serde(flatten)]
    pub sa: IsakmpSa,
}

/// Figures of the server. All are totals since start or since they were cleared, except the first three, which are as of now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatistics {
    /// Main modes that have begun and not ended.
    pub half_open: u64,
    /// ISAKMP SAs that are established.
    pub isakmp_sas: u64,
    /// Pulls in progress now.
    pub pulls: u64,
    /// Datagrams that arrived, whatever became of them.
    pub datagrams_received: u64,
    /// Datagrams that left, repetitions included.
    pub datagrams_sent: u64,
    /// Main modes that ended with an ISAKMP SA.
    pub phase1_established: u64,
    /// Pulls for which keys were sent.
    pub pulls_succeeded: u64,
    /// Pulls refused: unknown group or not authorised.
    pub pulls_refused: u64,
    /// Pulls that ended before keys were sent.
    pub pulls_aborted: u64,
    /// Half-open exchanges that ran out of time.
    pub half_open_expired: u64,
    /// Half-open exchanges that made room for another.
    pub half_open_evicted: u64,
    /// Diffie-Hellman computations; a key pair and a shared secret are one each.
    pub diffie_hellman: u64,
    /// Duplicates answered from memory.
    pub duplicates_answered: u64,
    /// Datagrams discarded, by reason.
    pub discards: BTreeMap<String, u64>,
}
