//! Cipher block chaining with an explicit IV and no padding of its own (RFC 2409 appendix B, RFC
//! 3602 §2).

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::array::Array;
use cbc::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit,
};
use des::{Des, TdesEde3};

use super::Secret;
use crate::crypto::Phase1Encryption;

impl Phase1Encryption {
    /// Length of the key in octets, parity bits of DES included.
    pub fn key_length(self) -> usize {
        match self {
            Self::DesCbc => 8,
            Self::Aes128Cbc => 16,
            Self::TripleDesCbc | Self::Aes192Cbc => 24,
            Self::Aes256Cbc => 32,
        }
    }

    /// Length of a block, and so of the IV, in octets.
    pub fn block_length(self) -> usize {
        match self {
            Self::DesCbc | Self::TripleDesCbc => 8,
            Self::Aes128Cbc | Self::Aes192Cbc | Self::Aes256Cbc => 16,
        }
    }
}

/// Why octets were neither encrypted nor decrypted. The buffer is unchanged then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// The key does not fit the algorithm.
    #[error("a key of {received} octets where {expected} are needed")]
    KeyLength {
        /// Octets the algorithm takes.
        expected: usize,
        received: usize,
    },
    /// The IV is not one block.
    #[error("an IV of {received} octets where {expected} are needed")]
    IvLength {
        /// Octets of a block.
        expected: usize,
        received: usize,
    },
    /// The octets are not whole blocks, or none at all.
    #[error("{have} octets are not a positive number of whole {block}-octet blocks")]
    NotWholeBlocks {
        /// Octets of a block.
        block: usize,
        have: usize,
    },
}

/// An initialisation vector: one block of 8 or 16 octets. Not secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Iv {
    octets: [u8; 16],
    length: usize,
}

impl Iv {
    /// The leading octets of `source`, one block of `encryption` long.
    pub fn leading(encryption: Phase1Encryption, source: &[u8]) -> Self {
        Self::copy(source.iter().take(encryption.block_length()))
    }

    /// The last block of `ciphertext`: the IV of the message behind it in the same exchange.
    pub fn last_block(encryption: Phase1Encryption, ciphertext: &[u8]) -> Self {
        Self::copy(
            ciphertext.iter().skip(ciphertext.len().saturating_sub(encryption.block_length())),
        )
    }

    pub fn as_slice(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    fn copy<'a>(source: impl Iterator<Item = &'a u8>) -> Self {
        let mut iv = Self { octets: [0; 16], length: 0 };
        for (place, octet) in iv.octets.iter_mut().zip(source) {
            *place = *octet;
            iv.length = iv.length.saturating_add(1);
        }
        iv
    }
}

impl core::fmt::Debug for Iv {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Iv(")?;
        self.as_slice().iter().try_for_each(|octet| write!(f, "{octet:02x}"))?;
        f.write_str(")")
    }
}

/// A block cipher in CBC mode with its key.
#[derive(Debug)]
pub struct Cipher {
    encryption: Phase1Encryption,
    key: Secret,
}

impl Cipher {
    /// Binds `key`, which must have exactly [`Phase1Encryption::key_length`] octets.
    pub fn new(encryption: Phase1Encryption, key: Secret) -> Result<Self, CipherError> {
        let (expected, received) = (encryption.key_length(), key.len());
        if expected != received {
            return Err(CipherError::KeyLength { expected, received });
        }
        Ok(Self { encryption, key })
    }

    /// A second copy with its own copy of the key.
    pub fn duplicate(&self) -> Self {
        Self { encryption: self.encryption, key: self.key.duplicate() }
    }

    pub fn encryption(&self) -> Phase1Encryption {
        self.encryption
    }

    /// Encrypts `buffer` in place and returns its last block, the IV of the message that follows.
    pub fn encrypt(&self, iv: &Iv, buffer: &mut [u8]) -> Result<Iv, CipherError> {
        self.check(iv, buffer)?;
        let key = self.key.expose();
        match self.encryption {
            Phase1Encryption::DesCbc => encrypt_with::<Des>(key, iv, buffer),
            Phase1Encryption::TripleDesCbc => encrypt_with::<TdesEde3>(key, iv, buffer),
            Phase1Encryption::Aes128Cbc => encrypt_with::<Aes128>(key, iv, buffer),
            Phase1Encryption::Aes192Cbc => encrypt_with::<Aes192>(key, iv, buffer),
            Phase1Encryption::Aes256Cbc => encrypt_with::<Aes256>(key, iv, buffer),
        }?;
        Ok(Iv::last_block(self.encryption, buffer))
    }

    /// Decrypts `buffer` in place and returns the last block it had, the IV of the message that
    /// follows.
    ///
    /// The buffer holds plain text afterwards: wiping it is the caller's duty.
    pub fn decrypt(&self, iv: &Iv, buffer: &mut [u8]) -> Result<Iv, CipherError> {
        self.check(iv, buffer)?;
        let next = Iv::last_block(self.encryption, buffer);
        let key = self.key.expose();
        match self.encryption {
            Phase1Encryption::DesCbc => decrypt_with::<Des>(key, iv, buffer),
            Phase1Encryption::TripleDesCbc => decrypt_with::<TdesEde3>(key, iv, buffer),
            Phase1Encryption::Aes128Cbc => decrypt_with::<Aes128>(key, iv, buffer),
            Phase1Encryption::Aes192Cbc => decrypt_with::<Aes192>(key, iv, buffer),
            Phase1Encryption::Aes256Cbc => decrypt_with::<Aes256>(key, iv, buffer),
        }?;
        Ok(next)
    }

    fn check(&self, iv: &Iv, buffer: &[u8]) -> Result<(), CipherError> {
        let block = self.encryption.block_length();
        if iv.length != block {
            return Err(CipherError::IvLength { expected: block, received: iv.length });
        }
        if buffer.is_empty() || !buffer.len().is_multiple_of(block) {
            return Err(CipherError::NotWholeBlocks { block, have: buffer.len() });
        }
        Ok(())
    }
}

fn encrypt_with<C>(key: &[u8], iv: &Iv, buffer: &mut [u8]) -> Result<(), CipherError>
where
    C: BlockCipherEncrypt + cbc::cipher::KeyInit,
{
    let mut mode = cbc::Encryptor::<C>::new_from_slices(key, iv.as_slice())
        .map_err(|_| CipherError::KeyLength { expected: C::key_size(), received: key.len() })?;
    let (blocks, _) = Array::slice_as_chunks_mut(buffer);
    mode.encrypt_blocks(blocks);
    Ok(())
}

fn decrypt_with<C>(key: &[u8], iv: &Iv, buffer: &mut [u8]) -> Result<(), CipherError>
where
    C: BlockCipherDecrypt + cbc::cipher::KeyInit,
{
    let mut mode = cbc::Decryptor::<C>::new_from_slices(key, iv.as_slice())
        .map_err(|_| CipherError::KeyLength { expected: C::key_size(), received: key.len() })?;
    let (blocks, _) = Array::slice_as_chunks_mut(buffer);
    mode.decrypt_blocks(blocks);
    Ok(())
}
