//! Pulls under the ISAKMP SAs of established peers (RFC 6407 §3.4).

use super::main_mode::answer_of;
use super::peer::{Peer, Pull, PullState};
use super::peers::Peers;
use super::{Inbound, Server};
use crate::error::{ApiMisuse, Error};
use crate::event::{PullAbort, PullId, PullRefusal, ServerEvent};
use crate::group::{GroupId, GroupSa};
use crate::phase1::Cookies;
use crate::pull::server::Requested;
use crate::time::BootTime;
use crate::wire::registry::NotifyType;
use ike::error::NotAccepted;
use ike::retransmission::{Answered, Digest};

impl Server {
    pub(super) fn handle_pull(&mut self, inbound: Inbound<'_>) -> Result<(), Error> {
        let cookies = Cookies::of(&inbound.header);
        let message_id = inbound.header.message_id;
        let digest = Digest::of(inbound.datagram);
        let peer = self.peer(&cookies, inbound.source)?;
        let (local, source) = (peer.local, peer.source);
        let Peer { sa, pulls, .. } = peer;
        let Some(pull) = pulls.get_mut(&message_id) else {
            return self.handle_request(inbound, cookies, digest);
        };
        match &mut pull.state {
            // The caller will answer; until then a copy changes nothing.
            PullState::Requested(request, _) if *request == digest => {
                Err(NotAccepted::Replayed.into())
            }
            PullState::Requested(..) => Err(NotAccepted::Unexpected.into()),
            PullState::Closed(answered) => {
                let answer = answer_of(answered.handle(&digest, inbound.now))?
                    .ok_or(NotAccepted::Replayed)?;
                self.repeat(local, source, answer);
                Ok(())
            }
            PullState::Answered(answered, state) => {
                if let Some(answer) = answer_of(answered.handle(&digest, inbound.now))? {
                    self.repeat(local, source, answer);
                    return Ok(());
                }
                let accepted = state.read(sa, inbound.datagram)?;
                self.finish(inbound, cookies, digest, accepted);
                Ok(())
            }
        }
    }

    /// `--> HDR*, HASH(1), Ni, ID`.
    fn handle_request(
        &mut self,
        inbound: Inbound<'_>,
        cookies: Cookies,
        digest: Digest,
    ) -> Result<(), Error> {
        let (order, limits) = (self.config.group_id_byte_order, self.config.limits);
        let message_id = inbound.header.message_id;
        let peer = self.peer(&cookies, inbound.source)?;
        peer.may_begin(message_id)?;
        if peer.running() >= limits.pulls.max(1) {
            return Err(NotAccepted::ExchangeLimit.into());
        }
        let request = Requested::read(&peer.sa, inbound.datagram, order)?;
        peer.begin(message_id);
        let (local, source, identity) = (peer.local, peer.source, peer.identity().clone());
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                // The peer is who it says it is: it may know what is wrong.
                if let Some(kind) = error.notify() {
                    self.notify(&cookies, kind);
                }
                return Err(error);
            }
        };
        self.pulls_begun = self.pulls_begun.saturating_add(1);
        let (id, group) = (PullId(self.pulls_begun), request.group());
        let deadline = inbound.now + limits.half_open_timeout;
        let pull = Pull { id, group, state: PullState::Requested(digest, request), deadline };
        self.peers.put_pull(&cookies, message_id, pull);
        self.events.push_back(ServerEvent::PullRequested {
            pull: id,
            local,
            peer: source,
            identity,
            group,
        });
        Ok(())
    }

    /// `<-- HDR*, HASH(2), Nr, SA`.
    pub(super) fn give_policy(
        &mut self,
        id: PullId,
        group_sa: &GroupSa,
        now: BootTime,
    ) -> Result<(), Error> {
        let (cookies, message_id, peer) = waiting(&self.peers, id)?;
        let (local, source) = (peer.local, peer.source);
        let Some(Pull { state: PullState::Requested(digest, request), group, .. }) =
            peer.pulls.get(&message_id)
        else {
            return Err(ApiMisuse::NoSuchPull.into());
        };
        let (next, message) = request.answer(&peer.sa, group_sa, &mut self.rng)?;
        let answered = Answered::new(digest.clone(), message.clone(), now);
        let (group, deadline) = (*group, now + self.config.limits.half_open_timeout);
        let state = PullState::Answered(answered, Box::new(next));
        self.peers.put_pull(&cookies, message_id, Pull { id, group, state, deadline });
        self.transmit(local, source, message);
        Ok(())
    }

    /// No policy for this peer: a protected notification, or nothing.
    pub(super) fn refuse_policy(
        &mut self,
        id: PullId,
        refusal: PullRefusal,
        now: BootTime,
    ) -> Result<(), Error> {
        let (cookies, message_id, peer) = waiting(&self.peers, id)?;
        let Some(Pull { state: PullState::Requested(digest, _), group, .. }) =
            peer.pulls.get(&message_id)
        else {
            return Err(ApiMisuse::NoSuchPull.into());
        };
        let (digest, group) = (digest.clone(), *group);
        let message = match refusal {
            PullRefusal::InvalidId => self.notify(&cookies, NotifyType::INVALID_ID_INFORMATION),
            PullRefusal::AuthenticationFailed => {
                self.notify(&cookies, NotifyType::AUTHENTICATION_FAILED)
            }
            PullRefusal::Silence => None,
        };
        match message {
            Some(message) => self.close(
                &cookies,
                message_id,
                (id, group),
                Answered::new(digest, message, now),
                now,
            ),
            None => {
                self.peers.take_pull(&cookies, message_id);
            }
        }
        self.statistics.pulls_refused += 1;
        Ok(())
    }

    /// `--> HDR*, HASH(3)` was authentic; `<-- HDR*, HASH(4) [, SEQ ], KD`.
    fn finish(
        &mut self,
        inbound: Inbound<'_>,
        cookies: Cookies,
        digest: Digest,
        accepted: Result<Vec<u8>, Error>,
    ) {
        let message_id = inbound.header.message_id;
        let Some(pull) = self.peers.take_pull(&cookies, message_id) else { return };
        let Some(peer) = self.peers.get(&cookies) else { return };
        let (local, source, identity) = (peer.local, peer.source, peer.identity().clone());
        let (id, group) = (pull.id, pull.group);
        match accepted {
            Ok(message) => {
                let answered = Answered::new(digest, message.clone(), inbound.now);
                self.close(&cookies, message_id, (id, group), answered, inbound.now);
                self.transmit(local, source, message);
                self.statistics.pulls_completed += 1;
                self.events.push_back(ServerEvent::PullCompleted {
                    pull: id,
                    local,
                    peer: source,
                    identity,
                    group,
                });
            }
            Err(error) => {
                if let Some(message) = error.notify().and_then(|kind| self.notify(&cookies, kind)) {
                    let answered = Answered::new(digest, message, inbound.now);
                    self.close(&cookies, message_id, (id, group), answered, inbound.now);
                }
                let reason = PullAbort::Misbehaved(error);
                self.events.push_back(ServerEvent::PullAborted {
                    pull: id,
                    peer: source,
                    identity,
                    group,
                    reason,
                });
            }
        }
    }

    /// The wait of a pull is over.
    pub(super) fn expire_pull(&mut self, cookies: &Cookies, message_id: u32) {
        let Some(pull) = self.peers.take_pull(cookies, message_id) else { return };
        let Some(peer) = self.peers.get(cookies) else { return };
        if pull.is_running() {
            self.events.push_back(ServerEvent::PullAborted {
                pull: pull.id,
                peer: peer.source,
                identity: peer.identity().clone(),
                group: pull.group,
                reason: PullAbort::TimedOut,
            });
        }
    }

    /// Keeps the last answer of a pull for copies of its request.
    fn close(
        &mut self,
        cookies: &Cookies,
        message_id: u32,
        (id, group): (PullId, GroupId),
        answered: Answered,
        now: BootTime,
    ) {
        let deadline = now + self.config.limits.finished_exchange;
        let pull = Pull { id, group, state: PullState::Closed(answered), deadline };
        self.peers.put_pull(cookies, message_id, pull);
        // Answers may be long: a peer that pulls again and again keeps no more of them than it may
        // have pulls.
        while let Some(oldest) =
            self.peers.get(cookies).and_then(|peer| peer.surplus(self.config.limits.pulls))
        {
            self.peers.take_pull(cookies, oldest);
        }
    }

    /// Sends a protected notification and returns it.
    fn notify(&mut self, cookies: &Cookies, kind: NotifyType) -> Option<Vec<u8>> {
        let peer = self.peers.get(cookies)?;
        let message = peer.sa.seal_notification(peer.sa.notification(kind), &mut self.rng).ok()?;
        let (local, source) = (peer.local, peer.source);
        self.transmit(local, source, message.clone());
        Some(message)
    }
}

/// The peer whose pull `id` is.
fn waiting(peers: &Peers, id: PullId) -> Result<(Cookies, u32, &Peer), ApiMisuse> {
    let (cookies, message_id) = peers.find_pull(id).ok_or(ApiMisuse::NoSuchPull)?;
    let peer = peers.get(&cookies).ok_or(ApiMisuse::NoSuchPull)?;
    Ok((cookies, message_id, peer))
}
