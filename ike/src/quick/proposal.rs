//! Offer, choice and its check (RFC 2407 §4.4.4, §4.5; RFC 2408 §4.2).
//!
//! The offer is one ESP proposal with a transform for each set of algorithms, in order of
//! preference. The responder answers with one of them. Only the lifetime may come back changed:
//! peers write theirs there, and the smaller one counts (RFC 2407 §4.5.4).

use core::time::Duration;

use super::algorithm::{EspAlgorithms, EspEncryption, EspIntegrity};
use super::policy::ChildPolicy;
use super::refusal::{EspFault, EspRefused};
use crate::crypto::DhGroup;
use crate::error::{ApiMisuse, Error, PeerIncompatible, PeerMisbehaved};
use crate::phase1::proposal::{group_number, group_of};
use crate::wire::attribute::Attribute;
use crate::wire::proposal::Proposal;
use crate::wire::registry::{
    AuthenticationAlgorithm, Doi, EncapsulationMode, EspTransformId, GroupNumber, LifeType,
    ProtocolId, SaAttribute, TransformId,
};
use crate::wire::sa::{SITUATION_IDENTITY_ONLY, SecurityAssociation};
use crate::wire::transform::Transform;

/// What both sides agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    pub(super) algorithms: EspAlgorithms,
    pub(super) pfs: Option<DhGroup>,
    pub(super) extended_sequence_numbers: bool,
    pub(super) lifetime: Duration,
    pub(super) kilobytes: Option<u64>,
    /// The SPI of the peer.
    pub(super) spi: u32,
}

/// A transform by what it means, no longer by its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Understood {
    algorithms: EspAlgorithms,
    mode: u16,
    group: Option<u16>,
    extended_sequence_numbers: bool,
    seconds: Option<u64>,
    kilobytes: Option<u64>,
}

/// The initiator's SA payload.
pub(super) fn offer(
    policy: &ChildPolicy,
    mode: EncapsulationMode,
    spi: u32,
) -> Result<SecurityAssociation, Error> {
    check_mode(mode)?;
    if policy.algorithms.is_empty() || !policy.algorithms.iter().all(EspAlgorithms::is_complete) {
        return Err(ApiMisuse::Configuration("quick mode has no algorithms to offer").into());
    }
    let extended: &[bool] =
        if policy.extended_sequence_numbers { &[true, false] } else { &[false] };
    let all = policy.algorithms.iter().flat_map(|one| extended.iter().map(move |esn| (*one, *esn)));
    let transforms: Vec<Transform> = (1..=u8::MAX)
        .zip(all)
        .map(|(number, (algorithms, esn))| Transform {
            number,
            id: TransformId(algorithms.encryption.transform_id().0),
            attributes: attributes(policy, mode, algorithms, esn),
        })
        .collect();
    if transforms.len() != policy.algorithms.len().saturating_mul(extended.len()) {
        return Err(ApiMisuse::Configuration("quick mode has more than 255 transforms").into());
    }
    Ok(association(1, spi, transforms))
}

/// The responder's choice: the first transform of the offer that the policy has, and the SA payload
/// that says so under our SPI.
///
/// # Errors
/// Nothing in the offer is acceptable.
pub(super) fn choose(
    policy: &ChildPolicy,
    mode: EncapsulationMode,
    offer: &SecurityAssociation,
    spi: u32,
) -> Result<(Agreement, SecurityAssociation), Error> {
    check_doi(offer)?;
    check_mode(mode)?;
    let mut refused = Vec::new();
    for proposal in &offer.proposals {
        let number = proposal.number;
        let alone = offer.proposals.iter().filter(|other| other.number == number).count() == 1;
        let theirs = match spi_of(proposal) {
            Ok(theirs) if alone => theirs,
            Ok(_) => {
                refused.push(((number, 0), EspFault::Protocol(proposal.protocol)));
                continue;
            }
            Err(fault) => {
                refused.push(((number, 0), fault));
                continue;
            }
        };
        for transform in &proposal.transforms {
            match understand(transform)
                .and_then(|understood| accept(policy, mode, understood, theirs))
            {
                Ok(agreement) => {
                    let chosen = association(number, spi, vec![transform.clone()]);
                    return Ok((agreement, chosen));
                }
                Err(fault) => refused.push(((number, transform.number), fault)),
            }
        }
    }
    Err(PeerIncompatible::EspRefused(EspRefused(refused)).into())
}

/// The initiator's check of the responder's choice: one transform of the offer, nothing but the
/// lifetime changed.
pub(super) fn check_choice(
    policy: &ChildPolicy,
    mode: EncapsulationMode,
    choice: &SecurityAssociation,
) -> Result<Agreement, Error> {
    check_doi(choice)?;
    let [proposal] = choice.proposals.as_slice() else {
        return Err(PeerMisbehaved::ForeignTransform.into());
    };
    let [transform] = proposal.transforms.as_slice() else {
        return Err(PeerMisbehaved::ForeignTransform.into());
    };
    let foreign = |_| Error::from(PeerMisbehaved::ForeignTransform);
    let spi = spi_of(proposal).map_err(foreign)?;
    let understood = understand(transform).map_err(foreign)?;
    accept(policy, mode, understood, spi).map_err(foreign)
}

/// In transport mode the peer would see other addresses than its packets' checksums cover and its
/// policies name.
fn check_mode(mode: EncapsulationMode) -> Result<(), Error> {
    match mode {
        EncapsulationMode::UDP_TRANSPORT | EncapsulationMode::DRAFT_UDP_TRANSPORT => {
            Err(PeerIncompatible::TranslatedTransport.into())
        }
        _ => Ok(()),
    }
}

fn check_doi(sa: &SecurityAssociation) -> Result<(), Error> {
    match sa.doi {
        Doi::IPSEC => Ok(()),
        other => Err(PeerIncompatible::Doi(other).into()),
    }
}

fn association(number: u8, spi: u32, transforms: Vec<Transform>) -> SecurityAssociation {
    let spi = spi.to_be_bytes().to_vec();
    let proposal = Proposal { number, protocol: ProtocolId::IPSEC_ESP, spi, transforms };
    SecurityAssociation {
        doi: Doi::IPSEC,
        situation: SITUATION_IDENTITY_ONLY,
        proposals: vec![proposal],
    }
}

fn spi_of(proposal: &Proposal) -> Result<u32, EspFault> {
    if proposal.protocol != ProtocolId::IPSEC_ESP {
        return Err(EspFault::Protocol(proposal.protocol));
    }
    let octets = <[u8; 4]>::try_from(proposal.spi.as_slice()).map_err(|_| EspFault::Spi)?;
    let spi = u32::from_be_bytes(octets);
    if spi < FIRST_SPI { Err(EspFault::Spi) } else { Ok(spi) }
}

/// SPIs below are reserved (RFC 4303 §2.1).
pub(super) const FIRST_SPI: u32 = 256;

/// What becomes of a transform under `policy`.
fn accept(
    policy: &ChildPolicy,
    ours: EncapsulationMode,
    offered: Understood,
    spi: u32,
) -> Result<Agreement, EspFault> {
    let Understood { algorithms, mode, group, extended_sequence_numbers, seconds, kilobytes } =
        offered;
    if !policy.algorithms.contains(&algorithms) {
        return Err(outside(policy, algorithms));
    }
    if mode != ours.0 {
        return Err(EspFault::Mode { offered: EncapsulationMode(mode), ours });
    }
    if group.map(|group| group_of(GroupNumber(group))) != policy.pfs.map(Some) {
        return Err(EspFault::Pfs { offered: group, ours: policy.pfs });
    }
    if extended_sequence_numbers && !policy.extended_sequence_numbers {
        return Err(EspFault::Value(SaAttribute::EXTENDED_SEQUENCE_NUMBER, 1));
    }
    let seconds = seconds.map_or(DEFAULT_LIFETIME, Duration::from_secs);
    Ok(Agreement {
        algorithms,
        pfs: policy.pfs,
        extended_sequence_numbers,
        lifetime: policy.lifetime.min(seconds),
        kilobytes: policy.kilobytes.into_iter().chain(kilobytes).min(),
        spi,
    })
}

/// What an offer without a lifetime means (RFC 2407 §4.5).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(28_800);

/// The first part of `algorithms` that no transform of the policy has.
fn outside(policy: &ChildPolicy, algorithms: EspAlgorithms) -> EspFault {
    let EspAlgorithms { encryption, integrity } = algorithms;
    let any = |same: &dyn Fn(&EspAlgorithms) -> bool| policy.algorithms.iter().any(same);
    let id = encryption.transform_id();
    if !any(&|ours| ours.encryption.transform_id() == id) {
        return EspFault::Encryption(id.0);
    }
    if !any(&|ours| ours.encryption == encryption) {
        let bits = encryption.key_length_attribute().unwrap_or_default();
        return EspFault::Value(SaAttribute::KEY_LENGTH, bits);
    }
    match integrity {
        Some(integrity) if !any(&|ours| ours.integrity == Some(integrity)) => {
            EspFault::Value(SaAttribute::AUTHENTICATION_ALGORITHM, integrity.number().0)
        }
        _ => EspFault::Combination,
    }
}

fn attributes(
    policy: &ChildPolicy,
    mode: EncapsulationMode,
    algorithms: EspAlgorithms,
    extended: bool,
) -> Vec<Attribute> {
    let number = |value: u64| {
        Attribute::number(SaAttribute::LIFE_DURATION, u32::try_from(value).unwrap_or(u32::MAX))
    };
    let mut attributes = vec![
        Attribute::short(SaAttribute::ENCAPSULATION_MODE, mode),
        Attribute::short(SaAttribute::LIFE_TYPE, LifeType::SECONDS),
        number(policy.lifetime.as_secs()),
    ];
    if let Some(kilobytes) = policy.kilobytes {
        attributes.push(Attribute::short(SaAttribute::LIFE_TYPE, LifeType::KILOBYTES));
        attributes.push(number(kilobytes));
    }
    let mut add = |class, value: Option<u16>| {
        attributes.extend(value.map(|value| Attribute::short(class, value)));
    };
    let integrity = algorithms.integrity.map(|integrity| integrity.number().0);
    add(SaAttribute::AUTHENTICATION_ALGORITHM, integrity);
    add(SaAttribute::KEY_LENGTH, algorithms.encryption.key_length_attribute());
    add(SaAttribute::GROUP_DESCRIPTION, policy.pfs.map(|group| group_number(group).0));
    add(SaAttribute::EXTENDED_SEQUENCE_NUMBER, extended.then_some(EXTENDED));
    attributes
}

/// Value of EXTENDED_SEQUENCE_NUMBER: numbers of 64 bits (RFC 4304 §2).
const EXTENDED: u16 = 1;

/// What an offered transform says.
///
/// # Errors
/// A part of it is unknown, missing, repeated, or in a form its class must not have.
fn understand(transform: &Transform) -> Result<Understood, EspFault> {
    let (mut mode, mut group, mut integrity, mut key_length, mut extended) =
        (None, None, None, None, None);
    let (mut life_type, mut seconds, mut kilobytes) = (None, None, None);
    for attribute in &transform.attributes {
        let class = SaAttribute(attribute.class);
        let basic = || attribute.as_basic().ok_or(EspFault::Form(class));
        let place = match class {
            SaAttribute::ENCAPSULATION_MODE => &mut mode,
            SaAttribute::GROUP_DESCRIPTION => &mut group,
            SaAttribute::AUTHENTICATION_ALGORITHM => &mut integrity,
            SaAttribute::KEY_LENGTH => &mut key_length,
            SaAttribute::EXTENDED_SEQUENCE_NUMBER => &mut extended,
            SaAttribute::LIFE_TYPE => {
                // Each life type stands in front of its duration (RFC 2407 §4.5).
                life_type = Some(LifeType(basic()?));
                continue;
            }
            SaAttribute::LIFE_DURATION => {
                // What exceeds 64 bits is as good as endless.
                let duration = attribute.as_number().unwrap_or(u64::MAX);
                let missing = EspFault::Missing(SaAttribute::LIFE_TYPE);
                let place = match life_type.take().ok_or(missing)? {
                    _ if duration == 0 => return Err(EspFault::Value(class, 0)),
                    LifeType::SECONDS => &mut seconds,
                    LifeType::KILOBYTES => &mut kilobytes,
                    LifeType(other) => {
                        return Err(EspFault::Value(SaAttribute::LIFE_TYPE, other));
                    }
                };
                if place.replace(duration).is_some() {
                    return Err(EspFault::Repeated(class));
                }
                continue;
            }
            _ => return Err(EspFault::Unknown(class)),
        };
        if place.replace(basic()?).is_some() {
            return Err(EspFault::Repeated(class));
        }
    }
    if let Some(other) = extended.filter(|value| *value != EXTENDED) {
        return Err(EspFault::Value(SaAttribute::EXTENDED_SEQUENCE_NUMBER, other));
    }
    Ok(Understood {
        algorithms: algorithms(transform.id, key_length, integrity)?,
        mode: mode.ok_or(EspFault::Missing(SaAttribute::ENCAPSULATION_MODE))?,
        group,
        extended_sequence_numbers: extended.is_some(),
        seconds,
        kilobytes,
    })
}

fn algorithms(
    id: TransformId,
    key_length: Option<u16>,
    integrity: Option<u16>,
) -> Result<EspAlgorithms, EspFault> {
    let mut of_id = EspEncryption::ALL
        .into_iter()
        .filter(|encryption| encryption.transform_id() == EspTransformId(id.0))
        .peekable();
    if of_id.peek().is_none() {
        return Err(EspFault::Encryption(id.0));
    }
    let encryption = of_id
        .find(|encryption| encryption.key_length_attribute() == key_length)
        .ok_or(match key_length {
            Some(bits) => EspFault::Value(SaAttribute::KEY_LENGTH, bits),
            None => EspFault::Missing(SaAttribute::KEY_LENGTH),
        })?;
    let class = SaAttribute::AUTHENTICATION_ALGORITHM;
    let integrity = integrity
        .map(|number| {
            EspIntegrity::ALL
                .into_iter()
                .find(|integrity| integrity.number() == AuthenticationAlgorithm(number))
                .ok_or(EspFault::Value(class, number))
        })
        .transpose()?;
    let algorithms = EspAlgorithms { encryption, integrity };
    match integrity {
        _ if algorithms.is_complete() => Ok(algorithms),
        Some(integrity) => Err(EspFault::Value(class, integrity.number().0)),
        None => Err(EspFault::Missing(class)),
    }
}
