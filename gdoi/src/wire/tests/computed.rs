//! Octets computed from the RFCs alone, both ways, for what the recordings do not hold.

use core::net::Ipv4Addr;
use core::time::Duration;

use ike::wire::payload::AnyPayload;

use crate::config::ByteOrder;
use crate::group::{
    AddressPreservation, AddressRange, EncapsulationMode, EspTransform, GroupAssociatedPolicy,
    GroupId, GroupPolicy, IssuedSa, KekKeys, KekPolicy, SaDirection, SenderIds, TekKeys, TekPolicy,
    TekProtection, TekProtocol, TrafficSelector,
};
use crate::wire::gap::Gap;
use crate::wire::group_id;
use crate::wire::group_sa::GroupSecurityAssociation;
use crate::wire::kd::{KeyDownload, KeyPacket, SecretAttribute};
use crate::wire::lkh::{LkhAttribute, LkhDownload, LkhKey, LkhUpdate};
use crate::wire::payload::{Payload, encode_chain, first_kind};
use crate::wire::registry::GapAttribute;
use crate::wire::sa_kek::Trailer;
use crate::wire::sa_tek::SaTek;
use crate::wire::seq::SequenceNumber;
use crate::wire::testing::{both_ways, hex, testdata, walk};
use crate::wire::{
    group_keys, group_policy, key_download, security_association, sender_id_request,
};
use ike::config::Identity;
use ike::crypto::Secret;
use ike::testing::golden;
use ike::wire::attribute::Attribute;
use ike::wire::codec::{Codec, Writer};
use ike::wire::delete::Delete;
use ike::wire::id::Identification;
use ike::wire::nonce::Nonce;
use ike::wire::registry::{Doi, IdType, PayloadKind, ProtocolId};

pub(crate) fn policy() -> GroupPolicy {
    let net = AddressRange::Subnet("10.0.0.0/8".parse().expect("a subnet"));
    let spi: Vec<u8> = (0xa0..=0xaf).collect();
    GroupPolicy {
        group: GroupId(1111),
        kek: Some(KekPolicy {
            spi: spi.try_into().expect("16 octets"),
            protocol: 17,
            source: std::net::SocketAddr::from(([192, 0, 2, 1], 848)).into(),
            destination: std::net::SocketAddr::from(([239, 192, 1, 1], 848)).into(),
            algorithm: 3,
            key_length: Some(128),
            lifetime: Duration::from_secs(86_400),
            signature_hash: Some(3),
            signature_algorithm: 1,
            signature_key_length: Some(2048),
            acknowledgement: Some(1),
        }),
        gap: GroupAssociatedPolicy {
            activation_time_delay: Some(Duration::from_secs(10)),
            deactivation_time_delay: Some(Duration::from_secs(30)),
        },
        teks: vec![TekPolicy {
            spi: 0x0bad_c0de,
            selector: TrafficSelector {
                protocol: 0,
                source: net,
                source_port: 0,
                destination: net,
                destination_port: 0,
            },
            protection: TekProtection {
                protocol: TekProtocol::ESP,
                transform: EspTransform::AES_GCM_16,
                key_length: Some(128),
                authentication: None,
                mode: EncapsulationMode::TUNNEL,
                address_preservation: AddressPreservation::SOURCE_AND_DESTINATION,
                direction: SaDirection::SYMMETRIC,
                lifetime: Duration::from_secs(3600),
                lifetime_kilobytes: None,
            },
        }],
    }
}

pub(crate) fn group_sa() -> IssuedSa {
    let keys = TekKeys {
        encryption: Secret::new((0x30..=0x43).collect()),
        integrity: Secret::new(Vec::new()),
    };
    IssuedSa::new(
        policy(),
        [(0x0bad_c0de, keys)].into(),
        Some(KekKeys { algorithm_key: Secret::new((0x00..=0x1f).collect()), signature_key: None }),
        Some(0),
        Some(SenderIds { bits: 16, values: vec![7] }),
    )
}

#[test]
fn group_sa_is_policy_and_back() {
    let octets = testdata("computed-sa");
    let chain = walk(PayloadKind::SA, &octets);
    let sa: GroupSecurityAssociation = both_ways(&chain.payloads[0]);
    assert_eq!(group_policy(GroupId(1111), &sa), Ok(policy()));
    assert_eq!(security_association(&policy(), Trailer::Standard), sa);
    let longer = security_association(&policy(), Trailer::TwoMore).to_octets().expect("fits");
    assert_eq!(longer.len(), octets.len() - 4 + 2);
    let sa = GroupSecurityAssociation::decode(&longer).expect("a good SA");
    assert_eq!(sa.kek.as_ref().map(|kek| kek.trailer), Some(Trailer::TwoMore));
    assert_eq!(group_policy(GroupId(1111), &sa), Ok(policy()));
}

#[test]
fn key_download_is_keys_and_back() {
    let octets = testdata("computed-kd");
    let chain = walk(PayloadKind::KEY_DOWNLOAD, &octets);
    let download: KeyDownload = both_ways(&chain.payloads[0]);
    assert_eq!(key_download(&group_sa()), download);
    let keys = group_keys(&policy(), download).expect("keys that fit");
    assert_eq!(&keys.tek_keys, group_sa().tek_keys());
    assert_eq!(keys.kek_keys.as_ref(), group_sa().kek_keys());
    assert_eq!(keys.sender_ids.as_ref(), group_sa().sender_ids());
    assert_eq!(keys.lkh, None);
}

#[test]
fn small_payloads() {
    let sample = |name: &str, kind, next: PayloadKind, body: Payload| {
        let octets = testdata(name);
        assert_eq!(octets[0], next.0, "{name}");
        let raw = ike::wire::RawPayload { kind, offset: 0, octets: &octets };
        assert_eq!(Payload::read(&raw).as_ref(), Ok(&body), "{name}");
        let mut writer = Writer::new();
        ike::wire::chain::encode_with(&mut writer, next, |writer| body.encode(writer));
        assert_eq!(writer.finish(), Ok(octets), "{name}");
    };
    let (id, kd) = (PayloadKind::IDENTIFICATION, PayloadKind::KEY_DOWNLOAD);
    let group = group_id::identification(GroupId(1111), ByteOrder::Network);
    assert_eq!(group_id::group(&group, ByteOrder::Network), Some(GroupId(1111)));
    let member = Identification::of(&Identity::Address(Ipv4Addr::new(198, 51, 100, 7).into()));
    sample("computed-id", id, PayloadKind::NONE, group.into());
    sample("computed-ni", PayloadKind::NONCE, id, Nonce((0x20..=0x2f).collect()).into());
    sample("computed-seq", PayloadKind::SEQUENCE_NUMBER, kd, SequenceNumber(0).into());
    sample("computed-ack-seq", PayloadKind::SEQUENCE_NUMBER, id, SequenceNumber(1).into());
    sample("computed-ack-id", id, PayloadKind::NONE, member.into());
}

#[test]
fn payloads_that_no_recording_holds() {
    golden(
        "00 00 0008 80030004",
        &Gap { attributes: vec![Attribute::short(GapAttribute::SENDER_ID_REQUEST, 4u16)] },
    );
    // A KEK's delete-all: protocol 0, 16 octets of zero (RFC 6407 §5.9).
    golden(
        "00 00 001c 00000002 00 10 0001 00000000000000000000000000000000",
        &Delete {
            doi: Doi::GDOI,
            protocol: ProtocolId::RESERVED,
            spi_size: 16,
            spis: vec![vec![0; 16]],
        },
    );
    golden(
        "00 00 000c 03 01 0203040506 07",
        &SaTek::Other(TekProtocol::IEC_61850, vec![1, 2, 3, 4, 5, 6, 7]),
    );
}

#[test]
fn sender_id_request_of_a_member() {
    let request = Gap { attributes: vec![Attribute::short(GapAttribute::SENDER_ID_REQUEST, 4u16)] };
    assert_eq!(sender_id_request(&request), Ok(Some(4)));
    assert_eq!(sender_id_request(&Gap::default()), Ok(None));
    let delay =
        Gap { attributes: vec![Attribute::short(GapAttribute::ACTIVATION_TIME_DELAY, 4u16)] };
    assert!(sender_id_request(&delay).is_err());
}

#[test]
fn ipv6_sat() {
    let text = "00 00 0047 01 06 05 0000 10 20010db8000000000000000000000001
        06 01bb 20 20010db8000100000000000000000000 ffffffffffff00000000000000000000 0c 00000100 80060080";
    let octets = hex(text);
    let chain = walk(PayloadKind::SA_TEK, &octets);
    let SaTek::Ipsec(tek) = both_ways(&chain.payloads[0]) else { panic!("ESP") };
    assert_eq!((tek.source.kind, tek.source.data.len()), (IdType::IPV6_ADDR, 16));
    assert_eq!((tek.destination.kind, tek.destination.port), (IdType::IPV6_ADDR_SUBNET, 443));
    assert_eq!(tek.spi, 256);
}

fn lkh_key(node: u16, handle: u32) -> LkhKey {
    let first = u8::try_from(node).expect("a small node");
    let data = Secret::new((first..first + 32).collect());
    LkhKey { node, algorithm: 3, creation: 0x5f00_0000, expiration: 0, handle, data }
}

#[test]
fn key_hierarchy() {
    let spi: [u8; 16] = policy().kek.expect("a SAK").spi;
    let download = LkhDownload { keys: vec![lkh_key(4, 1), lkh_key(2, 1), lkh_key(1, 1)] };
    let update = LkhUpdate { node: 4, handle: 1, keys: vec![lkh_key(2, 2), lkh_key(1, 2)] };
    let attributes = vec![
        LkhAttribute::Download(download),
        LkhAttribute::Update(update),
        LkhAttribute::Other(SecretAttribute::new(3u16, Secret::new(vec![0x30, 0]))),
    ];
    let octets = testdata("computed-lkh");
    let chain = walk(PayloadKind::KEY_DOWNLOAD, &octets);
    let sent: KeyDownload = both_ways(&chain.payloads[0]);
    assert_eq!(sent, KeyDownload { packets: vec![KeyPacket::Lkh { spi, attributes }] });
    // The root of the download array is the KEK, and the leaf the key of acknowledgements.
    let mut policy = policy();
    policy.teks.clear();
    let keys = group_keys(&policy, sent).expect("keys that fit");
    let kek = keys.kek_keys.expect("the root");
    assert_eq!((kek.algorithm_key, kek.signature_key), (lkh_key(1, 1).data, Some(vec![0x30, 0])));
    assert_eq!(
        keys.lkh.map(|path| path.keys.iter().map(|key| key.node).collect()),
        Some(vec![4, 2, 1])
    );
}

#[test]
fn chain_of_several_payloads() {
    let payloads = [
        Payload::from(Nonce(vec![1; 8])),
        Payload::from(group_id::identification(GroupId(1), ByteOrder::Network)),
        Payload::Isakmp(ike::wire::Payload::Unknown(PayloadKind(200), vec![9])),
    ];
    let octets = encode_chain(&payloads).expect("fits");
    assert_eq!(
        octets,
        hex("05 00 000c 0101010101010101 c8 00 000c 0b 00 0000 00000001 00 00 0005 09")
    );
    assert_eq!(first_kind(&payloads), PayloadKind::NONCE);
    assert_eq!(
        (encode_chain::<Payload>(&[]), first_kind::<Payload>(&[])),
        (Ok(vec![]), PayloadKind::NONE)
    );
    let chain = walk(PayloadKind::NONCE, &octets);
    let again: Vec<Payload> =
        chain.payloads.iter().map(|raw| Payload::read(raw).expect("good")).collect();
    assert_eq!(again, payloads);
}
