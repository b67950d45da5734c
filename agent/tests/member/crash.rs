//! `kill -9` after every single operation of every plan, and a new start on what is left.

use std::collections::BTreeSet;

use agent::membership::Event;
use gdoi::group::{EspTransform, Spi, TekProtocol};
use gdoi::push::Deletion;
use xfrm::Op;
use xfrm::kernel::fake::Fault;
use xfrm::model::SaId;

use testing::member::{ALL, IKE, Kek, World, configuration, seconds, teks_of};

/// What changes the kernel, one way after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Start,
    Push,
    Activation,
    Deactivation,
    Replacement,
    Delete,
    AddressChange,
    Expiry,
}

/// A member right before `step`, and the KEK of its server.
async fn before(step: Step) -> (World, Kek) {
    let mut world = World::new(&configuration(1, IKE));
    world.server(1).kek = Some(Kek::new(1, 86_400));
    let mut kek = Kek::new(1, 86_400);
    if step == Step::Start {
        return (world, kek);
    }
    world.start().await;
    if matches!(step, Step::Activation | Step::Deactivation) {
        push(&mut world, &mut kek).await;
    }
    if step == Step::Deactivation {
        world.pass(seconds(10)).await;
    }
    if step == Step::Expiry {
        world.server(1).up = false;
        world.pass(seconds(3_599)).await;
    }
    (world, kek)
}

async fn push(world: &mut World, kek: &mut Kek) {
    let sa = teks_of(&[(0x2000, ALL, 3_600)], (Some(10), Some(30)));
    world.push(&kek.push(&[], Some(&sa))).await.unwrap();
}

async fn take(step: Step, world: &mut World, kek: &mut Kek) {
    match step {
        Step::Start => world.start().await,
        Step::Push => push(world, kek).await,
        Step::Activation => world.pass(seconds(10)).await,
        Step::Deactivation => world.pass(seconds(20)).await,
        Step::Expiry => world.pass(seconds(2)).await,
        Step::Replacement => {
            let sa = teks_of(&[(0x2000, ALL, 3_600)], (None, None));
            world.push(&kek.push(&[Deletion::AllTeks(TekProtocol::ESP)], Some(&sa))).await.unwrap();
        }
        Step::Delete => {
            world.push(&kek.push(&[Deletion::AllTeks(TekProtocol::ESP)], None)).await.unwrap()
        }
        Step::AddressChange => {
            world.interfaces.get_mut("wan").unwrap().addresses =
                vec!["10.0.1.77/24".parse().unwrap()];
            world.interfaces_changed().await;
        }
    }
}

/// How many operations `step` has when nothing goes wrong, and what is in the kernel when it is
/// over.
async fn undisturbed(step: Step) -> (u64, BTreeSet<SaId>) {
    let (mut world, mut kek) = before(step).await;
    let already = world.kernel.log().len();
    take(step, &mut world, &mut kek).await;
    ((world.kernel.log().len() - already) as u64, world.kernel.sas())
}

async fn killed_at_every_operation(step: Step) {
    let (count, _) = undisturbed(step).await;
    assert!(count > 0, "{step:?}");
    for at in 0..=count {
        let (mut world, mut kek) = before(step).await;
        let ends_anyway = matches!(step, Step::Replacement | Step::Delete | Step::Expiry);
        let open_before = step == Step::Start;
        world.kernel.fail(at, Fault::Stop);
        world.stopping = true;
        take(step, &mut world, &mut kek).await;
        let what = format!("{step:?}, operation {at} of {count}");
        let left = world.kernel.sas();
        let (inbound, outbound) = world.spis();
        assert!(open_before || !world.group_in_clear(), "{what}");

        // The new run finds no server.
        world.server(1).up = false;
        let done = world.kernel.log().len();
        let mut world = world.restart().await;
        world.start().await;
        assert!(world.tables() && !world.group_in_clear(), "{what}");
        let ops = world.kernel.log().split_off(done);
        let (inbound_now, outbound_now) = world.spis();
        if !ends_anyway && step != Step::AddressChange {
            let deleted: Vec<_> = ops.iter().filter(|op| matches!(op, Op::DeleteSa(_))).collect();
            // At the activation and the deactivation the plan itself was about to delete.
            assert!(
                deleted.is_empty() || matches!(step, Step::Activation | Step::Deactivation),
                "{what}: {ops:?}"
            );
            assert!(outbound.is_empty() || !outbound_now.is_empty(), "{what}");
            assert!(
                outbound_now.iter().all(|spi| inbound_now.contains(spi)),
                "{what}: {inbound:?} {inbound_now:?}"
            );
            assert!(
                !ops.iter().any(|op| matches!(op, Op::ReplaceTables)) || open_before,
                "{what}: {ops:?}"
            );
        }
        if step == Step::AddressChange {
            // States of the old address are rebuilt under the new one with the keys that the kernel
            // had.
            assert_eq!(inbound_now, [0x1000], "{what}");
        }
        if !left.is_empty() && !ends_anyway {
            assert!(
                world.events.iter().any(|event| matches!(event, Event::Restored { .. })),
                "{what}"
            );
        }

        // And then one: nothing is left that an undisturbed run would not have.
        world.server(1).up = true;
        world.server(1).spi = 0x3000;
        world.pass(seconds(70)).await;
        let (inbound, outbound) = world.spis();
        let known: &[Spi] = &[0x1000, 0x2000, 0x3000];
        assert!(
            inbound.contains(&0x3000) && outbound.len() == 1,
            "{what}: {inbound:?} {outbound:?}"
        );
        assert!(inbound.iter().all(|spi| known.contains(spi)), "{what}");
        world.leap(seconds(3_300)).await;
        world.pass(seconds(31)).await;
        assert!(world.spis().0.len() <= 2 && !world.group_in_clear(), "{what}");
        world.server(1).up = false;
        world.leap(seconds(4_000)).await;
        assert_eq!(world.spis(), (vec![], vec![]), "{what}: the adopted end counts as well");
    }
}

macro_rules! killed {
    ($($name:ident: $step:ident;)*) => {
        $(#[tokio::test] async fn $name() { killed_at_every_operation(Step::$step).await; })*
    };
}

killed! {
    killed_while_it_starts: Start;
    killed_while_a_push_is_carried_out: Push;
    killed_while_a_key_is_activated: Activation;
    killed_while_a_key_is_deactivated: Deactivation;
    killed_while_a_key_is_replaced: Replacement;
    killed_while_a_key_is_deleted: Delete;
    killed_while_the_address_changes: AddressChange;
    killed_while_a_key_ends: Expiry;
}

#[tokio::test]
async fn a_restart_in_peace_touches_nothing_but_the_guard_that_went_with_the_process() {
    let (world, _) = before(Step::Push).await;
    let done = world.kernel.log().len();
    let mut world = world.restart().await;
    world.server(1).up = false;
    world.start().await;
    assert_eq!(world.kernel.log().split_off(done), [Op::ReplaceGuard]);
    // The delays of a push go on where they were.
    let (mut world, mut kek) = before(Step::Push).await;
    push(&mut world, &mut kek).await;
    world.pass(seconds(6)).await;
    let mut world = world.restart().await;
    world.server(1).up = false;
    world.start().await;
    world.pass(seconds(3)).await;
    assert_eq!(world.spis(), (vec![0x1000, 0x2000], vec![0x1000]));
    world.pass(seconds(1)).await;
    assert_eq!(world.spis(), (vec![0x1000, 0x2000], vec![0x2000]));
    world.pass(seconds(20)).await;
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
}

#[tokio::test]
async fn a_push_of_before_the_crash_is_not_accepted_again() {
    let (mut world, mut kek) = before(Step::Push).await;
    let push = kek.push(&[Deletion::AllTeks(TekProtocol::ESP), Deletion::AllKeks], None);
    world.push(&push).await.unwrap();
    // The scripted server says in its pulls that nothing was pushed yet.
    let mut world = world.restart().await;
    world.start().await;
    world.pass(seconds(2)).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert_eq!(world.push(&push).await.unwrap_err().reason(), "stale-sequence-number");
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
}

#[tokio::test]
async fn a_counter_mode_sender_goes_on_untouched_and_is_never_put_back() {
    let lines = format!("counter-mode-send = true\n{IKE}");
    let mut world = World::new(&configuration(1, &lines));
    world.server(1).transform = EspTransform::AES_GCM_16;
    world.start().await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    let mut world = world.restart().await;
    world.start().await;
    world.pass(seconds(2)).await;
    assert_eq!((world.spis(), world.server(1).pulls), ((vec![0x1000], vec![0x1000]), 2));
    world.kernel.flush_states();
    let mut world = world.restart().await;
    world.start().await;
    world.pass(seconds(60)).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![]), "received on, not sent on");
    assert!(!world.group_in_clear());
    world.server(1).spi = 0x2000;
    let now = world.now;
    world.member.register("branches", now).unwrap();
    world.settle().await;
    world.pass(seconds(2)).await;
    assert_eq!(world.spis().1, [0x2000], "a new TEK is");
}

#[tokio::test]
async fn without_the_file_keys_of_an_earlier_run_go() {
    let (world, _) = before(Step::Push).await;
    std::fs::remove_file(world.directory.path().join("gdoi-agent.state")).unwrap();
    let mut world = world.restart().await;
    world.server(1).up = false;
    world.start().await;
    assert_eq!(world.spis(), (vec![], vec![]));
    assert!(!world.group_in_clear());
}

#[tokio::test]
async fn a_sender_that_must_not_wrap_gets_a_new_key_in_time() {
    let lines = format!("counter-mode-send = true\n{IKE}");
    let mut world = World::new(&configuration(1, &lines));
    world.server(1).transform = EspTransform::AES_GCM_16;
    world.start().await;
    let sender = SaId { destination: testing::member::PLACEHOLDER, spi: 0x1000 };
    world.kernel.send(sender, 0xbfff_ffff);
    world.pass(seconds(60)).await;
    assert_eq!(world.server(1).pulls, 1);
    world.server(1).spi = 0x2000;
    world.kernel.send(sender, 0xc000_0000);
    world.pass(seconds(60)).await;
    assert_eq!((world.server(1).pulls, world.spis().1), (2, vec![0x2000]));
}

#[tokio::test]
async fn a_push_that_was_cut_off_is_carried_out_when_it_comes_again() {
    for (at, again) in [(0, true), (1, false)] {
        let (mut world, mut kek) = before(Step::Push).await;
        let sa = teks_of(&[(0x2000, ALL, 3_600)], (Some(10), Some(30)));
        let push = kek.push(&[], Some(&sa));
        world.kernel.fail(at, Fault::Stop);
        world.stopping = true;
        world.push(&push).await.unwrap();
        let mut world = world.restart().await;
        world.start().await;
        // The server hands out what members still send on, and repeats its push.
        let inbound = if again { vec![0x1000] } else { vec![0x1000, 0x2000] };
        assert_eq!(world.spis(), (inbound, vec![0x1000]), "{at}");
        assert_eq!(world.push(&push).await.is_ok(), again, "{at}");
        assert_eq!(world.spis(), (vec![0x1000, 0x2000], vec![0x1000]), "{at}");
        world.pass(seconds(10)).await;
        assert_eq!(world.spis(), (vec![0x1000, 0x2000], vec![0x2000]), "{at}");
    }
}
