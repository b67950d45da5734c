//! Why a datagram or a command was refused: what [`ike::Error`] knows, and what only a group can be
//! wrong about.
//!
//! One function, [`Error::notify`], maps an error to the notification of RFC 2408 §3.14.1 that may
//! be sent for it; one other, [`Error::reason`], to the short constant under which it is counted.

use ike::wire::registry::NotifyType;
use ike::wire::{EncodeError, InvalidMessage};

use crate::group::GroupId;
use crate::kek_cipher::KekUnusable;
use crate::wire::{KeyError, PolicyError};

/// A datagram that is discarded, or a command that cannot be followed. The state did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// ISAKMP or IKEv1: the octets, phase 1, the ISAKMP SA, the form of an exchange under it.
    #[error(transparent)]
    Ike(ike::Error),
    /// The peer broke a rule of GDOI, or somebody spoke in its name.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(#[from] PeerMisbehaved),
    /// Both sides follow the protocol, and the policy of the group cannot be used here.
    #[error("no common ground with the peer: {0}")]
    PeerIncompatible(#[from] PeerIncompatible),
    /// The push or its acknowledgement belongs to nothing that is known here.
    #[error("not accepted: {0}")]
    NotAccepted(#[from] NotAccepted),
    /// The caller asked for something that the state does not allow.
    #[error("{0}")]
    ApiMisuse(#[from] ApiMisuse),
}

/// A rule of GDOI that the sender of a datagram broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// Keys that do not fit the policy they came with.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// SIG of a push does not fit the public key and the message, in none of the forms that are in
    /// use.
    #[error("the push failed authentication")]
    WrongSignature,
    /// A Delete payload of a push that names no SA of GDOI (RFC 6407 §5.9).
    #[error("Delete payload with DOI {doi}, protocol {protocol}, SPI of {spi_size} octets")]
    Delete {
        /// Domain of interpretation that the payload names.
        doi: u32,
        /// Protocol-ID that the payload names.
        protocol: u8,
        /// Octets of an SPI.
        spi_size: u8,
    },
    /// A sequence number without a rekey SA, or a rekey SA without one (RFC 6407 §3.2).
    #[error("the SEQ payload is {}", if *.present { "present without a rekey SA" } else { "missing although there is a rekey SA" })]
    SequenceNumber {
        /// Whether it is present.
        present: bool,
    },
}

/// What of a group's policy cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIncompatible {
    /// Policy of a group that is not understood (RFC 6407 §5.3.2, §5.4).
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A rekey SA that cannot be used here.
    #[error(transparent)]
    Kek(#[from] KekUnusable),
    /// The key server demands IP-D3P (draft-weis-delay-detection-03), which is not implemented.
    #[error(
        "the key server demands IP-D3P (its vendor ID and GAP attribute {attribute}): members would discard each \
         other's packets; turn time-based anti-replay off for the group"
    )]
    DelayDetection {
        /// Class of the attribute.
        attribute: u16,
    },
}

/// Why a well-formed push or acknowledgement is not for us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAccepted {
    /// A push whose number is not greater than that of the last one accepted under its KEK (RFC
    /// 6407 §4.4).
    #[error("push number {received} after number {last}")]
    StaleSequenceNumber {
        /// Number of the last push accepted, 0 if none was.
        last: u32,
        /// Number of this one.
        received: u32,
    },
    /// A new push under a KEK that has been replaced or deleted.
    #[error("push under a KEK that is no longer in use")]
    RetiredKek,
    /// An acknowledgement of a push that is not, or no longer, waiting for one of this member.
    #[error("acknowledgement that nobody waits for")]
    UnexpectedAcknowledgement,
}

/// What the caller got wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// No such pull, or it no longer waits for an answer.
    #[error("no pull waits for this answer")]
    NoSuchPull,
    /// There is no registration to build on.
    #[error("not registered")]
    NotRegistered,
    /// A group SA of another group than the one asked for.
    #[error("group SA of group {given}, asked for was {asked}")]
    WrongGroup {
        /// The group that the member asked for.
        asked: GroupId,
        /// The group of the SA.
        given: GroupId,
    },
    /// A group SA that no member could use.
    #[error("group SA without the keys of its policy: {0}")]
    Keys(KeyError),
}

/// What is wrong with ISAKMP or IKEv1 is an [`Error::Ike`], from whichever of its parts it comes.
macro_rules! from_ike {
    ($($part:ty),*) => {
        $(impl From<$part> for Error {
            fn from(error: $part) -> Self {
                Self::Ike(error.into())
            }
        })*
    };
}

from_ike!(
    ike::Error,
    ike::error::PeerMisbehaved,
    ike::error::PeerIncompatible,
    ike::error::NotAccepted,
    ike::error::ApiMisuse,
    InvalidMessage,
    EncodeError
);

impl From<PolicyError> for Error {
    fn from(error: PolicyError) -> Self {
        PeerIncompatible::from(error).into()
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        PeerMisbehaved::from(error).into()
    }
}

impl From<KekUnusable> for Error {
    fn from(error: KekUnusable) -> Self {
        PeerIncompatible::from(error).into()
    }
}

impl Error {
    /// A short constant for counters and for limiting the rate of logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ike(error) => error.reason(),
            Self::PeerMisbehaved(error) => error.reason(),
            Self::PeerIncompatible(error) => error.reason(),
            Self::NotAccepted(error) => error.reason(),
            Self::ApiMisuse(_) => "api-misuse",
        }
    }

    /// The notification that names the error to an authenticated peer (RFC 2408 §3.14.1); `None`
    /// where silence is right.
    pub fn notify(&self) -> Option<NotifyType> {
        match self {
            Self::Ike(error) => error.notify(),
            Self::PeerMisbehaved(error) => Some(error.notify()),
            Self::PeerIncompatible(_) => Some(NotifyType::ATTRIBUTES_NOT_SUPPORTED),
            Self::NotAccepted(_) | Self::ApiMisuse(_) => None,
        }
    }

    /// Whether both sides follow the protocol and have no common ground: another peer, or other
    /// policy, is the remedy.
    pub fn is_incompatibility(&self) -> bool {
        matches!(self, Self::PeerIncompatible(_) | Self::Ike(ike::Error::PeerIncompatible(_)))
    }
}

impl PeerMisbehaved {
    fn reason(&self) -> &'static str {
        match self {
            Self::Keys(_) => "keys-and-policy-differ",
            Self::WrongSignature => "wrong-signature",
            Self::Delete { .. } => "delete",
            Self::SequenceNumber { .. } => "sequence-number",
        }
    }

    fn notify(&self) -> NotifyType {
        match self {
            Self::Keys(_) => NotifyType::INVALID_KEY_INFORMATION,
            Self::WrongSignature => NotifyType::INVALID_SIGNATURE,
            Self::Delete { .. } => NotifyType::INVALID_PROTOCOL_ID,
            Self::SequenceNumber { .. } => NotifyType::PAYLOAD_MALFORMED,
        }
    }
}

impl PeerIncompatible {
    fn reason(&self) -> &'static str {
        match self {
            Self::Policy(_) => "policy-not-understood",
            Self::Kek(_) => "unusable-kek",
            Self::DelayDetection { .. } => "ip-d3p-demanded",
        }
    }
}

impl NotAccepted {
    fn reason(&self) -> &'static str {
        match self {
            Self::StaleSequenceNumber { .. } => "stale-sequence-number",
            Self::RetiredKek => "retired-kek",
            Self::UnexpectedAcknowledgement => "unexpected-acknowledgement",
        }
    }
}
