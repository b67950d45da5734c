//! When a TEK is replaced: the life of the data SAs of one group.
//!
//! A TEK is handed out with the life it has left, and a pull that comes when too little is left
//! makes the next one. Members come back within the same margin before the end, so the first of
//! them finds a new TEK and the others get that one.

use std::collections::BTreeMap;
use std::time::Duration;

use daemon::entropy::EntropyError;
use gdoi::BootTime;
use gdoi::group::{GroupPolicy, Spi, TekKeys, TekPolicy};

use crate::config::{Group, Rekey, TekTemplate};
use crate::keys::{self, Entropy};

/// Least margin before the end of a TEK.
const LEAST_MARGIN: Duration = Duration::from_secs(60);

/// How long before its end a TEK of this life is no longer handed out: 60 seconds or a twentieth of
/// its life, whichever is more, and half of its life at most.
pub fn margin(lifetime: Duration) -> Duration {
    LEAST_MARGIN.max(lifetime / 20).min(lifetime / 2)
}

/// How long before the margin of its members a new key is pushed: time for all transmissions, for the acknowledgements,
/// and until the last member that got the push sends with the new key.
pub fn lead(rekey: &Rekey, activation: Duration) -> Duration {
    let delivery = rekey.delivery;
    let wait = if rekey.acknowledgements { delivery.acknowledgement_wait } else { Duration::ZERO };
    delivery.period.saturating_mul(delivery.repetitions) + activation + wait
}

/// How long before its end a key of this life is replaced by a push: before the members' own margin, and three quarters
/// of the life at most.
pub fn push_margin(lifetime: Duration, lead: Duration) -> Duration {
    (margin(lifetime) + lead).min(lifetime / 4 * 3)
}

/// Whether a life is too short for [`push_margin`] to leave the members their time.
pub fn is_short(lifetime: Duration, lead: Duration) -> bool {
    margin(lifetime) + lead > lifetime / 4 * 3
}

/// The data SAs of one group.
#[derive(Debug)]
pub struct Schedule {
    slots: Vec<Slot>,
}

/// One data SA: the TEK handed out now, and older ones that members may still use.
#[derive(Debug)]
struct Slot {
    template: TekTemplate,
    current: Option<Tek>,
    retired: Vec<Life>,
}

#[derive(Debug)]
struct Tek {
    life: Life,
    keys: TekKeys,
}

/// An SPI and when its TEK ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The SPI.
    pub spi: Spi,
    /// When the TEK ends.
    pub ends: BootTime,
}

/// What a pull gets.
#[derive(Debug, PartialEq, Eq)]
pub struct HandOut {
    /// The data SAs' part of the policy, with the life left.
    pub teks: Vec<TekPolicy>,
    /// Their keys.
    pub keys: BTreeMap<Spi, TekKeys>,
    /// When the first of them ends.
    pub first_end: BootTime,
    /// When the last TEK ends that any member may use now.
    pub last_end: BootTime,
}

impl Schedule {
    /// The schedule of `group`, without any TEK yet.
    pub fn new(group: &Group) -> Self {
        let slot = |template: &TekTemplate| Slot { template: template.clone(), current: None, retired: Vec::new() };
        Self { slots: group.teks.iter().map(slot).collect() }
    }

    /// Makes the TEKs that are missing or have too little life left, and returns them.
    ///
    /// # Errors
    /// No randomness; what was there before stays.
    pub fn renew(
        &mut self,
        now: BootTime,
        in_use: impl Fn(Spi) -> bool,
        entropy: &mut impl Entropy,
    ) -> Result<Vec<Life>, EntropyError> {
        self.handle_timeout(now);
        let mut made: Vec<Life> = Vec::new();
        for slot in &mut self.slots {
            let enough = now + margin(slot.template.lifetime);
            if slot.current.as_ref().is_some_and(|tek| tek.life.ends > enough) {
                continue;
            }
            let taken = |spi| in_use(spi) || made.iter().any(|life| life.spi == spi);
            let spi = keys::spi(taken, entropy)?;
            let keys = keys::tek_keys(&slot.template, entropy)?;
            let life = Life { spi, ends: now + slot.template.lifetime };
            // Of a replaced TEK only the SPI is remembered; its keys are wiped here.
            slot.retired.extend(slot.current.replace(Tek { life, keys }).map(|tek| tek.life));
            made.push(life);
        }
        Ok(made)
    }

    /// The TEKs to hand out. Call [`Schedule::renew`] first.
    pub fn hand_out(&self, now: BootTime) -> HandOut {
        let mut out = HandOut { teks: Vec::new(), keys: BTreeMap::new(), first_end: now, last_end: now };
        let mut first_end: Option<BootTime> = None;
        for slot in &self.slots {
            let Some(tek) = &slot.current else { continue };
            let left = tek.life.ends.saturating_since(now);
            // Whole seconds, rounded down: no member keeps a key longer than the server thinks.
            let protection = slot.template.protection(Duration::from_secs(left.as_secs()));
            for selector in &slot.template.selectors {
                out.teks.push(TekPolicy { spi: tek.life.spi, selector: *selector, protection: protection.clone() });
            }
            let keys =
                TekKeys { encryption: tek.keys.encryption.duplicate(), integrity: tek.keys.integrity.duplicate() };
            out.keys.insert(tek.life.spi, keys);
            first_end = Some(first_end.map_or(tek.life.ends, |end| end.min(tek.life.ends)));
            for life in slot.retired.iter().chain([&tek.life]) {
                out.last_end = out.last_end.max(life.ends);
            }
        }
        out.first_end = first_end.unwrap_or(now);
        out
    }

    /// Forgets the TEKs that have ended, keys first.
    pub fn handle_timeout(&mut self, now: BootTime) {
        for slot in &mut self.slots {
            if slot.current.as_ref().is_some_and(|tek| tek.life.ends <= now) {
                slot.current = None;
            }
            slot.retired.retain(|life| life.ends > now);
        }
    }

    /// When the next TEK ends.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        self.lives().map(|(_, life, _)| life.ends).min()
    }

    /// Whether a living TEK has this SPI.
    pub fn uses(&self, spi: Spi) -> bool {
        self.lives().any(|(_, life, _)| life.spi == spi)
    }

    /// All living TEKs with their template, and whether they are handed out now.
    pub fn lives(&self) -> impl Iterator<Item = (&TekTemplate, Life, bool)> {
        self.slots.iter().flat_map(|slot| {
            let current = slot.current.iter().map(|tek| (&slot.template, tek.life, true));
            current.chain(slot.retired.iter().map(|life| (&slot.template, *life, false)))
        })
    }
}

/// The policy of `group` with these TEKs.
///
/// There is no SAK: a member that gets one waits for pushes, and this server sends none yet.
pub fn policy(group: &Group, teks: Vec<TekPolicy>) -> GroupPolicy {
    GroupPolicy { group: group.id, kek: None, gap: group.gap.clone(), teks }
}

#[cfg(test)]
mod tests {
    use gdoi::group::{AddressRange, GroupId, TrafficSelector};

    use super::*;
    use crate::config;
    use crate::keys::OsEntropy;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn group(lifetimes: &[u64]) -> Group {
        let any = TrafficSelector {
            protocol: 0,
            source: AddressRange::Any,
            source_port: 0,
            destination: AddressRange::Any,
            destination_port: 0,
        };
        let template = |seconds: &u64| config::TekTemplate {
            selectors: vec![any, TrafficSelector { protocol: 6, ..any }],
            encryption: crate::algorithm::ENCRYPTIONS[2],
            integrity: Some(crate::algorithm::INTEGRITIES[1]),
            direction: gdoi::group::SaDirection::SYMMETRIC,
            mode: gdoi::group::EncapsulationMode::TUNNEL,
            address_preservation: gdoi::group::AddressPreservation::SOURCE_AND_DESTINATION,
            lifetime: Duration::from_secs(*seconds),
        };
        Group {
            name: String::from("g"),
            id: GroupId(1),
            teks: lifetimes.iter().map(template).collect(),
            gap: gdoi::group::GroupAssociatedPolicy::default(),
            sender_id_bits: 16,
            rekey: None,
        }
    }

    fn pull(schedule: &mut Schedule, now: BootTime) -> HandOut {
        schedule.renew(now, |_| false, &mut OsEntropy).unwrap();
        schedule.hand_out(now)
    }

    #[test]
    fn margins() {
        for (life, expected) in [(86_400, 4320), (3600, 180), (1200, 60), (120, 60), (60, 30)] {
            assert_eq!(margin(Duration::from_secs(life)), Duration::from_secs(expected), "{life}");
        }
    }

    #[test]
    fn everybody_gets_the_same_tek_with_the_life_it_has_left() {
        let mut schedule = Schedule::new(&group(&[3600]));
        let first = pull(&mut schedule, at(1000));
        assert_eq!(first.teks.len(), 2);
        assert_eq!(first.teks[0].spi, first.teks[1].spi);
        assert_eq!(first.teks[0].protection.lifetime, Duration::from_secs(3600));
        let second = pull(&mut schedule, at(2000) + Duration::from_millis(1));
        assert_eq!(second.keys, first.keys);
        // Rounded down.
        assert_eq!(second.teks[0].protection.lifetime, Duration::from_secs(2599));
    }

    #[test]
    fn a_tek_within_its_margin_is_replaced_and_remembered_until_its_end() {
        let mut schedule = Schedule::new(&group(&[3600]));
        let first = pull(&mut schedule, at(0));
        assert_eq!(pull(&mut schedule, at(3419)).keys, first.keys);
        let next = pull(&mut schedule, at(3420));
        let (old, new) = (first.teks[0].spi, next.teks[0].spi);
        assert_ne!(old, new);
        assert_ne!(next.keys[&new], first.keys[&old]);
        assert_eq!(next.teks[0].protection.lifetime, Duration::from_secs(3600));
        assert!(schedule.uses(old) && schedule.uses(new));
        assert_eq!(schedule.poll_timeout(), Some(at(3600)));
        schedule.handle_timeout(at(3600));
        assert!(!schedule.uses(old) && schedule.uses(new));
        assert_eq!((next.first_end, next.last_end), (at(7020), at(7020)));
    }

    #[test]
    fn every_sa_has_its_own_tek_and_its_own_life() {
        let mut schedule = Schedule::new(&group(&[3600, 600]));
        let first = pull(&mut schedule, at(0));
        let spis: Vec<Spi> = first.teks.iter().map(|tek| tek.spi).collect();
        assert_eq!(spis[0], spis[1]);
        assert_eq!(spis[2], spis[3]);
        assert_ne!(spis[0], spis[2]);
        assert_eq!((first.first_end, first.last_end), (at(600), at(3600)));
        let later = pull(&mut schedule, at(550));
        assert_eq!(later.teks[0].spi, spis[0]);
        assert_ne!(later.teks[2].spi, spis[2]);
    }

    #[test]
    fn keys_of_an_ended_tek_are_gone() {
        let mut schedule = Schedule::new(&group(&[60]));
        pull(&mut schedule, at(0));
        schedule.handle_timeout(at(60));
        assert_eq!(schedule.lives().count(), 0);
        assert!(schedule.hand_out(at(60)).keys.is_empty());
    }

    #[test]
    fn spis_of_other_groups_are_avoided() {
        let mut schedule = Schedule::new(&group(&[60]));
        let mut entropy = crate::keys::tests::Counting(1);
        // The first SPI drawn would be 01020304.
        schedule.renew(at(0), |spi| spi == 0x0102_0304, &mut entropy).unwrap();
        assert_eq!(schedule.lives().next().unwrap().1.spi, 0x0506_0708);
    }
}
