//! SA TEK payload (RFC 6407 §5.5): a Protocol-ID, and for ESP and AH the part of §5.5.1.
//!
//! ```text
//! !  Protocol-ID  !
//! !    Protocol   !  SRC ID Type  !         SRC ID Port           !
//! !SRC ID Data Len!          SRC Identification Data              ~
//! ! DST ID Type   !         DST ID Port           !DST ID Data Len!
//! !                    DST Identification Data                    ~
//! ! Transform ID  !                        SPI                    !
//! !      SPI      !       RFC 2407 SA Attributes                  ~
//! ```
//!
//! The prose of RFC 6407 §5.5.1 lists a "DST ID Prot" octet that Figure 8 lacks. The figure is what
//! implementations send, and what this file reads and writes.

use super::sa_kek::IdBlock;
use crate::group::{EspTransform, Spi, TekProtocol};
use ike::wire::attribute;
use ike::wire::attribute::Attribute;
use ike::wire::chain::Body;
use ike::wire::codec::{Codec, InvalidMessage, Reader, Writer};
use ike::wire::registry::PayloadKind;

/// Policy of one data SA and one pair of selectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaTek {
    /// ESP or AH, which share one form.
    Ipsec(IpsecTek),
    /// A protocol whose part nothing here reads.
    Other(TekProtocol, Vec<u8>),
}

/// The part of ESP and AH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpsecTek {
    /// Whether it is ESP or AH.
    pub protocol: TekProtocol,
    /// Inner IP protocol, 0 for any.
    pub selector_protocol: u8,
    /// Source of the traffic.
    pub source: IdBlock,
    /// Destination of the traffic.
    pub destination: IdBlock,
    /// Transform identifier of ESP, or of AH.
    pub transform: EspTransform,
    /// SPI of the data SA.
    pub spi: Spi,
    /// SA attributes in order.
    pub attributes: Vec<Attribute>,
}

impl Body for SaTek {
    const KIND: PayloadKind = PayloadKind::SA_TEK;
}

impl Codec for SaTek {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let protocol = TekProtocol(reader.u8("Protocol-ID")?);
        if !is_ipsec(protocol) {
            return Ok(Self::Other(protocol, reader.rest().to_vec()));
        }
        Ok(Self::Ipsec(IpsecTek {
            protocol,
            selector_protocol: reader.u8("protocol of the selector")?,
            source: IdBlock::read(reader)?,
            destination: IdBlock::read(reader)?,
            transform: EspTransform(reader.u8("transform identifier")?),
            spi: reader.u32("SPI")?,
            attributes: attribute::read_all(reader)?,
        }))
    }

    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Ipsec(tek) => {
                writer.u8(tek.protocol.0);
                writer.u8(tek.selector_protocol);
                tek.source.encode(writer);
                tek.destination.encode(writer);
                writer.u8(tek.transform.0);
                writer.u32(tek.spi);
                attribute::encode_all(writer, &tek.attributes);
            }
            Self::Other(protocol, octets) => {
                writer.u8(protocol.0);
                writer.put(octets);
            }
        }
    }
}

fn is_ipsec(protocol: TekProtocol) -> bool {
    protocol == TekProtocol::ESP || protocol == TekProtocol::AH
}
