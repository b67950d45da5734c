//! Keys roll by pushes (RFC 6407 §4) under load: nothing is lost, nothing leaves in clear, and what
//! is forged, replayed or late changes nothing.

use super::{Context, bring_up, close};
use crate::lab::Lab;
use crate::lab::nodes::Node;
use crate::lab::plan::{MULTICAST, Plan, Rekey};
use crate::lab::topology::{G1, G2, HA, HA_ADDRESS, HB_ADDRESS, R, SERVERS, server_address};
use crate::observe::pushes::{
    GROUP, forge, member_group, push_of, pushes_to, receiving_spis, rekey, sending_spi,
    server_rekey, spis, wait_new_spi,
};
use crate::report::listed;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{answered, flow, nothing_clear};
use crate::traffic::load::{highest_rate, load};
use anyhow::{Context as _, Result};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

const FAR: &str = "172.16.2.10";
/// A push, its copies and the activation delay are over within this time.
const WITHIN: Duration = Duration::from_secs(30);
/// A rekey that takes longer is shown with the daemons' logs.
const SLOW: Duration = Duration::from_secs(10);
const MEMBERS: [Node; 2] = [G1, G2];

/// Twenty rekeys, and what must not disturb them.
pub(super) fn short(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let rekey = Rekey { lifetime_seconds: 180, ..Rekey::default() };
    let mut lab = context.build(Plan { rekey: Some(rekey), ..Plan::default() })?;
    if bring_up(&mut lab, narrative)? {
        let kek = kek_spi(&lab, G1)?;
        rekeys_under_load(&mut lab, narrative, 20)?;
        forgeries(&lab, narrative)?;
        clock_steps(&mut lab, narrative)?;
        kek_rolls(&lab, narrative, &kek);
    }
    close(context, lab, narrative)
}

pub(super) fn long(context: &Context, narrative: &mut Narrative) -> Result<()> {
    // Short delays keep two hundred rekeys within a quarter of an hour; build with optimisation, or
    // the members come late.
    let rekey = Rekey {
        activation_seconds: 1,
        deactivation_seconds: 2,
        retransmissions: 0,
        ..Rekey::default()
    };
    let plan = Plan { rekey: Some(rekey), headers_only: true, ..Plan::default() };
    let mut lab = context.build(plan)?;
    if bring_up(&mut lab, narrative)? {
        rekeys_under_load(&mut lab, narrative, 200)?;
    }
    close(context, lab, narrative)
}

/// Five rekeys to a multicast address, signed with ECDSA.
pub(super) fn multicast(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let rekey = Rekey { multicast: true, signing_key: "ecdsa-p256", ..Rekey::default() };
    let mut lab = context.build(Plan { rekey: Some(rekey), ..Plan::default() })?;
    multicast_everywhere()?;
    let moment = lab.now()?;
    if bring_up(&mut lab, narrative)? {
        narrative.state(
            "joined",
            "both members report the multicast group on their uplinks (IGMP)",
            || {
                let reports = lab.core_since(moment)?;
                let of = |address: Ipv4Addr| {
                    reports
                        .iter()
                        .filter(|captured| {
                            captured.packet.protocol == 2 && captured.packet.source == address
                        })
                        .count()
                };
                let (first, second) =
                    (of(Ipv4Addr::new(10, 0, 1, 1)), of(Ipv4Addr::new(10, 0, 2, 1)));
                Ok(Finding::new(
                    first > 0 && second > 0,
                    format!("{first} reports of g1, {second} of g2"),
                ))
            },
        );
        rekeys_under_load(&mut lab, narrative, 5)?;
        narrative.state("multicast", "the pushes went to the multicast address and to no member's own", || {
            let crossed = lab.core_since(moment)?;
            let to = |address: Ipv4Addr| pushes_to(&crossed, address).len();
            let all = crossed.iter().filter(|captured| !captured.outgoing).filter_map(push_of).count();
            let [group, first, second] =
                [MULTICAST.parse()?, Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::new(10, 0, 2, 1)].map(to);
            let evidence =
                format!("{group} different pushes to {MULTICAST}, {first} to g1, {second} to g2; {all} copies");
            Ok(Finding::new(group >= 5 && first == 0 && second == 0, evidence))
        });
    }
    close(context, lab, narrative)
}

/// The core's multicast routing, without anybody who listens to IGMP: every copy goes everywhere.
pub(super) fn multicast_everywhere() -> Result<()> {
    R.nft(&format!(
        "table netdev core {{ chain pushes {{ type filter hook ingress device k1 priority 0;
            ip daddr {MULTICAST} dup to w1; ip daddr {MULTICAST} dup to w2; }}; }}"
    ))
}

fn kek_spi(lab: &Lab, member: Node) -> Result<String> {
    let group = member_group(lab, member)?;
    let spi = group.pointer("/kek/spi").and_then(|spi| spi.as_str());
    spi.map(str::to_owned).with_context(|| format!("{} holds no KEK: {group}", member.0))
}

fn rekeys_under_load(lab: &mut Lab, narrative: &mut Narrative, count: u32) -> Result<()> {
    narrative.chapter(&format!("{count} rekeys under load"));
    narrative.say("the load that this machine carries while no key changes:");
    let (rate, told) = highest_rate(lab, 4)?;
    narrative.show("rates", &told);
    let moment = lab.now()?;
    let first = sending_spi(lab, G1)?;
    let mut seen = vec![first];
    let mut took: Vec<Duration> = Vec::new();
    let mut slow = None;
    // Each one waits for its predecessor, deactivation included.
    let plan = lab.plan.rekey.clone().unwrap_or_default();
    let pause = Duration::from_secs(u64::from(plan.deactivation_seconds));
    let seconds = u64::from(count) * (pause.as_secs() + 2) + 5;
    let report = load(lab, rate, seconds, |lab| {
        let started = Instant::now();
        std::thread::sleep(Duration::from_secs(1));
        for _ in 0..count {
            let begun = Instant::now();
            seen.push(rekey(lab, SERVERS[0], &MEMBERS, WITHIN)?);
            took.push(begun.elapsed());
            if slow.is_none() && begun.elapsed() > SLOW {
                slow = Some(
                    [G1, G2, SERVERS[0]]
                        .map(|node| format!("{}\n{}", node.0, lab.log_tail(node, 12)))
                        .join("\n"),
                );
            }
            std::thread::sleep((pause + Duration::from_secs(1)).saturating_sub(begun.elapsed()));
            if started.elapsed().as_secs() > seconds + 60 {
                anyhow::bail!(
                    "the rekeys take longer than the load: {} of {count}",
                    seen.len() - 1
                );
            }
        }
        Ok(())
    });
    let crossed = lab.core_since(moment)?;
    let text = format!("{count} pushes, {count} new SPIs, each one on the wire from both members");
    narrative.state("rekeyed", &text, || {
        let distinct: std::collections::BTreeSet<u32> = seen.iter().copied().collect();
        let (near, far) = (spis(&crossed, HA_ADDRESS), spis(&crossed, HB_ADDRESS));
        let took: Vec<String> =
            took.iter().map(|took| format!("{:.1}", took.as_secs_f32())).collect();
        let evidence = format!(
            "{} SPIs by the members' kernels, {} on the wire from g1, {} from g2\n\
             seconds from the command to sending, activation delay included: {}\n{}",
            distinct.len(),
            near.len(),
            far.len(),
            took.join(" "),
            slow.map(|logs| format!("after a slow one:\n{logs}")).unwrap_or_default()
        );
        let wanted = count as usize + 1;
        Ok(Finding::new([distinct.len(), near.len(), far.len()] == [wanted; 3], evidence))
    });
    let text =
        format!("{rate} datagrams a second each way and a TCP transfer meanwhile, nothing lost");
    narrative.state("load", &text, || {
        let report = report?;
        let whole = report.is_whole();
        let tails = || {
            [G1, G2, SERVERS[0]]
                .map(|node| format!("{}\n{}", node.0, lab.log_tail(node, 60)))
                .join("\n")
        };
        let logs =
            if whole { String::new() } else { format!("\nthe daemons' logs end:\n{}", tails()) };
        Ok(Finding::new(whole, format!("{report}{logs}")))
    });
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    narrative.state("acknowledged", "the server has every acknowledgement", || {
        let figures = server_rekey(lab, SERVERS[0])?;
        let number =
            |name: &str| figures.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let (pushes, acknowledgements) = (number("pushes"), number("acknowledgements"));
        Ok(Finding::new(
            acknowledgements == pushes * 2 && pushes >= u64::from(count),
            figures.to_string(),
        ))
    });
    Ok(())
}

/// What somebody on the path can send without the KEK and the signing key: copies, whole or
/// damaged.
fn forgeries(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("Forged, replayed and duplicated pushes");
    let (server, member) = (server_address(0), "10.0.2.1");
    let moment = lab.now()?;
    rekey(lab, SERVERS[0], &MEMBERS, WITHIN)?;
    rekey(lab, SERVERS[0], &MEMBERS, WITHIN)?;
    std::thread::sleep(Duration::from_secs(5));
    let pushes = pushes_to(&lab.core_since(moment)?, member.parse()?);
    let [old, .., latest] = pushes.as_slice() else {
        anyhow::bail!("{} pushes captured", pushes.len())
    };
    changes_nothing(lab, narrative, "an exact copy of the latest push", || {
        forge(lab, &server, member, latest)
    });
    changes_nothing(lab, narrative, "an older push under the same KEK", || {
        forge(lab, &server, member, old)
    });
    changes_nothing(lab, narrative, "a push under a KEK that nobody has", || {
        let mut message = latest.clone();
        message.iter_mut().take(16).for_each(|octet| *octet ^= 0x5a);
        forge(lab, &server, member, &message)
    });
    changes_nothing(lab, narrative, "a push cut in half", || {
        forge(lab, &server, member, latest.get(..latest.len() / 2).unwrap_or_default())
    });
    unseen_and_damaged(lab, narrative, &server, member)
}

/// The signature stands last: a damaged end decrypts, is well-formed and fresh, and only then fails
/// to verify.
fn unseen_and_damaged(
    lab: &Lab,
    narrative: &mut Narrative,
    server: &str,
    member: &str,
) -> Result<()> {
    R.nft(&format!(
        "table ip core {{ chain forward {{ type filter hook forward priority 0;
            ip saddr {server} ip daddr {member} udp sport 848 counter drop; }}; }}"
    ))?;
    let before = sending_spi(lab, G1)?;
    let moment = lab.now()?;
    lab.gdoictl(SERVERS[0], &["rekey", GROUP])?;
    std::thread::sleep(Duration::from_secs(1));
    let pushes = pushes_to(&lab.core_since(moment)?, member.parse()?);
    let push = pushes.last().context("no push was captured")?;
    changes_nothing(
        lab,
        narrative,
        "a push that g2 has not seen yet, with a damaged signature",
        || {
            let mut message = push.clone();
            let place = message.len().checked_sub(100).context("a short push")?;
            if let Some(octet) = message.get_mut(place) {
                *octet ^= 1;
            }
            forge(lab, server, member, &message)
        },
    );
    R.run("nft", &["delete", "table", "ip", "core"])?;
    narrative.state("late", "a late copy of it, whole, brings g2 the keys", || {
        // On a slow machine the server's own copies may be over by now.
        forge(lab, server, member, push)?;
        let spi = wait_new_spi(lab, &MEMBERS, before, WITHIN)?;
        Ok(Finding::new(true, format!("SPI {spi:#010x}")))
    });
    answered(narrative, "ping", "ha reaches hb", HA, &[], FAR);
    Ok(())
}

fn changes_nothing(
    lab: &Lab,
    narrative: &mut Narrative,
    what: &str,
    send: impl FnOnce() -> Result<()>,
) {
    narrative.state("forged-push", &format!("{what} changes nothing at g2"), || {
        let view =
            |lab: &Lab| Ok::<_, anyhow::Error>((receiving_spis(lab, G2)?, sending_spi(lab, G2)?));
        let before = view(lab)?;
        send()?;
        std::thread::sleep(Duration::from_millis(1500));
        let after = view(lab)?;
        let group = member_group(lab, G2)?;
        let counted = group.get("push_discards").map(ToString::to_string).unwrap_or_default();
        Ok(Finding::new(
            before == after,
            format!("sends with SPI {:#010x}; pushes discarded: {counted}", after.1),
        ))
    });
}

/// Deadlines run on the boot-time clock. Only where the machine is ours to throw away.
fn clock_steps(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("Steps of the wall clock");
    if std::env::var_os("LAB_MACHINE").is_none() {
        narrative
            .say("left out: this is not the throw-away machine, and its clock must not be changed");
        return Ok(());
    }
    for step in ["+40 days", "-80 days", "+40 days"] {
        let moment = lab.now()?;
        let report = flow(lab, 300, "", |lab| {
            std::thread::sleep(Duration::from_millis(500));
            let status = Command::new("date")
                .args(["-s", step])
                .stdout(std::process::Stdio::null())
                .status()?;
            anyhow::ensure!(status.success(), "date -s '{step}' failed");
            rekey(lab, SERVERS[0], &MEMBERS, WITHIN).map(drop)
        });
        narrative.state(
            "clock",
            &format!("the clock steps by {step} and the keys roll, 300 datagrams, none lost"),
            || {
                let report = report?;
                Ok(Finding::new(report.received == 300, report.to_string()))
            },
        );
        nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    }
    Ok(())
}

fn kek_rolls(lab: &Lab, narrative: &mut Narrative, first: &str) {
    narrative.chapter("The KEK rolls");
    let limit =
        Duration::from_secs(u64::from(lab.plan.rekey.clone().unwrap_or_default().lifetime_seconds));
    narrative.state("kek", "both members have followed the server to another KEK", || {
        let started = Instant::now();
        loop {
            let (near, far) = (kek_spi(lab, G1)?, kek_spi(lab, G2)?);
            let server = server_rekey(lab, SERVERS[0])?
                .pointer("/kek/spi")
                .and_then(|spi| spi.as_str().map(str::to_owned));
            if near == far && near != first && server.as_ref() == Some(&near) {
                return Ok(Finding::new(true, format!("from {first} to {near}")));
            }
            if started.elapsed() > limit {
                return Ok(Finding::new(
                    false,
                    format!("at first {first}; g1 {near}, g2 {far}, server {}", listed(server)),
                ));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    answered(narrative, "ping", "ha reaches hb", HA, &[], FAR);
}
