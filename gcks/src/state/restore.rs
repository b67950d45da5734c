//! A key server from its octets, and from a configuration that may have changed since.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gdoi::BootTime;
use gdoi::crypto::{Secret, SigningKey};
use gdoi::group::{
    AddressPreservation, AddressRange, EncapsulationMode, GroupId, SaDirection, TekKeys,
    TrafficSelector,
};
use gdoi::lkh::KeyTree;
use gdoi::push::{DeliveryPolicy, Recipients, SealedPush};
use ipnet::IpNet;

use super::export::VERSION;
use super::settings;
use crate::config::tek_algorithm::{ENCRYPTIONS, INTEGRITIES};
use crate::config::{Config, TekTemplate};
use crate::group::event::Event;
use crate::group::kek::Kek;
use crate::group::key_generation::Entropy;
use crate::group::rekey_sa::{RekeySa, RetiredKek};
use crate::group::sender_ids::SenderIdPool;
use crate::group::signing_key::SigningKeys;
use crate::group::tek_schedule::{Life, Tek};
use crate::members::registry::Registration;
use crate::server::{GroupState, KeyServer};
use daemon::sealed::codec::{Clock, Decoder, StateError};

type Decoded<T> = Result<T, StateError>;

impl<E: Entropy> KeyServer<E> {
    /// The key server of `config` with the state that [`KeyServer::export`] wrote. What was on its
    /// way when it ended is sent again, and what the configuration says differently since then is
    /// done as [`KeyServer::reload`] does it.
    ///
    /// # Errors
    /// The octets are no state of this version.
    pub fn restore(
        mut config: Config,
        keys: &SigningKeys,
        seed: [u8; 32],
        entropy: E,
        (state, clock): (&Secret, Clock),
        now: BootTime,
    ) -> Decoded<Self> {
        let groups = std::mem::take(&mut config.groups);
        let mut service = Self::new(config, keys, seed, entropy);
        let mut from = Decoder::new(state.expose(), clock);
        if from.u8()? != VERSION {
            return Err(from.error("another version of gcks"));
        }
        let members = from.list(|from| settings::member(from, &service.members))?;
        service.groups = from.list(|from| group(from, now))?;
        for _ in 0..from.count()? {
            let key = (GroupId(from.u32()?), from.identity()?);
            let registration = registration(&mut from)?;
            let state = service.groups.iter().find(|state| state.group.id == key.0);
            let pushes = state.is_some_and(|state| {
                state.rekey.as_ref().is_some_and(|rekey| rekey.kek().is_some())
            });
            // Without its KEK a member gets no pushes: it comes by itself.
            if state.is_some() && (pushes || registration.keys_end.is_some()) {
                service.registry.restore(key, registration);
            }
        }
        for _ in 0..from.count()? {
            let (group, name) = (GroupId(from.u32()?), from.text()?.to_owned());
            service.removed.insert((group, name));
        }
        for _ in 0..from.count()? {
            let (source, offer) = (from.address()?, from.octets()?);
            service.server.remember_offer(source, offer);
        }
        let pending = from.list(pending)?;
        from.finish()?;
        for index in 0..service.groups.len() {
            service.push_again(index, now);
        }
        for (group, policy, push, recipients) in pending {
            service.deliver(group, push, recipients, policy, now);
        }
        let mut changes = Vec::new();
        service.reload_groups(groups, keys, &mut changes, now);
        service.reload_members(&members, &mut changes, now);
        service.events.extend(changes.into_iter().map(|change| Event::Changed { change }));
        service.changed = true;
        Ok(service)
    }
}

/// One data SA of the state.
pub(crate) struct StoredSlot {
    pub(crate) template: TekTemplate,
    pub(crate) current: Option<Tek>,
    pub(crate) before: Option<(Tek, BootTime)>,
    pub(crate) retired: Vec<Life>,
}

/// One group with what was made for it.
fn group(from: &mut Decoder<'_>, now: BootTime) -> Decoded<GroupState> {
    let group = settings::group(from)?;
    let slots = from.list(|from| {
        Ok(StoredSlot {
            template: template(from)?,
            current: from.option(tek)?,
            before: from.option(|from| Ok((tek(from)?, from.time()?)))?,
            retired: from.list(life)?,
        })
    })?;
    let gone = from.list(life)?;
    let (bits, next) = (from.u16()?, from.u64()?);
    let held = from.list(|from| Ok((from.u64()?, from.option(Decoder::time)?)))?;
    let held: BTreeMap<_, _> = held.into_iter().collect();
    let rekey = from.option(|from| rekey(from, now))?;
    let mut state = GroupState::new(group, &SigningKeys::new());
    state.schedule.restore(slots, gone);
    state.senders = SenderIdPool::restore(bits, held, next);
    state.rekey = rekey;
    Ok(state)
}

fn rekey(from: &mut Decoder<'_>, now: BootTime) -> Decoded<RekeySa> {
    let settings = settings::rekey(from)?;
    let legacy = settings.legacy;
    // A key that was loaded once may be used to the end, whatever is thought of its kind today.
    let key = SigningKey::from_pkcs8_der(from.octets()?, true)
        .map_err(|_| from.error("a signing key"))?;
    let mut rekey =
        RekeySa::new(settings, Arc::new(key)).map_err(|_| from.error("a signing key"))?;
    rekey.kek = from.option(|from| kek(from, legacy))?.filter(|kek| kek.ends() > now);
    rekey.retired = from.list(|from| {
        Ok(RetiredKek { last: push(from)?, deleted: from.u8()? != 0, at: from.time()? })
    })?;
    rekey.abandoned = from.list(Decoder::u16)?;
    Ok(rekey)
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

/// A push that was on its way to somebody who is no member any more. Who has it may have
/// acknowledged it before.
fn pending(from: &mut Decoder<'_>) -> Decoded<(GroupId, DeliveryPolicy, SealedPush, Recipients)> {
    let (group, policy, push) =
        (GroupId(from.u32()?), settings::delivery_policy(from)?, push(from)?);
    let mut recipients = Recipients { excused: true, ..Recipients::default() };
    for _ in 0..from.count()? {
        let (source, destination) = (from.socket()?, from.socket()?);
        recipients.destinations.push((source, destination));
        recipients.members.insert(destination.ip(), from.option(Decoder::secret)?);
    }
    Ok((group, policy, push, recipients))
}

fn push(from: &mut Decoder<'_>) -> Decoded<SealedPush> {
    let (spi, number, datagram) = (from.array()?, from.u32()?, from.octets()?.to_vec());
    let acknowledgement = from.option(Decoder::u16)?;
    Ok(SealedPush::restore(spi, number, datagram, acknowledgement, from.secret()?))
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
        sender: from.option(Decoder::u64)?,
        leaf: from.option(Decoder::u16)?,
        acknowledgements: from.u64()?,
        last_acknowledgement: from.option(Decoder::time)?,
        silent: from.u64()?,
        acknowledged: from.option(|from| Ok((from.array()?, from.u32()?)))?,
    })
}

fn life(from: &mut Decoder<'_>) -> Decoded<Life> {
    Ok(Life { spi: from.u32()?, ends: from.time()? })
}

fn tek(from: &mut Decoder<'_>) -> Decoded<Tek> {
    let life = life(from)?;
    let keys = TekKeys { encryption: from.secret()?, integrity: from.secret()? };
    Ok(Tek { life, keys, template: template(from)?, pushed: from.u8()? != 0 })
}

/// What a TEK was made for.
pub(super) fn template(from: &mut Decoder<'_>) -> Decoded<TekTemplate> {
    let selectors = from.list(selector)?;
    let name = from.text()?;
    let encryption = ENCRYPTIONS.iter().find(|encryption| encryption.name == name);
    let encryption = *encryption.ok_or_else(|| from.error("an encryption algorithm"))?;
    let integrity = from.option(|from| {
        let name = from.text()?;
        let known = INTEGRITIES.iter().find(|integrity| integrity.name == name);
        known.copied().ok_or_else(|| from.error("an integrity algorithm"))
    })?;
    Ok(TekTemplate {
        selectors,
        encryption,
        integrity,
        direction: SaDirection(from.u16()?),
        mode: EncapsulationMode(from.u16()?),
        address_preservation: AddressPreservation(from.u16()?),
        lifetime: Duration::from_secs(from.u64()?),
    })
}

fn selector(from: &mut Decoder<'_>) -> Decoded<TrafficSelector> {
    let protocol = from.u8()?;
    let mut side = || {
        let range = match from.u8()? {
            0 => AddressRange::Any,
            1 => AddressRange::Address(from.address()?),
            2 => {
                let prefix = IpNet::new(from.address()?, from.u8()?);
                AddressRange::Subnet(prefix.map_err(|_| from.error("a prefix"))?)
            }
            3 => AddressRange::Range(from.address()?, from.address()?),
            _ => return Err(from.error("a range of addresses")),
        };
        Ok((range, from.u16()?))
    };
    let ((source, source_port), (destination, destination_port)) = (side()?, side()?);
    Ok(TrafficSelector { protocol, source, source_port, destination, destination_port })
}
