//! Points in time on the boot-time clock (CLOCK_BOOTTIME), which no step of the wall clock moves.

use core::ops::{Add, Sub};
use core::time::Duration;

/// A point in time: the time since boot. The caller reads the clock; this crate never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime(Duration);

impl BootTime {
    /// The point `since_boot` after boot.
    pub const fn new(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// The time since boot.
    pub const fn since_boot(self) -> Duration {
        self.0
    }

    /// How much later this point is than `earlier`; zero if it is not later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    /// Saturates instead of overflowing: a lifetime that never ends stays in the future.
    fn add(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(delay))
    }
}

impl Sub<Duration> for BootTime {
    type Output = Self;

    /// Saturates at boot instead of going below it.
    fn sub(self, margin: Duration) -> Self {
        Self(self.0.saturating_sub(margin))
    }
}

/// What time it was at some time since boot: certificates are valid by that. Before it is known
/// none is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WallClock {
    now: BootTime,
    unix_seconds: u64,
}

impl WallClock {
    /// At `now` it is `unix_seconds` since 1970.
    pub const fn new(now: BootTime, unix_seconds: u64) -> Self {
        Self { now, unix_seconds }
    }

    /// Seconds since 1970.
    pub fn at(self, now: BootTime) -> u64 {
        self.unix_seconds.saturating_add(now.saturating_since(self.now).as_secs())
    }
}
