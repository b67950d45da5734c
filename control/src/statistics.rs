//! What `gcks` shows: groups, members and statistics.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A key server daemon as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSnapshot {
    /// Version of the program.
    pub program_version: String,
    /// How long the daemon runs.
    pub uptime_seconds: u64,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Groups in the order of the configuration.
    pub groups: Vec<ServerGroup>,
    /// Registered members, by group and address.
    pub members: Vec<RegisteredMember>,
    /// Figures of the whole server.
    pub statistics: ServerStatistics,
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerGroup {
    /// Name in the configuration.
    pub name: String,
    /// Group id.
    pub id: u32,
    /// How many members are registered now.
    pub members: u64,
    /// TEKs being handed out, and older ones not ended yet.
    pub teks: Vec<ServerTek>,
    /// Pulls for which keys were sent.
    pub pulls_succeeded: u64,
    /// Pulls refused or broken off.
    pub pulls_failed: u64,
}

/// A TEK that the server made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTek {
    /// SPI in host order.
    pub spi: u32,
    /// For example `aes-256-cbc`.
    pub encryption: String,
    /// For example `hmac-sha2-256-128`; absent for combined-mode algorithms.
    pub integrity: Option<String>,
    /// Until the end of its life.
    pub lifetime_left_seconds: u64,
    /// Whether it is the one handed out now.
    pub current: bool,
    /// Match lines, as text.
    pub selectors: Vec<String>,
}

/// A member that has keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredMember {
    /// Name of the group.
    pub group: String,
    /// Group id.
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
}

/// Figures of the server. All are totals since start, except the first three, which are as of now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatistics {
    /// Half-open exchanges now.
    pub half_open: u64,
    /// ISAKMP SAs now.
    pub isakmp_sas: u64,
    /// Pulls in progress now.
    pub pulls: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Phase 1 completed.
    pub phase1_established: u64,
    /// Pulls for which keys were sent.
    pub pulls_succeeded: u64,
    /// Pulls refused: unknown group or not authorised.
    pub pulls_refused: u64,
    /// Pulls broken off.
    pub pulls_aborted: u64,
    /// Half-open exchanges that ran out of time.
    pub half_open_expired: u64,
    /// Half-open exchanges that made room for another.
    pub half_open_evicted: u64,
    /// Diffie-Hellman computations.
    pub diffie_hellman: u64,
    /// Duplicates answered from memory.
    pub duplicates_answered: u64,
    /// Datagrams discarded, by reason.
    pub discards: BTreeMap<String, u64>,
}
