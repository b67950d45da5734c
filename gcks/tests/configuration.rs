//! Configuration files as people write them: the example, and each defect with the line it gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use daemon::configuration::{Kind, Outline, example, write_documents};
use gcks::config::file::{DOCUMENT, documents, outline};
use gcks::config::{self, Config};

const EXAMPLE: &str = include_str!("../gcks.example.toml");

/// A sound configuration; each test breaks a copy of it.
const SOUND: &str = r#"listen = ["127.0.0.1"]

[[member]]
name = "g1"
address = "10.0.1.1"
pre-shared-key-file = "@/g1.psk"
groups = ["branches"]

[[member]]
name = "g2"
address = "10.0.2.1"
pre-shared-key-file = "@/g2.psk"
groups = ["branches"]

[[group]]
name = "branches"
id = 1111

[[group.tek]]
encryption = "aes-256-cbc"
integrity = "hmac-sha2-256-128"

[[group.tek.policy]]
source = "172.16.0.0/12"
destination = "172.16.0.0/12"
"#;

struct Keys(tempfile::TempDir);

impl Keys {
    fn new() -> Self {
        let keys = Self(tempfile::tempdir().unwrap());
        keys.write("g1.psk", "the first key of the tests\n", 0o600);
        keys.write("g2.psk", "the second key of the tests\n", 0o600);
        keys.write("ks2.psk", "the key that two servers share\n", 0o600);
        keys.write("state.key", "0123456789abcdef", 0o600);
        keys
    }

    fn write(&self, name: &str, key: &str, mode: u32) {
        let path = self.path().join(name);
        fs::write(&path, key).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn parse(&self, text: &str) -> Result<(Config, String), String> {
        let directory = self.path().to_str().unwrap();
        match config::parse("gcks.toml", &text.replace('@', directory)) {
            Ok(loaded) => {
                let warnings: Vec<String> =
                    loaded.warnings.iter().map(ToString::to_string).collect();
                Ok((loaded.value, warnings.join("\n")))
            }
            Err(report) => Err(report.to_string().replace(directory, "@")),
        }
    }

    fn refused(&self, text: &str) -> String {
        self.parse(text).map(|_| ()).expect_err("a defect must be found")
    }
}

#[test]
fn the_example_loads_without_a_warning() {
    let (config, warnings) = Keys::new().parse(&EXAMPLE.replace("/etc/gcks/", "@/")).unwrap();
    assert_eq!(warnings, "");
    assert_eq!(config.members.len(), 2);
    assert_eq!(config.groups.len(), 1);
    assert_eq!(config.groups[0].teks.len(), 1);
    assert!(config.servers.is_empty() && config.groups[0].cluster.is_none());
}

/// What the package installs has nothing in force; its example is the smallest configuration.
#[test]
fn the_installed_file_shows_the_smallest_configuration() {
    let installed = include_str!("../../packaging/conf/gcks.toml");
    assert!(installed.lines().all(|line| line.starts_with('#')));
    let example = installed.splitn(3, "\n#\n").nth(2).unwrap();
    let example = example.replace("\n# ", "\n").replace("# [[member]]", "[[member]]");
    let key = ("pre-shared-key-credential = \"psk_g1\"", "pre-shared-key-file = \"@/g1.psk\"");
    let (config, warnings) = Keys::new().parse(&example.replace(key.0, key.1)).unwrap();
    assert_eq!((warnings.as_str(), config.members.len(), config.groups.len()), ("", 1, 1));
}

/// Tables that the example shows only are sound, too.
#[test]
fn the_example_loads_with_all_of_its_tables() {
    let text = example(&DOCUMENT, &outline().in_force()).replace("/etc/gcks/", "@/");
    let (config, warnings) = Keys::new().parse(&text).unwrap();
    assert_eq!((warnings.as_str(), config.servers.len()), ("", 1));
    assert!(config.groups[0].cluster.is_some());
}

#[test]
fn the_example_of_the_manual_page_loads_without_a_warning() {
    let page = include_str!("../../man/gcks.toml.5");
    let (_, example) = page.split_once(".SH EXAMPLE\n.nf\n").unwrap();
    let (example, _) = example.split_once("\n.fi\n").unwrap();
    let text = example.replace("\\-", "-").replace("/etc/gcks/", "@/");
    let (config, warnings) = Keys::new().parse(&text).unwrap();
    assert_eq!((warnings.as_str(), config.members.len(), config.groups.len()), ("", 2, 1));
}

#[test]
fn the_example_loads_with_all_that_is_commented_out() {
    // A line that begins with `#` and no space is an option; the credential would be a second key.
    let uncommented: Vec<&str> = EXAMPLE
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .filter(|line| {
            !line.starts_with("pre-shared-key-credential")
                && !line.starts_with("state-key-credential")
                && !line.starts_with("member-files")
        })
        // Nor has the example certificates in files; other tests have.
        .filter(|line| {
            let certificate = [
                "[[certificate]]",
                "name = \"site\"",
                "chain-file",
                "private-key",
                "authority-files",
                "revocation-list-files",
                "strict-revocation",
                "certificate =",
            ];
            !certificate.iter().any(|beginning| line.starts_with(beginning))
        })
        .filter(|line| !line.starts_with("multicast-"))
        .collect();
    let text = uncommented.join("\n").replace("/etc/gcks/", "@/");
    assert!(text.contains("\ncontrol-socket = ") && text.contains("\nidentity = { fqdn"), "{text}");
    Keys::new().parse(&text).unwrap();
}

#[test]
fn the_documents_are_what_the_declarations_say() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    write_documents(&workspace, &documents(), true).unwrap();
}

/// Every key of a table and of the tables in it, with its path.
fn keys(path: &str, outline: &Outline) -> Vec<String> {
    let mut found = Vec::new();
    for option in &outline.options {
        let path = format!("{path}{}", option.key);
        match &option.kind {
            Kind::Value(_) => found.push(path),
            Kind::Table(inner) | Kind::Tables(inner) => {
                found.extend(keys(&format!("{path}."), inner));
            }
        }
    }
    found
}

#[test]
fn every_option_is_declared_once_and_shown() {
    let outline = outline();
    let mut options = keys("", &outline);
    assert!(options.len() > 50, "the declarations are found: {options:?}");
    options.sort();
    let count = options.len();
    options.dedup();
    assert_eq!(options.len(), count, "no option is declared twice");
    for option in options {
        let key = option.rsplit('.').next().unwrap();
        let named = EXAMPLE.lines().any(|line| {
            let line = line.trim_start_matches('#');
            line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = "))
        });
        assert!(named, "the example does not show {option}");
    }
}

#[test]
fn the_sound_configuration_is_sound() {
    let (config, warnings) = Keys::new().parse(SOUND).unwrap();
    assert_eq!(warnings, "");
    assert_eq!(config.listen, ["127.0.0.1:848".parse().unwrap()]);
}

#[test]
fn each_defect_has_its_line_and_its_remedy() {
    let keys = Keys::new();
    keys.write("open.psk", "a key that everybody can read", 0o644);
    keys.write("empty.psk", "\n", 0o600);
    // What is replaced, by what, and the line of the report.
    let cases = [
        (
            "address = \"10.0.1.1\"",
            "adress = \"10.0.1.1\"\naddress = \"10.0.1.1\"",
            "5:1: error: unknown key \"adress\" in member; did you mean \"address\"?",
        ),
        (
            "address = \"10.0.1.1\"",
            "",
            "3:1: error: member.address is missing; add address = \"192.0.2.0/24\"",
        ),
        (
            "\"10.0.2.1\"",
            "\"10.0.1.1/32\"\nidentity = { fqdn = \"g2\" }",
            "11:11: error: member.address: the same as in line 5; every one is there once, unless all have the same certificate: change or remove it",
        ),
        (
            "\"10.0.2.1\"",
            "\"10.0.2.1/24\"",
            "11:11: error: member.address: \"10.0.2.1/24\" has host bits; write \"10.0.2.0/24\" or \"10.0.2.1\"",
        ),
        (
            "\"10.0.2.1\"",
            "\"10.0.2.1\"\nidentity = { address = \"2001:db8::1\" }",
            "12:12: error: member.identity: not of the address family of the member's address; \
             name the address that the member proves",
        ),
        (
            "\"10.0.2.1\"",
            "\"10.0.2.1\"\nidentity = { address = \"10.0.1.1\" }",
            "12:12: error: member.identity: the same as in line 5; every one is there once: change or remove it",
        ),
        (
            "\"@/g2.psk\"",
            "\"@/open.psk\"",
            "12:23: error: pre-shared key: file @/open.psk is readable by everybody; run `chmod 600 @/open.psk`",
        ),
        (
            "\"@/g2.psk\"",
            "\"@/none.psk\"",
            "12:23: error: pre-shared key: file @/none.psk: No such file or directory (os error 2); \
             create it, or correct the path",
        ),
        (
            "\"@/g2.psk\"",
            "\"@/empty.psk\"",
            "12:23: error: pre-shared key: file @/empty.psk is empty; write the key into it",
        ),
        (
            "pre-shared-key-file = \"@/g2.psk\"",
            "",
            "9:1: error: member: no pre-shared key and no certificate; add \
             pre-shared-key-file = \"/path/to/file\", pre-shared-key-credential = \"name\" or certificate = \
             \"name\"",
        ),
        (
            "groups = [\"branches\"]",
            "groups = [\"brunches\"]",
            "7:11: error: member.groups: there is no group \"brunches\"; known are branches",
        ),
        (
            "groups = [\"branches\"]",
            "groups = []",
            "7:10: error: member.groups: the list is empty; write [\"text\"]",
        ),
        (
            "name = \"g2\"",
            "name = \"g1\"",
            "10:8: error: member.name: the same as in line 4; every one is there once: change or remove it",
        ),
        (
            "id = 1111",
            "id = 4294967296",
            "17:6: error: group.id: 4294967296 does not fit; write a number from 0 to 4294967295",
        ),
        (
            "id = 1111\n",
            "id = 1111\n[[group.tek]]\nencryption = \"aes-256-gcm-16\"\n[[group.tek.policy]]\nsource = \"any\"\n\
             destination = \"any\"\n[[group]]\nname = \"other\"\nid = 1111\n",
            "25:6: error: group.id: the same as in line 17; every one is there once: change or remove it",
        ),
        (
            "encryption = \"aes-256-cbc\"\nintegrity",
            "encryption = \"3des-cbc\"\nintegrity",
            "20:14: error: group.tek.encryption: 3des-cbc is weak; \
             choose a strong one, or set legacy = true and know why",
        ),
        (
            "\"aes-256-cbc\"",
            "\"aes-256-gmc-16\"",
            "20:14: error: group.tek.encryption: \"aes-256-gmc-16\" is not known; did you mean \"aes-256-gcm-16\"?",
        ),
        (
            "\"aes-256-cbc\"",
            "\"aes-256-gcm-16\"",
            "21:13: error: group.tek.integrity: aes-256-gcm-16 brings its own; remove integrity",
        ),
        (
            "integrity = \"hmac-sha2-256-128\"\n",
            "",
            "19:1: error: group.tek: aes-256-cbc protects no integrity; \
             add integrity = \"hmac-sha2-256-128\", or encrypt with aes-256-gcm-16",
        ),
        (
            "encryption = \"aes-256-cbc\"\n",
            "",
            "19:1: error: group.tek: no encryption; \
             add encryption = \"aes-256-cbc\" here or in [group.tek-defaults]",
        ),
        (
            "integrity = \"hmac",
            "lifetime = \"1s\"\nintegrity = \"hmac",
            "21:12: error: group.tek.lifetime: 1s is out of range; write \"30s\" to \"30d\"",
        ),
        (
            "destination = \"172.16.0.0/12\"\n",
            "destination = \"2001:db8::/32\"\n",
            "25:15: error: group.tek.policy.destination: not of the source's address family; \
             use two IPv4 sides or two IPv6 sides",
        ),
        (
            "destination = \"172.16.0.0/12\"\n",
            "destination = \"172.16.0.0/12\"\n[[group.tek.policy]]\nsource = \"172.16.0.0/12\"\n\
             destination = \"172.16.0.0/12\"\n",
            "26:1: error: group.tek.policy: the same selector as in line 23, which matches first; remove one of them",
        ),
        (
            "listen = [\"127.0.0.1\"]",
            "listen = [\"0.0.0.0\", \"127.0.0.1\"]",
            "1:11: error: listen: 0.0.0.0 covers the other addresses of its family; remove it, or remove the others",
        ),
        ("listen", "port = 0\nlisten", "1:8: error: port: 0 is out of range; write 1 to 65535"),
        (
            "[[group]]",
            "[ike]\nhash = [\"md5\"]\n[[group]]",
            "16:9: error: ike.hash: MD5 is weak; choose a strong one, or set legacy = true and know why",
        ),
        (
            "[[group.tek]]",
            "[group.gap]\nactivation-time-delay = \"20s\"\ndeactivation-time-delay = \"10s\"\n[[group.tek]]",
            "19:1: error: group.gap: the old keys go before the new ones are used; \
             make deactivation-time-delay longer than activation-time-delay",
        ),
    ];
    for (from, to, line) in cases {
        assert!(SOUND.contains(from), "{from}");
        let report = keys.refused(&SOUND.replacen(from, to, 1));
        assert_eq!(
            report,
            format!("gcks.toml:{line}\ngcks.toml: 1 error; nothing was started\n"),
            "{from:?} -> {to:?}"
        );
    }
}

#[test]
fn several_defects_come_at_once() {
    let keys = Keys::new();
    keys.write("open.psk", "a key that everybody can read", 0o644);
    let text = r#"liste = ["127.0.0.1"]
port = "848"

[[member]]
name = "g1"
address = "10.0.1.300"
pre-shared-key-file = "@/open.psk"
groups = ["nobody"]

[[group]]
name = "branches"
id = -1

[[group.tek]]
encryption = "null"
[[group.tek.policy]]
source = "172.16.0.0/12"
destination-port = 53
"#;
    assert_eq!(
        keys.refused(text),
        "\
gcks.toml:1:1: error: unknown key \"liste\"; did you mean \"listen\"?
gcks.toml:2:8: error: port: a text is not a number; write digits without quotes
gcks.toml:6:11: error: member.address: \"10.0.1.300\" is not an address or prefix; write one such as \"192.0.2.1\" or \"192.0.2.0/24\"
gcks.toml:7:23: error: pre-shared key: file @/open.psk is readable by everybody; run `chmod 600 @/open.psk`
gcks.toml:8:11: error: member.groups: there is no group \"nobody\"; known are branches
gcks.toml:12:6: error: group.id: -1 does not fit; write a number from 0 to 4294967295
gcks.toml:14:1: error: group.tek: null protects no integrity; add integrity = \"hmac-sha2-256-128\", or encrypt with aes-256-gcm-16
gcks.toml:16:1: error: group.tek.policy.destination is missing; add destination = \"192.0.2.0/24\"
gcks.toml:18:20: error: group.tek.policy.destination-port: protocol 0 has no ports; set protocol = 6 (TCP), 17 (UDP), 33, 132 or 136, or remove the port
gcks.toml: 9 errors; nothing was started
"
    );
}

#[test]
fn an_empty_file_is_told_what_is_missing() {
    assert_eq!(
        Keys::new().refused(""),
        "\
gcks.toml: error: there is no group; add [[group]]
gcks.toml: error: there is no member; add [[member]], here or in one of member-files
gcks.toml: 2 errors; nothing was started
"
    );
}

#[test]
fn a_shared_key_is_warned_about_with_the_reason() {
    let keys = Keys::new();
    keys.write("g2.psk", "the first key of the tests", 0o600);
    let (_, warnings) = keys.parse(SOUND).unwrap();
    assert_eq!(
        warnings,
        "line 6, column 23: members g1, g2 have one pre-shared key: any of them can pose as this key server to the \
         others; give every member a key of its own"
    );
    let (_, warnings) =
        Keys::new().parse(&SOUND.replacen("\"10.0.1.1\"", "\"10.0.1.0/24\"", 1)).unwrap();
    assert_eq!(
        warnings,
        "line 5, column 11: all hosts of 10.0.1.0/24 have the pre-shared key of g1: any of them can pose as this key \
         server to the others; give every member a key of its own"
    );
}

#[test]
fn a_key_that_thousands_share_is_one_readable_line() {
    let keys = Keys::new();
    let many: String = (0..2000)
        .map(|number| {
            format!(
                "[[member]]\nname = \"m{number}\"\naddress = \"10.9.{}.{}\"\n\
                 pre-shared-key-file = \"@/g1.psk\"\ngroups = [\"branches\"]\n",
                number / 250,
                number % 250
            )
        })
        .collect();
    let (_, warnings) = keys.parse(&format!("{SOUND}\n{many}")).unwrap();
    assert!(warnings.contains("members g1, m0, m1, m2, m3 and 1996 others have one"), "{warnings}");
    assert!(!warnings.contains("m1999"), "{warnings}");
}

#[test]
fn legacy_algorithms_are_allowed_on_request_and_warned_about() {
    let text =
        SOUND.replacen("listen", "legacy = true\nlisten", 1).replacen("aes-256-cbc", "3des-cbc", 1);
    let (_, warnings) = Keys::new().parse(&format!("{text}\n[ike]\ndh-group = [2]\n")).unwrap();
    assert!(warnings.contains("ike: MODP 1024 (group 2) can be broken"), "{warnings}");
    assert!(warnings.contains("3des-cbc can be broken"), "{warnings}");
}

#[test]
fn no_report_shows_a_key() {
    let keys = Keys::new();
    keys.write("g1.psk", "hunter2", 0o644);
    keys.write("g2.psk", "hunter3", 0o600);
    let report = keys.refused(SOUND);
    assert!(!report.contains("hunter"), "{report}");
}

/// [`SOUND`] with a table of pushes.
fn with_rekey(lines: &str) -> String {
    format!("{SOUND}[group.rekey]\n{lines}")
}

#[test]
fn pushes_have_defaults() {
    let keys = Keys::new();
    let gap = "[group.gap]\nactivation-time-delay = \"20s\"\n";
    let (config, warnings) = keys
        .parse(&with_rekey("").replace("[group.rekey]", &format!("{gap}[group.rekey]")))
        .unwrap();
    assert_eq!(warnings, "");
    let rekey = config.groups[0].rekey.as_ref().unwrap();
    assert_eq!(rekey.transport, config::Transport::Unicast);
    assert_eq!((rekey.encryption.name, rekey.encryption.octets), ("aes-256-cbc", 48));
    assert_eq!(rekey.signing_key_file, Path::new("/var/lib/gcks/branches.pem"));
    assert_eq!((rekey.delivery.period.as_secs(), rekey.delivery.repetitions), (10, 2));
    assert!(rekey.acknowledgements && !rekey.drop_unresponsive_members && !rekey.lkh);
    assert_eq!(rekey.path, config::MulticastPath { interface: None, ttl: 64 });
    assert!(keys.parse(SOUND).unwrap().0.groups[0].rekey.is_none());
    let multicast = with_rekey("transport = \"multicast\"\nmulticast-address = \"239.192.1.1\"\n");
    let (config, _) = keys.parse(&multicast).unwrap();
    let (source, destination) =
        ("127.0.0.1:848".parse().unwrap(), "239.192.1.1:848".parse().unwrap());
    assert_eq!(
        config.groups[0].rekey.as_ref().unwrap().transport,
        config::Transport::Multicast { source, destination }
    );
    let path = format!("{multicast}multicast-interface = \"eth1\"\nmulticast-ttl = 8\n");
    let path = keys.parse(&path).unwrap().0.groups[0].rekey.as_ref().unwrap().path.clone();
    assert_eq!(path, config::MulticastPath { interface: Some(String::from("eth1")), ttl: 8 });
    let state = format!("state-key-file = \"@/state.key\"\n{SOUND}");
    assert_eq!(keys.parse(&state).unwrap().0.state_key.unwrap().len(), 16);
}

#[test]
fn each_defect_of_pushes_has_its_line_and_its_remedy() {
    let keys = Keys::new();
    let multicast = "transport = \"multicast\"\n";
    let cases = [
        ("perod = 1", "27:1: error: unknown key \"perod\" in group.rekey"),
        (
            "retransmission-period = \"1s\"",
            "27:25: error: group.rekey.retransmission-period: 1s is out of range; write \"2s\" to \"1m\"",
        ),
        (
            "retransmissions = 61",
            "27:19: error: group.rekey.retransmissions: 61 is out of range; write 0 to 60",
        ),
        ("lifetime = \"30s\"", "27:12: error: group.rekey.lifetime: 30s is out of range"),
        ("encryption = \"3des-cbc\"", "27:14: error: group.rekey.encryption: 3des-cbc is weak"),
        ("signature-hash = \"sha1\"", "27:18: error: group.rekey.signature-hash: sha1 is weak"),
        (
            "signing-key = \"ecdsa-p384\"\nsignature-hash = \"sha2-256\"",
            "28:18: error: group.rekey.signature-hash: sha2-256 does not go with the key; write \"sha2-384\"",
        ),
        (
            "encryption = \"aes-192-cbc\"\nlkh = true",
            "27:14: error: group.rekey: a key hierarchy cannot have keys of 192 bits",
        ),
        (
            "acknowledgements = false\ndrop-unresponsive-members = true",
            "26:1: error: group.rekey: drop-unresponsive-members without",
        ),
        (
            "multicast-address = \"239.1.1.1\"",
            "27:21: error: group.rekey.multicast-address: the transport is unicast",
        ),
        (
            "multicast-interface = \"eth1\"",
            "27:23: error: group.rekey.multicast-interface: the transport is unicast",
        ),
        ("multicast-ttl = 9", "27:17: error: group.rekey.multicast-ttl: the transport is unicast"),
        (
            "transport = \"multicast\"\nmulticast-address = \"239.1.1.1\"\nmulticast-ttl = 0",
            "29:17: error: group.rekey.multicast-ttl: pushes would not leave this host; write a number from 1 to 255",
        ),
        (
            "transport = \"multicast\"\nmulticast-address = \"239.1.1.1\"\nmulticast-interface = \"a/b\"",
            "29:23: error: group.rekey.multicast-interface: no interface can be called \"a/b\"; write a name",
        ),
        (
            multicast,
            "26:1: error: group.rekey.multicast-address is missing; add multicast-address = \"239.192.1.1\"",
        ),
        (
            "transport = \"multicast\"\nmulticast-address = \"10.0.0.1\"",
            "28:21: error: group.rekey.multicast-address: 10.0.0.1 is no multicast address",
        ),
        (
            "transport = \"multicast\"\nmulticast-address = \"239.1.1.1\"\nmulticast-source = \"10.0.0.1\"",
            "29:20: error: group.rekey.multicast-source: pushes cannot leave from 10.0.0.1",
        ),
    ];
    for (lines, expected) in cases {
        let report = keys.refused(&with_rekey(lines));
        assert!(
            report.lines().any(|line| line.starts_with(&format!("gcks.toml:{expected}"))),
            "{lines}: {report}"
        );
    }
    let two = "signing-key = \"dsa\"\nlifetime = \"1s\"\ntransport = \"broadcast\"";
    assert!(keys.refused(&with_rekey(two)).contains("3 errors"), "all at once");
    let anywhere = with_rekey("transport = \"multicast\"\nmulticast-address = \"239.1.1.1\"")
        .replace("127.0.0.1", "0.0.0.0");
    assert!(keys.refused(&anywhere).contains("multicast-source is missing"));
    let short = format!("state-key-file = \"@/g1.psk\"\n{SOUND}");
    assert!(
        keys.refused(&short).contains("1:18: error: state key: file @/g1.psk holds"),
        "{}",
        keys.refused(&short)
    );
}

#[test]
fn copies_that_come_after_the_change_of_keys_are_warned_about() {
    let keys = Keys::new();
    let with_gap = |gap: &str, rekey: &str| {
        keys.parse(&format!("{SOUND}[group.gap]\n{gap}\n[group.rekey]\n{rekey}\n")).unwrap().1
    };
    assert_eq!(
        with_gap("activation-time-delay = \"10s\"", ""),
        "line 28, column 1: group.gap.activation-time-delay: 10s is less than the 20s in which a push is repeated: who \
         gets a late copy cannot decrypt until then; make it longer than that, or retransmissions and their period smaller"
    );
    assert!(
        with_gap("", "").contains("0s is less than the 20s"),
        "without a delay members change over at once"
    );
    assert_eq!(with_gap("activation-time-delay = \"20s\"", ""), "");
    assert_eq!(with_gap("activation-time-delay = \"10s\"", "retransmission-period = \"5s\""), "");
    assert_eq!(with_gap("", "retransmissions = 0"), "", "there are no late copies");
}

#[test]
fn a_multicast_group_has_one_path() {
    let keys = Keys::new();
    let second = SOUND
        .find("[[group]]")
        .map(|start| SOUND[start..].replace("branches", "other").replace("= 1111", "= 2"));
    let rekey = "[group.rekey]\ntransport = \"multicast\"\nmulticast-address = \"239.1.1.1\"\n";
    let both = |first: &str, other: &str| {
        let second = second.as_deref().unwrap();
        format!("{SOUND}{rekey}{first}\n{second}{rekey}{other}\n")
    };
    keys.parse(&both("multicast-ttl = 8", "multicast-ttl = 8")).unwrap();
    let report = keys.refused(&both("multicast-ttl = 8", ""));
    assert!(
        report.contains("groups branches and other push to 239.1.1.1:848 on different paths"),
        "{report}"
    );
}

#[test]
fn lives_without_time_for_a_push_are_warned_about() {
    let keys = Keys::new();
    let (_, warnings) = keys.parse(&with_rekey("lifetime = \"2m\"")).unwrap();
    assert!(
        warnings.contains("a KEK with a lifetime of 2m has no time for a push, 35s and the pulls"),
        "{warnings}"
    );
    let (_, warnings) = keys
        .parse(&with_rekey("").replace("[[group.tek]]", "[[group.tek]]\nlifetime = \"60s\""))
        .unwrap();
    assert!(warnings.contains("a TEK with a lifetime of 1m has no time"), "{warnings}");
}

fn member_file(keys: &Keys, name: &str, text: &str) -> String {
    let text = text.replace('@', keys.path().to_str().unwrap());
    fs::write(keys.path().join(name), text).unwrap();
    format!("@/{name}")
}

#[test]
fn members_may_be_in_files_of_their_own() {
    let keys = Keys::new();
    fs::create_dir(keys.path().join("members.d")).unwrap();
    let member = |number: u8| {
        format!(
            "[[member]]\nname = \"m{number}\"\naddress = \"10.0.3.{number}\"\n\
             pre-shared-key-file = \"@/g1.psk\"\ngroups = [\"branches\"]\n"
        )
    };
    member_file(&keys, "members.d/b.toml", &(member(3) + &member(4)));
    member_file(&keys, "members.d/a.toml", &member(2));
    member_file(&keys, "members.d/a.toml~", "no member");
    let one = member_file(&keys, "one.toml", &member(1));
    let head = format!("member-files = [\"{one}\", \"@/members.d\"]\n{SOUND}");
    let (config, _) = keys.parse(&head).unwrap();
    let names: Vec<&str> = config.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["g1", "g2", "m1", "m2", "m3", "m4"]);
    // Each defect has its file and line, those between files as well.
    let defects = member(1) + "[[member]]\nname = \"g1\"\nadress = \"10.0.9.1\"\n[ike]\n";
    let defects = member_file(&keys, "defects.toml", &defects);
    let broken = member_file(&keys, "broken.toml", "[[member]]\nname = m1\n");
    let head = format!(
        "member-files = [\"{one}\", \"{defects}\", \"{broken}\", \"/nonexistent.toml\"]\n{SOUND}"
    );
    let report = keys.parse(&head).unwrap_err().to_string();
    for line in [
        format!(
            "{defects}:8:1: error: unknown key \"adress\" in member; did you mean \"address\"?\n"
        ),
        format!("{defects}:9:2: error: unknown key \"ike\"; known keys are member\n"),
        format!("{defects}:2:8: error: member.name: the same as in line 2 of {one}; "),
        format!("{defects}:7:8: error: member.name: the same as in line 5; "),
        format!("{broken}:2:8: error: not TOML: "),
        String::from(": error: /nonexistent.toml cannot be read: No such file or directory"),
    ] {
        assert!(report.contains(&line), "{line}\n{report}");
    }
    assert!(report.lines().any(|line| line.starts_with("gcks.toml:1:")), "{report}");
}

#[test]
fn a_file_that_is_too_long_says_what_to_do() {
    let keys = Keys::new();
    let long = member_file(&keys, "long.toml", &"#".repeat(4 * 1024 * 1024 + 1));
    let report = keys.parse(&format!("member-files = [\"{long}\"]\n{SOUND}")).unwrap_err();
    let report = report.to_string();
    assert!(report.contains("more than 4194304 octets; divide it into several files"), "{report}");
    let report = gcks::config::load(&keys.path().join("long.toml")).unwrap_err().to_string();
    assert!(report.contains("put members into files of their own (member-files)"), "{report}");
}

#[test]
fn etcd_wants_a_state_key_and_plain_endpoints() {
    let sound = |etcd: &str| {
        let text = EXAMPLE.replace("/etc/gcks/", "@/").replace("#state-key-file", "state-key-file");
        text.replace("[etcd]\n", &format!("[etcd]\n{etcd}\n"))
    };
    let two = "endpoints = [\"http://10.0.9.11:2379\", \"http://10.0.9.12:2379\"]";
    let (config, warnings) = Keys::new().parse(&sound(two)).unwrap();
    assert_eq!(warnings, "");
    let etcd = config.etcd.unwrap();
    assert_eq!((etcd.endpoints.len(), etcd.prefix.as_str(), etcd.lease.as_secs()), (2, "/gcks", 5));
    assert!(!etcd.name.is_empty());
    assert!(Keys::new().parse(&sound("")).unwrap().0.etcd.is_none());
    for (etcd, expected) in [
        ("endpoints = [\"https://10.0.9.11:2379\"]", "gcks speaks no TLS; write http://"),
        ("endpoints = [\"10.0.9.11:2379\"]", "is no endpoint; write it like"),
        ("endpoints = [\"http://a:2379/v3\"]", "is no endpoint"),
        ("endpoints = [\"http://a:1\", \"http://a:1\"]", "etcd.endpoints: the same"),
        ("endpoints = [\"http://a:1\"]\nprefix = \"/\"", "etcd.prefix: empty"),
        ("endpoints = [\"http://a:1\"]\nlease = \"1s\"", "etcd.lease"),
    ] {
        let report = Keys::new().parse(&sound(etcd)).unwrap_err();
        assert!(report.contains(expected), "{etcd}: {report}");
    }
    let keyless = sound(two).replace("state-key-file", "#state-key-file");
    let report = Keys::new().parse(&keyless).unwrap_err();
    assert!(report.contains("[etcd] without a state key; add state-key-file"), "{report}");
    let forgetful = sound(two).replace("state-key-file", "keep-state = false\n#state-key-file");
    let report = Keys::new().parse(&forgetful).unwrap_err();
    assert!(report.contains("[etcd], and keep-state = false"), "{report}");
}
