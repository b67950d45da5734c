//! The clock of another server, as what it writes shows it.
//!
//! Servers tell each other times by their age when it was written. What is repeated because it was
//! lost, or comes in many parts, arrives late, and would make all times in it later than they were:
//! of two registrations of a member the older one would seem the newer one.

use ike::BootTime;

/// Clocks differ in speed by less than one part in so many.
const DRIFT: u32 = 5_000;

/// How another server's boot-time clock stands to ours, by the message that arrived fastest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PeerClock {
    /// When it wrote a message, and when that would have arrived without delay.
    latest: Option<(BootTime, BootTime)>,
}

impl PeerClock {
    /// When something that was `written` by the other clock and arrives `now` would have arrived
    /// without delay.
    pub(super) fn arrival(&mut self, written: BootTime, now: BootTime) -> BootTime {
        let Some((before, arrived)) = self.latest else {
            self.latest = Some((written, now));
            return now;
        };
        let at_once = match written >= before {
            true => arrived + written.saturating_since(before),
            false => arrived - before.saturating_since(written),
        };
        let arrival = now.min(at_once + now.saturating_since(arrived) / DRIFT);
        // A late one says nothing of the clock.
        if written >= before || arrival == now {
            self.latest = Some((written, arrival));
        }
        arrival
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn at(milliseconds: u64) -> BootTime {
        BootTime::new(Duration::from_millis(milliseconds))
    }

    #[test]
    fn what_is_late_counts_from_when_it_would_have_come() {
        let mut clock = PeerClock::default();
        assert_eq!(clock.arrival(at(70_000), at(10_000)), at(10_000));
        let late = clock.arrival(at(71_000), at(16_000));
        assert!((at(11_000)..at(11_010)).contains(&late), "{late:?}");
        let later = clock.arrival(at(70_500), at(21_000));
        assert!((at(10_500)..at(10_520)).contains(&later), "{later:?}");
        assert_eq!(clock.arrival(at(81_000), at(21_001)), at(21_001));
    }

    #[test]
    fn the_fastest_message_tells_the_clock_of_the_other_server() {
        let mut clock = PeerClock::default();
        assert_eq!(clock.arrival(at(1_000), at(6_000)), at(6_000), "the first one came late");
        assert_eq!(clock.arrival(at(2_000), at(2_100)), at(2_100));
        let late = clock.arrival(at(1_500), at(6_500));
        assert!((at(1_600)..at(1_610)).contains(&late), "{late:?}");
    }

    /// In a day a clock that is slower by a ten-thousandth loses nine seconds.
    #[test]
    fn a_slow_clock_is_followed() {
        let mut clock = PeerClock::default();
        for hour in 0..24 {
            let now = at(hour * 3_600_000);
            let written = at(hour * 3_600_000 / 10_000 * 9_999);
            assert_eq!(clock.arrival(written, now), now);
        }
    }
}
