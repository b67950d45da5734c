//! IP-D3P (draft-weis-delay-detection-03): a header with a time between ESP and the inner packet.
//!
//! Members without it discard packets that have the header, and members with it discard packets
//! that lack it (§2.3). The numbers of its GAP attributes were never assigned, so that a key server
//! which demands it is known by its vendor ID and a GAP attribute that is not understood.

use ike::wire::vendor::VendorId;

use crate::error::PeerIncompatible;
use crate::wire::group_sa::GroupSecurityAssociation;
use crate::wire::registry::GapAttribute;

/// MD5("draft-weis-delay-detection-01"), the vendor ID of key servers that know IP-D3P (§6).
const VENDOR_ID: [u8; 16] = [
    0x11, 0x00, 0x88, 0x39, 0x7f, 0x51, 0xfe, 0x96, 0x69, 0xb9, 0x63, 0x04, 0x76, 0x35, 0x8b, 0xec,
];

/// Refuses a policy that demands IP-D3P: all traffic would be lost behind valid keys.
pub(super) fn check(
    vendor_ids: &[VendorId],
    policy: &GroupSecurityAssociation,
) -> Result<(), PeerIncompatible> {
    const UNDERSTOOD: [u16; 3] = [
        GapAttribute::ACTIVATION_TIME_DELAY.0,
        GapAttribute::DEACTIVATION_TIME_DELAY.0,
        GapAttribute::SENDER_ID_REQUEST.0,
    ];
    let attributes = policy.gap.iter().flat_map(|gap| &gap.attributes);
    let unknown = attributes.map(|one| one.class).find(|class| !UNDERSTOOD.contains(class));
    match unknown {
        Some(attribute) if vendor_ids.iter().any(|id| id.0 == VENDOR_ID) => {
            Err(PeerIncompatible::DelayDetection { attribute })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::gap::Gap;
    use ike::wire::attribute::Attribute;

    #[test]
    fn a_vendor_id_with_an_attribute_that_is_not_understood_demands_it() {
        let announced = [VendorId(vec![1; 16]), VendorId(VENDOR_ID.to_vec())];
        let policy = |class: Option<u16>| {
            let attributes =
                class.map(|class| Attribute::short(class, 1_u16)).into_iter().collect();
            GroupSecurityAssociation { gap: Some(Gap { attributes }), ..Default::default() }
        };
        assert_eq!(
            check(&announced, &policy(Some(130))),
            Err(PeerIncompatible::DelayDetection { attribute: 130 })
        );
        assert!(check(&announced, &policy(Some(4))).is_err(), "a number that may be assigned");
        assert_eq!(check(&announced, &policy(Some(1))), Ok(()), "ACTIVATION_TIME_DELAY");
        assert_eq!(check(&announced, &policy(None)), Ok(()));
        assert_eq!(check(&announced[..1], &policy(Some(130))), Ok(()), "another private attribute");
    }
}
