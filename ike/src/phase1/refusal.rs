//! Why no transform of an offer was chosen: which attribute of which transform is at fault.
//!
//! Main mode says no by a notification without a reason (RFC 2409 §5.4), and most of what
//! keeps two configurations apart is one number: both logs name it.

use core::fmt;

use crate::config::{Phase1Policy, Phase1Transform};
use crate::wire::attribute::Attribute;
use crate::wire::registry::{
    AuthenticationMethod, EncryptionNumber, GroupNumber, HashNumber, LifeType, Phase1Attribute,
    ProtocolId, TransformId,
};

/// Transforms that a line names at most.
const NAMED: usize = 8;

/// Why nothing of an offer can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferRefused {
    /// The proposal is for another protocol than ISAKMP.
    Protocol(ProtocolId),
    /// What is at fault with each transform, in the order of the offer.
    Transforms(Vec<TransformRefused>),
}

/// One transform that cannot be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformRefused {
    /// Its number in the proposal.
    pub number: u8,
    /// What is at fault.
    pub fault: TransformFault,
}

/// What is at fault with a transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransformFault {
    /// The transform identifier is not KEY_IKE.
    Identifier(TransformId),
    /// An attribute that it must have is missing.
    Missing(Phase1Attribute),
    /// An attribute that it may have once occurs again.
    Repeated(Phase1Attribute),
    /// An attribute is in a form that its class must not have.
    Form(Phase1Attribute),
    /// An attribute of a class that is not understood.
    Unknown(Phase1Attribute),
    /// The value of an attribute is not accepted here.
    Value(Phase1Attribute, u16),
    /// Every value is accepted here, but not all together.
    Combination,
}

impl TransformFault {
    /// What keeps a transform that is understood out of `policy`; its numbers are in `attributes`.
    pub(super) fn outside(
        policy: &Phase1Policy,
        transform: &Phase1Transform,
        attributes: &[Attribute],
    ) -> Self {
        let value = |class: Phase1Attribute| {
            let found = attributes.iter().find(|attribute| attribute.class == class.0);
            Self::Value(class, found.and_then(Attribute::as_basic).unwrap_or_default())
        };
        let any = |same: &dyn Fn(&Phase1Transform) -> bool| policy.transforms.iter().any(same);
        if !any(&|ours| ours.authentication == transform.authentication) {
            return value(Phase1Attribute::AUTHENTICATION_METHOD);
        }
        if !any(&|ours| ours.encryption == transform.encryption) {
            let same_cipher = any(&|ours| {
                let (a, b) = (ours.encryption, transform.encryption);
                a.key_length_attribute().is_some() && b.key_length_attribute().is_some()
            });
            return value(match same_cipher {
                true => Phase1Attribute::KEY_LENGTH,
                false => Phase1Attribute::ENCRYPTION_ALGORITHM,
            });
        }
        if !any(&|ours| ours.hash == transform.hash) {
            return value(Phase1Attribute::HASH_ALGORITHM);
        }
        if !any(&|ours| ours.group == transform.group) {
            return value(Phase1Attribute::GROUP_DESCRIPTION);
        }
        Self::Combination
    }
}

impl fmt::Display for OfferRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transforms = match self {
            Self::Protocol(protocol) => {
                return write!(f, "the proposal is for protocol {protocol}, not for ISAKMP");
            }
            Self::Transforms(transforms) if transforms.is_empty() => {
                return f.write_str("the proposal has no transform");
            }
            Self::Transforms(transforms) => transforms,
        };
        for (place, TransformRefused { number, fault }) in transforms.iter().take(NAMED).enumerate()
        {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}transform {number}: {fault}")?;
        }
        match transforms.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more transforms"),
        }
    }
}

impl fmt::Display for TransformFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identifier(id) => write!(f, "transform identifier {id}, not KEY_IKE"),
            Self::Missing(class) => write!(f, "{} is missing", Class(*class)),
            Self::Repeated(class) => write!(f, "{} occurs more than once", Class(*class)),
            Self::Form(class) => write!(f, "{} has a form that it must not have", Class(*class)),
            Self::Unknown(class) => write!(f, "{} is not understood", Class(*class)),
            Self::Value(class, value) => {
                write!(f, "{} {value}", Class(*class))?;
                if let Some(name) = name_of(*class, *value) {
                    write!(f, " ({name})")?;
                }
                f.write_str(" is not accepted")
            }
            Self::Combination => {
                f.write_str("its values are accepted one by one, but not in this combination")
            }
        }
    }
}

/// An attribute class by the name that the RFC gives it.
struct Class(Phase1Attribute);

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Phase1Attribute::ENCRYPTION_ALGORITHM => "encryption algorithm",
            Phase1Attribute::HASH_ALGORITHM => "hash algorithm",
            Phase1Attribute::AUTHENTICATION_METHOD => "authentication method",
            Phase1Attribute::GROUP_DESCRIPTION => "group",
            Phase1Attribute::LIFE_TYPE => "life type",
            Phase1Attribute::LIFE_DURATION => "life duration",
            Phase1Attribute::PRF => "prf",
            Phase1Attribute::KEY_LENGTH => "key length",
            Phase1Attribute(other) => return write!(f, "attribute {other}"),
        })
    }
}

/// The name of a value that a peer may offer; `None` where the number says it all.
fn name_of(class: Phase1Attribute, value: u16) -> Option<&'static str> {
    match class {
        Phase1Attribute::ENCRYPTION_ALGORITHM => Some(match EncryptionNumber(value) {
            EncryptionNumber::DES_CBC => "DES-CBC",
            EncryptionNumber::IDEA_CBC => "IDEA-CBC",
            EncryptionNumber::BLOWFISH_CBC => "Blowfish-CBC",
            EncryptionNumber::RC5_CBC => "RC5-CBC",
            EncryptionNumber::TRIPLE_DES_CBC => "3DES-CBC",
            EncryptionNumber::CAST_CBC => "CAST-CBC",
            EncryptionNumber::AES_CBC => "AES-CBC",
            _ => return None,
        }),
        Phase1Attribute::HASH_ALGORITHM => Some(match HashNumber(value) {
            HashNumber::MD5 => "MD5",
            HashNumber::SHA1 => "SHA-1",
            HashNumber::TIGER => "Tiger",
            HashNumber::SHA2_256 => "SHA2-256",
            HashNumber::SHA2_384 => "SHA2-384",
            HashNumber::SHA2_512 => "SHA2-512",
            _ => return None,
        }),
        Phase1Attribute::AUTHENTICATION_METHOD => Some(match AuthenticationMethod(value) {
            AuthenticationMethod::PRE_SHARED_KEY => "pre-shared key",
            AuthenticationMethod::DSS_SIGNATURES => "DSS signatures",
            AuthenticationMethod::RSA_SIGNATURES => "RSA signatures",
            AuthenticationMethod::RSA_ENCRYPTION => "RSA encryption",
            AuthenticationMethod::REVISED_RSA_ENCRYPTION => "revised RSA encryption",
            AuthenticationMethod::ECDSA
            | AuthenticationMethod::ECDSA_256
            | AuthenticationMethod::ECDSA_384
            | AuthenticationMethod::ECDSA_521 => "ECDSA signatures",
            _ => return None,
        }),
        Phase1Attribute::GROUP_DESCRIPTION => Some(match GroupNumber(value) {
            GroupNumber::MODP_768 => "MODP 768",
            GroupNumber::MODP_1024 => "MODP 1024",
            GroupNumber::MODP_1536 => "MODP 1536",
            GroupNumber::MODP_2048 => "MODP 2048",
            GroupNumber::MODP_3072 => "MODP 3072",
            GroupNumber::MODP_4096 => "MODP 4096",
            GroupNumber::MODP_6144 => "MODP 6144",
            GroupNumber::MODP_8192 => "MODP 8192",
            GroupNumber::ECP_256 => "ECP 256",
            GroupNumber::ECP_384 => "ECP 384",
            GroupNumber::ECP_521 => "ECP 521",
            GroupNumber::MODP_1024_160
            | GroupNumber::MODP_2048_224
            | GroupNumber::MODP_2048_256 => "MODP of RFC 5114",
            _ => return None,
        }),
        Phase1Attribute::LIFE_TYPE => Some(match LifeType(value) {
            LifeType::SECONDS => "seconds",
            LifeType::KILOBYTES => "kilobytes",
            _ => return None,
        }),
        _ => None,
    }
}
