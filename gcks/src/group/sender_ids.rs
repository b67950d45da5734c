//! Sender identifiers for counter-mode TEKs (RFC 6407 §3.5, RFC 6054 §4).
//!
//! All members share the key of a TEK, so only the sender identifier at the left of the IV keeps
//! two of them from using one IV twice. Every pull gets a new one: a member that restarted has
//! forgotten its packet counter. An identifier is free again when every TEK that its holder may
//! send on has ended. A member that gets new TEKs by pushes keeps its identifier, so that it is
//! free only after the member has taken another one or is out.

use std::collections::BTreeMap;
use std::time::Duration;

use gdoi::BootTime;
use thiserror::Error;

/// A member counts a TEK's life from the moment its keys arrive, a little later than we do.
const DELIVERY: Duration = Duration::from_secs(300);

/// All identifiers of this width are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "all sender identifiers of {bits} bits are in use; raise sender-id-bits or shorten the TEKs' life time"
)]
pub struct Exhausted {
    /// The width.
    pub bits: u16,
}

/// The identifiers of one group.
#[derive(Clone, Debug)]
pub struct SenderIdPool {
    bits: u16,
    next: u64,
    /// Until when each is held; `None` as long as its holder gets new TEKs.
    held: BTreeMap<u64, Option<BootTime>>,
}

impl SenderIdPool {
    /// All identifiers of a width of 1 to 63 bits are free.
    pub fn new(bits: u16) -> Self {
        Self { bits, next: 0, held: BTreeMap::new() }
    }

    /// The width in bits.
    pub fn bits(&self) -> u16 {
        self.bits
    }

    /// Takes an identifier for a member that may send on TEKs that end by `last_end`; `None` if it
    /// gets new ones by pushes.
    ///
    /// # Errors
    /// All are held.
    pub fn take(&mut self, last_end: Option<BootTime>, now: BootTime) -> Result<u64, Exhausted> {
        let count = 1_u64.checked_shl(self.bits.into()).unwrap_or(u64::MAX);
        if u64::try_from(self.held.len()).unwrap_or(u64::MAX) >= count / 2 {
            self.held.retain(|_, until| until.is_none_or(|until| until > now));
        }
        // Upward from the last one, so that one that has just become free rests for a while.
        for step in 0..=u64::try_from(self.held.len()).unwrap_or(u64::MAX) {
            let candidate = self.next.wrapping_add(step) % count;
            if self.held.get(&candidate).is_none_or(|until| until.is_some_and(|until| until <= now))
            {
                self.held.insert(candidate, last_end.map(|end| end + DELIVERY));
                self.next = candidate.wrapping_add(1) % count;
                return Ok(candidate);
            }
        }
        Err(Exhausted { bits: self.bits })
    }

    /// The holder of an identifier gets no TEKs beyond those that end by `last_end`.
    pub fn release(&mut self, identifier: u64, last_end: BootTime) {
        if let Some(until) = self.held.get_mut(&identifier) {
            *until =
                Some(until.map_or(last_end + DELIVERY, |until| until.min(last_end + DELIVERY)));
        }
    }

    /// No holder gets TEKs beyond those that end by `last_end`.
    pub fn release_all(&mut self, last_end: BootTime) {
        for until in self.held.values_mut().filter(|until| until.is_none()) {
            *until = Some(last_end + DELIVERY);
        }
    }

    /// All identifiers are free: no TEK lives that anybody may send on with one.
    pub fn reset(&mut self, bits: u16) {
        *self = Self::new(bits);
    }

    /// What is held, until when, and the next to try: what the sealed state keeps.
    pub fn held(&self) -> (&BTreeMap<u64, Option<BootTime>>, u64) {
        (&self.held, self.next)
    }

    /// The identifiers of the sealed state.
    pub fn restore(bits: u16, held: BTreeMap<u64, Option<BootTime>>, next: u64) -> Self {
        Self { bits, next, held }
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
        let mut pool = SenderIdPool::new(16);
        assert_eq!([(); 3].map(|()| pool.take(Some(at(100)), at(0)).unwrap()), [0, 1, 2]);
    }

    #[test]
    fn no_identifier_is_given_twice_while_a_tek_lifetimes() {
        let mut pool = SenderIdPool::new(8);
        let all: std::collections::BTreeSet<u64> =
            (0..256).map(|_| pool.take(Some(at(100)), at(0)).unwrap()).collect();
        assert_eq!(all.len(), 256);
        assert_eq!(pool.take(Some(at(100)), at(0)), Err(Exhausted { bits: 8 }));
        // Until all keys have surely ended at the members too.
        assert_eq!(pool.take(Some(at(500)), at(399)), Err(Exhausted { bits: 8 }));
        assert_eq!(pool.take(Some(at(500)), at(400)), Ok(0));
        assert_eq!(pool.take(Some(at(500)), at(400)), Ok(1));
    }

    #[test]
    fn an_identifier_that_was_not_sent_may_be_used() {
        let mut pool = SenderIdPool::new(8);
        for _ in 0..256 {
            pool.take(Some(at(100)), at(0)).unwrap();
        }
        pool.give_back(77);
        assert_eq!(pool.take(Some(at(100)), at(0)), Ok(77));
        assert!(pool.take(Some(at(100)), at(0)).is_err());
    }

    #[test]
    fn a_pool_goes_on_for_ever_when_teks_end() {
        let mut pool = SenderIdPool::new(8);
        for pull in 0..10_000 {
            // 10 pulls a second, each TEK ends within 10 seconds: never more than 3,200 seconds'
            // worth held.
            let now = at(pull * 2);
            pool.take(Some(now + Duration::from_secs(100)), now).unwrap();
        }
    }

    #[test]
    fn a_member_that_gets_pushes_holds_its_identifier_until_it_takes_another() {
        let mut pool = SenderIdPool::new(8);
        let all: Vec<u64> = (0..256).map(|_| pool.take(None, at(0)).unwrap()).collect();
        assert!(pool.take(None, at(1 << 40)).is_err(), "nobody has let go");
        pool.release(all[9], at(1000));
        assert!(pool.take(None, at(1299)).is_err(), "its TEKs live");
        assert_eq!(pool.take(None, at(1300)), Ok(9));
        pool.release_all(at(2000));
        assert!(pool.take(None, at(2299)).is_err());
        assert!(pool.take(None, at(2300)).is_ok());
        pool.reset(8);
        assert_eq!(pool.take(None, at(0)), Ok(0));
    }
}
