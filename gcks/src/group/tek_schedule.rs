//! When a TEK is replaced: the lifetimes of the data SAs of one group.
//!
//! A TEK is distributed with the lifetime it has left. Where members only pull, a pull that comes
//! when too little is left makes the next one: members come back within the same margin before the
//! end, so the first of them finds a new TEK and the others get that one. Where keys are pushed,
//! the next one is made and pushed before that margin, early enough for all repetitions: see
//! [`rekey_timing`](crate::config::rekey_timing).
//! TEKs are prepared first and distributed when the push is sealed.

mod slot;

use std::collections::BTreeMap;
use std::time::Duration;

use daemon::entropy::EntropyError;
use gdoi::group::{Spi, TekKeys, TekPolicy};
use ike::BootTime;

use crate::config::tek_algorithm::Kind;
use crate::config::{Group, TekTemplate};
use crate::group::key_generation::{self as keys, KeySource};

pub use self::slot::{Away, Renewal, Slot, Tek, TekLifetime};

/// The data SAs of one group.
#[derive(Debug)]
pub struct TekSchedule {
    slots: Vec<Slot>,
    /// SPIs of data SAs that the group no longer has; members may still have them.
    gone: Vec<TekLifetime>,
    /// Whether TEKs that are replaced now are sent with until [`TekSchedule::release`]: to the
    /// end of their lifetime.
    held_back: bool,
    away: Option<Away>,
}

/// New TEKs that nobody has yet, by the place of their data SA.
#[derive(Debug, Default)]
pub struct Prepared {
    teks: BTreeMap<usize, Tek>,
    /// Whether they take the places of all data SAs that there are.
    is_anew: bool,
}

impl Prepared {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.teks.is_empty()
    }

    /// Whether no data SA stays as it is.
    pub fn is_anew(&self) -> bool {
        self.is_anew
    }
}

/// What a pull or a push distributes.
#[derive(Debug, PartialEq, Eq)]
pub struct Distribution {
    /// The data SAs' part of the policy, with the lifetime left.
    pub teks: Vec<TekPolicy>,
    pub keys: BTreeMap<Spi, TekKeys>,
    /// Whether one of them needs sender identifiers.
    pub counter_mode: bool,
    /// When the first of them ends.
    pub first_end: BootTime,
    /// When the last TEK ends that any member may use now.
    pub last_end: BootTime,
}

impl TekSchedule {
    /// The schedule of `group`, without any TEK yet.
    pub fn new(group: &Group) -> Self {
        let slot = |template: &TekTemplate| Slot::new(template.clone());
        Self::from_parts(group.teks.iter().map(slot).collect(), Vec::new())
    }

    /// The data SAs and the SPIs of those that are gone, as the sealed state has them.
    pub fn from_parts(slots: Vec<Slot>, gone: Vec<TekLifetime>) -> Self {
        Self { slots, gone, held_back: false, away: None }
    }

    /// The data SAs, for the sealed state.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// SPIs of data SAs that the group no longer has, for the sealed state.
    pub fn gone(&self) -> &[TekLifetime] {
        &self.gone
    }

    /// Whether another set of data SAs takes something away that members have TEKs for.
    pub(crate) fn loses_selectors(&self, templates: &[TekTemplate]) -> bool {
        let stays = |slot: &&Slot| {
            templates.iter().any(|template| template.selectors == slot.template.selectors)
        };
        let mut in_use = self.slots.iter().filter(|slot| slot.current.is_some());
        in_use.any(|slot| !stays(&slot))
    }

    /// Whether these data SAs have the traffic selectors of `templates`.
    pub(crate) fn serves(&self, templates: &[TekTemplate]) -> bool {
        let own = self.slots.iter().map(|slot| &slot.template.selectors);
        own.eq(templates.iter().map(|template| &template.selectors))
    }

    /// Whether some data SA would get a new TEK.
    pub(crate) fn wants(&self, renewal: Renewal, now: BootTime) -> bool {
        self.slots.iter().any(|slot| slot.wants(renewal, self.away, now))
    }

    /// Takes over other data SAs. One with the same traffic selectors keeps its TEK, and the next
    /// one is made as the template says. Returns the TEKs of data SAs that are no longer configured.
    pub(crate) fn reconfigure(&mut self, templates: &[TekTemplate]) -> Vec<TekLifetime> {
        let mut before = std::mem::take(&mut self.slots);
        for template in templates {
            let alike =
                before.iter().position(|slot| slot.template.selectors == template.selectors);
            let slot = alike.map(|place| before.remove(place));
            self.slots.push(match slot {
                Some(slot) => Slot { template: template.clone(), ..slot },
                None => Slot::new(template.clone()),
            });
        }
        let lifetimes = before
            .into_iter()
            .flat_map(|slot| slot.retired.into_iter().chain(slot.current.map(|tek| tek.lifetime)));
        let orphans: Vec<TekLifetime> = lifetimes.collect();
        self.gone.extend(&orphans);
        orphans
    }

    /// Makes TEKs without distributing them: [`TekSchedule::commit`] does that.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn prepare(
        &self,
        renewal: Renewal,
        pushed: bool,
        now: BootTime,
        source: &mut KeySource<'_>,
    ) -> Result<Prepared, EntropyError> {
        let wanted =
            self.slots.iter().enumerate().filter(|(_, slot)| slot.wants(renewal, self.away, now));
        self.make(wanted.map(|(place, slot)| (place, &slot.template)), pushed, now, source)
    }

    /// Makes TEKs for `templates` that take the places of all data SAs that there are.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn prepare_anew(
        &self,
        templates: &[TekTemplate],
        pushed: bool,
        now: BootTime,
        source: &mut KeySource<'_>,
    ) -> Result<Prepared, EntropyError> {
        let made = self.make(templates.iter().enumerate(), pushed, now, source)?;
        Ok(Prepared { is_anew: true, ..made })
    }

    fn make<'a>(
        &self,
        wanted: impl Iterator<Item = (usize, &'a TekTemplate)>,
        pushed: bool,
        now: BootTime,
        source: &mut KeySource<'_>,
    ) -> Result<Prepared, EntropyError> {
        let mut prepared = Prepared::default();
        for (place, template) in wanted {
            let taken = |spi| {
                source.foreign_spis.contains(&spi)
                    || self.uses(spi)
                    || prepared.teks.values().any(|tek| tek.lifetime.spi == spi)
            };
            let spi = keys::spi(taken, source.entropy)?;
            let keys = keys::tek_keys(template, source.entropy)?;
            let lifetime = TekLifetime { spi, ends: now + template.lifetime };
            let tek = Tek { lifetime, keys, template: template.clone(), pushed };
            prepared.teks.insert(place, tek);
        }
        Ok(prepared)
    }

    /// Distributes what was prepared from now on; returns the new TEKs. Of a replaced
    /// TEK only the SPI is remembered and its keys are wiped, unless members send with it until
    /// `hold`, or until [`TekSchedule::release`].
    pub fn commit(&mut self, prepared: Prepared, hold: Option<BootTime>) -> Vec<TekLifetime> {
        let mut made = Vec::new();
        if prepared.is_anew {
            self.clear();
            let slots = prepared.teks.values().map(|tek| Slot::new(tek.template.clone()));
            self.slots = slots.collect();
        }
        for (place, tek) in prepared.teks {
            let Some(slot) = self.slots.get_mut(place) else { continue };
            made.push(tek.lifetime);
            let Some(old) = slot.current.replace(tek) else { continue };
            slot.retired.push(old.lifetime);
            let hold = hold.filter(|until| old.lifetime.ends > *until);
            slot.before = match (hold, self.held_back) {
                // Nobody was told of the one that is replaced: members have the one before it.
                (Some(_), true) if slot.is_held_back() => slot.before.take(),
                (Some(_), true) => {
                    let until = old.lifetime.ends;
                    Some((old, until))
                }
                (hold, _) => hold.map(|until| (old, until)),
            };
        }
        made
    }

    /// The TEKs to distribute: with `prepared` in their places, or to somebody who gets the latest
    /// push afterwards, with those `before` that push.
    pub fn distribute(
        &self,
        prepared: Option<&Prepared>,
        before: bool,
        now: BootTime,
    ) -> Distribution {
        let mut out = Distribution {
            teks: Vec::new(),
            keys: BTreeMap::new(),
            counter_mode: false,
            first_end: now,
            last_end: self.last_end(now),
        };
        let mut first_end: Option<BootTime> = None;
        let is_anew = prepared.is_some_and(Prepared::is_anew);
        let new = prepared.map(|prepared| &prepared.teks);
        let places = if is_anew { new.map_or(0, BTreeMap::len) } else { self.slots.len() };
        for place in 0..places {
            let slot = self.slots.get(place).filter(|_| !is_anew);
            let new = new.and_then(|new| new.get(&place));
            let old = slot.and_then(|slot| slot.before.as_ref()).map(|(tek, _)| tek);
            let current = slot.and_then(|slot| slot.current.as_ref());
            let Some(tek) = new.or(old.filter(|_| before)).or(current) else { continue };
            out.counter_mode |= tek.template.encryption.kind == Kind::Combined;
            let left = tek.lifetime.ends.saturating_since(now);
            // Whole seconds, rounded down: no member keeps a key longer than the server thinks.
            let protection = tek.template.protection(Duration::from_secs(left.as_secs()));
            for selector in &tek.template.selectors {
                out.teks.push(TekPolicy {
                    spi: tek.lifetime.spi,
                    selector: *selector,
                    protection: protection.clone(),
                });
            }
            let keys = TekKeys {
                encryption: tek.keys.encryption.duplicate(),
                integrity: tek.keys.integrity.duplicate(),
            };
            out.keys.insert(tek.lifetime.spi, keys);
            first_end = Some(first_end.map_or(tek.lifetime.ends, |end| end.min(tek.lifetime.ends)));
            out.last_end = out.last_end.max(tek.lifetime.ends);
        }
        out.first_end = first_end.unwrap_or(now);
        out
    }

    /// Whether members may still send with TEKs that a push has replaced.
    pub fn is_pending(&self, now: BootTime) -> bool {
        let mut before = self.slots.iter().filter_map(|slot| slot.before.as_ref());
        before.any(|(_, until)| *until > now)
    }

    /// Members send with TEKs that are replaced from now on until [`TekSchedule::release`], whatever
    /// time that takes. Those that were replaced before come to their end as it was said then:
    /// members may no longer receive on them.
    pub fn hold_back(&mut self) {
        self.held_back = true;
    }

    /// Whether members of other servers get no pushes.
    pub fn set_away(&mut self, away: Option<Away>) {
        self.away = away;
    }

    /// Members send with the TEKs that were held back until `until`.
    pub fn release(&mut self, until: BootTime) {
        self.held_back = false;
        for slot in &mut self.slots {
            let before = slot.before.take().map(|(tek, earlier)| (tek, earlier.min(until)));
            slot.before = before.filter(|(tek, until)| tek.lifetime.ends > *until);
        }
    }

    /// Forgets the TEKs that have ended, keys first.
    pub fn handle_timeout(&mut self, now: BootTime) {
        for slot in &mut self.slots {
            if slot.current.as_ref().is_some_and(|tek| tek.lifetime.ends <= now) {
                slot.current = None;
            }
            if slot.before.as_ref().is_some_and(|(_, until)| *until <= now) {
                slot.before = None;
            }
            slot.retired.retain(|lifetime| lifetime.ends > now);
        }
        self.gone.retain(|lifetime| lifetime.ends > now);
    }

    /// When [`TekSchedule::handle_timeout`] has something to do next.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        let before = self.slots.iter().filter_map(|slot| Some(slot.before.as_ref()?.1));
        let gone = self.gone.iter().map(|lifetime| lifetime.ends);
        self.lifetimes().map(|(_, lifetime, _)| lifetime.ends).chain(before).chain(gone).min()
    }

    /// Whether a counter-mode TEK in use was made before `restart`.
    pub fn has_counter_mode_before(&self, restart: BootTime) -> bool {
        let mut current = self.slots.iter().filter_map(|slot| slot.current.as_ref());
        current.any(|tek| tek.is_counter_mode_before(restart))
    }

    /// Wipes the keys of counter modes; returns whether there were any. Their SPIs are remembered.
    pub fn end_counter_modes(&mut self) -> bool {
        let is_counter_mode = |tek: &mut Tek| tek.template.encryption.kind == Kind::Combined;
        let mut ended = false;
        for slot in &mut self.slots {
            let current = slot.current.take_if(is_counter_mode);
            ended |= current.is_some();
            slot.retired.extend(current.map(|tek| tek.lifetime));
            slot.before.take_if(|(tek, _)| is_counter_mode(tek));
        }
        ended
    }

    /// Whether there is a TEK that has not ended.
    pub fn is_alive(&self, now: BootTime) -> bool {
        self.slots
            .iter()
            .filter_map(|slot| slot.current.as_ref())
            .any(|tek| tek.lifetime.ends > now)
    }

    /// When the next TEK is to be pushed.
    pub fn next_push(&self, lead: Duration) -> Option<BootTime> {
        self.slots.iter().filter_map(|slot| slot.next_push(lead, self.away)).min()
    }

    /// Wipes all keys. Their SPIs are remembered until their end.
    pub fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.before = None;
            self.gone.append(&mut slot.retired);
            self.gone.extend(slot.current.take().map(|tek| tek.lifetime));
        }
    }

    /// SPIs of all TEKs that members may have.
    pub fn spis(&self) -> impl Iterator<Item = Spi> {
        self.lifetimes().map(|(_, lifetime, _)| lifetime.spi)
    }

    /// Members have been told to drop all TEKs but the current ones. The SPIs stay taken until
    /// their end.
    pub fn forget_replaced(&mut self) {
        self.drop_replaced();
        for slot in &mut self.slots {
            self.gone.append(&mut slot.retired);
        }
    }

    /// Drops the keys of replaced TEKs: nobody may send with them any more.
    pub fn drop_replaced(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.before = None);
    }

    /// When the last TEK ends that any member may use now.
    pub fn last_end(&self, now: BootTime) -> BootTime {
        self.lifetimes()
            .map(|(_, lifetime, _)| lifetime)
            .chain(self.gone.iter().copied())
            .map(|lifetime| lifetime.ends)
            .max()
            .unwrap_or(now)
    }

    /// Whether a TEK that has not ended has this SPI.
    pub fn uses(&self, spi: Spi) -> bool {
        self.lifetimes().any(|(_, lifetime, _)| lifetime.spi == spi)
            || self.gone.iter().any(|lifetime| lifetime.spi == spi)
    }

    /// All TEKs that have not ended, with their template, and whether they are distributed now.
    pub fn lifetimes(&self) -> impl Iterator<Item = (&TekTemplate, TekLifetime, bool)> {
        self.slots.iter().flat_map(|slot| {
            let current = slot.current.iter().map(|tek| (&tek.template, tek.lifetime, true));
            current.chain(slot.retired.iter().map(|lifetime| (&slot.template, *lifetime, false)))
        })
    }
}

#[cfg(test)]
mod tests;
