//! Where members are registered: cluster-notice.
//!
//! ```text
//! ! octets ...
//! ```

use ike::crypto::Secret;
use ike::wire::{Codec, InvalidMessage, Reader, Writer};

use super::read_secret;

/// A server tells another one of members that are registered with it, or with others. It is
/// acknowledged when it is taken over.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    /// As the key server writes it.
    pub octets: Secret,
}

impl Codec for Notice {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        Ok(Self { octets: read_secret(reader) })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.put(self.octets.expose());
    }
}

/// The answer of cluster-notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted;

impl Codec for Noted {
    fn read(_: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        Ok(Self)
    }

    fn encode(&self, _: &mut Writer) {}
}
