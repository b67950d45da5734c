//! What passes in clear without a key and during a migration, and what a reload changes.

use xfrm::kernel::fake::Packet;
use xfrm::model::Direction;

use testing::member::{IKE, World, address, configuration, seconds};

const TIME: &str = "[[group.fail-open]]\nsource = \"172.16.0.0/12\"\ndestination = \"172.16.9.1\"\nprotocol = 17\ndestination-port = 123\n";

/// Whether a UDP packet passes in clear: out of the WAN, and in to the LAN from there.
fn in_clear(world: &World, destination: &str, port: u16) -> (bool, bool) {
    let packet = |source: &str, destination: &str, ports: (u16, u16), interface: &str| Packet {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: 17,
        source_port: ports.0,
        destination_port: ports.1,
        interface: Some(interface.to_owned()),
    };
    let there = packet("172.16.1.10", destination, (4_000, port), "wan");
    let back = packet(destination, "172.16.1.10", (port, 4_000), "lan");
    (
        world.kernel.in_clear(Direction::Out, &there),
        world.kernel.in_clear(Direction::Forward, &back),
    )
}

fn world(lines: &str) -> World {
    let mut world = World::new(&configuration(1, &format!("{lines}\n{IKE}")));
    world.stopping = true;
    world
}

#[tokio::test]
async fn a_fail_open_rule_counts_while_there_is_no_key_and_for_its_traffic_alone() {
    let mut world = world(TIME);
    world.server(1).up = false;
    world.start().await;
    assert_eq!(in_clear(&world, "172.16.9.1", 123), (true, true));
    assert_eq!(in_clear(&world, "172.16.9.1", 124), (false, false));
    assert_eq!(in_clear(&world, "172.16.9.2", 123), (false, false));
    world.server(1).up = true;
    world.pass(seconds(30)).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert_eq!(in_clear(&world, "172.16.9.1", 123), (false, false));
    world.server(1).up = false;
    world.leap(seconds(3_700)).await;
    assert_eq!(world.spis(), (vec![], vec![]));
    assert_eq!(in_clear(&world, "172.16.9.1", 123), (true, true));
    assert_eq!(in_clear(&world, "172.16.9.2", 123), (false, false));
    let mut world = world.restart().await;
    world.stopping = true;
    world.start().await;
    assert_eq!(in_clear(&world, "172.16.9.1", 123), (true, true));
    assert_eq!(in_clear(&world, "172.16.9.2", 123), (false, false));
}

#[tokio::test]
async fn a_group_that_is_open_as_a_whole_is_open_without_a_key_only() {
    let mut world = world("failure-policy = \"open\"");
    world.server(1).up = false;
    world.start().await;
    assert_eq!(in_clear(&world, "172.16.9.2", 123), (true, true));
    assert_eq!(status_line(&world), "branches in clear: registering");
    world.server(1).up = true;
    world.pass(seconds(30)).await;
    assert_eq!(in_clear(&world, "172.16.9.2", 123), (false, false));
    assert_eq!(status_line(&world), "branches protected");
    world.server(1).up = false;
    world.leap(seconds(3_700)).await;
    assert_eq!(in_clear(&world, "172.16.9.2", 123), (true, true));
    assert!(status_line(&world).starts_with("branches in clear: "));
    let mut world = self::world("");
    world.server(1).up = false;
    world.start().await;
    assert_eq!(status_line(&world), "branches blocked: registering");
}

fn status_line(world: &World) -> String {
    agent::show::log::line(&world.member, false, world.now)
}

/// Another member registers with a key server in this member's LAN, from an address that is
/// protected as well. It has to get there without a key: it has none yet.
#[tokio::test]
async fn another_member_reaches_a_key_server_behind_this_one_by_an_exclude_rule() {
    const EXCLUDE: &str = "[[group.exclude]]\nsource = \"172.16.0.0/12\"\ndestination = \"172.16.1.5\"\nprotocol = 17\ndestination-port = 848\n";
    let passes = |world: &World, server: &str, port: u16| {
        let (member, server) = ("172.16.2.1".parse().unwrap(), server.parse().unwrap());
        let packet = |source, destination, ports: (u16, u16), interface: &str| Packet {
            source,
            destination,
            protocol: 17,
            source_port: ports.0,
            destination_port: ports.1,
            interface: Some(interface.to_owned()),
        };
        let request = packet(member, server, (848, port), "lan");
        let answer = packet(server, member, (port, 848), "wan");
        (
            world.kernel.in_clear(Direction::Forward, &request),
            world.kernel.in_clear(Direction::Out, &answer),
        )
    };
    let registrations_alone = |world: &World| {
        assert_eq!(passes(world, "172.16.1.5", 848), (true, true));
        assert_eq!(passes(world, "172.16.1.5", 849), (false, false));
        assert_eq!(passes(world, "172.16.1.6", 848), (false, false));
    };
    let mut world = world(EXCLUDE);
    world.server(1).up = false;
    world.start().await;
    registrations_alone(&world);
    world.server(1).up = true;
    world.pass(seconds(30)).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    registrations_alone(&world);
    world.server(1).up = false;
    world.leap(seconds(3_700)).await;
    assert_eq!(world.spis(), (vec![], vec![]));
    registrations_alone(&world);
    world.reload(&configuration(1, IKE)).await;
    assert_eq!(passes(&world, "172.16.1.5", 848), (false, false));
}

#[tokio::test]
async fn a_group_is_migrated_by_receive_only_and_passive_members() {
    let mut world = world("mode = \"receive-only\"");
    world.server(1).up = false;
    world.start().await;
    assert_eq!(in_clear(&world, "172.16.9.2", 123), (true, true));
    world.server(1).up = true;
    world.pass(seconds(30)).await;
    assert_eq!(
        (world.spis(), in_clear(&world, "172.16.9.2", 123)),
        ((vec![0x1000], vec![]), (true, true))
    );
    world.reload(&configuration(1, &format!("mode = \"passive\"\n{IKE}"))).await;
    assert_eq!(
        (world.spis(), in_clear(&world, "172.16.9.2", 123)),
        ((vec![0x1000], vec![0x1000]), (false, true))
    );
    world.reload(&configuration(1, IKE)).await;
    assert_eq!(
        (world.spis(), in_clear(&world, "172.16.9.2", 123)),
        ((vec![0x1000], vec![0x1000]), (false, false))
    );
    assert_eq!(world.server(1).pulls, 1, "no step registers again");
}

#[tokio::test]
async fn an_unchanged_file_sends_nothing_and_changes_nothing() {
    let text = configuration(2, &format!("{TIME}{IKE}"));
    let mut world = World::new(&text);
    world.stopping = true;
    world.start().await;
    let (sent, done) = (world.datagrams.len(), world.kernel.log().len());
    world.reload(&text).await;
    world.pass(seconds(60)).await;
    assert_eq!((world.datagrams.len(), world.kernel.log().len()), (sent, done));
}

#[tokio::test]
async fn a_reload_changes_what_differs() {
    let mut world = World::new(&configuration(1, IKE));
    world.start().await;
    let sent = world.datagrams.len();
    // Other blocks: no registration.
    let wider =
        configuration(1, IKE).replace("172.16.0.0/12\"]", "172.16.0.0/12\", \"192.168.0.0/16\"]");
    let policies = world.kernel.policies().len();
    world.reload(&wider).await;
    assert!(world.kernel.policies().len() > policies);
    assert_eq!((world.datagrams.len(), world.spis()), (sent, (vec![0x1000], vec![0x1000])));
    // Another server: the keys stay until it has given new ones.
    world.server(1).up = false;
    let other = wider.replace("10.0.11.1", "10.0.12.1");
    world.reload(&other).await;
    world.pass(seconds(60)).await;
    assert_eq!(world.spis(), (vec![0x1000], vec![0x1000]));
    assert!(world.datagrams.iter().skip(sent).any(|sent| sent.destination == address("10.0.12.1")));
    // Another group comes, this one goes.
    let replaced = wider.replace("1111", "2222").replace("branches", "other");
    world.server(1).up = true;
    world.reload(&replaced).await;
    world.pass(seconds(30)).await;
    assert_eq!(world.membership().config().name, "other");
    assert_eq!(world.spis(), (vec![0x1001], vec![0x1001]));
    assert!(!world.group_in_clear());
}
