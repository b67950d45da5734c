//! A group of a cluster: what its root shares, and what a sub-server does with it.
//!
//! A root seals and signs every push; until all sub-servers hold the new keys it is withheld from
//! the root's own members too. A sub-server has no signing key: it relays the root's octets to its
//! members, repeats them and collects their acknowledgements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::Generation;
use ike::BootTime;
use ike::crypto::Secret;

use super::Group;
use super::division::{Need, has_counter_mode};
use super::elsewhere::Elsewhere;
use super::key_generation::KeySource;
use super::pending_pull::PullError;
use super::push::Audience;
use super::rekey_sa::{Missed, RekeySa};
use super::sender_blocks::{Division, SenderBlocks};
use super::sender_ids::SenderIdPool;
use super::tek_schedule::{Away, TekSchedule};
use crate::config;
use crate::config::cluster::Role;
use crate::members::registry::MemberId;

/// What a sub-server distributes.
#[derive(Debug)]
pub struct Shared {
    /// The root's configuration of the group.
    pub config: config::Group,
    pub teks: TekSchedule,
    pub rekey_sa: Option<RekeySa>,
    /// Names of members that the operator removed.
    pub removed: BTreeSet<String>,
    /// Sender identifiers that the sub-server may give; `None` where members need none.
    pub division: Option<Division>,
}

/// What a group of a cluster has beside its keys.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// What is distributed; at a root what was made last.
    generation: Generation,
    /// What a sub-server has written down and not distributed yet.
    prepared: Option<PreparedState>,
    /// The root's configuration, by which a sub-server serves.
    served: Option<config::Group>,
    /// Counts changes that sub-servers have to hear of.
    revision: u64,
    /// Whether sub-servers do not hold the keys yet that pushes are about.
    withheld: bool,
    /// Of the root: who gives which sender identifiers.
    pub(super) blocks: Option<SenderBlocks>,
    /// Of the root: which server gives the leaves of which block of the key hierarchy.
    pub(super) leaf_blocks: BTreeMap<u16, Arc<str>>,
    /// Of the root: members at other servers, and whether there are no more than these.
    pub(super) elsewhere: BTreeMap<MemberId, Elsewhere>,
    pub(super) knows_everybody: bool,
    /// Of the root: whether somebody may hold the KEK whom no server knows any more.
    pub(super) has_strangers: bool,
    /// Of a sub-server: whether it has sent a member away for want of sender identifiers, or of
    /// leaves.
    pub(super) senders: Need,
    pub(super) leaves: Need,
}

/// A generation as its root sent it.
#[derive(Debug)]
pub struct PreparedState {
    pub generation: Generation,
    pub octets: Secret,
    /// When it arrived: lifetimes go on from there.
    pub received: BootTime,
}

/// What came of another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Pushes that are relayed to our own members.
    pub relayed: usize,
    /// Members that were forgotten: the keys they have are deleted or too old to lead on.
    pub forgotten: usize,
}

impl Group {
    /// What this server is for the group; `None` if it is on its own.
    pub fn role(&self) -> Option<Role> {
        self.config.cluster.as_ref().map(|cluster| cluster.role)
    }

    pub(super) fn is_root(&self) -> bool {
        self.role() == Some(Role::RootServer)
    }

    pub(super) fn is_sub_server(&self) -> bool {
        self.role() == Some(Role::SubServer)
    }

    /// What is distributed; at a root what was made last.
    pub fn generation(&self) -> Generation {
        self.cluster.generation
    }

    pub fn set_generation(&mut self, generation: Generation) {
        self.changed |= self.cluster.generation != generation;
        self.cluster.generation = generation;
    }

    /// What a sub-server has written down and not distributed yet.
    pub fn prepared(&self) -> Option<&PreparedState> {
        self.cluster.prepared.as_ref()
    }

    /// Keeps a generation that is not distributed yet.
    pub fn prepare_generation(&mut self, prepared: Option<PreparedState>) {
        self.changed |= prepared.is_some() || self.cluster.prepared.is_some();
        self.cluster.prepared = prepared;
    }

    /// Counts changes that sub-servers have to hear of.
    pub fn revision(&self) -> u64 {
        self.cluster.revision
    }

    /// Something changed that sub-servers have to hear of.
    pub(super) fn revise(&mut self) {
        if self.is_root() {
            // Before anybody can be told of it.
            self.withhold();
        }
        self.cluster.revision = self.cluster.revision.saturating_add(1);
        self.changed = true;
    }

    /// The configuration that members are served by: a sub-server's root has the say.
    pub fn served(&self) -> &config::Group {
        self.cluster.served.as_ref().unwrap_or(&self.config)
    }

    /// How long a push may have to wait for the other servers.
    pub(super) fn cluster_wait(&self) -> Duration {
        self.config.cluster.as_ref().map_or(Duration::ZERO, |cluster| cluster.wait)
    }

    /// From a push until all members send with its keys.
    pub(super) fn settling(&self) -> Duration {
        self.activation() + self.cluster_wait()
    }

    /// Sub-servers do not hold the keys yet: pushes wait, and members that register get the keys
    /// before.
    pub fn withhold(&mut self) {
        self.cluster.withheld = true;
        self.teks.hold_back();
    }

    /// Until when new keys may wait for sub-servers: nobody is waited for that answers no longer,
    /// and members have to send with them before the ones that they replace end.
    pub fn latest_distribution(&self, now: BootTime) -> BootTime {
        let before = self.teks.slots().iter().filter_map(|slot| slot.before.as_ref());
        let ends = before.map(|(tek, _)| tek.lifetime.ends).min();
        let lead = self.rekey_sa.as_ref().map(|rekey_sa| rekey_sa.lead(self.activation()));
        let in_time = ends.zip(lead).map(|(end, lead)| end - lead);
        let waited = now + self.cluster_wait();
        in_time.map_or(waited, |in_time| waited.min(in_time.max(now)))
    }

    /// Since when a sub-server has not answered: its members get no push until they have come to
    /// another one, and the TEKs that they have are replaced as late as that allows.
    pub fn set_away(&mut self, since: Option<BootTime>) {
        let lead = self.rekey_sa.as_ref().map(|rekey_sa| rekey_sa.lead(self.activation()));
        self.teks.set_away(since.zip(lead).map(|(since, lead)| Away { since, lead }));
    }

    /// Whether pushes wait for sub-servers.
    pub fn is_withheld(&self) -> bool {
        self.cluster.withheld
    }

    /// Everybody holds the keys: pushes leave, and members send with the new keys after the
    /// activation delay.
    pub fn release(&mut self, now: BootTime) {
        self.cluster.withheld = false;
        let until = now + self.activation();
        self.teks.release(until);
        self.changed = true;
    }

    /// Makes keys without a member that asks for them: sub-servers have members of their own.
    /// Returns whether any were missing.
    ///
    /// # Errors
    /// No randomness, or an algorithm that cannot be used.
    pub fn make_keys(
        &mut self,
        keys: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<bool, PullError> {
        let has_kek = self.rekey_sa.as_ref().is_none_or(|rekey_sa| rekey_sa.kek().is_some());
        if has_kek && !self.teks.wants(super::tek_schedule::Renewal::Missing, now) {
            return Ok(false);
        }
        self.look_ahead(keys, now)?;
        self.fulfil_latest(now);
        self.revise();
        Ok(true)
    }

    /// Distributes another generation, relays what our members have missed of it, and forgets those
    /// that it does not lead on. With `hold`, members that register until then get the keys before.
    pub fn adopt(
        &mut self,
        shared: Shared,
        generation: Generation,
        hold: bool,
        now: BootTime,
    ) -> Adopted {
        let Shared { config, mut teks, mut rekey_sa, removed, division } = shared;
        let kek = self.rekey_sa.as_ref().and_then(RekeySa::kek);
        let before = kek.map(|kek| (kek.spi(), kek.sequence_number()));
        let missed = match (&rekey_sa, before) {
            (Some(new), Some((spi, number))) => new.missed(&spi, number),
            (None, Some(_)) => Missed { dead: true, ..Missed::default() },
            (_, None) => Missed::default(),
        };
        self.take_over_leaves(&mut rekey_sa, now);
        if let (Some(new), Some(old)) = (&mut rekey_sa, &mut self.rekey_sa) {
            new.counters = old.counters();
            std::mem::swap(&mut new.abandoned, &mut old.abandoned);
        }
        self.cluster.served = Some(config);
        if hold {
            teks.release(now + self.activation());
        }
        (self.teks, self.rekey_sa, self.removed) = (teks, rekey_sa, removed);
        self.prospect = None;
        self.take_division(division, now);
        if !missed.dead {
            self.forget_removed(now);
        }
        let relayed = missed.pushes.len();
        for push in missed.pushes {
            let Some(rekey_sa) = &self.rekey_sa else { break };
            let (policy, path) = (rekey_sa.settings.delivery, rekey_sa.settings.path.clone());
            let audience = Audience { recipients: self.recipients(), policy, path };
            self.begin(push, audience, "relayed");
        }
        let forgotten = match missed.dead {
            true => self.forget_kek_holders(now).len(),
            false => 0,
        };
        self.cluster.generation = generation;
        self.cluster.prepared =
            self.cluster.prepared.take().filter(|prepared| prepared.generation > generation);
        self.changed = true;
        Adopted { relayed, forgotten }
    }

    /// The key hierarchy leads the others on: new keys are not relayed to removed members.
    fn forget_removed(&mut self, now: BootTime) {
        let removed = self.registry.iter().filter(|(_, one)| self.removed.contains(&*one.name));
        let removed = removed.map(|(id, _)| id.clone()).collect();
        self.forget_members(&removed, now);
    }

    /// When a push should have come, and when the first of the keys ends.
    pub fn lifetimes(&self) -> (Option<BootTime>, Option<BootTime>) {
        let Some(rekey_sa) = &self.rekey_sa else { return (None, None) };
        let settling = self.settling();
        let soft = self.teks.next_push(rekey_sa.lead(settling));
        let soft = soft.into_iter().chain(rekey_sa.next_roll(settling)).min();
        let current = self.teks.slots().iter().filter_map(|slot| slot.current.as_ref());
        let ends = current.map(|tek| tek.lifetime.ends);
        let hard = ends.chain(rekey_sa.kek().map(|kek| kek.ends())).min();
        (soft.map(|soft| soft + self.cluster_wait()), hard)
    }

    /// Forgets all members: their keys have ended. Nobody is told anything. Returns how many there
    /// were.
    pub fn forget_all(&mut self, now: BootTime) -> usize {
        self.forget_kek_holders(now).len()
    }

    /// Whether one more member would be too many for the group here.
    pub fn is_full_for(&self, member: &MemberId) -> bool {
        let threshold = self.config.member_threshold;
        threshold.is_some_and(|most| self.registry.len() >= most)
            && self.registry.find(member).is_none()
    }

    /// Whether the keys that there are come from the kind of server that `config` makes this one.
    pub(crate) fn fits_role(&self, config: &config::Group) -> bool {
        let is_sub = config.cluster.as_ref().is_some_and(|one| one.role == Role::SubServer);
        self.rekey_sa.as_ref().is_none_or(|rekey_sa| rekey_sa.is_relaying() == is_sub)
    }

    /// This server has become a sub-server, or is none any more: the keys that there are go, and
    /// members are told where that can be done. Members of a sub-server cannot be told: who
    /// registers gets the TEKs that the others hold until those end. Sender identifiers were the
    /// root's, and such TEKs go.
    pub(super) fn change_role(&mut self, keys: &mut KeySource<'_>, now: BootTime) {
        let was_relaying = self.rekey_sa.as_ref().is_some_and(RekeySa::is_relaying);
        // Without a signing key nobody can be told: members come when their keys end.
        let _ = self.delete_all("configuration: role in the cluster", keys, now);
        self.forget_kek_holders(now);
        if !was_relaying || has_counter_mode(self.served()) {
            self.teks.clear();
        }
        (self.rekey_sa, self.prospect) = (None, None);
        self.sender_ids = SenderIdPool::new(self.config.sender_id_bits);
        self.cluster = Membership { revision: self.cluster.revision, ..Membership::default() };
        self.changed = true;
    }
}
