//! What one member holds of a hierarchy, and how it follows to new keys.

use std::collections::BTreeMap;

use ike::crypto::{Phase1Encryption, Secret};

use super::{NodeKey, whole_blocks};
use crate::kek_cipher::{Kek, KekUnusable};
use crate::wire::lkh::{LkhDownload, LkhKey, LkhUpdate};

/// The keys that one member holds: from its leaf to the root.
#[derive(Debug)]
pub struct KeyPath {
    pub(super) encryption: Phase1Encryption,
    /// KEK_ALGORITHM, in the one octet that it has in an LKH key.
    algorithm: u8,
    leaf: u16,
    pub(super) keys: BTreeMap<u16, NodeKey>,
}

/// New keys of a member's path, not yet taken over.
#[derive(Debug)]
pub struct PathUpdate {
    keys: Vec<(u16, NodeKey)>,
}

impl KeyPath {
    /// The path in `download`, for the KEK that `algorithm` and `bits` describe.
    ///
    /// # Errors
    /// The cipher is not known, or the keys are no whole number of its blocks.
    pub fn new(
        algorithm: u16,
        bits: Option<u16>,
        download: &LkhDownload,
    ) -> Result<Option<Self>, KekUnusable> {
        let encryption = whole_blocks(algorithm, bits)?;
        let algorithm =
            u8::try_from(algorithm).map_err(|_| KekUnusable::Cipher { algorithm, bits })?;
        let Some(leaf) = download.keys.first() else { return Ok(None) };
        let keys = download.keys.iter().map(|key| (key.node, NodeKey::of(key)));
        Ok(Some(Self { encryption, algorithm, leaf: leaf.node, keys: keys.collect() }))
    }

    /// Key of the leaf without its IV: the base key of acknowledgements of the LKH kinds (RFC 8263
    /// §2).
    pub fn leaf_key(&self) -> Option<Secret> {
        let data = self.keys.get(&self.leaf)?.data.expose();
        data.get(self.encryption.block_length()..).map(Secret::copy_from)
    }

    /// The same keys as [`new`](Self::new) takes them.
    pub(crate) fn download(&self) -> LkhDownload {
        let algorithm = self.algorithm;
        // The leaf has the highest number of a path, the root the lowest.
        let keys = self.keys.iter().rev().map(|(node, NodeKey { handle, data })| {
            let (node, handle, data) = (*node, *handle, data.duplicate());
            LkhKey { node, algorithm, creation: 0, expiration: 0, handle, data }
        });
        LkhDownload { keys: keys.collect() }
    }

    /// Decrypts the update array that starts from a key held here. The root among the new keys is
    /// the new KEK.
    ///
    /// # Errors
    /// [`KekUnusable::Excluded`] if no array starts from such a key, or keys of a wrong length.
    pub fn open(&self, updates: &[LkhUpdate]) -> Result<PathUpdate, KekUnusable> {
        let held = |update: &&LkhUpdate| {
            self.keys.get(&update.node).is_some_and(|key| key.handle == update.handle)
        };
        let update = updates.iter().find(held).ok_or(KekUnusable::Excluded)?;
        let mut keys: Vec<(u16, NodeKey)> = Vec::with_capacity(update.keys.len());
        for encrypted in &update.keys {
            let by = keys.last().map(|(_, key)| key).or_else(|| self.keys.get(&update.node));
            let by = by.ok_or(KekUnusable::Excluded)?;
            let kek = Kek::with(self.encryption, &by.data)?;
            let length = encrypted.data.len();
            let data =
                kek.decrypt(encrypted.data.expose()).map_err(|_| KekUnusable::Hierarchy(length))?;
            keys.push((
                encrypted.node,
                NodeKey { handle: encrypted.handle, data: Secret::copy_from(&data) },
            ));
        }
        match keys.is_empty() {
            true => Err(KekUnusable::Excluded),
            false => Ok(PathUpdate { keys }),
        }
    }

    /// Takes over new keys.
    pub fn accept(&mut self, update: PathUpdate) {
        self.keys.extend(update.keys);
    }

    /// A second path with its own copies of the keys.
    pub(crate) fn duplicate(&self) -> Self {
        let keys = self.keys.iter().map(|(node, key)| (*node, key.duplicate())).collect();
        Self { encryption: self.encryption, algorithm: self.algorithm, leaf: self.leaf, keys }
    }
}

impl PathUpdate {
    /// The new KEK: IV and key.
    pub fn root(&self) -> Option<&Secret> {
        self.keys.last().map(|(_, key)| &key.data)
    }
}
