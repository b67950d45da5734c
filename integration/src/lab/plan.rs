//! The plan of one run, and the configuration files both daemons get from it.

use crate::lab::peers::etcd;
use crate::lab::topology::{LISTED, PROTECTED, SERVERS, server_address};
use std::fmt::Write;
use std::path::Path;

/// One line of a group's policy.
#[derive(Debug, Clone)]
pub struct PolicyLine {
    pub source: &'static str,
    pub destination: &'static str,
    /// Protocol and destination port, when the line is for one service.
    pub service: Option<(u8, u16)>,
}

/// One TEK of the group.
#[derive(Debug, Clone)]
pub struct Tek {
    /// Encryption, in the words of the key server's configuration.
    pub encryption: &'static str,
    /// Integrity; none for combined modes.
    pub integrity: Option<&'static str>,
    /// Its lifetime in seconds.
    pub lifetime_seconds: u32,
    pub lines: Vec<PolicyLine>,
}

impl Default for Tek {
    fn default() -> Self {
        Self {
            encryption: "aes-256-cbc",
            integrity: Some("hmac-sha2-256-128"),
            lifetime_seconds: 3600,
            lines: vec![PolicyLine::EVERYTHING],
        }
    }
}

impl PolicyLine {
    /// All traffic between protected prefixes.
    pub const EVERYTHING: Self = Self { source: PROTECTED, destination: PROTECTED, service: None };

    /// One UDP service between protected prefixes.
    pub const fn udp(port: u16) -> Self {
        Self { source: PROTECTED, destination: PROTECTED, service: Some((17, port)) }
    }
}

/// How the key server pushes.
#[derive(Debug, Clone)]
pub struct Rekey {
    /// To all members at once, at [`MULTICAST`], instead of to each one.
    pub multicast: bool,
    /// The key that signs.
    pub signing_key: &'static str,
    /// Lifetime of the KEK in seconds.
    pub lifetime_seconds: u32,
    /// Seconds between two copies of a push.
    pub period_seconds: u32,
    /// Copies after the first.
    pub retransmissions: u32,
    /// Seconds from the receipt of a TEK until sending with it.
    pub activation_seconds: u32,
    /// Seconds from the receipt of a TEK until the old one is removed.
    pub deactivation_seconds: u32,
    /// Whether members get a path through a key hierarchy.
    pub key_hierarchy: bool,
    /// Whether the server seals its state and goes on from it after a restart.
    pub sealed: bool,
    /// Whether the servers share one state in etcd.
    pub etcd: bool,
}

/// Where multicast pushes go.
pub const MULTICAST: &str = "239.192.1.1";

impl Default for Rekey {
    fn default() -> Self {
        Self {
            multicast: false,
            signing_key: "rsa-2048",
            lifetime_seconds: 86_400,
            period_seconds: 2,
            retransmissions: 2,
            // A loaded machine under emulation needs seconds from a push to its state in the
            // kernel.
            activation_seconds: 3,
            deactivation_seconds: 6,
            key_hierarchy: false,
            sealed: false,
            etcd: false,
        }
    }
}

/// How servers form a cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Position of the root; members that list it know it as any server.
    pub root: usize,
    /// Positions of its sub-servers. Without any it is on its own.
    pub sub_servers: &'static [usize],
    /// The positions that each member lists.
    pub lists: [&'static [usize]; 4],
    /// How many members one server takes.
    pub member_threshold: Option<u32>,
}

impl Cluster {
    /// The first server is the root, the second and third are its sub-servers, and members know
    /// these two alone.
    pub const OF_TWO: Self = Self {
        root: 0,
        sub_servers: &[1, 2],
        lists: [&[1, 2], &[2, 1], &[1, 2], &[1, 2]],
        member_threshold: None,
    };
}

/// What varies from run to run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub teks: Vec<Tek>,
    /// Whether the members send with a counter-mode TEK.
    pub counter_mode_send: bool,
    /// The first member's local address: an address or an interface name.
    pub first_local: &'static str,
    /// A prefix of IPv6 that the members protect as well.
    pub protected_ipv6: Option<&'static str>,
    /// A UDP service that the members never encrypt.
    pub excluded_port: Option<u16>,
    /// Two networks whose traffic is not the group's.
    pub excluded_networks: Option<(&'static str, &'static str)>,
    /// A UDP service that may pass in clear while there is no key.
    pub fail_open_port: Option<u16>,
    /// How far the members have come from clear to protected traffic.
    pub mode: &'static str,
    /// What an orderly end leaves in the members' kernels.
    pub on_exit: &'static str,
    /// The DF bit of the members' outer headers.
    pub df_bit: &'static str,
    /// The segment size that the members have TCP agree on.
    pub mss_clamp: &'static str,
    /// Whether the host behind the third member is captured as well.
    pub third_branch: bool,
    /// Whether the members seal their keys and go on from them after a reboot.
    pub sealed_members: bool,
    /// How the servers push; absent where members only pull.
    pub rekey: Option<Rekey>,
    /// The servers' cluster, if they form one.
    pub cluster: Option<Cluster>,
    /// What the members do with group traffic while there is no key.
    pub failure_policy: &'static str,
    /// Whether the members ask for keys when ESP arrives that they cannot open.
    pub recovery_probe: bool,
    /// What the daemons log, where it is not the usual.
    pub log: Option<&'static str>,
    /// Parts of the ERROR lines that the scenario brings about and that daemons may log.
    pub expected_errors: &'static [&'static str],
    /// Whether the core's capture holds packets up to 128 octets only, and the hosts are not
    /// captured: for long runs.
    pub headers_only: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            teks: vec![Tek::default()],
            counter_mode_send: false,
            first_local: "10.0.1.1",
            protected_ipv6: None,
            excluded_port: None,
            excluded_networks: None,
            fail_open_port: None,
            mode: "normal",
            on_exit: "block",
            df_bit: "clear",
            mss_clamp: "off",
            third_branch: false,
            sealed_members: false,
            rekey: None,
            cluster: None,
            failure_policy: "close",
            recovery_probe: false,
            log: None,
            expected_errors: &[],
            headers_only: false,
        }
    }
}

/// The members: node name, identity, WAN interfaces.
pub const MEMBERS: [(&str, &str, &[&str]); 4] = [
    ("g1", "10.0.1.1", &["wan", "wan2"]),
    ("g2", "10.0.2.1", &["wan"]),
    ("g3", "10.0.5.1", &["wan"]),
    ("g4", "10.0.6.1", &["wan"]),
];

pub fn member_file(plan: &Plan, position: usize, directory: &Path) -> String {
    let (name, address, wan) = MEMBERS.get(position).copied().unwrap_or(("none", "0.0.0.0", &[]));
    let local = if position == 0 { plan.first_local } else { address };
    let directory = directory.display();
    let mut text = format!(
        r#"control-socket = "{directory}/{name}.sock"

[[group]]
name = "branches"
id = 1111
local-address = "{local}"
identity = {{ address = "{address}" }}
lan = ["lan"]
wan = {wan:?}
protected = {protected:?}
on-exit = "{on_exit}"
mode = "{mode}"
failure-policy = "{failure_policy}"
recovery-probe = {recovery_probe}
df-bit = "{df_bit}"
mss-clamp = {mss_clamp}
pre-shared-key-file = "{directory}/{name}.psk"
counter-mode-send = {counter}

[group.retransmission]
initial = "1s"
maximum = "4s"
repetitions = 3
"#,
        protected = [PROTECTED].into_iter().chain(plan.protected_ipv6).collect::<Vec<_>>(),
        counter = plan.counter_mode_send,
        mode = plan.mode,
        failure_policy = plan.failure_policy,
        recovery_probe = plan.recovery_probe,
        on_exit = plan.on_exit,
        df_bit = plan.df_bit,
        // A word, or a number of octets.
        mss_clamp = plan
            .mss_clamp
            .parse::<u16>()
            .map_or(format!("\"{}\"", plan.mss_clamp), |octets| octets.to_string()),
    );
    if plan.sealed_members {
        let lines = format!(
            "state-directory = \"{directory}/{name}-state\"\nstate-key-file = \"{directory}/{name}-state.key\"\n"
        );
        text.insert_str(0, &lines);
    }
    let services = [("exclude", plan.excluded_port), ("fail-open", plan.fail_open_port)];
    for (table, port) in services.into_iter().filter_map(|(table, port)| Some((table, port?))) {
        // Both directions: to the service and back from it.
        for place in ["destination-port", "source-port"] {
            let _ = write!(
                text,
                "\n[[group.{table}]]\nsource = \"{PROTECTED}\"\ndestination = \"{PROTECTED}\"\nprotocol = 17\n{place} = {port}\n"
            );
        }
    }
    if let Some((source, destination)) = plan.excluded_networks {
        let _ = write!(
            text,
            "\n[[group.exclude]]\nsource = \"{source}\"\ndestination = \"{destination}\"\n"
        );
    }
    let listed = plan.cluster.as_ref().and_then(|cluster| cluster.lists.get(position));
    let servers: Vec<usize> =
        listed.map_or_else(|| (0..LISTED).collect(), |listed| listed.to_vec());
    for position in servers {
        let _ = write!(text, "\n[[group.server]]\naddress = \"{}\"\n", server_address(position));
    }
    text
}

/// A key server's file. `keys` is the directory of the pre-shared keys it knows.
pub fn server_file(plan: &Plan, position: usize, directory: &Path) -> String {
    let name = SERVERS.get(position).map_or("none", |node| node.0);
    let directory = directory.display();
    let mut text = format!(
        "control-socket = \"{directory}/{name}.sock\"\nlisten = [\"{address}\"]\nidentity = {{ address = \"{address}\" }}\n",
        address = server_address(position),
    );
    if plan.rekey.is_some() {
        text.insert_str(0, &format!("state-directory = \"{directory}/{name}-state\"\n"));
    }
    let is_shared = plan.rekey.as_ref().is_some_and(|rekey| rekey.etcd);
    let state = match plan.rekey.as_ref().is_some_and(|rekey| rekey.sealed) {
        // Servers that share a state share its key.
        true if is_shared => format!("state-key-file = \"{directory}/s1-state.key\"\n"),
        true => format!("state-key-file = \"{directory}/{name}-state.key\"\n"),
        false => String::from("keep-state = false\n"),
    };
    text.insert_str(0, &state);
    if is_shared {
        let _ = write!(text, "\n[etcd]\nname = \"{name}\"\nendpoints = {:?}\n", etcd::endpoints());
    }
    let others = cluster_servers(plan, position);
    for other in others {
        // The key of a pair has the name of its sub-server.
        let root = plan.cluster.as_ref().map_or(0, |cluster| cluster.root);
        let pair = SERVERS
            .get(if position == root { *other } else { position })
            .map_or("none", |node| node.0);
        let _ = write!(
            text,
            r#"
[[cluster-server]]
name = "{other}"
address = "{address}"
pre-shared-key-file = "{directory}/cluster-{pair}.psk"
liveness-threshold = 2
"#,
            other = SERVERS.get(*other).map_or("none", |node| node.0),
            address = server_address(*other),
        );
    }
    for (member, address, _) in MEMBERS {
        let _ = write!(
            text,
            r#"
[[member]]
name = "{member}"
address = "{address}"
pre-shared-key-file = "{directory}/{name}-{member}.psk"
groups = ["branches"]
"#
        );
    }
    let _ = write!(text, "\n[[group]]\nname = \"branches\"\nid = 1111\n");
    let threshold = plan.cluster.as_ref().and_then(|cluster| cluster.member_threshold);
    if let Some(threshold) = threshold {
        let _ = writeln!(text, "member-threshold = {threshold}");
    }
    if let Some(rekey) = &plan.rekey {
        write_rekey(&mut text, rekey, position);
    }
    if !others.is_empty() {
        let names: Vec<&str> =
            others.iter().filter_map(|other| Some(SERVERS.get(*other)?.0)).collect();
        let is_root = plan.cluster.as_ref().is_some_and(|cluster| cluster.root == position);
        let role = if is_root { "root-server" } else { "sub-server" };
        let _ = write!(
            text,
            "\n[group.cluster]\nrole = \"{role}\"\nservers = {names:?}\nretransmission-period = \"2s\"\n"
        );
    }
    for tek in &plan.teks {
        let _ = write!(
            text,
            "\n[[group.tek]]\nlifetime = \"{}s\"\nencryption = \"{}\"\n",
            tek.lifetime_seconds, tek.encryption
        );
        if let Some(integrity) = tek.integrity {
            let _ = writeln!(text, "integrity = \"{integrity}\"");
        }
        for line in &tek.lines {
            let _ = write!(
                text,
                "\n[[group.tek.policy]]\nsource = \"{}\"\ndestination = \"{}\"\n",
                line.source, line.destination
            );
            if let Some((protocol, port)) = line.service {
                let _ = writeln!(text, "protocol = {protocol}\ndestination-port = {port}");
            }
        }
    }
    text
}

/// Which servers a server shares its group with, by position.
fn cluster_servers(plan: &Plan, position: usize) -> &[usize] {
    let Some(cluster) = &plan.cluster else { return &[] };
    match position == cluster.root {
        true => cluster.sub_servers,
        false if cluster.sub_servers.contains(&position) => std::slice::from_ref(&cluster.root),
        false => &[],
    }
}

fn write_rekey(text: &mut String, rekey: &Rekey, position: usize) {
    let _ = write!(
        text,
        "\n[group.gap]\nactivation-time-delay = \"{}s\"\ndeactivation-time-delay = \"{}s\"\n",
        rekey.activation_seconds, rekey.deactivation_seconds
    );
    let transport = if rekey.multicast { "multicast" } else { "unicast" };
    let hash = if rekey.signing_key == "ecdsa-p384" { "sha2-384" } else { "sha2-256" };
    let _ = write!(
        text,
        r#"
[group.rekey]
transport = "{transport}"
signing-key = "{}"
signature-hash = "{hash}"
lifetime = "{}s"
retransmission-period = "{}s"
retransmissions = {}
acknowledgements = true
lkh = {}
"#,
        rekey.signing_key,
        rekey.lifetime_seconds,
        rekey.period_seconds,
        rekey.retransmissions,
        rekey.key_hierarchy
    );
    if rekey.multicast {
        let _ = write!(
            text,
            "multicast-address = \"{MULTICAST}\"\nmulticast-source = \"{}\"\n",
            server_address(position)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_member_has_both_uplinks_and_all_servers_in_order() {
        let text = member_file(&Plan::default(), 0, Path::new("/run/x"));
        assert!(text.contains("wan = [\"wan\", \"wan2\"]"));
        let places: Vec<_> =
            (11..15).map(|net| text.find(&format!("10.0.{net}.1")).unwrap()).collect();
        assert!(places.is_sorted());
    }

    #[test]
    fn a_combined_mode_names_no_integrity() {
        let tek = Tek { encryption: "aes-128-gcm-16", integrity: None, ..Tek::default() };
        let plan = Plan { teks: vec![tek], ..Plan::default() };
        assert!(!server_file(&plan, 1, Path::new("/run/x")).contains("integrity"));
    }
}
