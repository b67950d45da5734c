//! Pulls under the sessions of established peers (RFC 6407 §3.4).

use ike::endpoint::{Inbound, answer_of};
use ike::error::NotAccepted;
use ike::phase1::Cookies;
use ike::retransmission::{Answered, Digest};
use ike::session::{Exchange, Session};

use super::{Server, aborted};
use crate::config::PolicyForm;
use crate::error::{ApiMisuse, Error};
use crate::event::{PullAbort, PullId, PullRefusal, ServerEvent};
use crate::group::{GroupId, GroupPolicy, IssuedSa};
use crate::pull::server::{Accepted, ExpectAcceptance, Requested, message4};
use ike::time::BootTime;
use ike::wire::registry::NotifyType;

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
    /// Message 2 was sent; the keys, if they are known already.
    Answered(Answered, Box<ExpectAcceptance>, Option<Box<IssuedSa>>),
    /// Message 3 was valid; the caller gives the keys.
    Accepted(Digest, Box<Accepted>),
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
            PullState::Accepted(request, _) if *request == digest => {
                Err(NotAccepted::Replayed.into())
            }
            PullState::Requested(..) | PullState::Accepted(..) => {
                Err(NotAccepted::Unexpected.into())
            }
            PullState::Closed(answered) => {
                let answer = answer_of(answered.handle(&digest, inbound.now))?
                    .ok_or(NotAccepted::Replayed)?;
                self.endpoint.repeat(address, answer);
                Ok(())
            }
            PullState::Answered(answered, state, _) => {
                if let Some(answer) = answer_of(answered.handle(&digest, inbound.now))? {
                    self.endpoint.repeat(address, answer);
                    self.wait_anew(&cookies, inbound.header.message_id, inbound.now);
                    return Ok(());
                }
                let (accepted, proof) = state.read(sa, inbound.datagram)?;
                self.endpoint.follow(&proof, &inbound);
                self.accept(inbound, cookies, digest, accepted);
                Ok(())
            }
        }
    }

    /// Message 2 was sent once more: the peer may have got none before, and has the whole time for
    /// message 3. Answers to copies are few, so that a recorded request keeps no pull for long.
    fn wait_anew(&mut self, cookies: &Cookies, message_id: u32, now: BootTime) {
        let deadline = now + self.config.limits.half_open_timeout;
        if let Some(pull) = self.endpoint.take(cookies, message_id) {
            self.endpoint.put(cookies, message_id, Pull { deadline, ..pull });
        }
    }

    /// `--> HDR*, HASH(1), Ni, ID`.
    fn handle_request(
        &mut self,
        inbound: Inbound<'_>,
        cookies: Cookies,
        digest: Digest,
    ) -> Result<(), Error> {
        let limits = self.config.limits;
        let message_id = inbound.header.message_id;
        let session = self.endpoint.session_at(&cookies, inbound.source)?;
        session.may_begin(message_id)?;
        if session.running() >= limits.exchanges.max(1) {
            return Err(NotAccepted::ExchangeLimit.into());
        }
        let (request, proof) = Requested::read(session.sa(), inbound.datagram)?;
        session.begin(message_id);
        self.endpoint.follow(&proof, &inbound);
        let session = self.endpoint.session(&cookies).ok_or(NotAccepted::UnknownCookies)?;
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
        (policy, form): (&GroupPolicy, PolicyForm),
        keys: Option<IssuedSa>,
        now: BootTime,
    ) -> Result<(), Error> {
        let (cookies, message_id) = self.endpoint.find(id).ok_or(ApiMisuse::NoSuchPull)?;
        let (session, rng) =
            self.endpoint.session_and_rng(&cookies).ok_or(ApiMisuse::NoSuchPull)?;
        let address = session.address();
        let Some((Pull { state: PullState::Requested(digest, request), .. }, sa)) =
            session.exchange_mut(message_id)
        else {
            return Err(ApiMisuse::NoSuchPull.into());
        };
        if let Some(keys) = &keys {
            // Nothing may fail once the peer has accepted.
            message4(policy, keys)?;
        }
        let (next, message) = request.answer(sa, policy, form, rng)?;
        let answered = Answered::new(digest.clone(), message.clone(), now);
        // The member may have written its number in another order.
        let (group, deadline) = (policy.group, now + self.config.limits.half_open_timeout);
        let state = PullState::Answered(answered, Box::new(next), keys.map(Box::new));
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
        let Some(Pull {
            state: PullState::Requested(digest, _) | PullState::Accepted(digest, _),
            group,
            ..
        }) = pull
        else {
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
            PullRefusal::IsakmpSaDeleted | PullRefusal::Silence => None,
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
        if refusal == PullRefusal::IsakmpSaDeleted {
            self.endpoint.delete(&cookies);
        }
        self.statistics.pulls_refused += 1;
        Ok(())
    }

    /// `--> HDR*, HASH(3)` was authentic.
    fn accept(
        &mut self,
        inbound: Inbound<'_>,
        cookies: Cookies,
        digest: Digest,
        accepted: Result<Accepted, Error>,
    ) {
        let message_id = inbound.header.message_id;
        let Some(pull) = self.endpoint.take(&cookies, message_id) else { return };
        let Some(session) = self.endpoint.session(&cookies) else { return };
        let (address, identity) = (session.address(), session.identity().clone());
        let (id, group, deadline) = (pull.id, pull.group, pull.deadline);
        match accepted {
            Ok(accepted) => {
                let PullState::Answered(_, _, keys) = pull.state else { return };
                let since = session.since();
                let initial_contact = session.sa().is_initial_contact().then_some(since);
                let sender_ids = accepted.sender_ids();
                let state = PullState::Accepted(digest, Box::new(accepted));
                self.endpoint.put(&cookies, message_id, Pull { id, group, state, deadline });
                let (local, peer) = (address.local, address.remote);
                let Some(keys) = keys else {
                    self.events.push_back(ServerEvent::PullAccepted {
                        pull: id,
                        local,
                        peer,
                        identity,
                        group,
                        sender_ids,
                        initial_contact,
                    });
                    return;
                };
                if self.send_keys(id, &keys, inbound.now).is_ok() {
                    let event =
                        ServerEvent::PullCompleted { pull: id, local, peer, identity, group };
                    self.events.push_back(event);
                }
            }
            Err(error) => {
                let kind = error.notify();
                let peer = (address.remote, &identity);
                let event = aborted(peer, &pull, PullAbort::Misbehaved(error));
                if let Some(message) = kind.and_then(|kind| self.endpoint.notify(&cookies, kind)) {
                    let answered = Answered::new(digest, message, inbound.now);
                    self.close(&cookies, message_id, (id, group), answered, inbound.now);
                }
                self.events.push_back(event);
            }
        }
    }

    /// `<-- HDR*, HASH(4) [, SEQ ], KD`.
    pub(super) fn send_keys(
        &mut self,
        id: PullId,
        group_sa: &IssuedSa,
        now: BootTime,
    ) -> Result<(), Error> {
        let (cookies, message_id) = self.endpoint.find(id).ok_or(ApiMisuse::NoSuchPull)?;
        let session = self.endpoint.session(&cookies).ok_or(ApiMisuse::NoSuchPull)?;
        let address = session.address();
        let Some(Pull { state: PullState::Accepted(digest, accepted), group, .. }) =
            session.exchanges().get(&message_id)
        else {
            return Err(ApiMisuse::NoSuchPull.into());
        };
        let message = accepted.answer(session.sa(), group_sa)?;
        let (group, answered) = (*group, Answered::new(digest.clone(), message.clone(), now));
        self.close(&cookies, message_id, (id, group), answered, now);
        self.endpoint.transmit(address, message);
        self.statistics.pulls_completed += 1;
        Ok(())
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
