//! What an earlier run left, taken up: keys from the kernel or the sealed state, everything else
//! from the state file.
//!
//! A run that was cut off at any point leaves states, policies and tables that go on working. The
//! new run makes of them the generations that it would have had, so that its first desired state is
//! what is there already. After a reboot the kernel is empty, and the sealed state alone says what
//! there was.

use std::collections::BTreeMap;

use gdoi::group::{EspTransform, Spi, TekKeys};
use ike::BootTime;
use ike::crypto::Secret;
use policies::precedence::slot_of;
use xfrm::algorithm::Protection;
use xfrm::kernel::InstalledSa;
use xfrm::model::SaId;

use crate::membership::Membership;
use crate::membership::key_generations::KeyGenerations;
use crate::persistence::sealed_keys::{GroupKeys, GroupSecrets, Unsealed};
use crate::persistence::state_file::{Boot, Saved, SavedGroup, SavedSaTek};

/// States of ours, as the kernel shows them.
pub type Installed = BTreeMap<SaId, InstalledSa>;

/// All that an earlier run left.
#[derive(Debug)]
pub struct Earlier<'e> {
    /// The boot that runs now.
    pub boot: Boot,
    /// The state file, of whatever boot.
    pub saved: Option<&'e Saved>,
    /// The sealed state, on the clock of this boot; groups are taken out of it.
    pub sealed: Option<&'e mut Unsealed>,
    /// States of ours in the kernel.
    pub installed: &'e Installed,
}

impl Membership {
    /// Goes on with what an earlier run left. Called once, before anything else.
    pub fn restore(&mut self, earlier: &mut Earlier<'_>, now: BootTime) {
        let id = self.config().id.0;
        let saved = earlier.saved.and_then(|saved| saved.group(id)).cloned();
        let sealed = earlier.sealed.as_mut().and_then(|sealed| sealed.take(id));
        let same_boot = earlier.saved.is_some_and(|saved| saved.is_of(earlier.boot));
        match (saved, sealed) {
            (Some(saved), sealed) if same_boot => {
                self.go_on(
                    saved,
                    sealed.map(|(_, keys)| keys).unwrap_or_default(),
                    earlier.installed,
                    now,
                );
            }
            (saved, Some((described, keys))) => self.resume(saved, described, keys, now),
            (Some(saved), None) => {
                let sa_teks =
                    KeyGenerations::adopt(self.config().id, &[], &saved.sa_teks, |_| None, now);
                self.take_up(sa_teks, |_| false, saved, None);
            }
            (None, None) => {}
        }
    }

    /// After a reboot, when the sealed state could not be read at once. A group that has been served
    /// meanwhile has newer keys.
    pub(crate) fn resume_late(&mut self, sealed: &mut Unsealed, now: BootTime) {
        if !self.generations().is_empty(now) || self.rekey().kept().is_some() {
            return;
        }
        let Some((described, keys)) = sealed.take(self.config().id.0) else { return };
        let iv_reuse_hazard = self.iv_reuse_hazard().clone();
        let known = SavedGroup { iv_reuse_hazard, ..SavedGroup::default() };
        self.resume(Some(known), described, keys, now);
        self.resume_rekey(now);
    }

    /// After a restart: the state file is the newest, and was written before the kernel was
    /// changed.
    fn go_on(
        &mut self,
        saved: SavedGroup,
        sealed: GroupKeys,
        installed: &Installed,
        now: BootTime,
    ) {
        let (slot, placeholder) = (self.slot(), self.config().placeholder);
        let in_kernel = |spi: Spi| {
            let ours = |id: &SaId, one: &InstalledSa| {
                id.spi == spi
                    && (id.destination == placeholder || slot_of(one.sa.reqid) == Some(slot))
            };
            installed.iter().find(|(id, one)| ours(id, one)).map(|(_, one)| one)
        };
        let keys = |spi: Spi| {
            in_kernel(spi).map(|one| keys(&one.sa.protection)).or_else(|| sealed.tek(spi))
        };
        let generations =
            KeyGenerations::adopt(self.config().id, &saved.generations, &saved.sa_teks, keys, now);
        // A push that was cut off has to be carried out when it comes again.
        let used = match KeyGenerations::is_complete(&saved.generations, keys, now) {
            true => saved.kek,
            false => saved.kek.map(|(spi, number)| (spi, number.saturating_sub(1))),
        };
        let has = |spi: Spi| in_kernel(spi).is_some();
        self.take_up(generations, has, SavedGroup { kek: used, ..saved }, sealed.kek);
    }

    /// After a reboot: the sealed state, which was written after the kernel was changed, is
    /// complete in itself.
    fn resume(
        &mut self,
        saved: Option<SavedGroup>,
        described: SavedGroup,
        keys: GroupKeys,
        now: BootTime,
    ) {
        let SavedGroup { generations, sa_teks, .. } = &described;
        let generations =
            KeyGenerations::adopt(self.config().id, generations, sa_teks, |spi| keys.tek(spi), now);
        // A counter-mode sender would begin with new initialisation vectors under an old key,
        // whether or not anything shows that it sent before.
        let sa_teks = described.generations.iter().flat_map(|generation| &generation.sa_teks);
        let counted = sa_teks
            .filter(|sa_tek| is_counter_mode(EspTransform(sa_tek.transform)))
            .map(|sa_tek| sa_tek.spi);
        let known = saved.into_iter().flat_map(|saved| saved.iv_reuse_hazard);
        let iv_reuse_hazard =
            described.iv_reuse_hazard.iter().copied().chain(known).chain(counted).collect();
        if generations.is_empty(now) && !described.generations.is_empty() {
            self.note_sealed_keys_ended();
        }
        self.take_up(generations, |_| false, SavedGroup { iv_reuse_hazard, ..described }, keys.kek);
    }

    /// The keys that a later run needs after a reboot.
    pub fn secrets(&self, now: BootTime) -> GroupSecrets<'_> {
        let (id, teks) = (self.config().id, self.generations().keys(now));
        GroupSecrets { id, teks, kek: self.rekey().kept() }
    }

    /// What a later run needs to know.
    pub fn save(&self, now: BootTime) -> SavedGroup {
        let sent = self
            .generations()
            .active(now)
            .into_iter()
            .filter(|sa_tek| sa_tek.send)
            .map(|sa_tek| sa_tek.policy);
        let counted = sent
            .filter(|policy| is_counter_mode(policy.protection.transform))
            .map(|policy| policy.spi);
        let sends = self.config().counter_mode_send;
        SavedGroup {
            id: self.config().id.0,
            generations: self.generations().save(),
            sa_teks: self.generations().sa_teks().iter().map(SavedSaTek::from).collect(),
            iv_reuse_hazard: self
                .iv_reuse_hazard()
                .iter()
                .copied()
                .chain(counted.filter(|_| sends))
                .collect(),
            kek: self.rekey().used_number(),
        }
    }
}

/// The keys in KD's layout, which is the kernel's (RFC 6407 §5.6.1).
fn keys(protection: &Protection) -> TekKeys {
    let (encryption, integrity) = match protection {
        Protection::Separate { encryption_key, integrity_key, .. } => {
            (encryption_key.expose(), integrity_key.expose())
        }
        Protection::Combined { key, .. } => (key.expose(), &[][..]),
    };
    TekKeys { encryption: Secret::copy_from(encryption), integrity: Secret::copy_from(integrity) }
}

pub(super) fn is_counter_mode(transform: EspTransform) -> bool {
    !matches!(
        transform,
        EspTransform::DES | EspTransform::TRIPLE_DES | EspTransform::NULL | EspTransform::AES_CBC
    )
}
