//! Identifiers that are taken, held and free again.

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
    let _: Vec<u64> = (0..256).map(|one| one_of(&mut pool, one, None, at(0)).unwrap()).collect();
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

fn division(blocks: &[u16]) -> Division {
    Division { era: 1, bits: 8, blocks: blocks.iter().copied().collect() }
}

#[test]
fn identifiers_come_from_the_own_blocks_alone() {
    let mut pool = SenderIdPool::new(8);
    assert!(pool.divide(division(&[])).is_empty());
    assert_eq!(one_of(&mut pool, 0, None, at(0)), Err(Exhausted::All { bits: 8 }), "none yet");
    pool.divide(division(&[2, 5]));
    let all: Vec<u64> =
        (0..40).filter_map(|one| one_of(&mut pool, one, None, at(0)).ok()).collect();
    assert_eq!(all, (32..48).chain(80..96).collect::<Vec<_>>());
    assert!(pool.is_short());
    pool.divide(division(&[2, 5, 15]));
    assert_eq!(one_of(&mut pool, 50, None, at(0)), Ok(240));
    let (held, next) = pool.held();
    let again = SenderIdPool::restore(8, (**held).clone(), next).with_division(pool.division());
    assert_eq!(one_of(&mut again.clone(), 51, None, at(0)), Ok(241));
}

/// A block went to another server while this one was away.
#[test]
fn holders_of_what_is_another_servers_now_are_told() {
    let mut pool = SenderIdPool::new(8);
    pool.divide(division(&[0, 1]));
    (0..20).for_each(|one| assert!(one_of(&mut pool, one, None, at(0)).is_ok()));
    let lost = pool.divide(division(&[0]));
    assert_eq!(lost, (16..20).map(host).collect());
    assert!(lost.iter().all(|one| !pool.is_holder(one)));
    let lost = pool.divide(Division { era: 2, ..division(&[7]) });
    assert!(lost.is_empty(), "the TEKs of the era before have ended");
    assert_eq!(one_of(&mut pool, 0, None, at(0)), Ok(112));
}
