//! Pulls (RFC 6407 §3): who asks gets what everybody has, and what was pushed meanwhile.
//!
//! Keys are handed out with message 4 and a member counts from then on. What is pushed between the
//! answer to message 1 and then, the member gets afterwards, as if it had been there: the same
//! octets, under the numbers that its pull told.

use std::net::SocketAddr;
use std::sync::Arc;

use gdoi::BootTime;
use gdoi::config::Identity;
use gdoi::event::PullId;
use gdoi::group::{GroupId, GroupSa, SenderIds, Spi};

use crate::config::tek_algorithm::Kind;
use crate::group::event::{Event, Refused};
use crate::group::kek::{Kek, KekError};
use crate::group::key_generation::Entropy;
use crate::group::rekey_sa::Missed;
use crate::group::tek_schedule::{Renewal, policy};
use crate::members::authorization::Denied;
use crate::members::registry::Pulled;
use crate::server::KeyServer;

/// A pull that was answered and is not complete.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) group: GroupId,
    pub(crate) identity: Identity,
    pub(crate) member: Arc<str>,
    pub(crate) sender: Option<u64>,
    leaf: Option<u16>,
    /// SPI of the KEK, and the number of the last push that the member will not ask for.
    kek: Option<([u8; 16], u32)>,
    keys_end: Option<BootTime>,
}

impl<E: Entropy> KeyServer<E> {
    pub(crate) fn answer(
        &mut self,
        pull: PullId,
        identity: &Identity,
        (local, peer): (SocketAddr, SocketAddr),
        group: GroupId,
        now: BootTime,
    ) -> Result<(), Refused> {
        let index = self.index_of(group);
        let name =
            index.and_then(|index| self.groups.get(index)).map(|state| state.group.name.as_str());
        let member = self.authorization.check(identity, peer.ip(), group, name)?;
        if self.removed.contains(&(group, member.to_string())) {
            let group = name.unwrap_or_default().to_owned();
            return Err(Denied::Removed { member: member.to_string(), group }.into());
        }
        let index = index.ok_or(Denied::UnknownGroup)?;
        self.push_due(index, now);
        self.keys_for_pull(index, now)?;
        let sender = self.sender_for_pull(index, now)?;
        let leaf = match self.leaf_for_pull(index, identity) {
            Ok(leaf) => leaf,
            Err(error) => {
                self.give_back(index, sender, None);
                return Err(error.into());
            }
        };
        let state = self.groups.get(index).ok_or(Denied::UnknownGroup)?;
        let kek = state.rekey.as_ref().and_then(|rekey| Some((rekey, rekey.kek()?)));
        // Who joins while members still send with the TEKs before begins with those, and gets the
        // push that replaced them at once: it changes over with everybody else.
        let latest = kek.and_then(|(_, kek)| {
            kek.last().filter(|last| last.sequence_number() == kek.sequence_number())
        });
        let before = latest.is_some() && state.schedule.is_pending(now);
        let out = state.schedule.distribute(None, before, now);
        let given = kek.map(|(rekey, kek)| {
            let number = kek.sequence_number().saturating_sub(u32::from(before));
            (
                kek.spi(),
                number,
                kek.distribute(
                    rekey.settings.transport,
                    (local, peer),
                    leaf,
                    &rekey.public_key,
                    now,
                ),
            )
        });
        let senders =
            sender.map(|value| SenderIds { bits: state.senders.bits(), values: vec![value] });
        let (handle, kek) = match given {
            Some((spi, number, given)) => (Some((spi, number)), Some(given)),
            None => (None, None),
        };
        let (kek_policy, kek_keys, path) = match kek {
            Some(kek) => (Some(kek.policy), Some(kek.keys), kek.path),
            None => (None, None, None),
        };
        let number = handle.map(|(_, number)| number);
        let policy = policy(&state.group, kek_policy, out.teks);
        let mut sa = GroupSa::originate(policy, out.keys, kek_keys, number, senders);
        if let Some(path) = path {
            sa = sa.with_key_path(path);
        }
        let keys_end = handle.is_none().then_some(out.first_end);
        let identity = identity.clone();
        self.changed = true;
        self.pulls
            .insert(pull, Pull { group, identity, member, sender, leaf, kek: handle, keys_end });
        if let Err(error) = self.server.answer_pull(pull, sa, now) {
            self.forget(pull);
            return Err(Refused::Answer(error));
        }
        Ok(())
    }

    pub(crate) fn refuse(
        &mut self,
        pull: PullId,
        peer: SocketAddr,
        identity: Identity,
        group: GroupId,
        reason: Refused,
        now: BootTime,
    ) {
        // A pull that is gone already needs no refusal.
        let _ = self.server.refuse_pull(pull, reason.answer(), now);
        self.counters.refused = self.counters.refused.saturating_add(1);
        self.count_failure(group);
        self.events.push_back(Event::Refused { peer, identity, group, reason });
    }

    pub(crate) fn complete(
        &mut self,
        pull: PullId,
        (local, peer): (SocketAddr, SocketAddr),
        identity: Identity,
        group: GroupId,
        now: BootTime,
    ) {
        let Some(pull) = self.pulls.remove(&pull) else { return };
        let Some(index) = self.index_of(group) else { return };
        let Some(state) = self.groups.get_mut(index) else { return };
        state.succeeded = state.succeeded.saturating_add(1);
        self.changed = true;
        let missed = match (&state.rekey, &pull.kek) {
            (Some(rekey), Some((spi, number))) => rekey.missed(spi, *number),
            _ => Missed::default(),
        };
        let last_end = state.schedule.last_end(now);
        if missed.dead {
            // Its keys were deleted while they were on their way: it hears that, and pulls again.
            if let Some(sender) = pull.sender {
                state.senders.release(sender, last_end);
            }
        } else {
            let Pull { member, sender, leaf, keys_end, .. } = pull;
            let name = Arc::clone(&state.name);
            let pulled =
                Pulled { name: Arc::clone(&member), address: peer, local, keys_end, sender, leaf };
            let (before, new) = self.registry.record((group, identity), pulled, now);
            if let Some(before) = before {
                state.senders.release(before, last_end);
            }
            self.events.push_back(Event::Registered { group: name, member, peer, new });
        }
        for push in missed.pushes {
            self.push_to_one(index, push, (local, peer), now);
        }
    }

    /// Drops a pull whose keys were not sent.
    pub(crate) fn forget(&mut self, pull: PullId) {
        let Some(pull) = self.pulls.remove(&pull) else { return };
        let Some(index) = self.index_of(pull.group) else { return };
        let held = |leaf: &u16| {
            let registered = self.registry.find(pull.group, &pull.identity);
            registered.is_some_and(|registered| registered.leaf == Some(*leaf))
                || self
                    .pulls
                    .values()
                    .any(|other| other.group == pull.group && other.leaf == Some(*leaf))
        };
        let leaf = pull.leaf.filter(|leaf| !held(leaf));
        self.give_back(index, pull.sender, leaf);
    }

    fn give_back(&mut self, index: usize, sender: Option<u64>, leaf: Option<u16>) {
        let Some(state) = self.groups.get_mut(index) else { return };
        if let Some(sender) = sender {
            state.senders.give_back(sender);
        }
        let tree =
            state.rekey.as_mut().and_then(|rekey| rekey.kek.as_mut()).and_then(Kek::tree_mut);
        if let (Some(leaf), Some(tree)) = (leaf, tree) {
            tree.release(leaf);
        }
    }

    /// Makes what is missing or near its end and nobody waits for.
    fn keys_for_pull(&mut self, index: usize, now: BootTime) -> Result<(), Refused> {
        let audience = self.has_audience(index);
        let in_use = self.spis_of_others(index);
        let capacity = self.capacity(index);
        let Some(state) = self.groups.get_mut(index) else { return Ok(()) };
        state.schedule.handle_timeout(now);
        let activation = state.group.gap.activation_time_delay.unwrap_or_default();
        let renewal = match (&state.rekey, audience) {
            (None, _) => Renewal::Margin,
            (Some(rekey), false) => Renewal::Ahead(rekey.lead(activation)),
            (Some(_), true) => Renewal::Unpushed,
        };
        let is_taken = |spi: Spi| in_use.contains(&spi);
        let pushed = state.rekey.is_some();
        let prepared = state.schedule.prepare(renewal, pushed, now, is_taken, &mut self.entropy)?;
        if let Some(rekey) = &mut state.rekey {
            let due = |at: BootTime| !audience && at <= now;
            if rekey.kek.is_none() || rekey.next_roll(activation).is_some_and(due) {
                if let Some(settings) = &state.group.rekey {
                    rekey.settings = settings.clone();
                }
                let (rng, entropy) = (&mut self.rng, &mut self.entropy);
                let kek = Kek::make(&rekey.settings, &rekey.signing, capacity, rng, entropy, now)?;
                self.events
                    .push_back(Event::KekMade { group: Arc::clone(&state.name), spi: kek.spi() });
                rekey.kek = Some(kek);
                rekey.abandoned.clear();
            }
        }
        for life in state.schedule.commit(prepared, None) {
            self.events.push_back(Event::TekMade { group: Arc::clone(&state.name), life });
        }
        Ok(())
    }

    fn sender_for_pull(&mut self, index: usize, now: BootTime) -> Result<Option<u64>, Refused> {
        let take = |service: &mut Self| {
            let Some(state) = service.groups.get_mut(index) else { return Ok(None) };
            if !state.group.teks.iter().any(|tek| tek.encryption.kind == Kind::Combined) {
                return Ok(None);
            }
            let until = state.rekey.is_none().then(|| state.schedule.last_end(now));
            state.senders.take(until, now).map(Some)
        };
        match take(self) {
            Err(_) if self.groups.get(index).is_some_and(|state| state.rekey.is_some()) => {
                // RFC 6407 §3.5: new keys for everybody, and the count begins anew.
                self.start_over(index, now);
                self.keys_for_pull(index, now)?;
                Ok(take(self)?)
            }
            taken => Ok(taken?),
        }
    }

    /// The leaf that the member has, or a new one. All that one member ever got must go when it is
    /// removed, so that it never gets a second leaf.
    fn leaf_for_pull(
        &mut self,
        index: usize,
        identity: &Identity,
    ) -> Result<Option<u16>, KekError> {
        let Some(state) = self.groups.get_mut(index) else { return Ok(None) };
        let group = state.group.id;
        let tree =
            state.rekey.as_mut().and_then(|rekey| rekey.kek.as_mut()).and_then(Kek::tree_mut);
        let Some(tree) = tree else { return Ok(None) };
        let registered = self.registry.find(group, identity).and_then(|registered| registered.leaf);
        let running =
            self.pulls.values().filter(|pull| pull.group == group && pull.identity == *identity);
        let leaf = registered.into_iter().chain(running.filter_map(|pull| pull.leaf));
        if let Some(leaf) = leaf.into_iter().find(|leaf| tree.members().contains(leaf)) {
            return Ok(Some(leaf));
        }
        Ok(Some(tree.join(&mut self.rng)?))
    }
}
