//! Groups and their key servers side by side.

use super::*;

#[test]
fn a_fifth_server_is_refused() {
    let mut text = GROUP.to_owned();
    for last in 2..=4 {
        text.push_str(&format!("[[group.server]]\naddress = \"10.0.9.{last}\"\n"));
    }
    assert_eq!(load_text(&text).unwrap().value.groups[0].servers.len(), 4);
    text.push_str("[[group.server]]\naddress = \"10.0.9.5\"\n");
    assert_eq!(
        load_text(&text).map(|_| ()).unwrap_err(),
        "f:18:1: error: group branches has 5 key servers; at most 4 are tried; remove the ones that matter least\n\
         f: 1 error; nothing was started\n"
    );
}

#[test]
fn groups_must_differ() {
    let text =
        format!("{GROUP}{}", GROUP.replace("10.0.9.1", "10.0.9.2").replace("\"wan\"", "\"wan2\""));
    let report = load_text(&text).map(|_| ()).unwrap_err();
    assert_eq!(
        report,
        "f:14:8: error: group.name: branches is the name of two groups, the first in line 3; give each group its own name, \
         or remove one of them\n\
         f:15:6: error: group.id: 1111 is the id of two groups, the first in line 4; give each group its own id, or remove \
         one of them\n\
         f: 2 errors; nothing was started\n"
    );
    let second = GROUP
        .replace("branches", "other")
        .replace("1111", "2222")
        .replace("[\"lan\"]", "[\"wan\"]");
    let report = load_text(&format!("{GROUP}{second}")).map(|_| ()).unwrap_err();
    assert!(report.contains("group.lan: wan is in wan as well, line 7"), "{report}");
}

#[test]
fn two_groups_may_share_key_servers_and_their_key_but_no_placeholder() {
    let second = GROUP
        .replace("branches", "other")
        .replace("1111", "2222")
        .replace("172.16.0.0/12", "192.168.0.0/16");
    let text = format!("{GROUP}{second}");
    let config = load_text(&text).unwrap().value;
    assert_eq!(config.groups[1].placeholder, Ipv4Addr::new(192, 0, 2, 2));
    assert!(Arc::ptr_eq(key(&config.groups[0].servers[0]), key(&config.groups[1].servers[0])));
    let report = load_text(&text.replace("id = 2222", "id = 2222\nplaceholder = \"192.0.2.1\""))
        .map(|_| ())
        .unwrap_err();
    assert!(
        report
            .contains("group.placeholder: 192.0.2.1 is the placeholder of group branches as well"),
        "{report}"
    );
}
