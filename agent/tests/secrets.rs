//! No octet of a key is seen where somebody may look: not in logs of any level, not in files, not
//! in answers to gdoictl, not in the printed form of any value that holds one.
//!
//! A test program of its own: tracing caches for the whole process which log lines are enabled.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests"
)]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::show::log;
use agent::show::snapshot::{Surroundings, snapshot};
use gdoi::config::{ByteOrder, RegistrationConfig};
use gdoi::event::{RegistrationEvent, ServerEvent};
use gdoi::group::{IssuedSa, KekKeys, Spi, TekKeys, TekProtocol};
use gdoi::lkh::{KeyPath, KeyTree};
use gdoi::member::Registration;
use gdoi::push::{Deletion, RekeyMember, RekeySettings};
use ike::config::Identity;
use ike::crypto::{KeyKind, Secret, SeededRng, SigningKey};
use tracing_subscriber::fmt::MakeWriter;

use testing::member::{
    self, ALL, Kek, PRE_SHARED_KEY, SEALED, STATE_KEY, World, address, configuration, teks_of,
};
use testing::secret_search::found;

/// Everything that anybody may see.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<u8>>>);

impl Shown {
    fn text(&self, text: &str) {
        self.octets(text.as_bytes());
    }

    fn octets(&self, octets: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(octets);
    }

    fn debug(&self, value: &dyn std::fmt::Debug) {
        // Octets as numbers, and as the hexadecimal ones of `{:x?}`.
        self.text(&format!("{value:?} {value:x?}\n"));
    }
}

impl io::Write for Shown {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.octets(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Shown {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

/// All keys of a run, by name.
struct Keys {
    all: BTreeMap<String, Vec<u8>>,
    rng: SeededRng,
}

impl Keys {
    fn new() -> Self {
        let mut all = BTreeMap::new();
        all.insert("pre-shared key".to_owned(), PRE_SHARED_KEY.to_vec());
        all.insert("state key".to_owned(), STATE_KEY.to_vec());
        Self { all, rng: SeededRng::from_seed([42; 32]) }
    }

    fn note(&mut self, name: &str, octets: &[u8]) {
        self.all.insert(name.to_owned(), octets.to_vec());
    }

    /// A TEK whose octets are not found anywhere by chance.
    fn tek(&mut self, spi: Spi, delays: (Option<u64>, Option<u64>)) -> IssuedSa {
        let (encryption, integrity) = (self.rng.array::<16>(), self.rng.array::<32>());
        self.note(&format!("encryption key of {spi:#x}"), &encryption);
        self.note(&format!("integrity key of {spi:#x}"), &integrity);
        let policy = teks_of(&[(spi, ALL, 3_600)], delays).policy().clone();
        let keys = TekKeys {
            encryption: Secret::new(encryption.to_vec()),
            integrity: Secret::new(integrity.to_vec()),
        };
        IssuedSa::new(policy, [(spi, keys)].into(), None, None, None)
    }

    fn kek(&mut self, number: u8) -> Kek {
        let kek = Kek::new(number, 86_400);
        self.note(&format!("KEK {number}"), kek.keys().algorithm_key.expose());
        kek
    }
}

#[tokio::test]
async fn a_member_that_lives_through_everything_shows_no_key() {
    let shown = Shown::default();
    let lines = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(shown.clone())
        .finish();
    let _log = tracing::subscriber::set_default(lines);
    let mut keys = Keys::new();
    let text = format!("{SEALED}{}", configuration(1, "[group.ike]\ndh-group = [19]\n"));
    let mut world = World::new(&text);
    // Numbers whose random sequences nobody else has.
    let mut kek = keys.kek(91);
    world.server(1).kek = Some(keys.kek(91));
    world.server(1).custom = Some(keys.tek(0x1000, (None, None)));
    world.start().await;
    look(&world, &shown);
    world.pass(Duration::from_secs(40)).await;
    let push = keys.tek(0x2000, (Some(5), Some(10)));
    world.push(&kek.push(&[], Some(&push))).await.unwrap();
    look(&world, &shown);
    world.pass(Duration::from_secs(7)).await;
    look(&world, &shown);
    // What is refused is told about, too.
    let mut damaged = kek.push(&[], Some(&keys.tek(0x3000, (None, None)))).datagram().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let _ = world.receive(address("10.0.11.1"), &damaged);
    world.settle().await;
    let mut next = keys.kek(92);
    let roll = member::copy(&keys.tek(0x4000, (None, None)), Some(&next));
    world.push(&kek.push(&[], Some(&roll))).await.unwrap();
    world.pass(Duration::from_secs(20)).await;
    world.kernel.flush_states();
    world.pass(Duration::from_secs(31)).await;
    look(&world, &shown);
    world.server(1).up = false;
    let mut world = world.restart().await;
    world.start().await;
    look(&world, &shown);
    let mut world = world.reboot(Duration::from_secs(60)).await;
    world.start().await;
    look(&world, &shown);
    world
        .push(&next.push(&[Deletion::AllTeks(TekProtocol::ESP), Deletion::AllKeks], None))
        .await
        .unwrap();
    look(&world, &shown);
    world.leave().await;
    let told = shown.0.lock().unwrap();
    let text = String::from_utf8_lossy(&told);
    // It was told about all that happened, so that silence is no reason.
    for what in [
        "registered",
        "push-accepted",
        "kernel-operation",
        "keys-restored",
        "KeptKek",
        "kernel-entries-repaired",
    ] {
        assert!(text.contains(what), "{what}");
    }
    assert_eq!(found(&told, &keys.all), None);
}

/// Events as the daemon logs them, the files, an answer to gdoictl, and the printed form of what
/// holds keys.
fn look(world: &World, shown: &Shown) {
    for event in &world.events {
        log::log(world.membership(), event);
        shown.debug(event);
    }
    for transmit in &world.datagrams {
        shown.debug(&transmit.destination);
    }
    for entry in std::fs::read_dir(world.directory.path()).unwrap() {
        shown.octets(&std::fs::read(entry.unwrap().path()).unwrap());
    }
    let answer = snapshot(&world.member, &Surroundings::default(), world.now);
    shown.text(&serde_json::to_string(&answer).unwrap());
    let membership = world.membership();
    shown.debug(&membership.config());
    shown.debug(&membership.generations());
    shown.debug(&membership.rekey());
    shown.debug(&membership.failover());
    shown.debug(&world.dataplane);
    shown.debug(&world.dataplane.desired());
    shown.debug(&world.kernel);
    shown.debug(&world.checkpoint);
    for server in world.servers.values() {
        shown.debug(&server.server);
        shown.debug(&server.custom);
    }
    shown.debug(&world.unsealed());
}

#[test]
fn the_machines_of_both_sides_print_no_key() {
    let shown = Shown::default();
    let mut keys = Keys::new();
    let kek = keys.kek(7);
    let sa = member::copy(&keys.tek(0x1000, (None, None)), Some(&kek));
    let now = ike::BootTime::new(Duration::from_secs(1));
    let (ours, theirs) = (address("10.0.1.1"), address("10.0.11.1"));
    let mut server = member::gdoi_server(1);
    let config = RegistrationConfig {
        unix_seconds: 0,
        server: theirs,
        local: ours,
        group: sa.policy().group,
        group_id_byte_order: ByteOrder::Network,
        selector_byte_order: ByteOrder::Network,
        sender_ids: None,
        identity: Identity::Address(ours.ip()),
        expected_identity: Identity::Address(theirs.ip()),
        credential: ike::config::Credential::PreSharedKey(Arc::new(Secret::copy_from(
            PRE_SHARED_KEY,
        ))),
        initial_contact: true,
        phase1: member::phase1(),
        retransmission: Default::default(),
    };
    shown.debug(&config);
    let mut member = Registration::new(config, [3; 32], now);
    let mut answer = Some(sa);
    let mut received = None;
    for _ in 0..32 {
        shown.debug(&member);
        shown.debug(&server);
        while let Some(transmit) = member.poll_transmit() {
            server.handle_datagram(ours, theirs, &transmit.payload, now).unwrap();
        }
        while let Some(event) = server.poll_event() {
            shown.debug(&event);
            if let ServerEvent::PullRequested { pull, .. } = event {
                server.answer_pull(pull, answer.take().unwrap(), Default::default(), now).unwrap();
            }
        }
        while let Some(transmit) = server.poll_transmit() {
            member.handle_datagram(theirs, &transmit.payload, now).unwrap();
        }
        while let Some(event) = member.poll_event() {
            shown.debug(&event);
            match event {
                RegistrationEvent::PolicyOffered(_) => member.accept_policy(now),
                RegistrationEvent::Registered(sa) => received = Some(sa),
                _ => {}
            }
        }
    }
    let received = received.expect("registered");
    let settings = RekeySettings {
        address: ours,
        acknowledgement_length: Default::default(),
        selector_byte_order: Default::default(),
        legacy: false,
    };
    let mut rekey = RekeyMember::new(&received, settings, now).unwrap().unwrap();
    shown.debug(&rekey);
    let mut kek = kek;
    let push = kek.push(&[], Some(&keys.tek(0x2000, (None, None))));
    shown.debug(&kek.sealer);
    rekey.handle_datagram(theirs, ours, push.datagram(), now).unwrap();
    shown.debug(&rekey.poll_event());
    shown.debug(&rekey);

    let mut tree = KeyTree::new(3, Some(128), 4, &mut keys.rng).unwrap();
    let leaf = tree.join(&mut keys.rng).unwrap();
    let download = tree.download(leaf).unwrap();
    for key in &download.keys {
        keys.note(&format!("key of node {}", key.node), key.data.expose());
    }
    shown.debug(&tree);
    shown.debug(&KeyPath::new(3, Some(128), &download).unwrap());
    shown.debug(&download);
    let update = tree.refresh(&mut keys.rng).unwrap();
    keys.note("new KEK of the hierarchy", tree.kek().unwrap().expose());
    shown.debug(&tree);
    shown.debug(&update);
    let signing = SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut keys.rng).unwrap();
    let private = signing.to_pkcs8_der().unwrap();
    // The scalar (RFC 5915): what stands before and behind it is public.
    keys.note("signing key", &private.expose()[36..68]);
    shown.debug(&signing);
    shown.debug(&KekKeys { algorithm_key: tree.kek().unwrap().duplicate(), signature_key: None });
    let told = shown.0.lock().unwrap();
    assert!(String::from_utf8_lossy(&told).contains("RekeyMember"));
    assert_eq!(found(&told, &keys.all), None);
}
