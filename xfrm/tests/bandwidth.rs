//! The policers of a gateway against the real kernel: what of a stream of ESP in UDP passes in each
//! direction, while the figure changes under way.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by failing")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use xfrm::kernel::netlink::Netlink;
use xfrm::nft::{Bandwidth, Preservation};
use xfrm::{Desired, Ownership, Reconciler};

const OWN: &str = "10.0.1.1:4500";
const PEER: &str = "10.0.1.2:4500";
/// Octets of UDP payload, and of the whole packet.
const PAYLOAD: usize = 1400;
const PACKET: u64 = 1428;
/// The bucket of a policer holds a second of its rate; twice the rate empties it in another one.
const SETTLED: Duration = Duration::from_millis(2_500);
const MEASURED: Duration = Duration::from_secs(4);

fn sh(command: &str) {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn desired(mbit: u64) -> Desired {
    let ends = BTreeSet::from([("10.0.1.1".parse().unwrap(), "10.0.1.2".parse().unwrap())]);
    let bandwidth = Bandwidth { octets_per_second: mbit * 125_000, ends };
    let bandwidth = BTreeMap::from([(String::from("cloud"), bandwidth)]);
    let preservation = Preservation { bandwidth, ..Preservation::default() };
    Desired { preservation: Some(preservation), ..Desired::default() }
}

/// Sends at twice this rate until everything is measured.
fn send(socket: &UdpSocket, to: &str, mbit: u64) {
    let (started, mut sent) = (Instant::now(), 0_u128);
    let octets = [0x47; PAYLOAD];
    while started.elapsed() < SETTLED + MEASURED + Duration::from_secs(1) {
        let due = u128::from(mbit) * 250_000 * started.elapsed().as_micros() / 1_000_000;
        if sent >= due {
            thread::sleep(Duration::from_micros(500));
            continue;
        }
        // Dropped by our own table: an error at the socket, and nothing else.
        let _ = socket.send_to(&octets, to);
        sent += u128::from(PACKET);
    }
}

/// Megabits a second that arrive, once the bucket is empty.
fn received(socket: &UdpSocket) -> f64 {
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (started, mut packets) = (Instant::now(), 0_u32);
    let mut buffer = [0; 2 * PAYLOAD];
    while started.elapsed() < SETTLED + MEASURED {
        if socket.recv_from(&mut buffer).is_ok() && started.elapsed() >= SETTLED {
            packets += 1;
        }
    }
    f64::from(packets) * 1428.0 * 8.0 / MEASURED.as_secs_f64() / 1e6
}

/// The peer, in a namespace of its own: sends and measures at the same time.
fn peer(
    started: Sender<i32>,
    go: std::sync::mpsc::Receiver<u64>,
    told: Sender<f64>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        started.send(gettid().as_raw()).unwrap();
        let mut socket = None;
        for mbit in go {
            let socket = socket.get_or_insert_with(|| UdpSocket::bind(PEER).unwrap());
            let sender = socket.try_clone().unwrap();
            let sending = thread::spawn(move || send(&sender, OWN, mbit));
            told.send(received(socket)).unwrap();
            sending.join().unwrap();
        }
    })
}

#[test]
#[ignore = "needs root and nft: makes network namespaces"]
fn a_gateway_carries_its_figure_in_each_direction() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let (started, thread) = channel();
    let (go, figures) = channel();
    let (told, answers) = channel();
    let peer = peer(started, figures, told);
    let thread = thread.recv().unwrap();
    sh(&format!(
        "ip link set lo up; ip link add wan type veth peer name eth0 netns {thread}
         ip addr add 10.0.1.1/24 dev wan; ip link set wan up
         nsenter --net=/proc/self/task/{thread}/ns/net sh -ec 'ip addr add 10.0.1.2/24 dev eth0; ip link set eth0 up' 2>/dev/null \
         || nsenter --net=/proc/{thread}/ns/net sh -ec 'ip addr add 10.0.1.2/24 dev eth0; ip link set eth0 up'"
    ));
    let own = UdpSocket::bind(OWN).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let netlink = runtime.block_on(async { Netlink::open().unwrap() });
    let mut reconciler = Reconciler::new(netlink, Ownership::default());
    for mbit in [10, 20, 30, 10] {
        runtime.block_on(async { reconciler.apply(desired(mbit)).await.unwrap() });
        go.send(mbit).unwrap();
        let sender = own.try_clone().unwrap();
        let sending = thread::spawn(move || send(&sender, PEER, mbit));
        let arrived = received(&own);
        sending.join().unwrap();
        let left = answers.recv().unwrap();
        println!("{mbit} Mbit/s: {left:.2} sent, {arrived:.2} received");
        for measured in [left, arrived] {
            let ratio = measured / f64::from(u32::try_from(mbit).unwrap());
            assert!((0.95..=1.03).contains(&ratio), "{measured} of {mbit} Mbit/s");
        }
    }
    runtime.block_on(async { reconciler.purge().await.unwrap() });
    drop(go);
    peer.join().unwrap();
}
