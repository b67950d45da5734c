//! A member is taken out: keys change so that it is left behind.
//!
//! A removed member holds the KEK. With a key hierarchy the others are led to a new one that it
//! cannot reach; without, all keys are deleted and everybody else registers again (RFC 6407 §7.4).

use std::collections::BTreeSet;

use gdoi::BootTime;
use gdoi::config::Identity;

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

    /// Forgets removals of members that `exists` does not know.
    pub fn retain_removed(&mut self, exists: impl Fn(&str) -> bool) {
        self.removed.retain(|name| exists(name));
    }

    /// Identities under which `member` has keys or is getting them.
    pub fn identities_of(&self, member: &str) -> BTreeSet<Identity> {
        let registered = self.registry.named(member).map(|(id, _)| &id.identity);
        registered.chain(self.pulling(member)).cloned().collect()
    }

    /// Changes keys so that `member` is left behind. Its pulls must have been aborted before.
    ///
    /// # Errors
    /// The others cannot be told.
    pub fn evict(
        &mut self,
        member: &str,
        purpose: &'static str,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<Eviction, PushError> {
        let registered = self.registry.named(member);
        let (ids, leaves): (Vec<MemberId>, Vec<Option<u16>>) =
            registered.map(|(id, entry)| (id.clone(), entry.leaf)).unzip();
        if ids.is_empty() {
            return Ok(Eviction::HadNoKeys);
        }
        if self.rekey_sa.is_none() {
            let ends = self.registry.named(member).filter_map(|(_, entry)| entry.keys_end);
            return Ok(Eviction::KeysExpire { at: ends.max().unwrap_or(now) });
        }
        let leaves: Option<Vec<u16>> = leaves.into_iter().collect();
        let by_tree = leaves.filter(|leaves| self.keeps_tree() && self.are_in_tree(leaves));
        let Some(leaves) = by_tree else {
            // The member is told like the others: deletes are no secret, and they end what it
            // sends.
            return self.delete_all(purpose, keys, now).map(Eviction::AllDeleted);
        };
        self.forget_members(&ids, now);
        self.roll_by_tree(&leaves, purpose, keys, now)?;
        // Without a delay after which the others drop the old TEKs by themselves, the removed one
        // could go on for their whole lifetime.
        let delete = self.config.gap.deactivation_time_delay.is_none();
        let request = RekeyRequest { renewal: Renewal::All, roll: false, delete, purpose };
        self.push_keys(request, keys, now).map(Eviction::Rekeyed)
    }

    /// Forgets members; their keys end by themselves.
    pub fn forget_members(&mut self, ids: &[MemberId], now: BootTime) {
        let last_end = self.teks.last_end(now);
        for id in ids {
            self.changed = true;
            if let Some(sender) = self.registry.remove(id).and_then(|entry| entry.sender) {
                self.sender_ids.release(sender, last_end);
            }
        }
    }

    /// Whether every leaf is one of the group's hierarchy.
    fn are_in_tree(&self, leaves: &[u16]) -> bool {
        let tree = self.rekey_sa.as_ref().and_then(|rekey_sa| rekey_sa.kek()?.tree());
        tree.is_some_and(|tree| leaves.iter().all(|leaf| tree.members().contains(leaf)))
    }
}
