//! Notification payload (RFC 2408 §3.14).
//!
//! ```text
//! !              Domain of Interpretation  (DOI)                  !
//! !  Protocol-ID  !   SPI Size    !      Notify Message Type      !
//! ~                Security Parameter Index (SPI)                 ~
//! ~                       Notification Data                       ~
//! ```

use super::chain::Body;
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::{Doi, NotifyType, PayloadKind, ProtocolId};

/// An error or a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Domain of interpretation of protocol, SPI and type.
    pub doi: Doi,
    /// Protocol of the SA it is about.
    pub protocol: ProtocolId,
    /// SPI of that SA, may be empty.
    pub spi: Vec<u8>,
    pub kind: NotifyType,
    /// Details, as the type defines them.
    pub data: Vec<u8>,
}

impl Body for Notification {
    const KIND: PayloadKind = PayloadKind::NOTIFICATION;
}

impl Codec for Notification {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let doi = Doi(reader.u32("domain of interpretation")?);
        let protocol = ProtocolId(reader.u8("protocol")?);
        let spi_size = usize::from(reader.u8("SPI size")?);
        let kind = NotifyType(reader.u16("notify type")?);
        let spi = reader.take("SPI", spi_size)?.to_vec();
        Ok(Self { doi, protocol, spi, kind, data: reader.rest().to_vec() })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.doi.0);
        writer.u8(self.protocol.0);
        writer.count8("SPI size", self.spi.len());
        writer.u16(self.kind.0);
        writer.put(&self.spi);
        writer.put(&self.data);
    }
}
