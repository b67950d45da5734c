//! Keys of a logical key hierarchy (RFC 6407 §5.6.3, RFC 2627 §5.4).

use ike::crypto::Secret;

/// Keys of one member, leaf first.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct LkhDownload {
    /// The keys in clear: initialisation vector, then key.
    pub keys: Vec<LkhKey>,
}

/// New keys from just above one node up to the root, each encrypted with the one before.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct LkhUpdate {
    /// Node whose key encrypts the first of `keys`.
    pub node: u16,
    /// Handle of that key.
    pub handle: u32,
    /// The new keys upwards, each encrypted with the one before.
    pub keys: Vec<LkhKey>,
}

/// One key of the tree.
#[derive(Debug, PartialEq, Eq)]
pub struct LkhKey {
    /// Node of the tree.
    pub node: u16,
    /// KEK_ALGORITHM that the key is for, one octet on the wire.
    pub algorithm: u8,
    /// Seconds since 1970-01-01 UTC from which the key is valid; 0 is always.
    pub creation: u32,
    /// Seconds since 1970-01-01 UTC at which it ends; 0 is never.
    pub expiration: u32,
    /// Tells successive keys of one node apart.
    pub handle: u32,
    /// Initialisation vector and key; in an update array, encrypted.
    pub data: Secret,
}
