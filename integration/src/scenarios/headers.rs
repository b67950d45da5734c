//! What the settings `df-bit` and `mss-clamp` do to headers on the wire, and that the DSCP is
//! copied (RFC 4301 §5.1.2.1).

use super::{Context, bring_up, close};
use crate::lab::Lab;
use crate::lab::plan::Plan;
use crate::lab::topology::{G1, G2, HA, HA_ADDRESS, HB, HB_ADDRESS, R};
use crate::observe::capture::Captured;
use crate::observe::leak::from_member;
use crate::observe::packet::{ESP, ICMP, word};
use crate::report::listed;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{answered, nothing_clear, ping, tcp};
use anyhow::Result;
use std::time::{Duration, Instant};

const FAR: &str = "172.16.2.10";
/// What a narrow link in the core lets through.
const NARROW: &str = "1300";
/// ICMP's "fragmentation needed" (RFC 792).
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
/// What a host on Ethernet announces.
const ETHERNET_SEGMENT: u16 = 1460;
/// ESP with AES-CBC and a 128-bit ICV leaves so much of 1,500 octets for the packet inside.
const INSIDE: u16 = 1438;

/// One setting after the other, changed by reloads.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let mut lab = context.build(Plan::default())?;
    if bring_up(&mut lab, narrative)? {
        let moment = lab.now()?;
        code_points(&lab, narrative);
        for setting in ["clear", "copy", "set"] {
            narrative.chapter(&format!("df-bit = \"{setting}\""));
            lab.change(|plan| plan.df_bit = setting)?;
            settle(&lab, narrative);
            outer_bits(&lab, narrative, setting);
            too_big_for_the_member(&lab, narrative);
            too_big_without_bit(&lab, narrative, setting);
            narrow_core(&lab, narrative, setting)?;
        }
        lab.change(|plan| plan.df_bit = "clear")?;
        settle(&lab, narrative);
        for (setting, most) in [("off", ETHERNET_SEGMENT), ("path", INSIDE - 40), ("1200", 1200)] {
            narrative.chapter(&format!("mss-clamp = \"{setting}\""));
            lab.change(|plan| plan.mss_clamp = setting)?;
            settle(&lab, narrative);
            segments(&lab, narrative, most)?;
        }
        nothing_clear(narrative, &lab, moment, "meanwhile members sent no clear packet");
    }
    close(context, lab, narrative)
}

/// A reload is over when traffic passes and the daemons have fallen silent.
fn settle(lab: &Lab, narrative: &mut Narrative) {
    narrative.state(
        "reloaded",
        "both members have reloaded their configuration, and ha reaches hb",
        || {
            std::thread::sleep(Duration::from_secs(3));
            let started = Instant::now();
            loop {
                let (sent, answers, _) = ping(HA, &["-c", "3"], FAR)?;
                for member in [G1, G2] {
                    let log = lab.log_tail(member, 6);
                    anyhow::ensure!(
                        !log.contains("event=\"reload-failed\""),
                        "{} refuses its file:\n{log}",
                        member.0
                    );
                }
                if answers == sent || started.elapsed() > Duration::from_secs(30) {
                    return Ok(Finding::new(
                        answers > 0,
                        format!("{sent} requests, {answers} answers"),
                    ));
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        },
    );
}

/// ESP of the first host, as its member sent it into the core.
fn esp_of_ha(crossed: &[Captured]) -> Vec<&Captured> {
    let of_ha =
        |captured: &&Captured| from_member(captured) && captured.packet.source == HA_ADDRESS;
    crossed.iter().filter(of_ha).filter(|captured| captured.packet.protocol == ESP).collect()
}

fn code_points(lab: &Lab, narrative: &mut Narrative) {
    narrative.chapter("DSCP");
    for (name, octet) in [("EF", 0xb8), ("AF11", 0x28), ("best effort", 0)] {
        narrative.state(
            "dscp",
            &format!("{name} of the clear packet is on the ESP packet and arrives at hb"),
            || {
                let moment = lab.now()?;
                ping(HA, &["-c", "3", "-Q", &octet.to_string()], FAR)?;
                let outer: Vec<u8> = esp_of_ha(&lab.core_since(moment)?)
                    .iter()
                    .map(|captured| captured.packet.dscp)
                    .collect();
                let arrived = lab.host_since(HB, moment)?;
                let inner: Vec<u8> = arrived
                    .iter()
                    .filter(|captured| !captured.outgoing && captured.packet.source == HA_ADDRESS)
                    .map(|captured| captured.packet.dscp)
                    .collect();
                let whole = outer.len() >= 3 && inner.len() >= 3;
                let same = outer.iter().chain(&inner).all(|dscp| *dscp == octet >> 2);
                Ok(Finding::new(
                    whole && same,
                    format!(
                        "DSCP {} sent, {} outside, {} at hb",
                        octet >> 2,
                        listed(&outer),
                        listed(&inner)
                    ),
                ))
            },
        );
    }
}

fn outer_bits(lab: &Lab, narrative: &mut Narrative, setting: &str) {
    for (inner, option) in [(true, "do"), (false, "dont")] {
        let outer = match setting {
            "clear" => false,
            "copy" => inner,
            _ => true,
        };
        let name = |set: bool| if set { "set" } else { "clear" };
        let text = format!("DF {} inside: DF {} outside", name(inner), name(outer));
        narrative.state("df-bit", &text, || {
            let moment = lab.now()?;
            let (sent, answers, _) = ping(HA, &["-c", "3", "-M", option], FAR)?;
            let crossed = lab.core_since(moment)?;
            let bits: Vec<bool> =
                esp_of_ha(&crossed).iter().map(|captured| captured.packet.dont_fragment).collect();
            let holds = bits.len() >= 3 && bits.iter().all(|bit| *bit == outer) && answers == sent;
            Ok(Finding::new(
                holds,
                format!(
                    "{sent} requests, {answers} answers; DF of the ESP packets: {}",
                    listed(bits.into_iter().map(name))
                ),
            ))
        });
    }
}

/// The member knows what ESP leaves of its uplink, whatever the setting.
fn too_big_for_the_member(lab: &Lab, narrative: &mut Narrative) {
    narrative.state(
        "path-mtu",
        "too big for ESP with DF: the member reports the MTU, and sends nothing",
        || {
            let moment = lab.now()?;
            let (_, answers, text) = ping(HA, &["-c", "2", "-M", "do", "-s", "1460"], FAR)?;
            let said = text
                .lines()
                .find(|line| line.contains("mtu"))
                .unwrap_or("no MTU in ping's output")
                .trim();
            let sent = esp_of_ha(&lab.core_since(moment)?).len();
            HA.ip("route flush cache")?;
            let holds = answers == 0 && sent == 0 && said.contains(&INSIDE.to_string());
            Ok(Finding::new(holds, format!("{said}; {sent} ESP packets")))
        },
    );
}

/// Without DF inside, ESP that is too big for the uplink is cut, unless DF outside forbids it.
fn too_big_without_bit(lab: &Lab, narrative: &mut Narrative, setting: &str) {
    let cut = setting != "set";
    let how = if cut { "ESP leaves in fragments" } else { "nothing leaves" };
    narrative.state("fragments", &format!("too big for ESP without DF: {how}"), || {
        let moment = lab.now()?;
        let (sent, answers, _) = ping(HA, &["-c", "2", "-M", "dont", "-s", "1460"], FAR)?;
        let crossed = lab.core_since(moment)?;
        let esp = esp_of_ha(&crossed);
        let parts = esp.iter().filter(|captured| captured.packet.is_fragment()).count();
        let evidence = format!(
            "{sent} requests, {answers} answers; {} ESP packets, {parts} of them fragments",
            esp.len()
        );
        let holds =
            if cut { answers == sent && parts >= 4 } else { answers == 0 && esp.is_empty() };
        Ok(Finding::new(holds, evidence))
    });
}

/// A link in the core that is narrower than the member's uplink.
fn narrow_core(lab: &Lab, narrative: &mut Narrative, setting: &str) -> Result<()> {
    R.ip(&format!("link set w2 mtu {NARROW}"))?;
    G2.ip(&format!("link set wan mtu {NARROW}"))?;
    std::thread::sleep(Duration::from_secs(3));
    for (inner, option) in [("set", "do"), ("clear", "dont")] {
        let fragments = setting == "clear" || (setting == "copy" && inner == "clear");
        let text = if fragments {
            format!(
                "a link of {NARROW} octets in the core, DF {inner} inside: ESP arrives in fragments"
            )
        } else {
            format!(
                "a link of {NARROW} octets in the core, DF {inner} inside: the core refuses ESP, the host cannot tell"
            )
        };
        narrative.state("narrow-core", &text, || {
            HA.ip("route flush cache")?;
            let moment = lab.now()?;
            // Small enough for the member's own uplink.
            let (sent, answers, _) = ping(HA, &["-c", "3", "-M", option, "-s", "1350"], FAR)?;
            let crossed = lab.core_since(moment)?;
            let leaving = |captured: &&Captured| captured.outgoing && captured.packet.source == HA_ADDRESS;
            let parts = crossed.iter().filter(leaving).filter(|captured| captured.packet.is_fragment()).count();
            let refusals = crossed
                .iter()
                .filter(|captured| captured.outgoing && captured.packet.protocol == ICMP)
                .filter(|captured| captured.packet.destination == HA_ADDRESS)
                .filter(|captured| captured.packet.payload.starts_with(&FRAGMENTATION_NEEDED))
                .collect::<Vec<_>>();
            let told: Vec<u16> = refusals.iter().filter_map(|refusal| word(&refusal.packet.payload, 6)).collect();
            let evidence =
                format!("{sent} requests, {answers} answers; {parts} fragments; MTU that the core names: {}", listed(told));
            let holds = if fragments {
                answers == sent && parts > 0 && refusals.is_empty()
            } else {
                answers == 0 && parts == 0 && !refusals.is_empty()
            };
            Ok(Finding::new(holds, evidence))
        });
    }
    R.ip("link set w2 mtu 1500")?;
    G2.ip("link set wan mtu 1500")?;
    HA.ip("route flush cache")?;
    std::thread::sleep(Duration::from_secs(3));
    Ok(())
}

fn segments(lab: &Lab, narrative: &mut Narrative, most: u16) -> Result<()> {
    let moment = lab.now()?;
    tcp(narrative, lab, HA, HB, 300_000);
    narrative.state("mss", &format!("each side hears of segments of {most} octets"), || {
        let heard = |host, from| -> Result<Vec<u16>> {
            let arrived = lab.host_since(host, moment)?;
            let from_there = arrived
                .iter()
                .filter(|captured| !captured.outgoing && captured.packet.source == from);
            Ok(from_there.filter_map(|captured| captured.packet.announced_segment()).collect())
        };
        let (at_hb, at_ha) = (heard(HB, HA_ADDRESS)?, heard(HA, HB_ADDRESS)?);
        let right =
            |heard: &[u16]| !heard.is_empty() && heard.iter().all(|segment| *segment == most);
        Ok(Finding::new(
            right(&at_hb) && right(&at_ha),
            format!("ha's SYN at hb: {}; hb's at ha: {}", listed(at_hb), listed(at_ha)),
        ))
    });
    if most < ETHERNET_SEGMENT {
        narrative.state(
            "mss-fits",
            "full segments fit into the uplink: no fragment, no ICMP of the member",
            || {
                let crossed = lab.core_since(moment)?;
                let parts = esp_of_ha(&crossed)
                    .iter()
                    .filter(|captured| captured.packet.is_fragment())
                    .count();
                let errors = lab
                    .host_since(HA, moment)?
                    .iter()
                    .filter(|captured| !captured.outgoing && captured.packet.protocol == ICMP)
                    .filter(|captured| captured.packet.payload.starts_with(&FRAGMENTATION_NEEDED))
                    .count();
                Ok(Finding::new(
                    parts == 0 && errors == 0,
                    format!("{parts} fragments, {errors} ICMP errors"),
                ))
            },
        );
    }
    answered(narrative, "ping", "ha reaches hb", HA, &[], FAR);
    Ok(())
}
