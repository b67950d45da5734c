//! What the guards and blocks cost packets that are none of the group's: the router forwards them
//! between two namespaces, and the time is the sender's, in which the kernel forwards.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by failing")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;
use xfrm::kernel::netlink::Netlink;
use xfrm::model::{Action, Direction, Policy, PolicyId, Selector};
use xfrm::nft::Preservation;
use xfrm::{Desired, Ownership, Reconciler};

fn sh(command: &str) {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Prefix number `number` of 256 octets, no two of which are neighbours.
fn prefix(number: u32) -> IpNet {
    IpNet::V4(Ipv4Net::new(Ipv4Addr::from(0x0a40_0000 + number * 512), 24).unwrap())
}

/// Guards of so many groups, prefixes of each and lines outside of them, and the block policies of
/// pairs as `policies` makes them.
fn desired([groups, prefixes, lines]: [u32; 3]) -> Desired {
    let own = |group| (0..prefixes).map(|number| prefix(group * prefixes + number)).collect();
    let preservation = Preservation {
        lan: BTreeSet::from([String::from("lan")]),
        wan: BTreeSet::from([String::from("wan")]),
        protected: (0..groups).map(own).collect(),
        guard: (0..lines).map(|line| (prefix(8_000 + line), prefix(12_000 + line))).collect(),
        ..Preservation::default()
    };
    let pairs = |own: &BTreeSet<IpNet>| -> Vec<(IpNet, IpNet)> {
        own.iter().flat_map(|from| own.iter().map(|to| (*from, *to))).collect()
    };
    let blocked = preservation.protected.iter().filter(|own| own.len() <= 64).flat_map(pairs);
    let mut policies = BTreeMap::new();
    for (source, destination) in blocked.chain(preservation.guard.iter().copied()) {
        for direction in [Direction::Out, Direction::In, Direction::Forward] {
            let (protocol, source_port, destination_port, interface) = (0, 0, 0, None);
            let selector = Selector {
                source,
                destination,
                protocol,
                source_port,
                destination_port,
                portless: false,
                interface,
            };
            let id = PolicyId { direction, selector };
            let policy = Policy { id: id.clone(), priority: 11_000_000, action: Action::Block };
            policies.insert(id, policy);
        }
    }
    let exempt = BTreeSet::from([String::from("lan")]);
    Desired { policies, preservation: Some(preservation), exempt, ..Desired::default() }
}

/// A thread in a namespace of its own, which runs commands there and measures.
struct Host {
    thread: i32,
    commands: Sender<String>,
    answers: Receiver<Duration>,
}

impl Host {
    fn start() -> Self {
        let (commands, received) = channel::<String>();
        let (answer, answers) = channel();
        let (started, thread) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            started.send(gettid().as_raw()).unwrap();
            for command in received {
                match command.strip_prefix("send ") {
                    Some(to) => answer.send(fastest(to)).unwrap(),
                    None => {
                        sh(&command);
                        answer.send(Duration::ZERO).unwrap();
                    }
                }
            }
        });
        Self { thread: thread.recv().unwrap(), commands, answers }
    }

    fn run(&self, command: &str) -> Duration {
        self.commands.send(command.to_owned()).unwrap();
        self.answers.recv().unwrap()
    }
}

/// The thread's processor time for a packet, of the fastest of many bursts.
fn fastest(to: &str) -> Duration {
    const PACKETS: u32 = 4_000;
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(to).unwrap();
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let burst = |_| {
        let before = now();
        for _ in 0..PACKETS {
            socket.send(&[0; 64]).unwrap();
        }
        (now() - before) / PACKETS
    };
    (0..24).map(burst).min().unwrap()
}

/// The bars hold for the median of three rounds.
#[test]
#[ignore = "needs root and nft: makes network namespaces"]
fn unrelated_forwarding_stays_below_twice_its_price() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let (near, far) = (Host::start(), Host::start());
    sh(&format!(
        "ip link set lo up
         ip link add lan type veth peer name eth0 netns {}
         ip link add wan type veth peer name eth0 netns {}
         ip addr add 10.200.0.1/24 dev lan; ip addr add 10.201.0.1/24 dev wan
         ip link set lan up; ip link set wan up; echo 1 > /proc/sys/net/ipv4/ip_forward",
        near.thread, far.thread
    ));
    for (host, net) in [(&near, 200), (&far, 201)] {
        host.run(&format!(
            "ip addr add 10.{net}.0.2/24 dev eth0; ip link set eth0 up
             ip route add default via 10.{net}.0.1"
        ));
    }
    // No ICMP errors on the way back.
    far.run(
        "nft 'add table ip t; add chain ip t c { type filter hook prerouting priority -300; }; \
         add rule ip t c udp dport 9 drop'",
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut reconciler =
        runtime.block_on(async { Reconciler::new(Netlink::open().unwrap(), Ownership::default()) });
    let mut measured = BTreeMap::new();
    let loads = [
        ([1, 1, 0], 1.5),
        ([1, 60, 0], 2.0),
        ([1, 200, 0], 2.0),
        ([50, 1, 0], 2.0),
        ([1, 1, 1000], 2.0),
    ];
    for _ in 0..3 {
        let nothing = near.run("send 10.201.0.2:9").as_secs_f64();
        for (load, _) in loads {
            runtime.block_on(reconciler.apply(desired(load))).unwrap();
            let ratio = near.run("send 10.201.0.2:9").as_secs_f64() / nothing;
            measured.entry(load).or_insert_with(Vec::new).push(ratio);
            runtime.block_on(reconciler.purge()).unwrap();
        }
    }
    for (load, bar) in loads {
        let mut ratios = measured.remove(&load).unwrap();
        ratios.sort_by(f64::total_cmp);
        let [groups, prefixes, lines] = load;
        println!("{groups} groups of {prefixes} prefixes, {lines} lines: {ratios:.2?}");
        assert!(ratios.get(1).is_some_and(|ratio| *ratio <= bar), "{load:?}: {ratios:?}");
    }
}
