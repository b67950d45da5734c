//! A service that may pass in clear while there is no key, and only then.

use super::{Context, bring_up, close};
use crate::lab::Lab;
use crate::lab::plan::{Plan, Tek};
use crate::lab::topology::{G1, G2, HA};
use crate::observe::packet::ESP;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{answered, blocked, to_port};
use anyhow::Result;
use std::time::{Duration, Instant};

const SERVICE: u16 = 5005;
const LIFETIME: u32 = 40;

/// Without a key, with one, after its end, with a new one.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("UDP port 5005 may pass in clear while there is no key");
    let tek = Tek { lifetime_seconds: LIFETIME, ..Tek::default() };
    let mut lab = context.build(Plan {
        teks: vec![tek],
        fail_open_port: Some(SERVICE),
        ..Plan::default()
    })?;
    lab.start_member(0)?;
    lab.start_member(1)?;
    passes(&lab, narrative, "before the first key port 5005 passes in clear", false);
    blocked(narrative, &lab, "everything else is blocked", HA, &[], "172.16.2.10");
    lab.stop_member(0)?;
    lab.stop_member(1)?;
    if bring_up(&mut lab, narrative)? {
        let started = Instant::now();
        passes(&lab, narrative, "with a key port 5005 is encrypted like everything else", true);
        lab.stop_server(0)?;
        narrative.say("the key server is gone");
        narrative.state(
            "expired",
            "at the end of its lifetime the key is gone from both kernels",
            || {
                loop {
                    let left = lab.states(G1)?.len() + lab.states(G2)?.len();
                    if left == 0
                        || started.elapsed() > Duration::from_secs(u64::from(LIFETIME) + 20)
                    {
                        let evidence =
                            format!("{left} states after {:.0} s", started.elapsed().as_secs_f32());
                        return Ok(Finding::new(left == 0, evidence));
                    }
                    std::thread::sleep(Duration::from_millis(500));
                }
            },
        );
        passes(&lab, narrative, "port 5005 passes in clear again", false);
        blocked(narrative, &lab, "everything else is blocked", HA, &[], "172.16.2.10");
        lab.start_server(0)?;
        super::registered(
            &lab,
            narrative,
            "the key server is back and both members are registered again",
        );
        passes(&lab, narrative, "with a key port 5005 is encrypted again", true);
        answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
    }
    // What the service sent in clear was allowed each time; nothing else may have been.
    lab.plan.excluded_port = Some(SERVICE);
    close(context, lab, narrative)
}

fn passes(lab: &Lab, narrative: &mut Narrative, text: &str, encrypted: bool) {
    narrative.state("fail-open", text, || {
        let (received, crossed) = to_port(lab, SERVICE, 20, 200)?;
        let esp = crossed.iter().filter(|captured| captured.packet.protocol == ESP).count();
        let clear = crossed.len() - esp;
        let (wanted, other) = if encrypted { (esp, clear) } else { (clear, esp) };
        let evidence = format!("{received} of 20 received; {esp} ESP and {clear} clear packets");
        Ok(Finding::new(received == 20 && wanted >= 20 && other == 0, evidence))
    });
}
