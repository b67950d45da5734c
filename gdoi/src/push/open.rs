//! The member's way through a received push: decrypted, well-formed, fresh, verified (RFC 6407
//! §4.4, §7.3.4).
//!
//! Every stage is a type that only the one before can make, and none but the last reads a payload
//! body.

use zeroize::Zeroizing;

use super::message::{self, NAME, PushPayloads, SignatureEncoding, SignedLength};
use super::replay::Replay;
use crate::error::{Error, PeerMisbehaved};
use crate::group::proof::{FromKeyServer, SignatureVerified, SignedOctets};
use crate::kek_cipher::{Kek, Verifier};
use crate::wire::registry::GROUPKEY_PUSH;
use crate::wire::seq::SequenceNumber;
use ike::crypto::{KeyKind, RsaForm};
use ike::error::{NotAccepted, PeerIncompatible};
use ike::retransmission::Digest;
use ike::wire::InvalidMessage;
use ike::wire::chain;
use ike::wire::chain::RawPayload;
use ike::wire::delete::Delete;
use ike::wire::header;
use ike::wire::header::Header;
use ike::wire::registry::{Flags, PayloadKind};
use ike::wire::signature::Signature;
use ike::wire::vendor::VendorId;

/// A decrypted push: octets that may be noise.
#[derive(Debug)]
pub struct Opened {
    header: Header,
    plaintext: Zeroizing<Vec<u8>>,
    block_length: usize,
}

/// A push whose payload chain is in order: SEQ first, SIG last, SA and KD together or not at all.
#[derive(Debug)]
pub struct WellFormed {
    opened: Opened,
    sequence_number: u32,
    signature: Vec<u8>,
    /// Octets in front of SIG.
    signed: usize,
    /// Octets of all payloads, without padding.
    unpadded: usize,
}

/// A push with a number that has not been seen yet.
#[derive(Debug)]
pub struct Fresh(WellFormed);

/// A push of the group's key server.
#[derive(Debug)]
pub struct VerifiedPush {
    push: WellFormed,
    proof: SignatureVerified,
    encoding: SignatureEncoding,
}

impl Opened {
    /// Decrypts `datagram` with the KEK whose SPI is `spi`.
    ///
    /// # Errors
    /// The header is not that of a push under this KEK, or the ciphertext is no whole number of
    /// blocks.
    pub fn decrypt(kek: &Kek, spi: &[u8; 16], datagram: &[u8]) -> Result<Self, Error> {
        let (header, body) = header::split(datagram)?;
        if header.exchange != GROUPKEY_PUSH {
            return Err(PeerIncompatible::ExchangeType(header.exchange.0).into());
        }
        if message::spi_of(&header) != *spi {
            return Err(NotAccepted::UnknownCookies.into());
        }
        if !header.flags.contains(Flags::ENCRYPTION) {
            let encrypted = false;
            return Err(ike::error::PeerMisbehaved::Encryption { message: NAME, encrypted }.into());
        }
        if header.message_id != 0 {
            return Err(ike::error::PeerMisbehaved::MessageId(header.message_id).into());
        }
        Ok(Self { header, plaintext: kek.decrypt(body)?, block_length: kek.block_length() })
    }

    /// Checks the payload chain, and that it fills all blocks up to less than one: nobody signs the
    /// padding, so that it must not carry anything.
    ///
    /// # Errors
    /// The chain is broken, or a payload is missing, repeated or out of place, or there is a block
    /// of padding.
    pub fn check(self) -> Result<WellFormed, Error> {
        let chain = chain::walk(self.header.next_payload, &self.plaintext, header::LENGTH)?;
        let have = chain.padding.len();
        if have >= self.block_length {
            let offset = header::LENGTH.saturating_add(self.plaintext.len()).saturating_sub(have);
            return Err(InvalidMessage::Trailing { what: "payload chain", offset, have }.into());
        }
        let mut payloads = chain.payloads.iter();
        let sequence_number: SequenceNumber =
            first("SEQ", PayloadKind::SEQUENCE_NUMBER, payloads.next())?.read()?;
        let signature: Signature =
            first("SIG", PayloadKind::SIGNATURE, payloads.next_back())?.read()?;
        let mut stage = PayloadKind::DELETE;
        let mut deletes = false;
        for payload in payloads {
            match (stage, payload.kind) {
                (_, PayloadKind::VENDOR_ID) => {}
                (PayloadKind::DELETE, PayloadKind::DELETE) => deletes = true,
                (PayloadKind::DELETE, PayloadKind::SA)
                | (PayloadKind::SA, PayloadKind::KEY_DOWNLOAD) => {
                    stage = payload.kind;
                }
                (_, kind) => {
                    let offset = payload.offset;
                    return Err(ike::error::PeerMisbehaved::ForeignPayload {
                        message: NAME,
                        kind,
                        offset,
                    }
                    .into());
                }
            }
        }
        match stage {
            PayloadKind::SA => {
                return Err(ike::error::PeerMisbehaved::MissingPayload {
                    message: NAME,
                    payload: "KD",
                }
                .into());
            }
            PayloadKind::DELETE if !deletes => {
                return Err(ike::error::PeerMisbehaved::MissingPayload {
                    message: NAME,
                    payload: "SA",
                }
                .into());
            }
            _ => {}
        }
        let signed = chain.octets_before(chain.payloads.len().saturating_sub(1)).len();
        let unpadded = self.plaintext.len().saturating_sub(chain.padding.len());
        Ok(WellFormed {
            sequence_number: sequence_number.0,
            signature: signature.0,
            signed,
            unpadded,
            opened: self,
        })
    }
}

impl WellFormed {
    /// Names what SIG covers, the number included. The padding is no part of it, and neither is
    /// SIG: whoever holds the KEK can change the one, and some signatures have a second valid form.
    pub(crate) fn signed_octets(&self) -> Digest {
        let signed = self.opened.plaintext.get(..self.signed).unwrap_or_default();
        Digest::of(signed)
    }

    /// Its number, which nobody has verified.
    pub(crate) fn sequence_number(&self) -> u32 {
        self.sequence_number
    }

    /// Lets a push go on whose number is new under its KEK.
    ///
    /// # Errors
    /// The number is not greater than the last one accepted.
    pub(crate) fn fresh(self, replay: &Replay) -> Result<Fresh, Error> {
        replay.check(self.sequence_number)?;
        Ok(Fresh(self))
    }
}

impl Fresh {
    /// Verifies SIG, in the forms that key servers use; the one in `encoding` is tried first.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongSignature`].
    pub(crate) fn verify(
        self,
        verifier: &Verifier,
        encoding: SignatureEncoding,
    ) -> Result<VerifiedPush, Error> {
        let Self(push) = self;
        let whole = push.opened.plaintext.len();
        let padded = whole != push.unpadded;
        for length in in_order(encoding.length, [SignedLength::Padded, SignedLength::Unpadded]) {
            if length == SignedLength::Unpadded && !padded {
                // The same octets as with the padding that is not there.
                continue;
            }
            let counted = match length {
                SignedLength::Padded => whole,
                SignedLength::Unpadded => push.unpadded,
            };
            let header = message::signed_header(&push.opened.header, counted)?;
            let octets = SignedOctets {
                prefix: &[message::LABEL, &header],
                first: push.opened.header.next_payload,
                payloads: &push.opened.plaintext,
                signed: push.signed,
            };
            for form in in_order(encoding.form, [RsaForm::DigestInfo, RsaForm::RawDigest]) {
                let Some(proof) = SignatureVerified::verify(
                    &verifier.key,
                    verifier.hash,
                    form,
                    &octets,
                    &push.signature,
                ) else {
                    continue;
                };
                let rsa = verifier.key.kind() == KeyKind::Rsa;
                let encoding = SignatureEncoding {
                    form: if rsa { Some(form) } else { None },
                    length: if padded { Some(length) } else { encoding.length },
                };
                return Ok(VerifiedPush { push, proof, encoding });
            }
        }
        Err(PeerMisbehaved::WrongSignature.into())
    }
}

impl VerifiedPush {
    /// Number of the push.
    pub fn sequence_number(&self) -> u32 {
        self.push.sequence_number
    }

    /// How the key server made the signature.
    pub fn signature_encoding(&self) -> SignatureEncoding {
        self.encoding
    }

    /// Parses the bodies of the payloads.
    ///
    /// # Errors
    /// A body cannot be read.
    pub(crate) fn read(&self) -> Result<PushPayloads, Error> {
        let deletes = self.proof.read::<Delete>()?;
        let vendor_ids = self.proof.read::<VendorId>()?;
        Ok(PushPayloads {
            deletes: deletes.into_iter().map(FromKeyServer::into_inner).collect(),
            policy: self.proof.read()?.pop().map(FromKeyServer::into_inner),
            keys: self.proof.read()?.pop(),
            vendor_ids: vendor_ids.into_iter().map(FromKeyServer::into_inner).collect(),
        })
    }
}

fn first<'a, 'b>(
    name: &'static str,
    kind: PayloadKind,
    payload: Option<&'b RawPayload<'a>>,
) -> Result<&'b RawPayload<'a>, ike::error::PeerMisbehaved> {
    payload
        .filter(|payload| payload.kind == kind)
        .ok_or(ike::error::PeerMisbehaved::MissingPayload { message: NAME, payload: name })
}

/// Both of `all`, `encoding` first.
fn in_order<T: Copy + PartialEq>(encoding: Option<T>, all: [T; 2]) -> impl Iterator<Item = T> {
    encoding.into_iter().chain(all.into_iter().filter(move |one| encoding != Some(*one)))
}
