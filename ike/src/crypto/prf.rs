//! Negotiated hash and prf (RFC 2409 §4, §5; RFC 4868 §2).
//!
//! IKEv1 has no prf values of its own: prf(key, data) is the HMAC of the negotiated hash, at full
//! length.

use hmac::digest::block_api::EagerHash;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::Secret;
use crate::crypto::HashAlgorithm;

impl HashAlgorithm {
    /// Length of the digest, and so of prf output, in octets.
    pub fn output_length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha2_256 => 32,
            Self::Sha2_384 => 48,
            Self::Sha2_512 => 64,
        }
    }
}

/// prf(key, part | part | ...): the HMAC of `algorithm`, not truncated.
pub fn prf(algorithm: HashAlgorithm, key: &[u8], parts: &[&[u8]]) -> Secret {
    match algorithm {
        HashAlgorithm::Md5 => hmac_of::<Md5>(key, parts),
        HashAlgorithm::Sha1 => hmac_of::<Sha1>(key, parts),
        HashAlgorithm::Sha2_256 => hmac_of::<Sha256>(key, parts),
        HashAlgorithm::Sha2_384 => hmac_of::<Sha384>(key, parts),
        HashAlgorithm::Sha2_512 => hmac_of::<Sha512>(key, parts),
    }
}

/// Hash(part | part | ...) without a key.
pub fn hash(algorithm: HashAlgorithm, parts: &[&[u8]]) -> Vec<u8> {
    match algorithm {
        HashAlgorithm::Md5 => digest_of::<Md5>(parts),
        HashAlgorithm::Sha1 => digest_of::<Sha1>(parts),
        HashAlgorithm::Sha2_256 => digest_of::<Sha256>(parts),
        HashAlgorithm::Sha2_384 => digest_of::<Sha384>(parts),
        HashAlgorithm::Sha2_512 => digest_of::<Sha512>(parts),
    }
}

/// Whether two authenticators are equal, in time that depends on their lengths only.
pub fn constant_time_eq(expected: &[u8], received: &[u8]) -> bool {
    expected.ct_eq(received).into()
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length (RFC 2104 §2)")]
fn hmac_of<D: EagerHash>(key: &[u8], parts: &[&[u8]]) -> Secret
where
    Hmac<D>: Mac + KeyInit,
{
    let mut mac =
        <Hmac<D> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    let mut output = mac.finalize().into_bytes();
    let secret = Secret::copy_from(output.as_slice());
    output.as_mut_slice().zeroize();
    secret
}

fn digest_of<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut digest = D::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().to_vec()
}
