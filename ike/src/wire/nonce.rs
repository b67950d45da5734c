//! Nonce payload (RFC 2408 §3.13).

use super::chain::Body;
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::PayloadKind;

/// Random octets of one party: 8 to 256 of them (RFC 2409 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(pub Vec<u8>);

impl Nonce {
    /// Whether the length suits a GROUPKEY-PULL: 8 to 128 octets (RFC 6407 §5.8).
    pub fn suits_pull(&self) -> bool {
        (MINIMUM..=MAXIMUM_IN_PULL).contains(&self.0.len())
    }
}

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
const MAXIMUM_IN_PULL: usize = 128;
