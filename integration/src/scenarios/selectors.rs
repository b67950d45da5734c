//! Policies that are not one line for everything: asymmetric prefixes, and a service with its port.

use super::{Context, bring_up, close};
use crate::narrative::{Finding, Narrative};
use crate::plan::{Plan, PolicyLine};
use crate::statements::{answered, blocked, nothing_clear, tcp};
use crate::topology::{HA, HA_ADDRESS, HB, HB_ADDRESS};
use crate::traffic::value;
use anyhow::Result;
use std::time::Duration;

/// Asymmetric prefixes first, then a port.
pub fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    asymmetric(context, narrative)?;
    ports(context, narrative)
}

fn asymmetric(context: &Context, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("One line from 172.16.1.0/24 to 172.16.2.0/24, for both directions");
    let line = PolicyLine { source: "172.16.1.0/24", destination: "172.16.2.0/24", service: None };
    let mut lab = context.build(Plan { lines: vec![line], ..Plan::default() })?;
    if bring_up(&mut lab, narrative)? {
        let moment = lab.now()?;
        answered(narrative, "ping", "ha reaches hb, with the line", HA, &[], "172.16.2.10");
        answered(narrative, "ping", "hb reaches ha, against the line", HB, &[], "172.16.1.10");
        tcp(narrative, &lab, HB, HA, 500_000);
        blocked(narrative, &lab, "a protected pair no line names stays blocked", HA, &[], "172.16.77.1");
        nothing_clear(narrative, &lab, moment, "meanwhile members sent no clear packet");
    }
    close(context, lab, narrative)
}

fn ports(context: &Context, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("One line for UDP port 5001");
    let line = PolicyLine { source: "172.16.0.0/12", destination: "172.16.0.0/12", service: Some((17, 5001)) };
    let mut lab = context.build(Plan { lines: vec![line], ..Plan::default() })?;
    if bring_up(&mut lab, narrative)? {
        let moment = lab.now()?;
        for size in [100, 3000] {
            let text = format!("20 datagrams of {size} octets to port 5001 arrive, as ESP");
            narrative.state("port", &text, || {
                let since = lab.now()?;
                let sink = lab.start_sink(HB, "sink --port 5001 --silence-seconds 8")?;
                let line = format!("flow --to {HB_ADDRESS}:5001 --count 20 --size {size} --pause-milliseconds 20");
                lab.traffic(HA, &line)?;
                let received = value(&sink.output(Duration::from_secs(30))?, "received").unwrap_or(0);
                let crossed = lab.core_since(since)?;
                let group =
                    crossed.iter().filter(|captured| captured.packet.source == HA_ADDRESS && !captured.outgoing);
                let (esp, other): (Vec<_>, Vec<_>) =
                    group.partition(|captured| captured.packet.protocol == crate::packet::ESP);
                let evidence = format!("{received} received; {} ESP and {} other packets", esp.len(), other.len());
                Ok(Finding::new(received == 20 && other.is_empty() && esp.len() >= 20, evidence))
            });
        }
        blocked(narrative, &lab, "what is not port 5001 stays blocked", HA, &[], "172.16.2.10");
        nothing_clear(narrative, &lab, moment, "meanwhile members sent no clear packet");
    }
    close(context, lab, narrative)
}
