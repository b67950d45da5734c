//! Vendor ID payload (RFC 2408 §3.16): opaque, and ignored where it is not known.

use super::chain::{Body, LONGEST_BODY};
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::PayloadKind;

/// The vendor IDs of key servers that form a cluster begin like that; the protocol above knows the
/// rest.
pub const CLUSTER: &[u8] = b"gdoi-cluster";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorId(pub Vec<u8>);

impl Body for VendorId {
    const KIND: PayloadKind = PayloadKind::VENDOR_ID;
}

impl Codec for VendorId {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        reader
            .rest_within("vendor identification", 0, LONGEST_BODY)
            .map(|octets| Self(octets.to_vec()))
    }

    fn encode(&self, writer: &mut Writer) {
        writer.put(&self.0);
    }
}
