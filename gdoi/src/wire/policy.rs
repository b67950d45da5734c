//! The SA payload of a group as policy, and back (RFC 6407 §5.2 to §5.5).
//!
//! Payloads keep whatever they hold. Here is where a member understands it or refuses it: a capability that is not
//! understood must end the registration before keys arrive (RFC 6407 §5.3.2, §5.4). Private-use attributes are left
//! aside; Group Description and KEK_MANAGEMENT_ALGORITHM are ignored, as the RFC demands.

use core::fmt;
use core::time::Duration;

use super::attribute::{Attribute, AttributeValue};
use super::gap::Gap;
use super::group_sa::GroupSecurityAssociation;
use super::lengths::kek_key_octets;
use super::registry::{
    GapAttribute, IdType, KekAlgorithm, KekAttribute, LifeType, PayloadKind, RekeyAcknowledgement, SaAttribute,
    SignatureAlgorithm, SignatureHash,
};
use super::sa_kek::{IdBlock, SaKek, Trailer};
use super::sa_tek::{IpsecTek, SaTek};
use super::selector::{self, SelectorError};
use crate::group::{
    AddressPreservation, AuthenticationAlgorithm, EncapsulationMode, EspTransform, GroupAssociatedPolicy, GroupId,
    GroupPolicy, KekPolicy, SaDirection, Spi, TekPolicy, TekProtection, TekProtocol,
};

/// Why a well-formed SA payload cannot be used: the key server and we have no common ground.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// An attribute that nothing here understands.
    #[error("{0} is not understood")]
    UnknownAttribute(AttributeName),
    /// An attribute that may occur once.
    #[error("{0} occurs more than once")]
    Repeated(AttributeName),
    /// An attribute without which the policy says too little.
    #[error("{0} is missing")]
    Missing(AttributeName),
    /// A basic attribute in the long form, or a number that is empty or exceeds 64 bits.
    #[error("{0} has the wrong form")]
    Form(AttributeName),
    /// A value that is not understood.
    #[error("{name}: value {value} is not understood")]
    Value {
        /// The attribute.
        name: AttributeName,
        /// Its value.
        value: u64,
    },
    /// Life Duration that no Life Type precedes (RFC 2407 §4.5).
    #[error("SA_TEK attribute LIFE_DURATION has no LIFE_TYPE in front")]
    DurationWithoutType,
    /// Pushes over another protocol than UDP.
    #[error("SA_KEK: pushes over IP protocol {0}, only 17 (UDP) is understood")]
    PushProtocol(u8),
    /// A data SA that is neither ESP nor AH.
    #[error("SA_TEK: Protocol-ID {0} is not understood")]
    TekProtocol(TekProtocol),
    /// An SPI from the reserved range (RFC 4303 §2.1).
    #[error("SA_TEK: SPI {0} is reserved")]
    ReservedSpi(Spi),
    /// Payloads that share an SPI but describe different SAs.
    #[error("SA_TEK: two payloads for SPI {0:#010x} disagree about its SA")]
    Conflict(Spi),
    /// Selectors that describe no traffic.
    #[error("SA_TEK for SPI {spi:#010x}: {error}")]
    Selector {
        /// SPI of the payload.
        spi: Spi,
        /// What is wrong.
        error: SelectorError,
    },
}

/// An attribute of a payload, shown by its registry name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeName {
    /// SAK, GAP or SAT.
    pub payload: PayloadKind,
    /// Attribute class.
    pub class: u16,
}

impl fmt::Display for AttributeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} attribute ", self.payload)?;
        match self.payload {
            PayloadKind::SA_KEK => KekAttribute(self.class).fmt(f),
            PayloadKind::GROUP_ASSOCIATED_POLICY => GapAttribute(self.class).fmt(f),
            _ => SaAttribute(self.class).fmt(f),
        }
    }
}

/// The policy that `sa` states for `group`.
pub fn group_policy(group: GroupId, sa: &GroupSecurityAssociation) -> Result<GroupPolicy, PolicyError> {
    let kek = sa.kek.as_ref().map(read_kek).transpose()?;
    let gap = sa.gap.as_ref().map(read_gap).transpose()?.unwrap_or_default();
    let mut teks: Vec<TekPolicy> = Vec::with_capacity(sa.teks.len());
    let mut by_spi = std::collections::BTreeMap::new();
    for sa_tek in &sa.teks {
        let tek = read_tek(sa_tek)?;
        // One SPI names one SA, however many selectors lead to it.
        if *by_spi.entry(tek.spi).or_insert_with(|| tek.protection.clone()) != tek.protection {
            return Err(PolicyError::Conflict(tek.spi));
        }
        teks.push(tek);
    }
    Ok(GroupPolicy { group, kek, gap, teks })
}

/// The SA payload that states `policy`; `trailer` is for members that expect the longer SAK.
pub fn security_association(policy: &GroupPolicy, trailer: Trailer) -> GroupSecurityAssociation {
    GroupSecurityAssociation {
        kek: policy.kek.as_ref().map(|kek| write_kek(kek, trailer)),
        gap: (policy.gap != GroupAssociatedPolicy::default()).then(|| write_gap(&policy.gap)),
        teks: policy.teks.iter().map(write_tek).collect(),
    }
}

/// How many sender identifiers a member asks for in message 3 of a pull; `None` if it does not (RFC 6407 §5.4.2).
pub fn sender_id_request(gap: &Gap) -> Result<Option<u16>, PolicyError> {
    let attributes = Attributes { payload: PayloadKind::GROUP_ASSOCIATED_POLICY, list: &gap.attributes };
    attributes.understood(&[GapAttribute::SENDER_ID_REQUEST.0])?;
    attributes.basic(GapAttribute::SENDER_ID_REQUEST.0)
}

/// Attributes that [`group_policy`] leaves aside, for a report to the operator.
pub fn ignored_attributes(sa: &GroupSecurityAssociation) -> Vec<AttributeName> {
    let lists = sa.kek.iter().map(|kek| (PayloadKind::SA_KEK, kek.attributes.as_slice()));
    let lists = lists.chain(sa.gap.iter().map(|gap| (PayloadKind::GROUP_ASSOCIATED_POLICY, gap.attributes.as_slice())));
    let lists = lists.chain(sa.teks.iter().filter_map(|tek| match tek {
        SaTek::Ipsec(tek) => Some((PayloadKind::SA_TEK, tek.attributes.as_slice())),
        SaTek::Other(..) => None,
    }));
    lists
        .flat_map(|(payload, list)| list.iter().map(move |one| AttributeName { payload, class: one.class }))
        .filter(|name| {
            is_private(*name)
                || (name.payload == PayloadKind::SA_TEK && name.class == SaAttribute::GROUP_DESCRIPTION.0)
                || (name.payload == PayloadKind::SA_KEK && name.class == KekAttribute::KEK_MANAGEMENT_ALGORITHM.0)
        })
        .collect()
}

fn read_kek(sak: &SaKek) -> Result<KekPolicy, PolicyError> {
    let attributes = Attributes { payload: PayloadKind::SA_KEK, list: &sak.attributes };
    attributes.understood(&KEK_ATTRIBUTES.map(u16::from))?;
    if sak.protocol != UDP {
        return Err(PolicyError::PushProtocol(sak.protocol));
    }
    let algorithm = KekAlgorithm(attributes.required(KekAttribute::KEK_ALGORITHM.0)?);
    let key_length = attributes.basic(KekAttribute::KEK_KEY_LENGTH.0)?;
    if !(1..=3).contains(&algorithm.0) {
        return Err(attributes.value(KekAttribute::KEK_ALGORITHM.0, algorithm.0.into()));
    }
    if kek_key_octets(algorithm, key_length).is_none() {
        return Err(match key_length {
            None => PolicyError::Missing(attributes.name(KekAttribute::KEK_KEY_LENGTH.0)),
            Some(bits) => attributes.value(KekAttribute::KEK_KEY_LENGTH.0, bits.into()),
        });
    }
    let signature_algorithm = SignatureAlgorithm(attributes.required(KekAttribute::SIG_ALGORITHM.0)?);
    if !(1..=6).contains(&signature_algorithm.0) {
        return Err(attributes.value(KekAttribute::SIG_ALGORITHM.0, signature_algorithm.0.into()));
    }
    let signature_hash = attributes.basic(KekAttribute::SIG_HASH_ALGORITHM.0)?;
    match signature_hash {
        Some(hash) if !(SignatureHash::MD5.0..=SignatureHash::SHA512.0).contains(&hash) => {
            return Err(attributes.value(KekAttribute::SIG_HASH_ALGORITHM.0, hash.into()));
        }
        // Only ECDSA with a named curve implies its hash (RFC 6407 §5.3.5).
        None if signature_algorithm < SignatureAlgorithm::ECDSA_256 => {
            return Err(PolicyError::Missing(attributes.name(KekAttribute::SIG_HASH_ALGORITHM.0)));
        }
        _ => {}
    }
    let acknowledgement = attributes.basic(KekAttribute::KEK_ACK_REQUESTED.0)?;
    let lifetime = attributes.number(KekAttribute::KEK_KEY_LIFETIME.0)?;
    if lifetime == Some(0) {
        return Err(attributes.value(KekAttribute::KEK_KEY_LIFETIME.0, 0));
    }
    Ok(KekPolicy {
        spi: sak.spi,
        protocol: sak.protocol,
        source: (sak.source.kind.0, sak.source.port, sak.source.data.clone()),
        destination: (sak.destination.kind.0, sak.destination.port, sak.destination.data.clone()),
        algorithm: algorithm.0,
        key_length,
        // RFC 6407 §5.3 makes the life time optional without a default; that of a TEK bounds it.
        lifetime: lifetime.map_or(DEFAULT_LIFETIME, Duration::from_secs),
        signature_hash,
        signature_algorithm: signature_algorithm.0,
        signature_key_length: attributes.basic(KekAttribute::SIG_KEY_LENGTH.0)?,
        // A member that cannot acknowledge in the way asked for goes on without (RFC 8263 §4).
        acknowledgement: acknowledgement
            .filter(|kind| (RekeyAcknowledgement::KEK_SHA256.0..=RekeyAcknowledgement::LKH_SHA512.0).contains(kind)),
    })
}

fn write_kek(kek: &KekPolicy, trailer: Trailer) -> SaKek {
    let mut attributes = vec![Attribute::short(KekAttribute::KEK_ALGORITHM, kek.algorithm)];
    attributes.extend(kek.key_length.map(|bits| Attribute::short(KekAttribute::KEK_KEY_LENGTH, bits)));
    attributes.push(number(KekAttribute::KEK_KEY_LIFETIME.0, kek.lifetime.as_secs()));
    attributes.extend(kek.signature_hash.map(|hash| Attribute::short(KekAttribute::SIG_HASH_ALGORITHM, hash)));
    attributes.push(Attribute::short(KekAttribute::SIG_ALGORITHM, kek.signature_algorithm));
    attributes.extend(kek.signature_key_length.map(|bits| Attribute::short(KekAttribute::SIG_KEY_LENGTH, bits)));
    attributes.extend(kek.acknowledgement.map(|kind| Attribute::short(KekAttribute::KEK_ACK_REQUESTED, kind)));
    let block =
        |(kind, port, data): &(u8, u16, Vec<u8>)| IdBlock { kind: IdType(*kind), port: *port, data: data.clone() };
    SaKek {
        protocol: kek.protocol,
        source: block(&kek.source),
        destination: block(&kek.destination),
        spi: kek.spi,
        trailer,
        attributes,
    }
}

fn read_gap(gap: &Gap) -> Result<GroupAssociatedPolicy, PolicyError> {
    let attributes = Attributes { payload: PayloadKind::GROUP_ASSOCIATED_POLICY, list: &gap.attributes };
    // SENDER_ID_REQUEST is a member's to send; from a key server it has no meaning (RFC 6407 §5.4.2).
    attributes.understood(&[GapAttribute::ACTIVATION_TIME_DELAY.0, GapAttribute::DEACTIVATION_TIME_DELAY.0])?;
    let delay = |class: GapAttribute| Ok(attributes.basic(class.0)?.map(|seconds| Duration::from_secs(seconds.into())));
    Ok(GroupAssociatedPolicy {
        activation_time_delay: delay(GapAttribute::ACTIVATION_TIME_DELAY)?,
        deactivation_time_delay: delay(GapAttribute::DEACTIVATION_TIME_DELAY)?,
    })
}

fn write_gap(gap: &GroupAssociatedPolicy) -> Gap {
    let delay = |class: GapAttribute, delay: Option<Duration>| {
        // Whole seconds in 16 bits is all the attribute holds; longer delays become the longest.
        delay.map(|delay| Attribute::short(class, u16::try_from(delay.as_secs()).unwrap_or(u16::MAX)))
    };
    let activation = delay(GapAttribute::ACTIVATION_TIME_DELAY, gap.activation_time_delay);
    let deactivation = delay(GapAttribute::DEACTIVATION_TIME_DELAY, gap.deactivation_time_delay);
    Gap { attributes: activation.into_iter().chain(deactivation).collect() }
}

fn read_tek(sat: &SaTek) -> Result<TekPolicy, PolicyError> {
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
    let unless_zero = |class: SaAttribute| Ok(attributes.basic(class.0)?.filter(|value| *value != 0));
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
            authentication: attributes.basic(SaAttribute::AUTHENTICATION_ALGORITHM.0)?.map(AuthenticationAlgorithm),
            // RFC 2407 §4.5 leaves the default to the host; groups that preserve addresses use tunnel mode.
            mode: attributes
                .basic(SaAttribute::ENCAPSULATION_MODE.0)?
                .map_or(EncapsulationMode::TUNNEL, EncapsulationMode),
            address_preservation: preservation.unwrap_or(AddressPreservation::SOURCE_AND_DESTINATION),
            direction: direction.unwrap_or(SaDirection::SYMMETRIC),
            lifetime: lifetimes.seconds.map_or(DEFAULT_LIFETIME, Duration::from_secs),
            lifetime_kilobytes: lifetimes.kilobytes,
        },
    })
}

fn write_tek(tek: &TekPolicy) -> SaTek {
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
        protection.authentication.map(|algorithm| Attribute::short(SaAttribute::AUTHENTICATION_ALGORITHM, algorithm)),
    );
    attributes.extend(protection.key_length.map(|bits| Attribute::short(SaAttribute::KEY_LENGTH, bits)));
    attributes.push(Attribute::short(SaAttribute::ADDRESS_PRESERVATION, protection.address_preservation));
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

/// A Life Type stands before the Life Duration it qualifies, and the pair may occur once for either type.
fn read_lifetimes(attributes: &Attributes<'_>) -> Result<Lifetimes, PolicyError> {
    let mut lifetimes = Lifetimes::default();
    let mut life_type = None;
    for attribute in attributes.list {
        match SaAttribute(attribute.class) {
            SaAttribute::LIFE_TYPE => {
                let value = attribute.as_basic().ok_or(PolicyError::Form(attributes.name(attribute.class)))?;
                if life_type.replace(LifeType(value)).is_some() {
                    return Err(PolicyError::Missing(attributes.name(SaAttribute::LIFE_DURATION.0)));
                }
            }
            SaAttribute::LIFE_DURATION => {
                let kind = life_type.take().ok_or(PolicyError::DurationWithoutType)?;
                let slot = match kind {
                    LifeType::SECONDS => &mut lifetimes.seconds,
                    LifeType::KILOBYTES => &mut lifetimes.kilobytes,
                    LifeType(other) => return Err(attributes.value(SaAttribute::LIFE_TYPE.0, other.into())),
                };
                let duration = attribute.as_number().ok_or(PolicyError::Form(attributes.name(attribute.class)))?;
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

/// The attributes of one payload, with errors that name it.
struct Attributes<'a> {
    payload: PayloadKind,
    list: &'a [Attribute],
}

impl Attributes<'_> {
    fn name(&self, class: u16) -> AttributeName {
        AttributeName { payload: self.payload, class }
    }

    fn value(&self, class: u16, value: u64) -> PolicyError {
        PolicyError::Value { name: self.name(class), value }
    }

    fn understood(&self, known: &[u16]) -> Result<(), PolicyError> {
        let strange = |one: &&Attribute| !known.contains(&one.class) && !is_private(self.name(one.class));
        match self.list.iter().find(strange) {
            Some(attribute) => Err(PolicyError::UnknownAttribute(self.name(attribute.class))),
            None => Ok(()),
        }
    }

    fn once(&self, class: u16) -> Result<Option<&Attribute>, PolicyError> {
        let mut all = self.list.iter().filter(|attribute| attribute.class == class);
        let first = all.next();
        match all.next() {
            Some(_) => Err(PolicyError::Repeated(self.name(class))),
            None => Ok(first),
        }
    }

    fn basic(&self, class: u16) -> Result<Option<u16>, PolicyError> {
        let Some(attribute) = self.once(class)? else { return Ok(None) };
        attribute.as_basic().map(Some).ok_or(PolicyError::Form(self.name(class)))
    }

    fn required(&self, class: u16) -> Result<u16, PolicyError> {
        self.basic(class)?.ok_or(PolicyError::Missing(self.name(class)))
    }

    fn number(&self, class: u16) -> Result<Option<u64>, PolicyError> {
        let Some(attribute) = self.once(class)? else { return Ok(None) };
        attribute.as_number().map(Some).ok_or(PolicyError::Form(self.name(class)))
    }
}

/// Private use: 128 to 255 in SAK and GAP (RFC 6407 §5.3, §5.4), 32001 to 32767 in a SAT (RFC 2407 §6.7).
fn is_private(name: AttributeName) -> bool {
    match name.payload {
        PayloadKind::SA_TEK => (32001..=32767).contains(&name.class),
        _ => (128..=255).contains(&name.class),
    }
}

fn needs_key_length(transform: EspTransform) -> bool {
    (EspTransform::AES_CBC..=EspTransform::AES_CCM_16).contains(&transform)
        || (EspTransform::AES_GCM_8..=EspTransform::AES_GCM_16).contains(&transform)
        || transform == EspTransform::NULL_AUTH_AES_GMAC
}

fn number(class: u16, value: u64) -> Attribute {
    match u32::try_from(value) {
        Ok(value) => Attribute::number(class, value),
        Err(_) => Attribute { class, value: AttributeValue::Long(value.to_be_bytes().to_vec()) },
    }
}

/// RFC 2407 §4.5: without a life time, an SA lives 28,800 seconds.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(28_800);
const LOWEST_SPI: Spi = 256;
const UDP: u8 = 17;

const KEK_ATTRIBUTES: [KekAttribute; 8] = [
    KekAttribute::KEK_MANAGEMENT_ALGORITHM,
    KekAttribute::KEK_ALGORITHM,
    KekAttribute::KEK_KEY_LENGTH,
    KekAttribute::KEK_KEY_LIFETIME,
    KekAttribute::SIG_HASH_ALGORITHM,
    KekAttribute::SIG_ALGORITHM,
    KekAttribute::SIG_KEY_LENGTH,
    KekAttribute::KEK_ACK_REQUESTED,
];

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
