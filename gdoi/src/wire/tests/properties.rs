//! Properties: every structure survives writing and reading, and no octets make a decoder panic.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::group::{
    AddressPreservation, AddressRange, AuthenticationAlgorithm, EncapsulationMode, EspTransform,
    GroupAssociatedPolicy, GroupId, GroupPolicy, SaDirection, TekPolicy, TekProtection,
    TekProtocol, TrafficSelector,
};
use crate::wire::gap::Gap;
use crate::wire::group_sa::GroupSecurityAssociation;
use crate::wire::kd::{KeyDownload, KeyPacket, SecretAttribute};
use crate::wire::lkh::{LkhAttribute, LkhDownload, LkhKey, LkhUpdate};
use crate::wire::payload::Payload;
use crate::wire::registry::KdType;
use crate::wire::sa_kek::{IdBlock, SaKek, Trailer};
use crate::wire::sa_tek::{IpsecTek, SaTek};
use crate::wire::seq::SequenceNumber;
use crate::wire::{group_policy, security_association};
use ike::crypto::Secret;
use ike::testing::survives;
use ike::wire::attribute::{Attribute, AttributeValue, Format};
use ike::wire::chain;
use ike::wire::codec::Codec;
use ike::wire::registry::{IdType, PayloadKind};

/// Octets up to `most`.
fn octets(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=most)
}

prop_compose! {
    // Class 0 is reserved everywhere, and a SAK that starts with it is ambiguous.
    fn attribute()(class in 1u16..0x8000, short: bool, value: u16, long in octets(40)) -> Attribute {
        let value = if short { AttributeValue::Short(value) } else { AttributeValue::Long(long) };
        Attribute { class, value }
    }
}

fn attributes() -> impl Strategy<Value = Vec<Attribute>> {
    vec(attribute(), 0..6)
}

prop_compose! {
    fn secret_attribute()(class in 1u16..0x8000, short: bool, value: [u8; 2], long in octets(40)) -> SecretAttribute {
        let (format, value) = if short { (Format::Short, value.to_vec()) } else { (Format::Long, long) };
        SecretAttribute { class, format, value: Secret::new(value) }
    }
}

prop_compose! {
    fn id_block()(kind: u8, port: u16, data in octets(255)) -> IdBlock {
        IdBlock { kind: IdType(kind), port, data }
    }
}

prop_compose! {
    fn sa_kek()(
        protocol: u8,
        source in id_block(),
        destination in id_block(),
        spi: [u8; 16],
        longer: bool,
        attributes in attributes(),
    ) -> SaKek {
        let trailer = if longer { Trailer::TwoMore } else { Trailer::Standard };
        SaKek { protocol, source, destination, spi, trailer, attributes }
    }
}

prop_compose! {
    fn ipsec_tek()(
        ah: bool,
        selector_protocol: u8,
        source in id_block(),
        destination in id_block(),
        transform: u8,
        spi: u32,
        attributes in attributes(),
    ) -> SaTek {
        let protocol = if ah { TekProtocol::AH } else { TekProtocol::ESP };
        let transform = EspTransform(transform);
        SaTek::Ipsec(IpsecTek { protocol, selector_protocol, source, destination, transform, spi, attributes })
    }
}

fn sa_tek() -> impl Strategy<Value = SaTek> {
    let other = (3u8..=255, octets(40))
        .prop_map(|(protocol, rest)| SaTek::Other(TekProtocol(protocol), rest));
    prop_oneof![4 => ipsec_tek(), 1 => other]
}

fn group_sa() -> impl Strategy<Value = GroupSecurityAssociation> {
    let gap = proptest::option::of(attributes().prop_map(|attributes| Gap { attributes }));
    (proptest::option::of(sa_kek()), gap, vec(sa_tek(), 0..5))
        .prop_filter("a SAK or a SAT", |(kek, _, teks)| kek.is_some() || !teks.is_empty())
        .prop_map(|(kek, gap, teks)| GroupSecurityAssociation { kek, gap, teks })
}

fn lkh_keys() -> impl Strategy<Value = Vec<LkhKey>> {
    let length = prop_oneof![
        Just((1u8, 16usize)),
        Just((2, 32)),
        Just((3, 32)),
        Just((3, 40)),
        Just((3, 48)),
        Just((9, 7))
    ];
    length.prop_flat_map(|(algorithm, length)| {
        let key = (any::<[u32; 3]>(), any::<u16>(), vec(any::<u8>(), length)).prop_map(
            move |([creation, expiration, handle], node, data)| LkhKey {
                node,
                algorithm,
                creation,
                expiration,
                handle,
                data: Secret::new(data),
            },
        );
        vec(key, 1..5)
    })
}

fn lkh_attribute() -> impl Strategy<Value = LkhAttribute> {
    prop_oneof![
        lkh_keys().prop_map(|keys| LkhAttribute::Download(LkhDownload { keys })),
        (any::<u16>(), any::<u32>(), lkh_keys()).prop_map(|(node, handle, keys)| {
            LkhAttribute::Update(LkhUpdate { node, handle, keys })
        }),
        secret_attribute()
            .prop_filter("no array", |one| one.class > 2)
            .prop_map(LkhAttribute::Other),
    ]
}

fn key_packet() -> impl Strategy<Value = KeyPacket> {
    prop_oneof![
        (octets(255), vec(secret_attribute(), 0..4))
            .prop_map(|(spi, attributes)| KeyPacket::Tek { spi, attributes }),
        (any::<[u8; 16]>(), vec(secret_attribute(), 0..4))
            .prop_map(|(spi, attributes)| KeyPacket::Kek { spi, attributes }),
        (any::<[u8; 16]>(), vec(lkh_attribute(), 0..4))
            .prop_map(|(spi, attributes)| KeyPacket::Lkh { spi, attributes }),
        attributes().prop_map(|attributes| KeyPacket::Sid { attributes }),
        (5u8..=255, octets(255), octets(40)).prop_map(|(kind, spi, rest)| KeyPacket::Unknown {
            kind: KdType(kind),
            spi,
            rest: Secret::new(rest),
        }),
    ]
}

fn range(v6: bool) -> BoxedStrategy<AddressRange> {
    // Address 0 and prefix length 0 mean any address, so no other range has them.
    if v6 {
        let address = (1u128..).prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
        let subnet = (1u128.., 1u8..=127).prop_map(|(bits, length)| {
            ipnet::Ipv6Net::new(Ipv6Addr::from_bits(bits), length)
                .expect("a good length")
                .trunc()
                .into()
        });
        return ranges(address.boxed(), subnet.boxed());
    }
    let address = (1u32..).prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    let subnet = (1u32.., 1u8..=31).prop_map(|(bits, length)| {
        ipnet::Ipv4Net::new(Ipv4Addr::from_bits(bits), length)
            .expect("a good length")
            .trunc()
            .into()
    });
    ranges(address.boxed(), subnet.boxed())
}

fn ranges(
    address: BoxedStrategy<IpAddr>,
    subnet: BoxedStrategy<ipnet::IpNet>,
) -> BoxedStrategy<AddressRange> {
    let pair = (address.clone(), address.clone()).prop_map(|(one, two)| match one.cmp(&two) {
        core::cmp::Ordering::Less => AddressRange::Range(one, two),
        core::cmp::Ordering::Equal => AddressRange::Address(one),
        core::cmp::Ordering::Greater => AddressRange::Range(two, one),
    });
    prop_oneof![
        Just(AddressRange::Any),
        address.prop_map(AddressRange::Address),
        subnet.prop_map(AddressRange::Subnet),
        pair
    ]
    .boxed()
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    any::<bool>().prop_flat_map(|v6| (range(v6), range(v6), any::<(u8, u16, u16)>())).prop_map(
        |(source, destination, (protocol, source_port, destination_port))| TrafficSelector {
            protocol,
            source,
            source_port,
            destination,
            destination_port,
        },
    )
}

prop_compose! {
    fn protection()(
        (ah, transform, mac) in (any::<bool>(), any::<u8>(), proptest::option::of(any::<u16>())),
        bits in prop_oneof![Just(128u16), Just(192), Just(256)],
        (mode, preservation, direction) in (any::<u16>(), 1u16.., 1u16..),
        lifetime in 1u64..,
        lifetime_kilobytes in proptest::option::of(1u64..),
    ) -> TekProtection {
        TekProtection {
            protocol: if ah { TekProtocol::AH } else { TekProtocol::ESP },
            transform: EspTransform(transform),
            key_length: Some(bits),
            authentication: mac.map(AuthenticationAlgorithm),
            mode: EncapsulationMode(mode),
            address_preservation: AddressPreservation(preservation),
            direction: SaDirection(direction),
            lifetime: Duration::from_secs(lifetime),
            lifetime_kilobytes,
        }
    }
}

fn policy() -> impl Strategy<Value = GroupPolicy> {
    let tek = (256u32.., protection(), vec(selector(), 1..4));
    let delay = || {
        proptest::option::of(any::<u16>().prop_map(|seconds| Duration::from_secs(seconds.into())))
    };
    (vec(tek, 0..4), delay(), delay(), any::<bool>()).prop_map(
        |(teks, activation, deactivation, with_kek)| {
            let teks: std::collections::BTreeMap<_, _> = teks
                .into_iter()
                .map(|(spi, protection, selectors)| (spi, (protection, selectors)))
                .collect();
            let lines = teks.into_iter().flat_map(|(spi, (protection, selectors))| {
                selectors.into_iter().map(move |selector| TekPolicy {
                    spi,
                    selector,
                    protection: protection.clone(),
                })
            });
            let kek = super::computed::policy().kek.filter(|_| with_kek);
            let gap = GroupAssociatedPolicy {
                activation_time_delay: activation,
                deactivation_time_delay: deactivation,
            };
            GroupPolicy { group: GroupId(1), kek, gap, teks: lines.collect() }
        },
    )
}

proptest! {
    #[test]
    fn group_payloads(sa in group_sa(), packets in vec(key_packet(), 0..5), gap in attributes(), number: u32) {
        survives(&sa);
        survives(&KeyDownload { packets });
        survives(&Gap { attributes: gap });
        survives(&SequenceNumber(number));
    }

    #[test]
    fn policies(policy in policy()) {
        prop_assume!(policy.kek.is_some() || !policy.teks.is_empty());
        for trailer in [Trailer::Standard, Trailer::TwoMore] {
            let octets = security_association(&policy, trailer).to_octets().expect("fits");
            let sa = GroupSecurityAssociation::decode(&octets).expect("good");
            let again = group_policy(GroupId(1), &sa).expect("usable");
            prop_assert_eq!(&again, &policy);
        }
    }

    #[test]
    fn anything_is_read_or_refused_within_its_bounds(first: u8, octets in octets(400)) {
        match chain::walk(PayloadKind(first), &octets, 28) {
            Ok(chain) => for payload in &chain.payloads {
                let phase1 = ike::wire::Payload::read(payload).err();
                for error in phase1.into_iter().chain(Payload::read(payload).err()) {
                    let end = payload.offset + payload.octets.len();
                    prop_assert!((payload.offset..=end).contains(&error.offset()), "{}", error);
                }
            },
            Err(error) => prop_assert!((28..=28 + octets.len()).contains(&error.offset()), "{}", error),
        }
    }

    #[test]
    fn a_flipped_bit_never_panics(place in 0usize..160, bit in 0u32..8) {
        let mut octets = crate::wire::testing::testdata("computed-sa");
        octets[place] ^= 1 << bit;
        if let Ok(chain) = chain::walk(PayloadKind::SA, &octets, 28)
            && let Ok(sa) = chain.payloads[0].read::<GroupSecurityAssociation>()
        {
            survives(&sa);
            let _ = group_policy(GroupId(1), &sa);
        }
    }
}
