//! A router of one namespace, with a host on either side of it, and packets that the far one forges.

#![allow(dead_code, unreachable_pub, reason = "every test uses a part of it")]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};
use nix::unistd::gettid;
use xfrm::kernel::netlink::Netlink;
use xfrm::nft::Preservation;
use xfrm::{Desired, Ownership, Reconciler};

pub const UDP: u8 = 17;
pub const ESP: u8 = 50;
pub const COUNT: u32 = 3;

/// The hosts' addresses, the router's own to the far one, and a source that only forgers have.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);
pub const WAN: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 1);
pub const FORGED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// The same of IPv6.
pub const NEAR6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, 2);
pub const WAN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x201, 0, 0, 0, 0, 0, 1);
pub const FAR6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x201, 0, 0, 0, 0, 0, 2);
pub const FORGED6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 9);

pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

type Job = Box<dyn FnOnce() -> String + Send>;

/// Rules that count packets of IPv6 to the addresses above.
fn count6() -> String {
    let rule = |to| format!("nft add rule ip6 t c ip6 daddr {to} ip6 nexthdr != 58 counter;");
    [NEAR6, FAR6, FORGED6].into_iter().map(rule).collect()
}

fn send_raw(protocol: u8, to: Ipv4Addr, options: &[u8], payload: &[u8]) {
    let descriptor =
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
    let words = 5 + u8::try_from(options.len() / 4).unwrap();
    let source = if to == FORGED { NEAR } else { FORGED };
    let mut packet = vec![0x40 | words, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend(source.octets().into_iter().chain(to.octets()));
    packet.extend(options.iter().chain(payload));
    let [a, b, c, d] = to.octets();
    let address = SockaddrIn::new(a, b, c, d, 0);
    for _ in 0..COUNT {
        sendto(descriptor.as_raw_fd(), &packet, &address, MsgFlags::empty()).unwrap();
    }
}

/// A thread in a namespace of its own.
pub struct Host {
    thread: i32,
    jobs: Sender<Job>,
    answers: Receiver<String>,
}

impl Host {
    pub fn start() -> Self {
        let (jobs, received) = channel::<Job>();
        let (answer, answers) = channel();
        let (started, thread) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            started.send(gettid().as_raw()).unwrap();
            received.into_iter().for_each(|job| answer.send(job()).unwrap());
        });
        Self { thread: thread.recv().unwrap(), jobs, answers }
    }

    pub fn run(&self, job: impl FnOnce() -> String + Send + 'static) -> String {
        self.jobs.send(Box::new(job)).unwrap();
        self.answers.recv().unwrap()
    }

    pub fn sh(&self, command: &str) -> String {
        let command = command.to_owned();
        self.run(move || sh(&command))
    }

    /// Sends packets of UDP without a pause for so long; how many is answered at the end.
    pub fn send_for(&self, duration: Duration, to: Ipv4Addr, payload: Vec<u8>) {
        let job = move || {
            let (begin, mut sent) = (std::time::Instant::now(), 0_u32);
            while begin.elapsed() < duration {
                send_raw(UDP, to, &[], &payload);
                sent += COUNT;
                thread::sleep(Duration::from_millis(1));
            }
            sent.to_string()
        };
        self.jobs.send(Box::new(job)).unwrap();
    }

    /// How many packets that were, as soon as it has come to its end.
    pub fn sent(&self) -> u32 {
        self.answers.recv().unwrap().parse().unwrap()
    }

    /// Sends packets with these options and this payload.
    pub fn send(&self, protocol: u8, to: Ipv4Addr, options: Vec<u8>, payload: Vec<u8>) {
        self.run(move || {
            send_raw(protocol, to, &options, &payload);
            String::new()
        });
    }

    /// Sends packets of IPv6 whose first header behind the addresses is of this type.
    pub fn send6(&self, next: u8, from: Ipv6Addr, to: Ipv6Addr, rest: Vec<u8>) {
        self.run(move || {
            let descriptor =
                socket(AddressFamily::Inet6, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)
                    .unwrap();
            let [high, low] = u16::try_from(rest.len()).unwrap().to_be_bytes();
            let mut packet = vec![0x60, 0, 0, 0, high, low, next, 64];
            packet.extend(from.octets().into_iter().chain(to.octets()).chain(rest));
            let address = SockaddrIn6::from(std::net::SocketAddrV6::new(to, 0, 0, 0));
            for _ in 0..COUNT {
                sendto(descriptor.as_raw_fd(), &packet, &address, MsgFlags::empty()).unwrap();
            }
            String::new()
        });
    }

    /// Packets of IPv6 to this address that arrived since the last call, neighbour discovery apart.
    pub fn arrived6(&self, to: Ipv6Addr) -> u32 {
        thread::sleep(Duration::from_millis(100));
        let listed = self.sh("nft --numeric-protocol list chain ip6 t c");
        let rule = format!("ip6 daddr {to} ip6 nexthdr != 58 counter packets ");
        let line = listed.lines().find_map(|line| line.trim().strip_prefix(&rule));
        let number = line.and_then(|line| line.split(' ').next()).map(|text| text.parse().unwrap());
        self.sh(&format!("nft flush chain ip6 t c; {}", count6()));
        number.unwrap()
    }

    /// Packets of this protocol that arrived since the last call.
    pub fn arrived(&self, protocol: u8) -> u32 {
        thread::sleep(Duration::from_millis(100));
        let rule = format!("meta l4proto {protocol} counter packets ");
        let listed = self.sh("nft --numeric-protocol list chain ip t c");
        let line = listed.lines().find_map(|line| line.trim().strip_prefix(&rule));
        let number = line.and_then(|line| line.split(' ').next()).map(|text| text.parse().unwrap());
        self.sh("nft flush chain ip t c; nft add rule ip t c meta l4proto 17 counter; \
                 nft add rule ip t c meta l4proto 50 counter");
        number.unwrap()
    }
}

pub struct World {
    pub near: Host,
    pub far: Host,
    reconciler: Reconciler<Netlink>,
    runtime: tokio::runtime::Runtime,
}

impl World {
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let (near, far) = (Host::start(), Host::start());
        let open = "for name in all default $(ls /proc/sys/net/ipv4/conf); do \
                    echo 1 > /proc/sys/net/ipv4/conf/$name/accept_source_route; \
                    echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter; \
                    echo 0 > /proc/sys/net/ipv6/conf/$name/accept_dad; done";
        sh(&format!(
            "ip link set lo up
             ip link add lan type veth peer name eth0 netns {}
             ip link add wan type veth peer name eth0 netns {}
             ip addr add 10.200.0.1/24 dev lan; ip addr add 10.201.0.1/24 dev wan
             {open}
             ip link set lan up; ip link set wan up; echo 1 > /proc/sys/net/ipv4/ip_forward
             ip route add default via 10.201.0.2",
            near.thread, far.thread
        ));
        for (host, net) in [(&near, 200), (&far, 201)] {
            host.sh(&format!(
                "{open}
                 ip addr add 10.{net}.0.2/24 dev eth0; ip link set eth0 up
                 ip route add default via 10.{net}.0.1; echo 1 > /proc/sys/net/ipv4/ip_forward
                 nft 'add table ip t; add chain ip t c {{ type filter hook prerouting priority -300; }}; \
                      add rule ip t c meta l4proto 17 counter; add rule ip t c meta l4proto 50 counter'"
            ));
        }
        sh("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
            ip addr add fd00:200::1/64 dev lan nodad; ip addr add fd00:201::1/64 dev wan nodad
            ip route add default via fd00:201::2");
        for (host, net) in [(&near, 200), (&far, 201)] {
            host.sh(&format!(
                "ip link set lo up; ip addr add fd00:{net}::2/64 dev eth0 nodad
                 ip route add default via fd00:{net}::1
                 nft 'add table ip6 t; \
                      add chain ip6 t c {{ type filter hook prerouting priority -300; }}'
                 {}",
                count6()
            ));
        }
        // All neighbours are known then, and a busy machine has done everything above.
        far.sh("ping -q -c 1 -w 10 10.200.0.2; ping -q -c 1 -w 10 fd00:200::2");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let reconciler = runtime
            .block_on(async { Reconciler::new(Netlink::open().unwrap(), Ownership::default()) });
        Self { near, far, reconciler, runtime }
    }

    pub fn guard(&mut self, preservation: Preservation) {
        let desired = Desired { preservation: Some(preservation), ..Desired::default() };
        self.runtime.block_on(self.reconciler.apply(desired)).unwrap();
    }
}
