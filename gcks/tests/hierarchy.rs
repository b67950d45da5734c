//! Removal by the key hierarchy, whatever the hierarchy went through before: who is removed never
//! gets the keys of those who stay.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;

use control::{MemberArgument, Request, Response};
use gcks::control::answer;
use gcks::group::event::Event;
use gcks::group::key_generation::OsEntropy;
use gcks::group::signing_key::SigningKeys;
use gcks::server::KeyServer;
use gcks::server::event::{Event as ServerEvent, Refused};
use support::world::*;
use support::*;

const MULTICAST: &str = "transport = \"multicast\"\nmulticast-address = \"239.1.1.1\"\n\
                         multicast-source = \"10.0.9.1\"\n";

/// What a reload puts in the place of `lkh = true` and `lifetime`.
const ANOTHER_CIPHER: &str = "lkh = true\nencryption = \"aes-128-cbc\"\nlifetime";

/// All members may have group one.
struct Lab {
    world: World,
    text: String,
    signing: SigningKeys,
    _keys: tempfile::TempDir,
}

impl Lab {
    fn new(settings: &str) -> Self {
        let keys = keys();
        let text = configuration_with(keys.path(), "", "10.0.0", CBC, &pushes(settings));
        let text = text.replace("groups = [\"two\"]", "groups = [\"one\", \"two\"]");
        let signing = signing_keys(&parse(&text));
        let world = World::new(KeyServer::new(parse(&text), &signing, [1; 32], OsEntropy));
        Self { world, text, signing, _keys: keys }
    }

    /// With members that have registered and got the pushes that follow.
    fn joined(settings: &str, members: impl IntoIterator<Item = u8>) -> Self {
        let mut lab = Self::new(settings);
        for number in members {
            lab.world.join(number, 1);
        }
        lab.world.run(seconds(60));
        lab
    }

    fn reload(&mut self, from: &str, to: &str) -> Vec<String> {
        let text = self.text.replace(from, to);
        assert_ne!(text, self.text);
        self.text = text;
        let changes = self.world.service.reload(parse(&self.text), &self.signing, self.world.now);
        self.world.settle();
        changes.iter().map(ToString::to_string).collect()
    }

    /// Removes a member, which from then on hears everything that goes to the others.
    fn remove(&mut self, place: usize) -> String {
        let number = self.world.nodes[place].number;
        let member = MemberArgument { group: String::from("one"), member: format!("g{number}") };
        self.world.sent.clear();
        let request = Request::Remove(member);
        let response = answer(&mut self.world.service, &request, &[], at(0), self.world.now);
        self.world.settle();
        let node = self.world.node(place);
        (node.removed, node.alive) = (true, false);
        self.world.run(seconds(40));
        self.overhear(place);
        match response {
            Response::Done(done) => done.message,
            other => panic!("{other:?}"),
        }
    }

    /// Member 3 joins under the KEK that follows the reload; then one of the three is removed.
    fn remove_after_reload(&mut self, removed: usize, from: &str, to: &str) {
        self.reload(from, to);
        self.world.run(seconds(3600));
        self.world.join(3, 1);
        self.world.run(seconds(60));
        self.remove(removed);
        self.assert_left_behind(removed);
    }

    fn overhear(&mut self, place: usize) {
        let number = self.world.nodes[place].number;
        let mut heard = BTreeSet::new();
        let pushes = self.world.sent.iter().filter(|sent| is_push(sent));
        let pushes: Vec<_> =
            pushes.filter(|sent| heard.insert(sent.payload.clone())).cloned().collect();
        for mut push in pushes {
            if !push.destination.ip().is_multicast() {
                push.destination = address(number);
            }
            self.world.inject(push, LATENCY);
        }
        self.world.run(seconds(2));
    }

    fn assert_left_behind(&self, place: usize) {
        let gone = &self.world.nodes[place];
        for other in self.world.nodes.iter().filter(|node| !node.removed) {
            let spi = other.sending(self.world.now).unwrap();
            assert!(
                !gone.receives(spi, self.world.now),
                "the removed member decrypts what g{} sends",
                other.number
            );
        }
    }

    fn leaves(&self) -> Vec<Option<u16>> {
        let group = self.world.service.groups().next().unwrap();
        group.registry().iter().map(|(_, member)| member.leaf).collect()
    }
}

#[test]
fn the_last_member_of_a_multicast_group_does_not_follow() {
    let mut lab = Lab::new(&format!("{MULTICAST}lkh = true"));
    lab.world.join(1, 1);
    lab.world.run(seconds(100));
    lab.remove(0);
    lab.world.join(2, 1);
    lab.world.run(seconds(40));
    lab.assert_left_behind(0);
}

/// The hierarchy of a KEK with another cipher is a new one, in which nobody has a leaf.
#[test]
fn a_member_that_joined_after_the_cipher_of_the_kek_changed_is_left_behind() {
    for removed in [2, 0] {
        let mut lab = Lab::joined("lkh = true\nlifetime = \"1h\"", [1, 2]);
        lab.remove_after_reload(removed, "lkh = true\nlifetime", ANOTHER_CIPHER);
        lab.world.run(seconds(3600));
        lab.overhear(removed);
        lab.assert_left_behind(removed);
    }
}

#[test]
fn a_member_that_joined_after_the_hierarchy_was_switched_on_is_left_behind() {
    for removed in [2, 0] {
        let mut lab = Lab::joined("lifetime = \"1h\"", [1, 2]);
        lab.remove_after_reload(removed, "lifetime = \"1h\"", "lkh = true\nlifetime = \"1h\"");
    }
}

/// Every member gets a leaf when the hierarchy is switched on, and acknowledges with it.
#[test]
fn a_hierarchy_that_is_switched_on_has_everybody_in_it() {
    for (settings, from, to) in [
        ("lifetime = \"1h\"", "lifetime = \"1h\"", "lkh = true\nlifetime = \"1h\""),
        ("lkh = true", "lkh = true", "lkh = true\nencryption = \"aes-128-cbc\""),
    ] {
        let mut lab = Lab::joined(settings, [1, 2]);
        let changes = lab.reload(from, to);
        assert!(
            changes.iter().any(|change| change.contains("register again")),
            "the operator is told: {changes:?}"
        );
        lab.world.run(seconds(60));
        let leaves: BTreeSet<_> = lab.leaves().into_iter().flatten().collect();
        assert_eq!(leaves.len(), 2, "{:?}", lab.leaves());
        lab.world.run(seconds(86_400));
        let unacknowledged = |event: &&Event| matches!(event, Event::Unacknowledged { .. });
        assert_eq!(lab.world.group_events().filter(unacknowledged).count(), 0);
        assert!(lab.world.nodes.iter().all(|node| node.unusable == 0));
        assert_eq!(lab.world.splits, []);
        let message = lab.remove(1);
        assert!(message.contains("under a KEK that it cannot reach"), "{message}");
        lab.assert_left_behind(1);
    }
}

#[test]
fn no_two_members_share_a_leaf() {
    let mut lab = Lab::joined("lkh = true\nlifetime = \"1h\"", [1, 2]);
    lab.reload("lkh = true\nlifetime", ANOTHER_CIPHER);
    lab.world.run(seconds(3600));
    lab.world.join(3, 1);
    lab.world.run(seconds(10));
    lab.world.pull(0);
    lab.world.run(seconds(10));
    let leaves = lab.leaves();
    let different: BTreeSet<_> = leaves.iter().flatten().collect();
    assert_eq!((different.len(), leaves.len()), (3, 3), "{leaves:?}");
}

/// A member whose pull the hierarchy overtakes keeps the one leaf that it has: with a second one,
/// its removal would leave it the keys of the first.
#[test]
fn no_member_has_a_second_leaf_after_a_pull_during_a_removal() {
    let mut lab = Lab::joined("lkh = true", 1..=3);
    let mut pulls = 0;
    lab.world.network = Box::new(move |sent| {
        let of_pull = sent.source == address(2) && sent.payload[18] == 32;
        pulls += u32::from(of_pull);
        // The first message 1 comes at once, what follows it late.
        vec![if of_pull && (2..=6).contains(&pulls) { seconds(5) } else { LATENCY }]
    });
    lab.world.pull(1);
    lab.world.run(seconds(1));
    lab.remove(2);
    lab.world.run(seconds(60));
    assert!(lab.world.nodes[1].pulls >= 2);
    let leaves: BTreeSet<u16> = lab.leaves().into_iter().flatten().collect();
    let group = lab.world.service.groups().next().unwrap();
    let tree = group.rekey_sa().unwrap().kek().unwrap().tree().unwrap();
    assert_eq!((tree.members(), leaves.len()), (&leaves, 2));
}

/// A member that was dropped still holds the KEK.
#[test]
fn a_member_that_was_dropped_and_is_removed_then_does_not_follow() {
    for settings in ["lkh = true", ""] {
        let mut lab = Lab::new(&format!("{MULTICAST}drop-unresponsive-members = true\n{settings}"));
        for number in 1..=3 {
            lab.world.join(number, 1);
        }
        lab.world.service.rekey("one", lab.world.now).unwrap();
        lab.world.run(seconds(60));
        // Its acknowledgements are lost from now on.
        lab.world.network = Box::new(|sent| {
            let lost = sent.payload[18] == 35 && sent.source == address(3);
            if lost { Vec::new() } else { vec![LATENCY] }
        });
        for _ in 0..3 {
            lab.world.service.rekey("one", lab.world.now).unwrap();
            lab.world.run(seconds(60));
        }
        assert!(lab.world.group_events().any(|event| matches!(event, Event::Dropped { .. })));
        lab.remove(2);
        lab.assert_left_behind(2);
    }
}

/// It keeps its leaf when it pulls in vain: somebody else in its place would be left behind with
/// it.
#[test]
fn the_leaf_of_a_member_that_was_dropped_is_not_given_to_another() {
    let mut lab = Lab::new("lkh = true\ndrop-unresponsive-members = true");
    lab.world.join(1, 1);
    lab.world.join(2, 1);
    lab.world.service.rekey("one", lab.world.now).unwrap();
    lab.world.run(seconds(60));
    // Acknowledgements and messages 3 of member 2 are lost from now on.
    lab.world.network = Box::new(|sent| {
        let kind = sent.payload[18];
        let lost = kind == 35 || kind == 32 && sent.payload.len() < 100;
        if lost && sent.source == address(2) { Vec::new() } else { vec![LATENCY] }
    });
    for _ in 0..3 {
        lab.world.service.rekey("one", lab.world.now).unwrap();
        lab.world.run(seconds(60));
    }
    assert!(lab.world.group_events().any(|event| matches!(event, Event::Dropped { .. })));
    lab.world.pull(1);
    lab.world.run(seconds(2));
    let node = lab.world.node(1);
    (node.alive, node.removed) = (false, true);
    lab.world.run(seconds(60));
    assert_eq!(lab.world.nodes[1].pulls, 1, "in vain");
    lab.world.join(3, 1);
    lab.world.run(seconds(10));
    lab.remove(0);
    assert_eq!((lab.world.nodes[2].unusable, lab.world.nodes[2].pulls), (0, 1));
}

/// It has the KEK and the leaf of its registration before.
#[test]
fn a_member_whose_keys_could_not_be_sent_is_left_behind() {
    let mut lab = Lab::joined("lkh = true", 1..=3);
    // The policy of so many TEKs fits into a datagram, and their keys do not.
    let mut config = parse(&lab.text.replace("hmac-sha2-256-128", "hmac-sha2-512-256"));
    let tek = config.groups[0].teks[0].clone();
    for port in 1..620 {
        let mut tek = tek.clone();
        tek.selectors[0].destination_port = port;
        config.groups[0].teks.push(tek);
    }
    lab.world.service.reload(config, &lab.signing, lab.world.now);
    lab.world.pull(1);
    lab.world.run(seconds(2));
    let unsent = |event: &ServerEvent| match event {
        ServerEvent::Refused { reason, .. } => matches!(reason, Refused::Answer(_)),
        _ => false,
    };
    assert!(lab.world.events.iter().any(unsent));
    let group = lab.world.service.groups().next().unwrap();
    assert_eq!((group.registry().len(), group.teks().spis().count()), (2, 620));
    lab.world.node(1).alive = false;
    lab.world.service.reload(parse(&lab.text), &lab.signing, lab.world.now);
    lab.world.settle();
    let message = lab.remove(1);
    assert!(message.contains("under a KEK that it cannot reach"), "{message}");
    lab.assert_left_behind(1);
    let leaves: BTreeSet<u16> = lab.leaves().into_iter().flatten().collect();
    let group = lab.world.service.groups().next().unwrap();
    let tree = group.rekey_sa().unwrap().kek().unwrap().tree().unwrap();
    assert_eq!((tree.members(), leaves.len()), (&leaves, 2));
}
