//! Key Download payload (RFC 6407 §5.6): key packets, each for one SPI.
//!
//! ```text
//! !     Number of Key Packets     !          RESERVED2            !
//! ~                          Key Packets                          ~
//!
//! !    KD Type    !   RESERVED    !           KD Length           !
//! !   SPI Size    !                   SPI (variable)              ~
//! ~                      Key Packet Attributes                    ~
//! ```
//!
//! Key octets go straight into [`Secret`]; wiping the octets they were read from is for the owner
//! of those.

use super::lkh::LkhAttribute;
use super::registry::KdType;
use ike::crypto::Secret;
use ike::wire::attribute;
use ike::wire::attribute::{Attribute, Format, read_class, write_class};
use ike::wire::chain::Body;
use ike::wire::codec::{Codec, Counted, InvalidMessage, Reader, Writer};
use ike::wire::registry::PayloadKind;

/// All keys of one message.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct KeyDownload {
    /// Key packets in order.
    pub packets: Vec<KeyPacket>,
}

/// One key packet (RFC 6407 §5.6).
#[derive(Debug, PartialEq, Eq)]
pub enum KeyPacket {
    /// Keys of a data SA.
    Tek {
        /// SPI of the SAT, 4 octets for ESP and AH.
        spi: Vec<u8>,
        /// TEK_ALGORITHM_KEY and its kind (RFC 6407 §5.6.1).
        attributes: Vec<SecretAttribute>,
    },
    /// Keys of the rekey SA.
    Kek {
        /// SPI of the SAK.
        spi: [u8; 16],
        /// KEK_ALGORITHM_KEY and its kind (RFC 6407 §5.6.2).
        attributes: Vec<SecretAttribute>,
    },
    /// Keys of a logical key hierarchy.
    Lkh {
        /// SPI of the SAK.
        spi: [u8; 16],
        /// LKH_DOWNLOAD_ARRAY and its kind (RFC 6407 §5.6.3).
        attributes: Vec<LkhAttribute>,
    },
    /// Sender identifiers; the packet has no SPI.
    Sid {
        /// NUMBER_OF_SID_BITS and SID_VALUE (RFC 6407 §5.6.4).
        attributes: Vec<Attribute>,
    },
    /// A packet whose type nothing here reads: SPI and attributes.
    Unknown {
        /// Its type, which nothing here knows.
        kind: KdType,
        /// Its SPI, of any length.
        spi: Vec<u8>,
        /// What follows the SPI.
        rest: Secret,
    },
}

/// An attribute whose value is a key.
#[derive(Debug, PartialEq, Eq)]
pub struct SecretAttribute {
    /// Attribute class, 15 bits.
    pub class: u16,
    /// Its form on the wire; the TV form holds two octets.
    pub format: Format,
    /// The key itself, as it was on the wire.
    pub value: Secret,
}

impl SecretAttribute {
    /// An attribute of the TLV form.
    pub fn new(class: impl Into<u16>, value: Secret) -> Self {
        Self { class: class.into(), format: Format::Long, value }
    }
}

impl Codec for SecretAttribute {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let (class, format) = read_class(reader)?;
        let length = match format {
            Format::Short => 2,
            Format::Long => usize::from(reader.u16("attribute length")?),
        };
        Ok(Self {
            class,
            format,
            value: Secret::copy_from(reader.take("attribute value", length)?),
        })
    }

    fn encode(&self, writer: &mut Writer) {
        write_class(writer, self.class, self.format);
        match self.format {
            Format::Long => {
                writer.length16("attribute length", Counted::BodyOnly, |writer| {
                    writer.put(self.value.expose())
                });
            }
            Format::Short => {
                if self.value.len() != 2 {
                    writer.fail("attribute value", self.value.len(), 2);
                }
                writer.put(self.value.expose());
            }
        }
    }
}

impl Body for KeyDownload {
    const KIND: PayloadKind = PayloadKind::KEY_DOWNLOAD;
}

impl Codec for KeyDownload {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let announced = usize::from(reader.u16("number of key packets")?);
        reader.u16("reserved octets of a KD")?;
        let offset = reader.offset();
        let mut packets = Vec::new();
        while !reader.is_empty() {
            packets.push(KeyPacket::read(reader)?);
        }
        if packets.len() != announced {
            return Err(InvalidMessage::Count {
                what: "key packets",
                offset,
                need: announced,
                have: packets.len(),
            });
        }
        Ok(Self { packets })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.count16("number of key packets", self.packets.len());
        writer.u16(0);
        for packet in &self.packets {
            packet.encode(writer);
        }
    }
}

impl Codec for KeyPacket {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let kind = KdType(reader.u8("type of a key packet")?);
        reader.u8("reserved octet of a key packet")?;
        let offset = reader.offset();
        let length = usize::from(reader.u16("length of a key packet")?);
        let Some(body) = length.checked_sub(HEADER_LENGTH) else {
            let maximum = reader.remaining().saturating_add(HEADER_LENGTH);
            return Err(InvalidMessage::Length {
                what: "length of a key packet",
                offset,
                minimum: HEADER_LENGTH,
                maximum,
                have: length,
            });
        };
        let mut body = reader.sub("key packet", body)?;
        let packet = Self::read_body(kind, &mut body)?;
        body.finish("key packet")?;
        Ok(packet)
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.kind().0);
        writer.u8(0);
        writer.length16("length of a key packet", Counted::Header { before: 2 }, |writer| {
            writer.count8("SPI size", self.spi().len());
            writer.put(self.spi());
            match self {
                Self::Tek { attributes, .. } | Self::Kek { attributes, .. } => {
                    encode_all(writer, attributes)
                }
                Self::Lkh { attributes, .. } => encode_all(writer, attributes),
                Self::Sid { attributes } => encode_all(writer, attributes),
                Self::Unknown { rest, .. } => writer.put(rest.expose()),
            }
        });
    }
}

impl KeyPacket {
    /// Type of the packet.
    pub fn kind(&self) -> KdType {
        match self {
            Self::Tek { .. } => KdType::TEK,
            Self::Kek { .. } => KdType::KEK,
            Self::Lkh { .. } => KdType::LKH,
            Self::Sid { .. } => KdType::SID,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// SPI that the keys are for.
    pub fn spi(&self) -> &[u8] {
        match self {
            Self::Tek { spi, .. } | Self::Unknown { spi, .. } => spi,
            Self::Kek { spi, .. } | Self::Lkh { spi, .. } => spi,
            Self::Sid { .. } => &[],
        }
    }

    fn read_body(kind: KdType, body: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let offset = body.offset();
        let size = usize::from(body.u8("SPI size")?);
        let spi = body.take("SPI", size)?;
        let wrong_size = |expected| InvalidMessage::Length {
            what: "SPI size",
            offset,
            minimum: expected,
            maximum: expected,
            have: size,
        };
        let kek_spi = || <[u8; 16]>::try_from(spi).map_err(|_| wrong_size(16));
        match kind {
            KdType::TEK => Ok(Self::Tek { spi: spi.to_vec(), attributes: read_all(body)? }),
            KdType::KEK => Ok(Self::Kek { spi: kek_spi()?, attributes: read_all(body)? }),
            KdType::LKH => Ok(Self::Lkh { spi: kek_spi()?, attributes: read_all(body)? }),
            KdType::SID if size != 0 => Err(wrong_size(0)),
            KdType::SID => Ok(Self::Sid { attributes: attribute::read_all(body)? }),
            _ => {
                Ok(Self::Unknown { kind, spi: spi.to_vec(), rest: Secret::copy_from(body.rest()) })
            }
        }
    }
}

fn read_all<T: Codec>(reader: &mut Reader<'_>) -> Result<Vec<T>, InvalidMessage> {
    let mut all = Vec::new();
    while !reader.is_empty() {
        all.push(T::read(reader)?);
    }
    Ok(all)
}

fn encode_all<T: Codec>(writer: &mut Writer, all: &[T]) {
    for one in all {
        one.encode(writer);
    }
}

/// Octets of a key packet in front of its SPI size.
const HEADER_LENGTH: usize = 4;
