//! Why a datagram or a command was refused: errors that say who is to blame and carry the
//! evidence.
//!
//! One function, [`Error::notify`], maps an error to the notification of RFC 2408 §3.14.1 that may
//! be sent for it; one other, [`Error::reason`], to the short constant under which it is counted.

use core::net::SocketAddr;

use crate::certificate::CertificateError;
use crate::config::Identity;
use crate::crypto::DhGroup;
use crate::phase1::OfferRefused;
use crate::quick::{EspRefused, Selectors};
use crate::wire::registry::{Doi, IdType, NotifyType, PayloadKind};
use crate::wire::{EncodeError, InvalidMessage};

/// A datagram that is discarded, or a command that cannot be followed. The state did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The octets are no message.
    #[error("invalid message: {0}")]
    InvalidMessage(#[from] InvalidMessage),
    /// The peer broke a rule of the protocol, or somebody spoke in its name.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(#[from] PeerMisbehaved),
    /// Both sides follow the protocol and have no common ground.
    #[error("no common ground with the peer: {0}")]
    PeerIncompatible(#[from] PeerIncompatible),
    /// The datagram belongs to nothing that is known here, or there is no room for it.
    #[error("not accepted: {0}")]
    NotAccepted(#[from] NotAccepted),
    /// The caller asked for something that the state does not allow.
    #[error("{0}")]
    ApiMisuse(#[from] ApiMisuse),
}

/// A rule of the protocol that the sender of a datagram broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A payload that the message must have is missing.
    #[error("{message} has no {payload} payload")]
    MissingPayload {
        /// The message, as the RFC numbers it.
        message: &'static str,
        payload: &'static str,
    },
    /// A payload that may occur once occurs again.
    #[error("{message} has more than one payload of type {kind}")]
    DuplicatePayload {
        /// The message, as the RFC numbers it.
        message: &'static str,
        kind: PayloadKind,
    },
    /// A payload that has no place in the message.
    #[error("{message} has a payload of type {kind} at octet {offset}, which has no place there")]
    ForeignPayload {
        /// The message, as the RFC numbers it.
        message: &'static str,
        kind: PayloadKind,
        /// Where its generic header starts.
        offset: usize,
    },
    /// HASH, or the padding behind it, does not fit the keys and the message.
    #[error("{message} failed authentication")]
    WrongHash {
        /// The message, as the RFC numbers it.
        message: &'static str,
    },
    /// The encryption bit is clear where the message must be encrypted, or set where it cannot be.
    #[error("{message} is {}", if *.encrypted { "encrypted without a key" } else { "not encrypted" })]
    Encryption {
        /// The message, as the RFC numbers it.
        message: &'static str,
        /// Whether the encryption bit is set.
        encrypted: bool,
    },
    /// Ciphertext that is empty or no whole number of blocks.
    #[error("{have} octets of ciphertext are no whole number of blocks of {block} octets")]
    PartialBlock {
        /// Block size in octets.
        block: usize,
        have: usize,
    },
    /// A public value outside its group, of a wrong length, or of small order.
    #[error("unusable public value for {group}")]
    PublicValue { group: DhGroup },
    /// A nonce of fewer or more octets than its exchange allows: 8 to 256 at most (RFC 2409 §5).
    #[error("nonce of {have} octets")]
    NonceLength {
        /// Its length in octets.
        have: usize,
    },
    /// The responder chose what was not offered, or offered more than one choice.
    #[error("the responder chose a transform that was not offered")]
    ForeignTransform,
    /// The identity proved is not the one expected.
    #[error("the peer proved the identity {proved}, {expected} was expected")]
    WrongIdentity {
        /// Whom the configuration names.
        expected: Identity,
        proved: Identity,
    },
    /// The peer's certificate is not to be believed, or names somebody else.
    #[error("certificate: {}; {}", .0, .0.remedy())]
    Certificate(CertificateError),
    /// SIG does not fit the certificate's key and the message.
    #[error("the signature of {message} is wrong: the peer does not have the certificate's key")]
    WrongSignature {
        /// The message, as the RFC numbers it.
        message: &'static str,
    },
    /// The message identifier does not belong to this exchange, was used already, or is zero.
    #[error("message identifier {0:08x} is used up or not allowed")]
    MessageId(u32),
}

/// What the two sides cannot agree on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIncompatible {
    /// A domain of interpretation that no policy here is for.
    #[error("domain of interpretation {0}")]
    Doi(Doi),
    /// A situation other than 0 and 1.
    #[error("situation {0}")]
    Situation(u32),
    /// An exchange type that is not spoken here.
    #[error("exchange type {0}")]
    ExchangeType(u8),
    /// Nothing acceptable was offered.
    #[error("no proposal chosen: {0}")]
    NoProposalChosen(OfferRefused),
    /// An identification type that is not understood where it stands.
    #[error("identification type {0}")]
    IdentificationType(IdType),
    /// Transport mode between peers with address translation between them.
    #[error(
        "transport mode does not pass the address translation between the peers: use mode tunnel"
    )]
    TranslatedTransport,
    /// No proposal of a Quick Mode is acceptable.
    #[error("no proposal chosen: {0}")]
    EspRefused(EspRefused),
    /// The networks of a Quick Mode are none that are configured for the peer.
    #[error("no tunnel has the networks {}", .0)]
    Selectors(Box<Selectors>),
}

/// Why a well-formed datagram is not for us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAccepted {
    /// No exchange has this cookie pair.
    #[error("unknown cookie pair")]
    UnknownCookies,
    /// The datagram came from an address that has no part in the exchange.
    #[error("wrong source {0}")]
    WrongSource(SocketAddr),
    /// No credential covers the source address.
    #[error("no credential for {0}")]
    UnknownSource(SocketAddr),
    /// A copy of a message that was answered already and whose answer is no longer kept.
    #[error("replayed message")]
    Replayed,
    /// The exchange does not wait for this message now.
    #[error("unexpected message")]
    Unexpected,
    /// A notification or delete that nobody authenticated: a hint for the log.
    #[error("unprotected notification {0}")]
    UnprotectedNotify(NotifyType),
    /// Half-open exchanges are at their bound.
    #[error("too many half-open exchanges")]
    HalfOpenLimit,
    /// Half-open exchanges of this source are at their bound.
    #[error("too many half-open exchanges of {0}")]
    HalfOpenLimitOfSource(SocketAddr),
    /// Computations whose results have not come back are at their bound.
    #[error("too many key exchanges being computed")]
    ComputationLimit,
    /// Established ISAKMP SAs are at their bound.
    #[error("too many ISAKMP SAs")]
    EstablishedLimit,
    /// Exchanges under one ISAKMP SA are at their bound.
    #[error("too many exchanges under one ISAKMP SA")]
    ExchangeLimit,
    /// The exchange has ended.
    #[error("the exchange has ended")]
    Ended,
}

/// What the caller got wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// A configuration that no exchange can be run with.
    #[error("unusable configuration: {0}")]
    Configuration(&'static str),
    /// A value that does not fit its field on the wire.
    #[error(transparent)]
    DoesNotFit(#[from] EncodeError),
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        ApiMisuse::from(error).into()
    }
}

impl Error {
    /// A short constant for counters and for limiting the rate of logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidMessage(_) => "invalid-message",
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
            Self::InvalidMessage(_) => Some(NotifyType::PAYLOAD_MALFORMED),
            Self::PeerMisbehaved(error) => Some(error.notify()),
            Self::PeerIncompatible(error) => Some(error.notify()),
            Self::NotAccepted(_) | Self::ApiMisuse(_) => None,
        }
    }
}

impl PeerMisbehaved {
    fn reason(&self) -> &'static str {
        match self {
            Self::MissingPayload { .. } => "missing-payload",
            Self::DuplicatePayload { .. } => "duplicate-payload",
            Self::ForeignPayload { .. } => "foreign-payload",
            Self::WrongHash { .. } => "wrong-hash",
            Self::Encryption { .. } => "wrong-encryption-bit",
            Self::PartialBlock { .. } => "partial-block",
            Self::PublicValue { .. } => "public-value",
            Self::NonceLength { .. } => "nonce-length",
            Self::ForeignTransform => "foreign-transform",
            Self::WrongIdentity { .. } => "wrong-identity",
            Self::Certificate(_) => "certificate",
            Self::WrongSignature { .. } => "wrong-signature",
            Self::MessageId(_) => "message-id",
        }
    }

    fn notify(&self) -> NotifyType {
        match self {
            Self::MissingPayload { .. }
            | Self::DuplicatePayload { .. }
            | Self::PartialBlock { .. } => NotifyType::PAYLOAD_MALFORMED,
            Self::ForeignPayload { .. } => NotifyType::INVALID_PAYLOAD_TYPE,
            Self::WrongHash { .. } => NotifyType::INVALID_HASH_INFORMATION,
            Self::Encryption { .. } => NotifyType::INVALID_FLAGS,
            Self::PublicValue { .. } => NotifyType::INVALID_KEY_INFORMATION,
            Self::NonceLength { .. } => NotifyType::PAYLOAD_MALFORMED,
            Self::ForeignTransform => NotifyType::BAD_PROPOSAL_SYNTAX,
            Self::WrongIdentity { .. } => NotifyType::INVALID_ID_INFORMATION,
            Self::Certificate(_) => NotifyType::INVALID_CERTIFICATE,
            Self::WrongSignature { .. } => NotifyType::INVALID_SIGNATURE,
            Self::MessageId(_) => NotifyType::INVALID_MESSAGE_ID,
        }
    }
}

impl PeerIncompatible {
    fn reason(&self) -> &'static str {
        match self {
            Self::Doi(_) => "doi",
            Self::Situation(_) => "situation",
            Self::ExchangeType(_) => "exchange-type",
            Self::NoProposalChosen(_) | Self::EspRefused(_) => "no-proposal-chosen",
            Self::Selectors(_) => "selectors",
            Self::TranslatedTransport => "translated-transport",
            Self::IdentificationType(_) => "identification-type",
        }
    }

    fn notify(&self) -> NotifyType {
        match self {
            Self::Doi(_) => NotifyType::DOI_NOT_SUPPORTED,
            Self::Situation(_) => NotifyType::SITUATION_NOT_SUPPORTED,
            Self::ExchangeType(_) => NotifyType::UNSUPPORTED_EXCHANGE_TYPE,
            Self::NoProposalChosen(_) | Self::EspRefused(_) | Self::TranslatedTransport => {
                NotifyType::NO_PROPOSAL_CHOSEN
            }
            Self::IdentificationType(_) | Self::Selectors(_) => NotifyType::INVALID_ID_INFORMATION,
        }
    }
}

impl NotAccepted {
    fn reason(&self) -> &'static str {
        match self {
            Self::UnknownCookies => "unknown-cookies",
            Self::WrongSource(_) => "wrong-source",
            Self::UnknownSource(_) => "unknown-source",
            Self::Replayed => "replayed",
            Self::Unexpected => "unexpected",
            Self::UnprotectedNotify(_) => "unprotected-notify",
            Self::HalfOpenLimit => "half-open-limit",
            Self::HalfOpenLimitOfSource(_) => "half-open-limit-of-source",
            Self::ComputationLimit => "computation-limit",
            Self::EstablishedLimit => "established-limit",
            Self::ExchangeLimit => "exchange-limit",
            Self::Ended => "ended",
        }
    }
}
