//! Sender identifiers for counter-mode TEKs (RFC 6407 §3.5, RFC 6054 §4).
//!
//! All members share the key of a TEK, so only the sender identifier at the left of the IV keeps
//! two of them from using one IV twice. Every pull gets a new one: a member that restarted has
//! forgotten its packet counter. An identifier is free again when every TEK that its holder may
//! send on has ended. A member that gets new TEKs by pushes keeps its identifiers until it is out:
//! whether message 4 with another one has reached it, nobody can say, and without it the member
//! goes on with the one before, on every TEK that is pushed to it. Replaced identifiers are taken
//! back only when the pool runs short, those whose TEKs have ended.
//!
//! In a cluster the root server gives each server blocks of the identifiers, see
//! [`sender_blocks`](super::sender_blocks), so that no two servers give the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ike::BootTime;
use thiserror::Error;

use super::sender_blocks::{BLOCKS, Division};
use crate::members::registry::MemberId;
use crate::tracked::Tracked;

/// A member counts a TEK's lifetime from the moment its keys arrive, a little later than we do.
const DELIVERY: Duration = Duration::from_secs(300);

/// Why a member gets no identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Exhausted {
    /// All identifiers of this width are in use.
    #[error(
        "all sender identifiers of {bits} bits are in use; raise sender-id-bits or shorten the TEKs' lifetime"
    )]
    All { bits: u16 },
    /// The member has pulled so often that it holds its share.
    #[error(
        "the member pulls too often: it holds {limit} sender identifiers, which are free again when the TEKs end"
    )]
    Member {
        /// How many one member may hold.
        limit: usize,
    },
    /// The member has pulled so fast that it has to wait.
    #[error(
        "the member pulls too fast: it gets the next sender identifier in {} s", .wait.as_secs().saturating_add(1)
    )]
    Rate { wait: Duration },
}

/// Once a member has pulled as often as it may hold identifiers, one pull in so long gets more.
const PACE: Duration = Duration::from_secs(30);

/// One identifier in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub holder: MemberId,
    /// Until when it is held; `None` as long as its holder gets new TEKs.
    pub until: Option<BootTime>,
    /// The holder was sent another one. When the TEKs of that time have ended: from then on it does
    /// not count as the holder's share, and is taken back when the pool runs short.
    pub replaced: Option<BootTime>,
}

impl Holding {
    fn is_over(&self, now: BootTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    fn counts(&self, now: BootTime) -> bool {
        !self.is_over(now) && self.replaced.is_none_or(|replaced| replaced > now)
    }
}

/// The identifiers of one group.
#[derive(Clone, Debug)]
pub struct SenderIdPool {
    bits: u16,
    next: u64,
    held: Tracked<u64, Holding>,
    by_holder: BTreeMap<MemberId, BTreeSet<u64>>,
    /// When each member will have made up for its pulls. A restart of the server forgets it.
    paced: BTreeMap<MemberId, BootTime>,
    /// Which division of the identifiers among servers `blocks` belongs to.
    era: u64,
    /// The blocks that are this server's own; `None` where it has them all.
    blocks: Option<BTreeSet<u16>>,
}

impl SenderIdPool {
    /// All identifiers of a width of 1 to 63 bits are free.
    pub fn new(bits: u16) -> Self {
        let (by_holder, paced) = (BTreeMap::new(), BTreeMap::new());
        let (held, blocks) = (Tracked::default(), None);
        Self { bits, next: 0, held, by_holder, paced, era: 0, blocks }
    }

    /// The width in bits.
    pub fn bits(&self) -> u16 {
        self.bits
    }

    /// How many identifiers one member may hold. It gets a new one with every pull, and each is
    /// free again when the TEKs of that time have ended: this bounds how fast one member uses them
    /// up.
    fn limit(&self) -> usize {
        usize::try_from(self.own_count() / 16).unwrap_or(usize::MAX).clamp(4, 64)
    }

    fn count(&self) -> u64 {
        1_u64.checked_shl(self.bits.into()).unwrap_or(u64::MAX)
    }

    /// How many identifiers one block has.
    fn block_size(&self) -> u64 {
        (self.count() / u64::from(BLOCKS)).max(1)
    }

    /// How many identifiers are this server's own.
    pub fn own_count(&self) -> u64 {
        match &self.blocks {
            None => self.count(),
            Some(blocks) => {
                u64::try_from(blocks.len()).unwrap_or(u64::MAX).saturating_mul(self.block_size())
            }
        }
    }

    /// The own identifier at this place, counted from 0.
    fn own(&self, place: u64) -> Option<u64> {
        let Some(blocks) = &self.blocks else { return Some(place) };
        let (skipped, rest) = (place / self.block_size(), place % self.block_size());
        let block = blocks.iter().nth(usize::try_from(skipped).ok()?)?;
        Some(u64::from(*block).saturating_mul(self.block_size()).saturating_add(rest))
    }

    /// The place of an identifier among the own ones, or of the first one behind it.
    fn place(&self, identifier: u64) -> u64 {
        let Some(blocks) = &self.blocks else { return identifier };
        let block = identifier / self.block_size();
        let before = blocks.iter().filter(|one| u64::from(**one) < block).count();
        let first = u64::try_from(before).unwrap_or(u64::MAX).saturating_mul(self.block_size());
        match u16::try_from(block).is_ok_and(|block| blocks.contains(&block)) {
            true => first.saturating_add(identifier % self.block_size()),
            false => first,
        }
    }

    /// Whether the member has an identifier.
    pub fn is_holder(&self, member: &MemberId) -> bool {
        self.by_holder.contains_key(member)
    }

    /// Takes `count` identifiers, and at least one, for a member that may send on TEKs that end by
    /// `last_end`; `None` if it gets new ones by pushes. Fewer than `count`, where more are not
    /// left of its share or at all.
    ///
    /// # Errors
    /// All are held, or the member holds its share or takes them too fast.
    pub fn take(
        &mut self,
        holder: &MemberId,
        count: u16,
        last_end: Option<BootTime>,
        now: BootTime,
    ) -> Result<Vec<u64>, Exhausted> {
        let even = self.paced.get(holder).copied().unwrap_or(now).max(now);
        let burst = PACE * u32::try_from(self.limit()).unwrap_or(u32::MAX);
        let wait = (even.saturating_since(now) + PACE).saturating_sub(burst);
        self.check_share(holder, now)?;
        if !wait.is_zero() {
            return Err(Exhausted::Rate { wait });
        }
        let mut taken = vec![self.take_one(holder, last_end, now)?];
        self.paced.insert(holder.clone(), even + PACE);
        for _ in 1..count {
            let Ok(one) = self.take_one(holder, last_end, now) else { break };
            taken.push(one);
        }
        Ok(taken)
    }

    fn check_share(&self, holder: &MemberId, now: BootTime) -> Result<(), Exhausted> {
        let limit = self.limit();
        let counts = |one: &&u64| self.held.get(one).is_some_and(|held| held.counts(now));
        let own = self.by_holder.get(holder).into_iter().flatten();
        match own.filter(counts).count() >= limit {
            true => Err(Exhausted::Member { limit }),
            false => Ok(()),
        }
    }

    fn take_one(
        &mut self,
        holder: &MemberId,
        last_end: Option<BootTime>,
        now: BootTime,
    ) -> Result<u64, Exhausted> {
        self.check_share(holder, now)?;
        let own: Vec<u64> = self.by_holder.get(holder).into_iter().flatten().copied().collect();
        self.drop_ended(own, now);
        if self.is_short() {
            self.drop_ended(self.held.keys().copied().collect(), now);
        }
        if self.is_short() {
            let replaced = |held: &Holding| held.until.is_none() && held.replaced.is_some();
            let replaced = self.held.iter().filter(|(_, held)| replaced(held));
            let replaced: Vec<u64> = replaced.map(|(identifier, _)| *identifier).collect();
            for holding in replaced {
                if let Some(holding) = self.held.get_mut(&holding) {
                    holding.until = holding.replaced;
                }
            }
            self.drop_ended(self.held.keys().copied().collect(), now);
        }
        // Upward from the last one, so that one that has just become free rests for a while.
        let (first, own_count) = (self.place(self.next), self.own_count());
        for step in 0..=u64::try_from(self.held.len()).unwrap_or(u64::MAX) {
            let place = first.wrapping_add(step).checked_rem(own_count);
            let Some(candidate) = place.and_then(|place| self.own(place)) else { break };
            if self.held.get(&candidate).is_none_or(|holding| holding.is_over(now)) {
                self.drop_ended(vec![candidate], now);
                let until = last_end.map(|end| end + DELIVERY);
                let holder = holder.clone();
                self.insert(candidate, Holding { holder, until, replaced: None });
                self.next = candidate.wrapping_add(1) % self.count();
                return Ok(candidate);
            }
        }
        Err(Exhausted::All { bits: self.bits })
    }

    /// Whether half of the own identifiers are held.
    pub fn is_short(&self) -> bool {
        u64::try_from(self.held.len()).unwrap_or(u64::MAX) >= self.own_count() / 2
    }

    /// This server's part of the division of identifiers among servers; `None` where it has them
    /// all.
    pub fn division(&self) -> Option<Division> {
        let (era, bits) = (self.era, self.bits);
        self.blocks.clone().map(|blocks| Division { era, bits, blocks })
    }

    /// Gives identifiers of these blocks alone from now on. Another width or era begins with all of
    /// them free: every TEK of the time before has ended. Returns holders of identifiers that are
    /// another server's now; they must get no TEK any more.
    pub fn divide(&mut self, division: Division) -> BTreeSet<MemberId> {
        let Division { era, bits, blocks } = division;
        if (self.era, self.bits) != (era, bits) && self.blocks.is_some() {
            self.reset(bits);
        }
        (self.era, self.bits) = (era, bits);
        let size = self.block_size();
        let is_own = |identifier: u64| {
            u16::try_from(identifier / size).is_ok_and(|block| blocks.contains(&block))
        };
        let foreign: Vec<u64> =
            self.held.keys().copied().filter(|identifier| !is_own(*identifier)).collect();
        self.blocks = Some(blocks);
        let holders = foreign.iter().filter_map(|identifier| self.forget(*identifier));
        holders.collect()
    }

    /// Blocks that an identifier in use is of.
    pub fn used_blocks(&self) -> BTreeSet<u16> {
        let size = self.block_size();
        self.held.keys().filter_map(|identifier| u16::try_from(identifier / size).ok()).collect()
    }

    /// The member was sent `latest`, and may have got them: the TEKs of now end by `last_end`.
    pub fn replace(&mut self, holder: &MemberId, latest: &[u64], last_end: BootTime) {
        for identifier in self.by_holder.get(holder).into_iter().flatten() {
            if let Some(holding) = self.held.get_mut(identifier)
                && !latest.contains(identifier)
            {
                holding.replaced.get_or_insert(last_end + DELIVERY);
            }
        }
    }

    /// Takes identifiers back that were never sent.
    pub fn take_back(&mut self, identifiers: &[u64], now: BootTime) {
        for identifier in identifiers {
            if let Some(holding) = self.held.get_mut(identifier) {
                holding.until = Some(now);
            }
        }
        self.drop_ended(identifiers.to_vec(), now);
    }

    /// The member gets no TEKs beyond those that end by `last_end`.
    pub fn release(&mut self, holder: &MemberId, last_end: BootTime) {
        let end = last_end + DELIVERY;
        for identifier in self.by_holder.get(holder).into_iter().flatten() {
            if let Some(Holding { until, .. }) = self.held.get_mut(identifier) {
                *until = Some(until.map_or(end, |until| until.min(end)));
            }
        }
    }

    /// No holder gets TEKs beyond those that end by `last_end`.
    pub fn release_all(&mut self, last_end: BootTime) {
        for (_, holding) in self.held.iter_mut().filter(|(_, holding)| holding.until.is_none()) {
            holding.until = Some(last_end + DELIVERY);
        }
    }

    /// All identifiers are free: no valid TEK is sent on with one.
    pub fn reset(&mut self, bits: u16) {
        let (paced, blocks) = (std::mem::take(&mut self.paced), self.blocks.take());
        *self = Self { paced, blocks, era: self.era, ..Self::new(bits) };
    }

    /// What is held, and the next to try: what the sealed state keeps.
    pub fn held(&self) -> (&Tracked<u64, Holding>, u64) {
        (&self.held, self.next)
    }

    /// The identifiers of the sealed state.
    pub fn restore(bits: u16, held: BTreeMap<u64, Holding>, next: u64) -> Self {
        let mut pool = Self { next, ..Self::new(bits) };
        held.into_iter().for_each(|(identifier, holding)| pool.insert(identifier, holding));
        pool
    }

    /// The same with the blocks that it had.
    #[must_use]
    pub fn with_division(self, division: Option<Division>) -> Self {
        let era = division.as_ref().map_or(self.era, |division| division.era);
        Self { era, blocks: division.map(|division| division.blocks), ..self }
    }

    /// The state has been written.
    pub fn saved(&mut self) {
        self.held.saved();
    }

    fn insert(&mut self, identifier: u64, holding: Holding) {
        self.by_holder.entry(holding.holder.clone()).or_default().insert(identifier);
        self.held.insert(identifier, holding);
    }

    fn drop_ended(&mut self, identifiers: Vec<u64>, now: BootTime) {
        for identifier in identifiers {
            if self.held.get(&identifier).is_some_and(|held| held.is_over(now)) {
                self.forget(identifier);
            }
        }
    }

    /// Returns who had it.
    fn forget(&mut self, identifier: u64) -> Option<MemberId> {
        let Holding { holder, .. } = self.held.remove(&identifier)?;
        if let Some(own) = self.by_holder.get_mut(&holder) {
            own.remove(&identifier);
            if own.is_empty() {
                self.by_holder.remove(&holder);
            }
        }
        Some(holder)
    }
}

#[cfg(test)]
mod tests;
