//! A group as records. No key leaves but into a [`Secret`].

use std::collections::BTreeSet;

use cluster::Generation;
use ike::crypto::Secret;

use super::codec::{put_push, put_schedule};
use super::record::{Change, GroupPart, Name};
use super::settings;
use crate::group::Group;
use crate::group::fresh_counters::FreshCounters;
use crate::group::kek::Kek;
use crate::group::rekey_sa::RekeySa;
use crate::group::sender_blocks::{Division, SenderBlocks};
use crate::members::registry::Registration;
use crate::tracked::Tracked;
use daemon::sealed::codec::Encoder;

/// What has changed of a group since it was stored; with `whole`, all of it.
pub fn put_group(changes: &mut Vec<Change>, group: &Group, whole: bool) {
    let name = |part| Name::in_group(group.id(), part);
    let mut core = Encoder::default();
    put_core(&mut core, group);
    changes.push(Change::Put(name(GroupPart::Core), core.finish()));
    let (held, next) = group.sender_ids().held();
    let mut numbers = Encoder::default();
    numbers.u16(group.sender_ids().bits());
    numbers.u64(next);
    numbers.option(group.sender_ids().division().as_ref(), put_division);
    changes.push(Change::Put(name(GroupPart::Numbers), numbers.finish()));
    changes.push(put_fresh_counters(name(GroupPart::FreshCounters), group.fresh_counters()));
    let prefix = name(GroupPart::Sender);
    let sender = |identifier: &u64| prefix.with(&identifier.to_be_bytes());
    put_tracked(changes, &prefix, (held, whole), sender, |out, holding| {
        out.identity(&holding.holder.identity);
        out.address(holding.holder.address);
        out.option(holding.until, Encoder::time);
        out.option(holding.replaced, Encoder::time);
    });
    let prefix = name(GroupPart::Registration);
    let registrations = group.registry().tracked();
    let member = |id: &_| prefix.with_member(id);
    put_tracked(changes, &prefix, (registrations, whole), member, put_registration);
    let prefix = name(GroupPart::TekHolder);
    let member = |id: &_| prefix.with_member(id);
    put_tracked(changes, &prefix, (group.tek_holders(), whole), member, |out, holder| {
        out.octets(holder.name.as_bytes());
        out.time(holder.until);
    });
    let prefix = name(GroupPart::Abandoned);
    match group.rekey_sa() {
        None => changes.push(Change::Clear(prefix)),
        Some(rekey_sa) => {
            let member = |id: &_| prefix.with_member(id);
            put_tracked(changes, &prefix, (&rekey_sa.abandoned, whole), member, |out, dropped| {
                out.octets(dropped.name.as_bytes());
                out.option(dropped.leaf, Encoder::u16);
            });
        }
    }
    put_nodes(changes, &name(GroupPart::Node), group, whole);
    put_cluster(changes, name(GroupPart::Cluster), group);
    changes.push(put_sender_blocks(name(GroupPart::SenderBlocks), group.sender_blocks()));
    let strangers = name(GroupPart::Strangers);
    changes.push(match group.has_strangers() {
        true => Change::Put(strangers, Encoder::default().finish()),
        false => Change::Remove(strangers),
    });
}

/// A server's own sender identifiers.
pub(super) fn put_division(out: &mut Encoder, division: &Division) {
    out.u64(division.era);
    out.u16(division.bits);
    out.count(division.blocks.len());
    division.blocks.iter().for_each(|block| out.u16(*block));
}

fn put_sender_blocks(name: Name, blocks: Option<&SenderBlocks>) -> Change {
    let Some(blocks) = blocks else { return Change::Remove(name) };
    let mut out = Encoder::default();
    out.u64(blocks.era());
    out.count(blocks.grants().len());
    for (block, grant) in blocks.grants() {
        out.u16(*block);
        out.option(grant.server.as_ref(), |out, server| out.octets(server.as_bytes()));
        out.option(grant.ends, Encoder::time);
    }
    Change::Put(name, out.finish())
}

fn put_cluster(changes: &mut Vec<Change>, name: Name, group: &Group) {
    if group.role().is_none() {
        changes.push(Change::Remove(name));
        return;
    }
    let mut out = Encoder::default();
    let put_generation = |out: &mut Encoder, generation: Generation| {
        out.u64(generation.epoch);
        out.u64(generation.version);
    };
    put_generation(&mut out, group.generation());
    out.option(group.prepared(), |out, prepared| {
        put_generation(out, prepared.generation);
        out.time(prepared.received);
        out.octets(prepared.octets.expose());
    });
    out.count(group.leaf_blocks().len());
    for (block, server) in group.leaf_blocks() {
        out.u16(*block);
        out.octets(server.as_bytes());
    }
    out.option(group.spare_leaves(), |out, spare| {
        out.count(spare.len());
        spare.iter().for_each(|leaf| out.u16(*leaf));
    });
    changes.push(Change::Put(name, out.finish()));
}

fn put_fresh_counters(name: Name, fresh_counters: &FreshCounters) -> Change {
    if *fresh_counters == FreshCounters::default() {
        return Change::Remove(name);
    }
    let mut out = Encoder::default();
    out.option(fresh_counters.due, |out, (at, restart)| {
        out.time(at);
        out.time(restart);
    });
    out.option(fresh_counters.last, Encoder::time);
    Change::Put(name, out.finish())
}

fn put_tracked<K: Ord + Clone, V>(
    changes: &mut Vec<Change>,
    prefix: &Name,
    (entries, whole): (&Tracked<K, V>, bool),
    name: impl Fn(&K) -> Name,
    put: impl Fn(&mut Encoder, &V),
) {
    let value = |entry: &V| {
        let mut out = Encoder::default();
        put(&mut out, entry);
        out.finish()
    };
    match entries.unsaved().filter(|_| !whole) {
        None => {
            changes.push(Change::Clear(prefix.clone()));
            changes.extend(entries.iter().map(|(key, entry)| Change::Put(name(key), value(entry))));
        }
        Some(keys) => changes.extend(keys.map(|key| match entries.get(key) {
            Some(entry) => Change::Put(name(key), value(entry)),
            None => Change::Remove(name(key)),
        })),
    }
}

fn put_nodes(changes: &mut Vec<Change>, prefix: &Name, group: &Group, whole: bool) {
    let tree = group.rekey_sa().and_then(|rekey_sa| rekey_sa.kek()?.tree());
    let unsaved = tree.and_then(|tree| Some((tree, tree.unsaved().filter(|_| !whole)?)));
    let change = |node: u16, key: Option<Secret>| {
        let name = prefix.with(&node.to_be_bytes());
        match key {
            Some(key) => Change::Put(name, key),
            None => Change::Remove(name),
        }
    };
    match unsaved {
        Some((tree, nodes)) => {
            changes.extend(nodes.iter().map(|node| change(*node, tree.export(*node))));
        }
        None => {
            changes.push(Change::Clear(prefix.clone()));
            let all = tree.into_iter().flat_map(|tree| tree.nodes().map(move |node| (tree, node)));
            changes.extend(all.map(|(tree, node)| change(node, tree.export(node))));
        }
    }
}

fn put_core(out: &mut Encoder, group: &Group) {
    settings::put_group(out, group.config());
    put_schedule(out, group.teks());
    out.option(group.rekey_sa(), |out, rekey_sa| put_rekey_sa(out, rekey_sa, &Keeper::Server));
    out.count(group.removed().len());
    group.removed().iter().for_each(|name| out.octets(name.as_bytes()));
}

/// Who gets a rekey SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    /// The server's own state.
    Server,
    /// A sub-server, which must not be able to sign, with its blocks of the key hierarchy.
    SubServer { blocks: BTreeSet<u16> },
}

pub(super) fn put_rekey_sa(out: &mut Encoder, rekey_sa: &RekeySa, keeper: &Keeper) {
    settings::put_rekey(out, &rekey_sa.settings);
    match keeper {
        Keeper::Server if !rekey_sa.is_relaying() => out.octets(rekey_sa.private_key.expose()),
        _ => {
            out.octets(&[]);
            out.octets(&rekey_sa.public_key);
        }
    }
    out.option(rekey_sa.kek(), |out, kek| put_kek(out, kek, keeper));
    out.count(rekey_sa.retired.len());
    for retired in &rekey_sa.retired {
        out.count(retired.last.len());
        retired.last.iter().for_each(|push| put_push(out, push));
        out.u8(retired.deleted.into());
        out.time(retired.at);
    }
}

fn put_kek(out: &mut Encoder, kek: &Kek, keeper: &Keeper) {
    out.kek_policy(kek.stored_policy());
    out.octets(kek.key().expose());
    out.u32(kek.sequence_number());
    out.time(kek.ends());
    out.count(kek.capacity());
    out.u8(kek.tree().is_some().into());
    if let (Some(tree), Keeper::SubServer { blocks }) = (kek.tree(), keeper) {
        let nodes: Vec<Secret> =
            tree.part(blocks).into_iter().filter_map(|node| tree.export(node)).collect();
        out.count(nodes.len());
        nodes.iter().for_each(|node| out.octets(node.expose()));
    }
    out.option(kek.last(), put_push);
    out.time(kek.last_at());
}

fn put_registration(out: &mut Encoder, registration: &Registration) {
    out.octets(registration.name.as_bytes());
    out.socket(registration.address);
    out.socket(registration.local);
    out.time(registration.first);
    out.time(registration.last);
    out.u64(registration.pulls);
    out.option(registration.keys_end, Encoder::time);
    out.option(registration.leaf, Encoder::u16);
    out.u64(registration.acknowledgements);
    out.option(registration.last_acknowledgement, Encoder::time);
    out.u64(registration.unacknowledged);
    out.option(registration.acknowledged, |out, (spi, number)| {
        out.put(&spi);
        out.u32(number);
    });
}
