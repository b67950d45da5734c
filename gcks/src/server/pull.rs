//! Pulls: who may have which group is decided here, what it gets by the group.

use std::net::SocketAddr;

use gdoi::config::ByteOrder;
use gdoi::event::PullId;
use gdoi::group::GroupId;
use ike::BootTime;
use ike::config::Identity;

use super::KeyServer;
use super::event::{Event, Refused};
use crate::group::key_generation::Entropy;
use crate::group::pending_pull::{Acceptance, PullRequest};
use crate::members::authorization::Denied;
use crate::members::registry::MemberId;

impl<E: Entropy> KeyServer<E> {
    pub(super) fn handle_pull_requested(
        &mut self,
        pull: PullId,
        (local, peer): (SocketAddr, SocketAddr),
        identity: Identity,
        asked: GroupId,
        now: BootTime,
    ) {
        let order = self.authorization.group_id_byte_order(&identity, peer.ip());
        let group = order.group(asked);
        let Err(reason) = self.answer(pull, &identity, (local, peer), group, now) else { return };
        // A pull that is gone already needs no refusal.
        let _ = self.server.refuse_pull(pull, reason.answer(), now);
        self.counters.refused = self.counters.refused.saturating_add(1);
        if let Some(group) = self.groups.get_mut(&group) {
            match reason {
                Refused::Full { .. } => group.count_excess_pull(),
                _ => group.count_failed_pull(),
            }
        }
        self.events.push_back(Event::Refused { peer, identity, group, reason });
    }

    /// Message 3 was valid.
    pub(super) fn handle_pull_accepted(
        &mut self,
        pull: PullId,
        peer: SocketAddr,
        identity: Identity,
        (id, said): (GroupId, Acceptance),
        now: BootTime,
    ) {
        let member = MemberId { identity: identity.clone(), address: peer.ip() };
        // Others may have taken the last place since its policy was offered.
        let room = self.check_room(id, &member);
        let Err(reason) = room.and_then(|()| self.give_keys(pull, id, said, now)) else { return };
        self.counters.refused = self.counters.refused.saturating_add(1);
        if let Some(group) = self.groups.get_mut(&id) {
            group.abort_pull(pull);
            match reason {
                Refused::Full { .. } => group.count_excess_pull(),
                _ => group.count_failed_pull(),
            }
            if matches!(reason, Refused::Answer(_)) {
                // It was registered, and its keys cannot be sent; those of a pull before it has.
                group.abandon_member(&member, now);
            }
        }
        let _ = self.server.refuse_pull(pull, reason.answer(), now);
        self.events.push_back(Event::Refused { peer, identity, group: id, reason });
    }

    /// Whether one more member is answered here: those that are registered always are.
    fn check_room(&self, id: GroupId, member: &MemberId) -> Result<(), Refused> {
        let Some(group) = self.groups.get(&id) else { return Ok(()) };
        if group.registry().find(member).is_some() {
            return Ok(());
        }
        if !self.cluster.answers_new_members(id) {
            return Err(Refused::RootInactive);
        }
        if group.is_full_for(member) {
            let (most, option) = (group.registry().len(), "member-threshold");
            return Err(Refused::Full { most, option });
        }
        match self.most_members {
            Some(most)
                if self.groups.values().map(|one| one.registry().len()).sum::<usize>() >= most =>
            {
                Err(Refused::Full { most, option: "limits.members" })
            }
            _ => Ok(()),
        }
    }

    fn give_keys(
        &mut self,
        pull: PullId,
        id: GroupId,
        said: Acceptance,
        now: BootTime,
    ) -> Result<(), Refused> {
        let (group, mut keys) = self.group_mut(id).map_err(|_| Denied::UnknownGroup)?;
        let group_sa = group.accept_pull(pull, said, &mut keys, now)?;
        self.server.give_keys(pull, &group_sa, now).map_err(Refused::Answer)
    }

    fn answer(
        &mut self,
        pull: PullId,
        identity: &Identity,
        (local, peer): (SocketAddr, SocketAddr),
        id: GroupId,
        now: BootTime,
    ) -> Result<(), Refused> {
        let named = |id| Some(self.groups.get(&id)?.config().name.as_str());
        let names = (named(id), named(ByteOrder::Host.group(id)));
        let member = self.authorization.check(identity, peer.ip(), id, names)?;
        let order = self.authorization.group_id_byte_order(identity, peer.ip());
        let member_id = MemberId { identity: identity.clone(), address: peer.ip() };
        self.check_room(id, &member_id)?;
        let (group, mut keys) = self.group_mut(id).map_err(|_| Denied::UnknownGroup)?;
        let request = PullRequest { id: member_id, member, local, peer };
        let policy = group.offer_policy(pull, request, &mut keys, now)?;
        let form = group.served().interoperability.policy_form(order);
        if let Err(error) = self.server.offer_policy(pull, &policy, form, now) {
            if let Some(group) = self.groups.get_mut(&id) {
                group.abort_pull(pull);
            }
            return Err(Refused::Answer(error));
        }
        Ok(())
    }
}
