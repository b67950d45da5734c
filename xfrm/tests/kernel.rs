//! The reconciler against the real kernel, in a network namespace that each test makes for itself.
//!
//! Policies, tables and routes work on every kernel with XFRM and nf_tables; states need ESP, and
//! are proved in the lab.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what is wrong by failing"
)]

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use xfrm::desired::{MAIN_TABLE, PlaceholderRoute};
use xfrm::interface::interfaces_towards;
use xfrm::kernel::event::{KernelEvent, What};
use xfrm::kernel::netlink::EventSource;
use xfrm::kernel::netlink::Netlink;
use xfrm::model::{Action, Direction, Mode, Policy, PolicyId, Reqid, Selector, Template};
use xfrm::nft::{Bandwidth, DontFragment, GroupPreservation, Preservation, SegmentSize};
use xfrm::{Desired, Error, Op, Ownership, Parts, Reconciler};

/// Runs a shell command in the namespace and gives its output.
fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A namespace with `lan` and `wan`; the reconciler and its events.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Reconciler<Netlink>, EventSource) -> F) {
    // The thread of the test alone moves, and everything it starts.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    sh("ip link set lo up; ip link add wan type veth peer name wanp; ip link add lan type veth peer name lanp
        for i in wan wanp lan lanp; do ip link set $i up; done; ip addr add 10.0.1.1/24 dev wan");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let netlink = Netlink::open().unwrap();
        let events = netlink.events(&Ownership::default()).unwrap();
        test(Reconciler::new(netlink, Ownership::default()), events).await;
    });
}

fn desired() -> Desired {
    let group = "172.16.0.0/12".parse().unwrap();
    let mut desired = Desired::default();
    let mut add = |direction, interface: Option<&str>, priority, action| {
        let selector =
            Selector { interface: interface.map(str::to_owned), ..Selector::between(group, group) };
        let id = PolicyId { direction, selector };
        desired.policies.insert(id.clone(), Policy { id, priority, action });
    };
    let template = Template {
        mode: Mode::Tunnel,
        source: "0.0.0.0".parse().unwrap(),
        destination: "10.0.1.1".parse().unwrap(),
        reqid: Reqid(0x4744_0001),
        optional: false,
    };
    add(Direction::Out, None, 1000, Action::Block);
    add(Direction::In, None, 1000, Action::Protect(template));
    add(Direction::Forward, Some("lan"), 1000, Action::Protect(template));
    add(Direction::Out, Some("lan"), 900, Action::Allow);
    let preservation = GroupPreservation {
        local: "10.0.1.1".parse().unwrap(),
        outbound_reqids: BTreeSet::from([Reqid(0x4744_0000)]),
        inbound_spis: BTreeSet::from([0x1300]),
        fragments: BTreeSet::from([(group, group)]),
        dont_fragment: DontFragment::Set,
        segment_size: SegmentSize::Path,
    };
    let bandwidth = Bandwidth {
        octets_per_second: 1_250_000,
        ends: BTreeSet::from([("10.0.1.1".parse().unwrap(), "203.0.113.1".parse().unwrap())]),
    };
    let excluded = Selector {
        source: group,
        destination: "224.0.0.9/32".parse().unwrap(),
        protocol: 17,
        source_port: 0,
        destination_port: 520,
        portless: false,
        interface: None,
    };
    desired.preservation = Some(Preservation {
        lan: BTreeSet::from([String::from("lan")]),
        vrf: BTreeSet::new(),
        wan: BTreeSet::from([String::from("wan")]),
        protected: BTreeSet::from([BTreeSet::from([group, "fd00::/16".parse().unwrap()])]),
        guard: BTreeSet::from([("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap())]),
        tunnels: BTreeSet::new(),
        tunnel_ends: BTreeSet::new(),
        guard_everything: true,
        exclude: BTreeSet::from([excluded]),
        exclude_arriving: BTreeSet::new(),
        groups: BTreeMap::from([("192.0.2.1".parse().unwrap(), preservation)]),
        defragment: true,
        bandwidth: BTreeMap::from([(String::from("cloud"), bandwidth)]),
    });
    desired.exempt.insert(String::from("lan"));
    desired.routes.insert(PlaceholderRoute {
        placeholder: "192.0.2.1".parse().unwrap(),
        interface: String::from("wan"),
        gateway: Some("10.0.1.254".parse().unwrap()),
        mtu: 1500,
        table: MAIN_TABLE,
    });
    desired
}

/// Whether the interfaces are exempt from the checks of policies.
fn disable_policy() -> String {
    sh("for i in lan wan; do echo $i $(cat /proc/sys/net/ipv4/conf/$i/disable_policy); done")
}

/// Waits for an event; others may come first.
async fn expect(events: &mut EventSource, wanted: &KernelEvent) {
    let search = async { while events.next().await.unwrap() != *wanted {} };
    tokio::time::timeout(Duration::from_secs(20), search).await.unwrap();
}

#[test]
#[ignore = "needs root and nft: makes a network namespace"]
fn applies_reads_back_and_removes() {
    in_namespace(async |mut reconciler, _| {
        let report = reconciler.apply(desired()).await.unwrap();
        assert!(
            report.done.contains(&Op::ReplaceTables) && report.missing_interfaces.is_empty(),
            "{report:?}"
        );
        assert!(reconciler.repair(Parts::ALL).await.unwrap().done.is_empty());
        // Names of protocols depend on /etc/protocols, which a small system does not have.
        let tables = sh("nft --numeric-protocol list ruleset");
        for line in [
            "type filter hook ingress device \"wan\" priority -500",
            "typeof esp spi",
            "ip daddr set meta mark ip saddr set meta priority",
            "ipsec out reqid & 4294901760 == 1195638784 jump put_aside",
            "ipsec out reqid 1195638784 meta mark set ip daddr meta priority set ip saddr",
            "type filter hook egress device \"wan\"",
            "ip saddr 172.16.0.0/12 ip daddr 172.16.0.0/12 jump leaving",
            "ip6 saddr fd00::/16 ip6 daddr fd00::/16 jump leaving",
            "@nh,96,64 @selectors_ip_0 jump leaving",
            "10.1.0.0/24 . 10.2.0.0/24",
            "meta l4proto 1 jump errors",
            "limit rate over 1250000 bytes/second",
            "udp dport 520 accept comment \"excluded\"",
        ] {
            assert!(tables.contains(line), "{line} is not in {tables}");
        }
        assert!(sh("ip route").contains("192.0.2.1 via 10.0.1.254 dev wan proto 71 mtu lock 1500"));
        assert_eq!(sh("ip xfrm policy | grep -c ^src"), "4\n");
        assert_eq!(disable_policy(), "lan 1\nwan 0\n");
        reconciler.purge().await.unwrap();
        assert_eq!(disable_policy(), "lan 0\nwan 0\n");
        assert_eq!(sh("nft list ruleset; ip xfrm policy; ip route | grep 192.0.2 || true"), "");
    });
}

#[test]
#[ignore = "needs root and nft: makes a network namespace"]
fn flushes_are_noticed_and_repaired_and_the_guard_outlasts_them() {
    in_namespace(async |mut reconciler, mut events| {
        reconciler.apply(desired()).await.unwrap();
        sh("nft flush ruleset");
        let left = sh("nft list tables");
        assert!(
            left.contains("table ip gdoi-guard") && !left.contains("table ip gdoi\n"),
            "{left}"
        );
        assert!(sh("nft list ruleset").contains("drop: leaving in clear"));
        expect(&mut events, &KernelEvent::Flushed(What::Tables)).await;
        assert_eq!(reconciler.repair(Parts::ALL).await.unwrap().done, [Op::ReplaceTables]);
        sh("ip xfrm policy flush");
        expect(&mut events, &KernelEvent::Flushed(What::Policies)).await;
        assert_eq!(reconciler.repair(Parts::ALL).await.unwrap().done.len(), 4);
        // One rule is enough, and one rule too many as well.
        sh("nft flush chain ip gdoi preserve");
        assert_eq!(reconciler.repair(Parts::ALL).await.unwrap().done, [Op::ReplaceTables]);
        sh("nft insert rule ip gdoi restore accept");
        assert_eq!(reconciler.repair(Parts::ALL).await.unwrap().done, [Op::ReplaceTables]);
        sh("nft add table ip gdoi '{ flags dormant; }'");
        assert_eq!(reconciler.repair(Parts::ALL).await.unwrap().done, [Op::ReplaceTables]);
        sh("ip route del 192.0.2.1");
        assert_eq!(reconciler.repair(Parts::ALL).await.unwrap().done.len(), 1);
    });
}

#[test]
#[ignore = "needs root and nft: makes a network namespace"]
fn sets_change_in_place() {
    in_namespace(async |mut reconciler, _| {
        reconciler.apply(desired()).await.unwrap();
        let mut rekeyed = desired();
        for group in rekeyed.preservation.as_mut().unwrap().groups.values_mut() {
            group.inbound_spis = BTreeSet::from([0x1301, 0x1302]);
        }
        let done = reconciler.apply(rekeyed).await.unwrap().done;
        assert!(matches!(done.as_slice(), [Op::UpdateSets(_)]), "{done:?}");
        assert!(sh("nft list set ip gdoi inbound_192.0.2.1").contains("elements = { 4865, 4866 }"));
    });
}

#[test]
#[ignore = "needs root and nft: makes a network namespace"]
fn recreated_interfaces_are_followed() {
    in_namespace(async |mut reconciler, mut events| {
        reconciler.apply(desired()).await.unwrap();
        sh("ip link del wan; ip link del lan");
        expect(&mut events, &KernelEvent::LinkChanged).await;
        let missing = reconciler.repair(Parts::ALL).await.unwrap().missing_interfaces;
        assert_eq!(missing, BTreeSet::from([String::from("lan"), String::from("wan")]));
        sh("ip link add wan type veth peer name wanp; ip link add lan type veth peer name lanp
            for i in wan wanp lan lanp; do ip link set $i up; done; ip addr add 10.0.1.1/24 dev wan");
        let report = reconciler.repair(Parts::ALL).await.unwrap();
        assert!(report.missing_interfaces.is_empty());
        assert_eq!(sh("ip xfrm policy | grep -c 'dev lan'"), "2\n");
        assert_eq!(disable_policy(), "lan 1\nwan 0\n");
        assert!(sh("nft list table netdev gdoi").contains("device \"wan\""));
        assert!(sh("ip route").contains("192.0.2.1 via 10.0.1.254 dev wan"));
    });
}

#[test]
#[ignore = "needs root: makes a network namespace"]
fn a_policy_that_others_have_changed_is_put_back() {
    in_namespace(async |mut reconciler, _| {
        let policies = desired().policies;
        reconciler.apply(Desired { policies, ..Desired::default() }).await.unwrap();
        let ours = "src 172.16.0.0/12 dst 172.16.0.0/12 dir out action block priority 1000";
        for change in ["flag localok", "limit time-hard 60", "limit packet-hard 5", "flag icmp"] {
            sh(&format!("ip xfrm policy update {ours} {change}"));
            let report = reconciler.repair(Parts::POLICIES).await.unwrap();
            assert_eq!(report.done.len(), 1, "{change}: {report:?}");
            assert!(reconciler.repair(Parts::POLICIES).await.unwrap().done.is_empty(), "{change}");
        }
    });
}

#[test]
#[ignore = "needs root: makes a network namespace"]
fn foreign_entries_stay() {
    in_namespace(async |mut reconciler, _| {
        sh("ip xfrm policy add src 172.16.0.0/12 dst 172.16.0.0/12 dir out priority 7
            ip xfrm policy add src 10.0.0.0/8 dst 10.0.0.0/8 dir in index 0x5000008 action block
            ip route add 198.51.100.1/32 dev wan
            nft add table ip gdoi2");
        // Said, and no reason not to protect everything else.
        let report = reconciler.apply(desired()).await.unwrap();
        let causes: Vec<&Error> = report.foreign.values().collect();
        assert!(
            matches!(causes[..], [Error::ForeignPolicy(id)] if id.direction == Direction::Out),
            "{causes:?}"
        );
        assert_eq!(sh("ip xfrm policy | grep -c ^src"), "5\n");
        reconciler.purge().await.unwrap();
        assert_eq!(sh("ip xfrm policy | grep -c ^src"), "2\n");
        assert_eq!(sh("nft list tables"), "table ip gdoi2\n");
        assert!(sh("ip route").contains("198.51.100.1"));
    });
}

/// To the kernel a mark or an XFRM interface makes it another policy, which we can neither read as
/// ours nor delete.
#[test]
#[ignore = "needs root: makes a network namespace"]
fn foreign_policies_with_our_index_stay_and_are_not_in_the_way() {
    in_namespace(async |mut reconciler, _| {
        sh("ip xfrm policy add src 172.16.0.0/12 dst 172.16.0.0/12 dir out if_id 7 \
                index 0x47440001 action block
            ip xfrm policy add src 172.16.0.0/12 dst 172.16.0.0/12 dir out mark 5 mask 255 \
                index 0x47440009 action block");
        let policies = desired().policies;
        let report = reconciler.apply(Desired { policies, ..Desired::default() }).await.unwrap();
        assert!(report.foreign.is_empty(), "{report:?}");
        assert_eq!(sh("ip xfrm policy | grep -c ^src"), "6\n");
        assert!(reconciler.repair(Parts::ALL).await.unwrap().done.is_empty());
        reconciler.purge().await.unwrap();
        assert_eq!(sh("ip xfrm policy | grep -c ^src"), "2\n");
    });
}

/// Linux 6.9 keeps an owned table whose owner has ended, for the next one; before, it goes.
#[test]
#[ignore = "needs root and nft: makes a network namespace"]
fn the_guard_outlasts_the_process_where_the_kernel_can_and_is_adopted() {
    in_namespace(async |mut reconciler, _| {
        reconciler.apply(desired()).await.unwrap();
        let persists = reconciler.kernel().guard_persists().await.unwrap();
        drop(reconciler);
        // The kernel hears of the end of a socket a little later.
        std::thread::sleep(Duration::from_millis(300));
        let left = sh("nft list tables");
        assert_eq!(left.contains("gdoi-guard"), persists, "{left}");
        assert!(left.contains("table ip gdoi\n"), "{left}");
        let mut next = Reconciler::new(Netlink::open().unwrap(), Ownership::default());
        let report = next.apply(desired()).await.unwrap();
        assert_eq!(report.done, [Op::ReplaceGuard]);
        // It has an owner again.
        sh("nft flush ruleset");
        assert!(sh("nft list tables").contains("gdoi-guard"));
        assert_eq!(next.repair(Parts::ALL).await.unwrap().done, [Op::ReplaceTables]);
        next.purge().await.unwrap();
        assert_eq!(sh("nft list tables"), "");
    });
}

/// One transaction, in which the new tables stand before the old ones go, however large they are.
#[test]
#[ignore = "needs root and nft: makes a network namespace"]
fn tables_of_many_megabytes_are_replaced_in_one_transaction() {
    in_namespace(async |mut reconciler, _| {
        let prefix = |number: u32| format!("{}/24", Ipv4Addr::from(number << 8)).parse().unwrap();
        let with = |first: u32| {
            let exclude = |number| Selector {
                source: prefix(first + number),
                destination: prefix(0xac_1000),
                protocol: 17,
                source_port: 0,
                destination_port: 53,
                portless: false,
                interface: None,
            };
            let preservation = Preservation {
                wan: BTreeSet::from([String::from("wan")]),
                protected: BTreeSet::from([BTreeSet::from([prefix(0xac_1000)])]),
                exclude: (0..10_000).map(exclude).collect(),
                ..Preservation::default()
            };
            Desired { preservation: Some(preservation), ..Desired::default() }
        };
        let report = reconciler.apply(with(0x0a_0000)).await.unwrap();
        assert_eq!(report.done, [Op::ReplaceGuard, Op::ReplaceTables]);
        assert!(reconciler.repair(Parts::TABLES).await.unwrap().done.is_empty());
    });
}

#[test]
#[ignore = "needs root and nft: makes a network namespace"]
fn our_own_changes_are_no_events() {
    in_namespace(async |mut reconciler, mut events| {
        // What making the interfaces left behind.
        while tokio::time::timeout(Duration::from_secs(2), events.next()).await.is_ok() {}
        // The kernel names nobody as the cause of a changed link.
        reconciler.apply(Desired { exempt: BTreeSet::new(), ..desired() }).await.unwrap();
        reconciler.purge().await.unwrap();
        let next = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
        assert!(next.is_err(), "{next:?}");
    });
}

/// A full table with a flapping prefix: nobody wakes up for it, and the routes are not listed.
#[test]
#[ignore = "needs root: makes a network namespace"]
fn routes_of_others_are_no_events_but_default_routes_are() {
    in_namespace(async |mut reconciler, mut events| {
        let routes = desired().routes;
        reconciler.apply(Desired { routes, ..Desired::default() }).await.unwrap();
        while tokio::time::timeout(Duration::from_secs(2), events.next()).await.is_ok() {}
        sh(
            "for i in 1 2 3; do ip route add 10.9.$i.0/24 via 10.0.1.253; ip route del 10.9.$i.0/24; done",
        );
        let next = tokio::time::timeout(Duration::from_millis(500), events.next()).await;
        assert!(next.is_err(), "{next:?}");
        sh("ip route add default via 10.0.1.253");
        expect(&mut events, &KernelEvent::RouteChanged).await;
        // Ours, by somebody else.
        sh("ip route del 192.0.2.1");
        expect(&mut events, &KernelEvent::RouteChanged).await;
        assert_eq!(reconciler.repair(Parts::INTERFACES).await.unwrap().done.len(), 1);
        assert!(sh("ip route show 192.0.2.1").contains("mtu lock"));
    });
}

#[test]
#[ignore = "needs root: makes a network namespace"]
fn facts_about_interfaces_are_the_kernels() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let interfaces = || runtime.block_on(xfrm::interface::interfaces()).unwrap();
    // Before the first address there is no main table.
    let lo = interfaces().remove("lo").unwrap();
    assert_eq!((lo.up, lo.mtu, lo.gateway, lo.addresses.len()), (false, 65536, None, 0));
    sh("ip link add wan mtu 1400 type veth peer name wanp; ip link add lan type veth peer name lanp
        for i in wan wanp lan; do ip link set $i up; done
        ip addr add 10.0.1.1/24 dev wan; ip addr add fd00::1/64 dev wan nodad; ip addr add 10.0.2.1 peer 10.0.2.2 dev wanp
        ip addr add 172.16.1.1/24 dev lan
        ip route add default via 10.0.1.253 metric 20; ip route add default via 10.0.1.254 metric 10
        ip route add default via 10.0.1.252 table 100; ip route add 10.9.0.0/16 via 10.0.1.251
        ip -6 route add default via fd00::2 metric 1");
    let mut found = interfaces();
    let wan = found.remove("wan").unwrap();
    assert_eq!((wan.up, wan.mtu, wan.gateway), (true, 1400, Some("10.0.1.254".parse().unwrap())));
    assert!(wan.addresses.contains(&"10.0.1.1/24".parse().unwrap()), "{wan:?}");
    assert!(wan.addresses.contains(&"fd00::1/64".parse().unwrap()), "{wan:?}");
    assert_eq!(sh("ip -o link show wan | cut -d: -f1").trim(), wan.index.to_string());
    let wanp = found.remove("wanp").unwrap();
    assert!(wanp.addresses.contains(&"10.0.2.1/32".parse().unwrap()), "{wanp:?}");
    // Its peer is down: no carrier.
    let lan = found.remove("lan").unwrap();
    assert_eq!((lan.up, lan.gateway), (false, None));
    sh("ip route del default; ip route del default; ip -6 route del default; ip link set lanp up
        ip route add default nexthop via 10.0.1.254 dev wan nexthop via 172.16.1.254 dev lan");
    let found = interfaces();
    assert_eq!(found["wan"].gateway, Some("10.0.1.254".parse().unwrap()));
    assert_eq!(found["lan"].gateway, Some("172.16.1.254".parse().unwrap()));
    sh("ip route del default; ip route add default via inet6 fe80::1 dev wan");
    assert_eq!(interfaces()["wan"].gateway, Some("fe80::1".parse().unwrap()));
}

/// More notifications than the socket has room for, would the kernel send them.
#[test]
#[ignore = "needs root: makes a network namespace"]
fn a_full_table_of_a_routing_daemon_wakes_nobody() {
    in_namespace(async |_, mut events| {
        while tokio::time::timeout(Duration::from_secs(2), events.next()).await.is_ok() {}
        sh("for a in $(seq 1 120); do for b in $(seq 1 250); do
                echo route add 100.64.$a.$b/32 via 10.0.1.254 proto bgp
            done; done > /tmp/routes-$$
            ip -batch /tmp/routes-$$; rm /tmp/routes-$$");
        let next = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
        assert!(next.is_err(), "{next:?}");
        sh("ip route add default via 10.0.1.254");
        expect(&mut events, &KernelEvent::RouteChanged).await;
        sh("ip link set lan mtu 1400");
        expect(&mut events, &KernelEvent::LinkChanged).await;
    });
}

#[test]
#[ignore = "needs root: makes a network namespace"]
fn rules_and_routes_are_looked_up() {
    in_namespace(async |_, _| {
        sh("ip addr add 172.16.1.1/24 dev lan
            ip link add tun1 type veth peer name tun1p; ip link set tun1 up; ip link set tun1p up
            ip route add default via 10.0.1.254; ip route add 172.16.0.0/12 dev tun1
            ip route add blackhole 172.18.0.0/16
            ip rule add iif lan lookup 100; ip rule add iif lo lookup 101; ip rule add fwmark 1 lookup 102");
        let addresses = ["172.16.1.9", "172.31.0.1", "10.9.9.9", "172.18.0.1", "fd00::1"];
        let destinations: BTreeSet<IpAddr> = addresses.map(|one| one.parse().unwrap()).into();
        let found = interfaces_towards(&destinations).await.unwrap();
        let leads_to = |name: &str| {
            let leads = found[name].leads_to.iter();
            leads
                .map(|(to, via)| (to.to_string(), via.map(|via| via.to_string())))
                .collect::<Vec<_>>()
        };
        let expected: [Vec<_>; 3] = [
            vec![(String::from("172.16.1.9"), None)],
            vec![(String::from("172.31.0.1"), None)],
            vec![(String::from("10.9.9.9"), Some(String::from("10.0.1.254")))],
        ];
        assert_eq!([leads_to("lan"), leads_to("tun1"), leads_to("wan")], expected);
        let ruled: Vec<&str> =
            ["lan", "wan", "tun1"].into_iter().filter(|one| found[*one].has_rule).collect();
        assert_eq!(ruled, ["lan"]);
        assert!(found.values().all(|interface| interface.wraps.is_empty()));
        sh("ip addr add fd00:201::1/64 dev wan nodad
            ip route add 172.31.0.0/16 encap seg6 mode encap segs fd00:201::2 dev wan");
        let found = interfaces_towards(&destinations).await.unwrap();
        let shown = std::fs::read_to_string("/proc/sys/net/netfilter/nf_hooks_lwtunnel");
        let wrapped: Vec<String> = found["wan"].wraps.iter().map(ToString::to_string).collect();
        let expected: &[&str] =
            if shown.is_ok_and(|text| text.trim() == "1") { &[] } else { &["172.31.0.1"] };
        assert_eq!(wrapped, expected);
    });
}

#[test]
#[ignore = "needs root: makes a network namespace"]
fn a_placeholder_route_follows_its_next_hop() {
    in_namespace(async |mut reconciler, _| {
        for (gateway, shown) in [
            (Some("10.0.1.254"), "via 10.0.1.254"),
            (None, "dev wan"),
            (Some("fe80::1"), "via inet6 fe80::1"),
        ] {
            let mut wanted = Desired::default();
            wanted.routes.insert(PlaceholderRoute {
                placeholder: "192.0.2.1".parse().unwrap(),
                interface: String::from("wan"),
                gateway: gateway.map(|gateway| gateway.parse().unwrap()),
                mtu: 1400,
                table: MAIN_TABLE,
            });
            reconciler.apply(wanted).await.unwrap();
            assert!(reconciler.repair(Parts::ALL).await.unwrap().done.is_empty());
            let route = sh("ip route show 192.0.2.1");
            assert!(
                route.starts_with(&format!("192.0.2.1 {shown}")) && route.contains("mtu lock 1400"),
                "{route}"
            );
            assert_eq!(route.lines().count(), 1);
        }
        // Another MTU.
        sh("ip route change 192.0.2.1 via inet6 fe80::1 dev wan proto 71 mtu lock 1300");
        assert_eq!(reconciler.repair(Parts::ALL).await.unwrap().done.len(), 1);
        assert!(sh("ip route show 192.0.2.1").contains("mtu lock 1400"));
        // Into the table of a VRF, and back.
        let mut wanted: PlaceholderRoute = reconciler.desired().routes.first().unwrap().clone();
        for (table, other) in [(1_010, 254), (254, 1_010)] {
            wanted.table = table;
            let routes = BTreeSet::from([wanted.clone()]);
            reconciler.apply(Desired { routes, ..Desired::default() }).await.unwrap();
            assert!(reconciler.repair(Parts::ALL).await.unwrap().done.is_empty());
            assert!(sh(&format!("ip route show table {table}")).contains("192.0.2.1 via"));
            assert!(
                !sh(&format!("ip route show table {other} 2>&1 || true")).contains("192.0.2.1")
            );
        }
        // A foreign route to the same place is left alone, and said.
        reconciler.purge().await.unwrap();
        sh("ip route add 192.0.2.1 dev wan");
        let mut wanted = desired().routes;
        let routes = wanted.pop_first().into_iter().collect();
        let report = reconciler.apply(Desired { routes, ..Desired::default() }).await.unwrap();
        let causes: Vec<String> = report.foreign.values().map(ToString::to_string).collect();
        assert!(causes.len() == 1 && causes[0].contains("set another placeholder"), "{causes:?}");
        assert!(sh("ip route show 192.0.2.1").contains("scope link"));
    });
}
