//! Another configuration while the server runs: only what differs changes anything.
//!
//! | change | what follows |
//! |---|---|
//! | phase 1, our identity | all ISAKMP SAs end |
//! | key, identity or address of a member | its ISAKMP SAs end |
//! | name of a member | nothing; who was removed stays removed, whoever has the name now |
//! | a member goes, or loses a group | its ISAKMP SAs end; it is evicted as by `gdoictl remove` |
//! | a group goes | all its keys are deleted, its members' ISAKMP SAs end |
//! | name or number of a group | as if it went and came; who was removed stays removed |
//! | algorithms or lifetime of a TEK | with the next TEK |
//! | traffic selectors of a TEK | the TEK is deleted at once, and a new one pushed |
//! | a TEK comes | it is made and pushed |
//! | `[group.rekey]` comes | members are forgotten, and get a KEK when they pull |
//! | `[group.rekey]` changes | with the next KEK; with another signing key, as if it went and came |
//! | `[group.rekey]` goes | the KEK is deleted; members register again |
//!
//! A restart with sealed state does the same for what changed while the server was down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use gdoi::group::GroupId;
use ike::BootTime;
use ike::config::Identity;

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
        let ended = self.reload_phase1(&config, &mut changes);
        let members = std::mem::replace(&mut self.members, config.members);
        self.size_hierarchies();
        self.reload_members(&members, &config.groups, ended, &mut changes, now);
        self.reload_groups(config.groups, keys, &mut changes, now);
        self.changed |= !changes.is_empty();
        self.settle(now);
        changes
    }

    /// Ends what the new configuration does not allow any more. Returns how many ISAKMP SAs of each
    /// member ended.
    fn reload_phase1(
        &mut self,
        config: &Config,
        changes: &mut Vec<String>,
    ) -> BTreeMap<Arc<str>, usize> {
        let mut ended = BTreeMap::new();
        let (new, old) = (server_config(config), self.server.config());
        let all = old.phase1 != new.phase1 || old.identity != new.identity;
        let other = old.limits != new.limits || old.group_id_byte_order != new.group_id_byte_order;
        if other {
            changes.push(String::from("limits or interoperability: in effect now"));
        }
        if all || other || self.members != config.members {
            // First of all, so that nobody gets in by what has gone.
            let before = &self.authorization;
            let peers = self.server.reconfigure(new);
            match all {
                true => changes.push(format!("phase 1: {} ISAKMP SAs ended", peers.len())),
                false => count_by_member(&mut ended, before, &peers),
            }
            self.authorization = Authorization::new(&config.members);
        }
        ended
    }

    /// Comes before [`KeyServer::reload_groups`]: who goes is left behind by the keys that there
    /// are. A group whose KEK is replaced forgets its members, those that keep its TEKs as well.
    pub(super) fn reload_members(
        &mut self,
        old: &[Member],
        groups: &[config::Group],
        mut ended: BTreeMap<Arc<str>, usize>,
        changes: &mut Vec<String>,
        now: BootTime,
    ) {
        let successors = successors(old, &self.members);
        let renamed = successors.iter().filter(|(before, after)| **before != after.name);
        let renamed: BTreeMap<&str, Arc<str>> =
            renamed.map(|(before, after)| (*before, after.name.as_str().into())).collect();
        self.groups.values_mut().for_each(|group| group.rename_members(&renamed));
        for before in old {
            let after = successors.get(before.name.as_str()).cloned();
            if after.as_ref() == Some(before) {
                continue;
            }
            if let Some(name) = renamed.get(before.name.as_str()) {
                changes.push(format!("member {}: its name is {name} now", before.name));
            }
            let kept = after.as_ref().map(|after| &after.groups);
            let may = |group: &&GroupId| kept.is_some_and(|kept| kept.contains(group));
            if before.groups.iter().any(|group| !may(&group)) {
                // Breaks off its pulls, too.
                let now_at = |source: SocketAddr| self.authorization.member_at(source.ip());
                let is_meant = |source: SocketAddr| {
                    let name = now_at(source).map(AsRef::as_ref);
                    after.as_ref().is_some_and(|after| name == Some(after.name.as_str()))
                };
                let count = self.server.delete_peers(is_meant).len();
                *ended.entry(before.name.as_str().into()).or_default() += count;
            }
            let gained = after.iter().flat_map(|after| after.groups.difference(&before.groups));
            let named = |id| Some(groups.iter().find(|group| group.id == id)?.name.as_str());
            let gained: Vec<&str> = gained.copied().filter_map(named).collect();
            if !gained.is_empty() {
                let groups = gained.join(", ");
                changes.push(format!("member {}: may register for {groups}", before.name));
            }
            let count = ended.remove(before.name.as_str());
            if count.is_some() || !after.as_ref().is_some_and(|after| is_same_peer(after, before)) {
                let count = count.unwrap_or_default();
                changes.push(format!("member {}: {count} ISAKMP SAs ended", before.name));
            }
        }
        // Hosts for which another member is meant now.
        for (name, count) in ended {
            changes.push(format!("member {name}: {count} ISAKMP SAs ended"));
        }
        for name in self.members.iter().map(|after| after.name.as_str()) {
            if !successors.values().any(|after| after.name == name) {
                changes.push(format!("member {name}: may register"));
            }
        }
        self.settle(now);
        // A group that goes takes its members with it.
        let kept = self.groups.values().filter(|state| is_kept(state, groups));
        let kept: Vec<GroupId> = kept.map(Group::id).collect();
        for group in kept {
            self.evict_unauthorized(group, changes, now);
        }
    }

    /// Leaves those behind who have keys of a group and may not have them any more.
    fn evict_unauthorized(&mut self, id: GroupId, changes: &mut Vec<String>, now: BootTime) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let group_name = group.name().to_string();
        let unauthorized = group.reauthorize(|member| {
            let MemberId { identity, address } = member;
            self.authorization.check(identity, *address, id, Some(&group_name)).ok()
        });
        if unauthorized.is_empty() {
            return;
        }
        let names: BTreeSet<&str> = unauthorized.values().map(AsRef::as_ref).collect();
        let member = names.into_iter().collect::<Vec<_>>().join(", ");
        let ids: BTreeSet<MemberId> = unauthorized.keys().cloned().collect();
        if group.rekey_sa().is_none() {
            group.forget_members(&ids, now);
            changes.push(format!(
                "member {member} of group {group_name} forgotten: its keys end by themselves"
            ));
            return;
        }
        let Ok((group, mut keys)) = self.group_mut(id) else { return };
        let purpose = "configuration: a member has gone";
        changes.push(match group.evict(&ids, purpose, &mut keys, now) {
            Ok(eviction) => {
                let (member, group) = (member.as_str(), group_name.as_str());
                Evicted { member, group, eviction, now }.to_string()
            }
            Err(error) => {
                format!("member {member} cannot be evicted from group {group_name}: {error}")
            }
        });
        self.settle(now);
    }

    pub(super) fn reload_groups(
        &mut self,
        groups: Vec<config::Group>,
        keys: &SigningKeys,
        changes: &mut Vec<String>,
        now: BootTime,
    ) {
        let gone = self.groups.values().filter(|state| !is_kept(state, &groups));
        let removed =
            gone.clone().map(|state| (state.id(), state.name().clone(), state.removed().clone()));
        let removed: Vec<_> = removed.collect();
        let gone: Vec<GroupId> = gone.map(Group::id).collect();
        for group in gone {
            self.end_group(group, changes, now);
        }
        for config in groups {
            let signing_key = keys.get(&config.name).cloned();
            let Ok((group, mut source)) = self.group_mut(config.id) else {
                changes.push(format!("group {}: new", config.name));
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
}

fn is_kept(state: &Group, groups: &[config::Group]) -> bool {
    groups.iter().any(|group| group.name == state.config().name && group.id == state.id())
}

/// What has become of each member: the same peer, whatever its name, or else what has its name and
/// is none of the peers before.
fn successors<'a>(old: &'a [Member], new: &[Member]) -> BTreeMap<&'a str, Member> {
    let same = |before: &Member| new.iter().find(|after| is_same_peer(after, before));
    let known: BTreeSet<&str> =
        old.iter().filter_map(same).map(|after| after.name.as_str()).collect();
    let named = |before: &Member| {
        let mut others = new.iter().filter(|after| !known.contains(after.name.as_str()));
        others.find(|after| after.name == before.name)
    };
    old.iter()
        .filter_map(|before| {
            Some((before.name.as_str(), same(before).or_else(|| named(before))?.clone()))
        })
        .collect()
}

/// Whether the same peer is meant, whatever its name: it proves the same from the same place with
/// the same key.
fn is_same_peer(one: &Member, other: &Member) -> bool {
    one.addresses == other.addresses
        && one.identity == other.identity
        && one.pre_shared_key == other.pre_shared_key
}

fn count_by_member(
    ended: &mut BTreeMap<Arc<str>, usize>,
    authorization: &Authorization,
    peers: &[SocketAddr],
) {
    for name in peers.iter().filter_map(|peer| authorization.member_at(peer.ip())) {
        *ended.entry(Arc::clone(name)).or_default() += 1;
    }
}
