//! The messages of Quick Mode, read whole before anything changes (RFC 2409 §5.5).
//!
//! ```text
//! HDR*, HASH(1), SA, Ni [, KE] [, IDci, IDcr]     HASH(1) = prf(SKEYID_a, M-ID | payloads)
//! HDR*, HASH(2), SA, Nr [, KE] [, IDci, IDcr]     HASH(2) = prf(SKEYID_a, M-ID | Ni_b | payloads)
//! HDR*, HASH(3)                                   HASH(3) = prf(SKEYID_a, 0 | M-ID | Ni_b | Nr_b)
//! ```

use super::Authentic;
use super::selector::TrafficSelector;
use crate::error::{Error, PeerIncompatible, PeerMisbehaved};
use crate::phase1::{HashVerified, IsakmpSa, Opened};
use crate::wire::chain::RawPayload;
use crate::wire::hash::Hash;
use crate::wire::id::Identification;
use crate::wire::ke::KeyExchange;
use crate::wire::nonce::Nonce;
use crate::wire::payload::{Payload, encode_chain, first_kind};
use crate::wire::registry::PayloadKind;
use crate::wire::sa::SecurityAssociation;
use crate::wire::{Chain, EncodeError};

/// Message 1 or 2: both have the same payloads.
#[derive(Debug)]
pub(super) struct Negotiation {
    pub(super) sa: SecurityAssociation,
    pub(super) nonce: Nonce,
    pub(super) public: Option<KeyExchange>,
    /// IDci and IDcr: the initiator's side of the traffic, then the responder's.
    pub(super) identities: Option<[TrafficSelector; 2]>,
    pub(super) proof: HashVerified,
}

/// Names of the messages in errors.
pub(super) const MESSAGES: [&str; 3] =
    ["message 1 of quick mode", "message 2 of quick mode", "message 3 of quick mode"];

impl Negotiation {
    /// Verifies HASH(1), or HASH(2) with the initiator's nonce, and reads the payloads behind it.
    ///
    /// # Errors
    /// The message is noise, or its HASH does not fit.
    pub(super) fn read(
        message: &'static str,
        sa: &IsakmpSa,
        opened: &Opened,
        nonces: &[&[u8]],
    ) -> Result<Authentic<Self>, Error> {
        let (chain, proof) = opened.authenticate(sa, message, nonces)?;
        Ok(Self::from_payloads(message, &chain, proof))
    }

    fn from_payloads(
        message: &'static str,
        chain: &Chain<'_>,
        proof: HashVerified,
    ) -> Result<Self, Error> {
        let (mut offer, mut nonce, mut public, mut identities) = (None, None, None, Vec::new());
        // The first payload is HASH.
        for payload in chain.payloads.iter().skip(1) {
            let place = match payload.kind {
                PayloadKind::SA => &mut offer,
                PayloadKind::NONCE => &mut nonce,
                PayloadKind::KEY_EXCHANGE => &mut public,
                PayloadKind::IDENTIFICATION if identities.len() < 2 => {
                    identities.push(*payload);
                    continue;
                }
                PayloadKind::HASH | PayloadKind::IDENTIFICATION => {
                    return Err(duplicate(message, payload));
                }
                // Notifications such as RESPONDER-LIFETIME, NAT-OA and vendor IDs say nothing that
                // is needed, and HASH covers them.
                kind if is_passed_over(kind) => continue,
                kind => {
                    let offset = payload.offset;
                    return Err(PeerMisbehaved::ForeignPayload { message, kind, offset }.into());
                }
            };
            if place.replace(*payload).is_some() {
                return Err(duplicate(message, payload));
            }
        }
        let missing = |payload| PeerMisbehaved::MissingPayload { message, payload };
        let offer = offer.ok_or(missing("SA"))?;
        let nonce = nonce.ok_or(missing("nonce"))?;
        let identities = match identities.as_slice() {
            [] => None,
            [initiator, responder] => Some([selector(initiator)?, selector(responder)?]),
            _ => return Err(missing("IDcr").into()),
        };
        Ok(Self {
            sa: offer.read()?,
            nonce: nonce.read()?,
            public: public.map(|public| public.read()).transpose()?,
            identities,
            proof,
        })
    }

    /// The payloads behind HASH(1) or HASH(2).
    pub(super) fn payloads(
        offer: SecurityAssociation,
        nonce: &Nonce,
        public: Option<&[u8]>,
        identities: Option<[TrafficSelector; 2]>,
    ) -> Result<(PayloadKind, Vec<u8>), EncodeError> {
        let mut payloads: Vec<Payload> = vec![offer.into(), nonce.clone().into()];
        payloads.extend(public.map(|public| KeyExchange(public.to_vec()).into()));
        let identities = identities.into_iter().flatten();
        payloads.extend(identities.map(|selector| selector.identification().into()));
        Ok((first_kind(&payloads), encode_chain(&payloads)?))
    }
}

/// Verifies HASH(3) of message 3 (RFC 2409 §5.5).
///
/// # Errors
/// The message is noise, or HASH(3) does not fit.
pub(super) fn read_last(
    sa: &IsakmpSa,
    opened: &Opened,
    nonces: [&[u8]; 2],
) -> Result<HashVerified, Error> {
    let [.., message] = MESSAGES;
    let chain = opened.chain()?;
    let Some(first) = chain.payloads.first().filter(|payload| payload.kind == PayloadKind::HASH)
    else {
        return Err(PeerMisbehaved::MissingPayload { message, payload: "HASH" }.into());
    };
    sa.verify_last(message, first.body(), opened.header().message_id, nonces)
}

/// The payload of message 3.
pub(super) fn last(sa: &IsakmpSa, message_id: u32, nonces: [&[u8]; 2]) -> Payload {
    Hash(sa.last_authenticator(message_id, nonces).expose().to_vec()).into()
}

fn selector(raw: &RawPayload<'_>) -> Result<TrafficSelector, Error> {
    let id: Identification = raw.read()?;
    TrafficSelector::of(&id).ok_or_else(|| PeerIncompatible::IdentificationType(id.kind).into())
}

fn duplicate(message: &'static str, payload: &RawPayload<'_>) -> Error {
    PeerMisbehaved::DuplicatePayload { message, kind: payload.kind }.into()
}

fn is_passed_over(kind: PayloadKind) -> bool {
    matches!(kind, PayloadKind::VENDOR_ID | PayloadKind::NOTIFICATION | PayloadKind::NAT_OA)
        || kind.0 >= FIRST_PRIVATE
}

/// Payload types of private use: 128 to 255 (RFC 2408 §3.1).
const FIRST_PRIVATE: u8 = 128;
