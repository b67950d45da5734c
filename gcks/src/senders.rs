//! Sender identifiers for counter-mode TEKs (RFC 6407 §3.5, RFC 6054 §4).
//!
//! All members share the key of a TEK, so only the sender identifier at the left of the IV keeps
//! two of them from using one IV twice. Every pull gets a new one: a member that restarted has
//! forgotten its packet counter. An identifier is free again when every TEK that its holder may
//! send on has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use gdoi::BootTime;
use thiserror::Error;

/// A member counts a TEK's life from the moment its keys arrive, a little later than we do.
const DELIVERY: Duration = Duration::from_secs(300);

/// All identifiers of this width are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("all sender identifiers of {bits} bits are in use; raise sender-id-bits or shorten the TEKs' life time")]
pub struct Exhausted {
    /// The width.
    pub bits: u16,
}

/// The identifiers of one group.
#[derive(Clone, Debug)]
pub struct SenderPool {
    bits: u16,
    next: u64,
    held: BTreeMap<u64, BootTime>,
}

impl SenderPool {
    /// All identifiers of a width of 1 to 63 bits are free.
    pub fn new(bits: u16) -> Self {
        Self { bits, next: 0, held: BTreeMap::new() }
    }

    /// The width in bits.
    pub fn bits(&self) -> u16 {
        self.bits
    }

    /// Takes an identifier for a member that may send on TEKs that end by `last_end`.
    ///
    /// # Errors
    /// All are held.
    pub fn take(&mut self, last_end: BootTime, now: BootTime) -> Result<u64, Exhausted> {
        let count = 1_u64.checked_shl(self.bits.into()).unwrap_or(u64::MAX);
        if u64::try_from(self.held.len()).unwrap_or(u64::MAX) >= count / 2 {
            self.held.retain(|_, until| *until > now);
        }
        // Upward from the last one, so that one that has just become free rests for a while.
        for step in 0..=u64::try_from(self.held.len()).unwrap_or(u64::MAX) {
            let candidate = self.next.wrapping_add(step) % count;
            if self.held.get(&candidate).is_none_or(|until| *until <= now) {
                self.held.insert(candidate, last_end + DELIVERY);
                self.next = candidate.wrapping_add(1) % count;
                return Ok(candidate);
            }
        }
        Err(Exhausted { bits: self.bits })
    }

    /// Gives back an identifier that was never sent.
    pub fn give_back(&mut self, identifier: u64) {
        self.held.remove(&identifier);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    #[test]
    fn identifiers_count_up_from_0() {
        let mut pool = SenderPool::new(16);
        assert_eq!([(); 3].map(|()| pool.take(at(100), at(0)).unwrap()), [0, 1, 2]);
    }

    #[test]
    fn no_identifier_is_given_twice_while_a_tek_lives() {
        let mut pool = SenderPool::new(8);
        let all: std::collections::BTreeSet<u64> = (0..256).map(|_| pool.take(at(100), at(0)).unwrap()).collect();
        assert_eq!(all.len(), 256);
        assert_eq!(pool.take(at(100), at(0)), Err(Exhausted { bits: 8 }));
        // Until all keys have surely ended at the members too.
        assert_eq!(pool.take(at(500), at(399)), Err(Exhausted { bits: 8 }));
        assert_eq!(pool.take(at(500), at(400)), Ok(0));
        assert_eq!(pool.take(at(500), at(400)), Ok(1));
    }

    #[test]
    fn an_identifier_that_was_not_sent_may_be_used() {
        let mut pool = SenderPool::new(8);
        for _ in 0..256 {
            pool.take(at(100), at(0)).unwrap();
        }
        pool.give_back(77);
        assert_eq!(pool.take(at(100), at(0)), Ok(77));
        assert!(pool.take(at(100), at(0)).is_err());
    }

    #[test]
    fn a_pool_goes_on_for_ever_when_teks_end() {
        let mut pool = SenderPool::new(8);
        for pull in 0..10_000 {
            // 10 pulls a second, each TEK ends within 10 seconds: never more than 3,200 seconds' worth held.
            let now = at(pull * 2);
            pool.take(now + Duration::from_secs(100), now).unwrap();
        }
    }
}
