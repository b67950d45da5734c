//! Quick Mode (RFC 2409 §5.5): negotiates one pair of ESP SAs under an ISAKMP SA, in either role.
//!
//! ```text
//! initiator                                        responder
//! HDR*, HASH(1), SA, Ni [, KE] [, IDci, IDcr] -->
//!                       <-- HDR*, HASH(2), SA, Nr [, KE] [, IDci, IDcr]
//! HDR*, HASH(3)                               -->
//! ```
//!
//! A message that is not authentic changes nothing; one that is authentic and cannot be followed
//! ends the exchange. So every reading answers twice: outside for the octets, inside for what an
//! authenticated peer said.

mod algorithm;
pub mod initiator;
pub mod keymat;
mod message;
mod policy;
mod proposal;
mod refusal;
pub mod responder;
mod selector;

pub use crate::wire::esp_mode::Mode;
pub use algorithm::{EspAlgorithms, EspEncryption, EspIntegrity};
pub use keymat::EspKeys;
pub use policy::{Child, ChildPolicy};
pub use refusal::{EspFault, EspRefused};
pub use selector::{Addresses, Selectors, TrafficSelector};

use crate::error::Error;
use crate::wire::registry::ExchangeType;

/// Exchange type of Quick Mode under the IPsec DOI (RFC 2409 appendix A); under the GDOI the number
/// is GROUPKEY-PULL's.
pub const QUICK_MODE: ExchangeType = ExchangeType(32);

/// What an authenticated peer said, or why that cannot be followed.
pub type Authentic<T> = Result<T, Error>;

#[cfg(test)]
mod tests;
