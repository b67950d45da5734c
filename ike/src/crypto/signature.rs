//! Signatures over a digest that the caller computed: RSASSA-PKCS1-v1_5 (RFC 8017 §8.2), with and
//! without DigestInfo, and ECDSA in the form of RFC 4754 §3: r and s side by side, each as long as
//! the curve's order.

use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use rsa::Pkcs1v15Sign;
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use rsa::traits::PublicKeyParts;

use super::{Secret, SeededRng};
use crate::crypto::HashAlgorithm;

/// What an RSA signature covers inside its padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum RsaForm {
    /// DigestInfo: algorithm identifier and digest, as RFC 8017 §9.2 says.
    #[default]
    DigestInfo,
    /// The bare digest, as signatures of IKEv1 are made (RFC 2409 §5.1) and as an existing key
    /// server sends.
    RawDigest,
}

/// Kind of a signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    Rsa,
    /// ECDSA on the 256-bit random curve, with SHA2-256.
    Ecdsa256,
    /// ECDSA on the 384-bit random curve, with SHA2-384.
    Ecdsa384,
    /// ECDSA on the 521-bit random curve, with SHA2-512.
    Ecdsa521,
}

impl KeyKind {
    /// The hash that belongs to the key by RFC 4754 §3; `None` for RSA, which goes with any.
    pub fn fixed_hash(self) -> Option<HashAlgorithm> {
        match self {
            Self::Rsa => None,
            Self::Ecdsa256 => Some(HashAlgorithm::Sha2_256),
            Self::Ecdsa384 => Some(HashAlgorithm::Sha2_384),
            Self::Ecdsa521 => Some(HashAlgorithm::Sha2_512),
        }
    }
}

fn name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Rsa => "RSA",
        KeyKind::Ecdsa256 => "ECDSA P-256",
        KeyKind::Ecdsa384 => "ECDSA P-384",
        KeyKind::Ecdsa521 => "ECDSA P-521",
    }
}

/// Why a signature or a key is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The octets are no public key of this kind.
    #[error("the octets are no {} public key", name(*.0))]
    PublicKey(KeyKind),
    /// The octets are no private key in PKCS #8 form.
    #[error("the octets are no RSA or ECDSA private key in PKCS #8 form")]
    PrivateKey,
    /// A modulus that is too short to trust, or too long to compute with for strangers.
    #[error("an RSA modulus of {bits} bits; allowed are {minimum} to {maximum}")]
    ModulusLength {
        /// Bits of the modulus.
        bits: u32,
        minimum: u32,
        maximum: u32,
    },
    /// The signature does not fit digest and key.
    #[error("the signature does not fit")]
    Mismatch,
    /// A signature could not be made, for example because the modulus is too short for the digest.
    #[error("no signature can be made with this key and hash")]
    Sign,
}

/// A public key that verifies pushes.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Public);

#[derive(Clone, PartialEq, Eq)]
enum Public {
    Rsa(Box<rsa::PublicKey>),
    Ecdsa256(p256::ecdsa::VerifyingKey),
    Ecdsa384(p384::ecdsa::VerifyingKey),
    Ecdsa521(Box<p521::ecdsa::VerifyingKey>),
}

impl PublicKey {
    /// Reads a DER SubjectPublicKeyInfo (RFC 5280 §4.1), or for RSA a bare RSAPublicKey (RFC 8017
    /// appendix A.1.1).
    ///
    /// # Errors
    /// The octets are no such key, or an RSA modulus is outside 2048 to 8192 bits; `legacy` allows
    /// 1024.
    pub fn from_der(kind: KeyKind, der: &[u8], legacy: bool) -> Result<Self, SignatureError> {
        let no_key = SignatureError::PublicKey(kind);
        let public = match kind {
            KeyKind::Rsa => {
                let key = rsa::PublicKey::from_public_key_der(der)
                    .or_else(|_| rsa::PublicKey::from_pkcs1_der(der));
                let key = key.map_err(|_| no_key)?;
                check_modulus(&key, legacy)?;
                Public::Rsa(Box::new(key))
            }
            KeyKind::Ecdsa256 => {
                let key = p256::ecdsa::VerifyingKey::from_public_key_der(der);
                Public::Ecdsa256(key.map_err(|_| no_key)?)
            }
            KeyKind::Ecdsa384 => {
                let key = p384::ecdsa::VerifyingKey::from_public_key_der(der);
                Public::Ecdsa384(key.map_err(|_| no_key)?)
            }
            KeyKind::Ecdsa521 => {
                let key = p521::PublicKey::from_public_key_der(der).map_err(|_| no_key)?;
                Public::Ecdsa521(Box::new(key.into()))
            }
        };
        Ok(Self(public))
    }

    /// Reads a point of a curve in the form of a certificate's subjectPublicKey (RFC 5480 §2.2).
    ///
    /// # Errors
    /// The octets are no point, or the kind is RSA.
    pub(crate) fn from_point(kind: KeyKind, point: &[u8]) -> Result<Self, SignatureError> {
        let no_key = SignatureError::PublicKey(kind);
        let public = match kind {
            KeyKind::Ecdsa256 => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point);
                Public::Ecdsa256(key.map_err(|_| no_key)?)
            }
            KeyKind::Ecdsa384 => {
                let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(point);
                Public::Ecdsa384(key.map_err(|_| no_key)?)
            }
            KeyKind::Rsa | KeyKind::Ecdsa521 => return Err(no_key),
        };
        Ok(Self(public))
    }

    /// As [`verify`](Self::verify) for ECDSA, where `signature` is a DER sequence of r and s, as in
    /// certificates.
    ///
    /// # Errors
    /// [`SignatureError::Mismatch`], whatever the reason.
    pub(crate) fn verify_der(
        &self,
        hash: HashAlgorithm,
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let mismatch = SignatureError::Mismatch;
        let signature = match &self.0 {
            Public::Ecdsa256(_) => {
                p256::ecdsa::Signature::from_der(signature).map_err(|_| mismatch)?.to_vec()
            }
            Public::Ecdsa384(_) => {
                p384::ecdsa::Signature::from_der(signature).map_err(|_| mismatch)?.to_vec()
            }
            Public::Rsa(_) | Public::Ecdsa521(_) => return Err(mismatch),
        };
        self.verify(hash, RsaForm::default(), digest, &signature)
    }

    /// Kind of the key.
    pub fn kind(&self) -> KeyKind {
        match self.0 {
            Public::Rsa(_) => KeyKind::Rsa,
            Public::Ecdsa256(_) => KeyKind::Ecdsa256,
            Public::Ecdsa384(_) => KeyKind::Ecdsa384,
            Public::Ecdsa521(_) => KeyKind::Ecdsa521,
        }
    }

    /// Bits of the modulus, or of the curve.
    pub fn bits(&self) -> u16 {
        match &self.0 {
            Public::Rsa(key) => u16::try_from(key.n().bit_width()).unwrap_or(u16::MAX),
            Public::Ecdsa256(_) => 256,
            Public::Ecdsa384(_) => 384,
            Public::Ecdsa521(_) => 521,
        }
    }

    /// Verifies `signature` over `digest`, which `hash` made. `form` counts for RSA alone.
    ///
    /// # Errors
    /// [`SignatureError::Mismatch`], whatever the reason.
    pub fn verify(
        &self,
        hash: HashAlgorithm,
        form: RsaForm,
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let valid = match &self.0 {
            Public::Rsa(key) => key.verify(scheme(hash, form), digest, signature).is_ok(),
            Public::Ecdsa256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
            Public::Ecdsa384(key) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
            Public::Ecdsa521(key) => p521::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
        };
        // RFC 4754 §3 ties the hash to the curve: a digest of another one is nothing this key
        // signed.
        match valid && self.kind().fixed_hash().is_none_or(|fixed| fixed == hash) {
            true => Ok(()),
            false => Err(SignatureError::Mismatch),
        }
    }
}

impl core::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PublicKey({:?}, {} bits)", self.kind(), self.bits())
    }
}

/// A private key that signs pushes. Its numbers are zeroed on drop and never shown.
pub struct SigningKey(Private);

enum Private {
    Rsa(Box<rsa::PrivateKey>),
    Ecdsa256(p256::ecdsa::SigningKey),
    Ecdsa384(p384::ecdsa::SigningKey),
    Ecdsa521(Box<p521::ecdsa::SigningKey>),
}

impl SigningKey {
    /// A new RSA key with a modulus of `bits` bits, 2048 to 8192. Takes from milliseconds to
    /// seconds.
    ///
    /// # Errors
    /// The length is out of bounds.
    pub fn generate_rsa(bits: u16, rng: &mut SeededRng) -> Result<Self, SignatureError> {
        let length = |_| SignatureError::ModulusLength {
            bits: bits.into(),
            minimum: SHORTEST,
            maximum: LONGEST,
        };
        if !(SHORTEST..=LONGEST).contains(&bits.into()) {
            return Err(length(()));
        }
        let key = rsa::PrivateKey::new(rng, bits.into()).map_err(|_| length(()))?;
        Ok(Self(Private::Rsa(Box::new(key))))
    }

    /// A new ECDSA key.
    ///
    /// # Errors
    /// `kind` is RSA, for which a length has to be given: see [`generate_rsa`](Self::generate_rsa).
    pub fn generate_ecdsa(kind: KeyKind, rng: &mut SeededRng) -> Result<Self, SignatureError> {
        Ok(Self(match kind {
            KeyKind::Rsa => return Err(SignatureError::PrivateKey),
            KeyKind::Ecdsa256 => {
                Private::Ecdsa256(from_random(p256::ecdsa::SigningKey::from_slice, 32, rng))
            }
            KeyKind::Ecdsa384 => {
                Private::Ecdsa384(from_random(p384::ecdsa::SigningKey::from_slice, 48, rng))
            }
            KeyKind::Ecdsa521 => {
                // The order has 521 bits: the seven highest of 66 octets are zero.
                let key = |octets: &[u8]| {
                    let mut scalar = zeroize::Zeroizing::new(octets.to_vec());
                    if let Some(first) = scalar.first_mut() {
                        *first &= 1;
                    }
                    p521::ecdsa::SigningKey::from_slice(&scalar)
                };
                Private::Ecdsa521(Box::new(from_random(key, 66, rng)))
            }
        }))
    }

    /// Reads a private key in DER PKCS #8 form; which kind it is, its algorithm identifier says.
    ///
    /// # Errors
    /// The octets are no such key, or its modulus is out of bounds.
    pub fn from_pkcs8_der(der: &[u8], legacy: bool) -> Result<Self, SignatureError> {
        if let Ok(key) = rsa::PrivateKey::from_pkcs8_der(der) {
            check_modulus(key.as_public_key(), legacy)?;
            return Ok(Self(Private::Rsa(Box::new(key))));
        }
        if let Ok(key) = p256::SecretKey::from_pkcs8_der(der) {
            return Ok(Self(Private::Ecdsa256(key.into())));
        }
        if let Ok(key) = p384::SecretKey::from_pkcs8_der(der) {
            return Ok(Self(Private::Ecdsa384(key.into())));
        }
        match p521::SecretKey::from_pkcs8_der(der) {
            Ok(key) => Ok(Self(Private::Ecdsa521(Box::new(key.into())))),
            Err(_) => Err(SignatureError::PrivateKey),
        }
    }

    /// The private key in DER PKCS #8 form, for the sealed state of a key server.
    ///
    /// # Errors
    /// The key has no such form; does not happen for keys made or read here.
    pub fn to_pkcs8_der(&self) -> Result<Secret, SignatureError> {
        let document = match &self.0 {
            Private::Rsa(key) => key.to_pkcs8_der(),
            Private::Ecdsa256(key) => key.to_pkcs8_der(),
            Private::Ecdsa384(key) => key.to_pkcs8_der(),
            Private::Ecdsa521(key) => p521::SecretKey::from(key.as_nonzero_scalar()).to_pkcs8_der(),
        };
        document
            .map(|document| Secret::copy_from(document.as_bytes()))
            .map_err(|_| SignatureError::PrivateKey)
    }

    /// Kind of the key.
    pub fn kind(&self) -> KeyKind {
        match self.0 {
            Private::Rsa(_) => KeyKind::Rsa,
            Private::Ecdsa256(_) => KeyKind::Ecdsa256,
            Private::Ecdsa384(_) => KeyKind::Ecdsa384,
            Private::Ecdsa521(_) => KeyKind::Ecdsa521,
        }
    }

    pub fn public_key(&self) -> PublicKey {
        PublicKey(match &self.0 {
            Private::Rsa(key) => Public::Rsa(Box::new(key.to_public_key())),
            Private::Ecdsa256(key) => Public::Ecdsa256(*key.verifying_key()),
            Private::Ecdsa384(key) => Public::Ecdsa384(*key.verifying_key()),
            Private::Ecdsa521(key) => Public::Ecdsa521(Box::new(*key.verifying_key())),
        })
    }

    /// The public half as a DER SubjectPublicKeyInfo: the value of SIG_ALGORITHM_KEY.
    ///
    /// # Errors
    /// The key has no such form; does not happen for keys made or read here.
    pub fn public_key_der(&self) -> Result<Vec<u8>, SignatureError> {
        let document = match &self.0 {
            Private::Rsa(key) => key.as_public_key().to_public_key_der(),
            Private::Ecdsa256(key) => key.verifying_key().to_public_key_der(),
            Private::Ecdsa384(key) => key.verifying_key().to_public_key_der(),
            Private::Ecdsa521(key) => {
                p521::PublicKey::from(*key.verifying_key()).to_public_key_der()
            }
        };
        document
            .map(|document| document.as_bytes().to_vec())
            .map_err(|_| SignatureError::PublicKey(self.kind()))
    }

    /// Octets that a signature has.
    pub fn signature_length(&self) -> usize {
        match &self.0 {
            Private::Rsa(key) => key.size(),
            Private::Ecdsa256(_) => 64,
            Private::Ecdsa384(_) => 96,
            Private::Ecdsa521(_) => 132,
        }
    }

    /// Signs `digest`, which `hash` made. RSA is blinded by `rng`; ECDSA is deterministic (RFC
    /// 6979).
    ///
    /// # Errors
    /// The modulus is too short for the digest, or the hash is not the curve's own.
    pub fn sign(
        &self,
        hash: HashAlgorithm,
        form: RsaForm,
        digest: &[u8],
        rng: &mut SeededRng,
    ) -> Result<Vec<u8>, SignatureError> {
        if self.kind().fixed_hash().is_some_and(|fixed| fixed != hash) {
            return Err(SignatureError::Sign);
        }
        match &self.0 {
            Private::Rsa(key) => {
                key.sign_with_rng(rng, scheme(hash, form), digest).map_err(|_| SignatureError::Sign)
            }
            Private::Ecdsa256(key) => {
                ecdsa(key.sign_prehash(digest).map(|s: p256::ecdsa::Signature| s.to_vec()))
            }
            Private::Ecdsa384(key) => {
                ecdsa(key.sign_prehash(digest).map(|s: p384::ecdsa::Signature| s.to_vec()))
            }
            Private::Ecdsa521(key) => {
                ecdsa(key.sign_prehash(digest).map(|s: p521::ecdsa::Signature| s.to_vec()))
            }
        }
    }
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SigningKey({:?})", self.kind())
    }
}

fn ecdsa<E>(signature: Result<Vec<u8>, E>) -> Result<Vec<u8>, SignatureError> {
    signature.map_err(|_| SignatureError::Sign)
}

fn scheme(hash: HashAlgorithm, form: RsaForm) -> Pkcs1v15Sign {
    match (form, hash) {
        (RsaForm::RawDigest, _) => {
            Pkcs1v15Sign { hash_len: Some(hash.output_length()), ..Pkcs1v15Sign::new_unprefixed() }
        }
        (RsaForm::DigestInfo, HashAlgorithm::Md5) => Pkcs1v15Sign::new::<md5::Md5>(),
        (RsaForm::DigestInfo, HashAlgorithm::Sha1) => Pkcs1v15Sign::new::<sha1::Sha1>(),
        (RsaForm::DigestInfo, HashAlgorithm::Sha2_256) => Pkcs1v15Sign::new::<sha2::Sha256>(),
        (RsaForm::DigestInfo, HashAlgorithm::Sha2_384) => Pkcs1v15Sign::new::<sha2::Sha384>(),
        (RsaForm::DigestInfo, HashAlgorithm::Sha2_512) => Pkcs1v15Sign::new::<sha2::Sha512>(),
    }
}

fn check_modulus(key: &rsa::PublicKey, legacy: bool) -> Result<(), SignatureError> {
    let (bits, minimum) = (key.n().bit_width(), if legacy { SHORTEST_LEGACY } else { SHORTEST });
    match (minimum..=LONGEST).contains(&bits) {
        true => Ok(()),
        false => Err(SignatureError::ModulusLength { bits, minimum, maximum: LONGEST }),
    }
}

/// Draws octets until `key` takes them, which it does unless they are zero or reach the curve's
/// order.
fn from_random<K, E>(key: impl Fn(&[u8]) -> Result<K, E>, length: usize, rng: &mut SeededRng) -> K {
    let mut octets = zeroize::Zeroizing::new(vec![0; length]);
    loop {
        rng.fill(&mut octets);
        if let Ok(key) = key(&octets) {
            return key;
        }
    }
}

/// RFC 6407 §6.1 makes 2048 bits mandatory.
const SHORTEST: u32 = 2048;
const SHORTEST_LEGACY: u32 = 1024;
const LONGEST: u32 = 8192;

#[cfg(test)]
mod tests;
