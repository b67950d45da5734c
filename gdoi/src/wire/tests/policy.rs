//! What a member understands of an SA payload, and what it refuses.

use core::time::Duration;

use super::computed::policy;
use crate::group::{
    AddressPreservation, AuthenticationAlgorithm, EncapsulationMode, EspTransform, GroupId,
    GroupPolicy, SaDirection, TekPolicy, TekProtocol,
};
use crate::wire::group_sa::GroupSecurityAssociation;
use crate::wire::registry::{GapAttribute, KekAttribute};
use crate::wire::sa_kek::{IdBlock, Trailer};
use crate::wire::sa_tek::{IpsecTek, SaTek};
use crate::wire::{
    AttributeName, PolicyError, group_policy, ignored_attributes, security_association,
};
use ike::wire::Codec;
use ike::wire::attribute::Attribute;
use ike::wire::registry::{IdType, PayloadKind, SaAttribute};

fn sa() -> GroupSecurityAssociation {
    security_association(&policy(), Trailer::Standard)
}

fn with_kek(change: impl FnOnce(&mut Vec<Attribute>)) -> Result<GroupPolicy, PolicyError> {
    let mut sa = sa();
    change(&mut sa.kek.as_mut().expect("a SAK").attributes);
    group_policy(GroupId(1111), &sa)
}

fn tek(attributes: Vec<Attribute>) -> IpsecTek {
    let any = IdBlock { kind: IdType::RESERVED, port: 0, data: vec![] };
    IpsecTek {
        protocol: TekProtocol::ESP,
        selector_protocol: 0,
        source: any.clone(),
        destination: any,
        transform: EspTransform::TRIPLE_DES,
        spi: 256,
        attributes,
    }
}

fn with_tek(tek: IpsecTek) -> Result<TekPolicy, PolicyError> {
    let sa = GroupSecurityAssociation { kek: None, gap: None, teks: vec![SaTek::Ipsec(tek)] };
    let policy = group_policy(GroupId(1), &sa)?;
    let again = security_association(&policy, Trailer::Standard);
    assert_eq!(group_policy(GroupId(1), &again).as_ref(), Ok(&policy), "written and read again");
    Ok(policy.teks[0].clone())
}

fn kek_name(class: KekAttribute) -> AttributeName {
    AttributeName { payload: PayloadKind::SA_KEK, class: class.0 }
}

fn gap_name(class: u16) -> AttributeName {
    AttributeName { payload: PayloadKind::GROUP_ASSOCIATED_POLICY, class }
}

fn tek_name(class: SaAttribute) -> AttributeName {
    AttributeName { payload: PayloadKind::SA_TEK, class: class.0 }
}

fn short(class: SaAttribute, value: u16) -> Attribute {
    Attribute::short(class, value)
}

fn seconds(value: u32) -> [Attribute; 2] {
    [short(SaAttribute::LIFE_TYPE, 1), Attribute::number(SaAttribute::LIFE_DURATION, value)]
}

fn kilobytes(value: u32) -> [Attribute; 2] {
    [short(SaAttribute::LIFE_TYPE, 2), Attribute::number(SaAttribute::LIFE_DURATION, value)]
}

#[test]
fn unknown_capabilities_of_a_sak_end_the_registration() {
    for class in [0, 8, 10, 127, 256, 0x7fff] {
        let refused = PolicyError::UnknownAttribute(kek_name(KekAttribute(class)));
        assert_eq!(with_kek(|list| list.push(Attribute::short(class, 1u16))), Err(refused));
    }
    for class in [128u16, 255] {
        assert_eq!(with_kek(|list| list.push(Attribute::short(class, 1u16))), Ok(policy()));
    }
    let management = Attribute::short(KekAttribute::KEK_MANAGEMENT_ALGORITHM, 1u16);
    assert_eq!(with_kek(|list| list.insert(0, management)), Ok(policy()));
    let message =
        PolicyError::UnknownAttribute(kek_name(KekAttribute::KE_OAKLEY_GROUP)).to_string();
    assert_eq!(message, "SA_KEK attribute KE_OAKLEY_GROUP is not understood");
}

#[test]
fn values_of_a_sak() {
    let set = |class: KekAttribute, value: u16| {
        with_kek(|list| {
            list.retain(|one| one.class != class.0);
            list.push(Attribute::short(class, value));
        })
    };
    let without = |class: KekAttribute| with_kek(|list| list.retain(|one| one.class != class.0));
    let value = |class, value| Err(PolicyError::Value { name: kek_name(class), value });
    let missing = |class| Err(PolicyError::Missing(kek_name(class)));
    assert_eq!(set(KekAttribute::KEK_ALGORITHM, 0), value(KekAttribute::KEK_ALGORITHM, 0));
    assert_eq!(set(KekAttribute::KEK_ALGORITHM, 4), value(KekAttribute::KEK_ALGORITHM, 4));
    assert_eq!(without(KekAttribute::KEK_ALGORITHM), missing(KekAttribute::KEK_ALGORITHM));
    assert_eq!(set(KekAttribute::KEK_KEY_LENGTH, 129), value(KekAttribute::KEK_KEY_LENGTH, 129));
    assert_eq!(without(KekAttribute::KEK_KEY_LENGTH), missing(KekAttribute::KEK_KEY_LENGTH));
    assert_eq!(set(KekAttribute::SIG_ALGORITHM, 7), value(KekAttribute::SIG_ALGORITHM, 7));
    assert_eq!(without(KekAttribute::SIG_ALGORITHM), missing(KekAttribute::SIG_ALGORITHM));
    assert_eq!(
        set(KekAttribute::SIG_HASH_ALGORITHM, 6),
        value(KekAttribute::SIG_HASH_ALGORITHM, 6)
    );
    assert_eq!(set(KekAttribute::KEK_KEY_LIFETIME, 0), value(KekAttribute::KEK_KEY_LIFETIME, 0));
    let kek =
        |result: Result<GroupPolicy, PolicyError>| result.expect("usable").kek.expect("a SAK");
    assert_eq!(kek(set(KekAttribute::KEK_KEY_LIFETIME, 25)).lifetime, Duration::from_secs(25));
    assert_eq!(kek(without(KekAttribute::KEK_KEY_LIFETIME)).lifetime, Duration::from_secs(28_800));
    assert_eq!(kek(set(KekAttribute::KEK_ACK_REQUESTED, 4)).acknowledgement, Some(4));
    // An acknowledgement of a kind that is not known is not given (RFC 8263 §4).
    assert_eq!(kek(set(KekAttribute::KEK_ACK_REQUESTED, 5)).acknowledgement, None);
    // Optional for every signature (RFC 6407 §5.3).
    assert_eq!(kek(without(KekAttribute::SIG_HASH_ALGORITHM)).signature_hash, None);
    // ECDSA with a named curve brings its hash.
    let ecdsa = with_kek(|list| {
        list.retain(|one| {
            one.class != KekAttribute::SIG_HASH_ALGORITHM.0
                && one.class != KekAttribute::SIG_ALGORITHM.0
        });
        list.push(Attribute::short(KekAttribute::SIG_ALGORITHM, 4u16));
    });
    assert_eq!(kek(ecdsa).signature_hash, None);
    // Fixed-length ciphers need no key length.
    let des = with_kek(|list| {
        list.retain(|one| one.class > KekAttribute::KEK_KEY_LENGTH.0);
        list.push(Attribute::short(KekAttribute::KEK_ALGORITHM, 2u16));
    });
    assert_eq!((kek(des).key_length), None);
}

#[test]
fn attributes_of_a_sak_occur_once_and_in_their_form() {
    let class = KekAttribute::SIG_ALGORITHM;
    let repeated = with_kek(|list| list.push(Attribute::short(class, 1u16)));
    assert_eq!(repeated, Err(PolicyError::Repeated(kek_name(class))));
    let long = with_kek(|list| {
        list.retain(|one| one.class != class.0);
        list.push(Attribute::long(class, vec![0, 1]));
    });
    assert_eq!(long, Err(PolicyError::Form(kek_name(class))));
    let empty = with_kek(|list| {
        list.retain(|one| one.class != KekAttribute::KEK_KEY_LIFETIME.0);
        list.push(Attribute::long(KekAttribute::KEK_KEY_LIFETIME, vec![]));
    });
    assert_eq!(empty, Err(PolicyError::Form(kek_name(KekAttribute::KEK_KEY_LIFETIME))));
}

#[test]
fn pushes_come_over_udp() {
    let mut sa = sa();
    sa.kek.as_mut().expect("a SAK").protocol = 6;
    assert_eq!(group_policy(GroupId(1111), &sa), Err(PolicyError::PushProtocol(6)));
}

#[test]
fn gap_attributes() {
    let with_gap = |attribute: Attribute| {
        let mut sa = sa();
        sa.gap.as_mut().expect("a GAP").attributes = vec![attribute];
        group_policy(GroupId(1111), &sa).map(|policy| policy.gap)
    };
    for class in [0, 3, 4, 127, 256] {
        let refused = Err(PolicyError::UnknownAttribute(gap_name(class)));
        assert_eq!(with_gap(Attribute::short(class, 1u16)), refused);
    }
    assert_eq!(with_gap(Attribute::short(128u16, 1u16)), Ok(Default::default()));
    let long = with_gap(Attribute::long(GapAttribute::ACTIVATION_TIME_DELAY, vec![0, 1]));
    assert_eq!(long, Err(PolicyError::Form(gap_name(1))));
    let zero =
        with_gap(Attribute::short(GapAttribute::DEACTIVATION_TIME_DELAY, 0u16)).expect("usable");
    assert_eq!(
        (zero.activation_time_delay, zero.deactivation_time_delay),
        (None, Some(Duration::ZERO))
    );
}

#[test]
fn delays_beyond_the_attribute_become_the_longest() {
    let mut policy = policy();
    policy.gap.activation_time_delay = Some(Duration::from_secs(70_000));
    let gap = security_association(&policy, Trailer::Standard).gap.expect("a GAP");
    assert_eq!(gap.attributes[0], Attribute::short(GapAttribute::ACTIVATION_TIME_DELAY, u16::MAX));
    policy.gap = Default::default();
    assert_eq!(security_association(&policy, Trailer::Standard).gap, None);
}

#[test]
fn sat_without_attributes_has_the_defaults() {
    let protection = with_tek(tek(vec![])).expect("usable").protection;
    assert_eq!(protection.lifetime, Duration::from_secs(28_800));
    assert_eq!(
        (protection.lifetime_kilobytes, protection.authentication, protection.key_length),
        (None, None, None)
    );
    assert_eq!(protection.mode, EncapsulationMode::TUNNEL);
    assert_eq!(protection.address_preservation, AddressPreservation::SOURCE_AND_DESTINATION);
    assert_eq!(protection.direction, SaDirection::SYMMETRIC);
}

#[test]
fn both_life_times() {
    let lifetimes = |attributes: &[Attribute]| {
        let protection = with_tek(tek(attributes.to_vec()))?.protection;
        Ok((protection.lifetime.as_secs(), protection.lifetime_kilobytes))
    };
    let duration = tek_name(SaAttribute::LIFE_DURATION);
    assert_eq!(lifetimes(&[seconds(3600), kilobytes(1000)].concat()), Ok((3600, Some(1000))));
    assert_eq!(lifetimes(&[kilobytes(1000), seconds(3600)].concat()), Ok((3600, Some(1000))));
    assert_eq!(lifetimes(&kilobytes(u32::MAX)), Ok((28_800, Some(u64::from(u32::MAX)))));
    let short_form = [short(SaAttribute::LIFE_TYPE, 1), short(SaAttribute::LIFE_DURATION, 600)];
    assert_eq!(lifetimes(&short_form), Ok((600, None)));
    let wide = [
        short(SaAttribute::LIFE_TYPE, 2),
        Attribute::long(SaAttribute::LIFE_DURATION, vec![1, 0, 0, 0, 0]),
    ];
    assert_eq!(lifetimes(&wide), Ok((28_800, Some(1 << 32))));
    assert_eq!(lifetimes(&seconds(60)[1..]), Err(PolicyError::DurationWithoutType));
    assert_eq!(lifetimes(&seconds(60)[..1]), Err(PolicyError::Missing(duration)));
    assert_eq!(
        lifetimes(&[seconds(60), seconds(60)].concat()),
        Err(PolicyError::Repeated(duration))
    );
    let twice = [&seconds(60)[..1], &kilobytes(1)].concat();
    assert_eq!(lifetimes(&twice), Err(PolicyError::Missing(duration)));
    assert_eq!(lifetimes(&seconds(0)), Err(PolicyError::Value { name: duration, value: 0 }));
    let mut days = seconds(1);
    days[0] = short(SaAttribute::LIFE_TYPE, 3);
    let refused = PolicyError::Value { name: tek_name(SaAttribute::LIFE_TYPE), value: 3 };
    assert_eq!(lifetimes(&days), Err(refused));
    let huge = [
        short(SaAttribute::LIFE_TYPE, 1),
        Attribute::long(SaAttribute::LIFE_DURATION, vec![0xff; 9]),
    ];
    assert_eq!(lifetimes(&huge), Err(PolicyError::Form(duration)));
}

#[test]
fn unknown_attributes_of_a_sat() {
    // Extended sequence numbers, key rounds, ECN: each would change what goes on the wire.
    for class in [0, 7, 8, 9, 10, 11, 12, 13, 16, 128, 32_000] {
        let refused = PolicyError::UnknownAttribute(tek_name(SaAttribute(class)));
        assert_eq!(with_tek(tek(vec![Attribute::short(class, 1u16)])), Err(refused));
    }
    let plain = with_tek(tek(vec![]));
    for class in [SaAttribute::GROUP_DESCRIPTION.0, 32_001, 32_767] {
        assert_eq!(with_tek(tek(vec![Attribute::short(class, 1u16)])), plain);
    }
}

#[test]
fn ignored_attributes_are_reported() {
    let mut sa = sa();
    assert_eq!(ignored_attributes(&sa), []);
    sa.kek.as_mut().expect("a SAK").attributes.push(Attribute::short(200u16, 1u16));
    sa.gap.as_mut().expect("a GAP").attributes.push(Attribute::short(128u16, 1u16));
    sa.teks = vec![SaTek::Ipsec(tek(vec![
        short(SaAttribute::GROUP_DESCRIPTION, 14),
        Attribute::short(32_001u16, 1u16),
    ]))];
    let names: Vec<String> = ignored_attributes(&sa).iter().map(ToString::to_string).collect();
    let expected = [
        "SA_KEK attribute KekAttribute(200)",
        "GROUP_ASSOCIATED_POLICY attribute GapAttribute(128)",
        "SA_TEK attribute GROUP_DESCRIPTION",
        "SA_TEK attribute SaAttribute(32001)",
    ];
    assert_eq!(names, expected);
}

#[test]
fn values_of_a_sat() {
    let aes = |attributes: Vec<Attribute>| {
        with_tek(IpsecTek { transform: EspTransform::AES_CBC, ..tek(attributes) })
    };
    let length = tek_name(SaAttribute::KEY_LENGTH);
    assert_eq!(aes(vec![]), Err(PolicyError::Missing(length)));
    let refused = PolicyError::Value { name: length, value: 512 };
    assert_eq!(aes(vec![short(SaAttribute::KEY_LENGTH, 512)]), Err(refused));
    let full = aes(vec![
        short(SaAttribute::KEY_LENGTH, 256),
        short(SaAttribute::AUTHENTICATION_ALGORITHM, 5),
        short(SaAttribute::ENCAPSULATION_MODE, 2),
        short(SaAttribute::ADDRESS_PRESERVATION, 1),
        short(SaAttribute::SA_DIRECTION, 2),
    ]);
    let protection = full.expect("usable").protection;
    assert_eq!((protection.key_length, protection.mode), (Some(256), EncapsulationMode::TRANSPORT));
    assert_eq!(protection.authentication, Some(AuthenticationAlgorithm::HMAC_SHA2_256));
    assert_eq!(protection.address_preservation, AddressPreservation::NONE);
    assert_eq!(protection.direction, SaDirection::RECEIVER_ONLY);
    // 0 is reserved in both registries and means that nothing is configured.
    let zero =
        vec![short(SaAttribute::ADDRESS_PRESERVATION, 0), short(SaAttribute::SA_DIRECTION, 0)];
    assert_eq!(with_tek(tek(zero)), with_tek(tek(vec![])));
    let twice = vec![short(SaAttribute::SA_DIRECTION, 3), short(SaAttribute::SA_DIRECTION, 3)];
    assert_eq!(
        with_tek(tek(twice)),
        Err(PolicyError::Repeated(tek_name(SaAttribute::SA_DIRECTION)))
    );
    for spi in [0, 1, 255] {
        assert_eq!(with_tek(IpsecTek { spi, ..tek(vec![]) }), Err(PolicyError::ReservedSpi(spi)));
    }
}

#[test]
fn data_sas_are_esp_or_ah() {
    let mut sa = sa();
    sa.teks = vec![SaTek::Other(TekProtocol::IEC_61850, vec![])];
    let refused = PolicyError::TekProtocol(TekProtocol::IEC_61850);
    assert_eq!(refused.to_string(), "SA_TEK: Protocol-ID IEC_61850 is not understood");
    assert_eq!(group_policy(GroupId(1111), &sa), Err(refused));
    assert_eq!(
        with_tek(IpsecTek { protocol: TekProtocol::AH, ..tek(vec![]) }).map(|tek| tek.spi),
        Ok(256)
    );
}

#[test]
fn one_spi_is_one_sa_with_many_selectors() {
    let mut second = tek(vec![]);
    second.source = IdBlock { kind: IdType::IPV4_ADDR, port: 0, data: vec![10, 0, 0, 1] };
    let mut sa = GroupSecurityAssociation {
        kek: None,
        gap: None,
        teks: vec![SaTek::Ipsec(tek(vec![])), SaTek::Ipsec(second)],
    };
    assert_eq!(group_policy(GroupId(1), &sa).map(|policy| policy.teks.len()), Ok(2));
    sa.teks.push(SaTek::Ipsec(tek(seconds(60).to_vec())));
    assert_eq!(group_policy(GroupId(1), &sa), Err(PolicyError::Conflict(256)));
}

#[test]
fn a_policy_of_many_lines_fits_one_payload_until_it_does_not() {
    let mut many = policy();
    let line = many.teks[0].clone();
    many.teks = vec![line.clone(); 1000];
    let octets =
        security_association(&many, Trailer::Standard).to_octets().expect("65,535 octets hold it");
    assert_eq!(
        group_policy(GroupId(1111), &GroupSecurityAssociation::decode(&octets).expect("good")),
        Ok(many.clone())
    );
    many.teks = vec![line; 1200];
    let payload =
        crate::wire::payload::Payload::from(security_association(&many, Trailer::Standard));
    assert!(crate::wire::payload::encode_chain(&[payload]).is_err());
}
