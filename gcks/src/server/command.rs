//! Commands of an operator: new keys now, keys gone, a member out.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use gdoi::group::GroupId;
use ike::BootTime;
use ike::config::Identity;
use thiserror::Error as ThisError;

use super::{KeyServer, UnknownGroup};
use crate::config::cluster::Role;
use crate::group::eviction::Eviction;
use crate::group::key_generation::Entropy;
use crate::group::push::{PushError, Pushed};
use crate::group::push_plan::RekeyRequest;
use crate::group::tek_schedule::Renewal;

/// Why a command was not carried out.
#[derive(Debug, ThisError)]
pub enum CommandError {
    #[error("there is no group {name}; there are {known}")]
    UnknownGroup { name: String, known: String },
    /// The group has gone.
    #[error(transparent)]
    Gone(#[from] UnknownGroup),
    /// No such member of the group.
    #[error("group {group} has no member {member}; see the configuration for its members")]
    UnknownMember {
        /// Name of the group.
        group: String,
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
        let pushed = self.replace_teks(group, false, "operator: rekey", now)?;
        Ok(format!("new keys for group {group}: {pushed}"))
    }

    /// Deletes the TEKs at the members and pushes new ones, in one message. What was done, as a
    /// line.
    ///
    /// # Errors
    /// As for [`KeyServer::rekey`].
    pub fn replace(&mut self, group: &str, now: BootTime) -> Result<String, CommandError> {
        let pushed = self.replace_teks(group, true, "operator: replace", now)?;
        Ok(format!("old keys of group {group} deleted, new ones sent: {pushed}"))
    }

    /// Deletes all keys at the members, which register again. What was done, as a line.
    ///
    /// # Errors
    /// As for [`KeyServer::rekey`].
    pub fn delete(&mut self, group: &str, now: BootTime) -> Result<String, CommandError> {
        let id = self.group_named(group)?;
        let (state, mut keys) = self.group_mut(id)?;
        let pushed = state.delete_all("operator: delete", &mut keys, now)?;
        self.settle(now);
        Ok(format!("all keys of group {group} deleted: {pushed}"))
    }

    /// Deletes all keys at the members, and forgets the members and their ISAKMP SAs. What was
    /// done, as a line.
    ///
    /// # Errors
    /// As for [`KeyServer::rekey`].
    pub fn remove_all(&mut self, group: &str, now: BootTime) -> Result<String, CommandError> {
        let id = self.group_named(group)?;
        let (state, mut keys) = self.group_mut(id)?;
        let members = state.registry().len();
        let identities: BTreeSet<Identity> =
            state.registry().iter().map(|(id, _)| id.identity.clone()).collect();
        let pushed = state.delete_all("operator: remove all", &mut keys, now)?;
        for identity in &identities {
            self.server.delete_peer(identity, now);
        }
        self.settle(now);
        Ok(format!("all {members} members of group {group} removed: {pushed}"))
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
        let id = self.group_named(group)?;
        self.check_member_of(id, group, member)?;
        self.check_maker(id)?;
        self.group_mut(id)?.0.remove(member);
        // Breaks off its pulls, too: no keys leave for it from here on.
        for identity in self.group_mut(id)?.0.identities_of(member) {
            self.server.delete_peer(&identity, now);
        }
        self.settle(now);
        let (state, mut keys) = self.group_mut(id)?;
        let holders = state.holders(member);
        let purpose = "operator: remove a member";
        let eviction = match state.role() {
            // It may be registered at a server that has not told so yet.
            Some(_) if !state.knows_everybody() => {
                state.delete_all(purpose, &mut keys, now).map(Eviction::AllDeleted)
            }
            _ => state.evict(&holders, purpose, &mut keys, now),
        };
        self.settle(now);
        let eviction = eviction?;
        Ok(Evicted { member, group, eviction, now }.to_string())
    }

    /// Lets a removed member register again. What was done, as a line.
    ///
    /// # Errors
    /// There is no such group, or the member was not removed.
    pub fn admit(&mut self, group: &str, member: &str) -> Result<String, CommandError> {
        let id = self.group_named(group)?;
        self.check_maker(id)?;
        let admitted = self.group_mut(id)?.0.admit(member);
        match admitted {
            true => Ok(format!("member {member} may register for group {group} again")),
            false => {
                let (group, member) = (group.to_owned(), member.to_owned());
                Err(CommandError::NotRemoved { group, member })
            }
        }
    }

    fn replace_teks(
        &mut self,
        group: &str,
        delete: bool,
        purpose: &'static str,
        now: BootTime,
    ) -> Result<Pushed, CommandError> {
        let id = self.group_named(group)?;
        let (group, mut keys) = self.group_mut(id)?;
        let request = RekeyRequest { renewal: Renewal::All, roll: false, delete, purpose };
        let pushed = group.push_keys(request, &mut keys, now);
        self.settle(now);
        Ok(pushed?)
    }

    pub(super) fn group_named(&self, name: &str) -> Result<GroupId, CommandError> {
        let names = self.groups.values().map(|group| group.config().name.as_str());
        let named = self.groups.values().find(|group| group.config().name == name);
        named.map(|group| group.id()).ok_or_else(|| {
            let known: Vec<&str> = names.collect();
            CommandError::UnknownGroup { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// The root server decides who may join the group.
    fn check_maker(&self, id: GroupId) -> Result<(), PushError> {
        match self.groups.get(&id).filter(|group| group.role() == Some(Role::SubServer)) {
            Some(group) => Err(PushError::NotMaker(Arc::clone(group.name()))),
            None => Ok(()),
        }
    }

    fn check_member_of(&self, id: GroupId, group: &str, member: &str) -> Result<(), CommandError> {
        let is_meant =
            |one: &&crate::config::Member| one.name == member && one.groups.contains(&id);
        self.members.iter().find(is_meant).map(|_| ()).ok_or_else(|| CommandError::UnknownMember {
            group: group.to_owned(),
            member: member.to_owned(),
        })
    }
}

impl Display for Pushed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plural = if self.members == 1 { "" } else { "s" };
        match self.sequence_number {
            Some(number) => write!(f, "push {number} goes to {} member{plural}", self.members)?,
            None => f.write_str("there is no member to push to")?,
        }
        match self.unreached {
            0 => Ok(()),
            count => {
                let plural = if count == 1 { " has" } else { "s have" };
                write!(f, "; {count} other{plural} TEKs and no KEK, until they register again")
            }
        }
    }
}

/// How a member was taken out, as a line.
pub(super) struct Evicted<'a> {
    pub(super) member: &'a str,
    pub(super) group: &'a str,
    pub(super) eviction: Eviction,
    pub(super) now: BootTime,
}

impl Display for Evicted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { member, group, eviction, now } = self;
        match eviction {
            Eviction::HadNoKeys => {
                write!(
                    f,
                    "member {member} has no keys of group {group} and may not register any more"
                )
            }
            Eviction::KeysExpire { at } => write!(
                f,
                "member {member} may not register for group {group} any more; the keys it has end \
                 in {} s, because the group has no pushes",
                at.saturating_since(*now).as_secs()
            ),
            Eviction::TeksWithdrawn { at } => write!(
                f,
                "member {member} removed from group {group}; the others get new keys when they \
                 register, the TEKs it has end in {} s",
                at.saturating_since(*now).as_secs()
            ),
            Eviction::AllDeleted(pushed) => write!(
                f,
                "member {member} removed from group {group}; all keys deleted, the others register \
                 again: {pushed}"
            ),
            Eviction::Rekeyed(pushed) => write!(
                f,
                "member {member} removed from group {group}; new keys under a KEK that it cannot \
                 reach: {pushed}"
            ),
        }
    }
}
