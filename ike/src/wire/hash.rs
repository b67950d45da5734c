//! Hash payload (RFC 2408 §3.11): the output of a prf or a hash over parts of the exchange.

use super::chain::{Body, LONGEST_BODY};
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::PayloadKind;

/// A digest. Compare it in constant time only; its length is checked where the algorithm is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash(pub Vec<u8>);

impl Body for Hash {
    const KIND: PayloadKind = PayloadKind::HASH;
}

impl Codec for Hash {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        reader.rest_within("hash", 1, LONGEST_BODY).map(|octets| Self(octets.to_vec()))
    }

    fn encode(&self, writer: &mut Writer) {
        writer.put(&self.0);
    }
}
