//! Proof that keys are the key server's: what a received group SA is made with.
//!
//! Keys of a pull are [`Verified`] by the HASH of message 4, keys of a push by
//! [`SignatureVerified`]. Both end as [`FromKeyServer`], which holds the keys and cannot be made
//! for others.

use zeroize::Zeroizing;

use ike::crypto::{HashAlgorithm, PublicKey, RsaForm, hash};
use ike::phase1::Verified;
use ike::wire::registry::PayloadKind;
use ike::wire::{Body, InvalidMessage, chain, header};

/// A value that the group's key server stands for: it was read from octets under a verified HASH or
/// SIG.
#[derive(Debug, PartialEq, Eq)]
pub struct FromKeyServer<T>(T);

impl<T> FromKeyServer<T> {
    /// What follows from it: the same keys in another form, or with those that they lead to.
    pub(crate) fn try_map<U, E>(
        self,
        form: impl FnOnce(T) -> Result<U, E>,
    ) -> Result<FromKeyServer<U>, E> {
        form(self.0).map(FromKeyServer)
    }

    /// The value, without its proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> core::ops::Deref for FromKeyServer<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> From<Verified<T>> for FromKeyServer<T> {
    fn from(verified: Verified<T>) -> Self {
        Self(verified.into_inner())
    }
}

/// The payloads of a push before SIG, and that SIG was verified over them with the public key of
/// the group's key server. Minted where that is checked and nowhere else; no copy of it can be
/// made.
#[derive(Debug)]
pub struct SignatureVerified {
    first: PayloadKind,
    /// SIG and the padding are the end of them, and say nothing.
    payloads: Zeroizing<Vec<u8>>,
    signed: usize,
}

/// What a signature of a push covers (RFC 6407 §4).
pub(crate) struct SignedOctets<'a> {
    /// What the digest covers in front of the payloads: label and header.
    pub(crate) prefix: &'a [&'a [u8]],
    /// Type of the first payload.
    pub(crate) first: PayloadKind,
    /// All payloads of the message, SIG included.
    pub(crate) payloads: &'a [u8],
    /// How many of their octets stand in front of SIG.
    pub(crate) signed: usize,
}

impl SignatureVerified {
    /// Verifies `signature` over `octets`.
    pub(crate) fn verify(
        key: &PublicKey,
        algorithm: HashAlgorithm,
        form: RsaForm,
        octets: &SignedOctets<'_>,
        signature: &[u8],
    ) -> Option<Self> {
        let SignedOctets { prefix, first, payloads, signed } = *octets;
        let parts: Vec<&[u8]> = prefix.iter().copied().chain([payloads.get(..signed)?]).collect();
        key.verify(algorithm, form, &hash(algorithm, &parts), signature).ok()?;
        Some(Self { first, payloads: Zeroizing::new(payloads.to_vec()), signed })
    }

    /// Every signed payload of type `T`.
    ///
    /// # Errors
    /// One cannot be read.
    pub(crate) fn read<T: Body>(&self) -> Result<Vec<FromKeyServer<T>>, InvalidMessage> {
        let chain = chain::walk(self.first, &self.payloads, header::LENGTH)?;
        let end = header::LENGTH.saturating_add(self.signed);
        let signed = chain.payloads.iter().filter(|payload| payload.offset < end);
        let of_kind = signed.filter(|payload| payload.kind == T::KIND);
        of_kind.map(|payload| payload.read().map(FromKeyServer)).collect()
    }
}
