//! The member's side of a pull (RFC 6407 §3.3): three states, each consumed by what ends it.
//!
//! ```text
//! ExpectPolicy --message 2--> PolicyOffered --accept--> ExpectKeys --message 4--> GroupSa
//! ```
//!
//! Reading a message borrows a state and changes nothing, so that anybody's octets can be tried;
//! only a message that was read lets the state go on.

use super::message::{Authentic, Message1, Message2, Message3, Message4};
use crate::config::ByteOrder;
use crate::delay_detection;
use crate::error::{Error, PeerMisbehaved};
use crate::group::{GroupId, GroupPolicy, GroupSa};
use crate::wire::gap::Gap;
use crate::wire::group_id;
use crate::wire::group_policy;
use crate::wire::registry::{GROUPKEY_PULL, GapAttribute};
use ike::crypto::SeededRng;
use ike::phase1::{ExchangeCipher, IsakmpSa};
use ike::wire::attribute::Attribute;
use ike::wire::nonce::Nonce;

/// Message 1 is on its way.
#[derive(Debug)]
pub struct ExpectPolicy {
    cipher: ExchangeCipher,
    group: GroupId,
    selectors: ByteOrder,
    ni: Nonce,
}

/// An authentic message 2, read and understood.
#[derive(Debug)]
pub struct Policy {
    cipher: ExchangeCipher,
    nr: Nonce,
    policy: GroupPolicy,
}

/// The policy is known; whether it can be used is for the caller to say.
#[derive(Debug)]
pub struct PolicyOffered {
    cipher: ExchangeCipher,
    ni: Nonce,
    nr: Nonce,
    policy: GroupPolicy,
}

/// Message 3 is on its way.
#[derive(Debug)]
pub struct ExpectKeys {
    pub(super) cipher: ExchangeCipher,
    pub(super) ni: Nonce,
    pub(super) nr: Nonce,
    pub(super) policy: GroupPolicy,
}

impl ExpectPolicy {
    /// Asks for `group`: the state and message 1, `HDR*, HASH(1), Ni, ID -->`. The key server
    /// expects the octets of the group id in `order`, and sends those of traffic selectors in
    /// `selectors`.
    pub fn start(
        sa: &IsakmpSa,
        group: GroupId,
        (order, selectors): (ByteOrder, ByteOrder),
        message_id: u32,
        rng: &mut SeededRng,
    ) -> Result<(Self, Vec<u8>), Error> {
        let ni = Nonce(rng.array::<NONCE_LENGTH>().to_vec());
        let message = Message1 { nonce: ni.clone(), group: group_id::identification(group, order) };
        let (first, payloads) = message.rest()?;
        let exchange = sa.exchange(GROUPKEY_PULL, message_id);
        let sealed = sa.seal_authenticated(&exchange, &[], first, payloads.expose())?;
        Ok((Self { cipher: sealed.next(), group, selectors, ni }, sealed.into_datagram()))
    }

    /// The message identifier of the pull.
    pub fn message_id(&self) -> u32 {
        self.cipher.message_id()
    }

    /// Reads message 2, `<-- HDR*, HASH(2), Nr, SA`.
    ///
    /// # Errors
    /// The datagram is no message 2 of this pull, or not authentic.
    pub fn read(&self, sa: &IsakmpSa, datagram: &[u8]) -> Result<Authentic<Policy>, Error> {
        let opened = sa.open(&self.cipher, datagram)?;
        Ok(Message2::read(sa, &opened, &self.ni)?.and_then(|message| {
            let announced = delay_detection::is_announced(sa.peer_vendor_ids());
            delay_detection::check(announced, &message.policy)?;
            let stated = message.policy.with_selectors(self.selectors);
            let policy = group_policy(self.group, &stated)?;
            Ok(Policy { cipher: opened.next(), nr: message.nonce, policy })
        }))
    }

    /// Goes on with message 2.
    pub fn receive(self, message: Policy) -> PolicyOffered {
        let Policy { cipher, nr, policy } = message;
        PolicyOffered { cipher, ni: self.ni, nr, policy }
    }
}

impl PolicyOffered {
    /// The policy that the key server offers.
    pub fn policy(&self) -> &GroupPolicy {
        &self.policy
    }

    /// Asks for the keys, and for so many sender identifiers if a number is given: the state and
    /// message 3, `HDR*, HASH(3) [, GAP ] -->`.
    pub fn accept(
        &self,
        sa: &IsakmpSa,
        sender_ids: Option<u16>,
    ) -> Result<(ExpectKeys, Vec<u8>), Error> {
        let request = |count: u16| Gap {
            attributes: vec![Attribute::short(GapAttribute::SENDER_ID_REQUEST, count)],
        };
        let (first, payloads) = Message3 { requests: sender_ids.map(request) }.rest()?;
        let sealed = sa.seal_authenticated(
            &self.cipher,
            &[&self.ni.0, &self.nr.0],
            first,
            payloads.expose(),
        )?;
        let (ni, nr, policy) = (self.ni.clone(), self.nr.clone(), self.policy.clone());
        Ok((ExpectKeys { cipher: sealed.next(), ni, nr, policy }, sealed.into_datagram()))
    }
}

impl ExpectKeys {
    /// The message identifier of the pull.
    pub fn message_id(&self) -> u32 {
        self.cipher.message_id()
    }

    /// Reads message 4, `<-- HDR*, HASH(4) [, SEQ ], KD`, and matches its keys with the policy.
    ///
    /// # Errors
    /// The datagram is no message 4 of this pull, or not authentic.
    pub fn read(&self, sa: &IsakmpSa, datagram: &[u8]) -> Result<Authentic<GroupSa>, Error> {
        let opened = sa.open(&self.cipher, datagram)?;
        Ok(Message4::read(sa, &opened, &self.ni, &self.nr)?
            .and_then(|message| self.group_sa(message))
            .map(|group_sa| {
                group_sa
                    .announcing_delay_detection(delay_detection::is_announced(sa.peer_vendor_ids()))
            }))
    }

    /// Keys and policy together. What does not fit exactly is refused as a whole: a member that
    /// installed half of a group would drop, or worse misunderstand, the other half's traffic.
    fn group_sa(&self, message: Message4) -> Result<GroupSa, Error> {
        let present = message.sequence_number.is_some();
        if present != self.policy.kek.is_some() {
            return Err(PeerMisbehaved::SequenceNumber { present }.into());
        }
        let number = message.sequence_number.map(|number| number.0);
        Ok(GroupSa::received(self.policy.clone(), message.keys.into(), number)?)
    }
}

/// Octets of our nonces: within 8..=128 (RFC 6407 §5.8), and as much as the strongest prf in use is
/// worth.
pub(super) const NONCE_LENGTH: usize = 32;
