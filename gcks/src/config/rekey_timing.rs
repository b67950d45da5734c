//! When keys are replaced: margins before the end of a lifetime.
//!
//! Members re-register within [`margin`] before the end of a key; pushes replace it before that,
//! early enough for all retransmissions and acknowledgements.

use std::time::Duration;

use super::Rekey;

/// Least margin before the end of a key.
const LEAST_MARGIN: Duration = Duration::from_secs(60);

/// How long before its end a key is no longer distributed by pulls: 60 seconds or a twentieth of
/// its lifetime, whichever is more, and half of its lifetime at most.
pub fn margin(lifetime: Duration) -> Duration {
    LEAST_MARGIN.max(lifetime / 20).min(lifetime / 2)
}

/// How long before the margin of its members a new key is pushed: time for all transmissions, for
/// the acknowledgements, and until the last member that got the push sends with the new key.
pub fn lead(rekey: &Rekey, activation: Duration) -> Duration {
    let delivery = rekey.delivery;
    let wait = if rekey.acknowledgements { delivery.acknowledgement_wait } else { Duration::ZERO };
    delivery.period.saturating_mul(delivery.repetitions) + activation + wait
}

/// How long before its end a key of this lifetime is replaced by a push: before the members' own
/// margin, and three quarters of the lifetime at most.
pub fn push_margin(lifetime: Duration, lead: Duration) -> Duration {
    (margin(lifetime) + lead).min(lifetime / 4 * 3)
}

/// Whether a lifetime is too short for [`push_margin`] to leave the members their own margin.
pub fn is_short(lifetime: Duration, lead: Duration) -> bool {
    margin(lifetime) + lead > lifetime / 4 * 3
}
