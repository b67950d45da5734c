//! Fail-close with interfaces, addresses and key servers missing, and without a daemon.

use ::control::member::MembershipState;
use agent::blocks::{Blocked, install_in};
use agent::membership::local_interface::Interfaces;
use agent::show::snapshot::{Surroundings, snapshot};
use testing::member::{IKE, World, configuration, interfaces, seconds};
use xfrm::kernel::fake::{FakeKernel, Fault};
use xfrm::{Desired, Kernel, Op, Ownership};

fn problems(world: &World) -> Vec<String> {
    world.member.problems().collect()
}

fn without(name: &str) -> Interfaces {
    let mut all = interfaces();
    all.remove(name);
    all
}

#[tokio::test]
async fn without_an_uplink_the_group_is_blocked_and_says_so_until_it_comes() {
    let mut world = World::with_kernel(&configuration(1, IKE), FakeKernel::new(["lan"]));
    world.interfaces = without("wan");
    world.start().await;
    assert!(world.tables() && !world.group_in_clear());
    assert_eq!(
        problems(&world),
        [
            "group branches: interface wan does not exist: registration waits for it, or correct local-address",
            "group branches: no WAN interface is up (wan): connect or create one",
        ]
    );
    assert!(world.dataplane.missing_interfaces().contains("wan"));
    world.kernel.create_interface("wan");
    world.interfaces = interfaces();
    world.interfaces_changed().await;
    world.pass(seconds(1)).await;
    assert_eq!((problems(&world), world.spis()), (vec![], (vec![0x1000], vec![0x1000])));
}

/// Keys that outlive their uplink are kept, and the group is not called registered meanwhile.
#[tokio::test]
async fn a_group_with_keys_and_without_an_uplink_cannot_send_until_it_comes() {
    let state = |world: &World| {
        snapshot(&world.member, &Surroundings::default(), world.now).groups[0].state
    };
    let mut world = World::new(&configuration(1, IKE));
    world.start().await;
    world.pass(seconds(1)).await;
    assert_eq!(state(&world), MembershipState::Registered);
    world.interfaces = without("wan");
    world.interfaces_changed().await;
    assert_eq!(state(&world), MembershipState::CannotSend);
    assert!(problems(&world).iter().any(|line| line.contains("wan")), "{:?}", problems(&world));
    world.interfaces = interfaces();
    world.interfaces.get_mut("wan").unwrap().up = false;
    world.interfaces_changed().await;
    assert_eq!(state(&world), MembershipState::CannotSend);
    world.interfaces = interfaces();
    world.interfaces_changed().await;
    world.pass(seconds(1)).await;
    assert_eq!((state(&world), problems(&world)), (MembershipState::Registered, vec![]));
}

#[tokio::test]
async fn a_key_server_that_does_not_answer_is_a_problem_until_one_gives_keys() {
    let mut world = World::new(&configuration(1, IKE));
    world.server(1).up = false;
    world.start().await;
    assert_eq!(problems(&world), [""; 0]);
    world.leap(seconds(120)).await;
    let said = problems(&world);
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("group branches: no key server has given keys in "), "{said:?}");
    world.server(1).up = true;
    world.leap(seconds(120)).await;
    assert_eq!((problems(&world), world.spis()), (vec![], (vec![0x1000], vec![0x1000])));
}

#[tokio::test]
async fn a_pattern_stands_for_the_interfaces_that_exist() {
    let text = configuration(1, IKE).replace("lan = [\"lan\"]", "lan = [\"la*\"]");
    let mut world = World::new(&text);
    world.start().await;
    assert!(world.kernel.exempt().contains("lan"), "{:?}", world.kernel.exempt());
}

/// It stands for all interfaces of the VRF, of which one may be a WAN.
#[tokio::test]
async fn the_device_of_a_vrf_is_a_lan_to_policies_and_not_to_guards() {
    let mut world = World::with_kernel(&configuration(1, IKE), FakeKernel::new(["lan", "wan"]));
    for name in ["lan", "wan"] {
        let interface = world.interfaces.get_mut(name).unwrap();
        (interface.vrf, interface.vrf_table) = (Some("blue".to_owned()), Some(10));
    }
    world.start().await;
    let desired = world.dataplane.desired();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let guards = desired.preservation.as_ref().unwrap();
    assert_eq!((&guards.lan, &guards.vrf), (&names(&["lan"]), &names(&["blue"])));
    assert_eq!(desired.exempt, names(&["blue", "lan"]));
}

#[tokio::test]
async fn blocks_alone_need_no_interface_and_leave_what_is_there() {
    let kernel = FakeKernel::new([]);
    let mut world = World::with_kernel(&configuration(1, IKE), kernel.clone());
    let config = world.configured(&configuration(1, IKE));
    // Nothing is sent and nothing is asked for: the network is not there.
    let blocked =
        install_in(kernel.clone(), &config, &Interfaces::new(), world.boot).await.unwrap();
    assert_eq!(blocked, Blocked::Installed);
    assert!(kernel.has_tables() && !world.group_in_clear());
    let operations = kernel.log().len();
    let blocked =
        install_in(kernel.clone(), &config, &Interfaces::new(), world.boot).await.unwrap();
    assert_eq!((blocked, kernel.log().len()), (Blocked::Left, operations));
    // The daemon takes over.
    kernel.create_interface("lan");
    kernel.create_interface("wan");
    world.start().await;
    world.pass(seconds(1)).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    let blocked = install_in(kernel.clone(), &config, &interfaces(), world.boot).await.unwrap();
    assert_eq!((blocked, world.spis().0), (Blocked::Left, vec![0x1000]));
}

/// The setting bears no mark: whose it is goes from run to run, the one before the network
/// included.
#[tokio::test]
async fn a_setting_that_was_there_before_outlasts_a_restart_and_the_blocks_before() {
    let exempt = Op::Exempt { interface: String::from("lan"), exempt: true };
    for blocked_first in [false, true] {
        let mut kernel = FakeKernel::new(["lan", "wan"]);
        kernel.execute(&exempt, &Desired::default(), &Ownership::default()).await.unwrap();
        let text = configuration(1, IKE).replace("[[group]]", "[[group]]\non-exit = \"remove\"");
        let mut world = World::with_kernel(&text, kernel.clone());
        if blocked_first {
            let config = world.configured(&text);
            install_in(kernel.clone(), &config, &interfaces(), world.boot).await.unwrap();
            world = world.restart().await;
        }
        world.start().await;
        let mut world = world.restart().await;
        world.start().await;
        assert!(world.leave().await);
        assert!(kernel.policies().is_empty() && kernel.exempt().contains("lan"));
    }
}

#[tokio::test]
async fn blocks_alone_are_tried_again_when_the_kernel_refuses_for_a_moment() {
    const EBUSY: i32 = 16;
    let kernel = FakeKernel::new(["lan"]);
    let world = World::with_kernel(&configuration(1, IKE), kernel.clone());
    let config = world.configured(&configuration(1, IKE));
    kernel.fail(2, Fault::Refuse(EBUSY));
    let blocked = install_in(kernel.clone(), &config, &without("wan"), world.boot).await.unwrap();
    assert_eq!(blocked, Blocked::Installed);
    assert!(kernel.has_tables() && !world.group_in_clear());
}

#[tokio::test]
async fn a_foreign_policy_is_a_problem_of_the_group_whose_policy_it_keeps_out() {
    let mut world = World::new(&configuration(1, IKE));
    world.start().await;
    let ours = world
        .kernel
        .policies()
        .into_iter()
        .find(|policy| !policy.id.selector.source.addr().is_unspecified())
        .unwrap();
    let entry = xfrm::Entry::Policy(ours.id);
    assert_eq!(world.member.owner(&entry, world.now), Some("branches"));
    let nobody = xfrm::Entry::Route("198.51.100.1".parse().unwrap());
    assert_eq!(world.member.owner(&nobody, world.now), None);
}
