//! A whole group with `failure-policy = "open"`: in clear while there is no key, protected while
//! there is one, and blocked where the daemon that could open it is dead.

use super::security_table::{cells_of, only_intended, wait_until};
use super::{Context, registered};
use crate::lab::Lab;
use crate::lab::plan::{Plan, Tek};
use crate::lab::topology::{G1, G2, HA, HB};
use crate::observe::pushes::GROUP;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{Forgery, answered, blocked, forged};
use crate::report::table::Promise;
use anyhow::Result;
use std::time::Duration;

const LIFETIME: u32 = 90;
/// The kernel ends a key so long after its lifetime when nobody else does.
const KERNEL_GRACE: u32 = 30;

/// No server, a server, none again, one again; the daemon killed without a key and with one.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let tek = Tek { lifetime_seconds: LIFETIME, ..Tek::default() };
    let mut lab =
        context.build(Plan { teks: vec![tek], failure_policy: "open", ..Plan::default() })?;
    lab.start_member(0)?;
    lab.start_member(1)?;
    without_a_key(&lab, narrative, "No key server has answered yet");
    lab.kill_member(0)?;
    without_a_key(&lab, narrative, "The daemon of g1 is killed while it has no key");
    lab.start_member(0)?;
    lab.stop_member(0)?;
    without_a_key(&lab, narrative, "The daemon of g1 has been stopped");
    lab.start_member(0)?;
    if keyed(&mut lab, narrative)? {
        ended(&lab, narrative)?;
        without_a_key(&lab, narrative, "All key servers are down and the keys have ended");
        says(&lab, narrative);
        if keyed(&mut lab, narrative)? {
            killed_with_a_key(&mut lab, narrative)?;
        }
    }
    // What was in clear here was meant to be; every traffic matrix has been checked by itself.
    only_intended(context, lab, narrative)
}

fn without_a_key(lab: &Lab, narrative: &mut Narrative, state: &str) {
    cells_of(lab, narrative, state, "", Promise::Clear);
    answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
    answered(narrative, "ping", "hb reaches ha", HB, &[], "172.16.1.10");
}

/// Brings new keys and takes the server away, so that no keys change while the traffic matrix is
/// sent.
fn keyed(lab: &mut Lab, narrative: &mut Narrative) -> Result<bool> {
    lab.start_server(0)?;
    for node in lab.running() {
        lab.gdoictl(node, &["register", GROUP])?;
    }
    let registered =
        registered(lab, narrative, "a key server answers and both members are registered");
    lab.stop_server(0)?;
    if registered {
        cells_of(lab, narrative, "With a key", "", Promise::Protected);
        answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
    }
    Ok(registered)
}

fn ended(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.say("the key server is gone");
    wait_until(
        Duration::from_secs(u64::from(LIFETIME) + 15),
        "both members' keys have expired",
        || Ok(lab.states(G1)?.is_empty() && lab.states(G2)?.is_empty()),
    )
}

fn says(lab: &Lab, narrative: &mut Narrative) {
    narrative.state("says", "the member says so: in its log, and to whoever asks", || {
        let log = lab.log_tail(G1, 200);
        let line = log
            .lines()
            .rev()
            .find(|line| line.contains("event=\"teks-expired\""))
            .unwrap_or("not a word");
        let shown = lab.show_text(G1, &["member"])?;
        let state = shown.lines().find(|line| line.contains("State")).unwrap_or("no state").trim();
        let told = line.contains("in clear") && state.ends_with("group traffic passes in clear");
        Ok(Finding::new(told, format!("{line}\n{state}")))
    });
}

/// Nobody is left who could open the group when the kernel ends the key.
fn killed_with_a_key(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    lab.kill_member(0)?;
    cells_of(
        lab,
        narrative,
        "The daemon of g1 is killed while it has a key",
        "",
        Promise::Protected,
    );
    narrative.chapter("The kernel expires the key of the killed daemon");
    wait_until(
        Duration::from_secs(u64::from(LIFETIME + KERNEL_GRACE) + 15),
        "g1's key has ended",
        || Ok(lab.states(G1)?.is_empty()),
    )?;
    blocked(narrative, lab, "ha cannot reach hb, in clear least of all", HA, &[], "172.16.2.10");
    blocked(narrative, lab, "nor can the member itself", G1, &["-I", "172.16.1.1"], "172.16.2.10");
    let forgery = Forgery {
        what: "towards the member whose daemon is dead",
        source: "172.16.2.10:6000",
        destination: "172.16.1.10:5000",
    };
    forged(narrative, lab, &forgery);
    lab.start_member(0)?;
    without_a_key(lab, narrative, "The daemon of g1 runs again, and no key server answers");
    Ok(())
}
