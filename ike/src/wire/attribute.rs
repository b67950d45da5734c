//! Data attributes (RFC 2408 §3.3): type and value (TV), or type, length and value (TLV).
//!
//! ```text
//! !A!       Attribute Type        !    AF=0  Attribute Length     !
//! !F!                             !    AF=1  Attribute Value      !
//! .                   AF=0  Attribute Value                       .
//! ```
//!
//! Unknown classes and repetitions are kept as they are; what they mean is for the payload's user.

use super::codec::{Codec, Counted, InvalidMessage, Reader, Writer};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attribute {
    /// Attribute class, 15 bits.
    pub class: u16,
    /// Its value in the form it had on the wire.
    pub value: AttributeValue,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AttributeValue {
    /// TV: two octets. Basic classes have this form only, variable classes may have it (RFC 2409
    /// appendix A).
    Short(u16),
    /// TLV: any number of octets.
    Long(Vec<u8>),
}

impl Attribute {
    /// An attribute of the TV form.
    pub fn short(class: impl Into<u16>, value: impl Into<u16>) -> Self {
        Self { class: class.into(), value: AttributeValue::Short(value.into()) }
    }

    /// An attribute of the TLV form.
    pub fn long(class: impl Into<u16>, value: impl Into<Vec<u8>>) -> Self {
        Self { class: class.into(), value: AttributeValue::Long(value.into()) }
    }

    /// A number of a variable class in four octets, the form that every peer reads.
    pub fn number(class: impl Into<u16>, value: u32) -> Self {
        Self::long(class, value.to_be_bytes())
    }

    /// The value of a basic class; `None` if it came in the TLV form, which such a class must not
    /// have.
    pub fn as_basic(&self) -> Option<u16> {
        match self.value {
            AttributeValue::Short(value) => Some(value),
            AttributeValue::Long(_) => None,
        }
    }

    /// The value of a variable class as a number, from either form; `None` if it is empty or
    /// exceeds 64 bits.
    pub fn as_number(&self) -> Option<u64> {
        match &self.value {
            AttributeValue::Short(value) => Some(u64::from(*value)),
            AttributeValue::Long(octets) => big_endian(octets),
        }
    }

    /// The octets of the value.
    pub fn octets(&self) -> Vec<u8> {
        match &self.value {
            AttributeValue::Short(value) => value.to_be_bytes().to_vec(),
            AttributeValue::Long(octets) => octets.clone(),
        }
    }

    /// Whether both say the same: equal class and equal value, where a number may differ in form
    /// and leading zeros.
    pub fn same(&self, other: &Self) -> bool {
        self.class == other.class
            && (self.value == other.value
                || matches!((self.as_number(), other.as_number()), (Some(one), Some(two)) if one == two))
    }
}

impl Codec for Attribute {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let (class, format) = read_class(reader)?;
        let value = match format {
            Format::Short => AttributeValue::Short(reader.u16("attribute value")?),
            Format::Long => {
                let length = usize::from(reader.u16("attribute length")?);
                AttributeValue::Long(reader.take("attribute value", length)?.to_vec())
            }
        };
        Ok(Self { class, value })
    }

    fn encode(&self, writer: &mut Writer) {
        match &self.value {
            AttributeValue::Short(value) => {
                write_class(writer, self.class, Format::Short);
                writer.u16(*value);
            }
            AttributeValue::Long(octets) => {
                write_class(writer, self.class, Format::Long);
                writer.length16("attribute length", Counted::BodyOnly, |writer| writer.put(octets));
            }
        }
    }
}

/// Reads attributes to the end of `reader`.
pub fn read_all(reader: &mut Reader<'_>) -> Result<Vec<Attribute>, InvalidMessage> {
    let mut attributes = Vec::new();
    while !reader.is_empty() {
        attributes.push(Attribute::read(reader)?);
    }
    Ok(attributes)
}

/// Writes attributes in order.
pub fn encode_all(writer: &mut Writer, attributes: &[Attribute]) {
    for attribute in attributes {
        attribute.encode(writer);
    }
}

/// The form of an attribute on the wire: its AF bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// AF = 1, type and value.
    Short,
    /// AF = 0, type, length and value.
    Long,
}

/// Reads attribute class and form.
///
/// # Errors
/// The octets end too early.
pub fn read_class(reader: &mut Reader<'_>) -> Result<(u16, Format), InvalidMessage> {
    let word = reader.u16("attribute type")?;
    let format = if word & FORMAT_BIT == 0 { Format::Long } else { Format::Short };
    Ok((word & !FORMAT_BIT, format))
}

/// Writes attribute class and form.
pub fn write_class(writer: &mut Writer, class: u16, format: Format) {
    if class & FORMAT_BIT != 0 {
        writer.fail("attribute type", class.into(), usize::from(!FORMAT_BIT));
    }
    match format {
        Format::Short => writer.u16(class | FORMAT_BIT),
        Format::Long => writer.u16(class),
    }
}

/// Octets as a number in network order; `None` if there is none or it exceeds 64 bits.
pub(super) fn big_endian(octets: &[u8]) -> Option<u64> {
    let significant = octets.iter().position(|octet| *octet != 0).unwrap_or(octets.len());
    let digits = octets.get(significant..)?;
    if octets.is_empty() || digits.len() > size_of::<u64>() {
        return None;
    }
    Some(digits.iter().fold(0, |number, octet| number << 8 | u64::from(*octet)))
}

const FORMAT_BIT: u16 = 0x8000;
