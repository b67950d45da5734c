//! Why a message of another server is not followed: errors that say who is to blame.

use ike::wire::InvalidMessage;
use thiserror::Error;

use crate::{Generation, Stage};

/// A cluster message that cannot be read. The state did not change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The octets are no message.
    #[error("invalid cluster message: {0}")]
    Invalid(#[from] InvalidMessage),
    /// The peer speaks another version of the protocol.
    #[error(
        "the peer speaks version {theirs} of the cluster protocol, here is {ours}; run the same version of gcks on both"
    )]
    Version { ours: u8, theirs: u8 },
    /// A kind of message that this version does not know.
    #[error("cluster message of unknown kind {0}; run the same version of gcks on both servers")]
    Kind(u8),
    /// Parts of a message that do not follow one another.
    #[error("part {have} of a message arrived where part {expected} was due")]
    PartOrder { expected: u16, have: u16 },
    /// A part beside the parts that its own message announced.
    #[error("part {number} of a message of {count} parts, at most {maximum} are allowed")]
    PartCount { number: u16, count: u16, maximum: u16 },
    /// A message that has no place in its exchange.
    #[error("{message} has no place in a {exchange} exchange")]
    Place { message: &'static str, exchange: &'static str },
}

/// What a server answers that does not follow a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The group is not configured, or the asker is not one of its servers.
    #[error(
        "the group is not in a cluster with this server there; add the server to group.cluster of both"
    )]
    UnknownGroup,
    /// Both servers are root, or both are sub-servers.
    #[error(
        "the other server has the wrong role for this; exactly one server of a group is its root-server"
    )]
    WrongRole,
    /// The sender was overtaken: another root server has a higher epoch.
    #[error("epoch {theirs} is over, {ours} has begun: another root server took over")]
    LowerEpoch { ours: u64, theirs: u64 },
    /// A commit of what was never prepared here.
    #[error("{0} was never prepared here")]
    NotPrepared(Generation),
    /// The group has no keys yet.
    #[error("the group has no keys yet")]
    NoKeys,
    /// The keys cannot be read or taken over.
    #[error("the state cannot be read; run the same version of gcks on both servers")]
    Unreadable,
}

/// A generation that is not newer than what is there. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{have} arrived, {held} is {} here already", .stage.name())]
pub struct Stale {
    pub have: Generation,
    pub held: Generation,
    pub stage: Stage,
}
