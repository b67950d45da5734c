//! The group in an Identification payload: an ID_KEY_ID of four octets (RFC 6407 §5.1).

use ike::wire::id::Identification;
use ike::wire::registry::IdType;

use super::byte_order::ByteOrder;
use crate::group::GroupId;

/// The identification of a group; protocol and port are zero.
pub fn identification(group: GroupId, order: ByteOrder) -> Identification {
    let octets = match order {
        ByteOrder::Network => group.0.to_be_bytes(),
        ByteOrder::Host => group.0.to_le_bytes(),
    };
    Identification { kind: IdType::KEY_ID, protocol: 0, port: 0, data: octets.to_vec() }
}

/// The group that `id` means; `None` if it is not an ID_KEY_ID of four octets.
pub fn group(id: &Identification, order: ByteOrder) -> Option<GroupId> {
    let octets = <[u8; 4]>::try_from(id.data.as_slice()).ok()?;
    (id.kind == IdType::KEY_ID).then(|| match order {
        ByteOrder::Network => GroupId(u32::from_be_bytes(octets)),
        ByteOrder::Host => GroupId(u32::from_le_bytes(octets)),
    })
}
