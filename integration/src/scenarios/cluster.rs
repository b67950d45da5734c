//! A cluster: a root server that no member knows, two sub-servers, a member at each of them.
//! Servers come and go under traffic, and no packet is lost or leaves in clear.

use super::{Context, close, registered};
use crate::lab::Lab;
use crate::lab::plan::{Cluster, Plan, Rekey};
use crate::lab::topology::{G1, G2, HA, R, SERVERS, server_address};
use crate::observe::pushes::{GROUP, push_of, pushes_to, rekey, sending_spi, wait_new_spi};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{answered, flow_during, nothing_clear};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(90);
const ACTIVATION: Duration = Duration::from_secs(8);
const MEMBERS: [crate::lab::nodes::Node; 2] = [G1, G2];
/// When the root is killed after the command to rekey, in milliseconds: before and while its
/// sub-servers are told, and behind that.
const KILLED_AFTER: [u64; 4] = [0, 20, 60, 400];

pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let rekey = Rekey {
        sealed: true,
        signing_key: "ecdsa-p256",
        activation_seconds: ACTIVATION.as_secs() as u32,
        deactivation_seconds: 20,
        ..Rekey::default()
    };
    let plan = Plan { rekey: Some(rekey), cluster: Some(Cluster::OF_TWO), ..Plan::default() };
    let mut lab = context.build(plan)?;
    narrative.chapter("A sub-server first, then the members, the root, the other sub-server");
    lab.start_server(2)?;
    lab.start_member(0)?;
    lab.start_member(1)?;
    lab.start_server(0)?;
    lab.start_server(1)?;
    if registered(&lab, narrative, "both members are registered") && in_step(&lab, narrative) {
        narrative.show("cluster", &lab.show_text(SERVERS[0], &["server", "cluster", "detail"])?);
        relayed(&mut lab, narrative)?;
        update_lost(&mut lab, narrative)?;
        narrative.chapter("The root is killed during a rekey and comes back");
        for milliseconds in KILLED_AFTER {
            root_killed(&mut lab, narrative, milliseconds)?;
        }
        root_away(&mut lab, narrative)?;
        sub_server_dies(&mut lab, narrative)?;
    }
    close(context, lab, narrative)
}

/// Waits until all servers that run hold the root's version and know each other as active.
pub(super) fn wait_in_step(lab: &Lab, positions: &[usize]) -> Result<String> {
    let started = Instant::now();
    loop {
        let mut views = Vec::new();
        for position in positions {
            let Some(server) = SERVERS.get(*position) else { continue };
            views.push((server.0, lab.show(*server, &["server", "cluster"], "groups")?));
        }
        let of = |view: &Value, path: &str| view.pointer(path).cloned().unwrap_or_default();
        let versions: std::collections::BTreeSet<String> =
            views.iter().map(|(_, view)| of(view, "/0/version").to_string()).collect();
        let committed = views.iter().all(|(_, view)| of(view, "/0/stage") == "committed");
        let active = views.iter().all(|(_, view)| {
            let peers = of(view, "/0/peers");
            let peers = peers.as_array().into_iter().flatten();
            let met = peers.filter(|peer| {
                let name = of(peer, "/name");
                positions.iter().any(|one| SERVERS.get(*one).is_some_and(|node| name == node.0))
            });
            met.clone().count() > 0 && met.clone().all(|peer| of(peer, "/status") == "active")
        });
        let version = versions.first().cloned().unwrap_or_default();
        if versions.len() == 1 && committed && active {
            let seconds = started.elapsed().as_secs_f32();
            return Ok(format!("version {version} everywhere after {seconds:.1} s"));
        }
        if started.elapsed() > WITHIN {
            let views: Vec<String> =
                views.iter().map(|(name, view)| format!("{name}: {view}")).collect();
            bail!("not in step: {}", views.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn in_step(lab: &Lab, narrative: &mut Narrative) -> bool {
    narrative.state(
        "in-step",
        "all three servers have one version, and are active to each other",
        || Ok(Finding::new(true, wait_in_step(lab, &[0, 1, 2])?)),
    )
}

fn relayed(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("The root rekeys; its sub-servers relay");
    let moment = lab.now()?;
    let mut spi = 0;
    let report = flow_during(lab, |lab| {
        spi = rekey(lab, SERVERS[0], &MEMBERS, WITHIN)?;
        Ok(())
    });
    narrative.state(
        "rekeyed",
        "members of both sub-servers have the root's new key, nothing lost",
        || {
            let report = report?;
            Ok(Finding::new(report.received == report.sent, format!("SPI {spi:#010x}; {report}")))
        },
    );
    narrative.state(
        "one-push",
        "both sub-servers sent the very same octets, the root none",
        || {
            let crossed = lab.core_since(moment)?;
            let to = |octets: [u8; 4]| pushes_to(&crossed, Ipv4Addr::from(octets));
            let (first, second) = (to([10, 0, 1, 1]), to([10, 0, 2, 1]));
            let root: Ipv4Addr = server_address(0).parse()?;
            let own = crossed.iter().filter(|captured| {
                captured.packet.source == root
                    && [[10, 0, 1, 1], [10, 0, 2, 1]]
                        .map(Ipv4Addr::from)
                        .contains(&captured.packet.destination)
            });
            let own = own.count();
            let same = first == second && !first.is_empty();
            let evidence = format!(
                "{} different pushes to g1, {} to g2, {own} packets of the root to members",
                first.len(),
                second.len()
            );
            Ok(Finding::new(same && own == 0, evidence))
        },
    );
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

/// Half of what the servers say to each other is lost: updates and acknowledgements alike. Where a
/// commit is lost for longer than the activation delay, members of one sub-server send with the new
/// key before those of the other have it.
fn update_lost(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("Updates and acknowledgements between the servers get lost");
    let moment = lab.now()?;
    let root = server_address(0);
    let table = format!(
        "table ip loss {{ chain forward {{ type filter hook forward priority 0; \
         ip daddr {root} udp dport 848 numgen random mod 2 0 drop; \
         ip saddr {root} udp dport 848 numgen random mod 2 0 drop; }}; }}"
    );
    let mut spi = 0;
    let report = flow_during(lab, |lab| {
        R.nft(&table)?;
        let rolled = rekey(lab, SERVERS[0], &MEMBERS, WITHIN);
        R.nft("delete table ip loss")?;
        spi = rolled?;
        Ok(())
    });
    narrative.state(
        "update-lost",
        "the members switch all the same, and nothing is lost if their pushes left within the activation delay",
        || {
            let report = report?;
            let step = wait_in_step(lab, &[0, 1, 2])?;
            let crossed = lab.core_since(moment)?;
            let first = |to: [u8; 4]| {
                let mut sent = crossed.iter().filter(|one| one.packet.destination == Ipv4Addr::from(to));
                sent.find(|one| push_of(one).is_some()).map(|one| one.time)
            };
            let (one, other) = (first([10, 0, 1, 1]), first([10, 0, 2, 1]));
            let apart = one.zip(other).map(|(one, other)| one.abs_diff(other));
            let apart = Duration::from_micros(apart.context("a member got no push")?);
            let is_whole = report.received == report.sent;
            Ok(Finding::new(
                is_whole || apart >= ACTIVATION,
                format!("SPI {spi:#010x}; pushes {apart:.1?} apart; {step}; {report}"),
            ))
        },
    );
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

fn root_killed(lab: &mut Lab, narrative: &mut Narrative, milliseconds: u64) -> Result<()> {
    let moment = lab.now()?;
    let text = format!(
        "the root is killed {milliseconds} ms after it was told to rekey; back again it brings that to its end"
    );
    let mut spi = 0;
    let report = flow_during(lab, |lab| {
        let before = sending_spi(lab, G1)?;
        lab.gdoictl(SERVERS[0], &["rekey", GROUP])?;
        std::thread::sleep(Duration::from_millis(milliseconds));
        lab.kill_server(0)?;
        std::thread::sleep(Duration::from_secs(3));
        lab.start_server(0)?;
        spi = wait_new_spi(lab, &MEMBERS, before, WITHIN)?;
        Ok(())
    });
    narrative.state("root-killed", &text, || {
        let report = report?;
        let step = wait_in_step(lab, &[0, 1, 2])?;
        Ok(Finding::new(
            report.received == report.sent,
            format!("SPI {spi:#010x}; {step}; {report}"),
        ))
    });
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

/// Longer than it takes to call it dead.
fn root_away(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("The root is away until it counts as dead");
    let moment = lab.now()?;
    let mut seen = String::new();
    let report = flow_during(lab, |lab| {
        lab.kill_server(0)?;
        std::thread::sleep(Duration::from_secs(40));
        for server in &SERVERS[1..3] {
            seen += &lab.show(*server, &["server", "cluster"], "peers")?.to_string();
        }
        lab.start_server(0)
    });
    narrative.state(
        "root-away",
        "both sub-servers call it inactive, and members notice nothing",
        || {
            let report = report?;
            let inactive = seen.matches("\"inactive\"").count();
            let step = wait_in_step(lab, &[0, 1, 2])?;
            let evidence = format!("{inactive} sub-servers; {step}; {report}");
            Ok(Finding::new(report.received == report.sent && inactive == 2, evidence))
        },
    );
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

/// Has a member register now, and waits until it has done so at this server.
pub(super) fn come(
    lab: &Lab,
    member: crate::lab::nodes::Node,
    name: &str,
    position: usize,
) -> Result<()> {
    let started = Instant::now();
    let _ = lab.gdoictl(member, &["register", GROUP]);
    let server = SERVERS.get(position).copied().unwrap_or(member);
    loop {
        let members = lab.show(server, &["server", "members"], "members")?;
        let own = members.as_array().into_iter().flatten().find(|one| one["name"] == name);
        let last = own.and_then(|own| own["last_pull_seconds_ago"].as_u64());
        if last.is_some_and(|last| last <= started.elapsed().as_secs()) {
            return Ok(());
        }
        if started.elapsed() > WITHIN {
            bail!("{name} does not come to {}: {}", server.0, lab.log_tail(member, 12));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The member of a sub-server that is gone registers at the next one of its list.
fn sub_server_dies(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A sub-server dies, and its member goes down its list");
    // Each at the first server of its own list, wherever it came in when nobody else was there.
    come(lab, G1, "g1", 1)?;
    come(lab, G2, "g2", 2)?;
    let moment = lab.now()?;
    let mut spi = 0;
    let report = flow_during(lab, |lab| {
        lab.kill_server(1)?;
        come(lab, G1, "g1", 2)?;
        spi = rekey(lab, SERVERS[0], &MEMBERS, WITHIN)?;
        Ok(())
    });
    narrative.state(
        "next-server",
        "g1 is at s3, the next rekey reaches both members, nothing lost",
        || {
            let report = report?;
            Ok(Finding::new(report.received == report.sent, format!("SPI {spi:#010x}; {report}")))
        },
    );
    lab.start_server(1)?;
    narrative.state("sub-server-back", "the sub-server is back and in step", || {
        Ok(Finding::new(true, wait_in_step(lab, &[0, 1, 2])?))
    });
    answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}
