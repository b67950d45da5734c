//! A push to hundreds of members on the key server's own LAN that are switched off: none of them
//! answers ARP, so the kernel keeps each datagram for seconds and the socket's buffer stays full.
//! Sending never waits for it.
//!
//! In a network namespace of its own; needs root.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use control::{GroupArgument, Request, Response};
use daemon::clock;
use gcks::group::key_generation::OsEntropy;
use gcks::group::signing_key;
use gcks::members::registry::{MemberId, Pulled};
use gcks::persistence;
use gcks::server::KeyServer;
use gcks::writer::Writer;
use gdoi::group::GroupId;
use gdoi::member::Registration;
use ike::config::Identity;
use nix::sched::{CloneFlags, unshare};
use support::*;
use testing::process::{Running, sh};

const SWITCHED_OFF: u8 = 200;
const LANS: [u8; 2] = [128, 129];
/// What a stopped loop missed by far: it answered after 6 to 8 seconds.
const AT_ONCE: Duration = Duration::from_secs(2);

fn host(lan: u8, last: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 9, lan, last), 848))
}

fn server() -> SocketAddr {
    host(0, 100)
}

/// The state of a key server that all those members have registered with.
fn prepare(text: &str) {
    let config = parse(text);
    let keys = signing_key::load_all(&config.groups).unwrap();
    let opened = persistence::open(&config, None).unwrap();
    let (mut service, writer) =
        persistence::start(config, &keys, Some(opened), clock::now()).unwrap();
    let mut writer = writer.unwrap();
    let save = |service: &mut KeyServer<OsEntropy>, writer: &mut Writer| {
        writer.save(service, clock::now());
        writer.wait().unwrap();
    };
    let first = host(LANS[0], 1);
    let config = registration(0, 1, 1, first, server());
    let mut member = Registration::new(config, [3; 32], clock::now());
    loop {
        if let Some(outcome) = outcome(&mut member, clock::now()) {
            outcome.group_sa();
            break;
        }
        while let Some(sent) = member.poll_transmit() {
            service.handle_datagram(first, server(), &sent.payload, clock::now()).unwrap();
        }
        save(&mut service, &mut writer);
        while let Some(sent) = service.poll_transmit() {
            member.handle_datagram(sent.source, &sent.payload, clock::now()).unwrap();
        }
    }
    let (group, _) = service.group_mut(GroupId(1)).unwrap();
    for (lan, last) in LANS.iter().flat_map(|lan| (1..=SWITCHED_OFF).map(|last| (*lan, last))) {
        let address = host(lan, last);
        let id = MemberId { identity: Identity::Address(address.ip()), address: address.ip() };
        let (local, name) = (server(), "g1".into());
        let pulled = Pulled { name, address, local, keys_end: None, leaf: None };
        group.registry_mut().record(id, pulled, clock::now());
    }
    save(&mut service, &mut writer);
    writer.finish();
}

fn ask(socket: &std::path::Path, request: Request) -> (Response, Duration) {
    let begin = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let response = runtime.block_on(control::client::ask(socket, request)).unwrap();
    (response, begin.elapsed())
}

/// How long a responsive member's registration takes, and in how many datagrams.
fn register_live() -> (Duration, usize) {
    let socket = UdpSocket::bind(host(0, 2)).unwrap();
    let begin = Instant::now();
    let config = registration(0, 2, 1, host(0, 2), server());
    let (outcome, sent) = register_by(&socket, config, server());
    outcome.group_sa();
    (begin.elapsed(), sent)
}

#[test]
fn a_push_to_members_that_are_switched_off_stops_nothing() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it takes root to make a network namespace");
        return;
    }
    // The thread of the test alone moves, and everything it starts.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    sh("ip link set lo up; ip link add lan type veth peer name nobody
        ip link set lan up; ip link set nobody up
        ip addr add 10.9.0.100/16 dev lan; ip addr add 10.9.0.2/32 dev lo");
    let directory = keys();
    let head = "listen = [\"10.9.0.100\"]\nport = 848\n[ike]\ndh-group = [19]";
    let text = configuration_with(directory.path(), head, "10.9.0", CBC, &pushes(""));
    let text = text.replacen("address = \"10.9.0.1\"", "address = \"10.9.128.0/17\"", 1);
    prepare(&text);
    let config = file(directory.path(), "gcks.toml", &text);
    let log = directory.path().join("log");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_gcks"));
    daemon.arg("--config").arg(config).args(["--log", "debug"]).env_remove("NOTIFY_SOCKET");
    let daemon = daemon.stderr(std::fs::File::create(&log).unwrap()).spawn();
    let mut daemon = Running(daemon.unwrap());
    let logged = |text: &str| std::fs::read_to_string(&log).unwrap().contains(text);
    while !logged("key server is ready") {
        assert!(daemon.0.try_wait().unwrap().is_none(), "the daemon ended");
        std::thread::sleep(Duration::from_millis(20));
    }

    let socket = directory.path().join("control.sock");
    let members = usize::from(SWITCHED_OFF) * LANS.len();
    // Until the buffer has been full for longer than a datagram waits for room in it; how large it
    // is the machine's administrator decides (net.core.wmem_max).
    let mut rekey_took = Duration::ZERO;
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        let rekey = Request::Rekey(GroupArgument { group: String::from("one") });
        let (answer, took) = ask(&socket, rekey);
        match answer {
            Response::Done(done) => {
                assert!(done.message.contains(&members.to_string()), "{done:?}")
            }
            other => panic!("{other:?}"),
        }
        rekey_took = rekey_took.max(took);
        if logged("send-queue-expired") {
            break;
        }
        // Pushes leave in portions: the next ones queue behind them.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(logged("send-queue-expired"), "the buffer was never full for long");
    let shown = std::thread::spawn({
        let socket = socket.clone();
        move || {
            (0..10)
                .map(|_| {
                    std::thread::sleep(Duration::from_millis(300));
                    ask(&socket, Request::ShowServer).1
                })
                .max()
                .unwrap()
        }
    });
    let (registration_took, sent) = register_live();
    let show_took = shown.join().unwrap();
    println!(
        "rekey {rekey_took:?}, registration {registration_took:?} in {sent}, show {show_took:?}"
    );
    assert!(rekey_took < AT_ONCE && show_took < AT_ONCE, "{rekey_took:?} {show_took:?}");
    assert_eq!(sent, 5, "three messages of main mode and two of the pull, none repeated");
}
