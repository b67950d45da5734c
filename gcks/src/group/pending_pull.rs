//! Pulls (RFC 6407 §3): a member gets what everybody has, and what was pushed meanwhile.
//!
//! Message 2 tells the policy, keys are distributed with message 4, and a member counts from then
//! on: before its message 3 is valid, nothing of the group changes (§3.2, §7.2.5). What is pushed
//! between message 2 and message 4, the member gets afterwards, as if it had been there: the same
//! octets, under the numbers that its pull told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::entropy::EntropyError;
use gdoi::event::PullId;
use gdoi::group::{GroupPolicy, IssuedSa, KekKeys, SenderIds, Spi, TekKeys};
use ike::BootTime;
use ike::config::Identity;
use thiserror::Error as ThisError;

use super::Group;
use super::division::has_counter_mode;
use super::event::Event;
use super::kek::{Kek, KekError};
use super::key_generation::KeySource;
use super::rekey_sa::Missed;
use super::sender_ids::Exhausted;
use super::tek_schedule::{Prepared, Renewal};
use crate::config;
use crate::members::registry::{MemberId, Pulled};

/// For how long keys are promised that nobody has: their lifetime runs already.
const PROMISED: Duration = Duration::from_secs(60);

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

/// What a member said beside its acceptance of a policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acceptance {
    /// How many sender identifiers it asks for.
    pub sender_ids: Option<u16>,
    /// When it said that it had lost all that it had here, in the phase 1 of this pull.
    pub initial_contact: Option<BootTime>,
}

/// A pull whose policy was offered: what it promised, until message 3.
#[derive(Debug)]
pub struct PendingPull {
    request: PullRequest,
    policy: GroupPolicy,
    tek_keys: BTreeMap<Spi, TekKeys>,
    kek: Option<OfferedKek>,
    /// Whether a TEK offered needs sender identifiers.
    counter_mode: bool,
    /// When the first of the TEKs ends.
    first_end: BootTime,
    /// Which keys to come it was promised, if it was.
    prospect: Option<u64>,
}

/// The KEK that a pull was promised.
#[derive(Debug)]
struct OfferedKek {
    spi: [u8; 16],
    /// Number of the last push that the member will not ask for.
    number: u32,
    keys: KekKeys,
}

/// Keys that nobody has yet. The first pull that is accepted brings them into use: message 1 alone
/// changes nothing of the group.
#[derive(Debug)]
pub(super) struct Prospect {
    serial: u64,
    made: BootTime,
    teks: Prepared,
    kek: Option<(Kek, config::Rekey)>,
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
    /// The keys that the member was promised have been replaced.
    #[error("the keys of group {0} were replaced during the pull; the member begins again")]
    Superseded(Arc<str>),
    /// The root server has not told the keys yet.
    #[error("the root server of group {0} has not told its keys yet")]
    NotTold(Arc<str>),
    /// The root server has to give this one more sender identifiers.
    #[error(
        "all sender identifiers of group {0} that the root server gave to this one are in use; more were asked for"
    )]
    NoBlock(Arc<str>),
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
    /// The policy for a pull. Nothing is set aside for the member before [`Group::accept_pull`].
    ///
    /// # Errors
    /// The member was removed, or there is nothing to give it.
    pub fn offer_policy(
        &mut self,
        pull: PullId,
        request: PullRequest,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<GroupPolicy, PullError> {
        if self.removed.contains(request.member.as_ref()) {
            let (member, group) = (request.member, Arc::clone(&self.name));
            return Err(PullError::Removed { member, group });
        }
        self.push_due(keys, now);
        self.look_ahead(keys, now)?;
        let prospect = self.prospect.as_ref();
        let coming = prospect.and_then(|prospect| prospect.kek.as_ref());
        let rekey_sa = self.rekey_sa.as_ref();
        let kek = match (coming, rekey_sa) {
            (Some((kek, settings)), Some(rekey_sa)) => Some((rekey_sa, kek, settings)),
            (_, Some(rekey_sa)) => rekey_sa.kek().map(|kek| (rekey_sa, kek, &rekey_sa.settings)),
            (_, None) => None,
        };
        // A member that registers during the activation delay gets the old TEKs plus the pending
        // push, so that it switches together with the group.
        let latest = kek.and_then(|(_, kek, _)| {
            kek.last().filter(|last| last.sequence_number() == kek.sequence_number())
        });
        let before = latest.is_some() && self.teks.is_pending(now);
        let out = self.teks.distribute(prospect.map(|prospect| &prospect.teks), before, now);
        let kek = kek.map(|(rekey_sa, kek, settings)| {
            let number = kek.sequence_number().saturating_sub(u32::from(before));
            let ends = (request.local, request.peer);
            let given = kek.distribute(settings.transport, ends, &rekey_sa.public_key, now);
            (given.policy, OfferedKek { spi: kek.spi(), number, keys: given.keys })
        });
        let (kek_policy, kek) = kek.unzip();
        let policy = self.policy(kek_policy, out.teks);
        let (counter_mode, first_end) = (out.counter_mode, out.first_end);
        let (tek_keys, prospect) = (out.keys, prospect.map(|prospect| prospect.serial));
        let offered = policy.clone();
        let pending =
            PendingPull { request, policy, tek_keys, kek, counter_mode, first_end, prospect };
        self.pulls.insert(pull, pending);
        Ok(offered)
    }

    /// Message 3 was valid: the group SA with what is the member's own, for what it said beside its
    /// acceptance. It is registered, and gets what was pushed since its policy was offered.
    ///
    /// # Errors
    /// The keys that it was promised have been replaced, or no sender identifier or leaf is left.
    pub fn accept_pull(
        &mut self,
        pull: PullId,
        said: Acceptance,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<IssuedSa, PullError> {
        let Some(pull) = self.pulls.remove(&pull) else {
            return Err(PullError::Superseded(Arc::clone(&self.name)));
        };
        self.fulfil_prospect(&pull, now)?;
        if !pull.tek_keys.keys().all(|spi| self.teks.uses(*spi)) {
            return Err(PullError::Superseded(Arc::clone(&self.name)));
        }
        let PendingPull { request, policy, tek_keys, kek, counter_mode, first_end, .. } = pull;
        let PullRequest { id, member, local, peer } = request;
        if self.removed.contains(member.as_ref()) {
            // At another server, since its policy was offered.
            return Err(PullError::Removed { member, group: Arc::clone(&self.name) });
        }
        let missed = match (&self.rekey_sa, &kek) {
            (Some(rekey_sa), Some(kek)) => rekey_sa.missed(&kek.spi, kek.number),
            (None, None) => Missed::default(),
            _ => Missed { dead: true, ..Missed::default() },
        };
        if missed.dead {
            return Err(PullError::Superseded(Arc::clone(&self.name)));
        }
        let wanted = said.sender_ids.unwrap_or(1);
        let senders = self.senders_for_pull(&id, counter_mode, wanted, keys, now)?;
        let offered_spi = kek.as_ref().map(|kek| kek.spi);
        let leaf = match self.leaf_for_pull(&id, offered_spi, keys) {
            Ok(leaf) => leaf,
            Err(error) => {
                self.sender_ids.take_back(&senders, now);
                return Err(error.into());
            }
        };
        let tree = self.rekey_sa.as_ref().and_then(|rekey_sa| rekey_sa.kek()?.tree());
        // A hierarchy leads on from the KEK in use only.
        let follows = |_: &u16| offered_spi == self.kek_in_use();
        let path = leaf.filter(follows).and_then(|leaf| tree?.download(leaf));
        let (number, kek_keys) = kek.map(|kek| (kek.number, kek.keys)).unzip();
        let bits = self.sender_ids.bits();
        if !senders.is_empty() {
            self.sender_ids.replace(&id, &senders, self.teks.last_end(now));
        }
        let senders = Some(SenderIds { bits, values: senders });
        let senders = senders.filter(|senders| !senders.values.is_empty());
        let mut sa = IssuedSa::new(policy, tek_keys, kek_keys, number, senders);
        if let Some(path) = path {
            sa = sa.with_key_path(path);
        }
        self.changed = true;
        let keys_end = number.is_none().then_some(first_end);
        let name = Arc::clone(&member);
        if let Some(restart) = said.initial_contact {
            self.note_restart(&id, restart, now);
        }
        let pulled = Pulled { name, address: peer, local, keys_end, leaf };
        if let Some(rekey_sa) = &mut self.rekey_sa {
            rekey_sa.abandoned.remove(&id);
        }
        self.tek_holders.remove(&id);
        let new = self.registry.record(id, pulled, now);
        self.pull_counters.succeeded = self.pull_counters.succeeded.saturating_add(1);
        self.events.push_back(Event::Registered { member, peer, new });
        for push in missed.pushes {
            self.push_to_one(push, (local, peer));
        }
        Ok(sa)
    }

    /// A pull ended before message 3, or its keys could not be sent.
    pub fn abort_pull(&mut self, pull: PullId) {
        self.pulls.remove(&pull);
        if self.pulls.is_empty() {
            self.prospect = None;
        }
    }

    /// A pull was not answered because as many members are registered as may be.
    pub fn count_excess_pull(&mut self) {
        self.pull_counters.over_threshold = self.pull_counters.over_threshold.saturating_add(1);
    }

    /// A pull for this group was refused or aborted.
    pub fn count_failed_pull(&mut self) {
        self.pull_counters.failed = self.pull_counters.failed.saturating_add(1);
    }

    /// Who is pulling under a name before is registered under the new one.
    pub(super) fn rename_pulling(&mut self, renamed: &BTreeMap<&str, Arc<str>>) {
        for request in self.pulls.values_mut().map(|pull| &mut pull.request) {
            if let Some(now) = renamed.get(request.member.as_ref()) {
                request.member = Arc::clone(now);
            }
        }
    }

    /// Identities of those who are pulling as the member `name`.
    pub fn pulling<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Identity> {
        let requests = self.pulls.values().map(|pull| &pull.request);
        requests
            .filter(move |request| request.member.as_ref() == name)
            .map(|request| &request.id.identity)
    }

    /// Prepares what is missing or near its end and nobody waits for.
    pub(super) fn look_ahead(
        &mut self,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<(), PullError> {
        self.teks.handle_timeout(now);
        if self.is_sub_server() {
            let has_kek = self.rekey_sa.as_ref().is_some_and(|rekey_sa| rekey_sa.kek().is_some());
            return match has_kek && !self.teks.wants(Renewal::Missing, now) {
                true => Ok(()),
                false => Err(PullError::NotTold(Arc::clone(&self.name))),
            };
        }
        if self.prospect.as_ref().is_some_and(|prospect| prospect.made + PROMISED > now) {
            return Ok(());
        }
        let audience = self.has_audience();
        let activation = self.settling();
        let renewal = match (&self.rekey_sa, audience) {
            (None, _) => Renewal::Margin,
            (Some(rekey_sa), false) => Renewal::Ahead(rekey_sa.lead(activation)),
            (Some(_), true) => Renewal::Unpushed,
        };
        let pushed = self.rekey_sa.is_some();
        let teks = match self.is_outdated && self.teks.wants(renewal, now) {
            true => self.teks.prepare_anew(&self.config.teks, pushed, now, keys)?,
            false => self.teks.prepare(renewal, pushed, now, keys)?,
        };
        let mut kek = None;
        if let Some(rekey_sa) = &self.rekey_sa {
            let due = |at: BootTime| !audience && at <= now;
            if rekey_sa.kek.is_none() || rekey_sa.next_roll(activation).is_some_and(due) {
                let settings = self.config.rekey.as_ref().unwrap_or(&rekey_sa.settings).clone();
                let Some(signing) = &rekey_sa.signing else {
                    return Err(PullError::NotTold(Arc::clone(&self.name)));
                };
                let made = Kek::make(&settings, signing, self.capacity, keys, now)?;
                kek = Some((made, settings));
            }
        }
        if !teks.is_empty() || kek.is_some() {
            self.prospects = self.prospects.saturating_add(1);
            self.prospect = Some(Prospect { serial: self.prospects, made: now, teks, kek });
        }
        Ok(())
    }

    /// Brings the keys into use that an accepted pull was promised.
    fn fulfil_prospect(&mut self, pull: &PendingPull, now: BootTime) -> Result<(), PullError> {
        let Some(promised) = pull.prospect.filter(|serial| *serial > self.fulfilled) else {
            // Its keys were in use before: what others were promised may no longer replace
            // them without a push.
            self.prospect = None;
            return Ok(());
        };
        if self.prospect.as_ref().is_none_or(|prospect| prospect.serial != promised) {
            self.prospect = None;
            return Err(PullError::Superseded(Arc::clone(&self.name)));
        }
        self.fulfil_latest(now);
        Ok(())
    }

    /// Brings the keys into use that are promised now.
    pub(super) fn fulfil_latest(&mut self, now: BootTime) {
        let Some(Prospect { serial, teks, kek, .. }) = self.prospect.take() else { return };
        self.fulfilled = serial;
        if let (Some(rekey_sa), Some((kek, settings))) = (&mut self.rekey_sa, kek) {
            self.events.push_back(Event::KekCreated { spi: kek.spi() });
            (rekey_sa.kek, rekey_sa.settings) = (Some(kek), settings);
            self.forget_abandoned(now);
            self.forget_leaves();
        }
        self.commit_teks(teks, None);
    }

    /// As many as the member wants (RFC 6407 §3.5) and its share has left, and at least one.
    fn senders_for_pull(
        &mut self,
        id: &MemberId,
        counter_mode: bool,
        wanted: u16,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<Vec<u64>, PullError> {
        if !counter_mode && !has_counter_mode(self.served()) {
            return Ok(Vec::new());
        }
        let until = self.rekey_sa.is_none().then(|| self.teks.last_end(now));
        match self.sender_ids.take(id, wanted, until, now) {
            Err(Exhausted::All { .. }) if self.is_sub_server() => {
                self.note_lack_of_senders();
                Err(PullError::NoBlock(Arc::clone(&self.name)))
            }
            Err(Exhausted::All { .. }) if self.grant_own_block() => {
                Ok(self.sender_ids.take(id, wanted, until, now)?)
            }
            Err(Exhausted::All { .. }) if self.rekey_sa.is_some() => {
                self.reinitialize(keys, now);
                Err(PullError::Superseded(Arc::clone(&self.name)))
            }
            taken => Ok(taken?),
        }
    }

    /// The leaf that the member has, or a new one. All that one member ever got must go when it is
    /// removed, so that it never gets a second leaf.
    fn leaf_for_pull(
        &mut self,
        id: &MemberId,
        offered: Option<[u8; 16]>,
        keys: &mut KeySource<'_>,
    ) -> Result<Option<u16>, KekError> {
        let in_use = self.kek_in_use();
        let registered = self.registry.find(id).and_then(|registered| registered.leaf);
        let rekey_sa = self.rekey_sa.as_ref();
        let dropped = rekey_sa.and_then(|rekey_sa| rekey_sa.abandoned.get(id)?.leaf);
        let known: Vec<u16> = registered.into_iter().chain(dropped).collect();
        let Some(tree) = self.kek_mut().and_then(Kek::tree_mut) else { return Ok(None) };
        if let Some(leaf) = known.into_iter().find(|leaf| tree.members().contains(leaf)) {
            return Ok(Some(leaf));
        }
        // Without a path it cannot use the push that replaced the KEK it was promised, and pulls
        // again.
        if offered != in_use {
            return Ok(None);
        }
        let joined = tree.join(keys.rng);
        if joined.is_err() && self.is_sub_server() {
            self.note_lack_of_leaves();
        }
        Ok(Some(joined?))
    }

    fn kek_in_use(&self) -> Option<[u8; 16]> {
        Some(self.rekey_sa.as_ref()?.kek()?.spi())
    }

    /// The KEK has another hierarchy than the one before, or none: nobody has a leaf in it.
    pub(super) fn forget_leaves(&mut self) {
        self.registry.forget_leaves();
        let abandoned = self.rekey_sa.iter_mut().flat_map(|rekey_sa| rekey_sa.abandoned.iter_mut());
        abandoned.for_each(|(_, abandoned)| abandoned.leaf = None);
        self.cluster.leaf_blocks.clear();
        for one in self.cluster.elsewhere.values_mut() {
            (one.leaves, one.is_unplaced) = (BTreeSet::new(), true);
        }
    }

    fn kek_mut(&mut self) -> Option<&mut Kek> {
        self.rekey_sa.as_mut()?.kek.as_mut()
    }
}
