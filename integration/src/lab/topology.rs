//! The seeds' topology: five key servers and four members round a core router, a host behind each
//! member.
//!
//! ```text
//!   ha 172.16.1.10 --lan-- g1 --wan---- w1 r w2 ----wan-- g2 --lan-- hb 172.16.2.10
//!                          g1 --wan2--- w3 r k1..k5 -- s1 10.0.11.1 .. s5 10.0.15.1
//!                                          r w5 ----wan-- g3 --lan-- hc 172.16.3.10
//!                                          r w6 ----wan-- g4 --lan-- hd 172.16.4.10
//! ```

use crate::lab::nodes::{NAMESPACE_PREFIX, Node, batch};
use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::Ipv4Addr;
use std::process::Command;

/// Host behind the first member.
pub const HA: Node = Node("ha");
pub const G1: Node = Node("g1");
pub const R: Node = Node("r");
pub const G2: Node = Node("g2");
/// Host behind the second member.
pub const HB: Node = Node("hb");
/// Third member; only some scenarios start it.
pub const G3: Node = Node("g3");
/// Host behind the third member.
pub const HC: Node = Node("hc");
/// Fourth member; only a cluster of four sub-servers has it.
pub const G4: Node = Node("g4");
/// Host behind the fourth member.
pub const HD: Node = Node("hd");
/// Key servers in failover order: members list the first four, and the fifth is the root of the
/// others where it runs.
pub const SERVERS: [Node; 5] = [Node("s1"), Node("s2"), Node("s3"), Node("s4"), Node("s5")];
/// Key servers that a member may list.
pub const LISTED: usize = 4;
pub const ALL: [Node; 14] =
    [HA, G1, R, G2, HB, G3, HC, G4, HD, Node("s1"), Node("s2"), Node("s3"), Node("s4"), Node("s5")];

/// Address of the host behind the first member.
pub const HA_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 10);
/// Address of the host behind the second member.
pub const HB_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 2, 10);
/// Address of the host behind the third member.
pub const HC_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 3, 10);
/// What the group protects.
pub const PROTECTED: &str = "172.16.0.0/12";
/// Link-layer addresses that begin so belong to members: only what they send can be a leak.
pub const MEMBER_MAC: [u8; 3] = [0x02, 0x67, 0x31];

/// Whether an address lies within the protected prefix.
pub fn is_protected(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [172, second, _, _] if (16..32).contains(&second))
}

/// Address of the key server at a position, counted from 0.
pub fn server_address(position: usize) -> String {
    format!("10.0.{}.1", 11 + position)
}

/// Builds every node, link, address and route; nothing protects the group yet.
///
/// # Errors
/// When iproute2 or sysctl refuse.
pub fn build() -> Result<()> {
    tear_down();
    let mut lines = String::new();
    for node in ALL {
        lines.push_str(&format!("netns add {}\n", node.namespace()));
    }
    batch(&lines)?;
    // Strict reverse path filtering would hide what the guards must catch.
    let common = [
        "net.ipv6.conf.all.disable_ipv6=1",
        "net.ipv6.conf.default.disable_ipv6=1",
        "net.ipv4.conf.all.rp_filter=0",
        "net.ipv4.conf.default.rp_filter=0",
    ];
    // A lab sends more ICMP errors in a minute than a network should.
    let router = ["net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0"];
    for node in ALL {
        let more: &[&str] = if [G1, R, G2, G3, G4].contains(&node) { &router } else { &[] };
        node.sysctl(&[&common, more].concat())?;
    }
    branch(HA, G1, 1)?;
    branch(HB, G2, 2)?;
    branch(HC, G3, 3)?;
    branch(HD, G4, 4)?;
    uplink(G1, "wan", "w1", 1)?;
    uplink(G2, "wan", "w2", 2)?;
    uplink(G1, "wan2", "w3", 3)?;
    uplink(G3, "wan", "w5", 5)?;
    uplink(G4, "wan", "w6", 6)?;
    G1.batch("link set lo up\nroute add default via 10.0.1.254\n")?;
    G2.batch("link set lo up\nroute add default via 10.0.2.254\n")?;
    G3.batch("link set lo up\nroute add default via 10.0.5.254\n")?;
    G4.batch("link set lo up\nroute add default via 10.0.6.254\n")?;
    R.batch("link set lo up\nroute add 172.16.1.0/24 via 10.0.1.1\nroute add 172.16.2.0/24 via 10.0.2.1\nroute add 172.16.3.0/24 via 10.0.5.1\nroute add 172.16.4.0/24 via 10.0.6.1\n")?;
    for (position, server) in SERVERS.into_iter().enumerate() {
        let number = 11 + position;
        let core = format!("k{}", position + 1);
        link(
            server,
            "eth0",
            &format!("02:00:00:00:{number}:01"),
            R,
            &core,
            &format!("02:00:00:00:{number}:fe"),
        )?;
        let default = format!("route add default via 10.0.{number}.254");
        server
            .batch(&format!("link set lo up\naddr add 10.0.{number}.1/24 dev eth0\n{default}\n"))?;
        R.ip(&format!("addr add 10.0.{number}.254/24 dev {core}"))?;
    }
    Ok(())
}

/// A member's LAN with its host: `172.16.NUMBER.1` on the member, `.10` on the host.
///
/// # Errors
/// When iproute2 refuses.
pub fn branch(host: Node, member: Node, number: u8) -> Result<()> {
    let macs = [format!("02:00:00:00:{number:02x}:0a"), format!("02:67:31:00:{number:02x}:ff")];
    link(host, "eth0", &macs[0], member, "lan", &macs[1])?;
    let net = format!("172.16.{number}");
    host.batch(&format!(
        "link set lo up\naddr add {net}.10/24 dev eth0\nroute add default via {net}.1\n"
    ))?;
    address(member, "lan", &format!("{net}.1/24"))
}

/// A member's uplink to the core: `10.0.NUMBER.1` on the member, `.254` on the router.
///
/// # Errors
/// When iproute2 refuses.
pub fn uplink(member: Node, interface: &str, core: &str, number: u8) -> Result<()> {
    let member_mac = format!("02:67:31:00:{number:02x}:01");
    link(member, interface, &member_mac, R, core, &format!("02:00:00:01:{number:02x}:fe"))?;
    address(member, interface, &format!("10.0.{number}.1/24"))?;
    address(R, core, &format!("10.0.{number}.254/24"))
}

/// Removes what an earlier lab left: its processes first, then its namespaces.
pub fn tear_down() {
    let Ok(listed) = Command::new("ip").args(["netns", "list"]).output() else { return };
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let Some(name) = line.split_whitespace().next() else { continue };
        if !ALL.iter().any(|node| name.strip_prefix(NAMESPACE_PREFIX) == Some(node.0)) {
            continue;
        }
        if let Ok(processes) = Command::new("ip").args(["netns", "pids", name]).output() {
            for id in String::from_utf8_lossy(&processes.stdout).split_whitespace() {
                if let Ok(id) = id.parse() {
                    let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
                }
            }
        }
        let _ = Command::new("ip").args(["netns", "del", name]).output();
    }
}

fn link(
    left: Node,
    left_name: &str,
    left_mac: &str,
    right: Node,
    right_name: &str,
    right_mac: &str,
) -> Result<()> {
    let (left_space, right_space) = (left.namespace(), right.namespace());
    batch(&format!(
        "link add {left_name} address {left_mac} netns {left_space} type veth \
         peer name {right_name} address {right_mac} netns {right_space}\n"
    ))?;
    left.ip(&format!("link set {left_name} up"))?;
    right.ip(&format!("link set {right_name} up")).map(drop)
}

fn address(node: Node, interface: &str, address: &str) -> Result<()> {
    node.ip(&format!("addr add {address} dev {interface}")).map(drop)
}
