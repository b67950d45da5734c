//! Another configuration of a group while members have its keys.

use std::sync::Arc;

use gdoi::group::TekProtocol;
use gdoi::push::Deletion;
use ike::BootTime;
use ike::crypto::SigningKey;

use super::Group;
use super::event::Event;
use super::key_generation::KeySource;
use super::rekey_sa::RekeySa;
use super::sender_ids::SenderIdPool;
use crate::config;

impl Group {
    /// Whether the group's pushes are to be signed with another key than so far.
    pub fn is_signing_key_changed(
        &self,
        config: &config::Group,
        signing_key: Option<&SigningKey>,
    ) -> bool {
        let (Some(rekey_sa), Some(_)) = (&self.rekey_sa, &config.rekey) else { return false };
        let new = signing_key.and_then(|key| key.public_key_der().ok());
        new.is_some_and(|new| new != rekey_sa.public_key)
    }

    /// Takes over `config` with the same number. Returns what follows, a line each.
    pub fn reconfigure(
        &mut self,
        config: config::Group,
        signing_key: Option<Arc<SigningKey>>,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Vec<String> {
        let mut changes = Vec::new();
        let name = Arc::clone(&self.name);
        let other_key = self.is_signing_key_changed(&config, signing_key.as_deref());
        let old = std::mem::replace(&mut self.config, config.clone());
        let orphans = self.teks.reconfigure(&config.teks);
        // What pulls were promised was made for the configuration before.
        self.prospect = None;
        if old.sender_id_bits != config.sender_id_bits && self.sender_ids.held().0.is_empty() {
            self.sender_ids = SenderIdPool::new(config.sender_id_bits);
        }
        match (self.rekey_sa.is_some(), config.rekey.clone().zip(signing_key)) {
            (true, after) if after.is_none() || other_key => {
                let told = self.delete_kek(keys, now);
                changes.push(format!(
                    "group {name}: KEK deleted, {told} members told; they register again"
                ));
                self.rekey_sa =
                    after.and_then(|(settings, signing)| RekeySa::new(settings, signing).ok());
            }
            (false, Some((settings, signing))) => {
                self.rekey_sa = RekeySa::new(settings, signing).ok();
                self.forget_kek_holders(now);
                changes.push(format!(
                    "group {name}: has pushes for members that register from now on"
                ));
            }
            // Members get their leaves with a pull.
            (true, _) if self.needs_new_leaves() => {
                let told = self.delete_kek(keys, now);
                changes.push(format!(
                    "group {name}: KEK deleted, {told} members told; they register again and get \
                     a leaf of the key hierarchy"
                ));
            }
            _ if old.rekey != config.rekey => {
                changes.push(format!("group {name}: rekey in effect with the next KEK"));
            }
            _ => {}
        }
        if old.gap != config.gap || old.sender_id_bits != config.sender_id_bits {
            changes.push(format!(
                "group {name}: delays and sender identifiers in effect with the next keys"
            ));
        }
        if old.teks != config.teks {
            let deletion = |spi| Deletion::Tek(TekProtocol::ESP, spi);
            let deletions: Vec<Deletion> =
                orphans.iter().map(|orphan| deletion(orphan.spi)).collect();
            changes.push(match deletions.len() {
                0 => format!("group {name}: TEKs in effect with the next keys"),
                count => format!(
                    "group {name}: {count} TEKs deleted because their traffic selectors changed"
                ),
            });
            if let Err(error) = self.push_changed_teks(deletions, keys, now) {
                self.events.push_back(Event::PushFailed { error });
            }
        }
        self.changed |= !changes.is_empty();
        changes
    }

    /// Whether the next KEK will have a key hierarchy that does not come out of the one in use.
    fn needs_new_leaves(&self) -> bool {
        let has_kek = self.rekey_sa.as_ref().is_some_and(|rekey_sa| rekey_sa.kek().is_some());
        has_kek && self.config.rekey.as_ref().is_some_and(|to| to.lkh) && !self.keeps_tree()
    }
}
