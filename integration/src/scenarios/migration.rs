//! A network goes from clear to protected traffic without losing a packet: receive-only, passive,
//! normal.

use super::{Context, bring_up, close};
use crate::lab::Lab;
use crate::lab::plan::Plan;
use crate::lab::topology::{G1, HA_ADDRESS};
use crate::observe::leak::from_member;
use crate::observe::packet::ESP;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{flow, nothing_clear, preserved};
use anyhow::Result;
use std::time::Duration;

/// A hundred a second at most: the flow outlasts a change on both members.
const DATAGRAMS: u64 = 600;

/// Each phase begins under a flow.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let mut lab = context.build(Plan { mode: "receive-only", ..Plan::default() })?;
    narrative.chapter("Clear, then receive-only");
    let moment = lab.now()?;
    let mut up = false;
    let report = flow(&mut lab, 3 * DATAGRAMS, "", |lab| {
        up = bring_up(lab, narrative)?;
        Ok(())
    });
    nothing_lost(narrative, "the members start and register", 3 * DATAGRAMS, report);
    if up {
        seen(&lab, narrative, "what the members send is clear still", moment, false);
        for (mode, text, encrypted) in [
            ("passive", "both members send ESP and take both", true),
            ("normal", "both members send ESP and take nothing else", true),
        ] {
            narrative.chapter(&format!("Then {mode}"));
            let report = flow(&mut lab, DATAGRAMS, "", |lab| {
                std::thread::sleep(Duration::from_secs(1));
                lab.change(|plan| plan.mode = mode)
            });
            nothing_lost(narrative, &format!("both members become {mode}"), DATAGRAMS, report);
            let moment = lab.now()?;
            let _ = flow(&mut lab, 50, "", |_| Ok(()))?;
            seen(&lab, narrative, text, moment, encrypted);
        }
        preserved(narrative, &lab);
        let moment = lab.now()?;
        let _ = flow(&mut lab, 50, "", |_| Ok(()))?;
        nothing_clear(narrative, &lab, moment, "members send no clear packet any more");
        lab.guarded_from(moment);
    }
    narrative.show("g1: the end of its log", &lab.log_tail(G1, 8));
    close(context, lab, narrative)
}

fn nothing_lost(
    narrative: &mut Narrative,
    what: &str,
    count: u64,
    report: Result<crate::report::statements::FlowReport>,
) {
    narrative.state(
        "migration",
        &format!("{what} under a flow of {count} datagrams, none lost"),
        || {
            let report = report?;
            Ok(Finding::new(report.received == count, report.to_string()))
        },
    );
}

fn seen(
    lab: &Lab,
    narrative: &mut Narrative,
    text: &str,
    moment: crate::lab::Moment,
    encrypted: bool,
) {
    narrative.state("seen", text, || {
        let crossed = lab.core_since(moment)?;
        let sent = crossed
            .iter()
            .filter(|captured| from_member(captured) && captured.packet.source == HA_ADDRESS);
        let (esp, clear): (Vec<_>, Vec<_>) =
            sent.partition(|captured| captured.packet.protocol == ESP);
        let (wanted, other) =
            if encrypted { (esp.len(), clear.len()) } else { (clear.len(), esp.len()) };
        let evidence =
            format!("{} ESP and {} clear packets of ha in the core", esp.len(), clear.len());
        Ok(Finding::new(wanted >= 50 && other == 0, evidence))
    });
}
