//! Policy that tests agree on.

use core::time::Duration;

use super::{
    AddressPreservation, AuthenticationAlgorithm, EncapsulationMode, EspTransform, SaDirection,
    TekProtection, TekProtocol,
};

/// ESP with AES-CBC-128 and HMAC-SHA2-256 in tunnel mode that keeps both addresses, for an hour.
pub(crate) fn protection(direction: SaDirection) -> TekProtection {
    TekProtection {
        protocol: TekProtocol::ESP,
        transform: EspTransform::AES_CBC,
        key_length: Some(128),
        authentication: Some(AuthenticationAlgorithm::HMAC_SHA2_256),
        mode: EncapsulationMode::TUNNEL,
        address_preservation: AddressPreservation::SOURCE_AND_DESTINATION,
        direction,
        lifetime: Duration::from_secs(3600),
        lifetime_kilobytes: None,
    }
}
