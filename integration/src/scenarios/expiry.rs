//! The keys end while no key server answers: the group falls back to its blocks.

use super::{Context, bring_up, close};
use crate::narrative::{Finding, Narrative};
use crate::plan::Plan;
use crate::statements::{answered, blocked, nothing_clear};
use crate::topology::{G1, G2, HA};
use anyhow::Result;
use std::time::{Duration, Instant};

/// Life of the TEK; members ask again a minute before its end.
const LIFETIME_SECONDS: u32 = 80;

/// Registers, takes the server away, waits for the end, brings the server back.
pub fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A key of 80 seconds");
    let mut lab = context.build(Plan { lifetime_seconds: LIFETIME_SECONDS, ..Plan::default() })?;
    if bring_up(&mut lab, narrative)? {
        let started = Instant::now();
        let moment = lab.now()?;
        lab.stop_server(0)?;
        narrative.say("the key server is gone");
        answered(narrative, "ping", "ha reaches hb as long as the key is valid", HA, &[], "172.16.2.10");
        let limit = Duration::from_secs(u64::from(LIFETIME_SECONDS) + 15);
        narrative.state("expired", "at the end of its life the key is gone from both kernels", || {
            loop {
                let mut left = 0;
                for node in [G1, G2] {
                    left += lab.states(node)?.len();
                }
                if left == 0 || started.elapsed() > limit {
                    let evidence = format!("{left} states left after {:.0} s", started.elapsed().as_secs_f32());
                    return Ok(Finding::new(left == 0, evidence));
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        blocked(narrative, &lab, "ha cannot reach hb any more", HA, &[], "172.16.2.10");
        blocked(narrative, &lab, "nor can the member itself", G1, &["-I", "172.16.1.1"], "172.16.2.10");
        lab.start_server(0)?;
        super::registered(&lab, narrative, "the key server is back and both members are registered again");
        answered(narrative, "ping", "ha reaches hb again", HA, &[], "172.16.2.10");
        nothing_clear(narrative, &lab, moment, "meanwhile members sent no clear packet");
    }
    close(context, lab, narrative)
}
