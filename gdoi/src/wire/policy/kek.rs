//! The SAK payload as policy of the rekey SA, and back (RFC 6407 §5.3).

use core::time::Duration;

use super::attributes::{Attributes, number};
use super::{DEFAULT_LIFETIME, PolicyError};
use crate::group::{KekPolicy, PushEndpoint};
use crate::wire::lengths::kek_key_octets;
use crate::wire::registry::{
    KekAlgorithm, KekAttribute, RekeyAcknowledgement, SignatureAlgorithm, SignatureHash,
};
use crate::wire::sa_kek::{IdBlock, SaKek, Trailer};
use ike::wire::attribute::Attribute;
use ike::wire::registry::PayloadKind;

pub(super) fn read(sak: &SaKek) -> Result<KekPolicy, PolicyError> {
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
    let signature_algorithm =
        SignatureAlgorithm(attributes.required(KekAttribute::SIG_ALGORITHM.0)?);
    if !(1..=6).contains(&signature_algorithm.0) {
        return Err(attributes.value(KekAttribute::SIG_ALGORITHM.0, signature_algorithm.0.into()));
    }
    // RFC 6407 §5.3 makes it optional for every signature. Without it a member may not be able to
    // verify pushes, which is no reason to do without the keys of the pull.
    let signature_hash = attributes.basic(KekAttribute::SIG_HASH_ALGORITHM.0)?;
    match signature_hash {
        Some(hash) if !(SignatureHash::MD5.0..=SignatureHash::SHA512.0).contains(&hash) => {
            return Err(attributes.value(KekAttribute::SIG_HASH_ALGORITHM.0, hash.into()));
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
        source: endpoint(&sak.source),
        destination: endpoint(&sak.destination),
        algorithm: algorithm.0,
        key_length,
        // RFC 6407 §5.3 makes the lifetime optional without a default; that of a TEK bounds it.
        lifetime: lifetime.map_or(DEFAULT_LIFETIME, Duration::from_secs),
        signature_hash,
        signature_algorithm: signature_algorithm.0,
        signature_key_length: attributes.basic(KekAttribute::SIG_KEY_LENGTH.0)?,
        // A member that cannot acknowledge in the way asked for goes on without (RFC 8263 §4).
        acknowledgement: acknowledgement.filter(|kind| {
            (RekeyAcknowledgement::KEK_SHA256.0..=RekeyAcknowledgement::LKH_SHA512.0).contains(kind)
        }),
    })
}

pub(super) fn write(kek: &KekPolicy, trailer: Trailer) -> SaKek {
    let mut attributes = vec![Attribute::short(KekAttribute::KEK_ALGORITHM, kek.algorithm)];
    attributes
        .extend(kek.key_length.map(|bits| Attribute::short(KekAttribute::KEK_KEY_LENGTH, bits)));
    attributes.push(number(KekAttribute::KEK_KEY_LIFETIME.0, kek.lifetime.as_secs()));
    attributes.extend(
        kek.signature_hash.map(|hash| Attribute::short(KekAttribute::SIG_HASH_ALGORITHM, hash)),
    );
    attributes.push(Attribute::short(KekAttribute::SIG_ALGORITHM, kek.signature_algorithm));
    attributes.extend(
        kek.signature_key_length.map(|bits| Attribute::short(KekAttribute::SIG_KEY_LENGTH, bits)),
    );
    attributes.extend(
        kek.acknowledgement.map(|kind| Attribute::short(KekAttribute::KEK_ACK_REQUESTED, kind)),
    );
    let block =
        |end: &PushEndpoint| IdBlock { kind: end.kind, port: end.port, data: end.data.clone() };
    SaKek {
        protocol: kek.protocol,
        source: block(&kek.source),
        destination: block(&kek.destination),
        spi: kek.spi,
        trailer,
        attributes,
    }
}

fn endpoint(block: &IdBlock) -> PushEndpoint {
    PushEndpoint { kind: block.kind, port: block.port, data: block.data.clone() }
}

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
