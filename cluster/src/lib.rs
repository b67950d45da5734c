//! The protocol of a key server cluster: one root server makes the keys of a group, and up to four
//! sub-servers distribute them.
//!
//! ```text
//! sub-server                         root server
//!            -- cluster-init ----->                 asks for everything
//!            <---- state, version --
//!            <-- cluster-update ---                 prepare: keys to receive on, written to disk
//!            -- acknowledgement -->
//!            <-- cluster-update ---                 commit: everybody relays the push at once
//!            -- acknowledgement -->
//! ```
//!
//! By cluster-notice the servers tell each other where members are registered.
//!
//! Under an ISAKMP SA between two servers all are exchanges of private use
//! ([`ike::peer::Peer::ask`]); [`link`] carries [`message`]s over them. What is sent when, and what
//! each loss leads to, decide [`root::RootGroup`] and [`sub_server::SubServerGroup`], for one group
//! each. Keys and policy travel as octets that the key server reads: nothing here knows them.
//!
//! The crate does no input or output, reads no clock and draws no operating system randomness.

pub mod error;
pub mod link;
pub mod message;
pub mod root;
pub mod sub_server;
pub mod vendor;

use std::fmt;

/// Sub-servers that one root server may have.
pub const MOST_SUB_SERVERS: usize = 4;

/// A version of a group's keys and policy under an epoch. Only the root server of the highest epoch
/// makes keys, and no number is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Generation {
    /// Counts root servers that took over from another one.
    pub epoch: u64,
    /// Counts changes of keys or policy; 0 is a group without keys.
    pub version: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {} of epoch {}", self.version, self.epoch)
    }
}

/// How far a generation has got at a sub-server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It is on the sub-server's disk, and nobody has been told of it.
    Prepared,
    /// The sub-server distributes it and relays its pushes.
    Committed,
}

impl Stage {
    /// As sentences name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Committed => "committed",
        }
    }
}
