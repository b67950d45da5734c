//! What an operator may want to read, and why a pull got no policy.

use std::net::SocketAddr;
use std::sync::Arc;

use gdoi::error::Error;
use gdoi::event::{PullAbort, PullRefusal};
use gdoi::group::GroupId;
use ike::config::Identity;
use thiserror::Error as ThisError;

use super::cluster::ClusterEvent;
use crate::config::change::Change;
use crate::group;
use crate::group::pending_pull::PullError;
use crate::group::sender_ids::Exhausted;
use crate::members::authorization::Denied;

/// Something that an operator may want to read.
#[derive(Debug)]
pub enum Event {
    /// Something happened in a group.
    Group {
        /// Name of the group.
        group: Arc<str>,
        event: group::event::Event,
    },
    /// A peer proved its identity.
    Authenticated { peer: SocketAddr, identity: Identity },
    /// A pull got no policy.
    Refused {
        /// Where the peer is.
        peer: SocketAddr,
        identity: Identity,
        /// The group asked for.
        group: GroupId,
        reason: Refused,
    },
    /// A pull was broken off before the keys were sent.
    Aborted {
        /// Where the peer is.
        peer: SocketAddr,
        identity: Identity,
        /// The group asked for.
        group: GroupId,
        reason: PullAbort,
    },
    /// The configuration changed while the server was down.
    ConfigurationChanged {
        /// What, and what follows.
        change: Change,
    },
    /// A peer restarted and said so: an ISAKMP SA of its earlier run ended.
    PeerRestarted { peer: SocketAddr, identity: Identity },
    /// Something happened between this server and another one of the cluster.
    Cluster {
        /// Name of the other server.
        server: Arc<str>,
        event: ClusterEvent,
    },
    /// A peer ended its ISAKMP SA. Its keys stay valid.
    PeerDeleted { peer: SocketAddr, identity: Identity },
}

/// Why a pull got no policy.
#[derive(Debug, ThisError)]
pub enum Refused {
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Counter-mode TEKs cannot have more senders.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// No keys can be made, or no leaf of the key hierarchy is left.
    #[error("no keys: {0}")]
    NoKeys(PullError),
    /// So many members may be registered here, and are.
    #[error(
        "{most} members are registered here, as many as {option} allows; it tries its next server"
    )]
    Full { most: usize, option: &'static str },
    /// A sub-server without its root does not answer new members.
    #[error("the root server of the group is inactive; the member tries its next server")]
    RootInactive,
    /// The group SA cannot be sent.
    #[error("the policy cannot be sent: {0}; give the group fewer policies")]
    Answer(Error),
}

impl From<PullError> for Refused {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Removed { member, group } => {
                Denied::Removed { member: member.to_string(), group: group.to_string() }.into()
            }
            PullError::Exhausted(exhausted) => exhausted.into(),
            error @ (PullError::Superseded(_)
            | PullError::NotTold(_)
            | PullError::Entropy(_)
            | PullError::NoBlock(_)
            | PullError::Kek(_)) => Self::NoKeys(error),
        }
    }
}

impl Refused {
    /// A short constant for limiting the rate of logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Denied(Denied::UnknownMember) => "unknown-member",
            Self::Denied(Denied::UnknownGroup | Denied::ReversedGroup { .. }) => "unknown-group",
            Self::Denied(Denied::NotAuthorized { .. }) => "not-authorized",
            Self::Denied(Denied::Removed { .. }) => "removed",
            Self::NoKeys(_) => "no-keys",
            Self::Full { .. } => "over-threshold",
            Self::RootInactive => "root-inactive",
            Self::Exhausted(Exhausted::All { .. }) => "sender-identifiers-exhausted",
            Self::Exhausted(Exhausted::Member { .. }) => "sender-identifier-limit",
            Self::Exhausted(Exhausted::Rate { .. }) => "sender-identifier-rate",
            Self::Answer(_) => "policy-not-sendable",
        }
    }

    /// What the member is told. It has proved its identity, so it may know.
    pub(super) fn answer(&self) -> PullRefusal {
        match self {
            Self::Denied(Denied::UnknownGroup | Denied::ReversedGroup { .. }) => {
                PullRefusal::InvalidId
            }
            Self::Denied(_) => PullRefusal::AuthenticationFailed,
            // It may begin again at once.
            Self::NoKeys(PullError::Superseded(_)) => PullRefusal::IsakmpSaDeleted,
            // The trouble is ours: the member's next server may do better.
            Self::Exhausted(_)
            | Self::NoKeys(_)
            | Self::Full { .. }
            | Self::RootInactive
            | Self::Answer(_) => PullRefusal::Silence,
        }
    }
}
