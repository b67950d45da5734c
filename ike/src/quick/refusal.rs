//! Why no proposal of a Quick Mode was chosen: which attribute of which transform is at fault.

use core::fmt;

use crate::crypto::DhGroup;
use crate::wire::registry::{EncapsulationMode, ProtocolId, SaAttribute};

/// Transforms that a line names at most.
const NAMED: usize = 8;

/// What is at fault with each transform of an offer, by the numbers of proposal and transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspRefused(pub Vec<((u8, u8), EspFault)>);

/// What is at fault with a transform, or with the proposal that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EspFault {
    /// The proposal is for another protocol than ESP, or for several together.
    Protocol(ProtocolId),
    /// The SPI has not four octets, or is one of the reserved ones below 256.
    Spi,
    /// An attribute that it must have is missing.
    Missing(SaAttribute),
    /// An attribute that it may have once occurs again.
    Repeated(SaAttribute),
    /// An attribute is in a form that its class must not have.
    Form(SaAttribute),
    /// An attribute of a class that is not understood.
    Unknown(SaAttribute),
    /// An ESP transform identifier that is not accepted here.
    Encryption(u8),
    /// The value of an attribute is not accepted here.
    Value(SaAttribute, u16),
    /// The encapsulation mode is another one than ours.
    Mode {
        offered: EncapsulationMode,
        /// What is configured here, in UDP if there is address translation.
        ours: EncapsulationMode,
    },
    /// The group for perfect forward secrecy is another one than ours.
    Pfs {
        /// The number offered; `None` without perfect forward secrecy.
        offered: Option<u16>,
        /// What is configured here.
        ours: Option<DhGroup>,
    },
    /// There is no KE payload of the length that the group demands.
    PublicValue,
    /// Every value is accepted here, but not all together.
    Combination,
}

impl fmt::Display for EspRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the offer has no transform");
        }
        for (place, ((proposal, transform), fault)) in self.0.iter().take(NAMED).enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}proposal {proposal}, transform {transform}: {fault}")?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more transforms"),
        }
    }
}

impl fmt::Display for EspFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(protocol) => write!(f, "protocol {protocol}, not ESP alone"),
            Self::Spi => f.write_str("an SPI that ESP cannot have"),
            Self::Missing(class) => write!(f, "{} is missing", Class(*class)),
            Self::Repeated(class) => write!(f, "{} occurs more than once", Class(*class)),
            Self::Form(class) => write!(f, "{} has a form that it must not have", Class(*class)),
            Self::Unknown(class) => write!(f, "{} is not understood", Class(*class)),
            Self::Encryption(id) => write!(f, "encryption {id} is not accepted"),
            Self::Value(class, value) => write!(f, "{} {value} is not accepted", Class(*class)),
            Self::Mode { offered, ours } => {
                let name = |mode: &EncapsulationMode| match *mode {
                    EncapsulationMode::TUNNEL => "tunnel mode",
                    EncapsulationMode::TRANSPORT => "transport mode",
                    EncapsulationMode::UDP_TUNNEL | EncapsulationMode::DRAFT_UDP_TUNNEL => {
                        "tunnel mode in UDP"
                    }
                    EncapsulationMode::UDP_TRANSPORT | EncapsulationMode::DRAFT_UDP_TRANSPORT => {
                        "transport mode in UDP"
                    }
                    _ => "an unknown mode",
                };
                let number = offered.0;
                write!(f, "encapsulation mode {number} ({}), not {}", name(offered), name(ours))
            }
            Self::Pfs { offered, ours } => {
                match offered {
                    Some(number) => write!(f, "perfect forward secrecy with group {number}")?,
                    None => f.write_str("no perfect forward secrecy")?,
                }
                match ours {
                    Some(group) => write!(f, ", where group {} is configured", number(*group)),
                    None => f.write_str(", where none is configured"),
                }
            }
            Self::PublicValue => f.write_str("no public value that fits the group"),
            Self::Combination => {
                f.write_str("its values are accepted one by one, but not in this combination")
            }
        }
    }
}

fn number(group: DhGroup) -> u16 {
    crate::phase1::proposal::group_number(group).0
}

/// An attribute class by the name that the RFC gives it.
struct Class(SaAttribute);

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            SaAttribute::LIFE_TYPE => "life type",
            SaAttribute::LIFE_DURATION => "life duration",
            SaAttribute::GROUP_DESCRIPTION => "group",
            SaAttribute::ENCAPSULATION_MODE => "encapsulation mode",
            SaAttribute::AUTHENTICATION_ALGORITHM => "integrity algorithm",
            SaAttribute::KEY_LENGTH => "key length",
            SaAttribute::EXTENDED_SEQUENCE_NUMBER => "extended sequence number",
            SaAttribute(other) => return write!(f, "attribute {other}"),
        })
    }
}
