//! A member loses its power while every key server is down: what it had sealed carries the group's
//! traffic on.

use super::boot::{self, Boot};
use super::{Context, bring_up, close, registered};
use crate::lab::Lab;
use crate::lab::plan::{Plan, Rekey};
use crate::lab::topology::{G1, G2, HA, HA_ADDRESS, HB, SERVERS};
use crate::observe::leak::from_member;
use crate::observe::pushes::{member_group, rekey, sending_spi, spis};
use crate::report::listed;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{answered, blocked, flow, nothing_clear};
use anyhow::Result;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(90);
const DATAGRAMS: u64 = 300;

/// One rekey, then the power goes, twice: once with the sealed state, once with a damaged one.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let rekey = Rekey { sealed: true, signing_key: "ecdsa-p256", ..Rekey::default() };
    let plan = Plan { rekey: Some(rekey), sealed_members: true, ..Plan::default() };
    let mut lab = context.build(plan)?;
    if bring_up(&mut lab, narrative)? {
        alone(&mut lab, narrative)?;
        narrative.chapter("The key server comes back");
        lab.start_server(0)?;
        narrative.state("registered", "g1 registers and says so", || {
            let started = Instant::now();
            loop {
                let group = member_group(&lab, G1)?;
                let state = group
                    .get("state")
                    .and_then(|state| state.as_str())
                    .unwrap_or("none")
                    .to_owned();
                if state == "registered" || started.elapsed() > WITHIN {
                    let evidence =
                        format!("{state} after {:.0} s", started.elapsed().as_secs_f32());
                    return Ok(Finding::new(state == "registered", evidence));
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        narrative.state("rekeyed", "the next rekey reaches both members", || {
            let spi = self::rekey(&lab, SERVERS[0], &[G1, G2], WITHIN)?;
            Ok(Finding::new(true, format!("SPI {spi:#010x}")))
        });
        answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
        damaged(&mut lab, narrative)?;
        boot::play(&mut lab, narrative, Boot::WithoutUplink)?;
        boot::play(&mut lab, narrative, Boot::Broken)?;
    }
    close(context, lab, narrative)
}

/// The keys come back and nothing passes in clear.
fn alone(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    let mut pushed = None;
    narrative.state("rekeyed", "a push has brought both members a new key", || {
        let spi = rekey(lab, SERVERS[0], &[G1, G2], WITHIN)?;
        pushed = Some(spi);
        Ok(Finding::new(true, format!("SPI {spi:#010x}")))
    });
    narrative.chapter("g1 loses power, and no key server answers when it comes up");
    lab.kill_server(0)?;
    lab.cut_power(0)?;
    narrative.state("empty", "g1's kernel holds neither state nor policy nor table", || {
        let left =
            [G1.ip("xfrm state")?, G1.ip("xfrm policy")?, G1.run("nft", &["list", "ruleset"])?];
        Ok(Finding::new(left.iter().all(|text| text.trim().is_empty()), ""))
    });
    let moment = lab.now()?;
    lab.start_member(0)?;
    narrative.state("resumed", "g1 sends on the key that it had", || {
        let spi = sending_spi(lab, G1)?;
        let log = lab.log_tail(G1, 20);
        let line = log.lines().find(|line| line.contains("source=\"sealed state\""));
        Ok(Finding::new(
            Some(spi) == pushed && line.is_some(),
            line.unwrap_or("its log does not say so"),
        ))
    });
    answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
    answered(narrative, "ping", "hb reaches ha", HB, &[], "172.16.1.10");
    let report = flow(lab, DATAGRAMS, "", |_| Ok(()));
    narrative.state("flow", &format!("{DATAGRAMS} datagrams from ha arrive at hb"), || {
        let report = report?;
        Ok(Finding::new(report.received == DATAGRAMS, report.to_string()))
    });
    narrative.state(
        "sequence",
        "the ESP of g1 starts again at sequence number 1, under the same SPI",
        || {
            let crossed = lab.core_since(moment)?;
            let sent =
                crossed.iter().filter(|one| from_member(one) && one.packet.source == HA_ADDRESS);
            let first = sent.filter_map(|one| one.packet.sequence()).min();
            let used = spis(&crossed, HA_ADDRESS);
            let evidence = format!(
                "first number {}, SPIs {}",
                listed(first),
                listed(used.iter().map(|spi| format!("{spi:#010x}")))
            );
            Ok(Finding::new(first == Some(1) && used.into_iter().eq(pushed), evidence))
        },
    );
    nothing_clear(narrative, lab, moment, "since g1's start members sent no clear packet");
    Ok(())
}

/// One octet of the file is another one.
fn damaged(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("g1 loses power again, and its sealed state is damaged");
    lab.kill_server(0)?;
    lab.cut_power(0)?;
    let path = lab.file("g1-state").join("gdoi-agent.sealed");
    let mut octets = std::fs::read(&path)?;
    let middle = octets.len() / 2;
    if let Some(octet) = octets.get_mut(middle) {
        *octet ^= 1;
    }
    std::fs::write(&path, octets)?;
    lab.start_member(0)?;
    narrative.state("refused", "g1 says so in one line and starts without keys", || {
        let log = lab.log_tail(G1, 20);
        let line = log.lines().find(|line| line.contains("event=\"sealed-state-refused\""));
        let keys = lab.outbound(G1)?.len();
        Ok(Finding::new(keys == 0 && line.is_some(), line.unwrap_or("not a word")))
    });
    blocked(narrative, lab, "ha cannot reach hb", HA, &[], "172.16.2.10");
    lab.start_server(0)?;
    registered(lab, narrative, "with the key server g1 has keys again");
    answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
    Ok(())
}
