//! Every configuration change at run time, as one table: what members are told, what is deleted,
//! what is made, and when.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;

use gcks::control::snapshot;
use gcks::group::key_generation::OsEntropy;
use gcks::members::registry::{MemberId, Pulled};
use gcks::server::KeyServer;
use gdoi::group::Spi;
use gdoi::push::Deletion;
use support::lab::Lab;
use support::told::{Told, told};
use support::*;

struct Row {
    /// The change as the published table names it.
    change: &'static str,
    tek: &'static str,
    /// The end of every group.
    tail: &'static str,
    edit: fn(&str) -> String,
    told: Told,
    /// ISAKMP SAs of three that are left.
    isakmp_sas: u64,
    /// Members of group one that are registered right afterwards, before anybody pulls.
    registered: usize,
    /// Whether member 1 registers again at once.
    registers_again: bool,
    /// Whether a TEK of before is distributed still.
    keeps_tek: bool,
    /// The consequences that the dry run names.
    names: &'static [&'static str],
}

fn without(text: &str, start: &str, end: &str) -> String {
    let start = text.find(start).unwrap();
    let end = text[start + 1..].find(end).map_or(text.len(), |end| start + 1 + end);
    format!("{}{}", &text[..start], &text[end..])
}

fn g2_removed(text: &str) -> String {
    without(text, "[[member]]\nname = \"g2\"", "[[member]]")
}

fn other_selectors(text: &str) -> String {
    text.replace("destination = \"172.16.0.0/12\"", "destination = \"any\"")
}

fn with_tek(text: &str) -> String {
    text.replace("[group.gap]", &format!("{MORE}[group.gap]"))
}

/// Every group has two TEKs.
const MORE: &str = "[[group.tek]]\nencryption = \"aes-256-cbc\"\n\
    integrity = \"hmac-sha2-256-128\"\n[[group.tek.policy]]\nsource = \"10.1.0.0/16\"\n\
    destination = \"10.1.0.0/16\"\n";
const GAP: &str =
    "[group.gap]\nactivation-time-delay = \"10s\"\ndeactivation-time-delay = \"30s\"\n";

/// Pushes, with and without a key hierarchy.
const PUSHES: &str = "[group.gap]\nactivation-time-delay = \"10s\"\n\
    deactivation-time-delay = \"30s\"\n[group.rekey]\nsigning-key = \"ecdsa-p256\"\n";
const HIERARCHY: &str = "[group.gap]\nactivation-time-delay = \"10s\"\n\
    deactivation-time-delay = \"30s\"\n[group.rekey]\nsigning-key = \"ecdsa-p256\"\nlkh = true\n";

/// The same with [`MORE`] before.
const TWO_TEKS: &str = "[[group.tek]]\nencryption = \"aes-256-cbc\"\n\
    integrity = \"hmac-sha2-256-128\"\n[[group.tek.policy]]\nsource = \"10.1.0.0/16\"\n\
    destination = \"10.1.0.0/16\"\n[group.gap]\nactivation-time-delay = \"10s\"\n\
    deactivation-time-delay = \"30s\"\n[group.rekey]\nsigning-key = \"ecdsa-p256\"\n";

/// A row in which nothing happens.
const NOTHING: Row = Row {
    change: "",
    tek: CBC,
    tail: PUSHES,
    edit: str::to_owned,
    told: Told::Nothing,
    isakmp_sas: 3,
    registered: 2,
    registers_again: false,
    keeps_tek: true,
    names: &[],
};

fn rows() -> Vec<Row> {
    vec![
        Row { change: "nothing", ..NOTHING },
        Row {
            change: "IKE proposal changed: IKE SAs of all gateways end",
            edit: |text| format!("{text}\n[ike]\nhash = [\"sha2-256\", \"sha2-384\"]\n"),
            isakmp_sas: 0,
            names: &["isakmp-sas-end"],
            ..NOTHING
        },
        Row {
            change: "IKE policy changed, identity: IKE SAs of all gateways end",
            edit: |text| format!("identity = {{ fqdn = \"ks\" }}\n{text}"),
            isakmp_sas: 0,
            names: &["isakmp-sas-end"],
            ..NOTHING
        },
        Row {
            change: "IKE gateway changed, pre-shared key: its IKE SA ends",
            edit: |text| text.replacen("/k1\"", "/k2\"", 1),
            isakmp_sas: 2,
            names: &["isakmp-sas-end"],
            ..NOTHING
        },
        Row {
            change: "IKE gateway changed, address: its IKE SA ends and its member goes",
            tail: HIERARCHY,
            edit: |text| text.replace("address = \"10.0.0.2\"", "address = \"10.0.0.9\""),
            told: Told::Hierarchy,
            isakmp_sas: 2,
            registered: 1,
            keeps_tek: false,
            names: &["isakmp-sas-end", "member-evicted"],
            ..NOTHING
        },
        Row {
            change: "IKE gateway renamed: nothing",
            edit: |text| text.replace("name = \"g2\"", "name = \"paris\""),
            names: &["in-effect"],
            ..NOTHING
        },
        Row {
            change: "IKE gateway added: nothing",
            edit: |text| {
                let more = &text[text.find("[[member]]").unwrap()
                    ..text.find("[[member]]\nname = \"g2\"").unwrap()];
                // With quotes: the path of the keys may hold the letters.
                let more = more.replace("\"g1\"", "\"g9\"").replace("10.0.0.1", "10.0.0.9");
                text.replacen("[[member]]", &format!("{more}[[member]]"), 1)
            },
            names: &["may-register"],
            ..NOTHING
        },
        Row {
            change: "IKE gateway deleted, no key hierarchy: all register again without it",
            edit: g2_removed,
            told: Told::AllDeleted,
            isakmp_sas: 2,
            registered: 0,
            registers_again: true,
            keeps_tek: false,
            names: &["isakmp-sas-end", "member-evicted"],
            ..NOTHING
        },
        Row {
            change: "IKE gateway deleted, key hierarchy: new keys for the others",
            tail: HIERARCHY,
            edit: g2_removed,
            told: Told::Hierarchy,
            isakmp_sas: 2,
            registered: 1,
            keeps_tek: false,
            names: &["isakmp-sas-end", "member-evicted"],
            ..NOTHING
        },
        Row {
            change: "IKE gateway deleted, no pushes: it is forgotten",
            tail: GAP,
            edit: g2_removed,
            isakmp_sas: 2,
            registered: 1,
            names: &["isakmp-sas-end", "member-evicted"],
            ..NOTHING
        },
        Row {
            change: "IPsec proposal changed: with the next TEK",
            edit: |text| text.replace("aes-256-cbc\"\nintegrity", "aes-128-cbc\"\nintegrity"),
            names: &["next-tek"],
            ..NOTHING
        },
        Row {
            change: "IPsec proposal changed to counter mode: members need sender identifiers",
            edit: |text| text.replace(CBC, GCM),
            told: Told::KekDeleted,
            registered: 0,
            registers_again: true,
            names: &["next-tek", "kek-deleted"],
            ..NOTHING
        },
        Row {
            change: "IPsec proposal changed from counter mode: with the next TEK",
            tek: GCM,
            edit: |text| text.replace(GCM, CBC),
            names: &["next-tek"],
            ..NOTHING
        },
        Row {
            change: "width of sender identifiers: all keys go",
            tek: GCM,
            edit: |text| text.replace("id = 1\n", "id = 1\nsender-id-bits = 8\n"),
            told: Told::AllDeleted,
            registered: 0,
            registers_again: true,
            keeps_tek: false,
            names: &["keys-deleted"],
            ..NOTHING
        },
        Row {
            change: "width of sender identifiers, no counter mode: at once",
            edit: |text| text.replace("id = 1\n", "id = 1\nsender-id-bits = 8\n"),
            names: &["in-effect"],
            ..NOTHING
        },
        Row {
            change: "member threshold: at once, nobody who is registered goes",
            edit: |text| text.replace("id = 1\n", "id = 1\nmember-threshold = 1\n"),
            names: &["in-effect"],
            ..NOTHING
        },
        Row {
            change: "width of sender identifiers, no pushes: with the next TEKs",
            tek: GCM,
            tail: GAP,
            edit: |text| text.replace("id = 1\n", "id = 1\nsender-id-bits = 8\n"),
            names: &["next-teks"],
            ..NOTHING
        },
        Row {
            change: "group name deleted: delete-all, its SAs, keys and members go",
            edit: |text| text.replace("\"one\"", "\"uno\""),
            told: Told::AllDeleted,
            isakmp_sas: 1,
            registered: 0,
            registers_again: true,
            keeps_tek: false,
            names: &["group-ends", "isakmp-sas-end", "group-made", "may-register"],
            ..NOTHING
        },
        Row {
            change: "group id changed: delete-all, and new keys under the new id",
            edit: |text| text.replace("id = 1\n", "id = 7\n"),
            told: Told::AllDeleted,
            isakmp_sas: 1,
            registered: 0,
            // It asks for the old number.
            registers_again: false,
            keeps_tek: false,
            names: &["group-ends", "isakmp-sas-end", "group-made"],
            ..NOTHING
        },
        Row {
            change: "server-member communication added: members are forgotten",
            tail: GAP,
            edit: |text| text.replace(GAP, PUSHES),
            registered: 0,
            names: &["members-forgotten"],
            ..NOTHING
        },
        Row {
            change: "server-member communication changed: with the next KEK",
            edit: |text| text.replace("p256\"", "p256\"\nencryption = \"aes-128-cbc\""),
            names: &["next-kek"],
            ..NOTHING
        },
        Row {
            change: "server-member communication changed, key hierarchy: members need leaves",
            edit: |text| text.replace("p256\"", "p256\"\nlkh = true"),
            told: Told::KekDeleted,
            registered: 0,
            registers_again: true,
            names: &["kek-deleted"],
            ..NOTHING
        },
        Row {
            change: "server-member communication removed: delete of all KEK SAs",
            edit: |text| text.replace(PUSHES, GAP),
            told: Told::KekDeleted,
            registered: 0,
            registers_again: true,
            names: &["kek-deleted"],
            ..NOTHING
        },
        Row {
            change: "IPsec SA added: new TEK SA pushed",
            edit: with_tek,
            told: Told::NewTeks,
            names: &["teks-pushed"],
            ..NOTHING
        },
        Row {
            change: "IPsec SA changed, lifetime and direction: with the next TEK",
            edit: |text| {
                text.replace(CBC, &format!("{CBC}\nlifetime = \"2h\"\ndirection = \"sender-only\""))
            },
            names: &["next-tek"],
            ..NOTHING
        },
        Row {
            change: "IPsec SA changed, match policy: TEK deleted at once and a new one pushed",
            edit: other_selectors,
            told: Told::OtherTeks,
            keeps_tek: false,
            names: &["teks-deleted", "teks-pushed"],
            ..NOTHING
        },
        Row {
            change: "IPsec SA changed, match policy, no pushes: with the next TEKs",
            tail: GAP,
            edit: other_selectors,
            names: &["next-teks"],
            ..NOTHING
        },
        Row {
            change: "match policy and server-member communication removed: both deletes",
            edit: |text| other_selectors(&text.replace(PUSHES, GAP)),
            told: Told::KekAndTeksDeleted,
            registered: 0,
            registers_again: true,
            keeps_tek: false,
            names: &["kek-deleted", "teks-deleted", "teks-made"],
            ..NOTHING
        },
        Row {
            change: "IPsec SA deleted: TEK deleted at once",
            tail: TWO_TEKS,
            edit: |text| text.replace(MORE, ""),
            told: Told::TeksDeleted,
            names: &["teks-deleted"],
            ..NOTHING
        },
        Row {
            change: "order of a member's group number, forms of a group's messages: at once",
            edit: |text| {
                let host = "[member.interoperability]\ngroup-id-byte-order = \"host\"\n";
                let six = "[group.interoperability]\nsak-reserved-octets = \"six\"\n";
                let text = text.replacen("[[member]]", &format!("{host}[[member]]"), 2);
                let text = text.replacen(host, "", 1);
                text.replace(PUSHES, &format!("{PUSHES}\n{six}"))
            },
            names: &["in-effect"],
            ..NOTHING
        },
        Row {
            change: "TEK tables in another order: nothing",
            tail: TWO_TEKS,
            edit: |text| with_tek(&text.replace(MORE, "")),
            ..NOTHING
        },
    ]
}

#[test]
fn every_row_of_the_table() {
    for row in rows() {
        let mut lab = Lab::new(row.tek, row.tail);
        let held = lab.world.nodes.iter().filter(|node| node.group == 1);
        let known: BTreeSet<Spi> =
            held.flat_map(|node| node.teks.iter().map(|tek| tek.spi)).collect();
        let (plan, changes) = lab.change(row.edit);
        assert_eq!(plan, changes, "{}", row.change);
        let names: BTreeSet<&str> = changes
            .iter()
            .flat_map(|change| &change.consequences)
            .map(|consequence| consequence.name())
            .collect();
        let expected: BTreeSet<&str> = row.names.iter().copied().collect();
        assert_eq!(names, expected, "{}: {changes:?}", row.change);
        let shown = snapshot(&lab.world.service, &[], at(0), lab.world.now);
        assert_eq!(shown.statistics.isakmp_sas, row.isakmp_sas, "{}", row.change);
        let registered = shown.members.iter().filter(|member| member.name != "g3").count();
        assert_eq!(registered, row.registered, "{}", row.change);
        lab.world.run(seconds(15));
        assert_eq!(told(&lab.world.nodes[0].accepted, &known), row.told, "{}", row.change);
        let node = &lab.world.nodes[0];
        assert_eq!(node.pulls == 2, row.registers_again, "{}", row.change);
        let shown = snapshot(&lab.world.service, &[], at(0), lab.world.now);
        let teks = shown.groups.iter().flat_map(|group| &group.teks).filter(|tek| tek.current);
        let keeps = teks.into_iter().any(|tek| known.contains(&tek.spi));
        assert_eq!(keeps, row.keeps_tek, "{}", row.change);
        assert!(lab.world.nodes[2].accepted.len() <= 2, "{}", row.change);
    }
}

/// Members that nobody can tell keep the selectors until they come for the next TEKs, and so does
/// who comes in between: nobody is cut off.
#[test]
fn other_selectors_split_no_group_without_pushes() {
    let mut lab = Lab::new(CBC, GAP);
    lab.world.run(seconds(60));
    let held = lab.world.spis(1);
    lab.change(other_selectors);
    lab.world.pull(0);
    lab.world.run(seconds(60));
    assert_eq!(lab.world.spis(1), held, "who pulls gets what the others have");
    lab.world.run(seconds(3600));
    let shown = snapshot(&lab.world.service, &[], at(0), lab.world.now);
    let tek = shown.groups[0].teks.iter().find(|tek| tek.current).unwrap();
    assert_eq!(tek.selectors, ["172.16.0.0/12 -> any"]);
    // One member has the next TEK a moment before the other, as ever.
    let moments: BTreeSet<_> = lab.world.splits.iter().map(|split| split.0).collect();
    let (first, last) = (moments.first().copied(), moments.last().copied());
    assert!(first.zip(last).is_none_or(|(first, last)| last.saturating_since(first) < seconds(60)));
}

/// Between the first and the last member that gets a KEK, a push reaches a part of the group.
#[test]
fn other_selectors_wait_until_all_members_get_pushes() {
    let mut lab = Lab::new(CBC, GAP);
    lab.change(|text| text.replace(GAP, PUSHES));
    lab.world.pull(0);
    lab.world.run(seconds(30));
    let (_, changes) = lab.change(other_selectors);
    assert!(changes[0].to_string().contains("when members come for the next TEKs"), "{changes:?}");
    lab.world.run(seconds(600));
    assert!(lab.world.nodes[0].accepted.is_empty());
    lab.world.pull(1);
    lab.world.run(seconds(60));
    for node in &lab.world.nodes[..2] {
        assert_eq!((node.accepted.len(), node.teks.len()), (1, 1), "both are told");
        assert!(matches!(node.accepted[0].deletions.as_slice(), [Deletion::Tek(..)]));
    }
    assert_eq!(lab.world.splits, []);
    // A push of the operator says whom it does not reach.
    let mut lab = Lab::new(CBC, GAP);
    lab.change(|text| text.replace(GAP, PUSHES));
    lab.world.pull(0);
    lab.world.run(seconds(30));
    let done = lab.world.service.rekey("one", lab.world.now).unwrap();
    assert!(done.ends_with("1 other has TEKs and no KEK, until they register again"), "{done}");
}

/// Identifiers of two widths never go with one TEK.
#[test]
fn sender_identifiers_of_another_width_come_with_other_keys() {
    let bits = |text: &str| text.replace("id = 1\n", "id = 1\nsender-id-bits = 8\n");
    for tail in [GAP, PUSHES] {
        let mut lab = Lab::new(GCM, tail);
        let held = lab.world.spis(1);
        lab.change(bits);
        let pool = |lab: &Lab| lab.world.service.groups().next().unwrap().sender_ids().bits();
        if tail == GAP {
            lab.world.pull(0);
            lab.world.run(seconds(60));
            assert_eq!((lab.world.spis(1), pool(&lab)), (held.clone(), 16));
            lab.world.run(seconds(3600));
        } else {
            lab.world.run(seconds(60));
        }
        assert_eq!(pool(&lab), 8);
        assert!(lab.world.spis(1).is_disjoint(&held));
        let senders: Vec<_> = lab.world.nodes[..2].iter().map(|node| node.senders.last()).collect();
        assert!(senders[0].is_some() && senders[0] != senders[1], "{senders:?}");
    }
}

/// Members that get counter-mode TEKs by pushes have sender identifiers (RFC 6407 §4.4).
#[test]
fn counter_mode_comes_with_sender_identifiers() {
    let mut lab = Lab::new(CBC, PUSHES);
    lab.change(|text| text.replace(CBC, GCM));
    lab.world.run(seconds(7200));
    for node in &lab.world.nodes {
        assert_eq!((node.pulls, node.senders.len()), (2, 1));
        assert_eq!(node.teks.last().unwrap().keys.integrity.len(), 0);
    }
    assert_eq!(lab.world.splits, []);
}

/// Twenty of ten thousand members leave with one removal and one push.
#[test]
fn many_members_leave_at_once() {
    let keys = keys();
    let text = configuration_with(keys.path(), "", "10.0.0", CBC, PUSHES);
    let signing = signing_keys(&parse(&text));
    let with = |count: u16| {
        let mut config = parse(&text);
        let model = config.members[0].clone();
        let host = |number: u16| {
            std::net::IpAddr::from([10, 9, (number / 250) as u8, (number % 250) as u8])
        };
        let member = |number: u16| gcks::config::Member {
            name: format!("m{number}"),
            addresses: host(number).into(),
            ..model.clone()
        };
        config.members.extend((0..count).map(member));
        config
    };
    let mut service = KeyServer::new(with(10_000), &signing, [1; 32], OsEntropy);
    register_member(&mut service, 1, 1, at(1000)).group_sa();
    let id = gdoi::group::GroupId(1);
    for member in with(10_000).members.iter().skip(3) {
        let address = member.addresses.addr();
        let (group, _) = service.group_mut(id).unwrap();
        let pulled = Pulled {
            name: member.name.as_str().into(),
            address: (address, 848).into(),
            local: SERVER.parse().unwrap(),
            keys_end: None,
            leaf: None,
        };
        let identity = ike::config::Identity::Address(address);
        group.registry_mut().record(MemberId { identity, address }, pulled, at(1000));
    }
    while service.poll_transmit().is_some() {}
    let begin = std::time::Instant::now();
    let changes = service.reload(with(9_980), &signing, at(1010));
    let taken = begin.elapsed();
    println!("20 of 10,000 members taken out in {taken:?}");
    assert_eq!(changes.len(), 20);
    let told = std::iter::from_fn(|| service.poll_transmit()).count();
    assert_eq!(told, 10_001, "one push");
    // With a removal for each, a server built for release took more than five seconds.
    assert!(taken < seconds(20), "{taken:?}");
}
