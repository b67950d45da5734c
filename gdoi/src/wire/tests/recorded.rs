//! Recordings of another implementation, both ways: every payload it sent is read, written and
//! compared.

use crate::config::ByteOrder;
use crate::group::{AddressRange, GroupId, TekProtocol};
use crate::wire::gap::Gap;
use crate::wire::group_id;
use crate::wire::group_policy;
use crate::wire::group_sa::GroupSecurityAssociation;
use crate::wire::kd::{KeyDownload, KeyPacket};
use crate::wire::registry::KekAttribute;
use crate::wire::sa_kek::{IdBlock, Trailer};
use crate::wire::sa_tek::SaTek;
use crate::wire::seq::SequenceNumber;
use crate::wire::testing::{both_ways, testdata, walk};
use core::net::IpAddr;
use ike::wire::RawPayload;
use ike::wire::attribute::{Attribute, Format};
use ike::wire::chain::Body;
use ike::wire::delete::Delete;
use ike::wire::hash::Hash;
use ike::wire::id::Identification;
use ike::wire::nonce::Nonce;
use ike::wire::registry::{Doi, IdType, PayloadKind, ProtocolId, SaAttribute};
use ike::wire::signature::Signature;

fn kinds(chain: &ike::wire::Chain<'_>) -> Vec<PayloadKind> {
    chain.kinds().collect()
}

fn only<'a>(payloads: &[RawPayload<'a>], kind: PayloadKind) -> RawPayload<'a> {
    *payloads.iter().find(|payload| payload.kind == kind).expect("a payload of the type")
}

#[test]
fn group_id_of_the_recording_stands_in_host_order() {
    for name in ["recorded-aes-pull1", "recorded-3des-pull1"] {
        let octets = testdata(name);
        let chain = walk(PayloadKind::HASH, &octets);
        assert_eq!(
            kinds(&chain),
            [PayloadKind::HASH, PayloadKind::NONCE, PayloadKind::IDENTIFICATION]
        );
        let id: Identification = both_ways(&chain.payloads[2]);
        assert_eq!(group_id::group(&id, ByteOrder::Host), Some(GroupId(1234)));
        assert_eq!(group_id::group(&id, ByteOrder::Network), Some(GroupId(0xd204_0000)));
        assert!((8..=128).contains(&both_ways::<Nonce>(&chain.payloads[1]).0.len()));
        assert_eq!(group_id::identification(GroupId(1234), ByteOrder::Host), id);
    }
}

#[test]
fn hash_covers_what_stands_behind_it_without_padding() {
    let octets = testdata("recorded-aes-pull1");
    let chain = walk(PayloadKind::HASH, &octets);
    assert_eq!(chain.padding.len(), 12);
    assert_eq!(chain.octets_behind(0), &octets[36..68]);
    assert_eq!(chain.octets_before(2), &octets[..56]);
    assert!(chain.octets_behind(2).is_empty());
    assert!(chain.octets_behind(3).is_empty());
}

#[test]
fn policy_of_a_pull() {
    for (name, sa_length) in [("recorded-aes-pull2", 207), ("recorded-3des-pull2", 195)] {
        let octets = testdata(name);
        let chain = walk(PayloadKind::HASH, &octets);
        let payload = only(&chain.payloads, PayloadKind::SA);
        assert_eq!(payload.octets.len(), sa_length);
        let sa: GroupSecurityAssociation = both_ways(&payload);
        let kek = sa.kek.as_ref().expect("a SAK");
        assert_eq!((kek.protocol, kek.trailer), (17, Trailer::Standard));
        assert_eq!(
            kek.source,
            IdBlock { kind: IdType::IPV4_ADDR, port: 848, data: vec![10, 99, 0, 2] }
        );
        assert_eq!(
            kek.destination,
            IdBlock { kind: IdType::IPV4_ADDR, port: 848, data: vec![239, 10, 1, 1] }
        );
        // Its lifetime stands in the short form although the class is variable.
        let lifetime =
            kek.attributes.iter().find(|one| one.class == KekAttribute::KEK_KEY_LIFETIME.0);
        assert_eq!(lifetime.and_then(Attribute::as_number), Some(25));
        assert_eq!(
            sa.gap,
            Some(Gap {
                attributes: vec![Attribute::short(1u16, 60u16), Attribute::short(2u16, 90u16)]
            })
        );
        assert_eq!(sa.teks.len(), 2);
    }
}

#[test]
fn sat_has_no_destination_protocol_octet() {
    let octets = testdata("recorded-aes-pull2");
    let chain = walk(PayloadKind::HASH, &octets);
    let sa: GroupSecurityAssociation = both_ways(&only(&chain.payloads, PayloadKind::SA));
    let SaTek::Ipsec(tek) = &sa.teks[0] else { panic!("ESP") };
    assert_eq!((tek.protocol, tek.selector_protocol), (TekProtocol::ESP, 0));
    assert_eq!(tek.source, IdBlock { kind: IdType::IPV4_ADDR, port: 0, data: vec![1, 0, 99, 10] });
    assert_eq!(
        tek.destination,
        IdBlock { kind: IdType::IPV4_ADDR, port: 0, data: vec![1, 1, 1, 239] }
    );
    assert_eq!((tek.transform.0, tek.spi), (12, 0xfa4e_2232));
    let classes: Vec<u16> = tek.attributes.iter().map(|one| one.class).collect();
    assert_eq!(classes, [4, 5, 1, 2, 6, 14, 15]);
    assert_eq!(tek.attributes[6], Attribute::short(SaAttribute::SA_DIRECTION, 0u16));
}

#[test]
fn masks_of_the_recording_are_refused_unless_the_switch_says_host_order() {
    let octets = testdata("recorded-aes-pull2");
    let chain = walk(PayloadKind::HASH, &octets);
    let sa: GroupSecurityAssociation = both_ways(&only(&chain.payloads, PayloadKind::SA));
    let refused = group_policy(GroupId(1234), &sa).expect_err("a mask with a hole").to_string();
    let named = "0.255.255.255 is no range or subnet, and is one with the octets of each reversed";
    assert!(refused.contains(named) && refused.contains("selector-byte-order"), "{refused}");
    // The same octets in host order, and back to them.
    let turned = sa.clone().with_selectors(ByteOrder::Host);
    let policy = group_policy(GroupId(1234), &turned).expect("usable");
    let selector = policy.teks[0].selector;
    let addresses = [[10, 99, 0, 1], [239, 1, 1, 1]].map(IpAddr::from);
    let ranges = addresses.map(AddressRange::Address);
    assert_eq!([selector.source, selector.destination], ranges);
    assert_eq!(turned.with_selectors(ByteOrder::Host), sa);
}

#[test]
fn key_download_of_a_pull() {
    for (name, iv_and_key, tek, mac) in
        [("recorded-aes-pull4", 32, 16, 32), ("recorded-3des-pull4", 32, 24, 20)]
    {
        let octets = testdata(name);
        let chain = walk(PayloadKind::HASH, &octets);
        assert_eq!(
            kinds(&chain),
            [PayloadKind::HASH, PayloadKind::SEQUENCE_NUMBER, PayloadKind::KEY_DOWNLOAD]
        );
        assert_eq!(both_ways::<SequenceNumber>(&chain.payloads[1]), SequenceNumber(0));
        let download: KeyDownload = both_ways(&chain.payloads[2]);
        let [
            KeyPacket::Kek { attributes: kek, .. },
            KeyPacket::Tek { spi, attributes: keys },
            KeyPacket::Tek { .. },
        ] = download.packets.as_slice()
        else {
            panic!("one KEK, two TEKs: {download:?}")
        };
        let lengths = |all: &[crate::wire::kd::SecretAttribute]| -> Vec<(u16, usize)> {
            assert!(all.iter().all(|one| one.format == Format::Long));
            all.iter().map(|one| (one.class, one.value.len())).collect()
        };
        assert_eq!(lengths(kek), [(1, iv_and_key), (2, 294)]);
        assert_eq!(spi.len(), 4);
        assert_eq!(lengths(keys), [(1, tek), (2, mac)]);
    }
}

#[test]
fn debug_output_of_keys_shows_lengths_only() {
    let octets = testdata("recorded-aes-pull4");
    let chain = walk(PayloadKind::HASH, &octets);
    let download: KeyDownload = both_ways(&chain.payloads[2]);
    let shown = format!("{download:?}");
    assert!(shown.contains("Secret(32 octets)"), "{shown}");
    // First octets of the KEK's initialisation vector, in either notation.
    assert!(!shown.contains("9, 111, 213") && !shown.contains("096fd5"), "{shown}");
}

#[test]
fn pushes() {
    for tag in ["aes", "3des"] {
        let octets = testdata(&format!("recorded-{tag}-push1"));
        let chain = walk(PayloadKind::SEQUENCE_NUMBER, &octets);
        let expected = [
            PayloadKind::SEQUENCE_NUMBER,
            PayloadKind::SA,
            PayloadKind::KEY_DOWNLOAD,
            PayloadKind::SIGNATURE,
        ];
        assert_eq!(kinds(&chain), expected);
        assert_eq!(both_ways::<SequenceNumber>(&chain.payloads[0]), SequenceNumber(1));
        assert_eq!(both_ways::<GroupSecurityAssociation>(&chain.payloads[1]).teks.len(), 4);
        assert_eq!(both_ways::<KeyDownload>(&chain.payloads[2]).packets.len(), 5);
        assert_eq!(both_ways::<Signature>(&chain.payloads[3]).0.len(), 256);
        assert_eq!(chain.octets_before(3).len() + 260 + chain.padding.len(), octets.len());

        let octets = testdata(&format!("recorded-{tag}-push3"));
        let chain = walk(PayloadKind::SEQUENCE_NUMBER, &octets);
        let sa: GroupSecurityAssociation = both_ways(&chain.payloads[1]);
        assert!(sa.kek.is_some() && sa.gap.is_some() && sa.teks.is_empty());
        assert_eq!(both_ways::<KeyDownload>(&chain.payloads[2]).packets.len(), 1);

        let octets = testdata(&format!("recorded-{tag}-push4"));
        let chain = walk(PayloadKind::SEQUENCE_NUMBER, &octets);
        let delete: Delete = both_ways(&chain.payloads[1]);
        assert_eq!((delete.doi, delete.protocol, delete.spi_size), (Doi::GDOI, ProtocolId(1), 4));
        assert_eq!(delete.spis.len(), 6);
        assert!(delete.spis.iter().all(|spi| spi.len() == 4));
    }
}

#[test]
fn a_payload_is_not_read_as_another_type() {
    let octets = testdata("recorded-aes-pull1");
    let chain = walk(PayloadKind::HASH, &octets);
    let error = chain.payloads[0].read::<Nonce>().expect_err("a HASH is no NONCE");
    assert_eq!((error.what(), error.offset()), ("payload type", 28));
    assert_eq!(chain.payloads[0].kind, Hash::KIND);
}
