//! Every payload as one type, for messages that are built or read as a list.

use super::cert::Certificate;
use super::cert_request::CertificateRequest;
use super::chain::{Body, RawPayload, encode_with};
use super::codec::{Codec, EncodeError, InvalidMessage, Writer};
use super::delete::Delete;
use super::gap::Gap;
use super::group_sa::GroupSecurityAssociation;
use super::hash::Hash;
use super::id::Identification;
use super::kd::KeyDownload;
use super::ke::KeyExchange;
use super::nat_d::NatDetection;
use super::nonce::Nonce;
use super::notify::Notification;
use super::registry::PayloadKind;
use super::sa::SecurityAssociation;
use super::seq::SequenceNumber;
use super::signature::Signature;
use super::vendor::VendorId;

macro_rules! payloads {
    ($($(#[$doc:meta])* $name:ident($body:ty) = $kind:expr;)*) => {
        /// A payload of any type.
        #[derive(Debug, PartialEq, Eq)]
        pub enum Payload {
            $($(#[$doc])* $name($body),)*
            /// A payload whose type nothing here reads.
            Unknown(PayloadKind, Vec<u8>),
        }

        impl Payload {
            /// The payload type.
            pub fn kind(&self) -> PayloadKind {
                match self {
                    $(Self::$name(_) => $kind,)*
                    Self::Unknown(kind, _) => *kind,
                }
            }

            /// Writes the body.
            pub fn encode(&self, writer: &mut Writer) {
                match self {
                    $(Self::$name(body) => body.encode(writer),)*
                    Self::Unknown(_, octets) => writer.put(octets),
                }
            }
        }

        $(impl From<$body> for Payload {
            fn from(body: $body) -> Self {
                Self::$name(body)
            }
        })*
    };
}

payloads! {
    /// Security Association of phase 1.
    SecurityAssociation(SecurityAssociation) = SecurityAssociation::KIND;
    /// Key Exchange.
    KeyExchange(KeyExchange) = KeyExchange::KIND;
    /// Identification.
    Identification(Identification) = Identification::KIND;
    /// Certificate.
    Certificate(Certificate) = Certificate::KIND;
    /// Certificate Request.
    CertificateRequest(CertificateRequest) = CertificateRequest::KIND;
    /// Hash.
    Hash(Hash) = Hash::KIND;
    /// Signature.
    Signature(Signature) = Signature::KIND;
    /// Nonce.
    Nonce(Nonce) = Nonce::KIND;
    /// Notification.
    Notification(Notification) = Notification::KIND;
    /// Delete.
    Delete(Delete) = Delete::KIND;
    /// Vendor ID.
    VendorId(VendorId) = VendorId::KIND;
    /// NAT-D.
    NatDetection(NatDetection) = NatDetection::KIND;
    /// Security Association of a group.
    GroupSecurityAssociation(GroupSecurityAssociation) = GroupSecurityAssociation::KIND;
    /// Group Associated Policy, by itself in message 3 of a pull.
    Gap(Gap) = Gap::KIND;
    /// Key Download.
    KeyDownload(KeyDownload) = KeyDownload::KIND;
    /// Sequence Number.
    SequenceNumber(SequenceNumber) = SequenceNumber::KIND;
}

impl Payload {
    /// Reads a payload of phase 1 or of an Informational exchange.
    pub fn read_phase1(raw: &RawPayload<'_>) -> Result<Self, InvalidMessage> {
        match raw.kind {
            PayloadKind::SA => raw.read().map(Self::SecurityAssociation),
            _ => Self::read_common(raw),
        }
    }

    /// Reads a payload of a GDOI exchange.
    pub fn read_gdoi(raw: &RawPayload<'_>) -> Result<Self, InvalidMessage> {
        match raw.kind {
            PayloadKind::SA => raw.read().map(Self::GroupSecurityAssociation),
            PayloadKind::GROUP_ASSOCIATED_POLICY => raw.read().map(Self::Gap),
            PayloadKind::KEY_DOWNLOAD => raw.read().map(Self::KeyDownload),
            PayloadKind::SEQUENCE_NUMBER => raw.read().map(Self::SequenceNumber),
            _ => Self::read_common(raw),
        }
    }

    fn read_common(raw: &RawPayload<'_>) -> Result<Self, InvalidMessage> {
        match raw.kind {
            PayloadKind::KEY_EXCHANGE => raw.read().map(Self::KeyExchange),
            PayloadKind::IDENTIFICATION => raw.read().map(Self::Identification),
            PayloadKind::CERTIFICATE => raw.read().map(Self::Certificate),
            PayloadKind::CERTIFICATE_REQUEST => raw.read().map(Self::CertificateRequest),
            PayloadKind::HASH => raw.read().map(Self::Hash),
            PayloadKind::SIGNATURE => raw.read().map(Self::Signature),
            PayloadKind::NONCE => raw.read().map(Self::Nonce),
            PayloadKind::NOTIFICATION => raw.read().map(Self::Notification),
            PayloadKind::DELETE => raw.read().map(Self::Delete),
            PayloadKind::VENDOR_ID => raw.read().map(Self::VendorId),
            PayloadKind::NAT_D => raw.read().map(Self::NatDetection),
            kind => Ok(Self::Unknown(kind, raw.body().to_vec())),
        }
    }
}

/// Writes `payloads` as a chain that ends with Next Payload 0. The header's Next Payload is
/// [`first_kind`].
pub fn encode_chain(payloads: &[Payload]) -> Result<Vec<u8>, EncodeError> {
    let mut writer = Writer::new();
    let mut rest = payloads.iter().peekable();
    while let Some(payload) = rest.next() {
        let next = rest.peek().map_or(PayloadKind::NONE, |payload| payload.kind());
        encode_with(&mut writer, next, |writer| payload.encode(writer));
    }
    writer.finish()
}

/// Type of the first payload, for the field in front of a chain.
pub fn first_kind(payloads: &[Payload]) -> PayloadKind {
    payloads.first().map_or(PayloadKind::NONE, Payload::kind)
}
