//! An ordinary user's firewall beside ours: connection tracking, masquerading, marks and a
//! flowtable.

use crate::lab::nodes::Node;
use anyhow::Result;

/// Loads it on a member; `interfaces` are the ones its flowtable may shortcut.
///
/// # Errors
/// When nft refuses.
pub fn load(member: Node, interfaces: &str) -> Result<()> {
    member.nft(&format!(
        "table ip user {{
            flowtable fast {{ hook ingress priority 0; devices = {{ {interfaces} }}; }}
            chain forward {{
                type filter hook forward priority filter; policy drop;
                meta l4proto {{ tcp, udp }} ct state established flow add @fast
                ct state established,related counter accept
                iifname \"lan\" counter accept
                meta ipsec exists counter accept
            }}
            chain input {{
                type filter hook input priority filter; policy accept;
                ct state invalid counter drop
            }}
            chain nat {{
                type nat hook postrouting priority srcnat; policy accept;
                oifname {{ \"wan\", \"wan2\" }} rt ipsec missing counter masquerade
            }}
            chain mangle {{
                type filter hook postrouting priority mangle; policy accept;
                oifname {{ \"wan\", \"wan2\" }} meta mark set 0x0a000163
            }}
        }}"
    ))
}

/// How many connections to a port the flowtable shortcuts at this moment.
///
/// # Errors
/// When the connection table cannot be read.
pub fn shortcuts(member: Node, port: u16) -> Result<usize> {
    let table = member.run("cat", &["/proc/net/nf_conntrack"])?;
    let to = format!("dport={port} ");
    Ok(table.lines().filter(|line| line.contains("OFFLOAD") && line.contains(&to)).count())
}
