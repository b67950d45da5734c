//! The key server's side of a pull (RFC 6407 §3.4): three states.
//!
//! ```text
//! message 1 --> Requested --answer--> ExpectAcceptance --message 3--> Accepted --keys--> message 4
//! ```
//!
//! The group's state must not change before message 3 (RFC 6407 §3.2, §7.2.5): until then only the
//! policy is known. What is one member's own, sender identifiers and the path through a key
//! hierarchy, comes with the keys.

use super::member::NONCE_LENGTH;
use super::message::{Authentic, Message1, Message2, Message3, Message4, Rest};
use crate::config::{ByteOrder, PolicyForm};
use crate::error::{ApiMisuse, Error};
use crate::group::{GroupId, GroupPolicy, IssuedSa};
use crate::wire::group_id;
use crate::wire::registry::GROUPKEY_PULL;
use crate::wire::seq::SequenceNumber;
use crate::wire::{group_keys, key_download, security_association, sender_id_request};
use ike::crypto::SeededRng;
use ike::error::{PeerIncompatible, PeerMisbehaved};
use ike::phase1::{ExchangeCipher, HashVerified, IsakmpSa};
use ike::wire::nonce::Nonce;
use ike::wire::{EncodeError, header};

/// Message 1 was authentic; nobody has decided yet.
#[derive(Debug)]
pub struct Requested {
    cipher: ExchangeCipher,
    ni: Nonce,
    group: GroupId,
}

/// Message 2 is on its way.
#[derive(Debug)]
pub struct ExpectAcceptance {
    cipher: ExchangeCipher,
    policy: GroupPolicy,
    ni: Nonce,
    nr: Nonce,
}

/// Message 3 was valid: the member gets keys.
#[derive(Debug)]
pub struct Accepted {
    cipher: ExchangeCipher,
    policy: GroupPolicy,
    ni: Nonce,
    nr: Nonce,
    sender_ids: Option<u16>,
}

impl Requested {
    /// Reads message 1, `--> HDR*, HASH(1), Ni, ID`.
    ///
    /// # Errors
    /// The datagram is no message 1 under this ISAKMP SA, or not authentic.
    pub fn read(sa: &IsakmpSa, datagram: &[u8]) -> Result<(Authentic<Self>, HashVerified), Error> {
        let (header, _) = header::split(datagram)?;
        if header.message_id == 0 {
            return Err(PeerMisbehaved::MessageId(0).into());
        }
        let opened = sa.open(&sa.exchange(GROUPKEY_PULL, header.message_id), datagram)?;
        let (message, proof) = Message1::read(sa, &opened)?;
        let requested = message.and_then(|message| {
            let kind = message.group.kind;
            let group = group_id::group(&message.group, ByteOrder::Network)
                .ok_or(PeerIncompatible::IdentificationType(kind))?;
            Ok(Self { cipher: opened.next(), ni: message.nonce, group })
        });
        Ok((requested, proof))
    }

    /// The group asked for, with its octets read in network order.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Offers the policy of the group: the next state and message 2, `<-- HDR*, HASH(2), Nr, SA`.
    ///
    /// # Errors
    /// The policy is another group's, or too long for a datagram.
    pub fn answer(
        &self,
        sa: &IsakmpSa,
        policy: &GroupPolicy,
        form: PolicyForm,
        rng: &mut SeededRng,
    ) -> Result<(ExpectAcceptance, Vec<u8>), Error> {
        let (asked, given) = (form.group_id.group(self.group), policy.group);
        if asked != given {
            return Err(ApiMisuse::WrongGroup { asked, given }.into());
        }
        let nr = Nonce(rng.array::<NONCE_LENGTH>().to_vec());
        let stated = security_association(policy, form.trailer).with_selectors(form.selectors);
        let message2 = Message2 { nonce: nr.clone(), policy: stated };
        let (first, payloads) = fits(message2.rest()?)?;
        let sealed =
            sa.seal_authenticated(&self.cipher, &[&self.ni.0], first, payloads.expose())?;
        let (policy, ni) = (policy.clone(), self.ni.clone());
        let next = ExpectAcceptance { cipher: sealed.next(), policy, ni, nr };
        Ok((next, sealed.into_datagram()))
    }
}

impl ExpectAcceptance {
    /// Reads message 3, `--> HDR*, HASH(3) [, GAP ]`.
    ///
    /// # Errors
    /// The datagram is no message 3 of this pull, or not authentic.
    pub fn read(
        &self,
        sa: &IsakmpSa,
        datagram: &[u8],
    ) -> Result<(Authentic<Accepted>, HashVerified), Error> {
        let opened = sa.open(&self.cipher, datagram)?;
        let (message, proof) = Message3::read(sa, &opened, &self.ni, &self.nr)?;
        let accepted = message.and_then(|message| {
            let sender_ids = message.requests.as_ref().map(sender_id_request).transpose()?;
            Ok(Accepted {
                cipher: opened.next(),
                policy: self.policy.clone(),
                ni: self.ni.clone(),
                nr: self.nr.clone(),
                sender_ids: sender_ids.flatten(),
            })
        });
        Ok((accepted, proof))
    }
}

impl Accepted {
    /// How many sender identifiers the member asks for, if it does (RFC 6407 §5.4.2).
    pub fn sender_ids(&self) -> Option<u16> {
        self.sender_ids
    }

    /// Message 4, `<-- HDR*, HASH(4) [, SEQ ], KD`.
    ///
    /// # Errors
    /// The keys are not those of the policy offered, or too long for a datagram.
    pub fn answer(&self, sa: &IsakmpSa, group_sa: &IssuedSa) -> Result<Vec<u8>, Error> {
        let (first, payloads) = message4(&self.policy, group_sa)?;
        let nonces = [self.ni.0.as_slice(), self.nr.0.as_slice()];
        let sealed = sa.seal_authenticated(&self.cipher, &nonces, first, payloads.expose())?;
        Ok(sealed.into_datagram())
    }
}

/// The payloads of message 4 with the keys of `group_sa` for what `policy` says.
///
/// # Errors
/// Members would refuse the keys, or they are too long for a datagram.
pub fn message4(policy: &GroupPolicy, group_sa: &IssuedSa) -> Result<Rest, Error> {
    // What members would refuse must not leave here.
    group_keys(policy, key_download(group_sa)).map_err(ApiMisuse::Keys)?;
    let number = policy.kek.as_ref().map(|_| SequenceNumber(group_sa.last_sequence_number()));
    fits(Message4::rest(number, &key_download(group_sa))?)
}

/// Whether a message with these payloads fits into one UDP datagram.
fn fits(rest: Rest) -> Result<Rest, Error> {
    match rest.1.len() {
        0..=MAXIMUM => Ok(rest),
        have => {
            Err(EncodeError { what: "group SA in one datagram", have, maximum: MAXIMUM }.into())
        }
    }
}

/// Octets of payloads that fit into a UDP datagram with headers, HASH and padding.
const MAXIMUM: usize = 65_507 - 28 - 68 - 16;
