//! NAT-D payload (RFC 3947 §3.2): a hash of cookies, address and port as one side sees them.

use super::chain::{Body, LONGEST_BODY};
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::PayloadKind;

/// A digest, as long as the hash of phase 1 makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatDetection(pub Vec<u8>);

impl Body for NatDetection {
    const KIND: PayloadKind = PayloadKind::NAT_D;
}

impl Codec for NatDetection {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        reader
            .rest_within("NAT detection hash", 1, LONGEST_BODY)
            .map(|octets| Self(octets.to_vec()))
    }

    fn encode(&self, writer: &mut Writer) {
        writer.put(&self.0);
    }
}
