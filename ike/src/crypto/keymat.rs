//! Keys and IVs of IKEv1 with pre-shared keys (RFC 2409 §5, appendix B).
//!
//! ```text
//! SKEYID   = prf(pre-shared-key, Ni_b | Nr_b)
//! SKEYID_d = prf(SKEYID, g^xy | CKY-I | CKY-R | 0)
//! SKEYID_a = prf(SKEYID, SKEYID_d | g^xy | CKY-I | CKY-R | 1)
//! SKEYID_e = prf(SKEYID, SKEYID_a | g^xy | CKY-I | CKY-R | 2)
//! ```

use zeroize::Zeroizing;

use super::{Iv, Secret, hash, prf};
use crate::crypto::{HashAlgorithm, Phase1Encryption};

/// SKEYID and what is derived from it.
#[derive(Debug)]
pub struct PhaseOneKeys {
    /// SKEYID: keys HASH_I and HASH_R.
    pub skeyid: Secret,
    /// SKEYID_d: derives keys of other SAs.
    pub skeyid_d: Secret,
    /// SKEYID_a: authenticates messages of phase 2.
    pub skeyid_a: Secret,
    /// SKEYID_e: gives the key of the cipher.
    pub skeyid_e: Secret,
}

/// SKEYID for authentication with a pre-shared key.
pub fn skeyid_pre_shared(
    algorithm: HashAlgorithm,
    pre_shared_key: &Secret,
    ni_b: &[u8],
    nr_b: &[u8],
) -> Secret {
    prf(algorithm, pre_shared_key.expose(), &[ni_b, nr_b])
}

/// SKEYID for authentication with signatures: prf(Ni_b | Nr_b, g^xy).
pub fn skeyid_signatures(
    algorithm: HashAlgorithm,
    g_xy: &Secret,
    ni_b: &[u8],
    nr_b: &[u8],
) -> Secret {
    let nonces = Zeroizing::new([ni_b, nr_b].concat());
    prf(algorithm, &nonces, &[g_xy.expose()])
}

impl PhaseOneKeys {
    /// Derives SKEYID_d, SKEYID_a and SKEYID_e. `g_xy` is the shared secret at its group's full
    /// length.
    pub fn derive(
        algorithm: HashAlgorithm,
        skeyid: Secret,
        g_xy: &Secret,
        cky_i: &[u8; 8],
        cky_r: &[u8; 8],
    ) -> Self {
        let step = |previous: &[u8], number: u8| {
            prf(algorithm, skeyid.expose(), &[previous, g_xy.expose(), cky_i, cky_r, &[number]])
        };
        let skeyid_d = step(&[], 0);
        let skeyid_a = step(skeyid_d.expose(), 1);
        let skeyid_e = step(skeyid_a.expose(), 2);
        Self { skeyid, skeyid_d, skeyid_a, skeyid_e }
    }
}

/// The key of the cipher: the leading octets of SKEYID_e, or of its expansion where it is too
/// short.
///
/// For DES the leading 8 octets that are not a weak key; `None` if there are none, which no honest
/// pair ever sees.
pub fn cipher_key(
    algorithm: HashAlgorithm,
    skeyid_e: &Secret,
    encryption: Phase1Encryption,
) -> Option<Secret> {
    if encryption == Phase1Encryption::DesCbc {
        let strong = skeyid_e.expose().chunks_exact(8).find(|key| !is_weak_des_key(key))?;
        return Some(Secret::copy_from(strong));
    }
    Some(expand(algorithm, skeyid_e, encryption.key_length()))
}

/// `length` octets from `key`: its leading octets, or those of K1 | K2 | ... with K1 = prf(key, 0)
/// and Kn = prf(key, Kn-1).
pub fn expand(algorithm: HashAlgorithm, key: &Secret, length: usize) -> Secret {
    if let Some(leading) = key.expose().get(..length) {
        return Secret::copy_from(leading);
    }
    // Room for the last whole block too, so that nothing is copied to a larger place and left
    // unwiped.
    let mut octets =
        Zeroizing::new(Vec::with_capacity(length.saturating_add(algorithm.output_length())));
    let mut block = prf(algorithm, key.expose(), &[&[0]]);
    octets.extend_from_slice(block.expose());
    while octets.len() < length {
        block = prf(algorithm, key.expose(), &[block.expose()]);
        octets.extend_from_slice(block.expose());
    }
    Secret::copy_from(octets.get(..length).unwrap_or_default())
}

/// IV of the first encrypted message of phase 1: leading octets of Hash(g^xi | g^xr).
pub fn phase1_iv(
    algorithm: HashAlgorithm,
    encryption: Phase1Encryption,
    g_xi: &[u8],
    g_xr: &[u8],
) -> Iv {
    Iv::leading(encryption, &hash(algorithm, &[g_xi, g_xr]))
}

/// IV of the first message of a phase-2 exchange: leading octets of Hash(last phase-1 ciphertext
/// block | M-ID).
pub fn phase2_iv(
    algorithm: HashAlgorithm,
    encryption: Phase1Encryption,
    last_block: &Iv,
    message_id: u32,
) -> Iv {
    Iv::leading(encryption, &hash(algorithm, &[last_block.as_slice(), &message_id.to_be_bytes()]))
}

/// Whether `key` is one of DES's weak or semi-weak keys, whatever its parity bits say. RFC 2409
/// appendix A misprints two of them: 1F1F1F1F goes with 0E0E0E0E, and E0E0E0E0 with F1F1F1F1.
fn is_weak_des_key(key: &[u8]) -> bool {
    let Some(mut key) = key.first_chunk::<8>().copied().map(Zeroizing::new) else { return false };
    for octet in key.iter_mut() {
        // The tables give each octet odd parity; the cipher ignores the lowest bit.
        *octet = (*octet & 0xfe) | u8::from((*octet >> 1).count_ones().is_multiple_of(2));
    }
    des::weak_key_test(&*key).is_err()
}
