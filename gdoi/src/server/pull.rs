//! Pulls under the sessions of established peers (RFC 6407 §3.4).

use ike::endpoint::{Inbound, answer_of};
use ike::error::NotAccepted;
use ike::phase1::Cookies;
use ike::retransmission::{Answered, Digest};
use ike::session::{Exchange, Session};

use super::{Server, aborted};
use crate::error::{ApiMisuse, Error};
use crate::event::{PullAbort, PullId, PullRefusal, ServerEvent};
use crate::group::{GroupId, GroupSa};
use crate::pull::server::{ExpectAcceptance, Requested};
use crate::time::BootTime;
use crate::wire::registry::NotifyType;

/// One pull.
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) id: PullId,
    pub(super) group: GroupId,
    state: PullState,
    deadline: BootTime,
}

/// How far a pull has come.
#[derive(Debug)]
enum PullState {
    /// Message 1 was authentic; the caller decides.
    Requested(Digest, Requested),
    /// Message 2 was sent.
    Answered(Answered, Box<ExpectAcceptance>),
    /// Nothing more will come; the last answer is kept for copies of its request.
    Closed(Answered),
}

impl Exchange for Pull {
    type Id = PullId;

    fn id(&self) -> PullId {
        self.id
    }

    fn is_running(&self) -> bool {
        !matches!(self.state, PullState::Closed(_))
    }

    fn deadline(&self) -> BootTime {
        self.deadline
    }
}

impl Server {
    pub(super) fn handle_pull(&mut self, inbound: Inbound<'_>) -> Result<(), Error> {
        let cookies = Cookies::of(&inbound.header);
        let digest = Digest::of(inbound.datagram);
        let session = self.endpoint.session_at(&cookies, inbound.source)?;
        let address = session.address();
        let Some((pull, sa)) = session.exchange_mut(inbound.header.message_id) else {
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
                self.endpoint.repeat(address, answer);
                Ok(())
            }
            PullState::Answered(answered, state) => {
                if let Some(answer) = answer_of(answered.handle(&digest, inbound.now))? {
                    self.endpoint.repeat(address, answer);
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
        let session = self.endpoint.session_at(&cookies, inbound.source)?;
        session.may_begin(message_id)?;
        if session.running() >= limits.exchanges.max(1) {
            return Err(NotAccepted::ExchangeLimit.into());
        }
        let request = Requested::read(session.sa(), inbound.datagram, order)?;
        session.begin(message_id);
        let (address, identity) = (session.address(), session.identity().clone());
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                // The peer is who it says it is: it may know what is wrong.
                if let Some(kind) = error.notify() {
                    self.endpoint.notify(&cookies, kind);
                }
                return Err(error);
            }
        };
        self.pulls_begun = self.pulls_begun.saturating_add(1);
        let (id, group) = (PullId(self.pulls_begun), request.group());
        let deadline = inbound.now + limits.half_open_timeout;
        let pull = Pull { id, group, state: PullState::Requested(digest, request), deadline };
        self.endpoint.put(&cookies, message_id, pull);
        self.events.push_back(ServerEvent::PullRequested {
            pull: id,
            local: address.local,
            peer: address.remote,
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
        let (cookies, message_id) = self.endpoint.find(id).ok_or(ApiMisuse::NoSuchPull)?;
        let (session, rng) =
            self.endpoint.session_and_rng(&cookies).ok_or(ApiMisuse::NoSuchPull)?;
        let address = session.address();
        let Some((Pull { state: PullState::Requested(digest, request), group, .. }, sa)) =
            session.exchange_mut(message_id)
        else {
            return Err(ApiMisuse::NoSuchPull.into());
        };
        let (next, message) = request.answer(sa, group_sa, rng)?;
        let answered = Answered::new(digest.clone(), message.clone(), now);
        let (group, deadline) = (*group, now + self.config.limits.half_open_timeout);
        let state = PullState::Answered(answered, Box::new(next));
        self.endpoint.put(&cookies, message_id, Pull { id, group, state, deadline });
        self.endpoint.transmit(address, message);
        Ok(())
    }

    /// No policy for this peer: a protected notification, or nothing.
    pub(super) fn refuse_policy(
        &mut self,
        id: PullId,
        refusal: PullRefusal,
        now: BootTime,
    ) -> Result<(), Error> {
        let (cookies, message_id) = self.endpoint.find(id).ok_or(ApiMisuse::NoSuchPull)?;
        let pull = self
            .endpoint
            .session(&cookies)
            .and_then(|session| session.exchanges().get(&message_id));
        let Some(Pull { state: PullState::Requested(digest, _), group, .. }) = pull else {
            return Err(ApiMisuse::NoSuchPull.into());
        };
        let (digest, group) = (digest.clone(), *group);
        let message = match refusal {
            PullRefusal::InvalidId => {
                self.endpoint.notify(&cookies, NotifyType::INVALID_ID_INFORMATION)
            }
            PullRefusal::AuthenticationFailed => {
                self.endpoint.notify(&cookies, NotifyType::AUTHENTICATION_FAILED)
            }
            PullRefusal::Silence => None,
        };
        match message {
            Some(message) => {
                let answered = Answered::new(digest, message, now);
                self.close(&cookies, message_id, (id, group), answered, now);
            }
            None => {
                self.endpoint.take(&cookies, message_id);
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
        let Some(pull) = self.endpoint.take(&cookies, message_id) else { return };
        let Some(session) = self.endpoint.session(&cookies) else { return };
        let (address, identity) = (session.address(), session.identity().clone());
        let (id, group) = (pull.id, pull.group);
        match accepted {
            Ok(message) => {
                let answered = Answered::new(digest, message.clone(), inbound.now);
                self.close(&cookies, message_id, (id, group), answered, inbound.now);
                self.endpoint.transmit(address, message);
                self.statistics.pulls_completed += 1;
                self.events.push_back(ServerEvent::PullCompleted {
                    pull: id,
                    local: address.local,
                    peer: address.remote,
                    identity,
                    group,
                });
            }
            Err(error) => {
                let kind = error.notify();
                let event = aborted(session, &pull, PullAbort::Misbehaved(error));
                if let Some(message) = kind.and_then(|kind| self.endpoint.notify(&cookies, kind)) {
                    let answered = Answered::new(digest, message, inbound.now);
                    self.close(&cookies, message_id, (id, group), answered, inbound.now);
                }
                self.events.push_back(event);
            }
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
        let limits = self.config.limits;
        let deadline = now + limits.finished_exchange;
        let pull = Pull { id, group, state: PullState::Closed(answered), deadline };
        self.endpoint.put(cookies, message_id, pull);
        // Answers may be long: a peer that pulls again and again keeps no more of them than it may
        // have pulls.
        let surplus = |session: &Session<Pull>| session.surplus(limits.exchanges);
        while let Some(oldest) = self.endpoint.session(cookies).and_then(surplus) {
            self.endpoint.take(cookies, oldest);
        }
    }
}
