//! Main mode as responder, for whoever has a credential.

use super::credentials::expected_identity;
use super::half_open::{HalfOpen, Phase, TOLERATED_PUBLIC_VALUES};
use super::peer::Peer;
use super::{Inbound, Server};
use crate::config::Identity;
use crate::error::Error;
use crate::event::ServerEvent;
use crate::phase1::responder::{ExpectKe, Offer};
use crate::phase1::{Cookies, IsakmpSa};
use crate::wire::header::{self, Header};
use crate::wire::notify::Notification;
use crate::wire::payload::{encode_chain, first_kind};
use crate::wire::registry::{Doi, ExchangeType, Flags, NotifyType, ProtocolId};
use ike::error::{NotAccepted, PeerIncompatible};
use ike::retransmission::{Answered, Copy, Digest};

impl Server {
    pub(super) fn handle_main_mode(&mut self, inbound: Inbound<'_>) -> Result<(), Error> {
        let cookies = Cookies::of(&inbound.header);
        if cookies.responder == [0; 8] {
            return self.handle_offer(inbound);
        }
        if let Some(exchange) = self.half_open.get_mut(&cookies) {
            if exchange.source != inbound.source {
                return Err(NotAccepted::WrongSource(inbound.source).into());
            }
            return match exchange.phase {
                Phase::ExpectKe(..) => self.handle_key_exchange(inbound, cookies),
                Phase::ExpectAuth(_) => self.handle_proof(inbound, cookies),
            };
        }
        if self.peers.get(&cookies).is_none() && self.resume(inbound, cookies)? {
            return self.handle_key_exchange(inbound, cookies);
        }
        let peer = self.peer(&cookies, inbound.source)?;
        let (local, source) = (peer.local, peer.source);
        let copy = peer.proof.handle(&Digest::of(inbound.datagram), inbound.now);
        let answer = answer_of(copy)?.ok_or(NotAccepted::Unexpected)?;
        self.repeat(local, source, answer);
        Ok(())
    }

    /// `--> HDR, SA`, then `<-- HDR, SA`.
    fn handle_offer(&mut self, inbound: Inbound<'_>) -> Result<(), Error> {
        let Inbound { source, local, datagram, header, now } = inbound;
        let digest = Digest::of(datagram);
        if let Some(exchange) = self.half_open.begun_by(source, header.initiator_cookie) {
            let answer = answer_of(exchange.copy(&digest, now))?.ok_or(NotAccepted::Unexpected)?;
            self.repeat(local, source, answer);
            return Ok(());
        }
        let offer = match Offer::read(&self.config.phase1, datagram) {
            Ok(offer) => offer,
            Err(error) => {
                if error == PeerIncompatible::NoProposalChosen.into() {
                    self.say_no_proposal_chosen(&inbound);
                }
                return Err(error.into());
            }
        };
        let known = self.offers.cookie(
            (source, local),
            header.initiator_cookie,
            offer.octets(),
            now,
            &mut self.rng,
        );
        if let Some(cookie) = known {
            let (_, message) = offer.answer(cookie)?;
            self.transmit(local, source, message);
            return Ok(());
        }
        self.half_open.has_room(source)?;
        let (state, message) = offer.answer(self.rng.nonzero_array())?;
        let answered = Answered::new(digest, message.clone(), now);
        self.statistics.half_open_evicted +=
            self.half_open.insert((source, local), state, answered, now);
        self.transmit(local, source, message);
        Ok(())
    }

    /// Takes up an exchange whose message 1 was answered without being kept, if `inbound` is its
    /// message 3.
    fn resume(&mut self, inbound: Inbound<'_>, cookies: Cookies) -> Result<bool, Error> {
        let Inbound { source, local, datagram, now, .. } = inbound;
        let Some(offer) = self.offers.recognise((source, local), cookies, now, &mut self.rng)
        else {
            return Ok(false);
        };
        let state = ExpectKe::resume(&self.config.phase1, cookies, offer)?;
        state.read(datagram)?;
        self.half_open.has_room(source)?;
        // Of message 1 no copy is known any more: one begins another exchange.
        let answered = Answered::new(Digest::of(&[]), Vec::new(), now);
        self.statistics.half_open_evicted +=
            self.half_open.insert((source, local), state, answered, now);
        Ok(true)
    }

    /// `--> HDR, KE, Ni`, then `<-- HDR, KE, Nr`. The address has returned our cookie: the
    /// arithmetic is worth it.
    fn handle_key_exchange(&mut self, inbound: Inbound<'_>, cookies: Cookies) -> Result<(), Error> {
        let Inbound { source, datagram, now, .. } = inbound;
        let credential =
            self.credentials.find(source.ip()).ok_or(NotAccepted::UnknownSource(source))?;
        let Some(exchange) = self.half_open.get_mut(&cookies) else {
            return Err(NotAccepted::UnknownCookies.into());
        };
        let HalfOpen { phase: Phase::ExpectKe(state, unusable), local, .. } = exchange else {
            return Err(NotAccepted::Unexpected.into());
        };
        let (local, received) = (*local, state.read(datagram)?);
        // A key pair and a shared secret.
        self.statistics.diffie_hellman += 2;
        match state.compute(&received, &credential.pre_shared_key, &mut self.rng) {
            Ok((next, message)) => {
                let answered = Answered::new(Digest::of(datagram), message.clone(), now);
                self.half_open.run(&cookies, next, answered, now);
                self.transmit(local, source, message);
                Ok(())
            }
            Err(error) => {
                *unusable = unusable.saturating_add(1);
                if *unusable > TOLERATED_PUBLIC_VALUES {
                    self.half_open.remove(&cookies);
                }
                Err(error.into())
            }
        }
    }

    /// `--> HDR*, IDii, HASH_I`, then `<-- HDR*, IDir, HASH_R`.
    fn handle_proof(&mut self, inbound: Inbound<'_>, cookies: Cookies) -> Result<(), Error> {
        let Inbound { source, datagram, now, .. } = inbound;
        let digest = Digest::of(datagram);
        let credential =
            self.credentials.find(source.ip()).ok_or(NotAccepted::UnknownSource(source))?;
        let Some(exchange) = self.half_open.get_mut(&cookies) else {
            return Err(NotAccepted::UnknownCookies.into());
        };
        let local = exchange.local;
        if let Some(answer) = answer_of(exchange.copy(&digest, now))? {
            self.repeat(local, source, answer);
            return Ok(());
        }
        let Phase::ExpectAuth(state) = &exchange.phase else {
            return Err(NotAccepted::Unexpected.into());
        };
        let ours =
            self.config.identity.clone().unwrap_or(Identity::Address(local.ip().to_canonical()));
        let expected = expected_identity(credential, source.ip());
        let (sa, message) = state.handle(datagram, &ours, &expected)?;
        self.offers.prove(source.ip(), state.offer(), self.config.limits.established);
        if let Some(oldest) = self.peers.to_replace(sa.peer_identity(), source.ip())? {
            self.delete_isakmp_sa(&oldest);
        }
        self.half_open.remove(&cookies);
        let proof = Answered::new(digest, message.clone(), now);
        self.transmit(local, source, message);
        self.establish(inbound, sa, (source, local), proof);
        Ok(())
    }

    fn establish(
        &mut self,
        inbound: Inbound<'_>,
        sa: IsakmpSa,
        addresses: (std::net::SocketAddr, std::net::SocketAddr),
        proof: Answered,
    ) {
        self.statistics.phase1_established += 1;
        self.peers_born = self.peers_born.saturating_add(1);
        self.events.push_back(ServerEvent::Phase1Established {
            peer: addresses.0,
            identity: sa.peer_identity().clone(),
            transform: sa.transform(),
            cookies: (sa.cookies().initiator, sa.cookies().responder),
        });
        self.peers.insert(Peer::new(sa, addresses, proof, self.peers_born, inbound.now));
    }

    /// Names the reason to a peer with a credential. Nobody can vouch for the message; it is
    /// smaller than the one it answers.
    fn say_no_proposal_chosen(&mut self, inbound: &Inbound<'_>) {
        let notification = Notification {
            doi: Doi::GDOI,
            protocol: ProtocolId::ISAKMP,
            spi: Vec::new(),
            kind: NotifyType::NO_PROPOSAL_CHOSEN,
            data: Vec::new(),
        };
        let payloads = [ike::wire::Payload::from(notification)];
        let header = Header {
            exchange: ExchangeType::INFORMATIONAL,
            next_payload: first_kind(&payloads),
            version: header::VERSION,
            flags: Flags::NONE,
            message_id: 0,
            ..inbound.header
        };
        if let Ok(message) = encode_chain(&payloads).and_then(|body| header.message(&body)) {
            self.transmit(inbound.local, inbound.source, message);
        }
    }

    /// Sends an answer again.
    pub(super) fn repeat(
        &mut self,
        local: std::net::SocketAddr,
        source: std::net::SocketAddr,
        answer: Vec<u8>,
    ) {
        self.statistics.duplicates_answered += 1;
        self.transmit(local, source, answer);
    }
}

/// The answer to repeat, if the datagram is a copy.
pub(super) fn answer_of(copy: Copy<'_>) -> Result<Option<Vec<u8>>, NotAccepted> {
    match copy {
        Copy::No => Ok(None),
        Copy::Unanswered => Err(NotAccepted::Replayed),
        Copy::Answer(answer) => Ok(Some(answer.to_vec())),
    }
}
