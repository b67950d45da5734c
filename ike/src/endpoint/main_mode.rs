//! Main mode as responder, for whoever has a credential.

use std::borrow::Cow;

use core::net::SocketAddr;

use super::credentials::expected_identity;
use super::half_open::Phase;
use super::{
    Arithmetic, Computation, Computed, Endpoint, EndpointEvent, Inbound, SessionEnd, answer_of,
};
use crate::config::{Credential, Identity, Phase1Policy, Phase1Transform};
use crate::crypto::SeededRng;
use crate::error::{Error, NotAccepted, PeerIncompatible};
use crate::phase1::nat_traversal::NAT_PORT;
use crate::phase1::responder::{ExpectKe, ReceivedOffer};
use crate::phase1::{Certified, Cookies};
use crate::retransmission::{Answered, Digest};
use crate::session::{Exchange, Session};
use crate::time::BootTime;
use crate::wire::Payload;
use crate::wire::header::{self, Header};
use crate::wire::notify::Notification;
use crate::wire::payload::{encode_chain, first_kind};
use crate::wire::registry::{Doi, ExchangeType, Flags, NotifyType, ProtocolId};

impl<X: Exchange> Endpoint<X> {
    pub(super) fn handle_main_mode(&mut self, inbound: Inbound<'_>) -> Result<(), Error> {
        let cookies = Cookies::of(&inbound.header);
        if cookies.responder == [0; 8] {
            return self.handle_offer(inbound);
        }
        if let Some(exchange) = self.half_open.get_mut(&cookies) {
            exchange.check(&inbound)?;
            return match exchange.phase {
                Phase::ExpectKe(..) => self.handle_key_exchange(inbound, cookies),
                Phase::Computing(ref request) => {
                    let copy = *request == Digest::of(inbound.datagram);
                    Err(if copy { NotAccepted::Replayed } else { NotAccepted::Unexpected }.into())
                }
                Phase::ExpectAuth(_) => self.handle_proof(inbound, cookies),
                Phase::ExpectProof(_) => Err(NotAccepted::Unexpected.into()),
                Phase::Failed => Err(NotAccepted::Ended.into()),
            };
        }
        if self.sessions.get(&cookies).is_none() && self.resume(inbound, cookies)? {
            return self.handle_key_exchange(inbound, cookies);
        }
        self.handle_copy(inbound, cookies)
    }

    /// A message of a phase 1 that is over, perhaps.
    pub(super) fn handle_copy(
        &mut self,
        inbound: Inbound<'_>,
        cookies: Cookies,
    ) -> Result<(), Error> {
        let session = self.sessions.get_mut(&cookies).ok_or(NotAccepted::UnknownCookies)?;
        let address = session.address();
        // A copy proves nothing.
        address.check(inbound.source)?;
        let copy = session
            .phase1()
            .map(|answered| answer_of(answered.handle(&Digest::of(inbound.datagram), inbound.now)));
        let answer = copy.transpose()?.flatten().ok_or(NotAccepted::Unexpected)?;
        self.repeat(address, answer);
        Ok(())
    }

    /// `--> HDR, SA`, then `<-- HDR, SA`.
    fn handle_offer(&mut self, inbound: Inbound<'_>) -> Result<(), Error> {
        let Inbound { source, datagram, header, now, .. } = inbound;
        let (address, digest) = (inbound.address(), Digest::of(datagram));
        if let Some(exchange) = self.half_open.begun_by(source, header.initiator_cookie) {
            let answer = answer_of(exchange.copy(&digest, now))?.ok_or(NotAccepted::Unexpected)?;
            self.half_open.repeated(source, header.initiator_cookie, now);
            self.repeat(address, answer);
            return Ok(());
        }
        let received = ReceivedOffer::read(datagram)?;
        let doi = received.doi();
        let offer = match received.choose(&self.phase1_for(source)) {
            Ok(offer) => offer,
            Err(error) => {
                if let Error::PeerIncompatible(PeerIncompatible::NoProposalChosen(_)) = error {
                    self.say_no_proposal_chosen(&inbound, doi);
                }
                return Err(error);
            }
        };
        let known = self.offers.cookie(
            address,
            header.initiator_cookie,
            offer.octets(),
            now,
            &mut self.rng,
        );
        // What message 1 states would be forgotten: that is the price of a flood, not of every day.
        let keeps = offer.states_vendor_ids() && self.half_open.has_free_place(source);
        if let Some(cookie) = known.filter(|_| !keeps) {
            let (_, message) = offer.answer(cookie, &self.config.all_vendor_ids())?;
            self.transmit(address, message);
            return Ok(());
        }
        self.half_open.has_room(source, now)?;
        let vendor_ids = self.config.all_vendor_ids();
        let (state, message) = offer.answer(self.rng.nonzero_array(), &vendor_ids)?;
        let answered = Answered::new(digest, message.clone(), now);
        let (cookies, doi, phase) = (state.cookies(), state.doi(), Phase::ExpectKe(state, 0));
        self.statistics.half_open_evicted +=
            self.half_open.insert(address, cookies, doi, phase, answered, now);
        self.transmit(address, message);
        Ok(())
    }

    /// The policies without what the credential for `source` is not for.
    pub(super) fn phase1_for(&self, source: SocketAddr) -> Cow<'_, [Phase1Policy]> {
        let credential = self.credentials.find(source.ip());
        let Some(method) = credential.map(|peer| peer.credential.authentication()) else {
            return Cow::Borrowed(&self.config.phase1);
        };
        let fits = |transform: &Phase1Transform| transform.authentication == method;
        if self.config.phase1.iter().flat_map(|policy| &policy.transforms).all(fits) {
            return Cow::Borrowed(&self.config.phase1);
        }
        let mut policies = self.config.phase1.clone();
        policies.iter_mut().for_each(|policy| policy.transforms.retain(fits));
        Cow::Owned(policies)
    }

    /// Takes up an exchange whose message 1 was answered without being kept, if `inbound` is its
    /// message 3.
    fn resume(&mut self, inbound: Inbound<'_>, cookies: Cookies) -> Result<bool, Error> {
        let Inbound { source, datagram, now, .. } = inbound;
        let address = inbound.address();
        let policies = self.phase1_for(source).into_owned();
        let Some(offer) = self.offers.recognise(address, cookies, now, &mut self.rng) else {
            return Ok(false);
        };
        let state = ExpectKe::resume(&policies, cookies, offer)?;
        state.read(datagram)?;
        self.may_compute()?;
        self.half_open.has_room(source, now)?;
        // Of message 1 no copy is known any more: one begins another exchange.
        let answered = Answered::new(Digest::of(&[]), Vec::new(), now);
        let (doi, phase) = (state.doi(), Phase::ExpectKe(state, 0));
        self.statistics.half_open_evicted +=
            self.half_open.insert(address, cookies, doi, phase, answered, now);
        Ok(true)
    }

    /// `--> HDR, KE, Ni`. The address has returned our cookie: the arithmetic is worth it.
    fn handle_key_exchange(&mut self, inbound: Inbound<'_>, cookies: Cookies) -> Result<(), Error> {
        let Inbound { source, datagram, now, .. } = inbound;
        let credential =
            self.credentials.find(source.ip()).ok_or(NotAccepted::UnknownSource(source))?;
        let may_compute = self.may_compute();
        let Some(exchange) = self.half_open.get_mut(&cookies) else {
            return Err(NotAccepted::UnknownCookies.into());
        };
        let Phase::ExpectKe(state, _) = &exchange.phase else {
            return Err(NotAccepted::Unexpected.into());
        };
        let received = state.read(datagram)?;
        // The exchange waits for a copy of the message.
        may_compute?;
        self.statistics.diffie_hellman += u64::from(state.transform().group.check_exponentiates());
        let value = match state.check(&received) {
            Ok(value) => value,
            Err(error) => {
                self.half_open.refuse(&cookies);
                return Err(error);
            }
        };
        let computation = Computation {
            ticket: self.outstanding.ticket(),
            peer: source,
            born: exchange.born,
            cookies,
            request: Digest::of(datagram),
            received: received.looking_for_nat(self.config.nat, exchange.address),
            value,
            state: state.clone(),
            credential: credential.credential.clone(),
            rng: SeededRng::from_seed(self.rng.array()),
        };
        // A key pair and a shared secret.
        self.statistics.diffie_hellman += 2;
        self.half_open.compute(&cookies, credential.clone(), computation.request.clone());
        match self.arithmetic {
            Arithmetic::InPlace => self.finish_key_exchange(computation.run(), now),
            Arithmetic::HandedOut => {
                self.computations.push_back(computation);
                Ok(())
            }
        }
    }

    pub(super) fn may_compute(&self) -> Result<(), NotAccepted> {
        match self.outstanding.count() < self.config.limits.computations.max(1) {
            true => Ok(()),
            false => Err(NotAccepted::ComputationLimit),
        }
    }

    /// `<-- HDR, KE, Nr`.
    pub(super) fn finish_key_exchange(
        &mut self,
        computed: Computed,
        now: BootTime,
    ) -> Result<(), Error> {
        let Computed { ticket, born, cookies, request, result, .. } = computed;
        // There is room for another.
        drop(ticket);
        let Some(exchange) = self.half_open.get_mut(&cookies) else {
            return Err(NotAccepted::Ended.into());
        };
        let waits = matches!(&exchange.phase, Phase::Computing(waits) if *waits == request);
        if exchange.born != born || !waits {
            return Err(NotAccepted::Unexpected.into());
        }
        let address = exchange.address;
        match result {
            Ok((next, message)) => {
                let answered = Answered::new(request, message.clone(), now);
                self.half_open.computed(&cookies, next, answered, now);
                self.transmit(address, message);
                Ok(())
            }
            Err(error) => {
                self.half_open.fail(&cookies);
                Err(error)
            }
        }
    }

    /// `--> HDR*, IDii, HASH_I`, then `<-- HDR*, IDir, HASH_R`.
    fn handle_proof(&mut self, inbound: Inbound<'_>, cookies: Cookies) -> Result<(), Error> {
        let Inbound { source, datagram, now, .. } = inbound;
        let digest = Digest::of(datagram);
        let Some(exchange) = self.half_open.get_mut(&cookies) else {
            return Err(NotAccepted::UnknownCookies.into());
        };
        // With address translation the proof is the first message on port 4500.
        let address = match inbound.local.port() {
            NAT_PORT => inbound.address(),
            _ => exchange.address,
        };
        if let Some(answer) = answer_of(exchange.copy(&digest, now))? {
            let address = exchange.address;
            self.repeat(address, answer);
            return Ok(());
        }
        let (Phase::ExpectAuth(state), Some(credential)) =
            (&exchange.phase, exchange.credential.clone())
        else {
            return Err(NotAccepted::Unexpected.into());
        };
        let address_identity = || Identity::Address(address.local.ip().to_canonical());
        let began = exchange.began;
        let (sa, message) = match &credential.credential {
            Credential::PreSharedKey(_) => {
                let ours = self.config.identity.clone().unwrap_or_else(address_identity);
                let expected = expected_identity(&credential, source.ip());
                state.handle(datagram, &ours, &expected)?
            }
            Credential::Certificate(own) => {
                let ours = self.config.identity.clone();
                let ours = ours.unwrap_or_else(|| own.identity(address.local.ip()));
                let unix_seconds = self.wall_clock.at(now);
                let expected = credential.identity.as_ref();
                let certified = Certified { credential: own, unix_seconds, expected };
                match state.handle_signed(datagram, &ours, certified, &mut self.rng) {
                    Ok(proved) => proved,
                    Err(error) => {
                        self.half_open.refuse_proof(&cookies);
                        return Err(error);
                    }
                }
            }
        };
        self.offers.prove(source.ip(), state.offer(), self.config.limits.established);
        if sa.is_initial_contact() {
            self.forget_before(began, sa.peer_identity(), source);
        }
        if let Some(oldest) = self.sessions.to_replace(sa.peer_identity(), source.ip())? {
            self.delete(&oldest);
        }
        self.half_open.remove(&cookies);
        let proof = Answered::new(digest, message.clone(), now);
        self.transmit(address, message);
        self.establish(Session::new(sa, address, now).with_phase1(credential, proof));
        Ok(())
    }

    /// A peer has no ISAKMP SA but those that it began at `time` or later: ends the others. One
    /// that it established meanwhile, for another group perhaps, is none of those that it lost.
    pub(super) fn forget_before(
        &mut self,
        time: BootTime,
        identity: &Identity,
        source: SocketAddr,
    ) {
        for cookies in self.sessions.before(time, identity, source.ip()) {
            self.end(&cookies, SessionEnd::PeerRestarted);
        }
    }

    pub(super) fn establish(&mut self, session: Session<X>) {
        let sa = session.sa();
        self.statistics.phase1_established += 1;
        self.events.push_back(EndpointEvent::Established {
            address: session.address(),
            identity: sa.peer_identity().clone(),
            transform: sa.transform(),
            cookies: sa.cookies(),
        });
        self.insert(session);
    }

    /// Names the reason to a peer with a credential. Nobody can vouch for the message; it is
    /// smaller than the one it answers.
    pub(super) fn say_no_proposal_chosen(&mut self, inbound: &Inbound<'_>, doi: Doi) {
        let notification = Notification {
            doi,
            protocol: ProtocolId::ISAKMP,
            spi: Vec::new(),
            kind: NotifyType::NO_PROPOSAL_CHOSEN,
            data: Vec::new(),
        };
        let payloads = [Payload::from(notification)];
        let header = Header {
            exchange: ExchangeType::INFORMATIONAL,
            next_payload: first_kind(&payloads),
            version: header::VERSION,
            flags: Flags::NONE,
            message_id: 0,
            ..inbound.header
        };
        if let Ok(message) = encode_chain(&payloads).and_then(|body| header.message(&body)) {
            self.transmit(inbound.address(), message);
        }
    }
}
