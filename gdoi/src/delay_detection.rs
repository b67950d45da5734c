//! IP-D3P (draft-weis-delay-detection-03): a header with a time between ESP and the inner packet.
//!
//! Members without it discard packets that have the header, and members with it discard packets
//! that lack it (§2.3). The numbers of its GAP attributes were never assigned, so that a key server
//! which demands it is known by its vendor ID and a GAP attribute that is not understood. The
//! vendor ID comes in phase 1 and counts for the pushes of the rekey SA as well, which has no phase
//! 1 of its own; a push may also repeat it.

use ike::wire::vendor::VendorId;

use crate::error::PeerIncompatible;
use crate::wire::group_sa::GroupSecurityAssociation;
use crate::wire::registry::GapAttribute;

/// MD5("draft-weis-delay-detection-01"), the vendor ID of key servers that know IP-D3P (§6).
const VENDOR_ID: [u8; 16] = [
    0x11, 0x00, 0x88, 0x39, 0x7f, 0x51, 0xfe, 0x96, 0x69, 0xb9, 0x63, 0x04, 0x76, 0x35, 0x8b, 0xec,
];

/// Whether `vendor_ids` say that the key server knows IP-D3P.
pub(crate) fn is_announced(vendor_ids: &[VendorId]) -> bool {
    vendor_ids.iter().any(|id| id.0 == VENDOR_ID)
}

/// Refuses a policy that demands IP-D3P, if the key server `announced` that it knows it: all
/// traffic would be lost behind valid keys.
pub(crate) fn check(
    announced: bool,
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
        Some(attribute) if announced => Err(PeerIncompatible::DelayDetection { attribute }),
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
        let vendor_ids = [VendorId(vec![1; 16]), VendorId(VENDOR_ID.to_vec())];
        let (announced, unknown) = (is_announced(&vendor_ids), is_announced(&vendor_ids[..1]));
        let policy = |class: Option<u16>| {
            let attributes =
                class.map(|class| Attribute::short(class, 1_u16)).into_iter().collect();
            GroupSecurityAssociation { gap: Some(Gap { attributes }), ..Default::default() }
        };
        assert_eq!(
            check(announced, &policy(Some(130))),
            Err(PeerIncompatible::DelayDetection { attribute: 130 })
        );
        assert!(check(announced, &policy(Some(4))).is_err(), "a number that may be assigned");
        assert_eq!(check(announced, &policy(Some(1))), Ok(()), "ACTIVATION_TIME_DELAY");
        assert_eq!(check(announced, &policy(None)), Ok(()));
        assert_eq!(check(unknown, &policy(Some(130))), Ok(()), "another private attribute");
    }
}
