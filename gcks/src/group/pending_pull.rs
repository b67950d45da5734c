//! Pulls (RFC 6407 §3): a member gets what everybody has, and what was pushed meanwhile.
//!
//! Keys are distributed with message 4 and a member counts from then on. What is pushed between the
//! answer to message 1 and then, the member gets afterwards, as if it had been there: the same
//! octets, under the numbers that its pull told.

use std::net::SocketAddr;
use std::sync::Arc;

use daemon::entropy::EntropyError;
use gdoi::BootTime;
use gdoi::config::Identity;
use gdoi::event::PullId;
use gdoi::group::{GroupSa, SenderIds};
use thiserror::Error as ThisError;

use super::Group;
use super::event::Event;
use super::kek::{Kek, KekError};
use super::key_generation::KeySource;
use super::rekey_sa::Missed;
use super::sender_ids::Exhausted;
use super::tek_schedule::Renewal;
use crate::config::tek_algorithm::Kind;
use crate::members::registry::{MemberId, Pulled};

/// Who asks for keys.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The identity proved, and the address it was proved from.
    pub id: MemberId,
    /// Name of the member in the configuration.
    pub member: Arc<str>,
    /// Our address that was asked.
    pub local: SocketAddr,
    /// Where the member is.
    pub peer: SocketAddr,
}

/// A pull that was answered and is not complete.
#[derive(Debug)]
pub struct PendingPull {
    request: PullRequest,
    pub(super) sender: Option<u64>,
    leaf: Option<u16>,
    /// SPI of the KEK, and the number of the last push that the member will not ask for.
    kek: Option<([u8; 16], u32)>,
    keys_end: Option<BootTime>,
}

/// Why a group gives no keys to a member that may have them.
#[derive(Debug, ThisError)]
pub enum PullError {
    /// The operator removed the member.
    #[error("member {member} was removed from group {group}")]
    Removed {
        /// Name of the member.
        member: Arc<str>,
        /// Name of the group.
        group: Arc<str>,
    },
    /// Counter-mode TEKs cannot have more senders.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// No randomness for keys.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// No KEK can be made, or no leaf of its hierarchy is left.
    #[error(transparent)]
    Kek(#[from] KekError),
}

impl Group {
    /// The group SA for a pull. It counts as distributed with [`Group::complete_pull`];
    /// [`Group::abort_pull`] takes back what was set aside for it.
    ///
    /// # Errors
    /// The member was removed, or there is nothing to give it. Keys that were due may have been
    /// made.
    pub fn answer_pull(
        &mut self,
        pull: PullId,
        request: PullRequest,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<GroupSa, PullError> {
        if self.removed.contains(request.member.as_ref()) {
            let (member, group) = (request.member, Arc::clone(&self.name));
            return Err(PullError::Removed { member, group });
        }
        self.push_due(keys, now);
        self.keys_for_pull(keys, now)?;
        let sender = self.sender_for_pull(keys, now)?;
        let leaf = match self.leaf_for_pull(&request.id, keys) {
            Ok(leaf) => leaf,
            Err(error) => {
                self.take_back(sender, None);
                return Err(error.into());
            }
        };
        let kek = self.rekey_sa.as_ref().and_then(|rekey_sa| Some((rekey_sa, rekey_sa.kek()?)));
        // A member that registers during the activation delay gets the old TEKs plus the pending
        // push, so that it switches together with the group.
        let latest = kek.and_then(|(_, kek)| {
            kek.last().filter(|last| last.sequence_number() == kek.sequence_number())
        });
        let before = latest.is_some() && self.teks.is_pending(now);
        let out = self.teks.distribute(None, before, now);
        let kek = kek.map(|(rekey_sa, kek)| {
            let number = kek.sequence_number().saturating_sub(u32::from(before));
            let transport = rekey_sa.settings.transport;
            let ends = (request.local, request.peer);
            let given = kek.distribute(transport, ends, leaf, &rekey_sa.public_key, now);
            ((kek.spi(), number), given)
        });
        let senders =
            sender.map(|value| SenderIds { bits: self.sender_ids.bits(), values: vec![value] });
        let (handle, kek) = kek.unzip();
        let (kek_policy, kek_keys, path) = match kek {
            Some(kek) => (Some(kek.policy), Some(kek.keys), kek.path),
            None => (None, None, None),
        };
        let number = handle.map(|(_, number)| number);
        let policy = self.policy(kek_policy, out.teks);
        let mut sa = GroupSa::originate(policy, out.keys, kek_keys, number, senders);
        if let Some(path) = path {
            sa = sa.with_key_path(path);
        }
        let keys_end = handle.is_none().then_some(out.first_end);
        self.changed = true;
        self.pulls.insert(pull, PendingPull { request, sender, leaf, kek: handle, keys_end });
        Ok(sa)
    }

    /// The keys were sent.
    pub fn complete_pull(&mut self, pull: PullId, now: BootTime) {
        let Some(pull) = self.pulls.remove(&pull) else { return };
        let PendingPull { request, sender, leaf, kek, keys_end } = pull;
        let PullRequest { id, member, local, peer } = request;
        self.pull_counters.succeeded = self.pull_counters.succeeded.saturating_add(1);
        self.changed = true;
        let missed = match (&self.rekey_sa, &kek) {
            (Some(rekey_sa), Some((spi, number))) => rekey_sa.missed(spi, *number),
            _ => Missed::default(),
        };
        let last_end = self.teks.last_end(now);
        if missed.dead {
            // Its keys were deleted while they were on their way: it hears that, and pulls again.
            if let Some(sender) = sender {
                self.sender_ids.release(sender, last_end);
            }
        } else {
            let name = Arc::clone(&member);
            let pulled = Pulled { name, address: peer, local, keys_end, sender, leaf };
            if let Some(rekey_sa) = &mut self.rekey_sa {
                rekey_sa.abandoned.remove(&id);
            }
            let recorded = self.registry.record(id, pulled, now);
            if let Some(before) = recorded.replaced_sender {
                self.sender_ids.release(before, last_end);
            }
            self.events.push_back(Event::Registered { member, peer, new: recorded.new });
        }
        for push in missed.pushes {
            self.push_to_one(push, (local, peer));
        }
    }

    /// The keys of a pull were not sent.
    pub fn abort_pull(&mut self, pull: PullId) {
        let Some(pull) = self.pulls.remove(&pull) else { return };
        let is_held = |leaf: &u16| {
            let registered = self.registry.find(&pull.request.id);
            registered.is_some_and(|registered| registered.leaf == Some(*leaf))
                || self.pulls.values().any(|other| other.leaf == Some(*leaf))
        };
        let leaf = pull.leaf.filter(|leaf| !is_held(leaf));
        self.take_back(pull.sender, leaf);
    }

    /// A pull for this group was refused or aborted.
    pub fn count_failed_pull(&mut self) {
        self.pull_counters.failed = self.pull_counters.failed.saturating_add(1);
    }

    /// Identities of those who are pulling as the member `name`.
    pub fn pulling<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Identity> {
        let requests = self.pulls.values().map(|pull| &pull.request);
        requests
            .filter(move |request| request.member.as_ref() == name)
            .map(|request| &request.id.identity)
    }

    fn take_back(&mut self, sender: Option<u64>, leaf: Option<u16>) {
        if let Some(sender) = sender {
            self.sender_ids.give_back(sender);
        }
        if let (Some(leaf), Some(kek)) = (leaf, self.kek_mut())
            && let Some(tree) = kek.tree_mut()
        {
            tree.release(leaf);
        }
    }

    /// Makes what is missing or near its end and nobody waits for.
    fn keys_for_pull(&mut self, keys: &mut KeySource<'_>, now: BootTime) -> Result<(), PullError> {
        let audience = self.has_audience();
        self.teks.handle_timeout(now);
        let activation = self.activation();
        let renewal = match (&self.rekey_sa, audience) {
            (None, _) => Renewal::Margin,
            (Some(rekey_sa), false) => Renewal::Ahead(rekey_sa.lead(activation)),
            (Some(_), true) => Renewal::Unpushed,
        };
        let prepared = self.teks.prepare(renewal, self.rekey_sa.is_some(), now, keys)?;
        if let Some(rekey_sa) = &mut self.rekey_sa {
            let due = |at: BootTime| !audience && at <= now;
            if rekey_sa.kek.is_none() || rekey_sa.next_roll(activation).is_some_and(due) {
                if let Some(settings) = &self.config.rekey {
                    rekey_sa.settings = settings.clone();
                }
                let (settings, signing) = (&rekey_sa.settings, &rekey_sa.signing);
                let kek = Kek::make(settings, signing, self.capacity, keys, now)?;
                self.events.push_back(Event::KekCreated { spi: kek.spi() });
                rekey_sa.kek = Some(kek);
                rekey_sa.abandoned.clear();
                self.forget_leaves();
            }
        }
        self.commit_teks(prepared, None);
        Ok(())
    }

    fn sender_for_pull(
        &mut self,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<Option<u64>, PullError> {
        match self.take_sender_id(now) {
            Err(_) if self.rekey_sa.is_some() => {
                self.reinitialize(keys, now);
                self.keys_for_pull(keys, now)?;
                Ok(self.take_sender_id(now)?)
            }
            taken => Ok(taken?),
        }
    }

    fn take_sender_id(&mut self, now: BootTime) -> Result<Option<u64>, Exhausted> {
        if !self.config.teks.iter().any(|tek| tek.encryption.kind == Kind::Combined) {
            return Ok(None);
        }
        let until = self.rekey_sa.is_none().then(|| self.teks.last_end(now));
        self.sender_ids.take(until, now).map(Some)
    }

    /// The leaf that the member has, or a new one. All that one member ever got must go when it is
    /// removed, so that it never gets a second leaf.
    fn leaf_for_pull(
        &mut self,
        id: &MemberId,
        keys: &mut KeySource<'_>,
    ) -> Result<Option<u16>, KekError> {
        let registered = self.registry.find(id).and_then(|registered| registered.leaf);
        let running = self.pulls.values().filter(|pull| pull.request.id == *id);
        let rekey_sa = self.rekey_sa.as_ref();
        let dropped = rekey_sa.and_then(|rekey_sa| rekey_sa.abandoned.get(id)?.leaf);
        let known: Vec<u16> = registered
            .into_iter()
            .chain(running.filter_map(|pull| pull.leaf))
            .chain(dropped)
            .collect();
        let Some(tree) = self.kek_mut().and_then(Kek::tree_mut) else { return Ok(None) };
        if let Some(leaf) = known.into_iter().find(|leaf| tree.members().contains(leaf)) {
            return Ok(Some(leaf));
        }
        Ok(Some(tree.join(keys.rng)?))
    }

    /// The KEK has another hierarchy than the one before, or none: nobody has a leaf in it.
    pub(super) fn forget_leaves(&mut self) {
        self.registry.forget_leaves();
        self.pulls.values_mut().for_each(|pull| pull.leaf = None);
        let abandoned =
            self.rekey_sa.iter_mut().flat_map(|rekey_sa| rekey_sa.abandoned.values_mut());
        abandoned.for_each(|abandoned| abandoned.leaf = None);
    }

    fn kek_mut(&mut self) -> Option<&mut Kek> {
        self.rekey_sa.as_mut()?.kek.as_mut()
    }
}
