//! AES-CCM (RFC 3610) with a random nonce: who can read the octets learns nothing and can change
//! nothing.

use aes::{Aes128, Aes256};
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U11, U16};
use ccm::{Ccm, Nonce};
use ike::crypto::Secret;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::entropy::{self, EntropyError};

/// The length of a message has the four octets that 15 leave.
const NONCE: usize = 11;
const TAG: usize = 16;

/// Octets cannot be sealed.
#[derive(Debug, Error)]
pub enum SealError {
    /// The key has another length.
    #[error("the state key has {0} octets; it must have 16 or 32")]
    Key(usize),
    /// More than the four octets of the length can tell.
    #[error("{0} octets are too many to be sealed at once")]
    TooLong(usize),
    /// No randomness for a nonce.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Seals and opens octets with one key.
pub struct Sealer(Cipher);

enum Cipher {
    Aes128(Box<Ccm<Aes128, U16, U11>>),
    Aes256(Box<Ccm<Aes256, U16, U11>>),
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// With a key of 16 or 32 octets.
    ///
    /// # Errors
    /// The key has another length.
    pub fn new(key: &Secret) -> Result<Self, SealError> {
        let wrong = |_| SealError::Key(key.len());
        Ok(Self(match key.len() {
            16 => Cipher::Aes128(Box::new(Ccm::new_from_slice(key.expose()).map_err(wrong)?)),
            _ => Cipher::Aes256(Box::new(Ccm::new_from_slice(key.expose()).map_err(wrong)?)),
        }))
    }

    /// Nonce, octets and tag; `beside` is authenticated and not among them.
    ///
    /// # Errors
    /// No randomness, or too many octets.
    pub fn seal(&self, plain: &[u8], beside: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut buffer = Zeroizing::new(Vec::with_capacity(plain.len().saturating_add(TAG)));
        buffer.extend_from_slice(plain);
        let mut nonce = [0; NONCE];
        entropy::fill(&mut nonce)?;
        let sealed = match &self.0 {
            Cipher::Aes128(cipher) => {
                cipher.encrypt_in_place(&Nonce::from(nonce), beside, &mut *buffer)
            }
            Cipher::Aes256(cipher) => {
                cipher.encrypt_in_place(&Nonce::from(nonce), beside, &mut *buffer)
            }
        };
        sealed.map_err(|_| SealError::TooLong(plain.len()))?;
        Ok([&nonce[..], &buffer].concat())
    }

    /// What was sealed; `None` if it was changed, or sealed with another key or beside something
    /// else.
    pub fn open(&self, sealed: &[u8], beside: &[u8]) -> Option<Secret> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        let opened = match &self.0 {
            Cipher::Aes128(cipher) => {
                cipher.decrypt_in_place(&Nonce::from(*nonce), beside, &mut *plain)
            }
            Cipher::Aes256(cipher) => {
                cipher.decrypt_in_place(&Nonce::from(*nonce), beside, &mut *plain)
            }
        };
        opened.ok()?;
        Some(Secret::new(std::mem::take(&mut *plain)))
    }
}
