//! The second half of cluster-update: what was prepared is distributed, and its pushes relayed.
//!
//! ```text
//! ! epoch (8) ! version (8) !
//! ```

use ike::wire::{Codec, InvalidMessage, Reader, Writer};

use super::{put_generation, read_generation};
use crate::Generation;

/// All active sub-servers hold this generation, or are not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    pub generation: Generation,
}

impl Codec for Commit {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        Ok(Self { generation: read_generation(reader)? })
    }

    fn encode(&self, writer: &mut Writer) {
        put_generation(writer, self.generation);
    }
}
