//! Cryptography of IKEv1 and GDOI on top of well-kept primitives.

pub mod secret;

pub use secret::Secret;
