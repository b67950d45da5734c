//! What is refused, before keys arrive or when groups meet, and in which words.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

mod support;

use std::time::Duration;

use gdoi::group::{
    AddressPreservation, AuthenticationAlgorithm, EncapsulationMode, EspTransform,
    GroupAssociatedPolicy, GroupId, GroupPolicy, SaDirection, TekKeys, TekPolicy, TekProtocol,
};
use policies::{GroupOptions, GroupState, check, compile};
use support::*;
use xfrm::algorithm::{Aead, Encryption, Integrity, Protection};

const GROUP: &str = "172.16.0.0/12";

fn offer(teks: Vec<TekPolicy>) -> GroupPolicy {
    GroupPolicy { group: GroupId(1111), kek: None, gap: GroupAssociatedPolicy::default(), teks }
}

fn options() -> GroupOptions {
    GroupOptions::at_slot(0)
}

fn refusal(change: impl FnOnce(&mut TekPolicy)) -> String {
    let mut sa_tek = tek(0x1300, GROUP, GROUP);
    change(&mut sa_tek);
    check(&offer(vec![sa_tek]), &options()).unwrap_err().to_string()
}

#[test]
fn a_usual_policy_is_accepted() {
    assert_eq!(check(&offer(vec![tek(0x1300, GROUP, GROUP)]), &options()), Ok(()));
}

#[test]
fn no_data_sa() {
    assert_eq!(
        check(&offer(Vec::new()), &options()).unwrap_err().to_string(),
        "the policy has no data SA (no SAT payload)"
    );
}

#[test]
fn what_xfrm_cannot_do_is_refused_with_its_reason() {
    let cases: [(&str, String); 20] = [
        ("is not ESP; AH cannot keep", refusal(|t| t.protection.protocol = TekProtocol::AH)),
        ("is not ESP", refusal(|t| t.protection.protocol = TekProtocol::IEC_61850)),
        ("never found by XFRM", refusal(|t| t.protection.mode = EncapsulationMode::TRANSPORT)),
        (
            "UDP encapsulation needs one peer",
            refusal(|t| t.protection.mode = EncapsulationMode::UDP_TUNNEL),
        ),
        (
            "no outer destination",
            refusal(|t| t.protection.address_preservation = AddressPreservation::NONE),
        ),
        (
            "no outer destination",
            refusal(|t| t.protection.address_preservation = AddressPreservation::SOURCE_ONLY),
        ),
        (
            "no outer destination",
            refusal(|t| t.protection.address_preservation = AddressPreservation::DESTINATION_ONLY),
        ),
        ("unknown SA direction 9", refusal(|t| t.protection.direction = SaDirection(9))),
        ("is reserved", refusal(|t| t.spi = 255)),
        ("needs legacy = true", refusal(|t| t.protection.transform = EspTransform::TRIPLE_DES)),
        ("single DES", refusal(|t| t.protection.transform = EspTransform::DES)),
        ("sender id", refusal(|t| t.protection.transform = EspTransform::AES_CTR)),
        ("sender id", refusal(|t| t.protection.transform = EspTransform::NULL_AUTH_AES_GMAC)),
        ("unknown here", refusal(|t| t.protection.transform = EspTransform(77))),
        (
            "HMAC-MD5 is never",
            refusal(|t| t.protection.authentication = Some(AuthenticationAlgorithm::HMAC_MD5)),
        ),
        (
            "unknown here",
            refusal(|t| t.protection.authentication = Some(AuthenticationAlgorithm(99))),
        ),
        ("without integrity", refusal(|t| t.protection.authentication = None)),
        ("its own integrity", refusal(|t| t.protection.transform = EspTransform::AES_GCM_16)),
        (
            "a policy without a key length does not fit AES_CBC",
            refusal(|t| t.protection.key_length = None),
        ),
        ("a key of 64 bits does not fit AES_CBC", refusal(|t| t.protection.key_length = Some(64))),
    ];
    for (expected, refusal) in cases {
        assert!(refusal.contains(expected), "{refusal}");
        assert!(!refusal.contains('\n'));
    }
}

#[test]
fn selectors_that_cannot_be_used() {
    let selector = |source: &str, destination: &str| {
        let policy = offer(vec![tek(0x1300, source, destination)]);
        check(&policy, &options()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(
        selector("fd00::/16", "fd00::/16")
            .contains("traffic selector 1: IPv6 selectors are not supported yet")
    );
    assert!(selector("any", "fd00::/16").contains("IPv6"));
    assert!(selector(GROUP, "239.1.1.1").contains("traffic selector 1: multicast selectors"));
    assert!(selector(GROUP, "224.0.0.0/4").contains("multicast"));
    assert!(selector(GROUP, "fd00::/16").contains("different address families"));
    assert!(selector("10.0.0.9-10.0.0.1", GROUP).contains("ends before it begins"));
    assert_eq!(selector("any", "any"), "");
    let many = selector("10.0.0.1-10.255.255.254", "11.0.0.1-11.255.255.254");
    assert!(many.contains("at most 256 are supported: use prefixes"), "{many}");
    let port = refusal(|t| t.selector.source_port = 80);
    assert!(port.contains("a port without TCP"), "{port}");
    let icmp = refusal(|t| (t.selector.protocol, t.selector.destination_port) = (1, 8));
    assert!(icmp.contains("protocol 1"), "{icmp}");
}

#[test]
fn a_selector_belongs_to_one_key_or_to_keys_for_all_of_the_same_traffic() {
    let same = offer(vec![tek(0x1300, GROUP, GROUP), tek(0x1400, GROUP, GROUP)]);
    assert_eq!(check(&same, &options()), Ok(()), "one replaces the other");
    let partly = offer(vec![
        tek(0x1300, GROUP, GROUP),
        tek(0x1300, "10.0.0.0/8", "10.0.0.0/8"),
        tek(0x1400, GROUP, GROUP),
    ]);
    assert_eq!(
        check(&partly, &options()).unwrap_err().to_string(),
        "traffic selectors 1 and 3 are the same with different SPIs 0x00001300, 0x00001400"
    );
    let ways = |first, second| {
        let sa_teks = vec![
            directed(tek(0x1300, GROUP, GROUP), first),
            directed(tek(0x1400, GROUP, GROUP), second),
        ];
        check(&offer(sa_teks), &options())
    };
    assert_eq!(ways(SaDirection::SENDER_ONLY, SaDirection::RECEIVER_ONLY), Ok(()));
    assert_eq!(ways(SaDirection::SENDER_ONLY, SaDirection::SENDER_ONLY), Ok(()));
    assert!(ways(SaDirection::SYMMETRIC, SaDirection::RECEIVER_ONLY).is_err());
    // An address and a prefix of full length are the same selector.
    let written =
        offer(vec![tek(0x1300, "172.16.1.1", GROUP), tek(0x1400, "172.16.1.1/32", GROUP)]);
    assert!(check(&written, &options()).is_err());
    // A range that contains the prefix is an overlap, and overlaps are normal.
    let overlap = offer(vec![
        tek(0x1300, "172.16.1.0-172.16.2.127", GROUP),
        tek(0x1400, "172.16.1.0/24", GROUP),
    ]);
    assert_eq!(check(&overlap, &options()), Ok(()));
}

#[test]
fn one_spi_has_one_description() {
    let mut second = tek(0x1300, "172.17.0.0/16", GROUP);
    second.protection.lifetime = Duration::from_secs(1);
    let refused = check(&offer(vec![tek(0x1300, GROUP, GROUP), second]), &options()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "SPI 0x00001300 is described in two different ways by traffic selectors 1 and 2"
    );
}

#[test]
fn bounds() {
    let sa_tek =
        |index: u32| tek(0x1300, &format!("10.{}.{}.0/24", index / 256, index % 256), GROUP);
    let sa_teks = |count: u32| check(&offer((0..count).map(sa_tek).collect()), &options());
    assert_eq!(sa_teks(1023), Ok(()));
    assert_eq!(
        sa_teks(1024).unwrap_err().to_string(),
        "1024 traffic selectors, at most 1023 are supported"
    );
    let key = |index: u32| TekPolicy { spi: 0x1000 + index, ..sa_tek(index) };
    let keys = |count: u32| check(&offer((0..count).map(key).collect()), &options());
    assert_eq!(keys(128), Ok(()));
    assert!(keys(129).unwrap_err().to_string().contains("at most 128"));
    let wide = |index: u32| {
        tek(0x1300, &format!("10.{index}.0.1-10.{index}.255.254"), "11.0.0.1-11.0.0.14")
    };
    let many = check(&offer((0..60).map(wide).collect()), &options()).unwrap_err().to_string();
    assert!(many.contains("at most 8192 can be marked as ours"), "{many}");
}

#[test]
fn keys_have_to_fit() {
    let sa_tek = [tek(0x1300, GROUP, GROUP)];
    let error = |keys: TekKeys| compile(&[g1(keyed(&sa_tek, &keys))]).unwrap_err().to_string();
    assert_eq!(
        error(keys(15, 32)),
        "group branches: SPI 0x00001300: the encryption key has 15 octets, 16 are needed"
    );
    assert_eq!(
        error(keys(16, 20)),
        "group branches: SPI 0x00001300: the integrity key has 20 octets, 32 are needed"
    );
    let sa_tek = [gcm(tek(0x1300, GROUP, GROUP))];
    let error = |keys: TekKeys| compile(&[g1(keyed(&sa_tek, &keys))]).unwrap_err().to_string();
    assert!(error(keys(16, 0)).contains("has 16 octets, 20 are needed"));
    assert!(error(keys(20, 1)).contains("the integrity key has 1 octets, 0 are needed"));
}

#[test]
fn every_algorithm_the_kernel_has() {
    use AuthenticationAlgorithm as A;
    use EspTransform as E;
    let separate = [
        (E::AES_CBC, Some(128), A::HMAC_SHA1, 16, 20, Encryption::AesCbc, Integrity::HmacSha1_96),
        (
            E::AES_CBC,
            Some(192),
            A::HMAC_SHA2_256,
            24,
            32,
            Encryption::AesCbc,
            Integrity::HmacSha2_256_128,
        ),
        (
            E::AES_CBC,
            Some(256),
            A::HMAC_SHA2_384,
            32,
            48,
            Encryption::AesCbc,
            Integrity::HmacSha2_384_192,
        ),
        (E::NULL, None, A::HMAC_SHA2_512, 0, 64, Encryption::Null, Integrity::HmacSha2_512_256),
        (
            E::TRIPLE_DES,
            None,
            A::HMAC_SHA1,
            24,
            20,
            Encryption::TripleDesCbc,
            Integrity::HmacSha1_96,
        ),
    ];
    let combined = [
        (E::AES_GCM_8, 128, 20, Aead::AesGcm, 8),
        (E::AES_GCM_12, 192, 28, Aead::AesGcm, 12),
        (E::AES_GCM_16, 256, 36, Aead::AesGcm, 16),
        (E::AES_CCM_8, 128, 19, Aead::AesCcm, 8),
        (E::AES_CCM_12, 192, 27, Aead::AesCcm, 12),
        (E::AES_CCM_16, 256, 35, Aead::AesCcm, 16),
    ];
    let install = |sa_tek: TekPolicy, keys: &TekKeys| {
        let sa_tek = [sa_tek];
        let mut group = g1(keyed(&sa_tek, keys));
        (group.options.legacy, group.options.counter_mode_send) = (true, true);
        let desired = compile(&[group]).unwrap();
        assert_eq!(desired.sas.len(), 2);
        desired
    };
    for (
        transform,
        length,
        authentication,
        encryption_octets,
        integrity_octets,
        encryption,
        integrity,
    ) in separate
    {
        let mut sa_tek = tek(0x1300, GROUP, GROUP);
        (sa_tek.protection.transform, sa_tek.protection.key_length) = (transform, length);
        sa_tek.protection.authentication = Some(authentication);
        let desired = install(sa_tek, &keys(encryption_octets, integrity_octets));
        for sa in desired.sas.values() {
            let Protection::Separate { encryption: e, integrity: i, encryption_key, integrity_key } =
                &sa.protection
            else {
                panic!("{sa:?}")
            };
            assert_eq!((*e, *i), (encryption, integrity));
            assert_eq!(encryption_key.expose(), vec![0x11; encryption_octets]);
            assert_eq!(integrity_key.expose(), vec![0x22; integrity_octets]);
            assert_eq!(sa.sequence_may_wrap, sa.role == xfrm::model::SaRole::Outbound);
            assert_eq!(sa.install, xfrm::model::Install::Freely);
        }
    }
    for (transform, length, octets, aead, icv) in combined {
        let mut sa_tek = gcm(tek(0x1300, GROUP, GROUP));
        (sa_tek.protection.transform, sa_tek.protection.key_length) = (transform, Some(length));
        let desired = install(sa_tek, &keys(octets, 0));
        for sa in desired.sas.values() {
            let Protection::Combined { aead: a, key, icv: i } = &sa.protection else {
                panic!("{sa:?}")
            };
            assert_eq!((*a, *i, key.len()), (aead, icv, octets));
            assert!(!sa.sequence_may_wrap);
            assert_eq!(
                sa.install == xfrm::model::Install::Once,
                sa.role == xfrm::model::SaRole::Outbound
            );
        }
    }
}

#[test]
fn groups_that_cannot_live_together() {
    let keys = cbc_keys();
    let both = |first: &[TekPolicy], second: &[TekPolicy], slot: u8, placeholder_slot: u8| {
        let mut other = g1(keyed(second, &keys));
        (other.name, other.slot, other.options) =
            ("south", slot, GroupOptions::at_slot(placeholder_slot));
        compile(&[g1(keyed(first, &keys)), other]).map(|_| ()).map_err(|error| error.to_string())
    };
    let north = [tek(0x1300, "172.16.0.0/16", GROUP)];
    let south = [tek(0x1400, "172.17.0.0/16", GROUP)];
    assert_eq!(both(&north, &south, 1, 1), Ok(()));
    let same = [tek(0x1400, "172.16.0.0/16", GROUP)];
    let refused = both(&north, &same, 1, 1).unwrap_err();
    assert!(
        refused.starts_with(
            "group south: the policy out 172.16.0.0/16 -> 172.16.0.0/12 belongs to group branches"
        ),
        "{refused}"
    );
    let same_spi = [tek(0x1300, "172.17.0.0/16", GROUP)];
    assert!(
        both(&north, &same_spi, 1, 1)
            .unwrap_err()
            .contains("SPI 0x00001300 is in use by another group")
    );
    assert!(both(&north, &south, 0, 1).unwrap_err().contains("slot 0 is in use by group branches"));
    assert!(both(&north, &south, 1, 0).unwrap_err().contains("placeholder 192.0.2.1"));
}

#[test]
fn local_addresses_that_cannot_be_used() {
    let (sa_tek, keys) = ([tek(0x1300, GROUP, GROUP)], cbc_keys());
    let mut group = g1(keyed(&sa_tek, &keys));
    group.zones.local = Some("fd00::1".parse().unwrap());
    assert!(
        compile(&[group]).unwrap_err().to_string().contains("local address fd00::1 is not IPv4")
    );
    let mut group = g1(keyed(&sa_tek, &keys));
    group.options.placeholder = "2001:db8::1".parse().unwrap();
    assert!(
        compile(&[group]).unwrap_err().to_string().contains("placeholder 2001:db8::1 is not IPv4")
    );
    let mut group = g1(GroupState::NoKey);
    group.zones.local = Some("192.0.2.1".parse().unwrap());
    assert!(compile(&[group]).unwrap_err().to_string().contains("set another placeholder"));
}

#[test]
fn exclude_rules_that_cannot_be_used() {
    let mut group = g1(GroupState::NoKey);
    group.exclude = vec![selector("10.0.0.0/8", "fd00::/16")];
    let refused = compile(&[group]).unwrap_err().to_string();
    assert!(refused.starts_with("group branches: exclude rule 1 cannot be used: "), "{refused}");
}
