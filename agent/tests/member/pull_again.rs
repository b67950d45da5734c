//! Registrations with the same key server share an ISAKMP SA, and no key gaps where it is gone.

use agent::membership::Event;
use agent::membership::failover::Reason;
use gdoi::event::{PullRefusal, RegistrationFailure};
use ike::crypto::SeededRng;

use testing::member::{IKE, World, configuration, gdoi_server, seconds};

/// Registered with one server whose TEKs live this long, and whose ISAKMP SAs an hour.
async fn registered(lifetime: u64) -> World {
    let mut world = World::new(&configuration(1, IKE));
    world.server(1).lifetime = seconds(lifetime);
    world.start().await;
    world.pass(seconds(1)).await;
    assert_eq!(counts(&mut world), (1, 1));
    world
}

/// Pulls that the server has answered, and times that it has established an ISAKMP SA.
fn counts(world: &mut World) -> (usize, u64) {
    let server = world.server(1);
    (server.pulls, server.server.statistics().phase1_established)
}

/// Lives through `duration`; the kernel has a key to send on all the time. Every pull brings
/// another SPI.
async fn live(world: &mut World, duration: u64) {
    for _ in 0..duration * 4 {
        let pulls = u32::try_from(world.server(1).pulls).unwrap();
        world.server(1).spi = 0x1000 + 16 * pulls;
        world.pass(seconds(1) / 4).await;
        let (inbound, outbound) = world.spis();
        assert!(outbound.iter().any(|spi| inbound.contains(spi)), "at {:?}", world.now);
    }
}

fn unusable<'w>(world: &'w World) -> Vec<&'w RegistrationFailure> {
    let failure = |event: &'w Event| match event {
        Event::IsakmpSaUnusable { failure, .. } => Some(failure),
        _ => None,
    };
    world.events.iter().filter_map(failure).collect()
}

#[tokio::test]
async fn renewals_share_an_isakmp_sa_until_it_is_about_to_expire() {
    let mut world = registered(600).await;
    live(&mut world, 3_400).await;
    let (pulls, established) = counts(&mut world);
    assert_eq!((pulls, established), (7, 1));
    live(&mut world, 600).await;
    let (pulls, established) = counts(&mut world);
    assert_eq!((pulls, established), (8, 2));
    assert_eq!(unusable(&world), [] as [&RegistrationFailure; 0]);
    assert_eq!(world.membership().counters().attempts, 8);
}

/// An operator's command, which waits for nothing.
#[tokio::test]
async fn a_commanded_registration_is_one_pull() {
    let mut world = registered(600).await;
    world.datagrams.clear();
    world.member.register("branches", world.now).unwrap();
    world.settle().await;
    assert_eq!(counts(&mut world), (2, 1));
    assert_eq!(world.datagrams.len(), 2, "messages 1 and 3 of GROUPKEY-PULL");
}

/// It restarted, or deleted the SA and the Delete was lost: whatever the keys have left, main mode
/// gets most of it.
#[tokio::test]
async fn a_server_that_lost_the_isakmp_sa_costs_a_few_seconds_and_no_key() {
    for lifetime in [8, 20, 120, 600] {
        let mut world = registered(lifetime).await;
        for round in 1..=5_u64 {
            world.server(1).server = gdoi_server(1);
            let before = world.server(1).pulls;
            while world.server(1).pulls == before {
                live(&mut world, 1).await;
            }
            let established = world.server(1).server.statistics().phase1_established;
            assert_eq!(established, 1, "lifetime {lifetime}, round {round}");
        }
        assert_eq!(world.membership().counters().expirations, 0);
        let silent =
            RegistrationFailure::NoAnswer { stage: gdoi::event::Stage::Pull, transmissions: 3 };
        assert_eq!(unusable(&world), vec![&silent; 5], "lifetime {lifetime}");
        assert_eq!(world.membership().counters().pulls_timed_out, 0, "no failure of the server");
    }
}

#[tokio::test]
async fn a_deleted_isakmp_sa_is_not_used() {
    let mut world = registered(600).await;
    let server = &mut world.server(1).server;
    assert_eq!(server.delete_peers(|_, _| true).len(), 1);
    let delete = server.poll_transmit().unwrap();
    world.receive(delete.source, &delete.payload).unwrap();
    world.settle().await;
    assert!(world.events.iter().any(|event| matches!(event, Event::IsakmpSaEnded(0))));
    live(&mut world, 600).await;
    assert_eq!(counts(&mut world), (2, 2));
    assert_eq!(unusable(&world), [] as [&RegistrationFailure; 0]);
}

/// A refusal may be meant for what the old ISAKMP SA proved.
#[tokio::test]
async fn a_refusal_under_the_isakmp_sa_is_asked_about_once_more_under_a_new_one() {
    let mut world = registered(600).await;
    world.server(1).refusal = Some(PullRefusal::AuthenticationFailed);
    world.member.register("branches", world.now).unwrap();
    world.settle().await;
    assert_eq!(counts(&mut world), (1, 2));
    let failures = unusable(&world);
    assert!(matches!(failures[..], [RegistrationFailure::Refused { .. }]), "{failures:?}");
    let passed = world.membership().failover().passed_over();
    assert_eq!(passed.iter().map(|passed| passed.reason).collect::<Vec<_>>(), [Reason::Refused]);
}

#[tokio::test]
async fn keys_never_gap_on_a_network_that_loses_a_fifth_of_everything() {
    let mut world = registered(200).await;
    let mut rng = SeededRng::from_seed([9; 32]);
    world.loss = Box::new(move |_| rng.array::<1>()[0] < 51);
    live(&mut world, 3_500).await;
    let (pulls, established) = counts(&mut world);
    assert!(pulls >= 20, "{pulls}");
    assert!(established * 2 < pulls as u64, "{established} ISAKMP SAs for {pulls} pulls");
}
