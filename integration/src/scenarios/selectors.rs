//! Policies that are not one line for everything: asymmetric prefixes, and a service with its port.

use super::{Context, bring_up, close};
use crate::lab::Lab;
use crate::lab::plan::{Plan, PolicyLine, Tek};
use crate::lab::topology::{HA, HB};
use crate::observe::packet::ESP;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{answered, blocked, nothing_clear, tcp, to_port};
use anyhow::Result;

/// Asymmetric prefixes first, then a port.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    asymmetric(context, narrative)?;
    ports(context, narrative)
}

fn asymmetric(context: &Context, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("One selector from 172.16.1.0/24 to 172.16.2.0/24, for both directions");
    let line = PolicyLine { source: "172.16.1.0/24", destination: "172.16.2.0/24", service: None };
    let tek = Tek { lines: vec![line], ..Tek::default() };
    let mut lab = context.build(Plan { teks: vec![tek], ..Plan::default() })?;
    if bring_up(&mut lab, narrative)? {
        let moment = lab.now()?;
        answered(narrative, "ping", "ha reaches hb, with the line", HA, &[], "172.16.2.10");
        answered(narrative, "ping", "hb reaches ha, against the line", HB, &[], "172.16.1.10");
        tcp(narrative, &lab, HB, HA, 500_000);
        blocked(
            narrative,
            &lab,
            "a protected pair that no selector covers stays blocked",
            HA,
            &[],
            "172.16.77.1",
        );
        nothing_clear(narrative, &lab, moment, "meanwhile members sent no clear packet");
    }
    close(context, lab, narrative)
}

fn ports(context: &Context, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("One selector for UDP port 5001; UDP port 5003 is excluded and stays clear");
    let tek = Tek { lines: vec![PolicyLine::udp(5001)], ..Tek::default() };
    let mut lab =
        context.build(Plan { teks: vec![tek], excluded_port: Some(5003), ..Plan::default() })?;
    if bring_up(&mut lab, narrative)? {
        let moment = lab.now()?;
        for size in [100, 3000] {
            let text = format!("20 datagrams of {size} octets to port 5001 arrive, as ESP");
            narrative.state("port", &text, || arrive(&lab, 5001, size, true));
            let text = format!("20 datagrams of {size} octets to port 5003 arrive, in clear");
            narrative.state("excluded", &text, || arrive(&lab, 5003, size, false));
        }
        narrative.state(
            "closed",
            "3,000 octets to port 5004, which no selector covers, leave in no fragment",
            || {
                let (received, crossed) = to_port(&lab, 5004, 5, 3000)?;
                let evidence =
                    format!("{received} received, {} packets in the core", crossed.len());
                Ok(Finding::new(received == 0 && crossed.is_empty(), evidence))
            },
        );
        blocked(narrative, &lab, "what is not port 5001 stays blocked", HA, &[], "172.16.2.10");
        nothing_clear(
            narrative,
            &lab,
            moment,
            "meanwhile members sent no clear packet but those of the excluded port",
        );
    }
    close(context, lab, narrative)
}

fn arrive(lab: &Lab, port: u16, size: usize, encrypted: bool) -> Result<Finding> {
    let (received, crossed) = to_port(lab, port, 20, size)?;
    let esp = crossed.iter().filter(|captured| captured.packet.protocol == ESP).count();
    let other = crossed.len() - esp;
    let (wanted, unwanted) = if encrypted { (esp, other) } else { (other, esp) };
    let evidence = format!("{received} received; {esp} ESP and {other} other packets");
    Ok(Finding::new(received == 20 && wanted >= 20 && unwanted == 0, evidence))
}
