//! Identification payload (RFC 2407 §4.6.2).
//!
//! ```text
//! !   ID Type     !  Protocol ID  !             Port              !
//! ~                     Identification Data                       ~
//! ```

use core::net::IpAddr;

use super::chain::Body;
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::{IdType, PayloadKind};
use crate::config::Identity;

/// Who a party is, or what an exchange is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identification {
    /// Type, which decides the form of `data`.
    pub kind: IdType,
    /// IP protocol; 0 for any.
    pub protocol: u8,
    /// Port; 0 for any.
    pub port: u16,
    pub data: Vec<u8>,
}

impl Identification {
    /// The phase-1 identification of `identity`, protocol and port zero.
    pub fn of(identity: &Identity) -> Self {
        let (kind, data) = match identity {
            Identity::Address(IpAddr::V4(address)) => {
                (IdType::IPV4_ADDR, address.octets().to_vec())
            }
            Identity::Address(IpAddr::V6(address)) => {
                (IdType::IPV6_ADDR, address.octets().to_vec())
            }
            Identity::Fqdn(name) => (IdType::FQDN, name.as_bytes().to_vec()),
            Identity::UserFqdn(name) => (IdType::USER_FQDN, name.as_bytes().to_vec()),
            Identity::KeyId(octets) => (IdType::KEY_ID, octets.clone()),
            Identity::DistinguishedName(name) => (IdType::DER_ASN1_DN, name.clone()),
        };
        Self { kind, protocol: 0, port: 0, data }
    }

    /// The identity; `None` for other types, addresses of the wrong length, empty names and names
    /// that are not UTF-8.
    pub fn as_identity(&self) -> Option<Identity> {
        match self.kind {
            IdType::IPV4_ADDR => {
                <[u8; 4]>::try_from(self.data.as_slice()).ok().map(|a| Identity::Address(a.into()))
            }
            IdType::IPV6_ADDR => {
                <[u8; 16]>::try_from(self.data.as_slice()).ok().map(|a| Identity::Address(a.into()))
            }
            IdType::FQDN => self.text().map(Identity::Fqdn),
            IdType::USER_FQDN => self.text().map(Identity::UserFqdn),
            IdType::KEY_ID if !self.data.is_empty() => Some(Identity::KeyId(self.data.clone())),
            IdType::DER_ASN1_DN if !self.data.is_empty() => {
                Some(Identity::DistinguishedName(self.data.clone()))
            }
            _ => None,
        }
    }

    fn text(&self) -> Option<String> {
        let text = core::str::from_utf8(&self.data).ok()?;
        // A NUL or another control character could make two different names look alike in a log.
        (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
    }
}

impl Body for Identification {
    const KIND: PayloadKind = PayloadKind::IDENTIFICATION;
}

impl Codec for Identification {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        Ok(Self {
            kind: IdType(reader.u8("identification type")?),
            protocol: reader.u8("identification protocol")?,
            port: reader.u16("identification port")?,
            data: reader.rest().to_vec(),
        })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.kind.0);
        writer.u8(self.protocol);
        writer.u16(self.port);
        writer.put(&self.data);
    }
}
