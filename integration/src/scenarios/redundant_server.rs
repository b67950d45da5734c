//! Two key servers on three etcd servers: whatever of them fails, members lose no packet, and only
//! one key server ever speaks.

use super::{Context, bring_up, close};
use crate::lab::Lab;
use crate::lab::nodes::Node;
use crate::lab::peers::etcd::Etcd;
use crate::lab::plan::{Plan, Rekey};
use crate::lab::topology::{G1, G2, SERVERS, server_address};
use crate::observe::leak::from_member;
use crate::observe::packet::{UDP, word};
use crate::observe::pushes::{GROUP, rekey, sending_spi, wait_new_spi};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{flow_during, nothing_clear};
use anyhow::{Result, bail};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const MEMBERS: [Node; 2] = [G1, G2];
const WITHIN: Duration = Duration::from_secs(60);
/// The lease is 5 s; the rest is reading the state, on an emulated machine.
const TAKES_OVER_WITHIN: Duration = Duration::from_secs(30);
/// What a server says that cannot write: the scenario takes etcd's quorum away.
const EXPECTED: &[&str] = &["state not written"];

pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let rekey = Rekey { sealed: true, etcd: true, signing_key: "ecdsa-p256", ..Rekey::default() };
    let plan = Plan { rekey: Some(rekey), expected_errors: EXPECTED, ..Plan::default() };
    let mut lab = context.build(plan)?;
    let mut etcd = Etcd::start(&lab)?;
    if bring_up(&mut lab, narrative)? {
        lab.start_server(1)?;
        let moment = lab.now()?;
        narrative.say(&lab.show_text(SERVERS[1], &["server"])?);
        killed(&mut lab, narrative);
        killed_in_a_rekey(&mut lab, narrative);
        etcd_fails(&mut lab, &mut etcd, narrative)?;
        stopped(&mut lab, narrative);
        nothing_clear(narrative, &lab, moment, "through all of it members sent no clear packet");
    }
    close(context, lab, narrative)
}

fn server(position: usize) -> Node {
    SERVERS.get(position).copied().unwrap_or(SERVERS[0])
}

fn role(lab: &Lab, position: usize) -> Result<String> {
    let known = lab.show(server(position), &["server"], "redundancy")?;
    Ok(known.get("role").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// Waits until a server has a role; how long it took.
fn wait_role(lab: &Lab, position: usize, wanted: &str) -> Result<Duration> {
    let started = Instant::now();
    while role(lab, position).ok().as_deref() != Some(wanted) {
        if started.elapsed() > TAKES_OVER_WITHIN {
            let log = lab.log_tail(server(position), 12);
            let limit = TAKES_OVER_WITHIN.as_secs();
            bail!("{} is not {wanted} after {limit} s:\n{log}", server(position).0);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(started.elapsed())
}

/// States that traffic went on while something happened that took so long.
fn under_traffic(
    lab: &mut Lab,
    narrative: &mut Narrative,
    (name, text): (&'static str, &str),
    happens: impl FnOnce(&mut Lab) -> Result<String>,
) {
    let mut told = String::new();
    let report = flow_during(lab, |lab| {
        std::thread::sleep(Duration::from_secs(1));
        told = happens(lab)?;
        Ok(())
    });
    narrative.state(name, text, || {
        let report = report?;
        let whole = report.received == report.sent && report.sent > 0;
        Ok(Finding::new(whole, format!("{told}; {report}")))
    });
}

fn killed(lab: &mut Lab, narrative: &mut Narrative) {
    narrative.chapter("The active key server is killed");
    let text = "the standby takes over and rekeys the group; no packet is lost";
    under_traffic(lab, narrative, ("fail-over", text), |lab| {
        lab.kill_server(0)?;
        let took = wait_role(lab, 1, "active")?;
        let spi = rekey(lab, SERVERS[1], &MEMBERS, WITHIN)?;
        lab.start_server(0)?;
        wait_role(lab, 0, "standby")?;
        Ok(format!("active after {:.1} s; SPI {spi:#010x}", took.as_secs_f32()))
    });
}

fn killed_in_a_rekey(lab: &mut Lab, narrative: &mut Narrative) {
    narrative.chapter("The active key server is killed in the middle of a rekey");
    let text = "the standby takes over, both members come to the new key; no packet is lost";
    under_traffic(lab, narrative, ("fail-over-rekey", text), |lab| {
        let before = sending_spi(lab, G1)?;
        lab.gdoictl(SERVERS[1], &["rekey", GROUP])?;
        lab.kill_server(1)?;
        let took = wait_role(lab, 0, "active")?;
        let first = wait_new_spi(lab, &MEMBERS, before, WITHIN)?;
        let second = rekey(lab, SERVERS[0], &MEMBERS, WITHIN)?;
        lab.start_server(1)?;
        wait_role(lab, 1, "standby")?;
        let took = took.as_secs_f32();
        Ok(format!("active after {took:.1} s; SPIs {first:#010x}, then {second:#010x}"))
    });
}

fn etcd_fails(lab: &mut Lab, etcd: &mut Etcd, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("Servers of etcd are killed");
    let text = "one of three etcd servers is killed: the group is rekeyed as ever";
    under_traffic(lab, narrative, ("one-etcd", text), |lab| {
        etcd.kill(2)?;
        let spi = rekey(lab, SERVERS[0], &MEMBERS, WITHIN)?;
        Ok(format!("SPI {spi:#010x}"))
    });
    let text = "a second one is killed: the key server says so and sends nothing, members go on";
    under_traffic(lab, narrative, ("no-quorum", text), |lab| {
        etcd.kill(1)?;
        let problem = problem(lab, 0)?;
        let moment = lab.now()?;
        let refused = lab.gdoictl(SERVERS[0], &["rekey", GROUP]).is_err();
        std::thread::sleep(Duration::from_secs(10));
        let sent = sent_by(lab, 0, moment)?;
        if !refused || sent > 0 {
            bail!("the command was refused: {refused}; {sent} datagrams left");
        }
        Ok(problem)
    });
    let text = "etcd is whole again: what waited reaches both members";
    let before = sending_spi(lab, G1)?;
    under_traffic(lab, narrative, ("quorum-back", text), |lab| {
        etcd.start_one(lab, 1)?;
        etcd.start_one(lab, 2)?;
        etcd.wait()?;
        let spi = wait_new_spi(lab, &MEMBERS, before, WITHIN)?;
        Ok(format!("SPI {spi:#010x}"))
    });
    Ok(())
}

fn problem(lab: &Lab, position: usize) -> Result<String> {
    let started = Instant::now();
    loop {
        let known = lab.show(server(position), &["server"], "redundancy")?;
        if let Some(problem) = known.get("problem").and_then(Value::as_str) {
            return Ok(problem.to_owned());
        }
        if started.elapsed() > TAKES_OVER_WITHIN {
            bail!("no problem is shown");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Datagrams of GDOI that a server sent since a moment.
fn sent_by(lab: &Lab, position: usize, moment: crate::lab::Moment) -> Result<usize> {
    let address: Ipv4Addr = server_address(position).parse()?;
    let crossed = lab.core_since(moment)?;
    let is_its = crossed.iter().filter(|captured| {
        let packet = &captured.packet;
        let is_gdoi = packet.protocol == UDP && word(&packet.payload, 0) == Some(848);
        !from_member(captured) && !captured.outgoing && packet.source == address && is_gdoi
    });
    Ok(is_its.count())
}

fn stopped(lab: &mut Lab, narrative: &mut Narrative) {
    narrative.chapter("The active key server is stopped, and goes on later");
    let text = "the other one takes over; the one that goes on sends nothing and becomes standby";
    under_traffic(lab, narrative, ("stopped", text), |lab| {
        let old = match role(lab, 0)?.as_str() {
            "active" => 0,
            _ => 1,
        };
        let new = 1 - old;
        // Copies of this push are due while it is stopped.
        lab.gdoictl(server(old), &["rekey", GROUP])?;
        lab.server(old)?.freeze()?;
        let moment = lab.now()?;
        let took = wait_role(lab, new, "active")?;
        let spi = rekey(lab, server(new), &MEMBERS, WITHIN)?;
        lab.server(old)?.thaw()?;
        wait_role(lab, old, "standby")?;
        std::thread::sleep(Duration::from_secs(5));
        let sent = sent_by(lab, old, moment)?;
        if sent > 0 {
            bail!("the old one sent {sent} datagrams");
        }
        Ok(format!(
            "active after {:.1} s; SPI {spi:#010x}; 0 datagrams of the old one",
            took.as_secs_f32()
        ))
    });
}
