//! The first half of cluster-update: keys that are not distributed yet.
//!
//! ```text
//! ! epoch (8) ! version (8) ! state ...
//! ```

use ike::crypto::Secret;
use ike::wire::{Codec, InvalidMessage, Reader, Writer};

use super::{put_generation, read_generation, read_secret};
use crate::Generation;

/// The root has a new generation. It is acknowledged when it is on the sub-server's disk.
#[derive(Debug, PartialEq, Eq)]
pub struct Prepare {
    pub generation: Generation,
    /// As [`Told::state`](super::Told::state).
    pub state: Secret,
}

impl Codec for Prepare {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        Ok(Self { generation: read_generation(reader)?, state: read_secret(reader) })
    }

    fn encode(&self, writer: &mut Writer) {
        put_generation(writer, self.generation);
        writer.put(self.state.expose());
    }
}
