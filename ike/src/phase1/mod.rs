//! Phase 1: IKEv1 main mode (RFC 2409 §5) for both roles, and the ISAKMP SA that it yields.
//!
//! ```text
//! initiator                        responder
//! HDR, SA                  -->
//!                          <--     HDR, SA
//! HDR, KE, Ni              -->
//!                          <--     HDR, KE, Nr
//! HDR*, IDii, HASH_I       -->
//!                          <--     HDR*, IDir, HASH_R
//! ```
//!
//! With certificates, messages 5 and 6 carry CERT and SIG in place of HASH.
//!
//! [`aggressive`] mode does the same in three messages.
//!
//! Each state is a struct that a message turns into the next one. The methods take the state by
//! reference: a message that is refused leaves it as it was, a message that is accepted yields the
//! state to put in its place.

pub mod aggressive;
mod auth;
mod cookies;
mod exchange_cipher;
pub mod informational;
pub mod initiator;
mod isakmp_sa;
mod message;
pub mod nat_traversal;
pub(crate) mod proposal;
pub mod refusal;
pub mod responder;
mod signatures;

pub use cookies::Cookies;
pub use exchange_cipher::{Authentic, ExchangeCipher, Opened, Sealed, Verified};
pub use informational::Informational;
pub use initiator::{Initiator, InitiatorConfig, InitiatorStep};
pub use isakmp_sa::{HashVerified, IsakmpSa, PeerAuthenticated, Role};
pub use message::KeyExchangeMessage;
pub use nat_traversal::{Nat, NatTraversal};
pub use refusal::OfferRefused;
pub use signatures::Certified;

#[cfg(any(test, feature = "testing"))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
