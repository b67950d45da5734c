//! What `gdoictl show tunnel` shows as the state of a tunnel, and why it is not active.

use std::fmt;

/// How a tunnel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Every pair of networks has SAs.
    Active,
    /// Negotiations are under way.
    Connecting,
    /// It only answers, and the peer has not asked.
    WaitsForPeer,
    /// No packet has asked for it.
    WaitsForTraffic,
    /// The last attempt failed, and why.
    Failed(String),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active => f.write_str("active"),
            Self::Connecting => f.write_str("connecting"),
            Self::WaitsForTraffic => f.write_str("waits for traffic (start = \"traffic\")"),
            Self::WaitsForPeer => f.write_str("waits for the peer to begin (start = \"answer\")"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}
