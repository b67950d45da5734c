//! ESP algorithms under the kernel's names and truncations.

use crate::error::{Error, Unsupported};
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

/// Encryption algorithms that need a separate integrity algorithm. The key length follows from the
/// key.
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
        /// Algorithm that encrypts, or NULL.
        encryption: Encryption,
        /// Its key; empty for NULL.
        encryption_key: Key,
        /// Algorithm of the integrity check value.
        integrity: Integrity,
        /// Its key, as long as the algorithm's output.
        integrity_key: Key,
    },
    /// One algorithm for encryption and integrity.
    Combined {
        /// The combined mode, GCM or CCM.
        aead: Aead,
        /// Its key, followed by the salt.
        key: Key,
        /// Length of the integrity check value in octets: 8, 12 or 16.
        icv: u8,
    },
}

impl Encryption {
    /// Every algorithm that encrypts, NULL included.
    pub const ALL: [Self; 3] = [Self::Null, Self::AesCbc, Self::TripleDesCbc];

    /// The name in the kernel's crypto API.
    pub fn kernel_name(self) -> &'static str {
        match self {
            Self::Null => "ecb(cipher_null)",
            Self::AesCbc => "cbc(aes)",
            Self::TripleDesCbc => "cbc(des3_ede)",
        }
    }

    /// Key lengths in octets that it takes, and the same in words.
    pub fn key_lengths(self) -> (&'static [usize], &'static str) {
        match self {
            Self::Null => (&[0], "0"),
            Self::AesCbc => (&[16, 24, 32], "16, 24 or 32"),
            Self::TripleDesCbc => (&[24], "24"),
        }
    }
}

impl Integrity {
    /// Every algorithm of integrity check values.
    pub const ALL: [Self; 4] =
        [Self::HmacSha1_96, Self::HmacSha2_256_128, Self::HmacSha2_384_192, Self::HmacSha2_512_256];

    /// The name in the kernel's crypto API.
    pub fn kernel_name(self) -> &'static str {
        match self {
            Self::HmacSha1_96 => "hmac(sha1)",
            Self::HmacSha2_256_128 => "hmac(sha256)",
            Self::HmacSha2_384_192 => "hmac(sha384)",
            Self::HmacSha2_512_256 => "hmac(sha512)",
        }
    }

    /// Length of the integrity check value in bits (RFC 2404 §2, RFC 4868 §2.3). The kernel's own
    /// default for SHA2-256 is the 96 of a draft, so it is always given.
    pub fn truncation(self) -> u32 {
        match self {
            Self::HmacSha1_96 => 96,
            Self::HmacSha2_256_128 => 128,
            Self::HmacSha2_384_192 => 192,
            Self::HmacSha2_512_256 => 256,
        }
    }

    /// Key length in octets that it takes (RFC 2404 §3, RFC 4868 §2.1.1), and the same in words.
    pub fn key_lengths(self) -> (&'static [usize], &'static str) {
        match self {
            Self::HmacSha1_96 => (&[20], "20"),
            Self::HmacSha2_256_128 => (&[32], "32"),
            Self::HmacSha2_384_192 => (&[48], "48"),
            Self::HmacSha2_512_256 => (&[64], "64"),
        }
    }
}

impl Aead {
    /// Every combined mode that is understood.
    pub const ALL: [Self; 2] = [Self::AesGcm, Self::AesCcm];

    /// The name in the kernel's crypto API.
    pub fn kernel_name(self) -> &'static str {
        match self {
            Self::AesGcm => "rfc4106(gcm(aes))",
            Self::AesCcm => "rfc4309(ccm(aes))",
        }
    }

    /// Key lengths in octets that it takes, with the salt (RFC 4106 §8.1, RFC 4309 §7.1), and the
    /// same in words.
    pub fn key_lengths(self) -> (&'static [usize], &'static str) {
        match self {
            Self::AesGcm => (&[20, 28, 36], "20, 28 or 36 (with 4 of salt)"),
            Self::AesCcm => (&[19, 27, 35], "19, 27 or 35 (with 3 of salt)"),
        }
    }
}

/// Lengths in octets that the integrity check value of a combined-mode algorithm may have.
pub const ICV_LENGTHS: [u8; 3] = [8, 12, 16];

impl Protection {
    /// Refuses key and check value lengths that the kernel would refuse, with words that it does
    /// not have.
    pub fn check(&self) -> Result<(), Error> {
        let length = |algorithm, (lengths, expected): (&[usize], _), key: &Key| match lengths
            .contains(&key.len())
        {
            true => Ok(()),
            false => Err(Error::KeyLength { algorithm, expected, received: key.len() }),
        };
        match self {
            Self::Separate { encryption, encryption_key, integrity, integrity_key } => {
                length(encryption.kernel_name(), encryption.key_lengths(), encryption_key)?;
                length(integrity.kernel_name(), integrity.key_lengths(), integrity_key)
            }
            Self::Combined { aead, key, icv } => {
                if !ICV_LENGTHS.contains(icv) {
                    let algorithm = aead.kernel_name();
                    return Err(Error::Unsupported(Unsupported::CheckValue {
                        algorithm,
                        icv: *icv,
                    }));
                }
                length(aead.kernel_name(), aead.key_lengths(), key)
            }
        }
    }

    /// Whether the kernel's entry `installed` is this one. A kernel in lockdown shows keys as
    /// zeros: then they count as equal. Compared in constant time.
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
            (
                Self::Combined { aead, key, icv },
                Self::Combined { aead: aead_now, key: key_now, icv: icv_now },
            ) => aead == aead_now && icv == icv_now && same(key, key_now),
            _ => false,
        }
    }
}

fn hidden(wanted: &Key, installed: &Key) -> bool {
    wanted.len() == installed.len() && installed.expose().iter().all(|octet| *octet == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn separate(
        encryption: Encryption,
        key: usize,
        integrity: Integrity,
        mac: usize,
    ) -> Protection {
        Protection::Separate {
            encryption,
            encryption_key: Key::copy_from(&vec![1; key]),
            integrity,
            integrity_key: Key::copy_from(&vec![2; mac]),
        }
    }

    #[test]
    fn checks_key_lengths() {
        for length in 0..70 {
            let ok = |p: Protection| p.check().is_ok();
            assert_eq!(
                ok(separate(Encryption::AesCbc, length, Integrity::HmacSha1_96, 20)),
                [16, 24, 32].contains(&length)
            );
            assert_eq!(
                ok(separate(Encryption::Null, length, Integrity::HmacSha1_96, 20)),
                length == 0
            );
            assert_eq!(
                ok(separate(Encryption::TripleDesCbc, length, Integrity::HmacSha1_96, 20)),
                length == 24
            );
            for integrity in Integrity::ALL {
                // The key is as long as the hash: twice the truncation, but for SHA1.
                let expected = if integrity == Integrity::HmacSha1_96 {
                    20
                } else {
                    integrity.truncation() as usize / 4
                };
                assert_eq!(
                    ok(separate(Encryption::AesCbc, 16, integrity, length)),
                    length == expected
                );
            }
            for (aead, salt) in [(Aead::AesGcm, 4), (Aead::AesCcm, 3)] {
                for icv in 0..20 {
                    let protection =
                        Protection::Combined { aead, key: Key::copy_from(&vec![3; length]), icv };
                    let expected = [16, 24, 32].contains(&(length.wrapping_sub(salt)))
                        && [8, 12, 16].contains(&icv);
                    assert_eq!(ok(protection), expected, "{aead:?} {length} {icv}");
                }
            }
        }
    }

    #[test]
    fn compares_keys_and_takes_hidden_ones_as_equal() {
        let protection = |octet| Protection::Combined {
            aead: Aead::AesGcm,
            key: Key::copy_from(&[octet; 20]),
            icv: 16,
        };
        assert!(protection(1).same_in_kernel(&protection(1)));
        assert!(!protection(1).same_in_kernel(&protection(2)));
        assert!(protection(1).same_in_kernel(&protection(0)));
        assert!(!protection(1).same_in_kernel(&separate(
            Encryption::Null,
            0,
            Integrity::HmacSha1_96,
            20
        )));
    }
}
