//! Offer, choice and its check (RFC 2409 §5 and appendix A, RFC 2408 §4.2, RFC 3602 §5.3).
//!
//! The offer is one SA with one proposal and a transform for each set of algorithms, in order of
//! preference. The responder answers with one of these transforms, its attributes unchanged.

use core::time::Duration;

use super::refusal::{OfferRefused, TransformFault, TransformRefused};
use crate::config::{Authentication, Phase1Policy, Phase1Transform};
use crate::crypto::{DhGroup, HashAlgorithm, Phase1Encryption};
use crate::error::{ApiMisuse, Error, PeerIncompatible, PeerMisbehaved};
use crate::wire::attribute::{Attribute, AttributeValue};
use crate::wire::proposal::Proposal;
use crate::wire::registry::{
    AuthenticationMethod, Doi, EncryptionNumber, GroupNumber, HashNumber, LifeType, PayloadKind,
    Phase1Attribute, ProtocolId, TransformId,
};
use crate::wire::sa::{SITUATION_IDENTITY_ONLY, SecurityAssociation};
use crate::wire::transform::Transform;

/// What both sides agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    pub(super) transform: Phase1Transform,
    pub(super) lifetime: Duration,
    /// Where the exchanges under the ISAKMP SA are spoken.
    pub(super) port: u16,
}

/// The initiator's SA payload.
pub(super) fn offer(policy: &Phase1Policy) -> Result<SecurityAssociation, Error> {
    if policy.transforms.is_empty() {
        return Err(ApiMisuse::Configuration("phase 1 has no transform to offer").into());
    }
    let transforms = (1..=u8::MAX)
        .zip(&policy.transforms)
        .map(|(number, transform)| Transform {
            number,
            id: TransformId::KEY_IKE,
            attributes: attributes(*transform, policy.lifetime),
        })
        .collect::<Vec<_>>();
    if transforms.len() != policy.transforms.len() {
        return Err(
            ApiMisuse::Configuration("phase 1 has more than 255 transforms to offer").into()
        );
    }
    Ok(security_association(
        policy.doi,
        Proposal { number: 1, protocol: ProtocolId::ISAKMP, spi: Vec::new(), transforms },
    ))
}

/// The responder's choice: the first transform of the offer that the policy has, and the SA payload
/// that says so.
pub(super) fn choose(
    policy: &Phase1Policy,
    offer: &SecurityAssociation,
) -> Result<(Agreement, SecurityAssociation), Error> {
    let proposal = only_proposal("message 1", policy.doi, offer)?;
    let mut refused = Vec::with_capacity(proposal.transforms.len());
    for transform in &proposal.transforms {
        let mut refuse = |fault| refused.push(TransformRefused { number: transform.number, fault });
        let (understood, lifetime) = match understand(transform) {
            Ok(understood) => understood,
            Err(fault) => {
                refuse(fault);
                continue;
            }
        };
        if policy.transforms.contains(&understood) {
            let lifetime = lifetime.map_or(policy.lifetime, |offered| offered.min(policy.lifetime));
            let chosen = Proposal {
                number: proposal.number,
                protocol: ProtocolId::ISAKMP,
                spi: Vec::new(),
                transforms: vec![transform.clone()],
            };
            return Ok((
                Agreement { transform: understood, lifetime, port: policy.port },
                security_association(policy.doi, chosen),
            ));
        }
        refuse(TransformFault::outside(policy, &understood, &transform.attributes));
    }
    Err(PeerIncompatible::NoProposalChosen(OfferRefused::Transforms(refused)).into())
}

/// The initiator's check of the responder's choice: exactly one transform of the offer, no
/// attribute changed, added or removed. Variable classes may come back in the other form (RFC 2409
/// appendix A).
pub(super) fn check_choice(
    policy: &Phase1Policy,
    choice: &SecurityAssociation,
) -> Result<Agreement, Error> {
    let proposal = only_proposal("message 2", policy.doi, choice)?;
    let [chosen] = proposal.transforms.as_slice() else {
        return Err(PeerMisbehaved::ForeignTransform.into());
    };
    policy
        .transforms
        .iter()
        .find(|offered| {
            chosen.id == TransformId::KEY_IKE
                && same_set(&attributes(**offered, policy.lifetime), &chosen.attributes)
        })
        .map(|offered| Agreement {
            transform: *offered,
            lifetime: policy.lifetime,
            port: policy.port,
        })
        .ok_or_else(|| PeerMisbehaved::ForeignTransform.into())
}

fn security_association(doi: Doi, proposal: Proposal) -> SecurityAssociation {
    // Some peers insist on it (RFC 2407 §4.2); the GDOI has no situations (RFC 6407 §5.2).
    let situation = if doi == Doi::IPSEC { SITUATION_IDENTITY_ONLY } else { 0 };
    SecurityAssociation { doi, situation, proposals: vec![proposal] }
}

/// The one proposal that phase 1 may have (RFC 2409 §5).
fn only_proposal<'a>(
    message: &'static str,
    doi: Doi,
    sa: &'a SecurityAssociation,
) -> Result<&'a Proposal, Error> {
    if sa.doi != doi {
        return Err(PeerIncompatible::Doi(sa.doi).into());
    }
    match sa.proposals.as_slice() {
        [] => Err(PeerMisbehaved::MissingPayload { message, payload: "proposal" }.into()),
        [proposal] if proposal.protocol == ProtocolId::ISAKMP => Ok(proposal),
        [proposal] => {
            let refused = OfferRefused::Protocol(proposal.protocol);
            Err(PeerIncompatible::NoProposalChosen(refused).into())
        }
        _ => Err(PeerMisbehaved::DuplicatePayload { message, kind: PayloadKind::PROPOSAL }.into()),
    }
}

/// The attributes of a transform, in the order of most peers.
fn attributes(transform: Phase1Transform, lifetime: Duration) -> Vec<Attribute> {
    let encryption = encryption_number(transform.encryption);
    let key_length = transform.encryption.key_length_attribute();
    let mut attributes = vec![
        Attribute::short(Phase1Attribute::ENCRYPTION_ALGORITHM, encryption),
        Attribute::short(Phase1Attribute::HASH_ALGORITHM, hash_number(transform.hash)),
        Attribute::short(
            Phase1Attribute::AUTHENTICATION_METHOD,
            method_number(transform.authentication),
        ),
        Attribute::short(Phase1Attribute::GROUP_DESCRIPTION, group_number(transform.group)),
        Attribute::short(Phase1Attribute::LIFE_TYPE, LifeType::SECONDS),
        Attribute::number(
            Phase1Attribute::LIFE_DURATION,
            u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
        ),
    ];
    // Only ciphers with keys of several lengths have the attribute.
    attributes.extend(key_length.map(|bits| Attribute::short(Phase1Attribute::KEY_LENGTH, bits)));
    attributes
}

/// The algorithms and the lifetime in seconds of an offered transform.
///
/// # Errors
/// A part of it is unknown, missing, repeated, or in a form its class must not have.
fn understand(
    transform: &Transform,
) -> Result<(Phase1Transform, Option<Duration>), TransformFault> {
    if transform.id != TransformId::KEY_IKE {
        return Err(TransformFault::Identifier(transform.id));
    }
    let (mut encryption, mut hash, mut method, mut group, mut key_length) =
        (None, None, None, None, None);
    let (mut life_type, mut seconds) = (None, None);
    for attribute in &transform.attributes {
        let class = Phase1Attribute(attribute.class);
        let basic = || attribute.as_basic().ok_or(TransformFault::Form(class));
        let place = match class {
            Phase1Attribute::ENCRYPTION_ALGORITHM => &mut encryption,
            Phase1Attribute::HASH_ALGORITHM => &mut hash,
            Phase1Attribute::AUTHENTICATION_METHOD => &mut method,
            Phase1Attribute::GROUP_DESCRIPTION => &mut group,
            Phase1Attribute::KEY_LENGTH => &mut key_length,
            Phase1Attribute::LIFE_TYPE => {
                // Each life type stands in front of its duration (RFC 2407 §4.5).
                life_type = Some(LifeType(basic()?));
                continue;
            }
            Phase1Attribute::LIFE_DURATION => {
                let duration = long_number(attribute).ok_or(TransformFault::Form(class))?;
                let missing = TransformFault::Missing(Phase1Attribute::LIFE_TYPE);
                match life_type.take().ok_or(missing)? {
                    _ if duration == 0 => return Err(TransformFault::Value(class, 0)),
                    LifeType::SECONDS if seconds.is_some() => {
                        return Err(TransformFault::Repeated(class));
                    }
                    LifeType::SECONDS => seconds = Some(Duration::from_secs(duration)),
                    // A bound on kilobytes is out of reach: the SA carries a few messages of a few
                    // hundred octets.
                    LifeType::KILOBYTES => {}
                    LifeType(other) => {
                        return Err(TransformFault::Value(Phase1Attribute::LIFE_TYPE, other));
                    }
                }
                continue;
            }
            _ => return Err(TransformFault::Unknown(class)),
        };
        if place.replace(basic()?).is_some() {
            return Err(TransformFault::Repeated(class));
        }
    }
    // In the order in which an operator looks for them.
    let authentication = known(Phase1Attribute::AUTHENTICATION_METHOD, method, |number| {
        method_of(AuthenticationMethod(number))
    })?;
    let transform = Phase1Transform {
        encryption: encryption_of(encryption, key_length)?,
        hash: known(Phase1Attribute::HASH_ALGORITHM, hash, |number| hash_of(HashNumber(number)))?,
        group: known(Phase1Attribute::GROUP_DESCRIPTION, group, |number| {
            group_of(GroupNumber(number))
        })?,
        authentication,
    };
    Ok((transform, seconds))
}

/// What the value of an attribute stands for.
fn known<T>(
    class: Phase1Attribute,
    value: Option<u16>,
    meaning: impl Fn(u16) -> Option<T>,
) -> Result<T, TransformFault> {
    let value = value.ok_or(TransformFault::Missing(class))?;
    meaning(value).ok_or(TransformFault::Value(class, value))
}

/// A number of any length; what exceeds 64 bits is as good as endless.
fn long_number(attribute: &Attribute) -> Option<u64> {
    match &attribute.value {
        AttributeValue::Long(octets) if octets.is_empty() => None,
        _ => Some(attribute.as_number().unwrap_or(u64::MAX)),
    }
}

/// Whether the two lists hold the same attributes, in any order. `offered` repeats no class.
fn same_set(offered: &[Attribute], received: &[Attribute]) -> bool {
    let same = |ours: &Attribute, theirs: &Attribute| {
        // Only variable classes may change between the two forms.
        let form_allowed = ours.as_basic().is_none() || theirs.as_basic().is_some();
        form_allowed && ours.same(theirs)
    };
    offered.len() == received.len()
        && offered.iter().all(|ours| received.iter().any(|theirs| same(ours, theirs)))
}

fn encryption_number(encryption: Phase1Encryption) -> EncryptionNumber {
    match encryption {
        Phase1Encryption::DesCbc => EncryptionNumber::DES_CBC,
        Phase1Encryption::TripleDesCbc => EncryptionNumber::TRIPLE_DES_CBC,
        Phase1Encryption::Aes128Cbc | Phase1Encryption::Aes192Cbc | Phase1Encryption::Aes256Cbc => {
            EncryptionNumber::AES_CBC
        }
    }
}

fn encryption_of(
    number: Option<u16>,
    key_length: Option<u16>,
) -> Result<Phase1Encryption, TransformFault> {
    let class = Phase1Attribute::ENCRYPTION_ALGORITHM;
    let number = number.ok_or(TransformFault::Missing(class))?;
    match (EncryptionNumber(number), key_length) {
        (EncryptionNumber::DES_CBC, None) => Ok(Phase1Encryption::DesCbc),
        (EncryptionNumber::TRIPLE_DES_CBC, None) => Ok(Phase1Encryption::TripleDesCbc),
        (EncryptionNumber::AES_CBC, Some(128)) => Ok(Phase1Encryption::Aes128Cbc),
        (EncryptionNumber::AES_CBC, Some(192)) => Ok(Phase1Encryption::Aes192Cbc),
        (EncryptionNumber::AES_CBC, Some(256)) => Ok(Phase1Encryption::Aes256Cbc),
        (EncryptionNumber::AES_CBC, None) => {
            Err(TransformFault::Missing(Phase1Attribute::KEY_LENGTH))
        }
        (
            EncryptionNumber::AES_CBC
            | EncryptionNumber::DES_CBC
            | EncryptionNumber::TRIPLE_DES_CBC,
            Some(bits),
        ) => Err(TransformFault::Value(Phase1Attribute::KEY_LENGTH, bits)),
        _ => Err(TransformFault::Value(class, number)),
    }
}

fn method_number(authentication: Authentication) -> AuthenticationMethod {
    match authentication {
        Authentication::PreSharedKey => AuthenticationMethod::PRE_SHARED_KEY,
        Authentication::RsaSignature => AuthenticationMethod::RSA_SIGNATURES,
        Authentication::Ecdsa256 => AuthenticationMethod::ECDSA_256,
        Authentication::Ecdsa384 => AuthenticationMethod::ECDSA_384,
    }
}

fn method_of(number: AuthenticationMethod) -> Option<Authentication> {
    match number {
        AuthenticationMethod::PRE_SHARED_KEY => Some(Authentication::PreSharedKey),
        AuthenticationMethod::RSA_SIGNATURES => Some(Authentication::RsaSignature),
        AuthenticationMethod::ECDSA_256 => Some(Authentication::Ecdsa256),
        AuthenticationMethod::ECDSA_384 => Some(Authentication::Ecdsa384),
        _ => None,
    }
}

fn hash_number(hash: HashAlgorithm) -> HashNumber {
    match hash {
        HashAlgorithm::Md5 => HashNumber::MD5,
        HashAlgorithm::Sha1 => HashNumber::SHA1,
        HashAlgorithm::Sha2_256 => HashNumber::SHA2_256,
        HashAlgorithm::Sha2_384 => HashNumber::SHA2_384,
        HashAlgorithm::Sha2_512 => HashNumber::SHA2_512,
    }
}

fn hash_of(number: HashNumber) -> Option<HashAlgorithm> {
    match number {
        HashNumber::MD5 => Some(HashAlgorithm::Md5),
        HashNumber::SHA1 => Some(HashAlgorithm::Sha1),
        HashNumber::SHA2_256 => Some(HashAlgorithm::Sha2_256),
        HashNumber::SHA2_384 => Some(HashAlgorithm::Sha2_384),
        HashNumber::SHA2_512 => Some(HashAlgorithm::Sha2_512),
        _ => None,
    }
}

/// The group's number as the attribute's value.
pub(crate) fn group_number(group: DhGroup) -> GroupNumber {
    GroupNumber(group.number())
}

pub(crate) fn group_of(number: GroupNumber) -> Option<DhGroup> {
    match number {
        GroupNumber::MODP_768 => Some(DhGroup::Modp768),
        GroupNumber::MODP_1024 => Some(DhGroup::Modp1024),
        GroupNumber::MODP_1536 => Some(DhGroup::Modp1536),
        GroupNumber::MODP_2048 => Some(DhGroup::Modp2048),
        GroupNumber::MODP_3072 => Some(DhGroup::Modp3072),
        GroupNumber::MODP_4096 => Some(DhGroup::Modp4096),
        GroupNumber::MODP_2048_256 => Some(DhGroup::Modp2048Subgroup256),
        GroupNumber::ECP_256 => Some(DhGroup::Ecp256),
        GroupNumber::ECP_384 => Some(DhGroup::Ecp384),
        _ => None,
    }
}
