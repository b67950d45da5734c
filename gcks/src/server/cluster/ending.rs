//! A group that its root server no longer has: its sub-servers are told that all keys are deleted,
//! which goes on when the group has gone.

use std::sync::Arc;
use std::time::Duration;

use ::cluster::message::{Acknowledged, Commit, Content, Message, Prepare};
use ::cluster::{Generation, Stage};
use gdoi::group::GroupId;
use ike::BootTime;

use crate::group::key_generation::Entropy;
use crate::server::KeyServer;
use crate::state::shared;

/// The last that one sub-server is told of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    generation: Generation,
    period: Duration,
}

impl<E: Entropy> KeyServer<E> {
    /// All keys of a group have been deleted and the group goes: its sub-servers hear that, and our
    /// own members do not wait for them.
    pub(in crate::server) fn end_at_sub_servers(&mut self, id: GroupId, now: BootTime) {
        if let Some(side) = self.cluster.roots.get_mut(&id) {
            let (generation, period, active) = side.end(now);
            for server in active {
                let Some(group) = self.groups.get(&id) else { return };
                let state = shared::encode(group, &server, now);
                let ending = Ending { generation, period };
                self.send_ending(&server, id, ending, Prepare { generation, state }.into(), now);
            }
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.release(now);
        }
    }

    /// Goes on with what a sub-server has acknowledged. Returns whether it was about such a group.
    pub(super) fn end_further(
        &mut self,
        server: &Arc<str>,
        id: GroupId,
        acknowledged: Acknowledged,
        now: BootTime,
    ) -> bool {
        let Acknowledged { generation, stage } = acknowledged;
        let place = (id, Arc::clone(server));
        let Some(ending) = self.cluster.endings.get(&place).copied() else { return false };
        if ending.generation != generation {
            return false;
        }
        self.cluster.endings.remove(&place);
        if stage == Stage::Prepared {
            self.send_ending(server, id, ending, Commit { generation }.into(), now);
        }
        true
    }

    fn send_ending(
        &mut self,
        server: &Arc<str>,
        id: GroupId,
        ending: Ending,
        content: Content,
        now: BootTime,
    ) {
        let Some(link) = self.cluster.links.get_mut(server) else { return };
        // One that cannot be told now asks when the soft lifetime ends, and hears it then.
        if let Ok(Some(_)) = link.send(&Message::new(id.0, content), ending.period, now) {
            self.cluster.endings.insert((id, Arc::clone(server)), ending);
        }
    }
}
