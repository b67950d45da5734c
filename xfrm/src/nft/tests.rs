use super::content::{guard_tables, main_tables};
use super::dump::Dump;
use super::table::{
    Message, NEW_CHAIN, NEW_ELEMENT, NEW_RULE, NEW_SET, NEW_TABLE, change_elements, hook_digest,
    remove, replace,
};
use super::*;
use ipnet::IpNet;

use super::rule::Rule;
use crate::model::{Reqid, Selector};
use crate::nft::{DontFragment, GroupPreservation, SegmentSize};

fn preservation() -> Preservation {
    let net = |text: &str| text.parse().unwrap();
    let pair = |text: &str| (net(text), net(text));
    Preservation {
        lan: BTreeSet::from([String::from("lan")]),
        vrf: BTreeSet::new(),
        wan: BTreeSet::from([String::from("wan"), String::from("absent")]),
        protected: BTreeSet::from([BTreeSet::from([
            net("172.16.0.0/12"),
            net("192.168.0.0/16"),
            net("fd00::/16"),
        ])]),
        guard: BTreeSet::from([pair("10.1.0.0/24"), pair("10.1.0.0/16"), pair("fc00::/16")]),
        tunnels: BTreeSet::new(),
        tunnel_ends: BTreeSet::new(),
        guard_everything: false,
        exclude: BTreeSet::new(),
        exclude_arriving: BTreeSet::new(),
        groups: BTreeMap::from([(
            "192.0.2.1".parse().unwrap(),
            GroupPreservation {
                local: "10.0.1.1".parse().unwrap(),
                outbound_reqids: BTreeSet::from([Reqid(0x4744_0000)]),
                inbound_spis: BTreeSet::from([0x1300, 0x1301]),
                fragments: BTreeSet::from([pair("172.16.0.0/12")]),
                dont_fragment: DontFragment::Clear,
                segment_size: SegmentSize::Unchanged,
            },
        )]),
        defragment: false,
        bandwidth: BTreeMap::new(),
    }
}

fn interfaces() -> BTreeMap<String, u32> {
    BTreeMap::from([(String::from("lan"), 2), (String::from("wan"), 3)])
}

/// What the kernel dumps repeats the attributes that it was given.
fn dumped(messages: &[Message]) -> Fingerprint {
    let ownership = Ownership::default();
    let mut dump = Dump::new(&ownership);
    for (kind, _, body) in messages {
        let known = match *kind {
            NEW_TABLE => dump.table(body),
            NEW_CHAIN => dump.chain(body),
            NEW_RULE => dump.rule(body).or(Some(())),
            NEW_SET => dump.set(body).map(|_| ()),
            NEW_ELEMENT => dump.elements(body),
            _ => None,
        };
        known.unwrap();
    }
    dump.fingerprint
}

fn messages(preservation: &Preservation) -> Vec<Message> {
    let (interfaces, ownership) = (interfaces(), Ownership::default());
    let mut tables = main_tables(preservation, &interfaces, &ownership);
    tables.extend(guard_tables(preservation, &ownership, super::table::OWNED));
    let mut messages = replace("x", 0, &tables);
    messages.drain(..6);
    messages
}

#[test]
fn what_is_written_is_recognised() {
    let wanted = Fingerprint::wanted(&preservation(), &interfaces(), &Ownership::default());
    assert_eq!(dumped(&messages(&preservation())), wanted);
    assert!(!wanted.is_empty());
}

/// A policer in each direction, of its own for each gateway, and nothing else.
#[test]
fn bandwidth_is_policed_per_gateway() {
    let pair = |peer: &str| ("10.0.1.1".parse().unwrap(), peer.parse().unwrap());
    let bandwidth = |octets_per_second, peers: &[&str]| Bandwidth {
        octets_per_second,
        ends: peers.iter().map(|peer| pair(peer)).collect(),
    };
    let policed = |octets: u64| Preservation {
        bandwidth: BTreeMap::from([
            (String::from("cloud"), bandwidth(octets, &["203.0.113.1", "203.0.113.2"])),
            ("x".repeat(300), bandwidth(3_750_000, &["203.0.113.9"])),
        ]),
        ..preservation()
    };
    let all = messages(&policed(1_250_000));
    let wanted =
        |octets| Fingerprint::wanted(&policed(octets), &interfaces(), &Ownership::default());
    assert_eq!(dumped(&all), wanted(1_250_000));
    assert!(!wanted(1_250_000).same_rules(&wanted(2_500_000), "gdoi"));
    let chains = chains(&policed(1_250_000));
    for (direction, received) in [("sent", false), ("received", true)] {
        let chain = |suffix: &str| {
            let name = format!("bandwidth_{direction}{suffix}");
            chains[&("gdoi".into(), IP, name)][1..].to_vec()
        };
        let comment = over_bandwidth("cloud", received);
        let over = Rule::new(IP, IP, &comment).over(1_250_000).counted().dropped();
        assert_eq!(chain("_0"), [over.digest()]);
        assert_eq!((chain("_1").len(), chain("").len()), (1, 4));
        let set = format!("bandwidth_{direction}_0");
        let esp = Rule::new(IP, IP, "").esp_between(&set).jumps(&set);
        let udp = Rule::new(IP, IP, "").udp_esp_between(&set, received).jumps(&set);
        assert_eq!(chain("")[..2], [esp.digest(), udp.digest()]);
    }
    let longest = all.iter().map(|(.., body)| body).filter_map(|body| {
        let data = crate::attribute::find(body.get(4..)?, 7)?;
        Some(data.len())
    });
    assert!(longest.max().unwrap() <= 256);
}

#[test]
fn a_missing_or_foreign_rule_is_noticed() {
    let wanted = Fingerprint::wanted(&preservation(), &interfaces(), &Ownership::default());
    let all = messages(&preservation());
    for position in 0..all.len() {
        let mut fewer = all.clone();
        let (kind, ..) = fewer.remove(position);
        if kind == NEW_ELEMENT && dumped(&fewer) == dumped(&all) {
            // Of a set that nobody can change while it is in use.
            continue;
        }
        let now = dumped(&fewer);
        let same = ["gdoi", "gdoi-guard"].iter().all(|table| wanted.same_rules(&now, table));
        let sets = wanted.set_changes(&now, "gdoi");
        assert!(!same || !sets.is_empty(), "message {position} of kind {kind:#x} is not missed");
    }
    let mut more = dumped(&all);
    more.chains.get_mut(&("gdoi".into(), IP, "restore".into())).unwrap().insert(1, 0);
    assert!(!wanted.same_rules(&more, "gdoi"));
}

#[test]
fn every_fact_changes_the_digest() {
    let wanted = |change: &dyn Fn(&mut Preservation)| {
        let mut changed = preservation();
        change(&mut changed);
        Fingerprint::wanted(&changed, &interfaces(), &Ownership::default())
    };
    let placeholder = "192.0.2.1".parse().unwrap();
    let changes: [&dyn Fn(&mut Preservation); 10] = [
        &|_| {},
        &|p| p.guard_everything = true,
        &|p| p.protected = BTreeSet::from([BTreeSet::from(["172.16.0.0/12".parse().unwrap()])]),
        &|p| p.lan = BTreeSet::from([String::from("lan2")]),
        &|p| p.wan = BTreeSet::from([String::from("lan")]),
        &|p| {
            p.guard = BTreeSet::from([(
                "172.16.0.0/13".parse().unwrap(),
                "172.16.0.0/12".parse().unwrap(),
            )])
        },
        &|p| p.groups.get_mut(&placeholder).unwrap().local = "10.0.1.2".parse().unwrap(),
        &|p| p.groups.get_mut(&placeholder).unwrap().segment_size = SegmentSize::AtMost(1360),
        &|p| p.groups.get_mut(&placeholder).unwrap().dont_fragment = DontFragment::Set,
        &|p| p.defragment = true,
    ];
    let all: Vec<Fingerprint> = changes.iter().map(|change| wanted(*change)).collect();
    for (position, one) in all.iter().enumerate() {
        let equal = all.iter().filter(|other| other.same_rules(one, "gdoi")).count();
        assert_eq!(equal, 1, "change {position}");
    }
    // SPIs change in place.
    let spis = wanted(&|p| {
        p.groups.get_mut(&placeholder).unwrap().inbound_spis = BTreeSet::from([0x1301, 0x1302])
    });
    assert!(spis.same_rules(&all[0], "gdoi"));
    let change = SetChange {
        set: String::from("inbound_192.0.2.1"),
        add: BTreeSet::from([0x1302]),
        remove: BTreeSet::from([0x1300]),
    };
    assert_eq!(spis.set_changes(&all[0], "gdoi"), [change]);
}

#[test]
fn the_number_of_rules_does_not_depend_on_the_number_of_prefixes_and_selectors() {
    let rules = |preservation: &Preservation| -> usize {
        chains(preservation).values().map(Vec::len).sum()
    };
    let mut more = preservation();
    let net = |text: String| -> IpNet { text.parse().unwrap() };
    let mut prefixes: BTreeSet<IpNet> =
        (0..200).map(|number| net(format!("172.{}.{number}.0/24", 16 + number % 7))).collect();
    prefixes.insert(net("fd00::/16".to_owned()));
    more.protected = BTreeSet::from([prefixes]);
    more.guard.extend((0..1_000).map(|number| {
        let [high, low] = [number / 200, number % 200];
        (net(format!("10.{}.{low}.0/24", 2 + high)), net(format!("10.9.{low}.0/24")))
    }));
    assert_eq!(rules(&more), rules(&preservation()));
    // And all of it fits into one transaction of at most 8 MiB.
    let octets: usize = messages(&more).iter().map(|(.., body)| body.len() + 24).sum();
    assert!(octets < 1 << 20, "{octets}");
}

/// The ordinary case, without a look-up.
#[test]
fn a_single_prefix_is_compared() {
    let mut single = preservation();
    let net: IpNet = "172.16.0.0/12".parse().unwrap();
    single.protected = BTreeSet::from([BTreeSet::from([net])]);
    let chains = chains(&single);
    let compared = Rule::new(IP, IP, "").between(&net, &net).jumps("leaving").digest();
    for table in ["gdoi", "gdoi-guard"] {
        assert!(chains[&(table.into(), IP, "before_nat".into())].contains(&compared));
    }
}

#[test]
fn what_lies_between_two_groups_belongs_to_neither() {
    let mut two = preservation();
    let net = |text: &str| -> BTreeSet<IpNet> { BTreeSet::from([text.parse().unwrap()]) };
    two.protected = BTreeSet::from([net("172.16.0.0/16"), net("172.17.0.0/16")]);
    let chains = chains(&two);
    let rule = || Rule::new(IP, IP, "");
    for table in ["gdoi", "gdoi-guard"] {
        let first = rule().source_in("protected_ip").destination_in("protected_ip");
        let first = first.jumps("leaving_of_group").digest();
        assert!(chains[&(table.into(), IP, "before_nat".into())].contains(&first));
        let groups: Vec<u64> = (0..2)
            .map(|number| {
                let set = format!("protected_ip_{number}");
                rule().source_in(&set).destination_in(&set).jumps("leaving").digest()
            })
            .collect();
        assert_eq!(chains[&(table.into(), IP, "leaving_of_group".into())][1..], groups);
    }
}

/// As nft 1.0.6 sends `set s { type ipv4_addr; flags constant, interval; elements = { .. } }` and
/// the same of `ipv4_addr . ipv4_addr`, user data and names apart.
#[test]
fn interval_sets_are_written_as_nft_does() {
    let messages = messages(&preservation());
    let of = |kind: u16, family: u8, name: &str| -> Vec<u8> {
        let named = [name.as_bytes(), b"\0"].concat();
        let holds = |body: &[u8]| body.windows(named.len()).any(|window| window == named);
        let found = messages
            .iter()
            .find(|(k, _, body)| *k == kind && body.first() == Some(&family) && holds(body));
        found.unwrap().2.clone()
    };
    let contains = |body: &[u8], part: &[u8]| body.windows(part.len()).any(|one| one == part);
    let set = of(NEW_SET, IP, "protected_ip");
    // Flags constant and interval, type ipv4_addr, four octets.
    let key = b"\x08\0\x03\0\0\0\0\x06\x08\0\x04\0\0\0\0\x07\x08\0\x05\0\0\0\0\x04";
    assert!(contains(&set, key));
    let elements = of(NEW_ELEMENT, IP, "protected_ip");
    // The end of an interval is the first address behind it, with a flag.
    let end = b"\x18\0\x01\x80\x0c\0\x01\x80\x08\0\x01\0\xac\x20\0\0\x08\0\x03\0\0\0\0\x01";
    assert!(contains(&elements, end));
    let pairs = of(NEW_SET, IP, "selectors_ip_0");
    let key = b"\x08\0\x03\0\0\0\0\x86\x08\0\x04\0\0\0\x01\xc7\x08\0\x05\0\0\0\0\x08";
    let fields =
        b"\x1c\0\x02\x80\x0c\0\x01\x80\x08\0\x01\0\0\0\0\x04\x0c\0\x01\x80\x08\0\x01\0\0\0\0\x04";
    assert!(contains(&pairs, key) && contains(&pairs, fields));
    let elements = of(NEW_ELEMENT, IP, "selectors_ip_0");
    let pair = b"\x0c\0\x01\0\x0a\x01\0\0\x0a\x01\0\0\x10\0\x0a\x80\x0c\0\x01\0\x0a\x01\xff\xff\x0a\x01\xff\xff";
    assert!(contains(&elements, pair), "{elements:02x?}");
}

#[test]
fn removing_works_whether_the_tables_are_there_or_not() {
    let kinds: Vec<_> =
        remove("gdoi", 0).iter().map(|(kind, _, body)| (*kind & 0xff, body[0])).collect();
    assert_eq!(kinds, [(0, NETDEV), (2, NETDEV), (0, IP), (2, IP), (0, IP6), (2, IP6)]);
}

/// The octets that nft 1.0.6 sends for `add element ip t s { 0x1300, 0x1301 }`, recorded with
/// `--debug=mnl`.
#[test]
fn elements_are_written_as_nft_does() {
    let messages = change_elements("t", "s", &BTreeSet::from([0x1300, 0x1301]), &BTreeSet::new());
    let [(kind, _, body)] = messages.as_slice() else { panic!() };
    assert_eq!(*kind, NEW_ELEMENT);
    let expected = b"\x02\0\0\0\x06\0\x01\0t\0\0\0\x06\0\x02\0s\0\0\0\x24\0\x03\x80\
        \x10\0\x01\x80\x0c\0\x01\x80\x08\0\x01\0\0\0\x13\0\x10\0\x01\x80\x0c\0\x01\x80\x08\0\x01\0\0\0\x13\x01";
    assert_eq!(body.as_slice(), expected);
}

#[test]
fn chain_names_are_readable_and_distinct() {
    assert_eq!(chain_name("eth0.100"), "guard_eth0.100");
    let names: BTreeSet<String> =
        ["a_b", "a-b", "a.b", "a:b", "a@b"].into_iter().map(chain_name).collect();
    assert_eq!(names.len(), 5);
}

fn chains(preservation: &Preservation) -> BTreeMap<(String, u8, String), Vec<u64>> {
    Fingerprint::wanted(preservation, &interfaces(), &Ownership::default()).chains
}

#[test]
fn clear_packets_are_stopped_on_both_sides_of_source_translation() {
    let chains = chains(&preservation());
    let ownership = Ownership::default();
    let rule = |comment: &str| Rule::new(IP, IP, comment);
    let place = |priority: i32| hook_digest("filter", 4, priority, "", 1);
    for table in ["gdoi", "gdoi-guard"] {
        let rules = |chain: &str| &chains[&(table.into(), IP, chain.into())];
        let (before, behind) = (rules("before_nat"), rules("behind_nat"));
        // Every chain of translation runs inside the hook at 100, whatever its own priority.
        assert_eq!((before[0], behind[0]), (place(99), place(101)));
        let group = rule("").source_in("protected_ip").destination_in("protected_ip");
        let group = group.jumps("leaving").digest();
        assert!(before.contains(&group));
        assert_eq!(behind.contains(&group), table == "gdoi");
        assert_eq!(before[1], rule("").goes_into_ours(&ownership).jumps("destined").digest());
        assert_eq!(behind[1], rule("").destined().jumps("translated").digest());
        let remembered = rule("goes into an SA").mark_destined().accepted().digest();
        assert_eq!(rules("destined")[1..], [remembered]);
        let lost = rule("drop: translated in clear").counted().dropped().digest();
        let still = rule("").goes_into_ours(&ownership).accepted().digest();
        let encrypted = rule("").protocol(50).accepted().digest();
        assert_eq!(rules("translated")[1..], [still, encrypted, lost]);
    }
}

/// Another policy's SA is no protection, nor is one that the packet came out of.
#[test]
fn only_sas_of_ours_protect() {
    let chains = chains(&preservation());
    let ownership = Ownership::default();
    let rule = |comment: &str| Rule::new(IP, IP, comment);
    for table in ["gdoi", "gdoi-guard"] {
        let leaving = &chains[&(table.into(), IP, "leaving".into())];
        let arriving = &chains[&(table.into(), IP, "arriving".into())];
        let taken = "drop: taken by a foreign policy";
        let foreign = rule(taken).leaves_in_some_sa().counted().dropped().digest();
        assert!(leaving.contains(&rule("").goes_into_ours(&ownership).accepted().digest()));
        assert_eq!(leaving[leaving.len() - 2], foreign);
        let foreign = rule(taken).decapsulated(true).counted().dropped().digest();
        assert_eq!(arriving[1], rule("").came_out_of_ours(0, &ownership).accepted().digest());
        assert_eq!(arriving[arriving.len() - 2], foreign);
    }
    let text = rule("").goes_into_ours(&ownership).expressions().as_octets().to_vec();
    let has = |octets: &[u8]| text.windows(octets.len()).any(|one| one == octets);
    assert!(has(&0xffff_0000_u32.to_ne_bytes()) && has(&0x4744_0000_u32.to_ne_bytes()));
}

#[test]
fn clear_packets_that_destination_translation_made_the_groups_are_stopped() {
    let chains = chains(&preservation());
    let rule = || Rule::new(IP, IP, "");
    let group = rule().source_in("protected_ip").destination_in("protected_ip");
    let group = group.jumps("arriving").digest();
    // A flush does not end the translation of a connection: the guards that outlast it look, too.
    for table in ["gdoi", "gdoi-guard"] {
        for (chain, hook) in [("delivered_forward", 2), ("delivered_input", 1)] {
            let rules = &chains[&(table.into(), IP, chain.into())];
            assert_eq!(rules[0], hook_digest("filter", hook, i32::MAX - 6, "", 1));
            assert_eq!(rules[1], group);
        }
    }
}

/// The kernel writes the next hop of a source route into the header behind routing.
#[test]
fn what_has_options_and_a_source_of_the_group_goes_to_no_lan_in_clear() {
    for vrf in [BTreeSet::new(), BTreeSet::from([String::from("blue")])] {
        let chains = chains(&Preservation { vrf: vrf.clone(), ..preservation() });
        let rule = |comment: &str| Rule::new(IP, IP, comment);
        for table in ["gdoi", "gdoi-guard"] {
            let rules = |chain: &str| &chains[&(table.into(), IP, chain.into())];
            let forwarded = rules("delivered_forward");
            assert!(forwarded.contains(&rule("").has_options().jumps("source_routed").digest()));
            let dropped = rule("drop: source route in clear").source_in("protected_ip");
            let dropped = dropped.leaves_by("lan").counted().dropped().digest();
            let (last, trusted) = rules("source_routed").split_last().unwrap();
            let like = if vrf.is_empty() { "arriving" } else { "delivered" };
            assert_eq!((*last, trusted), (dropped, &rules(like)[..trusted.len()]));
        }
    }
}

/// Their networks alone tell a tunnel's packets: no LAN by name is trusted with them.
#[test]
fn what_a_tunnel_carries_passes_in_its_sa_alone() {
    let (ours, theirs): (IpNet, IpNet) =
        ("192.168.7.0/24".parse().unwrap(), "192.168.8.0/24".parse().unwrap());
    let alone =
        Preservation { tunnels: BTreeSet::from([(ours, theirs)]), ..Preservation::default() };
    let ownership = Ownership::default();
    for (preservation, beside) in [
        (alone.clone(), false),
        (Preservation { tunnels: alone.tunnels.clone(), ..preservation() }, true),
    ] {
        let chains = chains(&preservation);
        let rule = |comment: &str| Rule::new(IP, IP, comment);
        let sent = rule("").pair_in("tunnels_ip_0").jumps("tunnel_leaving").digest();
        let brought = rule("").pair_in("tunnels_back_ip_0").jumps("tunnel_arriving").digest();
        for table in ["gdoi", "gdoi-guard"] {
            let rules = |chain: &str| &chains[&(table.into(), IP, chain.into())];
            // Before the groups' rules, which let a LAN pass.
            assert_eq!(rules("before_nat")[2], sent);
            for chain in ["delivered_forward", "delivered_input"] {
                assert_eq!(rules(chain)[1], brought);
            }
            let first = if table == "gdoi" { "restore" } else { "arrivals" };
            assert!(rules(first).contains(&brought));
            let into = rule("").goes_into_ours(&ownership).accepted().digest();
            let from = rule("").came_out_of_ours(0, &ownership).accepted().digest();
            assert!(rules("tunnel_leaving").contains(&into));
            assert!(rules("tunnel_arriving").contains(&from));
            let lan = |name: &str| {
                [rule("").leaves_by(name), rule("").arrives_by(name)]
                    .map(|one| one.accepted().digest())
            };
            for chain in ["tunnel_leaving", "tunnel_arriving"] {
                assert!(lan("lan").iter().all(|one| !rules(chain).contains(one)));
            }
        }
        let device = chains.keys().any(|(.., chain)| chain == "egress_wan");
        assert_eq!(device, beside);
    }
}

/// Mark and priority of a tunnel's packet are the user's.
#[test]
fn inner_addresses_are_put_aside_for_groups_alone() {
    let chains = chains(&preservation());
    let rule = |comment: &str| Rule::new(IP, IP, comment);
    let group = rule("inner addresses").goes_into(Reqid(0x4744_0000));
    let group = group.stash().counted().accepted().digest();
    let tunnel = rule("a tunnel's").destined().empty_priority().digest();
    assert_eq!(chains[&("gdoi".into(), IP, "put_aside".into())][1..], [group, tunnel]);
}

/// The device of a VRF stands for all of its interfaces, and behind routing the kernel tells which.
#[test]
fn within_a_vrf_the_interface_itself_is_asked() {
    let mut within = preservation();
    within.vrf = BTreeSet::from([String::from("blue")]);
    let chains = chains(&within);
    let rule = || Rule::new(IP, IP, "");
    let slave = |name: &str| rule().arrived_within_vrf_by(name);
    for table in ["gdoi", "gdoi-guard"] {
        let rules = |chain: &str| &chains[&(table.into(), IP, chain.into())];
        let device = rule().arrives_by("blue").decapsulated(false).accepted().digest();
        assert!(rules("arriving").contains(&device) && !rules("delivered").contains(&device));
        assert!(rules("delivered").contains(&slave("lan").accepted().digest()));
        let own = slave("blue").decapsulated(false).accepted().digest();
        assert!(rules("delivered").contains(&own));
        assert!(rules("leaving").contains(&rule().leaves_by("blue").accepted().digest()));
        let group = rule().source_in("protected_ip").destination_in("protected_ip");
        let group = group.jumps("delivered").digest();
        for chain in ["delivered_forward", "delivered_input"] {
            assert_eq!(rules(chain)[1], group);
        }
    }
}

/// Its route would lead it back to where it came from.
#[test]
fn received_esp_is_not_forwarded_to_a_local_address_that_is_gone() {
    let chains = chains(&preservation());
    let forwarded = &chains[&("gdoi".into(), IP, "delivered_forward".into())];
    let esp = Rule::new(IP, IP, "").protocol(50).jumps("stray").digest();
    assert_eq!(forwarded.last(), Some(&esp));
    let drop = Rule::new(IP, IP, "drop: ESP for a local address that is gone");
    let drop = drop.goes_to("10.0.1.1".parse().unwrap()).counted().dropped().digest();
    assert_eq!(chains[&("gdoi".into(), IP, "stray".into())][1..], [drop]);
}

#[test]
fn raw_sockets_are_guarded_at_the_device_of_a_wan() {
    let chains = chains(&preservation());
    let sent = &chains[&("gdoi".into(), NETDEV, "sent".into())];
    let plain = |comment: &str| Rule::new(NETDEV, NETDEV, comment);
    assert!(sent.contains(&plain("").protocol(50).accepted().digest()));
    let dropped = plain("drop: sent past the router in clear").counted().dropped().digest();
    assert_eq!(sent.last(), Some(&dropped));
    let egress = &chains[&("gdoi".into(), NETDEV, "egress_wan".into())];
    assert_eq!(egress[0], hook_digest("filter", 1, i32::MIN + 8, "wan", 1));
    let group = Rule::new(NETDEV, IP, "").source_in("protected_ip");
    assert_eq!(egress[1], group.destination_in("protected_ip").jumps("sent").digest());
}

/// With the interface, which the kernel leaves out when it asks for the policy of an ICMP error.
#[test]
fn icmp_errors_of_the_router_are_routed_again() {
    let chains = chains(&preservation());
    let ownership = Ownership::default();
    let icmp = |comment: &str| Rule::new(IP, IP, comment).icmp();
    let rules = |chain: &str| &chains[&("gdoi".into(), IP, chain.into())];
    let (again, unmarked) = (rules("ask_again"), rules("ask_unmarked"));
    assert_eq!(again[0], hook_digest("route", 3, i32::MIN + 10, "", 1));
    assert_eq!(unmarked[0], hook_digest("route", 3, i32::MIN + 11, "", 1));
    let asked = icmp("asked again").goes_into_ours(&ownership).mark_empty().mark_asked();
    assert_eq!(again[1..], [icmp("").not_quoting().returned().digest(), asked.digest()]);
    assert_eq!(unmarked[1..], [icmp("").marked_asked().empty_mark().digest()]);
}

/// A mark that a user's raw table sets would take the place of an inner address.
#[test]
fn the_inner_addresses_are_put_outside_before_any_chain_of_a_user() {
    let chains = chains(&preservation());
    let preserve = &chains[&("gdoi".into(), IP, "preserve".into())];
    assert_eq!(preserve[0], hook_digest("route", 3, i32::MIN + 8, "", 1));
}

#[test]
fn names_of_interfaces_may_be_patterns() {
    let octets =
        |name: &str| Rule::new(IP, IP, "").arrives_by(name).expressions().as_octets().to_vec();
    assert!(octets("br-0").ends_with(b"\x14\0\x01\0br-0\0\0\0\0\0\0\0\0\0\0\0\0"));
    assert!(octets("br-*").ends_with(b"\x07\0\x01\0br-\0"));
}

#[test]
fn icmp_errors_that_quote_the_group_are_stopped_unless_it_is_excluded() {
    let mut with_exclude = preservation();
    let net: IpNet = "172.16.0.0/12".parse().unwrap();
    let excluded = Selector {
        source: net,
        destination: net,
        protocol: 17,
        source_port: 0,
        destination_port: 53,
        portless: false,
        interface: None,
    };
    with_exclude.exclude.insert(excluded.clone());
    let chains = chains(&with_exclude);
    let rule = |comment: &str| Rule::new(IP, IP, comment);
    let expected = [
        rule("ciphertext").quoted_protocol(50).accepted().digest(),
        rule("excluded").quoted_selected(&excluded).accepted().digest(),
        rule("drop: quoted in clear").counted().dropped().digest(),
    ];
    let group = rule("").quoted_source_in("protected_ip").quoted_destination_in("protected_ip");
    let group = group.jumps("quoted").digest();
    for table in ["gdoi", "gdoi-guard"] {
        assert_eq!(chains[&(table.into(), IP, "quoted".into())][1..], expected);
        assert!(chains[&(table.into(), IP, "errors".into())].contains(&group));
    }
    // At the network device the excluded datagram may still be in pieces.
    let device = &chains[&("gdoi".into(), NETDEV, "excluded".into())];
    let piece = Rule::new(NETDEV, IP, "excluded")
        .selected_without_ports(&excluded)
        .later_fragment()
        .accepted();
    assert!(device.contains(&piece.digest()));
}

#[test]
fn frames_of_a_vlan_on_a_wan_are_left_to_the_interface_of_the_vlan() {
    let chains = chains(&preservation());
    let rules = &chains[&("gdoi".into(), NETDEV, "arriving".into())];
    let vlan =
        |kind| Rule::new(NETDEV, NETDEV, "another interface's").in_vlan(kind).accepted().digest();
    assert_eq!(rules[1..3], [vlan(0x8100), vlan(0x88a8)]);
}

/// As nft writes `tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu`.
#[test]
fn segment_sizes_are_clamped_before_a_packet_is_marked_for_its_sa() {
    let mut clamped = preservation();
    let group = clamped.groups.values_mut().next().unwrap();
    group.segment_size = SegmentSize::Path;
    let rules = |preservation: &Preservation| -> Vec<u64> {
        let fingerprint = Fingerprint::wanted(preservation, &interfaces(), &Ownership::default());
        fingerprint.chains[&("gdoi".to_owned(), IP, "destined".to_owned())].clone()
    };
    let (plain, clamped) = (rules(&preservation()), rules(&clamped));
    assert_eq!((plain.len(), clamped.len()), (2, 3));
    assert_eq!(plain[1], clamped[2]);
    let octets = |rule: Rule| rule.expressions().as_octets().to_vec();
    let path = octets(Rule::new(IP, IP, "").clamp_to_path());
    for part in [&b"rt\0"[..], b"byteorder\0", b"exthdr\0"] {
        assert!(path.windows(part.len()).any(|window| window == part));
    }
    // Option 2, offset 2, length 2, a TCP option, from register 1.
    let write = b"\x05\0\x02\0\x02\0\0\0\x08\0\x03\0\0\0\0\x02\x08\0\x04\0\0\0\0\x02\x08\0\x06\0\0\0\0\x01\x08\0\x07\0\0\0\0\x01";
    assert!(path.ends_with(write), "{path:02x?}");
    assert!(octets(Rule::new(IP, IP, "").clamp_to(1_360)).ends_with(write));
    let opens = octets(Rule::new(IP, IP, "").opens_connection());
    assert!(opens.windows(4).filter(|window| *window == [0x08, 0, 0x02, 0]).count() > 0);
}

#[test]
fn spis_can_be_filled_in_later() {
    let (mut empty, whole) = (preservation(), preservation());
    empty.groups.values_mut().for_each(|group| group.inbound_spis.clear());
    let wanted = |p: &Preservation| Fingerprint::wanted(p, &interfaces(), &Ownership::default());
    assert_ne!(wanted(&empty), wanted(&whole));
    assert_eq!(wanted(&empty).with_spis(&whole), wanted(&whole));
}

/// An attribute is shorter than 64 KiB.
#[test]
fn many_spis_change_in_several_messages() {
    let (add, remove) = ((1..=9_000).collect(), (10_000..13_000).collect());
    let messages = change_elements("t", "s", &add, &remove);
    let kept = |wanted: u16| messages.iter().filter(move |(kind, ..)| *kind == wanted).count();
    assert_eq!((kept(NEW_ELEMENT), messages.len()), (18, 24));
    let ownership = Ownership { table: "t".to_owned(), ..Ownership::default() };
    let mut dump = Dump::new(&ownership);
    dump.fingerprint.sets.insert(("t".to_owned(), "s".to_owned()), BTreeSet::new());
    for (kind, _, body) in &messages {
        assert!(body.len() < 64 << 10);
        if *kind == NEW_ELEMENT {
            dump.elements(body).unwrap();
        }
    }
    assert_eq!(dump.fingerprint.sets[&("t".to_owned(), "s".to_owned())], add);
}

/// What only arrives in clear does not leave so.
#[test]
fn what_may_arrive_in_clear_is_not_let_out() {
    let mut passive = preservation();
    let (source, destination) =
        ("172.16.0.0/12".parse().unwrap(), "172.16.0.0/12".parse().unwrap());
    let (protocol, source_port, destination_port, interface) = (0, 0, 0, None);
    let selector = Selector {
        source,
        destination,
        protocol,
        source_port,
        destination_port,
        portless: false,
        interface,
    };
    passive.exclude_arriving.insert(selector);
    let chains = chains(&passive);
    for (table, family, arriving, leaving) in [
        ("gdoi", NETDEV, "arriving", "sent"),
        ("gdoi", IP, "arriving", "leaving"),
        ("gdoi-guard", IP, "arriving", "leaving"),
    ] {
        let jump = Rule::new(family, family, "").jumps("excluded_arriving").digest();
        let holds =
            |chain: &str| chains[&(table.to_owned(), family, chain.to_owned())].contains(&jump);
        assert!(holds(arriving) && !holds(leaving), "{table} {family}");
        let chain = (table.to_owned(), family, "excluded_arriving".to_owned());
        assert_eq!(chains[&chain].len(), 2);
    }
}
