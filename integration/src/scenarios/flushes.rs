//! Somebody flushes the kernel's tables under traffic: repaired, and no clear packet in between.

use crate::lab::Lab;
use crate::lab::nodes::Node;
use crate::lab::topology::{G1, G2, HA};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{answered, flow, guard_drops, nothing_clear};
use anyhow::Result;
use std::time::Duration;

/// Number of datagrams of the flow under which a flush happens; the last ones must arrive.
const DATAGRAMS: u64 = 400;

/// One flush after the other, on both members.
pub(super) fn play(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("Foreign flushes under traffic");
    let flushes: [(&str, &str, &[&str]); 3] = [
        ("nft flush ruleset", "nft", &["flush", "ruleset"]),
        ("ip xfrm policy flush", "ip", &["xfrm", "policy", "flush"]),
        ("ip xfrm state flush", "ip", &["xfrm", "state", "flush"]),
    ];
    for (what, program, arguments) in flushes {
        for node in [G1, G2] {
            flush(lab, narrative, node, what, program, arguments)?;
        }
    }
    narrative.state("guards", "the guards are back: their counters exist on both members", || {
        Ok(Finding::new(guard_drops(G1).is_ok() && guard_drops(G2).is_ok(), ""))
    });
    Ok(())
}

fn flush(
    lab: &mut Lab,
    narrative: &mut Narrative,
    node: Node,
    what: &str,
    program: &str,
    arguments: &[&str],
) -> Result<()> {
    let moment = lab.now()?;
    let report = flow(lab, DATAGRAMS, "", |_| {
        std::thread::sleep(Duration::from_secs(1));
        node.run(program, arguments).map(drop)
    });
    narrative.state(
        "repaired",
        &format!("'{what}' on {} during a flow is repaired", node.0),
        || {
            let report = report?;
            Ok(Finding::new(report.last == DATAGRAMS - 1, report.to_string()))
        },
    );
    answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}
