//! Transform payload (RFC 2408 §3.6), inside a proposal only.
//!
//! ```text
//! !  Transform #  !  Transform-Id !           RESERVED2           !
//! ~                        SA Attributes                          ~
//! ```

use super::attribute::{self, Attribute};
use super::chain::Body;
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::{PayloadKind, TransformId};

/// One transform: a set of attributes that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Transform number; numbers rise within a proposal.
    pub number: u8,
    /// Transform identifier: KEY_IKE in phase 1.
    pub id: TransformId,
    pub attributes: Vec<Attribute>,
}

impl Body for Transform {
    const KIND: PayloadKind = PayloadKind::TRANSFORM;
}

impl Codec for Transform {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let number = reader.u8("transform number")?;
        let id = TransformId(reader.u8("transform identifier")?);
        reader.u16("reserved octets of a transform")?;
        Ok(Self { number, id, attributes: attribute::read_all(reader)? })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.number);
        writer.u8(self.id.0);
        writer.u16(0);
        attribute::encode_all(writer, &self.attributes);
    }
}
