//! Sender identifiers for counter-mode TEKs (RFC 6407 §3.5, RFC 6054 §4).
//!
//! All members share the key of a TEK, so only the sender identifier at the left of the IV keeps
//! two of them from using one IV twice. Every pull gets a new one: a member that restarted has
//! forgotten its packet counter. An identifier is free again when every TEK that its holder may
//! send on has ended. A member that gets new TEKs by pushes keeps its identifiers until it is out:
//! whether message 4 with another one has reached it, nobody can say, and without it the member
//! goes on with the one before, on every TEK that is pushed to it. Replaced identifiers are taken
//! back only when the pool runs short, those whose TEKs have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ike::BootTime;
use thiserror::Error;

use crate::members::registry::MemberId;
use crate::tracked::Tracked;

/// A member counts a TEK's lifetime from the moment its keys arrive, a little later than we do.
const DELIVERY: Duration = Duration::from_secs(300);

/// Why a member gets no identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Exhausted {
    /// All identifiers of this width are in use.
    #[error(
        "all sender identifiers of {bits} bits are in use; raise sender-id-bits or shorten the TEKs' lifetime"
    )]
    All { bits: u16 },
    /// The member has pulled so often that it holds its share.
    #[error(
        "the member pulls too often: it holds {limit} sender identifiers, which are free again when the TEKs end"
    )]
    Member {
        /// How many one member may hold.
        limit: usize,
    },
    /// The member has pulled so fast that it has to wait.
    #[error(
        "the member pulls too fast: it gets the next sender identifier in {} s", .wait.as_secs().saturating_add(1)
    )]
    Rate { wait: Duration },
}

/// Once a member has pulled as often as it may hold identifiers, one pull in so long gets more.
const PACE: Duration = Duration::from_secs(30);

/// One identifier in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub holder: MemberId,
    /// Until when it is held; `None` as long as its holder gets new TEKs.
    pub until: Option<BootTime>,
    /// The holder was sent another one. When the TEKs of that time have ended: from then on it does
    /// not count as the holder's share, and is taken back when the pool runs short.
    pub replaced: Option<BootTime>,
}

impl Holding {
    fn is_over(&self, now: BootTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    fn counts(&self, now: BootTime) -> bool {
        !self.is_over(now) && self.replaced.is_none_or(|replaced| replaced > now)
    }
}

/// The identifiers of one group.
#[derive(Clone, Debug)]
pub struct SenderIdPool {
    bits: u16,
    next: u64,
    held: Tracked<u64, Holding>,
    by_holder: BTreeMap<MemberId, BTreeSet<u64>>,
    /// When each member will have made up for its pulls. A restart of the server forgets it.
    paced: BTreeMap<MemberId, BootTime>,
}

impl SenderIdPool {
    /// All identifiers of a width of 1 to 63 bits are free.
    pub fn new(bits: u16) -> Self {
        let (by_holder, paced) = (BTreeMap::new(), BTreeMap::new());
        Self { bits, next: 0, held: Tracked::default(), by_holder, paced }
    }

    /// The width in bits.
    pub fn bits(&self) -> u16 {
        self.bits
    }

    /// How many identifiers one member may hold. It gets a new one with every pull, and each is
    /// free again when the TEKs of that time have ended: this bounds how fast one member uses them
    /// up.
    fn limit(&self) -> usize {
        usize::try_from(self.count() / 16).unwrap_or(usize::MAX).clamp(4, 64)
    }

    fn count(&self) -> u64 {
        1_u64.checked_shl(self.bits.into()).unwrap_or(u64::MAX)
    }

    /// Whether the member has an identifier.
    pub fn is_holder(&self, member: &MemberId) -> bool {
        self.by_holder.contains_key(member)
    }

    /// Takes `count` identifiers, and at least one, for a member that may send on TEKs that end by
    /// `last_end`; `None` if it gets new ones by pushes. Fewer than `count`, where more are not
    /// left of its share or at all.
    ///
    /// # Errors
    /// All are held, or the member holds its share or takes them too fast.
    pub fn take(
        &mut self,
        holder: &MemberId,
        count: u16,
        last_end: Option<BootTime>,
        now: BootTime,
    ) -> Result<Vec<u64>, Exhausted> {
        let even = self.paced.get(holder).copied().unwrap_or(now).max(now);
        let burst = PACE * u32::try_from(self.limit()).unwrap_or(u32::MAX);
        let wait = (even.saturating_since(now) + PACE).saturating_sub(burst);
        self.check_share(holder, now)?;
        if !wait.is_zero() {
            return Err(Exhausted::Rate { wait });
        }
        let mut taken = vec![self.take_one(holder, last_end, now)?];
        self.paced.insert(holder.clone(), even + PACE);
        for _ in 1..count {
            let Ok(one) = self.take_one(holder, last_end, now) else { break };
            taken.push(one);
        }
        Ok(taken)
    }

    fn check_share(&self, holder: &MemberId, now: BootTime) -> Result<(), Exhausted> {
        let limit = self.limit();
        let counts = |one: &&u64| self.held.get(one).is_some_and(|held| held.counts(now));
        let own = self.by_holder.get(holder).into_iter().flatten();
        match own.filter(counts).count() >= limit {
            true => Err(Exhausted::Member { limit }),
            false => Ok(()),
        }
    }

    fn take_one(
        &mut self,
        holder: &MemberId,
        last_end: Option<BootTime>,
        now: BootTime,
    ) -> Result<u64, Exhausted> {
        self.check_share(holder, now)?;
        let own: Vec<u64> = self.by_holder.get(holder).into_iter().flatten().copied().collect();
        self.drop_ended(own, now);
        let count = self.count();
        if self.is_short() {
            self.drop_ended(self.held.keys().copied().collect(), now);
        }
        if self.is_short() {
            let replaced = |held: &Holding| held.until.is_none() && held.replaced.is_some();
            let replaced = self.held.iter().filter(|(_, held)| replaced(held));
            let replaced: Vec<u64> = replaced.map(|(identifier, _)| *identifier).collect();
            for holding in replaced {
                if let Some(holding) = self.held.get_mut(&holding) {
                    holding.until = holding.replaced;
                }
            }
            self.drop_ended(self.held.keys().copied().collect(), now);
        }
        // Upward from the last one, so that one that has just become free rests for a while.
        for step in 0..=u64::try_from(self.held.len()).unwrap_or(u64::MAX) {
            let candidate = self.next.wrapping_add(step) % count;
            if self.held.get(&candidate).is_none_or(|holding| holding.is_over(now)) {
                self.drop_ended(vec![candidate], now);
                let until = last_end.map(|end| end + DELIVERY);
                let holder = holder.clone();
                self.insert(candidate, Holding { holder, until, replaced: None });
                self.next = candidate.wrapping_add(1) % count;
                return Ok(candidate);
            }
        }
        Err(Exhausted::All { bits: self.bits })
    }

    /// Whether half of all identifiers are held.
    fn is_short(&self) -> bool {
        u64::try_from(self.held.len()).unwrap_or(u64::MAX) >= self.count() / 2
    }

    /// The member was sent `latest`, and may have got them: the TEKs of now end by `last_end`.
    pub fn replace(&mut self, holder: &MemberId, latest: &[u64], last_end: BootTime) {
        for identifier in self.by_holder.get(holder).into_iter().flatten() {
            if let Some(holding) = self.held.get_mut(identifier)
                && !latest.contains(identifier)
            {
                holding.replaced.get_or_insert(last_end + DELIVERY);
            }
        }
    }

    /// Takes identifiers back that were never sent.
    pub fn take_back(&mut self, identifiers: &[u64], now: BootTime) {
        for identifier in identifiers {
            if let Some(holding) = self.held.get_mut(identifier) {
                holding.until = Some(now);
            }
        }
        self.drop_ended(identifiers.to_vec(), now);
    }

    /// The member gets no TEKs beyond those that end by `last_end`.
    pub fn release(&mut self, holder: &MemberId, last_end: BootTime) {
        let end = last_end + DELIVERY;
        for identifier in self.by_holder.get(holder).into_iter().flatten() {
            if let Some(Holding { until, .. }) = self.held.get_mut(identifier) {
                *until = Some(until.map_or(end, |until| until.min(end)));
            }
        }
    }

    /// No holder gets TEKs beyond those that end by `last_end`.
    pub fn release_all(&mut self, last_end: BootTime) {
        for (_, holding) in self.held.iter_mut().filter(|(_, holding)| holding.until.is_none()) {
            holding.until = Some(last_end + DELIVERY);
        }
    }

    /// All identifiers are free: no TEK lives that anybody may send on with one.
    pub fn reset(&mut self, bits: u16) {
        let paced = std::mem::take(&mut self.paced);
        *self = Self { paced, ..Self::new(bits) };
    }

    /// What is held, and the next to try: what the sealed state keeps.
    pub fn held(&self) -> (&Tracked<u64, Holding>, u64) {
        (&self.held, self.next)
    }

    /// The identifiers of the sealed state.
    pub fn restore(bits: u16, held: BTreeMap<u64, Holding>, next: u64) -> Self {
        let mut pool = Self { next, ..Self::new(bits) };
        held.into_iter().for_each(|(identifier, holding)| pool.insert(identifier, holding));
        pool
    }

    /// The state has been written.
    pub fn saved(&mut self) {
        self.held.saved();
    }

    fn insert(&mut self, identifier: u64, holding: Holding) {
        self.by_holder.entry(holding.holder.clone()).or_default().insert(identifier);
        self.held.insert(identifier, holding);
    }

    fn drop_ended(&mut self, identifiers: Vec<u64>, now: BootTime) {
        for identifier in identifiers {
            let Some(ended) = self.held.get(&identifier).filter(|held| held.is_over(now)) else {
                continue;
            };
            if let Some(own) = self.by_holder.get_mut(&ended.holder) {
                own.remove(&identifier);
                if own.is_empty() {
                    self.by_holder.remove(&ended.holder);
                }
            }
            self.held.remove(&identifier);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> MemberId {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number).into();
        MemberId { identity: ike::config::Identity::Address(address), address }
    }

    fn one_of(
        pool: &mut SenderIdPool,
        member: u32,
        last_end: Option<BootTime>,
        now: BootTime,
    ) -> Result<u64, Exhausted> {
        pool.take(&host(member), 1, last_end, now).map(|taken| taken[0])
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    #[test]
    fn identifiers_count_up_from_0() {
        let mut pool = SenderIdPool::new(16);
        assert_eq!(
            [1, 2, 3].map(|one| one_of(&mut pool, one, Some(at(100)), at(0)).unwrap()),
            [0, 1, 2]
        );
    }

    #[test]
    fn no_identifier_is_given_twice_while_a_tek_lifetimes() {
        let mut pool = SenderIdPool::new(8);
        let all: std::collections::BTreeSet<u64> =
            (0..256).map(|one| one_of(&mut pool, one, Some(at(100)), at(0)).unwrap()).collect();
        assert_eq!(all.len(), 256);
        assert_eq!(one_of(&mut pool, 999, Some(at(100)), at(0)), Err(Exhausted::All { bits: 8 }));
        // Until all keys have surely ended at the members too.
        assert_eq!(one_of(&mut pool, 999, Some(at(500)), at(399)), Err(Exhausted::All { bits: 8 }));
        assert_eq!(one_of(&mut pool, 999, Some(at(500)), at(400)), Ok(0));
        assert_eq!(one_of(&mut pool, 999, Some(at(500)), at(400)), Ok(1));
    }

    #[test]
    fn one_member_holds_a_share_and_no_more() {
        let mut pool = SenderIdPool::new(8);
        for _ in 0..16 {
            one_of(&mut pool, 1, Some(at(100)), at(0)).unwrap();
        }
        let refused = Err(Exhausted::Member { limit: 16 });
        assert_eq!(one_of(&mut pool, 1, Some(at(100)), at(0)), refused);
        assert_eq!(one_of(&mut pool, 2, Some(at(100)), at(0)), Ok(16));
        assert_eq!(one_of(&mut pool, 1, Some(at(500)), at(399)), refused);
        assert_eq!(one_of(&mut pool, 1, Some(at(500)), at(400)), Ok(17));
        let (held, next) = pool.held();
        let mut again = SenderIdPool::restore(8, (**held).clone(), next);
        assert_eq!(one_of(&mut again, 1, Some(at(500)), at(400)), Ok(18));
        assert_eq!((16..).find(|_| one_of(&mut again, 1, None, at(400)).is_err()), Some(30));
    }

    #[test]
    fn one_member_takes_identifiers_at_a_bounded_rate() {
        let mut pool = SenderIdPool::new(8);
        // Each is free again before the member takes the next.
        let take = |pool: &mut SenderIdPool, now| {
            let taken = one_of(pool, 1, Some(at(0)), at(now));
            pool.release_all(at(0));
            taken
        };
        let taken = (0..40).filter(|_| take(&mut pool, 400).is_ok()).count();
        assert_eq!(taken, 16);
        let refused = take(&mut pool, 410).unwrap_err();
        assert_eq!(refused, Exhausted::Rate { wait: Duration::from_secs(20) });
        assert!(take(&mut pool, 430).is_ok() && take(&mut pool, 430).is_err());
        assert!(one_of(&mut pool, 2, None, at(430)).is_ok(), "the others are not affected");
        let taken = (430..730).filter(|now| take(&mut pool, *now).is_ok()).count();
        assert_eq!(taken, 9);
    }

    #[test]
    fn a_pool_goes_on_for_ever_when_teks_end() {
        let mut pool = SenderIdPool::new(8);
        for pull in 0..10_000 {
            // 10 pulls a second, each TEK ends within 10 seconds: never more than 3,200 seconds'
            // worth held.
            let now = at(pull * 2);
            let end = now + Duration::from_secs(100);
            one_of(&mut pool, u32::try_from(pull).unwrap(), Some(end), now).unwrap();
        }
    }

    #[test]
    fn a_member_that_gets_pushes_holds_its_identifier_until_it_takes_another() {
        let mut pool = SenderIdPool::new(8);
        let _: Vec<u64> =
            (0..256).map(|one| one_of(&mut pool, one, None, at(0)).unwrap()).collect();
        assert!(one_of(&mut pool, 999, None, at(1 << 40)).is_err(), "nobody has let go");
        pool.release(&host(9), at(1000));
        assert!(one_of(&mut pool, 999, None, at(1299)).is_err(), "its TEKs live");
        assert_eq!(one_of(&mut pool, 999, None, at(1300)), Ok(9));
        pool.release_all(at(2000));
        assert!(one_of(&mut pool, 999, None, at(2299)).is_err());
        assert!(one_of(&mut pool, 999, None, at(2300)).is_ok());
        pool.reset(8);
        assert_eq!(one_of(&mut pool, 999, None, at(2300)), Ok(0));
    }

    /// Message 4 with another identifier may be lost: the member goes on with the one before, on
    /// all TEKs that are pushed to it.
    #[test]
    fn a_replaced_identifier_is_held_until_the_pool_runs_short() {
        let mut pool = SenderIdPool::new(8);
        assert_eq!(pool.take(&host(1), 1, None, at(0)).unwrap(), [0]);
        assert_eq!(pool.take(&host(1), 1, None, at(10)).unwrap(), [1]);
        pool.replace(&host(1), &[1], at(1000));
        let taken = |pool: &mut SenderIdPool, hosts: std::ops::Range<u32>, now: u64| {
            hosts.filter_map(|one| one_of(pool, one, None, at(now)).ok()).collect::<Vec<_>>()
        };
        // The counter comes round, long after the TEKs of that time.
        for round in 0..1000_u32 {
            let now = at(10_000 + u64::from(round) * 1000);
            assert_ne!(one_of(&mut pool, 100 + round, None, now), Ok(0), "round {round}");
            pool.release(&host(100 + round), now);
        }
        // Nothing else is left.
        let mut pool = SenderIdPool::new(8);
        pool.take(&host(1), 1, None, at(0)).unwrap();
        pool.take(&host(1), 1, None, at(10)).unwrap();
        pool.replace(&host(1), &[1], at(1000));
        let all = taken(&mut pool, 100..400, 2000);
        assert_eq!((all.len(), all.last()), (255, Some(&0)));
        assert!(!all.contains(&1));
    }

    /// A member that restarts once a day is not locked out by what it held.
    #[test]
    fn replaced_identifiers_count_until_their_teks_have_ended() {
        let mut pool = SenderIdPool::new(12);
        for day in 0..200_u64 {
            let now = at(day * 86_400);
            let taken = pool.take(&host(1), 1, None, now).unwrap();
            pool.replace(&host(1), &taken, now + Duration::from_secs(3600));
        }
        // Within the lifetime of a TEK it has a share.
        let now = at(300 * 86_400);
        let share = (0..100).filter(|_| {
            let Ok(taken) = pool.take(&host(1), 1, None, now) else { return false };
            pool.replace(&host(1), &taken, now + Duration::from_secs(3600));
            true
        });
        assert_eq!(share.count(), 63, "and the one that it has");
    }

    #[test]
    fn several_at_once_come_out_of_the_share() {
        let mut pool = SenderIdPool::new(8);
        assert_eq!(pool.take(&host(1), 3, None, at(0)).unwrap(), [0, 1, 2]);
        assert_eq!(pool.take(&host(2), u16::MAX, None, at(0)).unwrap().len(), 16);
        assert_eq!(pool.take(&host(3), 0, None, at(0)).unwrap(), [19], "at least one");
        pool.take_back(&[0, 1, 2], at(0));
        assert_eq!(pool.take(&host(1), 16, None, at(0)).unwrap().len(), 16);
    }
}
