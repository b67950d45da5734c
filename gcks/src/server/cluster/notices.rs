//! Where members are registered: sub-servers report it to the root, and the root tells them who has
//! registered elsewhere since.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::cluster::error::Refusal;
use ::cluster::link::Ticket;
use ::cluster::message::{Message, Noted, Notice};
use ::cluster::sub_server::{RETRY, RootActivity};
use gdoi::group::GroupId;
use ike::BootTime;

use super::GroupEvent;
use crate::group::elsewhere::{Moves, Report, ReportedMember};
use crate::group::key_generation::Entropy;
use crate::server::KeyServer;
use crate::state::notice;

/// Members in one notice of the root, so that none is sent in parts: those of an update are on
/// their way beside it.
const MOST: usize = 200;

/// What a root has to tell one sub-server.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Vec<ReportedMember>,
    sent: Option<(Ticket, Vec<ReportedMember>)>,
}

/// What a root has to tell its sub-servers.
#[derive(Debug, Default)]
pub(super) struct Outboxes(BTreeMap<Arc<str>, Outbox>);

impl Outboxes {
    fn add(&mut self, moves: Moves) {
        for (server, member) in moves {
            self.0.entry(server).or_default().waiting.push(member);
        }
    }

    /// A notice was acknowledged, or was lost and goes out again.
    pub(super) fn end(&mut self, server: &Arc<str>, ticket: Ticket, is_lost: bool) {
        let Some(outbox) = self.0.get_mut(server) else { return };
        if let Some((_, members)) = outbox.sent.take_if(|(sent, _)| *sent == ticket) {
            outbox.waiting.extend(members.into_iter().filter(|_| is_lost));
        }
    }
}

impl<E: Entropy> KeyServer<E> {
    /// Tells the other servers what is new about members.
    pub(super) fn exchange_notices(&mut self, now: BootTime) {
        let roots: Vec<GroupId> = self.cluster.roots.keys().copied().collect();
        for id in roots {
            let (Some(side), Some(group)) =
                (self.cluster.roots.get_mut(&id), self.groups.get_mut(&id))
            else {
                continue;
            };
            let touched = group.take_touched();
            side.outboxes.add(group.note_own(&touched));
            for (server, outbox) in &mut side.outboxes.0 {
                let Some(link) = self.cluster.links.get_mut(server) else { continue };
                if outbox.sent.is_some() || outbox.waiting.is_empty() || !link.is_up() {
                    continue;
                }
                let later = outbox.waiting.split_off(outbox.waiting.len().min(MOST));
                let members = std::mem::replace(&mut outbox.waiting, later);
                let report = Report { whole: false, members };
                let message = Message::new(id.0, Notice { octets: notice::encode(&report, now) });
                match link.send(&message, RETRY, now) {
                    Ok(Some(ticket)) => outbox.sent = Some((ticket, report.members)),
                    _ => outbox.waiting.extend(report.members),
                }
            }
        }
        let sub_servers: Vec<GroupId> = self.cluster.sub_servers.keys().copied().collect();
        for id in sub_servers {
            let (Some(side), Some(group)) =
                (self.cluster.sub_servers.get_mut(&id), self.groups.get_mut(&id))
            else {
                continue;
            };
            let touched = group.take_touched();
            side.touched.extend(touched);
            let Some(link) = self.cluster.links.get_mut(side.root()) else { continue };
            let is_active = matches!(side.activity(), RootActivity::Active { .. });
            let is_due = side.report_all || !side.touched.is_empty();
            if !is_active || !is_due || side.notice.is_some() || !link.is_up() {
                continue;
            }
            let report = group.report(&side.touched, side.report_all);
            let message = Message::new(id.0, Notice { octets: notice::encode(&report, now) });
            if let Ok(Some(ticket)) = link.send(&message, RETRY, now) {
                (side.notice, side.report_all) = (Some(ticket), false);
                side.touched.clear();
            }
        }
    }

    /// A notice was acknowledged.
    pub(super) fn end_notice(&mut self, server: &Arc<str>, id: GroupId, ticket: Ticket) {
        if let Some(side) = self.cluster.roots.get_mut(&id) {
            side.outboxes.end(server, ticket, false);
        }
        if let Some(side) = self.cluster.sub_servers.get_mut(&id) {
            side.notice.take_if(|notice| *notice == ticket);
        }
    }

    /// Another server tells of members: `arrival` is now, or before if it was delayed.
    pub(super) fn handle_notice(
        &mut self,
        server: &Arc<str>,
        id: GroupId,
        notice: &Notice,
        (arrival, now): (BootTime, BootTime),
    ) -> Result<Noted, Refusal> {
        let report =
            notice::decode(notice.octets.expose(), arrival).map_err(|_| Refusal::Unreadable)?;
        let group = self.groups.get_mut(&id).ok_or(Refusal::UnknownGroup)?;
        if let Some(side) = self.cluster.sub_servers.get(&id) {
            if side.root() != server {
                return Err(Refusal::UnknownGroup);
            }
            let moved = report.members.iter().filter(|member| group.leave(member, now));
            let members = moved.count();
            self.note(server, id, GroupEvent::Moved { members });
            return Ok(Noted);
        }
        let side = self.cluster.roots.get_mut(&id).ok_or(Refusal::UnknownGroup)?;
        if side.sub_servers().all(|(name, _)| name != server) {
            return Err(Refusal::UnknownGroup);
        }
        side.note_state(server);
        if report.whole {
            side.reported.insert(Arc::clone(server));
        }
        side.outboxes.add(group.take_report(server, report, now));
        let removed = group.removed_elsewhere();
        if !removed.is_empty() {
            let (group, mut keys) = self.group_mut(id).map_err(|_| Refusal::UnknownGroup)?;
            let purpose = "a removed member was registered";
            if let Err(error) = group.evict(&removed, purpose, &mut keys, now) {
                group.note(crate::group::event::Event::PushFailed { error });
            }
        }
        Ok(Noted)
    }
}
