//! The key server's side of a push (RFC 6407 §4.3): numbered, signed once, encrypted once.
//!
//! What comes out is a datagram that every member gets and every repetition repeats: receivers know
//! copies by their octets.

use super::ack::{Acknowledged, AcknowledgementKind, Claim};
use super::message::{self, Deletion, SignedLength};
use crate::kek_cipher::{Kek, KekUnusable, signature_scheme};
use ike::wire::payload::AnyPayload;

use crate::config::ByteOrder;
use crate::error::{Error, NotAccepted};
use crate::group::{IssuedSa, KekKeys, KekPolicy};
use crate::lkh::UpdateArrays;
use crate::wire::kd::KeyPacket;
use crate::wire::lkh::LkhAttribute;
use crate::wire::sa_kek::Trailer;
use crate::wire::seq::SequenceNumber;
use crate::wire::{Payload, key_download, security_association};
use ike::crypto::HashAlgorithm;
use ike::crypto::{RsaForm, Secret, SeededRng, SigningKey};
use ike::error::ApiMisuse;
use ike::wire::Writer;
use ike::wire::chain::encode_with;
use ike::wire::registry::PayloadKind;
use ike::wire::signature::Signature;

/// What existing members expect differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SealOptions {
    /// What an RSA signature covers.
    pub form: RsaForm,
    /// Which Length is signed.
    pub length: SignedLength,
    /// Reserved octets of the SAK.
    pub trailer: Trailer,
    /// Order of the octets of IPv4 addresses and masks in traffic selectors.
    pub selectors: ByteOrder,
    /// Under which SPI the key packet of a new KEK stands.
    pub kek_packet: KekPacketSpi,
}

/// SPI of the key packet of a new KEK in the push that brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KekPacketSpi {
    /// That of the SAK (RFC 6407 §5.6): the new one.
    #[default]
    New,
    /// That of the KEK which encrypts the push, as an existing implementation sends and expects it.
    Old,
}

/// What a push says.
#[derive(Debug, Default)]
pub struct PushContent<'a> {
    /// SAs that members delete at once.
    pub deletions: &'a [Deletion],
    /// New policy and keys. With another KEK than the one that encrypts, members change over to it.
    pub group_sa: Option<&'a IssuedSa>,
    /// How the new KEK of `group_sa`, if there is one, reaches the members.
    pub kek_delivery: KekDelivery,
}

/// How a push brings a new KEK.
#[derive(Debug, Default)]
pub enum KekDelivery {
    /// As a KEK packet: every holder of the old KEK reads it.
    #[default]
    Packet,
    /// By update arrays of the key hierarchy, which take the place of the KEK packet: only members
    /// that are left in the hierarchy follow.
    Hierarchy(UpdateArrays),
}

/// A push ready to be sent, any number of times.
#[derive(Debug)]
pub struct SealedPush {
    spi: [u8; 16],
    sequence_number: u32,
    datagram: Vec<u8>,
    acknowledgement: Option<AcknowledgementKind>,
    base_key: Secret,
}

/// One KEK of a key server, and the number of the last push under it.
#[derive(Debug)]
pub struct Sealer {
    policy: KekPolicy,
    kek: Kek,
    hash: HashAlgorithm,
    sequence_number: u32,
}

impl Sealer {
    /// The KEK of `policy`. `sequence_number` is 0 for a new KEK, and what the sealed state says
    /// after a restart: a number that is used twice is ignored by every member.
    ///
    /// # Errors
    /// The KEK or the signature scheme cannot be used.
    pub fn new(
        policy: &KekPolicy,
        keys: &KekKeys,
        sequence_number: u32,
        legacy: bool,
    ) -> Result<Self, KekUnusable> {
        let (_, hash) = signature_scheme(policy, legacy)?;
        let kek = Kek::new(policy, &keys.algorithm_key, legacy)?;
        Ok(Self { policy: policy.clone(), kek, hash, sequence_number })
    }

    /// Policy of the KEK.
    pub fn policy(&self) -> &KekPolicy {
        &self.policy
    }

    /// Number of the last push sealed: what the SEQ payload of a pull says.
    pub fn sequence_number(&self) -> u32 {
        self.sequence_number
    }

    /// Makes the next push. The number counts as used when this returns a push.
    ///
    /// # Errors
    /// Nothing to say, TEKs beside update arrays, a signing key that does not fit the policy,
    /// numbers used up, or a message that is too long.
    pub fn seal(
        &mut self,
        content: PushContent<'_>,
        key: &SigningKey,
        options: SealOptions,
        rng: &mut SeededRng,
    ) -> Result<SealedPush, Error> {
        let number = self
            .sequence_number
            .checked_add(1)
            .ok_or(unusable("the sequence numbers of the KEK are used up"))?;
        let stated = content.group_sa.and_then(|sa| sa.policy().kek.as_ref());
        let acknowledgement = stated.unwrap_or(&self.policy).acknowledgement;
        let payloads = payloads(number, content, &self.policy.spi, options)?;
        let mut writer = Writer::new();
        let mut rest = payloads.iter().peekable();
        while let Some(payload) = rest.next() {
            let next = rest.peek().map_or(PayloadKind::SIGNATURE, |payload| payload.kind());
            encode_with(&mut writer, next, |writer| payload.encode(writer));
        }
        let mut plaintext = zeroize::Zeroizing::new(writer.finish()?);
        let unpadded =
            plaintext.len().saturating_add(GENERIC_HEADER).saturating_add(key.signature_length());
        let counted = match options.length {
            SignedLength::Padded => unpadded.next_multiple_of(self.kek.block_length()),
            SignedLength::Unpadded => unpadded,
        };
        let header = message::push_header(&self.policy.spi);
        let digest = message::signed_digest(self.hash, &header, counted, &plaintext)?;
        let signature =
            key.sign(self.hash, options.form, &digest, rng).map_err(KekUnusable::from)?;
        let mut writer = Writer::new();
        writer.put(&plaintext);
        encode_with(&mut writer, PayloadKind::NONE, |writer| {
            Payload::from(Signature(signature)).encode(writer);
        });
        plaintext = zeroize::Zeroizing::new(writer.finish()?);
        let datagram = header.message(&self.kek.encrypt(&plaintext)?)?;
        if datagram.len() > LONGEST_DATAGRAM {
            return Err(unusable("the push does not fit into a datagram").into());
        }
        self.sequence_number = number;
        Ok(SealedPush {
            spi: self.policy.spi,
            sequence_number: number,
            datagram,
            acknowledgement: acknowledgement.and_then(AcknowledgementKind::from_number),
            base_key: self.kek.base_key().duplicate(),
        })
    }
}

impl SealedPush {
    /// A second copy, for a member that registers while the first is on its way.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self {
            spi: self.spi,
            sequence_number: self.sequence_number,
            datagram: self.datagram.clone(),
            acknowledgement: self.acknowledgement,
            base_key: self.base_key.duplicate(),
        }
    }

    /// A push of the sealed state, as its parts were told by this type. `acknowledgement` is
    /// KEK_ACK_REQUESTED.
    pub fn restore(
        spi: [u8; 16],
        sequence_number: u32,
        datagram: Vec<u8>,
        acknowledgement: Option<u16>,
        base_key: Secret,
    ) -> Self {
        let acknowledgement = acknowledgement.and_then(AcknowledgementKind::from_number);
        Self { spi, sequence_number, datagram, acknowledgement, base_key }
    }

    /// Base key of acknowledgements of the KEK kinds (RFC 8263 §3.2), for the sealed state.
    pub fn base_key(&self) -> &Secret {
        &self.base_key
    }

    /// SPI of the KEK that encrypted it.
    pub fn spi(&self) -> &[u8; 16] {
        &self.spi
    }

    /// The number in its SEQ payload.
    pub fn sequence_number(&self) -> u32 {
        self.sequence_number
    }

    /// The octets to send.
    pub fn datagram(&self) -> &[u8] {
        &self.datagram
    }

    /// Which acknowledgement members were asked for.
    pub fn acknowledgement(&self) -> Option<AcknowledgementKind> {
        self.acknowledgement
    }

    /// Verifies an acknowledgement of this push; `leaf_key` is the member's, for the LKH kinds.
    ///
    /// # Errors
    /// None was asked for, it is of another push, the member has no leaf, or HASH fits no reading
    /// of RFC 8263.
    pub fn verify(&self, claim: &Claim, leaf_key: Option<&Secret>) -> Result<Acknowledged, Error> {
        let kind = self.acknowledgement.ok_or(NotAccepted::UnexpectedAcknowledgement)?;
        if claim.spi != self.spi || claim.sequence_number != self.sequence_number {
            return Err(NotAccepted::UnexpectedAcknowledgement.into());
        }
        match kind.uses_leaf_key() {
            false => claim.verify(kind, &self.base_key),
            true => claim.verify(kind, leaf_key.ok_or(NotAccepted::UnexpectedAcknowledgement)?),
        }
    }
}

/// SEQ, D, SA, KD.
fn payloads(
    number: u32,
    content: PushContent<'_>,
    old: &[u8; 16],
    options: SealOptions,
) -> Result<Vec<Payload>, Error> {
    let mut payloads = vec![Payload::SequenceNumber(SequenceNumber(number))];
    payloads.extend(Deletion::write(content.deletions).into_iter().map(Payload::from));
    let Some(sa) = content.group_sa else {
        return match content.deletions.is_empty() {
            true => Err(unusable("a push that says nothing").into()),
            false => Ok(payloads),
        };
    };
    let mut keys = key_download(sa);
    // Both are for one member alone (RFC 6407 §5.6.3.1, §5.6.4).
    keys.packets.retain(|packet| !matches!(packet, KeyPacket::Sid { .. } | KeyPacket::Lkh { .. }));
    if let KekDelivery::Hierarchy(updates) = content.kek_delivery {
        let Some(kek) = &sa.policy().kek else {
            return Err(unusable("update arrays without a new KEK").into());
        };
        if !sa.policy().teks.is_empty() {
            // The removed member reads this push: keys follow under the new KEK (RFC 6407 §7.4).
            return Err(unusable("TEKs beside update arrays").into());
        }
        keys.packets.retain(|packet| !matches!(packet, KeyPacket::Kek { .. }));
        let attributes = updates.into_vec().into_iter().map(LkhAttribute::Update).collect();
        keys.packets.push(KeyPacket::Lkh { spi: kek.spi, attributes });
    }
    if options.kek_packet == KekPacketSpi::Old {
        for packet in &mut keys.packets {
            if let KeyPacket::Kek { spi, .. } = packet {
                *spi = *old;
            }
        }
    }
    let policy = security_association(sa.policy(), options.trailer);
    payloads.push(Payload::GroupSecurityAssociation(policy.with_selectors(options.selectors)));
    payloads.push(Payload::KeyDownload(keys));
    Ok(payloads)
}

fn unusable(why: &'static str) -> ApiMisuse {
    ApiMisuse::Configuration(why)
}

const GENERIC_HEADER: usize = 4;

/// Of UDP over IPv4, headers taken off.
const LONGEST_DATAGRAM: usize = 65_507;
