//! What must be refused: each length, count and fixed value that a sender could get wrong.

use crate::wire::gap::Gap;
use crate::wire::group_id;
use crate::wire::group_sa::GroupSecurityAssociation;
use crate::wire::kd::{KeyDownload, KeyPacket, SecretAttribute};
use crate::wire::lkh::{LkhAttribute, LkhDownload, LkhKey, LkhUpdate};
use crate::wire::sa_kek::{IdBlock, SaKek, Trailer};
use crate::wire::sa_tek::SaTek;
use crate::wire::seq::SequenceNumber;
use crate::wire::testing::{error, hex, refused_when_cut, testdata};
use ike::wire::attribute::Attribute;
use ike::wire::chain;
use ike::wire::chain::LONGEST_BODY;
use ike::wire::codec::{Codec, Counted, InvalidMessage, Reader, Writer};
use ike::wire::delete::Delete;
use ike::wire::hash::Hash;
use ike::wire::id::Identification;
use ike::wire::ke::KeyExchange;
use ike::wire::nat_d::NatDetection;
use ike::wire::nonce::Nonce;
use ike::wire::notify::Notification;
use ike::wire::proposal::Proposal;
use ike::wire::registry::{Doi, PayloadKind, ProtocolId};
use ike::wire::sa::SecurityAssociation;
use ike::wire::signature::Signature;
use ike::wire::transform::Transform;

fn truncated(what: &'static str, offset: usize, need: usize, have: usize) -> InvalidMessage {
    InvalidMessage::Truncated { what, offset, need, have }
}

#[test]
fn errors_name_field_place_need_and_rest() {
    let error = error::<Notification>(&hex("00000001 01 10 6002 aabb"));
    assert_eq!(error, truncated("SPI", 8, 16, 2));
    assert_eq!(error.to_string(), "SPI at octet 8: needs 16 octets, has 2");
    assert_eq!((error.what(), error.offset()), ("SPI", 8));
}

#[test]
fn chains() {
    let walk = |octets: &[u8]| {
        chain::walk(PayloadKind::HASH, octets, 28).map(|chain| chain.payloads.len())
    };
    assert_eq!(walk(&[]), Err(truncated("next payload", 28, 1, 0)));
    assert_eq!(walk(&[0, 0, 0]), Err(truncated("payload length", 30, 2, 1)));
    for length in 0..4 {
        let short = InvalidMessage::Length {
            what: "payload length",
            offset: 30,
            minimum: 4,
            maximum: 5,
            have: length.into(),
        };
        assert_eq!(walk(&[0, 0, 0, length, 9]), Err(short));
    }
    assert_eq!(walk(&[0, 0, 0, 6, 9]), Err(truncated("payload", 32, 2, 1)));
    assert_eq!(walk(&[0, 0, 0xff, 0xff, 9]), Err(truncated("payload", 32, 65_531, 1)));
    // A payload that announces a next one at the end of the message.
    assert_eq!(walk(&[10, 0, 0, 4]), Err(truncated("next payload", 32, 1, 0)));
    assert_eq!(walk(&[0, 0, 0, 4, 0, 0]), Ok(1));
    let trailing = InvalidMessage::Trailing { what: "payload chain", offset: 32, have: 2 };
    assert_eq!(chain::walk_clear(PayloadKind::HASH, &[0, 0, 0, 4, 0, 0], 28), Err(trailing));
    assert_eq!(chain::walk(PayloadKind::NONE, &[1, 2], 28).map(|chain| chain.padding.len()), Ok(2));
    // The reserved octet of the generic header is ignored.
    assert_eq!(walk(&[0, 0xff, 0, 4]), Ok(1));
}

#[test]
fn longest_chain_of_empty_payloads() {
    let mut octets = [13, 0, 0, 4].repeat(16_383);
    if let Some(last) = octets.len().checked_sub(4) {
        octets[last] = 0;
    }
    assert_eq!(
        chain::walk_clear(PayloadKind::VENDOR_ID, &octets, 28).map(|chain| chain.payloads.len()),
        Ok(16_383)
    );
}

#[test]
fn attributes() {
    assert_eq!(error::<Attribute>(&hex("80")), truncated("attribute type", 0, 2, 1));
    assert_eq!(error::<Attribute>(&hex("8001 00")), truncated("attribute value", 2, 2, 1));
    assert_eq!(error::<Attribute>(&hex("0001 0003 aabb")), truncated("attribute value", 4, 3, 2));
    assert_eq!(error::<Gap>(&hex("80010001 8002")), truncated("attribute value", 6, 2, 0));
    let too_wide = Attribute::short(0x8001u16, 1u16).to_octets().expect_err("a class of 16 bits");
    assert_eq!((too_wide.what, too_wide.maximum), ("attribute type", 0x7fff));
    let too_long =
        Attribute::long(1u16, vec![0; 65_536]).to_octets().expect_err("a value of 64 KiB");
    assert_eq!((too_long.what, too_long.have), ("attribute length", 65_536));
}

#[test]
fn variable_classes_in_both_forms() {
    let short = Attribute::short(2u16, 3600u16);
    let long = Attribute::decode(&hex("0002 0004 00000e10")).expect("a good attribute");
    assert_eq!((short.as_number(), long.as_number()), (Some(3600), Some(3600)));
    assert!(short.same(&long) && long.same(&short) && short != long);
    assert!(
        !short.same(&Attribute::short(2u16, 3601u16))
            && !short.same(&Attribute::short(3u16, 3600u16))
    );
    assert_eq!((short.as_basic(), long.as_basic()), (Some(3600), None));
    assert_eq!(Attribute::long(2u16, vec![]).as_number(), None);
    assert_eq!(Attribute::long(2u16, vec![0xff; 8]).as_number(), Some(u64::MAX));
    assert_eq!(Attribute::long(2u16, vec![1; 9]).as_number(), None);
    assert_eq!(Attribute::long(2u16, hex("00 0000000000000001")).as_number(), Some(1));
    assert_eq!(Attribute::number(2u16, 3600), long);
}

#[test]
fn phase1_sa() {
    let body = testdata("recorded-aes-message1").split_off(32);
    refused_when_cut::<SecurityAssociation>(&body, &[8]);
    let bad = |place: usize, value: u8| {
        let mut octets = body.clone();
        octets[place] = value;
        error::<SecurityAssociation>(&octets)
    };
    let value = |what, offset, value| InvalidMessage::Value { what, offset, value };
    assert_eq!(bad(3, 0), value("domain of interpretation", 0, 0));
    assert_eq!(bad(3, 3), value("domain of interpretation", 0, 3));
    assert_eq!(bad(7, 2), value("situation", 4, 2));
    // Next Payload of the proposal: only another proposal or none, and another one is not there.
    assert_eq!(bad(8, 2), truncated("next payload", 52, 1, 0));
    assert!(matches!(bad(8, 13), InvalidMessage::Truncated { offset: 52, .. }));
    let short = InvalidMessage::Trailing { what: "payload chain", offset: 51, have: 1 };
    assert_eq!(bad(11, 0x2b), short);
    assert_eq!(bad(11, 0x2d), truncated("payload", 12, 41, 40));
    let spi =
        InvalidMessage::Length { what: "SPI size", offset: 14, minimum: 0, maximum: 16, have: 17 };
    assert_eq!(bad(14, 17), spi);
    assert_eq!(
        bad(15, 2),
        InvalidMessage::Count { what: "transforms", offset: 16, need: 2, have: 1 }
    );
    assert_eq!(bad(16, 1), truncated("next payload", 52, 1, 0));
    let trailing = [body.as_slice(), &[0]].concat();
    let left_over = InvalidMessage::Trailing { what: "payload chain", offset: 52, have: 1 };
    assert_eq!(error::<SecurityAssociation>(&trailing), left_over);
}

#[test]
fn proposals_hold_transforms_only() {
    // Two "transforms", the second of which claims to be a payload of type 2.
    let octets = hex("01 01 00 02 02 00 0008 00 01 0000 00 00 0008 01 01 0000");
    let error = error::<Proposal>(&octets);
    assert_eq!(error, InvalidMessage::Value { what: "payload type", offset: 12, value: 2 });
    refused_when_cut::<Transform>(&hex("01 01 0000 8001 0001"), &[4]);
}

#[test]
fn opaque_payloads_and_nonces() {
    let length = |what, minimum, maximum, have| InvalidMessage::Length {
        what,
        offset: 0,
        minimum,
        maximum,
        have,
    };
    assert_eq!(error::<KeyExchange>(&[]), length("public value", 1, LONGEST_BODY, 0));
    assert_eq!(error::<Hash>(&[]), length("hash", 1, LONGEST_BODY, 0));
    assert_eq!(error::<Signature>(&[]), length("signature", 1, LONGEST_BODY, 0));
    assert_eq!(error::<NatDetection>(&[]), length("NAT detection hash", 1, LONGEST_BODY, 0));
    assert_eq!(error::<Nonce>(&[0; 7]), length("nonce", 8, 256, 7));
    assert_eq!(error::<Nonce>(&[0; 257]), length("nonce", 8, 256, 257));
    assert!(Nonce::decode(&[0; 256]).is_ok_and(|nonce| !nonce.suits_pull()));
    assert!(Nonce::decode(&[0; 128]).is_ok_and(|nonce| nonce.suits_pull()));
    assert!(Nonce::decode(&[0; 8]).is_ok_and(|nonce| nonce.suits_pull()));
    assert!(Nonce(vec![0; 257]).to_octets().is_err());
    refused_when_cut::<SequenceNumber>(&[0; 4], &[]);
    let left_over = InvalidMessage::Trailing { what: "structure", offset: 4, have: 1 };
    assert_eq!(error::<SequenceNumber>(&[0; 5]), left_over);
}

#[test]
fn identifications() {
    use crate::config::ByteOrder;
    use ike::config::Identity;
    refused_when_cut::<Identification>(&hex("01 00 0000 0a000001"), &[4, 5, 6, 7]);
    let identity = |text: &str| Identification::decode(&hex(text)).expect("good").as_identity();
    assert_eq!(identity("01 00 0000 0a0000"), None);
    assert_eq!(identity("01 00 0000 0a00000100"), None);
    assert_eq!(identity("05 00 0000 0a000001"), None);
    assert_eq!(identity("02 00 0000"), None);
    assert_eq!(identity("02 00 0000 67310061"), None);
    assert_eq!(identity("02 00 0000 ff"), None);
    assert_eq!(identity("0b 00 0000"), None);
    assert_eq!(identity("09 00 0000 3000"), None);
    assert_eq!(identity("02 11 0350 67312e6c6162"), Some(Identity::Fqdn("g1.lab".into())));
    assert_eq!(identity("03 00 0000 6140622e63"), Some(Identity::UserFqdn("a@b.c".into())));
    assert_eq!(identity("0b 00 0000 00ff"), Some(Identity::KeyId(vec![0, 0xff])));
    let group = |text: &str| {
        group_id::group(&Identification::decode(&hex(text)).expect("good"), ByteOrder::Network)
    };
    assert_eq!(group("0b 00 0000 000457"), None);
    assert_eq!(group("0b 00 0000 0000000457"), None);
    assert_eq!(group("01 00 0000 00000457"), None);
}

#[test]
fn deletes() {
    let body = hex("00000002 01 04 0002 00000100 00000101");
    refused_when_cut::<Delete>(&body, &[]);
    let left_over = InvalidMessage::Trailing { what: "delete payload", offset: 16, have: 1 };
    assert_eq!(error::<Delete>(&[body.as_slice(), &[0]].concat()), left_over);
    let many = error::<Delete>(&hex("00000002 01 00 ffff"));
    assert_eq!(many, InvalidMessage::Value { what: "SPI size", offset: 5, value: 0 });
    let uneven =
        Delete { doi: Doi::GDOI, protocol: ProtocolId(1), spi_size: 4, spis: vec![vec![0; 3]] };
    assert!(uneven.to_octets().is_err());
}

#[test]
fn group_sa() {
    let body = testdata("computed-sa").split_off(4);
    // Cut behind SAK, GAP or SAT the chain still announces the next payload.
    refused_when_cut::<GroupSecurityAssociation>(&body, &[]);
    let bad = |place: usize, value: u8| {
        let mut octets = body.clone();
        octets[place] = value;
        error::<GroupSecurityAssociation>(&octets)
    };
    let value = |what, offset, value| InvalidMessage::Value { what, offset, value };
    assert_eq!(bad(3, 1), value("domain of interpretation", 0, 1));
    assert_eq!(bad(7, 1), value("situation", 4, 1));
    assert_eq!(bad(8, 1), value("SA attribute payload", 8, 0x010f));
    assert_eq!(bad(9, 0), value("SA attribute payload", 8, 0));
    // A second SAK, a GAP behind a SAT, a SAK behind a GAP, a foreign payload.
    assert_eq!(bad(12, 15), value("SA attribute payload", 85, 15));
    assert_eq!(bad(85, 22), value("SA attribute payload", 97, 22));
    assert_eq!(bad(85, 15), value("SA attribute payload", 97, 15));
    assert_eq!(bad(85, 17), value("SA attribute payload", 97, 17));
    // A SAK one octet shorter: the GAP's header is looked for one octet early.
    assert!(matches!(
        bad(15, 0x48),
        InvalidMessage::Length { what: "payload length", offset: 86, have: 0, .. }
    ));
}

#[test]
fn sak_and_gap_stand_in_front_of_sats() {
    let (sat, front) = ("00 00 0006 03 00", "00000002 00000000 0010 0000");
    let behind =
        |kind: &str, payload: &str| hex(&format!("{front} {kind} {} {payload}", &sat[3..]));
    let value = |value| InvalidMessage::Value { what: "SA attribute payload", offset: 18, value };
    assert_eq!(error::<GroupSecurityAssociation>(&behind("16", "00 00 0004")), value(22));
    assert_eq!(error::<GroupSecurityAssociation>(&behind("0f", "00 00 0004")), value(15));
    assert!(
        GroupSecurityAssociation::decode(&behind("10", sat)).is_ok_and(|sa| sa.teks.len() == 2)
    );
}

#[test]
fn group_sa_needs_sak_or_sat() {
    let gap_only =
        error::<GroupSecurityAssociation>(&hex("00000002 00000000 0016 0000 00 00 0008 80010001"));
    assert_eq!(
        gap_only,
        InvalidMessage::Count { what: "SAK and SAT payloads", offset: 12, need: 1, have: 0 }
    );
    assert!(GroupSecurityAssociation::default().to_octets().is_err());
}

#[test]
fn sak() {
    let body = hex(
        "11 01 0350 04 c0000201 01 0350 04 efc00101 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 00000000 80020003",
    );
    refused_when_cut::<SaKek>(&body, &[body.len() - 4]);
    let mut long = body.clone();
    long[4] = 0xff;
    assert_eq!(error::<SaKek>(&long), truncated("identification data", 5, 255, body.len() - 5));
    let mut short = body.clone();
    short[4] = 3;
    assert!(SaKek::decode(&short).is_err());
    let wide = IdBlock { kind: ike::wire::registry::IdType::KEY_ID, port: 0, data: vec![0; 256] };
    assert_eq!(wide.to_octets().map_err(|error| error.maximum), Err(255));
}

#[test]
fn sak_trailer() {
    let front =
        "11 01 0350 04 c0000201 01 0350 04 efc00101 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 00000000";
    let trailer = |rest: &str| {
        let octets = hex(&format!("{front}{rest}"));
        let sak =
            SaKek::decode(&octets).map(|sak| (sak.to_octets(), sak.trailer, sak.attributes.len()));
        sak.map(|(again, trailer, count)| {
            assert_eq!(again, Ok(octets));
            (trailer, count)
        })
    };
    assert_eq!(trailer(""), Ok((Trailer::Standard, 0)));
    assert_eq!(trailer("80020003"), Ok((Trailer::Standard, 1)));
    assert_eq!(trailer("0000"), Ok((Trailer::TwoMore, 0)));
    assert_eq!(trailer("0000 80020003"), Ok((Trailer::TwoMore, 1)));
    // Class 0 in its long form is kept where no attributes can follow two octets.
    assert_eq!(trailer("0000 0001 aa"), Ok((Trailer::Standard, 1)));
    assert!(trailer("00").is_err());
    assert!(trailer("0000 00").is_err());
}

#[test]
fn sat() {
    let body = testdata("computed-sa").split_off(4 + 97 + 4);
    // Without its last attributes a SAT still is one.
    refused_when_cut::<SaTek>(&body, &[31, 35, 43, 47, 51]);
    assert_eq!(error::<SaTek>(&[]), truncated("Protocol-ID", 0, 1, 0));
}

#[test]
fn key_downloads() {
    let body = testdata("computed-kd").split_off(4);
    refused_when_cut::<KeyDownload>(&body, &[]);
    let bad = |place: usize, value: u8| {
        let mut octets = body.clone();
        octets[place] = value;
        error::<KeyDownload>(&octets)
    };
    let count = |need| InvalidMessage::Count { what: "key packets", offset: 4, need, have: 3 };
    assert_eq!(bad(1, 2), count(2));
    assert_eq!(bad(0, 0xff), count(0xff03));
    let short = InvalidMessage::Length {
        what: "length of a key packet",
        offset: 6,
        minimum: 4,
        maximum: 105,
        have: 3,
    };
    assert_eq!(bad(7, 3), short);
    assert_eq!(bad(7, 4), truncated("SPI size", 8, 1, 0));
    assert_eq!(bad(6, 1), truncated("key packet", 8, 0x139 - 4, 101));
    let size =
        InvalidMessage::Length { what: "SPI size", offset: 8, minimum: 16, maximum: 16, have: 4 };
    assert_eq!(bad(8, 4), size);
    assert_eq!(bad(8, 0xff), truncated("SPI", 9, 255, 52));
    // The SID packet has no SPI.
    let size =
        InvalidMessage::Length { what: "SPI size", offset: 98, minimum: 0, maximum: 0, have: 1 };
    assert_eq!(bad(98, 1), size);
    assert_eq!(KeyDownload::decode(&[0; 4]), Ok(KeyDownload::default()));
    let secret = |octets: usize| ike::crypto::Secret::new(vec![0; octets]);
    let wide = KeyPacket::Tek { spi: vec![0; 256], attributes: vec![] };
    assert!(wide.to_octets().is_err());
    let short_form =
        SecretAttribute { class: 1, format: ike::wire::attribute::Format::Short, value: secret(3) };
    assert!(short_form.to_octets().is_err());
    let long = KeyPacket::Tek {
        spi: vec![0; 4],
        attributes: vec![SecretAttribute::new(1u16, secret(65_530))],
    };
    assert_eq!(long.to_octets().map_err(|error| error.what), Err("length of a key packet"));
}

#[test]
fn key_hierarchies() {
    let key = "0004 03 00 5f000000 00000000 00000001".to_owned() + &"00".repeat(32);
    let download = |head: &str, keys: usize| hex(&(head.to_owned() + &key.repeat(keys)));
    assert!(LkhDownload::decode(&download("01 0002 00", 2)).is_ok());
    assert!(LkhUpdate::decode(&download("01 0002 00 0004 0000 00000001", 2)).is_ok());
    let version = error::<LkhDownload>(&download("02 0002 00", 2));
    assert_eq!(version, InvalidMessage::Value { what: "LKH version", offset: 0, value: 2 });
    let none = error::<LkhDownload>(&download("01 0000 00", 2));
    assert_eq!(none, InvalidMessage::Count { what: "LKH keys", offset: 4, need: 1, have: 0 });
    assert!(LkhDownload::decode(&download("01 0000 00", 0)).is_err());
    assert!(LkhDownload::decode(&download("01 0001 00", 0)).is_err());
    // 96 octets do not divide by 5, and as one key they are too long for AES.
    assert!(matches!(
        error::<LkhDownload>(&download("01 0005 00", 2)),
        InvalidMessage::Count { need: 5, .. }
    ));
    let long = InvalidMessage::Length {
        what: "data of an LKH key",
        offset: 20,
        minimum: 32,
        maximum: 48,
        have: 80,
    };
    assert_eq!(error::<LkhDownload>(&download("01 0001 00", 2)), long);
    assert!(LkhDownload::decode(&download("01 ffff 00", 2)).is_err());
    refused_when_cut::<LkhUpdate>(&download("01 0001 00 0004 0000 00000001", 1), &[]);
    let des = |octets: usize| {
        hex(&("0004 01 00 00000000 00000000 00000001".to_owned() + &"00".repeat(octets)))
    };
    assert!(
        LkhKey::decode(&des(16)).is_ok()
            && LkhKey::decode(&des(15)).is_err()
            && LkhKey::decode(&des(17)).is_err()
    );
    let form = error::<LkhAttribute>(&hex("8001 0100"));
    assert_eq!(form, InvalidMessage::Value { what: "form of an LKH array", offset: 0, value: 1 });
    let trailing = [hex("0001 0034"), download("01 0001 00", 1)].concat();
    assert_eq!(LkhAttribute::decode(&trailing).map(|_| ()), Ok(()));
    assert!(LkhDownload { keys: vec![] }.to_octets().is_err());
}

#[test]
fn reader_never_passes_its_end() {
    let octets = [1, 2, 3];
    let mut reader = Reader::at(&octets, 100);
    let mut sub = reader.sub("part", 2).expect("two octets");
    assert_eq!((sub.offset(), reader.offset()), (100, 102));
    assert_eq!(sub.u32("number"), Err(truncated("number", 100, 4, 2)));
    assert_eq!(sub.take("all", usize::MAX), Err(truncated("all", 100, usize::MAX, 2)));
    assert_eq!(sub.rest(), [1, 2]);
    assert_eq!((sub.offset(), sub.is_empty()), (102, true));
    assert_eq!(
        reader.finish("whole"),
        Err(InvalidMessage::Trailing { what: "whole", offset: 102, have: 1 })
    );
}

#[test]
fn writer_reports_the_first_thing_that_does_not_fit() {
    let mut writer = Writer::new();
    writer.length16("outer", Counted::BodyOnly, |writer| {
        writer.count8("count", 256);
        writer.put(&[0; 70_000]);
    });
    let error = writer.finish().expect_err("too much");
    assert_eq!((error.what, error.have, error.maximum), ("count", 256, 255));
    assert_eq!(error.to_string(), "count: 256 does not fit, at most 255");
    let mut writer = Writer::new();
    writer.length16("length", Counted::Header { before: 2 }, |writer| writer.put(&[7; 300]));
    let octets = writer.finish().expect("fits");
    assert_eq!((&octets[..3], octets.len()), (&[1, 48, 7][..], 302));
}
