//! What a change of the configuration leads to at a root server and at its sub-servers: the tables
//! of configuration changes, as far as a change has a row here. Where a push takes the place of a
//! loss, the row says so.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use gcks::group::Group;
use gdoi::group::GroupId;
use support::cluster::{Cluster, server};
use support::{CBC, address, registration, seconds};

const ONE: GroupId = GroupId(1);

/// What follows from a change.
#[derive(Debug, PartialEq, Eq, Default)]
struct Outcome {
    /// Whether the sub-servers get another generation.
    told: bool,
    /// Different pushes to the members of each sub-server.
    pushes: usize,
    /// Whether TEKs and KEK are others at once.
    new_teks: bool,
    new_kek: bool,
    /// Whether the members stay registered.
    members_stay: bool,
}

struct Row {
    change: &'static str,
    /// In the root's configuration, then in the sub-servers'.
    from: &'static str,
    to: &'static str,
    outcome: Outcome,
}

fn group(cluster: &mut Cluster, number: u8) -> &Group {
    cluster.server(number).groups().find(|group| group.id() == ONE).unwrap()
}

fn view(cluster: &mut Cluster, number: u8) -> (BTreeSet<u32>, Option<[u8; 16]>) {
    let group = group(cluster, number);
    let current = group.teks().slots().iter().filter_map(|slot| slot.current.as_ref());
    let teks = current.map(|tek| tek.lifetime.spi).collect();
    (teks, group.rekey_sa().and_then(|rekey_sa| Some(rekey_sa.kek()?.spi())))
}

fn join(cluster: &mut Cluster, member: u8, number: u8) {
    let config = registration(member, member, 1, address(member), server(number));
    let now = cluster.now;
    cluster.machines.get_mut(&number).unwrap().register(config, now).group_sa();
    cluster.collect();
}

/// The rows that a reload makes: the root first, then its sub-servers, as the document orders.
fn rows() -> Vec<Row> {
    let stays = || Outcome { members_stay: true, ..Outcome::default() };
    let told = || Outcome { told: true, ..stays() };
    vec![
        Row {
            change: "IPsec proposal: another lifetime counts from the next TEK on",
            from: "encryption = \"aes-256-cbc\"",
            to: "lifetime = \"2h\"\nencryption = \"aes-256-cbc\"",
            outcome: told(),
        },
        Row {
            change: "server-member communication: another KEK lifetime counts from the next KEK on",
            from: "signing-key = ",
            to: "lifetime = \"2h\"\nsigning-key = ",
            outcome: told(),
        },
        Row {
            change: "IPsec SA added: a new TEK for the members, by a push",
            from: "[group.gap]",
            to: "[[group.tek]]\nencryption = \"aes-256-cbc\"\nintegrity = \"hmac-sha2-256-128\"\n\
                 [[group.tek.policy]]\nsource = \"10.9.0.0/16\"\ndestination = \"10.9.0.0/16\"\n[group.gap]",
            outcome: Outcome { pushes: 1, new_teks: true, ..told() },
        },
        Row {
            change: "match policy: the TEK goes at once, and the push that says so brings a new one",
            from: "destination = \"172.16.0.0/12\"",
            to: "destination = \"172.16.0.0/13\"",
            outcome: Outcome { pushes: 1, new_teks: true, ..told() },
        },
        Row {
            change: "member added: nothing",
            from: "[[member]]\nname = \"g1\"",
            to: "[[member]]\nname = \"g9\"\naddress = \"10.0.0.9\"\n\
                 pre-shared-key-file = \"KEYS/k3\"\ngroups = [\"one\"]\n[[member]]\nname = \"g1\"",
            outcome: stays(),
        },
        Row {
            change: "retransmission period of the cluster: nothing, until a restart",
            from: "[group.cluster]",
            to: "[group.cluster]\nretransmission-period = \"11s\"",
            outcome: stays(),
        },
    ]
}

#[test]
fn a_change_has_its_consequence_at_all_servers() {
    for Row { change, from, to, outcome } in rows() {
        let mut cluster = Cluster::new(2, CBC, "");
        (1..=3).for_each(|number| cluster.start(number));
        cluster.run(seconds(10));
        join(&mut cluster, 1, 2);
        join(&mut cluster, 2, 3);
        let before = view(&mut cluster, 2);
        let generation = group(&mut cluster, 2).generation();
        let since = cluster.now;
        for number in [1, 2, 3] {
            cluster.reload(number, from, to);
            cluster.run(seconds(2));
        }
        for number in [2, 3] {
            let after = view(&mut cluster, number);
            assert_eq!(
                after,
                view(&mut cluster, 1),
                "{change}: server {number} has the root's keys"
            );
            let found = Outcome {
                told: group(&mut cluster, number).generation() != generation,
                pushes: cluster.pushed(number, since).len(),
                new_teks: after.0 != before.0,
                new_kek: after.1 != before.1,
                members_stay: group(&mut cluster, number).registry().len() == 1,
            };
            assert_eq!(found, outcome, "{change}: at server {number}");
        }
        assert!(cluster.pushed(1, since).is_empty(), "{change}");
    }
}

/// Removal of the group: "delete all" to the sub-servers, which tell their members.
#[test]
fn a_group_that_goes_from_the_root_is_deleted_at_the_members_of_all() {
    let mut cluster = Cluster::new(2, CBC, "");
    (1..=3).for_each(|number| cluster.start(number));
    cluster.run(seconds(10));
    join(&mut cluster, 1, 2);
    join(&mut cluster, 2, 3);
    let since = cluster.now;
    cluster.server(1).delete("one", since).unwrap();
    cluster.run(seconds(3));
    for number in [2, 3] {
        assert_eq!(cluster.pushed(number, since).len(), 1, "the delete, relayed");
        assert_eq!(group(&mut cluster, number).registry().len(), 0);
        let own = view(&mut cluster, number);
        assert_eq!(own, view(&mut cluster, 1), "and the keys that the root made anew");
        assert!(!own.0.is_empty());
    }
    join(&mut cluster, 1, 2);
}
