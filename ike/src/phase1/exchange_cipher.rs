//! One exchange's cipher state, and messages in and out of it (RFC 2409 appendix B).
//!
//! The IV of a message is the last ciphertext block of the message before it in the same exchange,
//! whichever side sent that. The state is a small value: reading or writing a message yields the
//! state behind it and leaves the old one alone, so that a forged or repeated message cannot move
//! the chain.

use core::ops::Deref;

use zeroize::Zeroizing;

use super::cookies::Cookies;
use super::isakmp_sa::{HashVerified, IsakmpSa, does_not_fit};
use crate::crypto::{Cipher, CipherError, Iv, Secret};
use crate::error::{ApiMisuse, Error, NotAccepted, PeerMisbehaved};
use crate::wire::header::{self, Header};
use crate::wire::registry::{ExchangeType, Flags, PayloadKind};
use crate::wire::{Body, Chain, InvalidMessage, chain};

/// Where the cipher of one exchange stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeCipher {
    kind: ExchangeType,
    message_id: u32,
    iv: Iv,
}

impl ExchangeCipher {
    pub(super) fn new(kind: ExchangeType, message_id: u32, iv: Iv) -> Self {
        Self { kind, message_id, iv }
    }

    pub fn kind(&self) -> ExchangeType {
        self.kind
    }

    /// Message ID, which names the exchange under its ISAKMP SA.
    pub fn message_id(&self) -> u32 {
        self.message_id
    }

    /// IV of the next message.
    pub(super) fn iv(&self) -> Iv {
        self.iv
    }
}

/// A decrypted message. Its plain text is zeroed on drop.
#[derive(Debug)]
pub struct Opened {
    header: Header,
    plaintext: Secret,
    next: ExchangeCipher,
    block_length: usize,
}

impl Opened {
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The exchange's cipher state behind this message.
    pub fn next(&self) -> ExchangeCipher {
        self.next
    }

    /// The payloads, with offsets from the start of the datagram. Padding may hold anything (RFC
    /// 2409 appendix B says zeros, peers differ) but is never two blocks or more.
    ///
    /// # Errors
    /// The plain text is no payload chain.
    pub fn chain(&self) -> Result<Chain<'_>, InvalidMessage> {
        let chain = chain::walk(self.header.next_payload, self.plaintext.expose(), header::LENGTH)?;
        let have = chain.padding.len();
        if have >= self.block_length.saturating_mul(2) {
            let offset = header::LENGTH.saturating_add(self.plaintext.len()).saturating_sub(have);
            return Err(InvalidMessage::Trailing { what: "payload chain", offset, have });
        }
        Ok(chain)
    }

    /// Checks `HASH = prf(SKEYID_a, M-ID | nonces... | all payloads behind HASH, as received)`.
    /// HASH must be the first payload (RFC 2409 §5.5, RFC 6407 §3.2); payloads of the chain count
    /// from 1 for what follows it.
    ///
    /// `message` names the message in errors.
    ///
    /// # Errors
    /// No payload chain, another first payload, or a HASH that does not fit.
    pub fn authenticate(
        &self,
        sa: &IsakmpSa,
        message: &'static str,
        nonces: &[&[u8]],
    ) -> Result<(Authentic<'_>, HashVerified), Error> {
        let chain = self.chain()?;
        let Some(hash) = chain.payloads.first().filter(|payload| payload.kind == PayloadKind::HASH)
        else {
            return Err(PeerMisbehaved::MissingPayload { message, payload: "HASH" }.into());
        };
        let verified = sa.verify(
            message,
            hash.body(),
            self.header.message_id,
            nonces,
            chain.octets_behind(0),
        )?;
        Ok((Authentic(chain), verified))
    }
}

/// The payloads of a message whose HASH was verified, HASH first. Made by [`Opened::authenticate`]
/// alone.
#[derive(Debug)]
pub struct Authentic<'a>(Chain<'a>);

impl Authentic<'_> {
    /// The first payload of type `T`, bound to its proof.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read<T: Body>(&self) -> Result<Option<Verified<T>>, InvalidMessage> {
        let of_kind = self.0.payloads.iter().find(|payload| payload.kind == T::KIND);
        of_kind.map(|payload| payload.read().map(Verified)).transpose()
    }
}

impl<'a> Deref for Authentic<'a> {
    type Target = Chain<'a>;

    fn deref(&self) -> &Chain<'a> {
        &self.0
    }
}

/// A payload that stood behind a verified HASH: proof and what it proves are one value, and nobody
/// can put another payload in its place. Made by [`Authentic::read`] alone.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The payload, without its proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    datagram: Vec<u8>,
    next: ExchangeCipher,
}

impl Sealed {
    /// The octets to send.
    pub fn datagram(&self) -> &[u8] {
        &self.datagram
    }

    /// The octets to send, by value.
    pub fn into_datagram(self) -> Vec<u8> {
        self.datagram
    }

    /// The exchange's cipher state behind this message.
    pub fn next(&self) -> ExchangeCipher {
        self.next
    }
}

/// Decrypts `body`, whose header names the right ISAKMP SA.
pub(super) fn open_with(
    cipher: &Cipher,
    exchange: &ExchangeCipher,
    message: &'static str,
    header: Header,
    body: &[u8],
) -> Result<Opened, Error> {
    if header.exchange != exchange.kind || header.message_id != exchange.message_id {
        return Err(NotAccepted::Unexpected.into());
    }
    check_flags(&header, message, true)?;
    let mut plaintext = Zeroizing::new(body.to_vec());
    let iv = cipher.decrypt(&exchange.iv, &mut plaintext).map_err(received_cipher_error)?;
    let block_length = cipher.encryption().block_length();
    let plaintext = Secret::new(core::mem::take(&mut *plaintext));
    Ok(Opened { header, plaintext, next: ExchangeCipher { iv, ..*exchange }, block_length })
}

/// Pads `payloads` with zeros to whole blocks and encrypts them behind a header.
pub(super) fn seal_with(
    cipher: &Cipher,
    cookies: Cookies,
    exchange: &ExchangeCipher,
    first: PayloadKind,
    payloads: &[u8],
) -> Result<Sealed, Error> {
    let padded = payloads.len().next_multiple_of(cipher.encryption().block_length());
    let mut body = Zeroizing::new(Vec::with_capacity(padded));
    body.extend_from_slice(payloads);
    body.resize(padded, 0);
    let iv = cipher.encrypt(&exchange.iv, &mut body).map_err(own_cipher_error)?;
    let header = Header {
        initiator_cookie: cookies.initiator,
        responder_cookie: cookies.responder,
        next_payload: first,
        version: header::VERSION,
        exchange: exchange.kind,
        flags: Flags::ENCRYPTION,
        message_id: exchange.message_id,
        length: 0,
    };
    let datagram = header.message(&body).map_err(does_not_fit)?;
    Ok(Sealed { datagram, next: ExchangeCipher { iv, ..*exchange } })
}

/// Checks that the encryption bit is as the message demands. Of the other flags none says anything
/// here: a receiver that needs no CONNECTED ignores the commit bit, and what a bit without a
/// meaning says is nobody's business (RFC 2408 §3.1).
pub(super) fn check_flags(
    header: &Header,
    message: &'static str,
    encrypted: bool,
) -> Result<(), Error> {
    let flag = header.flags.contains(Flags::ENCRYPTION);
    if flag != encrypted {
        return Err(PeerMisbehaved::Encryption { message, encrypted: flag }.into());
    }
    Ok(())
}

fn received_cipher_error(error: CipherError) -> Error {
    match error {
        CipherError::NotWholeBlocks { block, have } => {
            PeerMisbehaved::PartialBlock { block, have }.into()
        }
        other => own_cipher_error(other),
    }
}

fn own_cipher_error(_: CipherError) -> Error {
    // Key and IV are made by this crate at the cipher's own lengths, and a message of ours is never
    // empty.
    ApiMisuse::Configuration("a message without payloads cannot be encrypted").into()
}
