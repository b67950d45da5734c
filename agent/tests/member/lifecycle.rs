//! A membership from its first block to its last: registration, rollover, expiry, failover, changes
//! of the machine and the orderly end, with real key servers and a fake kernel.

use ::control::member::{IsakmpState, MembershipState, PolicyKind};
use agent::exit::Ending;
use agent::membership::Event;
use agent::membership::failover::{Reason, State};
use agent::membership::unreachable::Unreachable;
use agent::show::snapshot::{Surroundings, snapshot};
use gdoi::event::PullRefusal;
use gdoi::group::{EncapsulationMode, EspTransform};
use xfrm::Op;
use xfrm::kernel::fake::Fault;

use testing::member::{IKE, Kek, World, address, configuration, interfaces, seconds, teks_of};

async fn registered(servers: usize, lines: &str) -> World {
    let mut world = World::new(&configuration(servers, &format!("{lines}\n{IKE}")));
    world.start().await;
    world.pass(seconds(1)).await;
    world
}

fn passed_over(world: &World) -> Vec<(usize, Reason)> {
    world
        .membership()
        .failover()
        .passed_over()
        .iter()
        .map(|passed| (passed.server, passed.reason))
        .collect()
}

#[tokio::test]
async fn blocks_stand_before_anything_is_sent_and_stay_without_a_server() {
    let mut world = World::new(&configuration(1, IKE));
    world.server(1).up = false;
    world.start().await;
    assert!(!world.datagrams.is_empty());
    for _ in 0..100 {
        world.pass(seconds(10)).await;
        assert!(world.tables() && !world.group_in_clear());
    }
    assert_eq!(world.spis(), (vec![], vec![]));
    assert_eq!(passed_over(&world), [(0, Reason::NoAnswer)]);
    // The server is back: the longest pause bounds how long the group stays blocked.
    world.server(1).up = true;
    world.pass(seconds(60 + 23)).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
}

#[tokio::test]
async fn a_registration_reaches_the_kernel() {
    let world = registered(1, "").await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert!(!world.group_in_clear());
    assert!(world.events.iter().any(|event| matches!(event, Event::Registered { server: 0, .. })));
    assert!(!world.events.iter().any(|event| matches!(event, Event::RolledOver { .. })));
    assert_eq!(world.membership().counters().pulls_succeeded, 1);
    assert_eq!(world.membership().isakmp_sa().unwrap().0, 0);
}

#[tokio::test]
async fn keys_roll_over_before_their_end_without_a_gap() {
    let mut world = registered(1, "").await;
    world.server(1).spi = 0x2000;
    let mut seen_both = false;
    for _ in 0..3_700 {
        world.pass(seconds(1)).await;
        let (inbound, outbound) = world.spis();
        assert_eq!(outbound.len(), 1);
        assert!(inbound.contains(&outbound[0]));
        seen_both |= inbound.len() == 2;
    }
    assert!(seen_both);
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
    assert_eq!(world.server(1).pulls, 2);
}

#[tokio::test]
async fn expiry_without_a_new_key_falls_to_the_blocks_and_recovers() {
    let mut world = registered(2, "").await;
    world.server(1).up = false;
    world.server(2).up = false;
    world.pass(seconds(3_590)).await;
    assert_eq!(
        world.spis(),
        (vec![0x1000], vec![0x1000]),
        "the old key stays in use while new ones are asked for"
    );
    world.pass(seconds(20)).await;
    assert_eq!(world.spis(), (vec![], vec![]));
    assert!(!world.group_in_clear() && world.tables());
    assert!(world.events.contains(&Event::Expired));
    assert_eq!(world.membership().counters().expirations, 1);
    world.server(2).up = true;
    world.pass(seconds(60 + 46 + 1)).await;
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
    assert_eq!(world.membership().failover().served_by(), Some(1));
}

#[tokio::test]
async fn a_silent_server_leads_to_the_next() {
    let mut world = World::new(&configuration(2, IKE));
    world.server(1).up = false;
    world.start().await;
    world.pass(seconds(22)).await;
    assert_eq!(world.spis(), (vec![], vec![]));
    world.pass(seconds(2)).await;
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
    assert_eq!(passed_over(&world), [(0, Reason::NoAnswer)]);
    // Renewal asks the first one first.
    world.server(1).up = true;
    world.pass(seconds(3_700)).await;
    assert_eq!(world.membership().failover().served_by(), Some(0));
    assert_eq!(world.membership().counters().failovers, 1);
}

#[tokio::test]
async fn a_refusal_leads_to_the_next_at_once() {
    let mut world = World::new(&configuration(2, IKE));
    world.server(1).refusal = Some(PullRefusal::AuthenticationFailed);
    world.start().await;
    world.pass(seconds(1)).await;
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
    assert_eq!(passed_over(&world), [(0, Reason::Refused)]);
}

#[tokio::test]
async fn a_policy_that_the_kernel_cannot_do_leads_to_the_next_before_keys_are_asked_for() {
    let mut world = World::new(&configuration(2, IKE));
    world.server(1).mode = EncapsulationMode::TRANSPORT;
    world.start().await;
    world.pass(seconds(1)).await;
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
    assert_eq!(passed_over(&world), [(0, Reason::PolicyUnusable)]);
    let detail = &world.membership().failover().passed_over()[0].detail;
    assert!(detail.contains("tunnel mode"), "{detail}");
    assert_eq!((world.server(1).pulls, world.server(1).goodbyes), (0, 1));
}

#[tokio::test]
async fn an_address_change_keeps_the_keys_and_registers_again() {
    let mut world = registered(1, "").await;
    world.interfaces.get_mut("wan").unwrap().addresses = vec!["10.0.1.77/24".parse().unwrap()];
    world.interfaces_changed().await;
    let inbound: Vec<_> = world
        .kernel
        .sas()
        .into_iter()
        .filter(|id| id.destination != testing::member::PLACEHOLDER)
        .map(|id| id.destination)
        .collect();
    assert_eq!(inbound, [address("10.0.1.77").ip()]);
    world.pass(seconds(1)).await;
    assert_eq!(world.server(1).pulls, 2);
    assert_eq!(world.datagrams.last().unwrap().source, address("10.0.1.77"));
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
}

#[tokio::test]
async fn without_a_local_address_blocks_stand_and_nothing_is_sent() {
    let mut world = registered(1, "").await;
    world.interfaces.remove("wan");
    world.interfaces_changed().await;
    let sent = world.datagrams.len();
    assert!(matches!(world.events.last(), Some(Event::LocalMissing(_))));
    world.pass(seconds(100)).await;
    assert_eq!((world.datagrams.len(), world.spis()), (sent, (vec![], vec![])));
    assert!(!world.group_in_clear());
    // Re-created under another number.
    let mut wan = interfaces().remove("wan").unwrap();
    wan.index = 9;
    world.interfaces.insert("wan".to_owned(), wan);
    world.interfaces_changed().await;
    world.pass(seconds(1)).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert_eq!(world.server(1).pulls, 2);
}

#[tokio::test]
async fn what_somebody_flushes_is_put_back_by_the_regular_look() {
    let mut world = registered(1, "").await;
    world.kernel.flush_policies();
    world.kernel.flush_states();
    world.pass(seconds(30)).await;
    assert!(!world.group_in_clear());
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert_eq!(world.dataplane.repairs(), 1);
}

#[tokio::test]
async fn a_kernel_that_refuses_is_asked_again_and_blocks_stay() {
    let mut world = World::new(&configuration(1, IKE));
    world.server(1).up = false;
    world.start().await;
    world.server(1).up = true;
    world.kernel.fail(0, Fault::Refuse(12));
    world.kernel.fail(1, Fault::Refuse(1));
    world.pass(seconds(2)).await;
    assert!(!world.group_in_clear() && world.tables());
    world.pass(seconds(30)).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert_eq!(world.dataplane.last_error(), None);
}

#[tokio::test]
async fn blocks_that_cannot_be_installed_are_an_error_and_nothing_is_removed() {
    let mut world = World::new(&configuration(1, IKE));
    world.kernel.fail(0, Fault::Refuse(1));
    let interfaces = world.interfaces.clone();
    world.member.handle_interfaces(&interfaces, world.now);
    let desired = world.member.poll_desired(world.now).unwrap().desired.unwrap();
    let error = world.dataplane.apply(desired, world.now).await.unwrap_err();
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    let removals =
        |op: &Op| matches!(op, Op::DeletePolicy { .. } | Op::DeleteSa(_) | Op::RemoveTables);
    assert!(!world.kernel.log().iter().any(removals));
}

#[tokio::test]
async fn on_exit_block_removes_keys_and_leaves_blocks() {
    let mut world = registered(1, "").await;
    assert!(world.leave().await);
    assert_eq!(world.spis(), (vec![], vec![]));
    assert!(!world.group_in_clear() && world.tables());
    assert_eq!(world.server(1).goodbyes, 1);
}

#[tokio::test]
async fn on_exit_keep_leaves_everything() {
    let mut world = registered(1, "on-exit = \"keep\"").await;
    let before = world.kernel.log().len();
    assert!(world.leave().await);
    assert_eq!(world.kernel.log().len(), before);
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert_eq!(world.server(1).goodbyes, 1);
}

#[tokio::test]
async fn on_exit_remove_leaves_nothing() {
    let mut world = registered(1, "on-exit = \"remove\"").await;
    assert!(world.leave().await);
    assert_eq!(world.spis(), (vec![], vec![]));
    assert!(world.kernel.policies().is_empty() && !world.tables());
}

#[tokio::test]
async fn a_second_run_takes_over_the_blocks_of_the_first_without_touching_them() {
    let mut first = World::new(&configuration(1, IKE));
    first.server(1).up = false;
    first.start().await;
    let policies = first.kernel.policies();
    assert!(first.leave().await);
    let before = first.kernel.log().len();
    let mut second = World::with_kernel(&configuration(1, IKE), first.kernel.clone());
    second.server(1).up = false;
    second.start().await;
    assert_eq!(second.kernel.policies(), policies);
    let ops = second.kernel.log().split_off(before);
    assert!(
        !ops.iter().any(|op| matches!(
            op,
            Op::DeletePolicy { .. } | Op::AddPolicy { .. } | Op::RemoveTables
        )),
        "{ops:?}"
    );
}

#[tokio::test]
async fn an_icmp_error_shortens_the_wait_and_counts_for_nothing_after_an_answer() {
    let mut world = World::new(&configuration(2, IKE));
    world.server(1).up = false;
    world.start().await;
    // However many there are, they take one repetition off: 8 s of 23 s.
    for _ in 0..14 {
        let now = world.now;
        for (destination, last) in [(address("10.0.11.1"), 254), (address("10.0.99.1"), 253)] {
            let reporter = Some([10, 0, 1, last].into());
            // ECONNREFUSED.
            let unreachable = Unreachable { destination, error: 111, reporter };
            world.member.handle_unreachable(unreachable, now);
        }
        world.settle().await;
        world.pass(seconds(1)).await;
    }
    assert_eq!(world.spis(), (vec![], vec![]));
    world.pass(seconds(2)).await;
    assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]));
    assert_eq!(passed_over(&world), [(0, Reason::NoAnswer)]);
    let detail = &world.membership().failover().passed_over()[0].detail;
    let named = "10.0.1.254 answered by ICMP: Connection refused (unauthenticated)";
    assert!(detail.contains("no answer in phase 1") && detail.ends_with(named), "{detail}");
}

#[tokio::test]
async fn strangers_are_counted_and_change_nothing() {
    let mut world = registered(1, "").await;
    let now = world.now;
    let ours = address("10.0.1.1");
    assert!(world.member.handle_datagram(address("10.0.66.6"), ours, &[0; 28], now).is_err());
    assert!(world.member.handle_datagram(address("10.0.11.1"), ours, &[0xff; 300], now).is_err());
    world.settle().await;
    assert_eq!(world.member.stray_datagrams().get("unknown-source"), Some(&1));
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
}

#[tokio::test]
async fn gdoictl_sees_every_state_and_no_key() {
    let mut world = World::new(&configuration(2, IKE));
    world.server(1).up = false;
    world.server(2).up = false;
    let group = |world: &World| {
        let shown = snapshot(&world.member, &Surroundings::default(), world.now);
        shown.groups.into_iter().next().unwrap()
    };
    assert_eq!(group(&world).state, MembershipState::Suspended);
    world.start().await;
    let shown = group(&world);
    assert_eq!(
        (shown.state, shown.trying),
        (MembershipState::Registering, Some(address("10.0.11.1")))
    );
    assert_eq!(shown.isakmp_sas[0].state, IsakmpState::Negotiating);
    world.pass(seconds(47)).await;
    let shown = group(&world);
    assert_eq!(shown.state, MembershipState::Waiting);
    assert!(shown.next_registration_seconds.is_some_and(|left| left <= 5));
    assert_eq!(shown.passed_over.len(), 2);
    assert_eq!(shown.passed_over[0].reason, "no-answer");
    world.server(2).up = true;
    world.pass(seconds(5 + 23 + 1)).await;
    let shown = group(&world);
    assert_eq!(
        (shown.state, shown.server),
        (MembershipState::Registered, Some(address("10.0.12.1")))
    );
    assert_eq!(
        (shown.teks[0].spi, shown.teks[0].sends, shown.teks[0].receives),
        (0x2000, true, true)
    );
    assert_eq!(shown.teks[0].encryption, "aes-128-cbc");
    assert_eq!(shown.teks[0].integrity.as_deref(), Some("hmac-sha2-256-128"));
    assert_eq!(shown.isakmp_sas[0].peer_identity.as_deref(), Some("address 10.0.12.1"));
    assert!(
        shown
            .policies
            .iter()
            .any(|line| line.kind == PolicyKind::Secure && line.spi == Some(0x2000))
    );
    assert_eq!(shown.counters.failovers, 0, "the first server that serves is no failover");
    let text = format!("{:?}", snapshot(&world.member, &Surroundings::default(), world.now));
    assert!(!text.contains("thirty-two") && !text.contains("0x20, 0x20"));
    world.server(2).up = false;
    world.pass(seconds(3_450)).await;
    assert_eq!(group(&world).state, MembershipState::ReRegistering);
    world.pass(seconds(150)).await;
    assert_eq!(group(&world).state, MembershipState::Expired);
}

async fn two_groups(same_selectors: bool) -> World {
    let first = configuration(1, IKE);
    let second = first
        .replace("branches", "other")
        .replace("1111", "2222")
        .replace("172.16.0.0/12", "192.168.0.0/16");
    let mut world = World::new(&format!("{first}{second}"));
    world.server(1).same_selectors = same_selectors;
    world.start().await;
    world.pass(seconds(1)).await;
    world
}

#[tokio::test]
async fn two_groups_at_one_server_are_told_apart_by_their_cookies() {
    let world = two_groups(false).await;
    assert_eq!(world.unusable, []);
    assert_eq!(world.spis().1, [0x1000]);
    assert_eq!(
        world.kernel.sas().len(),
        4,
        "inbound and outbound, and one placeholder for each group"
    );
    let discards: Vec<_> =
        (0..2).map(|group| world.member.discards(group).unwrap().len()).collect();
    assert_eq!((discards, world.member.stray_datagrams().len()), (vec![0, 0], 0));
}

#[tokio::test]
async fn a_group_that_cannot_stand_beside_another_falls_to_its_blocks_alone() {
    let world = two_groups(true).await;
    assert_eq!(world.unusable[0].group, "other");
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    let other = world.member.memberships()[1].failover();
    assert_eq!(other.passed_over()[0].reason, Reason::PolicyUnusable);
    assert!(
        other.passed_over()[0].detail.contains("belongs to group branches"),
        "{:?}",
        other.passed_over()
    );
    assert!(!world.group_in_clear());
}

#[tokio::test]
async fn an_orderly_restart_touches_no_kernel_entry() {
    let mut world = registered(1, "").await;
    let before = world.kernel.log().len();
    assert!(world.end(Ending::Restart).await);
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]), "on-exit = \"block\" is for a stop");
    world.server(1).up = false;
    let mut world = world.restart().await;
    world.start().await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    let ops = world.kernel.log().split_off(before);
    assert!(!ops.iter().any(|op| matches!(op, Op::DeleteSa(_) | Op::InstallSa(_))), "{ops:?}");
}

/// A key server that makes the next key only when the last one has ended has none a second before.
#[tokio::test]
async fn one_try_comes_at_the_very_end_of_a_key() {
    for with_kek in [false, true] {
        let mut world = World::new(&configuration(1, IKE));
        world.start().await;
        world.pass(seconds(1)).await;
        if with_kek {
            world.server(1).kek = Some(Kek::new(1, 86_400));
            world.server(1).custom = Some(teks_of(&[], (None, None)));
        } else {
            world.server(1).refusal = Some(PullRefusal::AuthenticationFailed);
        }
        world.pass(seconds(3_598)).await;
        assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]), "KEK {with_kek}");
        world.server(1).custom = None;
        world.server(1).refusal = None;
        world.server(1).spi = 0x2000;
        world.pass(seconds(3)).await;
        assert_eq!(world.spis(), (vec![0x2000], vec![0x2000]), "KEK {with_kek}");
    }
}

/// "Registered" must not be said of a group that sends nothing.
#[tokio::test]
async fn a_group_that_cannot_send_says_so_with_the_cause() {
    let shown = |world: &World| {
        let snapshot = snapshot(&world.member, &Surroundings::default(), world.now);
        (snapshot.groups[0].state, world.member.problems().collect::<Vec<_>>())
    };
    let member = async |lines: &str, transform, protected: &str| {
        let text = configuration(1, &format!("{lines}\n{IKE}"));
        let text = text.replace("\"172.16.0.0/12\"", protected);
        let mut world = World::new(&text);
        world.server(1).transform = transform;
        // What the fixture watches over is not protected everywhere here.
        world.stopping = true;
        world.start().await;
        world.pass(seconds(1)).await;
        world
    };
    const ALL: &str = "\"172.16.0.0/12\"";
    let world = member("", EspTransform::AES_GCM_16, ALL).await;
    let (state, problems) = shown(&world);
    assert_eq!(state, MembershipState::CannotSend);
    assert!(problems[0].contains("set counter-mode-send = true"), "{problems:?}");
    assert!(world.events.iter().any(|event| matches!(event, Event::SendingBlocked(_))));

    let mut world = member("counter-mode-send = true", EspTransform::AES_GCM_16, ALL).await;
    assert_eq!(shown(&world), (MembershipState::Registered, vec![]));
    world.kernel.flush_states();
    world.pass(seconds(31)).await;
    let (state, problems) = shown(&world);
    assert_eq!(state, MembershipState::CannotSend);
    assert!(problems[0].contains("was lost"), "{problems:?}");
    world.server(1).spi = 0x2000;
    let now = world.now;
    world.member.register("branches", now).unwrap();
    world.settle().await;
    world.pass(seconds(31)).await;
    assert_eq!(shown(&world), (MembershipState::Registered, vec![]));
    assert!(world.events.contains(&Event::SendingRecovered));

    let world = member("", EspTransform::AES_CBC, "\"10.77.0.0/16\"").await;
    let (state, problems) = shown(&world);
    assert_eq!(state, MembershipState::CannotSend);
    assert!(problems[0].contains("no TEK covers 10.77.0.0/16"), "{problems:?}");
    let world = member("", EspTransform::AES_CBC, "\"172.16.0.0/12\", \"10.77.0.0/16\"").await;
    let (state, problems) = shown(&world);
    assert_eq!((state, problems.len()), (MembershipState::Registered, 1));
    let world = member("mode = \"receive-only\"", EspTransform::AES_GCM_16, ALL).await;
    assert_eq!(shown(&world), (MembershipState::Registered, vec![]));
}

#[tokio::test]
async fn a_failure_names_the_identity_that_was_expected() {
    let text = configuration(1, IKE).replace(
        "address = \"10.0.11.1\"",
        "address = \"10.0.11.1\"\nidentity = { fqdn = \"ks.example\" }",
    );
    let mut world = World::new(&text);
    world.start().await;
    world.pass(seconds(1)).await;
    let passed = &world.membership().failover().passed_over()[0];
    assert_eq!(passed.reason, Reason::AuthenticationFailed);
    assert_eq!(
        passed.detail,
        "the key server proved the identity address 10.0.11.1, and fqdn ks.example was expected: if it is the right \
         server, set its identity to address 10.0.11.1"
    );
}

/// Keys of one group are pushed for the traffic of another.
async fn pushed_into_the_others_traffic(world: &mut World) {
    let mut kek = Kek::new(1, 86_400);
    let lines = teks_of(&[(0x7000, "192.168.0.0/16", 3_600)], (None, None));
    world.push(&kek.push(&[], Some(&lines))).await.unwrap();
}

async fn two_groups_that_are_pushed_to() -> World {
    let first = configuration(1, IKE);
    let second = first
        .replace("branches", "other")
        .replace("1111", "2222")
        .replace("172.16.0.0/12", "192.168.0.0/16");
    let mut world = World::new(&format!("{first}{second}"));
    world.server(1).kek = Some(Kek::new(1, 86_400));
    world.start().await;
    world.pass(seconds(1)).await;
    assert_eq!((world.kernel.sas().len(), world.unusable.len()), (4, 0));
    world
}

#[tokio::test]
async fn a_push_into_the_traffic_of_another_group_costs_that_group_nothing() {
    let mut world = two_groups_that_are_pushed_to().await;
    let before = world.kernel.sas();
    pushed_into_the_others_traffic(&mut world).await;
    assert_eq!(world.unusable[0].group, "branches");
    assert_eq!(world.kernel.sas(), before);
    // It pulls soon, and what it had counts until then.
    assert!(matches!(world.membership().failover().state(), State::Served { .. }));
    let pulls = world.server(1).pulls;
    world.pass(seconds(6)).await;
    assert_eq!((world.server(1).pulls, world.kernel.sas()), (pulls + 1, before));
}

#[tokio::test]
async fn a_push_that_cannot_be_used_leaves_the_pull_under_way_alone() {
    let mut world = two_groups_that_are_pushed_to().await;
    world.server(1).up = false;
    world.member.register("branches", world.now).unwrap();
    world.settle().await;
    let trying = world.membership().failover().state();
    assert!(matches!(trying, State::Trying { .. }), "{trying:?}");
    let (failed, before) = (world.membership().counters().pulls_failed, world.events.len());
    pushed_into_the_others_traffic(&mut world).await;
    assert_eq!(world.membership().failover().state(), trying);
    assert_eq!(world.membership().counters().pulls_failed, failed);
    let events = &world.events[before..];
    assert!(!events.iter().any(|event| matches!(event, Event::PassedOver(_))), "{events:?}");
}
