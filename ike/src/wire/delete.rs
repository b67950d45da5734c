//! Delete payload (RFC 2408 §3.15, RFC 6407 §5.9).
//!
//! ```text
//! !              Domain of Interpretation  (DOI)                  !
//! !  Protocol-Id  !   SPI Size    !           # of SPIs           !
//! ~               Security Parameter Index(es) (SPI)              ~
//! ```

use super::chain::Body;
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::header::Cookie;
use super::registry::{Doi, PayloadKind, ProtocolId};

/// SAs of one protocol that the sender has deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Domain of interpretation: it decides what `protocol` means.
    pub doi: Doi,
    /// Protocol of the SAs. In a push: 1 ESP, 2 AH, 3 IEC 61850, 0 the KEK (RFC 6407 §5.9).
    pub protocol: ProtocolId,
    /// Octets of each SPI.
    pub spi_size: u8,
    /// The SPIs, each of `spi_size` octets.
    pub spis: Vec<Vec<u8>>,
}

impl Delete {
    /// The delete of an ISAKMP SA, which its cookie pair names.
    pub fn isakmp_sa(doi: Doi, initiator_cookie: Cookie, responder_cookie: Cookie) -> Self {
        let spi = [initiator_cookie, responder_cookie].concat();
        Self { doi, protocol: ProtocolId::ISAKMP, spi_size: 16, spis: vec![spi] }
    }
}

impl Body for Delete {
    const KIND: PayloadKind = PayloadKind::DELETE;
}

impl Codec for Delete {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let doi = Doi(reader.u32("domain of interpretation")?);
        let protocol = ProtocolId(reader.u8("protocol")?);
        let size_offset = reader.offset();
        let spi_size = reader.u8("SPI size")?;
        let announced = usize::from(reader.u16("number of SPIs")?);
        if spi_size == 0 && announced != 0 {
            // Up to 65,535 SPIs of no octets would say nothing at the price of memory.
            return Err(InvalidMessage::Value { what: "SPI size", offset: size_offset, value: 0 });
        }
        let mut spis = Vec::new();
        for _ in 0..announced {
            spis.push(reader.take("SPI", usize::from(spi_size))?.to_vec());
        }
        reader.finish("delete payload")?;
        Ok(Self { doi, protocol, spi_size, spis })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.doi.0);
        writer.u8(self.protocol.0);
        writer.u8(self.spi_size);
        writer.count16("number of SPIs", self.spis.len());
        for spi in &self.spis {
            if spi.len() != usize::from(self.spi_size) {
                writer.fail("SPI", spi.len(), self.spi_size.into());
            }
            writer.put(spi);
        }
    }
}
