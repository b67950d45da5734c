//! One data SA of a group: its TEKs, and when it wants the next one.

use std::time::Duration;

use gdoi::group::{Spi, TekKeys};
use ike::BootTime;

use crate::config::TekTemplate;
use crate::config::rekey_timing::{margin, push_margin};
use crate::config::tek_algorithm::Kind;

/// Members of a server that does not answer get no push: they come by themselves, at another server,
/// within the margin before the end of a TEK, and the others send with it until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away {
    /// Since when: TEKs that were made later they do not have.
    pub since: BootTime,
    /// What the push needs that follows.
    pub lead: Duration,
}

/// One data SA: the TEK distributed now, and older ones that members may still use.
#[derive(Debug)]
pub struct Slot {
    /// What the next TEK is made for.
    pub template: TekTemplate,
    /// The TEK in use.
    pub current: Option<Tek>,
    /// The TEK before, and until when members send with it: a member that registers during the
    /// activation delay gets it first. While nobody was told of its successor, that is its end.
    pub before: Option<(Tek, BootTime)>,
    /// Replaced TEKs that members may still use.
    pub retired: Vec<TekLifetime>,
}

/// A TEK with its keys.
#[derive(Debug)]
pub struct Tek {
    pub lifetime: TekLifetime,
    pub keys: TekKeys,
    /// What it was made for: the configuration may say something else by now.
    pub template: TekTemplate,
    /// Whether its successor is pushed. The members of one that was made before there were pushes
    /// come for it.
    pub pushed: bool,
}

/// An SPI and when its TEK ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TekLifetime {
    pub spi: Spi,
    /// When the TEK ends.
    pub ends: BootTime,
}

/// Which TEKs are replaced. A data SA without a TEK gets one in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Only data SAs without a TEK get one.
    Missing,
    /// Those within the margin in which members come by themselves.
    Margin,
    /// Those whose time for a push with this [`lead`](crate::config::rekey_timing::lead) has come.
    Ahead(Duration),
    /// Those of counter modes that were made before a moment, and those whose time for a push with
    /// this lead has come.
    CountersBefore(BootTime, Duration),
    /// Those within the margin whose members get no push.
    Unpushed,
    /// Every TEK is replaced, whatever its age.
    All,
}

impl Tek {
    /// How long before its end it is replaced by a push: behind the margin in which the members of a
    /// server that is away come by themselves, if that leaves time enough.
    pub(super) fn push_margin(&self, lead: Duration, away: Option<Away>) -> Duration {
        let lifetime = self.template.lifetime;
        let late = margin(lifetime) / 2;
        let have_it = |away: &Away| self.lifetime.ends <= away.since + lifetime;
        match away.filter(|away| have_it(away) && away.lead <= late) {
            Some(_) => late,
            None => push_margin(lifetime, lead),
        }
    }

    pub(super) fn is_counter_mode_before(&self, time: BootTime) -> bool {
        let counter_mode = self.template.encryption.kind == Kind::Combined;
        counter_mode && self.lifetime.ends < time + self.template.lifetime
    }
}

impl Slot {
    pub(super) fn new(template: TekTemplate) -> Self {
        Self { template, current: None, before: None, retired: Vec::new() }
    }

    /// Whether nobody was told of the TEK that took the place of the one before.
    pub(super) fn is_held_back(&self) -> bool {
        self.before.as_ref().is_some_and(|(tek, until)| *until == tek.lifetime.ends)
    }

    pub(super) fn wants(&self, renewal: Renewal, away: Option<Away>, now: BootTime) -> bool {
        let Some(tek) = &self.current else { return true };
        let within = |margin: Duration| tek.lifetime.ends <= now + margin;
        let usual = margin(tek.template.lifetime);
        match renewal {
            Renewal::Missing => false,
            Renewal::All => true,
            Renewal::CountersBefore(restart, _) if tek.is_counter_mode_before(restart) => true,
            Renewal::CountersBefore(_, lead) => self.wants(Renewal::Ahead(lead), away, now),
            Renewal::Margin => within(usual),
            Renewal::Unpushed => !tek.pushed && within(usual),
            Renewal::Ahead(lead) if tek.pushed => within(tek.push_margin(lead, away)),
            Renewal::Ahead(_) => within(usual),
        }
    }

    pub(super) fn next_push(&self, lead: Duration, away: Option<Away>) -> Option<BootTime> {
        let tek = self.current.as_ref().filter(|tek| tek.pushed)?;
        Some(tek.lifetime.ends - tek.push_margin(lead, away))
    }
}
