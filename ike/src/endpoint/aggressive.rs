//! Aggressive mode as responder.
//!
//! The first message costs arithmetic at once, whoever sent it: the places of half-open exchanges
//! bound how often, and an identity that nobody here waits for is refused before.

use super::credentials::expected_identity;
use super::half_open::Phase;
use super::{Endpoint, Inbound, answer_of};
use crate::config::{Credential, Identity};
use crate::error::{Error, NotAccepted, PeerIncompatible, PeerMisbehaved};
use crate::phase1::aggressive::{Answering, ReceivedOpening};
use crate::phase1::nat_traversal::NAT_PORT;
use crate::phase1::{Certified, Cookies};
use crate::retransmission::{Answered, Digest};
use crate::session::{Exchange, Session};
use crate::wire::registry::Doi;

impl<X: Exchange> Endpoint<X> {
    pub(super) fn handle_aggressive(&mut self, inbound: Inbound<'_>) -> Result<(), Error> {
        let cookies = Cookies::of(&inbound.header);
        if cookies.responder == [0; 8] {
            return self.handle_opening(inbound);
        }
        let Some(exchange) = self.half_open.get_mut(&cookies) else {
            return self.handle_copy(inbound, cookies);
        };
        exchange.check(&inbound)?;
        match exchange.phase {
            Phase::ExpectProof(_) => self.handle_last(inbound, cookies),
            Phase::Failed => Err(NotAccepted::Ended.into()),
            _ => Err(NotAccepted::Unexpected.into()),
        }
    }

    /// `--> HDR, SA, KE, Ni, IDii`, then `<-- HDR, SA, KE, Nr, IDir, HASH_R`.
    fn handle_opening(&mut self, inbound: Inbound<'_>) -> Result<(), Error> {
        let Inbound { source, datagram, header, now, .. } = inbound;
        let (address, digest) = (inbound.address(), Digest::of(datagram));
        if let Some(exchange) = self.half_open.begun_by(source, header.initiator_cookie) {
            if matches!(exchange.phase, Phase::Failed) {
                return Err(NotAccepted::Ended.into());
            }
            let answer = answer_of(exchange.copy(&digest, now))?.ok_or(NotAccepted::Unexpected)?;
            self.repeat(address, answer);
            return Ok(());
        }
        let opening = ReceivedOpening::read(datagram)?;
        let credential = self.credentials.find(source.ip()).cloned();
        let credential = credential.ok_or(NotAccepted::UnknownSource(source))?;
        let claimed = opening.identity();
        let expected = match &credential.credential {
            Credential::PreSharedKey(_) => Some(expected_identity(&credential, source.ip())),
            Credential::Certificate(_) => credential.identity.clone(),
        };
        if let Some(expected) = expected.filter(|expected| !expected.covers(claimed)) {
            let proved = claimed.clone();
            return Err(PeerMisbehaved::WrongIdentity { expected, proved }.into());
        }
        self.may_compute()?;
        self.half_open.has_room(source, now)?;
        let doi = opening.doi();
        let local = inbound.local.ip().to_canonical();
        let identity = match (&self.config.identity, &credential.credential) {
            (Some(identity), _) => identity.clone(),
            (None, Credential::Certificate(own)) => own.identity(local),
            (None, Credential::PreSharedKey(_)) => Identity::Address(local),
        };
        let policies = self.phase1_for(source).into_owned();
        let chosen = opening.choose(&policies);
        if let Err(Error::PeerIncompatible(PeerIncompatible::NoProposalChosen(_))) = &chosen {
            self.say_no_proposal_chosen(&inbound, doi);
        }
        let chosen = chosen?;
        self.statistics.diffie_hellman += u64::from(chosen.group().check_exponentiates());
        let answering = Answering {
            identity: &identity,
            credential: &credential.credential,
            nat: (self.config.nat, address),
            vendor_ids: &self.config.all_vendor_ids(),
        };
        let (state, message) = match chosen.answer(answering, &mut self.rng) {
            Ok(answered) => answered,
            Err(error) => {
                self.keep_place(&inbound, doi);
                return Err(error);
            }
        };
        self.statistics.diffie_hellman += 2;
        let (cookies, phase) = (state.cookies(), Phase::ExpectProof(Box::new(state)));
        let answered = Answered::new(digest, message.clone(), now);
        self.statistics.half_open_evicted +=
            self.half_open.insert(address, cookies, doi, phase, answered, now);
        self.half_open.run(&cookies, credential);
        self.transmit(address, message);
        Ok(())
    }

    /// Message 1 came to no good and has cost arithmetic: its place stays taken, so that failing
    /// fast buys nobody more of that.
    fn keep_place(&mut self, inbound: &Inbound<'_>, doi: Doi) {
        let initiator = inbound.header.initiator_cookie;
        let cookies = Cookies { initiator, responder: self.rng.nonzero_array() };
        let answered = Answered::new(Digest::of(inbound.datagram), Vec::new(), inbound.now);
        let (address, phase) = (inbound.address(), Phase::Failed);
        self.statistics.half_open_evicted +=
            self.half_open.insert(address, cookies, doi, phase, answered, inbound.now);
        self.half_open.fail(&cookies);
    }

    /// `--> HDR*, HASH_I`.
    fn handle_last(&mut self, inbound: Inbound<'_>, cookies: Cookies) -> Result<(), Error> {
        let Inbound { source, datagram, now, .. } = inbound;
        let Some(exchange) = self.half_open.get_mut(&cookies) else {
            return Err(NotAccepted::UnknownCookies.into());
        };
        let (Phase::ExpectProof(state), Some(credential)) =
            (&exchange.phase, exchange.credential.clone())
        else {
            return Err(NotAccepted::Unexpected.into());
        };
        // With address translation the proof is the first message on port 4500.
        let address = match inbound.local.port() {
            NAT_PORT => inbound.address(),
            _ => exchange.address,
        };
        let began = exchange.began;
        let sa = match &credential.credential {
            Credential::PreSharedKey(_) => {
                let expected = expected_identity(&credential, source.ip());
                state.handle(datagram, Some(&expected), None)?
            }
            Credential::Certificate(own) => {
                let unix_seconds = self.wall_clock.at(now);
                let expected = credential.identity.as_ref();
                let certified = Certified { credential: own, unix_seconds, expected };
                match state.handle(datagram, expected, Some(certified)) {
                    Ok(sa) => sa,
                    Err(error) => {
                        self.half_open.refuse_proof(&cookies);
                        return Err(error);
                    }
                }
            }
        };
        if sa.is_initial_contact() {
            self.forget_before(began, sa.peer_identity(), source);
        }
        if let Some(oldest) = self.sessions.to_replace(sa.peer_identity(), source.ip())? {
            self.delete(&oldest);
        }
        self.half_open.remove(&cookies);
        self.establish(Session::new(sa, address, now).with_credential(credential));
        Ok(())
    }

    /// A message under an ISAKMP SA that waits for message 3 of aggressive mode: that was lost, and
    /// the peer repeats it when it hears our answer again.
    pub(crate) fn ask_for_proof(&mut self, inbound: &Inbound<'_>) {
        let cookies = Cookies::of(&inbound.header);
        let Some(exchange) = self.half_open.get_mut(&cookies) else { return };
        if !matches!(exchange.phase, Phase::ExpectProof(_)) || exchange.check(inbound).is_err() {
            return;
        }
        let address = exchange.address;
        if let Some(answer) = exchange.again(inbound.now) {
            self.repeat(address, answer);
        }
    }
}
