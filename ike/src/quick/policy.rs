//! What Quick Mode may negotiate, and what comes of it.

use core::time::Duration;

use super::algorithm::EspAlgorithms;
use super::keymat::EspKeys;
use super::selector::Selectors;
use crate::crypto::DhGroup;
use crate::phase1::HashVerified;
use crate::wire::esp_mode::Mode;

/// What Quick Mode may negotiate for one pair of traffic selectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildPolicy {
    /// Acceptable algorithms in order of preference; the initiator offers them all.
    pub algorithms: Vec<EspAlgorithms>,
    /// The group of a Diffie-Hellman exchange for these keys alone (perfect forward secrecy).
    pub pfs: Option<DhGroup>,
    pub mode: Mode,
    /// Lifetime in seconds; the shorter one of both sides counts.
    pub lifetime: Duration,
    /// Lifetime in kilobytes; the smaller one of both sides counts.
    pub kilobytes: Option<u64>,
    /// Whether sequence numbers of 64 bits are offered and accepted (RFC 4304).
    pub extended_sequence_numbers: bool,
}

/// A pair of ESP SAs that Quick Mode negotiated.
#[derive(Debug)]
pub struct Child {
    pub algorithms: EspAlgorithms,
    pub mode: Mode,
    /// Whether it travels in UDP, by the ports of IKE (RFC 3948 §2.1).
    pub encapsulated: bool,
    /// The group of the Diffie-Hellman exchange, if there was one.
    pub pfs: Option<DhGroup>,
    /// Whether sequence numbers have 64 bits.
    pub extended_sequence_numbers: bool,
    /// How long they live from now on.
    pub lifetime: Duration,
    /// After how many kilobytes they end.
    pub kilobytes: Option<u64>,
    /// The traffic, ours first.
    pub selectors: Selectors,
    /// What we receive on: our SPI.
    pub inbound: EspKeys,
    /// What we send on: the peer's SPI.
    pub outbound: EspKeys,
    /// Keys go to the kernel from an authenticated message alone.
    pub(super) proof: HashVerified,
}

impl Child {
    /// The proof of the message that it was made from.
    pub(crate) fn proof(&self) -> &HashVerified {
        &self.proof
    }
}
