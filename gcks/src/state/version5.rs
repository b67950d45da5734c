//! The state as version 5 wrote it, one text of octets for everything: read once, when a server is
//! updated. Nothing writes it any more.

use std::collections::BTreeMap;

use daemon::sealed::codec::{Clock, Decoder};
use gdoi::group::KekPolicy;
use gdoi::lkh::KeyTree;
use ike::BootTime;
use ike::crypto::Secret;

use super::codec::schedule;
use super::restore::{Decoded, Written, abandoned, holding, registration, rekey_sa};
use super::settings::{self, Members};
use super::{Form, Restored, pending};
use crate::group::Group;
use crate::group::eviction::TekHolder;
use crate::group::fresh_counters::FreshCounters;
use crate::group::sender_ids::SenderIdPool;
use crate::members::registry::MemberId;

const VERSION: u8 = 5;

pub(super) fn decode(
    octets: &Secret,
    clock: Clock,
    members: &Members<'_>,
    now: BootTime,
) -> Decoded<Restored> {
    let mut from = Decoder::new(octets.expose(), clock);
    if from.u8()? != VERSION {
        return Err(from.error("another version of gcks"));
    }
    let restored = Restored {
        members: from.list(|from| settings::member(from, members, Form::Version5))?,
        groups: from.list(|from| group(from, now))?,
        offers: from.list(|from| Ok((from.address()?, from.octets()?.to_vec())))?,
        pending: from.list(pending)?,
    };
    from.finish()?;
    Ok(restored)
}

fn group(from: &mut Decoder<'_>, now: BootTime) -> Decoded<Group> {
    let (config, teks) = (settings::group(from, Form::Version5)?, schedule(from)?);
    let (bits, next) = (from.u16()?, from.u64()?);
    let held =
        from.list(|from| Ok((from.u64()?, holding(from, Form::Version5)?)))?.into_iter().collect();
    let mut abandoned_members = Vec::new();
    let mut rekey_sa = from.option(|from| {
        let rekey_sa = rekey_sa(from, tree, Form::Version5)?;
        abandoned_members = from.list(|from| Ok((member_id(from)?, abandoned(from)?)))?;
        Ok(rekey_sa)
    })?;
    if let Some(rekey_sa) = &mut rekey_sa {
        rekey_sa.abandoned.extend(abandoned_members);
    }
    let registrations =
        from.list(|from| Ok((member_id(from)?, registration(from, Form::Version5)?)))?;
    let removed = from.list(|from| from.text().map(str::to_owned))?;
    let holder = |from: &mut Decoder<'_>| {
        let id = member_id(from)?;
        Ok((id, TekHolder { name: from.text()?.into(), until: from.time()? }))
    };
    let tek_holders: BTreeMap<_, _> = from.list(holder)?.into_iter().collect();
    let sender_ids = SenderIdPool::restore(bits, held, next);
    let fresh_counters = FreshCounters::default();
    let written = Written {
        config,
        teks,
        sender_ids,
        rekey_sa,
        registrations,
        removed,
        tek_holders,
        fresh_counters,
    };
    Ok(written.group(now))
}

fn tree(from: &mut Decoder<'_>, policy: &KekPolicy, capacity: usize) -> Decoded<Option<KeyTree>> {
    let Some(octets) = from.option(Decoder::secret)? else { return Ok(None) };
    let (algorithm, bits) = (policy.algorithm, policy.key_length);
    let tree = KeyTree::import(algorithm, bits, capacity, [octets.expose()]);
    tree.map(Some).map_err(|_| from.error("a key hierarchy"))
}

fn member_id(from: &mut Decoder<'_>) -> Decoded<MemberId> {
    Ok(MemberId { identity: from.identity()?, address: from.address()? })
}
