//! The member crashes after every single kernel operation: of its first start up to the keys, of a
//! rekey, of an orderly exit and of the start after that. Each time the ordinary daemon is started
//! and continues with what the kernel holds.

use super::{Context, close, registered};
use crate::lab::Lab;
use crate::lab::kernel::{clean, difference, picture};
use crate::lab::plan::{Plan, Rekey};
use crate::lab::topology::{G1, G2, HA, SERVERS};
use crate::observe::pushes::{GROUP, receiving_spis, sending_spi};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{FlowReport, flow_during, nothing_clear, ping};
use anyhow::{Result, bail};
use std::fs;
use std::time::{Duration, Instant};

const FAR: &str = "172.16.2.10";
/// A crashed member must be back before its peers drop the old key.
const REKEY: fn() -> Rekey = || Rekey {
    activation_seconds: 6,
    deactivation_seconds: 20,
    period_seconds: 5,
    signing_key: "ecdsa-p256",
    ..Rekey::default()
};
const WITHIN: Duration = Duration::from_secs(90);
/// A daemon idle for this long has nothing left to do.
const IDLE: Duration = Duration::from_secs(3);
/// More operations than any phase has.
const MOST: u64 = 80;

pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let mut lab = context.build(Plan { rekey: Some(REKEY()), ..Plan::default() })?;
    lab.start_server(0)?;
    lab.start_member(0)?;
    lab.start_member(1)?;
    if registered(&lab, narrative, "both members are registered") {
        std::thread::sleep(IDLE);
        let fresh = picture(G1)?;
        narrative.say("after each crash, g1's kernel must hold again what it holds now");
        for one in [&REKEY_PHASE, &EXIT, &RESTART, &FIRST_START] {
            phase(&mut lab, narrative, &fresh, one)?;
        }
        let moment = lab.now()?;
        // Before each first start nothing of ours was there, as on a machine that has just been
        // booted.
        lab.guarded_from(moment);
        lab.arm(None)?;
    }
    close(context, lab, narrative)
}

/// A phase of the daemon's life, from a state that can be reproduced.
struct Phase {
    title: &'static str,
    /// Reproduces the state; the crash agent runs where the state needs it.
    before: fn(&mut Lab) -> Result<()>,
    /// Starts the phase. The countdown is set.
    begin: fn(&mut Lab) -> Result<()>,
    /// Whether the phase is over when no crash happened.
    over: fn(&mut Lab) -> Result<bool>,
    /// What must not happen to the traffic of the hosts.
    traffic: Traffic,
}

/// The hosts' traffic during a phase.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traffic {
    /// None: nothing protects it before the daemon's first operations.
    None,
    /// None of it may leave in clear.
    NeverClear,
    /// A valid SA is always there: none of it may be lost either.
    NeverLost,
}

const FIRST_START: Phase = Phase {
    title: "From the first start to the keys",
    before: |lab| {
        lab.kill_member(0)?;
        clean(G1)?;
        let _ = fs::remove_file(lab.file("g1.state"));
        Ok(())
    },
    begin: |lab| lab.start_crash_agent(0),
    over: |lab| Ok(!lab.outbound(G1)?.is_empty()),
    traffic: Traffic::None,
};

const RESTART: Phase = Phase {
    title: "From the fail-close policies of an orderly exit to the keys",
    before: |lab| lab.stop_member(0),
    begin: FIRST_START.begin,
    over: FIRST_START.over,
    traffic: Traffic::NeverClear,
};

const REKEY_PHASE: Phase = Phase {
    title: "A push, its activation and its deactivation",
    before: |lab| {
        lab.kill_member(0)?;
        lab.arm(None)?;
        lab.start_crash_agent(0)?;
        wait(
            "the crash agent answers",
            |lab| Ok(lab.gdoictl(G1, &["show", "member"]).is_ok()),
            lab,
        )?;
        std::thread::sleep(IDLE);
        Ok(())
    },
    begin: |lab| lab.gdoictl(SERVERS[0], &["rekey", GROUP]).map(drop),
    over: |lab| Ok(one_key(lab)? && sending_spi(lab, G1)? == sending_spi(lab, G2)?),
    traffic: Traffic::NeverLost,
};

const EXIT: Phase = Phase {
    title: "An orderly exit",
    before: REKEY_PHASE.before,
    begin: |lab| lab.member(0).map_or(Ok(()), crate::lab::daemons::Daemon::terminate),
    over: |lab| Ok(!lab.is_alive(0)),
    traffic: Traffic::NeverClear,
};

/// Both members hold one key and no other.
fn one_key(lab: &Lab) -> Result<bool> {
    let (near, far) = (receiving_spis(lab, G1)?, receiving_spis(lab, G2)?);
    Ok(near.len() == 1
        && near == far
        && lab.outbound(G1)?.len() == 1
        && lab.outbound(G2)?.len() == 1)
}

fn phase(lab: &mut Lab, narrative: &mut Narrative, fresh: &str, phase: &Phase) -> Result<()> {
    narrative.chapter(phase.title);
    for number in 1..=MOST {
        let moment = lab.now()?;
        let mut crash = Crash::default();
        let report = match phase.traffic {
            Traffic::None => crash_and_restart(lab, phase, number, &mut crash).map(|()| None),
            _ => {
                flow_during(lab, |lab| crash_and_restart(lab, phase, number, &mut crash)).map(Some)
            }
        };
        let what = if crash.happened {
            format!("crash after operation {number}")
        } else {
            "no crash".to_owned()
        };
        narrative.state(
            "killed",
            &format!("{what}: the next daemon restores the kernel entries of a fresh start"),
            || {
                let (holds, told) = recovered(lab, phase, report?, fresh)?;
                Ok(Finding::new(holds, format!("{}\n{told}", crash.last_operation)))
            },
        );
        if phase.traffic != Traffic::None {
            nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
        }
        if !crash.happened {
            narrative.state(
                "all-crash-points",
                &format!("every operation was a crash point: {}", number - 1),
                || Ok(Finding::new(number > 1, "")),
            );
            return Ok(());
        }
    }
    bail!("the phase has more than {MOST} operations")
}

/// What became of the crash agent.
#[derive(Default)]
struct Crash {
    happened: bool,
    /// The last operation before it, as the daemon logged it.
    last_operation: String,
}

/// Starts the phase, waits for the crash, and starts the ordinary daemon.
fn crash_and_restart(lab: &mut Lab, phase: &Phase, number: u64, crash: &mut Crash) -> Result<()> {
    (phase.before)(lab)?;
    lab.arm(Some(number))?;
    (phase.begin)(lab)?;
    let started = Instant::now();
    let mut quiet = Instant::now();
    let mut left = number;
    loop {
        if lab.operations_left() == Some(0) {
            crash.happened = true;
            break;
        }
        let now = lab.operations_left().unwrap_or(left);
        if now != left || !(phase.over)(lab)? {
            (left, quiet) = (now, Instant::now());
        }
        if quiet.elapsed() > IDLE {
            break;
        }
        if started.elapsed() > WITHIN {
            bail!(
                "the phase did not end within {} s; g1's log ends:\n{}",
                WITHIN.as_secs(),
                lab.log_tail(G1, 8)
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = lab.log_tail(G1, 30);
    crash.last_operation = log
        .lines()
        .rev()
        .find(|line| line.contains("until the crash"))
        .unwrap_or_default()
        .to_owned();
    lab.arm(None)?;
    // It has exited already, unless there was no crash.
    let _ = lab.kill_member(0);
    lab.start_member(0)?;
    lab.wait_registered(WITHIN)?;
    wait("both members hold one and the same key", |lab| one_key(lab), lab)
}

/// What must hold once the ordinary daemon runs again.
fn recovered(
    lab: &Lab,
    phase: &Phase,
    report: Option<FlowReport>,
    fresh: &str,
) -> Result<(bool, String)> {
    let started = Instant::now();
    // The periodic check of the kernel is not awaited: stale entries are removed at once.
    let mut strange = difference(fresh, &picture(G1)?);
    while !strange.is_empty() && started.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(500));
        strange = difference(fresh, &picture(G1)?);
    }
    let (sent, answers, _) = ping(HA, &["-c", "2"], FAR)?;
    let whole = report.as_ref().is_none_or(|report| report.received == report.sent);
    let lossless = whole || phase.traffic != Traffic::NeverLost;
    let mut told = report.map(|report| format!("{report}\n")).unwrap_or_default();
    told.push_str(&format!("{sent} requests of ha to hb, {answers} answers"));
    if !strange.is_empty() {
        told.push_str(&format!("\ng1's kernel differs from that of a fresh member:\n{strange}"));
    }
    if !(strange.is_empty() && lossless) {
        told.push_str(&format!("\ng1's log ends:\n{}", lab.log_tail(G1, 12)));
    }
    Ok((strange.is_empty() && lossless && answers == sent, told))
}

fn wait(what: &str, mut holds: impl FnMut(&mut Lab) -> Result<bool>, lab: &mut Lab) -> Result<()> {
    let started = Instant::now();
    while !holds(lab)? {
        if started.elapsed() > WITHIN {
            bail!(
                "not so after {} s: {what}; g1's log ends:\n{}",
                WITHIN.as_secs(),
                lab.log_tail(G1, 8)
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
