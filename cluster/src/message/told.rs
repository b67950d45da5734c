//! The answer of cluster-init: everything.
//!
//! ```text
//! ! epoch (8) ! version (8) ! stage (1) ! differences (2) ! { name, root's, yours } ... ! state ...
//! ```

use ike::crypto::Secret;
use ike::wire::{Codec, InvalidMessage, Reader, Writer};

use super::{
    put_generation, put_stage, put_text, read_generation, read_secret, read_stage, read_text,
};
use crate::{Generation, Stage};

/// The root tells a sub-server everything.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub generation: Generation,
    /// Whether the sub-server may distribute it at once, or waits for commit.
    pub stage: Stage,
    /// Where the configurations differ; the root's is served.
    pub differences: Vec<Difference>,
    /// Policy, keys with the life they have left, numbers and pushes, as the key server writes
    /// them.
    pub state: Secret,
}

/// An option that the two servers have different values for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    pub name: String,
    /// The value at the root server, which is served.
    pub root: String,
    /// The value in the sub-server's own file.
    pub sub_server: String,
}

impl Codec for Told {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let (generation, stage) = (read_generation(reader)?, read_stage(reader)?);
        let count = reader.u16("differences")?;
        let mut differences = Vec::new();
        for _ in 0..count {
            differences.push(Difference {
                name: read_text(reader, "name")?,
                root: read_text(reader, "value")?,
                sub_server: read_text(reader, "value")?,
            });
        }
        Ok(Self { generation, stage, differences, state: read_secret(reader) })
    }

    fn encode(&self, writer: &mut Writer) {
        put_generation(writer, self.generation);
        put_stage(writer, self.stage);
        writer.count16("differences", self.differences.len());
        for Difference { name, root, sub_server } in &self.differences {
            put_text(writer, "name", name);
            put_text(writer, "value", root);
            put_text(writer, "value", sub_server);
        }
        writer.put(self.state.expose());
    }
}
