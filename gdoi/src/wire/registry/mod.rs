//! Numbers of the IANA registry of GDOI, as open numbers. Those of ISAKMP and the IPsec DOI are in
//! [`ike::wire::registry`].

mod gdoi;

pub use self::gdoi::{
    GROUPKEY_PULL, GROUPKEY_PUSH, GROUPKEY_PUSH_ACK, GapAttribute, KdType, KekAlgorithm,
    KekAttribute, KekKeyAttribute, LkhAttributeClass, RekeyAcknowledgement, SidAttribute,
    SignatureAlgorithm, SignatureHash, TekKeyAttribute,
};
