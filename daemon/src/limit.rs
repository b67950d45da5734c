//! Rate limit for log lines that unauthenticated peers can cause.

use std::collections::BTreeMap;
use std::time::Duration;

use ike::BootTime;

/// Admits a bounded number of lines per reason and interval, and counts the suppressed ones.
///
/// Reasons are constants of the program, so that nobody can make the table grow from outside.
#[derive(Clone, Debug)]
pub struct LogLimiter {
    burst: u32,
    interval: Duration,
    reasons: BTreeMap<&'static str, Window>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    since: BootTime,
    passed: u32,
    suppressed: u64,
}

/// Permission to write a line, with the number of lines suppressed since the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Suppressed lines of this reason, for the log line's field.
    pub suppressed: u64,
}

impl Default for LogLimiter {
    /// Five lines of one reason every ten seconds.
    fn default() -> Self {
        Self::new(5, Duration::from_secs(10))
    }
}

impl LogLimiter {
    /// At most `burst` lines of one reason in each `interval`.
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self { burst, interval, reasons: BTreeMap::new() }
    }

    /// Asks for one line about `reason`; `None` means that it is suppressed.
    pub fn admit(&mut self, reason: &'static str, now: BootTime) -> Option<Pass> {
        let window =
            self.reasons.entry(reason).or_insert(Window { since: now, passed: 0, suppressed: 0 });
        if now.saturating_since(window.since) >= self.interval {
            window.since = now;
            window.passed = 0;
        }
        if window.passed >= self.burst {
            window.suppressed = window.suppressed.saturating_add(1);
            return None;
        }
        window.passed += 1;
        Some(Pass { suppressed: std::mem::take(&mut window.suppressed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> BootTime {
        BootTime::new(Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_burst_passes_then_lines_are_suppressed_and_counted() {
        let mut limiter = LogLimiter::new(2, Duration::from_secs(1));
        assert_eq!(limiter.admit("a", at(0)), Some(Pass { suppressed: 0 }));
        assert_eq!(limiter.admit("a", at(1)), Some(Pass { suppressed: 0 }));
        for now in 2..1000 {
            assert_eq!(limiter.admit("a", at(now)), None);
        }
        assert_eq!(limiter.admit("a", at(1000)), Some(Pass { suppressed: 998 }));
        assert_eq!(limiter.admit("a", at(1001)), Some(Pass { suppressed: 0 }));
    }

    #[test]
    fn reasons_do_not_share_their_bound() {
        let mut limiter = LogLimiter::new(1, Duration::from_secs(1));
        assert!(limiter.admit("a", at(0)).is_some());
        assert!(limiter.admit("b", at(0)).is_some());
        assert!(limiter.admit("a", at(1)).is_none());
    }
}
