//! Keys, identities and addresses of members change: who held what was replaced is out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use gcks::group::key_generation::OsEntropy;
use gcks::group::signing_key::SigningKeys;
use gcks::server::KeyServer;
use gdoi::member::Registration;
use ike::config::Identity;
use support::world::*;
use support::*;

struct Lab {
    service: KeyServer<OsEntropy>,
    text: String,
    signing: SigningKeys,
    keys: tempfile::TempDir,
}

impl Lab {
    /// Member g1 is at `addresses`.
    fn new(addresses: &str) -> Self {
        let keys = keys();
        let text = configuration_with(keys.path(), "", "10.0.0", CBC, &pushes(""));
        let text =
            text.replacen("address = \"10.0.0.1\"", &format!("address = \"{addresses}\""), 1);
        let signing = signing_keys(&parse(&text));
        let service = KeyServer::new(parse(&text), &signing, [1; 32], OsEntropy);
        Self { service, text, signing, keys }
    }

    fn replace_key(&mut self) -> Vec<String> {
        write(&self.keys.path().join("k1"), "another-key-that-nobody-has-stolen-yet", 0o600);
        let changes = self.service.reload(parse(&self.text), &self.signing, at(1000));
        changes.iter().map(ToString::to_string).collect()
    }

    /// Somebody with the old key of g1 at `host` who has exchanged so many pairs of messages.
    fn begin(&mut self, host: u8, pairs: usize) -> Registration {
        let server = server();
        let config = registration(1, 1, 1, address(host), server);
        let mut peer = Registration::new(config, [9; 32], at(1000));
        for _ in 0..pairs {
            let sent = peer.poll_transmit().unwrap();
            self.service.handle_datagram(address(host), server, &sent.payload, at(1000)).unwrap();
            let answer = self.service.poll_transmit().unwrap();
            peer.handle_datagram(server, &answer.payload, at(1000)).unwrap();
        }
        peer
    }

    /// Whether it gets keys in the end.
    fn gets_keys(&mut self, host: u8, peer: &mut Registration, now: u64) -> bool {
        for _ in 0..10 {
            match outcome(peer, at(now)) {
                Some(Outcome::Registered(_)) => return true,
                Some(Outcome::Failed(_)) => return false,
                None => {}
            }
            while let Some(sent) = peer.poll_transmit() {
                let _ =
                    self.service.handle_datagram(address(host), server(), &sent.payload, at(now));
            }
            while let Some(sent) = self.service.poll_transmit() {
                let _ = peer.handle_datagram(server(), &sent.payload, at(now));
            }
        }
        false
    }
}

#[test]
fn who_is_in_main_mode_with_a_replaced_key_gets_no_keys() {
    for pairs in 0..=2 {
        let mut lab = Lab::new("10.0.0.1");
        let mut thief = lab.begin(1, pairs);
        lab.replace_key();
        assert!(!lab.gets_keys(1, &mut thief, 1020), "after {pairs} pairs of messages");
    }
}

#[test]
fn a_replaced_key_ends_every_isakmp_sa_of_a_prefix() {
    let mut lab = Lab::new("10.0.0.16/28");
    let mut thief = lab.begin(17, 3);
    let changes = lab.replace_key();
    assert_eq!(changes, ["member g1: pre-shared-key: 1 ISAKMP SA end"]);
    assert!(!lab.gets_keys(17, &mut thief, 1000 + 3000));
}

#[test]
fn an_unchanged_key_ends_nothing() {
    let mut lab = Lab::new("10.0.0.16/28");
    for pairs in [2, 3] {
        let mut peer = lab.begin(17, pairs);
        lab.service.reload(parse(&lab.text), &lab.signing, at(1000));
        assert!(lab.gets_keys(17, &mut peer, 1001));
    }
}

/// Main mode that began under a policy which is gone does not come to its end.
#[test]
fn another_phase_1_policy_ends_half_open_exchanges() {
    for pairs in [1, 2] {
        let mut lab = Lab::new("10.0.0.1");
        let mut peer = lab.begin(1, pairs);
        let text = format!("{}\n[ike]\nhash = [\"sha2-384\"]\n", lab.text);
        lab.service.reload(parse(&text), &lab.signing, at(1000));
        assert!(!lab.gets_keys(1, &mut peer, 1020), "after {pairs} pairs of messages");
    }
}

/// Every host of a prefix may prove the identity that the prefix has, and every host gets pushes.
#[test]
fn hosts_of_a_prefix_with_one_identity_all_get_pushes() {
    let keys = keys();
    let text = configuration_with(keys.path(), "", "10.0.0", CBC, &pushes(""));
    let text = text.replacen(
        "address = \"10.0.0.1\"",
        "address = \"10.0.0.16/28\"\nidentity = { fqdn = \"branch.example\" }",
        1,
    );
    let mut service = start(parse(&text));
    for host in [17, 18] {
        let mut config = registration(1, 1, 1, address(host), server());
        config.identity = Identity::Fqdn(String::from("branch.example"));
        register(&mut service, config, at(1000)).group_sa();
    }
    service.rekey("one", at(1100)).unwrap();
    let sent = std::iter::from_fn(|| service.poll_transmit());
    let to: BTreeSet<SocketAddr> = sent.filter(is_push).map(|push| push.destination).collect();
    assert_eq!(to, [address(17), address(18)].into());
}

/// Members whose address, identity or prefix changes: the host that was authorized before is not
/// any more, and keys change so that it does not follow.
#[test]
fn a_host_that_is_not_authorized_any_more_is_left_behind() {
    let lone = "[[member]]\nname = \"lone\"\naddress = \"10.0.0.2\"\n";
    for settings in ["", "lkh = true"] {
        for change in ["address", "identity", "narrowed", "host of its own"] {
            let keys = keys();
            let text = configuration_with(keys.path(), "", "10.0.0", CBC, &pushes(settings));
            let text = text.replace("address = \"10.0.0.3\"", "address = \"10.0.0.33\"");
            let prefix = matches!(change, "narrowed" | "host of its own");
            let text = match prefix {
                true => text.replace("address = \"10.0.0.2\"", "address = \"10.0.0.2/31\""),
                false => text,
            };
            let signing = signing_keys(&parse(&text));
            let mut world = World::new(KeyServer::new(parse(&text), &signing, [1; 32], OsEntropy));
            world.join(1, 1);
            world.join(2, 1);
            world.run(seconds(10));
            let g3 = text.find("[[member]]\nname = \"g3\"").unwrap();
            let text = match change {
                "address" => text.replace("address = \"10.0.0.2\"", "address = \"10.0.0.99\""),
                "identity" => text.replace(
                    "address = \"10.0.0.2\"",
                    "address = \"10.0.0.2\"\nidentity = { fqdn = \"other\" }",
                ),
                "narrowed" => text.replace("\"10.0.0.2/31\"", "\"10.0.0.3/32\""),
                _ => {
                    let key = keys.path().join("k3").display().to_string();
                    let lone =
                        format!("{lone}pre-shared-key-file = \"{key}\"\ngroups = [\"two\"]\n");
                    format!("{}{lone}{}", &text[..g3], &text[g3..])
                }
            };
            world.service.reload(parse(&text), &signing, world.now);
            world.settle();
            world.node(1).removed = true;
            world.run(seconds(60));
            let spi = world.nodes[0].sending(world.now).unwrap();
            assert!(!world.nodes[1].receives(spi, world.now), "{change} {settings}");
            let group = world.service.groups().next().unwrap();
            assert_eq!(group.registry().len(), 1, "{change} {settings}");
            world.sent.clear();
            (world.node(1).alive, world.node(1).registration) = (false, None);
            world.run(seconds(86_400));
            let to_it =
                world.sent.iter().any(|sent| is_push(sent) && sent.destination == address(2));
            assert!(!to_it, "{change} {settings}");
        }
    }
}

/// A host that comes under the entry of a removed member is left behind like one that is not
/// authorized any more.
#[test]
fn a_host_under_the_entry_of_a_removed_member_is_left_behind() {
    for settings in ["", "lkh = true"] {
        let keys = keys();
        let text = configuration_with(keys.path(), "", "10.0.0", CBC, &pushes(settings));
        let text = text.replace("groups = [\"two\"]", "groups = [\"one\", \"two\"]");
        let text = text.replace("address = \"10.0.0.2\"", "address = \"10.0.0.2/31\"");
        let text = text.replace("address = \"10.0.0.3\"", "address = \"10.0.0.33\"");
        let signing = signing_keys(&parse(&text));
        let mut world = World::new(KeyServer::new(parse(&text), &signing, [1; 32], OsEntropy));
        world.join(1, 1);
        world.join(2, 1);
        world.run(seconds(10));
        world.service.remove("one", "g3", world.now).unwrap();
        // The prefix of g2 gets smaller, and its host is that of g3.
        let text = text.replace("\"10.0.0.2/31\"", "\"10.0.0.3/32\"");
        let text = text.replace("\"10.0.0.33\"", "\"10.0.0.2\"");
        world.service.reload(parse(&text), &signing, world.now);
        world.settle();
        world.node(1).removed = true;
        world.run(seconds(60));
        let spi = world.nodes[0].sending(world.now).unwrap();
        assert!(!world.nodes[1].receives(spi, world.now), "{settings}");
        assert_eq!(world.service.groups().next().unwrap().registry().len(), 1, "{settings}");
    }
}
