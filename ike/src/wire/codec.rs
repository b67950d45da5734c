//! The one way octets are read and written: a bounded cursor with absolute offsets, and a buffer
//! whose length fields are filled in by a guard.
//!
//! Nested structures get a sub-reader that ends where their length field says, so that no field can
//! reach beyond its container, and octets that nothing claims are an error (RFC 2408 §5.3).

use zeroize::{Zeroize, Zeroizing};

/// What is wrong with received octets. Offsets count from the first octet of what was handed in,
/// usually the datagram.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// A field needs more octets than its container has left.
    #[error("{what} at octet {offset}: needs {need} octets, has {have}")]
    Truncated {
        what: &'static str,
        offset: usize,
        need: usize,
        /// Octets that are left.
        have: usize,
    },
    /// A length outside the field's bounds.
    #[error("{what} at octet {offset}: {have} octets long, allowed are {minimum} to {maximum}")]
    Length {
        what: &'static str,
        offset: usize,
        /// Shortest allowed length in octets.
        minimum: usize,
        /// Longest allowed length in octets.
        maximum: usize,
        have: usize,
    },
    /// Octets behind the end of a structure.
    #[error("{what}: {have} octets left over at octet {offset}")]
    Trailing {
        what: &'static str,
        /// Where the excess starts.
        offset: usize,
        have: usize,
    },
    /// A count field that disagrees with what is there.
    #[error("{what} at octet {offset}: {need} announced, {have} present")]
    Count {
        what: &'static str,
        /// Where the counted things start.
        offset: usize,
        need: usize,
        have: usize,
    },
    /// A value that the field cannot have.
    #[error("{what} at octet {offset}: value {value} is not allowed here")]
    Value { what: &'static str, offset: usize, value: u64 },
}

impl InvalidMessage {
    /// Where in the message the fault is, in octets from its start.
    pub fn offset(&self) -> usize {
        match *self {
            Self::Truncated { offset, .. }
            | Self::Length { offset, .. }
            | Self::Trailing { offset, .. }
            | Self::Count { offset, .. }
            | Self::Value { offset, .. } => offset,
        }
    }

    /// The field or structure at fault.
    pub fn what(&self) -> &'static str {
        match *self {
            Self::Truncated { what, .. }
            | Self::Length { what, .. }
            | Self::Trailing { what, .. }
            | Self::Count { what, .. }
            | Self::Value { what, .. } => what,
        }
    }
}

/// What cannot be written: a value of ours that its field has no room for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {have} does not fit, at most {maximum}")]
pub struct EncodeError {
    pub what: &'static str,
    /// Its length, count or value.
    pub have: usize,
    /// The largest the wire has room for.
    pub maximum: usize,
}

/// A structure with one octet form.
pub trait Codec: Sized {
    /// Reads the structure. A structure without a length of its own takes all that `reader` has.
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage>;

    /// Writes the structure. What does not fit surfaces in [`Writer::finish`].
    fn encode(&self, writer: &mut Writer);

    /// Reads the structure from `octets` and nothing else.
    fn decode(octets: &[u8]) -> Result<Self, InvalidMessage> {
        let mut reader = Reader::new(octets);
        let value = Self::read(&mut reader)?;
        reader.finish("structure")?;
        Ok(value)
    }

    /// The octets of the structure.
    fn to_octets(&self) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::new();
        self.encode(&mut writer);
        writer.finish()
    }
}

/// A cursor over received octets.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    octets: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Reads `octets` from the start.
    pub fn new(octets: &'a [u8]) -> Self {
        Self { octets, offset: 0 }
    }

    /// Reads `octets` that stand at `offset` of a larger message.
    pub fn at(octets: &'a [u8], offset: usize) -> Self {
        Self { octets, offset }
    }

    /// Offset of the next octet in the whole message.
    pub fn offset(&self) -> usize {
        self.offset
    }

    pub fn remaining(&self) -> usize {
        self.octets.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// What is left, without moving.
    pub fn peek(&self) -> &'a [u8] {
        self.octets
    }

    /// The next `count` octets.
    pub fn take(&mut self, what: &'static str, count: usize) -> Result<&'a [u8], InvalidMessage> {
        let Some((taken, rest)) = self.octets.split_at_checked(count) else {
            return Err(InvalidMessage::Truncated {
                what,
                offset: self.offset,
                need: count,
                have: self.octets.len(),
            });
        };
        self.octets = rest;
        self.offset = self.offset.saturating_add(count);
        Ok(taken)
    }

    /// The next `N` octets.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], InvalidMessage> {
        let Some((taken, rest)) = self.octets.split_first_chunk::<N>() else {
            return Err(InvalidMessage::Truncated {
                what,
                offset: self.offset,
                need: N,
                have: self.octets.len(),
            });
        };
        self.octets = rest;
        self.offset = self.offset.saturating_add(N);
        Ok(*taken)
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8, InvalidMessage> {
        self.array(what).map(u8::from_be_bytes)
    }

    /// Two octets in network order.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, InvalidMessage> {
        self.array(what).map(u16::from_be_bytes)
    }

    /// Four octets in network order.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, InvalidMessage> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = core::mem::take(&mut self.octets);
        self.offset = self.offset.saturating_add(rest.len());
        rest
    }

    /// All that is left, if its length is within the bounds.
    pub fn rest_within(
        &mut self,
        what: &'static str,
        minimum: usize,
        maximum: usize,
    ) -> Result<&'a [u8], InvalidMessage> {
        let have = self.octets.len();
        if have < minimum || have > maximum {
            return Err(InvalidMessage::Length {
                what,
                offset: self.offset,
                minimum,
                maximum,
                have,
            });
        }
        Ok(self.rest())
    }

    /// A reader of the next `count` octets alone.
    pub fn sub(&mut self, what: &'static str, count: usize) -> Result<Self, InvalidMessage> {
        let offset = self.offset;
        Ok(Self { octets: self.take(what, count)?, offset })
    }

    /// The end of `what`: an error if octets are left.
    pub fn finish(&self, what: &'static str) -> Result<(), InvalidMessage> {
        match self.octets.len() {
            0 => Ok(()),
            have => Err(InvalidMessage::Trailing { what, offset: self.offset, have }),
        }
    }
}

/// A buffer for octets to send.
///
/// It may hold keys, so its memory is wiped when it grows and when it is dropped unfinished.
#[derive(Default)]
pub struct Writer {
    octets: Zeroizing<Vec<u8>>,
    error: Option<EncodeError>,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Octets written so far.
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// The octets, or the first thing that did not fit. If they hold keys, wiping them is now the
    /// caller's duty.
    pub fn finish(mut self) -> Result<Vec<u8>, EncodeError> {
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(core::mem::take(&mut *self.octets)),
        }
    }

    /// Notes that something does not fit; the first report wins.
    pub fn fail(&mut self, what: &'static str, have: usize, maximum: usize) {
        self.error.get_or_insert(EncodeError { what, have, maximum });
    }

    pub fn put(&mut self, octets: &[u8]) {
        let need = self.octets.len().saturating_add(octets.len());
        if need > self.octets.capacity() {
            // Growing in place would leave an unwiped copy in freed memory.
            let mut larger =
                Vec::with_capacity(need.max(self.octets.capacity().saturating_mul(2)).max(256));
            larger.extend_from_slice(&self.octets);
            let mut old = core::mem::replace(&mut *self.octets, larger);
            old.zeroize();
        }
        self.octets.extend_from_slice(octets);
    }

    pub fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// Writes two octets in network order.
    pub fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    /// Writes four octets in network order.
    pub fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// Writes a one-octet count or length, or notes that it does not fit.
    pub fn count8(&mut self, what: &'static str, count: usize) {
        match u8::try_from(count) {
            Ok(count) => self.u8(count),
            Err(_) => self.fail(what, count, usize::from(u8::MAX)),
        }
    }

    /// Writes a two-octet count or length, or notes that it does not fit.
    pub fn count16(&mut self, what: &'static str, count: usize) {
        match u16::try_from(count) {
            Ok(count) => self.u16(count),
            Err(_) => self.fail(what, count, usize::from(u16::MAX)),
        }
    }

    /// Writes a two-octet length, then what `body` writes, and fills in the length, which counts
    /// what `counted` says.
    pub fn length16(&mut self, what: &'static str, counted: Counted, body: impl FnOnce(&mut Self)) {
        let field = self.len();
        self.u16(0);
        body(self);
        let after_field = self.len().saturating_sub(field.saturating_add(2));
        let length = match counted {
            Counted::BodyOnly => after_field,
            Counted::Header { before } => after_field.saturating_add(before).saturating_add(2),
        };
        let Ok(value) = u16::try_from(length) else {
            return self.fail(what, length, usize::from(u16::MAX));
        };
        if let Some(place) = self.octets.get_mut(field..).and_then(<[u8]>::first_chunk_mut::<2>) {
            *place = value.to_be_bytes();
        }
    }
}

/// What a length field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Only what follows it.
    BodyOnly,
    /// `before` octets in front of it, itself, and what follows.
    Header {
        /// Counted octets in front of the length field.
        before: usize,
    },
}
