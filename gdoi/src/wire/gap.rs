//! Group Associated Policy payload (RFC 6407 §5.4): attributes for the group as a whole, or a
//! member's requests.

use ike::wire::attribute;
use ike::wire::attribute::Attribute;
use ike::wire::chain::Body;
use ike::wire::codec::{Codec, InvalidMessage, Reader, Writer};
use ike::wire::registry::PayloadKind;

/// GAP attributes: inside the SA payload from the key server, by itself in message 3 of a pull from
/// the member.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Gap {
    /// Attributes in the order of the payload.
    pub attributes: Vec<Attribute>,
}

impl Body for Gap {
    const KIND: PayloadKind = PayloadKind::GROUP_ASSOCIATED_POLICY;
}

impl Codec for Gap {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        Ok(Self { attributes: attribute::read_all(reader)? })
    }

    fn encode(&self, writer: &mut Writer) {
        attribute::encode_all(writer, &self.attributes);
    }
}
