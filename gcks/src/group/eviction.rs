//! A member is taken out: keys change so that it is left behind.
//!
//! A removed member holds the KEK. With a key hierarchy the others are led to a new one that it
//! cannot reach; without, all keys are deleted and everybody else registers again (RFC 6407 §7.4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gdoi::config::Identity;
use ike::BootTime;

use super::Group;
use super::key_generation::KeySource;
use super::push::{PushError, Pushed};
use super::push_plan::RekeyRequest;
use super::tek_schedule::Renewal;
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
}

impl Group {
    /// The member may not register any more. Returns whether that is new.
    pub fn remove(&mut self, member: &str) -> bool {
        self.changed = true;
        self.removed.insert(member.to_owned())
    }

    /// A removed member may register again. Returns whether it was removed.
    pub fn admit(&mut self, member: &str) -> bool {
        let removed = self.removed.remove(member);
        self.changed |= removed;
        removed
    }

    /// The member `before` has another name now.
    pub fn rename_member(&mut self, before: &str, after: &Arc<str>) {
        if self.removed.remove(before) {
            self.removed.insert(after.to_string());
            self.changed = true;
        }
        self.rename_pulling(before, after);
    }

    /// Looks at everybody who has keys: `authorize` gives the name that the member has now. Returns
    /// those who may not have keys any more, with the names that they had.
    pub fn reauthorize(
        &mut self,
        authorize: impl Fn(&MemberId) -> Option<Arc<str>>,
    ) -> BTreeMap<MemberId, Arc<str>> {
        let mut unauthorized = BTreeMap::new();
        let abandoned = self.rekey_sa.iter_mut().flat_map(|rekey_sa| &mut rekey_sa.abandoned);
        let abandoned = abandoned.map(|(id, abandoned)| (id, &mut abandoned.name));
        for (id, name) in self.registry.names_mut().chain(abandoned) {
            match authorize(id) {
                Some(now) if now == *name => {}
                Some(now) => {
                    self.changed = true;
                    *name = now;
                }
                None => {
                    unauthorized.insert(id.clone(), Arc::clone(name));
                }
            }
        }
        unauthorized
    }

    /// Who is registered as `member`, or was dropped and still holds the KEK.
    pub fn holders(&self, member: &str) -> BTreeSet<MemberId> {
        let abandoned = self.rekey_sa.iter().flat_map(|rekey_sa| &rekey_sa.abandoned);
        let abandoned = abandoned.filter(|(_, abandoned)| abandoned.name.as_ref() == member);
        let registered = self.registry.named(member).map(|(id, _)| id);
        registered.chain(abandoned.map(|(id, _)| id)).cloned().collect()
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
        if ids.is_empty() {
            return Ok(Eviction::HadNoKeys);
        }
        if self.rekey_sa.is_none() {
            let ends = ids.iter().filter_map(|id| self.registry.find(id)?.keys_end);
            return Ok(Eviction::KeysExpire { at: ends.max().unwrap_or(now) });
        }
        let Some(leaves) = self.leaves_to_exclude(ids) else {
            // The member is told like the others: deletes are no secret, and they end what it
            // sends.
            return self.delete_all(purpose, keys, now).map(Eviction::AllDeleted);
        };
        self.forget_members(ids, now);
        self.roll_by_tree(&leaves, purpose, keys, now)?;
        // Without a delay after which the others drop the old TEKs by themselves, the removed one
        // could go on for their whole lifetime.
        let delete = self.config.gap.deactivation_time_delay.is_none();
        let request = RekeyRequest { renewal: Renewal::All, roll: false, delete, purpose };
        self.push_keys(request, keys, now).map(Eviction::Rekeyed)
    }

    /// Forgets members; their keys end by themselves.
    pub fn forget_members(&mut self, ids: &BTreeSet<MemberId>, now: BootTime) {
        let last_end = self.teks.last_end(now);
        for id in ids {
            self.changed = true;
            if let Some(sender) = self.registry.remove(id).and_then(|entry| entry.sender) {
                self.sender_ids.release(sender, last_end);
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
        (left > 0).then_some(excluded)
    }

    /// Whether the hierarchy can lead a member to a new KEK.
    pub(super) fn is_anybody_in_tree(&self) -> bool {
        let tree = self.rekey_sa.as_ref().and_then(|rekey_sa| rekey_sa.kek()?.tree());
        let is_in = |leaf: Option<u16>| {
            leaf.is_some_and(|leaf| tree.is_some_and(|tree| tree.members().contains(&leaf)))
        };
        self.registry.iter().any(|(_, entry)| is_in(entry.leaf))
    }
}
