//! Dead peer detection (RFC 3706): whether the peer of an ISAKMP SA is still there.
//!
//! ```text
//! HDR*, HASH, N(R-U-THERE, number)      -->
//!                                       <--   HDR*, HASH, N(R-U-THERE-ACK, number)
//! ```
//!
//! Each side asks when it wants to know and counts its own questions; both states are independent.
//! The two messages are Informational exchanges of their own, whose identifiers the
//! [`Session`](crate::session::Session) uses up. That keeps our own questions and answers, sent
//! back by somebody else, from being taken for the peer's; the numbers keep recorded ones of the
//! peer's from counting again.

use core::time::Duration;

use crate::crypto::SeededRng;
use crate::phase1::IsakmpSa;
use crate::time::BootTime;
use crate::wire::notify::Notification;
use crate::wire::registry::{Doi, NotifyType, ProtocolId};
use crate::wire::vendor::VendorId;

#[cfg(test)]
mod tests;

/// What a side sends in phase 1 that answers questions (RFC 3706 §5.1), version 1.0. Neither may
/// ask a peer that has not sent it.
pub const VENDOR_ID: [u8; 16] = [
    0xaf, 0xca, 0xd7, 0x13, 0x68, 0xa1, 0xf1, 0xc9, 0x6b, 0x86, 0x96, 0xfc, 0x77, 0x57, 0x01, 0x00,
];

/// Whether a peer is asked, and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Sends R-U-THERE when the peer is silent, and answers the peer's.
    On,
    /// Asks at every interval, whatever else is heard, and answers.
    Always,
    /// Answers, and never asks.
    #[default]
    AnswerOnly,
    /// Does neither, and does not send [`VENDOR_ID`].
    Off,
}

impl Mode {
    /// What phase 1 states.
    pub fn vendor_ids(self) -> Vec<VendorId> {
        match self {
            Self::On | Self::Always | Self::AnswerOnly => vec![VendorId(VENDOR_ID.to_vec())],
            Self::Off => Vec::new(),
        }
    }
}

/// When a peer is asked, and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub mode: Mode,
    /// How long nothing may be heard before a question, and how long each question waits for its
    /// answer. At least one second.
    pub interval: Duration,
    /// How many questions in a row stay unanswered by a dead peer. At least one.
    pub threshold: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { mode: Mode::default(), interval: Duration::from_secs(10), threshold: 5 }
    }
}

/// What the time asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    NotYet,
    /// This question is to be sent under the session.
    Ask(Notification),
    /// The peer is dead: its SAs are of no use (RFC 3706 §5.4). Said once.
    Dead,
}

/// What an authentic notification of the peer leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is no question and no answer.
    Other,
    /// The peer asks: this answer is to be sent under the session.
    Answer(Notification),
    /// The peer has answered: it is alive.
    Alive,
    /// It says nothing, for this reason.
    Ignored(Ignored),
}

/// Why a question or an answer says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// Questions are not answered here.
    #[error("dead peer detection is off")]
    Off,
    /// The cookies, the protocol or the length of the number are not those of the ISAKMP SA.
    #[error("not about this ISAKMP SA")]
    Malformed,
    /// A question that was asked before, more often than it is answered.
    #[error("question {0} was asked before")]
    StaleQuestion(u32),
    /// An answer to no question that waits for one.
    #[error("answer {0} to no question")]
    UnknownAnswer(u32),
}

/// Figures since the ISAKMP SA was established.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Statistics {
    pub questions_sent: u64,
    pub answers_sent: u64,
    pub answers_received: u64,
    pub ignored: u64,
}

/// Dead peer detection under one ISAKMP SA.
///
/// Send what [`handle`](Self::handle) and [`handle_timeout`](Self::handle_timeout) return under the
/// session, then read [`poll_timeout`](Self::poll_timeout). `now` must never go back.
#[derive(Debug)]
pub struct DeadPeerDetection {
    settings: Settings,
    /// Whether the peer answers questions, by its vendor ID.
    peer_answers: bool,
    /// Number of our next question.
    next: u32,
    /// Our last question, while its answer is missing.
    waiting: Option<u32>,
    unanswered: u32,
    dead: bool,
    /// When to ask, or to take stock of the last question.
    at: BootTime,
    /// The peer's last question, and how often it may still be answered.
    asked: Option<(u32, u32)>,
    statistics: Statistics,
}

impl DeadPeerDetection {
    /// Begins for an ISAKMP SA that was established at `now`.
    pub fn new(settings: Settings, sa: &IsakmpSa, rng: &mut SeededRng, now: BootTime) -> Self {
        let settings = Settings {
            interval: settings.interval.max(SHORTEST_INTERVAL),
            threshold: settings.threshold.max(1),
            ..settings
        };
        let peer_answers = sa.peer_vendor_ids().iter().any(|id| id.0 == VENDOR_ID);
        Self {
            settings,
            peer_answers,
            // The high bit is clear at first, so that it does not overflow (RFC 3706 §6.2).
            next: u32::from_be_bytes(rng.array()) >> 1,
            waiting: None,
            unanswered: 0,
            dead: false,
            at: now + settings.interval,
            asked: None,
            statistics: Statistics::default(),
        }
    }

    /// Whether this side asks: it is configured to, and the peer has said that it answers.
    pub fn asks(&self) -> bool {
        matches!(self.settings.mode, Mode::On | Mode::Always) && self.peer_answers && !self.dead
    }

    /// Whether the peer was found dead.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Something fresh and authentic came from the peer, under IKE or ESP: it is alive, and no
    /// question is due for an interval (RFC 3706 §5.4). With
    /// [`Mode::Always`] questions go on, and those before count as answered.
    pub fn handle_traffic(&mut self, now: BootTime) {
        self.unanswered = 0;
        if self.settings.mode != Mode::Always {
            self.waiting = None;
            self.at = now + self.settings.interval;
        }
    }

    /// An authentic notification of the peer that the session has not heard before.
    pub fn handle(&mut self, sa: &IsakmpSa, said: &Notification, now: BootTime) -> Heard {
        let heard = match said.kind {
            NotifyType::R_U_THERE => self.handle_question(sa, said),
            NotifyType::R_U_THERE_ACK => self.handle_answer(sa, said, now),
            _ => return Heard::Other,
        };
        match &heard {
            Heard::Answer(_) => self.statistics.answers_sent += 1,
            Heard::Alive => self.statistics.answers_received += 1,
            Heard::Ignored(_) => self.statistics.ignored += 1,
            Heard::Other => {}
        }
        heard
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, sa: &IsakmpSa, now: BootTime) -> Due {
        if !self.asks() || now < self.at {
            return Due::NotYet;
        }
        if self.waiting.take().is_some() {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        if self.unanswered >= self.settings.threshold {
            self.dead = true;
            return Due::Dead;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.waiting = Some(number);
        // Counted from now and not from the deadline: after a suspend the peer gets its full time.
        self.at = now + self.settings.interval;
        self.statistics.questions_sent += 1;
        Due::Ask(notification(sa, NotifyType::R_U_THERE, number))
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        self.asks().then_some(self.at)
    }

    fn handle_question(&mut self, sa: &IsakmpSa, said: &Notification) -> Heard {
        if self.settings.mode == Mode::Off {
            return Heard::Ignored(Ignored::Off);
        }
        let Some(number) = number_of(sa, said) else { return Heard::Ignored(Ignored::Malformed) };
        // Lost questions leave gaps; the same number may be asked again, as its answer may be lost.
        let left = match self.asked {
            Some((last, left)) if number == last => left.checked_sub(1),
            Some((last, _)) if number < last => None,
            _ => Some(ANSWERS),
        };
        let Some(left) = left else { return Heard::Ignored(Ignored::StaleQuestion(number)) };
        self.asked = Some((number, left));
        Heard::Answer(notification(sa, NotifyType::R_U_THERE_ACK, number))
    }

    fn handle_answer(&mut self, sa: &IsakmpSa, said: &Notification, now: BootTime) -> Heard {
        let Some(number) = number_of(sa, said) else { return Heard::Ignored(Ignored::Malformed) };
        if self.waiting != Some(number) {
            return Heard::Ignored(Ignored::UnknownAnswer(number));
        }
        self.waiting = None;
        self.handle_traffic(now);
        Heard::Alive
    }
}

/// A question or an answer (RFC 3706 §5.3). The DOI is the IPsec one, whatever the ISAKMP SA is
/// for: the types are its own.
fn notification(sa: &IsakmpSa, kind: NotifyType, number: u32) -> Notification {
    Notification {
        doi: Doi::IPSEC,
        protocol: ProtocolId::ISAKMP,
        spi: sa.cookies().spi().to_vec(),
        kind,
        data: number.to_be_bytes().to_vec(),
    }
}

/// The number of a question or an answer about `sa`.
fn number_of(sa: &IsakmpSa, said: &Notification) -> Option<u32> {
    let about = said.protocol == ProtocolId::ISAKMP
        && (said.spi.is_empty() || said.spi == sa.cookies().spi());
    let number = <[u8; 4]>::try_from(said.data.as_slice()).ok()?;
    about.then_some(u32::from_be_bytes(number))
}

/// Answers to one number: whoever recorded a question must not have a lever for more.
const ANSWERS: u32 = 10;

/// Keeps an interval of zero from being a loop.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
