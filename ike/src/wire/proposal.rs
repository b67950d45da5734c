//! Proposal payload (RFC 2408 §3.5), inside a phase-1 SA payload only.
//!
//! ```text
//! !  Proposal #   !  Protocol-Id  !    SPI Size   !# of Transforms!
//! !                        SPI (variable)                         !
//! ~                          Transforms                           ~
//! ```

use super::chain::{Body, encode_with, walk_clear};
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::{PayloadKind, ProtocolId};
use super::transform::Transform;

/// One proposal: a protocol and the transforms offered for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub number: u8,
    pub protocol: ProtocolId,
    /// SPI; its content does not matter in phase 1 (RFC 2408 §3.5).
    pub spi: Vec<u8>,
    /// Transforms in order of preference.
    pub transforms: Vec<Transform>,
}

impl Body for Proposal {
    const KIND: PayloadKind = PayloadKind::PROPOSAL;
}

impl Codec for Proposal {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let number = reader.u8("proposal number")?;
        let protocol = ProtocolId(reader.u8("protocol")?);
        let offset = reader.offset();
        let spi_size = usize::from(reader.u8("SPI size")?);
        if spi_size > MAXIMUM_SPI {
            return Err(InvalidMessage::Length {
                what: "SPI size",
                offset,
                minimum: 0,
                maximum: MAXIMUM_SPI,
                have: spi_size,
            });
        }
        let announced = usize::from(reader.u8("number of transforms")?);
        let spi = reader.take("SPI", spi_size)?.to_vec();
        let offset = reader.offset();
        let mut transforms = Vec::new();
        if !reader.is_empty() {
            for payload in walk_clear(PayloadKind::TRANSFORM, reader.rest(), offset)?.payloads {
                transforms.push(payload.read()?);
            }
        }
        if transforms.len() != announced {
            return Err(InvalidMessage::Count {
                what: "transforms",
                offset,
                need: announced,
                have: transforms.len(),
            });
        }
        Ok(Self { number, protocol, spi, transforms })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.number);
        writer.u8(self.protocol.0);
        if self.spi.len() > MAXIMUM_SPI {
            writer.fail("SPI size", self.spi.len(), MAXIMUM_SPI);
        }
        writer.count8("SPI size", self.spi.len());
        writer.count8("number of transforms", self.transforms.len());
        writer.put(&self.spi);
        let mut rest = self.transforms.iter().peekable();
        while let Some(transform) = rest.next() {
            let next =
                if rest.peek().is_some() { PayloadKind::TRANSFORM } else { PayloadKind::NONE };
            encode_with(writer, next, |writer| transform.encode(writer));
        }
    }
}

/// RFC 2408 §3.5: the SPI size of an ISAKMP proposal may be from 0 to 16.
const MAXIMUM_SPI: usize = 16;
