//! What an operator may want to read, and why a pull got no policy.

use std::net::SocketAddr;
use std::sync::Arc;

use daemon::entropy::EntropyError;
use gdoi::config::Identity;
use gdoi::error::Error;
use gdoi::event::{PullAbort, PullRefusal};
use gdoi::group::GroupId;
use thiserror::Error as ThisError;

use crate::group::kek::KekError;
use crate::group::sender_ids::Exhausted;
use crate::group::tek_schedule::Life;
use crate::members::authorization::Denied;

/// Something that an operator may want to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer proved its identity.
    Authenticated {
        /// Where it is.
        peer: SocketAddr,
        /// Who it is.
        identity: Identity,
    },
    /// A new TEK was made.
    TekMade {
        /// Name of the group.
        group: Arc<str>,
        /// SPI and end.
        life: Life,
    },
    /// Keys were sent.
    Registered {
        /// Name of the group.
        group: Arc<str>,
        /// Name of the member.
        member: Arc<str>,
        /// Where it is.
        peer: SocketAddr,
        /// Whether it had no keys before.
        new: bool,
    },
    /// A pull got no policy.
    Refused {
        /// Where the peer is.
        peer: SocketAddr,
        /// The identity proved.
        identity: Identity,
        /// The group asked for.
        group: GroupId,
        /// Why.
        reason: Refused,
    },
    /// A pull was broken off before the keys were sent.
    Aborted {
        /// Where the peer is.
        peer: SocketAddr,
        /// The identity proved.
        identity: Identity,
        /// The group asked for.
        group: GroupId,
        /// Why.
        reason: PullAbort,
    },
    /// The keys of a member ended and it did not come for new ones.
    Expired {
        /// Name of the group.
        group: Arc<str>,
        /// Name of the member.
        member: Arc<str>,
    },
    /// A new KEK was made.
    KekMade {
        /// Name of the group.
        group: Arc<str>,
        /// Its SPI.
        spi: [u8; 16],
    },
    /// A push is on its way.
    Pushed {
        /// Name of the group.
        group: Arc<str>,
        /// What it is for.
        purpose: &'static str,
        /// Its number under its KEK.
        sequence_number: u32,
        /// To how many members.
        members: usize,
    },
    /// A push could not be made; it is tried again.
    PushFailed {
        /// Name of the group.
        group: Arc<str>,
        /// Why.
        error: String,
    },
    /// A member did not acknowledge a push.
    Silent {
        /// Name of the group.
        group: Arc<str>,
        /// Name of the member.
        member: Arc<str>,
        /// How many pushes in a row.
        pushes: u64,
    },
    /// The configuration changed while the server was down.
    Changed {
        /// What follows, as a line.
        change: String,
    },
    /// A silent member is no longer pushed to.
    Dropped {
        /// Name of the group.
        group: Arc<str>,
        /// Name of the member.
        member: Arc<str>,
    },
    /// All sender identifiers were in use: the group started over with new keys.
    StartedOver {
        /// Name of the group.
        group: Arc<str>,
    },
    /// A peer ended its ISAKMP SA. Its keys stay valid.
    PeerDeleted {
        /// Where it is.
        peer: SocketAddr,
        /// Who it is.
        identity: Identity,
    },
}

/// Why a pull got no policy.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Refused {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Counter-mode TEKs cannot have more senders.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// No randomness for keys.
    #[error("{0}")]
    Entropy(String),
    /// No KEK can be made, or no leaf of its hierarchy is left.
    #[error("no KEK: {0}")]
    Kek(String),
    /// The group SA cannot be sent.
    #[error("the policy cannot be sent: {0}; give the group fewer policies")]
    Answer(Error),
}

impl From<EntropyError> for Refused {
    fn from(error: EntropyError) -> Self {
        Self::Entropy(error.to_string())
    }
}

impl From<KekError> for Refused {
    fn from(error: KekError) -> Self {
        Self::Kek(error.to_string())
    }
}

impl Refused {
    /// A short constant for limiting the rate of logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Denied(Denied::UnknownMember) => "unknown-member",
            Self::Denied(Denied::UnknownGroup) => "unknown-group",
            Self::Denied(Denied::NotAuthorized { .. }) => "not-authorized",
            Self::Denied(Denied::Removed { .. }) => "removed",
            Self::Kek(_) => "no-kek",
            Self::Exhausted(_) => "sender-identifiers-exhausted",
            Self::Entropy(_) => "no-randomness",
            Self::Answer(_) => "policy-not-sendable",
        }
    }

    /// What the member is told. It has proved its identity, so it may know.
    pub(crate) fn answer(&self) -> PullRefusal {
        match self {
            Self::Denied(Denied::UnknownGroup) => PullRefusal::InvalidId,
            Self::Denied(_) => PullRefusal::AuthenticationFailed,
            // The trouble is ours: the member's next server may do better.
            Self::Exhausted(_) | Self::Entropy(_) | Self::Kek(_) | Self::Answer(_) => {
                PullRefusal::Silence
            }
        }
    }
}
