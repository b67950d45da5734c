//! The initiator's side of Quick Mode: one state between message 1 and message 2.

use super::Authentic;
use super::QUICK_MODE;
use super::keymat::Ingredients;
use super::message::{MESSAGES, Negotiation, last};
use super::policy::{Child, ChildPolicy};
use super::proposal::{self, Agreement};
use super::selector::Selectors;
use crate::crypto::{KeyPair, PublicValue, Secret, SeededRng};
use crate::error::{Error, PeerIncompatible, PeerMisbehaved};
use crate::phase1::{ExchangeCipher, IsakmpSa};
use crate::wire::nonce::Nonce;
use crate::wire::payload::{encode_chain, first_kind};

/// Octets of our nonces.
pub(super) const NONCE_LENGTH: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What may be negotiated.
    pub policy: ChildPolicy,
    pub selectors: Selectors,
    /// Our SPI: 256 or more, of no other SA that we receive on.
    pub spi: u32,
}

/// Message 1 is on its way.
#[derive(Debug)]
pub struct ExpectChoice {
    cipher: ExchangeCipher,
    request: Request,
    ni: Nonce,
    key_pair: Option<KeyPair>,
}

/// An authentic message 2, read and checked: the pair of SAs and message 3, `HDR*, HASH(3) -->`.
#[derive(Debug)]
pub struct Established {
    pub child: Child,
    /// What to send, and again for every copy of message 2.
    pub message: Vec<u8>,
}

impl ExpectChoice {
    /// Begins: the state and message 1, `HDR*, HASH(1), SA, Ni [, KE], IDci, IDcr -->`.
    ///
    /// # Errors
    /// A policy that cannot be offered, or a message that does not fit.
    pub fn start(
        sa: &IsakmpSa,
        request: Request,
        message_id: u32,
        rng: &mut SeededRng,
    ) -> Result<(Self, Vec<u8>), Error> {
        let offer = proposal::offer(
            &request.policy,
            sa.encapsulation_mode(request.policy.mode),
            request.spi,
        )?;
        let ni = Nonce(rng.array::<NONCE_LENGTH>().to_vec());
        let key_pair = request.policy.pfs.map(|group| KeyPair::generate(group, rng));
        let public = key_pair.as_ref().map(KeyPair::public);
        let identities = [request.selectors.local, request.selectors.remote];
        let (first, payloads) = Negotiation::payloads(offer, &ni, public, Some(identities))?;
        let exchange = sa.exchange(QUICK_MODE, message_id);
        let sealed = sa.seal_authenticated(&exchange, &[], first, &payloads)?;
        let state = Self { cipher: sealed.next(), request, ni, key_pair };
        Ok((state, sealed.into_datagram()))
    }

    /// The message identifier of the exchange.
    pub fn message_id(&self) -> u32 {
        self.cipher.message_id()
    }

    /// What was asked for.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Reads message 2, `<-- HDR*, HASH(2), SA, Nr [, KE] [, IDci, IDcr]`. Costs one exponentiation
    /// with perfect forward secrecy.
    ///
    /// # Errors
    /// The datagram is no message 2 of this exchange, or not authentic.
    pub fn handle(&self, sa: &IsakmpSa, datagram: &[u8]) -> Result<Authentic<Established>, Error> {
        let [_, message, _] = MESSAGES;
        let opened = sa.open(&self.cipher, datagram)?;
        let read = Negotiation::read(message, sa, &opened, &[&self.ni.0])?;
        Ok(read.and_then(|negotiation| self.establish(sa, opened.next(), negotiation)))
    }

    fn establish(
        &self,
        sa: &IsakmpSa,
        cipher: ExchangeCipher,
        negotiation: Negotiation,
    ) -> Result<Established, Error> {
        let Negotiation { sa: choice, nonce: nr, public, identities, proof } = negotiation;
        let mode = sa.encapsulation_mode(self.request.policy.mode);
        let agreement = proposal::check_choice(&self.request.policy, mode, &choice)?;
        let Selectors { local, remote } = self.request.selectors;
        if let Some([ours, theirs]) = identities.filter(|both| *both != [local, remote]) {
            // The responder may not narrow what was asked for (RFC 2409 §5.5).
            let chosen = Selectors { local: ours, remote: theirs };
            return Err(PeerIncompatible::Selectors(Box::new(chosen)).into());
        }
        let [_, message, _] = MESSAGES;
        let g_xy = match (&self.key_pair, public) {
            (Some(ours), Some(theirs)) => Some(agree(ours, &theirs.0)?),
            (None, None) => None,
            (Some(_), None) => {
                return Err(PeerMisbehaved::MissingPayload { message, payload: "KE" }.into());
            }
            (None, Some(_)) => return Err(PeerMisbehaved::ForeignTransform.into()),
        };
        let ingredients = Ingredients {
            sa,
            algorithms: agreement.algorithms,
            g_xy: g_xy.as_ref(),
            ni_b: &self.ni.0,
            nr_b: &nr.0,
        };
        let child = child(&self.request, agreement, &ingredients, proof);
        let payloads = [last(sa, cipher.message_id(), [&self.ni.0, &nr.0])];
        let octets = encode_chain(&payloads)?;
        let sealed = sa.seal(&cipher, first_kind(&payloads), &octets)?;
        Ok(Established { child, message: sealed.into_datagram() })
    }
}

/// The pair of SAs of an agreement.
pub(super) fn child(
    request: &Request,
    agreement: Agreement,
    ingredients: &Ingredients<'_>,
    proof: crate::phase1::HashVerified,
) -> Child {
    let Agreement { algorithms, pfs, extended_sequence_numbers, lifetime, kilobytes, spi } =
        agreement;
    Child {
        algorithms,
        mode: request.policy.mode,
        encapsulated: ingredients.sa.is_translated(),
        pfs,
        extended_sequence_numbers,
        lifetime,
        kilobytes,
        selectors: request.selectors,
        inbound: ingredients.derive(request.spi),
        outbound: ingredients.derive(spi),
        proof,
    }
}

/// The shared secret with a public value of the peer.
pub(super) fn agree(ours: &KeyPair, theirs: &[u8]) -> Result<Secret, PeerMisbehaved> {
    let group = ours.group();
    PublicValue::read(group, theirs)
        .and_then(|value| ours.agree(&value))
        .map_err(|_| PeerMisbehaved::PublicValue { group })
}
