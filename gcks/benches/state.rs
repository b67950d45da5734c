//! What the kept state costs: a registration with its record on the disk, few and many members
//! before it, and the start of a server that had many.
//!
//! The key server and its store are driven directly, without sockets. Arithmetic of phase 1 is left
//! out of the figures: it does not depend on the number of members and would hide what does. Only
//! the messages of the pull and the writes are counted.
//!
//! `cargo bench -p gcks --bench state -- [--members N]`

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that fails has nothing to go on with"
)]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gcks::config::{self, Config, Member};
use gcks::group::key_generation::OsEntropy;
use gcks::group::signing_key::{self, SigningKeys};
use gcks::members::registry::{MemberId, Pulled};
use gcks::persistence;
use gcks::server::KeyServer;
use gcks::writer::Writer;
use gdoi::event::RegistrationEvent;
use gdoi::group::GroupId;
use gdoi::member::Registration;
use ike::BootTime;
use ike::config::Identity;
use ike::crypto::DhGroup;
use support::{option, processor_time};

/// The 10,000th registration costs at most so many times what the 100th costs.
const GROWTH: f64 = 1.2;
const START: Duration = Duration::from_secs(1);
/// Registrations of which the median counts.
const SAMPLES: u32 = 60;

fn main() -> ExitCode {
    let members = option("--members", 10_000);
    let directory = tempfile::tempdir().unwrap();
    let (few, _) = measure(directory.path(), "few", 100);
    let (many, start) = measure(directory.path(), "many", members);
    let growth = many.as_secs_f64() / few.as_secs_f64();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!("registration with its write after 100 members      {:>8.0} us CPU", micros(few));
    println!("registration with its write after {members} members {:>8.0} us CPU", micros(many));
    println!("growth {growth:.2} (bar {GROWTH})");
    println!(
        "start with {members} members {:.3} s (bar {:.0} s)",
        start.as_secs_f64(),
        START.as_secs_f64()
    );
    match growth <= GROWTH && start < START {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The median of registrations behind `members` others, and the time of a start after them.
fn measure(directory: &Path, name: &str, members: u32) -> (Duration, Duration) {
    let folder = directory.join(name);
    std::fs::create_dir(&folder).unwrap();
    let config = || configuration(&folder, members + SAMPLES);
    let keys = signing_key::load_all(&config().groups).unwrap();
    let now = BootTime::new(Duration::from_secs(1000));
    let (mut server, mut state) = start(config(), &keys, now);
    for number in 0..members {
        enter(&mut server, number, now);
    }
    save(&mut server, &mut state, now);
    let mut times: Vec<Duration> = (members..members + SAMPLES)
        .map(|number| register(&mut server, &mut state, number, now))
        .collect();
    times.sort();
    drop(server);
    state.finish();
    let begin = Instant::now();
    let (mut server, mut state) = start(config(), &keys, now);
    save(&mut server, &mut state, now);
    let took = begin.elapsed();
    let registered = server.groups().next().unwrap().registry().len();
    assert_eq!(registered, (members + SAMPLES) as usize);
    (times[times.len() / 2], took)
}

fn start(config: Config, keys: &SigningKeys, now: BootTime) -> (KeyServer<OsEntropy>, Writer) {
    let opened = persistence::open(&config, None).unwrap();
    let (server, state) = persistence::start(config, keys, Some(opened), now).unwrap();
    (server, state.unwrap())
}

fn save(server: &mut KeyServer<OsEntropy>, state: &mut Writer, now: BootTime) {
    state.save(server, now);
    state.wait().unwrap();
}

/// A configuration with so many members, each with a key of its own.
fn configuration(folder: &Path, members: u32) -> Config {
    let rekey = "[group.rekey]\nsigning-key = \"ecdsa-p256\"\n[ike]\ndh-group = [19]";
    let head = format!("listen = [\"10.255.0.1\"]\nstate-directory = \"{}\"", folder.display());
    let text = support::configuration(folder, &head, "10.0.0.0/8", rekey);
    let mut config =
        config::parse("bench.toml", &text).unwrap_or_else(|report| panic!("{report}")).value;
    let template = config.members.pop().unwrap();
    config.members = (0..members)
        .map(|number| Member {
            name: format!("member {number}"),
            addresses: address(number).ip().into(),
            ..template.clone()
        })
        .collect();
    config
}

fn address(number: u32) -> SocketAddr {
    let [_, high, middle, low] = (number + 1).to_be_bytes();
    SocketAddr::new(IpAddr::from([10, high, middle, low]), 848)
}

/// A member that registered before.
fn enter(server: &mut KeyServer<OsEntropy>, number: u32, now: BootTime) {
    let address = address(number);
    let id = MemberId { identity: Identity::Address(address.ip()), address: address.ip() };
    let pulled = Pulled {
        name: Arc::from(format!("member {number}")),
        address,
        local: "10.255.0.1:848".parse().unwrap(),
        keys_end: None,
        leaf: None,
    };
    let (group, _) = server.group_mut(GroupId(1)).unwrap();
    group.registry_mut().record(id, pulled, now);
}

/// What the pull of a member costs that has its ISAKMP SA, with all writes.
fn register(
    server: &mut KeyServer<OsEntropy>,
    state: &mut Writer,
    number: u32,
    now: BootTime,
) -> Duration {
    let (local, remote) = (address(number), "10.255.0.1:848".parse().unwrap());
    let config = support::registration(local, remote, DhGroup::Ecp256);
    let mut member = Registration::new(config, daemon::entropy::seed().unwrap(), now);
    let mut cost = Duration::ZERO;
    for exchange in 0..100 {
        while let Some(event) = member.poll_event() {
            match event {
                RegistrationEvent::PolicyOffered(_) => member.accept_policy(now),
                RegistrationEvent::Registered(_) => return cost,
                RegistrationEvent::Failed(failure) => panic!("{failure}"),
                _ => {}
            }
        }
        let datagrams: Vec<_> = std::iter::from_fn(|| member.poll_transmit()).collect();
        let begin = processor_time("self");
        for datagram in datagrams {
            server.handle_datagram(local, remote, &datagram.payload, now).unwrap();
        }
        save(server, state, now);
        let answers: Vec<_> = std::iter::from_fn(|| server.poll_transmit()).collect();
        // Main mode takes the first three.
        if exchange >= 3 {
            cost += processor_time("self").saturating_sub(begin);
        }
        for answer in answers {
            member.handle_datagram(remote, &answer.payload, now).unwrap();
        }
    }
    panic!("the registration does not end");
}
