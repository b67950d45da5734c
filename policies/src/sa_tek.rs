//! An SA TEK, checked and expanded into the kernel's selectors.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use gdoi::group::{SaDirection, Spi, TekKeys, TekPolicy, concurrent};
use xfrm::model::Selector;

use crate::error::Unusable;
use crate::group::{GroupInput, GroupOptions, GroupState, InstalledTek, Mode};
use crate::precedence::{POLICIES_PER_DIRECTION, SELECTORS_PER_GROUP};
use crate::protection::{Suite, receives, sends};
use crate::selector::{expand_tek, mirror};

#[derive(Debug)]
pub(crate) struct SaTek<'a> {
    pub(crate) policy: &'a TekPolicy,
    pub(crate) keys: Option<&'a TekKeys>,
    pub(crate) suite: Suite,
    pub(crate) selectors: Vec<Selector>,
    /// Its rank among the SA TEKs; equal SA TEKs of several generations share one.
    pub(crate) place: usize,
    /// Whether the generation sends and receives; the SA's direction and counter modes restrict
    /// that further.
    pub(crate) receive: bool,
    pub(crate) send: bool,
    /// An earlier run sent on it in counter mode.
    pub(crate) iv_reuse_hazard: bool,
    pub(crate) remaining_lifetime: Option<Duration>,
    pub(crate) mode: Mode,
}

impl SaTek<'_> {
    pub(crate) fn is_symmetric(&self) -> bool {
        self.policy.protection.direction == SaDirection::SYMMETRIC
    }

    /// Whether the SA may be used for sending at all.
    pub(crate) fn sends(&self) -> bool {
        match self.mode {
            Mode::Normal => sends(self.policy.protection.direction),
            Mode::ReceiveOnly => false,
            Mode::Passive => true,
        }
    }

    /// Whether the SA may be used for receiving at all.
    pub(crate) fn receives(&self) -> bool {
        receives(self.policy.protection.direction)
    }

    /// Both directions of a symmetric SA TEK, one of any other.
    pub(crate) fn all_selectors(&self) -> Vec<Selector> {
        let mirrored = if self.is_symmetric() { self.mirrored() } else { Vec::new() };
        self.selectors.iter().cloned().chain(mirrored).collect()
    }

    pub(crate) fn mirrored(&self) -> Vec<Selector> {
        self.selectors.iter().map(mirror).collect()
    }
}

/// The SA TEKs of a policy as it was offered, without keys: one generation.
pub(crate) fn offered<'a>(
    teks: &'a [TekPolicy],
    options: &GroupOptions,
) -> Result<Vec<SaTek<'a>>, Unusable> {
    // Only one of several TEKs for the same traffic sends.
    let concurrent = concurrent(teks);
    let part = |policy: &'a TekPolicy| Part {
        policy,
        keys: None,
        receive: true,
        send: concurrent.get(&policy.spi) == Some(&policy.spi),
        iv_reuse_hazard: false,
        remaining_lifetime: None,
    };
    build(teks.iter().map(part), options)
}

/// The SA TEKs of a group in its present state.
pub(crate) fn of_group<'a>(group: &GroupInput<'a>) -> Result<Vec<SaTek<'a>>, Unusable> {
    build(parts(group).into_iter(), &group.options)
}

/// The sources of an SA TEK: policy, keys and flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) policy: &'a TekPolicy,
    pub(crate) keys: Option<&'a TekKeys>,
    pub(crate) receive: bool,
    pub(crate) send: bool,
    pub(crate) iv_reuse_hazard: bool,
    pub(crate) remaining_lifetime: Option<Duration>,
}

impl<'a> Part<'a> {
    pub(crate) fn sa_tek(
        self,
        suite: Suite,
        selectors: Vec<Selector>,
        place: usize,
        mode: Mode,
    ) -> SaTek<'a> {
        let Self { policy, keys, receive, send, iv_reuse_hazard, remaining_lifetime } = self;
        SaTek {
            policy,
            keys,
            suite,
            selectors,
            place,
            receive,
            send,
            iv_reuse_hazard,
            remaining_lifetime,
            mode,
        }
    }
}

/// The SA TEKs of a group in its present state, unchecked.
pub(crate) fn parts<'a>(group: &GroupInput<'a>) -> Vec<Part<'a>> {
    match &group.state {
        GroupState::NoKey => Vec::new(),
        GroupState::Expired(sa_teks) => {
            let shut = |policy| Part {
                policy,
                keys: None,
                receive: false,
                send: false,
                iv_reuse_hazard: false,
                remaining_lifetime: None,
            };
            sa_teks.iter().copied().map(shut).collect()
        }
        GroupState::Keyed(teks) => {
            let part = |tek: &InstalledTek<'a>| {
                let InstalledTek {
                    policy,
                    keys,
                    receive,
                    send,
                    iv_reuse_hazard,
                    remaining_lifetime,
                } = *tek;
                Part {
                    policy,
                    keys: Some(keys),
                    receive,
                    send,
                    iv_reuse_hazard,
                    remaining_lifetime,
                }
            };
            teks.iter().map(part).collect()
        }
    }
}

fn build<'a>(
    parts: impl Iterator<Item = Part<'a>>,
    options: &GroupOptions,
) -> Result<Vec<SaTek<'a>>, Unusable> {
    let mut sa_teks: Vec<SaTek<'a>> = Vec::new();
    let mut places: BTreeMap<Vec<Selector>, usize> = BTreeMap::new();
    let mut count = 0;
    for (index, part) in parts.enumerate() {
        let number = index + 1;
        let suite = Suite::of(part.policy, options)?;
        let selectors = expand_tek(&part.policy.selector, number)?;
        // Also bounds the work below, since ranges multiply.
        let next = places.len();
        let place = *places.entry(selectors.clone()).or_insert(next);
        if place == next {
            count += selectors.len();
        }
        if count > POLICIES_PER_DIRECTION {
            return Err(Unusable::TooManyPolicies { count, limit: POLICIES_PER_DIRECTION });
        }
        sa_teks.push(part.sa_tek(suite, selectors, place, options.mode));
    }
    if places.len() > SELECTORS_PER_GROUP {
        return Err(Unusable::TooManySelectors { count: places.len(), limit: SELECTORS_PER_GROUP });
    }
    one_description_per_spi(&sa_teks)?;
    one_tek_per_selector(&sa_teks)?;
    Ok(sa_teks)
}

fn one_description_per_spi(sa_teks: &[SaTek<'_>]) -> Result<(), Unusable> {
    let mut first_of_spi: BTreeMap<Spi, (usize, &SaTek<'_>)> = BTreeMap::new();
    for (index, sa_tek) in sa_teks.iter().enumerate() {
        let spi = sa_tek.policy.spi;
        let (first, earlier) = *first_of_spi.entry(spi).or_insert((index, sa_tek));
        if earlier.policy.protection != sa_tek.policy.protection {
            return Err(Unusable::TwoDescriptions { spi, first: first + 1, second: index + 1 });
        }
    }
    Ok(())
}

/// Within the sending generation a selector may occur once. SA TEKs of other generations yield to
/// it.
fn one_tek_per_selector(sa_teks: &[SaTek<'_>]) -> Result<(), Unusable> {
    no_conflict(sa_teks.iter().enumerate().filter(|(_, sa_tek)| sa_tek.send && sa_tek.sends()))?;
    no_conflict(sa_teks.iter().enumerate().filter(|(_, sa_tek)| sa_tek.send && sa_tek.receives()))
}

fn no_conflict<'l, 'a: 'l>(
    sa_teks: impl Iterator<Item = (usize, &'l SaTek<'a>)>,
) -> Result<(), Unusable> {
    let mut seen: BTreeMap<BTreeSet<&Selector>, (usize, Spi)> = BTreeMap::new();
    for (index, sa_tek) in sa_teks {
        let spi = sa_tek.policy.spi;
        let (first, first_spi) =
            *seen.entry(sa_tek.selectors.iter().collect()).or_insert((index, spi));
        if first_spi != spi {
            return Err(Unusable::SameSelector {
                first: first + 1,
                second: index + 1,
                first_spi,
                second_spi: spi,
            });
        }
    }
    Ok(())
}
