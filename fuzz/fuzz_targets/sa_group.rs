//! The SA payload of a group, and the policy it states.
#![no_main]

use gdoi::group::GroupId;
use gdoi::wire::group_sa::GroupSecurityAssociation;
use gdoi::wire::sa_kek::Trailer;
use gdoi::wire::{group_policy, ignored_attributes, security_association};

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    let Some(sa) = gdoi_fuzz::stable_payload::<GroupSecurityAssociation>(octets) else { return };
    ignored_attributes(&sa);
    let Ok(policy) = group_policy(GroupId(1), &sa) else { return };
    for trailer in [Trailer::Standard, Trailer::TwoMore] {
        assert_eq!(
            group_policy(GroupId(1), &security_association(&policy, trailer)).as_ref(),
            Ok(&policy)
        );
    }
});
