//! A further pull under an established ISAKMP SA (RFC 6407 §3): two round trips and no
//! Diffie-Hellman.
//!
//! The key server may have lost the SA, or its Delete may have been lost: then it is silent, and
//! main mode follows. The wait for its answer is short beside what the keys in use have left, so
//! that main mode still has most of that time.

use std::time::Duration;

use gdoi::event::RegistrationFailure;
use ike::BootTime;
use ike::config::RetransmissionPolicy;

use super::Membership;
use super::failover::ServerIndex;

/// The longest wait for an answer to message 1 under an ISAKMP SA that may be gone.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The same while traffic has no key at all, and waits as well.
const WAIT_WITHOUT_KEY: Duration = Duration::from_secs(2);
/// A shorter wait is no fair trial: main mode begins at once.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

impl Membership {
    /// Pulls again under the ISAKMP SA that the last registration left, if it was with `server` and
    /// the SA outlives an attempt. Returns whether it does.
    pub(super) fn pull_again(&mut self, server: ServerIndex, now: BootTime) -> bool {
        let Some(request) = request(self.left(now)) else { return false };
        let needed = self.config.attempt_limit();
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.server == server) else {
            return false;
        };
        let expiry = attempt.registration.isakmp_expiry();
        if expiry.is_none_or(|expiry| expiry.saturating_since(now) < needed)
            || attempt.registration.pull_again(&request, now).is_err()
        {
            return false;
        }
        attempt.reuses_isakmp_sa = true;
        attempt.unusable = None;
        attempt.unreachable = None;
        true
    }

    /// How long there will be keys for all traffic, if there are now.
    fn left(&self, now: BootTime) -> Option<Duration> {
        let end = self.generations().first_end(now)?;
        Some(end.saturating_since(now)).filter(|left| !left.is_zero())
    }
}

/// How message 1 is repeated, three times in all, where the keys in use have this time left.
fn request(left: Option<Duration>) -> Option<RetransmissionPolicy> {
    let wait = left.map_or(WAIT_WITHOUT_KEY, |left| (left / 4).min(LONGEST_WAIT));
    // 1/5 + 2/5 + 2/5 of the whole wait.
    let initial = wait / 5;
    let policy = RetransmissionPolicy { initial, maximum: initial * 2, repetitions: 2 };
    (wait >= SHORTEST_WAIT).then_some(policy)
}

/// Whether a new ISAKMP SA may be answered where the old one was not.
pub(super) fn phase1_may_help(failure: &RegistrationFailure) -> bool {
    matches!(
        failure,
        RegistrationFailure::NoAnswer { .. }
            | RegistrationFailure::Refused { .. }
            | RegistrationFailure::PeerDeleted
            | RegistrationFailure::IsakmpSaExpired
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::budget;

    #[test]
    fn a_silent_isakmp_sa_costs_a_quarter_of_what_the_keys_have_left_at_most() {
        let milliseconds = Duration::from_millis;
        let cost = |left| request(left).map(|policy| budget(&policy));
        assert_eq!(cost(Some(milliseconds(60_000))), Some(milliseconds(5_000)));
        assert_eq!(cost(Some(milliseconds(8_000))), Some(milliseconds(2_000)));
        assert_eq!(cost(Some(milliseconds(1_999))), None);
        assert_eq!(cost(None), Some(milliseconds(2_000)));
    }
}
