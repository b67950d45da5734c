//! Members for the tests of the key server.

#![allow(dead_code, unreachable_pub, reason = "every test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

pub mod cluster;
pub mod etcd;
pub mod lab;
pub mod told;
pub mod witness;
pub mod world;

use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gcks::config::{self, Config};
use gcks::group::key_generation::{Entropy, OsEntropy};
use gcks::group::signing_key::{self, SigningKeys};
use gcks::server::KeyServer;
use gcks::server::event::Event;
use gdoi::config::RegistrationConfig;
use gdoi::event::{RegistrationEvent, RegistrationFailure};
use gdoi::group::{GroupId, GroupSa};
use gdoi::member::Registration;
use ike::BootTime;
use ike::config::{Identity, Phase1Policy, Phase1Transform, RetransmissionPolicy};
use ike::crypto::Secret;
use ike::crypto::{DhGroup, HashAlgorithm, Phase1Encryption};

/// The key server's address in tests without sockets.
pub const SERVER: &str = "10.0.9.1:848";

pub fn at(seconds: u64) -> BootTime {
    BootTime::new(Duration::from_secs(seconds))
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A folder with the key files k1, k2, k3 of the members.
pub fn keys() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for number in 1..=3 {
        write(&directory.path().join(format!("k{number}")), &key(number), 0o600);
    }
    directory
}

pub fn key(number: u8) -> String {
    // Nothing that a log line may say by chance.
    format!("Gq#7tZ9!wR4^nB2&xK{number}%vM5")
}

pub fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Members g1 and g2 of group 1, g3 of group 2; addresses are `network`.1 to .3, the groups' TEKs
/// are `tek`.
pub fn configuration(directory: &Path, head: &str, network: &str, tek: &str) -> String {
    configuration_with(directory, head, network, tek, "")
}

/// The same with `tail` at the end of every group.
pub fn configuration_with(
    directory: &Path,
    head: &str,
    network: &str,
    tek: &str,
    tail: &str,
) -> String {
    let mut text = format!("control-socket = \"{}/control.sock\"\n", directory.display());
    if !head.contains("state-directory") {
        text += &format!("state-directory = \"{}\"\n", directory.display());
    }
    text += &format!("{head}\n");
    for (number, group) in [(1, "one"), (2, "one"), (3, "two")] {
        text += &format!(
            "[[member]]\nname = \"g{number}\"\naddress = \"{network}.{number}\"\n\
             pre-shared-key-file = \"{}/k{number}\"\ngroups = [\"{group}\"]\n",
            directory.display()
        );
    }
    for (id, name) in [(1, "one"), (2, "two")] {
        text += &format!(
            "[[group]]\nname = \"{name}\"\nid = {id}\n[[group.tek]]\n{tek}\n[[group.tek.policy]]\n\
             source = \"172.16.0.0/12\"\ndestination = \"172.16.0.0/12\"\n{tail}\n"
        );
    }
    text
}

pub const CBC: &str = "encryption = \"aes-256-cbc\"\nintegrity = \"hmac-sha2-256-128\"";
pub const GCM: &str = "encryption = \"aes-256-gcm-16\"";

pub fn parse(text: &str) -> Config {
    config::parse("gcks.toml", text).unwrap_or_else(|report| panic!("{report}")).value
}

pub fn service(tek: &str) -> KeyServer<OsEntropy> {
    let directory = keys();
    start(parse(&configuration(directory.path(), "", "10.0.0", tek)))
}

/// Keys that sign the pushes of all groups, made for this test.
pub fn signing_keys(config: &Config) -> SigningKeys {
    let with_pushes =
        config.groups.iter().filter_map(|group| Some((group.name.clone(), group.rekey.as_ref()?)));
    let make = |kind| Arc::new(signing_key::generate(kind).unwrap().unwrap());
    with_pushes.map(|(name, rekey)| (name, make(rekey.signing_key))).collect()
}

pub fn start(config: Config) -> KeyServer<OsEntropy> {
    let keys = signing_keys(&config);
    KeyServer::new(config, &keys, [1; 32], OsEntropy)
}

/// Activation after 10 s, deactivation after 30 s, pushes with these settings beside an ECDSA key.
pub fn pushes(settings: &str) -> String {
    format!(
        "[group.gap]\nactivation-time-delay = \"10s\"\ndeactivation-time-delay = \"30s\"\n\
         [group.rekey]\nsigning-key = \"ecdsa-p256\"\n{settings}"
    )
}

/// A key server whose groups push.
pub fn pushing(tek: &str, settings: &str) -> KeyServer<OsEntropy> {
    let directory = keys();
    start(parse(&configuration_with(directory.path(), "", "10.0.0", tek, &pushes(settings))))
}

/// What `number` asks for; its key is that of member `key_of`.
pub fn registration(
    number: u8,
    key_of: u8,
    group: u32,
    local: SocketAddr,
    server: SocketAddr,
) -> RegistrationConfig {
    RegistrationConfig {
        unix_seconds: 0,
        server,
        local,
        group: GroupId(group),
        group_id_byte_order: Default::default(),
        selector_byte_order: Default::default(),
        sender_ids: None,
        identity: Identity::Address(local.ip()),
        expected_identity: Identity::Address(server.ip()),
        credential: ike::config::Credential::PreSharedKey(Arc::new(Secret::copy_from(
            key(key_of).as_bytes(),
        ))),
        initial_contact: false,
        phase1: Phase1Policy {
            doi: ike::wire::registry::Doi::GDOI,
            port: gdoi::PORT,
            transforms: vec![Phase1Transform {
                encryption: Phase1Encryption::Aes256Cbc,
                hash: HashAlgorithm::Sha2_256,
                group: if number == 0 { DhGroup::Ecp256 } else { DhGroup::Modp2048 },
                authentication: Default::default(),
            }],
            lifetime: Duration::from_secs(3600),
        },
        retransmission: RetransmissionPolicy {
            initial: Duration::from_secs(1),
            maximum: Duration::from_secs(2),
            repetitions: 1,
        },
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome {
    Registered(Box<GroupSa>),
    Failed(RegistrationFailure),
}

impl Outcome {
    pub fn group_sa(self) -> GroupSa {
        match self {
            Self::Registered(sa) => *sa,
            Self::Failed(failure) => panic!("{failure}"),
        }
    }

    pub fn failure(self) -> RegistrationFailure {
        match self {
            Self::Failed(failure) => failure,
            Self::Registered(_) => panic!("keys were given"),
        }
    }
}

/// Registers over this socket; how many datagrams that took.
pub fn register_by(
    socket: &UdpSocket,
    config: RegistrationConfig,
    server: SocketAddr,
) -> (Outcome, usize) {
    let now = daemon::clock::now;
    let mut member = Registration::new(config, daemon::entropy::seed().unwrap(), now());
    let (mut sent, mut buffer) = (0, vec![0; 65_535]);
    loop {
        if let Some(outcome) = outcome(&mut member, now()) {
            return (outcome, sent);
        }
        while let Some(transmit) = member.poll_transmit() {
            socket.send_to(&transmit.payload, transmit.destination).unwrap();
            sent += 1;
        }
        let due = member.poll_timeout().map(|deadline| deadline.at.saturating_since(now()));
        let wait = due.unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).unwrap();
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                assert_eq!(source, server, "the answer comes from the address that was asked");
                let _ = member.handle_datagram(source, &buffer[..length], now());
            }
            Err(_) => member.handle_timeout(now()),
        }
    }
}

/// Takes the end of a registration from its events; accepts every policy.
pub fn outcome(member: &mut Registration, now: BootTime) -> Option<Outcome> {
    while let Some(event) = member.poll_event() {
        match event {
            RegistrationEvent::PolicyOffered(_) => member.accept_policy(now),
            RegistrationEvent::Registered(sa) => return Some(Outcome::Registered(Box::new(sa))),
            RegistrationEvent::Failed(failure) => return Some(Outcome::Failed(failure)),
            _ => {}
        }
    }
    None
}

/// Registers without a network, everything at one moment; the member gives up when nothing answers.
pub fn register<E: Entropy>(
    service: &mut KeyServer<E>,
    config: RegistrationConfig,
    now: BootTime,
) -> Outcome {
    let (local, server) = (config.local, config.server);
    let mut seed = [0; 32];
    daemon::entropy::fill(&mut seed).unwrap();
    let mut member = Registration::new(config, seed, now);
    let mut time = now;
    for _ in 0..100 {
        if let Some(outcome) = outcome(&mut member, time) {
            return outcome;
        }
        let mut quiet = true;
        while let Some(transmit) = member.poll_transmit() {
            quiet = false;
            let _ = service.handle_datagram(local, server, &transmit.payload, now);
        }
        while let Some(transmit) = service.poll_transmit() {
            quiet = false;
            assert_eq!((transmit.source, transmit.destination), (server, local));
            let _ = member.handle_datagram(server, &transmit.payload, time);
        }
        if quiet && let Some(deadline) = member.poll_timeout() {
            time = time.max(deadline.at);
            member.handle_timeout(time);
        }
    }
    panic!("the registration does not end");
}

pub fn address(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 0, 0, number]), 848)
}

/// Member `number` registers with its own key.
pub fn register_member(
    service: &mut KeyServer<OsEntropy>,
    number: u8,
    group: u32,
    now: BootTime,
) -> Outcome {
    let config = registration(number, number, group, address(number), SERVER.parse().unwrap());
    register(service, config, now)
}

pub fn events<E: Entropy>(service: &mut KeyServer<E>) -> Vec<Event> {
    std::iter::from_fn(|| service.poll_event()).collect()
}

/// A file in `directory`.
pub fn file(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    write(&path, text, 0o644);
    path
}
