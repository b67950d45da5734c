//! Key Exchange payload (RFC 2408 §3.7, RFC 2409 §5): a Diffie-Hellman public value, opaque here.

use super::chain::{Body, LONGEST_BODY};
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::PayloadKind;

/// A public value, as long as its group demands; the length is checked where the group is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyExchange(pub Vec<u8>);

impl Body for KeyExchange {
    const KIND: PayloadKind = PayloadKind::KEY_EXCHANGE;
}

impl Codec for KeyExchange {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        reader.rest_within("public value", 1, LONGEST_BODY).map(|octets| Self(octets.to_vec()))
    }

    fn encode(&self, writer: &mut Writer) {
        writer.put(&self.0);
    }
}
