//! What the servers of a cluster divide among them, so that none has to ask another one before it
//! answers a member: sender identifiers.
//!
//! The root decides, and what it decides is part of the next generation: it is prepared everywhere
//! and committed like keys.

use std::sync::Arc;

use ike::BootTime;

use super::Group;
use super::key_generation::KeySource;
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

    /// Every one of these sub-servers has sender identifiers to give, if members need any.
    pub fn divide_senders(&mut self, servers: &[Arc<str>], now: BootTime) {
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
        if needs.senders == Need::Nothing {
            return;
        }
        let Some(blocks) = &mut self.cluster.blocks else { return };
        if !blocks.grant(Some(server)) {
            blocks.return_unused(&self.sender_ids.used_blocks());
        }
        match self.cluster.blocks.as_mut().is_some_and(|blocks| blocks.grant(Some(server))) {
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

    /// Nobody holds a sender identifier whose TEK lives.
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
        Needs { senders: self.cluster.senders.max(more), restart }
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
