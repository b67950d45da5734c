//! The KD payload, and its keys under the policy of the computed samples: whole, without data SA,
//! without rekey SA.
#![no_main]

use std::sync::LazyLock;

use gdoi::group::{GroupId, GroupPolicy, IssuedSa};
use gdoi::wire::group_sa::GroupSecurityAssociation;
use gdoi::wire::kd::KeyDownload;
use gdoi::wire::{group_keys, group_policy, key_download};
use ike::wire::Codec;

static POLICIES: LazyLock<Vec<GroupPolicy>> = LazyLock::new(|| {
    let sa = GroupSecurityAssociation::decode(include_bytes!("../corpus/sa_group/computed"))
        .expect("a good sample");
    let whole = group_policy(GroupId(1111), &sa).expect("a usable sample");
    let mut bare = whole.clone();
    bare.teks.clear();
    let mut tek_only = whole.clone();
    tek_only.kek = None;
    vec![whole, bare, tek_only]
});

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    gdoi_fuzz::stable_payload::<KeyDownload>(octets);
    for policy in POLICIES.iter() {
        let Ok(download) = KeyDownload::decode(octets) else { return };
        let Ok(keys) = group_keys(policy, download) else { continue };
        assert!(policy.teks.iter().all(|tek| keys.tek_keys.contains_key(&tek.spi)));
        assert_eq!(policy.kek.is_some(), keys.kek_keys.is_some());
        let sa =
            IssuedSa::new(policy.clone(), keys.tek_keys, keys.kek_keys, None, keys.sender_ids);
        let again =
            group_keys(policy, key_download(&sa)).expect("keys of a group SA fit its policy");
        assert_eq!(&again.tek_keys, sa.tek_keys());
        assert_eq!(again.kek_keys.as_ref(), sa.kek_keys());
        assert_eq!(again.sender_ids.as_ref(), sa.sender_ids());
    }
});
