//! A group from its octets.

use std::collections::BTreeMap;
use std::sync::Arc;

use gdoi::lkh::KeyTree;
use ike::BootTime;
use ike::crypto::SigningKey;

use super::codec::{push, schedule};
use super::settings;
use crate::group::eviction::TekHolder;
use crate::group::kek::Kek;
use crate::group::rekey_sa::{Abandoned, RekeySa, RetiredKek};
use crate::group::sender_ids::{Holding, SenderIdPool};
use crate::group::{Group, Parts};
use crate::members::registry::{MemberId, Registration, Registry};
use daemon::sealed::codec::{Decoder, StateError};

type Decoded<T> = Result<T, StateError>;

/// Reads a group with what was made for it.
pub(super) fn group(from: &mut Decoder<'_>, now: BootTime) -> Decoded<Group> {
    let config = settings::group(from)?;
    let teks = schedule(from)?;
    let (bits, next) = (from.u16()?, from.u64()?);
    let held = from.list(|from| {
        let identifier = from.u64()?;
        let holder = MemberId { identity: from.identity()?, address: from.address()? };
        let (until, replaced) = (from.option(Decoder::time)?, from.option(Decoder::time)?);
        Ok((identifier, Holding { holder, until, replaced }))
    })?;
    let held: BTreeMap<_, _> = held.into_iter().collect();
    let mut rekey_sa = from.option(|from| rekey_sa(from, now))?;
    let pushes = rekey_sa.as_ref().is_some_and(|rekey_sa| rekey_sa.kek().is_some());
    let mut registry = Registry::default();
    let (mut tek_holders, until) = (BTreeMap::new(), teks.last_end(now));
    for _ in 0..from.count()? {
        let id = MemberId { identity: from.identity()?, address: from.address()? };
        let registration = registration(from)?;
        // Without its KEK a member gets no pushes: it comes by itself.
        if pushes || registration.keys_end.is_some() {
            registry.restore(id, registration);
        } else {
            tek_holders.insert(id, TekHolder { name: registration.name, until });
        }
    }
    if let Some(rekey_sa) = rekey_sa.as_mut().filter(|_| !pushes) {
        let abandoned = std::mem::take(&mut rekey_sa.abandoned).into_iter();
        tek_holders
            .extend(abandoned.map(|(id, entry)| (id, TekHolder { name: entry.name, until })));
    }
    let removed = from.list(|from| from.text().map(str::to_owned))?.into_iter().collect();
    for _ in 0..from.count()? {
        let id = MemberId { identity: from.identity()?, address: from.address()? };
        tek_holders.insert(id, TekHolder { name: from.text()?.into(), until: from.time()? });
    }
    let sender_ids = SenderIdPool::restore(bits, held, next);
    Ok(Group::from_parts(Parts {
        config,
        teks,
        sender_ids,
        rekey_sa,
        registry,
        removed,
        tek_holders,
    }))
}

fn rekey_sa(from: &mut Decoder<'_>, now: BootTime) -> Decoded<RekeySa> {
    let settings = settings::rekey(from)?;
    let legacy = settings.legacy;
    // A key that was loaded once may be used to the end, whatever is thought of its kind today.
    let key = SigningKey::from_pkcs8_der(from.octets()?, true)
        .map_err(|_| from.error("a signing key"))?;
    let mut rekey_sa =
        RekeySa::new(settings, Arc::new(key)).map_err(|_| from.error("a signing key"))?;
    rekey_sa.kek = from.option(|from| kek(from, legacy))?.filter(|kek| kek.ends() > now);
    rekey_sa.retired = from.list(|from| {
        Ok(RetiredKek { last: from.list(push)?, deleted: from.u8()? != 0, at: from.time()? })
    })?;
    for _ in 0..from.count()? {
        let id = MemberId { identity: from.identity()?, address: from.address()? };
        let (name, leaf) = (from.text()?.into(), from.option(Decoder::u16)?);
        rekey_sa.abandoned.insert(id, Abandoned { name, leaf });
    }
    Ok(rekey_sa)
}

fn kek(from: &mut Decoder<'_>, legacy: bool) -> Decoded<Kek> {
    let (policy, key) = (from.kek_policy()?, from.secret()?);
    let (sequence_number, ends, capacity) = (from.u32()?, from.time()?, from.count()?);
    let tree = match from.option(Decoder::secret)? {
        Some(octets) => {
            let tree = KeyTree::import(policy.algorithm, policy.key_length, capacity, &octets);
            Some(tree.map_err(|_| from.error("a key hierarchy"))?)
        }
        None => None,
    };
    let (last, last_at) = (from.option(push)?, from.time()?);
    let kek = Kek::with(policy, key, sequence_number, tree, capacity, ends, legacy);
    let mut kek = kek.map_err(|_| from.error("a KEK"))?;
    if let Some(last) = last {
        kek.restore_last(last, last_at);
    }
    Ok(kek)
}

fn registration(from: &mut Decoder<'_>) -> Decoded<Registration> {
    Ok(Registration {
        name: from.text()?.into(),
        address: from.socket()?,
        local: from.socket()?,
        first: from.time()?,
        last: from.time()?,
        pulls: from.u64()?,
        keys_end: from.option(Decoder::time)?,
        leaf: from.option(Decoder::u16)?,
        acknowledgements: from.u64()?,
        last_acknowledgement: from.option(Decoder::time)?,
        unacknowledged: from.u64()?,
        acknowledged: from.option(|from| Ok((from.array()?, from.u32()?)))?,
    })
}
