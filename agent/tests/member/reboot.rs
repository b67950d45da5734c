//! A machine that comes up again while every key server is down: what the sealed state gives back,
//! and what it must not.

use agent::checkpoint::remove_orphan;
use agent::membership::Event;
use gdoi::group::{EspTransform, TekProtocol};
use gdoi::push::{Deletion, KekChange};
use xfrm::kernel::fake::Fault;

use testing::member::{ALL, IKE, Kek, SEALED, World, configuration, seconds, teks_of};

fn sealed(lines: &str) -> String {
    format!("{SEALED}{}", configuration(1, lines))
}

/// A member with a key of one hour and a KEK of one day, and its server's KEK.
async fn member() -> (World, Kek) {
    let mut world = World::new(&sealed(IKE));
    world.server(1).kek = Some(Kek::new(1, 86_400));
    world.start().await;
    world.pass(seconds(1)).await;
    (world, Kek::new(1, 86_400))
}

/// After the reboot no server answers.
async fn alone(mut world: World, pause: u64) -> World {
    world.server(1).up = false;
    let mut world = world.reboot(seconds(pause)).await;
    world.start().await;
    assert!(world.tables() && !world.group_in_clear());
    world
}

fn resumed(world: &World) -> bool {
    world.events.iter().any(|event| matches!(event, Event::Restored { sealed: true, .. }))
}

#[tokio::test]
async fn keys_go_on_until_they_would_have_ended() {
    let (world, _) = member().await;
    let mut world = alone(world, 600).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert!(resumed(&world));
    // One second before the reboot, ten minutes between, and half a minute that belongs to them.
    world.leap(seconds(3_600 - 601 - 1)).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    world.leap(seconds(2)).await;
    assert_eq!(world.spis(), (vec![], vec![]));
    assert!(world.events.contains(&Event::Expired) && !world.group_in_clear());
    assert_eq!(world.server(1).pulls, 1);
}

#[tokio::test]
async fn the_servers_are_asked_all_the_while() {
    let (world, _) = member().await;
    let mut world = alone(world, 600).await;
    assert!(world.events.contains(&Event::Trying(0)));
    world.pass(seconds(100)).await;
    world.server(1).up = true;
    world.server(1).spi = 0x2000;
    world.pass(seconds(61)).await;
    assert_eq!(world.server(1).pulls, 2);
    assert!(world.spis().0.contains(&0x2000));
}

#[tokio::test]
async fn pushes_are_heard_again_from_the_number_reached() {
    let (mut world, mut kek) = member().await;
    let first = kek.push(&[], Some(&teks_of(&[(0x2000, ALL, 3_600)], (Some(1), Some(5)))));
    world.push(&first).await.unwrap();
    world.pass(seconds(10)).await;
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
    let mut world = alone(world, 60).await;
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
    assert_eq!(world.push(&first).await.unwrap_err().reason(), "stale-sequence-number");
    let next = kek.push(&[], Some(&teks_of(&[(0x3000, ALL, 3_600)], (Some(1), Some(5)))));
    world.push(&next).await.unwrap();
    assert_eq!(world.acknowledged(), [2]);
    world.pass(seconds(5)).await;
    assert_eq!(world.spis(), (vec![0x3000], vec![0x3000]));
    // The KEK rolls, and the next reboot knows that.
    let mut second = Kek::new(2, 86_400);
    world.push(&kek.announce(&second, &[])).await.unwrap();
    let mut world = alone(world, 60).await;
    let replaced = kek.push(&[Deletion::AllTeks(TekProtocol::ESP)], None);
    assert_eq!(world.push(&replaced).await.unwrap_err().reason(), "unknown-cookies");
    world
        .push(&second.push(&[], Some(&teks_of(&[(0x4000, ALL, 3_600)], (Some(1), Some(5))))))
        .await
        .unwrap();
    let pushed = |event: &&Event| matches!(event, Event::Pushed { kek: KekChange::Unchanged, .. });
    assert_eq!(world.events.iter().filter(pushed).count(), 1);
}

#[tokio::test]
async fn a_kek_ends_when_it_always_did() {
    let (mut world, mut kek) = member().await;
    world.server(1).kek = Some(Kek::new(2, 1_000));
    let short = Kek::new(2, 1_000);
    world.push(&kek.announce(&short, &[])).await.unwrap();
    let mut world = alone(world, 400).await;
    world.leap(seconds(1_000 - 400 - 1)).await;
    assert!(!world.events.contains(&Event::KekExpired));
    world.leap(seconds(2)).await;
    assert!(world.events.contains(&Event::KekExpired));
    // And one that ended while the power was off never comes up.
    let mut world = alone(world, 10).await;
    let mut short = short;
    let push = short.push(&[], Some(&teks_of(&[(0x5000, ALL, 3_600)], (None, None))));
    assert_eq!(world.push(&push).await.unwrap_err().reason(), "unknown-cookies");
    assert_eq!(world.spis().1, [0x1000]);
}

#[tokio::test]
async fn what_has_ended_or_was_deleted_does_not_come_back() {
    let (world, _) = member().await;
    let world = alone(world, 3_600).await;
    assert_eq!(world.spis(), (vec![], vec![]));
    assert!(!resumed(&world) && world.events.contains(&Event::SealedKeysEnded));

    let (mut world, mut kek) = member().await;
    world.push(&kek.push(&[Deletion::AllTeks(TekProtocol::ESP)], None)).await.unwrap();
    assert_eq!(world.acknowledged(), [1]);
    let world = alone(world, 10).await;
    assert_eq!(world.spis(), (vec![], vec![]));
}

#[tokio::test]
async fn a_push_is_acknowledged_when_it_would_survive() {
    let (mut world, mut kek) = member().await;
    let before = world.sealed();
    let push = kek.push(&[], Some(&teks_of(&[(0x2000, ALL, 3_600)], (Some(10), Some(30)))));
    world.kernel.fail(0, Fault::Stop);
    world.stopping = true;
    world.push(&push).await.unwrap();
    assert_eq!(
        (world.acknowledged(), world.sealed() == before),
        (vec![], true),
        "the kernel does not hold it"
    );
    world.kernel.heal();
    world.pass(seconds(2)).await;
    assert_eq!((world.acknowledged(), world.sealed() == before), (vec![1], false));
    assert_eq!(
        alone(world, 1).await.spis(),
        (vec![0x1000, 0x2000], vec![0x1000]),
        "the delays go on, too"
    );
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changed() {
    let (mut world, _) = member().await;
    let before = world.sealed();
    world.pass(seconds(300)).await;
    let interfaces = world.interfaces.clone();
    world.member.handle_interfaces(&interfaces, world.now);
    world.settle().await;
    assert_eq!(world.sealed(), before, "each sealing has a nonce of its own");
}

#[tokio::test]
async fn a_clock_from_before_the_state_is_refused_and_the_file_stays() {
    let (mut world, _) = member().await;
    let file = world.sealed();
    world.booted -= seconds(86_400);
    let mut world = alone(world, 600).await;
    assert_eq!(world.spis(), (vec![], vec![]));
    let told = |world: &World| world.checkpoint.problems().any(|one| one.contains("set the clock"));
    assert!(told(&world));
    world.pass(seconds(300)).await;
    world.clock_checked().await;
    assert_eq!(world.sealed(), file, "with the clock set right it can be used yet");
    assert!(told(&world) && world.spis().0.is_empty());
    world.booted += seconds(86_400);
    let mut world = alone(world, 600).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert!(!told(&world));
    // New keys take its place.
    world.server(1).up = true;
    world.pass(seconds(61)).await;
    assert_ne!(world.sealed(), file);
}

/// Many routers have no clock that runs on without power, and get the time from the network.
#[tokio::test]
async fn sealed_keys_wait_until_the_clock_is_right() {
    let (mut world, mut kek) = member().await;
    world.booted -= seconds(86_400);
    let mut world = alone(world, 600).await;
    world.pass(seconds(100)).await;
    assert_eq!(world.spis(), (vec![], vec![]));
    world.booted += seconds(86_400);
    world.clock_checked().await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert!(resumed(&world) && world.checkpoint.problems().next().is_none());
    // With its KEK, too.
    let push = kek.push(&[], Some(&teks_of(&[(0x2000, ALL, 3_600)], (Some(1), Some(5)))));
    world.push(&push).await.unwrap();
    assert_eq!(world.acknowledged(), [1]);
    // The keys end when they always did: an hour after they came.
    let (mut world, _) = member().await;
    world.booted -= seconds(86_400);
    let mut world = alone(world, 600).await;
    world.pass(seconds(100)).await;
    world.booted += seconds(86_400);
    world.clock_checked().await;
    world.leap(seconds(3_600 - 601 - 100 - 1)).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    world.leap(seconds(2)).await;
    assert_eq!(world.spis(), (vec![], vec![]));
    // Who was served meanwhile has newer keys.
    let (mut world, _) = member().await;
    world.booted -= seconds(86_400);
    let mut world = alone(world, 600).await;
    world.server(1).up = true;
    world.server(1).spi = 0x2000;
    world.pass(seconds(61)).await;
    world.booted += seconds(86_400);
    world.clock_checked().await;
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
}

#[tokio::test]
async fn what_is_no_state_of_ours_is_refused() {
    let (world, _) = member().await;
    let whole = world.sealed();
    let mut world = world;
    let half = whole.len() / 2;
    let mut changed = whole.clone();
    changed[half] ^= 1;
    for damaged in [
        &b""[..],
        b"gcks state\x01",
        &whole[..10],
        &whole[..half],
        &whole[..whole.len() - 1],
        &changed,
    ] {
        std::fs::write(world.sealed_path(), damaged).unwrap();
        world = alone(world, 1).await;
        assert_eq!(world.spis(), (vec![], vec![]), "{} octets", damaged.len());
        assert_eq!(world.sealed(), damaged, "left for a person to look at");
    }
    std::fs::write(world.sealed_path(), &whole).unwrap();
    world = alone(world, 1).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
}

#[tokio::test]
async fn keys_of_another_group_stay_out() {
    let (world, _) = member().await;
    let mut other = World::new(&sealed(IKE).replace("id = 1111", "id = 4444"));
    other.directory = world.directory.clone();
    assert_eq!(alone(other, 1).await.spis(), (vec![], vec![]));
}

#[tokio::test]
async fn keys_of_a_group_that_a_reload_takes_out_are_gone_from_the_file() {
    let (mut world, _) = member().await;
    assert!(world.unsealed().take(1111).unwrap().1.tek(0x1000).is_some());
    world.server(1).up = false;
    world.reload(&sealed(IKE).replace("id = 1111", "id = 4444")).await;
    assert_eq!(world.unsealed().left().collect::<Vec<_>>(), [4444]);
}

#[tokio::test]
async fn a_file_without_a_key_to_it_is_removed() {
    let (world, _) = member().await;
    let with = |text: &str| world.configured(text);
    assert!(!remove_orphan(&with(&sealed(IKE))).unwrap() && world.sealed_path().exists());
    assert!(remove_orphan(&with(&configuration(1, IKE))).unwrap() && !world.sealed_path().exists());
    assert!(!remove_orphan(&with(&configuration(1, IKE))).unwrap(), "nor is there one");
}

#[tokio::test]
async fn a_counter_mode_key_is_received_on_and_never_sent_on() {
    let text = sealed(&format!("counter-mode-send = true\n{IKE}"));
    for saved in [true, false] {
        let mut world = World::new(&text);
        world.server(1).transform = EspTransform::AES_GCM_16;
        world.start().await;
        world.pass(seconds(1)).await;
        assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
        if !saved {
            std::fs::remove_file(world.directory.path().join("gdoi-agent.state")).unwrap();
        }
        let mut world = alone(world, 60).await;
        assert_eq!(world.spis(), (vec![0x1000], vec![]));
        // Nor after the server has given the same one once more.
        world.server(1).up = true;
        world.pass(seconds(61)).await;
        assert_eq!((world.server(1).pulls, world.spis()), (2, (vec![0x1000], vec![])));
        let now = world.now;
        world.server(1).spi = 0x2000;
        world.member.register("branches", now).unwrap();
        world.settle().await;
        world.pass(seconds(2)).await;
        assert_eq!(world.spis().1, [0x2000]);
    }
}

#[tokio::test]
async fn keys_that_were_flushed_while_no_daemon_ran_come_back_as_well() {
    let (mut world, mut kek) = member().await;
    world.server(1).up = false;
    world.kernel.flush_states();
    let mut world = world.restart().await;
    world.start().await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert!(resumed(&world));
    // And the KEK, which never was in the kernel.
    world
        .push(&kek.push(&[], Some(&teks_of(&[(0x2000, ALL, 3_600)], (Some(1), Some(5))))))
        .await
        .unwrap();
    assert_eq!(world.acknowledged(), [1]);
}

#[tokio::test]
async fn an_orderly_end_is_no_end_of_the_keys() {
    let (mut world, _) = member().await;
    assert!(world.leave().await);
    assert_eq!(world.spis(), (vec![], vec![]));
    assert_eq!(alone(world, 60).await.spis(), (vec![0x1000], vec![0x1000]));
}

#[tokio::test]
async fn without_a_state_key_a_reboot_loses_the_keys_and_nothing_else() {
    let mut world = World::new(&configuration(1, IKE));
    world.start().await;
    world.pass(seconds(1)).await;
    assert!(!world.sealed_path().exists());
    let world = alone(world, 60).await;
    assert_eq!(world.spis(), (vec![], vec![]));
}

/// The state directory is enough: the agent makes the key that seals what it keeps there.
#[tokio::test]
async fn a_key_of_its_own_keeps_keys_over_a_reboot() {
    let text = format!("state-directory = \"/state\"\n{}", configuration(1, IKE));
    let mut world = World::new(&text);
    world.start().await;
    world.pass(seconds(1)).await;
    let key = world.sealed_path().with_file_name("state.key");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&key).unwrap());
    assert_eq!((mode & 0o777, std::fs::read(key).unwrap().len()), (0o600, 32));
    let world = alone(world, 60).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    let mut world = World::new(&format!("keep-keys = false\n{text}"));
    world.start().await;
    world.pass(seconds(1)).await;
    assert!(!world.sealed_path().exists());
}
