//! Phase 1: IKEv1 main mode with a pre-shared key (RFC 2409 §5.4) under the GDOI (RFC 6407 §2.1),
//! for both roles, and the ISAKMP SA that it yields.
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
//! Each state is a struct that a message turns into the next one. The methods take the state by
//! reference: a message that is refused leaves it as it was, a message that is accepted yields the
//! state to put in its place.

mod auth;
mod exchange;
pub mod informational;
pub mod initiator;
mod isakmp_sa;
mod message;
mod proposal;
pub mod responder;

pub use exchange::{ExchangeCipher, Opened, Sealed};
pub use informational::Informational;
pub use initiator::{Initiator, InitiatorConfig, InitiatorStep};
pub use isakmp_sa::{Cookies, HashVerified, IsakmpSa, PeerAuthenticated, Role};
pub use message::KeyExchangeMessage;

#[cfg(test)]
pub(crate) mod tests;
