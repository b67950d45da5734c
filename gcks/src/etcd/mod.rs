//! Two or more key servers as one: etcd keeps the state and elects the one that is active.

pub mod client;
pub mod election;

use std::time::Duration;

/// Where etcd is and what is ours in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Client URLs, each like `http://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// How long an active server that says nothing stays elected.
    pub lease: Duration,
    /// What the others call this server.
    pub name: String,
}

impl Settings {
    /// The name of a key.
    pub fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// What messages call it.
    pub fn place(&self) -> String {
        format!("etcd {} {}", self.endpoints.join(","), self.prefix)
    }

    /// How long one etcd server may take for a write. Not longer than a lease, or a server that is
    /// cut off would hold a fail-over up.
    pub(crate) fn patience(&self) -> Duration {
        (self.lease / 2).max(Duration::from_secs(2))
    }
}
