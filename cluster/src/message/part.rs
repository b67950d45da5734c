//! Parts of messages that are too long for one datagram.
//!
//! ```text
//! part       ! serial (4) ! number (2) ! count (2) ! octets ...
//! received   ! serial (4) ! number (2) !
//! next       ! serial (4) ! number (2) !
//! ```
//!
//! Each part is acknowledged before the next one leaves, and a long answer is asked for part by
//! part, so that parts arrive in order: one that does not is refused.

use ike::crypto::Secret;
use ike::wire::{Codec, InvalidMessage, Reader, Writer};

use crate::error::MessageError;

/// Octets of a message that go into one datagram.
pub const LONGEST: usize = 60_000;

/// A message has at most so many parts.
pub const MOST_PARTS: u16 = 256;

/// One part of a longer message.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// Names the message among those of its sender.
    pub serial: u32,
    /// Position of the part in the message, from 0.
    pub number: u16,
    /// How many parts the message has.
    pub count: u16,
    pub octets: Secret,
}

/// The answer to a part that is not the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartReceived {
    pub serial: u32,
    pub number: u16,
}

/// Asks for a part of a long answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextPart {
    pub serial: u32,
    pub number: u16,
}

impl Codec for Part {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let serial = reader.u32("serial")?;
        let (number, count) = (reader.u16("part")?, reader.u16("parts")?);
        let octets = Secret::copy_from(reader.rest_within("part of a message", 1, LONGEST)?);
        Ok(Self { serial, number, count, octets })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.serial);
        writer.u16(self.number);
        writer.u16(self.count);
        writer.put(self.octets.expose());
    }
}

impl Codec for PartReceived {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        Ok(Self { serial: reader.u32("serial")?, number: reader.u16("part")? })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.serial);
        writer.u16(self.number);
    }
}

impl Codec for NextPart {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        Ok(Self { serial: reader.u32("serial")?, number: reader.u16("part")? })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.serial);
        writer.u16(self.number);
    }
}

/// Cuts a message into parts; one that fits into a datagram has none.
pub fn split(serial: u32, message: &Secret) -> Vec<Part> {
    let octets = message.expose();
    if octets.len() <= LONGEST {
        return Vec::new();
    }
    let count = u16::try_from(octets.len().div_ceil(LONGEST)).unwrap_or(u16::MAX);
    let parts = (0..).zip(octets.chunks(LONGEST));
    let part = |(number, octets)| Part { serial, number, count, octets: Secret::copy_from(octets) };
    parts.map(part).collect()
}

/// Parts of one message as they arrive.
#[derive(Debug)]
pub struct Assembly {
    serial: u32,
    next: u16,
    count: u16,
    octets: Secret,
}

impl Assembly {
    /// The first part has arrived.
    ///
    /// # Errors
    /// It is another one, or announces too many.
    pub fn new(part: &Part) -> Result<Self, MessageError> {
        let &Part { serial, number, count, .. } = part;
        if count > MOST_PARTS || number >= count {
            return Err(MessageError::PartCount { number, count, maximum: MOST_PARTS });
        }
        if number != 0 {
            return Err(MessageError::PartOrder { expected: 0, have: number });
        }
        Ok(Self { serial, next: 1, count, octets: part.octets.duplicate() })
    }

    /// Another part has arrived.
    ///
    /// # Errors
    /// It is not the next one of this message. Nothing changed.
    pub fn add(&mut self, part: &Part) -> Result<(), MessageError> {
        let &Part { serial, number, count, .. } = part;
        if count != self.count || number >= count {
            return Err(MessageError::PartCount { number, count, maximum: self.count });
        }
        if serial != self.serial || number != self.next {
            return Err(MessageError::PartOrder { expected: self.next, have: number });
        }
        let length = self.octets.len().saturating_add(part.octets.len());
        let mut all = Vec::with_capacity(length);
        all.extend_from_slice(self.octets.expose());
        all.extend_from_slice(part.octets.expose());
        (self.octets, self.next) = (Secret::new(all), number.saturating_add(1));
        Ok(())
    }

    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Number of the part that is missing next; `None` when all have arrived.
    pub fn missing(&self) -> Option<u16> {
        (self.next < self.count).then_some(self.next)
    }

    /// The octets that have arrived: the message, once nothing is missing.
    pub fn octets(&self) -> &[u8] {
        self.octets.expose()
    }
}
