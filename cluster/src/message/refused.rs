//! An answer that says why a message is not followed.
//!
//! ```text
//! ! reason (1) ! number (8) ! number (8) !
//! ```

use ike::wire::{Codec, InvalidMessage, Reader, Writer};

use super::{put_u64, read_u64};
use crate::Generation;
use crate::error::Refusal;

/// A message is not followed. Nothing changed at its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub Refusal);

impl Codec for Refused {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let offset = reader.offset();
        let reason = reader.u8("reason")?;
        let numbers = [read_u64(reader, "number")?, read_u64(reader, "number")?];
        let refusal = match (reason, numbers) {
            (1, [0, 0]) => Refusal::UnknownGroup,
            (2, [0, 0]) => Refusal::WrongRole,
            (3, [ours, theirs]) => Refusal::LowerEpoch { ours, theirs },
            (4, [epoch, version]) => Refusal::NotPrepared(Generation { epoch, version }),
            (5, [0, 0]) => Refusal::NoKeys,
            (6, [0, 0]) => Refusal::Unreadable,
            _ => {
                let value = reason.into();
                return Err(InvalidMessage::Value { what: "reason", offset, value });
            }
        };
        Ok(Self(refusal))
    }

    fn encode(&self, writer: &mut Writer) {
        let (reason, numbers) = match self.0 {
            Refusal::UnknownGroup => (1, [0, 0]),
            Refusal::WrongRole => (2, [0, 0]),
            Refusal::LowerEpoch { ours, theirs } => (3, [ours, theirs]),
            Refusal::NotPrepared(Generation { epoch, version }) => (4, [epoch, version]),
            Refusal::NoKeys => (5, [0, 0]),
            Refusal::Unreadable => (6, [0, 0]),
        };
        writer.u8(reason);
        numbers.into_iter().for_each(|number| put_u64(writer, number));
    }
}
