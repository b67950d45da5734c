//! A group as octets. No key leaves but into a [`Secret`](ike::crypto::Secret).

use gdoi::lkh::KeyTree;

use super::codec::{put_push, put_schedule};
use super::settings;
use crate::group::Group;
use crate::group::eviction::TekHolder;
use crate::group::kek::Kek;
use crate::group::rekey_sa::RekeySa;
use crate::group::sender_ids::Holding;
use crate::members::registry::Registration;
use daemon::sealed::codec::Encoder;

/// Writes all of a group that a restart must not forget.
pub(super) fn put_group(out: &mut Encoder, group: &Group) {
    settings::put_group(out, group.config());
    put_schedule(out, group.teks());
    let (held, next) = group.sender_ids().held();
    out.u16(group.sender_ids().bits());
    out.u64(next);
    out.count(held.len());
    for (identifier, Holding { holder, until, replaced }) in held {
        out.u64(*identifier);
        out.identity(&holder.identity);
        out.address(holder.address);
        out.option(*until, Encoder::time);
        out.option(*replaced, Encoder::time);
    }
    out.option(group.rekey_sa(), put_rekey_sa);
    out.count(group.registry().len());
    for (id, registration) in group.registry().iter() {
        out.identity(&id.identity);
        out.address(id.address);
        put_registration(out, registration);
    }
    out.count(group.removed().len());
    group.removed().iter().for_each(|name| out.octets(name.as_bytes()));
    out.count(group.tek_holders().len());
    for (id, TekHolder { name, until }) in group.tek_holders() {
        out.identity(&id.identity);
        out.address(id.address);
        out.octets(name.as_bytes());
        out.time(*until);
    }
}

fn put_rekey_sa(out: &mut Encoder, rekey_sa: &RekeySa) {
    settings::put_rekey(out, &rekey_sa.settings);
    out.octets(rekey_sa.private_key.expose());
    out.option(rekey_sa.kek(), put_kek);
    out.count(rekey_sa.retired.len());
    for retired in &rekey_sa.retired {
        out.count(retired.last.len());
        retired.last.iter().for_each(|push| put_push(out, push));
        out.u8(retired.deleted.into());
        out.time(retired.at);
    }
    out.count(rekey_sa.abandoned.len());
    for (id, abandoned) in &rekey_sa.abandoned {
        out.identity(&id.identity);
        out.address(id.address);
        out.octets(abandoned.name.as_bytes());
        out.option(abandoned.leaf, Encoder::u16);
    }
}

fn put_kek(out: &mut Encoder, kek: &Kek) {
    out.kek_policy(kek.stored_policy());
    out.octets(kek.key().expose());
    out.u32(kek.sequence_number());
    out.time(kek.ends());
    out.count(kek.capacity());
    out.option(kek.tree().and_then(KeyTree::export), |out, tree| out.octets(tree.expose()));
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
