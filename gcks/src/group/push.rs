//! Pushes (RFC 6407 §4.3): what they say.
//!
//! Every push with keys states all TEKs of the group as they are from then on, so that the latest
//! push under a KEK says everything that those before it said: a member that missed one loses
//! nothing, and the repetitions of the one before stop. A new KEK goes under the old one (§4.3), by
//! update arrays where the group has a key hierarchy (§5.6.3).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use gdoi::group::{IssuedSa, TekProtocol};
use gdoi::lkh::UpdatedLeaves;
use gdoi::push::{Deletion, DeliveryPolicy, KekDelivery, PushContent, Recipients, SealedPush};
use ike::BootTime;
use thiserror::Error as ThisError;

use super::event::Event;
use super::kek::{Kek, KekError};
use super::key_generation::KeySource;
use super::push_plan::RekeyRequest;
use super::rekey_sa::RekeySa;
use super::tek_schedule::{Prepared, Renewal};
use super::{Group, policy};
use crate::config::MulticastPath;

/// Octets of update arrays in one push: with the other payloads they fit into a UDP datagram, and
/// the KD payload that holds them counts its octets in 16 bits.
const UPDATES_IN_ONE_PUSH: usize = 60_000;

/// Why nothing was pushed. Nothing has changed then, unless the variant says otherwise.
#[derive(Debug, ThisError)]
pub enum PushError {
    /// The group is configured without pushes.
    #[error("group {0} has no pushes; add [group.rekey], or wait until its members pull")]
    RekeyNotConfigured(Arc<str>),
    #[error("group {0} has no keys yet; the first member that registers makes them")]
    NoKeys(Arc<str>),
    /// This server is a sub-server.
    #[error("the keys of group {0} are made by its root server; give the command there")]
    NotMaker(Arc<str>),
    /// The push could not be made.
    #[error(transparent)]
    Failed(#[from] KekError),
    /// The key hierarchy has moved on and the members cannot be told: all keys of the group were
    /// deleted.
    #[error("{0}; all keys were deleted, and the members register again")]
    HierarchyLost(KekError),
}

/// A push that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Its number under the KEK that encrypts it; of several parts the last one's. `None` if there
    /// was nobody to send it to.
    pub sequence_number: Option<u32>,
    /// To how many members.
    pub members: usize,
    /// How many hold TEKs and no KEK, so that it does not reach them.
    pub unreached: usize,
}

/// Whom a push goes to and how: as the rekey SA says that seals it, whatever takes its place.
#[derive(Debug)]
pub(super) struct Audience {
    pub(super) recipients: Recipients,
    pub(super) policy: DeliveryPolicy,
    pub(super) path: MulticastPath,
}

impl Group {
    /// Creates new keys and pushes them. None is distributed before the push is sealed.
    ///
    /// # Errors
    /// The group pushes nothing, has no keys, or the push cannot be made.
    pub fn push_keys(
        &mut self,
        request: RekeyRequest,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<Pushed, PushError> {
        self.rekey_sa_in_use()?;
        if request.roll && self.keeps_tree() && self.is_anybody_in_tree() {
            let rolled = self.roll_by_tree(&[], request.purpose, keys, now)?;
            let prepared = self.prepare(request.renewal, keys, now)?;
            if prepared.is_empty() && !request.delete {
                return Ok(rolled);
            }
            let deletions = self.tek_deletions(request.delete);
            let teks_only = RekeyRequest { roll: false, ..request };
            return self.push_teks(prepared, teks_only, deletions, keys, now);
        }
        let prepared = self.prepare(request.renewal, keys, now)?;
        let deletions = self.tek_deletions(request.delete);
        self.push_teks(prepared, request, deletions, keys, now)
    }

    /// Deletes of all TEKs that members may have, if wanted.
    fn tek_deletions(&self, wanted: bool) -> Vec<Deletion> {
        let teks = Some(&self.teks).filter(|_| wanted);
        let spis = teks.into_iter().flat_map(|teks| teks.spis());
        spis.map(|spi| Deletion::Tek(TekProtocol::ESP, spi)).collect()
    }

    fn push_teks(
        &mut self,
        prepared: Prepared,
        request: RekeyRequest,
        deletions: Vec<Deletion>,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<Pushed, PushError> {
        let audience = self.audience()?;
        let Some(rekey_sa) = self.rekey_sa.as_mut() else {
            return Err(PushError::RekeyNotConfigured(Arc::clone(&self.name)));
        };
        let signing = rekey_sa.signing_key(&self.name)?;
        let out = self.teks.distribute(Some(&prepared), false, now);
        let mut next = None;
        if request.roll {
            let settings = self.config.rekey.as_ref().unwrap_or(&rekey_sa.settings).clone();
            let kek = Kek::make(&settings, &signing, self.capacity, keys, now)?;
            next = Some((kek, settings));
        }
        let (kek_policy, kek_keys) = match &next {
            Some((next, _)) => {
                let (policy, keys) = next.pushed(&rekey_sa.public_key, now);
                (Some(policy), Some(keys))
            }
            None => (None, None),
        };
        let policy = policy(&self.config, kek_policy, out.teks);
        let sa = IssuedSa::new(policy, out.keys, kek_keys, None, None);
        let kek_delivery = KekDelivery::Packet;
        let content = PushContent { deletions: &deletions, group_sa: Some(&sa), kek_delivery };
        let Some(kek) = rekey_sa.kek.as_mut() else {
            return Err(PushError::NoKeys(Arc::clone(&self.name)));
        };
        let options = self.config.interoperability.seal_options();
        let push = kek.seal(content, &signing, options, keys.rng, now)?;
        if let Some((next, settings)) = next {
            self.events.push_back(Event::KekCreated { spi: next.spi() });
            rekey_sa.retire(vec![push.duplicate()], Some(next), now);
            rekey_sa.settings = settings;
            self.forget_leaves();
        }
        if let Some(rekey_sa) = &mut self.rekey_sa {
            rekey_sa.retry_at = None;
        }
        let deleted = !deletions.is_empty();
        let hold =
            self.config.gap.activation_time_delay.filter(|_| !deleted).map(|delay| now + delay);
        self.commit_teks(prepared, hold);
        if request.delete {
            self.teks.forget_replaced();
        } else if deleted {
            self.teks.drop_replaced();
        }
        Ok(self.begin(push, audience, request.purpose))
    }

    /// A new KEK that the holders of `leaves` cannot reach. TEKs follow in a push of their own (RFC
    /// 6407 §7.4).
    pub(super) fn roll_by_tree(
        &mut self,
        leaves: &[u16],
        purpose: &'static str,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<Pushed, PushError> {
        let audience = self.audience()?;
        let Some(rekey_sa) = self.rekey_sa.as_mut() else {
            return Err(PushError::RekeyNotConfigured(Arc::clone(&self.name)));
        };
        let signing = rekey_sa.signing_key(&self.name)?;
        if let Some(configured) = &self.config.rekey {
            rekey_sa.settings = configured.clone();
        }
        let RekeySa { public_key, abandoned, kek: Some(kek), settings, .. } = rekey_sa else {
            return Err(PushError::NoKeys(Arc::clone(&self.name)));
        };
        let dropped = abandoned.values().filter_map(|dropped| dropped.leaf);
        let leaves: Vec<u16> = leaves.iter().copied().chain(dropped).collect();
        let options = self.config.interoperability.seal_options();
        let result = kek.succeed_by_tree(settings, &signing, &leaves, keys, now).and_then(
            |(next, updates)| {
                let (kek_policy, kek_keys) = next.pushed(public_key, now);
                let policy = policy(&self.config, Some(kek_policy), Vec::new());
                let sa = IssuedSa::new(policy, BTreeMap::new(), Some(kek_keys), None, None);
                let mut parts = Vec::new();
                for updates in updates.split(UPDATES_IN_ONE_PUSH) {
                    let led = updates.leaves();
                    let kek_delivery = KekDelivery::Hierarchy(updates);
                    let content = PushContent { deletions: &[], group_sa: Some(&sa), kek_delivery };
                    parts.push((kek.seal(content, &signing, options, keys.rng, now)?, led));
                }
                Ok((parts, next))
            },
        );
        let (parts, next) = match result {
            Ok(made) => made,
            Err(error) => {
                self.delete_all("hierarchy lost", keys, now)?;
                return Err(PushError::HierarchyLost(error));
            }
        };
        self.events.push_back(Event::KekCreated { spi: next.spi() });
        let last = parts.iter().map(|(push, _)| push.duplicate()).collect();
        rekey_sa.retire(last, Some(next), now);
        rekey_sa.retry_at = None;
        self.forget_abandoned(now);
        self.teks.drop_replaced();
        Ok(self.begin_parts(parts, audience, purpose))
    }

    /// Sends the parts of a push, each to the members that find their update array in it.
    fn begin_parts(
        &mut self,
        parts: Vec<(SealedPush, UpdatedLeaves)>,
        audience: Audience,
        purpose: &'static str,
    ) -> Pushed {
        let unreached = self.tek_holders.len();
        let mut all = Pushed { sequence_number: None, members: 0, unreached };
        let Audience { mut recipients, policy, path } = audience;
        let count = parts.len();
        for (place, (push, led)) in parts.into_iter().enumerate() {
            // Who has no leaf waits for the last part, and pulls again then.
            let is_last = place.saturating_add(1) == count;
            let leaf = |ip: &IpAddr| self.registry.at(*ip).and_then(|member| member.leaf);
            let is_led = |ip: &IpAddr| is_last || leaf(ip).is_some_and(|leaf| led.contains(leaf));
            let mut own = Recipients { excused: recipients.excused, ..Recipients::default() };
            (own.members, recipients.members) =
                std::mem::take(&mut recipients.members).into_iter().partition(|(ip, _)| is_led(ip));
            // By multicast every part goes to all.
            let is_meant = |ip: IpAddr| ip.is_multicast() || own.members.contains_key(&ip);
            let identities = recipients.identities.iter();
            own.identities = identities.filter(|(_, ip)| is_meant(*ip)).copied().collect();
            let destinations = recipients.destinations.iter();
            own.destinations = destinations.filter(|(_, to)| is_meant(to.ip())).copied().collect();
            let audience = Audience { recipients: own, policy, path: path.clone() };
            let begun = self.begin_part(push, audience, purpose, place == 0);
            all.sequence_number = begun.sequence_number;
            all.members = all.members.saturating_add(begun.members);
        }
        all
    }

    /// Deletes all keys of the group, at its members by a push, and forgets the members.
    ///
    /// # Errors
    /// The group pushes nothing, has no keys, or the push cannot be made.
    pub fn delete_all(
        &mut self,
        purpose: &'static str,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<Pushed, PushError> {
        let deletions = [Deletion::AllTeks(TekProtocol::ESP), Deletion::AllKeks];
        let (push, audience) = self.seal_deletions(&deletions, keys, now)?;
        let pushed = self.begin(push.duplicate(), audience, purpose);
        self.sender_ids.release_all(self.teks.last_end(now));
        self.teks.clear();
        self.retire_kek(push, now);
        self.tek_holders.take();
        Ok(pushed)
    }

    /// Deletes the KEK at the members, which register again, and with it what `deletions` say.
    /// Other TEKs stay.
    pub fn delete_kek(
        &mut self,
        mut deletions: Vec<Deletion>,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) {
        deletions.push(Deletion::AllKeks);
        let Ok((push, audience)) = self.seal_deletions(&deletions, keys, now) else { return };
        self.begin(push.duplicate(), audience, "pushes end");
        self.teks.drop_replaced();
        self.retire_kek(push, now);
    }

    /// Tells members of data SAs that have gone or come with the configuration. Who has no keys
    /// hears nothing.
    ///
    /// # Errors
    /// The push cannot be made.
    pub(super) fn push_changed_teks(
        &mut self,
        deletions: Vec<Deletion>,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<(), PushError> {
        if self.rekey_sa_in_use().is_err() || !self.has_audience() {
            return Ok(());
        }
        let renewal = Renewal::Missing;
        let prepared = self.prepare(renewal, keys, now)?;
        if !prepared.is_empty() || !deletions.is_empty() {
            let request =
                RekeyRequest { renewal, roll: false, delete: false, purpose: "configuration" };
            self.push_teks(prepared, request, deletions, keys, now)?;
        }
        Ok(())
    }

    /// All sender identifiers are in use: new keys for everybody, and identifiers count from 0
    /// again (RFC 6407 §3.5).
    pub(super) fn reinitialize(&mut self, keys: &mut KeySource<'_>, now: BootTime) {
        if let Err(error) = self.delete_all("sender identifiers used up", keys, now) {
            self.events.push_back(Event::PushFailed { error });
            return;
        }
        // Identifiers belong to keys, and the keys are gone.
        self.reset_senders(self.config.sender_id_bits);
        self.events.push_back(Event::Reinitialized);
    }

    /// A KEK that has ended takes its members with it: they pull again.
    pub(super) fn expire_kek(&mut self, now: BootTime) {
        let Some(rekey_sa) = &mut self.rekey_sa else { return };
        if rekey_sa.kek.as_ref().is_none_or(|kek| kek.ends() > now) {
            return;
        }
        rekey_sa.kek = None;
        for member in self.forget_kek_holders(now) {
            self.events.push_back(Event::Expired { member });
        }
    }

    /// New TEKs that nobody has yet.
    pub(super) fn prepare(
        &self,
        renewal: Renewal,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<Prepared, PushError> {
        let pushed = self.rekey_sa.is_some();
        Ok(self.teks.prepare(renewal, pushed, now, keys).map_err(KekError::from)?)
    }

    /// Distributes new TEKs from now on; keeps the old ones for members that register until `hold`.
    pub(super) fn commit_teks(&mut self, prepared: Prepared, hold: Option<BootTime>) {
        // What pulls were promised besides is not what everybody gets now.
        self.prospect = None;
        self.revise();
        let is_anew = prepared.is_anew();
        for lifetime in self.teks.commit(prepared, hold) {
            self.events.push_back(Event::TekCreated { lifetime });
        }
        if is_anew && self.sender_ids.bits() != self.config.sender_id_bits {
            // Whoever has an identifier of the old width has none of these TEKs.
            self.reset_senders(self.config.sender_id_bits);
        }
        self.note_outdated();
    }

    /// The rekey SA, if it has a KEK.
    pub(super) fn rekey_sa_in_use(&self) -> Result<&RekeySa, PushError> {
        match &self.rekey_sa {
            None => Err(PushError::RekeyNotConfigured(Arc::clone(&self.name))),
            Some(RekeySa { kek: None, .. }) => Err(PushError::NoKeys(Arc::clone(&self.name))),
            Some(rekey_sa) => Ok(rekey_sa),
        }
    }

    fn audience(&self) -> Result<Audience, PushError> {
        let rekey_sa = self.rekey_sa_in_use()?;
        let (policy, path) = (rekey_sa.settings.delivery, rekey_sa.settings.path.clone());
        Ok(Audience { recipients: self.recipients(), policy, path })
    }

    fn seal_deletions(
        &mut self,
        deletions: &[Deletion],
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<(SealedPush, Audience), PushError> {
        let audience = self.audience()?;
        let missing = || PushError::NoKeys(Arc::clone(&self.name));
        let rekey_sa = self.rekey_sa.as_mut().ok_or_else(missing)?;
        let signing = rekey_sa.signing_key(&self.name)?;
        let kek = rekey_sa.kek.as_mut().ok_or_else(missing)?;
        let content = PushContent { deletions, ..PushContent::default() };
        let options = self.config.interoperability.seal_options();
        Ok((kek.seal(content, &signing, options, keys.rng, now)?, audience))
    }

    /// The KEK is gone without a successor after `last`, and its members with it.
    fn retire_kek(&mut self, last: SealedPush, now: BootTime) {
        self.revise();
        self.forget_kek_holders(now);
        if let Some(rekey_sa) = &mut self.rekey_sa {
            rekey_sa.retire(vec![last], None, now);
        }
        self.prospect = None;
    }
}
