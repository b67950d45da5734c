use super::content::{guard_tables, main_tables};
use super::dump::Dump;
use super::table::{
    Message, NEW_CHAIN, NEW_ELEMENT, NEW_RULE, NEW_SET, NEW_TABLE, change_elements, remove, replace,
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
        wan: BTreeSet::from([String::from("wan"), String::from("absent")]),
        guard: BTreeSet::from([pair("172.16.0.0/12"), pair("172.16.1.0/24"), pair("fd00::/16")]),
        exclude: BTreeSet::new(),
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
    tables.extend(guard_tables(preservation, &interfaces, &ownership));
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

#[test]
fn a_missing_or_foreign_rule_is_noticed() {
    let wanted = Fingerprint::wanted(&preservation(), &interfaces(), &Ownership::default());
    let all = messages(&preservation());
    for position in 0..all.len() {
        let mut fewer = all.clone();
        let (kind, ..) = fewer.remove(position);
        if kind == NEW_SET {
            // The kernel takes its elements with it.
            fewer.retain(|(kind, ..)| *kind != NEW_ELEMENT);
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
    let changes: [&dyn Fn(&mut Preservation); 8] = [
        &|_| {},
        &|p| p.lan = BTreeSet::from([String::from("lan2")]),
        &|p| p.wan = BTreeSet::from([String::from("lan")]),
        &|p| {
            p.guard = BTreeSet::from([(
                "172.16.0.0/13".parse().unwrap(),
                "172.16.0.0/12".parse().unwrap(),
            )])
        },
        &|p| p.groups.get_mut(&placeholder).unwrap().local = "10.0.1.2".parse().unwrap(),
        &|p| p.groups.get_mut(&placeholder).unwrap().outbound_reqids = BTreeSet::from([Reqid(7)]),
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
fn what_is_remembered_is_what_would_be_computed() {
    let ownership = Ownership::default();
    let placeholder = "192.0.2.1".parse().unwrap();
    let fewer: BTreeMap<String, u32> =
        interfaces().into_iter().filter(|(name, _)| name != "wan").collect();
    let mut remembered = Wanted::default();
    let mut preservation = preservation();
    let changes: [&dyn Fn(&mut Preservation); 5] = [
        &|_| {},
        &|p| p.groups.get_mut(&placeholder).unwrap().inbound_spis = BTreeSet::from([0x1301]),
        &|p| p.defragment = true,
        &|p| p.groups.get_mut(&placeholder).unwrap().inbound_spis = BTreeSet::new(),
        &|p| p.groups.clear(),
    ];
    for change in changes {
        change(&mut preservation);
        for interfaces in [interfaces(), fewer.clone()] {
            let computed = Fingerprint::wanted(&preservation, &interfaces, &ownership);
            assert_eq!(*remembered.fingerprint(&preservation, &interfaces, &ownership), computed);
            assert_eq!(*remembered.fingerprint(&preservation, &interfaces, &ownership), computed);
        }
    }
}

#[test]
fn pairs_inside_of_others_need_no_rule() {
    let guards = |fingerprint: &Fingerprint| {
        fingerprint.chains[&("gdoi".into(), IP, "leaving".into())].len()
    };
    let mut fewer = preservation();
    fewer.guard.remove(&("172.16.1.0/24".parse().unwrap(), "172.16.1.0/24".parse().unwrap()));
    let wanted = |p: &Preservation| Fingerprint::wanted(p, &interfaces(), &Ownership::default());
    assert_eq!(guards(&wanted(&preservation())), guards(&wanted(&fewer)));
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
fn clear_packets_are_stopped_before_source_translation_and_behind_it() {
    let chains = chains(&preservation());
    for table in ["gdoi", "gdoi-guard"] {
        let rules = |chain: &str| chains[&(table.into(), IP, chain.into())][1..].to_vec();
        let (forward, output, last) =
            (rules("guard_forward"), rules("guard_output"), rules("last_guard"));
        assert_eq!(forward, output);
        let in_clear = Rule::new(IP, IP, "").leaves_in_clear().jumps("leaving").digest();
        assert!([&forward, &last].iter().all(|rules| rules.last() == Some(&in_clear)));
        let translated = Rule::new(IP, IP, "drop: translated in clear");
        let translated = translated.leaves_in_clear().destined().counted().dropped().digest();
        assert!(last.contains(&translated) && !forward.contains(&translated));
    }
    let destined =
        Rule::new(IP, IP, "goes into an SA").goes_into(Reqid(0x4744_0000)).mark_destined().digest();
    for chain in ["destined_forward", "destined_output"] {
        assert_eq!(chains[&("gdoi".into(), IP, chain.into())][1..], [destined]);
    }
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
        interface: None,
    };
    with_exclude.exclude.insert(excluded.clone());
    let chains = chains(&with_exclude);
    let rule = |comment: &str| Rule::new(IP, IP, comment);
    let expected = [
        rule("ciphertext").quoted_protocol(50).accepted().digest(),
        rule("excluded").quoted_selected(&excluded).accepted().digest(),
        rule("drop: quoted in clear").quoted_between(&net, &net).counted().dropped().digest(),
    ];
    for table in ["gdoi", "gdoi-guard"] {
        assert_eq!(chains[&(table.into(), IP, "quoted".into())][1..], expected);
    }
    // At the network device the excluded datagram may still be in pieces.
    let device = &chains[&("gdoi".into(), NETDEV, "arriving".into())];
    let piece = Rule::new(NETDEV, IP, "excluded")
        .selected_without_ports(&excluded)
        .later_fragment()
        .accepted();
    assert!(device.contains(&piece.digest()));
}

#[test]
fn frames_of_a_vlan_on_a_wan_are_left_to_the_interface_of_the_vlan() {
    let chains = chains(&preservation());
    let rules = &chains[&("gdoi".into(), NETDEV, "guard_wan".into())];
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
        fingerprint.chains[&("gdoi".to_owned(), IP, "destined_forward".to_owned())].clone()
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
