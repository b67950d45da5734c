//! What an operator wishes: new keys now, keys gone, a member out.
//!
//! A removed member holds the KEK. With a key hierarchy the others are led to a new one that it
//! cannot reach; without, all keys are deleted and everybody else registers again (RFC 6407 §7.4).

use std::sync::Arc;

use gdoi::BootTime;
use gdoi::config::Identity;
use gdoi::group::GroupId;
use thiserror::Error as ThisError;

use crate::group::key_generation::Entropy;
use crate::group::push::{Order, PushError, Pushed};
use crate::group::tek_schedule::Renewal;
use crate::server::KeyServer;

/// Why a wish was not carried out.
#[derive(Debug, ThisError)]
pub enum CommandError {
    /// No such group.
    #[error("there is no group {name}; there are {known}")]
    UnknownGroup {
        /// As typed.
        name: String,
        /// What there is.
        known: String,
    },
    /// No such member of the group.
    #[error("group {group} has no member {member}; see the configuration for its members")]
    UnknownMember {
        /// Name of the group.
        group: String,
        /// As typed.
        member: String,
    },
    /// It need not be let in.
    #[error("member {member} was not removed from group {group}; it may register")]
    NotRemoved {
        /// Name of the group.
        group: String,
        /// Name of the member.
        member: String,
    },
    /// Nothing can be pushed.
    #[error(transparent)]
    Push(#[from] PushError),
}

impl<E: Entropy> KeyServer<E> {
    /// Pushes new TEKs. The old ones go as the group's delays say. What was done, as a line.
    ///
    /// # Errors
    /// There is no such group, or it has no pushes or no keys.
    pub fn rekey(&mut self, group: &str, now: BootTime) -> Result<String, CommandError> {
        let index = self.group_named(group)?;
        let order =
            Order { renewal: Renewal::All, roll: false, delete: false, purpose: "operator: rekey" };
        let pushed = self.push_keys(index, order, now)?;
        Ok(format!("new keys for group {group}: {}", sent(pushed)))
    }

    /// Deletes the TEKs at the members and pushes new ones, in one message. What was done, as a
    /// line.
    ///
    /// # Errors
    /// As for [`KeyServer::rekey`].
    pub fn replace(&mut self, group: &str, now: BootTime) -> Result<String, CommandError> {
        let index = self.group_named(group)?;
        let order = Order {
            renewal: Renewal::All,
            roll: false,
            delete: true,
            purpose: "operator: replace",
        };
        let pushed = self.push_keys(index, order, now)?;
        Ok(format!("old keys of group {group} deleted, new ones sent: {}", sent(pushed)))
    }

    /// Deletes all keys at the members, which register again. What was done, as a line.
    ///
    /// # Errors
    /// As for [`KeyServer::rekey`].
    pub fn delete(&mut self, group: &str, now: BootTime) -> Result<String, CommandError> {
        let index = self.group_named(group)?;
        let pushed = self.delete_all(index, "operator: delete", now)?;
        Ok(format!("all keys of group {group} deleted: {}", sent(pushed)))
    }

    /// Deletes all keys at the members, and forgets the members and their ISAKMP SAs. What was
    /// done, as a line.
    ///
    /// # Errors
    /// As for [`KeyServer::rekey`].
    pub fn remove_all(&mut self, group: &str, now: BootTime) -> Result<String, CommandError> {
        let index = self.group_named(group)?;
        let id = self.groups.get(index).map(|state| state.group.id);
        let members: Vec<Identity> = id
            .into_iter()
            .flat_map(|id| self.registry.of_group(id))
            .map(|(identity, _)| identity.clone())
            .collect();
        let pushed = self.delete_all(index, "operator: remove all", now)?;
        for identity in &members {
            self.server.delete_peer(identity, now);
        }
        self.handle_events(now);
        Ok(format!("all {} members of group {group} removed: {}", members.len(), sent(pushed)))
    }

    /// Takes a member out: it can neither follow to new keys nor register. What was done, as a
    /// line.
    ///
    /// # Errors
    /// There is no such group or member, or the others cannot be told. The member may not register
    /// any more in any case but the first.
    pub fn remove(
        &mut self,
        group: &str,
        member: &str,
        now: BootTime,
    ) -> Result<String, CommandError> {
        let index = self.group_named(group)?;
        let id = self.member_of(index, group, member)?;
        self.removed.insert((id, member.to_owned()));
        self.changed = true;
        self.exclude(index, id, (group, member), "operator: remove a member", now)
    }

    /// Lets a removed member register again. What was done, as a line.
    ///
    /// # Errors
    /// There is no such group, or the member was not removed.
    pub fn admit(&mut self, group: &str, member: &str) -> Result<String, CommandError> {
        let index = self.group_named(group)?;
        let id = self.groups.get(index).map_or(GroupId(0), |state| state.group.id);
        match self.removed.remove(&(id, member.to_owned())) {
            true => {
                self.changed = true;
                Ok(format!("member {member} may register for group {group} again"))
            }
            false => {
                Err(CommandError::NotRemoved { group: group.to_owned(), member: member.to_owned() })
            }
        }
    }

    /// Changes keys so that `member` is left behind.
    pub(crate) fn exclude(
        &mut self,
        index: usize,
        id: GroupId,
        (group, member): (&str, &str),
        purpose: &'static str,
        now: BootTime,
    ) -> Result<String, CommandError> {
        let is_meant = |name: &Arc<str>| name.as_ref() == member;
        let registered = self.registry.of_group(id).filter(|(_, entry)| is_meant(&entry.name));
        let registered: Vec<(Identity, Option<u16>)> =
            registered.map(|(identity, entry)| (identity.clone(), entry.leaf)).collect();
        let running = self.pulls.values().filter(|pull| pull.group == id && is_meant(&pull.member));
        let running: Vec<Identity> = running.map(|pull| pull.identity.clone()).collect();
        // Breaks off what is running, too: no keys leave for it from here on.
        for identity in registered.iter().map(|(identity, _)| identity).chain(&running) {
            self.server.delete_peer(identity, now);
        }
        self.handle_events(now);
        if registered.is_empty() {
            return Ok(format!(
                "member {member} has no keys of group {group} and may not register any more"
            ));
        }
        let leaves: Option<Vec<u16>> = registered.iter().map(|(_, leaf)| *leaf).collect();
        let by_tree =
            leaves.filter(|leaves| self.keeps_tree(index) && self.are_in_tree(index, leaves));
        if self.groups.get(index).is_some_and(|state| state.rekey.is_none()) {
            let ends = registered
                .iter()
                .filter_map(|(identity, _)| self.registry.find(id, identity)?.keys_end);
            let seconds = ends.max().map_or(0, |end| end.saturating_since(now).as_secs());
            return Ok(format!(
                "member {member} may not register for group {group} any more; the keys it has end in {seconds} s, \
                 because the group has no pushes"
            ));
        }
        let Some(leaves) = by_tree else {
            // The member is told like the others: deletes are no secret, and they end what it
            // sends.
            let pushed = self.delete_all(index, purpose, now)?;
            return Ok(format!(
                "member {member} removed from group {group}; all keys deleted, the others register again: {}",
                sent(pushed)
            ));
        };
        let last_end = self.groups.get(index).map_or(now, |state| state.schedule.last_end(now));
        for (identity, _) in &registered {
            let sender = self.registry.remove(id, identity).and_then(|entry| entry.sender);
            if let (Some(sender), Some(state)) = (sender, self.groups.get_mut(index)) {
                state.senders.release(sender, last_end);
            }
        }
        self.roll_by_tree(index, &leaves, purpose, now)?;
        // Without a delay after which the others drop the old TEKs by themselves, the removed one
        // could go on for their whole life.
        let delete = self
            .groups
            .get(index)
            .is_none_or(|state| state.group.gap.deactivation_time_delay.is_none());
        let order = Order { renewal: Renewal::All, roll: false, delete, purpose };
        let pushed = self.push_keys(index, order, now)?;
        Ok(format!(
            "member {member} removed from group {group}; new keys under a KEK that it cannot reach: {}",
            sent(pushed)
        ))
    }

    /// Whether every leaf is one of the group's hierarchy.
    fn are_in_tree(&self, index: usize, leaves: &[u16]) -> bool {
        let rekey = self.groups.get(index).and_then(|state| state.rekey.as_ref());
        let tree = rekey.and_then(|rekey| rekey.kek()?.tree());
        tree.is_some_and(|tree| leaves.iter().all(|leaf| tree.members().contains(leaf)))
    }

    fn group_named(&self, name: &str) -> Result<usize, CommandError> {
        self.groups.iter().position(|state| state.group.name == name).ok_or_else(|| {
            let known: Vec<&str> =
                self.groups.iter().map(|state| state.group.name.as_str()).collect();
            CommandError::UnknownGroup { name: name.to_owned(), known: known.join(", ") }
        })
    }

    fn member_of(&self, index: usize, group: &str, member: &str) -> Result<GroupId, CommandError> {
        let id = self.groups.get(index).map(|state| state.group.id);
        let of_group = |id: &GroupId| {
            self.members.iter().any(|one| one.name == member && one.groups.contains(id))
        };
        let unknown =
            || CommandError::UnknownMember { group: group.to_owned(), member: member.to_owned() };
        id.filter(of_group).ok_or_else(unknown)
    }
}

fn sent(pushed: Pushed) -> String {
    let members = match pushed.members {
        1 => String::from("1 member"),
        members => format!("{members} members"),
    };
    format!("push {} goes to {members}", pushed.sequence_number)
}
