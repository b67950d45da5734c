//! What pushed TEKs were tried out with: the same lines with other SPIs and keys have the same
//! outcome.

use core::net::Ipv4Addr;

use gdoi::group::{GroupSa, TekProtection, TrafficSelector};

use crate::membership::local_interface::Multicast;

/// All that decides whether the kernel can do a group SA, but for the configuration and the
/// interfaces.
///
/// SPIs and keys are no part of it. Which lines share an SPI is, and so is how long the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyShape {
    lines: Vec<Line>,
    local: Option<Ipv4Addr>,
    multicast: Option<Multicast>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// Position of the first line with the same SPI.
    first: usize,
    selector: TrafficSelector,
    protection: TekProtection,
    /// Octets of the keys; `None` if there are none.
    keys: Option<(usize, usize)>,
}

impl PolicyShape {
    /// The trial of `sa` at an address of ours, with pushes by `multicast`.
    pub fn of(sa: &GroupSa, local: Option<Ipv4Addr>, multicast: Option<Multicast>) -> Self {
        let teks = &sa.policy().teks;
        let line = |(position, tek): (usize, &gdoi::group::TekPolicy)| Line {
            first: teks.iter().position(|one| one.spi == tek.spi).unwrap_or(position),
            selector: tek.selector,
            protection: tek.protection.clone(),
            keys: sa
                .tek_keys()
                .get(&tek.spi)
                .map(|keys| (keys.encryption.len(), keys.integrity.len())),
        };
        Self { lines: teks.iter().enumerate().map(line).collect(), local, multicast }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::collections::BTreeMap;

    use gdoi::crypto::Secret;
    use gdoi::group::{
        AddressPreservation, AddressRange, AuthenticationAlgorithm, EncapsulationMode,
        EspTransform, GroupAssociatedPolicy, GroupId, GroupPolicy, SaDirection, Spi, TekKeys,
        TekPolicy, TekProtocol,
    };

    use super::*;

    /// Lines with an SPI and a destination port each, and the octets of every encryption key.
    fn trial(lines: &[(Spi, u16)], octets: usize, seconds: u64) -> PolicyShape {
        let tek = |&(spi, destination_port): &(Spi, u16)| TekPolicy {
            spi,
            selector: TrafficSelector {
                protocol: 17,
                source: AddressRange::Any,
                source_port: 0,
                destination: AddressRange::Any,
                destination_port,
            },
            protection: TekProtection {
                protocol: TekProtocol(1),
                transform: EspTransform(12),
                key_length: Some(256),
                authentication: Some(AuthenticationAlgorithm(5)),
                mode: EncapsulationMode(1),
                address_preservation: AddressPreservation(1),
                direction: SaDirection(3),
                lifetime: Duration::from_secs(seconds),
                lifetime_kilobytes: None,
            },
        };
        let gap = GroupAssociatedPolicy::default();
        let policy = GroupPolicy {
            group: GroupId(9),
            kek: None,
            gap,
            teks: lines.iter().map(tek).collect(),
        };
        let octet = |spi: Spi| spi.to_be_bytes()[3];
        let keys = |spi| TekKeys {
            encryption: Secret::new(vec![octet(spi); octets]),
            integrity: Secret::new(vec![octet(spi); 32]),
        };
        let keys: BTreeMap<_, _> = lines.iter().map(|(spi, _)| (*spi, keys(*spi))).collect();
        PolicyShape::of(&GroupSa::originate(policy, keys, None, None, None), None, None)
    }

    #[test]
    fn other_spis_and_keys_make_no_difference() {
        assert_eq!(trial(&[(1, 80), (2, 443)], 32, 60), trial(&[(4, 80), (3, 443)], 32, 60));
        assert_eq!(trial(&[(1, 80), (1, 443)], 32, 60), trial(&[(7, 80), (7, 443)], 32, 60));
    }

    #[test]
    fn anything_else_does() {
        let one = trial(&[(1, 80), (2, 443)], 32, 60);
        assert_ne!(one, trial(&[(1, 80), (1, 443)], 32, 60), "one SPI for both lines");
        assert_ne!(one, trial(&[(1, 443), (2, 80)], 32, 60), "the lines' order");
        assert_ne!(one, trial(&[(1, 80), (2, 444)], 32, 60), "a selector");
        assert_ne!(one, trial(&[(1, 80)], 32, 60), "a line less");
        assert_ne!(one, trial(&[(1, 80), (2, 443)], 16, 60), "the length of the keys");
        assert_ne!(one, trial(&[(1, 80), (2, 443)], 32, 61), "the life");
        let moved = PolicyShape { local: Some(Ipv4Addr::LOCALHOST), ..one.clone() };
        assert_ne!(one, moved, "the address");
    }
}
