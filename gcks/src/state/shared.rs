//! What a root server shares with its sub-servers: the group's policy, keys and pushes, and nothing
//! that only the root may have. No signing key is in it.
//!
//! ```text
//! version (1) | boot-time clock of the root (12) | settings | TEKs | rekey SA | removed members |
//! sender identifiers of the sub-server
//! ```

use daemon::sealed::codec::{Clock, Decoder, Encoder, StateError};
use gdoi::group::KekPolicy;
use gdoi::lkh::KeyTree;
use ike::BootTime;
use ike::crypto::Secret;

use super::codec::{put_schedule, schedule};
use super::export::{Keeper, put_division, put_rekey_sa};
use super::{Form, VERSION, restore, settings};
use crate::group::Group;
use crate::group::cluster::Shared;

/// The group as this sub-server is to have it.
pub fn encode(group: &Group, server: &str, now: BootTime) -> Secret {
    let mut out = Encoder::default();
    out.u8(VERSION);
    out.time(now);
    settings::put_group(&mut out, group.config());
    put_schedule(&mut out, group.teks());
    let keeper = Keeper::SubServer { blocks: group.leaf_blocks_of(server) };
    out.option(group.rekey_sa(), |out, rekey_sa| put_rekey_sa(out, rekey_sa, &keeper));
    out.count(group.removed().len());
    group.removed().iter().for_each(|name| out.octets(name.as_bytes()));
    out.option(group.division_for(server).as_ref(), put_division);
    out.finish()
}

/// Reads what a root wrote that arrived at `received`: lifetimes go on from there.
///
/// # Errors
/// It is nothing of this version.
pub fn decode(octets: &[u8], received: BootTime) -> Result<Shared, StateError> {
    let mut head = Decoder::new(octets, Clock::same(received));
    if head.u8()? != VERSION {
        return Err(head.error("another version of gcks"));
    }
    let written = head.time()?;
    let clock = Clock { written, ..Clock::same(received) };
    let mut from = Decoder::new(head.rest(), clock);
    let (config, teks) = (settings::group(&mut from, Form::Present)?, schedule(&mut from)?);
    let part = |from: &mut Decoder<'_>, policy: &KekPolicy, capacity: usize| {
        if from.u8()? == 0 {
            return Ok(None);
        }
        let nodes = from.list(Decoder::octets)?;
        let tree = KeyTree::import(policy.algorithm, policy.key_length, capacity, nodes);
        tree.map(Some).map_err(|_| from.error("a key hierarchy"))
    };
    let rekey_sa = from.option(|from| restore::rekey_sa(from, part, Form::Present))?;
    if rekey_sa.as_ref().is_some_and(|rekey_sa| !rekey_sa.is_relaying()) {
        return Err(from.error("no signing key"));
    }
    let removed = from.list(|from| from.text().map(str::to_owned))?.into_iter().collect();
    let division = from.option(restore::division)?;
    from.finish()?;
    Ok(Shared { config, teks, rekey_sa, removed, division })
}
