//! A public RSA key, and verification with it: RSAVP1 and the comparison of encoded messages (RFC
//! 8017 §5.2.2, §8.2.2).
//!
//! The library's own verification hides the exponent, which is public: with the usual 65537 that is
//! half of its work, and a pushed key waits for it.

use crypto_bigint::BoxedUint;
use crypto_bigint::modular::BoxedMontyForm;
use rsa::Pkcs1v15Sign;
use rsa::traits::PublicKeyParts as _;

/// Fewest octets of 0xFF between the markers of an encoded message (RFC 8017 §9.2).
const SHORTEST_PADDING: usize = 8;

/// Whether `signature` is one of `digest` under `key`.
pub(super) fn verify(
    key: &rsa::PublicKey,
    scheme: &Pkcs1v15Sign,
    digest: &[u8],
    signature: &[u8],
) -> bool {
    if signature.len() != key.size() || scheme.hash_len.is_some_and(|length| length != digest.len())
    {
        return false;
    }
    let number = |octets: &[u8]| BoxedUint::from_be_slice(octets, key.n_bits_precision()).ok();
    let Some(signature) = number(signature).filter(|signature| signature < key.n().as_ref()) else {
        return false;
    };
    let expected =
        encoded_message(&scheme.prefix, digest, key.size()).and_then(|message| number(&message));
    expected.is_some_and(|expected| power(key, signature) == expected)
}

/// `number` to the power of the public exponent; the time it takes tells the exponent.
fn power(key: &rsa::PublicKey, number: BoxedUint) -> BoxedUint {
    let base = BoxedMontyForm::new(number, key.n_params());
    let mut power = base.clone();
    for bit in (0..key.e().bit_width_vartime().saturating_sub(1)).rev() {
        power = power.square();
        if key.e().bit_vartime(bit) {
            power = power.mul(&base);
        }
    }
    power.retrieve()
}

/// EMSA-PKCS1-v1_5 (RFC 8017 §9.2): `00 01 FF ... FF 00 prefix digest` in `length` octets; `None`
/// if they are too few.
fn encoded_message(prefix: &[u8], digest: &[u8], length: usize) -> Option<Vec<u8>> {
    let padding = length
        .checked_sub(prefix.len() + digest.len() + 3)
        .filter(|octets| *octets >= SHORTEST_PADDING)?;
    let mut message = Vec::with_capacity(length);
    message.extend([0, 1]);
    message.resize(2 + padding, 0xFF);
    message.push(0);
    message.extend_from_slice(prefix);
    message.extend_from_slice(digest);
    Some(message)
}
