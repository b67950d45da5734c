//! Another configuration while members hold keys: what changes, and that nothing else does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use gcks::control::snapshot;
use gcks::group::key_generation::OsEntropy;
use gcks::server::KeyServer;
use gcks::server::event::Event;
use gdoi::push::{Deletion, KekChange};
use support::lab::Lab;
use support::world::*;
use support::*;

#[test]
fn an_unchanged_file_changes_nothing() {
    for tail in [String::new(), pushes(""), pushes("lkh = true")] {
        let mut lab = Lab::new(CBC, &tail);
        let before = lab.world.service.export();
        assert_eq!(lab.reload(str::to_owned), Vec::<String>::new());
        assert!(lab.world.sent.is_empty());
        assert_eq!(lab.world.service.export(), before);
    }
}

#[test]
fn other_algorithms_come_with_the_next_tek() {
    let mut lab = Lab::new(CBC, &pushes(""));
    let old = lab.world.spis(1);
    let changes =
        lab.reload(|text| text.replace("aes-256-cbc\"\nintegrity", "aes-128-cbc\"\nintegrity"));
    assert_eq!(changes.len(), 2, "{changes:?}");
    lab.world.run(seconds(60));
    assert_eq!((lab.pushes(), lab.world.spis(1)), (0, old));
    // Who joins now gets the key that there is, as it was made.
    let late = lab.world.join(2, 1);
    assert_eq!(lab.world.nodes[late].teks[0].keys.encryption.len(), 32);
    lab.world.run(seconds(3400));
    assert!(
        lab.world.nodes[..3]
            .iter()
            .all(|node| node.teks.last().unwrap().keys.encryption.len() == 16)
    );
    assert_eq!(lab.world.splits, []);
    assert_eq!(lab.pulls()[..3], [1, 1, 1]);
}

#[test]
fn other_lines_delete_the_tek_at_once_and_bring_a_new_one() {
    let mut lab = Lab::new(CBC, &pushes(""));
    let old = lab.world.spis(1);
    let changes = lab.reload(|text| {
        text.replacen("destination = \"172.16.0.0/12\"", "destination = \"any\"", 1)
    });
    assert_eq!(
        changes,
        ["group one: tek.policy from 172.16.0.0/12 -> 172.16.0.0/12 to 172.16.0.0/12 -> any: \
             1 TEK deleted at once: 2 members are told; 1 TEK made and pushed: 2 members are told"]
    );
    lab.world.run(seconds(1));
    let push = lab.world.nodes[0].accepted.last().unwrap();
    assert!(matches!(push.deletions.as_slice(), [Deletion::Tek(_, spi)] if old.contains(spi)));
    assert!(lab.world.spis(1).is_disjoint(&old) && lab.world.spis(1).len() == 1);
    assert!(lab.world.nodes[2].accepted.is_empty(), "the other group hears nothing");
    assert_eq!(lab.pulls(), [1, 1, 1]);
}

#[test]
fn a_tek_comes_and_goes_by_push() {
    let more = "[[group.tek]]\nencryption = \"aes-256-cbc\"\nintegrity = \"hmac-sha2-256-128\"\n[[group.tek.policy]]\nsource = \"10.1.0.0/16\"\ndestination = \"10.1.0.0/16\"\n[group.gap]";
    let mut lab = Lab::new(CBC, &pushes(""));
    let old = lab.world.spis(1);
    lab.reload(|text| text.replacen("[group.gap]", more, 1));
    lab.world.run(seconds(20));
    let sa = lab.world.nodes[0].accepted.last().unwrap().group_sa.as_ref().unwrap();
    assert_eq!(sa.policy().teks.len(), 2);
    assert_eq!(lab.world.nodes[0].teks.len(), 2);
    assert!(
        lab.world.nodes[0].teks.iter().any(|held| old.contains(&held.spi)),
        "the other one stays"
    );
    lab.reload(|text| text.replacen(more, "[group.gap]", 1));
    lab.world.run(seconds(20));
    assert_eq!(lab.world.nodes[0].teks.len(), 1);
    assert_eq!(lab.world.spis(1), old);
    assert_eq!(lab.pulls(), [1, 1, 1]);
}

#[test]
fn pushes_come_change_and_go() {
    let mut lab = Lab::new(CBC, "");
    assert!(lab.world.nodes.iter().all(|node| node.rekey.is_none()));
    let changes = lab.reload(|text| {
        text.replace(
            "destination = \"172.16.0.0/12\"\n",
            &format!("destination = \"172.16.0.0/12\"\n{}", pushes("")),
        )
    });
    assert!(
        changes.iter().any(|line| line
            == "group one: rekey: 2 members forgotten: each gets a KEK when it registers"),
        "{changes:?}"
    );
    assert!(snapshot(&lab.world.service, &[], at(0), lab.world.now).members.is_empty());
    // They come within the margin before the end of their keys, and get a KEK then.
    lab.world.run(seconds(3600));
    assert_eq!((lab.pulls(), lab.world.spis(1).len()), (vec![2, 2, 2], 1));
    assert_eq!(lab.world.splits, []);
    lab.world.run(seconds(86_400));
    assert_eq!(lab.pulls(), [2, 2, 2]);
    let encryption = |lab: &Lab| {
        snapshot(&lab.world.service, &[], at(0), lab.world.now).groups[0]
            .rekey
            .clone()
            .unwrap()
            .encryption
    };
    lab.reload(|text| {
        text.replace(
            "signing-key = \"ecdsa-p256\"\n",
            "signing-key = \"ecdsa-p256\"\nencryption = \"aes-128-cbc\"\n",
        )
    });
    assert_eq!(encryption(&lab), "aes-256-cbc");
    lab.world.run(seconds(86_400));
    assert_eq!(encryption(&lab), "aes-128-cbc");
    assert_eq!((lab.pulls(), lab.world.splits.len()), (vec![2, 2, 2], 0));
    let changes = lab.reload(|text| {
        text.replace(
            "[group.rekey]\nsigning-key = \"ecdsa-p256\"\nencryption = \"aes-128-cbc\"\n",
            "",
        )
    });
    assert!(
        changes.iter().any(|line| line
            == "group one: rekey: the KEK is deleted: 2 members are told and register again"),
        "{changes:?}"
    );
    lab.world.run(seconds(5));
    assert!(lab.world.nodes.iter().all(|node| node.rekey.is_none() && node.pulls == 3));
    assert!(
        lab.world.nodes.iter().all(|node| node.accepted.last().unwrap().kek == KekChange::Deleted)
    );
    assert_eq!(lab.world.splits, [], "the TEKs went on");
}

#[test]
fn another_signing_key_makes_members_register_again() {
    let mut lab = Lab::new(CBC, &pushes(""));
    lab.signing = signing_keys(&parse(&lab.text));
    let changes = lab.reload(str::to_owned);
    assert_eq!(changes.len(), 2, "{changes:?}");
    lab.world.run(seconds(4000));
    assert_eq!(lab.pulls(), [2, 2, 2]);
    assert!(lab.world.splits.is_empty() && lab.world.spis(1).len() == 1);
}

#[test]
fn a_group_that_goes_takes_its_keys_along() {
    for change in ["name", "id"] {
        let mut lab = Lab::new(CBC, &pushes(""));
        let changes = lab.reload(|text| match change {
            "name" => text.replace("\"two\"", "\"other\""),
            _ => text.replace("id = 2\n", "id = 7\n"),
        });
        assert!(
            changes.iter().any(|line| line == "group two: id 2 removed: all keys are deleted: 1 member is told; 1 ISAKMP SA end"),
            "{changes:?}"
        );
        assert_eq!(
            snapshot(&lab.world.service, &[], at(0), lab.world.now).statistics.isakmp_sas,
            2
        );
        lab.world.run(seconds(2));
        let push = lab.world.nodes[2].accepted.last().unwrap();
        assert_eq!(push.kek, KekChange::Deleted);
        assert!(push.deletions.iter().any(|one| matches!(one, Deletion::AllTeks(_))));
        assert!(lab.world.nodes[0].accepted.is_empty());
        lab.world.run(seconds(60));
        assert_eq!(lab.world.nodes[2].pulls, if change == "name" { 2 } else { 1 });
        assert_eq!(
            lab.world.nodes[2].refused > 0,
            change == "id",
            "nobody knows the number any more"
        );
    }
}

/// Whether the member was told to delete all keys: it then does not go on with keys that nobody
/// else uses.
fn is_told(node: &Node) -> bool {
    let all = |one: &Deletion| matches!(one, Deletion::AllTeks(_));
    node.accepted
        .iter()
        .any(|push| push.kek == KekChange::Deleted && push.deletions.iter().any(all))
}

#[test]
fn a_member_that_goes_is_left_behind_by_the_hierarchy() {
    let without = |text: &str| {
        let start = text.find("[[member]]\nname = \"g2\"").unwrap();
        let end = start + text[start + 1..].find("[[member]]").unwrap() + 1;
        format!("{}{}", &text[..start], &text[end..])
    };
    for (settings, expected) in [
        ("lkh = true", "new keys under a KEK that it cannot reach"),
        ("", "all keys are deleted, the others register again"),
    ] {
        let mut lab = Lab::new(CBC, &pushes(settings));
        let changes = lab.reload(without);
        assert!(changes.iter().any(|line| line.contains(expected)), "{changes:?}");
        assert!(
            changes
                .iter()
                .any(|line| line.contains("address 10.0.0.2/32 removed: 1 ISAKMP SA end; ")),
            "{changes:?}"
        );
        lab.world.node(1).removed = true;
        lab.world.run(seconds(60));
        assert_eq!(snapshot(&lab.world.service, &[], at(0), lab.world.now).groups[0].members, 1);
        let follows =
            lab.world.nodes[1].receives(*lab.world.spis(1).first().unwrap(), lab.world.now);
        assert!(!follows);
        let hears = is_told(&lab.world.nodes[1]);
        assert_eq!(
            (lab.world.nodes[0].pulls, hears),
            if settings.is_empty() { (2, true) } else { (1, false) }
        );
        // It may not come back.
        lab.world.pull(1);
        lab.world.run(seconds(60));
        assert_eq!(lab.world.nodes[1].pulls, 1);
    }
}

#[test]
fn another_phase_1_or_key_ends_isakmp_sas_and_nothing_else() {
    let mut lab = Lab::new(CBC, &pushes(""));
    let sas =
        |lab: &Lab| snapshot(&lab.world.service, &[], at(0), lab.world.now).statistics.isakmp_sas;
    assert_eq!(sas(&lab), 3);
    let changes = lab.reload(|text| text.replacen("/k1\"", "/k2\"", 1));
    assert_eq!(
        (changes, sas(&lab)),
        (vec![String::from("member g1: pre-shared-key: 1 ISAKMP SA end")], 2)
    );
    let changes = lab.reload(|text| format!("identity = {{ fqdn = \"ks\" }}\n{text}"));
    assert_eq!(
        (changes, sas(&lab)),
        (
            vec![String::from(
                "server: identity from the address asked to fqdn ks: 2 ISAKMP SAs end"
            )],
            0
        )
    );
    lab.world.run(seconds(86_400));
    assert!(lab.world.splits.is_empty());
    assert_eq!(lab.pulls(), [1, 1, 1], "keys go on, and pushes");
}

/// A name is for people: the host, its identity and its key say who a member is.
#[test]
fn another_name_of_a_member_changes_no_keys() {
    for settings in [pushes("lkh = true"), pushes(""), String::new()] {
        let mut lab = Lab::new(CBC, &settings);
        let keys = lab.world.spis(1);
        let changes = lab.reload(|text| text.replace("name = \"g2\"", "name = \"paris\""));
        assert_eq!(changes, ["member g2: name from g2 to paris: in effect at once"]);
        lab.world.run(seconds(60));
        assert_eq!((lab.pushes(), lab.world.spis(1)), (0, keys));
        let members = snapshot(&lab.world.service, &[], at(0), lab.world.now).members;
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["g1", "paris", "g3"]);
        lab.world.run(seconds(7200));
        // Where members only pull, one has the next TEK a moment before the other.
        assert!(lab.world.splits.is_empty() || settings.is_empty());
    }
}

#[test]
fn a_member_that_was_removed_stays_removed_under_another_name() {
    let without = |lab: &Lab| {
        let start = lab.text.find("[[member]]\nname = \"g2\"").unwrap();
        let end = start + lab.text[start + 1..].find("[[member]]").unwrap() + 1;
        (lab.text[..start].to_owned() + &lab.text[end..], lab.text.clone())
    };
    for renamed in [true, false] {
        let mut lab = Lab::new(CBC, &pushes("lkh = true"));
        lab.world.service.remove("one", "g2", lab.world.now).unwrap();
        lab.world.node(1).removed = true;
        match renamed {
            true => {
                lab.reload(|text| text.replace("name = \"g2\"", "name = \"paris\""));
            }
            false => {
                let (without, with) = without(&lab);
                lab.reload(|_| without.clone());
                lab.reload(|_| with.clone());
            }
        }
        lab.world.pull(1);
        lab.world.run(seconds(60));
        assert_eq!(lab.world.nodes[1].pulls, 1, "it got no keys");
        let name = if renamed { "paris" } else { "g2" };
        lab.world.service.admit("one", name).unwrap();
    }
}

#[test]
fn a_member_that_gains_a_group_is_told_of() {
    let mut lab = Lab::new(CBC, &pushes(""));
    let changes =
        lab.reload(|text| text.replacen("groups = [\"one\"]", "groups = [\"one\", \"two\"]", 1));
    assert_eq!(changes, ["member g1: groups from one to one, two: may register for two"]);
    assert_eq!(lab.pushes(), 0);
}

/// A removal counts whatever else the new configuration says about the group: the TEKs that the
/// others get when they register again are none that the removed member holds.
#[test]
fn a_member_that_goes_together_with_the_kek_does_not_keep_the_teks() {
    let of_g2 = |text: &str| {
        let start = text.find("name = \"g2\"").unwrap();
        text[..start].to_owned() + &text[start..].replacen("\"one\"", "\"two\"", 1)
    };
    for restart in [false, true] {
        for change in ["key hierarchy", "signing key", "no pushes"] {
            let mut lab = Lab::new(CBC, &pushes(""));
            let held = lab.world.spis(1);
            let text = match change {
                "key hierarchy" => of_g2(&lab.text).replace("p256\"", "p256\"\nlkh = true"),
                "signing key" => of_g2(&lab.text),
                _ => of_g2(&lab.text)
                    .replace("[group.rekey]\n", "")
                    .replace("signing-key = \"ecdsa-p256\"\n", ""),
            };
            if change == "signing key" {
                lab.signing = signing_keys(&parse(&text));
            }
            match restart {
                true => lab.world.restart(parse(&text), &lab.signing),
                false => {
                    lab.reload(|_| text.clone());
                }
            }
            lab.world.node(1).removed = true;
            lab.world.run(seconds(60));
            let spi = lab.world.nodes[0].sending(lab.world.now).unwrap();
            assert!(!held.contains(&spi), "{change}, restart: {restart}");
        }
    }
}

/// A pull that began under the name before is that of the member all the same.
#[test]
fn a_member_that_is_renamed_during_its_pull_can_be_removed() {
    let mut lab = Lab::new(CBC, &pushes(""));
    let held = lab.world.spis(1);
    let mut pulls = 0;
    lab.world.network = Box::new(move |sent| {
        let of_pull = sent.source == address(2) && sent.payload[18] == 32;
        pulls += u32::from(of_pull);
        // Message 1 comes at once, and what follows late.
        vec![if of_pull && pulls > 1 { seconds(5) } else { LATENCY }]
    });
    lab.world.pull(1);
    lab.world.run(seconds(1));
    lab.reload(|text| text.replace("name = \"g2\"", "name = \"paris\""));
    lab.world.run(seconds(10));
    assert_eq!(lab.pulls()[1], 2);
    let done = lab.world.service.remove("one", "paris", lab.world.now).unwrap();
    assert!(done.contains("all keys deleted"), "{done}");
    lab.world.node(1).removed = true;
    lab.world.run(seconds(60));
    let spi = lab.world.nodes[0].sending(lab.world.now).unwrap();
    assert!(!held.contains(&spi));
}

/// Who does not register again after its KEK was deleted has the TEKs that go on, and is removed
/// all the same: before the others have registered again, afterwards, or after a restart.
#[test]
fn a_member_that_was_forgotten_with_its_kek_does_not_keep_the_teks() {
    for (wait, restart, push) in
        [(0, false, false), (60, false, true), (0, true, false), (60, true, true)]
    {
        let mut lab = Lab::new(CBC, &pushes(""));
        let held = lab.world.spis(1);
        (lab.world.node(1).alive, lab.world.node(1).removed) = (false, true);
        lab.reload(|text| text.replace("p256\"", "p256\"\nlkh = true"));
        lab.world.run(seconds(wait));
        if restart {
            lab.world.restart(parse(&lab.text), &lab.signing);
        }
        let pulls = lab.world.nodes[0].pulls;
        assert_eq!((pulls, lab.world.spis(1)), (if push { 2 } else { 1 }, held.clone()));
        let done = lab.world.service.remove("one", "g2", lab.world.now).unwrap();
        lab.world.settle();
        assert_eq!(done.contains("under a KEK that it cannot reach"), push, "{done}");
        lab.world.run(seconds(60));
        let spi = lab.world.nodes[0].sending(lab.world.now).unwrap();
        assert!(!held.contains(&spi), "{done}");
        let late = lab.world.join(1, 1);
        lab.world.run(seconds(5));
        let given = &lab.world.nodes[late].teks;
        assert!(!given.is_empty() && given.iter().all(|tek| !held.contains(&tek.spi)), "{done}");
        let again = lab.world.service.remove("one", "g2", lab.world.now).unwrap();
        assert!(again.contains("has no keys"), "{again}");
    }
}

/// The same for a KEK that ended because nobody could be told of the next one.
#[test]
fn a_member_whose_kek_ended_before_its_teks_can_be_removed() {
    let tek = format!("{CBC}\nlifetime = \"12h\"");
    for restart in [false, true] {
        let mut lab = Lab::new(&tek, &pushes("lifetime = \"1h\""));
        let held = lab.world.spis(1);
        lab.world.now = lab.world.now + seconds(2 * 3600);
        match restart {
            true => lab.world.restart(parse(&lab.text), &lab.signing),
            false => lab.world.service.handle_timeout(lab.world.now),
        }
        (lab.world.node(1).alive, lab.world.node(1).removed) = (false, true);
        lab.world.pull(0);
        lab.world.run(seconds(60));
        assert_eq!(lab.world.spis(1), held);
        let done = lab.world.service.remove("one", "g2", lab.world.now).unwrap();
        assert!(done.contains("under a KEK that it cannot reach"), "{done}");
        lab.world.run(seconds(60));
        let spi = lab.world.nodes[0].sending(lab.world.now).unwrap();
        assert!(!held.contains(&spi), "{done}");
    }
}

/// The host, its identity and its key say who was removed, also when its name is given to another
/// in the same file.
#[test]
fn a_removed_member_whose_name_is_given_to_another_stays_removed() {
    for (change, restart) in
        ["new", "exchanged", "gone"].map(|one| [(one, false), (one, true)]).concat()
    {
        let mut lab = Lab::new(CBC, &pushes("lkh = true"));
        lab.world.service.remove("one", "g2", lab.world.now).unwrap();
        lab.world.node(1).removed = true;
        let renamed = lab.text.replace("name = \"g2\"", "name = \"paris\"");
        let text = match change {
            "new" => {
                let start = renamed.find("[[member]]").unwrap();
                let end = start + renamed[start + 1..].find("[[member]]").unwrap() + 1;
                let new = renamed[start..end].replace("\"g1\"", "\"g2\"").replace(".1\"", ".4\"");
                format!("{}{new}{}", &renamed[..start], &renamed[start..])
            }
            "exchanged" => renamed.replace("\"g1\"", "\"g2\"").replace("\"paris\"", "\"g1\""),
            _ => renamed.replace("\"g3\"", "\"g2\"").replace("[\"two\"]", "[\"one\", \"two\"]"),
        };
        let name = if change == "exchanged" { "g1" } else { "paris" };
        let changes = match restart {
            true => {
                lab.world.events.clear();
                lab.world.restart(parse(&text), &lab.signing);
                let change = |event: &Event| match event {
                    Event::ConfigurationChanged { change } => Some(change.to_string()),
                    _ => None,
                };
                lab.world.events.iter().filter_map(change).collect()
            }
            false => lab.reload(|_| text.clone()),
        };
        assert!(
            changes.contains(&format!("member g2: name from g2 to {name}: in effect at once")),
            "{changes:?}"
        );
        let is_new = changes
            .iter()
            .any(|line| line == "member g2: address 10.0.0.4/32 added: may register for one");
        assert_eq!(is_new, change == "new", "{changes:?}");
        lab.world.pull(1);
        lab.world.pull(0);
        lab.world.run(seconds(60));
        assert_eq!((lab.pulls()[1], lab.pulls()[0]), (1, 2), "{change} {restart}");
        assert!(lab.world.service.admit("one", "g2").is_err(), "{change} {restart}");
        lab.world.service.admit("one", name).unwrap();
    }
}

#[test]
fn a_member_stays_removed_from_a_group_with_another_name_or_number() {
    for (from, to) in [("\"one\"", "\"uno\""), ("id = 1\n", "id = 7\n")] {
        let mut lab = Lab::new(CBC, &pushes("lkh = true"));
        lab.world.service.remove("one", "g2", lab.world.now).unwrap();
        lab.world.node(1).removed = true;
        lab.signing = signing_keys(&parse(&lab.text.replace(from, to)));
        lab.reload(|text| text.replace(from, to));
        let id = if to.contains('7') { 7 } else { 1 };
        (lab.world.node(0).group, lab.world.node(1).group) = (id, id);
        lab.world.node(1).alive = true;
        lab.world.pull(0);
        lab.world.pull(1);
        lab.world.run(seconds(60));
        assert_eq!(lab.pulls()[..2], [2, 1], "{to}");
    }
}

/// The file of the signing key decides, not the option beside it.
#[test]
fn a_signing_key_of_another_kind_in_the_file_is_told_of() {
    let mut lab = Lab::new(CBC, &pushes(""));
    let changes = lab.reload(|text| text.replace("\"ecdsa-p256\"", "\"rsa-2048\""));
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(
        changes[0]
            .starts_with("group one: rekey.signing-key from ecdsa-p256 to rsa-2048: no effect"),
        "{changes:?}"
    );
    lab.world.run(seconds(2 * 86_400));
    assert_eq!((lab.pulls(), lab.world.splits.as_slice()), (vec![1, 1, 1], &[][..]));
}

/// Members join where their KEK said: the path of pushes changes with the next KEK, as the log
/// says.
#[test]
fn another_multicast_path_is_that_of_the_next_kek() {
    let multicast = "transport = \"multicast\"\nmulticast-address = \"239.1.1.1\"\n\
                     multicast-source = \"10.0.9.1\"\nmulticast-ttl = 3";
    let mut lab = Lab::new(CBC, &pushes(multicast));
    let ttl = |lab: &mut Lab| {
        let (service, now) = (&mut lab.world.service, lab.world.now);
        service.rekey("one", now).unwrap();
        // Nothing leaves before it is written.
        drop(service.changes());
        service.saved();
        let push = std::iter::from_fn(|| service.poll_transmit()).find(is_push).unwrap();
        service.multicast_path(&push).ttl
    };
    assert_eq!(ttl(&mut lab), 3);
    let changes = lab.reload(|text| text.replace("multicast-ttl = 3", "multicast-ttl = 9"));
    let expected = "group one: rekey.multicast-ttl from 3 to 9: in effect with the next KEK";
    assert_eq!(changes[0], expected);
    assert_eq!(ttl(&mut lab), 3);
    lab.world.run(seconds(86_400));
    assert_eq!(ttl(&mut lab), 9);
}

#[test]
fn another_signing_key_without_members_tells_nobody() {
    let keys = keys();
    let text = configuration_with(keys.path(), "", "10.0.0", CBC, &pushes(""));
    let before = signing_keys(&parse(&text));
    let mut service = KeyServer::new(parse(&text), &before, [1; 32], OsEntropy);
    let changes = service.reload(parse(&text), &signing_keys(&parse(&text)), at(1000));
    let told: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        told[0],
        "group one: rekey.signing-key-file: the KEK is deleted: nobody has to be told"
    );
}

/// What ends a multicast group leaves by the path that its members listen to, although the
/// configuration has no such path any more.
#[test]
fn a_delete_leaves_by_the_path_of_the_kek_that_it_ends() {
    const MULTICAST: &str = "transport = \"multicast\"\nmulticast-address = \"239.1.1.1\"\n\
                             multicast-source = \"10.0.9.1\"\nmulticast-interface = \"eth7\"\n\
                             multicast-ttl = 3";
    let edits: [fn(&str) -> String; 4] = [
        |text| text.replace("\"one\"", "\"uno\""),
        |text| text.replace("id = 1\n", "id = 7\n"),
        |text| {
            text.replace(&format!("[group.rekey]\nsigning-key = \"ecdsa-p256\"\n{MULTICAST}"), "")
        },
        |text| text.replace(&format!("\n{MULTICAST}"), "\nlkh = true"),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let mut lab = Lab::new(CBC, &pushes(MULTICAST));
        lab.world.sent.clear();
        let before = lab.text.clone();
        lab.signing = signing_keys(&parse(&before.replace("\"one\"", "\"uno\"")))
            .into_iter()
            .chain(std::mem::take(&mut lab.signing))
            .collect();
        lab.reload(edit);
        let multicast =
            |sent: &&gdoi::event::Transmit| is_push(sent) && sent.destination.ip().is_multicast();
        let sent: Vec<_> = lab.world.sent.iter().filter(multicast).cloned().collect();
        assert!(!sent.is_empty(), "{number}");
        for push in sent {
            let path = lab.world.service.multicast_path(&push);
            assert_eq!((path.ttl, path.interface.as_deref()), (3, Some("eth7")), "{number}");
        }
    }
}
