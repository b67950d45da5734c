//! ESP that a member cannot open: with the recovery probe on it asks the key server for the keys,
//! once in a while and without harm to those that it has.

use super::{Context, bring_up, close, registered};
use crate::lab::Lab;
use crate::lab::plan::Plan;
use crate::lab::topology::{G1, R};
use crate::observe::capture::Captured;
use crate::observe::leak::from_member;
use crate::observe::packet::{UDP, word};
use crate::observe::pushes::{member_group, sending_spi};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{flow_during, guard_drops, nothing_clear};
use anyhow::{Context as _, Result};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Packets of a burst: more than a few strays.
const BURST: u64 = 40;
const MEMBER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
/// The member looks at its counters every half minute, and spreads its question over some seconds.
const LOOKED: Duration = Duration::from_secs(42);
const UNKNOWN: u32 = 0x00ab_cdef;

/// What is wrong with the packets.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    Icv,
    Spi,
}

/// With the probe, for both reasons; then without it.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let mut lab = context.build(Plan { recovery_probe: true, ..Plan::default() })?;
    if bring_up(&mut lab, narrative)? {
        narrative.chapter("With the recovery probe: ESP with the group's SPI and a wrong ICV");
        burst(&mut lab, narrative, Wrong::Icv, "g1 asks once", 1)?;
        burst(&mut lab, narrative, Wrong::Icv, "again so soon: g1 asks nobody", 0)?;
        burst(
            &mut lab,
            narrative,
            Wrong::Spi,
            "for another reason, but too soon: g1 asks no server",
            0,
        )?;
        narrative.chapter("With the recovery probe: ESP with an unknown SPI");
        restart(&mut lab, narrative)?;
        burst(&mut lab, narrative, Wrong::Spi, "g1 asks once", 1)?;
        burst(&mut lab, narrative, Wrong::Spi, "again so soon: g1 asks nobody", 0)?;
        narrative.chapter("Without the recovery probe");
        lab.plan.recovery_probe = false;
        restart(&mut lab, narrative)?;
        burst(&mut lab, narrative, Wrong::Icv, "a wrong ICV: g1 asks nobody", 0)?;
        burst(&mut lab, narrative, Wrong::Spi, "an unknown SPI: g1 asks nobody", 0)?;
    }
    close(context, lab, narrative)
}

/// A daemon that has not asked yet.
fn restart(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    lab.stop_member(0)?;
    lab.start_member(0)?;
    registered(lab, narrative, "g1 has been restarted and is registered");
    Ok(())
}

fn pulls(lab: &Lab) -> Result<u64> {
    let group = member_group(lab, G1)?;
    let counters = group.get("counters").context("no counters")?;
    counters.get("pulls_succeeded").and_then(serde_json::Value::as_u64).context("no count of pulls")
}

/// Packets that the kernel could not authenticate, of all states.
fn integrity_failures() -> Result<u64> {
    let text = G1.ip("-s xfrm state")?;
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(words
        .windows(2)
        .filter(|pair| pair.first() == Some(&"failed"))
        .filter_map(|pair| pair.get(1)?.parse::<u64>().ok())
        .sum())
}

fn asks(captured: &Captured) -> bool {
    let packet = &captured.packet;
    from_member(captured)
        && packet.source == MEMBER
        && packet.protocol == UDP
        && word(&packet.payload, 2) == Some(848)
}

fn burst(
    lab: &mut Lab,
    narrative: &mut Narrative,
    wrong: Wrong,
    text: &str,
    expected: u64,
) -> Result<()> {
    let moment = lab.now()?;
    let (keys_before, pulls_before) = (lab.held_keys(G1)?, pulls(lab)?);
    let (failed_before, dropped_before) = (integrity_failures()?, guard_drops(G1)?);
    let spi = match wrong {
        Wrong::Icv => sending_spi(lab, G1)?,
        Wrong::Spi => UNKNOWN,
    };
    let report = flow_during(lab, |lab| {
        let started = Instant::now();
        let line = format!(
            "forge --source 172.16.2.10:0 --destination 172.16.1.10:0 --spi {spi} --count {BURST}"
        );
        lab.traffic(R, &line)?;
        std::thread::sleep(LOOKED.saturating_sub(started.elapsed()));
        Ok(())
    });
    narrative.state("probe", &format!("{BURST} packets; {text}; the keys stay, and no datagram is lost meanwhile"), || {
        let report = report?;
        let (failed, dropped) = (integrity_failures()?.saturating_sub(failed_before), guard_drops(G1)?.saturating_sub(dropped_before));
        let met = match wrong {
            Wrong::Icv => failed == BURST,
            Wrong::Spi => dropped >= BURST,
        };
        let pulls = pulls(lab)? - pulls_before;
        let datagrams = lab.core_since(moment)?.iter().filter(|captured| asks(captured)).count();
        let same = lab.held_keys(G1)? == keys_before;
        let evidence = format!(
            "{failed} failed the integrity check, {dropped} were dropped by the guard; {pulls} pulls, {datagrams} datagrams \
             to key servers; keys {}; {report}",
            if same { "unchanged" } else { "CHANGED" }
        );
        let whole = report.received == report.sent && report.sent > 0;
        let asked = pulls == expected && (datagrams > 0) == (expected > 0);
        Ok(Finding::new(met && asked && same && whole, evidence))
    });
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}
