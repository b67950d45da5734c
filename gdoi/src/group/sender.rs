//! Sender identifiers for counter-mode SAs (RFC 6407 §5.6.4, RFC 6054 §3).

/// The SIDs that the key server gave to one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderIds {
    /// NUMBER_OF_SID_BITS: width of the SID at the left of the IV.
    pub bits: u16,
    /// SID_VALUE attributes in the order received.
    pub values: Vec<u64>,
}
