//! Cryptography of IKEv1 on top of well-kept primitives.
//!
//! Nothing here knows a message format: octets go in, octets come out. Which algorithm may be used
//! is the business of the policy; which key feeds which formula stands in [`keymat`].

pub mod algorithm;
pub mod cipher;
pub mod dh;
pub mod keymat;
mod modp;
pub mod prf;
pub mod rng;
pub mod secret;
pub mod signature;

pub use algorithm::{DhGroup, HashAlgorithm, Phase1Encryption};
pub use cipher::{Cipher, CipherError, Iv};
pub use dh::{DhError, KeyPair, PublicValue};
pub use prf::{constant_time_eq, hash, prf};
pub use rng::SeededRng;
pub use secret::Secret;
pub use signature::{KeyKind, PublicKey, RsaForm, SignatureError, SigningKey};

#[cfg(test)]
mod tests;
