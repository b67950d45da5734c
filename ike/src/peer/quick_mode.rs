//! Quick Mode in both roles.

use super::exchange::{Phase, Quick, TIME};
use super::{ChildFailure, Peer, PeerEvent};
use crate::endpoint::{Inbound, answer_of};
use crate::error::{Error, NotAccepted, PeerIncompatible};
use crate::phase1::{Cookies, Role};
use crate::quick::initiator::{Established, ExpectChoice, Request};
use crate::quick::responder::{Answer, Requested};
use crate::quick::{Selectors, TrafficSelector};
use crate::retransmission::{Answered, Digest, Due, Retransmission};
use crate::session::{Exchange as _, Session};
use crate::time::BootTime;

/// SPIs below are reserved (RFC 4303 §2.1).
const FIRST_SPI: u32 = 256;

/// Exchanges that the peer may have under way at once.
const RUNNING: usize = 16;

impl Peer {
    pub(super) fn begin_quick_mode(&mut self, cookies: &Cookies, child: usize, now: BootTime) {
        let Some(config) = self.config.children.get(child) else { return };
        let spi = spi(&mut self.rng);
        let request = Request { policy: config.policy.clone(), selectors: config.selectors, spi };
        let Some((session, rng)) = self.endpoint.session_and_rng(cookies) else { return };
        let message_id = session.begin_own(rng);
        match ExpectChoice::start(session.sa(), request, message_id, rng) {
            Ok((state, message)) => {
                let retransmission = self.request(message, now);
                let phase = Phase::ExpectChoice(Box::new(state), retransmission);
                self.put(cookies, message_id, child, spi, phase, now);
            }
            Err(error) => self.fail(child, ChildFailure::Configuration(error)),
        }
    }

    /// Returns whether the message was news: a copy, which anybody may have recorded, is not.
    pub(super) fn handle_quick_mode(
        &mut self,
        cookies: Cookies,
        message_id: u32,
        inbound: Inbound<'_>,
    ) -> Result<bool, Error> {
        self.endpoint.ask_for_proof(&inbound);
        let session = self.endpoint.session_at(&cookies, inbound.source)?;
        let Some((quick, sa)) = session.exchange_mut(message_id) else {
            session.may_begin(message_id)?;
            return self.answer(cookies, message_id, inbound).map(|()| true);
        };
        let (digest, child, spi) = (Digest::of(inbound.datagram), quick.child, quick.spi);
        match &mut quick.phase {
            Phase::ExpectChoice(state, _) => match state.handle(sa, inbound.datagram)? {
                Ok(Established { child: sas, message }) => {
                    let answered = Answered::new(digest, message.clone(), inbound.now);
                    self.endpoint.follow(sas.proof(), &inbound);
                    self.finish(&cookies, message_id, Some(answered), inbound.now);
                    self.prepare(&cookies, child, sas, Role::Initiator);
                    self.events.push_back(PeerEvent::Confirmed { child, spi });
                    self.transmit(message);
                }
                Err(error) => {
                    self.finish(&cookies, message_id, None, inbound.now);
                    self.tell(&cookies, &error);
                    self.fail(child, ChildFailure::Unusable(error));
                }
            },
            Phase::ExpectLast(state, answered, _) => {
                if let Some(message) = answer_of(answered.handle(&digest, inbound.now))? {
                    // The peer repeats message 1: ours was lost.
                    self.transmit(message);
                    return Ok(false);
                }
                let proof = state.handle(sa, inbound.datagram)?;
                self.endpoint.follow(&proof, &inbound);
                self.finish(&cookies, message_id, None, inbound.now);
                self.events.push_back(PeerEvent::Confirmed { child, spi });
            }
            Phase::Finished(answered) => {
                let copy = answered.as_mut().map(|answered| answered.handle(&digest, inbound.now));
                let answer = copy.map(answer_of).transpose()?.flatten();
                self.transmit(answer.ok_or(NotAccepted::Replayed)?);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `--> HDR*, HASH(1), SA, Ni [, KE] [, IDci, IDcr]`
    fn answer(
        &mut self,
        cookies: Cookies,
        message_id: u32,
        inbound: Inbound<'_>,
    ) -> Result<(), Error> {
        let session = self.endpoint.session_at(&cookies, inbound.source)?;
        if session.running() >= RUNNING {
            return Err(NotAccepted::ExchangeLimit.into());
        }
        let requested = Requested::read(session.sa(), inbound.datagram)?;
        // Authentic: the identifier is used up, whatever comes of it.
        session.begin(message_id);
        match requested.and_then(|requested| self.choose(&cookies, requested)) {
            Ok((child, Answer { next, child: sas, message })) => {
                let spi = sas.inbound.spi;
                self.endpoint.follow(sas.proof(), &inbound);
                self.prepare(&cookies, child, sas, Role::Responder);
                let digest = Digest::of(inbound.datagram);
                let answered = Answered::new(digest, message.clone(), inbound.now);
                let retransmission = self.request(message, inbound.now);
                let phase = Phase::ExpectLast(Box::new(next), answered, retransmission);
                self.put(&cookies, message_id, child, spi, phase, inbound.now);
            }
            Err(error) => {
                self.tell(&cookies, &error);
                let selectors = match &error {
                    Error::PeerIncompatible(PeerIncompatible::Selectors(selectors)) => {
                        Some(**selectors)
                    }
                    _ => None,
                };
                self.events.push_back(PeerEvent::Refused { selectors, error });
            }
        }
        Ok(())
    }

    fn choose(
        &mut self,
        cookies: &Cookies,
        requested: Requested,
    ) -> Result<(usize, Answer), Error> {
        let address = self.config.address;
        let host = |address: core::net::SocketAddr| {
            TrafficSelector::net(address.ip().to_canonical().into())
        };
        let selectors: Selectors =
            requested.selectors_or(host(address.local), host(address.remote));
        let meant = |one: &crate::peer::ChildConfig| one.selectors == selectors;
        let child = self.config.children.iter().position(meant);
        let child = child.ok_or_else(|| PeerIncompatible::Selectors(Box::new(selectors)))?;
        let Some(config) = self.config.children.get(child) else {
            return Err(NotAccepted::Ended.into());
        };
        let spi = spi(&mut self.rng);
        let Some((session, rng)) = self.endpoint.session_and_rng(cookies) else {
            return Err(NotAccepted::UnknownCookies.into());
        };
        let answer = requested.answer(session.sa(), &config.policy, selectors, spi, rng)?;
        Ok((child, answer))
    }

    pub(super) fn repeat_quick_modes(&mut self, now: BootTime) {
        for id in self.running.clone() {
            let Some((cookies, message_id)) = self.endpoint.find(id) else { continue };
            let Some((session, _)) = self.endpoint.session_and_rng(&cookies) else { continue };
            let Some((quick, _)) = session.exchange_mut(message_id) else { continue };
            let (Phase::ExpectChoice(_, retransmission) | Phase::ExpectLast(_, _, retransmission)) =
                &mut quick.phase
            else {
                continue;
            };
            match repeat(retransmission, now) {
                Repeat::NotYet => {}
                Repeat::Message(message) => {
                    self.repeat_last_word(&cookies);
                    self.transmit(message);
                }
                Repeat::GiveUp => {
                    if let Some(quick) = self.endpoint.take(&cookies, message_id) {
                        if let Phase::ExpectLast(..) = quick.phase {
                            // The peer may have the keys, and only its message 3 was lost.
                            self.say_delete(&cookies, &[quick.spi]);
                        }
                        self.forget(quick);
                    }
                }
            }
        }
    }

    /// An exchange has come to its end without a result, or is not kept for copies any longer.
    pub(super) fn forget(&mut self, quick: Quick) {
        self.running.remove(&quick.id);
        let Quick { child, spi, phase, .. } = quick;
        match phase {
            Phase::ExpectChoice(..) => self.fail(child, ChildFailure::NoAnswer),
            Phase::ExpectLast(..) => self.events.push_back(PeerEvent::Abandoned { child, spi }),
            Phase::Finished(_) => {}
        }
    }

    /// What was under way under an ISAKMP SA that is gone.
    pub(super) fn lose(&mut self, session: &Session<Quick>) {
        for quick in session.exchanges().values().filter(|quick| quick.is_running()) {
            self.running.remove(&quick.id);
            let (child, spi) = (quick.child, quick.spi);
            match quick.phase {
                Phase::ExpectLast(..) => self.events.push_back(PeerEvent::Abandoned { child, spi }),
                _ => self.fail(child, ChildFailure::IsakmpSaEnded),
            }
        }
    }

    fn prepare(&mut self, cookies: &Cookies, child: usize, sas: crate::quick::Child, role: Role) {
        let session = self.endpoint.session(cookies);
        let address = session.map_or(self.config.address, |session| session.address());
        self.events.push_back(PeerEvent::Prepared { child, address, sas: Box::new(sas), role });
    }

    pub(super) fn fail(&mut self, child: usize, failure: ChildFailure) {
        self.events.push_back(PeerEvent::Failed { child, failure });
    }

    fn tell(&mut self, cookies: &Cookies, error: &Error) {
        if let Some(kind) = error.notify() {
            self.notify(cookies, kind);
        }
    }

    fn put(
        &mut self,
        cookies: &Cookies,
        message_id: u32,
        child: usize,
        spi: u32,
        phase: Phase,
        now: BootTime,
    ) {
        self.exchanges = self.exchanges.saturating_add(1);
        let quick = Quick { id: self.exchanges, child, spi, phase, until: now + TIME };
        self.running.insert(quick.id);
        self.endpoint.put(cookies, message_id, quick);
    }

    /// The exchange is over; `answered` is kept for copies.
    pub(super) fn finish(
        &mut self,
        cookies: &Cookies,
        message_id: u32,
        answered: Option<Answered>,
        now: BootTime,
    ) {
        let Some(quick) = self.endpoint.take(cookies, message_id) else { return };
        self.running.remove(&quick.id);
        let finished = Quick { phase: Phase::Finished(answered), until: now + TIME, ..quick };
        self.endpoint.put(cookies, message_id, finished);
    }
}

enum Repeat {
    NotYet,
    Message(Vec<u8>),
    GiveUp,
}

fn repeat(retransmission: &mut Retransmission, now: BootTime) -> Repeat {
    match retransmission.handle_timeout(now) {
        Due::NotYet => Repeat::NotYet,
        Due::Repeat => Repeat::Message(retransmission.message().to_vec()),
        Due::GiveUp => Repeat::GiveUp,
    }
}

fn spi(rng: &mut crate::crypto::SeededRng) -> u32 {
    loop {
        let spi = u32::from_be_bytes(rng.array());
        if spi >= FIRST_SPI {
            return spi;
        }
    }
}
