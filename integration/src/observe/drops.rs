//! Where packets were dropped: what the kernels of the path count, by node.

use crate::lab::nodes::Node;
use crate::lab::topology::{G1, G2, HA, HB, R};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt;

/// The nodes of the path between the hosts.
const PATH: [Node; 5] = [HA, G1, R, G2, HB];
/// Columns of /proc/net/snmp that count packets which were there and did not go on.
const COLUMNS: [&str; 8] = [
    "InDiscards",
    "OutDiscards",
    "OutNoRoutes",
    "ReasmFails",
    "InErrors",
    "RcvbufErrors",
    "SndbufErrors",
    "MemErrors",
];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drops(BTreeMap<String, u64>);

impl Drops {
    /// As they are now.
    ///
    /// # Errors
    /// When a node's files cannot be read.
    pub fn read() -> Result<Self> {
        let mut counters = BTreeMap::new();
        for node in PATH {
            let read = |file: &str| node.run("cat", &[file]);
            for (name, count) in snmp(&read("/proc/net/snmp")?)
                .into_iter()
                .chain(xfrm(&read("/proc/net/xfrm_stat")?))
            {
                counters.insert(format!("{} {name}", node.0), count);
            }
        }
        // Shared by all nodes: one queue for each processor.
        let queues =
            std::fs::read_to_string("/proc/net/softnet_stat").context("/proc/net/softnet_stat")?;
        counters.insert("backlog of a processor".to_owned(), backlog(&queues));
        Ok(Self(counters))
    }

    /// What has been added since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let more = |(name, count): (&String, &u64)| {
            let added = count.saturating_sub(before.0.get(name).copied().unwrap_or(0));
            (added > 0).then(|| (name.clone(), added))
        };
        Self(self.0.iter().filter_map(more).collect())
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Drops {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> =
            self.0.iter().map(|(name, count)| format!("{name} {count}")).collect();
        formatter.write_str(&each.join(", "))
    }
}

/// Pairs of lines: names and numbers, both with the protocol in front.
fn snmp(text: &str) -> Vec<(String, u64)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for pair in lines.chunks_exact(2) {
        let [names, numbers] = pair else { continue };
        let protocol = names.split(':').next().unwrap_or_default();
        for (name, number) in names.split_whitespace().zip(numbers.split_whitespace()).skip(1) {
            if COLUMNS.contains(&name) {
                found.push((format!("{protocol} {name}"), number.parse().unwrap_or(0)));
            }
        }
    }
    found
}

/// A name and a number to a line; every one of them is a kind of error.
fn xfrm(text: &str) -> Vec<(String, u64)> {
    let pair = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// The second column, hexadecimal, counts what found the queue full; a line for each processor.
fn backlog(text: &str) -> u64 {
    let dropped = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines().filter_map(dropped).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_prints() {
        let text = "Ip: Forwarding InDiscards\nIp: 1 3\nUdp: InErrors RcvbufErrors\nUdp: 7 6\n";
        let found = snmp(text);
        assert_eq!(
            found,
            [("Ip InDiscards", 3), ("Udp InErrors", 7), ("Udp RcvbufErrors", 6)]
                .map(|(a, b)| (a.to_owned(), b))
        );
        assert_eq!(xfrm("XfrmInNoStates          \t12\n"), [("XfrmInNoStates".to_owned(), 12)]);
        assert_eq!(backlog("000000ff 00000010 00000000\n00000001 00000001 00000000\n"), 17);
    }

    #[test]
    fn tells_what_was_added() {
        let of = |count| {
            Drops(BTreeMap::from([
                ("g1 XfrmInNoStates".to_owned(), count),
                ("ha Ip InDiscards".to_owned(), 1),
            ]))
        };
        assert_eq!(of(5).since(&of(2)).to_string(), "g1 XfrmInNoStates 3");
        assert!(of(5).since(&of(5)).is_empty());
    }
}
