//! Clear IPv6 between protected prefixes, in every form that leads around a look at the addresses.
//! Each is tried without guards first: what does not pass then proves nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by failing")]

mod router;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use router::*;
use xfrm::nft::Preservation;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

fn group() -> Preservation {
    let prefixes = ["fd00:200::/64", "fd00:77::/64"].map(|text| text.parse().unwrap());
    Preservation {
        lan: BTreeSet::from([String::from("lan")]),
        wan: BTreeSet::from([String::from("wan")]),
        protected: BTreeSet::from([BTreeSet::from(prefixes)]),
        ..Preservation::default()
    }
}

fn udp() -> Vec<u8> {
    vec![0x17, 0x70, 0x13, 0x88, 0, 12, 0x55, 0x55, 1, 2, 3, 4]
}

/// Options of six octets of padding, in front of UDP.
fn options() -> Vec<u8> {
    [vec![UDP, 0, 1, 4, 0, 0, 0, 0], udp()].concat()
}

/// A fragment header in front of these octets.
fn fragment(next: u8, offset: u16, more: bool, octets: &[u8]) -> Vec<u8> {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    [&[next, 0, high, low, 0, 0, 0, 7], octets].concat()
}

/// A segment routing header (RFC 8754 §2) that leads from the router to the near host.
fn segments() -> Vec<u8> {
    let header = [UDP, 4, 4, 1, 1, 0, 0, 0];
    [&header, NEAR6.octets().as_slice(), &WAN6.octets(), &udp()].concat()
}

/// The header type and what follows it, for each way to write a packet of UDP.
fn forms() -> Vec<(&'static str, u8, Vec<u8>)> {
    vec![
        ("plain", UDP, udp()),
        ("hop-by-hop options", HOP_BY_HOP, options()),
        ("destination options", DESTINATION_OPTIONS, options()),
        ("first fragment", FRAGMENT, fragment(UDP, 0, true, &[7; 16])),
        ("later fragment", FRAGMENT, fragment(UDP, 16, false, &[7; 16])),
        ("first fragment that ends within its headers", FRAGMENT, {
            fragment(DESTINATION_OPTIONS, 0, true, &[UDP, 1, 1, 12, 0, 0, 0, 0])
        }),
    ]
}

/// Asserts what arrives of a packet from the far host, and of one from the near one.
fn assert_passes(world: &World, count: u32) {
    for (form, next, rest) in forms() {
        world.far.send6(next, FORGED6, NEAR6, rest.clone());
        assert_eq!(world.near.arrived6(NEAR6), count, "{form} to the LAN");
        world.near.send6(next, NEAR6, FORGED6, rest);
        assert_eq!(world.far.arrived6(FORGED6), count, "{form} to the WAN");
    }
}

#[test]
#[ignore = "needs root and nft: makes network namespaces"]
fn no_form_of_a_clear_packet_passes() {
    let mut world = World::new();
    assert_passes(&world, COUNT);
    world.guard(group());
    assert_passes(&world, 0);
    // What is not the group's goes on.
    world.far.send6(UDP, FAR6, NEAR6, udp());
    assert_eq!(world.near.arrived6(NEAR6), COUNT);
}

#[test]
#[ignore = "needs root and nft: makes network namespaces"]
fn a_forwarded_port_brings_nothing_to_a_lan() {
    let mut world = World::new();
    sh("nft 'add table ip6 user; add chain ip6 user p { type nat hook prerouting priority -100; }; \
        add rule ip6 user p iifname wan udp dport 5000 dnat to fd00:200::2'
        echo 0 > /proc/sys/net/netfilter/nf_conntrack_checksum");
    world.far.send6(UDP, FORGED6, WAN6, udp());
    assert_eq!(world.near.arrived6(NEAR6), COUNT);
    world.guard(group());
    world.far.send6(UDP, FORGED6, WAN6, udp());
    assert_eq!(world.near.arrived6(NEAR6), 0);
}

/// The router writes the next segment into the header, as with a source route of IPv4.
#[test]
#[ignore = "needs root and nft: makes network namespaces"]
fn segment_routing_brings_nothing_to_a_lan() {
    let mut world = World::new();
    sh("echo 1 > /proc/sys/net/ipv6/conf/all/seg6_enabled
        echo 1 > /proc/sys/net/ipv6/conf/wan/seg6_enabled");
    world.far.send6(ROUTING, FORGED6, WAN6, segments());
    assert_eq!(world.near.arrived6(NEAR6), COUNT);
    world.guard(group());
    world.far.send6(ROUTING, FORGED6, WAN6, segments());
    assert_eq!(world.near.arrived6(NEAR6), 0);
}

/// A segment of the router that takes the outer header off and sends what is in it to a LAN.
#[test]
#[ignore = "needs root and nft: makes network namespaces"]
fn a_segment_that_unwraps_packets_brings_nothing_to_a_lan() {
    let mut world = World::new();
    let segment: Ipv6Addr = "fd00:202::1".parse().unwrap();
    sh("ip -6 route add fd00:202::1 encap seg6local action End.DX6 nh6 :: dev wan");
    let length = u8::try_from(udp().len()).unwrap();
    let inner = [vec![0x60, 0, 0, 0, 0, length, UDP, 64], FORGED6.octets().to_vec()].concat();
    let inner = [inner, NEAR6.octets().to_vec(), udp()].concat();
    const IPV6: u8 = 41;
    world.far.send6(IPV6, FAR6, segment, inner.clone());
    assert_eq!(world.near.arrived6(NEAR6), COUNT);
    world.guard(group());
    world.far.send6(IPV6, FAR6, segment, inner);
    assert_eq!(world.near.arrived6(NEAR6), 0);
}
