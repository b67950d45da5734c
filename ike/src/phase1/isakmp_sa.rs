//! The ISAKMP SA: what phase 1 leaves behind for the exchanges of phase 2 (RFC 2409 §5).

use core::time::Duration;

use super::cookies::Cookies;
use super::exchange_cipher::{ExchangeCipher, Opened, Sealed, open_with, seal_with};
use super::nat_traversal::Nat;
use crate::certificate::{CertificateError, PeerCertificate};
use crate::config::{Identity, Phase1Transform};
use crate::crypto::{Cipher, HashAlgorithm, Iv, RsaForm, Secret, constant_time_eq, keymat, prf};
use crate::error::{Error, NotAccepted, PeerMisbehaved};
use crate::wire::chain::encode_one;
use crate::wire::hash::Hash;
use crate::wire::registry::{Doi, EncapsulationMode, ExchangeType, PayloadKind};
use crate::wire::vendor::VendorId;
use crate::wire::{EncodeError, Writer, header};

/// Which side of phase 1 we were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We sent message 1.
    Initiator,
    Responder,
}

/// Proof that the peer's HASH or SIG of main mode was verified and its identity is an accepted one.
/// Made where that is checked and nowhere else, with the identity that was proved; an [`IsakmpSa`]
/// cannot be made without it and takes its peer from it.
#[derive(Debug, PartialEq, Eq)]
pub struct PeerAuthenticated {
    identity: Identity,
}

impl PeerAuthenticated {
    /// Compares an authenticator of main mode and the identity that it covers.
    pub(super) fn verify(
        message: &'static str,
        computed: &Secret,
        received: &[u8],
        proved: &Identity,
        expected: &Identity,
    ) -> Result<Self, PeerMisbehaved> {
        if !constant_time_eq(computed.expose(), received) {
            return Err(PeerMisbehaved::WrongHash { message });
        }
        check_expected(proved, Some(expected), Identity::eq)?;
        Ok(Self { identity: proved.clone() })
    }

    /// Verifies SIG over an authenticator of main mode with the key of a verified certificate, and
    /// the identity that both cover.
    pub(super) fn verify_signature(
        message: &'static str,
        (algorithm, computed): (HashAlgorithm, &Secret),
        signature: &[u8],
        peer: &PeerCertificate,
        proved: &Identity,
        expected: Option<&Identity>,
    ) -> Result<Self, PeerMisbehaved> {
        peer.key()
            .verify(algorithm, RsaForm::RawDigest, computed.expose(), signature)
            .map_err(|_| PeerMisbehaved::WrongSignature { message })?;
        if !peer.proves(proved) {
            let (subject, identity) = (peer.subject(), proved.clone());
            return Err(PeerMisbehaved::Certificate(CertificateError::Identity {
                subject,
                identity,
            }));
        }
        check_expected(proved, expected, Identity::covers)?;
        Ok(Self { identity: proved.clone() })
    }
}

fn check_expected(
    proved: &Identity,
    expected: Option<&Identity>,
    is_meant: impl Fn(&Identity, &Identity) -> bool,
) -> Result<(), PeerMisbehaved> {
    match expected.filter(|expected| !is_meant(expected, proved)) {
        None => Ok(()),
        Some(expected) => Err(PeerMisbehaved::WrongIdentity {
            expected: expected.clone(),
            proved: proved.clone(),
        }),
    }
}

/// Proof that the HASH of one message of a phase-2 exchange was verified under SKEYID_a. Minted
/// where that is checked and nowhere else; no copy of it can be made, so that it vouches for one
/// message.
#[derive(Debug, PartialEq, Eq)]
pub struct HashVerified {
    cookies: Cookies,
    message_id: u32,
}

impl HashVerified {
    pub fn cookies(&self) -> Cookies {
        self.cookies
    }

    /// The exchange under it.
    pub fn message_id(&self) -> u32 {
        self.message_id
    }
}

/// An established ISAKMP SA. Its keys are zeroed on drop.
#[derive(Debug)]
pub struct IsakmpSa {
    established: Established,
    peer: PeerAuthenticated,
}

/// What phase 1 leaves behind.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) cookies: Cookies,
    pub(super) role: Role,
    pub(super) doi: Doi,
    pub(super) transform: Phase1Transform,
    pub(super) skeyid_d: Secret,
    pub(super) skeyid_a: Secret,
    pub(super) cipher: Cipher,
    /// Last ciphertext block of phase 1, from which every phase-2 exchange derives its first IV.
    pub(super) last_block: Iv,
    pub(super) initial_contact: bool,
    pub(super) peer_vendor_ids: Vec<VendorId>,
    pub(super) lifetime: Duration,
    pub(super) nat: Option<Nat>,
}

impl IsakmpSa {
    pub(super) fn new(established: Established, proof: PeerAuthenticated) -> Self {
        Self { established, peer: proof }
    }

    pub fn cookies(&self) -> Cookies {
        self.established.cookies
    }

    /// Our side of phase 1.
    pub fn role(&self) -> Role {
        self.established.role
    }

    /// Domain of interpretation: it decides what exchanges under this SA mean.
    pub fn doi(&self) -> Doi {
        self.established.doi
    }

    pub fn transform(&self) -> Phase1Transform {
        self.established.transform
    }

    /// Whether the peer said that it has no other ISAKMP SA with us: those from before are of no
    /// use to anybody (RFC 2407 §4.6.3.3).
    pub fn is_initial_contact(&self) -> bool {
        self.established.initial_contact
    }

    /// Vendor IDs that the peer stated in clear (RFC 2408 §3.16), if it began only those that mean
    /// something here: hints that nothing proves.
    pub fn peer_vendor_ids(&self) -> &[VendorId] {
        &self.established.peer_vendor_ids
    }

    /// The identity that the peer proved.
    pub fn peer_identity(&self) -> &Identity {
        &self.peer.identity
    }

    /// Lifetime of the SA, from the end of phase 1.
    pub fn lifetime(&self) -> Duration {
        self.established.lifetime
    }

    /// What was found about address translation, if both sides looked for it.
    pub fn nat(&self) -> Option<Nat> {
        self.established.nat
    }

    /// Whether there is address translation: everything goes by port 4500.
    pub fn is_translated(&self) -> bool {
        self.nat().is_some_and(|nat| nat.is_found())
    }

    /// The Encapsulation Mode attribute of SAs under this one.
    pub(crate) fn encapsulation_mode(
        &self,
        mode: crate::wire::esp_mode::Mode,
    ) -> EncapsulationMode {
        self.nat().map_or(mode.number(), |nat| nat.mode(mode))
    }

    /// SKEYID_d, from which other protocols under this SA derive keys.
    pub fn skeyid_d(&self) -> &Secret {
        &self.established.skeyid_d
    }

    /// The cipher state in front of the first message of a phase-2 exchange, whoever sends it.
    pub fn exchange(&self, kind: ExchangeType, message_id: u32) -> ExchangeCipher {
        let Phase1Transform { hash, encryption, .. } = self.established.transform;
        ExchangeCipher::new(
            kind,
            message_id,
            keymat::phase2_iv(hash, encryption, &self.established.last_block, message_id),
        )
    }

    /// Decrypts `datagram`, the next message of `exchange`. Nothing is authenticated yet: see
    /// [`Opened::authenticate`].
    ///
    /// `exchange` does not move. Put [`Opened::next`] in its place once the message is accepted.
    ///
    /// # Errors
    /// A header of another SA or exchange, a clear message, or ciphertext that is no whole number
    /// of blocks.
    pub fn open(&self, exchange: &ExchangeCipher, datagram: &[u8]) -> Result<Opened, Error> {
        let (header, body) = header::split(datagram)?;
        if Cookies::of(&header) != self.established.cookies {
            return Err(NotAccepted::UnknownCookies.into());
        }
        open_with(&self.established.cipher, exchange, "message of phase 2", header, body)
    }

    /// Encrypts `payloads`, a payload chain whose first payload is of type `first`, as the next
    /// message of `exchange`.
    ///
    /// `exchange` does not move. Put [`Sealed::next`] in its place when the message is sent.
    ///
    /// # Errors
    /// The message is longer than the header's length field allows.
    pub fn seal(
        &self,
        exchange: &ExchangeCipher,
        first: PayloadKind,
        payloads: &[u8],
    ) -> Result<Sealed, Error> {
        seal_with(&self.established.cipher, self.established.cookies, exchange, first, payloads)
    }

    /// As [`seal`](Self::seal), with a HASH payload in front:
    /// `HASH = prf(SKEYID_a, M-ID | nonces... | payloads)`, the form of
    /// Informational exchanges (RFC 2409 §5.7), of Quick Mode and of GROUPKEY-PULL. Without
    /// payloads pass [`PayloadKind::NONE`] and no octets.
    ///
    /// # Errors
    /// As for [`seal`](Self::seal).
    pub fn seal_authenticated(
        &self,
        exchange: &ExchangeCipher,
        nonces: &[&[u8]],
        first: PayloadKind,
        payloads: &[u8],
    ) -> Result<Sealed, Error> {
        let hash =
            Hash(self.authenticator(exchange.message_id(), nonces, payloads).expose().to_vec());
        let mut writer = Writer::new();
        encode_one(&mut writer, first, &hash);
        writer.put(payloads);
        let message = zeroize::Zeroizing::new(writer.finish().map_err(does_not_fit)?);
        self.seal(exchange, PayloadKind::HASH, &message)
    }

    /// prf(SKEYID_a, M-ID | parts... | payloads).
    pub fn authenticator(&self, message_id: u32, parts: &[&[u8]], payloads: &[u8]) -> Secret {
        let message_id = message_id.to_be_bytes();
        let mut all: Vec<&[u8]> = vec![&message_id];
        all.extend_from_slice(parts);
        all.push(payloads);
        prf(self.established.transform.hash, self.established.skeyid_a.expose(), &all)
    }

    /// As [`verify`](Self::verify), for the last message of Quick Mode, whose HASH has an octet of
    /// zero in front of the message identifier and covers no payload (RFC 2409 §5.5).
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongHash`] naming `message`.
    pub fn verify_last(
        &self,
        message: &'static str,
        received: &[u8],
        message_id: u32,
        nonces: [&[u8]; 2],
    ) -> Result<HashVerified, Error> {
        let computed = self.last_authenticator(message_id, nonces);
        if constant_time_eq(computed.expose(), received) {
            Ok(HashVerified { cookies: self.established.cookies, message_id })
        } else {
            Err(PeerMisbehaved::WrongHash { message }.into())
        }
    }

    /// prf(SKEYID_a, 0 | M-ID | Ni_b | Nr_b).
    pub fn last_authenticator(&self, message_id: u32, [ni_b, nr_b]: [&[u8]; 2]) -> Secret {
        let message_id = message_id.to_be_bytes();
        prf(
            self.established.transform.hash,
            self.established.skeyid_a.expose(),
            &[&[0], &message_id, ni_b, nr_b],
        )
    }

    /// Compares a received HASH with the one computed over the same parts, in constant time.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongHash`] naming `message`.
    pub fn verify(
        &self,
        message: &'static str,
        received: &[u8],
        message_id: u32,
        parts: &[&[u8]],
        payloads: &[u8],
    ) -> Result<HashVerified, Error> {
        let computed = self.authenticator(message_id, parts, payloads);
        if constant_time_eq(computed.expose(), received) {
            Ok(HashVerified { cookies: self.established.cookies, message_id })
        } else {
            Err(PeerMisbehaved::WrongHash { message }.into())
        }
    }
}

/// A value of ours that its field has no room for.
pub(super) fn does_not_fit(error: EncodeError) -> Error {
    Error::ApiMisuse(error.into())
}
