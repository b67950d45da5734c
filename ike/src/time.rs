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
