//! The payload chain and the generic payload header (RFC 2408 §3.2).
//!
//! ```text
//! ! Next Payload  !   RESERVED    !         Payload Length        !
//! ```
//!
//! Next Payload is the type of the payload *behind*; the length counts these four octets. RESERVED
//! is ignored on receipt, as existing peers do, although RFC 2408 §5.3 would refuse it.

use super::codec::{Codec, Counted, InvalidMessage, Reader, Writer};
use super::registry::PayloadKind;

/// Octets of the generic payload header.
pub const HEADER_LENGTH: usize = 4;

/// Octets of the longest body that Payload Length has room for.
pub const LONGEST_BODY: usize = u16::MAX as usize - HEADER_LENGTH;

/// A payload body whose struct knows its payload type.
pub trait Body: Codec {
    const KIND: PayloadKind;
}

/// One payload as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawPayload<'a> {
    /// Its type, from the header in front of it.
    pub kind: PayloadKind,
    /// Where its generic header starts in the message.
    pub offset: usize,
    /// All its octets, generic header included: what HASH and SIG cover.
    pub octets: &'a [u8],
}

impl<'a> RawPayload<'a> {
    /// The octets behind the generic header: what formulas of RFC 2409 call `_b`.
    pub fn body(&self) -> &'a [u8] {
        self.octets.get(HEADER_LENGTH..).unwrap_or_default()
    }

    /// A reader of the body that keeps offsets of the message.
    pub fn reader(&self) -> Reader<'a> {
        Reader::at(self.body(), self.offset.saturating_add(HEADER_LENGTH))
    }

    /// The body as a struct. A payload of another type is [`InvalidMessage::Value`] at its offset.
    pub fn read<T: Body>(&self) -> Result<T, InvalidMessage> {
        if self.kind != T::KIND {
            return Err(InvalidMessage::Value {
                what: "payload type",
                offset: self.offset,
                value: self.kind.0.into(),
            });
        }
        let mut reader = self.reader();
        let body = T::read(&mut reader)?;
        reader.finish("payload")?;
        Ok(body)
    }
}

/// The payloads of one message, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    pub payloads: Vec<RawPayload<'a>>,
    /// What stands behind the last payload: padding of the cipher, empty in a clear message.
    pub padding: &'a [u8],
    octets: &'a [u8],
    offset: usize,
}

impl<'a> Chain<'a> {
    /// The octets from the end of payload `index` to the end of the last payload: what HASH covers
    /// in phase 2 when `index` is the HASH payload's, with padding left out.
    pub fn octets_behind(&self, index: usize) -> &'a [u8] {
        let Some(payload) = self.payloads.get(index) else { return &[] };
        let from = payload.offset.saturating_sub(self.offset).saturating_add(payload.octets.len());
        let end = self.octets.len().saturating_sub(self.padding.len());
        self.octets.get(from..end).unwrap_or_default()
    }

    /// The octets from the start of the chain to the start of payload `index`: what SIG covers in a
    /// push.
    pub fn octets_before(&self, index: usize) -> &'a [u8] {
        let Some(payload) = self.payloads.get(index) else { return &[] };
        let end = payload.offset.saturating_sub(self.offset);
        self.octets.get(..end).unwrap_or_default()
    }

    /// Payload types in order.
    pub fn kinds(&self) -> impl Iterator<Item = PayloadKind> + '_ {
        self.payloads.iter().map(|payload| payload.kind)
    }
}

/// Cuts `octets`, which start at `offset` of the message, into the payloads that `first` begins.
///
/// The walk ends at Next Payload 0; what is left then is [`Chain::padding`], which may hold
/// anything. A clear message has no padding: see [`walk_clear`].
pub fn walk(first: PayloadKind, octets: &[u8], offset: usize) -> Result<Chain<'_>, InvalidMessage> {
    let mut reader = Reader::at(octets, offset);
    let mut payloads = Vec::new();
    let mut kind = first;
    while kind != PayloadKind::NONE {
        let start = reader.offset();
        let span = reader.peek();
        let next = PayloadKind(reader.u8("next payload")?);
        reader.u8("reserved octet")?;
        let length = usize::from(reader.u16("payload length")?);
        if length < HEADER_LENGTH {
            return Err(InvalidMessage::Length {
                what: "payload length",
                offset: start.saturating_add(2),
                minimum: HEADER_LENGTH,
                maximum: span.len(),
                have: length,
            });
        }
        reader.take("payload", length.saturating_sub(HEADER_LENGTH))?;
        payloads.push(RawPayload {
            kind,
            offset: start,
            octets: span.get(..length).unwrap_or_default(),
        });
        kind = next;
    }
    Ok(Chain { payloads, padding: reader.rest(), octets, offset })
}

/// As [`walk`], for octets without cipher padding: anything behind the last payload is an error.
pub fn walk_clear(
    first: PayloadKind,
    octets: &[u8],
    offset: usize,
) -> Result<Chain<'_>, InvalidMessage> {
    let chain = walk(first, octets, offset)?;
    match chain.padding.len() {
        0 => Ok(chain),
        have => Err(InvalidMessage::Trailing {
            what: "payload chain",
            offset: offset.saturating_add(octets.len()).saturating_sub(have),
            have,
        }),
    }
}

/// Writes one payload with its generic header; `next` is the type of the payload behind it.
pub fn encode_one<T: Codec>(writer: &mut Writer, next: PayloadKind, body: &T) {
    encode_with(writer, next, |writer| body.encode(writer));
}

/// Writes a generic header around what `body` writes.
pub fn encode_with(writer: &mut Writer, next: PayloadKind, body: impl FnOnce(&mut Writer)) {
    writer.u8(next.0);
    writer.u8(0);
    writer.length16("payload length", Counted::Header { before: 2 }, body);
}
