//! Golden reports: each defect alone, and many at once.

use super::*;

#[test]
fn each_defect_names_its_place_and_its_remedy() {
    let cases = [
        (
            "\"10.0.9.1\"",
            "\"2001:db8::1\"",
            "f:11:11: error: group.server.address: 2001:db8::1 is an IPv6 address, and groups are IPv4 in this version; \
             write an IPv4 address",
        ),
        (
            "\"10.0.1.1\"",
            "\"2001:db8::1\"",
            "f:5:17: error: group.local-address: 2001:db8::1 is an IPv6 address, and groups are IPv4 in this version; \
             write an IPv4 address",
        ),
        (
            "wan = ",
            "placeholder = \"2001:db8::1\"\nwan = ",
            "f:7:15: error: group.placeholder: 2001:db8::1 is an IPv6 address, and groups are IPv4 in this version; \
             write an IPv4 address",
        ),
        (
            "\"10.0.1.1\"",
            "\"10.0.1.256\"",
            "f:5:17: error: group.local-address: \"10.0.1.256\" is neither an address nor an interface name; write one such \
             as \"192.0.2.1\" or \"eth0\"",
        ),
        (
            "wan = [\"wan\"]",
            "wan = [\"wan\", \"lan\"]",
            "f:7:15: error: group.wan: lan is in lan as well, line 6; an interface is on one side: remove it from the other \
             list",
        ),
        (
            "lan = [\"lan\"]",
            "lan = [\"lan\", \"lan\"]",
            "f:6:15: error: group.lan: lan is named twice; name it once",
        ),
        (
            "172.16.0.0/12",
            "172.16.1.0/12",
            "f:8:14: error: group.protected: \"172.16.1.0/12\" has host bits; write \"172.16.0.0/12\" or \"172.16.1.0\"",
        ),
        (
            "[\"172.16.0.0/12\"]",
            "[]",
            "f:8:13: error: group.protected: the list is empty; write [\"192.0.2.0/24\"]",
        ),
        (
            "172.16.0.0/12",
            "0.0.0.0/0",
            "f:8:14: error: group.protected: 0.0.0.0/0 would block all traffic of this machine; name the group's own \
             prefixes, such as \"172.16.0.0/12\"",
        ),
        (
            "\"172.16.0.0/12\"",
            "\"172.16.0.0/12\", \"172.17.0.0/16\"",
            "f:8:31: error: group.protected: 172.17.0.0/16 lies within 172.16.0.0/12; remove the narrower prefix",
        ),
        (
            "/k.psk",
            "/open",
            "f:9:23: error: pre-shared key: file /open is readable by everybody; run `chmod 600 /open`",
        ),
        (
            "/k.psk",
            "/missing",
            "f:9:23: error: pre-shared key: file /missing: entity not found; create it, or correct the path",
        ),
        (
            "pre-shared-key-file = \"/k.psk\"\n",
            "",
            "f:9:1: error: group branches: no pre-shared key for this key server; write \
             pre-shared-key-file = \"..\" with the path of its file, or certificate = \"..\" with the \
             name of a [[certificate]]",
        ),
        ("name =", "nam =", "f:3:1: error: unknown key \"nam\" in group; did you mean \"name\"?"),
        (
            "\"10.0.9.1\"",
            "\"10.0.1.1\"",
            "f:11:11: error: group.server.address: 10.0.1.1 is our own address, it is on wan; write the key server's \
             address; a member is not its own key server",
        ),
        (
            "\"10.0.9.1\"",
            "\"224.0.0.1\"",
            "f:11:11: error: group.server.address: 224.0.0.1 is no host's address; write the address of one key server",
        ),
        (
            "\"10.0.9.1\"\n",
            "\"10.0.9.1\"\n[[group.server]]\naddress = \"10.0.9.1\"\n",
            "f:13:11: error: group.server.address: 10.0.9.1:848 is the server of line 11 again; name each key server once; \
             the order is the order of trying",
        ),
        (
            "id = 1111",
            "id = 1111\nplaceholder = \"172.16.0.9\"",
            "f:5:15: error: group.placeholder: 172.16.0.9 is within the protected prefix 172.16.0.0/12; write placeholder = \
             \"..\" with an IPv4 address that no host has",
        ),
        (
            "id = 1111",
            "id = 1111\nplaceholder = \"10.0.2.1\"",
            "f:5:15: error: group.placeholder: 10.0.2.1 is in use on wan2; write placeholder = \"..\" with an IPv4 address \
             that no host has",
        ),
        (
            "id = 1111",
            "id = 1111\non-exit = \"blok\"",
            "f:5:11: error: group.on-exit: \"blok\" is not known; did you mean \"block\"?",
        ),
        (
            "[[group.server]]\n",
            "[group.retransmission]\ninitial = \"8s\"\nmaximum = \"1s\"\n[[group.server]]\n",
            "f:10:1: error: group.retransmission.maximum is shorter than group.retransmission.initial; make maximum at least \
             as long as initial",
        ),
        (
            "[[group.server]]\n",
            "[[group.exclude]]\nsource = \"any\"\ndestination = \"any\"\n[[group.server]]\n",
            "f:10:1: error: group.exclude: this rule excludes all traffic, so nothing would be encrypted; narrow it down to \
             what must stay in clear",
        ),
        (
            "[[group.server]]\n",
            "[[group.exclude]]\nsource = \"any\"\ndestination = \"2001:db8::1-2001:db8::9\"\n[[group.server]]\n",
            "f:10:1: error: group.exclude.destination: 2001:db8::1 is an IPv6 address, and groups are IPv4 in this version; \
             write an IPv4 address",
        ),
    ];
    for (from, to, line) in cases {
        let report = defect(from, to);
        assert!(report.lines().any(|found| found == line), "expected\n{line}\nin\n{report}");
    }
}

#[test]
fn all_defects_come_at_once() {
    let text = r#"
port = 848
[[group]]
name = "a"
local-address = "2001:db8::1"
lan = ["eth7"]
wan = []
protected = ["172.16.0.1/12"]
pre-shared-key-file = "/open"
df-bit = "maybe"
[[group.server]]
adress = "10.0.9.1"
[[group.server]]
address = "10.0.1.1"
pre-shared-key-file = "relative"
[group.ike]
hash = ["md5"]
"#;
    assert_eq!(
        load_text(text).map(|_| ()).unwrap_err(),
        "\
f:2:1: error: unknown key \"port\"; known keys are certificate, control-socket, gateway, group, keep-keys, local-port, policy-priority, state-directory, state-key-credential, state-key-file, tunnel
f:3:1: error: group.id is missing; add id = 1
f:5:17: error: group.local-address: 2001:db8::1 is an IPv6 address, and groups are IPv4 in this version; write an IPv4 address
f:6:8: warning: group.lan: there is no interface \"eth7\"; create it, or correct the name: there are lan, wan, wan2
f:7:7: error: group.wan: the list is empty; write [\"eth0\"]
f:8:14: error: group.protected: \"172.16.0.1/12\" has host bits; write \"172.16.0.0/12\" or \"172.16.0.1\"
f:9:23: error: pre-shared key: file /open is readable by everybody; run `chmod 600 /open`
f:10:10: error: group.df-bit: \"maybe\" is not known; write one of \"clear\", \"copy\", \"set\"
f:11:1: error: group.server.address is missing; add address = \"192.0.2.1\"
f:12:1: error: unknown key \"adress\" in group.server; did you mean \"address\"?
f:14:11: error: group.server.address: 10.0.1.1 is our own address, it is on wan; write the key server's address; a member is not its own key server
f:15:23: error: group.server.pre-shared-key-file: \"relative\" is not an absolute path; begin it with /
f:17:9: error: group.ike.hash: MD5 is weak; choose a strong one, or set legacy = true and know why
f: 12 errors; nothing was started
"
    );
}

#[test]
fn an_empty_file_is_an_error() {
    assert!(
        load_text("")
            .map(|_| ())
            .unwrap_err()
            .contains("there is no group and no tunnel; add a [[group]] table")
    );
}
