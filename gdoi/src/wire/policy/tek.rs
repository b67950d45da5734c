//! A SAT payload as policy of a data SA, and back (RFC 6407 §5.5, RFC 2407 §4.5).

use core::time::Duration;

use super::attributes::{Attributes, number};
use super::{DEFAULT_LIFETIME, PolicyError};
use crate::group::{
    AddressPreservation, AuthenticationAlgorithm, EncapsulationMode, EspTransform, SaDirection,
    Spi, TekPolicy, TekProtection, TekProtocol,
};
use crate::wire::sa_tek::{IpsecTek, SaTek};
use crate::wire::selector;
use ike::wire::attribute::Attribute;
use ike::wire::registry::{LifeType, PayloadKind, SaAttribute};

pub(super) fn read(sat: &SaTek) -> Result<TekPolicy, PolicyError> {
    let sat = match sat {
        SaTek::Ipsec(sat) => sat,
        SaTek::Other(protocol, _) => return Err(PolicyError::TekProtocol(*protocol)),
    };
    if sat.spi < LOWEST_SPI {
        return Err(PolicyError::ReservedSpi(sat.spi));
    }
    let attributes = Attributes { payload: PayloadKind::SA_TEK, list: &sat.attributes };
    attributes.understood(&SAT_ATTRIBUTES.map(u16::from))?;
    let lifetimes = read_lifetimes(&attributes)?;
    let key_length = attributes.basic(SaAttribute::KEY_LENGTH.0)?;
    if sat.protocol == TekProtocol::ESP && needs_key_length(sat.transform) {
        match key_length {
            None => return Err(PolicyError::Missing(attributes.name(SaAttribute::KEY_LENGTH.0))),
            Some(128 | 192 | 256) => {}
            Some(bits) => return Err(attributes.value(SaAttribute::KEY_LENGTH.0, bits.into())),
        }
    }
    // 0 is reserved for both, yet sent by an existing implementation where nothing is configured.
    let unless_zero =
        |class: SaAttribute| Ok(attributes.basic(class.0)?.filter(|value| *value != 0));
    let preservation = unless_zero(SaAttribute::ADDRESS_PRESERVATION)?.map(AddressPreservation);
    let direction = unless_zero(SaAttribute::SA_DIRECTION)?.map(SaDirection);
    let selector = selector::read(sat.selector_protocol, &sat.source, &sat.destination)
        .map_err(|error| PolicyError::Selector { spi: sat.spi, error })?;
    Ok(TekPolicy {
        spi: sat.spi,
        selector,
        protection: TekProtection {
            protocol: sat.protocol,
            transform: sat.transform,
            key_length,
            authentication: attributes
                .basic(SaAttribute::AUTHENTICATION_ALGORITHM.0)?
                .map(AuthenticationAlgorithm),
            // RFC 2407 §4.5 leaves the default to the host; groups that preserve addresses use
            // tunnel mode.
            mode: attributes
                .basic(SaAttribute::ENCAPSULATION_MODE.0)?
                .map_or(EncapsulationMode::TUNNEL, EncapsulationMode),
            address_preservation: preservation
                .unwrap_or(AddressPreservation::SOURCE_AND_DESTINATION),
            direction: direction.unwrap_or(SaDirection::SYMMETRIC),
            lifetime: lifetimes.seconds.map_or(DEFAULT_LIFETIME, Duration::from_secs),
            lifetime_kilobytes: lifetimes.kilobytes,
        },
    })
}

pub(super) fn write(tek: &TekPolicy) -> SaTek {
    let protection = &tek.protection;
    let mut attributes = vec![
        Attribute::short(SaAttribute::LIFE_TYPE, LifeType::SECONDS),
        number(SaAttribute::LIFE_DURATION.0, protection.lifetime.as_secs()),
    ];
    if let Some(kilobytes) = protection.lifetime_kilobytes {
        attributes.push(Attribute::short(SaAttribute::LIFE_TYPE, LifeType::KILOBYTES));
        attributes.push(number(SaAttribute::LIFE_DURATION.0, kilobytes));
    }
    attributes.push(Attribute::short(SaAttribute::ENCAPSULATION_MODE, protection.mode));
    attributes.extend(
        protection
            .authentication
            .map(|algorithm| Attribute::short(SaAttribute::AUTHENTICATION_ALGORITHM, algorithm)),
    );
    attributes
        .extend(protection.key_length.map(|bits| Attribute::short(SaAttribute::KEY_LENGTH, bits)));
    attributes
        .push(Attribute::short(SaAttribute::ADDRESS_PRESERVATION, protection.address_preservation));
    if protection.direction != SaDirection::SYMMETRIC {
        attributes.push(Attribute::short(SaAttribute::SA_DIRECTION, protection.direction));
    }
    let (source, destination) = selector::write(&tek.selector);
    SaTek::Ipsec(IpsecTek {
        protocol: protection.protocol,
        selector_protocol: tek.selector.protocol,
        source,
        destination,
        transform: protection.transform,
        spi: tek.spi,
        attributes,
    })
}

#[derive(Default)]
struct Lifetimes {
    seconds: Option<u64>,
    kilobytes: Option<u64>,
}

/// A Life Type stands before the Life Duration it qualifies, and the pair may occur once for either
/// type.
fn read_lifetimes(attributes: &Attributes<'_>) -> Result<Lifetimes, PolicyError> {
    let mut lifetimes = Lifetimes::default();
    let mut life_type = None;
    for attribute in attributes.list {
        match SaAttribute(attribute.class) {
            SaAttribute::LIFE_TYPE => {
                let value = attribute
                    .as_basic()
                    .ok_or(PolicyError::Form(attributes.name(attribute.class)))?;
                if life_type.replace(LifeType(value)).is_some() {
                    return Err(PolicyError::Missing(
                        attributes.name(SaAttribute::LIFE_DURATION.0),
                    ));
                }
            }
            SaAttribute::LIFE_DURATION => {
                let kind = life_type.take().ok_or(PolicyError::DurationWithoutType)?;
                let slot = match kind {
                    LifeType::SECONDS => &mut lifetimes.seconds,
                    LifeType::KILOBYTES => &mut lifetimes.kilobytes,
                    LifeType(other) => {
                        return Err(attributes.value(SaAttribute::LIFE_TYPE.0, other.into()));
                    }
                };
                let duration = attribute
                    .as_number()
                    .ok_or(PolicyError::Form(attributes.name(attribute.class)))?;
                if duration == 0 {
                    return Err(attributes.value(attribute.class, 0));
                }
                if slot.replace(duration).is_some() {
                    return Err(PolicyError::Repeated(attributes.name(attribute.class)));
                }
            }
            _ => {}
        }
    }
    match life_type {
        Some(_) => Err(PolicyError::Missing(attributes.name(SaAttribute::LIFE_DURATION.0))),
        None => Ok(lifetimes),
    }
}

fn needs_key_length(transform: EspTransform) -> bool {
    (EspTransform::AES_CBC..=EspTransform::AES_CCM_16).contains(&transform)
        || (EspTransform::AES_GCM_8..=EspTransform::AES_GCM_16).contains(&transform)
        || transform == EspTransform::NULL_AUTH_AES_GMAC
}

/// RFC 4303 §2.1 reserves 0 to 255.
const LOWEST_SPI: Spi = 256;

const SAT_ATTRIBUTES: [SaAttribute; 8] = [
    SaAttribute::LIFE_TYPE,
    SaAttribute::LIFE_DURATION,
    SaAttribute::GROUP_DESCRIPTION,
    SaAttribute::ENCAPSULATION_MODE,
    SaAttribute::AUTHENTICATION_ALGORITHM,
    SaAttribute::KEY_LENGTH,
    SaAttribute::ADDRESS_PRESERVATION,
    SaAttribute::SA_DIRECTION,
];
