//! SA KEK payload (RFC 6407 §5.3).
//!
//! ```text
//! !    Protocol   !  SRC ID Type  !         SRC ID Port           !
//! !SRC ID Data Len!          SRC Identification Data              ~
//! ! DST ID Type   !         DST ID Port           !DST ID Data Len!
//! !                    DST Identification Data                    ~
//! ~                        SPI (16 octets)                        ~
//! !                           RESERVED2                           !
//! ~                        KEK Attributes                         ~
//! ```
//!
//! The prose of RFC 6407 §5.3 lists a "DST ID Prot" octet that its figure lacks. The figure is what
//! implementations send, and what this file reads and writes.

use ike::wire::attribute;
use ike::wire::attribute::Attribute;
use ike::wire::chain::Body;
use ike::wire::codec::{Codec, InvalidMessage, Reader, Writer};
use ike::wire::registry::{IdType, PayloadKind};

/// The form of identification inside SAK and SAT payloads: a one-octet data length, no protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdBlock {
    /// Type, which decides the form of `data`.
    pub kind: IdType,
    /// Port, 0 for any.
    pub port: u16,
    /// Identification data, at most 255 octets.
    pub data: Vec<u8>,
}

impl Codec for IdBlock {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let kind = IdType(reader.u8("identification type")?);
        let port = reader.u16("identification port")?;
        let length = usize::from(reader.u8("identification data length")?);
        Ok(Self { kind, port, data: reader.take("identification data", length)?.to_vec() })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.kind.0);
        writer.u16(self.port);
        writer.count8("identification data", self.data.len());
        writer.put(&self.data);
    }
}

/// Policy of the rekey SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaKek {
    /// IP protocol of a push.
    pub protocol: u8,
    /// Where pushes come from.
    pub source: IdBlock,
    /// Where pushes go to.
    pub destination: IdBlock,
    /// Cookie pair of the pushes.
    pub spi: [u8; 16],
    /// Octets of zero between SPI and attributes.
    pub trailer: Trailer,
    /// KEK attributes in order.
    pub attributes: Vec<Attribute>,
}

/// How many reserved octets stand between the SPI and the attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Trailer {
    /// Four, as in the RFC.
    #[default]
    Standard,
    /// Six, as the gdoid implementation sends and expects.
    TwoMore,
}

impl Body for SaKek {
    const KIND: PayloadKind = PayloadKind::SA_KEK;
}

impl Codec for SaKek {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let protocol = reader.u8("protocol of pushes")?;
        let source = IdBlock::read(reader)?;
        let destination = IdBlock::read(reader)?;
        let spi = reader.array("SPI")?;
        reader.u32("reserved octets of a SAK")?;
        let (trailer, attributes) = read_attributes(reader)?;
        Ok(Self { protocol, source, destination, spi, trailer, attributes })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.protocol);
        self.source.encode(writer);
        self.destination.encode(writer);
        writer.put(&self.spi);
        writer.u32(0);
        if self.trailer == Trailer::TwoMore {
            writer.u16(0);
        }
        attribute::encode_all(writer, &self.attributes);
    }
}

/// Attribute class 0 is reserved, so two octets of zero where the first class should stand are the
/// longer trailer, provided that attributes follow them.
fn read_attributes(reader: &mut Reader<'_>) -> Result<(Trailer, Vec<Attribute>), InvalidMessage> {
    if reader.peek().starts_with(&[0, 0]) {
        let mut behind = reader.clone();
        behind.u16("reserved octets of a SAK")?;
        if let Ok(attributes) = attribute::read_all(&mut behind) {
            *reader = behind;
            return Ok((Trailer::TwoMore, attributes));
        }
    }
    Ok((Trailer::Standard, attribute::read_all(reader)?))
}
