//! Every payload of a GDOI exchange as one type: ISAKMP's, and those that RFC 6407 §5 adds.

use ike::wire::payload::{self as isakmp, AnyPayload};

use super::gap::Gap;
use super::group_sa::GroupSecurityAssociation;
use super::kd::KeyDownload;
use super::seq::SequenceNumber;
use ike::wire::chain::{Body, RawPayload};
use ike::wire::codec::{Codec, InvalidMessage, Writer};
use ike::wire::registry::PayloadKind;

pub use isakmp::{encode_chain, first_kind};

/// A payload of any type.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload {
    /// A payload of ISAKMP, or of a type that nothing here reads.
    Isakmp(isakmp::Payload),
    /// Security Association of a group.
    GroupSecurityAssociation(GroupSecurityAssociation),
    /// Group Associated Policy, by itself in message 3 of a pull.
    Gap(Gap),
    /// KD, the Key Download payload (RFC 6407 §5.6).
    KeyDownload(KeyDownload),
    /// SEQ, the Sequence Number payload (RFC 6407 §5.7).
    SequenceNumber(SequenceNumber),
}

impl Payload {
    /// Reads a payload of a GDOI exchange.
    ///
    /// # Errors
    /// The body is malformed.
    pub fn read(raw: &RawPayload<'_>) -> Result<Self, InvalidMessage> {
        match raw.kind {
            PayloadKind::SA => raw.read().map(Self::GroupSecurityAssociation),
            PayloadKind::GROUP_ASSOCIATED_POLICY => raw.read().map(Self::Gap),
            PayloadKind::KEY_DOWNLOAD => raw.read().map(Self::KeyDownload),
            PayloadKind::SEQUENCE_NUMBER => raw.read().map(Self::SequenceNumber),
            _ => isakmp::Payload::read(raw).map(Self::Isakmp),
        }
    }
}

impl AnyPayload for Payload {
    fn kind(&self) -> PayloadKind {
        match self {
            Self::Isakmp(payload) => payload.kind(),
            Self::GroupSecurityAssociation(_) => GroupSecurityAssociation::KIND,
            Self::Gap(_) => Gap::KIND,
            Self::KeyDownload(_) => KeyDownload::KIND,
            Self::SequenceNumber(_) => SequenceNumber::KIND,
        }
    }

    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Isakmp(payload) => payload.encode(writer),
            Self::GroupSecurityAssociation(body) => body.encode(writer),
            Self::Gap(body) => body.encode(writer),
            Self::KeyDownload(body) => body.encode(writer),
            Self::SequenceNumber(body) => body.encode(writer),
        }
    }
}

impl<T> From<T> for Payload
where
    isakmp::Payload: From<T>,
{
    fn from(body: T) -> Self {
        Self::Isakmp(body.into())
    }
}

macro_rules! from_bodies {
    ($($name:ident($body:ty)),*) => {
        $(impl From<$body> for Payload {
            fn from(body: $body) -> Self {
                Self::$name(body)
            }
        })*
    };
}

from_bodies!(
    GroupSecurityAssociation(GroupSecurityAssociation),
    Gap(Gap),
    KeyDownload(KeyDownload),
    SequenceNumber(SequenceNumber)
);
