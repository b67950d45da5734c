//! What a verified push says: deletes, new policy and keys, a new KEK (RFC 6407 §4.4 step 6).
//!
//! Nothing is changed here: the result is complete, or an error with the rekey SA as it was.

use super::kek::KekUnusable;
use super::message::{Deletion, PushPayloads};
use super::open::VerifiedPush;
use super::rekey_sa::RekeySa;
use crate::error::Error;
use crate::event::Transmit;
use crate::group::{GroupSa, KekPolicy};
use crate::lkh::{KeyPath, PathUpdate};
use crate::wire::group_policy;
use crate::wire::kd::{KeyDownload, KeyPacket, SecretAttribute};
use crate::wire::lkh::{LkhAttribute, LkhDownload, LkhUpdate};
use crate::wire::registry::KekKeyAttribute;
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
#[derive(Debug)]
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
}

pub(super) fn apply(sa: &RekeySa, verified: VerifiedPush, legacy: bool) -> Result<Applied, Error> {
    let habit = verified.habit();
    let payloads = verified.read()?;
    let mut deletions = Vec::new();
    for delete in &payloads.deletes {
        deletions.extend(Deletion::read(delete)?);
    }
    let deleted = deletions
        .iter()
        .any(|one| *one == Deletion::Kek(sa.policy.spi) || *one == Deletion::AllKeks);
    let none =
        Applied { deletions, group_sa: None, policy: None, successor: None, deleted, path: None };
    let PushPayloads { policy: Some(policy), keys: Some(keys), .. } = payloads else {
        return Ok(none);
    };
    let mut policy = group_policy(sa.group, &policy)?;
    let stated = policy.kek.clone();
    let rolls = stated.as_ref().is_some_and(|kek| kek.spi != sa.policy.spi);
    let mut path = None;
    let keys = keys.try_map(|keys| {
        let (keys, new_path) = settle_kek(sa, stated.as_ref().filter(|_| rolls), keys)?;
        path = new_path;
        Ok::<_, Error>(keys)
    })?;
    if !rolls && !keys.packets.iter().any(|packet| matches!(packet, KeyPacket::Kek { .. })) {
        // A SAK that only states the current KEK once more needs no key.
        policy.kek = None;
    }
    let mut group_sa = GroupSa::pushed(policy, keys)?;
    if let Some(stated) = &stated {
        // Without a key of its own a new KEK's pushes are verified with the old one.
        let signature_key = rolls.then_some(sa.verifier.der.as_slice());
        group_sa.state_kek(stated, signature_key);
    }
    let successor = match (&stated, group_sa.kek_keys()) {
        (Some(new), Some(keys)) if rolls => {
            let path = path.as_ref().map(KeyPath::duplicate);
            Some(RekeySa::new(sa.group, new, keys, path, 0, legacy)?.with_habit(habit))
        }
        _ => None,
    };
    let path = path.filter(|_| successor.is_none());
    Ok(Applied { group_sa: Some(group_sa), policy: stated, successor, path, ..none })
}

/// Brings the keys of a KEK to the form of a pull: one KEK packet, under the SPI of the SAK.
/// Returns the member's new path through the hierarchy beside it.
fn settle_kek(
    sa: &RekeySa,
    new: Option<&KekPolicy>,
    download: KeyDownload,
) -> Result<(KeyDownload, Option<KeyPath>), Error> {
    let mut packets = Vec::with_capacity(download.packets.len());
    let (mut updates, mut array, mut has_kek) = (Vec::new(), None, false);
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
    let (Some(new), false) = (new, has_kek) else { return Ok((KeyDownload { packets }, held)) };
    let (path, root) = climb(held, &updates)?;
    let key = SecretAttribute::new(KekKeyAttribute::KEK_ALGORITHM_KEY, root);
    packets.push(KeyPacket::Kek { spi: new.spi, attributes: vec![key] });
    Ok((KeyDownload { packets }, path))
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
