//! Numbers of the IANA registries behind ISAKMP, the IPsec DOI and GDOI, as open numbers.

mod gdoi;

pub use self::gdoi::{
    GROUPKEY_PULL, GROUPKEY_PUSH, GROUPKEY_PUSH_ACK, GapAttribute, KdType, KekAlgorithm,
    KekAttribute, KekKeyAttribute, LkhAttributeClass, RekeyAcknowledgement, SidAttribute,
    SignatureAlgorithm, SignatureHash, TekKeyAttribute,
};
pub use ike::wire::registry::*;
