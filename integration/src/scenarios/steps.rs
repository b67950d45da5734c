//! The member is killed right after every single kernel operation: from its first start to the
//! keys, through a whole rekey, through its orderly end and the start after that. Each time the
//! ordinary daemon is started and goes on from what the kernel holds.

use super::{Context, close, registered};
use crate::kernel::{clean, difference, picture};
use crate::lab::Lab;
use crate::narrative::{Finding, Narrative};
use crate::plan::{Plan, Rekey};
use crate::pushes::{GROUP, receiving_spis, sending_spi};
use crate::statements::{FlowReport, flow_during, nothing_clear, ping};
use crate::topology::{G1, G2, HA, SERVERS};
use anyhow::{Result, bail};
use std::fs;
use std::time::{Duration, Instant};

const FAR: &str = "172.16.2.10";
/// A member that is dead for some seconds must be back before its peers forget the old key.
const REKEY: fn() -> Rekey = || Rekey {
    activation_seconds: 6,
    deactivation_seconds: 20,
    period_seconds: 5,
    signing_key: "ecdsa-p256",
    ..Rekey::default()
};
const WITHIN: Duration = Duration::from_secs(90);
/// A daemon that does nothing for so long has done all there was to do.
const IDLE: Duration = Duration::from_secs(3);
/// More operations than any course has.
const MOST: u64 = 80;

/// The courses.
pub fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let mut lab = context.build(Plan { rekey: Some(REKEY()), ..Plan::default() })?;
    lab.start_server(0)?;
    lab.start_member(0)?;
    lab.start_member(1)?;
    if registered(&lab, narrative, "both members are registered") {
        std::thread::sleep(IDLE);
        let fresh = picture(G1)?;
        narrative.say("what g1's kernel holds now is what it must hold after each death");
        for one in [&ROLL, &EXIT, &RESTART, &FIRST_START] {
            course(&mut lab, narrative, &fresh, one)?;
        }
        let moment = lab.now()?;
        // Before each first start nothing of ours was there, as on a machine that has just been
        // booted.
        lab.guarded_from(moment);
        lab.arm(None)?;
    }
    close(context, lab, narrative)
}

/// One course of the daemon's life, from a state that can be brought about again and again.
struct Course {
    title: &'static str,
    /// Brings the state about, the mortal daemon running where it takes part in it.
    before: fn(&mut Lab) -> Result<()>,
    /// Starts the course. The countdown is running.
    begin: fn(&mut Lab) -> Result<()>,
    /// Whether the course is over for a daemon that has survived.
    over: fn(&mut Lab) -> Result<bool>,
    /// What the packets of the hosts must not meet.
    traffic: Traffic,
}

/// The hosts' traffic during a course.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traffic {
    /// There is none: nothing protects it before the daemon's first operations.
    None,
    /// Nothing of it may leave in clear.
    NeverClear,
    /// There is a valid SA all the time: nothing of it may be lost, either.
    NeverLost,
}

const FIRST_START: Course = Course {
    title: "From the first start to the keys",
    before: |lab| {
        lab.kill_member(0)?;
        clean(G1)?;
        let _ = fs::remove_file(lab.file("g1.state"));
        Ok(())
    },
    begin: |lab| lab.start_mortal(0),
    over: |lab| Ok(!lab.outbound(G1)?.is_empty()),
    traffic: Traffic::None,
};

const RESTART: Course = Course {
    title: "From the blocks of an orderly end to the keys",
    before: |lab| lab.stop_member(0),
    begin: FIRST_START.begin,
    over: FIRST_START.over,
    traffic: Traffic::NeverClear,
};

const ROLL: Course = Course {
    title: "A push, its activation and its deactivation",
    before: |lab| {
        lab.kill_member(0)?;
        lab.arm(None)?;
        lab.start_mortal(0)?;
        wait(
            "the mortal daemon answers",
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

const EXIT: Course = Course {
    title: "An orderly end",
    before: ROLL.before,
    begin: |lab| lab.member(0).map_or(Ok(()), crate::daemons::Daemon::terminate),
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

fn course(lab: &mut Lab, narrative: &mut Narrative, fresh: &str, course: &Course) -> Result<()> {
    narrative.chapter(course.title);
    for number in 1..=MOST {
        let moment = lab.now()?;
        let mut death = Death::default();
        let report = match course.traffic {
            Traffic::None => die(lab, course, number, &mut death).map(|()| None),
            _ => flow_during(lab, |lab| die(lab, course, number, &mut death)).map(Some),
        };
        let what = if death.died {
            format!("killed after operation {number}")
        } else {
            "not killed".to_owned()
        };
        narrative.state(
            "killed",
            &format!("{what}: the next daemon makes the kernel what a fresh one has"),
            || {
                let (holds, told) = whole(lab, course, report?, fresh)?;
                Ok(Finding::new(holds, format!("{}\n{told}", death.after)))
            },
        );
        if course.traffic != Traffic::None {
            nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
        }
        if !death.died {
            narrative.state(
                "all-steps",
                &format!("that were all operations: {}", number - 1),
                || Ok(Finding::new(number > 1, "")),
            );
            return Ok(());
        }
    }
    bail!("the course has more than {MOST} operations")
}

/// How it went with the mortal daemon.
#[derive(Default)]
struct Death {
    died: bool,
    /// The operation before, in the daemon's words.
    after: String,
}

/// Brings the course about, lets the daemon die in it, and starts the ordinary one.
fn die(lab: &mut Lab, course: &Course, number: u64, death: &mut Death) -> Result<()> {
    (course.before)(lab)?;
    lab.arm(Some(number))?;
    (course.begin)(lab)?;
    let started = Instant::now();
    let mut quiet = Instant::now();
    let mut left = number;
    loop {
        if lab.left_to_live() == Some(0) {
            death.died = true;
            break;
        }
        let now = lab.left_to_live().unwrap_or(left);
        if now != left || !(course.over)(lab)? {
            (left, quiet) = (now, Instant::now());
        }
        if quiet.elapsed() > IDLE {
            break;
        }
        if started.elapsed() > WITHIN {
            bail!(
                "the course is not over after {} s; g1's log ends:\n{}",
                WITHIN.as_secs(),
                lab.log_tail(G1, 8)
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = lab.log_tail(G1, 30);
    death.after = log
        .lines()
        .rev()
        .find(|line| line.contains("to live after"))
        .unwrap_or_default()
        .to_owned();
    lab.arm(None)?;
    // Dead already, unless it survived.
    let _ = lab.kill_member(0);
    lab.start_member(0)?;
    lab.wait_registered(WITHIN)?;
    wait("both members hold one and the same key", |lab| one_key(lab), lab)
}

/// What must be so once the ordinary daemon runs again.
fn whole(
    lab: &Lab,
    course: &Course,
    report: Option<FlowReport>,
    fresh: &str,
) -> Result<(bool, String)> {
    let started = Instant::now();
    // The regular look of the daemon at its kernel is not waited for: what is stale goes at once.
    let mut strange = difference(fresh, &picture(G1)?);
    while !strange.is_empty() && started.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(500));
        strange = difference(fresh, &picture(G1)?);
    }
    let (sent, answers, _) = ping(HA, &["-c", "2"], FAR)?;
    let whole = report.as_ref().is_none_or(|report| report.received == report.sent);
    let lossless = whole || course.traffic != Traffic::NeverLost;
    let mut told = report.map(|report| format!("{report}\n")).unwrap_or_default();
    told.push_str(&format!("{sent} requests of ha to hb, {answers} answers"));
    if !strange.is_empty() {
        told.push_str(&format!("\ng1's kernel differs from a fresh member's:\n{strange}"));
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
