//! Nonce payload (RFC 2408 §3.13).

use super::chain::Body;
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::PayloadKind;

/// Random octets of one party: 8 to 256 of them (RFC 2409 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(pub Vec<u8>);

impl Body for Nonce {
    const KIND: PayloadKind = PayloadKind::NONCE;
}

impl Codec for Nonce {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        reader.rest_within("nonce", MINIMUM, MAXIMUM).map(|octets| Self(octets.to_vec()))
    }

    fn encode(&self, writer: &mut Writer) {
        if self.0.len() > MAXIMUM {
            writer.fail("nonce", self.0.len(), MAXIMUM);
        }
        writer.put(&self.0);
    }
}

const MINIMUM: usize = 8;
const MAXIMUM: usize = 256;
