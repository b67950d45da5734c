//! What must be refused: each length, count and fixed value that a sender could get wrong.

use crate::wire::attribute::Attribute;
use crate::wire::chain;
use crate::wire::chain::LONGEST_BODY;
use crate::wire::codec::{Codec, Counted, InvalidMessage, Reader, Writer};
use crate::wire::delete::Delete;
use crate::wire::hash::Hash;
use crate::wire::id::Identification;
use crate::wire::ke::KeyExchange;
use crate::wire::nat_d::NatDetection;
use crate::wire::nonce::Nonce;
use crate::wire::notify::Notification;
use crate::wire::proposal::Proposal;
use crate::wire::registry::{Doi, PayloadKind, ProtocolId};
use crate::wire::sa::SecurityAssociation;
use crate::wire::signature::Signature;
use crate::wire::transform::Transform;

use super::testdata;
use crate::testing::{error, hex, refused_when_cut};

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
    assert!(Nonce::decode(&[0; 256]).is_ok() && Nonce::decode(&[0; 8]).is_ok());
    assert!(Nonce(vec![0; 257]).to_octets().is_err());
}

#[test]
fn identifications() {
    use crate::config::Identity;
    refused_when_cut::<Identification>(&hex("01 00 0000 0a000001"), &[4, 5, 6, 7]);
    let identity = |text: &str| Identification::decode(&hex(text)).expect("good").as_identity();
    assert_eq!(identity("01 00 0000 0a0000"), None);
    assert_eq!(identity("01 00 0000 0a00000100"), None);
    assert_eq!(identity("05 00 0000 0a000001"), None);
    assert_eq!(identity("02 00 0000"), None);
    assert_eq!(identity("02 00 0000 67310061"), None);
    assert_eq!(identity("02 00 0000 ff"), None);
    assert_eq!(identity("0b 00 0000"), None);
    assert_eq!(identity("09 00 0000"), None);
    assert_eq!(identity("0a 00 0000 3000"), None);
    assert_eq!(identity("02 11 0350 67312e6c6162"), Some(Identity::Fqdn("g1.lab".into())));
    assert_eq!(identity("03 00 0000 6140622e63"), Some(Identity::UserFqdn("a@b.c".into())));
    assert_eq!(identity("09 00 0000 3000"), Some(Identity::DistinguishedName(vec![0x30, 0])));
    assert_eq!(identity("0b 00 0000 00ff"), Some(Identity::KeyId(vec![0, 0xff])));
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
