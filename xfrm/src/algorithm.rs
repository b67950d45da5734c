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

impl Protection {
    /// Whether the kernel's entry `installed` is this one. A kernel in lockdown shows keys as zeros: then they count as
    /// equal. Compared in constant time.
    pub(crate) fn same_in_kernel(&self, installed: &Self) -> bool {
        let same = |wanted: &Key, installed: &Key| wanted == installed || hidden(wanted, installed);
        match (self, installed) {
            (
                Self::Separate { encryption, encryption_key, integrity, integrity_key },
                Self::Separate {
                    encryption: encryption_now,
                    encryption_key: encryption_key_now,
                    integrity: integrity_now,
                    integrity_key: integrity_key_now,
                },
            ) => {
                encryption == encryption_now
                    && integrity == integrity_now
                    && same(encryption_key, encryption_key_now)
                    && same(integrity_key, integrity_key_now)
            }
            (Self::Combined { aead, key, icv }, Self::Combined { aead: aead_now, key: key_now, icv: icv_now }) => {
                aead == aead_now && icv == icv_now && same(key, key_now)
            }
            _ => false,
        }
    }
}

fn hidden(wanted: &Key, installed: &Key) -> bool {
    wanted.len() == installed.len() && installed.expose().iter().all(|octet| *octet == 0)
}
