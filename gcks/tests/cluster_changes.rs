//! What a change of the configuration leads to, as two tables: changes of a group, and changes of
//! the cluster itself. Each row has a column for a server on its own, for a root server and for a
//! sub-server, with what Juniper's Group VPNv2 server clusters do ("theirs") and what this server
//! does. Where the two differ, `note` says how.
//!
//! Changes of the cluster count from a restart on; ISAKMP SAs with members end with it, and
//! everything else comes from the sealed state. A restart makes another generation: whether a
//! sub-server hears of it by cluster-init or by cluster-update is not looked at.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use gcks::group::Group;
use gdoi::group::Spi;
use gdoi::push::{AcknowledgementLength, PushAccepted, RekeyEvent, RekeyMember, RekeySettings};
use support::cluster::{Cluster, Part, server};
use support::told::{Told, told};
use support::{CBC, address, registration, seconds};

/// What follows at one server, within a quarter of a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    /// What the member that is registered there hears.
    told: Told,
    /// Whether its ISAKMP SA is left.
    isakmp_sa: bool,
    /// Whether it stays registered.
    registered: bool,
    /// Whether the TEK of before is distributed still, and the KEK.
    keeps_tek: bool,
    keeps_kek: bool,
    /// Whether the server has keys, those of before or new ones.
    has_keys: bool,
    /// Whether a root sent a cluster-update, or a sub-server got one.
    update: bool,
    /// Whether a root answered a cluster-init, or a sub-server sent one.
    init: bool,
    /// Whether the other servers of the group are active.
    active: bool,
}

/// Nothing happens.
const NOTHING: Outcome = Outcome {
    told: Told::Nothing,
    isakmp_sa: true,
    registered: true,
    keeps_tek: true,
    keeps_kek: true,
    has_keys: true,
    update: false,
    init: false,
    active: true,
};

/// A restart by which nothing else happens.
const RESTARTED: Outcome = Outcome { isakmp_sa: false, init: true, ..NOTHING };

/// A server on its own has no others.
const ALONE: Outcome = Outcome { active: false, ..NOTHING };

/// How a row is played: at the root first, then at its sub-servers.
#[derive(Clone, Copy)]
enum Change {
    /// By a reload.
    Reload(fn(&str) -> String),
    /// By a restart with these parts, after these.
    Restart([Part; 3], [Part; 3]),
    /// By a restart with another text.
    RestartWith(fn(&str) -> String),
    /// The configuration is refused with this text.
    Refused(fn(&str) -> String, &'static str),
}

use Change::{Refused, Reload, Restart, RestartWith};

struct Row {
    /// The change as the published table names it.
    change: &'static str,
    /// What theirs does: on its own, as root, as sub-server.
    theirs: [&'static str; 3],
    /// Where ours differs.
    note: &'static str,
    tek: &'static str,
    /// What becomes of the configuration before the first start.
    start: fn(&str) -> String,
    how: Change,
    /// What ours does, in the same order; `None` where the column does not exist.
    ours: [Option<Outcome>; 3],
}

const SAME: &str = "the same";

/// A row in which nothing happens.
const ROW: Row = Row {
    change: "nothing",
    theirs: ["nothing"; 3],
    note: SAME,
    tek: CBC,
    start: str::to_owned,
    how: Reload(str::to_owned),
    ours: [Some(ALONE), Some(NOTHING), Some(NOTHING)],
};

const SECOND_TEK: &str = "[[group.tek]]\nencryption = \"aes-256-cbc\"\n\
    integrity = \"hmac-sha2-256-128\"\n[[group.tek.policy]]\nsource = \"10.9.0.0/16\"\n\
    destination = \"10.9.0.0/16\"\n[group.gap]";
const TWO_TEKS: &str = "encryption = \"aes-256-cbc\"\nintegrity = \"hmac-sha2-256-128\"\n\
    [[group.tek.policy]]\nsource = \"10.9.0.0/16\"\ndestination = \"10.9.0.0/16\"\n\
    [[group.tek]]\nencryption = \"aes-256-cbc\"\nintegrity = \"hmac-sha2-256-128\"";

fn between(text: &str, start: &str, end: &str) -> (usize, usize) {
    let start = text.find(start).unwrap();
    let end = text[start + 1..].find(end).map_or(text.len(), |end| start + 1 + end);
    (start, end)
}

fn without(text: &str, start: &str, end: &str) -> String {
    let (start, end) = between(text, start, end);
    format!("{}{}", &text[..start], &text[end..])
}

/// Members 1 and 2 lose group one.
fn members_leave(text: &str) -> String {
    text.replace("[\"one\"]", "[\"two\"]")
}

/// A change that sub-servers hear of, and members do not; a sub-server whose own configuration has
/// changed asks besides.
const TOLD: Outcome = Outcome { update: true, init: true, ..NOTHING };
/// The member hears that all its keys are deleted, and registers again.
const DELETED: Outcome = Outcome {
    told: Told::AllDeleted,
    isakmp_sa: false,
    registered: false,
    keeps_tek: false,
    keeps_kek: false,
    ..NOTHING
};
/// The same without a group.
const GONE: Outcome = Outcome { has_keys: false, active: false, ..DELETED };

fn all(of: impl Fn(Outcome) -> Outcome) -> [Option<Outcome>; 3] {
    [Some(of(ALONE)), Some(of(NOTHING)), Some(of(NOTHING))]
}

/// Nothing but what the sub-servers are told.
const QUIET: [Option<Outcome>; 3] = [Some(ALONE), Some(TOLD), Some(TOLD)];
const WITHIN_UPDATE: &str = "sub-servers are told at once what counts later";

/// Table 1, changes of a group.
fn group_rows() -> Vec<Row> {
    vec![
        Row {
            change: "IKE proposal changed",
            theirs: ["IKE SAs of the gateways that it concerns are deleted"; 3],
            how: Reload(|text| format!("{text}\n[ike]\nhash = [\"sha2-256\", \"sha2-384\"]\n")),
            ours: all(|one| Outcome { isakmp_sa: false, ..one }),
            ..ROW
        },
        Row {
            change: "IKE policy changed: identity",
            theirs: ["IKE SAs of the gateways that it concerns are deleted"; 3],
            how: Reload(|text| format!("identity = {{ fqdn = \"ks\" }}\n{text}")),
            ours: all(|one| Outcome { isakmp_sa: false, ..one }),
            ..ROW
        },
        Row {
            change: "IKE gateway changed: pre-shared key",
            theirs: ["IKE SAs of the gateways that it concerns are deleted"; 3],
            how: Reload(|text| text.replace("/k1\"", "/k3\"").replace("/k2\"", "/k3\"")),
            ours: all(|one| Outcome { isakmp_sa: false, ..one }),
            ..ROW
        },
        Row {
            change: "IPsec proposal changed",
            theirs: ["counts after the next rekey of the TEK"; 3],
            note: WITHIN_UPDATE,
            how: Reload(|text| {
                text.replace("aes-256-cbc\"\nintegrity", "aes-128-cbc\"\nintegrity")
            }),
            ours: QUIET,
            ..ROW
        },
        Row {
            change: "group: name deleted",
            theirs: [
                "delete all to members; IKE SAs, keys and members of the group go at once",
                "delete all to sub-servers; keys go at once, peers are inactive, IKE SAs go",
                "IKE SAs with members, keys and members go, the peer is inactive, its IKE SA goes",
            ],
            note: "a sub-server relays the delete of the root; the IKE SA between servers stays",
            how: Reload(|text| {
                without(&members_leave(text), "[[group]]\nname = \"one\"", "[[group]]")
            }),
            ours: [Some(GONE); 3],
            ..ROW
        },
        Row {
            change: "group: id changed",
            theirs: [
                "delete all to members; IKE SAs, keys and members go; new keys by the configuration",
                "delete all to sub-servers; IKE SAs with members and keys go; peers are inactive, their IKE SAs go; new keys by the configuration",
                "IKE SAs with members, keys and members go; the peer is inactive, its IKE SA goes; cluster-init anew",
            ],
            note: "on its own, keys are made when the first member registers; the IKE SA between servers stays",
            how: Reload(|text| text.replace("id = 1\n", "id = 7\n")),
            ours: [
                Some(GONE),
                Some(Outcome { init: true, ..DELETED }),
                Some(Outcome { init: true, ..DELETED }),
            ],
            ..ROW
        },
        Row {
            change: "group: IKE gateway added",
            theirs: ["nothing"; 3],
            how: Reload(|text| text.replace("[\"two\"]", "[\"one\", \"two\"]")),
            ..ROW
        },
        Row {
            change: "group: IKE gateway deleted",
            theirs: ["IKE SA and registered members of the gateway are deleted"; 3],
            note: "keys change too: who is out cannot go on with those that it has",
            how: Reload(members_leave),
            ours: [
                Some(Outcome { has_keys: false, active: false, ..DELETED }),
                Some(Outcome { update: true, ..DELETED }),
                Some(Outcome { update: true, ..DELETED }),
            ],
            ..ROW
        },
        Row {
            change: "group: anti-replay time window added or changed",
            theirs: ["counts after the next rekey of the TEK"; 3],
            note: "members here know no time-based anti-replay, and there is no such option",
            how: Refused(
                |text| text.replace("[group.gap]", "[group.gap]\nanti-replay-time-window = \"1s\""),
                "anti-replay-time-window",
            ),
            ..ROW
        },
        Row {
            change: "group: anti-replay added or changed",
            theirs: ["counts after the next rekey of the TEK"; 3],
            note: "members here know no time-based anti-replay, and there is no such option",
            how: Refused(
                |text| text.replace("[group.gap]", "[group.gap]\nno-anti-replay = true"),
                "no-anti-replay",
            ),
            ..ROW
        },
        Row {
            change: "server-member communication added, on its own",
            theirs: ["registered members go; a KEK is made", "", ""],
            note: "the KEK is made when the first member registers",
            start: without_pushes,
            how: Reload(|text| {
                text.replace(
                    "[group.gap]",
                    "[group.rekey]\nsigning-key = \"ecdsa-p256\"\n[group.gap]",
                )
            }),
            ours: [
                Some(Outcome { registered: false, keeps_kek: false, has_keys: false, ..ALONE }),
                None,
                None,
            ],
            ..ROW
        },
        Row {
            change: "server-member communication added or deleted, in a cluster",
            theirs: [
                "",
                "added: a KEK is made and sent to sub-servers; deleted: a delete is sent to sub-servers; IKE SAs with members go",
                "added: registered members go; deleted: the KEK goes",
            ],
            note: "a group of a cluster always has pushes",
            how: Refused(without_pushes, "without pushes there is nothing to relay"),
            ..ROW
        },
        Row {
            change: "server-member communication changed",
            theirs: ["counts after the next rekey of the KEK"; 3],
            note: WITHIN_UPDATE,
            how: Reload(|text| text.replace("p256\"", "p256\"\nencryption = \"aes-128-cbc\"")),
            ours: QUIET,
            ..ROW
        },
        Row {
            change: "server-member communication deleted, on its own",
            theirs: ["a delete of the KEK is sent; the KEK goes", "", ""],
            note: "members register again, as they get no pushes any more",
            how: Reload(without_pushes),
            ours: [
                Some(Outcome {
                    told: Told::KekDeleted,
                    registered: false,
                    keeps_kek: false,
                    has_keys: false,
                    ..ALONE
                }),
                None,
                None,
            ],
            ..ROW
        },
        Row {
            change: "IPsec SA added",
            theirs: [
                "a new TEK, which members are told",
                "a new TEK, which sub-servers are told",
                "nothing",
            ],
            note: "a sub-server relays the push with the new TEK to its members",
            how: Reload(|text| text.replace("[group.gap]", SECOND_TEK)),
            ours: [
                Some(Outcome { told: Told::NewTeks, ..ALONE }),
                Some(Outcome { told: Told::NewTeks, ..TOLD }),
                Some(Outcome { told: Told::NewTeks, ..TOLD }),
            ],
            ..ROW
        },
        Row {
            change: "IPsec SA changed",
            theirs: ["counts after the next rekey of the TEK"; 3],
            note: WITHIN_UPDATE,
            how: Reload(|text| text.replace(CBC, &format!("lifetime = \"2h\"\n{CBC}"))),
            ours: QUIET,
            ..ROW
        },
        Row {
            change: "IPsec SA changed: match policy",
            theirs: [
                "the TEK is deleted at once, and members are sent a delete",
                "a delete is sent to sub-servers; the TEK is deleted at once",
                "the TEK is deleted at once",
            ],
            note: "the push with the delete brings the TEK that takes its place",
            how: Reload(|text| {
                text.replace("destination = \"172.16.0.0/12\"", "destination = \"172.16.0.0/13\"")
            }),
            ours: [
                Some(Outcome { told: Told::OtherTeks, keeps_tek: false, ..ALONE }),
                Some(Outcome { told: Told::OtherTeks, keeps_tek: false, ..TOLD }),
                Some(Outcome { told: Told::OtherTeks, keeps_tek: false, ..TOLD }),
            ],
            ..ROW
        },
        Row {
            change: "IPsec SA deleted",
            theirs: [
                "the TEK is deleted at once, and members are sent a delete",
                "a delete is sent to sub-servers; the TEK is deleted at once",
                "the TEK is deleted at once",
            ],
            note: "a sub-server relays the delete to its members",
            tek: TWO_TEKS,
            how: Reload(|text| text.replace(TWO_TEKS, CBC)),
            ours: [
                Some(Outcome { told: Told::TeksDeleted, ..ALONE }),
                Some(Outcome { told: Told::TeksDeleted, ..TOLD }),
                Some(Outcome { told: Told::TeksDeleted, ..TOLD }),
            ],
            ..ROW
        },
    ]
}

const SERVERS: [Part; 3] = [Part::RootOf(&[2, 3]), Part::SubServerOf(1), Part::SubServerOf(1)];

/// Table 2, changes of the cluster.
fn cluster_rows() -> Vec<Row> {
    vec![
        Row {
            change: "IKE gateway of a peer added",
            theirs: ["", "nothing", "nothing"],
            note: "counts from a restart on",
            how: RestartWith(|text| {
                let (start, end) = between(text, "pre-shared-key-file = ", "\n");
                let file = &text[start..end];
                let server = format!(
                    "[[cluster-server]]\nname = \"ks9\"\naddress = \"10.0.9.9\"\n{file}\n[[member]]"
                );
                text.replacen("[[member]]", &server, 1)
            }),
            ours: [None, Some(RESTARTED), Some(RESTARTED)],
            ..ROW
        },
        Row {
            change: "IKE gateway of a peer changed",
            theirs: ["", "the IKE SA with the peer goes", "the IKE SA with the peer goes"],
            note: "counts from a restart on",
            how: RestartWith(|text| text.replace("/ks2.psk", "/ks3.psk")),
            ours: [None, Some(RESTARTED), Some(RESTARTED)],
            ..ROW
        },
        Row {
            change: "server cluster added",
            theirs: [
                "",
                "nothing",
                "delete all to members; IKE SAs with members, keys and members go; cluster-init",
            ],
            how: Restart([Part::Alone; 3], SERVERS),
            ours: [None, Some(RESTARTED), Some(Outcome { init: true, ..DELETED })],
            ..ROW
        },
        Row {
            change: "role changed",
            theirs: [
                "",
                "delete all to sub-servers; IKE SAs with members and keys go; peers are inactive, their IKE SAs go; cluster-init",
                "the TEK and the KEK are replaced, sub-servers and members get the new ones",
            ],
            note: "nobody can tell members of the sub-server that becomes root: it goes on with the TEK that they have, and they come for the KEK before it ends",
            how: Restart(
                SERVERS,
                [Part::SubServerOf(2), Part::RootOf(&[1, 3]), Part::SubServerOf(2)],
            ),
            ours: [
                None,
                Some(Outcome { init: true, keeps_tek: true, ..DELETED }),
                Some(Outcome { registered: false, keeps_kek: false, ..RESTARTED }),
            ],
            ..ROW
        },
        Row {
            change: "peer added",
            theirs: ["", "nothing", "nothing"],
            how: Restart([Part::RootOf(&[2]), Part::SubServerOf(1), Part::Alone], SERVERS),
            ours: [None, Some(RESTARTED), Some(RESTARTED)],
            ..ROW
        },
        Row {
            change: "peer deleted: the sub-server at its root",
            theirs: [
                "",
                "the peer is inactive, its IKE SA goes",
                "the peer is inactive, KEK and TEK go, its IKE SA goes",
            ],
            note: "members of the sub-server keep their keys until they end",
            how: Restart(SERVERS, [Part::RootOf(&[3]), Part::SubServerOf(1), Part::SubServerOf(1)]),
            ours: [
                None,
                Some(RESTARTED),
                Some(Outcome { active: false, init: false, ..RESTARTED }),
            ],
            ..ROW
        },
        Row {
            change: "peer deleted: the root at its sub-server",
            theirs: ["", "", "the peer is inactive, KEK and TEK go, its IKE SA goes"],
            note: "a sub-server has a root",
            how: Refused(
                |text| {
                    let (role, other) = ("role = \"root-server\"", "role = \"sub-server\"");
                    text.replace(role, other)
                        .replace("servers = [\"ks2\", \"ks3\"]", "servers = []")
                },
                "0 root servers",
            ),
            ..ROW
        },
        Row {
            change: "retransmission period changed",
            theirs: ["", "nothing", "nothing"],
            note: "counts from a restart on",
            how: RestartWith(retransmission_period),
            ours: [None, Some(RESTARTED), Some(RESTARTED)],
            ..ROW
        },
        Row {
            change: "retransmission period changed, without a restart",
            theirs: ["", "nothing", "nothing"],
            note: "does not count before a restart",
            how: Reload(retransmission_period),
            ours: [None, Some(NOTHING), Some(NOTHING)],
            ..ROW
        },
        Row {
            change: "server cluster deleted",
            theirs: [
                "",
                "delete all to sub-servers; keys go; peers are inactive, their IKE SAs go; new keys",
                "IKE SAs with members, keys and members go; the peer is inactive, its IKE SA goes; new keys",
            ],
            note: "the root goes on with its keys; so does the sub-server with the TEK, and its members come for the KEK before it ends",
            how: Restart(SERVERS, [Part::Alone; 3]),
            ours: [
                None,
                Some(Outcome { isakmp_sa: false, ..ALONE }),
                Some(Outcome {
                    isakmp_sa: false,
                    registered: false,
                    keeps_kek: false,
                    has_keys: false,
                    ..ALONE
                }),
            ],
            ..ROW
        },
    ]
}

fn retransmission_period(text: &str) -> String {
    text.replace("[group.cluster]", "[group.cluster]\nretransmission-period = \"11s\"")
}

/// The groups push nothing.
fn without_pushes(text: &str) -> String {
    text.replace("[group.rekey]\nsigning-key = \"ecdsa-p256\"\n", "")
}

/// A member that is registered at one server.
struct Member {
    number: u8,
    at: u8,
    rekey: Option<RekeyMember>,
    known: BTreeSet<Spi>,
}

impl Member {
    fn join(cluster: &mut Cluster, number: u8, at: u8) -> Self {
        let config = registration(number, number, 1, address(number), server(at));
        let now = cluster.now;
        let sa = cluster.machines.get_mut(&at).unwrap().register(config, now).group_sa();
        cluster.collect();
        let settings = RekeySettings {
            address: address(number),
            acknowledgement_length: AcknowledgementLength::default(),
            selector_byte_order: Default::default(),
            legacy: false,
        };
        let rekey = RekeyMember::new(&sa, settings, now).unwrap();
        Self { number, at, rekey, known: sa.tek_keys().keys().copied().collect() }
    }

    /// What it takes from the pushes that its server sent.
    fn accept(&mut self, cluster: &Cluster) -> Vec<PushAccepted> {
        let mut accepted = Vec::new();
        let Some(rekey) = &mut self.rekey else { return accepted };
        let own = address(self.number);
        let sent = cluster.pushes.iter();
        for (by, at, transmit) in sent.filter(|(_, _, one)| one.destination == own) {
            let _ = rekey.handle_datagram(server(*by), own, &transmit.payload, *at);
            while let Some(event) = rekey.poll_event() {
                if let RekeyEvent::Accepted(push) = event {
                    accepted.push(*push);
                }
            }
        }
        accepted
    }
}

fn group(cluster: &mut Cluster, number: u8) -> Option<&Group> {
    cluster.server(number).groups().find(|group| **group.name() == *"one")
}

/// The TEKs and the KEK that a server distributes.
fn keys(cluster: &mut Cluster, number: u8) -> (BTreeSet<Spi>, Option<[u8; 16]>) {
    let Some(group) = group(cluster, number) else { return Default::default() };
    let current = group.teks().slots().iter().filter_map(|slot| slot.current.as_ref());
    let teks = current.map(|tek| tek.lifetime.spi).collect();
    (teks, group.rekey_sa().and_then(|rekey_sa| Some(rekey_sa.kek()?.spi())))
}

/// Cluster-updates and cluster-inits of a server so far, as far as they concern group one, and its
/// number.
fn exchanged(cluster: &mut Cluster, number: u8) -> (u64, u64, u32) {
    let Some(id) = group(cluster, number).map(Group::id) else { return Default::default() };
    let side = cluster.server(number).cluster();
    match (side.root(id), side.sub_server(id)) {
        (Some(side), _) => (side.counters().updates_sent, side.counters().inits_answered, id.0),
        (_, Some(side)) => (side.counters().updates_received, side.counters().inits_sent, id.0),
        _ => (0, 0, id.0),
    }
}

fn is_active(cluster: &mut Cluster, number: u8) -> bool {
    use cluster::sub_server::RootActivity;
    let Some(id) = group(cluster, number).map(Group::id) else { return Default::default() };
    let side = cluster.server(number).cluster();
    match (side.root(id), side.sub_server(id)) {
        (Some(side), _) => side.sub_servers().all(|(_, one)| one.is_active()),
        (_, Some(side)) => matches!(side.activity(), RootActivity::Active { .. }),
        _ => false,
    }
}

/// What follows from the change at the servers that `members` are registered at, in their order.
fn play(row: &Row, parts: &[Part], places: &[u8]) -> Vec<Outcome> {
    let mut cluster = Cluster::of(parts, row.tek, "");
    let numbers: Vec<u8> = cluster.machines.keys().copied().collect();
    for machine in cluster.machines.values_mut() {
        machine.configure((row.start)(machine.text()));
    }
    numbers.iter().for_each(|number| cluster.start(*number));
    cluster.run(seconds(12));
    let mut members: Vec<Member> =
        (1..).zip(places).map(|(number, at)| Member::join(&mut cluster, number, *at)).collect();
    cluster.run(seconds(5));
    let before: Vec<_> = places.iter().map(|at| keys(&mut cluster, *at)).collect();
    let mut counted: Vec<_> = places.iter().map(|at| exchanged(&mut cluster, *at)).collect();
    for number in numbers {
        match row.how {
            Reload(edit) => cluster.change(number, edit),
            Restart(_, after) => {
                cluster.restart_as(number, after[usize::from(number) - 1], row.tek, "");
                counted = vec![Default::default(); places.len()];
            }
            RestartWith(edit) => {
                let text = edit(cluster.machines[&number].text());
                cluster.kill(number);
                cluster.machines.get_mut(&number).unwrap().configure(text);
                cluster.start(number);
                counted = vec![Default::default(); places.len()];
            }
            Refused(..) => {}
        }
        cluster.run(seconds(2));
    }
    cluster.run(seconds(13));
    let each = members.iter_mut().zip(before.iter().zip(&counted));
    let outcomes = each.map(|(member, (before, counted))| {
        let accepted = member.accept(&cluster);
        let told = told(&accepted, &member.known);
        let (teks, kek) = keys(&mut cluster, member.at);
        let now = exchanged(&mut cluster, member.at);
        // Another group counts again.
        let counted = if now.2 == counted.2 { *counted } else { Default::default() };
        Outcome {
            told,
            isakmp_sa: cluster.server(member.at).statistics().established > 0,
            registered: group(&mut cluster, member.at)
                .is_some_and(|group| group.registry().len() == 1),
            keeps_tek: !teks.is_disjoint(&before.0),
            keeps_kek: kek.is_some() && kek == before.1,
            has_keys: !teks.is_empty() && kek.is_some(),
            update: now.0 > counted.0 && !matches!(row.how, Restart(..) | RestartWith(_)),
            init: now.1 > counted.1,
            active: is_active(&mut cluster, member.at),
        }
    });
    outcomes.collect()
}

fn check(rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for row in rows {
        let [alone, root, sub_server] = row.ours;
        let found = match row.how {
            Refused(edit, words) => {
                let cluster = Cluster::new(2, row.tek, "");
                let report = gcks::config::parse("gcks.toml", &edit(cluster.machines[&1].text()));
                let report = report.err().map(|report| report.to_string()).unwrap_or_default();
                if !report.contains(words) {
                    wrong.push(format!("{}: {report}", row.change));
                }
                continue;
            }
            Restart(before, _) => {
                let all = play(&row, &before, &[1, 2]);
                [None, Some(all[0]), Some(all[1])]
            }
            Reload(_) | RestartWith(_) => {
                let own = alone.map(|_| play(&row, &[Part::Alone], &[1])[0]);
                let all = root.map(|_| play(&row, &SERVERS, &[1, 2]));
                [own, all.as_ref().map(|all| all[0]), all.as_ref().map(|all| all[1])]
            }
        };
        let columns = ["on its own", "root server", "sub-server"];
        for (place, (found, ours)) in found.iter().zip([alone, root, sub_server]).enumerate() {
            if *found != ours && ours.is_some() {
                wrong.push(format!(
                    "{}, {}: theirs: {}; ours ({}):\n found {found:?}\n ought {ours:?}",
                    row.change, columns[place], row.theirs[place], row.note
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_change_of_a_group() {
    check(group_rows());
}

#[test]
fn every_change_of_the_cluster() {
    check(cluster_rows());
}

/// "Delete all" by the operator: the sub-servers tell their members, and all get new keys.
#[test]
fn a_delete_of_the_operator_reaches_the_members_of_all_servers() {
    let mut cluster = Cluster::of(&SERVERS, CBC, "");
    (1..=3).for_each(|number| cluster.start(number));
    cluster.run(seconds(12));
    let mut members = [(1, 2), (2, 3)].map(|(number, at)| Member::join(&mut cluster, number, at));
    let now = cluster.now;
    cluster.server(1).delete("one", now).unwrap();
    cluster.run(seconds(3));
    for member in &mut members {
        assert_eq!(told(&member.accept(&cluster), &member.known), Told::AllDeleted);
        assert_eq!(group(&mut cluster, member.at).unwrap().registry().len(), 0);
        let own = keys(&mut cluster, member.at);
        assert_eq!(own, keys(&mut cluster, 1), "and the keys that the root made again");
        assert!(own.0.is_disjoint(&member.known) && !own.0.is_empty());
    }
    Member::join(&mut cluster, 1, 2);
}

/// A sub-server cannot give the others new keys; it stops relaying to who is none of its members.
#[test]
fn a_member_that_goes_from_a_sub_server_gets_no_push_there() {
    let mut cluster = Cluster::of(&SERVERS, CBC, "");
    (1..=3).for_each(|number| cluster.start(number));
    cluster.run(seconds(12));
    Member::join(&mut cluster, 1, 2);
    Member::join(&mut cluster, 2, 2);
    let since = cluster.now;
    cluster.change(2, |text| without(text, "[[member]]\nname = \"g2\"", "[[member]]"));
    assert_eq!(group(&mut cluster, 2).unwrap().registry().len(), 1);
    cluster.server(1).rekey("one", since).unwrap();
    cluster.run(seconds(3));
    let told: Vec<_> = cluster.pushed(2, since).into_iter().map(|(to, _)| to).collect();
    assert_eq!(told, [address(1)]);
}

/// Whoever had the keys by any server cannot go on.
#[test]
fn a_member_that_goes_from_the_root_takes_the_keys_of_all_servers_with_it() {
    let mut cluster = Cluster::of(&SERVERS, CBC, "");
    (1..=3).for_each(|number| cluster.start(number));
    cluster.run(seconds(12));
    let mut members = [(1, 2), (2, 3)].map(|(number, at)| Member::join(&mut cluster, number, at));
    // The root hears of them.
    cluster.run(seconds(3));
    let before = keys(&mut cluster, 1);
    for number in 1..=3 {
        let out = |text: &str| without(text, "[[member]]\nname = \"g2\"", "[[member]]");
        cluster.change(number, out);
        cluster.run(seconds(2));
    }
    for member in &mut members {
        assert_eq!(told(&member.accept(&cluster), &member.known), Told::AllDeleted);
        let own = keys(&mut cluster, member.at);
        assert!(own.0.is_disjoint(&before.0) && own.1.is_some() && own.1 != before.1);
    }
    Member::join(&mut cluster, 1, 2);
}
