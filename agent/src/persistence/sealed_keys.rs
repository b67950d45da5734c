//! The member's sealed state: its keys, beside the description that
//! [`saved`](mod@crate::persistence::state_file) keeps without them.
//!
//! ```text
//! version | description | groups: id | TEKs: SPI, encryption key, integrity key
//!                                    | KEK:  policy, key, public key, number of the last push, end, key path,
//!                                    |       whether the key server announced IP-D3P
//! ```
//!
//! Keys that have ended or were deleted are left out. Points in time of another boot are moved over
//! by the wall clock, which never makes a lifetime longer: a clock that shows a time before the
//! state was written is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use daemon::sealed::codec::{Clock, Decoder, Encoder, StateError};
use daemon::sealed::file::Owner;
use gdoi::group::{GroupAssociatedPolicy, GroupId, GroupPolicy, GroupSa, KekKeys, Spi, TekKeys};
use gdoi::wire::lkh::LkhDownload;
use ike::BootTime;
use ike::crypto::Secret;
use ike::wire::codec::Codec as _;

use crate::persistence::state_file::{Boot, Saved, SavedGroup};

/// Changes when the octets do.
const VERSION: u8 = 3;

/// What the file says about itself.
pub const OWNER: Owner = Owner {
    program: "gdoi-agent",
    magic: b"gdoi-agent state\x01",
    otherwise: "let it be replaced when new keys come",
};

/// A rekey SA as a pull would deliver it, and when it ends.
#[derive(Debug)]
pub struct KeptKek {
    pub sa: GroupSa,
    pub end: BootTime,
}

/// All that the sealed state holds.
#[derive(Debug)]
pub struct Unsealed {
    saved: Saved,
    keys: BTreeMap<u32, GroupKeys>,
}

/// Keys of one group.
#[derive(Debug, Default)]
pub struct GroupKeys {
    teks: BTreeMap<Spi, TekKeys>,
    /// The rekey SA, if the key server pushes.
    pub kek: Option<KeptKek>,
}

impl Unsealed {
    /// Takes description and keys of a group out.
    pub fn take(&mut self, id: u32) -> Option<(SavedGroup, GroupKeys)> {
        let position = self.saved.groups.iter().position(|group| group.id == id)?;
        Some((self.saved.groups.remove(position), self.keys.remove(&id)?))
    }

    /// Ids of the groups that nobody took out.
    pub fn left(&self) -> impl Iterator<Item = u32> {
        self.saved.groups.iter().map(|group| group.id)
    }
}

impl GroupKeys {
    /// Keys of this TEK.
    pub fn tek(&self, spi: Spi) -> Option<TekKeys> {
        self.teks.get(&spi).map(TekKeys::duplicate)
    }
}

/// What is sealed of one group.
#[derive(Debug)]
pub struct GroupSecrets<'k> {
    pub id: GroupId,
    /// TEKs with lifetime left.
    pub teks: BTreeMap<Spi, &'k TekKeys>,
    /// The rekey SA, if the key server pushes.
    pub kek: Option<Arc<KeptKek>>,
}

impl GroupSecrets<'_> {
    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.teks.is_empty() && self.kek.is_none()
    }
}

/// The octets of a description of the groups and their keys.
pub fn encode<'k>(
    description: &[u8],
    groups: impl ExactSizeIterator<Item = GroupSecrets<'k>>,
) -> Secret {
    let mut out = Encoder::default();
    out.u8(VERSION);
    out.octets(description);
    out.count(groups.len());
    for GroupSecrets { id, teks, kek } in groups {
        out.u32(id.0);
        out.count(teks.len());
        for (spi, keys) in &teks {
            out.u32(*spi);
            out.octets(keys.encryption.expose());
            out.octets(keys.integrity.expose());
        }
        if !kek.is_some_and(|kek| encode_kek(&mut out, &kek.sa, kek.end)) {
            out.u8(0);
        }
    }
    out.finish()
}

/// Writes a KEK as something that may be missing; if it is, that is left to the caller.
fn encode_kek(out: &mut Encoder, sa: &GroupSa, end: BootTime) -> bool {
    let (Some(policy), Some(keys)) = (&sa.policy().kek, sa.kek_keys()) else { return false };
    out.u8(1);
    out.kek_policy(policy);
    out.octets(keys.algorithm_key.expose());
    out.option(keys.signature_key.as_deref(), Encoder::octets);
    out.u32(sa.last_sequence_number());
    out.time(end);
    let path = sa.key_path().and_then(|path| path.to_octets().ok()).map(Secret::new);
    out.option(path, |out, path| out.octets(path.expose()));
    out.u8(sa.announces_delay_detection().into());
    true
}

/// What [`encode`] wrote, with its points in time on the clock of this boot.
///
/// # Errors
/// The octets are no state of this version.
pub fn decode(octets: &Secret, boot: Boot, clock: Clock) -> Result<Unsealed, StateError> {
    let mut from = Decoder::new(octets.expose(), clock);
    if from.u8()? != VERSION {
        return Err(from.error("another version of gdoi-agent"));
    }
    let saved = Saved::from_octets(from.octets()?).ok().flatten();
    let saved = saved.ok_or_else(|| from.error("a description of the groups"))?;
    let saved = saved.on_clock(boot, |time| clock.translate(time));
    let mut keys = BTreeMap::new();
    for _ in 0..from.count()? {
        let id = from.u32()?;
        let teks = from.list(|from| {
            let spi = from.u32()?;
            Ok((spi, TekKeys { encryption: from.secret()?, integrity: from.secret()? }))
        })?;
        let kek = from.option(|from| kept_kek(from, id))?;
        keys.insert(id, GroupKeys { teks: teks.into_iter().collect(), kek });
    }
    from.finish()?;
    Ok(Unsealed { saved, keys })
}

fn kept_kek(from: &mut Decoder<'_>, group: u32) -> Result<KeptKek, StateError> {
    let kek = Some(from.kek_policy()?);
    let policy = GroupPolicy {
        group: GroupId(group),
        kek,
        gap: GroupAssociatedPolicy::default(),
        teks: Vec::new(),
    };
    let algorithm_key = from.secret()?;
    let signature_key = from.option(|from| from.octets().map(<[u8]>::to_vec))?;
    let number = from.u32()?;
    let end = from.time()?;
    let path = from.option(|from| {
        let octets = from.octets()?;
        LkhDownload::decode(octets).map_err(|_| from.error("a key path"))
    })?;
    let announced = from.u8()? != 0;
    let keys = KekKeys { algorithm_key, signature_key };
    let sa = GroupSa::from_sealed(policy, keys, number).announcing_delay_detection(announced);
    Ok(KeptKek { sa: with_path(sa, path), end })
}

fn with_path(sa: GroupSa, path: Option<LkhDownload>) -> GroupSa {
    match path {
        Some(path) => sa.with_key_path(path),
        None => sa,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gdoi::group::KekPolicy;
    use gdoi::wire::lkh::LkhKey;

    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn rekey_sa(path: bool) -> GroupSa {
        let kek = KekPolicy {
            spi: [7; 16],
            protocol: 17,
            source: std::net::SocketAddr::from(([10, 0, 11, 1], 848)).into(),
            destination: std::net::SocketAddr::from(([239, 192, 1, 1], 848)).into(),
            algorithm: 3,
            key_length: Some(128),
            lifetime: Duration::from_secs(86_400),
            signature_hash: Some(3),
            signature_algorithm: 4,
            signature_key_length: None,
            acknowledgement: Some(2),
        };
        let gap = GroupAssociatedPolicy::default();
        let policy = GroupPolicy { group: GroupId(9), kek: Some(kek), gap, teks: Vec::new() };
        let keys =
            KekKeys { algorithm_key: Secret::new(vec![1; 32]), signature_key: Some(vec![2; 91]) };
        let sa = GroupSa::from_sealed(policy, keys, 77).announcing_delay_detection(path);
        let key = |node: u16| LkhKey {
            node,
            algorithm: 3,
            creation: 0,
            expiration: 0,
            handle: u32::from(node) + 100,
            data: Secret::new(vec![node.to_be_bytes()[1]; 32]),
        };
        with_path(sa, path.then(|| LkhDownload { keys: [5, 2, 1].map(key).into() }))
    }

    /// No group described, one with keys.
    fn octets(path: bool) -> Secret {
        let description = Saved::new([1; 16], Vec::new()).to_octets().unwrap();
        let keys =
            TekKeys { encryption: Secret::new(vec![3; 16]), integrity: Secret::new(vec![4; 32]) };
        let kek = Some(Arc::new(KeptKek { sa: rekey_sa(path), end: at(500) }));
        let group = GroupSecrets { id: GroupId(9), teks: [(0x1000, &keys)].into(), kek };
        encode(&description, [group].into_iter())
    }

    #[test]
    fn keys_come_back_with_their_kek_and_its_path() {
        for path in [false, true] {
            let mut unsealed = decode(&octets(path), [2; 16], Clock::same(at(0))).unwrap();
            let keys = unsealed.keys.remove(&9).unwrap();
            let tek = keys.tek(0x1000).unwrap();
            assert_eq!(
                (tek.encryption, tek.integrity),
                (Secret::new(vec![3; 16]), Secret::new(vec![4; 32]))
            );
            assert_eq!(keys.tek(0x1001), None);
            let KeptKek { sa, end } = keys.kek.unwrap();
            assert_eq!((sa, end), (rekey_sa(path), at(500)));
        }
    }

    #[test]
    fn cut_or_overlong_octets_are_refused_at_every_place() {
        let whole = octets(true);
        let whole = whole.expose();
        let refused = |octets: &[u8]| {
            decode(&Secret::copy_from(octets), [2; 16], Clock::same(at(0))).is_err()
        };
        assert!((0..whole.len()).all(|length| refused(&whole[..length])));
        assert!(refused(&[whole, &[0]].concat()));
        assert!(refused(&[&[VERSION + 1], &whole[1..]].concat()), "another version");
    }

    #[test]
    fn points_in_time_follow_the_clock() {
        let (elapsed, certain) = (Duration::from_secs(60), None);
        let clock = Clock { written: at(100), now: at(30), elapsed, certain };
        let unsealed = decode(&octets(false), [2; 16], clock).unwrap();
        assert_eq!(unsealed.keys[&9].kek.as_ref().unwrap().end, at(30 + 400 - 60));
    }
}
