//! The SA payload of a group as policy, and back (RFC 6407 §5.2 to §5.5).
//!
//! Payloads keep whatever they hold. Here is where a member understands it or refuses it: a
//! capability that is not understood must end the registration before keys arrive (RFC 6407 §5.3.2,
//! §5.4). Private-use attributes are left aside; Group Description and KEK_MANAGEMENT_ALGORITHM are
//! ignored, as the RFC demands.

mod attributes;
mod kek;
mod tek;

use core::time::Duration;
use std::collections::BTreeMap;

use super::gap::Gap;
use super::group_sa::GroupSecurityAssociation;
use super::registry::{GapAttribute, KekAttribute};
use super::sa_kek::Trailer;
use super::sa_tek::SaTek;
use super::selector::SelectorError;
use crate::group::{GroupAssociatedPolicy, GroupId, GroupPolicy, Spi, TekPolicy, TekProtocol};
use ike::wire::attribute::Attribute;
use ike::wire::registry::{PayloadKind, SaAttribute};

pub use attributes::AttributeName;
use attributes::{Attributes, is_private};

/// Why a well-formed SA payload cannot be used: the key server and we have no common ground.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages explain the fields")]
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
    Value { name: AttributeName, value: u64 },
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
        error: SelectorError,
    },
}

/// The policy that `sa` states for `group`.
pub fn group_policy(
    group: GroupId,
    sa: &GroupSecurityAssociation,
) -> Result<GroupPolicy, PolicyError> {
    let kek = sa.kek.as_ref().map(kek::read).transpose()?;
    let gap = sa.gap.as_ref().map(read_gap).transpose()?.unwrap_or_default();
    let mut teks: Vec<TekPolicy> = Vec::with_capacity(sa.teks.len());
    let mut by_spi = BTreeMap::new();
    for sa_tek in &sa.teks {
        let tek = tek::read(sa_tek)?;
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
        kek: policy.kek.as_ref().map(|kek| kek::write(kek, trailer)),
        gap: (policy.gap != GroupAssociatedPolicy::default()).then(|| write_gap(&policy.gap)),
        teks: policy.teks.iter().map(tek::write).collect(),
    }
}

/// How many sender identifiers a member asks for in message 3 of a pull; `None` if it does not (RFC
/// 6407 §5.4.2).
pub fn sender_id_request(gap: &Gap) -> Result<Option<u16>, PolicyError> {
    let attributes =
        Attributes { payload: PayloadKind::GROUP_ASSOCIATED_POLICY, list: &gap.attributes };
    attributes.understood(&[GapAttribute::SENDER_ID_REQUEST.0])?;
    attributes.basic(GapAttribute::SENDER_ID_REQUEST.0)
}

/// Attributes that [`group_policy`] leaves aside, for a report to the operator.
pub fn ignored_attributes(sa: &GroupSecurityAssociation) -> Vec<AttributeName> {
    let lists = sa.kek.iter().map(|kek| (PayloadKind::SA_KEK, kek.attributes.as_slice()));
    let lists = lists.chain(
        sa.gap.iter().map(|gap| (PayloadKind::GROUP_ASSOCIATED_POLICY, gap.attributes.as_slice())),
    );
    let lists = lists.chain(sa.teks.iter().filter_map(|tek| match tek {
        SaTek::Ipsec(tek) => Some((PayloadKind::SA_TEK, tek.attributes.as_slice())),
        SaTek::Other(..) => None,
    }));
    lists
        .flat_map(|(payload, list)| {
            list.iter().map(move |one| AttributeName { payload, class: one.class })
        })
        .filter(|name| {
            is_private(*name)
                || (name.payload == PayloadKind::SA_TEK
                    && name.class == SaAttribute::GROUP_DESCRIPTION.0)
                || (name.payload == PayloadKind::SA_KEK
                    && name.class == KekAttribute::KEK_MANAGEMENT_ALGORITHM.0)
        })
        .collect()
}

fn read_gap(gap: &Gap) -> Result<GroupAssociatedPolicy, PolicyError> {
    let attributes =
        Attributes { payload: PayloadKind::GROUP_ASSOCIATED_POLICY, list: &gap.attributes };
    // SENDER_ID_REQUEST is a member's to send; from a key server it has no meaning (RFC 6407
    // §5.4.2).
    attributes.understood(&[
        GapAttribute::ACTIVATION_TIME_DELAY.0,
        GapAttribute::DEACTIVATION_TIME_DELAY.0,
    ])?;
    let delay = |class: GapAttribute| {
        Ok(attributes.basic(class.0)?.map(|seconds| Duration::from_secs(seconds.into())))
    };
    Ok(GroupAssociatedPolicy {
        activation_time_delay: delay(GapAttribute::ACTIVATION_TIME_DELAY)?,
        deactivation_time_delay: delay(GapAttribute::DEACTIVATION_TIME_DELAY)?,
    })
}

fn write_gap(gap: &GroupAssociatedPolicy) -> Gap {
    let delay = |class: GapAttribute, delay: Option<Duration>| {
        // Whole seconds in 16 bits is all the attribute holds; longer delays become the longest.
        delay.map(|delay| {
            Attribute::short(class, u16::try_from(delay.as_secs()).unwrap_or(u16::MAX))
        })
    };
    let activation = delay(GapAttribute::ACTIVATION_TIME_DELAY, gap.activation_time_delay);
    let deactivation = delay(GapAttribute::DEACTIVATION_TIME_DELAY, gap.deactivation_time_delay);
    Gap { attributes: activation.into_iter().chain(deactivation).collect() }
}

/// RFC 2407 §4.5: without one, the lifetime of an SA is 28,800 seconds.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(28_800);
