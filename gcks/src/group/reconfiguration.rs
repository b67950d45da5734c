//! Another configuration of a group while members have its keys.
//!
//! What follows from it is decided before anything is done, and the decisions are what is carried
//! out: a dry run tells what a reload does.

use std::sync::Arc;

use gdoi::group::TekProtocol;
use gdoi::push::Deletion;
use ike::BootTime;
use ike::crypto::{KeyKind, SigningKey};

use super::Group;
use super::division::has_counter_mode;
use super::event::Event;
use super::eviction::Left;
use super::key_generation::KeySource;
use super::rekey_sa::RekeySa;
use crate::config::change::{Change, Consequence, Difference, Subject};
use crate::config::cluster::Role;
use crate::config::difference::{group_differences, missing_selectors, rekey_differences};
use crate::config::{self, SigningKeyKind, names};

/// What happens to the KEK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KekStep {
    Stays,
    /// The group has pushes from now on.
    Begins,
    /// The group has no pushes any more.
    Ends,
    /// Members need the public part of another signing key.
    SigningKey,
    /// Members need leaves of the key hierarchy, which a pull alone brings.
    Leaves,
    /// Members need sender identifiers, which a pull alone brings (RFC 6407 §4.4).
    Senders,
}

/// What happens to data SAs whose traffic selectors are not the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SelectorStep {
    Stay,
    AtOnce,
    /// When members come for the next TEKs: who cannot be told would go on with the old ones, and
    /// not understand who has registered since.
    NextTeks,
}

/// What happens to sender identifiers of another width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WidthStep {
    Stays,
    /// No member has a sender identifier.
    AtOnce,
    /// Two widths under one TEK would let two members use one IV: all keys go (RFC 6407 §3.5).
    Reinitialize,
    /// With TEKs that nobody has who has an identifier of the old width.
    NextTeks,
}

/// What follows from a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Steps {
    kek: KekStep,
    selectors: SelectorStep,
    width: WidthStep,
}

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

    fn steps(&self, after: &config::Group, signing_key: Option<&SigningKey>, left: Left) -> Steps {
        let is_held = left.members > 0 || left.holders > 0;
        let are_all_told = self.rekey_sa.is_some() && left.has_kek && left.holders == 0;
        let width = match self.sender_ids.bits() == after.sender_id_bits {
            true => WidthStep::Stays,
            // Members of sub-servers hold identifiers, too.
            false if left.has_kek && self.sender_blocks().is_some() => WidthStep::Reinitialize,
            false if self.sender_ids.held().0.is_empty() => WidthStep::AtOnce,
            false if left.has_kek && left.members > 0 => WidthStep::Reinitialize,
            false => WidthStep::NextTeks,
        };
        let selectors = match self.teks.serves(&after.teks) {
            true => SelectorStep::Stay,
            false if is_held && !are_all_told && self.teks.loses_selectors(&after.teks) => {
                SelectorStep::NextTeks
            }
            false => SelectorStep::AtOnce,
        };
        let kek = match (&self.rekey_sa, &after.rekey) {
            (None, None) => KekStep::Stays,
            (None, Some(_)) => KekStep::Begins,
            (Some(_), None) => KekStep::Ends,
            (Some(_), Some(_)) if self.is_signing_key_changed(after, signing_key) => {
                KekStep::SigningKey
            }
            (Some(_), Some(to)) if left.has_kek && to.lkh && !self.keeps_tree_under(Some(to)) => {
                KekStep::Leaves
            }
            (Some(_), Some(_)) if left.has_kek && self.lacks_senders(after) => KekStep::Senders,
            _ => KekStep::Stays,
        };
        Steps { kek, selectors, width }
    }

    /// Whether members would get counter-mode TEKs by pushes and no sender identifier.
    fn lacks_senders(&self, after: &config::Group) -> bool {
        let elsewhere = self.is_root() && !has_counter_mode(&self.config);
        has_counter_mode(after)
            && (elsewhere || self.registry.iter().any(|(id, _)| !self.sender_ids.is_holder(id)))
    }

    /// What a reload with `after` changes and what follows, if evictions leave `left` of the group.
    pub fn plan(
        &self,
        after: &config::Group,
        signing_key: Option<&SigningKey>,
        left: Left,
    ) -> Vec<Change> {
        let steps = self.steps(after, signing_key, left);
        let reinitialized = steps.width == WidthStep::Reinitialize;
        let told = if left.has_kek && !reinitialized { left.members } else { 0 };
        let mut plan =
            Plan { subject: Subject::Group(Arc::clone(&self.name)), changes: Vec::new() };
        let differences = group_differences(&self.config, after);
        if let Some(difference) = differences.sender_id_bits
            && self.sender_ids.bits() != after.sender_id_bits
        {
            plan.add(
                difference,
                match steps.width {
                    WidthStep::Stays | WidthStep::AtOnce => Consequence::AtOnce,
                    WidthStep::Reinitialize => Consequence::KeysDeleted { told: left.members },
                    WidthStep::NextTeks => Consequence::NextTeks,
                },
            );
        }
        for difference in differences.member_threshold.into_iter().chain(differences.forms) {
            plan.add(difference, Consequence::AtOnce);
        }
        self.plan_kek(after, signing_key, steps.kek, told, &mut plan);
        let kek_deleted = Consequence::KekDeleted { told };
        for difference in differences.policy {
            let next = match steps.selectors {
                SelectorStep::NextTeks => Consequence::NextTeks,
                _ => Consequence::NextTek,
            };
            let is_for_senders =
                steps.kek == KekStep::Senders && difference.option == names::tek_encryption();
            plan.add_all(
                difference,
                [next].into_iter().chain(is_for_senders.then(|| kek_deleted.clone())),
            );
        }
        self.plan_selectors(after, steps, left, told, &mut plan);
        plan.changes
    }

    fn plan_kek(
        &self,
        after: &config::Group,
        signing_key: Option<&SigningKey>,
        step: KekStep,
        told: usize,
        plan: &mut Plan,
    ) {
        let deleted = Consequence::KekDeleted { told };
        match step {
            KekStep::Begins => {
                let forgotten = Consequence::MembersForgotten(self.registry.len());
                plan.add(Difference::untold(names::rekey()), forgotten);
            }
            KekStep::Ends => {
                plan.add(Difference::untold(names::rekey()), deleted.clone());
            }
            KekStep::Stays | KekStep::SigningKey | KekStep::Leaves | KekStep::Senders => {}
        }
        let (Some(before), Some(to)) = (&self.config.rekey, &after.rekey) else { return };
        let mut needs_leaves = step == KekStep::Leaves;
        let mut needs_public_key = step == KekStep::SigningKey;
        for difference in rekey_differences(before, to) {
            let option = difference.option;
            let is_of_tree = [names::rekey_lkh(), names::rekey_encryption()].contains(&option);
            let is_of_key = [names::signing_key(), names::signing_key_file()].contains(&option);
            let stays = option == names::signing_key()
                && step != KekStep::SigningKey
                && !is_of_kind(signing_key, to.signing_key);
            let consequence = if stays {
                Consequence::SigningKeyStays
            } else if (is_of_key && needs_public_key) || (is_of_tree && needs_leaves) {
                (needs_public_key, needs_leaves) = (false, false);
                deleted.clone()
            } else if is_of_key {
                Consequence::AtOnce
            } else {
                Consequence::NextKek
            };
            plan.add(difference, consequence);
        }
        if needs_public_key {
            // The same file holds another key.
            plan.add(Difference::untold(names::signing_key_file()), deleted);
        }
    }

    fn plan_selectors(
        &self,
        after: &config::Group,
        steps: Steps,
        left: Left,
        told: usize,
        plan: &mut Plan,
    ) {
        let gone = missing_selectors(&self.config.teks, &after.teks);
        let new = missing_selectors(&after.teks, &self.config.teks);
        if gone.is_empty() && new.is_empty() {
            return;
        }
        let text = |lines: &[String]| (!lines.is_empty()).then(|| lines.join("; "));
        let difference =
            Difference { option: names::tek_policy(), before: text(&gone), after: text(&new) };
        let mut consequences = Vec::new();
        if steps.selectors == SelectorStep::NextTeks {
            consequences.push(Consequence::NextTeks);
        } else {
            // Everybody registers again where the KEK goes, and gets the new TEKs then.
            let by_push = told > 0 && matches!(steps.kek, KekStep::Stays);
            let is_in_use = left.members > 0 || left.holders > 0;
            if !gone.is_empty() && is_in_use {
                consequences.push(Consequence::TeksDeleted { count: gone.len(), told });
            }
            match (new.len(), by_push) {
                (0, _) => {}
                (count, true) => consequences.push(Consequence::TeksPushed { count, told }),
                (count, false) => consequences.push(Consequence::TeksMade(count)),
            }
        }
        if consequences.is_empty() {
            consequences.push(Consequence::AtOnce);
        }
        plan.add_all(difference, consequences);
    }

    /// Takes over `config` with the same number, as [`Group::plan`] says.
    pub fn reconfigure(
        &mut self,
        config: config::Group,
        signing_key: Option<Arc<SigningKey>>,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) {
        if !self.fits_role(&config) {
            self.change_role(keys, now);
        }
        if config.cluster.as_ref().is_some_and(|one| one.role == Role::SubServer) {
            // All else comes from its root.
            self.config = config;
            self.changed = true;
            return;
        }
        let steps = self.steps(&config, signing_key.as_deref(), self.left());
        if steps.width == WidthStep::Reinitialize
            && let Err(error) = self.delete_all("configuration: sender-id-bits", keys, now)
        {
            self.events.push_back(Event::PushFailed { error });
        }
        if matches!(steps.width, WidthStep::Reinitialize | WidthStep::AtOnce) {
            self.reset_senders(config.sender_id_bits);
        }
        let rekey = config.rekey.clone().zip(signing_key);
        self.config = config;
        self.note_outdated();
        // What pulls were promised was made for the configuration before.
        self.prospect = None;
        let deletions = match steps.selectors {
            SelectorStep::NextTeks => Vec::new(),
            SelectorStep::Stay | SelectorStep::AtOnce => self.take_over_selectors(),
        };
        let made = || rekey.and_then(|(settings, signing)| RekeySa::new(settings, signing).ok());
        match steps.kek {
            KekStep::Stays => self.tell_of_changed_teks(deletions, keys, now),
            KekStep::Leaves | KekStep::Senders => self.delete_kek(deletions, keys, now),
            KekStep::Ends | KekStep::SigningKey => {
                self.delete_kek(deletions, keys, now);
                self.rekey_sa = made();
            }
            KekStep::Begins => {
                self.rekey_sa = made();
                self.forget_kek_holders(now);
            }
        }
        self.revise();
    }

    /// The data SAs are those of the configuration. Returns deletes of the TEKs that go.
    fn take_over_selectors(&mut self) -> Vec<Deletion> {
        let orphans = self.teks.reconfigure(&self.config.teks);
        self.note_outdated();
        orphans.iter().map(|orphan| Deletion::Tek(TekProtocol::ESP, orphan.spi)).collect()
    }

    fn tell_of_changed_teks(
        &mut self,
        deletions: Vec<Deletion>,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) {
        if let Err(error) = self.push_changed_teks(deletions, keys, now) {
            self.events.push_back(Event::PushFailed { error });
        }
    }

    /// Looks whether all TEKs have to be replaced together: kept, because the event loop asks after
    /// every datagram.
    pub(super) fn note_outdated(&mut self) {
        self.is_outdated = !self.teks.serves(&self.config.teks)
            || self.sender_ids.bits() != self.config.sender_id_bits;
    }

    /// Whether a change that had to wait until members come for the next TEKs can be pushed now:
    /// all of them have got a KEK meanwhile.
    pub(super) fn can_catch_up(&self) -> bool {
        let left = || self.left();
        self.is_outdated && left().has_kek && left().members > 0 && left().holders == 0
    }

    /// Pushes a change that had to wait.
    pub(super) fn catch_up(&mut self, keys: &mut KeySource<'_>, now: BootTime) {
        if self.sender_ids.bits() != self.config.sender_id_bits {
            if let Err(error) = self.delete_all("configuration: sender-id-bits", keys, now) {
                self.events.push_back(Event::PushFailed { error });
            }
            self.reset_senders(self.config.sender_id_bits);
        }
        let deletions = self.take_over_selectors();
        self.tell_of_changed_teks(deletions, keys, now);
        self.changed = true;
    }
}

/// Changes of one group that are being collected.
struct Plan {
    subject: Subject,
    changes: Vec<Change>,
}

impl Plan {
    fn add(&mut self, difference: Difference, consequence: Consequence) {
        self.add_all(difference, [consequence]);
    }

    fn add_all(
        &mut self,
        difference: Difference,
        consequences: impl IntoIterator<Item = Consequence>,
    ) {
        let consequences = consequences.into_iter().collect();
        self.changes.push(Change::new(self.subject.clone(), difference, consequences));
    }
}

fn is_of_kind(signing_key: Option<&SigningKey>, kind: SigningKeyKind) -> bool {
    let Some(key) = signing_key else { return false };
    match kind {
        SigningKeyKind::Rsa(bits) => key.kind() == KeyKind::Rsa && key.public_key().bits() == bits,
        SigningKeyKind::EcdsaP256 => key.kind() == KeyKind::Ecdsa256,
        SigningKeyKind::EcdsaP384 => key.kind() == KeyKind::Ecdsa384,
    }
}
