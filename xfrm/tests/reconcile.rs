//! The plan and the reconciler against the fake kernel: properties, faults, foreign entries.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::type_complexity,
    reason = "a test says what is wrong by failing"
)]

use core::net::IpAddr;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use xfrm::algorithm::{Aead, Encryption, Integrity, Protection};
use xfrm::desired::{MAIN_TABLE, PlaceholderRoute};
use xfrm::kernel::fake::{FakeKernel, Fault, Packet};
use xfrm::key::Key;
use xfrm::model::{
    Action, Direction, Encapsulation, Install, Mode, Policy, PolicyId, Reqid, Sa, SaId, SaRole,
    Selector, Template, Unicast,
};
use xfrm::nft::{DontFragment, GroupPreservation, Preservation, SegmentSize};
use xfrm::{Current, Desired, Entry, Error, Kernel, Op, Ownership, Parts, Reconciler, plan};

const DIRECTIONS: [Direction; 3] = [Direction::In, Direction::Out, Direction::Forward];
const PREFIXES: [&str; 5] =
    ["172.16.0.0/12", "172.16.1.0/24", "172.16.2.0/24", "172.16.1.0/25", "10.0.0.0/8"];
const HOSTS: [&str; 4] = ["172.16.1.10", "172.16.1.200", "172.16.2.10", "10.1.2.3"];
const ENOBUFS: i32 = 105;
const EINVAL: i32 = 22;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The fake kernel never waits: one poll is enough.
fn run<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the fake kernel waits"),
    }
}

/// What a property draws, from which a `Desired` is made as often as needed.
#[derive(Clone, Debug)]
struct Draw {
    policies: BTreeMap<(Direction, usize, usize, u8, u8), (u8, u32)>,
    inbound: BTreeMap<u32, u8>,
    outbound: BTreeMap<u32, u8>,
    preservation: Option<(bool, u8)>,
    route: Option<u32>,
}

fn draw() -> impl Strategy<Value = Draw> {
    let direction = prop::sample::select(DIRECTIONS.to_vec());
    let identity = (direction, 0..PREFIXES.len(), 0..PREFIXES.len(), 0..3u8, 0..2u8);
    (
        btree_map(identity, (0..4u8, 1..12u32), 0..14),
        btree_map(0x1300..0x1304u32, 0..2u8, 0..4),
        btree_map(0x1300..0x1304u32, 0..2u8, 0..3),
        prop::option::of((any::<bool>(), 0..3u8)),
        prop::option::of(1400..1403u32),
    )
        .prop_map(|(policies, inbound, outbound, preservation, route)| Draw {
            policies,
            inbound,
            outbound,
            preservation,
            route,
        })
}

impl Draw {
    fn desired(&self) -> Desired {
        let mut desired = Desired::default();
        for (&(direction, source, destination, interface, protocol), &(action, priority)) in
            &self.policies
        {
            let selector = Selector {
                source: PREFIXES[source].parse().unwrap(),
                destination: PREFIXES[destination].parse().unwrap(),
                protocol: protocol * 17,
                source_port: 0,
                destination_port: 0,
                portless: false,
                interface: [None, Some("lan"), Some("absent")][usize::from(interface)]
                    .map(str::to_owned),
            };
            let id = PolicyId { direction, selector };
            let template = |optional| {
                let (source, destination) = (address("0.0.0.0"), address("10.0.1.1"));
                Action::Protect(Template {
                    mode: Mode::Tunnel,
                    source,
                    destination,
                    reqid: Reqid(0x4744_0001),
                    optional,
                })
            };
            let action = [Action::Allow, Action::Block, template(false), template(true)]
                [usize::from(action)];
            desired.policies.insert(id.clone(), Policy { id, priority, action });
        }
        let lets_all_leave = |policy: &&Policy| policy.action == Action::Allow;
        let allowed = desired.policies.values().filter(lets_all_leave);
        desired.exempt =
            allowed.filter_map(|policy| policy.id.selector.interface.clone()).collect();
        for (&spi, &key) in &self.inbound {
            let sa = sa(SaRole::Inbound, spi, key, false);
            desired.sas.insert(sa.id, sa);
        }
        for (&spi, &key) in &self.outbound {
            let sa = sa(SaRole::Outbound, spi, key, false);
            desired.sas.insert(sa.id, sa);
        }
        desired.preservation = self.preservation.map(|(defragment, guards)| Preservation {
            lan: BTreeSet::from([String::from("lan")]),
            vrf: BTreeSet::new(),
            wan: BTreeSet::from([String::from("wan"), String::from("absent")]),
            protected: BTreeSet::new(),
            tunnels: BTreeSet::new(),
            tunnel_ends: BTreeSet::new(),
            guard_everything: false,
            guard: PREFIXES
                .iter()
                .take(guards.into())
                .map(|p| (p.parse().unwrap(), p.parse().unwrap()))
                .collect(),
            exclude: BTreeSet::new(),
            exclude_arriving: BTreeSet::new(),
            bandwidth: BTreeMap::new(),
            groups: BTreeMap::from([(
                "192.0.2.1".parse().unwrap(),
                GroupPreservation {
                    local: "10.0.1.1".parse().unwrap(),
                    outbound_reqids: BTreeSet::from([Reqid(0x4744_0000)]),
                    inbound_spis: self.inbound.keys().copied().collect(),
                    fragments: BTreeSet::new(),
                    dont_fragment: DontFragment::Clear,
                    segment_size: SegmentSize::Unchanged,
                },
            )]),
            defragment,
        });
        desired.routes.extend(self.route.map(|mtu| PlaceholderRoute {
            placeholder: address("192.0.2.1"),
            interface: String::from("wan"),
            gateway: None,
            mtu,
            table: MAIN_TABLE,
        }));
        desired
    }
}

fn sa(role: SaRole, spi: u32, key: u8, counter_mode: bool) -> Sa {
    let (source, destination, reqid) = match role {
        SaRole::Inbound => ("0.0.0.0", "10.0.1.1", 0x4744_0001),
        SaRole::Outbound => ("10.0.1.1", "192.0.2.1", 0x4744_0000),
    };
    let protection = match counter_mode {
        true => Protection::Combined {
            aead: Aead::AesGcm,
            key: Key::copy_from(&[key + 1; 36]),
            icv: 16,
        },
        false => Protection::Separate {
            encryption: Encryption::AesCbc,
            encryption_key: Key::copy_from(&[key + 1; 32]),
            integrity: Integrity::HmacSha2_256_128,
            integrity_key: Key::copy_from(&[key + 2; 32]),
        },
    };
    Sa {
        id: SaId { destination: address(destination), spi },
        source: address(source),
        role,
        reqid: Reqid(reqid),
        protection,
        no_path_mtu_discovery: role == SaRole::Outbound,
        sequence_may_wrap: role == SaRole::Outbound && !counter_mode,
        install: if role == SaRole::Outbound && counter_mode {
            Install::Once
        } else {
            Install::Freely
        },
        hard_lifetime: None,
        unicast: None,
    }
}

fn packets() -> Vec<(Direction, Packet)> {
    let mut packets = Vec::new();
    for direction in DIRECTIONS {
        for source in HOSTS {
            for destination in HOSTS {
                for interface in [None, Some("lan")] {
                    for protocol in [6, 17] {
                        packets.push((
                            direction,
                            Packet {
                                source: address(source),
                                destination: address(destination),
                                protocol,
                                source_port: 1,
                                destination_port: 2,
                                interface: interface.map(str::to_owned),
                            },
                        ));
                    }
                }
            }
        }
    }
    packets
}

fn foreign() -> Policy {
    let net = "203.0.113.0/24".parse().unwrap();
    let selector = Selector::between(net, net);
    Policy {
        id: PolicyId { direction: Direction::Out, selector },
        priority: 5,
        action: Action::Block,
    }
}

fn kernel() -> FakeKernel {
    let kernel = FakeKernel::new(["lo", "lan", "wan"]);
    kernel.add_foreign_policy(foreign());
    kernel.add_foreign_sa(SaId { destination: address("203.0.113.1"), spi: 0x1300 });
    kernel
}

fn read_all(kernel: &mut FakeKernel) -> Current {
    let mut current = Current::default();
    run(kernel.read(&Ownership::default(), Parts::ALL, &mut current)).unwrap();
    current
}

fn settled(kernel: &mut FakeKernel, desired: &Desired) -> bool {
    let ownership = Ownership::default();
    let current = read_all(kernel);
    plan(&current, desired, &ownership).is_empty()
}

/// Closed packets by their position in `packets()`.
fn closed(kernel: &FakeKernel, packets: &[(Direction, Packet)]) -> BTreeSet<usize> {
    let is_closed = |(_, (direction, packet)): &(usize, &(Direction, Packet))| {
        !kernel.in_clear(*direction, packet)
    };
    packets.iter().enumerate().filter(is_closed).map(|(position, _)| position).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_plan_leads_there_and_never_through_clear(from in draw(), to in draw()) {
        let ownership = Ownership::default();
        let packets = packets();
        let mut kernel = kernel();
        run(Reconciler::new(kernel.clone(), ownership.clone()).apply(from.desired())).unwrap();
        let before = closed(&kernel, &packets);
        let desired = to.desired();
        let current = read_all(&mut kernel);
        let mut states = Vec::new();
        for op in plan(&current, &desired, &ownership) {
            run(kernel.execute(&op, &desired, &ownership)).unwrap();
            states.push((op, closed(&kernel, &packets)));
        }
        let after = closed(&kernel, &packets);
        for (op, between) in states {
            let always: Vec<_> = before.intersection(&after).filter(|packet| !between.contains(packet)).collect();
            prop_assert!(always.is_empty(), "in clear after {op}: {:?}", packets[*always[0]]);
        }
        prop_assert!(settled(&mut kernel, &desired));
        prop_assert_eq!(kernel.sas(), desired.sas.keys().copied().collect());
        let possible = desired.policies.values().filter(|p| p.id.selector.interface.as_deref() != Some("absent"));
        let mut installed = kernel.policies();
        installed.sort_by(|a, b| a.id.cmp(&b.id));
        prop_assert_eq!(installed, possible.cloned().collect::<Vec<_>>());
        prop_assert_eq!(kernel.foreign_policies(), vec![foreign()]);
        prop_assert_eq!(kernel.foreign_sas().len(), 1);
    }

    /// What passes before, with nothing of ours there, and passes at the end, passes all the time.
    #[test]
    fn what_is_to_pass_in_clear_does_not_stop_at_a_start(to in draw()) {
        let (ownership, desired, packets) = (Ownership::default(), to.desired(), packets());
        let mut kernel = kernel();
        let before = closed(&kernel, &packets);
        let mut states = Vec::new();
        for op in plan(&read_all(&mut kernel), &desired, &ownership) {
            run(kernel.execute(&op, &desired, &ownership)).unwrap();
            states.push((op, closed(&kernel, &packets)));
        }
        let after = closed(&kernel, &packets);
        for (op, between) in states {
            prop_assert!(between.iter().all(|packet| before.contains(packet) || after.contains(packet)), "after {op}");
        }
    }

    #[test]
    fn a_lost_acknowledgement_or_a_shortage_changes_nothing(
        from in draw(), to in draw(), faults in btree_set(0..12u64, 1..3), lose in any::<bool>(),
    ) {
        let mut kernel = kernel();
        let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
        run(reconciler.apply(from.desired())).unwrap();
        for n in faults {
            kernel.fail(n, if lose { Fault::LoseAcknowledgement } else { Fault::Refuse(ENOBUFS) });
        }
        run(reconciler.apply(to.desired())).unwrap();
        run(reconciler.release()).unwrap();
        prop_assert!(settled(&mut kernel, &to.desired()));
    }

    #[test]
    fn a_stop_anywhere_leaves_no_hole(from in draw(), to in draw(), at in 0..20u64) {
        let packets = packets();
        let mut kernel = kernel();
        run(Reconciler::new(kernel.clone(), Ownership::default()).apply(from.desired())).unwrap();
        let before = closed(&kernel, &packets);
        kernel.fail(at, Fault::Stop);
        let mut stopped = Reconciler::new(kernel.clone(), Ownership::default());
        let outcome = run(stopped.apply(to.desired()));
        let during = closed(&kernel, &packets);
        kernel.heal();
        // The next process knows nothing of the one before.
        run(Reconciler::new(kernel.clone(), Ownership::default()).apply(to.desired())).unwrap();
        let after = closed(&kernel, &packets);
        prop_assert!(settled(&mut kernel, &to.desired()));
        prop_assert!(before.intersection(&after).all(|packet| during.contains(packet)), "{outcome:?}");
    }

    #[test]
    fn what_is_remembered_hides_no_difference(steps in prop::collection::vec((draw(), 0..6u8), 1..6)) {
        let mut kernel = kernel();
        let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
        for (step, event) in &steps {
            match event {
                0 => kernel.flush_states(),
                1 => kernel.flush_ruleset(&Ownership::default()),
                2 => kernel.create_interface("lan"),
                3 => kernel.fail(0, Fault::LoseAcknowledgement),
                _ => {}
            }
            reconciler.invalidate(match event {
                0 => Parts::STATES,
                1 => Parts::TABLES,
                2 => Parts::INTERFACES,
                _ => Parts::NONE,
            });
            run(reconciler.apply(step.desired())).unwrap();
            run(reconciler.release()).unwrap();
            prop_assert!(settled(&mut kernel, &step.desired()));
            kernel.heal();
        }
    }

    #[test]
    fn flushes_and_new_interfaces_are_repaired(to in draw(), which in 0..5u8) {
        let mut kernel = kernel();
        let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
        run(reconciler.apply(to.desired())).unwrap();
        match which {
            0 => kernel.flush_policies(),
            1 => kernel.flush_states(),
            2 => kernel.flush_ruleset(&Ownership::default()),
            3 => kernel.create_interface("lan"),
            _ => kernel.create_interface("wan"),
        }
        run(reconciler.repair(Parts::ALL)).unwrap();
        prop_assert!(settled(&mut kernel, &to.desired()));
        prop_assert!(run(reconciler.repair(Parts::ALL)).unwrap().done.is_empty());
        run(reconciler.purge()).unwrap();
        prop_assert!(kernel.sas().is_empty() && kernel.policies().is_empty() && !kernel.has_tables());
    }
}

fn sending(spi: u32, key: u8) -> Desired {
    let mut desired = Desired::default();
    for sa in [sa(SaRole::Inbound, spi, key, true), sa(SaRole::Outbound, spi, key, true)] {
        desired.sas.insert(sa.id, sa);
    }
    desired
}

/// Desired state with one LAN.
fn with_lan(name: &str) -> Desired {
    let mut desired = Desired { exempt: BTreeSet::from([name.to_owned()]), ..Desired::default() };
    let everything = "0.0.0.0/0".parse().unwrap();
    let selector =
        Selector { interface: Some(name.to_owned()), ..Selector::between(everything, everything) };
    let id = PolicyId { direction: Direction::Out, selector };
    let policy = Policy { id: id.clone(), priority: 1, action: Action::Allow };
    desired.policies.insert(id, policy);
    desired
}

#[test]
fn lans_are_exempt_from_checks_and_others_are_not() {
    let kernel = FakeKernel::new(["lan", "lan2", "wan"]);
    let exempt = |name: &str| BTreeSet::from([name.to_owned()]);
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    let report = run(reconciler.apply(with_lan("lan"))).unwrap();
    // Before the first policy that would stop the LAN's own traffic.
    let first = Op::Exempt { interface: "lan".to_owned(), exempt: true };
    assert_eq!(report.done.first(), Some(&first));
    assert_eq!(kernel.exempt(), exempt("lan"));
    // Somebody sets it back; the interface is made again, which the kernel does without it.
    kernel.check_again("lan");
    run(reconciler.repair(Parts::ALL)).unwrap();
    assert_eq!(kernel.exempt(), exempt("lan"));
    kernel.create_interface("lan");
    assert!(kernel.exempt().is_empty());
    run(reconciler.repair(Parts::INTERFACES)).unwrap();
    assert_eq!(kernel.exempt(), exempt("lan"));
    // Another LAN, to a process that does not know of the first one.
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(with_lan("lan2"))).unwrap();
    assert_eq!(kernel.exempt(), exempt("lan2"));
    run(reconciler.purge()).unwrap();
    assert!(kernel.exempt().is_empty());
}

#[test]
fn a_setting_of_somebody_else_stays() {
    let mut kernel = FakeKernel::new(["lan", "wan"]);
    let op = Op::Exempt { interface: "wan".to_owned(), exempt: true };
    run(kernel.execute(&op, &Desired::default(), &Ownership::default())).unwrap();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(with_lan("lan"))).unwrap();
    run(reconciler.purge()).unwrap();
    assert_eq!(kernel.exempt(), BTreeSet::from(["wan".to_owned()]));
    // Also on what is a LAN of ours for a while.
    run(reconciler.apply(with_lan("wan"))).unwrap();
    kernel.flush_policies();
    run(reconciler.repair(Parts::ALL)).unwrap();
    run(reconciler.purge()).unwrap();
    assert_eq!(kernel.exempt(), BTreeSet::from(["wan".to_owned()]));
    // Made again it has nobody's setting, and then ours.
    kernel.create_interface("wan");
    run(reconciler.apply(with_lan("wan"))).unwrap();
    run(reconciler.purge()).unwrap();
    assert!(kernel.exempt().is_empty());
}

/// The process that found the setting ends, in order or not, and its policies stay.
#[test]
fn a_setting_of_somebody_else_stays_when_the_next_process_is_told() {
    let mut kernel = FakeKernel::new(["lan", "lan2"]);
    let op = Op::Exempt { interface: "lan".to_owned(), exempt: true };
    run(kernel.execute(&op, &Desired::default(), &Ownership::default())).unwrap();
    let mut first = Reconciler::new(kernel.clone(), Ownership::default());
    run(first.foresee_exempt(&with_lan("lan"))).unwrap();
    let before = first.exempt_before().clone();
    assert_eq!(before, BTreeSet::from(["lan".to_owned()]));
    run(first.apply(with_lan("lan"))).unwrap();
    assert_eq!(first.exempt_before(), &before);
    let mut next = Reconciler::new(kernel.clone(), Ownership::default());
    next.remember_exempt(before.clone());
    run(next.apply(with_lan("lan"))).unwrap();
    assert_eq!(next.exempt_before(), &before);
    run(next.apply(with_lan("lan2"))).unwrap();
    run(next.purge()).unwrap();
    assert_eq!(kernel.exempt(), before);
    // Made again meanwhile, it is nobody's.
    kernel.create_interface("lan");
    let mut last = Reconciler::new(kernel.clone(), Ownership::default());
    last.remember_exempt(before);
    run(last.apply(with_lan("lan"))).unwrap();
    run(last.purge()).unwrap();
    assert!(kernel.exempt().is_empty());
}

#[test]
fn a_lan_is_checked_again_although_the_policy_that_marks_it_is_gone() {
    let kernel = FakeKernel::new(["lan", "lan2"]);
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(with_lan("lan"))).unwrap();
    kernel.flush_policies();
    reconciler.invalidate(Parts::ALL);
    run(reconciler.apply(with_lan("lan2"))).unwrap();
    assert_eq!(kernel.exempt(), BTreeSet::from(["lan2".to_owned()]));
    // The kernel did it and its answer was lost.
    let kernel = FakeKernel::new(["lan"]);
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    kernel.fail(0, Fault::LoseAcknowledgement);
    run(reconciler.apply(with_lan("lan"))).unwrap();
    run(reconciler.purge()).unwrap();
    assert!(kernel.exempt().is_empty());
}

#[test]
fn a_counter_mode_sender_is_not_put_back() {
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(sending(0x1300, 0))).unwrap();
    kernel.flush_states();
    let outbound = SaId { destination: address("192.0.2.1"), spi: 0x1300 };
    for _ in 0..2 {
        let report = run(reconciler.repair(Parts::ALL)).unwrap();
        assert_eq!(report.suppressed, BTreeSet::from([outbound]));
        assert!(!kernel.sas().contains(&outbound));
    }
    // Receiving goes on.
    assert_eq!(kernel.sas().len(), 1);
    // The same TEK again is still the same TEK; another key under the same SPI is another one.
    assert_eq!(run(reconciler.apply(sending(0x1300, 0))).unwrap().suppressed.len(), 1);
    assert!(run(reconciler.apply(sending(0x1300, 7))).unwrap().suppressed.is_empty());
    assert!(kernel.sas().contains(&outbound));
    assert!(run(reconciler.apply(sending(0x1301, 0))).unwrap().suppressed.is_empty());
}

/// Sequence numbers and initialisation vectors go on where a translation gives the peer another port.
#[test]
fn other_udp_ports_change_a_state_in_place() {
    let to = |port: Option<u16>| {
        let mut desired = sending(0x1300, 0);
        for sa in desired.sas.values_mut() {
            let encapsulation =
                port.map(|port| Encapsulation { source_port: 4500, destination_port: port });
            sa.unicast = Some(Unicast { encapsulation, ..Unicast::default() });
        }
        desired
    };
    let outbound = SaId { destination: address("192.0.2.1"), spi: 0x1300 };
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(to(Some(1025)))).unwrap();
    let report = run(reconciler.apply(to(Some(1026)))).unwrap();
    let updates = report.done.iter().filter(|op| matches!(op, Op::UpdateSa { .. }));
    assert_eq!((updates.count(), report.done.len(), report.suppressed.len()), (2, 2, 0));
    assert!(run(reconciler.apply(to(Some(1026)))).unwrap().done.is_empty());
    // The key is still one that was installed.
    kernel.flush_states();
    let report = run(reconciler.repair(Parts::ALL)).unwrap();
    assert_eq!(report.suppressed, BTreeSet::from([outbound]));
}

/// The kernel takes over limits with the ports, and counts them from the installation: what is left
/// of a lifetime would end the state when its half is over.
#[test]
fn other_udp_ports_leave_the_end_of_a_state_as_it_is() {
    let to = |port, seconds| {
        let mut desired = sending(0x1300, 0);
        for sa in desired.sas.values_mut() {
            let encapsulation = Some(Encapsulation { source_port: 4500, destination_port: port });
            sa.unicast = Some(Unicast { encapsulation, ..Unicast::default() });
            sa.hard_lifetime = Some(Duration::from_secs(seconds));
        }
        desired
    };
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(to(1025, 3600))).unwrap();
    kernel.set_clock(2000);
    run(reconciler.apply(to(1026, 1600))).unwrap();
    let current = run(reconciler.read()).unwrap();
    assert_eq!(current.sas.len(), 2);
    for installed in current.sas.values() {
        let ends = Duration::from_secs(installed.added) + installed.sa.hard_lifetime.unwrap();
        assert_eq!(ends, Duration::from_secs(3600));
    }
}

/// The kernel cannot add or remove the header of an installed state.
#[test]
fn esp_in_udp_and_esp_alone_are_different_states() {
    let with = |encapsulation| {
        let mut desired = Desired::default();
        let mut sa = sa(SaRole::Inbound, 0x1300, 0, false);
        sa.unicast = Some(Unicast { encapsulation, ..Unicast::default() });
        desired.sas.insert(sa.id, sa);
        desired
    };
    let mut reconciler = Reconciler::new(kernel(), Ownership::default());
    run(reconciler.apply(with(None))).unwrap();
    let ports = Encapsulation { source_port: 4500, destination_port: 4500 };
    let done = run(reconciler.apply(with(Some(ports)))).unwrap().done;
    assert!(matches!(done.as_slice(), [Op::DeleteSa(_), Op::InstallSa(_)]), "{done:?}");
}

#[test]
fn a_lost_acknowledgement_does_not_install_a_counter_mode_sender_twice() {
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    kernel.fail(1, Fault::LoseAcknowledgement);
    run(reconciler.apply(sending(0x1300, 0))).unwrap();
    let outbound = SaId { destination: address("192.0.2.1"), spi: 0x1300 };
    let installs = kernel.log().iter().filter(|op| **op == Op::InstallSa(outbound)).count();
    assert_eq!(installs, 1);
    kernel.flush_states();
    assert_eq!(run(reconciler.repair(Parts::ALL)).unwrap().suppressed, BTreeSet::from([outbound]));
}

#[test]
fn a_new_key_costs_a_reading_of_its_states_alone() {
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(sending(0x1300, 0))).unwrap();
    let before = kernel.reads().len();
    run(reconciler.apply(sending(0x1301, 1))).unwrap();
    run(reconciler.release()).unwrap();
    assert_eq!(kernel.reads()[before..], [Parts::STATES, Parts::STATES]);
    // Nothing wanted that is not there: nothing to read.
    run(reconciler.apply(sending(0x1301, 1))).unwrap();
    assert_eq!(kernel.reads().len(), before + 2);
}

#[test]
fn what_is_stale_is_read_before_anything_is_decided() {
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(sending(0x1300, 0))).unwrap();
    let installed = kernel.sas();
    kernel.flush_states();
    run(reconciler.apply(sending(0x1300, 0))).unwrap();
    assert!(kernel.sas().is_empty(), "nobody has said a word");
    reconciler.invalidate(Parts::STATES);
    let report = run(reconciler.apply(sending(0x1300, 0))).unwrap();
    // The receiver is back; the sender counts its packets and is not put back.
    assert_eq!((report.done.len(), report.suppressed.len()), (1, 1));
    assert!(kernel.sas().is_subset(&installed));
}

#[test]
fn after_a_failure_everything_is_read_again() {
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(sending(0x1300, 0))).unwrap();
    kernel.fail(0, Fault::Refuse(EINVAL));
    run(reconciler.apply(sending(0x1301, 1))).unwrap_err();
    run(reconciler.repair(Parts::NONE)).unwrap();
    assert!(kernel.reads().contains(&Parts::ALL));
    assert_eq!(
        kernel.reads().iter().filter(|parts| **parts == Parts::ALL).count(),
        2,
        "{:?}",
        kernel.reads()
    );
}

/// A flush that nobody has reported yet meets a change of the sets: it is repaired at once.
#[test]
fn sets_of_tables_that_were_flushed_come_with_their_tables() {
    let kernel = kernel();
    let ownership = Ownership::default();
    let mut reconciler = Reconciler::new(kernel.clone(), ownership.clone());
    let desired = |spi| {
        let draw = Draw {
            policies: BTreeMap::new(),
            inbound: BTreeMap::from([(spi, 0)]),
            outbound: BTreeMap::new(),
            preservation: Some((false, 1)),
            route: None,
        };
        draw.desired()
    };
    run(reconciler.apply(desired(0x1300))).unwrap();
    kernel.flush_ruleset(&ownership);
    run(reconciler.apply(desired(0x1301))).unwrap();
    let wanted = desired(0x1301);
    assert!(settled(&mut kernel.clone(), &wanted));
}

/// Traffic that passes in clear becomes protected, as when a migration goes on. Guards that closed
/// first would drop it until the policy is there.
#[test]
fn guards_close_behind_the_policy_that_protects_from_now_on() {
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    let prefix = "172.16.0.0/12".parse().unwrap();
    let selector = Selector::between(prefix, prefix);
    let desired = |clear: bool| {
        let draw = Draw {
            policies: BTreeMap::new(),
            inbound: BTreeMap::from([(0x1300, 0)]),
            outbound: BTreeMap::new(),
            preservation: Some((false, 1)),
            route: None,
        };
        let mut desired = draw.desired();
        let preservation = desired.preservation.as_mut().unwrap();
        let excluded =
            if clear { &mut preservation.exclude } else { &mut preservation.exclude_arriving };
        excluded.insert(selector.clone());
        let id = PolicyId { direction: Direction::Out, selector: selector.clone() };
        let action = if clear { Action::Allow } else { Action::Block };
        desired.policies.insert(id.clone(), Policy { id, priority: 9, action });
        desired
    };
    let kinds = |ops: &[Op]| -> Vec<&str> {
        let kind = |op: &Op| match op {
            Op::UpdatePolicy { .. } => "policy",
            Op::ReplaceGuard | Op::ReplaceTables => "guards",
            _ => "other",
        };
        ops.iter().map(kind).collect()
    };
    run(reconciler.apply(desired(true))).unwrap();
    let report = run(reconciler.apply(desired(false))).unwrap();
    let done = kinds(&report.done);
    assert!(done.starts_with(&["policy", "guards"]) && !done.contains(&"other"), "{done:?}");
    assert!(settled(&mut kernel.clone(), &desired(false)));
    let report = run(reconciler.apply(desired(true))).unwrap();
    let done = kinds(&report.done);
    assert!(done.starts_with(&["guards"]) && done.ends_with(&["policy"]), "{done:?}");
    assert!(settled(&mut kernel.clone(), &desired(true)));
}

#[test]
fn a_foreign_policy_with_our_selector_is_named_and_left_alone() {
    let kernel = kernel();
    let mut desired = Desired::default();
    let mut other = foreign();
    other.action = Action::Allow;
    desired.policies.insert(other.id.clone(), other);
    let mut block = foreign();
    block.id.direction = Direction::In;
    desired.policies.insert(block.id.clone(), block.clone());
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    let report = run(reconciler.apply(desired)).unwrap();
    let causes: Vec<_> = report.foreign.values().collect();
    assert_eq!(causes, [&Error::ForeignPolicy(foreign().id)]);
    let text = causes[0].to_string();
    assert!(
        text.contains("203.0.113.0/24 -> 203.0.113.0/24") && text.contains("ip xfrm policy"),
        "{text}"
    );
    assert_eq!(kernel.foreign_policies(), [foreign()]);
    // The rest of the group is closed all the same.
    assert_eq!(kernel.policies(), [block]);
}

#[test]
fn a_foreign_state_with_our_identity_is_named_and_left_alone() {
    let kernel = kernel();
    let id = SaId { destination: address("10.0.1.1"), spi: 0x1300 };
    kernel.add_foreign_sa(id);
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    let report = run(reconciler.apply(sending(0x1300, 0))).unwrap();
    assert_eq!(
        report.foreign.into_iter().collect::<Vec<_>>(),
        [(Entry::State(id), Error::ForeignState(id))]
    );
    assert!(kernel.foreign_sas().contains(&id));
    // The sender does not wait for it, and it follows when the other one is gone.
    assert_eq!(kernel.sas().len(), 1);
    assert_eq!(run(reconciler.repair(Parts::NONE)).unwrap().foreign.len(), 1);
    kernel.flush_states();
    assert!(run(reconciler.repair(Parts::STATES)).unwrap().foreign.is_empty());
    assert!(kernel.sas().contains(&id));
}

/// Somebody else's changes interrupt a list again and again.
#[test]
fn an_interrupted_reading_is_repeated() {
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    kernel.interrupt(10);
    assert_eq!(run(reconciler.apply(sending(0x1300, 0))).unwrap().done.len(), 2);
    kernel.interrupt(3);
    assert!(run(reconciler.repair(Parts::ALL)).unwrap().done.is_empty());
    // Not for ever.
    kernel.interrupt(u32::MAX);
    assert!(run(reconciler.repair(Parts::ALL)).unwrap_err().is_transient());
}

#[test]
fn a_replaced_sender_stays_until_it_is_released() {
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(sending(0x1300, 0))).unwrap();
    let report = run(reconciler.apply(sending(0x1301, 1))).unwrap();
    let of_0x1300 =
        || kernel.sas().into_iter().filter(|id| id.spi == 0x1300).map(|id| id.destination);
    assert_eq!(of_0x1300().collect::<Vec<_>>(), [address("192.0.2.1")], "{report:?}");
    // Nothing more happens by itself, and another state in between does not end it.
    assert!(run(reconciler.apply(sending(0x1301, 1))).unwrap().done.is_empty());
    assert_eq!(run(reconciler.release()).unwrap().done.len(), 1);
    assert_eq!(of_0x1300().count(), 0);
    assert!(reconciler.replaced().is_empty());
    // Without anything in its place a sender goes at once.
    run(reconciler.apply(Desired::default())).unwrap();
    assert!(kernel.sas().is_empty());
}

#[test]
fn a_change_by_others_does_not_shorten_the_grace_of_a_replaced_sender() {
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(sending(0x1300, 0))).unwrap();
    run(reconciler.apply(sending(0x1301, 1))).unwrap();
    let old = SaId { destination: address("192.0.2.1"), spi: 0x1300 };
    for parts in [Parts::STATES, Parts::POLICIES, Parts::ALL] {
        assert!(run(reconciler.repair(parts)).unwrap().done.is_empty());
        assert!(kernel.sas().contains(&old) && reconciler.replaced().contains(&old));
    }
    // One that is missing is not put back: it would be as young as what took its place.
    kernel.flush_states();
    run(reconciler.repair(Parts::STATES)).unwrap();
    assert!(!kernel.sas().contains(&old) && reconciler.replaced().is_empty());
}

#[test]
fn a_replaced_sender_goes_at_once_where_the_kernel_would_prefer_it() {
    for (step, senders) in [(1000, 2), (0, 2), (-1, 1), (-1000, 1)] {
        let kernel = kernel();
        kernel.set_clock(5000);
        let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
        run(reconciler.apply(sending(0x1300, 0))).unwrap();
        kernel.set_clock(5000_u64.checked_add_signed(step).unwrap());
        let report = run(reconciler.apply(sending(0x1301, 1))).unwrap();
        let outbound: Vec<_> =
            kernel.sas().into_iter().filter(|id| id.destination == address("192.0.2.1")).collect();
        assert_eq!(outbound.len(), senders, "{step} s: {report:?}");
        assert_eq!(outbound.last().unwrap().spi, 0x1301);
        assert_eq!(reconciler.replaced().len(), senders - 1);
        // The new one was there before the old one went.
        let place = |spi, installed: bool| {
            let is = |op: &Op| match op {
                Op::InstallSa(id) => {
                    installed && id.spi == spi && id.destination == address("192.0.2.1")
                }
                Op::DeleteSa(id) => {
                    !installed && id.spi == spi && id.destination == address("192.0.2.1")
                }
                _ => false,
            };
            report.done.iter().position(is)
        };
        assert!(place(0x1300, false).is_none_or(|deleted| place(0x1301, true).unwrap() < deleted));
    }
}

#[test]
fn after_a_refusal_nothing_is_removed_but_keys_that_have_ended() {
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(sending(0x1300, 0))).unwrap();
    kernel.fail(0, Fault::Refuse(EINVAL));
    let outcome = run(reconciler.apply(sending(0x1301, 1)));
    assert!(matches!(outcome, Err(Error::Incomplete { .. })), "{outcome:?}");
    let removals =
        |op: &Op| matches!(op, Op::DeletePolicy { .. } | Op::DeleteRoute(_) | Op::RemoveTables);
    assert!(!kernel.log().iter().any(removals));
    // The sender stays for packets under way, the receiver does not.
    assert!(!kernel.sas().contains(&SaId { destination: address("10.0.1.1"), spi: 0x1300 }));
    assert_eq!(reconciler.replaced().iter().map(|id| id.spi).collect::<Vec<_>>(), [0x1300]);
    // What was asked for is kept, and a repair goes on.
    run(reconciler.repair(Parts::ALL)).unwrap();
    assert_eq!(kernel.sas().len(), 3);
    run(reconciler.release()).unwrap();
    assert_eq!(kernel.sas().len(), 2);
}

/// There are no rules that preserve IPv6 addresses: nothing is done at all rather than by halves.
#[test]
fn address_preservation_of_another_family_is_refused_as_a_whole() {
    let kernel = kernel();
    let mut reconciler = Reconciler::new(kernel.clone(), Ownership::default());
    run(reconciler.apply(sending(0x1300, 0))).unwrap();
    let before = (kernel.log().len(), kernel.sas());
    for field in [0, 1] {
        let mut desired = sending(0x1301, 1);
        let local = |address| GroupPreservation {
            local: address,
            outbound_reqids: BTreeSet::from([Reqid(0x4744_0000)]),
            inbound_spis: BTreeSet::from([0x1301]),
            fragments: BTreeSet::new(),
            dont_fragment: DontFragment::Clear,
            segment_size: SegmentSize::Unchanged,
        };
        let (v4, v6) = (address("192.0.2.1"), address("2001:db8::1"));
        let group = [(v6, local(v4)), (v4, local(v6))][field].clone();
        desired.preservation =
            Some(Preservation { groups: BTreeMap::from([group]), ..Preservation::default() });
        let refused = run(reconciler.apply(desired)).unwrap_err().to_string();
        assert!(refused.contains("2001:db8::1: IPv4 addresses are needed"), "{refused}");
        assert_eq!((kernel.log().len(), kernel.sas()), before);
    }
}

#[test]
fn keys_are_shown_nowhere() {
    let desired = sending(0x1300, 0x41);
    let text = format!("{desired:?}");
    assert!(
        text.contains("Key(36 octets)") && !text.contains("66, 66") && !text.contains("BB"),
        "{text}"
    );
}
