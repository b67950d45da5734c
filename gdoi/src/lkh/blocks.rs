//! A tree whose leaves several servers give: each of the others has blocks of them.
//!
//! The tree of the server that makes the keys has all keys, those of the blocks included, so that
//! it can take out any leaf. Another server has the [`part`](KeyTree::part) of it that its members
//! need: its blocks and what is above them.

use std::collections::BTreeSet;

use ike::crypto::SeededRng;

use super::nodes::{ancestors, below};
use super::{KeyTree, ROOT};

impl KeyTree {
    /// Makes the keys of a free block of leaves, which another server gives to its members: to this
    /// tree all of them are members' leaves. Returns the node above the block; `None` if no block
    /// is free.
    pub fn grant(&mut self, rng: &mut SeededRng) -> Option<u16> {
        let level = self.depth.saturating_sub(self.block_depth());
        // From the end, so that our own members' leaves stay together.
        let nodes = (1_u32 << level..1_u32 << level.saturating_add(1)).rev();
        let mut nodes = nodes.filter_map(|node| u16::try_from(node).ok());
        let block = nodes.find(|node| !self.is_occupied(*node))?;
        self.granted.insert(block);
        self.fill(block, rng);
        Some(block)
    }

    /// The blocks that other servers give leaves of, as [`grant`](Self::grant) returned them.
    pub fn set_granted(&mut self, blocks: BTreeSet<u16>) {
        self.granted = blocks;
    }

    /// How many leaves one block has.
    pub fn block_size(&self) -> usize {
        1_usize << self.block_depth()
    }

    /// Nodes of these blocks and above them, for [`export`](Self::export): what the server needs
    /// that gives their leaves.
    pub fn part(&self, blocks: &BTreeSet<u16>) -> BTreeSet<u16> {
        let above = blocks.iter().flat_map(|block| ancestors(*block));
        let below = blocks
            .iter()
            .flat_map(|block| (0..=self.block_depth()).flat_map(|level| below(*block, level)));
        above.chain(below).chain([ROOT]).collect()
    }

    /// Of the leaves of this tree, which are another server's, members have all but these.
    pub fn set_spare(&mut self, spare: BTreeSet<u16>) {
        let first = 1_usize << self.depth;
        let leaves = self.keys.keys().filter(|node| usize::from(**node) >= first);
        self.members = leaves.copied().filter(|leaf| !spare.contains(leaf)).collect();
        self.spare = Some(spare);
    }

    /// Leaves of this server's blocks that no member has; `None` where the tree is its own.
    pub fn spare(&self) -> Option<&BTreeSet<u16>> {
        self.spare.as_ref()
    }

    /// What tells the present key of a node from those before.
    pub fn handle(&self, node: u16) -> Option<u32> {
        self.keys.get(&node).map(|key| key.handle)
    }

    /// All leaves that have keys.
    pub fn leaves(&self) -> impl Iterator<Item = u16> {
        let first = 1_u32 << self.depth;
        self.keys.keys().copied().filter(move |node| u32::from(*node) >= first)
    }

    /// A block is a sixteenth of all leaves, and at most 64 of them: what a server is sent grows
    /// with its blocks.
    fn block_depth(&self) -> u32 {
        self.depth.saturating_sub(4).min(6)
    }

    pub(super) fn fill(&mut self, block: u16, rng: &mut SeededRng) {
        for leaf in below(block, self.block_depth()) {
            if self.members.insert(leaf) {
                self.renew(leaf, rng);
                for node in ancestors(leaf) {
                    if !self.keys.contains_key(&node) {
                        self.renew(node, rng);
                    }
                }
            }
        }
    }
}
