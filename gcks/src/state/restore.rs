//! A group from its records.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::Generation;
use gdoi::group::{GroupId, KekPolicy};
use gdoi::lkh::KeyTree;
use ike::BootTime;
use ike::crypto::{Secret, SigningKey};

use super::codec::{push, schedule};
use super::record::{GroupPart, Name, Records, member_id};
use super::{Form, settings};
use crate::config;
use crate::group::cluster::PreparedState;
use crate::group::event::Event;
use crate::group::eviction::TekHolder;
use crate::group::fresh_counters::FreshCounters;
use crate::group::kek::Kek;
use crate::group::rekey_sa::{Abandoned, RekeySa, RetiredKek};
use crate::group::sender_blocks::{Division, Grant, SenderBlocks};
use crate::group::sender_ids::{Holding, SenderIdPool};
use crate::group::tek_schedule::TekSchedule;
use crate::group::{Group, Parts};
use crate::members::registry::{MemberId, Registration, Registry};
use crate::tracked::Tracked;
use daemon::sealed::codec::{Clock, Decoder, StateError};

pub(super) type Decoded<T> = Result<T, StateError>;

/// What was written of a group, before what has ended in the meantime is left out.
pub(super) struct Written {
    pub(super) config: config::Group,
    pub(super) teks: TekSchedule,
    pub(super) sender_ids: SenderIdPool,
    pub(super) rekey_sa: Option<RekeySa>,
    pub(super) registrations: Vec<(MemberId, Registration)>,
    pub(super) removed: Vec<String>,
    pub(super) tek_holders: BTreeMap<MemberId, TekHolder>,
    pub(super) fresh_counters: FreshCounters,
}

impl Written {
    /// Whether a key has not ended.
    fn is_alive(&self, now: BootTime) -> bool {
        let kek = self.rekey_sa.as_ref().and_then(RekeySa::kek);
        kek.is_some_and(|kek| kek.ends() > now) || self.teks.is_alive(now)
    }

    /// Nobody knows how old the keys are. A member of another make may have dropped a TEK of a
    /// counter mode at its end, and would restart its counter under the same key.
    fn replace_counter_modes(&mut self, now: BootTime) {
        if self.teks.end_counter_modes() {
            self.fresh_counters.due = Some((now, now));
        }
    }

    /// The group at `now`.
    pub(super) fn group(self, now: BootTime) -> Group {
        let Self {
            config,
            teks,
            sender_ids,
            mut rekey_sa,
            registrations,
            removed,
            tek_holders,
            fresh_counters,
        } = self;
        if let Some(rekey_sa) = &mut rekey_sa {
            rekey_sa.kek = rekey_sa.kek.take().filter(|kek| kek.ends() > now);
        }
        let pushes = rekey_sa.as_ref().is_some_and(|rekey_sa| rekey_sa.kek().is_some());
        let (mut registry, until) = (Registry::default(), teks.last_end(now));
        let mut holders: Tracked<_, _> = Tracked::default();
        for (id, registration) in registrations {
            // Without its KEK a member gets no pushes: it comes by itself.
            if pushes || registration.keys_end.is_some() {
                registry.restore(id, registration);
            } else {
                holders.insert(id, TekHolder { name: registration.name, until });
            }
        }
        if let Some(rekey_sa) = rekey_sa.as_mut().filter(|_| !pushes) {
            let abandoned = rekey_sa.abandoned.take().into_iter();
            holders
                .extend(abandoned.map(|(id, entry)| (id, TekHolder { name: entry.name, until })));
        }
        holders.extend(tek_holders);
        let removed = removed.into_iter().collect();
        let tek_holders = holders;
        Group::from_parts(Parts {
            config,
            teks,
            sender_ids,
            rekey_sa,
            registry,
            removed,
            tek_holders,
            fresh_counters,
        })
    }
}

/// Reads a group with what was made for it.
///
/// Over a reboot the wall clock tells how much time has passed. One that shows so late a time that
/// no key is left may be wrong, and members may hold the keys. If it is right nobody holds any:
/// keeping them does no harm then but that they live longer, while a group that loses them is split
/// until all have registered again.
pub(super) fn group(records: &Records, id: GroupId, clock: Clock, now: BootTime) -> Decoded<Group> {
    let mut written = read(records, id, clock)?;
    let certain = clock.at_least();
    let at_least = read(records, id, certain)?;
    let is_ahead = !written.is_alive(now) && at_least.is_alive(now);
    if is_ahead {
        written = at_least;
    }
    let pushes = written.rekey_sa.as_ref().is_some_and(|rekey_sa| rekey_sa.kek().is_some());
    // Without pushes the members could not be told, and come one after the other.
    if is_ahead || (clock.is_unknown() && pushes) {
        written.replace_counter_modes(now);
    }
    let mut group = written.group(now);
    if is_ahead {
        group.note(Event::AgeUnknown);
    }
    if let Some(octets) = records.get(&Name::in_group(id, GroupPart::Cluster)) {
        read_generations(octets, if is_ahead { certain } else { clock }, &mut group)?;
    }
    if let Some(octets) = records.get(&Name::in_group(id, GroupPart::SenderBlocks)) {
        let mut from = Decoder::new(octets.expose(), if is_ahead { certain } else { clock });
        group.restore_sender_blocks(Some(sender_blocks(&mut from)?));
        from.finish()?;
    }
    if records.get(&Name::in_group(id, GroupPart::Strangers)).is_some() {
        group.restore_strangers();
    }
    Ok(group)
}

/// A server's own sender identifiers.
pub(super) fn division(from: &mut Decoder<'_>) -> Decoded<Division> {
    let (era, bits) = (from.u64()?, from.u16()?);
    Ok(Division { era, bits, blocks: from.list(Decoder::u16)?.into_iter().collect() })
}

fn sender_blocks(from: &mut Decoder<'_>) -> Decoded<SenderBlocks> {
    let era = from.u64()?;
    let grants = from.list(|from| {
        let block = from.u16()?;
        let server = from.option(|from| from.text().map(Into::into))?;
        Ok((block, Grant { server, ends: from.option(Decoder::time)? }))
    })?;
    Ok(SenderBlocks::restore(era, grants.into_iter().collect()))
}

/// Generations of a group of a cluster.
fn read_generations(octets: &Secret, clock: Clock, group: &mut Group) -> Decoded<()> {
    let mut from = Decoder::new(octets.expose(), clock);
    let generation =
        |from: &mut Decoder<'_>| Ok(Generation { epoch: from.u64()?, version: from.u64()? });
    group.set_generation(generation(&mut from)?);
    group.prepare_generation(from.option(|from| {
        let (generation, received) = (generation(from)?, from.time()?);
        Ok(PreparedState { generation, octets: from.secret()?, received })
    })?);
    let blocks = from.list(|from| Ok((from.u16()?, from.text()?.into())))?;
    group.restore_leaf_blocks(blocks.into_iter().collect());
    if let Some(spare) = from.option(|from| from.list(Decoder::u16))? {
        group.restore_spare_leaves(spare.into_iter().collect());
    }
    from.finish()
}

fn read(records: &Records, id: GroupId, clock: Clock) -> Decoded<Written> {
    let name = |part| Name::in_group(id, part);
    let one = |part| {
        let octets = records.get(&name(part)).map(Secret::expose).unwrap_or_default();
        Decoder::new(octets, clock)
    };
    let mut from = one(GroupPart::Core);
    let (config, teks) = (settings::group(&mut from, Form::Present)?, schedule(&mut from)?);
    let tree = |from: &mut Decoder<'_>, policy: &KekPolicy, capacity: usize| {
        if from.u8()? == 0 {
            return Ok(None);
        }
        let keys = records.beginning(name(GroupPart::Node)).map(|(_, key)| key.expose());
        let tree = KeyTree::import(policy.algorithm, policy.key_length, capacity, keys);
        tree.map(Some).map_err(|_| from.error("a key hierarchy"))
    };
    let mut rekey_sa = from.option(|from| rekey_sa(from, tree, Form::Present))?;
    let removed = from.list(|from| from.text().map(str::to_owned))?;
    from.finish()?;
    let mut from = one(GroupPart::Numbers);
    let (bits, next) = (from.u16()?, from.u64()?);
    let division = from.option(division)?;
    from.finish()?;
    let all = |part| records.beginning(name(part));
    let mut held = BTreeMap::new();
    for (key, value) in all(GroupPart::Sender) {
        let mut from = Decoder::new(value.expose(), clock);
        held.insert(Decoder::new(key, clock).u64()?, holding(&mut from, Form::Present)?);
        from.finish()?;
    }
    let mut registrations = Vec::new();
    for (key, value) in all(GroupPart::Registration) {
        let mut from = Decoder::new(value.expose(), clock);
        registrations.push((member_id(key)?, registration(&mut from, Form::Present)?));
        from.finish()?;
    }
    let mut tek_holders = BTreeMap::new();
    for (key, value) in all(GroupPart::TekHolder) {
        let mut from = Decoder::new(value.expose(), clock);
        let holder = TekHolder { name: from.text()?.into(), until: from.time()? };
        tek_holders.insert(member_id(key)?, holder);
        from.finish()?;
    }
    for (key, value) in all(GroupPart::Abandoned) {
        let mut from = Decoder::new(value.expose(), clock);
        let dropped = abandoned(&mut from)?;
        from.finish()?;
        if let Some(rekey_sa) = &mut rekey_sa {
            rekey_sa.abandoned.insert(member_id(key)?, dropped);
        }
    }
    let mut fresh_counters = FreshCounters::default();
    if records.get(&name(GroupPart::FreshCounters)).is_some() {
        let mut from = one(GroupPart::FreshCounters);
        fresh_counters.due = from.option(|from| Ok((from.time()?, from.time()?)))?;
        fresh_counters.last = from.option(Decoder::time)?;
        from.finish()?;
    }
    Ok(Written {
        config,
        teks,
        sender_ids: SenderIdPool::restore(bits, held, next).with_division(division),
        rekey_sa,
        registrations,
        removed,
        tek_holders,
        fresh_counters,
    })
}

pub(super) fn holding(from: &mut Decoder<'_>, form: Form) -> Decoded<Holding> {
    let holder = MemberId { identity: from.identity()?, address: from.address()? };
    let until = from.option(Decoder::time)?;
    let replaced = match form {
        Form::Present => from.option(Decoder::time)?,
        Form::Version5 => None,
    };
    Ok(Holding { holder, until, replaced })
}

pub(super) fn abandoned(from: &mut Decoder<'_>) -> Decoded<Abandoned> {
    Ok(Abandoned { name: from.text()?.into(), leaf: from.option(Decoder::u16)? })
}

/// A rekey SA; `tree` reads the hierarchy of its KEK.
pub(super) fn rekey_sa(
    from: &mut Decoder<'_>,
    tree: impl FnOnce(&mut Decoder<'_>, &KekPolicy, usize) -> Decoded<Option<KeyTree>>,
    form: Form,
) -> Decoded<RekeySa> {
    let settings = settings::rekey(from)?;
    let legacy = settings.legacy;
    // A key that was loaded once may be used to the end, whatever is thought of its kind today.
    let private_key = from.octets()?;
    let mut rekey_sa = match private_key.is_empty() {
        true => RekeySa::relaying(settings, from.octets()?.to_vec()),
        false => {
            let key = SigningKey::from_pkcs8_der(private_key, true)
                .map_err(|_| from.error("a signing key"))?;
            RekeySa::new(settings, Arc::new(key)).map_err(|_| from.error("a signing key"))?
        }
    };
    rekey_sa.kek = from.option(|from| kek(from, tree, legacy))?;
    rekey_sa.retired = from.list(|from| {
        let last = match form {
            Form::Present => from.list(push)?,
            Form::Version5 => vec![push(from)?],
        };
        Ok(RetiredKek { last, deleted: from.u8()? != 0, at: from.time()? })
    })?;
    Ok(rekey_sa)
}

fn kek(
    from: &mut Decoder<'_>,
    tree: impl FnOnce(&mut Decoder<'_>, &KekPolicy, usize) -> Decoded<Option<KeyTree>>,
    legacy: bool,
) -> Decoded<Kek> {
    let (policy, key) = (from.kek_policy()?, from.secret()?);
    let (sequence_number, ends, capacity) = (from.u32()?, from.time()?, from.count()?);
    let tree = tree(from, &policy, capacity)?;
    let (last, last_at) = (from.option(push)?, from.time()?);
    let kek = Kek::with(policy, key, sequence_number, tree, capacity, ends, legacy);
    let mut kek = kek.map_err(|_| from.error("a KEK"))?;
    if let Some(last) = last {
        kek.restore_last(last, last_at);
    }
    Ok(kek)
}

pub(super) fn registration(from: &mut Decoder<'_>, form: Form) -> Decoded<Registration> {
    Ok(Registration {
        name: from.text()?.into(),
        address: from.socket()?,
        local: from.socket()?,
        first: from.time()?,
        last: from.time()?,
        pulls: from.u64()?,
        keys_end: from.option(Decoder::time)?,
        leaf: {
            if form == Form::Version5 {
                // Its sender identifier, which the identifiers themselves tell as well.
                from.option(Decoder::u64)?;
            }
            from.option(Decoder::u16)?
        },
        acknowledgements: from.u64()?,
        last_acknowledgement: from.option(Decoder::time)?,
        unacknowledged: from.u64()?,
        acknowledged: from.option(|from| Ok((from.array()?, from.u32()?)))?,
    })
}
