//! Cluster messages: the body of the private payload, one kind a file.
//!
//! ```text
//! ! version (1) ! kind (1) ! group (4) !  what the kind holds ...
//! ```
//!
//! Numbers are in network order. A message of more than [`LONGEST`] octets is sent as [`Part`]s.

mod acknowledged;
mod ask;
mod commit;
mod notice;
mod part;
mod prepare;
mod refused;
mod told;

use std::fmt;

use ike::crypto::Secret;
use ike::wire::registry::{ExchangeType, PayloadKind};
use ike::wire::{Codec as _, EncodeError, InvalidMessage, Reader, Writer};

pub use acknowledged::Acknowledged;
pub use ask::{Ask, Setting};
pub use commit::Commit;
pub use notice::{Noted, Notice};
pub use part::{Assembly, LONGEST, MOST_PARTS, NextPart, Part, PartReceived, split};
pub use prepare::Prepare;
pub use refused::Refused;
pub use told::{Difference, Told};

use crate::error::MessageError;
use crate::vendor::VERSION;

/// A sub-server asks the root for everything.
pub const CLUSTER_INIT: ExchangeType = ExchangeType(240);

/// The root tells its sub-servers what is new.
pub const CLUSTER_UPDATE: ExchangeType = ExchangeType(241);

/// A server tells another one where members are registered.
pub const CLUSTER_NOTICE: ExchangeType = ExchangeType(242);

/// The private payload that holds a message.
pub const PAYLOAD: PayloadKind = PayloadKind(192);

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident = $kind:literal, $text:literal;)*) => {
        /// A cluster message, with the number of its group; parts have the number of theirs.
        #[derive(Debug, PartialEq, Eq)]
        pub enum Content {
            $($(#[$doc])* $name($name),)*
        }

        impl Content {
            fn kind(&self) -> u8 {
                match self {
                    $(Self::$name(_) => $kind,)*
                }
            }

            /// As sentences name it.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => $text,)*
                }
            }

            fn encode(&self, writer: &mut Writer) {
                match self {
                    $(Self::$name(message) => message.encode(writer),)*
                }
            }

            fn read(kind: u8, reader: &mut Reader<'_>) -> Result<Self, MessageError> {
                match kind {
                    $($kind => Ok(Self::$name($name::read(reader)?)),)*
                    other => Err(MessageError::Kind(other)),
                }
            }
        }

        $(impl From<$name> for Content {
            fn from(message: $name) -> Self {
                Self::$name(message)
            }
        })*
    };
}

messages! {
    /// The request of cluster-init.
    Ask = 1, "the request of cluster-init";
    /// The answer of cluster-init.
    Told = 2, "the answer of cluster-init";
    Prepare = 3, "prepare";
    Commit = 4, "commit";
    Acknowledged = 5, "an acknowledgement";
    Refused = 6, "a refusal";
    Part = 7, "a part of a message";
    PartReceived = 8, "the acknowledgement of a part";
    NextPart = 9, "the request for a part";
    Notice = 10, "a notice of registrations";
    Noted = 11, "the acknowledgement of a notice";
}

/// A message about one group.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// The number by which members ask for the group.
    pub group: u32,
    pub content: Content,
}

impl Message {
    /// A message about `group`.
    pub fn new(group: u32, content: impl Into<Content>) -> Self {
        Self { group, content: content.into() }
    }

    ///
    /// # Errors
    /// The octets are no message of this version.
    pub fn decode(octets: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(octets);
        let theirs = reader.u8("version")?;
        if theirs != VERSION {
            return Err(MessageError::Version { ours: VERSION, theirs });
        }
        let kind = reader.u8("kind")?;
        let group = reader.u32("group")?;
        let content = Content::read(kind, &mut reader)?;
        reader.finish("cluster message")?;
        Ok(Self { group, content })
    }

    /// The octets, which may hold keys.
    ///
    /// # Errors
    /// A text or list is longer than its length field allows.
    pub fn encode(&self) -> Result<Secret, EncodeError> {
        let mut writer = Writer::new();
        writer.u8(VERSION);
        writer.u8(self.content.kind());
        writer.u32(self.group);
        self.content.encode(&mut writer);
        writer.finish().map(Secret::new)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for group {}", self.content.name(), self.group)
    }
}

fn read_u64(reader: &mut Reader<'_>, what: &'static str) -> Result<u64, InvalidMessage> {
    reader.array(what).map(u64::from_be_bytes)
}

fn put_u64(writer: &mut Writer, value: u64) {
    writer.put(&value.to_be_bytes());
}

fn read_generation(reader: &mut Reader<'_>) -> Result<crate::Generation, InvalidMessage> {
    let (epoch, version) = (read_u64(reader, "epoch")?, read_u64(reader, "version")?);
    Ok(crate::Generation { epoch, version })
}

fn put_generation(writer: &mut Writer, generation: crate::Generation) {
    put_u64(writer, generation.epoch);
    put_u64(writer, generation.version);
}

fn read_stage(reader: &mut Reader<'_>) -> Result<crate::Stage, InvalidMessage> {
    let offset = reader.offset();
    match reader.u8("stage")? {
        1 => Ok(crate::Stage::Prepared),
        2 => Ok(crate::Stage::Committed),
        other => Err(InvalidMessage::Value { what: "stage", offset, value: other.into() }),
    }
}

fn put_stage(writer: &mut Writer, stage: crate::Stage) {
    writer.u8(match stage {
        crate::Stage::Prepared => 1,
        crate::Stage::Committed => 2,
    });
}

/// A text of up to 65,535 octets behind its length.
fn read_text(reader: &mut Reader<'_>, what: &'static str) -> Result<String, InvalidMessage> {
    let offset = reader.offset();
    let length = reader.u16(what)?;
    let octets = reader.take(what, length.into())?;
    let invalid = InvalidMessage::Value { what, offset, value: length.into() };
    std::str::from_utf8(octets).map(str::to_owned).map_err(|_| invalid)
}

fn put_text(writer: &mut Writer, what: &'static str, text: &str) {
    writer.count16(what, text.len());
    writer.put(text.as_bytes());
}

/// All that is left, as octets that may hold keys.
fn read_secret(reader: &mut Reader<'_>) -> Secret {
    Secret::copy_from(reader.rest())
}

#[cfg(test)]
mod tests;
