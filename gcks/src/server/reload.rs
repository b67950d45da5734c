//! Another configuration while the server runs: only what differs changes anything.
//!
//! | change | what follows |
//! |---|---|
//! | phase 1, our identity | all ISAKMP SAs end |
//! | key, identity or address of a member | its ISAKMP SAs end |
//! | a member goes, or loses a group | its ISAKMP SAs end; it is excluded as by `gdoictl remove` |
//! | a group goes, or gets another number | all its keys are deleted, its members' ISAKMP SAs end |
//! | algorithms or life of a TEK | with the next TEK |
//! | lines of a TEK | the TEK is deleted at once, and a new one pushed |
//! | a TEK comes | it is made and pushed |
//! | `[group.rekey]` comes | members are forgotten, and get a KEK when they pull |
//! | `[group.rekey]` changes | with the next KEK; with another signing key, as if it went and came |
//! | `[group.rekey]` goes | the KEK is deleted; members register again |
//!
//! A restart with sealed state does the same for what changed while the server was down.

use std::collections::BTreeSet;
use std::sync::Arc;

use gdoi::BootTime;
use gdoi::config::Identity;
use gdoi::group::{GroupId, TekProtocol};
use gdoi::push::Deletion;

use crate::config::{Config, Group, Member};
use crate::group::event::Event;
use crate::group::key_generation::Entropy;
use crate::group::rekey_sa::RekeySa;
use crate::group::sender_ids::SenderIdPool;
use crate::group::signing_key::SigningKeys;
use crate::members::authorization::Authorization;
use crate::server::{GroupState, KeyServer, server_config};

impl<E: Entropy> KeyServer<E> {
    /// Takes over `config`, whose groups sign pushes with `keys`. Returns what changed, a line
    /// each; none if the configuration is the one that there was.
    pub fn reload(&mut self, config: Config, keys: &SigningKeys, now: BootTime) -> Vec<String> {
        let mut changes = Vec::new();
        self.reload_phase1(&config, &mut changes);
        let members = std::mem::replace(&mut self.members, config.members.clone());
        self.reload_groups(config.groups, keys, &mut changes, now);
        self.reload_members(&members, &mut changes, now);
        self.changed |= !changes.is_empty();
        self.handle_events(now);
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

    pub(crate) fn reload_members(
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
        self.removed.retain(|(_, name)| members.iter().any(|member| member.name == *name));
    }

    /// A member may not have a group any more.
    fn lose(&mut self, group: GroupId, member: &str, changes: &mut Vec<String>, now: BootTime) {
        let Some(index) = self.index_of(group) else { return };
        let Some(state) = self.groups.get(index) else { return };
        let (name, pushes) = (Arc::clone(&state.name), state.rekey.is_some());
        let registered =
            self.registry.of_group(group).filter(|(_, entry)| entry.name.as_ref() == member);
        let registered: Vec<Identity> = registered.map(|(identity, _)| identity.clone()).collect();
        let running =
            self.pulls.values().any(|pull| pull.group == group && pull.member.as_ref() == member);
        if registered.is_empty() && !running {
            return;
        }
        if pushes {
            match self.exclude(
                index,
                group,
                (&name, member),
                "configuration: a member has gone",
                now,
            ) {
                Ok(line) => changes.push(line),
                Err(error) => changes
                    .push(format!("member {member} cannot be excluded from group {name}: {error}")),
            }
            return;
        }
        for identity in registered {
            let gone = self.registry.remove(group, &identity);
            if let (Some(sender), Some(state)) =
                (gone.and_then(|gone| gone.sender), self.groups.get_mut(index))
            {
                let last_end = state.schedule.last_end(now);
                state.senders.release(sender, last_end);
            }
        }
        changes
            .push(format!("member {member} of group {name} forgotten: its keys end by themselves"));
    }

    pub(crate) fn reload_groups(
        &mut self,
        groups: Vec<Group>,
        keys: &SigningKeys,
        changes: &mut Vec<String>,
        now: BootTime,
    ) {
        let is_kept = |state: &GroupState| {
            groups.iter().any(|group| group.name == state.group.name && group.id == state.group.id)
        };
        let gone: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|state| !is_kept(state))
            .map(|state| state.group.id)
            .collect();
        for group in gone {
            self.end_group(group, changes, now);
        }
        let mut before = std::mem::take(&mut self.groups);
        let mut changed = Vec::new();
        for group in groups {
            match before.iter().position(|state| state.group.id == group.id) {
                Some(place) => {
                    let state = before.swap_remove(place);
                    if state.group != group || signing_key_changed(&state, &group, keys) {
                        changed.push(group);
                    }
                    self.groups.push(state);
                }
                None => {
                    changes.push(format!("group {}: new", group.name));
                    self.groups.push(GroupState::new(group, keys));
                }
            }
        }
        for group in changed {
            self.change_group(group, keys, changes, now);
        }
    }

    /// Deletes all keys, ISAKMP SAs and members of a group, and the group.
    fn end_group(&mut self, group: GroupId, changes: &mut Vec<String>, now: BootTime) {
        let Some(index) = self.index_of(group) else { return };
        let identities: BTreeSet<Identity> =
            self.registry.of_group(group).map(|(identity, _)| identity.clone()).collect();
        let told = self.delete_all(index, "group gone", now).map_or(0, |pushed| pushed.members);
        for identity in &identities {
            self.server.delete_peer(identity, now);
        }
        self.registry.remove_group(group);
        self.removed.retain(|(of, _)| *of != group);
        let state = self.groups.remove(index);
        changes.push(format!("group {}: gone; {told} members told to delete its keys", state.name));
    }

    fn change_group(
        &mut self,
        group: Group,
        keys: &SigningKeys,
        changes: &mut Vec<String>,
        now: BootTime,
    ) {
        let Some(index) = self.index_of(group.id) else { return };
        let Some(state) = self.groups.get_mut(index) else { return };
        let name = Arc::clone(&state.name);
        let old = std::mem::replace(&mut state.group, group.clone());
        let lives = state.schedule.reconfigure(&group.teks);
        if old.sender_id_bits != group.sender_id_bits && state.senders.held().0.is_empty() {
            state.senders = SenderIdPool::new(group.sender_id_bits);
        }
        let signing = keys.get(&group.name).map(Arc::clone);
        let other_key = signing_key_changed(state, &group, keys);
        match (state.rekey.is_some(), group.rekey.clone().zip(signing)) {
            (true, after) if after.is_none() || other_key => {
                let told = self.delete_kek(index, now);
                changes.push(format!(
                    "group {name}: KEK deleted, {told} members told; they register again"
                ));
                if let Some(state) = self.groups.get_mut(index) {
                    state.rekey =
                        after.and_then(|(settings, signing)| RekeySa::new(settings, signing).ok());
                }
            }
            (false, Some((settings, signing))) => {
                state.rekey = RekeySa::new(settings, signing).ok();
                let last_end = state.schedule.last_end(now);
                state.senders.release_all(last_end);
                self.registry.remove_group(group.id);
                changes.push(format!(
                    "group {name}: has pushes for members that register from now on"
                ));
            }
            _ if old.rekey != group.rekey => {
                changes.push(format!("group {name}: rekey in effect with the next KEK"))
            }
            _ => {}
        }
        if old.gap != group.gap || old.sender_id_bits != group.sender_id_bits {
            changes.push(format!(
                "group {name}: delays and sender identifiers in effect with the next keys"
            ));
        }
        if old.teks != group.teks {
            let deletions: Vec<Deletion> =
                lives.iter().map(|life| Deletion::Tek(TekProtocol::ESP, life.spi)).collect();
            changes.push(match deletions.len() {
                0 => format!("group {name}: TEKs in effect with the next keys"),
                count => format!("group {name}: {count} TEKs deleted because their lines changed"),
            });
            if let Err(error) = self.push_lines(index, deletions, now) {
                self.events.push_back(Event::PushFailed { group: name, error: error.to_string() });
            }
        }
    }

    /// Who may have proved to be this member.
    fn identities_of(&self, member: &Member) -> BTreeSet<Identity> {
        let registered =
            self.registry.iter().filter(|(_, _, entry)| entry.name.as_ref() == member.name);
        let own = member.identity.clone().unwrap_or(Identity::Address(member.addresses.addr()));
        registered.map(|(_, identity, _)| identity.clone()).chain([own]).collect()
    }
}

/// Whether the group's pushes are to be signed with another key than so far.
fn signing_key_changed(state: &GroupState, group: &Group, keys: &SigningKeys) -> bool {
    let (Some(rekey), Some(_)) = (&state.rekey, &group.rekey) else { return false };
    let new = keys.get(&group.name).and_then(|key| key.public_key_der().ok());
    new.is_some_and(|new| new != rekey.public_key)
}
