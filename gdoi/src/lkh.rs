//! Logical key hierarchy (RFC 2627 §5.4, RFC 6407 §5.6.3): a removed member cannot follow to the
//! new KEK.
//!
//! ```text
//!              1  root: the KEK          member of leaf 4 holds 4, 2, 1
//!           2     3
//!          4 5   6 7   leaves            it goes: 2 and 1 are new; 5 opens 2 and 1, 3 opens 1
//! ```
//!
//! Nodes are numbered as in a heap: the children of `n` are `2n` and `2n + 1`. Key Data is IV and
//! key, as in KEK_ALGORITHM_KEY, and is encrypted in CBC mode with the IV of the encrypting key:
//! RFC 6407 leaves that open.

mod blocks;
mod nodes;
mod path;
mod update_arrays;

use std::collections::{BTreeMap, BTreeSet};

use self::nodes::{ancestors, children};
use crate::kek_cipher::{Kek, KekUnusable, encryption};
use crate::wire::lkh::{LkhDownload, LkhKey, LkhUpdate};
use ike::crypto::Phase1Encryption;
use ike::crypto::{Secret, SeededRng};
use ike::wire::codec::Codec;

pub use self::path::{KeyPath, PathUpdate};
pub use self::update_arrays::{UpdateArrays, UpdatedLeaves};

/// The key of one node.
#[derive(Debug)]
struct NodeKey {
    /// Tells successive keys of the node apart.
    handle: u32,
    /// Initialisation vector and key.
    data: Secret,
}

/// The key server's tree. Its root is the KEK of the group.
#[derive(Debug)]
pub struct KeyTree {
    encryption: Phase1Encryption,
    algorithm: u8,
    depth: u32,
    keys: BTreeMap<u16, NodeKey>,
    members: BTreeSet<u16>,
    /// Blocks of leaves that other servers give to their members.
    granted: BTreeSet<u16>,
    /// Leaves of this server's blocks that no member has; `None` where the tree is its own.
    spare: Option<BTreeSet<u16>>,
    /// No leaf before this one is free.
    first_free: usize,
    /// Nodes whose keys came or went since they were exported; `None` is all.
    unsaved: Option<BTreeSet<u16>>,
}

/// Why a tree cannot do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Every leaf is taken.
    #[error("the key hierarchy has no leaf left; it was made for {0} members")]
    Full(usize),
    /// More leaves than LKH IDs of 16 bits can name.
    #[error("a key hierarchy for {0} members: at most 32768 are possible")]
    TooLarge(usize),
    /// The KEK does not suit a hierarchy.
    #[error(transparent)]
    Kek(#[from] KekUnusable),
    /// No member is left that could be led to a new KEK.
    #[error("the key hierarchy has no member that could follow to a new KEK")]
    Deserted,
    /// Exported octets that are no tree.
    #[error("the stored key hierarchy is damaged")]
    Damaged,
}

impl KeyTree {
    /// A tree for up to `capacity` members with a new KEK at its root.
    ///
    /// # Errors
    /// More than 32,768 members, or a cipher that does not suit a hierarchy.
    pub fn new(
        algorithm: u16,
        bits: Option<u16>,
        capacity: usize,
        rng: &mut SeededRng,
    ) -> Result<Self, TreeError> {
        let mut tree = Self::empty(algorithm, bits, capacity)?;
        tree.renew(ROOT, rng);
        Ok(tree)
    }

    fn empty(algorithm: u16, bits: Option<u16>, capacity: usize) -> Result<Self, TreeError> {
        let encryption = whole_blocks(algorithm, bits)?;
        let leaves = capacity.max(2).checked_next_power_of_two().unwrap_or(usize::MAX);
        if leaves > MOST_LEAVES {
            return Err(TreeError::TooLarge(capacity));
        }
        let algorithm =
            u8::try_from(algorithm).map_err(|_| KekUnusable::Cipher { algorithm, bits })?;
        let depth = leaves.ilog2();
        Ok(Self {
            encryption,
            algorithm,
            depth,
            keys: BTreeMap::new(),
            members: BTreeSet::new(),
            granted: BTreeSet::new(),
            spare: None,
            first_free: 0,
            unsaved: None,
        })
    }

    /// The KEK: IV and key.
    pub fn kek(&self) -> Option<&Secret> {
        self.keys.get(&ROOT).map(|key| &key.data)
    }

    /// Leaves of the members.
    pub fn members(&self) -> &BTreeSet<u16> {
        &self.members
    }

    /// Key of a member's leaf without its IV: the base key of its acknowledgements of the LKH
    /// kinds.
    pub fn leaf_key(&self, leaf: u16) -> Option<Secret> {
        let data = self.keys.get(&leaf).filter(|_| self.members.contains(&leaf))?.data.expose();
        data.get(self.encryption.block_length()..).map(Secret::copy_from)
    }

    /// Gives a member a leaf with a key of its own. What was sent before it came stays readable to
    /// it if it recorded it: see [`refresh`](Self::refresh).
    ///
    /// # Errors
    /// No leaf is left.
    pub fn join(&mut self, rng: &mut SeededRng) -> Result<u16, TreeError> {
        let first = 1_usize << self.depth;
        if let Some(spare) = &mut self.spare {
            let leaf = spare.pop_first().ok_or(TreeError::Full(first))?;
            self.members.insert(leaf);
            return Ok(leaf);
        }
        let leaf = (self.first_free.max(first)..first << 1)
            .filter_map(|leaf| u16::try_from(leaf).ok())
            .find(|leaf| !self.members.contains(leaf))
            .ok_or(TreeError::Full(first))?;
        self.members.insert(leaf);
        self.first_free = usize::from(leaf).saturating_add(1);
        self.renew(leaf, rng);
        for node in ancestors(leaf) {
            if !self.keys.contains_key(&node) {
                self.renew(node, rng);
            }
        }
        Ok(leaf)
    }

    /// Takes a leaf back whose keys never left: nobody holds them, so that no other key has to
    /// change.
    pub fn release(&mut self, leaf: u16) {
        if self.members.remove(&leaf) {
            self.drop_key(leaf);
            self.first_free = self.first_free.min(leaf.into());
        }
    }

    /// The keys of a member from its leaf to the root, for its pull. `None` if the leaf is
    /// nobody's.
    pub fn download(&self, leaf: u16) -> Option<LkhDownload> {
        self.members.get(&leaf)?;
        let path = core::iter::once(leaf).chain(ancestors(leaf));
        Some(LkhDownload { keys: path.filter_map(|node| self.wire_key(node)).collect() })
    }

    /// Takes `leaves` out: their members hold none of the new keys, and with them not the new KEK.
    /// Everybody else finds one update array that starts from a key it holds.
    ///
    /// # Errors
    /// Nobody would be left in the tree, which is unchanged then, or the cipher does not suit a
    /// hierarchy.
    pub fn remove(
        &mut self,
        leaves: &[u16],
        rng: &mut SeededRng,
    ) -> Result<UpdateArrays, TreeError> {
        if self.members.iter().all(|member| leaves.contains(member)) {
            return Err(TreeError::Deserted);
        }
        for leaf in leaves {
            self.members.remove(leaf);
            self.drop_key(*leaf);
            self.first_free = self.first_free.min(usize::from(*leaf));
        }
        let mut renewed: BTreeSet<u16> = leaves.iter().flat_map(|leaf| ancestors(*leaf)).collect();
        renewed.insert(ROOT);
        for node in &renewed {
            match *node == ROOT || self.is_occupied(*node) {
                true => self.renew(*node, rng),
                false => self.drop_key(*node),
            }
        }
        let edge = renewed.iter().flat_map(|node| children(*node));
        let edge = edge.filter(|node| !renewed.contains(node) && self.is_occupied(*node));
        let arrays = edge.map(|node| self.update(node)).collect::<Result<_, _>>()?;
        // A leaf that has gone from a block is there again, with a key that nobody has.
        for block in self.granted.clone() {
            self.fill(block, rng);
        }
        UpdateArrays::new(arrays).ok_or(TreeError::Deserted)
    }

    /// A new KEK for everybody.
    ///
    /// # Errors
    /// As for [`remove`](Self::remove).
    pub fn refresh(&mut self, rng: &mut SeededRng) -> Result<UpdateArrays, TreeError> {
        self.remove(&[], rng)
    }

    /// All nodes that have a key.
    pub fn nodes(&self) -> impl Iterator<Item = u16> {
        self.keys.keys().copied()
    }

    /// The key of one node, for the sealed state of a key server; `None` if it has none.
    pub fn export(&self, node: u16) -> Option<Secret> {
        let one = LkhDownload { keys: vec![self.wire_key(node)?] };
        one.to_octets().ok().map(Secret::new)
    }

    /// Nodes to export, or to forget if they have no key any more; `None` is all, and whatever
    /// else was exported goes.
    pub fn unsaved(&self) -> Option<&BTreeSet<u16>> {
        self.unsaved.as_ref()
    }

    /// All that [`unsaved`](Self::unsaved) tells has been exported.
    pub fn saved(&mut self) {
        self.unsaved = Some(BTreeSet::new());
    }

    /// The tree whose nodes [`export`](Self::export) wrote, made for the same KEK and capacity.
    /// One text of octets may hold several nodes.
    ///
    /// # Errors
    /// The octets are no such tree.
    pub fn import<'o>(
        algorithm: u16,
        bits: Option<u16>,
        capacity: usize,
        nodes: impl IntoIterator<Item = &'o [u8]>,
    ) -> Result<Self, TreeError> {
        let mut tree = Self::empty(algorithm, bits, capacity)?;
        let mut all = Vec::new();
        for octets in nodes {
            all.extend(LkhDownload::decode(octets).map_err(|_| TreeError::Damaged)?.keys);
        }
        let first = 1_usize << tree.depth;
        for key in &all {
            let node = usize::from(key.node);
            if key.data.len() != tree.data_length() || node == 0 || node >= first << 1 {
                return Err(TreeError::Damaged);
            }
            tree.keys.insert(key.node, NodeKey::of(key));
            if node >= first {
                tree.members.insert(key.node);
            }
        }
        let complete = |leaf: &u16| ancestors(*leaf).all(|node| tree.keys.contains_key(&node));
        match tree.keys.contains_key(&ROOT) && tree.members.iter().all(complete) {
            true => Ok(tree),
            false => Err(TreeError::Damaged),
        }
    }

    /// The update array for those who hold the key of `node`: the keys above it, each encrypted
    /// with the one below.
    fn update(&self, node: u16) -> Result<LkhUpdate, KekUnusable> {
        let missing = KekUnusable::Hierarchy(0);
        let mut by = self.keys.get(&node).ok_or(missing.clone())?;
        let mut update = LkhUpdate { node, handle: by.handle, keys: Vec::new() };
        for above in ancestors(node) {
            let kek = Kek::with(self.encryption, &by.data)?;
            let mut key = self.wire_key(above).ok_or(missing.clone())?;
            key.data = Secret::new(kek.encrypt(key.data.expose())?);
            update.keys.push(key);
            by = self.keys.get(&above).ok_or(missing.clone())?;
        }
        Ok(update)
    }

    fn wire_key(&self, node: u16) -> Option<LkhKey> {
        let NodeKey { handle, data } = self.keys.get(&node)?;
        let (algorithm, handle, data) = (self.algorithm, *handle, data.duplicate());
        Some(LkhKey { node, algorithm, creation: 0, expiration: 0, handle, data })
    }

    fn renew(&mut self, node: u16, rng: &mut SeededRng) {
        let mut data = vec![0; self.data_length()];
        rng.fill(&mut data);
        // Random handles need no memory of those that a node had before.
        let handle = u32::from_be_bytes(rng.nonzero_array());
        self.keys.insert(node, NodeKey { handle, data: Secret::new(data) });
        self.unsaved.iter_mut().for_each(|unsaved| _ = unsaved.insert(node));
    }

    fn drop_key(&mut self, node: u16) {
        if self.keys.remove(&node).is_some() {
            self.unsaved.iter_mut().for_each(|unsaved| _ = unsaved.insert(node));
        }
    }

    fn data_length(&self) -> usize {
        self.encryption.block_length().saturating_add(self.encryption.key_length())
    }

    /// Whether a member is below `node`.
    fn is_occupied(&self, node: u16) -> bool {
        let level = node.checked_ilog2().unwrap_or(0);
        let below = self.depth.saturating_sub(level);
        let first = u32::from(node) << below;
        let last = first | ((1_u32 << below).saturating_sub(1));
        let (Ok(first), Ok(last)) = (u16::try_from(first), u16::try_from(last)) else {
            return false;
        };
        self.members.range(first..=last).next().is_some()
    }
}

impl NodeKey {
    fn of(key: &LkhKey) -> Self {
        Self { handle: key.handle, data: key.data.duplicate() }
    }

    fn duplicate(&self) -> Self {
        Self { handle: self.handle, data: self.data.duplicate() }
    }
}

/// Keys of a hierarchy encrypt each other without padding, which cannot be told apart from a key.
fn whole_blocks(algorithm: u16, bits: Option<u16>) -> Result<Phase1Encryption, KekUnusable> {
    let encryption = encryption(algorithm, bits)?;
    match encryption.key_length().is_multiple_of(encryption.block_length()) {
        true => Ok(encryption),
        false => Err(KekUnusable::Hierarchy(encryption.key_length())),
    }
}

const ROOT: u16 = 1;

/// Leaves 32768 to 65535 fill the 16 bits of an LKH ID.
const MOST_LEAVES: usize = 32_768;

#[cfg(test)]
mod tests;
