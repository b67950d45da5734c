//! Pushes (RFC 6407 §4.3): when they are due and what they say.
//!
//! Every push with keys states all TEKs of the group as they are from then on, so that the latest
//! push under a KEK says everything that those before it said: a member that missed one loses
//! nothing, and the repetitions of the one before stop. A new KEK goes under the old one (§4.3), by
//! update arrays where the group has a key hierarchy (§5.6.3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gdoi::BootTime;
use gdoi::group::{GroupSa, Spi, TekProtocol};
use gdoi::push::{Deletion, PushContent, SealedPush};
use thiserror::Error as ThisError;

use crate::group::event::Event;
use crate::group::kek::{Kek, KekError};
use crate::group::key_generation::Entropy;
use crate::group::rekey_sa::RekeySa;
use crate::group::tek_schedule::{Renewal, policy};
use crate::server::KeyServer;

/// After a push that could not be made.
const RETRY: std::time::Duration = std::time::Duration::from_secs(10);
/// A hierarchy has room for so many times the members that the configuration names.
const HEADROOM: usize = 2;
const SMALLEST_TREE: usize = 64;
const LARGEST_TREE: usize = 32_768;

/// What to push.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// Which TEKs are replaced.
    pub(crate) renewal: Renewal,
    /// Whether the KEK is replaced, too.
    pub(crate) roll: bool,
    /// Whether members drop the TEKs that there were at once.
    pub(crate) delete: bool,
    /// For the log.
    pub(crate) purpose: &'static str,
}

/// Why nothing was pushed.
#[derive(Debug, ThisError)]
pub enum PushError {
    /// The group is configured without pushes.
    #[error("group {0} has no pushes; add [group.rekey], or wait until its members pull")]
    NoPushes(String),
    /// Nobody has keys.
    #[error("group {0} has no keys yet; the first member that registers makes them")]
    NoKeys(String),
    /// It could not be made.
    #[error(transparent)]
    Failed(#[from] KekError),
}

/// A push that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Its number under the KEK that encrypts it.
    pub sequence_number: u32,
    /// To how many members.
    pub members: usize,
}

impl<E: Entropy> KeyServer<E> {
    /// Whether anybody has keys of the group, or is getting them.
    pub(crate) fn has_audience(&self, index: usize) -> bool {
        let Some(state) = self.groups.get(index) else { return false };
        let group = state.group.id;
        self.registry.of_group(group).next().is_some()
            || self.pulls.values().any(|pull| pull.group == group)
    }

    /// SPIs of all groups: a member of two groups may not have one twice.
    pub(crate) fn spis_of_others(&self, index: usize) -> BTreeSet<Spi> {
        let others = self.groups.iter().enumerate().filter(|(other, _)| *other != index);
        others
            .flat_map(|(_, state)| state.schedule.lifetimes().map(|(_, life, _)| life.spi))
            .collect()
    }

    /// How many members a hierarchy of the group is made for.
    pub(crate) fn capacity(&self, index: usize) -> usize {
        let Some(state) = self.groups.get(index) else { return SMALLEST_TREE };
        let members = self.members.iter().filter(|member| member.groups.contains(&state.group.id));
        let hosts = members.map(|member| {
            let bits =
                member.addresses.max_prefix_len().saturating_sub(member.addresses.prefix_len());
            1_usize.checked_shl(bits.into()).unwrap_or(LARGEST_TREE)
        });
        let hosts = hosts.fold(0, usize::saturating_add);
        hosts.saturating_mul(HEADROOM).clamp(SMALLEST_TREE, LARGEST_TREE)
    }

    /// When the next push of the group is due by schedule.
    pub(crate) fn next_push(&self, index: usize) -> Option<BootTime> {
        let state = self.groups.get(index)?;
        let rekey = state.rekey.as_ref()?;
        rekey.kek()?;
        if !self.has_audience(index) {
            return None;
        }
        let activation = state.group.gap.activation_time_delay.unwrap_or_default();
        let teks = state.schedule.next_push(rekey.lead(activation));
        let due = teks.into_iter().chain(rekey.next_roll(activation)).min()?;
        Some(rekey.retry_at.map_or(due, |retry_at| due.max(retry_at)))
    }

    /// Makes the push that is due by schedule, if one is.
    pub(crate) fn push_due(&mut self, index: usize, now: BootTime) {
        if self.next_push(index).is_none_or(|due| due > now) {
            return;
        }
        let Some(state) = self.groups.get(index) else { return };
        let Some(rekey) = &state.rekey else { return };
        let activation = state.group.gap.activation_time_delay.unwrap_or_default();
        let renewal = Renewal::Ahead(rekey.lead(activation));
        let roll = rekey.next_roll(activation).is_some_and(|due| due <= now);
        let name = Arc::clone(&state.name);
        if let Err(error) =
            self.push_keys(index, Order { renewal, roll, delete: false, purpose: "schedule" }, now)
        {
            self.events.push_back(Event::PushFailed { group: name, error: error.to_string() });
            if let Some(rekey) = self.groups.get_mut(index).and_then(|state| state.rekey.as_mut()) {
                rekey.retry_at = Some(now + RETRY);
            }
        }
    }

    /// Makes new keys and pushes them. Nothing is handed out before the push is sealed.
    pub(crate) fn push_keys(
        &mut self,
        index: usize,
        order: Order,
        now: BootTime,
    ) -> Result<Pushed, PushError> {
        self.check_pushes(index)?;
        let by_tree = self.keeps_tree(index);
        if order.roll && by_tree {
            let rolled = self.roll_by_tree(index, &[], order.purpose, now)?;
            let prepared = self.prepare(index, order.renewal, now)?;
            if prepared.is_empty() && !order.delete {
                return Ok(rolled);
            }
            let deletions = self.deletions(index, order.delete);
            return self.push_teks(index, prepared, Order { roll: false, ..order }, deletions, now);
        }
        let prepared = self.prepare(index, order.renewal, now)?;
        let deletions = self.deletions(index, order.delete);
        self.push_teks(index, prepared, order, deletions, now)
    }

    /// Deletes of all TEKs that members may have, if wanted.
    fn deletions(&self, index: usize, wanted: bool) -> Vec<Deletion> {
        let schedule = self.groups.get(index).map(|state| &state.schedule).filter(|_| wanted);
        let spis = schedule.into_iter().flat_map(|schedule| schedule.spis());
        spis.map(|spi| Deletion::Tek(TekProtocol::ESP, spi)).collect()
    }

    fn push_teks(
        &mut self,
        index: usize,
        prepared: crate::group::tek_schedule::Prepared,
        order: Order,
        deletions: Vec<Deletion>,
        now: BootTime,
    ) -> Result<Pushed, PushError> {
        let capacity = self.capacity(index);
        let recipients = self.recipients(index);
        let Some(state) = self.groups.get_mut(index) else {
            return Ok(Pushed { sequence_number: 0, members: 0 });
        };
        let Some(rekey) = state.rekey.as_mut() else { return Err(no_pushes(&state.name)) };
        let out = state.schedule.distribute(Some(&prepared), false, now);
        let mut next = None;
        if order.roll {
            let settings = state.group.rekey.clone().unwrap_or_else(|| rekey.settings.clone());
            let (rng, entropy) = (&mut self.rng, &mut self.entropy);
            next = Some((
                Kek::make(&settings, &rekey.signing, capacity, rng, entropy, now)?,
                settings,
            ));
        }
        let (kek_policy, kek_keys) = match &next {
            Some((next, _)) => {
                let (policy, keys) = next.pushed(&rekey.public_key, now);
                (Some(policy), Some(keys))
            }
            None => (None, None),
        };
        let sa = GroupSa::originate(
            policy(&state.group, kek_policy, out.teks),
            out.keys,
            kek_keys,
            None,
            None,
        );
        let content =
            PushContent { deletions: &deletions, group_sa: Some(&sa), updates: Vec::new() };
        let Some(kek) = rekey.kek.as_mut() else { return Err(no_keys(&state.name)) };
        let push = kek.seal(content, &rekey.signing, &mut self.rng, now)?;
        if let Some((next, settings)) = next {
            self.events
                .push_back(Event::KekMade { group: Arc::clone(&state.name), spi: next.spi() });
            rekey.retire(push.duplicate(), Some(next), now);
            rekey.settings = settings;
        }
        rekey.retry_at = None;
        let deleted = !deletions.is_empty();
        let hold =
            state.group.gap.activation_time_delay.filter(|_| !deleted).map(|delay| now + delay);
        for life in state.schedule.commit(prepared, hold) {
            self.events.push_back(Event::TekMade { group: Arc::clone(&state.name), life });
        }
        if order.delete {
            state.schedule.forget_replaced();
        } else if deleted {
            state.schedule.drop_replaced();
        }
        Ok(self.begin(index, push, recipients, order.purpose, now))
    }

    /// A new KEK that the holders of `leaves` cannot reach. TEKs follow in a push of their own (RFC
    /// 6407 §7.4).
    pub(crate) fn roll_by_tree(
        &mut self,
        index: usize,
        leaves: &[u16],
        purpose: &'static str,
        now: BootTime,
    ) -> Result<Pushed, PushError> {
        let recipients = self.recipients(index);
        let Some(state) = self.groups.get_mut(index) else {
            return Ok(Pushed { sequence_number: 0, members: 0 });
        };
        let Some(rekey) = state.rekey.as_mut() else { return Err(no_pushes(&state.name)) };
        if let Some(configured) = &state.group.rekey {
            rekey.settings = configured.clone();
        }
        let RekeySa { signing, public_key, abandoned, kek: Some(kek), settings, .. } = rekey else {
            return Err(no_keys(&state.name));
        };
        let leaves: Vec<u16> = leaves.iter().copied().chain(abandoned.iter().copied()).collect();
        let result = kek
            .succeed_by_tree(settings, signing, &leaves, &mut self.entropy, now)
            .and_then(|(next, updates)| {
                let (kek_policy, kek_keys) = next.pushed(public_key, now);
                let policy = policy(&state.group, Some(kek_policy), Vec::new());
                let sa = GroupSa::originate(policy, BTreeMap::new(), Some(kek_keys), None, None);
                let content = PushContent { deletions: &[], group_sa: Some(&sa), updates };
                Ok((kek.seal(content, signing, &mut self.rng, now)?, next))
            });
        let (push, next) = match result {
            Ok(made) => made,
            Err(error) => {
                // The hierarchy has moved and cannot be told: everybody begins anew.
                let name = Arc::clone(&state.name);
                self.events.push_back(Event::PushFailed { group: name, error: error.to_string() });
                self.delete_all(index, "hierarchy lost", now)?;
                return Err(error.into());
            }
        };
        abandoned.clear();
        self.events.push_back(Event::KekMade { group: Arc::clone(&state.name), spi: next.spi() });
        rekey.retire(push.duplicate(), Some(next), now);
        rekey.retry_at = None;
        state.schedule.drop_replaced();
        Ok(self.begin(index, push, recipients, purpose, now))
    }

    /// Deletes all keys of the group, at its members by a push, and forgets the members.
    pub(crate) fn delete_all(
        &mut self,
        index: usize,
        purpose: &'static str,
        now: BootTime,
    ) -> Result<Pushed, PushError> {
        self.check_pushes(index)?;
        let recipients = self.recipients(index);
        let deletions = [Deletion::AllTeks(TekProtocol::ESP), Deletion::AllKeks];
        let push = self.seal_deletions(index, &deletions, now)?;
        let pushed = self.begin(index, push.duplicate(), recipients, purpose, now);
        if let Some(state) = self.groups.get_mut(index) {
            let last_end = state.schedule.last_end(now);
            state.senders.release_all(last_end);
            state.schedule.clear();
            if let Some(rekey) = &mut state.rekey {
                rekey.retire(push, None, now);
            }
            self.registry.remove_group(state.group.id);
        }
        self.changed = true;
        Ok(pushed)
    }

    /// Deletes the KEK at the members, which register again, and keeps the TEKs. Returns how many
    /// were told.
    pub(crate) fn delete_kek(&mut self, index: usize, now: BootTime) -> usize {
        let recipients = self.recipients(index);
        let Ok(push) = self.seal_deletions(index, &[Deletion::AllKeks], now) else { return 0 };
        let pushed = self.begin(index, push.duplicate(), recipients, "pushes end", now);
        if let Some(state) = self.groups.get_mut(index) {
            state.schedule.drop_replaced();
            state.senders.release_all(state.schedule.last_end(now));
            if let Some(rekey) = &mut state.rekey {
                rekey.retire(push, None, now);
            }
            self.registry.remove_group(state.group.id);
        }
        pushed.members
    }

    /// Tells members of data SAs that have gone or come with the configuration. Who has no keys
    /// hears nothing.
    pub(crate) fn push_lines(
        &mut self,
        index: usize,
        deletions: Vec<Deletion>,
        now: BootTime,
    ) -> Result<(), PushError> {
        if self.check_pushes(index).is_err() || !self.has_audience(index) {
            return Ok(());
        }
        let renewal = Renewal::Missing;
        let prepared = self.prepare(index, renewal, now)?;
        if !prepared.is_empty() || !deletions.is_empty() {
            let order = Order { renewal, roll: false, delete: false, purpose: "configuration" };
            self.push_teks(index, prepared, order, deletions, now)?;
        }
        Ok(())
    }

    /// All sender identifiers are in use (RFC 6407 §3.5).
    pub(crate) fn start_over(&mut self, index: usize, now: BootTime) {
        let result = self.delete_all(index, "sender identifiers used up", now);
        let Some(state) = self.groups.get_mut(index) else { return };
        if let Err(error) = result {
            let error = error.to_string();
            self.events.push_back(Event::PushFailed { group: Arc::clone(&state.name), error });
            return;
        }
        // Identifiers belong to keys, and the keys are gone.
        state.senders.reset(state.group.sender_id_bits);
        let group = state.group.id;
        self.pulls
            .values_mut()
            .filter(|pull| pull.group == group)
            .for_each(|pull| pull.sender = None);
        self.events.push_back(Event::StartedOver { group: Arc::clone(&state.name) });
    }

    /// A KEK that has ended takes its members with it: they pull again.
    pub(crate) fn expire_kek(&mut self, index: usize, now: BootTime) {
        let Some(state) = self.groups.get_mut(index) else { return };
        let Some(rekey) = &mut state.rekey else { return };
        if rekey.kek.as_ref().is_none_or(|kek| kek.ends() > now) {
            return;
        }
        rekey.kek = None;
        self.changed = true;
        state.senders.release_all(state.schedule.last_end(now));
        for (_, registration) in self.registry.remove_group(state.group.id) {
            self.events.push_back(Event::Expired {
                group: Arc::clone(&state.name),
                member: registration.name,
            });
        }
    }

    fn seal_deletions(
        &mut self,
        index: usize,
        deletions: &[Deletion],
        now: BootTime,
    ) -> Result<SealedPush, PushError> {
        let Some(state) = self.groups.get_mut(index) else { return Err(no_pushes("")) };
        let RekeySa { signing, kek: Some(kek), .. } =
            state.rekey.as_mut().ok_or_else(|| no_pushes(&state.name))?
        else {
            return Err(no_keys(&state.name));
        };
        let content = PushContent { deletions, group_sa: None, updates: Vec::new() };
        Ok(kek.seal(content, signing, &mut self.rng, now)?)
    }

    fn prepare(
        &mut self,
        index: usize,
        renewal: Renewal,
        now: BootTime,
    ) -> Result<crate::group::tek_schedule::Prepared, PushError> {
        let in_use = self.spis_of_others(index);
        let Some(state) = self.groups.get(index) else { return Ok(Default::default()) };
        let is_taken = |spi: Spi| in_use.contains(&spi);
        let prepared = state.schedule.prepare(renewal, true, now, is_taken, &mut self.entropy);
        Ok(prepared.map_err(KekError::from)?)
    }

    fn check_pushes(&self, index: usize) -> Result<(), PushError> {
        let Some(state) = self.groups.get(index) else { return Err(no_pushes("")) };
        match state.rekey.as_ref().map(RekeySa::kek) {
            None => Err(no_pushes(&state.name)),
            Some(None) => Err(no_keys(&state.name)),
            Some(Some(_)) => Ok(()),
        }
    }

    /// Whether the next KEK comes out of the hierarchy of this one: a hierarchy has one cipher.
    pub(crate) fn keeps_tree(&self, index: usize) -> bool {
        let Some(state) = self.groups.get(index) else { return false };
        let Some(rekey) = &state.rekey else { return false };
        let same = state
            .group
            .rekey
            .as_ref()
            .is_some_and(|to| to.lkh && to.encryption == rekey.settings.encryption);
        same && rekey.kek().is_some_and(|kek| kek.tree().is_some())
    }
}

fn no_pushes(group: &str) -> PushError {
    PushError::NoPushes(group.to_owned())
}

fn no_keys(group: &str) -> PushError {
    PushError::NoKeys(group.to_owned())
}
