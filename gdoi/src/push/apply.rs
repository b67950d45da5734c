//! What a verified push says: deletes, new policy and keys, a new KEK (RFC 6407 §4.4 step 6).
//!
//! Nothing is changed here: the result is complete, or an error with the rekey SA as it was.

use super::member::RekeySettings;
use super::message::{Deletion, PushPayloads};
use super::open::VerifiedPush;
use super::rekey_sa::RekeySa;
use crate::delay_detection;
use crate::error::Error;
use crate::event::Transmit;
use crate::group::{GroupSa, KekPolicy};
use crate::kek_cipher::{KekUnusable, Verifier};
use crate::lkh::{KeyPath, PathUpdate};
use crate::wire::KeyError;
use crate::wire::group_policy;
use crate::wire::kd::{KeyDownload, KeyPacket, SecretAttribute};
use crate::wire::lkh::{LkhAttribute, LkhDownload, LkhUpdate};
use crate::wire::registry::{KdType, KekKeyAttribute, LkhAttributeClass};
use ike::crypto::Secret;

/// What became of the KEK by a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KekChange {
    /// Pushes go on under the KEK they came under.
    Unchanged,
    /// Pushes come under a new one from now on.
    Replaced {
        /// SPI of the old KEK.
        old: [u8; 16],
        /// SPI of the new one.
        new: [u8; 16],
    },
    /// It is gone without a successor: only a new registration gives the member keys again (RFC
    /// 6407 §3.5).
    Deleted,
}

/// A push that was verified and understood, for the caller to carry out: deletes first, then the
/// new SAs.
#[derive(Debug, PartialEq, Eq)]
pub struct PushAccepted {
    /// Number of the push under its KEK.
    pub sequence_number: u32,
    /// SAs to delete, in the order stated. With a deactivation delay in `group_sa` the replaced
    /// ones stay for receiving.
    pub deletions: Vec<Deletion>,
    /// Policy and keys of data SAs, and the group's delays. TEKs that are in use already may be
    /// among them.
    pub group_sa: Option<GroupSa>,
    /// What became of the KEK.
    pub kek: KekChange,
    /// To be sent once the push has been carried out (RFC 8263 §4). Copies of the push get it again
    /// by themselves.
    pub acknowledgement: Option<Transmit>,
}

/// A push in parts, before its rekey SA moves.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) deletions: Vec<Deletion>,
    pub(super) group_sa: Option<GroupSa>,
    /// The SAK of the push, if it had one.
    pub(super) policy: Option<KekPolicy>,
    /// The rekey SA of a new KEK.
    pub(super) successor: Option<RekeySa>,
    /// Whether the KEK that encrypted the push is deleted.
    pub(super) deleted: bool,
    /// A new path through the hierarchy, under the same KEK.
    pub(super) path: Option<KeyPath>,
    /// A new public key for the pushes under the same KEK.
    pub(super) verifier: Option<Verifier>,
}

/// The keys of a KEK as a push brings them, in the form of a pull.
struct SettledKek {
    /// With one KEK packet, under the SPI of the SAK.
    keys: KeyDownload,
    /// The member's new path through the hierarchy.
    path: Option<KeyPath>,
    /// SIG_ALGORITHM_KEY of the LKH packet (RFC 6407 §5.6.3.3).
    signature_key: Option<Vec<u8>>,
}

pub(super) fn apply(
    sa: &RekeySa,
    verified: VerifiedPush,
    settings: &RekeySettings,
) -> Result<Applied, Error> {
    let legacy = settings.legacy;
    let encoding = verified.signature_encoding();
    let payloads = verified.read()?;
    let mut deletions = Vec::new();
    for delete in &payloads.deletes {
        deletions.extend(Deletion::read(delete)?);
    }
    let deleted = deletions
        .iter()
        .any(|one| *one == Deletion::Kek(sa.policy.spi) || *one == Deletion::AllKeks);
    let said = Applied { deletions, deleted, ..Applied::default() };
    let announced =
        sa.announces_delay_detection || delay_detection::is_announced(&payloads.vendor_ids);
    let PushPayloads { policy: Some(policy), keys: Some(keys), .. } = payloads else {
        return Ok(said);
    };
    delay_detection::check(announced, &policy)?;
    let mut policy = group_policy(sa.group, &policy.with_selectors(settings.selector_byte_order))?;
    let stated = policy.kek.clone();
    let rolls = stated.as_ref().is_some_and(|kek| kek.spi != sa.policy.spi);
    let (mut path, mut lkh_signature_key) = (None, None);
    let keys = keys.try_map(|keys| {
        let settled = settle_kek(sa, stated.as_ref().filter(|_| rolls), keys)?;
        (path, lkh_signature_key) = (settled.path, settled.signature_key);
        Ok::<_, Error>(settled.keys)
    })?;
    if !rolls && !keys.packets.iter().any(|packet| matches!(packet, KeyPacket::Kek { .. })) {
        // A SAK that only states the current KEK once more needs no key.
        policy.kek = None;
    }
    let mut group_sa = GroupSa::pushed(policy, keys)?;
    if let Some(stated) = &stated {
        // Without a key of its own a new KEK's pushes are verified with the old one.
        let stays = lkh_signature_key.as_ref().unwrap_or(&sa.verifier.der);
        group_sa.state_kek(stated, rolls.then_some(stays));
    }
    // Stated once more with the KEK in use, the public key may be another one from now on.
    let restated = group_sa.kek_keys().and_then(|keys| keys.signature_key.as_ref());
    let changed_key = restated.or(lkh_signature_key.as_ref()).filter(|_| !rolls);
    let verifier = match (&stated, changed_key) {
        (Some(kek), Some(der)) => Some(Verifier::new(kek, Some(der), legacy)?),
        _ => None,
    };
    let successor = match (&stated, group_sa.kek_keys()) {
        (Some(new), Some(keys)) if rolls => {
            let path = path.as_ref().map(KeyPath::duplicate);
            Some(RekeySa::new(sa.group, new, keys, path, 0, legacy)?.succeeding(sa, encoding))
        }
        _ => None,
    };
    let path = path.filter(|_| successor.is_none());
    Ok(Applied { group_sa: Some(group_sa), policy: stated, successor, path, verifier, ..said })
}

/// Brings the keys of a KEK to the form of a pull.
fn settle_kek(
    sa: &RekeySa,
    new: Option<&KekPolicy>,
    download: KeyDownload,
) -> Result<SettledKek, Error> {
    let mut packets = Vec::with_capacity(download.packets.len());
    let (mut updates, mut array, mut has_kek) = (Vec::new(), None, false);
    let mut signature_key = None;
    for packet in download.packets {
        match packet {
            // One implementation sends the keys of a new KEK under the SPI of the old one.
            KeyPacket::Kek { spi, attributes } => {
                has_kek = true;
                let spi = new.filter(|_| spi == sa.policy.spi).map_or(spi, |new| new.spi);
                packets.push(KeyPacket::Kek { spi, attributes });
            }
            KeyPacket::Lkh { attributes, .. } => {
                for attribute in attributes {
                    match attribute {
                        LkhAttribute::Update(update) => updates.push(update),
                        LkhAttribute::Download(download) => array = Some(download),
                        LkhAttribute::Other(key) if key.class == SIG_ALGORITHM_KEY => {
                            if signature_key.replace(key.value.expose().to_vec()).is_some() {
                                let (kind, class) = (KdType::LKH, key.class);
                                return Err(KeyError::RepeatedAttribute { kind, class }.into());
                            }
                        }
                        LkhAttribute::Other(_) => {}
                    }
                }
            }
            other => packets.push(other),
        }
    }
    let held = match array {
        Some(array) => new_path(sa, new, &array)?,
        None => sa.path.as_ref().map(KeyPath::duplicate),
    };
    let (Some(new), false) = (new, has_kek) else {
        return Ok(SettledKek { keys: KeyDownload { packets }, path: held, signature_key });
    };
    let (path, root) = climb(held, &updates)?;
    let key = SecretAttribute::new(KekKeyAttribute::KEK_ALGORITHM_KEY, root);
    packets.push(KeyPacket::Kek { spi: new.spi, attributes: vec![key] });
    Ok(SettledKek { keys: KeyDownload { packets }, path, signature_key })
}

fn new_path(
    sa: &RekeySa,
    new: Option<&KekPolicy>,
    array: &LkhDownload,
) -> Result<Option<KeyPath>, Error> {
    let policy = new.unwrap_or(&sa.policy);
    Ok(KeyPath::new(policy.algorithm, policy.key_length, array)?)
}

/// Follows the hierarchy to the new KEK.
fn climb(held: Option<KeyPath>, updates: &[LkhUpdate]) -> Result<(Option<KeyPath>, Secret), Error> {
    let mut path = held.ok_or(KekUnusable::Excluded)?;
    let update: PathUpdate = path.open(updates)?;
    let root = update.root().map(Secret::duplicate).ok_or(KekUnusable::Excluded)?;
    path.accept(update);
    Ok((Some(path), root))
}

const SIG_ALGORITHM_KEY: u16 = LkhAttributeClass::SIG_ALGORITHM_KEY.0;
