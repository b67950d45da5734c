//! What must be refused: each length, count and fixed value that a sender could get wrong.

use crate::config::ByteOrder;
use crate::wire::gap::Gap;
use crate::wire::group_id;
use crate::wire::group_sa::GroupSecurityAssociation;
use crate::wire::kd::{KeyDownload, KeyPacket, SecretAttribute};
use crate::wire::lkh::{LkhAttribute, LkhDownload, LkhKey, LkhUpdate};
use crate::wire::sa_kek::{IdBlock, SaKek, Trailer};
use crate::wire::sa_tek::SaTek;
use crate::wire::seq::SequenceNumber;
use crate::wire::testing::{error, hex, refused_when_cut, testdata};
use ike::wire::codec::{Codec, InvalidMessage};
use ike::wire::id::Identification;

fn truncated(what: &'static str, offset: usize, need: usize, have: usize) -> InvalidMessage {
    InvalidMessage::Truncated { what, offset, need, have }
}

#[test]
fn sequence_numbers_and_gap_attributes() {
    refused_when_cut::<SequenceNumber>(&[0; 4], &[]);
    let left_over = InvalidMessage::Trailing { what: "structure", offset: 4, have: 1 };
    assert_eq!(error::<SequenceNumber>(&[0; 5]), left_over);
    assert_eq!(error::<Gap>(&hex("80010001 8002")), truncated("attribute value", 6, 2, 0));
}

#[test]
fn group_identifications() {
    let group = |text: &str| {
        group_id::group(&Identification::decode(&hex(text)).expect("good"), ByteOrder::Network)
    };
    assert_eq!(group("0b 00 0000 000457"), None);
    assert_eq!(group("0b 00 0000 0000000457"), None);
    assert_eq!(group("01 00 0000 00000457"), None);
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
