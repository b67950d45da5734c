//! Numbers of the IANA registries behind ISAKMP, the IPsec DOI and GDOI, as open numbers.

mod gdoi;
mod ipsec;
mod isakmp;
mod notify;
mod phase1;

pub use self::gdoi::{
    GapAttribute, KdType, KekAlgorithm, KekAttribute, KekKeyAttribute, LkhAttributeClass,
    RekeyAcknowledgement, SidAttribute, SignatureAlgorithm, SignatureHash, TekKeyAttribute,
};
pub use ipsec::{LifeType, SaAttribute};
pub use isakmp::{CertificateEncoding, Doi, ExchangeType, Flags, IdType, PayloadKind, ProtocolId};
pub use notify::NotifyType;
pub use phase1::{
    AuthenticationMethod, EncryptionNumber, GroupNumber, HashNumber, Phase1Attribute, TransformId,
};
