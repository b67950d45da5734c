//! Every cell of the table of `SECURITY.md`: each of its states is brought about, the
//! traffic matrix is sent, and captures say whether each cell keeps its promise.

use super::boot::{self, Boot};
use super::leaks;
use super::{Context, bring_up, close, no_errors, registered};
use crate::lab::plan::{Plan, PolicyLine, Rekey, Tek};
use crate::lab::topology::{G1, G2, HB, R, SERVERS};
use crate::lab::{Lab, Moment};
use crate::observe::pushes::{GROUP, receiving_spis, sending_spi, spis_text};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::blocked;
use crate::report::table::{self, COLUMNS, DOCUMENT, Promise, Row};
use crate::traffic::matrix::{EXCLUDED, FAIL_OPEN, SERVICE, TrafficMatrix};
use anyhow::{Context as _, Result, bail};
use std::time::{Duration, Instant};

const NO_KEY: &str = "daemon running, no key yet";
const VALID: &str = "key valid";
const ROLLING: &str = "rolling: two generations of keys";
const ONE_ENDED: &str = "one TEK of several ended";
const ALL_ENDED: &str = "all keys ended, or deleted by the key server";
const STOPPED_BLOCK: &str = "daemon stopped, `on-exit = \"block\"` (default)";
const STOPPED_KEEP: &str = "daemon stopped, `on-exit = \"keep\"`";
const STOPPED_REMOVE: &str = "daemon stopped, `on-exit = \"remove\"`";
const RESTARTED: &str = "daemon restarted (`systemctl restart`), until it runs again";
const KILLED: &str = "daemon killed (`kill -9`), until it is started again";
const TABLES_FLUSHED: &str = "nf_tables flushed by somebody, until the repair";
const POLICIES_FLUSHED: &str = "XFRM policies flushed by somebody, until the repair";
const BOTH_FLUSHED: &str = "both flushed, daemon running";
const BOTH_FLUSHED_ALONE: &str = "both flushed, daemon not running";
const BOOT_NO_UPLINK: &str = "boot with a missing uplink, from the block unit on";
const BOOT_BROKEN: &str = "boot with a broken configuration";
const WAN_MOVED: &str = "WAN moved to another uplink, or re-created";

/// The states that the scenario brings about.
#[cfg(test)]
const STATES: [&str; 17] = [
    NO_KEY,
    VALID,
    ROLLING,
    ONE_ENDED,
    ALL_ENDED,
    STOPPED_BLOCK,
    STOPPED_KEEP,
    STOPPED_REMOVE,
    RESTARTED,
    KILLED,
    TABLES_FLUSHED,
    POLICIES_FLUSHED,
    BOTH_FLUSHED,
    BOTH_FLUSHED_ALONE,
    WAN_MOVED,
    BOOT_NO_UPLINK,
    BOOT_BROKEN,
];

/// Two traffic matrices fit into each half of a roll.
const REKEY: fn() -> Rekey =
    || Rekey { activation_seconds: 25, deactivation_seconds: 50, ..Rekey::default() };
const SHORT: u32 = 50;
const LONG: u32 = 110;
/// The kernel ends a key so long after its lifetime when nobody else does.
const KERNEL_GRACE: u32 = 30;

/// Valid keys, then keys that end.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let table = table::read(DOCUMENT)?;
    valid(context, narrative, &table)?;
    ending(context, narrative, &table)
}

fn plan() -> Plan {
    Plan { excluded_port: Some(EXCLUDED), fail_open_port: Some(FAIL_OPEN), ..Plan::default() }
}

/// One traffic matrix, one statement for each column of the row.
fn cells(lab: &Lab, narrative: &mut Narrative, table: &[Row], state: &str, remark: &str) {
    narrative.chapter(&format!("{state}{remark}"));
    let matrix = TrafficMatrix::send(lab);
    let row = table.iter().find(|row| row.state == state);
    for (position, (column, heading)) in COLUMNS.into_iter().enumerate() {
        let cell = row.and_then(|row| row.cells.get(position));
        let words = cell.map_or("", |cell| cell.1.as_str());
        narrative.state("cell", &format!("{heading}: {words}"), || {
            let promise = cell.context("the table has no such row")?.0;
            let matrix = matrix.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            let (kept, seen) = matrix.keeps(column, promise);
            Ok(Finding::new(kept, seen))
        });
    }
}

fn valid(context: &Context, narrative: &mut Narrative, table: &[Row]) -> Result<()> {
    let mut lab = context.build(Plan { rekey: Some(REKEY()), ..plan() })?;
    lab.start_member(0)?;
    lab.start_member(1)?;
    cells(&lab, narrative, table, NO_KEY, "");
    lab.start_server(0)?;
    if registered(&lab, narrative, "both members are registered") {
        cells(&lab, narrative, table, VALID, "");
        leaks::beside_other_software(&mut lab, narrative)?;
        rolling(&lab, narrative, table)?;
        flushed(&mut lab, narrative, table)?;
        wan_moved(&lab, narrative, table)?;
        restarted(&mut lab, narrative, table)?;
        killed(&mut lab, narrative, table)?;
        stopped(&mut lab, narrative, table)?;
        lab.plan.on_exit = "block";
        lab.start_member(0)?;
        registered(&lab, narrative, "g1 is registered");
        booted(&mut lab, narrative, table)?;
    }
    only_intended(context, lab, narrative)
}

/// Not all that members sent in clear here was a leak: each cell has looked at its own traffic.
pub(super) fn only_intended(
    context: &Context,
    mut lab: Lab,
    narrative: &mut Narrative,
) -> Result<()> {
    let moment = lab.now()?;
    lab.guarded_from(moment);
    if context.keep {
        return close(context, lab, narrative);
    }
    let errors = lab.errors();
    let (_, tally) = lab.finish()?;
    narrative.state("whole-capture", "the capture of all core links is complete", || {
        let evidence =
            format!("{} packets captured, {} dropped by tcpdump", tally.captured, tally.dropped);
        Ok(Finding::new(tally.captured > 0 && tally.dropped == 0, evidence))
    });
    no_errors(narrative, &errors);
    Ok(())
}

fn rolling(lab: &Lab, narrative: &mut Narrative, table: &[Row]) -> Result<()> {
    let old = sending_spi(lab, G1)?;
    lab.gdoictl(SERVERS[0], &["rekey", GROUP])?;
    wait_until(Duration::from_secs(20), "both members hold two generations of keys", || {
        Ok(receiving_spis(lab, G1)?.len() == 2 && receiving_spis(lab, G2)?.len() == 2)
    })?;
    cells(lab, narrative, table, ROLLING, ", before the activation delay");
    two_generations(
        lab,
        narrative,
        "both generations are there still, and the old one sends",
        old,
        true,
    );
    wait_until(Duration::from_secs(40), "both members send with the new key", || {
        Ok(sending_spi(lab, G1)? != old && sending_spi(lab, G2)? != old)
    })?;
    cells(lab, narrative, table, ROLLING, ", after the activation delay");
    two_generations(
        lab,
        narrative,
        "both generations are there still, and the new one sends",
        old,
        false,
    );
    wait_until(Duration::from_secs(60), "the old keys are gone", || {
        Ok(receiving_spis(lab, G1)?.len() == 1 && receiving_spis(lab, G2)?.len() == 1)
    })
}

fn two_generations(lab: &Lab, narrative: &mut Narrative, text: &str, old: u32, sends_old: bool) {
    narrative.state("generations", text, || {
        let (held, sends) = (receiving_spis(lab, G1)?, sending_spi(lab, G1)?);
        let evidence =
            format!("g1 receives with {} and sends with {sends:#010x}", spis_text(&held));
        Ok(Finding::new(held.len() == 2 && (sends == old) == sends_old, evidence))
    });
}

fn flushed(lab: &mut Lab, narrative: &mut Narrative, table: &[Row]) -> Result<()> {
    let tables = ["nft flush ruleset"];
    let policies = ["ip xfrm policy flush"];
    let both = [tables[0], policies[0]];
    let flushes: [(&str, &[&str]); 3] =
        [(TABLES_FLUSHED, &tables), (POLICIES_FLUSHED, &policies), (BOTH_FLUSHED, &both)];
    for (state, commands) in flushes {
        // A frozen daemon repairs nothing, and is running all the same.
        lab.member(0).context("g1 does not run")?.freeze()?;
        let flushed = flush(commands);
        cells(lab, narrative, table, state, " (g1's daemon is frozen)");
        lab.member(0).context("g1 does not run")?.thaw()?;
        flushed?;
        repaired(lab, narrative);
    }
    Ok(())
}

/// Runs commands on g1, as somebody there would type them.
pub(super) fn flush(commands: &[&str]) -> Result<()> {
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (program, arguments) = words.split_first().context("no command")?;
        G1.run(program, arguments)?;
    }
    Ok(())
}

fn repaired(lab: &Lab, narrative: &mut Narrative) {
    narrative.state("repaired", "the daemon goes on and repairs: ha reaches hb again", || {
        let started = Instant::now();
        loop {
            let (sent, answers, _) = crate::report::statements::ping(
                crate::lab::topology::HA,
                &["-c", "2"],
                "172.16.2.10",
            )?;
            let seconds = started.elapsed().as_secs_f32();
            if (answers == sent && sent > 0) || seconds > 60.0 {
                return Ok(Finding::new(
                    answers > 0,
                    format!("after {seconds:.0} s\n{}", lab.log_tail(G1, 3)),
                ));
            }
        }
    });
}

fn wan_moved(lab: &Lab, narrative: &mut Narrative, table: &[Row]) -> Result<()> {
    G1.ip("route replace default via 10.0.3.254")?;
    R.ip("route replace 172.16.1.0/24 via 10.0.3.1")?;
    // An agent that has to act on it has had its time.
    std::thread::sleep(Duration::from_secs(3));
    cells(lab, narrative, table, WAN_MOVED, " (to wan2)");
    G1.ip("route replace default via 10.0.1.254")?;
    R.ip("route replace 172.16.1.0/24 via 10.0.1.1")?;
    std::thread::sleep(Duration::from_secs(3));
    Ok(())
}

/// With `on-exit = "block"`: an end that is no restart would block.
fn restarted(lab: &mut Lab, narrative: &mut Narrative, table: &[Row]) -> Result<()> {
    lab.end_member_for_restart(0)?;
    cells(lab, narrative, table, RESTARTED, "");
    lab.start_member(0)?;
    registered(lab, narrative, "g1 runs again and is registered");
    Ok(())
}

fn killed(lab: &mut Lab, narrative: &mut Narrative, table: &[Row]) -> Result<()> {
    lab.kill_member(0)?;
    cells(lab, narrative, table, KILLED, "");
    G1.ip("xfrm state flush")?;
    cells_of(
        lab,
        narrative,
        KILLED,
        ", its keys removed by hand: what is left blocks",
        Promise::Blocked,
    );
    flush(&["nft flush ruleset", "ip xfrm policy flush"])?;
    cells(lab, narrative, table, BOTH_FLUSHED_ALONE, "");
    lab.start_member(0)?;
    registered(lab, narrative, "g1 runs again and is registered");
    Ok(())
}

/// The group's columns alone, with another promise than the table's.
pub(super) fn cells_of(
    lab: &Lab,
    narrative: &mut Narrative,
    state: &str,
    remark: &str,
    promise: Promise,
) {
    narrative.chapter(&format!("{state}{remark}"));
    let matrix = TrafficMatrix::send(lab);
    for (column, heading) in COLUMNS.into_iter().take(3) {
        narrative.state("cell", &format!("{heading}: {promise}"), || {
            let matrix = matrix.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            let (kept, seen) = matrix.keeps(column, promise);
            Ok(Finding::new(kept, seen))
        });
    }
}

fn stopped(lab: &mut Lab, narrative: &mut Narrative, table: &[Row]) -> Result<()> {
    for (state, on_exit) in
        [(STOPPED_BLOCK, "block"), (STOPPED_KEEP, "keep"), (STOPPED_REMOVE, "remove")]
    {
        if lab.plan.on_exit != on_exit {
            lab.plan.on_exit = on_exit;
            lab.start_member(0)?;
            registered(lab, narrative, "g1 is registered");
        }
        lab.stop_member(0)?;
        cells(lab, narrative, table, state, "");
    }
    Ok(())
}

/// The block unit, and then the daemon where it can run.
fn booted(lab: &mut Lab, narrative: &mut Narrative, table: &[Row]) -> Result<()> {
    for (state, boot) in [(BOOT_NO_UPLINK, Boot::WithoutUplink), (BOOT_BROKEN, Boot::Broken)] {
        boot::block_unit(lab, narrative, boot)?;
        boot::network(boot)?;
        if boot == Boot::WithoutUplink {
            cells(lab, narrative, table, state, " (no daemon yet)");
            lab.plan.first_local = "wan";
            lab.start_member(0)?;
        } else {
            lab.run_member(0, &[], true)?;
        }
        cells(lab, narrative, table, state, "");
        boot::uplink_comes(boot)?;
        lab.plan.first_local = "10.0.1.1";
        if boot == Boot::Broken {
            lab.start_member(0)?;
        }
        registered(lab, narrative, "g1 is registered");
    }
    Ok(())
}

/// Members pull only, and the server goes away: one key after the other ends.
fn ending(context: &Context, narrative: &mut Narrative, table: &[Row]) -> Result<()> {
    let service =
        Tek { lifetime_seconds: SHORT, lines: vec![PolicyLine::udp(SERVICE)], ..Tek::default() };
    let everything = Tek { lifetime_seconds: LONG, ..Tek::default() };
    let mut lab = context.build(Plan { teks: vec![service, everything], ..plan() })?;
    narrative.chapter("Keys that expire");
    narrative.say(&format!(
        "a key of {SHORT} s for UDP port {SERVICE}, one of {LONG} s for everything else"
    ));
    if bring_up(&mut lab, narrative)? {
        let started = Instant::now();
        lab.stop_server(0)?;
        cells(&lab, narrative, table, VALID, ", two of them");
        wait_states(&lab, 2, SHORT)?;
        cells(&lab, narrative, table, ONE_ENDED, "");
        narrative.say("g2's daemon is killed: the kernel has to expire its key");
        lab.kill_member(1)?;
        wait_until(Duration::from_secs(u64::from(LONG) + 15), "g1's last key has ended", || {
            Ok(lab.states(G1)?.is_empty())
        })?;
        cells(&lab, narrative, table, ALL_ENDED, "");
        narrative.state(
            "kernel-ends",
            "the kernel of g2, whose daemon is dead, expires the key by itself",
            || {
                let limit = Duration::from_secs(u64::from(LONG + KERNEL_GRACE) + 15);
                while !lab.states(G2)?.is_empty() && started.elapsed() < limit {
                    std::thread::sleep(Duration::from_millis(500));
                }
                let (left, seconds) = (lab.states(G2)?.len(), started.elapsed().as_secs());
                Ok(Finding::new(
                    left == 0,
                    format!("{left} states {seconds} s after the registration"),
                ))
            },
        );
        blocked(narrative, &lab, "then hb is blocked there", HB, &[], "172.16.1.10");
        let moment: Moment = lab.now()?;
        lab.guarded_from(moment);
    }
    only_intended(context, lab, narrative)
}

fn wait_states(lab: &Lab, count: usize, lifetime: u32) -> Result<()> {
    wait_until(
        Duration::from_secs(u64::from(lifetime) + 15),
        "one key has expired at both members",
        || Ok(lab.states(G1)?.len() == count && lab.states(G2)?.len() == count),
    )
}

pub(super) fn wait_until(
    limit: Duration,
    what: &str,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    while !holds()? {
        if started.elapsed() > limit {
            bail!("not so after {} s: {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenario_brings_about_every_state_of_the_table_and_no_other() {
        let rows = table::read(DOCUMENT).unwrap();
        let states: Vec<&str> = rows.iter().map(|row| row.state.as_str()).collect();
        assert_eq!(states, STATES);
    }
}
