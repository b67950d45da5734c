//! Which key server a group registers with, and when: a state machine without clock or sockets.
//!
//! The servers are tried in the configured order. Whatever ends an attempt without a key leads to
//! the next server; after the last one the machine waits, longer from round to round, and starts
//! again with the first. A served group registers again before its keys end, starting with the
//! first server too.
//!
//! Polling order: after every `handle_*`, `start` or `suspend`, take [`Failover::poll_attempt`],
//! then [`Failover::poll_timeout`]. Time must not run backwards.

use std::collections::VecDeque;
use std::time::Duration;

use ike::BootTime;

use crate::membership::jitter::Jitter;

/// Position of a server in the configured order, 0 for the first.
pub type ServerIndex = usize;

/// How many failures are remembered for show commands.
const HISTORY: usize = 16;
/// The shortest pause after a round in which no server served.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause between rounds. It also bounds how long a group stays blocked after its
/// servers are back.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The least margin before the end of a key.
const LEAST_MARGIN: Duration = Duration::from_secs(60);
/// Members that one message makes register again spread out over this time.
pub const SPREAD: Duration = Duration::from_secs(5);
/// Members whose keys end at the same moment spread out over this time: their traffic waits.
pub const EXPIRY_SPREAD: Duration = Duration::from_secs(1);
/// A server that gave a KEK alone is expected to push a TEK within this time.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Two registrations of one group are never closer than this, however short the lifetimes are.
const LEAST_INTERVAL: Duration = Duration::from_secs(5);

/// Why an attempt brought no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No answer within the retransmission budget.
    NoAnswer,
    Refused,
    /// The two sides share no phase-1 proposal.
    NoProposalChosen,
    /// The server proved another identity, or none.
    AuthenticationFailed,
    /// The server's policy is not understood or cannot be installed.
    PolicyUnusable,
    /// The server gave a KEK, and no TEK, nor was one pushed.
    NoTek,
    /// The server broke the protocol.
    PeerMisbehaved,
    /// The attempt as a whole took longer than its messages may take.
    TookTooLong,
    /// The attempt could not begin on this side.
    NotStarted,
}

impl Reason {
    /// Its name in counters, logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "no-answer",
            Self::Refused => "refused",
            Self::NoProposalChosen => "no-proposal-chosen",
            Self::AuthenticationFailed => "authentication-failed",
            Self::PolicyUnusable => "policy-unusable",
            Self::NoTek => "no-tek",
            Self::PeerMisbehaved => "peer-misbehaved",
            Self::TookTooLong => "took-too-long",
            Self::NotStarted => "not-started",
        }
    }
}

/// A server that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    pub server: ServerIndex,
    /// When the attempt ended.
    pub at: BootTime,
    /// Why, as a kind.
    pub reason: Reason,
    /// Why, as one clear line.
    pub detail: String,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// When the next round begins.
    NextRound,
    /// When to register again, before the keys end.
    Renewal,
    /// When an attempt is given up as a whole.
    Attempt,
}

/// A deadline and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    pub at: BootTime,
    pub why: Timer,
}

/// Where the machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing can be tried, for example without a local address.
    Suspended,
    /// An attempt is under way.
    Trying {
        server: ServerIndex,
        /// When it is given up.
        until: BootTime,
    },
    /// Every server was passed over; the next round begins at the time given.
    Pausing { until: BootTime },
    /// A server gave keys.
    Served {
        server: ServerIndex,
        /// When to register again.
        renewal: BootTime,
    },
}

/// The machine of one group.
#[derive(Debug)]
pub struct Failover {
    servers: usize,
    attempt_limit: Duration,
    state: State,
    /// An attempt that the caller has not taken yet.
    wanted: Option<ServerIndex>,
    /// Rounds without success in a row.
    rounds: u32,
    served_by: Option<ServerIndex>,
    /// While attempts are under way: when the next one would be due, if they fail and the keys that
    /// came by push last.
    pushed: Option<BootTime>,
    /// The server in use gave a KEK alone, and has pushed nothing yet.
    awaits_tek: bool,
    /// The keys ended while an attempt was under way that had begun before.
    ended_meanwhile: bool,
    round: Vec<PassedOver>,
    history: VecDeque<PassedOver>,
    jitter: Jitter,
}

impl Failover {
    /// A machine for `servers` key servers that stands still until [`Failover::start`].
    ///
    /// `attempt_limit` bounds one attempt as a whole; `seed` spreads the members of a group in
    /// time.
    pub fn new(servers: usize, attempt_limit: Duration, seed: u64) -> Self {
        Self {
            servers,
            attempt_limit,
            state: State::Suspended,
            wanted: None,
            rounds: 0,
            served_by: None,
            pushed: None,
            awaits_tek: false,
            ended_meanwhile: false,
            round: Vec::new(),
            history: VecDeque::with_capacity(HISTORY),
            jitter: Jitter::new(seed),
        }
    }

    /// Other servers: stands still until [`Failover::start`].
    pub fn reset(&mut self, servers: usize, attempt_limit: Duration) {
        self.suspend();
        self.servers = servers;
        self.attempt_limit = attempt_limit;
        // Positions in it belong to the servers before.
        self.history.clear();
        self.round.clear();
    }

    /// Begins a new round with the first server, whatever is under way.
    pub fn start(&mut self, now: BootTime) {
        self.rounds = 0;
        self.pushed = None;
        self.begin(0, now);
    }

    /// Registers again soon, at a random moment within `spread`. A round that is under way goes on.
    pub fn renew(&mut self, spread: Duration, now: BootTime) {
        self.pushed = None;
        match self.state {
            State::Served { .. } | State::Pausing { .. } if spread.is_zero() => self.begin(0, now),
            State::Served { server, renewal } => {
                let at = now + self.jitter.below(spread);
                self.awaits_tek = false;
                self.state = State::Served { server, renewal: renewal.min(at) };
            }
            State::Suspended | State::Trying { .. } | State::Pausing { .. } => {}
        }
    }

    /// A push of `server`'s group brought keys, of which one ends at each of `ends`: the next
    /// registration is due later. An attempt under way goes on, but its failure is no reason for
    /// another round.
    pub fn handle_pushed(
        &mut self,
        server: ServerIndex,
        ends: impl IntoIterator<Item = BootTime>,
        now: BootTime,
    ) {
        let Some(renewal) = self.renewal(ends, now) else { return };
        match self.state {
            State::Suspended => {}
            State::Trying { .. } => self.pushed = Some(renewal),
            State::Pausing { .. } | State::Served { .. } => {
                self.rounds = 0;
                self.wanted = None;
                self.awaits_tek = false;
                self.state = State::Served { server, renewal };
            }
        }
        self.served_by.get_or_insert(server);
    }

    /// Stops until the next [`Failover::start`].
    pub fn suspend(&mut self) {
        self.wanted = None;
        self.state = State::Suspended;
        self.served_by = None;
    }

    /// The attempt under way brought no key.
    ///
    /// Without an attempt under way nothing happens.
    pub fn handle_failure(&mut self, reason: Reason, detail: String, now: BootTime) {
        let State::Trying { server, .. } = self.state else { return };
        let passed = PassedOver { server, at: now, reason, detail };
        self.round.push(passed.clone());
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(passed);
        let next = server + 1;
        let pushed = self.pushed.filter(|renewal| *renewal > now).zip(self.served_by);
        if next < self.servers {
            self.begin(next, now);
        } else if let Some((renewal, server)) = pushed {
            self.pushed = None;
            self.rounds = 0;
            self.state = State::Served { server, renewal };
        } else {
            let pause = match std::mem::take(&mut self.ended_meanwhile) {
                true => self.jitter.below(EXPIRY_SPREAD),
                false => self.pause(),
            };
            self.rounds = self.rounds.saturating_add(1);
            self.wanted = None;
            self.state = State::Pausing { until: now + pause };
        }
    }

    /// The attempt under way brought keys, of which one ends at each of `ends`.
    pub fn handle_served(&mut self, ends: impl IntoIterator<Item = BootTime>, now: BootTime) {
        let State::Trying { server, .. } = self.state else { return };
        let renewal = self.renewal(ends, now).unwrap_or(now + LEAST_INTERVAL);
        self.rounds = 0;
        self.wanted = None;
        self.pushed = None;
        self.awaits_tek = false;
        self.served_by = Some(server);
        self.state = State::Served { server, renewal };
    }

    /// The attempt under way brought a KEK and no TEK (RFC 6407 §5.2.1): a push is waited for, and
    /// then the next server is tried.
    pub fn handle_served_without_tek(&mut self, now: BootTime) {
        let State::Trying { server, .. } = self.state else { return };
        self.wanted = None;
        self.pushed = None;
        self.awaits_tek = true;
        self.served_by = Some(server);
        self.state = State::Served { server, renewal: now + PATIENCE };
    }

    /// A margin before the first of `ends`. The jitter shortens the margin, so that members spread
    /// out and a server that replaces keys a full margin before their end has already done so when
    /// the first of them asks.
    fn renewal(
        &mut self,
        ends: impl IntoIterator<Item = BootTime>,
        now: BootTime,
    ) -> Option<BootTime> {
        let at = |end: BootTime, jitter: &mut Jitter| {
            let margin = margin(end.saturating_since(now));
            end - margin + jitter.below(margin / 4)
        };
        let first = ends.into_iter().map(|end| at(end, &mut self.jitter)).min()?;
        Some(first.max(now + LEAST_INTERVAL))
    }

    /// The key server deleted the keys that the group had; no server serves it now.
    pub fn handle_deleted(&mut self) {
        self.served_by = None;
        self.pushed = None;
    }

    /// The keys that the group had have ended; no server serves it now. Whatever is waited for, a
    /// round begins at once: that is when a key server that gives no key early has one.
    pub fn handle_expired(&mut self, now: BootTime) {
        self.handle_deleted();
        let at = now + self.jitter.below(EXPIRY_SPREAD);
        match self.state {
            State::Pausing { until } => self.state = State::Pausing { until: until.min(at) },
            State::Served { server, renewal } => {
                self.awaits_tek = false;
                self.state = State::Served { server, renewal: renewal.min(at) };
            }
            // It may fail for having begun too early.
            State::Trying { .. } => self.ended_meanwhile = true,
            State::Suspended => {}
        }
    }

    /// The keys that the serving server gave cannot be used after all: it counts as passed over.
    /// Returns whether there is one.
    pub fn handle_rejected(&mut self, reason: Reason, detail: String, now: BootTime) -> bool {
        let State::Served { server, .. } = self.state else { return false };
        self.served_by = None;
        self.state = State::Trying { server, until: now };
        self.handle_failure(reason, detail, now);
        true
    }

    /// Time has passed. Returns whether an attempt was given up because of it.
    pub fn handle_timeout(&mut self, now: BootTime) -> bool {
        match self.state {
            State::Served { server, renewal } if renewal <= now && self.awaits_tek => {
                self.state = State::Trying { server, until: now };
                self.handle_failure(
                    Reason::NoTek,
                    "it gave a KEK, and no TEK came by push".to_owned(),
                    now,
                );
                return true;
            }
            State::Pausing { until } if until <= now => self.begin(0, now),
            State::Served { renewal, .. } if renewal <= now => self.begin(0, now),
            State::Trying { until, .. } if until <= now => {
                self.handle_failure(
                    Reason::TookTooLong,
                    "the attempt as a whole took too long".to_owned(),
                    now,
                );
                return true;
            }
            _ => {}
        }
        false
    }

    /// The server to begin an attempt with now. Handed out once; it replaces any attempt under way.
    pub fn poll_attempt(&mut self) -> Option<ServerIndex> {
        self.wanted.take()
    }

    pub fn poll_timeout(&self) -> Option<Deadline> {
        match self.state {
            State::Suspended => None,
            State::Trying { until, .. } => Some(Deadline { at: until, why: Timer::Attempt }),
            State::Pausing { until } => Some(Deadline { at: until, why: Timer::NextRound }),
            State::Served { renewal, .. } => Some(Deadline { at: renewal, why: Timer::Renewal }),
        }
    }

    /// Where the machine stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The server whose keys are in use, also while a renewal is tried.
    pub fn served_by(&self) -> Option<ServerIndex> {
        self.served_by
    }

    /// The servers passed over in the round that led to the current state.
    pub fn passed_over(&self) -> &[PassedOver] {
        &self.round
    }

    /// Rounds in a row in which no server gave keys.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The latest failures, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &PassedOver> {
        self.history.iter()
    }

    fn begin(&mut self, server: ServerIndex, now: BootTime) {
        if server == 0 {
            self.round.clear();
            self.ended_meanwhile = false;
        }
        self.awaits_tek = false;
        self.wanted = Some(server);
        self.state = State::Trying { server, until: now + self.attempt_limit };
    }

    /// 5 s, 10 s, 20 s .. 60 s, each less up to a quarter.
    fn pause(&mut self) -> Duration {
        let doubled =
            FIRST_PAUSE.saturating_mul(1_u32.checked_shl(self.rounds).unwrap_or(u32::MAX));
        let pause = doubled.min(LONGEST_PAUSE);
        pause - self.jitter.below(pause / 4)
    }
}

/// How long before the end of a key of this lifetime a new one is asked for, jitter not counted:
/// 60 s or 5 % of the lifetime, whichever is more, but never more than half of it.
pub fn margin(lifetime: Duration) -> Duration {
    LEAST_MARGIN.max(lifetime / 20).min(lifetime / 2)
}

#[cfg(test)]
mod tests;
