//! The key encryption key at work: cipher, initialisation vector, base key of acknowledgements,
//! signature scheme.
//!
//! The IV comes with the key and is the same for every push under it (RFC 6407 §5.6.2.1).

use zeroize::Zeroizing;

use crate::error::Error;
use crate::group::KekPolicy;
use crate::wire::registry::{KekAlgorithm, SignatureAlgorithm, SignatureHash};
use ike::crypto::{Cipher, CipherError, Iv, KeyKind, PublicKey, Secret, SignatureError};
use ike::crypto::{HashAlgorithm, Phase1Encryption};
use ike::error::PeerMisbehaved;

fn key_length(bits: Option<u16>) -> String {
    bits.map_or_else(|| String::from("no KEK_KEY_LENGTH"), |bits| format!("a key of {bits} bits"))
}

fn hash_number(hash: Option<u16>) -> String {
    hash.map_or_else(
        || String::from("no SIG_HASH_ALGORITHM"),
        |hash| format!("SIG_HASH_ALGORITHM {hash}"),
    )
}

/// Why a rekey SA cannot be used, although its policy is understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages explain the fields")]
pub enum KekUnusable {
    /// A cipher or key length that nothing here knows.
    #[error("rekey SA: KEK_ALGORITHM {algorithm} with {} cannot be used", key_length(*bits))]
    Cipher {
        /// As the KEK_ALGORITHM attribute had it.
        algorithm: u16,
        bits: Option<u16>,
    },
    /// A key that is not as long as its policy says.
    #[error("rekey SA: {0}")]
    Key(CipherError),
    /// A weak algorithm that the configuration does not allow.
    #[error("rekey SA: {0} is weak; it is used only where the configuration says legacy = true")]
    Legacy(&'static str),
    /// A signature algorithm that nothing here knows, or one with a hash that does not belong to
    /// it.
    #[error("rekey SA: SIG_ALGORITHM {algorithm} with {} cannot be used", hash_number(*hash))]
    Signature { algorithm: u16, hash: Option<u16> },
    /// The key server gave no public key, so that no push could be verified.
    #[error("rekey SA: no public key (SIG_ALGORITHM_KEY) that verifies pushes")]
    NoPublicKey,
    /// A public key that cannot be used.
    #[error("rekey SA: {0}")]
    PublicKey(#[from] SignatureError),
    /// A key hierarchy whose keys are no whole number of cipher blocks (AES with 192 bits).
    #[error(
        "rekey SA: a key hierarchy with keys of {0} octets cannot be encrypted in whole blocks"
    )]
    Hierarchy(usize),
    /// None of the update arrays of a push starts from a key held here: the key server means to
    /// exclude this member.
    #[error(
        "the new KEK is out of reach: no update of the key hierarchy starts from a key held here"
    )]
    Excluded,
}

/// Cipher and base key of one KEK. Keys are zeroed on drop.
pub struct Kek {
    cipher: Cipher,
    iv: Iv,
    /// KEK_ALGORITHM_KEY without its initialisation vector (RFC 8263 §3.2).
    base_key: Secret,
}

impl core::fmt::Debug for Kek {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The initialisation vector comes as a part of the key.
        f.debug_struct("Kek").field("base_key", &self.base_key).finish_non_exhaustive()
    }
}

impl Kek {
    /// The KEK of `policy` with KEK_ALGORITHM_KEY `algorithm_key`: initialisation vector, then key.
    ///
    /// # Errors
    /// The cipher is not known, weak without `legacy`, or the key has the wrong length.
    pub fn new(
        policy: &KekPolicy,
        algorithm_key: &Secret,
        legacy: bool,
    ) -> Result<Self, KekUnusable> {
        let encryption = encryption(policy.algorithm, policy.key_length)?;
        match encryption {
            Phase1Encryption::DesCbc if !legacy => return Err(KekUnusable::Legacy("DES")),
            Phase1Encryption::TripleDesCbc if !legacy => return Err(KekUnusable::Legacy("3DES")),
            _ => {}
        }
        Self::with(encryption, algorithm_key)
    }

    /// The key `data` of a key hierarchy, laid out as KEK_ALGORITHM_KEY is.
    pub(crate) fn with(encryption: Phase1Encryption, data: &Secret) -> Result<Self, KekUnusable> {
        let iv = Iv::leading(encryption, data.expose());
        let key = data.expose().get(encryption.block_length()..).unwrap_or_default();
        let cipher = Cipher::new(encryption, Secret::copy_from(key)).map_err(KekUnusable::Key)?;
        Ok(Self { cipher, iv, base_key: Secret::copy_from(key) })
    }

    /// The KEK without its initialisation vector.
    pub fn base_key(&self) -> &Secret {
        &self.base_key
    }

    /// KEK_ALGORITHM_KEY: initialisation vector, then key (RFC 6407 §5.6.2.1).
    pub(crate) fn algorithm_key(&self) -> Secret {
        let (iv, key) = (self.iv.as_slice(), self.base_key.expose());
        let mut both = Zeroizing::new(Vec::with_capacity(iv.len().saturating_add(key.len())));
        both.extend_from_slice(iv);
        both.extend_from_slice(key);
        Secret::new(core::mem::take(&mut *both))
    }

    /// Octets of a cipher block.
    pub fn block_length(&self) -> usize {
        self.cipher.encryption().block_length()
    }

    /// Decrypts `ciphertext`. Nothing vouches for what comes out.
    pub(crate) fn decrypt(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        match self.cipher.decrypt(&self.iv, &mut buffer) {
            Ok(_) => Ok(buffer),
            Err(_) => Err(PeerMisbehaved::PartialBlock {
                block: self.block_length(),
                have: ciphertext.len(),
            }
            .into()),
        }
    }

    /// Encrypts `plaintext`, filled up with zero octets to whole blocks.
    ///
    /// # Errors
    /// There is nothing to encrypt.
    pub fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, KekUnusable> {
        let length = plaintext.len().next_multiple_of(self.block_length());
        let mut buffer = Zeroizing::new(Vec::with_capacity(length));
        buffer.extend_from_slice(plaintext);
        buffer.resize(length, 0);
        self.cipher.encrypt(&self.iv, &mut buffer).map_err(KekUnusable::Key)?;
        Ok(core::mem::take(&mut *buffer))
    }
}

/// The cipher that KEK_ALGORITHM and KEK_KEY_LENGTH name.
pub(crate) fn encryption(
    algorithm: u16,
    bits: Option<u16>,
) -> Result<Phase1Encryption, KekUnusable> {
    match (KekAlgorithm(algorithm), bits) {
        (KekAlgorithm::DES, _) => Ok(Phase1Encryption::DesCbc),
        (KekAlgorithm::TRIPLE_DES, _) => Ok(Phase1Encryption::TripleDesCbc),
        (KekAlgorithm::AES, Some(128)) => Ok(Phase1Encryption::Aes128Cbc),
        (KekAlgorithm::AES, Some(192)) => Ok(Phase1Encryption::Aes192Cbc),
        (KekAlgorithm::AES, Some(256)) => Ok(Phase1Encryption::Aes256Cbc),
        _ => Err(KekUnusable::Cipher { algorithm, bits }),
    }
}

/// Whether a rekey SA of this policy can be used. Asked before keys arrive (RFC 6407 §3.3).
///
/// # Errors
/// Its cipher or signature scheme is unknown, or weak without `legacy`.
pub fn check_kek(policy: &KekPolicy, legacy: bool) -> Result<(), KekUnusable> {
    match encryption(policy.algorithm, policy.key_length)? {
        Phase1Encryption::DesCbc if !legacy => Err(KekUnusable::Legacy("DES")),
        Phase1Encryption::TripleDesCbc if !legacy => Err(KekUnusable::Legacy("3DES")),
        _ => signature_scheme(policy, legacy).map(drop),
    }
}

/// Kind of key and hash of the pushes under `policy` (RFC 6407 §5.3.5, §5.3.6).
pub(crate) fn signature_scheme(
    policy: &KekPolicy,
    legacy: bool,
) -> Result<(KeyKind, HashAlgorithm), KekUnusable> {
    let unknown = KekUnusable::Signature {
        algorithm: policy.signature_algorithm,
        hash: policy.signature_hash,
    };
    let kind = match SignatureAlgorithm(policy.signature_algorithm) {
        SignatureAlgorithm::RSA => KeyKind::Rsa,
        SignatureAlgorithm::ECDSA_256 => KeyKind::Ecdsa256,
        SignatureAlgorithm::ECDSA_384 => KeyKind::Ecdsa384,
        SignatureAlgorithm::ECDSA_521 => KeyKind::Ecdsa521,
        _ => return Err(unknown),
    };
    let stated = match policy.signature_hash.map(SignatureHash) {
        None => None,
        Some(SignatureHash::MD5) => Some(HashAlgorithm::Md5),
        Some(SignatureHash::SHA1) => Some(HashAlgorithm::Sha1),
        Some(SignatureHash::SHA256) => Some(HashAlgorithm::Sha2_256),
        Some(SignatureHash::SHA384) => Some(HashAlgorithm::Sha2_384),
        Some(SignatureHash::SHA512) => Some(HashAlgorithm::Sha2_512),
        Some(_) => return Err(unknown),
    };
    match (kind.fixed_hash(), stated) {
        (None, None) => Err(unknown),
        (Some(fixed), Some(stated)) if fixed != stated => Err(unknown),
        (_, Some(HashAlgorithm::Md5)) if !legacy => Err(KekUnusable::Legacy("MD5")),
        (_, Some(HashAlgorithm::Sha1)) if !legacy => Err(KekUnusable::Legacy("SHA-1")),
        (Some(hash), _) | (None, Some(hash)) => Ok((kind, hash)),
    }
}

/// What verifies the pushes of one key server, and how it makes its signatures.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    pub(crate) key: PublicKey,
    pub(crate) hash: HashAlgorithm,
    /// SIG_ALGORITHM_KEY as received: a later KEK may come without one.
    pub(crate) der: Vec<u8>,
}

impl Verifier {
    pub(crate) fn new(
        policy: &KekPolicy,
        der: Option<&[u8]>,
        legacy: bool,
    ) -> Result<Self, KekUnusable> {
        let (kind, hash) = signature_scheme(policy, legacy)?;
        let der = der.ok_or(KekUnusable::NoPublicKey)?;
        Ok(Self { key: PublicKey::from_der(kind, der, legacy)?, hash, der: der.to_vec() })
    }
}
