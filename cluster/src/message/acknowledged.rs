//! The answer of cluster-update.
//!
//! ```text
//! ! epoch (8) ! version (8) ! stage (1) !
//! ```

use ike::wire::{Codec, InvalidMessage, Reader, Writer};

use super::{put_generation, put_stage, read_generation, read_stage};
use crate::{Generation, Stage};

/// A sub-server has written the generation to its disk, and distributes it if it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub generation: Generation,
    pub stage: Stage,
}

impl Codec for Acknowledged {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        Ok(Self { generation: read_generation(reader)?, stage: read_stage(reader)? })
    }

    fn encode(&self, writer: &mut Writer) {
        put_generation(writer, self.generation);
        put_stage(writer, self.stage);
    }
}
