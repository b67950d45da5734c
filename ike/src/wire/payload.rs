//! Every payload of ISAKMP and phase 1 as one type, for messages that are built or read as a list.

use super::cert::Certificate;
use super::cert_request::CertificateRequest;
use super::chain::{Body, RawPayload, encode_with};
use super::codec::{Codec, EncodeError, InvalidMessage, Writer};
use super::delete::Delete;
use super::hash::Hash;
use super::id::Identification;
use super::ke::KeyExchange;
use super::nat_d::NatDetection;
use super::nonce::Nonce;
use super::notify::Notification;
use super::registry::PayloadKind;
use super::sa::SecurityAssociation;
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

        impl AnyPayload for Payload {
            fn kind(&self) -> PayloadKind {
                match self {
                    $(Self::$name(_) => $kind,)*
                    Self::Unknown(kind, _) => *kind,
                }
            }

            fn encode(&self, writer: &mut Writer) {
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
    KeyExchange(KeyExchange) = KeyExchange::KIND;
    Identification(Identification) = Identification::KIND;
    Certificate(Certificate) = Certificate::KIND;
    CertificateRequest(CertificateRequest) = CertificateRequest::KIND;
    Hash(Hash) = Hash::KIND;
    Signature(Signature) = Signature::KIND;
    Nonce(Nonce) = Nonce::KIND;
    Notification(Notification) = Notification::KIND;
    Delete(Delete) = Delete::KIND;
    VendorId(VendorId) = VendorId::KIND;
    NatDetection(NatDetection) = NatDetection::KIND;
}

impl Payload {
    /// Reads a payload of phase 1 or of an Informational exchange. Exchanges of a domain of
    /// interpretation may give the type SA another body.
    ///
    /// # Errors
    /// The body is malformed.
    pub fn read(raw: &RawPayload<'_>) -> Result<Self, InvalidMessage> {
        match raw.kind {
            PayloadKind::SA => raw.read().map(Self::SecurityAssociation),
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

/// A payload whose type is known only when it is written.
pub trait AnyPayload {
    fn kind(&self) -> PayloadKind;

    fn encode(&self, writer: &mut Writer);
}

/// Writes `payloads` as a chain that ends with Next Payload 0. The header's Next Payload is
/// [`first_kind`].
///
/// # Errors
/// A value does not fit its field.
pub fn encode_chain<P: AnyPayload>(payloads: &[P]) -> Result<Vec<u8>, EncodeError> {
    let mut writer = Writer::new();
    let mut rest = payloads.iter().peekable();
    while let Some(payload) = rest.next() {
        let next = rest.peek().map_or(PayloadKind::NONE, |payload| payload.kind());
        encode_with(&mut writer, next, |writer| payload.encode(writer));
    }
    writer.finish()
}

/// Type of the first payload, for the field in front of a chain.
pub fn first_kind<P: AnyPayload>(payloads: &[P]) -> PayloadKind {
    payloads.first().map_or(PayloadKind::NONE, AnyPayload::kind)
}
