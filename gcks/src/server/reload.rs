//! Another configuration while the server runs: only what differs changes anything.
//!
//! | change | what follows |
//! |---|---|
//! | phase 1, our identity | all ISAKMP SAs end |
//! | key, identity or address of a member | its ISAKMP SAs end |
//! | `group-id-byte-order` of a member, `[group.interoperability]` | with the next message |
//! | name of a member | nothing; who was removed stays removed, whoever has the name now |
//! | a member goes, or loses a group | its ISAKMP SAs end; it is evicted as by `gdoictl remove` |
//! | a group goes | all its keys are deleted, its members' ISAKMP SAs end |
//! | name or number of a group | as if it went and came; who was removed stays removed |
//! | algorithms or lifetime of a TEK | with the next TEK |
//! | counter mode instead of another | the same, and the KEK is deleted: members register again |
//! | traffic selectors of a TEK | the TEK is deleted at once, and a new one pushed |
//! | the same where not all members get pushes | all TEKs are replaced when members come again |
//! | a TEK comes | it is made and pushed |
//! | width of sender identifiers | all keys are deleted; without pushes, with the next TEKs |
//! | `[group.rekey]` comes | members are forgotten, and get a KEK when they pull |
//! | `[group.rekey]` changes | with the next KEK; with another signing key, as if it went and came |
//! | `[group.rekey]` goes | the KEK is deleted; members register again |
//!
//! A restart with sealed state does the same for what changed while the server was down. What is
//! done is decided by [`plan`](super::plan), which `gdoictl reload --dry-run` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gdoi::group::GroupId;
use ike::BootTime;
use ike::config::Identity;

use super::plan::{Ended, Succession, is_kept};
use super::{KeyServer, server_config};
use crate::config::change::Change;
use crate::config::cluster::Role;
use crate::config::{self, Config, Member};
use crate::group::Group;
use crate::group::event::Event;
use crate::group::key_generation::Entropy;
use crate::group::signing_key::SigningKeys;
use crate::members::authorization::Authorization;
use crate::members::registry::MemberId;

impl<E: Entropy> KeyServer<E> {
    /// Takes over `config`, whose groups sign pushes with `keys`. Returns what changed; nothing if
    /// the configuration is the one that there was.
    pub fn reload(&mut self, config: Config, keys: &SigningKeys, now: BootTime) -> Vec<Change> {
        let changes = self.plan(&config, keys);
        // First of all, so that nobody gets in by what has gone.
        self.server.reconfigure(server_config(&config));
        self.authorization = Authorization::new(&config.members);
        self.certificates = config.certificates;
        let members = std::mem::replace(&mut self.members, config.members);
        self.unsaved.members |= members != self.members;
        self.unsaved.changed |= self.unsaved.members;
        self.most_members = config.most_members;
        self.take_credentials(config.servers, now);
        self.size_hierarchies();
        self.reload_members(&members, &config.groups, now);
        self.reload_groups(config.groups, keys, now);
        self.take_sides(now);
        self.unsaved.changed |= !changes.is_empty();
        self.settle(now);
        changes
    }

    /// What a restart changes whose state was written with the members `old`; then does it.
    pub(super) fn reload_restored(
        &mut self,
        old: &[Member],
        groups: Vec<config::Group>,
        keys: &SigningKeys,
        now: BootTime,
    ) -> Vec<Change> {
        // No ISAKMP SA outlives a restart.
        let after = (self.members.as_slice(), &self.authorization);
        let changes = self.plan_members_and_groups(old, after, &groups, keys, &Ended::default());
        self.reload_members(old, &groups, now);
        self.reload_groups(groups, keys, now);
        changes
    }

    /// Comes before [`KeyServer::reload_groups`]: who goes is left behind by the keys that there
    /// are. A group whose KEK is replaced forgets its members, those that keep its TEKs as well.
    fn reload_members(&mut self, old: &[Member], groups: &[config::Group], now: BootTime) {
        let succession = Succession::new(old, &self.members);
        let renamed = succession.renamed();
        self.groups.values_mut().for_each(|group| group.rename_members(&renamed));
        let leaving: BTreeSet<String> =
            succession.leaving().map(|(_, after)| after.name.clone()).collect();
        if !leaving.is_empty() {
            // Breaks off their pulls, too.
            let authorization = &self.authorization;
            self.server.delete_peers(|source, identity| {
                let name = authorization.member_of(identity, source.ip());
                name.is_some_and(|name| leaving.contains(name.as_ref()))
            });
        }
        self.settle(now);
        // A group that goes takes its members with it.
        let kept = self.groups.values().filter(|state| is_kept(state, groups));
        let kept: Vec<GroupId> = kept.map(Group::id).collect();
        for group in kept {
            self.evict_unauthorized(group, old, now);
        }
    }

    /// Leaves those behind, all at once, who have keys of a group and may not have them any more.
    fn evict_unauthorized(&mut self, id: GroupId, old: &[Member], now: BootTime) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let group_name = group.name().to_string();
        let authorize = |member: &MemberId| {
            let MemberId { identity, address } = member;
            self.authorization.check(identity, *address, id, (Some(&group_name), None)).ok()
        };
        let unauthorized = group.unauthorized(&BTreeMap::new(), authorize);
        group.reassign(|member| authorize(member).filter(|_| !unauthorized.contains_key(member)));
        let had = |name: &str, all: &[Member]| {
            all.iter().any(|one| one.name == name && one.groups.contains(&id))
        };
        // At other servers are members that this configuration never had.
        let lost = |name: &str| had(name, old) && !had(name, &self.members);
        let is_somebody_lost = old.iter().any(|one| lost(&one.name));
        let lost: Vec<MemberId> = group.named_elsewhere(lost).cloned().collect();
        let ids: BTreeSet<MemberId> = unauthorized.into_keys().chain(lost).collect();
        let purpose = "configuration: a member has gone";
        if is_somebody_lost && group.has_strangers() {
            // It may be one of them.
            let Ok((group, mut keys)) = self.group_mut(id) else { return };
            if let Err(error) = group.delete_all(purpose, &mut keys, now) {
                group.note(Event::PushFailed { error });
            }
            self.settle(now);
            return;
        }
        if ids.is_empty() {
            return;
        }
        if group.rekey_sa().is_none() {
            group.forget_members(&ids, now);
            return;
        }
        let Ok((group, mut keys)) = self.group_mut(id) else { return };
        if group.role() == Some(Role::SubServer) {
            // New keys without it are the root's to make; nothing is relayed to it any more.
            group.forget_members(&ids, now);
            return;
        }
        if let Err(error) = group.evict(&ids, purpose, &mut keys, now) {
            group.note(Event::PushFailed { error });
        }
        self.settle(now);
    }

    fn reload_groups(&mut self, groups: Vec<config::Group>, keys: &SigningKeys, now: BootTime) {
        let gone = self.groups.values().filter(|state| !is_kept(state, &groups));
        let removed =
            gone.clone().map(|state| (state.id(), state.name().clone(), state.removed().clone()));
        let removed: Vec<_> = removed.collect();
        let gone: Vec<GroupId> = gone.map(Group::id).collect();
        for group in gone {
            self.end_group(group, now);
        }
        for config in groups {
            let signing_key = keys.get(&config.name).cloned();
            let Ok((group, mut source)) = self.group_mut(config.id) else {
                // Under another name or number it is the same to those who were removed from it.
                let same = removed
                    .iter()
                    .filter(|(id, name, _)| *id == config.id || **name == *config.name);
                let removed: BTreeSet<&String> = same.flat_map(|(_, _, removed)| removed).collect();
                let mut group = Group::new(config, signing_key);
                removed.into_iter().for_each(|member| _ = group.remove(member));
                self.groups.insert(group.id(), group);
                continue;
            };
            if *group.config() != config
                || !group.fits_role(&config)
                || group.is_signing_key_changed(&config, signing_key.as_deref())
            {
                let id = group.id();
                group.reconfigure(config, signing_key, &mut source, now);
                self.compare_with_root(id, now);
            }
        }
        self.size_hierarchies();
        self.dispatch(now);
    }

    /// Deletes all keys, ISAKMP SAs and members of a group, and the group.
    fn end_group(&mut self, id: GroupId, now: BootTime) {
        let Ok((group, mut keys)) = self.group_mut(id) else { return };
        let identities: BTreeSet<Identity> =
            group.registry().iter().map(|(id, _)| id.identity.clone()).collect();
        // A group without pushes or members has nobody to tell.
        let _ = group.delete_all("group gone", &mut keys, now);
        for identity in &identities {
            self.server.delete_peer(identity, now);
        }
        self.end_at_sub_servers(id, now);
        // What its members are told goes out without it.
        self.dispatch(now);
        self.groups.remove(&id);
        self.cluster.forget(id);
        self.unsaved.gone.insert(id);
        self.unsaved.changed = true;
    }
}

/// The names that members have now by the names that they had.
pub(super) type Renamed<'a> = BTreeMap<&'a str, Arc<str>>;
