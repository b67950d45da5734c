//! The servers of a cluster: `[[cluster-server]]` and `[group.cluster]`.
//!
//! `file` is what was typed, `check` raises it to the values below.

mod check;
mod file;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ike::config::{Credential, Identity};

pub use self::check::{Own, Surroundings, one_role, raise, raise_servers};
pub use self::file::{File, Server as FileServer};

/// Another server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name for logs and `gdoictl`.
    pub name: Arc<str>,
    pub remote: SocketAddr,
    /// Where it is as well, if several machines are this server.
    pub further: Vec<SocketAddr>,
    /// Our address towards it.
    pub local: SocketAddr,
    /// The identity that it must prove; `None` is its address.
    pub identity: Option<Identity>,
    /// What proves its identity to us, and ours to it.
    pub credential: Credential,
    /// Interval of the questions whether it is alive.
    pub liveness_interval: Duration,
    /// How many of them a dead server leaves unanswered.
    pub liveness_threshold: u32,
}

impl Server {
    /// How long a server is silent that is called dead.
    pub fn time_to_live(&self) -> Duration {
        self.liveness_interval.saturating_mul(self.liveness_threshold)
    }
}

/// What this server is for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It makes the keys.
    RootServer,
    /// It distributes the keys that the root makes.
    SubServer,
}

impl Role {
    /// As the configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RootServer => "root-server",
            Self::SubServer => "sub-server",
        }
    }
}

/// A group's part in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub role: Role,
    /// Names of its sub-servers, or of its root alone.
    pub servers: Vec<Arc<str>>,
    /// Interval between the transmissions of a cluster-update.
    pub period: Duration,
    /// How long a push may have to wait until all sub-servers hold the new keys or are called dead.
    pub wait: Duration,
}
