//! Keys of a logical key hierarchy (RFC 6407 §5.6.3, RFC 2627 §5.4).
//!
//! ```text
//! !  LKH Version  !          # of LKH Keys        !   RESERVED    !   download array
//! ~                           LKH Keys                            ~
//!
//! !  LKH Version  !          # of LKH Keys        !   RESERVED    !   update array
//! !            LKH ID             !           RESERVED2           !
//! !                           Key Handle                          !
//! ~                           LKH Keys                            ~
//!
//! !             LKH ID            !    Key Type   !    RESERVED   !   LKH key
//! !                        Key Creation Date                      !
//! !                       Key Expiration Date                     !
//! !                           Key Handle                          !
//! ~                            Key Data                           ~
//! ```
//!
//! Key Data carries no length. All keys of an array serve one KEK_ALGORITHM and KEK_KEY_LENGTH, so
//! that they are equally long, and the array's length divided by the number of keys gives the
//! length of one.

use super::kd::SecretAttribute;
use super::registry::{KekAlgorithm, LkhAttributeClass};
pub use crate::group::{LkhDownload, LkhKey, LkhUpdate};
use ike::crypto::Secret;
use ike::wire::attribute::{Format, read_class, write_class};
use ike::wire::codec::{Codec, Counted, InvalidMessage, Reader, Writer};

/// An attribute of an LKH key packet.
#[derive(Debug, PartialEq, Eq)]
pub enum LkhAttribute {
    /// LKH_DOWNLOAD_ARRAY: a member's keys from its leaf to the root, which is the KEK.
    Download(LkhDownload),
    /// LKH_UPDATE_ARRAY: new keys for those who hold the key that it names.
    Update(LkhUpdate),
    /// SIG_ALGORITHM_KEY, and whatever is not known.
    Other(SecretAttribute),
}

impl LkhUpdate {
    /// How many octets it has as an attribute.
    pub fn octets(&self) -> usize {
        let keys = self.keys.iter().map(|key| KEY_HEADER.saturating_add(key.data.len()));
        keys.fold(ATTRIBUTE_AND_HEADER, usize::saturating_add)
    }
}

impl Codec for LkhAttribute {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let mut ahead = reader.clone();
        let (class, format) = read_class(&mut ahead)?;
        let array = match LkhAttributeClass(class) {
            LkhAttributeClass::LKH_DOWNLOAD_ARRAY => LkhDownload::read_array,
            LkhAttributeClass::LKH_UPDATE_ARRAY => LkhUpdate::read_array,
            _ => return SecretAttribute::read(reader).map(Self::Other),
        };
        if format == Format::Short {
            return Err(InvalidMessage::Value {
                what: "form of an LKH array",
                offset: reader.offset(),
                value: 1,
            });
        }
        let length = usize::from(ahead.u16("attribute length")?);
        let mut value = ahead.sub("LKH array", length)?;
        let attribute = array(&mut value)?;
        value.finish("LKH array")?;
        *reader = ahead;
        Ok(attribute)
    }

    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Download(array) => {
                encode_array(writer, LkhAttributeClass::LKH_DOWNLOAD_ARRAY, array)
            }
            Self::Update(array) => encode_array(writer, LkhAttributeClass::LKH_UPDATE_ARRAY, array),
            Self::Other(attribute) => attribute.encode(writer),
        }
    }
}

impl Codec for LkhDownload {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let count = read_version_and_count(reader)?;
        Ok(Self { keys: read_keys(reader, count)? })
    }

    fn encode(&self, writer: &mut Writer) {
        write_version_and_count(writer, &self.keys);
        write_keys(writer, &self.keys);
    }
}

impl Codec for LkhUpdate {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let count = read_version_and_count(reader)?;
        let node = reader.u16("LKH ID")?;
        reader.u16("reserved octets of an LKH array")?;
        let handle = reader.u32("key handle")?;
        Ok(Self { node, handle, keys: read_keys(reader, count)? })
    }

    fn encode(&self, writer: &mut Writer) {
        write_version_and_count(writer, &self.keys);
        writer.u16(self.node);
        writer.u16(0);
        writer.u32(self.handle);
        write_keys(writer, &self.keys);
    }
}

impl Codec for LkhKey {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let node = reader.u16("LKH ID")?;
        let algorithm = reader.u8("key type of an LKH key")?;
        reader.u8("reserved octet of an LKH key")?;
        let creation = reader.u32("creation date of an LKH key")?;
        let expiration = reader.u32("expiration date of an LKH key")?;
        let handle = reader.u32("key handle")?;
        let offset = reader.offset();
        let data = reader.rest();
        // DES has 8 octets of IV and 8 of key, 3DES 8 and 24, AES 16 and 16 to 32.
        let (minimum, maximum) = match KekAlgorithm(algorithm.into()) {
            KekAlgorithm::DES => (16, 16),
            KekAlgorithm::TRIPLE_DES => (32, 32),
            KekAlgorithm::AES => (32, 48),
            _ => (1, usize::from(u16::MAX)),
        };
        let have = data.len();
        if have < minimum || have > maximum {
            return Err(InvalidMessage::Length {
                what: "data of an LKH key",
                offset,
                minimum,
                maximum,
                have,
            });
        }
        Ok(Self { node, algorithm, creation, expiration, handle, data: Secret::copy_from(data) })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u16(self.node);
        writer.u8(self.algorithm);
        writer.u8(0);
        writer.u32(self.creation);
        writer.u32(self.expiration);
        writer.u32(self.handle);
        writer.put(self.data.expose());
    }
}

impl LkhKey {
    /// A second copy, made on purpose and visible at the call.
    pub fn duplicate(&self) -> Self {
        Self { data: self.data.duplicate(), ..*self }
    }
}

impl LkhDownload {
    fn read_array(reader: &mut Reader<'_>) -> Result<LkhAttribute, InvalidMessage> {
        Self::read(reader).map(LkhAttribute::Download)
    }
}

impl LkhUpdate {
    fn read_array(reader: &mut Reader<'_>) -> Result<LkhAttribute, InvalidMessage> {
        Self::read(reader).map(LkhAttribute::Update)
    }
}

fn read_version_and_count(reader: &mut Reader<'_>) -> Result<usize, InvalidMessage> {
    let offset = reader.offset();
    let version = reader.u8("LKH version")?;
    if version != VERSION {
        return Err(InvalidMessage::Value { what: "LKH version", offset, value: version.into() });
    }
    let count = reader.u16("number of LKH keys")?;
    reader.u8("reserved octet of an LKH array")?;
    Ok(count.into())
}

fn read_keys(reader: &mut Reader<'_>, count: usize) -> Result<Vec<LkhKey>, InvalidMessage> {
    let have = reader.remaining();
    let Some(length) = have.checked_div(count) else {
        // RFC 6407 §5.6.3.1 and §5.6.3.2: a header is followed by one or more keys.
        return Err(InvalidMessage::Count {
            what: "LKH keys",
            offset: reader.offset(),
            need: 1,
            have: 0,
        });
    };
    if length.saturating_mul(count) != have {
        return Err(InvalidMessage::Count {
            what: "LKH keys",
            offset: reader.offset(),
            need: count,
            have,
        });
    }
    (0..count).map(|_| LkhKey::read(&mut reader.sub("LKH key", length)?)).collect()
}

fn write_version_and_count(writer: &mut Writer, keys: &[LkhKey]) {
    writer.u8(VERSION);
    writer.count16("number of LKH keys", keys.len());
    writer.u8(0);
}

fn write_keys(writer: &mut Writer, keys: &[LkhKey]) {
    let length = keys.first().map_or(0, |key| key.data.len());
    if keys.is_empty() {
        writer.fail("LKH array without keys", 0, 0);
    }
    for key in keys {
        if key.data.len() != length {
            writer.fail("data of an LKH key", key.data.len(), length);
        }
        key.encode(writer);
    }
}

fn encode_array<T: Codec>(writer: &mut Writer, class: LkhAttributeClass, array: &T) {
    write_class(writer, class.0, Format::Long);
    writer.length16("attribute length", Counted::BodyOnly, |writer| array.encode(writer));
}

const VERSION: u8 = 1;

/// Octets of an LKH key in front of its data.
const KEY_HEADER: usize = 16;

/// Class and length of the attribute, and the octets of an update array in front of its keys.
const ATTRIBUTE_AND_HEADER: usize = 4 + 12;
