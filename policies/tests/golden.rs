//! What becomes of a group in each situation, as a file to read. The names say what must hold.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

mod support;

use gdoi::group::{EspTransform, SaDirection};
use policies::{GroupInput, GroupOptions, GroupState, LanInterface, WanInterface, compile};
use support::*;
use xfrm::model::Direction;
use xfrm::nft::DontFragment;

const GROUP: &str = "172.16.0.0/12";

fn show(name: &str, groups: &[GroupInput<'_>]) {
    golden(name, &render(&compile(groups).unwrap()));
}

#[test]
fn nothing_configured_nothing_installed() {
    show("nothing_configured_nothing_installed", &[]);
}

#[test]
fn blocked_before_the_first_key() {
    show("blocked_before_the_first_key", &[g1(GroupState::NoKey)]);
}

#[test]
fn blocked_without_addresses_by_interface_names() {
    let mut group = g1(GroupState::NoKey);
    group.zones.local = None;
    group.zones.lan[0].addresses.clear();
    group.zones.wan[0] = WanInterface { name: "wan".to_owned(), ..WanInterface::default() };
    show("blocked_without_addresses_by_interface_names", &[group]);
}

#[test]
fn selectors_stay_shut_without_a_local_address() {
    let (teks, keys) = ([tek(0x1300, "192.168.0.0/16", "192.168.0.0/16")], cbc_keys());
    let mut group = g1(keyed(&teks, &keys));
    group.zones.local = None;
    show("selectors_stay_shut_without_a_local_address", &[group]);
}

#[test]
fn selectors_stay_shut_after_expiry() {
    let teks = [tek(0x1300, GROUP, GROUP), tek(0x1300, "192.168.1.0/24", "192.168.2.0/24")];
    show("selectors_stay_shut_after_expiry", &[g1(GroupState::Expired(teks.iter().collect()))]);
}

#[test]
fn one_key_for_the_group() {
    let (teks, keys) = ([tek(0x1300, GROUP, GROUP)], cbc_keys());
    show("one_key_for_the_group", &[g1(keyed(&teks, &keys))]);
}

/// A SAT says A -> B; B -> A would leave in clear.
#[test]
fn symmetric_selectors_protect_both_directions() {
    let (teks, keys) = ([tek(0x1300, "172.16.1.0/24", "172.16.2.0/24")], cbc_keys());
    show("symmetric_selectors_protect_both_directions", &[g1(keyed(&teks, &keys))]);
}

#[test]
fn mirrored_selectors_are_merged() {
    let keys = cbc_keys();
    let teks = [
        tek(0x1300, "172.16.1.0/24", "172.16.2.0/24"),
        tek(0x1300, "172.16.2.0/24", "172.16.1.0/24"),
    ];
    let one = [teks[0].clone()];
    let (merged, alone) =
        (compile(&[g1(keyed(&teks, &keys))]).unwrap(), compile(&[g1(keyed(&one, &keys))]).unwrap());
    assert_eq!(render(&merged), render(&alone));
}

/// The route moves to another uplink: OUT has no device, so the packet is still encrypted.
#[test]
fn a_second_uplink_needs_no_second_out_policy() {
    let (teks, keys) = ([tek(0x1300, GROUP, GROUP)], cbc_keys());
    let mut group = g1(keyed(&teks, &keys));
    group.zones.wan = vec![
        WanInterface { up: false, ..wan("wan", Some("10.0.1.254")) },
        wan("wan2", None),
        wan("wan3", Some("10.0.3.254")),
    ];
    show("a_second_uplink_needs_no_second_out_policy", &[group]);
}

#[test]
fn every_lan_is_exempt_from_checks_and_gets_everything() {
    let (teks, keys) = ([tek(0x1300, GROUP, GROUP)], cbc_keys());
    let mut group = g1(keyed(&teks, &keys));
    group.zones.lan.push(LanInterface {
        name: "lab".to_owned(),
        addresses: vec!["172.16.5.1".parse().unwrap()],
        is_vrf: false,
    });
    show("every_lan_is_exempt_from_checks_and_gets_everything", &[group]);
}

/// Policies take it for a LAN, and the guards do not: it stands for all interfaces of the VRF.
#[test]
fn the_device_of_a_vrf_is_told_from_a_lan() {
    let mut group = g1(GroupState::NoKey);
    let vrf = LanInterface { name: "blue".to_owned(), is_vrf: true, ..LanInterface::default() };
    group.zones.lan.push(vrf);
    let desired = compile(&[group]).unwrap();
    let guards = desired.preservation.unwrap();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!((guards.lan, guards.vrf), (names(&["lan"]), names(&["blue"])));
    assert_eq!(desired.exempt, names(&["blue", "lan"]));
}

#[test]
fn excludes_pass_in_clear_both_ways() {
    let (teks, keys) = ([tek(0x1300, GROUP, GROUP)], cbc_keys());
    let mut group = g1(keyed(&teks, &keys));
    let mut ssh = selector("172.16.1.10", "172.16.2.0/24");
    (ssh.protocol, ssh.destination_port) = (6, 22);
    let mut ospf = selector("172.16.0.0/12", "224.0.0.5");
    ospf.protocol = 89;
    group.exclude = vec![ospf, ssh];
    show("excludes_pass_in_clear_both_ways", &[group]);
}

/// 200 neighbours are 4 prefixes to the kernel's policies, which are about pairs.
#[test]
fn neighbouring_prefixes_are_blocked_together() {
    let mut group = g1(GroupState::NoKey);
    group.protected = (0..200).map(|n| format!("10.64.{n}.0/24").parse().unwrap()).collect();
    let desired = compile(&[group]).unwrap();
    let blocks = |direction| {
        desired
            .policies
            .values()
            .filter(|policy| policy.id.direction == direction && policy.action.closes())
            .count()
    };
    for direction in [Direction::Out, Direction::In, Direction::Forward] {
        assert_eq!(blocks(direction), 9);
    }
    assert_eq!(desired.preservation.unwrap().protected.iter().next().unwrap().len(), 200);
}

/// LOCAL and the key server lie in the protected prefixes: port 848 between the two passes, nothing
/// else.
#[test]
fn key_servers_inside_the_protected_prefixes_stay_reachable() {
    let (teks, keys) = ([tek(0x1300, "10.0.0.0/8", "10.0.0.0/8")], cbc_keys());
    let mut group = g1(keyed(&teks, &keys));
    group.protected = vec!["10.0.0.0/8".parse().unwrap()];
    group.zones.lan[0].addresses = vec!["10.7.0.1".parse().unwrap()];
    show("key_servers_inside_the_protected_prefixes_stay_reachable", &[group]);
}

#[test]
fn any_is_everything_but_key_servers_and_excludes() {
    let (teks, keys) = ([tek(0x1300, "any", "any")], cbc_keys());
    let mut group = g1(keyed(&teks, &keys));
    group.exclude = vec![selector("10.0.1.1", "10.0.1.254")];
    show("any_is_everything_but_key_servers_and_excludes", &[group]);
}

/// A pair of protected prefixes that no traffic selector covers stays blocked.
#[test]
fn protected_pairs_outside_of_every_selector_stay_blocked() {
    let (teks, keys) = ([tek(0x1300, "172.16.1.0/24", "172.16.2.0/24")], cbc_keys());
    let mut group = g1(keyed(&teks, &keys));
    group.protected = vec!["172.16.0.0/12".parse().unwrap(), "192.168.0.0/16".parse().unwrap()];
    show("protected_pairs_outside_of_every_selector_stay_blocked", &[group]);
}

/// Fragments carry no ports.
#[test]
fn port_selectors_force_defragmentation() {
    let keys = cbc_keys();
    let mut sa_tek = tek(0x1300, "172.16.1.0/24", "172.16.2.0/24");
    (sa_tek.selector.protocol, sa_tek.selector.destination_port) = (17, 5001);
    let teks = [sa_tek];
    let mut group = g1(keyed(&teks, &keys));
    group.protected.clear();
    show("port_selectors_force_defragmentation", &[group]);
}

#[test]
fn ranges_become_prefixes() {
    let (teks, keys) = ([tek(0x1300, "172.16.1.10-172.16.1.20", "172.16.2.0/24")], cbc_keys());
    show("ranges_become_prefixes", &[g1(keyed(&teks, &keys))]);
}

#[test]
fn the_first_of_overlapping_selectors_wins() {
    let keys = cbc_keys();
    let teks = [tek(0x1300, "172.16.1.0/24", "172.16.2.0/24"), tek(0x1400, GROUP, GROUP)];
    show("the_first_of_overlapping_selectors_wins", &[g1(keyed(&teks, &keys))]);
}

#[test]
fn an_explicit_selector_beats_a_mirrored_one() {
    let keys = cbc_keys();
    let teks = [
        tek(0x1300, "172.16.1.0/24", "172.16.2.0/24"),
        tek(0x1400, "172.16.2.0/24", "172.16.1.0/24"),
    ];
    show("an_explicit_selector_beats_a_mirrored_one", &[g1(keyed(&teks, &keys))]);
}

#[test]
fn one_way_keys() {
    let keys = cbc_keys();
    let teks = [
        directed(tek(0x1300, "172.16.1.0/24", "172.16.2.0/24"), SaDirection::SENDER_ONLY),
        directed(tek(0x1400, "172.16.3.0/24", "172.16.1.0/24"), SaDirection::RECEIVER_ONLY),
    ];
    let mut group = g1(keyed(&teks, &keys));
    group.protected.clear();
    show("one_way_keys", &[group]);
}

#[test]
fn counter_mode_receives_only_without_opt_in() {
    let (teks, keys) = ([gcm(tek(0x1300, GROUP, GROUP))], keys(20, 0));
    show("counter_mode_receives_only_without_opt_in", &[g1(keyed(&teks, &keys))]);
}

#[test]
fn counter_mode_sends_once_with_opt_in() {
    let (teks, keys) = ([gcm(tek(0x1300, GROUP, GROUP))], keys(20, 0));
    let mut group = g1(keyed(&teks, &keys));
    group.options.counter_mode_send = true;
    show("counter_mode_sends_once_with_opt_in", &[group]);
}

#[test]
fn df_bit() {
    let (teks, keys) = ([tek(0x1300, GROUP, GROUP)], cbc_keys());
    for (df, sets_flag) in
        [(DontFragment::Clear, true), (DontFragment::Copy, false), (DontFragment::Set, false)]
    {
        let mut group = g1(keyed(&teks, &keys));
        group.options.dont_fragment = df;
        let desired = compile(&[group]).unwrap();
        let outbound = desired.sas.values().find(|sa| sa.sequence_may_wrap).unwrap();
        assert_eq!(outbound.no_path_mtu_discovery, sets_flag, "{df:?}");
        assert!(
            desired.preservation.unwrap().groups.values().all(|group| group.dont_fragment == df)
        );
    }
}

#[test]
fn triple_des_under_legacy() {
    let keys = keys(24, 32);
    let mut sa_tek = tek(0x1300, GROUP, GROUP);
    (sa_tek.protection.transform, sa_tek.protection.key_length) = (EspTransform::TRIPLE_DES, None);
    let teks = [sa_tek];
    let mut group = g1(keyed(&teks, &keys));
    group.options.legacy = true;
    show("triple_des_under_legacy", &[group]);
}

/// Receive on the new key at once, send later, stop receiving on the old one last; no policy
/// changes on the way.
#[test]
fn rollover_touches_no_policy() {
    let (old, new, keys) = ([tek(0x1300, GROUP, GROUP)], [tek(0x1400, GROUP, GROUP)], cbc_keys());
    let stage = |first, then: Vec<_>| {
        let mut teks: Vec<_> = first;
        teks.extend(then);
        compile(&[g1(GroupState::Keyed(teks))]).unwrap()
    };
    let stages = [
        ("rollover_1_before", stage(generation(&old, &keys, true, true), Vec::new())),
        (
            "rollover_2_new_key_received",
            stage(generation(&old, &keys, true, true), generation(&new, &keys, true, false)),
        ),
        (
            "rollover_3_new_key_sends",
            stage(generation(&new, &keys, true, true), generation(&old, &keys, true, false)),
        ),
        ("rollover_4_after", stage(generation(&new, &keys, true, true), Vec::new())),
    ];
    for (name, desired) in &stages {
        golden(name, &render(desired));
        assert_eq!(desired.policies, stages[0].1.policies, "{name}");
    }
}

#[test]
fn two_groups_share_what_they_have_in_common() {
    let (north, south, keys) = (
        [tek(0x1300, "172.16.0.0/16", "172.16.0.0/16")],
        [tek(0x1301, "172.17.0.0/16", "172.17.0.0/16")],
        cbc_keys(),
    );
    let mut second = g1(keyed(&south, &keys));
    (second.name, second.slot, second.options) = ("south", 1, GroupOptions::at_slot(1));
    second.zones.lan[0].addresses = vec!["172.17.1.1".parse().unwrap()];
    show("two_groups_share_what_they_have_in_common", &[second, g1(keyed(&north, &keys))]);
}

#[test]
fn one_group_keyed_one_not() {
    let (teks, keys) = ([tek(0x1300, "172.16.0.0/16", "172.16.0.0/16")], cbc_keys());
    let mut second = g1(GroupState::NoKey);
    (second.name, second.slot, second.options) = ("south", 1, GroupOptions::at_slot(1));
    show("one_group_keyed_one_not", &[g1(keyed(&teks, &keys)), second]);
}

#[test]
fn ipv6_prefixes_are_blocked_too() {
    let mut group = g1(GroupState::NoKey);
    group.protected.push("fd00:1::/32".parse().unwrap());
    group.zones.lan[0].addresses.push("fd00:1::1".parse().unwrap());
    show("ipv6_prefixes_are_blocked_too", &[group]);
}

#[test]
fn policies_stand_where_the_operator_wants_them() {
    let keys = cbc_keys();
    let teks = [tek(0x1300, "172.16.0.0/12", "172.16.0.0/12")];
    let priorities = |priority| -> Vec<u32> {
        let mut group = g1(keyed(&teks, &keys));
        group.options.priority = priority;
        compile(&[group]).unwrap().policies.values().map(|policy| policy.priority).collect()
    };
    let usual = priorities(policies::precedence::BASE);
    let moved: Vec<u32> = usual.iter().map(|one| one - policies::precedence::BASE + 500).collect();
    assert_eq!(priorities(500), moved);
    assert_eq!(usual.iter().min(), Some(&policies::precedence::SERVER));
}

/// The MTU of a tunnel that the group's routes lead through, not that of the default route.
#[test]
fn the_placeholder_leaves_where_the_groups_traffic_does() {
    let keys = cbc_keys();
    let teks = [tek(0x1300, "172.16.0.0/12", "172.16.0.0/12")];
    let mut group = g1(keyed(&teks, &keys));
    let tunnel = WanInterface { mtu: 1476, carries: true, ..wan("tun1", None) };
    group.zones.wan.push(WanInterface { carries: true, ..wan("wan2", Some("10.0.3.254")) });
    group.zones.wan.push(WanInterface { vrf_table: Some(10), ..tunnel });
    let desired = compile(&[group]).unwrap();
    let route = desired.routes.first().unwrap();
    let place = (route.interface.as_str(), route.gateway, route.mtu, route.table);
    assert_eq!(place, ("tun1", None, 1476, 10));
}
