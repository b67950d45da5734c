//! Which algorithms of a TEK XFRM supports, and the conversion of its keys from the KD payload into
//! the kernel's layout.

use gdoi::group::{
    AddressPreservation, AuthenticationAlgorithm, EncapsulationMode, EspTransform, SaDirection,
    Spi, TekKeys, TekPolicy, TekProtection, TekProtocol,
};
use xfrm::algorithm::{Aead, Encryption, Integrity, Protection};
use xfrm::key::Key;

use crate::error::Unusable;
use crate::group::GroupOptions;

/// Algorithms of a TEK that the kernel has, with the lengths of their keys in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    Separate {
        encryption: Encryption,
        encryption_octets: usize,
        integrity: Integrity,
        integrity_octets: usize,
    },
    Combined {
        aead: Aead,
        octets: usize,
        icv: u8,
    },
}

impl Suite {
    /// The algorithms of `policy`, if XFRM supports them.
    pub(crate) fn of(policy: &TekPolicy, options: &GroupOptions) -> Result<Self, Unusable> {
        let spi = policy.spi;
        let protection = &policy.protection;
        if spi < 256 {
            return Err(Unusable::ReservedSpi { spi });
        }
        if protection.protocol != TekProtocol::ESP {
            return Err(Unusable::Protocol { spi, protocol: protection.protocol });
        }
        if protection.mode != EncapsulationMode::TUNNEL {
            return Err(Unusable::Mode { spi, mode: protection.mode });
        }
        if protection.address_preservation != AddressPreservation::SOURCE_AND_DESTINATION {
            return Err(Unusable::Preservation {
                spi,
                preservation: protection.address_preservation,
            });
        }
        let known = [SaDirection::SYMMETRIC, SaDirection::SENDER_ONLY, SaDirection::RECEIVER_ONLY];
        if !known.contains(&protection.direction) {
            return Err(Unusable::Direction { spi, direction: protection.direction.0 });
        }
        Self::algorithms(spi, protection, options)
    }

    fn algorithms(
        spi: Spi,
        protection: &TekProtection,
        options: &GroupOptions,
    ) -> Result<Self, Unusable> {
        let transform = protection.transform;
        let refuse = |reason| Err(Unusable::Transform { spi, transform, reason });
        match transform {
            EspTransform::AES_CBC => {
                let encryption_octets = aes_key(spi, protection)?;
                Self::separate(spi, protection, Encryption::AesCbc, encryption_octets)
            }
            EspTransform::NULL => {
                fixed_key(spi, protection, 0)?;
                Self::separate(spi, protection, Encryption::Null, 0)
            }
            EspTransform::TRIPLE_DES if options.legacy => {
                fixed_key(spi, protection, 192)?;
                Self::separate(spi, protection, Encryption::TripleDesCbc, 24)
            }
            EspTransform::TRIPLE_DES => Err(Unusable::Legacy { spi, transform }),
            EspTransform::AES_GCM_8 => Self::combined(spi, protection, Aead::AesGcm, 4, 8),
            EspTransform::AES_GCM_12 => Self::combined(spi, protection, Aead::AesGcm, 4, 12),
            EspTransform::AES_GCM_16 => Self::combined(spi, protection, Aead::AesGcm, 4, 16),
            EspTransform::AES_CCM_8 => Self::combined(spi, protection, Aead::AesCcm, 3, 8),
            EspTransform::AES_CCM_12 => Self::combined(spi, protection, Aead::AesCcm, 3, 12),
            EspTransform::AES_CCM_16 => Self::combined(spi, protection, Aead::AesCcm, 3, 16),
            EspTransform::DES => refuse("single DES protects nothing"),
            EspTransform::AES_CTR => {
                refuse("XFRM cannot give a counter mode without integrity a sender id; use AES-CBC")
            }
            EspTransform::NULL_AUTH_AES_GMAC => {
                refuse("XFRM cannot give GMAC a sender id; use NULL with HMAC")
            }
            _ => refuse("it is unknown here; use AES-CBC, AES-GCM or AES-CCM"),
        }
    }

    fn separate(
        spi: Spi,
        protection: &TekProtection,
        encryption: Encryption,
        encryption_octets: usize,
    ) -> Result<Self, Unusable> {
        let authentication = protection.authentication;
        let refuse = |reason| {
            Err(Unusable::Integrity {
                spi,
                transform: protection.transform,
                authentication,
                reason,
            })
        };
        let (integrity, integrity_octets) = match authentication {
            Some(AuthenticationAlgorithm::HMAC_SHA1) => (Integrity::HmacSha1_96, 20),
            Some(AuthenticationAlgorithm::HMAC_SHA2_256) => (Integrity::HmacSha2_256_128, 32),
            Some(AuthenticationAlgorithm::HMAC_SHA2_384) => (Integrity::HmacSha2_384_192, 48),
            Some(AuthenticationAlgorithm::HMAC_SHA2_512) => (Integrity::HmacSha2_512_256, 64),
            Some(AuthenticationAlgorithm::HMAC_MD5) => {
                return refuse("HMAC-MD5 is never installed");
            }
            Some(_) => return refuse("it is unknown here; use HMAC-SHA2-256"),
            None => {
                return refuse("without integrity anybody can change packets; use HMAC-SHA2-256");
            }
        };
        Ok(Self::Separate { encryption, encryption_octets, integrity, integrity_octets })
    }

    fn combined(
        spi: Spi,
        protection: &TekProtection,
        aead: Aead,
        salt: usize,
        icv: u8,
    ) -> Result<Self, Unusable> {
        if protection.authentication.is_some() {
            return Err(Unusable::Integrity {
                spi,
                transform: protection.transform,
                authentication: protection.authentication,
                reason: "the transform has its own integrity",
            });
        }
        Ok(Self::Combined { aead, octets: aes_key(spi, protection)? + salt, icv })
    }

    /// A combined-mode TEK. Its initialisation vectors count packets, which several senders cannot
    /// share.
    pub(crate) fn is_counter_mode(self) -> bool {
        matches!(self, Self::Combined { .. })
    }

    /// The keys in the kernel's layout. KD and kernel agree: the salt follows the key (RFC 6407
    /// §5.6.1, RFC 4106 §8.1, RFC 4309 §7.1).
    pub(crate) fn with_keys(self, spi: Spi, keys: &TekKeys) -> Result<Protection, Unusable> {
        let key = |what, octets: &[u8], need: usize| {
            let have = octets.len();
            if have == need {
                Ok(Key::copy_from(octets))
            } else {
                Err(Unusable::KeyOctets { spi, what, need, have })
            }
        };
        let (encryption_key, integrity_key) = (keys.encryption.expose(), keys.integrity.expose());
        match self {
            Self::Separate { encryption, encryption_octets, integrity, integrity_octets } => {
                Ok(Protection::Separate {
                    encryption,
                    encryption_key: key("encryption", encryption_key, encryption_octets)?,
                    integrity,
                    integrity_key: key("integrity", integrity_key, integrity_octets)?,
                })
            }
            Self::Combined { aead, octets, icv } => {
                key("integrity", integrity_key, 0)?;
                Ok(Protection::Combined {
                    aead,
                    key: key("encryption", encryption_key, octets)?,
                    icv,
                })
            }
        }
    }
}

/// Length of an AES key in octets. The attribute is mandatory (RFC 3602 §5.3, RFC 4106 §8.3, RFC
/// 4309 §7.4).
fn aes_key(spi: Spi, protection: &TekProtection) -> Result<usize, Unusable> {
    match protection.key_length {
        Some(bits @ (128 | 192 | 256)) => Ok(usize::from(bits / 8)),
        bits => Err(Unusable::KeyLength { spi, transform: protection.transform, bits }),
    }
}

/// A transform with one key length: the attribute is optional, but must be correct.
fn fixed_key(spi: Spi, protection: &TekProtection, only: u16) -> Result<(), Unusable> {
    match protection.key_length {
        Some(bits) if bits != only => {
            Err(Unusable::KeyLength { spi, transform: protection.transform, bits: Some(bits) })
        }
        _ => Ok(()),
    }
}

/// Whether a member sends with an SA of this direction.
pub(crate) fn sends(direction: SaDirection) -> bool {
    direction != SaDirection::RECEIVER_ONLY
}

/// Whether a member receives with an SA of this direction.
pub(crate) fn receives(direction: SaDirection) -> bool {
    direction != SaDirection::SENDER_ONLY
}
