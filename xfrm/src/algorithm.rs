//! ESP algorithms under the kernel's names and truncations.

use crate::key::Key;

/// Integrity algorithms with their truncation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the registry's")]
pub enum Integrity {
    HmacSha1_96,
    HmacSha2_256_128,
    HmacSha2_384_192,
    HmacSha2_512_256,
}

/// Encryption algorithms that need a separate integrity algorithm. The key length follows from the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the registry's")]
pub enum Encryption {
    Null,
    AesCbc,
    TripleDesCbc,
}

/// Combined-mode algorithms; the key carries the salt at its end (GCM 4 octets, CCM 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the registry's")]
pub enum Aead {
    AesGcm,
    AesCcm,
}

/// How an SA protects packets.
#[derive(Debug, PartialEq, Eq)]
pub enum Protection {
    /// Encryption and integrity apart.
    Separate {
        /// Encryption.
        encryption: Encryption,
        /// Its key; empty for NULL.
        encryption_key: Key,
        /// Integrity.
        integrity: Integrity,
        /// Its key.
        integrity_key: Key,
    },
    /// Both in one.
    Combined {
        /// Algorithm.
        aead: Aead,
        /// Key and salt.
        key: Key,
        /// Length of the integrity check value in octets: 8, 12 or 16.
        icv: u8,
    },
}
