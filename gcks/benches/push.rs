//! One push to many members, with all their acknowledgements: how long it takes and what it costs
//! one core.
//!
//! The key server's service is driven directly, without sockets, so that nothing but its own work
//! is measured. The acknowledgements are made beforehand. The push is signed and encrypted once,
//! whatever the number of members.
//!
//! `cargo bench -p gcks --bench push -- [--members N]`

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that fails has nothing to go on with"
)]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gcks::config;
use gcks::group::key_generation::OsEntropy;
use gcks::group::signing_key;
use gcks::members::registry::{MemberId, Pulled};
use gcks::server::KeyServer;
use gdoi::event::RegistrationEvent;
use gdoi::group::{GroupId, GroupSa};
use gdoi::member::Registration;
use gdoi::push::ack::acknowledge;
use gdoi::push::{AcknowledgementKind, AcknowledgementLength};
use ike::BootTime;
use ike::config::Identity;
use ike::crypto::DhGroup;
use ike::crypto::Secret;
use support::{option, processor_time};

fn main() {
    let members = option("--members", 10_000);
    for kind in ["rsa-2048", "ecdsa-p256"] {
        measure(kind, members);
    }
}

fn measure(kind: &str, members: u32) {
    let directory = tempfile::tempdir().unwrap();
    let rekey = format!(
        "[group.rekey]\nsigning-key = \"{kind}\"\nsigning-key-file = \"{}/signing.pem\"",
        directory.path().display()
    );
    let text =
        support::configuration(directory.path(), "listen = [\"10.255.0.1\"]", "10.0.0.0/8", &rekey);
    let config =
        config::parse("bench.toml", &text).unwrap_or_else(|report| panic!("{report}")).value;
    let keys = signing_key::load_all(&config.groups).unwrap();
    let mut service = KeyServer::new(config, &keys, daemon::entropy::seed().unwrap(), OsEntropy);
    let now = BootTime::new(Duration::from_secs(1000));
    let server: SocketAddr = "10.255.0.1:848".parse().unwrap();
    // One member registers and has the KEK, which is all that the others need to acknowledge.
    let sa = register(&mut service, address(0), server, now);
    for number in 1..members {
        let address = address(number);
        let pulled = Pulled {
            name: Arc::from("member"),
            address,
            local: server,
            keys_end: None,
            leaf: None,
        };
        let id = MemberId { identity: Identity::Address(address.ip()), address: address.ip() };
        service.group_mut(GroupId(1)).unwrap().0.registry_mut().record(id, pulled, now);
    }
    let (policy, kek) = (sa.policy().kek.as_ref().unwrap(), sa.kek_keys().unwrap());
    let base_key = Secret::copy_from(&kek.algorithm_key.expose()[16..]);
    let acknowledgements: Vec<(SocketAddr, Vec<u8>)> = (0..members)
        .map(|number| {
            let (kind, length) = (AcknowledgementKind::KekSha256, AcknowledgementLength::default());
            let address = address(number);
            (address, acknowledge(kind, length, &base_key, &policy.spi, 1, address.ip()).unwrap())
        })
        .collect();

    let begin = (Instant::now(), processor_time("thread-self"));
    service.rekey("group", now).unwrap();
    let sealed = (begin.0.elapsed(), processor_time("thread-self") - begin.1);
    let mut sent = 0_u32;
    let mut octets = 0;
    while let Some(transmit) = service.poll_transmit() {
        octets += transmit.payload.len();
        sent += 1;
    }
    let transmitted = (begin.0.elapsed(), processor_time("thread-self") - begin.1);
    for (address, acknowledgement) in &acknowledgements {
        service.handle_datagram(*address, server, acknowledgement, now).unwrap();
    }
    let done = (begin.0.elapsed(), processor_time("thread-self") - begin.1);
    assert_eq!(sent, members);
    let counted = service.groups().next().unwrap().rekey_sa().unwrap().counters();
    assert_eq!(counted.acknowledgements, u64::from(members));

    let row = |what: &str, (elapsed, cpu): (Duration, Duration)| {
        println!(
            "  {what:<44}{:>10.1} ms{:>10.1} ms CPU",
            elapsed.as_secs_f64() * 1e3,
            cpu.as_secs_f64() * 1e3
        );
    };
    println!(
        "one push to {members} members, signed with {kind}, {} octets each",
        octets / sent as usize
    );
    row("keys made, push signed and encrypted once", sealed);
    row("and all datagrams made", transmitted);
    row("and all acknowledgements verified and counted", done);
    let each = (done.1 - transmitted.1).as_secs_f64() * 1e6 / f64::from(members);
    println!("  an acknowledgement costs {each:.1} us");
}

fn address(number: u32) -> SocketAddr {
    let [_, high, middle, low] = (number + 1).to_be_bytes();
    SocketAddr::new(IpAddr::from([10, high, middle, low]), 848)
}

fn register(
    service: &mut KeyServer<OsEntropy>,
    local: SocketAddr,
    server: SocketAddr,
    now: BootTime,
) -> GroupSa {
    let config = support::registration(local, server, DhGroup::Modp2048);
    let mut member = Registration::new(config, daemon::entropy::seed().unwrap(), now);
    for _ in 0..100 {
        while let Some(event) = member.poll_event() {
            match event {
                RegistrationEvent::PolicyOffered(_) => member.accept_policy(now),
                RegistrationEvent::Registered(sa) => return sa,
                RegistrationEvent::Failed(failure) => panic!("{failure}"),
                _ => {}
            }
        }
        while let Some(transmit) = member.poll_transmit() {
            service.handle_datagram(local, server, &transmit.payload, now).unwrap();
        }
        while let Some(transmit) = service.poll_transmit() {
            member.handle_datagram(server, &transmit.payload, now).unwrap();
        }
    }
    panic!("the registration does not end");
}
