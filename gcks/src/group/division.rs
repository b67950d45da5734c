//! What the servers of a cluster divide among them, so that none has to ask another one before it
//! answers a member: sender identifiers, and leaves of the key hierarchy.
//!
//! The root decides, and what it decides is part of the next generation: it is prepared everywhere
//! and committed like keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ike::BootTime;
use ike::crypto::SeededRng;

use super::Group;
use super::kek::Kek;
use super::key_generation::{self, KeySource};
use super::rekey_sa::RekeySa;
use super::sender_blocks::{Division, SenderBlocks};
use crate::config;
use crate::config::tek_algorithm::Kind;

/// How much more a server needs of what is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    #[default]
    Nothing,
    /// Half of it is in use.
    More,
    /// A member was not answered.
    AtOnce,
}

/// What a sub-server needs that the root alone can give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub senders: Need,
    /// Leaves of the key hierarchy.
    pub leaves: Need,
    /// When a member restarted that must not go on with the counter-mode TEKs that it had.
    pub restart: Option<BootTime>,
}

impl Group {
    /// Who gives which sender identifiers; `None` where nobody else does.
    pub fn sender_blocks(&self) -> Option<&SenderBlocks> {
        self.cluster.blocks.as_ref()
    }

    pub(crate) fn restore_sender_blocks(&mut self, blocks: Option<SenderBlocks>) {
        self.cluster.blocks = blocks;
    }

    /// Sender identifiers that a sub-server may give; `None` where members need none.
    pub fn division_for(&self, server: &str) -> Option<Division> {
        let blocks = self.cluster.blocks.as_ref()?;
        let (era, bits) = (blocks.era(), self.sender_ids.bits());
        Some(Division { era, bits, blocks: blocks.of(Some(server)) })
    }

    /// Which server gives the leaves of which block of the key hierarchy.
    pub fn leaf_blocks(&self) -> &BTreeMap<u16, Arc<str>> {
        &self.cluster.leaf_blocks
    }

    /// Blocks of leaves that a sub-server gives.
    pub fn leaf_blocks_of(&self, server: &str) -> BTreeSet<u16> {
        let own = self.cluster.leaf_blocks.iter().filter(|(_, owner)| &***owner == server);
        own.map(|(block, _)| *block).collect()
    }

    /// Whether a sub-server has something that is divided, or had it.
    pub fn has_granted(&self, server: &str) -> bool {
        let blocks = self.cluster.blocks.iter().flat_map(|blocks| blocks.grants().values());
        let mut holders = blocks.filter_map(|grant| grant.server.as_deref());
        holders.any(|holder| holder == server) || !self.leaf_blocks_of(server).is_empty()
    }

    pub(crate) fn restore_leaf_blocks(&mut self, blocks: BTreeMap<u16, Arc<str>>) {
        if let Some(tree) = self.tree_mut() {
            tree.set_granted(blocks.keys().copied().collect());
        }
        self.cluster.leaf_blocks = blocks;
    }

    /// Leaves of a sub-server's blocks that no member has.
    pub fn spare_leaves(&self) -> Option<&BTreeSet<u16>> {
        self.rekey_sa.as_ref()?.kek()?.tree()?.spare()
    }

    pub(crate) fn restore_spare_leaves(&mut self, spare: BTreeSet<u16>) {
        if let Some(tree) = self.tree_mut() {
            tree.set_spare(spare);
        }
    }

    fn tree_mut(&mut self) -> Option<&mut gdoi::lkh::KeyTree> {
        self.rekey_sa.as_mut()?.kek.as_mut().and_then(Kek::tree_mut)
    }

    /// Every one of these sub-servers has what it needs to answer members.
    pub fn divide(&mut self, servers: &[Arc<str>], keys: &mut KeySource<'_>, now: BootTime) {
        self.divide_senders(servers, now);
        for server in servers {
            if self.leaf_blocks_of(server).is_empty() {
                self.grant_leaves(server, keys);
            }
        }
    }

    /// More leaves for a sub-server, as many as it has, so that it asks seldom.
    fn grant_leaves(&mut self, server: &Arc<str>, keys: &mut KeySource<'_>) {
        if self.tree_mut().is_none() {
            return;
        }
        // Without randomness it is tried again.
        let Ok(seed) = key_generation::seed(keys.entropy) else { return };
        let mut rng = SeededRng::from_seed(seed);
        for _ in 0..self.leaf_blocks_of(server).len().clamp(1, 8) {
            let Some(block) = self.tree_mut().and_then(|tree| tree.grant(&mut rng)) else { break };
            self.cluster.leaf_blocks.insert(block, Arc::clone(server));
            self.revise();
        }
    }

    /// A sub-server takes over the leaves of another generation: a member whose leaf has another
    /// key was taken out by the root.
    pub(super) fn take_over_leaves(&mut self, next: &mut Option<RekeySa>, now: BootTime) {
        self.cluster.leaves = Need::Nothing;
        let before = self.rekey_sa.as_ref().and_then(|rekey_sa| rekey_sa.kek()?.tree());
        let next = next.as_mut().and_then(|next| next.kek.as_mut()).and_then(Kek::tree_mut);
        let Some(tree) = next else {
            self.forget_leaves();
            return;
        };
        let leaves: BTreeSet<u16> = tree.leaves().collect();
        let stays = |leaf: &u16| {
            let handle = tree.handle(*leaf);
            handle.is_some() && handle == before.and_then(|before| before.handle(*leaf))
        };
        let kept: BTreeSet<u16> = leaves.iter().copied().filter(stays).collect();
        let spare_before = before.and_then(gdoi::lkh::KeyTree::spare);
        let was_spare = |leaf: &u16| spare_before.is_some_and(|spare| spare.contains(leaf));
        let spare = leaves.iter().copied().filter(|leaf| !kept.contains(leaf) || was_spare(leaf));
        let spare = spare.collect();
        tree.set_spare(spare);
        if kept.is_empty() {
            // It is another hierarchy, in which nobody has a leaf yet.
            self.forget_leaves();
            return;
        }
        let is_out = |leaf: Option<u16>| leaf.is_some_and(|leaf| !kept.contains(&leaf));
        let out = self.registry.iter().filter(|(_, one)| is_out(one.leaf));
        let out = out.map(|(id, _)| id.clone()).collect();
        self.forget_members(&out, now);
        if let Some(rekey_sa) = &mut self.rekey_sa {
            rekey_sa.abandoned.extract(|one| is_out(one.leaf));
        }
    }

    /// Every one of these sub-servers has sender identifiers to give, if members need any.
    fn divide_senders(&mut self, servers: &[Arc<str>], now: BootTime) {
        if self.cluster.blocks.is_none() && !has_counter_mode(&self.config) {
            return;
        }
        let last_end = self.teks.last_end(now);
        let used = || self.sender_ids.used_blocks();
        let blocks = self.cluster.blocks.get_or_insert_with(|| SenderBlocks::new(used()));
        let mut changed = blocks.keep(servers, last_end, now);
        for server in servers {
            changed |= blocks.of(Some(server)).is_empty() && blocks.grant(Some(server));
        }
        if blocks.of(None).is_empty() {
            changed |= blocks.grant(None);
        }
        changed |= self.take_own_blocks();
        if changed {
            self.revise();
        }
    }

    /// Gives a sub-server more of what it needs, with the next generation.
    pub fn fulfil(
        &mut self,
        server: &Arc<str>,
        needs: Needs,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) {
        if let Some(restart) = needs.restart {
            self.ask_for_fresh_counters(restart, now);
        }
        if needs.leaves != Need::Nothing {
            self.grant_leaves(server, keys);
        }
        if needs.senders == Need::Nothing {
            return;
        }
        let used = self.sender_ids.used_blocks();
        let Some(blocks) = &mut self.cluster.blocks else { return };
        let granted = blocks.grant(Some(server)) || {
            blocks.return_unused(&used);
            blocks.grant(Some(server))
        };
        match granted {
            true => self.revise(),
            false if needs.senders == Need::AtOnce => self.reinitialize(keys, now),
            false => {}
        }
        self.take_own_blocks();
    }

    /// One more block for the root itself. Returns whether there was one.
    pub(super) fn grant_own_block(&mut self) -> bool {
        let granted =
            self.is_root() && self.cluster.blocks.as_mut().is_some_and(|one| one.grant(None));
        if granted {
            self.take_own_blocks();
            // The sub-servers hear of it with the next generation.
            self.changed = true;
        }
        granted
    }

    /// All sender identifiers are free: the TEKs of their holders have ended.
    pub(super) fn reset_senders(&mut self, bits: u16) {
        self.sender_ids.reset(bits);
        if let Some(blocks) = &mut self.cluster.blocks {
            blocks.reset();
            blocks.grant(None);
            self.take_own_blocks();
        }
    }

    /// Takes over what the root divides. Holders of what is another server's now are forgotten.
    pub(super) fn take_division(&mut self, division: Option<Division>, now: BootTime) {
        let Some(division) = division else { return };
        let lost = self.sender_ids.divide(division);
        self.forget_members(&lost, now);
        self.cluster.senders = Need::Nothing;
    }

    /// What a sub-server needs that the root alone can give.
    pub fn needs(&self) -> Needs {
        if !self.is_sub_server() {
            return Needs::default();
        }
        let short = self.sender_ids.division().is_some() && self.sender_ids.is_short();
        let more = if short { Need::More } else { Need::Nothing };
        let restart = self.fresh_counters.due.map(|(_, restart)| restart);
        let few = self.rekey_sa.as_ref().and_then(|rekey_sa| rekey_sa.kek()?.tree());
        let few = few.is_some_and(|tree| {
            tree.spare().is_some_and(|spare| spare.len() <= tree.block_size() / 2)
        });
        let leaves = if few { Need::More } else { Need::Nothing };
        let leaves = self.cluster.leaves.max(leaves);
        Needs { senders: self.cluster.senders.max(more), leaves, restart }
    }

    /// How much this server has of what is divided.
    pub fn own_share(&self) -> (u64, usize) {
        let tree = self.rekey_sa.as_ref().and_then(|rekey_sa| rekey_sa.kek()?.tree());
        (self.sender_ids.own_count(), tree.map_or(0, |tree| tree.leaves().count()))
    }

    /// The root has heard of a need.
    pub fn note_told(&mut self, needs: Needs, now: BootTime) {
        if needs.restart.is_some()
            && self.fresh_counters.due.map(|(_, restart)| restart) == needs.restart
        {
            (self.fresh_counters.due, self.fresh_counters.last) = (None, Some(now));
            self.changed = true;
        }
    }

    /// A member was not answered because the server has no sender identifier left.
    pub(super) fn note_lack_of_senders(&mut self) {
        self.cluster.senders = Need::AtOnce;
    }

    /// A member was not answered because the server has no leaf left.
    pub(super) fn note_lack_of_leaves(&mut self) {
        self.cluster.leaves = Need::AtOnce;
    }

    fn take_own_blocks(&mut self) -> bool {
        let Some(blocks) = &self.cluster.blocks else { return false };
        let (era, bits) = (blocks.era(), self.sender_ids.bits());
        let own = Division { era, bits, blocks: blocks.of(None) };
        if self.sender_ids.division().as_ref() == Some(&own) {
            return false;
        }
        // Only blocks without a holder ever go.
        self.sender_ids.divide(own);
        self.changed = true;
        true
    }
}

/// Whether members need sender identifiers.
pub(crate) fn has_counter_mode(config: &config::Group) -> bool {
    config.teks.iter().any(|tek| tek.encryption.kind == Kind::Combined)
}
