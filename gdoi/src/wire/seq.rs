//! Sequence Number payload (RFC 6407 §5.7).

use ike::wire::chain::Body;
use ike::wire::codec::{Codec, InvalidMessage, Reader, Writer};
use ike::wire::registry::PayloadKind;

/// Number of a push under one KEK; in a pull, of the last push sent, 0 if none was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(pub u32);

impl Body for SequenceNumber {
    const KIND: PayloadKind = PayloadKind::SEQUENCE_NUMBER;
}

impl Codec for SequenceNumber {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        reader.u32("sequence number").map(Self)
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.0);
    }
}
