//! Requests and answers over a network that loses, repeats and reorders datagrams (RFC 2408 §5.1).
//!
//! The party that waits for an answer owns the timer and repeats the same octets; the other one
//! recognises a repetition by its digest and repeats its answer, without doing the work again.

use core::time::Duration;

use zeroize::Zeroizing;

use crate::config::RetransmissionPolicy;
use crate::crypto::HashAlgorithm;
use crate::crypto::{constant_time_eq, hash};
use crate::time::BootTime;

/// A message whose answer is missing.
#[derive(Debug)]
pub struct Retransmission {
    message: Vec<u8>,
    transmissions: u32,
    repetitions_left: u32,
    wait: Duration,
    maximum: Duration,
    at: BootTime,
}

/// What a retransmission timer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    NotYet,
    /// The message has to be sent again.
    Repeat,
    /// The budget is used up.
    GiveUp,
}

impl Retransmission {
    /// `message` is sent for the first time.
    pub fn new(policy: &RetransmissionPolicy, message: Vec<u8>, now: BootTime) -> Self {
        let wait = policy.initial.max(SHORTEST_WAIT);
        let maximum = policy.maximum.max(wait);
        Self {
            message,
            transmissions: 1,
            repetitions_left: policy.repetitions,
            wait,
            maximum,
            at: now + wait,
        }
    }

    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// How often they were sent.
    pub fn transmissions(&self) -> u32 {
        self.transmissions
    }

    /// When something is due.
    pub fn at(&self) -> BootTime {
        self.at
    }

    /// Looks at the clock; on [`Due::Repeat`] the caller sends the message.
    pub fn handle_timeout(&mut self, now: BootTime) -> Due {
        if now < self.at {
            return Due::NotYet;
        }
        let Some(left) = self.repetitions_left.checked_sub(1) else { return Due::GiveUp };
        self.repetitions_left = left;
        self.transmissions = self.transmissions.saturating_add(1);
        self.wait = self.wait.saturating_mul(2).min(self.maximum);
        // Counted from now and not from the deadline: after a suspend the peer gets its full time.
        self.at = now + self.wait;
        Due::Repeat
    }

    /// Takes one repetition off the budget, if one is left.
    pub fn shorten(&mut self) {
        self.repetitions_left = self.repetitions_left.saturating_sub(1);
    }
}

/// A request that was answered, kept in order to know copies of it.
#[derive(Debug)]
pub struct Answered<A = Zeroizing<Vec<u8>>> {
    request: Digest,
    answer: A,
    sent: BootTime,
    repetitions_left: u32,
}

/// What to do with a datagram that may be a copy.
#[derive(Debug, PartialEq, Eq)]
pub enum Copy<'a, A = Zeroizing<Vec<u8>>> {
    /// It is another message.
    No,
    /// It is a copy; the answer left a moment ago, or often enough.
    Unanswered,
    /// It is a copy; this is the answer.
    Answer(&'a A),
}

impl<A> Answered<A> {
    /// Remembers that `request` got `answer` at `now`.
    pub fn new(request: Digest, answer: impl Into<A>, now: BootTime) -> Self {
        Self { request, answer: answer.into(), sent: now, repetitions_left: REPETITIONS }
    }

    pub fn answer(&self) -> &A {
        &self.answer
    }

    /// Whether `datagram` is a copy of the request. Copies in quick succession get one answer, and
    /// all copies together a bounded number: the answer may be hundreds of times longer than the
    /// request, and whoever recorded that must not have a lever for flooding its sender.
    pub fn handle(&mut self, datagram: &Digest, now: BootTime) -> Copy<'_, A> {
        if self.request != *datagram {
            return Copy::No;
        }
        self.again(now).map_or(Copy::Unanswered, Copy::Answer)
    }

    /// The answer once more, within the bounds for copies.
    pub fn again(&mut self, now: BootTime) -> Option<&A> {
        if now.saturating_since(self.sent) < SHORTEST_WAIT {
            return None;
        }
        self.repetitions_left = self.repetitions_left.checked_sub(1)?;
        self.sent = now;
        Some(&self.answer)
    }
}

/// Names a datagram without keeping its octets.
#[derive(Clone, Debug)]
pub struct Digest(Vec<u8>);

impl Digest {
    /// The digest of `datagram`.
    pub fn of(datagram: &[u8]) -> Self {
        Self(hash(HashAlgorithm::Sha2_256, &[datagram]))
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(&self.0, &other.0)
    }
}

/// Bounds what copies can cost, and keeps a retransmission interval of zero from being a loop.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// Repetitions of one answer: several times what any peer repeats a request.
const REPETITIONS: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(milliseconds: u64) -> BootTime {
        BootTime::new(Duration::from_millis(milliseconds))
    }

    fn times(policy: &RetransmissionPolicy, shorten: u32) -> (Vec<u64>, u64) {
        let mut retransmission = Retransmission::new(policy, vec![1], at(0));
        (0..shorten).for_each(|_| retransmission.shorten());
        let mut repeated = Vec::new();
        loop {
            let now = retransmission.at();
            match retransmission.handle_timeout(now) {
                Due::Repeat => repeated.push(now.since_boot().as_millis() as u64),
                Due::GiveUp => return (repeated, now.since_boot().as_millis() as u64),
                Due::NotYet => panic!("due at its own deadline"),
            }
        }
    }

    #[test]
    fn waits_double_up_to_the_maximum() {
        assert_eq!(
            times(&RetransmissionPolicy::default(), 0),
            (vec![1000, 3000, 7000, 15_000], 23_000)
        );
    }

    #[test]
    fn a_hint_takes_the_last_repetition_away() {
        assert_eq!(times(&RetransmissionPolicy::default(), 1), (vec![1000, 3000, 7000], 15_000));
        assert_eq!(times(&RetransmissionPolicy::default(), 9), (vec![], 1000));
    }

    #[test]
    fn a_zero_interval_is_no_loop() {
        let policy = RetransmissionPolicy {
            initial: Duration::ZERO,
            maximum: Duration::ZERO,
            repetitions: 2,
        };
        assert_eq!(times(&policy, 0), (vec![50, 100], 150));
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut retransmission =
            Retransmission::new(&RetransmissionPolicy::default(), vec![1], at(0));
        assert_eq!(retransmission.handle_timeout(at(999)), Due::NotYet);
        assert_eq!(retransmission.transmissions(), 1);
    }

    #[test]
    fn copies_get_the_same_answer_at_a_bounded_rate() {
        let mut answered: Answered =
            Answered::new(Digest::of(b"request"), b"answer".to_vec(), at(0));
        assert_eq!(answered.handle(&Digest::of(b"another"), at(1000)), Copy::No);
        assert_eq!(answered.handle(&Digest::of(b"request"), at(49)), Copy::Unanswered);
        assert_eq!(
            answered.handle(&Digest::of(b"request"), at(50)),
            Copy::Answer(&b"answer".to_vec().into())
        );
        assert_eq!(answered.handle(&Digest::of(b"request"), at(60)), Copy::Unanswered);
        assert_eq!(
            answered.handle(&Digest::of(b"request"), at(100)),
            Copy::Answer(&b"answer".to_vec().into())
        );
    }

    #[test]
    fn an_answer_is_repeated_a_bounded_number_of_times() {
        let mut answered: Answered =
            Answered::new(Digest::of(b"request"), b"answer".to_vec(), at(0));
        let mut copy = |second: u64| {
            matches!(answered.handle(&Digest::of(b"request"), at(second * 1000)), Copy::Answer(_))
        };
        assert_eq!(
            (1..1000).filter(|second| copy(*second)).collect::<Vec<_>>(),
            (1..=32).collect::<Vec<_>>()
        );
    }
}
