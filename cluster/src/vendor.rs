//! The vendor ID by which two servers recognise the protocol in phase 1 (RFC 2408 §3.16).

use ike::wire::vendor::{CLUSTER, VendorId};

/// Version of the protocol: raised when octets or behaviour change so that both sides must know.
pub const VERSION: u8 = 2;

/// What a server states in phase 1: a name, two zeros, the version, a zero. Without it no cluster
/// message is taken from a peer.
pub fn vendor_id() -> VendorId {
    VendorId([CLUSTER, &[0, 0, VERSION, 0]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendor_id_names_protocol_and_version() {
        assert_eq!(vendor_id().0, b"gdoi-cluster\0\0\x02\0");
    }
}
