//! What an operator commands, and what members and removed members make of it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use control::{ErrorCode, GroupArgument, MemberArgument, Request, Response};
use gcks::control::{answer, snapshot};
use gdoi::push::{Deletion, KekChange};
use support::world::*;
use support::*;

fn of(group: &str) -> GroupArgument {
    GroupArgument { group: group.to_owned() }
}

fn member(member: &str) -> MemberArgument {
    MemberArgument { group: String::from("one"), member: member.to_owned() }
}

/// Three members of group one.
fn three(settings: &str, tail: impl Fn(String) -> String) -> World {
    let directory = keys();
    let text = configuration_with(directory.path(), "", "10.0.0", CBC, &tail(pushes(settings)));
    let text = text.replace("groups = [\"two\"]", "groups = [\"one\", \"two\"]");
    let mut world = World::new(start(parse(&text)));
    for number in 1..=3 {
        world.join(number, 1);
    }
    world
}

fn ask(world: &mut World, request: Request) -> Response {
    let response = answer(&mut world.service, &request, &[], at(0), world.now);
    world.settle();
    response
}

fn done(world: &mut World, request: Request) -> String {
    match ask(world, request) {
        Response::Done(done) => done.message,
        other => panic!("{other:?}"),
    }
}

fn refused(world: &mut World, request: Request) -> (ErrorCode, String) {
    match ask(world, request) {
        Response::Refused(refusal) => (refusal.code, refusal.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rekey_now() {
    let mut world = three("", |tail| tail);
    let before = world.spis(1);
    for round in 1..=20 {
        let message = done(&mut world, Request::Rekey(of("one")));
        assert_eq!(message, format!("new keys for group one: push {round} goes to 3 members"));
        world.run(seconds(30));
        assert_eq!(world.spis(1).len(), 1);
    }
    assert!(before.is_disjoint(&world.spis(1)));
    assert_eq!(world.splits, []);
    // One after the other without a pause: the last says everything.
    for _ in 0..5 {
        done(&mut world, Request::Rekey(of("one")));
    }
    world.run(seconds(31));
    assert_eq!(world.spis(1).len(), 1);
    assert_eq!(world.splits, []);
    assert!(
        world.nodes.iter().all(|node| node.pulls == 1 && node.teks.len() == 1),
        "the others have gone"
    );
}

#[test]
fn replace_now_deletes_first() {
    let mut world = three("", |tail| tail);
    let old = world.spis(1);
    done(&mut world, Request::Replace(of("one")));
    world.run(seconds(1));
    for node in &world.nodes {
        let push = node.accepted.last().unwrap();
        assert_eq!(push.deletions.len(), 1);
        assert!(
            push.deletions
                .iter()
                .all(|one| matches!(one, Deletion::Tek(_, spi) if old.contains(spi)))
        );
        assert_eq!(node.teks.len(), 1);
    }
    assert!(world.spis(1).len() == 1 && old.is_disjoint(&world.spis(1)));
    let shown = snapshot(&world.service, &[], at(0), world.now);
    assert_eq!(shown.groups[0].teks.len(), 1);
}

#[test]
fn delete_makes_everybody_register_again() {
    for request in [Request::Delete(of("one")), Request::RemoveAll(of("one"))] {
        let mut world = three("", |tail| tail);
        let kek =
            |world: &World| world.nodes[0].rekey.as_ref().map(|rekey| rekey.policy().unwrap().spi);
        let (spis, old) = (world.spis(1), kek(&world));
        assert_eq!(snapshot(&world.service, &[], at(0), world.now).statistics.isakmp_sas, 3);
        done(&mut world, request.clone());
        let sas = snapshot(&world.service, &[], at(0), world.now);
        assert!(sas.members.is_empty() && sas.groups[0].teks.is_empty(), "nothing is left here");
        assert_eq!(
            sas.statistics.isakmp_sas,
            if request == Request::Delete(of("one")) { 3 } else { 0 }
        );
        world.run(seconds(2));
        assert!(
            world
                .nodes
                .iter()
                .all(|node| node.pulls == 2
                    && node.accepted.last().unwrap().kek == KekChange::Deleted)
        );
        assert!(world.spis(1).len() == 1 && spis.is_disjoint(&world.spis(1)));
        assert_ne!(kek(&world), old);
        world.run(seconds(2 * 86_400));
        assert!(world.nodes.iter().all(|node| node.pulls == 2), "and pushes go on");
        assert_eq!(world.spis(1).len(), 1);
    }
}

#[test]
fn a_pull_that_is_under_way_while_all_is_deleted_begins_again() {
    let mut world = three("", |tail| tail);
    world.network = Box::new(|sent| {
        vec![if sent.payload[18] == 32 && sent.destination == address(1) {
            seconds(2)
        } else {
            LATENCY
        }]
    });
    world.pull(0);
    world.run(Duration::from_millis(2500));
    done(&mut world, Request::Delete(of("one")));
    world.network = Box::new(|_| vec![LATENCY]);
    world.run(seconds(60));
    assert_eq!(world.spis(1).len(), 1);
    let spi = |node: usize| world.nodes[node].rekey.as_ref().unwrap().policy().unwrap().spi;
    assert!(spi(0) == spi(1) && spi(1) == spi(2));
}

/// Everything that goes to anybody also comes to a member that was removed.
fn sniffing(world: &mut World, place: usize) {
    let pushes: Vec<_> = world
        .sent
        .iter()
        .filter(|sent| is_push(sent) && sent.destination == address(1))
        .cloned()
        .collect();
    for mut push in pushes {
        push.destination = address(world.nodes[place].number);
        world.inject(push, LATENCY);
    }
    // Longer than it waits for the rest of update arrays.
    world.run(seconds(3));
}

#[test]
fn a_member_is_removed_by_the_hierarchy_while_the_others_go_on() {
    let mut world = three("lkh = true", |tail| tail);
    world.run(seconds(2 * 86_400));
    assert!(
        world.splits.is_empty()
            && world.nodes.iter().all(|node| node.pulls == 1 && node.unusable == 0)
    );
    let shown = snapshot(&world.service, &[], at(0), world.now).groups.remove(0).rekey.unwrap();
    assert_eq!(shown.acknowledgements, 3 * shown.pushes, "with the keys of the leaves");
    world.sent.clear();
    let message = done(&mut world, Request::Remove(member("g3")));
    assert!(
        message.starts_with(
            "member g3 removed from group one; new keys under a KEK that it cannot reach"
        ),
        "{message}"
    );
    world.node(2).removed = true;
    world.run(seconds(60));
    sniffing(&mut world, 2);
    let gone = &world.nodes[2];
    // It could read that there is a new KEK, and not which; of the push with the keys it knows not
    // even the SPI.
    assert!(gone.unusable >= 1, "{:?}", gone.errors);
    assert!(
        gone.errors.get("unknown-cookies").is_some_and(|count| *count >= 1),
        "{:?}",
        gone.errors
    );
    let new = world.spis(1);
    assert_eq!(new.len(), 1);
    assert!(!gone.receives(*new.first().unwrap(), world.now));
    assert!(gone.refused > 0 || gone.pulls == 1);
    assert!(world.nodes[..2].iter().all(|node| node.pulls == 1), "the others never stopped");
    assert_eq!(world.splits, []);
    world.run(seconds(3 * 86_400));
    sniffing(&mut world, 2);
    assert!(
        world.nodes[2].teks.is_empty() && world.nodes[2].refused > 0,
        "for days it pulls, and is refused"
    );
    assert_eq!(world.spis(1).len(), 1);
    assert!(world.nodes[..2].iter().all(|node| node.pulls == 1));
    let shown = snapshot(&world.service, &[], at(0), world.now).groups.remove(0);
    assert_eq!((shown.members, shown.rekey.unwrap().removed), (2, vec![String::from("g3")]));
    // Let in again.
    assert_eq!(
        done(&mut world, Request::Admit(member("g3"))),
        "member g3 may register for group one again"
    );
    world.node(2).removed = false;
    world.run(seconds(86_400));
    assert_eq!(
        (world.spis(1).len(), snapshot(&world.service, &[], at(0), world.now).groups[0].members),
        (1, 3)
    );
}

#[test]
fn without_a_hierarchy_all_keys_go_and_the_member_is_refused() {
    let mut world = three("", |tail| tail);
    let old = world.spis(1);
    let message = done(&mut world, Request::Remove(member("g3")));
    assert!(
        message.contains("all keys deleted, the others register again: push 1 goes to 3 members"),
        "{message}"
    );
    world.run(seconds(60));
    sniffing(&mut world, 2);
    assert!(world.nodes[2].teks.is_empty() && world.nodes[2].refused > 0);
    assert!(world.nodes[..2].iter().all(|node| node.pulls == 2));
    assert!(world.spis(1).len() == 1 && old.is_disjoint(&world.spis(1)));
    world.sent.clear();
    done(&mut world, Request::Rekey(of("one")));
    world.run(seconds(60));
    let accepted = world.nodes[2].accepted.len();
    sniffing(&mut world, 2);
    assert_eq!(world.nodes[2].accepted.len(), accepted, "what it hears it cannot open");
    assert!(world.nodes[2].teks.is_empty());
}

#[test]
fn a_member_removed_in_the_middle_of_its_pull_gets_no_keys() {
    let mut world = three("lkh = true", |tail| tail);
    world.network = Box::new(|sent| {
        vec![if sent.payload[18] == 32 && sent.destination == address(3) {
            seconds(2)
        } else {
            LATENCY
        }]
    });
    world.pull(2);
    world.run(Duration::from_millis(2500));
    done(&mut world, Request::Remove(member("g3")));
    world.node(2).removed = true;
    world.network = Box::new(|_| vec![LATENCY]);
    world.run(seconds(60));
    assert_eq!(world.nodes[2].pulls, 1);
    assert_eq!(world.spis(1).len(), 1);
    assert!(!world.nodes[2].receives(*world.spis(1).first().unwrap(), world.now));
    assert_eq!(snapshot(&world.service, &[], at(0), world.now).groups[0].members, 2);
}

#[test]
fn without_a_deactivation_delay_a_removal_deletes_the_old_keys() {
    let mut world =
        three("lkh = true", |tail| tail.replace("deactivation-time-delay = \"30s\"\n", ""));
    done(&mut world, Request::Remove(member("g3")));
    world.run(seconds(2));
    assert!(world.nodes[..2].iter().all(|node| node.teks.len() == 1 && node.pulls == 1));
}

#[test]
fn what_cannot_be_done_is_said() {
    let mut world = World::new(pushing(CBC, ""));
    let (code, message) = refused(&mut world, Request::Rekey(of("none")));
    assert_eq!(
        (code, message.as_str()),
        (ErrorCode::UnknownGroup, "there is no group none; there are one, two")
    );
    let (code, message) = refused(&mut world, Request::Rekey(of("one")));
    assert_eq!(code, ErrorCode::NotPossible);
    assert_eq!(message, "group one has no keys yet; the first member that registers makes them");
    let (code, _) = refused(&mut world, Request::Remove(member("g3")));
    assert_eq!(code, ErrorCode::UnknownMember, "g3 is of the other group");
    let (code, _) = refused(&mut world, Request::Admit(member("g1")));
    assert_eq!(code, ErrorCode::NotPossible);
    assert_eq!(refused(&mut world, Request::ShowMember).0, ErrorCode::NotServedHere);
    let message = done(&mut world, Request::Remove(member("g1")));
    assert_eq!(message, "member g1 has no keys of group one and may not register any more");
    let mut world = World::new(service(CBC));
    world.join(1, 1);
    let (code, message) = refused(&mut world, Request::Replace(of("one")));
    assert_eq!((code, message.contains("add [group.rekey]")), (ErrorCode::NotPossible, true));
    let message = done(&mut world, Request::Remove(member("g1")));
    assert!(
        message.contains("the keys it has end in 3599 s, because the group has no pushes"),
        "{message}"
    );
    world.pull(0);
    world.run(seconds(10));
    assert_eq!((world.nodes[0].pulls, world.nodes[0].refused > 0), (1, true));
}
