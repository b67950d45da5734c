//! What an RSA signature says: s^e mod n (RFC 8017 §5.2.2), compared whole with what it should say (§8.2.2).
//!
//! Everything here is public, so that nothing needs to take the same time whatever the numbers are.

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, MontyForm, MontyMultiplier};
use rsa::RsaPublicKey;
use rsa::traits::PublicKeyParts;

/// Octets of EMSA-PKCS1-v1_5 that are not the digest and its prefix: two in front, eight of padding, one behind it.
const OVERHEAD: usize = 11;

/// Whether `signature` is RSASSA-PKCS1-v1_5 over `prefix` and `digest`.
pub(super) fn verifies(key: &RsaPublicKey, prefix: &[u8], digest: &[u8], signature: &[u8]) -> bool {
    let length = key.size();
    if signature.len() != length || length < prefix.len() + digest.len() + OVERHEAD {
        return false;
    }
    let Ok(number) = BoxedUint::from_be_slice(signature, key.n_bits_precision()) else { return false };
    if number >= *key.n().as_ref() {
        return false;
    }
    let said = power(number, key.e(), key.n_params()).to_be_bytes();
    let mut expected = vec![0xff; length];
    let digest_at = length - digest.len();
    let prefix_at = digest_at - prefix.len();
    for (at, octets) in [(0, &[0, 1][..]), (prefix_at - 1, &[0]), (prefix_at, prefix), (digest_at, digest)] {
        let place = expected.iter_mut().skip(at);
        place.zip(octets).for_each(|(place, octet)| *place = *octet);
    }
    // A modulus that is no whole number of limbs long leaves zero octets in front.
    let (front, said) = said.split_at(said.len().saturating_sub(length));
    front.iter().all(|octet| *octet == 0) && *said == expected
}

/// `base` to the power of `exponent`, bit by bit: of 65537 only two bits are set.
fn power(base: BoxedUint, exponent: &BoxedUint, modulus: &BoxedMontyParams) -> BoxedUint {
    let base = BoxedMontyForm::new(base, modulus);
    let mut multiplier = <BoxedMontyForm as MontyForm>::Multiplier::from(modulus);
    let mut result = base.clone();
    for bit in (0..exponent.bits_vartime().saturating_sub(1)).rev() {
        multiplier.square_assign(&mut result);
        if exponent.bit_vartime(bit) {
            multiplier.mul_assign(&mut result, &base);
        }
    }
    result.retrieve()
}

#[cfg(test)]
mod tests {
    use rsa::traits::SignatureScheme;
    use rsa::{Pkcs1v15Sign, RsaPrivateKey};

    use super::*;
    use crate::crypto::SeededRng;

    /// The library's own verification is the measure, also of what it refuses.
    #[test]
    fn agrees_with_the_library() {
        for (bits, exponent) in [(1024, 65_537), (1032, 65_537), (1024, 3), (1088, 0xffff_fffb_u64)] {
            let mut rng = SeededRng::from_seed([7; 32]);
            let private = RsaPrivateKey::new_with_exp(&mut rng, bits, BoxedUint::from(exponent)).unwrap();
            let key = private.to_public_key();
            let scheme = || Pkcs1v15Sign::new::<sha2::Sha256>();
            let digest = [0x5a; 32];
            let signature = private.sign(scheme(), &digest).unwrap();
            let ours = |digest: &[u8], signature: &[u8]| verifies(&key, &scheme().prefix, digest, signature);
            let theirs = |digest: &[u8], signature: &[u8]| key.verify(scheme(), digest, signature).is_ok();
            assert!(ours(&digest, &signature) && theirs(&digest, &signature), "{bits} bits");
            for at in 0..signature.len() {
                let mut changed = signature.clone();
                changed[at] ^= 1;
                assert!(!ours(&digest, &changed) && !theirs(&digest, &changed), "octet {at}");
                assert!(!ours(&digest, &signature[..at]));
            }
            assert!(!ours(&[0x5b; 32], &signature) && !verifies(&key, &[], &digest, &signature));
            assert!(!ours(&digest, &key.n_bytes()), "zero");
            // The same number, one modulus higher, or with a zero octet more.
            let higher = BoxedUint::from_be_slice_vartime(&signature).concatenating_add(key.n().as_ref());
            assert!(!ours(&digest, &higher.to_be_bytes_trimmed_vartime()));
            assert!(!ours(&digest, &[&[0], &signature[..]].concat()));
        }
    }

    /// What a loose parser would take (a forgery with a small exponent, RFC 8017 §8.2.2 note): less padding, and
    /// anything behind the digest.
    #[test]
    fn the_whole_of_it_counts() {
        let mut rng = SeededRng::from_seed([8; 32]);
        let private = RsaPrivateKey::new(&mut rng, 1024).unwrap();
        let key = private.to_public_key();
        let digest = [0x5a; 32];
        for (prefix, hidden) in [(&b"prefix"[..], &b"prefix"[..]), (b"prefix", b"xprefix"), (b"prefix", b"prefi")] {
            let unprefixed = Pkcs1v15Sign { hash_len: None, prefix: Box::default() };
            let said = [hidden, &digest].concat();
            let signature = unprefixed.sign(None::<&mut SeededRng>, &private, &said).unwrap();
            assert_eq!(verifies(&key, prefix, &digest, &signature), prefix == hidden);
            assert!(!verifies(&key, prefix, &digest[..31], &signature));
        }
        let unprefixed = Pkcs1v15Sign { hash_len: None, prefix: Box::default() };
        let signature = unprefixed.sign(None::<&mut SeededRng>, &private, &[&digest[..], b"more"].concat()).unwrap();
        assert!(!verifies(&key, &[], &digest, &signature));
    }
}
