//! Group SAs as scripted key servers send them.

use std::collections::BTreeMap;
use std::time::Duration;

use gdoi::group::{
    AddressPreservation, AddressRange, AuthenticationAlgorithm, EncapsulationMode, EspTransform,
    GroupAssociatedPolicy, GroupId, GroupPolicy, IssuedSa, SaDirection, Spi, TekKeys, TekPolicy,
    TekProtection, TekProtocol, TrafficSelector,
};
use ike::crypto::Secret;

use super::kek::Kek;

/// A group SA with the KEK of a key server, or without one.
pub fn copy(sa: &IssuedSa, kek: Option<&Kek>) -> IssuedSa {
    let policy = GroupPolicy { kek: kek.map(|kek| kek.policy.clone()), ..sa.policy().clone() };
    let teks = sa.tek_keys().iter().map(|(spi, keys)| (*spi, keys.duplicate())).collect();
    let number = kek.map(|kek| kek.sealer.sequence_number());
    IssuedSa::new(policy, teks, kek.map(Kek::keys), number, None)
}

/// Symmetric TEKs: SPI, prefix on both sides, lifetime in seconds; and the delays.
pub fn teks_of(teks: &[(Spi, &str, u64)], delays: (Option<u64>, Option<u64>)) -> IssuedSa {
    let mut policy = GroupPolicy {
        group: GroupId(1111),
        kek: None,
        gap: GroupAssociatedPolicy {
            activation_time_delay: delays.0.map(Duration::from_secs),
            deactivation_time_delay: delays.1.map(Duration::from_secs),
        },
        teks: Vec::new(),
    };
    let mut keys = BTreeMap::new();
    for (spi, prefix, lifetime) in teks {
        let side = AddressRange::Subnet(prefix.parse().unwrap());
        let lifetime = Duration::from_secs(*lifetime);
        let one = group_sa(policy.group, side, *spi, EncapsulationMode::TUNNEL, lifetime);
        policy.teks.extend(one.policy().teks.iter().cloned());
        keys.extend(one.tek_keys().iter().map(|(spi, keys)| (*spi, keys.duplicate())));
    }
    IssuedSa::new(policy, keys, None, None, None)
}

pub(super) fn group_sa(
    group: GroupId,
    side: AddressRange,
    spi: Spi,
    mode: EncapsulationMode,
    lifetime: Duration,
) -> IssuedSa {
    let tek = TekPolicy {
        spi,
        selector: TrafficSelector {
            protocol: 0,
            source: side,
            source_port: 0,
            destination: side,
            destination_port: 0,
        },
        protection: TekProtection {
            protocol: TekProtocol::ESP,
            transform: EspTransform::AES_CBC,
            key_length: Some(128),
            authentication: Some(AuthenticationAlgorithm::HMAC_SHA2_256),
            mode,
            address_preservation: AddressPreservation::SOURCE_AND_DESTINATION,
            direction: SaDirection::SYMMETRIC,
            lifetime,
            lifetime_kilobytes: None,
        },
    };
    let octet = spi.to_be_bytes()[2];
    let last = spi.to_be_bytes()[3];
    let encryption = Secret::new([[octet; 15].as_slice(), &[octet ^ last]].concat());
    let keys = TekKeys { encryption, integrity: Secret::new(vec![octet ^ 0xff; 32]) };
    let policy =
        GroupPolicy { group, kek: None, gap: GroupAssociatedPolicy::default(), teks: vec![tek] };
    IssuedSa::new(policy, [(spi, keys)].into(), None, None, None)
}
