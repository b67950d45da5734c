//! Fragment payload of IKEv1: older than RFC 7383, in no RFC, and spoken by most gateways.
//!
//! ```text
//! !          Fragment ID          !    Number     !     Flags     !
//! ~                Octets of the message in pieces                ~
//! ```
//!
//! Numbers begin with 1; the last fragment has the flag 1. The pieces together are a whole message
//! with its own header.

use super::chain::{Body, LONGEST_BODY};
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::PayloadKind;

/// One piece of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The same in all pieces of a message.
    pub id: u16,
    /// From 1.
    pub number: u8,
    pub is_last: bool,
    pub data: Vec<u8>,
}

const LAST: u8 = 1;

impl Body for Fragment {
    const KIND: PayloadKind = PayloadKind::FRAGMENT;
}

impl Codec for Fragment {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        Ok(Self {
            id: reader.u16("fragment id")?,
            number: reader.u8("fragment number")?,
            // Other flags mean nothing.
            is_last: reader.u8("fragment flags")? & LAST != 0,
            data: reader.rest_within("fragment", 1, LONGEST_BODY)?.to_vec(),
        })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u16(self.id);
        writer.u8(self.number);
        writer.u8(if self.is_last { LAST } else { 0 });
        writer.put(&self.data);
    }
}
