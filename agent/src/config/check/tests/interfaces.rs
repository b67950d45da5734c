//! Names and patterns of interfaces, and which side they are on.

use super::*;

#[test]
fn a_machine_may_be_its_own_only_host() {
    let config = load_text(&GROUP.replace("lan = [\"lan\"]", "lan = []")).unwrap().value;
    assert!(config.groups[0].lan.is_empty());
    let missing = load_text(&GROUP.replace("lan = [\"lan\"]\n", "")).map(|_| ()).unwrap_err();
    assert!(missing.contains("group.lan is missing"), "{missing}");
}

#[test]
fn names_of_interfaces_may_be_patterns() {
    let text = GROUP.replace("[\"lan\"]", "[\"wan*\", \"lan\", \"absent*\"]");
    let config = load_text(&text).unwrap().value;
    let group = &config.groups[0];
    // What the other side names is not meant.
    assert_eq!(group.lan_interfaces(&interfaces()), ["wan2", "lan"]);
    assert_eq!(group.wan_interfaces(&interfaces()), ["wan"]);
    for wrong in ["*", "e*h0", "br-**"] {
        let error = load_text(&GROUP.replace("[\"lan\"]", &format!("[\"{wrong}\"]")));
        let error = error.map(|_| ()).unwrap_err();
        assert!(error.contains("cannot be an interface"), "{wrong}: {error}");
    }
}

/// On both sides it would be trusted like a LAN, and group traffic would leave by it in clear.
#[test]
fn what_patterns_of_both_sides_match_is_a_wan() {
    let text = GROUP.replace("[\"lan\"]", "[\"lan\", \"wa*\"]");
    let text = text.replace("[\"wan\"]", "[\"wan*\"]");
    let config = load_text(&text).unwrap().value;
    let group = &config.groups[0];
    assert_eq!(group.lan_interfaces(&interfaces()), ["lan"]);
    assert_eq!(group.wan_interfaces(&interfaces()), ["wan", "wan2"]);
}

/// The guards are shared: a LAN of one group is trusted in all, and the other's traffic would leave
/// by it in clear.
#[test]
fn a_pattern_of_lans_leaves_out_the_wans_of_other_groups() {
    let other = GROUP
        .replace("\"branches\"", "\"second\"")
        .replace("1111", "2222")
        .replace("[\"wan\"]", "[\"wan2\"]");
    let first = GROUP.replace("[\"lan\"]", "[\"lan\", \"wan*\"]");
    let report = load_text(&format!("{first}{other}")).map(|_| ()).unwrap_err();
    assert!(
        report.contains("group.lan: wan* covers interfaces that wan2 in line 18 makes a WAN"),
        "{report}"
    );
    // Who says that it is no LAN of his is not refused for that.
    let named = first.replace("wan = [\"wan\"]", "wan = [\"wan\", \"wan2\"]");
    let report = load_text(&format!("{named}{other}")).map(|_| ());
    assert!(report.is_ok() || !report.unwrap_err().contains("covers interfaces"));
}

#[test]
fn interfaces_on_the_wrong_side_are_a_warning() {
    let swapped = GROUP.replace("[\"lan\"]", "[\"x\"]").replace("[\"wan\"]", "[\"lan\"]");
    let loaded = load_text(&swapped.replace("[\"x\"]", "[\"wan\"]")).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings.iter().any(|warning| warning.contains("local-address is on wan, a LAN")),
        "{warnings:?}"
    );
}

#[test]
fn the_vrf_device_of_a_lan_is_a_lan() {
    let mut interfaces = interfaces();
    interfaces.get_mut("lan").unwrap().vrf = Some("red".to_owned());
    interfaces.get_mut("wan").unwrap().vrf = Some("red".to_owned());
    let config = load_text(GROUP).unwrap().value;
    assert_eq!(config.groups[0].lan_interfaces(&interfaces), ["lan", "red"]);
    assert_eq!(config.groups[0].wan_interfaces(&interfaces), ["wan"]);
}

/// The daemon starts and blocks without them.
#[test]
fn interfaces_that_are_missing_are_worth_a_warning() {
    for (from, to, warning) in [
        (
            "\"10.0.1.1\"",
            "\"ppp0\"",
            "line 5, column 17: group.local-address: there is no interface \"ppp0\"; create it, or correct the name: there are \
             lan, wan, wan2",
        ),
        (
            "wan = [\"wan\"]",
            "wan = [\"wam\"]",
            "line 7, column 8: group.wan: there is no interface \"wam\"; create it, or correct the name: there are lan, wan, \
             wan2",
        ),
    ] {
        let loaded = load_text(&GROUP.replace(from, to)).unwrap();
        let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        assert!(warnings.iter().any(|one| one == warning), "{warnings:?}");
    }
}
