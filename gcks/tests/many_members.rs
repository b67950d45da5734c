//! The built daemon with 9,500 members and the receive buffer that Linux grants by default.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::{GroupArgument, Request, Response, ServerSnapshot};
use daemon::udp::{Incoming, Socket};
use gcks::config::Config;
use gcks::group::signing_key;
use gcks::members::registry::{MemberId, Pulled};
use gcks::persistence;
use gdoi::event::Transmit;
use gdoi::group::GroupId;
use gdoi::push::ack::acknowledge;
use gdoi::push::{AcknowledgementKind, AcknowledgementLength};
use ike::config::Identity;
use ike::crypto::Secret;
use support::*;
use testing::process::Running;

const MEMBERS: u32 = 9_500;

fn ask(folder: &Path, request: Request) -> Result<Response, control::client::ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(control::client::ask(&folder.join("control.sock"), request))
}

fn show(folder: &Path) -> ServerSnapshot {
    let begin = Instant::now();
    loop {
        match ask(folder, Request::ShowServer) {
            Ok(Response::Server(shown)) => return *shown,
            other => assert!(begin.elapsed() < Duration::from_secs(30), "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn member_address(number: u32, port: u16) -> SocketAddr {
    let [_, _, middle, low] = (number + 1).to_be_bytes();
    SocketAddr::new(IpAddr::from([127, 9, middle, low]), port)
}

/// Leaves a state with one member that registered and the others that did before; returns what
/// each of them acknowledges the next push with.
fn leave_state(config: impl Fn() -> Config, server: SocketAddr, port: u16) -> Vec<Vec<u8>> {
    let now = daemon::clock::now();
    let opened = persistence::open(&config(), None).unwrap();
    let keys = signing_key::load_all(&config().groups).unwrap();
    let (mut key_server, writer) = persistence::start(config(), &keys, Some(opened), now).unwrap();
    let mut writer = writer.unwrap();
    let first = member_address(0, port);
    let mut asks = registration(0, 1, 1, first, server);
    asks.phase1.transforms[0].group = ike::crypto::DhGroup::Ecp256;
    let mut member = gdoi::member::Registration::new(asks, [5; 32], now);
    let group_sa = loop {
        if let Some(outcome) = outcome(&mut member, now) {
            break outcome.group_sa();
        }
        while let Some(sent) = member.poll_transmit() {
            key_server.handle_datagram(first, server, &sent.payload, now).unwrap();
        }
        writer.save(&mut key_server, now);
        writer.wait().unwrap();
        while let Some(sent) = key_server.poll_transmit() {
            let _ = member.handle_datagram(server, &sent.payload, now);
        }
    };
    for number in 1..MEMBERS {
        let address = member_address(number, port);
        let id = MemberId { identity: Identity::Address(address.ip()), address: address.ip() };
        let name = Arc::from("g1");
        let pulled = Pulled { name, address, local: server, keys_end: None, leaf: None };
        let (group, _) = key_server.group_mut(GroupId(1)).unwrap();
        group.registry_mut().record(id, pulled, now);
    }
    writer.save(&mut key_server, now);
    writer.wait().unwrap();
    writer.finish();
    let (policy, kek) = (group_sa.policy().kek.as_ref().unwrap(), group_sa.kek_keys().unwrap());
    let key = Secret::copy_from(&kek.algorithm_key.expose()[16..]);
    let acknowledgement = |number| {
        let (kind, length) = (AcknowledgementKind::KekSha256, AcknowledgementLength::default());
        let address = member_address(number, port).ip();
        acknowledge(kind, length, &key, &policy.spi, 1, address).unwrap()
    };
    (0..MEMBERS).map(acknowledgement).collect()
}

/// Acknowledges each push at once, from the address that it came to.
fn acknowledge_all(port: u16, answers: Vec<Vec<u8>>) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let socket = Socket::bind(SocketAddr::from(([0, 0, 0, 0], port))).unwrap();
            socket.reserve_receive_buffer(16 * 1024 * 1024);
            let mut buffer = vec![0; 65_535];
            loop {
                let Ok(Incoming::Datagram { source, local, .. }) =
                    socket.receive(&mut buffer).await
                else {
                    continue;
                };
                let IpAddr::V4(address) = local.ip() else { continue };
                let [_, _, middle, low] = address.octets();
                let number = usize::from(u16::from_be_bytes([middle, low])) - 1;
                let payload = answers[number].clone();
                socket.send(&Transmit { destination: source, source: local, payload }).unwrap();
            }
        });
    });
}

#[test]
fn no_acknowledgement_of_9500_is_lost_in_a_default_receive_buffer() {
    let directory = keys();
    let free = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (port, members_port) = (free(), free());
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    // What the kernel grants where net.core.rmem_max has its default.
    let head = format!(
        "listen = [\"127.0.0.1\"]\nport = {port}\n[limits]\nreceive-buffer = 212992\n[ike]\ndh-group = [19]"
    );
    // Without copies, whatever is lost is missing.
    let tail = pushes("retransmissions = 0");
    let text = configuration_with(directory.path(), &head, "127.9.0", CBC, &tail)
        .replace("address = \"127.9.0.1\"", "address = \"127.9.0.0/16\"")
        .replace("address = \"127.9.0.2\"", "address = \"127.10.0.2\"")
        .replace("address = \"127.9.0.3\"", "address = \"127.10.0.3\"");
    let config = || parse(&text);
    let answers = leave_state(config, server, members_port);
    acknowledge_all(members_port, answers);
    let file = file(directory.path(), "gcks.toml", &text);
    let daemon = Command::new(env!("CARGO_BIN_EXE_gcks"))
        .arg("--config")
        .arg(file)
        .args(["--log", "warn"])
        .env_remove("NOTIFY_SOCKET")
        .stderr(Stdio::inherit())
        .spawn();
    let _daemon = Running(daemon.unwrap());
    assert_eq!(show(directory.path()).groups[0].members, u64::from(MEMBERS));
    // A machine that is busy with other things may not let the server read for a while; what is lost
    // in each of three pushes is the server's own doing.
    let mut figures = push(directory.path());
    for _ in 0..2 {
        if figures.acknowledgements_missing == 0 {
            break;
        }
        println!("{} lost: once more", figures.acknowledgements_missing);
        figures = push(directory.path());
    }
    assert_eq!(figures.acknowledgements, u64::from(MEMBERS), "{figures:?}");
    assert_eq!((figures.acknowledgements_missing, figures.members_unresponsive), (0, 0));
}

/// What became of one push: counters of this one alone.
fn push(folder: &Path) -> PushFigures {
    let counted = || show(folder).groups[0].rekey.clone().unwrap();
    let (before, begin) = (counted(), Instant::now());
    let rekey = Request::Rekey(GroupArgument { group: "one".to_owned() });
    assert!(matches!(ask(folder, rekey), Ok(Response::Done(_))));
    loop {
        let now = counted();
        let figures = PushFigures {
            acknowledgements: now.acknowledgements - before.acknowledgements,
            acknowledgements_missing: now.acknowledgements_missing
                - before.acknowledgements_missing,
            members_unresponsive: now.members_unresponsive,
        };
        let heard = figures.acknowledgements + figures.acknowledgements_missing;
        if heard >= u64::from(MEMBERS) || begin.elapsed() > Duration::from_secs(60) {
            println!("{} acknowledgements after {:?}", figures.acknowledgements, begin.elapsed());
            return figures;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[derive(Debug)]
struct PushFigures {
    acknowledgements: u64,
    acknowledgements_missing: u64,
    members_unresponsive: u64,
}
