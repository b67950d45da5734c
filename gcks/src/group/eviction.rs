//! A member is taken out: keys change so that it is left behind.
//!
//! A removed member holds the KEK. With a key hierarchy the others are led to a new one that it
//! cannot reach; without, all keys are deleted and everybody else registers again (RFC 6407 §7.4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ike::BootTime;
use ike::config::Identity;

use super::Group;
use super::key_generation::KeySource;
use super::push::{PushError, Pushed};
use super::push_plan::RekeyRequest;
use super::rekey_sa::Abandoned;
use super::tek_schedule::Renewal;
use crate::config::change::Departure;
use crate::members::registry::MemberId;

/// How a member was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// It had no keys.
    HadNoKeys,
    /// The group pushes nothing: the keys that the member has end by themselves.
    KeysExpire {
        /// When the last of them ends.
        at: BootTime,
    },
    /// All keys were deleted; the others register again.
    AllDeleted(Pushed),
    /// The others have new keys under a KEK that the member cannot reach.
    Rekeyed(Pushed),
    /// Nobody has a KEK by which the others could be told: they get new TEKs when they register,
    /// and those that the member has end by themselves.
    TeksWithdrawn {
        /// When the last of them ends.
        at: BootTime,
    },
}

/// A member that is no longer registered and holds TEKs: its KEK ended before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TekHolder {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// When the last of the TEKs ends.
    pub until: BootTime,
}

/// By which means members are left behind.
enum WayOut {
    NoKeys,
    /// The group pushes nothing.
    KeysExpire,
    /// They have no KEK, and the others have.
    PushTeks,
    /// Nobody has a KEK.
    WithdrawTeks,
    DeleteAll,
    /// Without the holders of these leaves.
    Hierarchy(Vec<u16>),
}

/// Who has keys of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Members that are registered.
    pub members: usize,
    /// Whether there is a KEK.
    pub has_kek: bool,
    /// Members that are no longer registered and hold TEKs.
    pub holders: usize,
}

impl Left {
    /// How many members hear a push.
    pub fn told(self) -> usize {
        if self.has_kek { self.members } else { 0 }
    }
}

impl Group {
    /// The member may not register any more. Returns whether that is new.
    pub fn remove(&mut self, member: &str) -> bool {
        self.revise();
        self.removed.insert(member.to_owned())
    }

    /// A removed member may register again. Returns whether it was removed.
    pub fn admit(&mut self, member: &str) -> bool {
        let removed = self.removed.remove(member);
        if removed {
            self.revise();
        }
        removed
    }

    /// Members have other names now: `renamed` has the new ones by those before, which others may
    /// have got.
    pub fn rename_members(&mut self, renamed: &BTreeMap<&str, Arc<str>>) {
        if renamed.is_empty() {
            return;
        }
        self.removed = self.removed_after(renamed);
        for name in self.registered_names_mut().map(|(_, name)| name) {
            if let Some(now) = renamed.get(name.as_ref()) {
                *name = Arc::clone(now);
            }
        }
        self.changed = true;
        self.rename_pulling(renamed);
    }

    /// The names of all who have keys.
    fn registered_names_mut(&mut self) -> impl Iterator<Item = (&MemberId, &mut Arc<str>)> {
        let abandoned = self.rekey_sa.iter_mut().flat_map(|rekey_sa| rekey_sa.abandoned.iter_mut());
        let abandoned = abandoned.map(|(id, abandoned)| (id, &mut abandoned.name));
        let holders = self.tek_holders.iter_mut().map(|(id, holder)| (id, &mut holder.name));
        self.registry.names_mut().chain(abandoned).chain(holders)
    }

    /// Names of removed members when others have got the names in `renamed`.
    fn removed_after(&self, renamed: &BTreeMap<&str, Arc<str>>) -> BTreeSet<String> {
        let taken: BTreeSet<&str> = renamed.values().map(AsRef::as_ref).collect();
        let after = self.removed.iter().filter_map(|name| match renamed.get(name.as_str()) {
            Some(now) => Some(now.to_string()),
            None => Some(name.clone()).filter(|name| !taken.contains(name.as_str())),
        });
        after.collect()
    }

    /// Everybody who has keys, with the name in the configuration.
    fn key_holders(&self) -> impl Iterator<Item = (&MemberId, &Arc<str>)> {
        let abandoned = self.rekey_sa.iter().flat_map(|rekey_sa| rekey_sa.abandoned.iter());
        let abandoned = abandoned.map(|(id, abandoned)| (id, &abandoned.name));
        let holders = self.tek_holders.iter().map(|(id, holder)| (id, &holder.name));
        let registered = self.registry.iter().map(|(id, member)| (id, &member.name));
        registered.chain(abandoned).chain(holders)
    }

    /// Those who have keys and may not have them any more, with the names that they have now:
    /// `authorize` gives the name that a member has in the new configuration, `renamed` what
    /// members before are called in it.
    pub fn unauthorized(
        &self,
        renamed: &BTreeMap<&str, Arc<str>>,
        authorize: impl Fn(&MemberId) -> Option<Arc<str>>,
    ) -> BTreeMap<MemberId, Arc<str>> {
        let removed = self.removed_after(renamed);
        let is_allowed = |id: &MemberId, name: &Arc<str>| {
            let known = renamed.get(name.as_ref()).unwrap_or(name);
            // Its host may come under the entry of another member.
            authorize(id).is_some_and(|now| now == *known || !removed.contains(now.as_ref()))
        };
        let unauthorized = self.key_holders().filter(|(id, name)| !is_allowed(id, name));
        unauthorized.map(|(id, name)| (id.clone(), Arc::clone(name))).collect()
    }

    /// Members get the names that `authorize` gives them.
    pub fn reassign(&mut self, authorize: impl Fn(&MemberId) -> Option<Arc<str>>) {
        let mut changed = false;
        for (id, name) in self.registered_names_mut() {
            if let Some(now) = authorize(id).filter(|now| now != name) {
                changed = true;
                *name = now;
            }
        }
        self.changed |= changed;
    }

    /// Who is registered as `member`, or was dropped and still holds the KEK or TEKs.
    pub fn holders(&self, member: &str) -> BTreeSet<MemberId> {
        let abandoned = self.rekey_sa.iter().flat_map(|rekey_sa| rekey_sa.abandoned.iter());
        let abandoned = abandoned.filter(|(_, abandoned)| abandoned.name.as_ref() == member);
        let registered = self.registry.named(member).map(|(id, _)| id);
        let holders = self.tek_holders.iter().filter(|(_, holder)| holder.name.as_ref() == member);
        let unregistered = abandoned.map(|(id, _)| id).chain(holders.map(|(id, _)| id));
        let unregistered = unregistered.chain(self.named_elsewhere(move |name| name == member));
        registered.chain(unregistered).cloned().collect()
    }

    /// Identities under which `member` has keys or is getting them.
    pub fn identities_of(&self, member: &str) -> BTreeSet<Identity> {
        let registered = self.registry.named(member).map(|(id, _)| &id.identity);
        registered.chain(self.pulling(member)).cloned().collect()
    }

    /// Changes keys so that those in `ids` are left behind. Their pulls must have been aborted
    /// before. Where the group pushes nothing, they stay registered until their keys end.
    ///
    /// # Errors
    /// The others cannot be told.
    pub fn evict(
        &mut self,
        ids: &BTreeSet<MemberId>,
        purpose: &'static str,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<Eviction, PushError> {
        match self.way_out(ids) {
            WayOut::NoKeys => Ok(Eviction::HadNoKeys),
            WayOut::KeysExpire => {
                let registered = ids.iter().filter_map(|id| self.registry.find(id)?.keys_end);
                let ends = registered.chain(self.teks_of(ids)).max();
                Ok(Eviction::KeysExpire { at: ends.unwrap_or(now) })
            }
            WayOut::PushTeks => self.push_all_teks(purpose, keys, now).map(Eviction::Rekeyed),
            WayOut::WithdrawTeks => Ok(self.withdraw_teks(ids, now)),
            // The member is told like the others: deletes are no secret, and they end what it
            // sends.
            WayOut::DeleteAll => self.delete_all(purpose, keys, now).map(Eviction::AllDeleted),
            WayOut::Hierarchy(leaves) => {
                // They hold the KEK until the others have the next one, and TEKs until those are
                // replaced: what fails on the way, another try makes up for.
                let registered = ids.iter().filter(|id| self.registry.find(id).is_some());
                let registered: Vec<&MemberId> = registered.collect();
                registered.into_iter().for_each(|id| self.abandon_member(id, now));
                self.roll_by_tree(&leaves, purpose, keys, now)?;
                let pushed = self.push_all_teks(purpose, keys, now)?;
                self.cluster.elsewhere.retain(|id, _| !ids.contains(id));
                Ok(Eviction::Rekeyed(pushed))
            }
        }
    }

    /// How those in `ids` are left behind.
    fn way_out(&self, ids: &BTreeSet<MemberId>) -> WayOut {
        if ids.is_empty() {
            return WayOut::NoKeys;
        }
        let Some(rekey_sa) = &self.rekey_sa else { return WayOut::KeysExpire };
        if ids.iter().any(|id| self.has_kek(id)) {
            return self.leaves_to_exclude(ids).map_or(WayOut::DeleteAll, WayOut::Hierarchy);
        }
        match rekey_sa.kek() {
            // They may have come again where that was forgotten, and hold the KEK.
            Some(_) if self.has_strangers() => WayOut::DeleteAll,
            Some(_) => WayOut::PushTeks,
            None => WayOut::WithdrawTeks,
        }
    }

    /// How an eviction of those in `ids` would leave them behind, and what it would leave of the
    /// group.
    pub fn departure(&self, ids: &BTreeSet<MemberId>) -> (Departure, Left) {
        let left = self.left();
        let going = ids.iter().filter(|id| self.registry.find(id).is_some()).count();
        let others = left.members.saturating_sub(going);
        match self.way_out(ids) {
            WayOut::NoKeys => (Departure::NoKeys, left),
            WayOut::KeysExpire => (Departure::KeysExpire, Left { members: others, ..left }),
            WayOut::PushTeks => {
                (Departure::TeksReplaced { told: left.members }, Left { holders: 0, ..left })
            }
            WayOut::WithdrawTeks => {
                (Departure::TeksReplaced { told: 0 }, Left { holders: 0, ..left })
            }
            WayOut::DeleteAll => {
                (Departure::AllKeysDeleted { told: left.members }, Left::default())
            }
            WayOut::Hierarchy(_) => {
                let left = Left { members: others, holders: 0, ..left };
                (Departure::ByHierarchy { told: others }, left)
            }
        }
    }

    /// Who has which keys of the group.
    pub fn left(&self) -> Left {
        Left {
            members: self.registry.len(),
            has_kek: self.rekey_sa.as_ref().is_some_and(|rekey_sa| rekey_sa.kek().is_some()),
            holders: self.tek_holders.len(),
        }
    }

    /// New TEKs for those who have the KEK: the old ones are those of an evicted member, too.
    fn push_all_teks(
        &mut self,
        purpose: &'static str,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<Pushed, PushError> {
        // Without a delay after which the others drop the old TEKs by themselves, the removed one
        // could go on for their whole lifetime.
        let delete = self.config.gap.deactivation_time_delay.is_none();
        let request = RekeyRequest { renewal: Renewal::All, roll: false, delete, purpose };
        let pushed = self.push_keys(request, keys, now)?;
        self.tek_holders.take();
        Ok(pushed)
    }

    /// New TEKs for those who register, without those in `ids`: nobody has a KEK.
    fn withdraw_teks(&mut self, ids: &BTreeSet<MemberId>, now: BootTime) -> Eviction {
        let at = self.teks_of(ids).max().unwrap_or(now);
        self.teks.clear();
        // Pulls that were promised the TEKs begin again.
        self.prospect = None;
        self.tek_holders.take();
        self.changed = true;
        Eviction::TeksWithdrawn { at }
    }

    /// When the TEKs end that those in `ids` hold without a KEK.
    fn teks_of(&self, ids: &BTreeSet<MemberId>) -> impl Iterator<Item = BootTime> {
        ids.iter().filter_map(|id| Some(self.tek_holders.get(id)?.until))
    }

    fn has_kek(&self, id: &MemberId) -> bool {
        let rekey_sa = self.rekey_sa.as_ref();
        self.registry.find(id).is_some()
            || self.cluster.elsewhere.contains_key(id)
            || rekey_sa.is_some_and(|rekey_sa| rekey_sa.abandoned.contains_key(id))
    }

    /// The KEK ends without a successor and the TEKs go on: its members are forgotten, and with
    /// their TEKs they can still be evicted. Returns who was registered.
    pub(super) fn forget_kek_holders(&mut self, now: BootTime) -> Vec<Arc<str>> {
        let until = self.teks.last_end(now);
        self.sender_ids.release_all(until);
        let registered = self.registry.clear();
        let names = registered.values().map(|entry| Arc::clone(&entry.name)).collect();
        let holders = registered.into_iter();
        self.tek_holders
            .extend(holders.map(|(id, entry)| (id, TekHolder { name: entry.name, until })));
        self.forget_abandoned(now);
        self.cluster.elsewhere.clear();
        if std::mem::take(&mut self.cluster.has_strangers) {
            // Their TEKs could not be taken from them when they are removed.
            self.teks.clear();
            self.prospect = None;
        }
        self.changed = true;
        names
    }

    /// The KEK in use is none that a dropped member has.
    pub(super) fn forget_abandoned(&mut self, now: BootTime) {
        let until = self.teks.last_end(now);
        let Some(rekey_sa) = &mut self.rekey_sa else { return };
        let abandoned = rekey_sa.abandoned.take().into_iter();
        self.tek_holders
            .extend(abandoned.map(|(id, entry)| (id, TekHolder { name: entry.name, until })));
    }

    /// A member cannot be sent what it registered for. It may hold the KEK of a registration
    /// before.
    pub fn abandon_member(&mut self, id: &MemberId, now: BootTime) {
        let entry = self.registry.find(id);
        let abandoned =
            entry.map(|entry| Abandoned { name: Arc::clone(&entry.name), leaf: entry.leaf });
        self.forget_members(&BTreeSet::from([id.clone()]), now);
        if let (Some(rekey_sa), Some(abandoned)) = (&mut self.rekey_sa, abandoned) {
            rekey_sa.abandoned.insert(id.clone(), abandoned);
        }
    }

    /// Forgets members; their keys end by themselves.
    pub fn forget_members(&mut self, ids: &BTreeSet<MemberId>, now: BootTime) {
        let last_end = self.teks.last_end(now);
        for id in ids {
            self.changed = true;
            self.tek_holders.remove(id);
            if self.registry.remove(id).is_some() {
                self.sender_ids.release(id, last_end);
            }
        }
    }

    /// The leaves of those in `ids`, if the key hierarchy leads everybody else to a new KEK: every
    /// member has a leaf of its own in the hierarchy of the KEK in use, and somebody else is left.
    fn leaves_to_exclude(&self, ids: &BTreeSet<MemberId>) -> Option<Vec<u16>> {
        let rekey_sa = self.rekey_sa.as_ref().filter(|_| self.keeps_tree())?;
        let in_tree = rekey_sa.kek()?.tree()?.members();
        let mut taken = BTreeSet::new();
        let mut excluded = Vec::new();
        if !self.knows_everybody() {
            return None;
        }
        let mut left = 0_usize;
        for (id, entry) in self.registry.iter() {
            let leaf = entry.leaf.filter(|leaf| in_tree.contains(leaf) && taken.insert(*leaf))?;
            match ids.contains(id) {
                true => excluded.push(leaf),
                false => left = left.saturating_add(1),
            }
        }
        for abandoned in ids.iter().filter_map(|id| rekey_sa.abandoned.get(id)) {
            excluded.push(abandoned.leaf.filter(|leaf| in_tree.contains(leaf))?);
        }
        let (elsewhere, others) = self.leaves_elsewhere(ids)?;
        excluded.extend(elsewhere);
        (left > 0 || others).then_some(excluded)
    }

    /// Whether the hierarchy can lead a member to a new KEK.
    pub(super) fn is_anybody_in_tree(&self) -> bool {
        let tree = self.rekey_sa.as_ref().and_then(|rekey_sa| rekey_sa.kek()?.tree());
        let is_in = |leaf: Option<u16>| {
            leaf.is_some_and(|leaf| tree.is_some_and(|tree| tree.members().contains(&leaf)))
        };
        !self.cluster.leaf_blocks.is_empty()
            || self.registry.iter().any(|(_, entry)| is_in(entry.leaf))
    }
}

#[cfg(test)]
mod tests;
