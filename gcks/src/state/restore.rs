//! A key server from its octets, and from a configuration that may have changed since.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gdoi::BootTime;
use gdoi::crypto::Secret;
use gdoi::group::{
    AddressPreservation, AddressRange, EncapsulationMode, GroupId, KekPolicy, SaDirection, TekKeys, TekProtocol,
    TrafficSelector,
};
use gdoi::lkh::KeyTree;
use gdoi::push::{Deletion, SealedPush};
use ipnet::IpNet;

use super::export::VERSION;
use crate::algorithm::{ENCRYPTIONS, INTEGRITIES};
use crate::config::rekey::KEK_ENCRYPTIONS;
use crate::config::{Config, TekTemplate};
use crate::kek::Kek;
use crate::keys::Entropy;
use crate::notice::Notice;
use crate::registry::Registration;
use crate::rekey::RetiredKek;
use crate::schedule::{Life, Tek};
use crate::senders::SenderPool;
use crate::service::{GroupState, Service};
use crate::signing::SigningKeys;
use daemon::sealed::codec::{Clock, Decoder, StateError};

type Decoded<T> = Result<T, StateError>;

impl<E: Entropy> Service<E> {
    /// The key server of `config` with the state that [`Service::export`] wrote. What was on its way when it ended is
    /// sent again.
    ///
    /// # Errors
    /// The octets are no state of this version.
    pub fn restore(
        config: Config,
        keys: &SigningKeys,
        seed: [u8; 32],
        entropy: E,
        (state, clock): (&Secret, Clock),
        now: BootTime,
    ) -> Decoded<Self> {
        let mut service = Self::new(config, keys, seed, entropy);
        let mut from = Decoder::new(state.expose(), clock);
        if from.u8()? != VERSION {
            return Err(from.error("another version of gcks"));
        }
        let mut orphans: Vec<(GroupId, Vec<Life>)> = Vec::new();
        for _ in 0..from.count()? {
            let id = GroupId(from.u32()?);
            let name: Arc<str> = from.text()?.into();
            let stored = Stored::read(&mut from)?;
            match service.groups.iter_mut().find(|state| state.group.id == id && state.name == name) {
                Some(state) => orphans.push((id, stored.apply(state, now)?)),
                None => service.notices.push_back(Notice::GroupGone { group: name }),
            }
        }
        for _ in 0..from.count()? {
            let key = (GroupId(from.u32()?), from.identity()?);
            let registration = registration(&mut from)?;
            let state = service.groups.iter().find(|state| state.group.id == key.0);
            let pushes = state.is_some_and(|state| state.rekey.as_ref().is_some_and(|rekey| rekey.kek().is_some()));
            // Without its KEK a member gets no pushes: it comes by itself.
            if state.is_some() && (pushes || registration.keys_end.is_some()) {
                service.registry.restore(key, registration);
            }
        }
        for _ in 0..from.count()? {
            let (group, name) = (GroupId(from.u32()?), from.text()?.to_owned());
            service.removed.insert((group, name));
        }
        from.finish()?;
        for index in 0..service.groups.len() {
            service.push_again(index, now);
        }
        for (group, lives) in orphans {
            let Some(index) = service.index_of(group).filter(|_| !lives.is_empty()) else { continue };
            service.drop_lines(index, &lives, now);
        }
        service.changed = true;
        Ok(service)
    }

    /// Lines have gone from the group or others came in their place: members drop their keys and get the others.
    pub(crate) fn drop_lines(&mut self, index: usize, lives: &[Life], now: BootTime) {
        let deletions = lives.iter().map(|life| Deletion::Tek(TekProtocol::ESP, life.spi)).collect();
        if let Err(error) = self.push_lines(index, deletions, now)
            && let Some(state) = self.groups.get(index)
        {
            let (group, error) = (Arc::clone(&state.name), error.to_string());
            self.notices.push_back(Notice::PushFailed { group, error });
        }
    }
}

/// One group of the state.
struct Stored {
    slots: Vec<StoredSlot>,
    gone: Vec<Life>,
    senders: SenderPool,
    rekey: Option<StoredRekey>,
}

/// One data SA of the state.
pub(crate) struct StoredSlot {
    pub(crate) template: TekTemplate,
    pub(crate) current: Option<Tek>,
    pub(crate) before: Option<(Tek, BootTime)>,
    pub(crate) retired: Vec<Life>,
}

struct StoredRekey {
    public_key: Vec<u8>,
    kek: Option<StoredKek>,
    retired: Vec<RetiredKek>,
    abandoned: Vec<u16>,
}

struct StoredKek {
    policy: KekPolicy,
    key: Secret,
    sequence_number: u32,
    ends: BootTime,
    capacity: usize,
    tree: Option<Secret>,
    last: Option<SealedPush>,
    last_at: BootTime,
}

impl Stored {
    fn read(from: &mut Decoder<'_>) -> Decoded<Self> {
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
        let rekey = from.option(StoredRekey::read)?;
        Ok(Self { slots, gone, senders: SenderPool::restore(bits, held, next), rekey })
    }

    /// Puts the keys into their places. Returns the TEKs of lines that the configuration has no more.
    fn apply(self, state: &mut GroupState, now: BootTime) -> Decoded<Vec<Life>> {
        let orphans = state.schedule.restore(self.slots, self.gone);
        // Identifiers of another width belong to keys that are still in use.
        if !self.senders.held().0.is_empty() {
            state.senders = self.senders;
        }
        let (Some(rekey), Some(stored)) = (&mut state.rekey, self.rekey) else { return Ok(orphans) };
        if rekey.public_key != stored.public_key {
            // Members could verify nothing that the new key signs: they come when their keys end.
            return Ok(orphans);
        }
        rekey.retired = stored.retired;
        rekey.abandoned = stored.abandoned;
        let Some(stored) = stored.kek.filter(|kek| kek.ends > now) else { return Ok(orphans) };
        let damaged = StateError { offset: 0, what: "a KEK" };
        let StoredKek { policy, key, sequence_number, ends, capacity, tree, last, last_at } = stored;
        let lengths = (policy.algorithm, policy.key_length);
        let cipher = KEK_ENCRYPTIONS.iter().find(|cipher| (cipher.algorithm, cipher.key_length) == lengths);
        rekey.settings.encryption = *cipher.ok_or(damaged)?;
        let tree = match tree {
            Some(octets) => {
                let tree = KeyTree::import(policy.algorithm, policy.key_length, capacity, &octets);
                Some(tree.map_err(|_| StateError { offset: 0, what: "a key hierarchy" })?)
            }
            None => None,
        };
        let legacy = rekey.settings.legacy;
        let mut kek = Kek::with(policy, key, sequence_number, tree, capacity, ends, legacy).map_err(|_| damaged)?;
        if let Some(last) = last {
            kek.restore_last(last, last_at);
        }
        rekey.kek = Some(kek);
        Ok(orphans)
    }
}

impl StoredRekey {
    fn read(from: &mut Decoder<'_>) -> Decoded<Self> {
        let public_key = from.octets()?.to_vec();
        let kek = from.option(|from| {
            Ok(StoredKek {
                policy: from.kek_policy()?,
                key: from.secret()?,
                sequence_number: from.u32()?,
                ends: from.time()?,
                capacity: from.count()?,
                tree: from.option(Decoder::secret)?,
                last: from.option(push)?,
                last_at: from.time()?,
            })
        })?;
        let retired =
            from.list(|from| Ok(RetiredKek { last: push(from)?, deleted: from.u8()? != 0, at: from.time()? }))?;
        Ok(Self { public_key, kek, retired, abandoned: from.list(Decoder::u16)? })
    }
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

fn template(from: &mut Decoder<'_>) -> Decoded<TekTemplate> {
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
