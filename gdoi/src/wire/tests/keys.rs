//! Keys against the policy they come with: by SPI, complete, and of the right lengths.

use super::computed::{group_sa, policy};
use crate::group::{
    AuthenticationAlgorithm, EspTransform, GroupPolicy, KekPolicy, Spi, TekKeys, TekProtection,
    TekProtocol,
};
use crate::wire::kd::{KeyDownload, KeyPacket, SecretAttribute};
use crate::wire::lkh::{LkhAttribute, LkhDownload, LkhUpdate};
use crate::wire::registry::KdType;
use crate::wire::{GroupKeys, KeyError, KeyLengths, group_keys, key_download};
use ike::crypto::Secret;
use ike::wire::attribute::Attribute;

const SPI: Spi = 0x0bad_c0de;

fn secret(octets: usize) -> Secret {
    Secret::new(vec![7; octets])
}

fn attribute(class: u16, octets: usize) -> SecretAttribute {
    SecretAttribute::new(class, secret(octets))
}

fn tek_packet(attributes: Vec<SecretAttribute>) -> KeyPacket {
    KeyPacket::Tek { spi: SPI.to_be_bytes().to_vec(), attributes }
}

fn kek_spi() -> [u8; 16] {
    policy().kek.expect("a SAK").spi
}

/// The good KD of the computed sample, changed.
fn changed(change: impl FnOnce(&mut Vec<KeyPacket>)) -> Result<GroupKeys, KeyError> {
    let mut download = key_download(&group_sa());
    change(&mut download.packets);
    group_keys(&policy(), download)
}

/// Keys of one data SA under `protection`, without a rekey SA.
fn tek_keys(
    protection: TekProtection,
    attributes: Vec<SecretAttribute>,
) -> Result<TekKeys, KeyError> {
    let mut policy = policy();
    policy.kek = None;
    policy.teks[0].protection = protection;
    let mut keys = group_keys(&policy, KeyDownload { packets: vec![tek_packet(attributes)] })?;
    Ok(keys.tek_keys.remove(&SPI).expect("the keys that were asked for"))
}

fn protection(
    protocol: TekProtocol,
    transform: u8,
    key_length: Option<u16>,
    authentication: Option<u16>,
) -> TekProtection {
    let mut protection = policy().teks[0].protection.clone();
    protection.protocol = protocol;
    protection.transform = EspTransform(transform);
    protection.key_length = key_length;
    protection.authentication = authentication.map(AuthenticationAlgorithm);
    protection
}

#[test]
fn lengths_of_every_transform() {
    let esp = |transform: EspTransform, bits, mac| {
        KeyLengths::of(&protection(TekProtocol::ESP, transform.0, bits, mac))
    };
    let lengths = |encryption, integrity| Some(KeyLengths { encryption, integrity });
    assert_eq!(esp(EspTransform::DES, None, Some(1)), lengths(8, 16));
    assert_eq!(esp(EspTransform::TRIPLE_DES, None, Some(2)), lengths(24, 20));
    assert_eq!(esp(EspTransform::NULL, None, Some(5)), lengths(0, 32));
    for (bits, octets) in [(128, 16), (192, 24), (256, 32)] {
        assert_eq!(esp(EspTransform::AES_CBC, Some(bits), Some(6)), lengths(octets, 48));
        assert_eq!(esp(EspTransform::AES_CBC, Some(bits), None), lengths(octets, 0));
        assert_eq!(esp(EspTransform::AES_CTR, Some(bits), Some(7)), lengths(octets + 4, 64));
        for ccm in 14..=16 {
            assert_eq!(esp(EspTransform(ccm), Some(bits), None), lengths(octets + 3, 0));
        }
        for gcm in 18..=20 {
            // An authentication attribute beside a combined mode brings no second key.
            assert_eq!(esp(EspTransform(gcm), Some(bits), Some(2)), lengths(octets + 4, 0));
        }
        assert_eq!(esp(EspTransform::NULL_AUTH_AES_GMAC, Some(bits), None), lengths(octets + 4, 0));
    }
    assert_eq!(esp(EspTransform::AES_CBC, None, None), None);
    assert_eq!(esp(EspTransform::AES_CBC, Some(64), None), None);
    assert_eq!(esp(EspTransform(7), None, None), None);
    assert_eq!(esp(EspTransform::TRIPLE_DES, None, Some(3)), None);
    let ah = |transform| KeyLengths::of(&protection(TekProtocol::AH, transform, None, None));
    for (transform, octets) in
        [(2, 16), (3, 20), (5, 32), (6, 48), (7, 64), (11, 20), (12, 28), (13, 36)]
    {
        assert_eq!(ah(transform), lengths(0, octets));
    }
    assert_eq!(ah(4), None);
    assert_eq!(KeyLengths::of(&protection(TekProtocol::IEC_61850, 12, Some(128), None)), None);
}

#[test]
fn keys_must_be_as_long_as_the_transform_demands() {
    let cbc = || protection(TekProtocol::ESP, 12, Some(128), Some(5));
    let length = |class, need, have| Err(KeyError::Length { kind: KdType::TEK, class, need, have });
    let good = TekKeys { encryption: secret(16), integrity: secret(32) };
    assert_eq!(tek_keys(cbc(), vec![attribute(1, 16), attribute(2, 32)]), Ok(good));
    assert_eq!(tek_keys(cbc(), vec![attribute(1, 15), attribute(2, 32)]), length(1, 16, 15));
    assert_eq!(tek_keys(cbc(), vec![attribute(1, 32), attribute(2, 32)]), length(1, 16, 32));
    assert_eq!(tek_keys(cbc(), vec![attribute(1, 16), attribute(2, 20)]), length(2, 32, 20));
    assert_eq!(tek_keys(cbc(), vec![attribute(1, 16)]), length(2, 32, 0));
    assert_eq!(tek_keys(cbc(), vec![attribute(2, 32)]), length(1, 16, 0));
    assert_eq!(tek_keys(cbc(), vec![]), length(1, 16, 0));
    let gcm = || protection(TekProtocol::ESP, 20, Some(128), None);
    assert_eq!(tek_keys(gcm(), vec![attribute(1, 16)]), length(1, 20, 16));
    assert_eq!(tek_keys(gcm(), vec![attribute(1, 20), attribute(2, 20)]), length(2, 0, 20));
    let null = || protection(TekProtocol::ESP, 11, None, Some(2));
    let good = || Ok(TekKeys { encryption: secret(0), integrity: secret(20) });
    assert_eq!(tek_keys(null(), vec![attribute(2, 20)]), good());
    assert_eq!(tek_keys(null(), vec![attribute(1, 0), attribute(2, 20)]), good());
    assert_eq!(tek_keys(null(), vec![attribute(1, 16), attribute(2, 20)]), length(1, 0, 16));
    let unknown = protection(TekProtocol::ESP, 7, None, None);
    assert_eq!(tek_keys(unknown, vec![]), Err(KeyError::UnknownAlgorithm(SPI)));
}

#[test]
fn gmac_keys_in_either_attribute() {
    let gmac = || protection(TekProtocol::ESP, 23, Some(128), None);
    let good = || Ok(TekKeys { encryption: secret(20), integrity: secret(0) });
    assert_eq!(tek_keys(gmac(), vec![attribute(1, 20)]), good());
    assert_eq!(tek_keys(gmac(), vec![attribute(2, 20)]), good());
    let length = KeyError::Length { kind: KdType::TEK, class: 2, need: 0, have: 20 };
    assert_eq!(tek_keys(gmac(), vec![attribute(1, 20), attribute(2, 20)]), Err(length));
}

#[test]
fn authentication_header_keys() {
    let ah = || protection(TekProtocol::AH, 5, None, Some(5));
    let good = || Ok(TekKeys { encryption: secret(0), integrity: secret(32) });
    assert_eq!(tek_keys(ah(), vec![attribute(2, 32)]), good());
    assert_eq!(tek_keys(ah(), vec![attribute(3, 32)]), good());
    let both = tek_keys(ah(), vec![attribute(2, 32), attribute(3, 32)]);
    assert_eq!(both, Err(KeyError::UnknownAttribute { kind: KdType::TEK, class: 3 }));
    let esp = protection(TekProtocol::ESP, 12, Some(128), Some(5));
    let source = tek_keys(esp, vec![attribute(1, 16), attribute(2, 32), attribute(3, 100)]);
    assert_eq!(source, Err(KeyError::UnknownAttribute { kind: KdType::TEK, class: 3 }));
}

#[test]
fn packets_and_policy_match_by_spi() {
    assert!(changed(|_| ()).is_ok());
    // Packet order is free.
    assert_eq!(changed(|packets| packets.reverse()), changed(|_| ()));
    let foreign = |spi: Vec<u8>| {
        let result = changed(|packets| {
            packets.push(KeyPacket::Tek { spi: spi.clone(), attributes: vec![] })
        });
        assert_eq!(result, Err(KeyError::UnannouncedTek(spi)));
    };
    foreign(vec![0, 0, 1, 0]);
    foreign(vec![]);
    foreign(vec![0x0b, 0xad, 0xc0, 0xde, 0]);
    assert_eq!(changed(|packets| drop(packets.remove(1))), Err(KeyError::MissingTek(SPI)));
    assert_eq!(changed(|packets| drop(packets.remove(0))), Err(KeyError::MissingKek));
    assert!(changed(|packets| drop(packets.remove(2))).is_ok_and(|keys| keys.sender_ids.is_none()));
    let foreign = changed(|packets| {
        packets[0] = KeyPacket::Kek { spi: [9; 16], attributes: vec![attribute(1, 32)] }
    });
    assert_eq!(foreign, Err(KeyError::UnannouncedKek(KdType::KEK)));
    let foreign =
        changed(|packets| packets.push(KeyPacket::Lkh { spi: [9; 16], attributes: vec![] }));
    assert_eq!(foreign, Err(KeyError::UnannouncedKek(KdType::LKH)));
    let mut without_sak = policy();
    without_sak.kek = None;
    let result = group_keys(&without_sak, key_download(&group_sa()));
    assert_eq!(result, Err(KeyError::UnannouncedKek(KdType::KEK)));
    assert_eq!(KeyError::MissingTek(SPI).to_string(), "no keys for SPI 0x0badc0de");
}

#[test]
fn packets_occur_once() {
    let repeated = |kind, spi: &[u8]| Err(KeyError::RepeatedPacket { kind, spi: spi.to_vec() });
    let tek = changed(|packets| packets.push(tek_packet(vec![attribute(1, 20)])));
    assert_eq!(tek, repeated(KdType::TEK, &SPI.to_be_bytes()));
    let kek = KeyPacket::Kek { spi: kek_spi(), attributes: vec![attribute(1, 32)] };
    assert_eq!(changed(|packets| packets.push(kek)), repeated(KdType::KEK, &kek_spi()));
    let sid = KeyPacket::Sid {
        attributes: vec![Attribute::short(1u16, 8u16), Attribute::short(2u16, 1u16)],
    };
    assert_eq!(changed(|packets| packets.push(sid)), repeated(KdType::SID, &[]));
    let lkh = || KeyPacket::Lkh { spi: kek_spi(), attributes: vec![] };
    assert_eq!(
        changed(|packets| packets.extend([lkh(), lkh()])),
        repeated(KdType::LKH, &kek_spi())
    );
}

#[test]
fn unknown_packets_and_attributes() {
    let packet = |kind| KeyPacket::Unknown { kind: KdType(kind), spi: vec![], rest: secret(4) };
    assert_eq!(changed(|packets| packets.push(packet(5))), Err(KeyError::UnknownPacket(KdType(5))));
    assert_eq!(
        changed(|packets| packets.push(packet(127))),
        Err(KeyError::UnknownPacket(KdType(127)))
    );
    assert!(changed(|packets| packets.extend([packet(128), packet(128)])).is_ok());
    let gcm = || protection(TekProtocol::ESP, 20, Some(128), None);
    let unknown = tek_keys(gcm(), vec![attribute(1, 20), attribute(4, 1)]);
    assert_eq!(unknown, Err(KeyError::UnknownAttribute { kind: KdType::TEK, class: 4 }));
    assert!(tek_keys(gcm(), vec![attribute(1, 20), attribute(128, 1)]).is_ok());
    let repeated = tek_keys(gcm(), vec![attribute(1, 20), attribute(1, 20)]);
    assert_eq!(repeated, Err(KeyError::RepeatedAttribute { kind: KdType::TEK, class: 1 }));
}

#[test]
fn kek_has_an_initialisation_vector_and_a_key() {
    let kek = |algorithm, key_length, octets| {
        let mut policy = GroupPolicy { teks: vec![], ..policy() };
        let changed = KekPolicy { algorithm, key_length, ..policy.kek.expect("a SAK") };
        let packet = KeyPacket::Kek {
            spi: changed.spi,
            attributes: vec![attribute(1, octets), attribute(2, 294)],
        };
        policy.kek = Some(changed);
        group_keys(&policy, KeyDownload { packets: vec![packet] }).map(|keys| {
            let kek = keys.kek_keys.expect("keys of the rekey SA");
            (kek.algorithm_key.len(), kek.signature_key.map(|key| key.len()))
        })
    };
    for (algorithm, key_length, octets) in
        [(1, None, 16), (2, None, 32), (3, Some(128), 32), (3, Some(192), 40), (3, Some(256), 48)]
    {
        assert_eq!(kek(algorithm, key_length, octets), Ok((octets, Some(294))));
        let short =
            KeyError::Length { kind: KdType::KEK, class: 1, need: octets, have: octets - 1 };
        assert_eq!(kek(algorithm, key_length, octets - 1), Err(short));
    }
    assert!(kek(9, None, 0).is_err());
}

#[test]
fn hierarchies_beside_a_kek_packet() {
    let with =
        |attributes| changed(|packets| packets.push(KeyPacket::Lkh { spi: kek_spi(), attributes }));
    let update = LkhAttribute::Update(LkhUpdate { node: 1, handle: 1, keys: vec![] });
    let keys =
        with(vec![LkhAttribute::Download(LkhDownload::default()), update]).expect("keys that fit");
    assert_eq!(keys.kek_keys.as_ref(), group_sa().kek_keys());
    assert_eq!(keys.lkh, Some(LkhDownload::default()));
    let twice = with(vec![
        LkhAttribute::Download(LkhDownload::default()),
        LkhAttribute::Download(LkhDownload::default()),
    ]);
    assert_eq!(twice, Err(KeyError::RepeatedAttribute { kind: KdType::LKH, class: 1 }));
    let unknown = with(vec![LkhAttribute::Other(attribute(4, 1))]);
    assert_eq!(unknown, Err(KeyError::UnknownAttribute { kind: KdType::LKH, class: 4 }));
}

#[test]
fn sender_identifiers() {
    let sids = |attributes: Vec<Attribute>| {
        let packet = KeyPacket::Sid { attributes };
        let keys = changed(|packets| packets[2] = packet)?;
        let sids = keys.sender_ids.expect("SIDs");
        Ok((sids.bits, sids.values))
    };
    let bits = |value: u16| Attribute::short(1u16, value);
    let value = |octets: &[u8]| Attribute::long(2u16, octets);
    assert_eq!(sids(vec![bits(8), value(&[255])]), Ok((8, vec![255])));
    assert_eq!(
        sids(vec![value(&[0, 0, 1, 0]), bits(16), Attribute::short(2u16, 2u16)]),
        Ok((16, vec![256, 2]))
    );
    assert_eq!(sids(vec![bits(64), value(&[0xff; 8])]), Ok((64, vec![u64::MAX])));
    let refused = |text| Err(KeyError::SenderIds(text));
    assert_eq!(sids(vec![value(&[1])]), refused("no width"));
    assert_eq!(sids(vec![bits(8)]), refused("no SID"));
    assert_eq!(sids(vec![bits(0), value(&[0])]), refused("width out of 1 to 64 bits"));
    assert_eq!(sids(vec![bits(65), value(&[0])]), refused("width out of 1 to 64 bits"));
    assert_eq!(
        sids(vec![Attribute::long(1u16, vec![0, 8]), value(&[0])]),
        refused("width out of 1 to 64 bits")
    );
    assert_eq!(sids(vec![bits(8), value(&[1, 0])]), refused("a SID exceeds its width"));
    assert_eq!(sids(vec![bits(8), value(&[])]), refused("a SID is empty or exceeds 64 bits"));
    assert_eq!(sids(vec![bits(8), value(&[1; 9])]), refused("a SID is empty or exceeds 64 bits"));
    assert_eq!(sids(vec![bits(8), value(&[1]), value(&[0, 1])]), refused("a SID is repeated"));
    let repeated = sids(vec![bits(8), bits(8), value(&[1])]);
    assert_eq!(repeated, Err(KeyError::RepeatedAttribute { kind: KdType::SID, class: 1 }));
    let unknown = sids(vec![bits(8), value(&[1]), Attribute::short(3u16, 0u16)]);
    assert_eq!(unknown, Err(KeyError::UnknownAttribute { kind: KdType::SID, class: 3 }));
}

#[test]
fn errors_hold_no_key() {
    let error =
        changed(|packets| packets[1] = tek_packet(vec![attribute(1, 19)])).expect_err("too short");
    assert_eq!(
        error.to_string(),
        "TEK packet: attribute class 1 has 19 octets, the policy needs 20"
    );
    assert!(!format!("{error:?}").contains("7, 7"));
}
