//! How long the keys of each transform are (RFC 6407 §5.6.1, §5.6.2).

use super::registry::KekAlgorithm;
use crate::group::{AuthenticationAlgorithm, EspTransform, TekProtection, TekProtocol};

/// Octets of the keys of a data SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLengths {
    /// TEK_ALGORITHM_KEY, salt included; 0 if there is none.
    pub encryption: usize,
    /// TEK_INTEGRITY_KEY; 0 if there is none.
    pub integrity: usize,
}

impl KeyLengths {
    /// The lengths for `protection`; `None` if its algorithms are not known.
    pub fn of(protection: &TekProtection) -> Option<Self> {
        match protection.protocol {
            TekProtocol::ESP => Some(Self {
                encryption: encryption(protection.transform, protection.key_length)?,
                integrity: match protection.authentication {
                    _ if is_combined(protection.transform) => 0,
                    None => 0,
                    Some(algorithm) => mac(algorithm)?,
                },
            }),
            TekProtocol::AH => {
                Some(Self { encryption: 0, integrity: authentication_header(protection)? })
            }
            _ => None,
        }
    }
}

/// Octets of a KEK without its initialisation vector; `None` if the combination is not known.
pub(super) fn kek_key_octets(algorithm: KekAlgorithm, bits: Option<u16>) -> Option<usize> {
    match (algorithm, bits) {
        (KekAlgorithm::DES, _) => Some(8),
        (KekAlgorithm::TRIPLE_DES, _) => Some(24),
        (KekAlgorithm::AES, Some(bits @ (128 | 192 | 256))) => Some(usize::from(bits / 8)),
        _ => None,
    }
}

/// Octets of KEK_ALGORITHM_KEY: initialisation vector and key.
pub fn kek_octets(algorithm: KekAlgorithm, bits: Option<u16>) -> Option<usize> {
    let block = if algorithm == KekAlgorithm::AES { 16 } else { 8 };
    kek_key_octets(algorithm, bits).map(|key| key.saturating_add(block))
}

/// Whether the transform brings its own integrity.
pub(super) fn is_combined(transform: EspTransform) -> bool {
    matches!(
        transform,
        EspTransform::AES_CCM_8
            | EspTransform::AES_CCM_12
            | EspTransform::AES_CCM_16
            | EspTransform::AES_GCM_8
            | EspTransform::AES_GCM_12
            | EspTransform::AES_GCM_16
            | EspTransform::NULL_AUTH_AES_GMAC
    )
}

fn encryption(transform: EspTransform, bits: Option<u16>) -> Option<usize> {
    let aes = match bits {
        Some(bits @ (128 | 192 | 256)) => Some(usize::from(bits / 8)),
        _ => None,
    };
    let with_salt = |salt: usize| aes.map(|key| key.saturating_add(salt));
    match transform {
        EspTransform::DES => Some(8),
        EspTransform::TRIPLE_DES => Some(24),
        EspTransform::NULL => Some(0),
        EspTransform::AES_CBC => aes,
        EspTransform::AES_CCM_8 | EspTransform::AES_CCM_12 | EspTransform::AES_CCM_16 => {
            with_salt(3)
        }
        EspTransform::AES_CTR
        | EspTransform::AES_GCM_8
        | EspTransform::AES_GCM_12
        | EspTransform::AES_GCM_16
        | EspTransform::NULL_AUTH_AES_GMAC => with_salt(4),
        _ => None,
    }
}

fn mac(algorithm: AuthenticationAlgorithm) -> Option<usize> {
    match algorithm {
        AuthenticationAlgorithm::HMAC_MD5 => Some(16),
        AuthenticationAlgorithm::HMAC_SHA1 => Some(20),
        AuthenticationAlgorithm::HMAC_SHA2_256 => Some(32),
        AuthenticationAlgorithm::HMAC_SHA2_384 => Some(48),
        AuthenticationAlgorithm::HMAC_SHA2_512 => Some(64),
        _ => None,
    }
}

/// AH transforms (RFC 2407 §4.4.3, RFC 4868 §4, RFC 4543 §9): the transform alone names the
/// algorithm.
fn authentication_header(protection: &TekProtection) -> Option<usize> {
    match protection.transform.0 {
        2 => Some(16),
        3 => Some(20),
        5 => Some(32),
        6 => Some(48),
        7 => Some(64),
        11 => Some(20),
        12 => Some(28),
        13 => Some(36),
        _ => None,
    }
}
