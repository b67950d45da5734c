//! Proof that keys are the key server's: what a received group SA is made with.
//!
//! Keys of a pull come with the proof that [`ike`] mints, keys of a push with
//! [`SignatureVerified`].

pub(crate) use ike::phase1::HashVerified;

use ike::crypto::{HashAlgorithm, PublicKey, RsaForm};

/// Proof that SIG of a push was verified with the public key of the group's key server. Minted
/// where that is checked and nowhere else; no copy of it can be made.
#[derive(Debug)]
pub struct SignatureVerified {
    digest: Vec<u8>,
}

impl SignatureVerified {
    /// Verifies `signature` over `digest`.
    pub(crate) fn verify(
        key: &PublicKey,
        algorithm: HashAlgorithm,
        form: RsaForm,
        digest: &[u8],
        signature: &[u8],
    ) -> Option<Self> {
        key.verify(algorithm, form, digest, signature).ok()?;
        Some(Self { digest: digest.to_vec() })
    }

    /// The digest that the signature covers (RFC 6407 §4).
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }
}
