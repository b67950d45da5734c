//! Each message as octets, both ways, and what must be refused.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use ike::crypto::Secret;
use proptest::prelude::*;

use super::*;
use crate::error::Refusal;
use crate::{Generation, Stage};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|octet| !octet.is_ascii_whitespace()).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(octet).collect()
}

const GENERATION: Generation = Generation { epoch: 3, version: 0x0102 };

/// Every message with its octets.
fn golden() -> Vec<(Message, &'static str)> {
    let secret = |octets: &[u8]| Secret::copy_from(octets);
    let setting = |name: &str, value: &str| Setting { name: name.into(), value: value.into() };
    let difference = Difference { name: "a".into(), root: "b".into(), sub_server: "".into() };
    let refusals = [
        (Refusal::UnknownGroup, "02 06 00000007 01 0000000000000000 0000000000000000"),
        (Refusal::WrongRole, "02 06 00000007 02 0000000000000000 0000000000000000"),
        (
            Refusal::LowerEpoch { ours: 5, theirs: 4 },
            "02 06 00000007 03 0000000000000005 0000000000000004",
        ),
        (Refusal::NotPrepared(GENERATION), "02 06 00000007 04 0000000000000003 0000000000000102"),
        (Refusal::NoKeys, "02 06 00000007 05 0000000000000000 0000000000000000"),
        (Refusal::Unreadable, "02 06 00000007 06 0000000000000000 0000000000000000"),
    ];
    let mut all = vec![
        (
            Message::new(
                7,
                Ask {
                    held: GENERATION,
                    boot: 9,
                    settings: vec![setting("id", "7"), setting("x", "")],
                    needs: secret(&[0xee]),
                },
            ),
            "02 01 00000007 0000000000000003 0000000000000102 0000000000000009
             0002 0002 6964 0001 37 0001 78 0000 ee",
        ),
        (
            Message::new(
                7,
                Told {
                    generation: GENERATION,
                    stage: Stage::Prepared,
                    differences: vec![difference],
                    state: secret(&[0xaa, 0xbb]),
                },
            ),
            "02 02 00000007 0000000000000003 0000000000000102 01 0001 0001 61 0001 62 0000 aabb",
        ),
        (
            Message::new(7, Prepare { generation: GENERATION, state: secret(&[0xcc]) }),
            "02 03 00000007 0000000000000003 0000000000000102 cc",
        ),
        (
            Message::new(7, Commit { generation: GENERATION }),
            "02 04 00000007 0000000000000003 0000000000000102",
        ),
        (
            Message::new(7, Acknowledged { generation: GENERATION, stage: Stage::Committed }),
            "02 05 00000007 0000000000000003 0000000000000102 02",
        ),
        (
            Message::new(0, Part { serial: 1, number: 2, count: 3, octets: secret(&[0xdd]) }),
            "02 07 00000000 00000001 0002 0003 dd",
        ),
        (Message::new(7, Notice { octets: secret(&[0xff]) }), "02 0a 00000007 ff"),
        (Message::new(7, Noted), "02 0b 00000007"),
        (Message::new(0, PartReceived { serial: 1, number: 2 }), "02 08 00000000 00000001 0002"),
        (Message::new(0, NextPart { serial: 1, number: 2 }), "02 09 00000000 00000001 0002"),
    ];
    all.extend(refusals.map(|(refusal, octets)| (Message::new(7, Refused(refusal)), octets)));
    all
}

#[test]
fn every_message_has_these_octets() {
    for (message, octets) in golden() {
        assert_eq!(message.encode().unwrap().expose(), hex(octets), "{message}");
        assert_eq!(Message::decode(&hex(octets)), Ok(message));
    }
}

#[test]
fn what_is_cut_or_too_long_is_refused() {
    for (message, octets) in golden() {
        let octets = hex(octets);
        // What a state or a part holds may be of any length.
        let open = matches!(
            message.content,
            Content::Ask(_)
                | Content::Told(_)
                | Content::Prepare(_)
                | Content::Part(_)
                | Content::Notice(_)
        );
        let fixed = octets.len() - usize::from(open);
        for length in 0..fixed {
            let cut = Message::decode(&octets[..length]);
            let short = matches!(&cut, Ok(cut) if open && *cut != message);
            assert!(cut.is_err() || short, "{message}, {length} octets");
        }
        let longer = Message::decode(&[&octets[..], &[0]].concat());
        assert_eq!(longer.is_ok(), open, "{message}");
    }
}

#[test]
fn errors_say_who_is_to_blame() {
    let error = |octets: &str| Message::decode(&hex(octets)).unwrap_err().to_string();
    assert_eq!(
        error("03 04 00000007 0000000000000003 0000000000000102"),
        "the peer speaks version 3 of the cluster protocol, here is 2; run the same version of gcks on both"
    );
    assert_eq!(
        error("02 63 00000007"),
        "cluster message of unknown kind 99; run the same version of gcks on both servers"
    );
    assert_eq!(
        error("02 05 00000007 0000000000000003 0000000000000102 03"),
        "invalid cluster message: stage at octet 22: value 3 is not allowed here"
    );
    assert_eq!(
        error(
            "02 01 00000007 0000000000000003 0000000000000102 0000000000000009 0001 0001 ff 0000"
        ),
        "invalid cluster message: name at octet 32: value 1 is not allowed here"
    );
}

fn parts(length: usize) -> (Secret, Vec<Part>) {
    let message = Secret::new((0..length).map(|place| place as u8).collect());
    let parts = split(5, &message);
    (message, parts)
}

#[test]
fn a_message_is_cut_only_where_it_must() {
    assert!(parts(LONGEST).1.is_empty());
    let (message, parts) = parts(LONGEST * 2 + 1);
    assert_eq!(
        parts.iter().map(|part| part.octets.len()).collect::<Vec<_>>(),
        [LONGEST, LONGEST, 1]
    );
    let mut assembly = Assembly::new(&parts[0]).unwrap();
    assert_eq!((assembly.serial(), assembly.missing()), (5, Some(1)));
    assembly.add(&parts[1]).unwrap();
    assembly.add(&parts[2]).unwrap();
    assert_eq!(assembly.missing(), None);
    assert_eq!(assembly.octets(), message.expose());
}

#[test]
fn replayed_reordered_and_foreign_parts_change_nothing() {
    let (_, parts) = parts(LONGEST * 3);
    let error = Assembly::new(&parts[1]).unwrap_err();
    assert_eq!(error, MessageError::PartOrder { expected: 0, have: 1 });
    let mut assembly = Assembly::new(&parts[0]).unwrap();
    for wrong in [&parts[0], &parts[2]] {
        let have = wrong.number;
        assert_eq!(assembly.add(wrong), Err(MessageError::PartOrder { expected: 1, have }));
    }
    let octets = || Secret::copy_from(&[1]);
    let foreign = Part { serial: 6, number: 1, count: 3, octets: octets() };
    assert_eq!(assembly.add(&foreign), Err(MessageError::PartOrder { expected: 1, have: 1 }));
    let more = Part { serial: 5, number: 1, count: 4, octets: octets() };
    assert!(matches!(assembly.add(&more), Err(MessageError::PartCount { .. })));
    assembly.add(&parts[1]).unwrap();
    let many = Part { serial: 5, number: 0, count: MOST_PARTS + 1, octets: octets() };
    assert!(matches!(Assembly::new(&many), Err(MessageError::PartCount { .. })));
}

proptest! {
    /// Whatever octets say is written as it was read.
    #[test]
    fn what_is_read_is_written_alike(kind in 1_u8..12, rest in prop::collection::vec(any::<u8>(), 0..80)) {
        let octets = [&[2, kind, 0, 0, 0, 1], rest.as_slice()].concat();
        if let Ok(message) = Message::decode(&octets) {
            let written = message.encode().unwrap();
            prop_assert_eq!(written.expose(), octets);
        }
    }
}
