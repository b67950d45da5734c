//! What an earlier run left in the kernel, taken up: keys from the kernel, everything else from the state file.
//!
//! A run that was cut off at any point leaves states, policies and tables that go on working. The new run makes of them
//! the generations that it would have had, so that its first desired state is what is there already.

use std::collections::BTreeMap;

use gdoi::BootTime;
use gdoi::crypto::Secret;
use gdoi::group::{EspTransform, Spi, TekKeys};
use policies::precedence::slot_of;
use xfrm::algorithm::Protection;
use xfrm::kernel::InstalledSa;
use xfrm::model::SaId;

use crate::generation::Generations;
use crate::group::Membership;
use crate::saved::{SavedGroup, SavedLine};

/// States of ours, as the kernel shows them.
pub type Installed = BTreeMap<SaId, InstalledSa>;

impl Membership {
    /// Goes on with what an earlier run left. Called once, before anything else.
    pub fn adopt(&mut self, saved: &SavedGroup, installed: &Installed, now: BootTime) {
        let (slot, placeholder) = (self.slot(), core::net::IpAddr::V4(self.config().placeholder));
        let keys = |spi: Spi| {
            let ours = |id: &SaId, one: &InstalledSa| {
                id.spi == spi && (id.destination == placeholder || slot_of(one.sa.reqid) == Some(slot))
            };
            installed.iter().find(|(id, one)| ours(id, one)).map(|(_, one)| keys(&one.sa.protection))
        };
        let generations = Generations::adopt(self.config().id, &saved.generations, &saved.lines, keys, now);
        // A push that was cut off has to be carried out when it comes again.
        let used = match Generations::is_complete(&saved.generations, keys, now) {
            true => saved.kek,
            false => saved.kek.map(|(spi, number)| (spi, number.saturating_sub(1))),
        };
        self.take_up(generations, &SavedGroup { kek: used, ..saved.clone() });
    }

    /// What a later run needs to know.
    pub fn save(&self, now: BootTime) -> SavedGroup {
        let sent = self.generations().active(now).into_iter().filter(|line| line.send).map(|line| line.policy);
        let counted = sent.filter(|policy| is_counter_mode(policy.protection.transform)).map(|policy| policy.spi);
        let sends = self.config().counter_mode_send;
        SavedGroup {
            id: self.config().id.0,
            generations: self.generations().save(),
            lines: self.generations().lines().iter().map(SavedLine::from).collect(),
            spent: self.spent().iter().copied().chain(counted.filter(|_| sends)).collect(),
            kek: self.rekey().used_number(),
        }
    }
}

/// The keys in KD's layout, which is the kernel's (RFC 6407 §5.6.1).
fn keys(protection: &Protection) -> TekKeys {
    let (encryption, integrity) = match protection {
        Protection::Separate { encryption_key, integrity_key, .. } => (encryption_key.expose(), integrity_key.expose()),
        Protection::Combined { key, .. } => (key.expose(), &[][..]),
    };
    TekKeys { encryption: Secret::copy_from(encryption), integrity: Secret::copy_from(integrity) }
}

fn is_counter_mode(transform: EspTransform) -> bool {
    !matches!(transform, EspTransform::DES | EspTransform::TRIPLE_DES | EspTransform::NULL | EspTransform::AES_CBC)
}
