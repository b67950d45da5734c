//! Records of the state as a store gets them: each sealed by itself, under a name that says
//! nothing.
//!
//! ```text
//! key      HMAC(names, name), 16 octets
//! value    nonce | AES-CCM( name | record ) | tag
//! ```
//!
//! One record more, the head, has the moment of the last write, the number of all others and the
//! exclusive or of their MACs. With it, records of different moments cannot be mixed: who writes
//! to the store can give back the state of an earlier moment as a whole, which nothing prevents,
//! and no other.

use std::collections::BTreeMap;

use daemon::sealed::codec::{Clock, Decoder, Encoder};
use daemon::sealed::file::Moment;
use daemon::sealed::seal::Sealer;

use ike::BootTime;
use ike::crypto::{HashAlgorithm, Secret, constant_time_eq, prf};

use super::{Batch, Key, Store, StoreError};
use crate::state::record::{Change, Name, Records};

/// What every sealed value is authenticated beside: the format of this file.
const MAGIC: &[u8] = b"gcks records\x01";

type Mac = [u8; 32];

/// The MACs of the records that a store has.
#[derive(Debug, Default)]
struct Held {
    macs: BTreeMap<Name, Mac>,
    /// The exclusive or of all of them.
    sum: Mac,
}

impl Held {
    fn set(&mut self, name: Name, mac: Option<Mac>) {
        let before = match mac {
            Some(mac) => self.macs.insert(name, mac),
            None => self.macs.remove(&name),
        };
        for mac in before.iter().chain(&mac) {
            self.sum.iter_mut().zip(mac).for_each(|(sum, octet)| *sum ^= octet);
        }
    }

    /// What the head says of the records.
    fn sums(&self) -> Vec<u8> {
        let count = u32::try_from(self.macs.len()).unwrap_or(u32::MAX);
        [&count.to_be_bytes()[..], &self.sum].concat()
    }
}

/// A store with what seals it.
#[derive(Debug)]
pub struct SealedStore {
    store: Box<dyn Store>,
    place: String,
    sealer: Sealer,
    names: Secret,
    macs: Secret,
    /// `None` when it is not known what the store has.
    held: Option<Held>,
}

/// What was in a store.
#[derive(Debug)]
pub struct Loaded {
    pub records: Records,
    /// When they were last written.
    pub written: Moment,
}

impl SealedStore {
    /// Seals with keys made from `key`, which has 16 or 32 octets. Messages call the store `place`.
    ///
    /// # Errors
    /// The system gives no cipher.
    pub fn new(store: Box<dyn Store>, place: String, key: &Secret) -> Result<Self, StoreError> {
        let derive = |purpose: &[u8]| prf(HashAlgorithm::Sha2_256, key.expose(), &[purpose]);
        Ok(Self {
            store,
            place,
            sealer: Sealer::new(&derive(b"gcks state: values"))?,
            names: derive(b"gcks state: names"),
            macs: derive(b"gcks state: MACs"),
            held: None,
        })
    }

    /// Reads everything; `None` if nothing was ever written.
    ///
    /// # Errors
    /// The store cannot be read, was changed, or was sealed with another key.
    pub fn load(&mut self) -> Result<Option<Loaded>, StoreError> {
        self.held = None;
        let (mut records, mut held, mut head) = (Records::default(), Held::default(), None);
        for (key, sealed) in self.store.read()? {
            let plain = self.sealer.open(&sealed, MAGIC).ok_or_else(|| self.damaged())?;
            let mut from = Decoder::new(plain.expose(), Clock::same(BootTime::default()));
            let name = from.octets().map_err(|_| self.damaged())?;
            let (name, value) = (Name::from_octets(name), from.rest());
            if self.key(&name) != key {
                return Err(self.damaged());
            }
            if name.octets().is_empty() {
                head = Some(Secret::copy_from(value));
                continue;
            }
            held.set(name.clone(), Some(self.mac(&name, value)));
            records.insert(name, Secret::copy_from(value));
        }
        let loaded = match head {
            None if held.macs.is_empty() => None,
            Some(head) => {
                let (written, sums) =
                    head.expose().split_at_checked(Moment::LENGTH).ok_or_else(|| self.damaged())?;
                if !constant_time_eq(sums, &held.sums()) {
                    return Err(self.damaged());
                }
                let written = Moment::decode(written).map_err(|_| self.damaged())?;
                Some(Loaded { records, written })
            }
            None => return Err(self.damaged()),
        };
        self.held = Some(held);
        Ok(loaded)
    }

    /// Carries out changes at `moment`; what they leave as it is costs no write.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn write(&mut self, changes: &[Change], moment: &Moment) -> Result<(), StoreError> {
        if self.held.is_none() {
            // A write that failed may have been carried out.
            self.load()?;
        }
        let mut held = self.held.take().unwrap_or_default();
        let mut next: BTreeMap<&Name, Option<(Mac, &Secret)>> = BTreeMap::new();
        for change in changes {
            match change {
                Change::Clear(prefix) => {
                    let from_it_on = held.macs.range(prefix.clone()..).map(|(name, _)| name);
                    let like_it =
                        from_it_on.take_while(|name| name.octets().starts_with(prefix.octets()));
                    next.extend(like_it.map(|name| (name, None)));
                }
                Change::Put(name, value) => {
                    next.insert(name, Some((self.mac(name, value.expose()), value)));
                }
                Change::Remove(name) => _ = next.insert(name, None),
            }
        }
        let mut batch = Batch::default();
        let mut changed: Vec<(Name, Option<Mac>)> = Vec::new();
        for (name, value) in next {
            match (held.macs.get(name), value) {
                (Some(before), Some((mac, _))) if *before == mac => {}
                (None, None) => {}
                (_, Some((mac, value))) => {
                    batch.puts.push((self.key(name), self.seal(name, value.expose())?));
                    changed.push((name.clone(), Some(mac)));
                }
                (Some(_), None) => {
                    batch.removals.push(self.key(name));
                    changed.push((name.clone(), None));
                }
            }
        }
        let anything = !changed.is_empty();
        changed.into_iter().for_each(|(name, mac)| held.set(name, mac));
        if anything {
            let mut head = Encoder::default();
            moment.encode(&mut head);
            head.put(&held.sums());
            let name = Name::from_octets(&[]);
            batch.puts.push((self.key(&name), self.seal(&name, head.finish().expose())?));
            self.store.write(&batch)?;
        }
        self.held = Some(held);
        Ok(())
    }

    fn key(&self, name: &Name) -> Key {
        let whole = prf(HashAlgorithm::Sha2_256, self.names.expose(), &[name.octets()]);
        whole.expose().first_chunk().copied().unwrap_or_default()
    }

    fn mac(&self, name: &Name, value: &[u8]) -> Mac {
        // The length of the name tells it from the value.
        let length = u32::try_from(name.octets().len()).unwrap_or(u32::MAX).to_be_bytes();
        let parts = [&length[..], name.octets(), value];
        let whole = prf(HashAlgorithm::Sha2_256, self.macs.expose(), &parts);
        whole.expose().first_chunk().copied().unwrap_or_default()
    }

    fn seal(&self, name: &Name, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut plain = Encoder::default();
        plain.octets(name.octets());
        plain.put(value);
        Ok(self.sealer.seal(plain.finish().expose(), MAGIC)?)
    }

    fn damaged(&self) -> StoreError {
        StoreError::Damaged { place: self.place.clone() }
    }
}
