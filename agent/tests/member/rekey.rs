//! Pushes of a scripted key server: keys roll, are deleted, come forged, copied or not at all.

use std::time::Duration;

use agent::dataplane::Cause;
use agent::membership::failover::{Reason, State};
use agent::membership::{Event, Suspicion};
use gdoi::group::{Spi, TekProtocol};
use gdoi::push::{Deletion, KekChange};
use xfrm::Parts;
use xfrm::kernel::fake::Fault;
use xfrm::model::SaId;

use testing::member::{
    ALL, IKE, Kek, PLACEHOLDER, World, address, configuration, seconds, teks_of,
};

/// A member of a group that pushes: KEK number 1, a TEK for an hour.
async fn member() -> (World, Kek) {
    let mut world = World::new(&configuration(1, IKE));
    world.server(1).kek = Some(Kek::new(1, 86_400));
    world.start().await;
    world.pass(seconds(1)).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    (world, Kek::new(1, 86_400))
}

fn renewal_in(world: &World) -> Duration {
    match world.membership().failover().state() {
        State::Served { renewal, .. } => renewal.saturating_since(world.now),
        other => panic!("{other:?}"),
    }
}

fn tek(spi: Spi, lifetime: u64, delays: (Option<u64>, Option<u64>)) -> gdoi::group::IssuedSa {
    teks_of(&[(spi, ALL, lifetime)], delays)
}

#[tokio::test]
async fn a_push_rolls_the_key_by_its_delays_and_is_acknowledged_once_the_kernel_holds_it() {
    let (mut world, mut kek) = member().await;
    world.pass(seconds(1_000)).await;
    world.push(&kek.push(&[], Some(&tek(0x2000, 3_600, (Some(10), Some(30)))))).await.unwrap();
    assert_eq!(world.spis(), (vec![0x1000, 0x2000], vec![0x1000]));
    assert_eq!(world.acknowledged(), [1]);
    let acknowledgement = world.datagrams.last().unwrap();
    assert_eq!(
        (acknowledgement.source, acknowledgement.destination),
        (address("10.0.1.1"), address("10.0.11.1"))
    );
    assert!(renewal_in(&world) > seconds(3_400), "the new TEK's end counts");
    world.pass(seconds(9)).await;
    assert_eq!(world.spis().1, [0x1000]);
    world.pass(seconds(1)).await;
    assert_eq!(world.spis(), (vec![0x1000, 0x2000], vec![0x2000]));
    world.pass(seconds(20)).await;
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
    assert_eq!(world.server(1).pulls, 1);
}

/// A packet that was given the old state drops when that goes (XfrmOutStateInvalid).
#[tokio::test]
async fn the_old_outbound_state_stays_a_second_for_packets_under_way() {
    let (mut world, mut kek) = member().await;
    world.push(&kek.push(&[], Some(&tek(0x2000, 3_600, (Some(10), Some(30)))))).await.unwrap();
    world.pass(seconds(10)).await;
    let outbound = |world: &World| -> Vec<u32> {
        let sas = world.kernel.sas();
        sas.iter().filter(|id| id.destination == PLACEHOLDER).map(|id| id.spi).collect()
    };
    assert_eq!(outbound(&world), [0x1000, 0x2000]);
    world.pass(Duration::from_millis(999)).await;
    assert_eq!(outbound(&world), [0x1000, 0x2000]);
    world.pass(Duration::from_millis(1)).await;
    assert_eq!(outbound(&world), [0x2000]);

    // After a flush it would be as young as the new one, and the kernel could choose either.
    world.push(&kek.push(&[], Some(&tek(0x3000, 3_600, (Some(10), Some(30)))))).await.unwrap();
    world.pass(seconds(10)).await;
    assert_eq!(outbound(&world), [0x2000, 0x3000]);
    world.kernel.flush_states();
    world.dataplane.invalidate(Parts::ALL);
    world.dataplane.repair(Cause::Foreign, world.now).await.unwrap();
    assert_eq!(outbound(&world), [0x3000]);
    world.pass(seconds(2)).await;
    assert_eq!(world.spis().1, outbound(&world));
}

#[tokio::test]
async fn without_a_stated_delay_members_that_missed_the_first_copy_are_waited_for() {
    let (mut world, mut kek) = member().await;
    world.push(&kek.push(&[], Some(&tek(0x2000, 3_600, (None, None))))).await.unwrap();
    world.pass(seconds(14)).await;
    assert_eq!(world.spis().1, [0x1000]);
    world.pass(seconds(1)).await;
    assert_eq!(world.spis(), (vec![0x1000, 0x2000], vec![0x2000]));
}

#[tokio::test]
async fn keys_roll_for_a_month_of_pushes_alone() {
    let mut world = World::new(&configuration(1, IKE));
    world.server(1).kek = Some(Kek::new(1, 86_400));
    world.server(1).lifetime = seconds(14_400);
    world.start().await;
    let mut kek = Kek::new(1, 86_400);
    let mut spi = 0x1000;
    for push in 0..8 * 30 {
        world.leap(seconds(3 * 3_600 - 40)).await;
        if push % 7 == 6 {
            let next = Kek::new(2 + (push / 7) as u8, 86_400);
            world.push(&kek.announce(&next, &[])).await.unwrap();
            kek = next;
        }
        spi += 1;
        world.push(&kek.push(&[], Some(&tek(spi, 14_400, (Some(10), Some(30)))))).await.unwrap();
        world.leap(seconds(40)).await;
        assert_eq!(world.spis(), (vec![spi], vec![spi]));
    }
    assert_eq!(world.server(1).pulls, 1);
    assert_eq!(world.membership().counters().pushes_accepted, 8 * 30 + 34);
    assert_eq!(world.membership().counters().expirations, 0);
}

#[tokio::test]
async fn a_lost_push_is_made_up_for_by_a_pull_before_the_end() {
    let (mut world, _) = member().await;
    world.server(1).spi = 0x2000;
    for _ in 0..3_600 {
        world.pass(seconds(1)).await;
        assert_eq!(world.spis().1.len(), 1);
    }
    assert_eq!((world.server(1).pulls, world.spis().1), (2, vec![0x2000]));
}

#[tokio::test]
async fn forgeries_and_copies_change_nothing_and_are_never_answered() {
    let (mut world, mut kek) = member().await;
    let push = kek.push(&[], Some(&tek(0x2000, 3_600, (None, None))));
    let mut broken = push.datagram().to_vec();
    *broken.last_mut().unwrap() ^= 1;
    assert!(world.receive(address("10.0.11.1"), &broken).is_err());
    // Whoever knows the KEK, a former member for example, does not know the signing key.
    let mut stranger = Kek::new(1, 86_400);
    stranger.sign_as(9);
    for _ in 0..5 {
        let forged = stranger.push(&[Deletion::AllTeks(TekProtocol::ESP), Deletion::AllKeks], None);
        let error = world.push(&forged).await.unwrap_err();
        assert_eq!(error.reason(), "wrong-signature");
    }
    assert_eq!(
        (world.spis(), world.acknowledged()),
        ((vec![0x1000], vec![0x1000]), Vec::<u32>::new())
    );
    world.push(&push).await.unwrap();
    world.pass(seconds(10)).await;
    // An exact copy is acknowledged again, an older number never.
    world.push(&push).await.unwrap();
    assert_eq!(world.acknowledged(), [1, 1]);
    let next = kek.push(&[], Some(&tek(0x3000, 3_600, (None, None))));
    world.push(&next).await.unwrap();
    assert_eq!(world.push(&push).await.unwrap_err().reason(), "stale-sequence-number");
    let other = Kek::new(9, 100).push(&[Deletion::AllKeks], None);
    assert_eq!(world.push(&other).await.unwrap_err().reason(), "unknown-cookies");
    assert_eq!(world.acknowledged(), [1, 1, 2]);
    let discards = world.membership().rekey().discards();
    assert_eq!(discards.get("wrong-signature"), Some(&6));
}

#[tokio::test]
async fn a_registration_under_the_same_kek_does_not_open_the_door_to_old_pushes() {
    let (mut world, mut kek) = member().await;
    let push =
        kek.push(&[Deletion::AllTeks(TekProtocol::ESP)], Some(&tek(0x2000, 3_600, (None, None))));
    world.push(&push).await.unwrap();
    // The scripted server answers the pull as if nothing had been pushed: number 0.
    let now = world.now;
    world.member.register("branches", now).unwrap();
    world.settle().await;
    world.pass(seconds(60)).await;
    assert_eq!(world.server(1).pulls, 2);
    let after = world.spis();
    // Known as a copy of the last one: acknowledged perhaps, never carried out.
    let _ = world.push(&push).await;
    assert_eq!(world.spis(), after);
    assert_eq!(world.membership().counters().pushes_accepted, 1);
}

#[tokio::test]
async fn a_push_from_anywhere_counts_and_is_answered_where_it_came_from() {
    let (mut world, mut kek) = member().await;
    let push = kek.push(&[], Some(&tek(0x2000, 3_600, (None, None))));
    world.receive("10.0.77.7:4000".parse().unwrap(), push.datagram()).unwrap();
    world.settle().await;
    assert_eq!(world.datagrams.last().unwrap().destination, "10.0.77.7:4000".parse().unwrap());
}

#[tokio::test]
async fn no_acknowledgement_leaves_before_the_kernel_holds_the_keys() {
    let (mut world, mut kek) = member().await;
    world.kernel.fail(0, Fault::Refuse(1));
    let push = kek.push(&[], Some(&tek(0x2000, 3_600, (Some(0), None))));
    world.push(&push).await.unwrap();
    assert!(world.dataplane.last_error().is_some());
    assert!(world.acknowledged().is_empty());
    let _ = world.push(&push).await;
    assert!(world.acknowledged().is_empty());
    let applied = |world: &World| {
        world.events.iter().any(|e| matches!(e, Event::PushApplied { sequence_number: 1, .. }))
    };
    assert!(!applied(&world));
    world.pass(seconds(60)).await;
    assert_eq!((world.spis().1, world.acknowledged()), (vec![0x2000], vec![1]));
    // The kernel was asked again after a second.
    let took = Duration::from_micros(world.membership().counters().push_to_kernel_microseconds);
    assert!(applied(&world) && took >= seconds(1) && took < seconds(60), "{took:?}");
}

#[tokio::test]
async fn a_push_that_the_kernel_cannot_do_leaves_the_keys_and_leads_to_a_pull() {
    let (mut world, mut kek) = member().await;
    let multicast = teks_of(&[(0x2000, "239.0.0.0/8", 3_600)], (None, None));
    let push = kek.push(&[Deletion::AllTeks(TekProtocol::ESP)], Some(&multicast));
    world.push(&push).await.unwrap();
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert!(
        world
            .events
            .iter()
            .any(|event| matches!(event, Event::PushUnusable { sequence_number: 1, .. }))
    );
    world.pass(seconds(6)).await;
    assert_eq!(world.server(1).pulls, 2);
    let _ = world.push(&push).await;
    assert_eq!((world.acknowledged().len(), world.membership().counters().pushes_unusable), (0, 1));
}

#[tokio::test]
async fn deletes_alone_block_and_lead_to_a_new_registration() {
    let (mut world, mut kek) = member().await;
    world.push(&kek.push(&[Deletion::Tek(TekProtocol::ESP, 0x9999)], None)).await.unwrap();
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    world.push(&kek.push(&[Deletion::Tek(TekProtocol::AH, 0x1000)], None)).await.unwrap();
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    world.push(&kek.push(&[Deletion::Tek(TekProtocol::ESP, 0x1000)], None)).await.unwrap();
    assert_eq!(world.spis(), (vec![], vec![]));
    assert!(!world.group_in_clear());
    assert_eq!(world.acknowledged(), [1, 2, 3]);
    assert!(world.events.contains(&Event::TeksDeleted));
    world.server(1).spi = 0x2000;
    world.pass(seconds(6)).await;
    assert_eq!((world.spis(), world.server(1).pulls), ((vec![0x2000], vec![0x2000]), 2));
}

#[tokio::test]
async fn a_replacement_takes_the_old_key_out_at_once_without_a_deactivation_delay() {
    let (mut world, mut kek) = member().await;
    let deletions = [Deletion::AllTeks(TekProtocol::ESP)];
    world.push(&kek.push(&deletions, Some(&tek(0x2000, 3_600, (None, None))))).await.unwrap();
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
    world
        .push(&kek.push(&deletions, Some(&tek(0x3000, 3_600, (Some(5), Some(20))))))
        .await
        .unwrap();
    assert_eq!(world.spis(), (vec![0x2000, 0x3000], vec![0x2000]));
    world.pass(seconds(5)).await;
    assert_eq!(world.spis(), (vec![0x2000, 0x3000], vec![0x3000]));
    world.pass(seconds(15)).await;
    assert_eq!(world.spis(), (vec![0x3000], vec![0x3000]));
    assert_eq!(world.server(1).pulls, 1);
}

#[tokio::test]
async fn a_push_without_a_tek_drops_none_and_rolls_the_kek() {
    let (mut world, mut kek) = member().await;
    let mut next = Kek::new(2, 86_400);
    let roll = kek.announce(&next, &[]);
    world.push(&roll).await.unwrap();
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    let replaced = KekChange::Replaced { old: [1; 16], new: [2; 16] };
    assert!(
        world
            .events
            .iter()
            .any(|event| matches!(event, Event::Pushed { kek, .. } if *kek == replaced))
    );
    // The old KEK answers copies of its last push and nothing else.
    let old = kek.push(&[Deletion::AllKeks], None);
    assert_eq!(world.push(&old).await.unwrap_err().reason(), "retired-kek");
    world.push(&next.push(&[], Some(&tek(0x2000, 3_600, (Some(1), None))))).await.unwrap();
    world.pass(seconds(1)).await;
    assert_eq!(world.spis().1, [0x2000]);
    assert_eq!(world.acknowledged(), [1, 1]);
}

#[tokio::test]
async fn a_deleted_kek_and_an_expired_one_lead_to_a_new_registration_with_the_keys_in_use() {
    let (mut world, mut kek) = member().await;
    world.push(&kek.push(&[Deletion::AllKeks], None)).await.unwrap();
    assert_eq!(
        world.acknowledged(),
        [1],
        "a push that deletes its own KEK is acknowledged with it"
    );
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    world.server(1).kek = Some(Kek::new(2, 1_000));
    world.pass(seconds(6)).await;
    assert_eq!(world.server(1).pulls, 2);
    assert!(renewal_in(&world) < seconds(960), "the KEK ends before the TEK");
    world.server(1).up = false;
    world.pass(seconds(1_000)).await;
    assert!(world.events.contains(&Event::KekExpired));
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
}

#[tokio::test]
async fn a_push_replaces_the_sa_teks_that_it_names_and_leaves_the_others() {
    let mut world = World::new(&configuration(1, IKE));
    world.server(1).kek = Some(Kek::new(1, 86_400));
    world.server(1).custom = Some(teks_of(
        &[(0x1000, "172.16.0.0/24", 3_600), (0x1100, "172.17.0.0/24", 3_000)],
        (None, None),
    ));
    world.start().await;
    world.pass(seconds(1)).await;
    assert_eq!(world.spis().1, [0x1000, 0x1100]);
    let mut kek = Kek::new(1, 86_400);
    let part = teks_of(&[(0x2000, "172.16.0.0/24", 3_600)], (Some(10), Some(30)));
    world.push(&kek.push(&[], Some(&part))).await.unwrap();
    assert_eq!(world.spis().1, [0x1000, 0x1100]);
    world.pass(seconds(30)).await;
    assert_eq!(world.spis(), (vec![0x1100, 0x2000], vec![0x1100, 0x2000]));
    assert!(renewal_in(&world) < seconds(2_900), "what was not replaced ends when it always did");
    world.push(&kek.push(&[Deletion::Tek(TekProtocol::ESP, 0x1100)], None)).await.unwrap();
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
    let both = teks_of(
        &[(0x3000, "172.16.0.0/24", 3_600), (0x3100, "172.18.0.0/24", 3_600)],
        (Some(0), Some(0)),
    );
    world.push(&kek.push(&[], Some(&both))).await.unwrap();
    assert_eq!(world.spis(), (vec![0x3000, 0x3100], vec![0x3000, 0x3100]));
    assert!(!world.group_in_clear());
}

#[tokio::test]
async fn the_multicast_group_of_the_pushes_is_to_be_joined() {
    let mut world = World::new(&configuration(1, IKE));
    let mut kek = Kek::new(1, 86_400);
    kek.policy.destination = std::net::SocketAddr::from(([239, 192, 1, 1], 8480)).into();
    world.server(1).kek = Some(kek);
    assert!(world.member.multicasts().is_empty());
    world.start().await;
    world.pass(seconds(1)).await;
    let joined: Vec<_> = world.member.multicasts().into_iter().collect();
    assert_eq!(joined.len(), 1);
    assert_eq!(
        (joined[0].group, joined[0].port, joined[0].interface),
        ("239.192.1.1".parse().unwrap(), 8480, 3)
    );
    let mut kek = Kek::new(1, 86_400);
    let push = kek.push(&[], Some(&tek(0x2000, 3_600, (None, None))));
    let now = world.now;
    let group = "239.192.1.1:848".parse().unwrap();
    world.member.handle_datagram(address("10.0.11.1"), group, push.datagram(), now).unwrap();
    world.settle().await;
    assert_eq!(
        (world.spis().0, world.acknowledged()),
        (vec![0x1000, 0x2000], vec![]),
        "its turn has not come"
    );
    // A copy changes nothing about that.
    let copy = world.member.handle_datagram(address("10.0.11.1"), group, push.datagram(), now);
    assert_eq!(copy.unwrap_err().reason(), "replayed");
    world.pass(seconds(2)).await;
    assert_eq!(world.acknowledged(), [1]);
    assert_eq!(
        world.datagrams.last().unwrap().source,
        address("10.0.1.1"),
        "never from the multicast address"
    );
    // Nor does a kernel that is not ready when the turn comes, but the acknowledgement waits for
    // it.
    let push = kek.push(&[], Some(&tek(0x3000, 3_600, (None, None))));
    world.kernel.fail(0, Fault::Stop);
    world.stopping = true;
    let now = world.now;
    world.member.handle_datagram(address("10.0.11.1"), group, push.datagram(), now).unwrap();
    world.settle().await;
    world.pass(seconds(3)).await;
    assert_eq!(world.acknowledged(), [1]);
    world.kernel.heal();
    world.pass(seconds(8)).await;
    assert_eq!(world.acknowledged(), [1, 2]);
}

#[tokio::test]
async fn members_acknowledge_a_multicast_push_at_different_moments_and_none_later_than_it_may() {
    let mut turns = std::collections::BTreeSet::new();
    for number in 0..8 {
        let mut world = World::with_jitter(&configuration(1, IKE), number);
        let mut kek = Kek::new(1, 86_400);
        world.server(1).kek = Some(Kek::new(1, 86_400));
        world.start().await;
        world.pass(seconds(1)).await;
        let push = kek.push(&[], Some(&tek(0x2000, 3_600, (None, None))));
        let (group, now) = ("239.192.1.1:848".parse().unwrap(), world.now);
        world.member.handle_datagram(address("10.0.11.1"), group, push.datagram(), now).unwrap();
        let mut waited = 0;
        while world.acknowledged().is_empty() {
            world.settle().await;
            world.pass(Duration::from_millis(10)).await;
            waited += 10;
            assert!(waited <= 2_000);
        }
        turns.insert(waited);
    }
    assert!(turns.len() >= 6, "{turns:?}");
}

#[tokio::test]
async fn unknown_esp_makes_a_member_pull_now_and_then_if_that_is_set() {
    for (enabled, pulls) in [(false, 1), (true, 3)] {
        let mut world =
            World::new(&configuration(1, &format!("recovery-probe = {enabled}\n{IKE}")));
        world.start().await;
        world.pass(seconds(31)).await;
        for look in 1..=18 {
            world.kernel.count(xfrm::nft::UNKNOWN_ESP, 100 * look);
            world.pass(seconds(31)).await;
        }
        assert_eq!(world.server(1).pulls, pulls, "once in five minutes");
        world.pass(seconds(600)).await;
        assert_eq!(world.server(1).pulls, pulls, "without further packets nothing");
    }
}

/// A group of two servers, of which the first gives its KEK and no TEK.
async fn without_tek() -> (World, Kek) {
    let mut world = World::new(&configuration(2, IKE));
    world.server(1).kek = Some(Kek::new(1, 86_400));
    world.server(1).custom = Some(teks_of(&[], (None, None)));
    world.start().await;
    world.pass(seconds(1)).await;
    assert_eq!((world.server(1).pulls, world.spis()), (1, (vec![], vec![])));
    assert!(world.events.contains(&Event::AwaitingTek { server: 0 }) && !world.group_in_clear());
    (world, Kek::new(1, 86_400))
}

#[tokio::test]
async fn a_pull_without_a_tek_waits_for_the_push_that_brings_one() {
    let (mut world, mut kek) = without_tek().await;
    world.pass(seconds(50)).await;
    world.push(&kek.push(&[], Some(&tek(0x2000, 3_600, (None, None))))).await.unwrap();
    assert_eq!((world.spis(), world.acknowledged()), ((vec![0x2000], vec![0x2000]), vec![1]));
    world.pass(seconds(600)).await;
    assert_eq!((world.server(1).pulls, world.server(2).pulls), (1, 0));
    assert!(renewal_in(&world) > seconds(2_700));
}

#[tokio::test]
async fn where_no_push_brings_a_tek_the_next_server_is_asked() {
    let (mut world, mut kek) = without_tek().await;
    world.pass(seconds(58)).await;
    assert_eq!(world.server(2).pulls, 0);
    world.pass(seconds(3)).await;
    assert_eq!((world.server(2).pulls, world.spis().1), (1, vec![0x2000]));
    let passed = &world.membership().failover().passed_over()[0];
    assert_eq!((passed.server, passed.reason), (0, Reason::NoTek));
    // The second server does not push, and the first one's KEK is no longer the group's.
    let late = kek.push(&[], Some(&tek(0x3000, 3_600, (None, None))));
    assert_eq!(world.push(&late).await.unwrap_err().reason(), "unknown-cookies");
}

#[tokio::test]
async fn a_pull_without_a_tek_leaves_the_keys_in_use() {
    let (mut world, mut kek) = member().await;
    world.server(1).custom = Some(teks_of(&[], (None, None)));
    let now = world.now;
    world.member.register("branches", now).unwrap();
    world.settle().await;
    assert_eq!((world.server(1).pulls, world.spis()), (2, (vec![0x1000], vec![0x1000])));
    world.push(&kek.push(&[], Some(&tek(0x2000, 3_600, (Some(0), Some(0)))))).await.unwrap();
    assert_eq!(world.spis().1, [0x2000]);
    assert!(renewal_in(&world) > seconds(3_300));
}

#[tokio::test]
async fn esp_that_fails_its_check_makes_a_member_pull_now_and_then_if_that_is_set() {
    for (enabled, pulls) in [(false, 1), (true, 3)] {
        let mut world =
            World::new(&configuration(1, &format!("recovery-probe = {enabled}\n{IKE}")));
        world.start().await;
        world.pass(seconds(31)).await;
        let inbound = SaId { destination: "10.0.1.1".parse().unwrap(), spi: 0x1000 };
        // A link that damages a packet now and then is no reason.
        for look in 1..=18 {
            world.kernel.forge(inbound, 9 * look);
            world.pass(seconds(31)).await;
        }
        assert_eq!(world.server(1).pulls, 1);
        for look in 1..=18 {
            world.kernel.forge(inbound, 200 + 10 * look);
            world.pass(seconds(31)).await;
        }
        assert_eq!(world.server(1).pulls, pulls, "once in five minutes");
        let suspicions = world.events.iter().filter(|event| matches!(event, Event::Probing(_)));
        assert!(
            suspicions
                .clone()
                .all(|event| *event == Event::Probing(Suspicion::IntegrityFailure(0x1000)))
        );
        assert_eq!(suspicions.count(), pulls - 1);
        // The counter restarts with the state, and nobody else's counts.
        world.kernel.forge(inbound, 5);
        world.kernel.forge(SaId { spi: 0x9999, ..inbound }, 5_000);
        world.pass(seconds(600)).await;
        assert_eq!(world.server(1).pulls, pulls);
    }
}

#[tokio::test]
async fn a_pull_that_brings_the_keys_before_the_last_push_takes_nothing_back() {
    let (mut world, mut kek) = member().await;
    world.push(&kek.push(&[], Some(&tek(0x2000, 3_600, (Some(10), Some(30)))))).await.unwrap();
    world.pass(seconds(5)).await;
    // The server still hands the old TEK out, because members still send on it.
    let now = world.now;
    world.member.register("branches", now).unwrap();
    world.settle().await;
    assert_eq!((world.server(1).pulls, world.spis()), (2, (vec![0x1000, 0x2000], vec![0x1000])));
    assert!(renewal_in(&world) > seconds(3_300));
    world.pass(seconds(5)).await;
    assert_eq!(world.spis(), (vec![0x1000, 0x2000], vec![0x2000]));
    world.pass(seconds(20)).await;
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
}

/// Key servers state every TEK that is valid, in pull and push, while keys overlap.
#[tokio::test]
async fn teks_that_overlap_are_all_received_on_and_the_lasting_one_is_sent_on() {
    let mut world = World::new(&configuration(1, IKE));
    world.server(1).kek = Some(Kek::new(1, 86_400));
    world.server(1).custom =
        Some(teks_of(&[(0x1000, ALL, 66), (0x2000, ALL, 3_600)], (None, None)));
    world.start().await;
    world.pass(seconds(1)).await;
    assert_eq!(world.spis(), (vec![0x1000, 0x2000], vec![0x2000]));
    assert_eq!(world.server(1).pulls, 1);
    assert!(renewal_in(&world) > seconds(3_300), "the end of the lasting one counts");
    world.pass(seconds(70)).await;
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
    assert_eq!(world.server(1).pulls, 1);

    let mut kek = Kek::new(1, 86_400);
    let stated = teks_of(&[(0x2000, ALL, 3_500), (0x3000, ALL, 7_200)], (Some(10), Some(30)));
    world.push(&kek.push(&[], Some(&stated))).await.unwrap();
    assert_eq!(world.spis(), (vec![0x2000, 0x3000], vec![0x2000]));
    assert_eq!(world.acknowledged(), [1]);
    world.pass(seconds(10)).await;
    assert_eq!(world.spis(), (vec![0x2000, 0x3000], vec![0x3000]));
    let delete = [Deletion::Tek(TekProtocol::ESP, 0x3000)];
    world.push(&kek.push(&delete, None)).await.unwrap();
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]), "what is left is sent on again");
    assert_eq!(world.unusable, []);
    assert!(!world.group_in_clear());
}

#[tokio::test]
async fn a_restart_goes_on_with_overlapping_teks() {
    let mut world = World::new(&configuration(1, IKE));
    world.server(1).kek = Some(Kek::new(1, 86_400));
    world.server(1).custom =
        Some(teks_of(&[(0x1000, ALL, 66), (0x2000, ALL, 3_600)], (Some(20), None)));
    world.start().await;
    world.pass(seconds(1)).await;
    assert_eq!(world.spis(), (vec![0x1000, 0x2000], vec![0x1000]));
    world.server(1).up = false;
    let mut world = world.restart().await;
    world.start().await;
    assert_eq!(world.spis(), (vec![0x1000, 0x2000], vec![0x1000]));
    world.pass(seconds(19)).await;
    assert_eq!(world.spis(), (vec![0x1000, 0x2000], vec![0x2000]));
}

/// Packets that another IPsec program takes are a problem while there are any, and not for ever.
#[tokio::test]
async fn group_traffic_that_a_foreign_policy_takes_is_a_problem_for_a_while() {
    let mut world = World::new(&configuration(1, IKE));
    world.start().await;
    world.pass(seconds(60)).await;
    assert_eq!(world.dataplane.foreign_policy(world.now), None);
    world.kernel.count(xfrm::nft::FOREIGN_POLICY, 7);
    world.pass(seconds(60)).await;
    let problem = world.dataplane.foreign_policy(world.now).unwrap();
    assert!(problem.contains("exclude it from the group"), "{problem}");
    world.pass(seconds(200)).await;
    assert!(world.dataplane.foreign_policy(world.now).is_some());
    world.pass(seconds(200)).await;
    assert_eq!(world.dataplane.foreign_policy(world.now), None);
    // Tables made again count from zero.
    world.kernel.count(xfrm::nft::FOREIGN_POLICY, 3);
    world.pass(seconds(60)).await;
    assert!(world.dataplane.foreign_policy(world.now).is_some());
}
