//! One of three members is removed and cannot follow, although it goes on listening (RFC 6407
//! §7.4).

use super::{Context, close, registered};
use crate::lab::Lab;
use crate::lab::plan::{Plan, Rekey};
use crate::lab::topology::{G1, G2, G3, HA, HA_ADDRESS, HC_ADDRESS, SERVERS};
use crate::observe::esp;
use crate::observe::leak::from_member;
use crate::observe::packet::reassemble;
use crate::observe::pushes::{
    GROUP, member_group, receiving_spis, sending_spi, spis_text, wait_new_spi,
};
use crate::observe::states::State;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{answered, flow, nothing_clear, ping};
use anyhow::Result;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(90);

/// With a key hierarchy, by one push; without one, by deleting everything and pulls that refuse it.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    removal(context, narrative, true)?;
    removal(context, narrative, false)
}

fn removal(context: &Context, narrative: &mut Narrative, key_hierarchy: bool) -> Result<()> {
    let how = if key_hierarchy { "by the key hierarchy" } else { "by delete and a new pull" };
    narrative.chapter(&format!("One of three members is removed {how}"));
    let rekey = Rekey { key_hierarchy, ..Rekey::default() };
    let mut lab =
        context.build(Plan { rekey: Some(rekey), third_branch: true, ..Plan::default() })?;
    lab.start_server(0)?;
    for position in 0..3 {
        lab.start_member(position)?;
    }
    if registered(&lab, narrative, "all three members are registered") {
        let far = HC_ADDRESS.to_string();
        answered(narrative, "ping", "ha reaches hc", HA, &[], &far);
        remove(&mut lab, narrative, key_hierarchy)?;
        lab.gdoictl(SERVERS[0], &["admit", GROUP, "g3"])?;
        let _ = lab.gdoictl(G3, &["register", GROUP]);
        narrative.state(
            "admitted",
            "admitted again, g3 has the others' key and hc answers",
            || {
                let started = std::time::Instant::now();
                loop {
                    let (sent, answers, _) = ping(HA, &["-c", "2"], &far)?;
                    if answers == sent || started.elapsed() > WITHIN {
                        return Ok(Finding::new(
                            answers > 0,
                            format!("after {:.0} s", started.elapsed().as_secs_f32()),
                        ));
                    }
                }
            },
        );
    }
    close(context, lab, narrative)
}

fn remove(lab: &mut Lab, narrative: &mut Narrative, key_hierarchy: bool) -> Result<()> {
    let known = lab.states(G3)?;
    let before = sending_spi(lab, G1)?;
    let moment = lab.now()?;
    let mut after = 0;
    // Without a hierarchy everybody has to pull first.
    let datagrams = if key_hierarchy { 800 } else { 2500 };
    let report = flow(lab, datagrams, "", |lab| {
        lab.gdoictl(SERVERS[0], &["remove", GROUP, "g3"])?;
        after = wait_new_spi(lab, &[G1, G2], before, WITHIN)?;
        Ok(())
    });
    narrative.state("removed", "g1 and g2 go on with a new key", || {
        let report = report?;
        let whole = report.received == datagrams || !key_hierarchy;
        Ok(Finding::new(
            whole && report.last == datagrams - 1,
            format!("SPI {after:#010x}; {report}"),
        ))
    });
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    narrative.state(
        "excluded",
        "g3 sees the others' packets pass and has no key that opens one",
        || {
            let moment = lab.now()?;
            ping(HA, &["-c", "5"], "172.16.2.10")?;
            let crossed = lab.core_since(moment)?;
            let sent = crossed
                .iter()
                .filter(|captured| from_member(captured) && captured.packet.source == HA_ADDRESS);
            let whole = reassemble(sent.map(|captured| &captured.packet));
            let mut keys: Vec<State> = known;
            keys.extend(lab.states(G3)?);
            let mut opened = 0;
            for packet in &whole {
                // Whatever SPI it goes by.
                let spi = packet.spi().unwrap_or(0);
                opened += keys
                    .iter()
                    .filter(|key| esp::open(packet, &State { spi, ..(*key).clone() }).is_ok())
                    .count();
            }
            let held = receiving_spis(lab, G3)?;
            let evidence = format!(
                "{} packets, {} keys that g3 has had, {opened} opened; it receives on {}",
                whole.len(),
                keys.len(),
                spis_text(&held)
            );
            Ok(Finding::new(
                whole.len() >= 5 && !keys.is_empty() && opened == 0 && !held.contains(&after),
                evidence,
            ))
        },
    );
    narrative.state("refused", "its new registration is refused", || {
        let _ = lab.gdoictl(G3, &["register", GROUP]);
        std::thread::sleep(Duration::from_secs(15));
        let held = receiving_spis(lab, G3)?;
        let passed =
            member_group(lab, G3)?.get("history").map(ToString::to_string).unwrap_or_default();
        let (_, answers, _) = ping(HA, &["-c", "3"], &HC_ADDRESS.to_string())?;
        Ok(Finding::new(
            !held.contains(&after) && answers == 0,
            format!("{answers} answers; {passed}"),
        ))
    });
    Ok(())
}
