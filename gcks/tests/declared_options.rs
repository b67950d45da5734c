//! Every option that is declared, changed alone: a dry run of a reload names it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use gcks::config::{self, Fixed, file};
use gcks::group::key_generation::OsEntropy;
use gcks::server::KeyServer;
use support::*;

/// From and to; nothing to the beginning of the file, `END` to its end.
type Edit = (&'static str, &'static str);

const END: &str = "(end)";

/// What is added before an option of a cluster can be changed.
const CLUSTER: &[Edit] = &[
    ("", "listen = [\"10.0.9.1\"]\n"),
    (
        END,
        "[group.gap]\nactivation-time-delay = \"30s\"\n\
         [group.rekey]\nsigning-key = \"ecdsa-p256\"\n\
         [group.cluster]\nrole = \"root-server\"\nservers = [\"ks2\"]\n\
         [[cluster-server]]\nname = \"ks2\"\naddress = \"10.0.9.2\"\n\
         pre-shared-key-file = \"DIRECTORY/k9\"\n\
         [[cluster-server]]\nname = \"ks3\"\naddress = \"10.0.9.3\"\n\
         pre-shared-key-file = \"DIRECTORY/k8\"\n",
    ),
];

const ETCD: &[Edit] = &[
    ("", "state-key-file = \"DIRECTORY/state.key\"\n"),
    (END, "[etcd]\nendpoints = [\"http://10.0.9.11:2379\"]\nname = \"ks1\"\n"),
];

const REKEY: &[Edit] = &[(END, "[group.rekey]\nsigning-key = \"ecdsa-p256\"\n")];

const MULTICAST: &[Edit] = &[
    ("", "listen = [\"10.0.9.1\", \"10.0.9.4\"]\n"),
    (
        END,
        "[group.rekey]\nsigning-key = \"ecdsa-p256\"\ntransport = \"multicast\"\n\
         multicast-address = \"239.192.1.1\"\nmulticast-source = \"10.0.9.1\"\n",
    ),
];

/// TEKs without options of their own.
const DEFAULTS: &[Edit] = &[
    (
        "[[group.tek]]\nencryption = \"aes-256-cbc\"\nintegrity = \"hmac-sha2-256-128\"\n",
        "[[group.tek]]\n",
    ),
    (
        "[[group.tek]]\nencryption = \"aes-256-cbc\"\nintegrity = \"hmac-sha2-256-128\"\n",
        "[[group.tek]]\n",
    ),
    (
        "id = 1\n",
        "id = 1\n[group.tek-defaults]\nencryption = \"aes-256-cbc\"\nintegrity = \"hmac-sha2-256-128\"\n",
    ),
    (
        "id = 2\n",
        "id = 2\n[group.tek-defaults]\nencryption = \"aes-256-cbc\"\nintegrity = \"hmac-sha2-256-128\"\n",
    ),
];

/// The declared option, what the file has besides, the change, and the option that is named.
const ROWS: &[(&str, &[Edit], Edit, &str)] = &[
    ("control-socket", &[], ("control.sock", "other.sock"), "control-socket"),
    ("listen", &[], ("", "listen = [\"127.0.0.9\"]\n"), "listen"),
    ("port", &[], ("", "port = 1848\n"), "port"),
    ("identity", &[], ("", "identity = { fqdn = \"ks\" }\n"), "identity"),
    ("legacy", REKEY, ("", "legacy = true\n"), "legacy"),
    (
        "state-directory",
        &[],
        ("state-directory = \"", "state-directory = \"/other"),
        "state-directory",
    ),
    ("keep-state", &[], ("", "keep-state = false\n"), "keep-state"),
    ("state-key-file", &[], ("", "state-key-file = \"DIRECTORY/state.key\"\n"), "state-key"),
    ("member-files", &[], ("", "member-files = [\"DIRECTORY/more.toml\"]\n"), "address"),
    ("etcd.endpoints", ETCD, ("9.11", "9.12"), "etcd"),
    ("etcd.prefix", ETCD, ("[etcd]\n", "[etcd]\nprefix = \"/other\"\n"), "etcd"),
    ("etcd.lease", ETCD, ("[etcd]\n", "[etcd]\nlease = \"9s\"\n"), "etcd"),
    ("etcd.name", ETCD, ("ks1", "ks2"), "etcd"),
    ("ike.encryption", &[], (END, "[ike]\nencryption = [\"aes-128-cbc\"]\n"), "ike"),
    ("ike.hash", &[], (END, "[ike]\nhash = [\"sha2-384\"]\n"), "ike"),
    ("ike.dh-group", &[], (END, "[ike]\ndh-group = [19]\n"), "ike"),
    ("ike.lifetime", &[], (END, "[ike]\nlifetime = \"2h\"\n"), "ike"),
    ("limits.half-open", &[], (END, "[limits]\nhalf-open = 77\n"), "limits.half-open"),
    (
        "limits.half-open-per-source",
        &[],
        (END, "[limits]\nhalf-open-per-source = 77\n"),
        "limits.half-open-per-source",
    ),
    (
        "limits.half-open-timeout",
        &[],
        (END, "[limits]\nhalf-open-timeout = \"77s\"\n"),
        "limits.half-open-timeout",
    ),
    ("limits.computations", &[], (END, "[limits]\ncomputations = 77\n"), "limits.computations"),
    (
        "limits.receive-buffer",
        &[],
        (END, "[limits]\nreceive-buffer = 99999\n"),
        "limits.receive-buffer",
    ),
    ("limits.established", &[], (END, "[limits]\nestablished = 77\n"), "limits.established"),
    ("limits.members", &[], (END, "[limits]\nmembers = 77\n"), "limits.members"),
    ("member.name", &[], ("\"g1\"", "\"paris\""), "name"),
    ("member.address", &[], ("10.0.0.1", "10.0.0.77"), "address"),
    ("member.identity", &[], ("\"g1\"\n", "\"g1\"\nidentity = { fqdn = \"g1\" }\n"), "identity"),
    ("member.pre-shared-key-file", &[], ("/k1\"", "/k9\""), "pre-shared-key"),
    ("member.groups", &[], ("groups = [\"one\"]", "groups = [\"one\", \"two\"]"), "groups"),
    (
        "member.interoperability.group-id-byte-order",
        &[],
        (
            "groups = [\"one\"]\n",
            "groups = [\"one\"]\ninteroperability.group-id-byte-order = \"host\"\n",
        ),
        "interoperability.group-id-byte-order",
    ),
    ("cluster-server.name", CLUSTER, ("\"ks3\"", "\"ks4\""), "cluster-server"),
    ("cluster-server.address", CLUSTER, ("9.3", "9.5"), "cluster-server"),
    (
        "cluster-server.further-addresses",
        CLUSTER,
        ("\"10.0.9.3\"\n", "\"10.0.9.3\"\nfurther-addresses = [\"10.0.9.13\"]\n"),
        "cluster-server",
    ),
    (
        "cluster-server.local-address",
        &[
            CLUSTER[0],
            CLUSTER[1],
            ("[\"10.0.9.1\"]", "[\"10.0.9.1\", \"10.0.9.4\"]"),
            ("\"ks2\"\n", "\"ks2\"\nlocal-address = \"10.0.9.1\"\n"),
            ("\"ks3\"\n", "\"ks3\"\nlocal-address = \"10.0.9.1\"\n"),
        ],
        ("local-address = \"10.0.9.1\"", "local-address = \"10.0.9.4\""),
        "cluster-server",
    ),
    (
        "cluster-server.identity",
        CLUSTER,
        ("\"ks2\"\n", "\"ks2\"\nidentity = { fqdn = \"ks2\" }\n"),
        "cluster-server",
    ),
    ("cluster-server.pre-shared-key-file", CLUSTER, ("/k9", "/k7"), "cluster-server"),
    (
        "cluster-server.liveness-interval",
        CLUSTER,
        ("\"ks2\"\n", "\"ks2\"\nliveness-interval = \"20s\"\n"),
        "cluster-server",
    ),
    (
        "cluster-server.liveness-threshold",
        CLUSTER,
        ("\"ks2\"\n", "\"ks2\"\nliveness-threshold = 3\n"),
        "cluster-server",
    ),
    ("group.name", &[("[\"two\"]", "[\"one\"]")], ("\"two\"", "\"three\""), "id"),
    ("group.id", &[], ("id = 2\n", "id = 3\n"), "id"),
    ("group.sender-id-bits", &[], ("id = 2\n", "id = 2\nsender-id-bits = 12\n"), "sender-id-bits"),
    (
        "group.member-threshold",
        &[],
        ("id = 2\n", "id = 2\nmember-threshold = 12\n"),
        "member-threshold",
    ),
    (
        "group.tek-defaults.lifetime",
        DEFAULTS,
        ("[group.tek-defaults]\n", "[group.tek-defaults]\nlifetime = \"2h\"\n"),
        "tek.lifetime",
    ),
    ("group.tek-defaults.encryption", DEFAULTS, ("aes-256", "aes-128"), "tek.encryption"),
    ("group.tek-defaults.integrity", DEFAULTS, ("sha2-256-128", "sha2-512-256"), "tek.integrity"),
    (
        "group.tek-defaults.direction",
        DEFAULTS,
        ("[group.tek-defaults]\n", "[group.tek-defaults]\ndirection = \"sender-only\"\n"),
        "tek.direction",
    ),
    (
        "group.tek-defaults.mode",
        DEFAULTS,
        ("[group.tek-defaults]\n", "[group.tek-defaults]\nmode = \"transport\"\n"),
        "tek.mode",
    ),
    (
        "group.tek-defaults.address-preservation",
        DEFAULTS,
        ("[group.tek-defaults]\n", "[group.tek-defaults]\naddress-preservation = \"source\"\n"),
        "tek.address-preservation",
    ),
    (
        "group.tek.lifetime",
        &[],
        ("[[group.tek]]\n", "[[group.tek]]\nlifetime = \"2h\"\n"),
        "tek.lifetime",
    ),
    ("group.tek.encryption", &[], ("aes-256", "aes-128"), "tek.encryption"),
    ("group.tek.integrity", &[], ("sha2-256-128", "sha2-512-256"), "tek.integrity"),
    (
        "group.tek.direction",
        &[],
        ("[[group.tek]]\n", "[[group.tek]]\ndirection = \"sender-only\"\n"),
        "tek.direction",
    ),
    (
        "group.tek.mode",
        &[],
        ("[[group.tek]]\n", "[[group.tek]]\nmode = \"transport\"\n"),
        "tek.mode",
    ),
    (
        "group.tek.address-preservation",
        &[],
        ("[[group.tek]]\n", "[[group.tek]]\naddress-preservation = \"source\"\n"),
        "tek.address-preservation",
    ),
    (
        "group.tek.policy.source",
        &[],
        ("source = \"172.16.0.0/12\"", "source = \"any\""),
        "tek.policy",
    ),
    (
        "group.tek.policy.destination",
        &[],
        ("destination = \"172.16.0.0/12\"", "destination = \"any\""),
        "tek.policy",
    ),
    (
        "group.tek.policy.protocol",
        &[],
        (END, "[[group.tek.policy]]\nsource = \"any\"\ndestination = \"any\"\nprotocol = 6\n"),
        "tek.policy",
    ),
    (
        "group.tek.policy.source-port",
        &[(END, "protocol = 6\n")],
        (END, "source-port = 80\n"),
        "tek.policy",
    ),
    (
        "group.tek.policy.destination-port",
        &[(END, "protocol = 6\n")],
        (END, "destination-port = 80\n"),
        "tek.policy",
    ),
    (
        "group.gap.activation-time-delay",
        &[],
        (END, "[group.gap]\nactivation-time-delay = \"9s\"\n"),
        "gap.activation-time-delay",
    ),
    (
        "group.gap.deactivation-time-delay",
        &[],
        (END, "[group.gap]\ndeactivation-time-delay = \"9s\"\n"),
        "gap.deactivation-time-delay",
    ),
    (
        "group.rekey.transport",
        &[("", "listen = [\"10.0.9.1\"]\n"), REKEY[0]],
        (END, "transport = \"multicast\"\nmulticast-address = \"239.192.1.1\"\n"),
        "rekey.transport",
    ),
    ("group.rekey.multicast-address", MULTICAST, ("239.192.1.1", "239.192.1.2"), "rekey.transport"),
    (
        "group.rekey.multicast-source",
        MULTICAST,
        ("multicast-source = \"10.0.9.1\"", "multicast-source = \"10.0.9.4\""),
        "rekey.transport",
    ),
    (
        "group.rekey.multicast-interface",
        MULTICAST,
        (END, "multicast-interface = \"lo\"\n"),
        "rekey.multicast-interface",
    ),
    ("group.rekey.multicast-ttl", MULTICAST, (END, "multicast-ttl = 9\n"), "rekey.multicast-ttl"),
    ("group.rekey.encryption", REKEY, (END, "encryption = \"aes-128-cbc\"\n"), "rekey.encryption"),
    ("group.rekey.signing-key", REKEY, ("ecdsa-p256", "ecdsa-p384"), "rekey.signing-key"),
    (
        "group.rekey.signing-key-file",
        REKEY,
        (END, "signing-key-file = \"DIRECTORY/other.pem\"\n"),
        "rekey.signing-key-file",
    ),
    (
        "group.rekey.signature-hash",
        &[(END, "[group.rekey]\n")],
        (END, "signature-hash = \"sha2-512\"\n"),
        "rekey.signature-hash",
    ),
    ("group.rekey.lifetime", REKEY, (END, "lifetime = \"2d\"\n"), "rekey.lifetime"),
    (
        "group.rekey.retransmission-period",
        REKEY,
        (END, "retransmission-period = \"17s\"\n"),
        "rekey.retransmission-period",
    ),
    (
        "group.rekey.retransmissions",
        REKEY,
        (END, "retransmissions = 17\n"),
        "rekey.retransmissions",
    ),
    (
        "group.rekey.acknowledgements",
        REKEY,
        (END, "acknowledgements = false\n"),
        "rekey.acknowledgements",
    ),
    (
        "group.rekey.drop-unresponsive-members",
        REKEY,
        (END, "drop-unresponsive-members = true\n"),
        "rekey.drop-unresponsive-members",
    ),
    ("group.rekey.lkh", REKEY, (END, "lkh = true\n"), "rekey.lkh"),
    ("group.cluster.role", CLUSTER, ("root-server", "sub-server"), "cluster"),
    ("group.cluster.servers", CLUSTER, ("[\"ks2\"]", "[\"ks3\"]"), "cluster"),
    (
        "group.cluster.retransmission-period",
        CLUSTER,
        ("[group.cluster]\n", "[group.cluster]\nretransmission-period = \"20s\"\n"),
        "cluster",
    ),
    (
        "group.interoperability.rsa-signature",
        &[],
        (END, "[group.interoperability]\nrsa-signature = \"raw-digest\"\n"),
        "interoperability.rsa-signature",
    ),
    (
        "group.interoperability.signed-length",
        &[],
        (END, "[group.interoperability]\nsigned-length = \"unpadded\"\n"),
        "interoperability.signed-length",
    ),
    (
        "group.interoperability.sak-reserved-octets",
        &[],
        (END, "[group.interoperability]\nsak-reserved-octets = \"six\"\n"),
        "interoperability.sak-reserved-octets",
    ),
    (
        "group.interoperability.new-kek-spi",
        &[],
        (END, "[group.interoperability]\nnew-kek-spi = \"old\"\n"),
        "interoperability.new-kek-spi",
    ),
    (
        "group.interoperability.selector-byte-order",
        &[],
        (END, "[group.interoperability]\nselector-byte-order = \"host\"\n"),
        "interoperability.selector-byte-order",
    ),
];

fn edited(text: &str, (from, to): Edit, directory: &Path) -> String {
    let to = to.replace("DIRECTORY", directory.to_str().unwrap());
    match from {
        END => format!("{text}{to}"),
        _ => {
            assert!(text.contains(from), "{from} is not in\n{text}");
            text.replacen(from, &to, 1)
        }
    }
}

#[test]
fn a_dry_run_names_every_option_that_is_declared() {
    let directory = keys();
    let directory = directory.path();
    for number in 7..=9 {
        write(&directory.join(format!("k{number}")), &key(number), 0o600);
    }
    write(&directory.join("state.key"), "0123456789abcdef", 0o600);
    let more = format!(
        "[[member]]\nname = \"g9\"\naddress = \"10.0.0.9\"\n\
         pre-shared-key-file = \"{}/k9\"\ngroups = [\"two\"]\n",
        directory.display()
    );
    write(&directory.join("more.toml"), &more, 0o600);
    let mut problems = Vec::new();
    for (path, given, change, named) in ROWS {
        let base = configuration_with(directory, "", "10.0.0", CBC, "");
        let base = given.iter().fold(base, |text, edit| edited(&text, *edit, directory));
        let before = match config::parse("before", &base) {
            Ok(loaded) => loaded.value,
            Err(report) => {
                problems.push(format!("{path}: {report}"));
                continue;
            }
        };
        let fixed = Fixed::of(&before);
        let signing = signing_keys(&before);
        let server = KeyServer::new(before, &signing, [1; 32], OsEntropy);
        let file = directory.join("gcks.toml");
        write(&file, &edited(&base, *change, directory), 0o600);
        let (after, mut changes) = match config::load_again(&file, &fixed) {
            Ok(loaded) => loaded.value,
            Err(report) => {
                problems.push(format!("{path}: {report}"));
                continue;
            }
        };
        changes.extend(server.plan(&after, &signing));
        let names: Vec<String> = changes.iter().map(|change| change.option.to_string()).collect();
        if !names.iter().any(|name| name == named) {
            problems.push(format!("{path}: {names:?}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Certificates have their own test: their contents are compared, not what the table says.
#[test]
fn no_declared_option_is_left_out() {
    let changed: BTreeSet<&str> = ROWS.iter().map(|(path, ..)| *path).collect();
    let declared = file::outline().paths();
    let left_out: Vec<&String> = declared
        .iter()
        .map(|(path, _)| path)
        // The second key of one declaration.
        .filter(|path| !path.ends_with("-credential"))
        .filter(|path| !path.starts_with("certificate."))
        .filter(|path| !["member.certificate", "cluster-server.certificate"].contains(&&***path))
        .filter(|path| !changed.contains(path.as_str()))
        .collect();
    assert_eq!(left_out, Vec::<&String>::new());
}
