//! Recordings of another implementation, both ways: every payload it sent is read, written and
//! compared.

use crate::config::ByteOrder;
use crate::group::{GroupId, TekProtocol};
use crate::wire::gap::Gap;
use crate::wire::group_id;
use crate::wire::group_sa::GroupSecurityAssociation;
use crate::wire::kd::{KeyDownload, KeyPacket};
use crate::wire::payload::encode_chain;
use crate::wire::registry::KekAttribute;
use crate::wire::sa_kek::{IdBlock, Trailer};
use crate::wire::sa_tek::SaTek;
use crate::wire::seq::SequenceNumber;
use crate::wire::testing::{both_ways, hex, testdata, walk};
use crate::wire::{PolicyError, SelectorError, group_policy};
use ike::config::Identity;
use ike::wire::RawPayload;
use ike::wire::attribute::{Attribute, Format};
use ike::wire::chain::Body;
use ike::wire::delete::Delete;
use ike::wire::hash::Hash;
use ike::wire::header;
use ike::wire::id::Identification;
use ike::wire::ke::KeyExchange;
use ike::wire::nat_d::NatDetection;
use ike::wire::nonce::Nonce;
use ike::wire::notify::Notification;
use ike::wire::registry::{
    Doi, EncryptionNumber, ExchangeType, GroupNumber, HashNumber, IdType, NotifyType, PayloadKind,
    Phase1Attribute, ProtocolId, SaAttribute, TransformId,
};
use ike::wire::sa::SecurityAssociation;
use ike::wire::signature::Signature;
use ike::wire::vendor::VendorId;

fn kinds(chain: &ike::wire::Chain<'_>) -> Vec<PayloadKind> {
    chain.kinds().collect()
}

fn only<'a>(payloads: &[RawPayload<'a>], kind: PayloadKind) -> RawPayload<'a> {
    *payloads.iter().find(|payload| payload.kind == kind).expect("a payload of the type")
}

#[test]
fn first_message_of_main_mode_offers_one_transform() {
    let datagram = testdata("recorded-aes-message1");
    let (header, body) = header::split(&datagram).expect("a good datagram");
    assert_eq!(header.exchange, ExchangeType::IDENTITY_PROTECTION);
    assert_eq!(header.responder_cookie, [0; 8]);
    let chain = walk(header.next_payload, body);
    assert_eq!((kinds(&chain), chain.padding), (vec![PayloadKind::SA], &[][..]));
    let sa: SecurityAssociation = both_ways(&chain.payloads[0]);
    assert_eq!((sa.doi, sa.situation, sa.proposals.len()), (Doi::GDOI, 0, 1));
    let proposal = &sa.proposals[0];
    assert_eq!(
        (proposal.number, proposal.protocol, proposal.spi.len()),
        (1, ProtocolId::ISAKMP, 0)
    );
    assert_eq!(
        (proposal.transforms[0].number, proposal.transforms[0].id),
        (0, TransformId::KEY_IKE)
    );
    let expected = [
        Attribute::short(Phase1Attribute::ENCRYPTION_ALGORITHM, EncryptionNumber::AES_CBC),
        Attribute::short(Phase1Attribute::HASH_ALGORITHM, HashNumber::SHA2_256),
        Attribute::short(Phase1Attribute::AUTHENTICATION_METHOD, 1u16),
        Attribute::short(Phase1Attribute::GROUP_DESCRIPTION, GroupNumber::MODP_2048),
        Attribute::short(Phase1Attribute::LIFE_TYPE, 1u16),
        Attribute::short(Phase1Attribute::LIFE_DURATION, 600u16),
        Attribute::short(Phase1Attribute::KEY_LENGTH, 128u16),
    ];
    assert_eq!(proposal.transforms[0].attributes, expected);
    assert_eq!(header.message(body), Ok(datagram));
}

#[test]
fn third_message_of_main_mode_carries_key_exchange_and_nonce() {
    for (name, octets) in [("recorded-aes-message3", 256), ("recorded-3des-message3", 128)] {
        let datagram = testdata(name);
        let (header, body) = header::split(&datagram).expect("a good datagram");
        let chain = walk(header.next_payload, body);
        assert_eq!(kinds(&chain), [PayloadKind::KEY_EXCHANGE, PayloadKind::NONCE]);
        assert_eq!(both_ways::<KeyExchange>(&chain.payloads[0]).0.len(), octets);
        assert_eq!(both_ways::<Nonce>(&chain.payloads[1]).0.len(), 16);
    }
}

#[test]
fn fifth_message_of_main_mode_identifies_and_announces_first_contact() {
    let octets = testdata("recorded-aes-message5");
    let chain = walk(PayloadKind::IDENTIFICATION, &octets);
    assert_eq!(
        kinds(&chain),
        [PayloadKind::IDENTIFICATION, PayloadKind::HASH, PayloadKind::NOTIFICATION]
    );
    assert_eq!(chain.padding, [0; 4]);
    let id: Identification = both_ways(&chain.payloads[0]);
    assert_eq!((id.kind, id.protocol, id.port), (IdType::IPV4_ADDR, 0, 0));
    assert_eq!(id.as_identity(), Some(Identity::Address("10.99.0.1".parse().expect("an address"))));
    assert_eq!(both_ways::<Hash>(&chain.payloads[1]).0.len(), 32);
    let contact: Notification = both_ways(&chain.payloads[2]);
    assert_eq!((contact.doi, contact.protocol), (Doi::IPSEC, ProtocolId::ISAKMP));
    assert_eq!(contact.kind, NotifyType::INITIAL_CONTACT);
    assert_eq!(contact.spi, hex("abf707ef734d7711 602136a570e6d38c"));
    assert!(contact.data.is_empty());
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
        assert!(both_ways::<Nonce>(&chain.payloads[1]).suits_pull());
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
        // Its life time stands in the short form although the class is variable.
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
fn masks_of_the_recording_are_refused_as_policy() {
    let octets = testdata("recorded-aes-pull2");
    let chain = walk(PayloadKind::HASH, &octets);
    let sa: GroupSecurityAssociation = both_ways(&only(&chain.payloads, PayloadKind::SA));
    let mask = "0.255.255.255".parse().expect("an address");
    let refused = PolicyError::Selector { spi: 0x7b6f_84cc, error: SelectorError::Mask(mask) };
    assert_eq!(group_policy(GroupId(1234), &sa), Err(refused.clone()));
    assert_eq!(
        refused.to_string(),
        "SA_TEK for SPI 0x7b6f84cc: subnet mask 0.255.255.255 is not contiguous"
    );
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

#[test]
fn main_mode_of_other_implementations() {
    let vendor = |text: &str| VendorId(hex(text));
    let datagram = |number: u8| testdata(&format!("ike-message{number}"));

    let first = datagram(1);
    let (header, body) = header::split(&first).expect("a good datagram");
    let chain = walk(header.next_payload, body);
    let sa: SecurityAssociation = both_ways(&chain.payloads[0]);
    assert_eq!((sa.doi, sa.situation, sa.proposals.len()), (Doi::IPSEC, 1, 1));
    let transforms = &sa.proposals[0].transforms;
    assert_eq!(transforms.iter().map(|one| one.number).collect::<Vec<_>>(), [1, 2, 3]);
    let groups: Vec<_> = transforms
        .iter()
        .flat_map(|one| &one.attributes)
        .filter(|one| one.class == Phase1Attribute::GROUP_DESCRIPTION.0)
        .filter_map(Attribute::as_basic)
        .collect();
    assert_eq!(groups, [14, 5, 2]);
    let vendors: Vec<VendorId> = chain.payloads[1..].iter().map(both_ways).collect();
    let dead_peer_detection = vendor("afcad71368a1f1c96b8696fc77570100");
    let traversal = vendor("4a131c81070358455c5728f20e95452f");
    assert_eq!(vendors.len(), 5);
    assert_eq!((&vendors[1], &vendors[3]), (&dead_peer_detection, &traversal));
    assert_eq!((vendors[0].0.len(), vendors[2].0.len()), (8, 20));

    let second = datagram(2);
    let (header, body) = header::split(&second).expect("a good datagram");
    let chain = walk(header.next_payload, body);
    let choice: SecurityAssociation = both_ways(&chain.payloads[0]);
    assert_eq!(choice.proposals[0].transforms, transforms[..1]);

    for number in [3, 4] {
        let octets = datagram(number);
        let (header, body) = header::split(&octets).expect("a good datagram");
        let chain = walk(header.next_payload, body);
        let expected =
            [PayloadKind::KEY_EXCHANGE, PayloadKind::NONCE, PayloadKind::NAT_D, PayloadKind::NAT_D];
        assert_eq!(kinds(&chain), expected);
        assert_eq!(both_ways::<KeyExchange>(&chain.payloads[0]).0.len(), 256);
        assert_eq!(both_ways::<Nonce>(&chain.payloads[1]).0.len(), 32);
        assert_eq!(both_ways::<NatDetection>(&chain.payloads[2]).0.len(), 32);
        both_ways::<NatDetection>(&chain.payloads[3]);
        let payloads: Vec<ike::wire::Payload> =
            chain.payloads.iter().map(|raw| ike::wire::Payload::read(raw).expect("good")).collect();
        let written = encode_chain(&payloads).expect("fits");
        assert_eq!(header.message(&written), Ok(octets));
    }
}
