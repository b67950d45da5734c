//! Commands that clear, and the figures of pushes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use control::key_server::ServerSnapshot;
use control::{ClearArgument, Request, Response};
use gcks::control::{answer, snapshot};
use gcks::group::key_generation::OsEntropy;
use gcks::server::KeyServer;
use ike::BootTime;
use support::cluster::Cluster;
use support::lab::Lab;
use support::world::{LATENCY, is_push};
use support::{CBC, at, pushes, seconds};

fn ask(key_server: &mut KeyServer<OsEntropy>, request: &Request, now: BootTime) -> Response {
    answer(key_server, request, &[], at(0), now)
}

fn done(key_server: &mut KeyServer<OsEntropy>, request: &Request, now: BootTime) -> String {
    match ask(key_server, request, now) {
        Response::Done(done) => done.message,
        other => panic!("{other:?}"),
    }
}

fn clear(group: Option<&str>, now: bool) -> Request {
    Request::ClearServer(ClearArgument { group: group.map(str::to_owned), now })
}

fn shown(lab: &Lab) -> ServerSnapshot {
    snapshot(&lab.world.service, &[], at(0), lab.world.now)
}

#[test]
fn a_cleared_group_has_new_keys_and_nobody_is_cut_off() {
    let mut lab = Lab::new(CBC, &pushes(""));
    let (spis, pulls) = (lab.world.spis(1), lab.pulls());
    let kek = shown(&lab).groups[0].rekey.as_ref().unwrap().kek.as_ref().unwrap().spi.clone();
    let now = lab.world.now;
    let line = done(&mut lab.world.service, &clear(Some("one"), false), now);
    assert_eq!(
        line,
        "new TEKs and KEK for group one, the old ones go as its delays say: push 1 goes to 2 members"
    );
    lab.world.run(seconds(60));
    assert!(lab.world.spis(1).is_disjoint(&spis));
    let after = shown(&lab);
    assert_ne!(after.groups[0].rekey.as_ref().unwrap().kek.as_ref().unwrap().spi, kek);
    assert_eq!((lab.pulls(), lab.world.splits.as_slice()), (pulls, &[][..]));
    assert_eq!(after.groups[0].members, 2);
}

#[test]
fn a_group_that_is_cleared_at_once_begins_anew() {
    let mut lab = Lab::new(CBC, &pushes(""));
    let now = lab.world.now;
    let line = done(&mut lab.world.service, &clear(None, true), now);
    assert_eq!(
        line,
        "all 2 members of group one removed: push 1 goes to 2 members; \
         all 1 members of group two removed: push 1 goes to 1 member"
    );
    assert_eq!(shown(&lab).statistics.isakmp_sas, 0);
    lab.world.run(seconds(30));
    assert_eq!(lab.pulls(), [2, 2, 2], "all register again");
    let refused = ask(&mut lab.world.service, &clear(Some("none"), true), now);
    assert!(matches!(refused, Response::Refused(_)));
}

#[test]
fn repetitions_of_a_push_and_its_duration_are_counted_and_cleared() {
    let mut lab = Lab::new(CBC, &pushes(""));
    // The first copy to every member is lost.
    let mut lost = 0;
    lab.world.network = Box::new(move |transmit| {
        lost += u32::from(is_push(transmit));
        if is_push(transmit) && lost <= 2 { vec![] } else { vec![LATENCY] }
    });
    lab.world.service.rekey("one", lab.world.now).unwrap();
    lab.world.run(seconds(20));
    let after = shown(&lab);
    let rekey = after.groups[0].rekey.as_ref().unwrap();
    assert_eq!((rekey.pushes, rekey.acknowledgements, rekey.retransmissions), (1, 2, 2));
    let took = rekey.last_push_milliseconds.unwrap();
    assert!(
        (10_000..10_200).contains(&took),
        "{took} ms: sent again after 10 s, then acknowledged"
    );
    assert!(after.statistics.datagrams_received > 0 && after.groups[0].pulls_succeeded == 2);
    let now = lab.world.now;
    done(&mut lab.world.service, &Request::ClearServerStatistics, now);
    let cleared = shown(&lab);
    assert_eq!(cleared.statistics.datagrams_received, 0);
    assert_eq!(cleared.statistics.phase1_established, 0);
    assert_eq!(cleared.statistics.isakmp_sas, 3, "what there is now is no total");
    let rekey = cleared.groups[0].rekey.as_ref().unwrap();
    assert_eq!((rekey.pushes, rekey.retransmissions, rekey.last_push_milliseconds), (0, 0, None));
    assert_eq!(cleared.groups[0].pulls_succeeded, 0);
}

#[test]
fn isakmp_sas_with_members_and_servers_are_shown() {
    let mut lab = Lab::new(CBC, &pushes(""));
    let now = lab.world.now;
    let Response::IsakmpSas(sas) = ask(&mut lab.world.service, &Request::ShowServerIke, now) else {
        panic!()
    };
    let mut names: Vec<_> = sas.iter().map(|one| one.name.as_deref().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["g1", "g2", "g3"]);
    assert!(
        sas.iter().all(|one| one.peer == "member" && one.sa.lifetime_left_seconds > Some(3000))
    );

    let mut cluster = Cluster::new(2, CBC, "");
    (1..=3).for_each(|number| cluster.start(number));
    cluster.run(seconds(10));
    let now = cluster.now;
    let Response::IsakmpSas(sas) = ask(cluster.server(1), &Request::ShowServerIke, now) else {
        panic!()
    };
    let names: Vec<_> = sas.iter().map(|one| (one.name.as_deref().unwrap(), &*one.peer)).collect();
    assert_eq!(names, [("ks2", "server"), ("ks3", "server")]);
}

#[test]
fn a_cleared_cluster_begins_anew() {
    let mut cluster = Cluster::new(2, CBC, "");
    (1..=3).for_each(|number| cluster.start(number));
    cluster.run(seconds(10));
    let now = cluster.now;
    let cookies = |cluster: &mut Cluster| {
        let links = cluster.server(2).cluster().links();
        links.map(|(_, link)| link.isakmp_sa().unwrap().1.cookies()).collect::<Vec<_>>()
    };
    let before = cookies(&mut cluster);
    let line = done(cluster.server(2), &Request::ClearServerCluster, now);
    assert_eq!(line, "the channel to 1 server is reset; keys and members stay");
    done(cluster.server(2), &Request::ClearServerStatistics, now);
    cluster.run(seconds(10));
    assert_ne!(cookies(&mut cluster), before);
    let group = gdoi::group::GroupId(1);
    let counters = cluster.server(2).cluster().sub_server(group).unwrap().counters();
    assert_eq!((counters.inits_succeeded, counters.updates_received), (1, 0));
}
