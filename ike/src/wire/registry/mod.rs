//! Numbers of the IANA registries behind ISAKMP and the IPsec DOI, as open numbers.

mod ipsec;
mod isakmp;
mod notify;
mod phase1;

pub use ipsec::{
    AuthenticationAlgorithm, EncapsulationMode, EspTransformId, LifeType, SaAttribute,
};
pub use isakmp::{CertificateEncoding, Doi, ExchangeType, Flags, IdType, PayloadKind, ProtocolId};
pub use notify::NotifyType;
pub use phase1::{
    AuthenticationMethod, EncryptionNumber, GroupNumber, HashNumber, Phase1Attribute, TransformId,
};
