//! Another configuration while the server runs: only what differs changes anything.
//!
//! | change | what follows |
//! |---|---|
//! | phase 1, our identity | all ISAKMP SAs end |
//! | key, identity or address of a member | its ISAKMP SAs end |
//! | a member goes, or loses a group | its ISAKMP SAs end; it is evicted as by `gdoictl remove` |
//! | a group goes, or gets another number | all its keys are deleted, its members' ISAKMP SAs end |
//! | algorithms or lifetime of a TEK | with the next TEK |
//! | traffic selectors of a TEK | the TEK is deleted at once, and a new one pushed |
//! | a TEK comes | it is made and pushed |
//! | `[group.rekey]` comes | members are forgotten, and get a KEK when they pull |
//! | `[group.rekey]` changes | with the next KEK; with another signing key, as if it went and came |
//! | `[group.rekey]` goes | the KEK is deleted; members register again |
//!
//! A restart with sealed state does the same for what changed while the server was down.

use std::collections::BTreeSet;

use gdoi::BootTime;
use gdoi::config::Identity;
use gdoi::group::GroupId;

use super::command::Evicted;
use super::{KeyServer, server_config};
use crate::config::{self, Config, Member};
use crate::group::Group;
use crate::group::key_generation::Entropy;
use crate::group::signing_key::SigningKeys;
use crate::members::authorization::Authorization;
use crate::members::registry::MemberId;

impl<E: Entropy> KeyServer<E> {
    /// Takes over `config`, whose groups sign pushes with `keys`. Returns what changed, a line
    /// each; none if the configuration is the one that there was.
    pub fn reload(&mut self, config: Config, keys: &SigningKeys, now: BootTime) -> Vec<String> {
        let mut changes = Vec::new();
        self.reload_phase1(&config, &mut changes);
        let members = std::mem::replace(&mut self.members, config.members.clone());
        self.size_hierarchies();
        self.reload_groups(config.groups, keys, &mut changes, now);
        self.reload_members(&members, &mut changes, now);
        self.changed |= !changes.is_empty();
        self.settle(now);
        changes
    }

    fn reload_phase1(&mut self, config: &Config, changes: &mut Vec<String>) {
        let (new, old) = (server_config(config), self.server.config());
        let ends = old.phase1 != new.phase1 || old.identity != new.identity;
        let other = old.limits != new.limits || old.group_id_byte_order != new.group_id_byte_order;
        let members = self.members != config.members;
        if ends || other || members {
            // First of all, so that nobody gets in by what has gone.
            self.authorization = Authorization::new(&config.members);
            self.server.reconfigure(new);
        }
        if other {
            changes.push(String::from("limits or interoperability: in effect now"));
        }
        if ends {
            let count = self.server.delete_peers();
            changes.push(format!("phase 1: {count} ISAKMP SAs ended"));
        }
    }

    pub(super) fn reload_members(
        &mut self,
        old: &[Member],
        changes: &mut Vec<String>,
        now: BootTime,
    ) {
        for before in old {
            let after = self.members.iter().find(|after| after.name == before.name).cloned();
            if after.as_ref() == Some(before) {
                continue;
            }
            let kept = after.as_ref().map(|after| after.groups.clone()).unwrap_or_default();
            let lost: Vec<GroupId> = before.groups.difference(&kept).copied().collect();
            let alike = |after: &Member| {
                after.addresses == before.addresses
                    && after.identity == before.identity
                    && after.pre_shared_key == before.pre_shared_key
            };
            if !after.as_ref().is_some_and(alike) || !lost.is_empty() {
                let ended: usize = self
                    .identities_of(before)
                    .iter()
                    .map(|identity| self.server.delete_peer(identity, now))
                    .sum();
                changes.push(format!("member {}: {ended} ISAKMP SAs ended", before.name));
            }
            for group in lost {
                self.lose(group, &before.name, changes, now);
            }
        }
        for name in self.members.iter().map(|after| &after.name) {
            if !old.iter().any(|before| before.name == *name) {
                changes.push(format!("member {name}: may register"));
            }
        }
        let members = &self.members;
        for group in self.groups.values_mut() {
            group.retain_removed(|name| members.iter().any(|member| member.name == name));
        }
    }

    /// A member may not have a group any more.
    fn lose(&mut self, id: GroupId, member: &str, changes: &mut Vec<String>, now: BootTime) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let name = group.name().clone();
        if !group.may_hold_keys(member) && group.identities_of(member).is_empty() {
            return;
        }
        if group.rekey_sa().is_none() {
            let ids: Vec<MemberId> =
                group.registry().named(member).map(|(id, _)| id.clone()).collect();
            group.forget_members(&ids, now);
            changes.push(format!(
                "member {member} of group {name} forgotten: its keys end by themselves"
            ));
            return;
        }
        changes.push(match self.evict(id, member, "configuration: a member has gone", now) {
            Ok(eviction) => Evicted { member, group: &name, eviction, now }.to_string(),
            Err(error) => {
                format!("member {member} cannot be evicted from group {name}: {error}")
            }
        });
    }

    pub(super) fn reload_groups(
        &mut self,
        groups: Vec<config::Group>,
        keys: &SigningKeys,
        changes: &mut Vec<String>,
        now: BootTime,
    ) {
        let is_kept = |state: &Group| {
            groups.iter().any(|group| group.name == state.config().name && group.id == state.id())
        };
        let gone = self.groups.values().filter(|state| !is_kept(state));
        let gone: Vec<GroupId> = gone.map(Group::id).collect();
        for group in gone {
            self.end_group(group, changes, now);
        }
        for config in groups {
            let signing_key = keys.get(&config.name).cloned();
            let Ok((group, mut source)) = self.group_mut(config.id) else {
                changes.push(format!("group {}: new", config.name));
                self.groups.insert(config.id, Group::new(config, signing_key));
                continue;
            };
            if *group.config() != config
                || group.is_signing_key_changed(&config, signing_key.as_deref())
            {
                changes.extend(group.reconfigure(config, signing_key, &mut source, now));
            }
        }
        self.size_hierarchies();
        self.dispatch(now);
    }

    /// Deletes all keys, ISAKMP SAs and members of a group, and the group.
    fn end_group(&mut self, id: GroupId, changes: &mut Vec<String>, now: BootTime) {
        let Ok((group, mut keys)) = self.group_mut(id) else { return };
        let identities: BTreeSet<Identity> =
            group.registry().iter().map(|(id, _)| id.identity.clone()).collect();
        let name = group.name().clone();
        let told = group.delete_all("group gone", &mut keys, now).map_or(0, |push| push.members);
        for identity in &identities {
            self.server.delete_peer(identity, now);
        }
        // What its members are told goes out without it.
        self.dispatch(now);
        self.groups.remove(&id);
        changes.push(format!("group {name}: gone; {told} members told to delete its keys"));
    }

    /// Who may have proved to be this member.
    fn identities_of(&self, member: &Member) -> BTreeSet<Identity> {
        let registered = self.groups.values().flat_map(|group| {
            group.registry().named(&member.name).map(|(id, _)| id.identity.clone())
        });
        let own = member.identity.clone().unwrap_or(Identity::Address(member.addresses.addr()));
        registered.chain([own]).collect()
    }
}
