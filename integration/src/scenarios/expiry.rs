//! The keys end while no key server answers, one before the other: the group falls to its blocks
//! line by line, even where somebody else's policy is in the way.

use super::{Context, bring_up, close};
use crate::lab::Lab;
use crate::lab::nodes::Node;
use crate::lab::plan::{Plan, PolicyLine, Tek};
use crate::lab::topology::{G1, G2, HA, HB, PROTECTED};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{answered, blocked, nothing_clear, to_port};
use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

/// Lifetime of the TEK for one service alone; members ask again at half of it.
const SHORT: u32 = 40;
/// Lifetime of the TEK for everything else.
const LONG: u32 = 90;
const SERVICE: u16 = 5001;

/// Registers, takes the server away, waits for both ends, brings the server back.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    narrative
        .chapter("A key of 40 seconds for UDP port 5001, one of 90 seconds for everything else");
    let service =
        Tek { lifetime_seconds: SHORT, lines: vec![PolicyLine::udp(SERVICE)], ..Tek::default() };
    let everything = Tek { lifetime_seconds: LONG, ..Tek::default() };
    // Somebody's own policy stands in the way in the middle of it, and the member says so.
    let expected_errors = &["exists that is not ours"];
    let mut lab = context.build(Plan {
        teks: vec![service, everything],
        expected_errors,
        ..Plan::default()
    })?;
    if bring_up(&mut lab, narrative)? {
        let started = Instant::now();
        let moment = lab.now()?;
        lab.stop_server(0)?;
        narrative.say("the key server is gone");
        narrative.state("port", "20 datagrams to port 5001 arrive", || {
            let (received, _) = to_port(&lab, SERVICE, 20, 200)?;
            Ok(Finding::new(received == 20, format!("{received} received")))
        });
        one_ends(&lab, narrative, started);
        foreign_policy(&lab, narrative)?;
        ended(
            &lab,
            narrative,
            "at the end of its lifetime the other key is gone from both kernels, too",
            0,
            started,
        );
        blocked(narrative, &lab, "ha cannot reach hb any more", HA, &[], "172.16.2.10");
        blocked(
            narrative,
            &lab,
            "nor can the member itself",
            G1,
            &["-I", "172.16.1.1"],
            "172.16.2.10",
        );
        narrative.say("the foreign policy is removed and the key server comes back");
        G2.ip(&format!("xfrm policy delete src {PROTECTED} dst {PROTECTED} dir out"))?;
        lab.start_server(0)?;
        super::registered(&lab, narrative, "both members are registered again");
        answered(narrative, "ping", "ha reaches hb again", HA, &[], "172.16.2.10");
        nothing_clear(narrative, &lab, moment, "meanwhile members sent no clear packet");
    }
    close(context, lab, narrative)
}

fn one_ends(lab: &Lab, narrative: &mut Narrative, started: Instant) {
    ended(
        lab,
        narrative,
        "the short key expires alone: one state to send and one to receive are left",
        2,
        started,
    );
    narrative.state(
        "closed",
        "what was its own does not fall to the other key: port 5001 is blocked",
        || {
            let (received, crossed) = to_port(lab, SERVICE, 5, 200)?;
            let evidence = format!("{received} received, {} packets in the core", crossed.len());
            Ok(Finding::new(received == 0 && crossed.is_empty(), evidence))
        },
    );
    answered(narrative, "ping", "everything else goes on", HA, &[], "172.16.2.10");
}

/// The kernel takes no second policy with the same selector: ours can neither go back nor be
/// replaced by a block.
fn foreign_policy(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.say("another program replaces g2's outbound policy by one that lets everything pass");
    let member = lab.member(1).context("g2 does not run")?;
    member.freeze()?;
    let selector = format!("src {PROTECTED} dst {PROTECTED} dir out");
    let replaced = G2
        .ip(&format!("xfrm policy delete {selector}"))
        .and_then(|_| G2.ip(&format!("xfrm policy add {selector} action allow priority 77")));
    member.thaw()?;
    replaced?;
    blocked(narrative, lab, "hb cannot reach ha, in clear least of all", HB, &[], "172.16.1.10");
    narrative.state("named", "g2 says which policy is in its way", || {
        let log = lab.log_tail(G2, 40);
        let line = log.lines().rev().find(|line| line.contains("not ours"));
        Ok(Finding::new(line.is_some(), line.unwrap_or("not a word")))
    });
    Ok(())
}

/// Each member is left with so many states.
fn ended(lab: &Lab, narrative: &mut Narrative, text: &str, left: usize, started: Instant) {
    let limit = Duration::from_secs(u64::from(LONG) + 15);
    narrative.state("expired", text, || {
        loop {
            let count = |node: Node| lab.states(node).map(|states| states.len());
            let counts = [count(G1)?, count(G2)?];
            if counts == [left, left] || started.elapsed() > limit {
                let seconds = started.elapsed().as_secs_f32();
                let evidence =
                    format!("g1 has {}, g2 {} states after {seconds:.0} s", counts[0], counts[1]);
                return Ok(Finding::new(counts == [left, left], evidence));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    });
}
