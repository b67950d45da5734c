//! The KD payload as keys of an announced policy, and back (RFC 6407 §5.6).
//!
//! Keys and policy meet by SPI (RFC 6407 §3.3). Every SAT must get its keys and no key may come
//! without a SAT, each as long as its transform demands, before anything of it can leave towards
//! the kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::kd::{KeyDownload, KeyPacket, SecretAttribute};
use super::lengths::{KeyLengths, is_combined, kek_octets};
use super::lkh::{LkhAttribute, LkhDownload, LkhKey};
use super::registry::{KdType, KekAlgorithm, KekKeyAttribute, SidAttribute, TekKeyAttribute};
use crate::group::proof::FromKeyServer;
use crate::group::{
    GroupKeys, GroupPolicy, GroupSa, IssuedSa, KekKeys, KekPolicy, SenderIds, Spi, TekKeys,
    TekProtection, TekProtocol,
};
use ike::crypto::Secret;
use ike::wire::attribute::Attribute;

/// An SPI of any length, as `ip xfrm` writes one of four octets.
fn hexadecimal(spi: &[u8]) -> String {
    spi.iter().fold(String::from("0x"), |text, octet| format!("{text}{octet:02x}"))
}

/// Why keys do not fit the policy they came with. No variant holds key octets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages explain the fields")]
pub enum KeyError {
    /// A TEK packet whose SPI no SAT announced.
    #[error("keys for SPI {}, which no SAT announced", hexadecimal(.0))]
    UnannouncedTek(Vec<u8>),
    /// A KEK or LKH packet whose SPI no SAK announced.
    #[error("{0} packet with an SPI that no SAK announced")]
    UnannouncedKek(KdType),
    /// A SAT without keys.
    #[error("no keys for SPI {0:#010x}")]
    MissingTek(Spi),
    /// A SAK without keys.
    #[error("no keys for the rekey SA")]
    MissingKek,
    /// A second packet for one SPI, or a second packet of a type that may occur once.
    #[error("{kind} packet for SPI {} occurs more than once", hexadecimal(.spi))]
    RepeatedPacket { kind: KdType, spi: Vec<u8> },
    /// A packet type that is not understood.
    #[error("key packet type {0} is not understood")]
    UnknownPacket(KdType),
    /// An attribute that is not understood.
    #[error("{kind} packet: attribute class {class} is not understood")]
    UnknownAttribute { kind: KdType, class: u16 },
    /// A second attribute of a class that may occur once.
    #[error("{kind} packet: attribute class {class} occurs more than once")]
    RepeatedAttribute { kind: KdType, class: u16 },
    /// A key of the wrong length; 0 is no key at all.
    #[error("{kind} packet: attribute class {class} has {have} octets, the policy needs {need}")]
    Length {
        kind: KdType,
        class: u16,
        /// Octets the policy demands.
        need: usize,
        have: usize,
    },
    /// Algorithms whose key lengths nothing here knows.
    #[error("the algorithms of SPI {0:#010x} are not understood")]
    UnknownAlgorithm(Spi),
    /// SIDs without a width, a width out of 1 to 64 bits, no SID, one that is too wide, or one
    /// that is repeated.
    #[error("SID packet: {0}")]
    SenderIds(&'static str),
}

impl GroupSa {
    /// What a member received in a pull.
    ///
    /// # Errors
    /// The keys are not those of the policy.
    pub(crate) fn received(
        policy: GroupPolicy,
        keys: FromKeyServer<KeyDownload>,
        sequence_number: Option<u32>,
    ) -> Result<Self, KeyError> {
        let keys = keys.try_map(|keys| group_keys(&policy, keys))?;
        Ok(Self::from_key_server(policy, keys, sequence_number))
    }

    /// What a member received in a push.
    ///
    /// # Errors
    /// The keys are not those of the policy.
    pub(crate) fn pushed(
        policy: GroupPolicy,
        keys: FromKeyServer<KeyDownload>,
    ) -> Result<Self, KeyError> {
        Self::received(policy, keys, None)
    }
}

/// The keys of `policy` from `download`, complete and of the right lengths.
pub fn group_keys(policy: &GroupPolicy, download: KeyDownload) -> Result<GroupKeys, KeyError> {
    let protections: BTreeMap<Spi, &TekProtection> =
        policy.teks.iter().map(|tek| (tek.spi, &tek.protection)).collect();
    let mut keys = GroupKeys::default();
    let mut lkh = None;
    for packet in download.packets {
        let (kind, repeated) = (
            packet.kind(),
            KeyError::RepeatedPacket { kind: packet.kind(), spi: packet.spi().to_vec() },
        );
        let fresh = match packet {
            KeyPacket::Tek { spi, attributes } => {
                let number = <[u8; 4]>::try_from(spi.as_slice()).map(Spi::from_be_bytes).ok();
                let announced = number.and_then(|number| Some((number, protections.get(&number)?)));
                let (number, protection) = announced.ok_or(KeyError::UnannouncedTek(spi))?;
                keys.tek_keys.insert(number, read_tek(number, protection, attributes)?).is_none()
            }
            KeyPacket::Kek { spi, attributes } => {
                let kek = announced_kek(policy, spi, kind)?;
                keys.kek_keys.replace(read_kek(kek, attributes)?).is_none()
            }
            KeyPacket::Lkh { spi, attributes } => {
                announced_kek(policy, spi, kind)?;
                lkh.replace(attributes).is_none()
            }
            KeyPacket::Sid { attributes } => {
                keys.sender_ids.replace(read_sids(&attributes)?).is_none()
            }
            KeyPacket::Unknown { kind, .. } if is_private(kind.0.into()) => true,
            KeyPacket::Unknown { kind, .. } => return Err(KeyError::UnknownPacket(kind)),
        };
        if !fresh {
            return Err(repeated);
        }
    }
    if let (Some(attributes), Some(kek)) = (lkh, &policy.kek) {
        read_lkh(kek, attributes, &mut keys)?;
    }
    if let Some(missing) = protections.keys().find(|spi| !keys.tek_keys.contains_key(spi)) {
        return Err(KeyError::MissingTek(*missing));
    }
    if policy.kek.is_some() && keys.kek_keys.is_none() {
        return Err(KeyError::MissingKek);
    }
    Ok(keys)
}

/// The KD payload that distributes the keys of `sa`: KEK, the path of the key hierarchy, TEKs in
/// order of their policy, SIDs.
pub fn key_download(sa: &IssuedSa) -> KeyDownload {
    let mut packets = Vec::new();
    if let (Some(policy), Some(keys)) = (&sa.policy().kek, sa.kek_keys()) {
        let key = SecretAttribute::new(
            KekKeyAttribute::KEK_ALGORITHM_KEY,
            keys.algorithm_key.duplicate(),
        );
        let signature_key = keys.signature_key.as_deref().map(|octets| {
            SecretAttribute::new(KekKeyAttribute::SIG_ALGORITHM_KEY, Secret::copy_from(octets))
        });
        packets.push(KeyPacket::Kek {
            spi: policy.spi,
            attributes: [key].into_iter().chain(signature_key).collect(),
        });
    }
    if let (Some(policy), Some(path)) = (&sa.policy().kek, sa.key_path()) {
        let keys = path.keys.iter().map(LkhKey::duplicate).collect();
        let attributes = vec![LkhAttribute::Download(LkhDownload { keys })];
        packets.push(KeyPacket::Lkh { spi: policy.spi, attributes });
    }
    let mut done = BTreeSet::new();
    for tek in &sa.policy().teks {
        if !done.insert(tek.spi) {
            continue;
        }
        if let Some(keys) = sa.tek_keys().get(&tek.spi) {
            packets.push(write_tek(tek.spi, keys));
        }
    }
    packets.extend(sa.sender_ids().map(write_sids));
    KeyDownload { packets }
}

fn read_tek(
    spi: Spi,
    protection: &TekProtection,
    attributes: Vec<SecretAttribute>,
) -> Result<TekKeys, KeyError> {
    let lengths = KeyLengths::of(protection).ok_or(KeyError::UnknownAlgorithm(spi))?;
    let [mut encryption, mut integrity, source_authentication] = by_class(
        KdType::TEK,
        attributes,
        [
            TekKeyAttribute::TEK_ALGORITHM_KEY.0,
            TekKeyAttribute::TEK_INTEGRITY_KEY.0,
            TekKeyAttribute::TEK_SOURCE_AUTH_KEY.0,
        ],
    )?;
    let class = TekKeyAttribute::TEK_SOURCE_AUTH_KEY.0;
    match source_authentication {
        // One implementation sends the key of AH in this class.
        Some(key) if protection.protocol == TekProtocol::AH && integrity.is_none() => {
            integrity = Some(key)
        }
        Some(_) => return Err(KeyError::UnknownAttribute { kind: KdType::TEK, class }),
        None => {}
    }
    // RFC 6407 §5.6.1.2 counts GMAC keys as integrity keys, RFC 4543 lays them out as encryption
    // keys.
    if is_combined(protection.transform)
        && protection.protocol == TekProtocol::ESP
        && encryption.is_none()
    {
        encryption = integrity.take();
    }
    let exact = |key: Option<Secret>, class: TekKeyAttribute, need: usize| {
        let key = key.unwrap_or_else(|| Secret::new(Vec::new()));
        match key.len() == need {
            true => Ok(key),
            false => {
                Err(KeyError::Length { kind: KdType::TEK, class: class.0, need, have: key.len() })
            }
        }
    };
    Ok(TekKeys {
        encryption: exact(encryption, TekKeyAttribute::TEK_ALGORITHM_KEY, lengths.encryption)?,
        integrity: exact(integrity, TekKeyAttribute::TEK_INTEGRITY_KEY, lengths.integrity)?,
    })
}

fn write_tek(spi: Spi, keys: &TekKeys) -> KeyPacket {
    let attribute = |class: TekKeyAttribute, key: &Secret| {
        (!key.is_empty()).then(|| SecretAttribute::new(class, key.duplicate()))
    };
    let encryption = attribute(TekKeyAttribute::TEK_ALGORITHM_KEY, &keys.encryption);
    let integrity = attribute(TekKeyAttribute::TEK_INTEGRITY_KEY, &keys.integrity);
    KeyPacket::Tek {
        spi: spi.to_be_bytes().to_vec(),
        attributes: encryption.into_iter().chain(integrity).collect(),
    }
}

fn announced_kek(
    policy: &GroupPolicy,
    spi: [u8; 16],
    kind: KdType,
) -> Result<&KekPolicy, KeyError> {
    policy.kek.as_ref().filter(|kek| kek.spi == spi).ok_or(KeyError::UnannouncedKek(kind))
}

fn read_kek(kek: &KekPolicy, attributes: Vec<SecretAttribute>) -> Result<KekKeys, KeyError> {
    let classes = [KekKeyAttribute::KEK_ALGORITHM_KEY.0, KekKeyAttribute::SIG_ALGORITHM_KEY.0];
    let [key, signature_key] = by_class(KdType::KEK, attributes, classes)?;
    let key = key.unwrap_or_else(|| Secret::new(Vec::new()));
    Ok(KekKeys {
        algorithm_key: exact_kek(kek, KdType::KEK, KekKeyAttribute::KEK_ALGORITHM_KEY.0, key)?,
        signature_key: signature_key.map(|key| key.expose().to_vec()),
    })
}

/// The root of the download array is the KEK (RFC 6407 §5.6.3.1); a KEK packet beside it takes
/// precedence.
fn read_lkh(
    kek: &KekPolicy,
    attributes: Vec<LkhAttribute>,
    keys: &mut GroupKeys,
) -> Result<(), KeyError> {
    let (mut download, mut others) = (None, Vec::new());
    let kind = KdType::LKH;
    for attribute in attributes {
        match attribute {
            LkhAttribute::Download(array) => {
                if download.replace(array).is_some() {
                    return Err(KeyError::RepeatedAttribute { kind, class: 1 });
                }
            }
            // Without a key to decrypt it, an update says nothing: its place is a push.
            LkhAttribute::Update(_) => {}
            LkhAttribute::Other(attribute) => others.push(attribute),
        }
    }
    let [signature_key] =
        by_class(kind, others, [super::registry::LkhAttributeClass::SIG_ALGORITHM_KEY.0])?;
    if let (None, Some(root)) =
        (&keys.kek_keys, download.as_ref().and_then(|array| array.keys.last()))
    {
        keys.kek_keys = Some(KekKeys {
            algorithm_key: exact_kek(kek, kind, 1, root.data.duplicate())?,
            signature_key: signature_key.map(|key| key.expose().to_vec()),
        });
    }
    keys.lkh = download;
    Ok(())
}

fn exact_kek(kek: &KekPolicy, kind: KdType, class: u16, key: Secret) -> Result<Secret, KeyError> {
    let need = kek_octets(KekAlgorithm(kek.algorithm), kek.key_length).unwrap_or_default();
    match need != 0 && key.len() == need {
        true => Ok(key),
        false => Err(KeyError::Length { kind, class, need, have: key.len() }),
    }
}

/// The values of `classes`, each at most once; private-use classes are left aside, others refused.
fn by_class<const N: usize>(
    kind: KdType,
    attributes: Vec<SecretAttribute>,
    classes: [u16; N],
) -> Result<[Option<Secret>; N], KeyError> {
    let mut found = [const { None }; N];
    for attribute in attributes {
        let class = attribute.class;
        let place =
            classes.iter().position(|known| *known == class).and_then(|place| found.get_mut(place));
        match place {
            Some(slot @ None) => *slot = Some(attribute.value),
            Some(_) => return Err(KeyError::RepeatedAttribute { kind, class }),
            None if is_private(class) => {}
            None => return Err(KeyError::UnknownAttribute { kind, class }),
        }
    }
    Ok(found)
}

fn read_sids(attributes: &[Attribute]) -> Result<SenderIds, KeyError> {
    let (mut bits, mut values) = (None, Vec::new());
    for attribute in attributes {
        match SidAttribute(attribute.class) {
            SidAttribute::NUMBER_OF_SID_BITS => {
                let width = attribute.as_basic().filter(|width| (1..=64).contains(width));
                let width = width.ok_or(KeyError::SenderIds("width out of 1 to 64 bits"))?;
                if bits.replace(width).is_some() {
                    return Err(KeyError::RepeatedAttribute {
                        kind: KdType::SID,
                        class: attribute.class,
                    });
                }
            }
            SidAttribute::SID_VALUE => {
                values.push(
                    attribute
                        .as_number()
                        .ok_or(KeyError::SenderIds("a SID is empty or exceeds 64 bits"))?,
                );
            }
            SidAttribute(class) if is_private(class) => {}
            SidAttribute(class) => {
                return Err(KeyError::UnknownAttribute { kind: KdType::SID, class });
            }
        }
    }
    let bits = bits.ok_or(KeyError::SenderIds("no width"))?;
    if values.is_empty() {
        return Err(KeyError::SenderIds("no SID"));
    }
    if values.iter().any(|value| value.checked_shr(bits.into()).unwrap_or(0) != 0) {
        return Err(KeyError::SenderIds("a SID exceeds its width"));
    }
    if values.iter().collect::<BTreeSet<_>>().len() != values.len() {
        return Err(KeyError::SenderIds("a SID is repeated"));
    }
    Ok(SenderIds { bits, values })
}

fn write_sids(sender_ids: &SenderIds) -> KeyPacket {
    let value = |value: &u64| {
        let octets = value.to_be_bytes();
        // Two and four octets are what existing members accept.
        let width = if sender_ids.bits <= 16 {
            2
        } else if sender_ids.bits <= 32 {
            4
        } else {
            8
        };
        Attribute::long(
            SidAttribute::SID_VALUE,
            octets.get(octets.len().saturating_sub(width)..).unwrap_or_default(),
        )
    };
    let bits = Attribute::short(SidAttribute::NUMBER_OF_SID_BITS, sender_ids.bits);
    KeyPacket::Sid {
        attributes: core::iter::once(bits).chain(sender_ids.values.iter().map(value)).collect(),
    }
}

/// Private use: 128 to 255 for packet types and for most attribute classes (RFC 6407 §5.6).
fn is_private(number: u16) -> bool {
    (128..=255).contains(&number)
}
