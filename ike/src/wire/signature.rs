//! Signature payload (RFC 2408 §3.12).

use super::chain::{Body, LONGEST_BODY};
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::PayloadKind;

/// A signature, opaque here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature(pub Vec<u8>);

impl Body for Signature {
    const KIND: PayloadKind = PayloadKind::SIGNATURE;
}

impl Codec for Signature {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        reader.rest_within("signature", 1, LONGEST_BODY).map(|octets| Self(octets.to_vec()))
    }

    fn encode(&self, writer: &mut Writer) {
        writer.put(&self.0);
    }
}
