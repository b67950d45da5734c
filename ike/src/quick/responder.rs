//! The responder's side of Quick Mode: a request that somebody has to decide on, then one state
//! between message 2 and message 3.

use super::Authentic;
use super::QUICK_MODE;
use super::initiator::{NONCE_LENGTH, Request, agree, child};
use super::keymat::Ingredients;
use super::message::{MESSAGES, Negotiation, read_last};
use super::policy::{Child, ChildPolicy};
use super::proposal;
use super::refusal::{EspFault, EspRefused};
use super::selector::{Selectors, TrafficSelector};
use crate::crypto::{KeyPair, SeededRng};
use crate::error::{Error, PeerIncompatible, PeerMisbehaved};
use crate::phase1::{ExchangeCipher, HashVerified, IsakmpSa};
use crate::wire::header;
use crate::wire::nonce::Nonce;

/// Message 1 was authentic; nobody has decided yet.
#[derive(Debug)]
pub struct Requested {
    cipher: ExchangeCipher,
    negotiation: Negotiation,
}

/// Message 2 is on its way. The peer sends on its SA as soon as it has it: what we receive on
/// belongs into the kernel before message 2 leaves.
#[derive(Debug)]
pub struct ExpectLast {
    cipher: ExchangeCipher,
    ni: Nonce,
    nr: Nonce,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// The state that waits for message 3.
    pub next: ExpectLast,
    /// The SAs; nothing is sent on them before message 3.
    pub child: Child,
    pub message: Vec<u8>,
}

impl Requested {
    /// Reads message 1, `--> HDR*, HASH(1), SA, Ni [, KE] [, IDci, IDcr]`.
    ///
    /// # Errors
    /// The datagram is no message 1 under this ISAKMP SA, or not authentic.
    pub fn read(sa: &IsakmpSa, datagram: &[u8]) -> Result<Authentic<Self>, Error> {
        let (header, _) = header::split(datagram)?;
        if header.message_id == 0 {
            return Err(PeerMisbehaved::MessageId(0).into());
        }
        let opened = sa.open(&sa.exchange(QUICK_MODE, header.message_id), datagram)?;
        let [message, ..] = MESSAGES;
        let read = Negotiation::read(message, sa, &opened, &[])?;
        Ok(read.map(|negotiation| Self { cipher: opened.next(), negotiation }))
    }

    /// The traffic asked for, ours first; `None` where the peer means the two hosts themselves (RFC
    /// 2409 §5.5).
    pub fn selectors(&self) -> Option<Selectors> {
        let [theirs, ours] = self.negotiation.identities?;
        Some(Selectors { local: ours, remote: theirs })
    }

    /// The traffic asked for where the hosts themselves are `local` and `remote`.
    pub fn selectors_or(&self, local: TrafficSelector, remote: TrafficSelector) -> Selectors {
        self.selectors().unwrap_or(Selectors { local, remote })
    }

    /// Chooses under `policy`, and answers with message 2, `<-- HDR*, HASH(2), SA, Nr [, KE] [,
    /// IDci, IDcr]`. Costs two exponentiations with perfect forward secrecy. `spi` is ours, of no
    /// other SA that we receive on.
    ///
    /// # Errors
    /// Nothing that was offered is acceptable, or the public value is unusable.
    pub fn answer(
        self,
        sa: &IsakmpSa,
        policy: &ChildPolicy,
        selectors: Selectors,
        spi: u32,
        rng: &mut SeededRng,
    ) -> Result<Answer, Error> {
        let Negotiation { sa: offer, nonce: ni, public, identities, proof } = self.negotiation;
        let mode = sa.encapsulation_mode(policy.mode);
        let (agreement, choice) = proposal::choose(policy, mode, &offer, spi)?;
        let nr = Nonce(rng.array::<NONCE_LENGTH>().to_vec());
        let key_pair = agreement.pfs.map(|group| KeyPair::generate(group, rng));
        let g_xy = match (&key_pair, public) {
            (Some(ours), Some(theirs)) => Some(agree(ours, &theirs.0)?),
            (None, None) => None,
            _ => {
                let number = offer.proposals.first().map_or(0, |proposal| proposal.number);
                let refused = EspRefused(vec![((number, 0), EspFault::PublicValue)]);
                return Err(PeerIncompatible::EspRefused(refused).into());
            }
        };
        let public = key_pair.as_ref().map(KeyPair::public);
        let (first, payloads) = Negotiation::payloads(choice, &nr, public, identities)?;
        let sealed = sa.seal_authenticated(&self.cipher, &[&ni.0], first, &payloads)?;
        let ingredients = Ingredients {
            sa,
            algorithms: agreement.algorithms,
            g_xy: g_xy.as_ref(),
            ni_b: &ni.0,
            nr_b: &nr.0,
        };
        let request = Request { policy: policy.clone(), selectors, spi };
        let child = child(&request, agreement, &ingredients, proof);
        let next = ExpectLast { cipher: sealed.next(), ni, nr };
        Ok(Answer { next, child, message: sealed.into_datagram() })
    }
}

impl ExpectLast {
    /// Reads message 3, `--> HDR*, HASH(3)`: both sides have the keys.
    ///
    /// # Errors
    /// The datagram is no message 3 of this exchange, or not authentic.
    pub fn handle(&self, sa: &IsakmpSa, datagram: &[u8]) -> Result<HashVerified, Error> {
        let opened = sa.open(&self.cipher, datagram)?;
        read_last(sa, &opened, [&self.ni.0, &self.nr.0])
    }
}
