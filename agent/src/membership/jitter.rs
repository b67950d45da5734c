//! Random times, by which members that hear the same thing do not act at the same moment.

use std::time::Duration;

/// A seeded sequence for spreading members in time; nothing secret depends on it (splitmix64).
#[derive(Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A duration in 0..`bound`, in whole milliseconds.
    pub fn below(&mut self, bound: Duration) -> Duration {
        let milliseconds = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        match self.next().checked_rem(milliseconds) {
            Some(part) => Duration::from_millis(part),
            None => Duration::ZERO,
        }
    }
}
