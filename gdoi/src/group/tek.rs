//! The traffic encryption key of a group: the SAT payload (RFC 6407 §5.5) and its keys (§5.6.1).

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::TrafficSelector;
use ike::crypto::Secret;
use ike::open_number;

/// SPI of an ESP or AH SA in host order. 0..255 are reserved (RFC 4303 §2.1).
pub type Spi = u32;

/// One SAT payload: which traffic, and under which SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TekPolicy {
    /// SPI of the SA. The TEK is keyed by it; several SAT payloads may name the same one.
    pub spi: Spi,
    /// Which traffic the TEK protects.
    pub selector: TrafficSelector,
    /// How it is protected.
    pub protection: TekProtection,
}

/// Transform and attributes of one SAT payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TekProtection {
    /// Protocol-ID of the SA TEK payload.
    pub protocol: TekProtocol,
    /// Transform identifier (for AH: the AH transform number).
    pub transform: EspTransform,
    /// Key Length attribute in bits.
    pub key_length: Option<u16>,
    /// Authentication Algorithm attribute; `None` for combined modes.
    pub authentication: Option<AuthenticationAlgorithm>,
    /// Encapsulation Mode attribute: tunnel or transport.
    pub mode: EncapsulationMode,
    /// Address Preservation attribute; absent means both.
    pub address_preservation: AddressPreservation,
    /// SA Direction attribute; absent means symmetric.
    pub direction: SaDirection,
    /// SA lifetime in seconds; absent on the wire means 28,800 s.
    pub lifetime: Duration,
    /// SA lifetime in kilobytes.
    pub lifetime_kilobytes: Option<u64>,
}

/// Keys of one data SA, laid out as in the KD payload (RFC 6407 §5.6.1).
#[derive(Debug, PartialEq, Eq)]
pub struct TekKeys {
    /// TEK_ALGORITHM_KEY: AES-GCM key | 4 octets salt, AES-CCM key | 3 octets salt; empty for NULL.
    pub encryption: Secret,
    /// TEK_INTEGRITY_KEY; empty for combined-mode transforms.
    pub integrity: Secret,
}

impl TekKeys {
    /// A second copy, made on purpose.
    pub fn duplicate(&self) -> Self {
        Self { encryption: self.encryption.duplicate(), integrity: self.integrity.duplicate() }
    }
}

/// TEKs that protect the same traffic in the same direction, as key servers state them while keys
/// overlap (RFC 5374 §4.2.1): each SPI with the first one of its kind, in the order received.
pub fn concurrent(teks: &[TekPolicy]) -> BTreeMap<Spi, Spi> {
    let mut traffic: BTreeMap<Spi, BTreeSet<(TrafficSelector, u16)>> = BTreeMap::new();
    for tek in teks {
        let line = (tek.selector, tek.protection.direction.0);
        traffic.entry(tek.spi).or_default().insert(line);
    }
    let (mut firsts, mut concurrent) = (BTreeMap::new(), BTreeMap::new());
    for tek in teks {
        if let Some(lines) = traffic.remove(&tek.spi) {
            concurrent.insert(tek.spi, *firsts.entry(lines).or_insert(tek.spi));
        }
    }
    concurrent
}

open_number! {
    /// SAT Protocol-ID (RFC 6407 §5.5). Not the numbers of the IPsec DOI.
    TekProtocol(u8) { ESP = 1; AH = 2; IEC_61850 = 3; }
}

open_number! {
    /// ESP transform identifiers (RFC 2407 §4.4.4, RFC 3602, RFC 3686, RFC 4106, RFC 4309, RFC
    /// 4543).
    EspTransform(u8) {
        DES = 2; TRIPLE_DES = 3; NULL = 11; AES_CBC = 12; AES_CTR = 13;
        AES_CCM_8 = 14; AES_CCM_12 = 15; AES_CCM_16 = 16;
        AES_GCM_8 = 18; AES_GCM_12 = 19; AES_GCM_16 = 20;
        NULL_AUTH_AES_GMAC = 23;
    }
}

open_number! {
    /// Authentication Algorithm attribute (RFC 2407 §4.5, RFC 4868 §4).
    AuthenticationAlgorithm(u16) {
        HMAC_MD5 = 1; HMAC_SHA1 = 2; HMAC_SHA2_256 = 5; HMAC_SHA2_384 = 6; HMAC_SHA2_512 = 7;
    }
}

open_number! {
    /// Encapsulation Mode attribute (RFC 2407 §4.5, RFC 3947 §5.1).
    EncapsulationMode(u16) { TUNNEL = 1; TRANSPORT = 2; UDP_TUNNEL = 3; UDP_TRANSPORT = 4; }
}

open_number! {
    /// Address Preservation attribute (RFC 6407 §5.5.1.1.1).
    AddressPreservation(u16) { NONE = 1; SOURCE_ONLY = 2; DESTINATION_ONLY = 3; SOURCE_AND_DESTINATION = 4; }
}

open_number! {
    /// SA Direction attribute (RFC 6407 §5.5.1.1.2).
    SaDirection(u16) { SENDER_ONLY = 1; RECEIVER_ONLY = 2; SYMMETRIC = 3; }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::AddressRange;

    fn tek(spi: Spi, port: u16, direction: SaDirection) -> TekPolicy {
        let selector = TrafficSelector {
            protocol: 17,
            source: AddressRange::Any,
            source_port: 0,
            destination: AddressRange::Any,
            destination_port: port,
        };
        let protection = TekProtection {
            protocol: TekProtocol::ESP,
            transform: EspTransform::AES_CBC,
            key_length: Some(128),
            authentication: Some(AuthenticationAlgorithm::HMAC_SHA2_256),
            mode: EncapsulationMode::TUNNEL,
            address_preservation: AddressPreservation::SOURCE_AND_DESTINATION,
            direction,
            lifetime: Duration::from_secs(60),
            lifetime_kilobytes: None,
        };
        TekPolicy { spi, selector, protection }
    }

    #[test]
    fn teks_are_concurrent_with_all_of_their_traffic_or_not_at_all() {
        let symmetric = |spi, port| tek(spi, port, SaDirection::SYMMETRIC);
        let teks = [
            symmetric(9, 80),
            symmetric(9, 443),
            symmetric(3, 443),
            symmetric(3, 80),
            symmetric(5, 80),
            tek(6, 80, SaDirection::SENDER_ONLY),
        ];
        assert_eq!(concurrent(&teks), BTreeMap::from([(9, 9), (3, 9), (5, 5), (6, 6)]));
    }
}
