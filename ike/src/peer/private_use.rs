//! Exchanges of private use under an ISAKMP SA (RFC 2408 §3.1, types 240 to 255): a request and its
//! answer.
//!
//! ```text
//! HDR*, HASH(1), Ni, body   -->
//!                           <--   HDR*, HASH(2), body
//!
//! HASH(1) = prf(SKEYID_a, M-ID | Ni | body)
//! HASH(2) = prf(SKEYID_a, M-ID | Ni_b | body)
//! ```
//!
//! The body is one payload of a private type (128 to 255), which the layer above reads. A request
//! is repeated with the same octets until it is answered, cancelled, or its ISAKMP SA ends. A
//! request of the peer that is not answered yet is told again with every copy of it: what could not
//! be done the first time may be possible now.

use std::collections::{BTreeMap, VecDeque};

use core::time::Duration;

use super::{Peer, PeerEvent};
use crate::config::RetransmissionPolicy;
use crate::crypto::Secret;
use crate::endpoint::{Inbound, answer_of};
use crate::error::{Error, NotAccepted, PeerMisbehaved};
use crate::phase1::{Cookies, ExchangeCipher};
use crate::retransmission::{Answered, Digest, Due, Retransmission};
use crate::time::BootTime;
use crate::wire::chain::{RawPayload, encode_one, encode_with};
use crate::wire::nonce::Nonce;
use crate::wire::registry::{ExchangeType, PayloadKind};
use crate::wire::{EncodeError, Writer};

/// Exchange types of private use begin here (RFC 2408 §3.1).
pub const FIRST_EXCHANGE: u8 = 240;

/// Payload types of private use begin here (RFC 2408 §3.1).
const FIRST_PAYLOAD: u8 = 128;

/// A request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(u64);

/// A request of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuestionId(u64);

/// What a request or an answer says: one payload of a private type.
#[derive(Debug, PartialEq, Eq)]
pub struct PrivateBody {
    /// 128 to 255.
    pub kind: PayloadKind,
    pub octets: Secret,
}

/// Exchanges of private use with one peer.
#[derive(Debug, Default)]
pub(super) struct PrivateExchanges {
    begun: u64,
    requests: BTreeMap<(Cookies, u32), Request>,
    questions: BTreeMap<(Cookies, u32), Question>,
    /// Those with an answer, oldest first.
    answered: VecDeque<(Cookies, u32)>,
}

#[derive(Debug)]
struct Request {
    id: RequestId,
    nonce: Nonce,
    cipher: ExchangeCipher,
    retransmission: Retransmission,
}

#[derive(Debug)]
struct Question {
    id: QuestionId,
    state: QuestionState,
}

#[derive(Debug)]
enum QuestionState {
    Open { digest: Digest, nonce: Nonce, cipher: ExchangeCipher, kind: ExchangeType },
    Answered(Answered),
}

impl PrivateExchanges {
    pub(super) fn at(&self) -> Option<BootTime> {
        self.requests.values().map(|request| request.retransmission.at()).min()
    }

    /// What was under way under an ISAKMP SA that is gone.
    pub(super) fn end(&mut self, cookies: &Cookies) -> Vec<RequestId> {
        self.questions.retain(|(of, _), _| of != cookies);
        self.answered.retain(|(of, _)| of != cookies);
        let lost = self.requests.extract_if(.., |(of, _), _| of == cookies);
        lost.map(|(_, request)| request.id).collect()
    }

    fn number(&mut self) -> u64 {
        self.begun = self.begun.saturating_add(1);
        self.begun
    }

    fn keep(&mut self, key: (Cookies, u32)) {
        self.answered.push_back(key);
        while self.answered.len() > ANSWERED {
            if let Some(oldest) = self.answered.pop_front() {
                self.questions.remove(&oldest);
            }
        }
    }
}

impl Peer {
    /// Asks the peer by an exchange of this private type; `None` without an ISAKMP SA that lasts
    /// long enough. It is repeated every `period` until [`PeerEvent::Answered`], [`Peer::cancel`],
    /// or [`PeerEvent::RequestLost`] when the ISAKMP SA ends.
    ///
    /// # Errors
    /// The body does not fit into a payload.
    pub fn ask(
        &mut self,
        kind: ExchangeType,
        body: &PrivateBody,
        period: Duration,
        now: BootTime,
    ) -> Result<Option<RequestId>, Error> {
        let nonce = Nonce(self.rng.array::<16>().to_vec());
        let payloads = request_payloads(&nonce, body)?;
        let Some(cookies) = self.usable(now) else { return Ok(None) };
        let Some((session, rng)) = self.endpoint.session_and_rng(&cookies) else {
            return Ok(None);
        };
        let message_id = session.begin_own(rng);
        let cipher = session.sa().exchange(kind, message_id);
        let sealed =
            session.sa().seal_authenticated(&cipher, &[], PayloadKind::NONCE, payloads.expose())?;
        let (cipher, message) = (sealed.next(), sealed.into_datagram());
        let policy =
            RetransmissionPolicy { initial: period, maximum: period, repetitions: u32::MAX };
        let retransmission = Retransmission::new(&policy, message.clone(), now);
        let id = RequestId(self.private.number());
        let request = Request { id, nonce, cipher, retransmission };
        self.private.requests.insert((cookies, message_id), request);
        self.transmit(message);
        Ok(Some(id))
    }

    /// Whether a request still waits for its answer.
    pub fn is_asking(&self, id: RequestId) -> bool {
        self.private.requests.values().any(|request| request.id == id)
    }

    /// Stops repeating a request; no event follows.
    pub fn cancel(&mut self, id: RequestId) {
        self.private.requests.retain(|_, request| request.id != id);
    }

    /// Answers [`PeerEvent::Asked`]. Returns whether the peer still waits for it.
    ///
    /// # Errors
    /// The body does not fit into a payload.
    pub fn answer_question(
        &mut self,
        id: QuestionId,
        body: &PrivateBody,
        now: BootTime,
    ) -> Result<bool, Error> {
        let open =
            self.private.questions.iter_mut().find(|(_, question)| question.id == id).and_then(
                |(key, question)| match &question.state {
                    QuestionState::Open { digest, nonce, cipher, kind } => {
                        Some((*key, digest.clone(), nonce.clone(), *cipher, *kind))
                    }
                    QuestionState::Answered(_) => None,
                },
            );
        let Some((key, digest, nonce, cipher, _)) = open else { return Ok(false) };
        let Some(session) = self.endpoint.session(&key.0) else { return Ok(false) };
        let payload = one_payload(body)?;
        let sealed =
            session.sa().seal_authenticated(&cipher, &[&nonce.0], body.kind, payload.expose())?;
        let message = sealed.into_datagram();
        let answered = Answered::new(digest, message.clone(), now);
        if let Some(question) = self.private.questions.get_mut(&key) {
            question.state = QuestionState::Answered(answered);
        }
        self.private.keep(key);
        self.transmit(message);
        Ok(true)
    }

    /// Returns whether the message was news.
    pub(super) fn handle_private_use(
        &mut self,
        cookies: Cookies,
        message_id: u32,
        inbound: Inbound<'_>,
    ) -> Result<bool, Error> {
        let key = (cookies, message_id);
        if self.private.requests.contains_key(&key) {
            return self.handle_private_answer(key, inbound).map(|()| true);
        }
        let digest = Digest::of(inbound.datagram);
        match self.private.questions.get_mut(&key).map(|question| &mut question.state) {
            Some(QuestionState::Answered(answered)) => {
                let answer = answer_of(answered.handle(&digest, inbound.now))?;
                self.transmit(answer.ok_or(NotAccepted::Unexpected)?);
                return Ok(false);
            }
            Some(QuestionState::Open { digest: first, .. }) if *first != digest => {
                return Err(NotAccepted::Unexpected.into());
            }
            _ => {}
        }
        let is_copy = self.private.questions.contains_key(&key);
        let kind = inbound.header.exchange;
        let session = self.endpoint.session_at(&cookies, inbound.source)?;
        if !is_copy {
            session.may_begin(message_id)?;
            let open = |question: &&Question| matches!(question.state, QuestionState::Open { .. });
            if self.private.questions.values().filter(open).count() >= OPEN {
                return Err(NotAccepted::ExchangeLimit.into());
            }
        }
        let opened =
            session.sa().open(&session.sa().exchange(kind, message_id), inbound.datagram)?;
        let (chain, _proof) = opened.authenticate(session.sa(), REQUEST, &[])?;
        session.begin(message_id);
        let (nonce, body) = match chain.payloads.as_slice() {
            [_, nonce, body] => (nonce.read::<Nonce>()?, private_body(REQUEST, body)?),
            _ => {
                return Err(
                    PeerMisbehaved::MissingPayload { message: REQUEST, payload: "Ni" }.into()
                );
            }
        };
        let id = match self.private.questions.get(&key) {
            Some(question) => question.id,
            None => QuestionId(self.private.number()),
        };
        let state = QuestionState::Open { digest, nonce, cipher: opened.next(), kind };
        self.private.questions.insert(key, Question { id, state });
        self.events.push_back(PeerEvent::Asked { question: id, cookies, kind, body });
        Ok(!is_copy)
    }

    fn handle_private_answer(
        &mut self,
        key: (Cookies, u32),
        inbound: Inbound<'_>,
    ) -> Result<(), Error> {
        let session = self.endpoint.session_at(&key.0, inbound.source)?;
        let Some(request) = self.private.requests.get(&key) else {
            return Err(NotAccepted::Unexpected.into());
        };
        let opened = session.sa().open(&request.cipher, inbound.datagram)?;
        let (chain, _proof) = opened.authenticate(session.sa(), ANSWER, &[&request.nonce.0])?;
        let body = match chain.payloads.as_slice() {
            [_, body] => private_body(ANSWER, body)?,
            _ => {
                return Err(
                    PeerMisbehaved::MissingPayload { message: ANSWER, payload: "body" }.into()
                );
            }
        };
        let request = request.id;
        self.private.requests.remove(&key);
        self.events.push_back(PeerEvent::Answered { request, body });
        Ok(())
    }

    pub(super) fn repeat_private_requests(&mut self, now: BootTime) {
        let mut again = Vec::new();
        for request in self.private.requests.values_mut() {
            if request.retransmission.handle_timeout(now) == Due::Repeat {
                again.push(request.retransmission.message().to_vec());
            }
        }
        again.into_iter().for_each(|message| self.transmit(message));
    }
}

fn private_body(
    message: &'static str,
    payload: &RawPayload<'_>,
) -> Result<PrivateBody, PeerMisbehaved> {
    let RawPayload { kind, offset, .. } = *payload;
    if kind.0 < FIRST_PAYLOAD {
        return Err(PeerMisbehaved::ForeignPayload { message, kind, offset });
    }
    Ok(PrivateBody { kind, octets: Secret::copy_from(payload.body()) })
}

fn request_payloads(nonce: &Nonce, body: &PrivateBody) -> Result<Secret, EncodeError> {
    let mut writer = Writer::new();
    encode_one(&mut writer, body.kind, nonce);
    encode_with(&mut writer, PayloadKind::NONE, |writer| writer.put(body.octets.expose()));
    writer.finish().map(Secret::new)
}

fn one_payload(body: &PrivateBody) -> Result<Secret, EncodeError> {
    let mut writer = Writer::new();
    encode_with(&mut writer, PayloadKind::NONE, |writer| writer.put(body.octets.expose()));
    writer.finish().map(Secret::new)
}

const REQUEST: &str = "request of private use";
const ANSWER: &str = "answer of private use";

/// Requests of the peer that may wait for our answer at once.
const OPEN: usize = 64;

/// Answers that are kept for copies of their requests.
const ANSWERED: usize = 128;
