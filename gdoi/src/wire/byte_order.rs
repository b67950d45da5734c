//! Orders of octets that peers write numbers in.

use crate::group::GroupId;

/// Order of the 4 octets of a group id. RFC 6407 §5.1 means network order; some implementations
/// copy host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ByteOrder {
    /// Network order, most significant octet first.
    #[default]
    Network,
    /// The order of a little-endian host.
    Host,
}

impl ByteOrder {
    /// The group that a peer means by `group` whose octets were read in network order.
    pub fn group(self, group: GroupId) -> GroupId {
        match self {
            Self::Network => group,
            Self::Host => GroupId(group.0.swap_bytes()),
        }
    }
}
