//! The request of cluster-init: what a sub-server knows, and how it is configured.
//!
//! ```text
//! ! epoch (8) ! version (8) ! boot (8) ! settings (2) ! { name, value } ... ! needs ...
//! ```

use ike::crypto::Secret;
use ike::wire::{Codec, InvalidMessage, Reader, Writer};

use super::{put_generation, put_text, put_u64, read_generation, read_secret, read_text, read_u64};
use crate::Generation;

/// A sub-server asks for everything.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask {
    /// The generation that it distributes to its members now.
    pub held: Generation,
    /// Drawn at its start: another one says that it has been restarted.
    pub boot: u64,
    /// Its configuration of the group, for comparison.
    pub settings: Vec<Setting>,
    /// What it needs that the root alone can give, as the key server writes it.
    pub needs: Secret,
}

/// One option of a group as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    pub name: String,
    pub value: String,
}

impl Codec for Ask {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let (held, boot) = (read_generation(reader)?, read_u64(reader, "boot")?);
        let count = reader.u16("settings")?;
        let mut settings = Vec::new();
        for _ in 0..count {
            let (name, value) = (read_text(reader, "name")?, read_text(reader, "value")?);
            settings.push(Setting { name, value });
        }
        Ok(Self { held, boot, settings, needs: read_secret(reader) })
    }

    fn encode(&self, writer: &mut Writer) {
        put_generation(writer, self.held);
        put_u64(writer, self.boot);
        writer.count16("settings", self.settings.len());
        for Setting { name, value } in &self.settings {
            put_text(writer, "name", name);
            put_text(writer, "value", value);
        }
        writer.put(self.needs.expose());
    }
}
