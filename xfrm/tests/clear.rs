//! Clear packets that no policy of XFRM sees as the group's, through a router of one namespace with
//! a host on either side. Each case is tried without guards first: what does not pass then proves
//! nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by failing")]

mod router;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use router::*;
use xfrm::nft::{DontFragment, GroupPreservation, Preservation, SegmentSize};

fn group() -> Preservation {
    let prefixes = ["10.200.0.0/24", "10.77.0.0/24"].map(|text| text.parse().unwrap());
    Preservation {
        lan: BTreeSet::from([String::from("lan")]),
        wan: BTreeSet::from([String::from("wan")]),
        protected: BTreeSet::from([BTreeSet::from(prefixes)]),
        ..Preservation::default()
    }
}

fn udp() -> Vec<u8> {
    vec![0x17, 0x70, 0x13, 0x88, 0, 12, 0, 0, 1, 2, 3, 4]
}

#[test]
#[ignore = "needs root and nft: makes network namespaces"]
fn a_source_route_brings_nothing_to_a_lan() {
    let mut world = World::new();
    // Loose, with one hop left.
    let options: Vec<u8> = [131, 7, 4].into_iter().chain(NEAR.octets()).chain([0]).collect();
    world.far.send(UDP, WAN, options.clone(), udp());
    assert_eq!(world.near.arrived(UDP), COUNT);
    world.guard(group());
    world.far.send(UDP, WAN, options, udp());
    assert_eq!(world.near.arrived(UDP), 0);
    assert!(sh("nft list table ip gdoi").contains("3 bytes 120 drop comment \"drop: source route"));
}

#[test]
#[ignore = "needs root and nft: makes network namespaces"]
fn a_forwarded_port_brings_nothing_of_a_tunnel_in_clear() {
    let mut world = World::new();
    sh("nft 'add table ip user; add chain ip user p { type nat hook prerouting priority -100; }; \
        add rule ip user p iifname wan udp dport 5000 dnat to 10.200.0.2'");
    world.far.send(UDP, WAN, Vec::new(), udp());
    assert_eq!(world.near.arrived(UDP), COUNT);
    let tunnel = ("10.200.0.0/24".parse().unwrap(), "10.77.0.0/24".parse().unwrap());
    world.guard(Preservation { tunnels: BTreeSet::from([tunnel]), ..Preservation::default() });
    world.far.send(UDP, WAN, Vec::new(), udp());
    assert_eq!(world.near.arrived(UDP), 0);
}

/// It is restored for XFRM, and XFRM does not get it.
#[test]
#[ignore = "needs root and nft: makes network namespaces"]
fn esp_for_a_local_address_that_is_gone_does_not_go_back() {
    let mut world = World::new();
    let esp: Vec<u8> = 0x1300_u32.to_be_bytes().into_iter().chain([0; 12]).collect();
    world.far.send(ESP, LOCAL, Vec::new(), esp.clone());
    // Its route leads back, to and fro until its hops end.
    assert!(world.far.arrived(ESP) > COUNT);
    let entry = GroupPreservation {
        local: LOCAL.into(),
        outbound_reqids: BTreeSet::new(),
        inbound_spis: BTreeSet::from([0x1300]),
        fragments: BTreeSet::new(),
        dont_fragment: DontFragment::Clear,
        segment_size: SegmentSize::Unchanged,
    };
    let groups = BTreeMap::from([("192.0.2.1".parse().unwrap(), entry)]);
    world.guard(Preservation { groups, ..group() });
    world.far.send(ESP, NEAR, Vec::new(), esp);
    assert_eq!((world.far.arrived(ESP), world.near.arrived(ESP)), (0, 0));
    assert!(
        sh("nft list table ip gdoi").contains("packets 3 bytes 108 drop comment \"drop: ESP for a")
    );
}

/// More prefixes than get block policies: the guards alone close the group, also while one more
/// comes and goes, and after the tables were flushed.
#[test]
#[ignore = "needs root and nft: makes network namespaces"]
fn many_prefixes_are_closed_by_the_guards_alone() {
    let many = |count: u8| {
        let prefixes = (0..count).map(|net| format!("10.78.{net}.0/25").parse().unwrap());
        let own = ["10.200.0.0/24", "10.77.0.0/24"].map(|text| text.parse().unwrap());
        let protected = BTreeSet::from([prefixes.chain(own).collect()]);
        Preservation { protected, ..group() }
    };
    let mut world = World::new();
    world.far.send(UDP, NEAR, Vec::new(), udp());
    world.near.send(UDP, FORGED, Vec::new(), udp());
    assert_eq!(world.near.arrived(UDP), COUNT);
    // Nobody has that address: its packets go to and fro.
    assert!(world.far.arrived(UDP) >= COUNT);
    world.guard(many(90));
    // Sent all the time while the sets are replaced.
    world.far.send_for(Duration::from_secs(3), NEAR, udp());
    for count in [91, 90, 200, 90] {
        world.guard(many(count));
    }
    assert!(world.far.sent() > 100);
    world.near.send(UDP, FORGED, Vec::new(), udp());
    assert_eq!((world.near.arrived(UDP), world.far.arrived(UDP)), (0, 0));
    sh("nft flush ruleset");
    world.far.send(UDP, NEAR, Vec::new(), udp());
    world.near.send(UDP, FORGED, Vec::new(), udp());
    assert_eq!((world.near.arrived(UDP), world.far.arrived(UDP)), (0, 0));
}
