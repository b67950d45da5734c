//! A whole cluster under traffic: a server on its own becomes the root of four sub-servers, members
//! move to them and spill over, servers come, go and are cut off, policies change, a member is
//! removed. No packet is lost but in the removal, and none leaves in clear.

use super::cluster::{come, wait_in_step};
use super::{Context, close, registered};
use crate::lab::Lab;
use crate::lab::nodes::Node;
use crate::lab::plan::{Cluster, Plan, Rekey, Tek};
use crate::lab::topology::{G1, G2, G3, G4, HA, HB_ADDRESS, R, SERVERS, server_address};
use crate::observe::pushes::{GROUP, pushes_to, rekey, sending_spi, wait_new_spi};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{answered, flow_during, nothing_clear};
use anyhow::{Result, bail};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(120);
const MEMBERS: [Node; 4] = [G1, G2, G3, G4];
const ADDRESSES: [[u8; 4]; 4] = [[10, 0, 1, 1], [10, 0, 2, 1], [10, 0, 5, 1], [10, 0, 6, 1]];
const ROOT: usize = 4;
const ALL: [usize; 5] = [0, 1, 2, 3, ROOT];
/// Two members list sub-servers 1 to 4, two list 4 and 3.
const LISTS: [&[usize]; 4] = [&[0, 1, 2, 3], &[0, 1, 2, 3], &[3, 2], &[3, 2]];
/// While a change is at the root and not yet at a sub-server.
const EXPECTED: &[&str] = &["have different values"];

pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let rekey = Rekey {
        sealed: true,
        signing_key: "ecdsa-p256",
        lifetime_seconds: 7200,
        activation_seconds: 8,
        deactivation_seconds: 20,
        ..Rekey::default()
    };
    let alone = Cluster {
        root: ROOT,
        sub_servers: &[],
        lists: [&[ROOT], &[ROOT], LISTS[2], LISTS[3]],
        member_threshold: None,
    };
    let plan = Plan {
        rekey: Some(rekey),
        cluster: Some(alone),
        expected_errors: EXPECTED,
        ..Plan::default()
    };
    let mut lab = context.build(plan)?;
    narrative.chapter("A key server on its own, with two members");
    lab.start_server(ROOT)?;
    lab.start_member(0)?;
    lab.start_member(1)?;
    if registered(&lab, narrative, "both members are registered")
        && migrated(&mut lab, narrative)?
        && spilled(&mut lab, narrative)?
    {
        relayed(&mut lab, narrative)?;
        sub_server_dies(&mut lab, narrative)?;
        cut_off(&mut lab, narrative)?;
        policy_changes(&mut lab, narrative)?;
        sub_server_goes_and_comes(&mut lab, narrative)?;
        removed(&mut lab, narrative)?;
    }
    close(context, lab, narrative)
}

fn plan_of(lab: &mut Lab) -> &mut Cluster {
    lab.plan.cluster.get_or_insert(Cluster::OF_TWO)
}

/// States that something happened while no packet of the flow was lost and none left in clear.
fn under_traffic(
    lab: &mut Lab,
    narrative: &mut Narrative,
    (name, text): (&'static str, &str),
    happens: impl FnOnce(&mut Lab) -> Result<String>,
) -> Result<bool> {
    let moment = lab.now()?;
    let mut told = String::new();
    let report = flow_during(lab, |lab| {
        told = happens(lab)?;
        Ok(())
    });
    let mut held = false;
    narrative.state(name, &format!("{text}, nothing lost"), || {
        let report = report?;
        held = report.received == report.sent && report.sent > 0;
        Ok(Finding::new(held, format!("{told}; {report}")))
    });
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(held)
}

/// Names of the members that are registered at a server.
fn registered_at(lab: &Lab, position: usize) -> Result<Vec<String>> {
    let Some(server) = SERVERS.get(position) else { bail!("no such server") };
    let members = lab.show(*server, &["server", "members"], "members")?;
    let names = members.as_array().into_iter().flatten();
    Ok(names.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect())
}

fn migrated(lab: &mut Lab, narrative: &mut Narrative) -> Result<bool> {
    narrative.chapter("It becomes a root server, and four sub-servers start in any order");
    let statement = ("migration", "the root goes on with its keys, and all five are in step");
    under_traffic(lab, narrative, statement, |lab| {
        let before = sending_spi(lab, G1)?;
        lab.start_server(2)?;
        let cluster = plan_of(lab);
        (cluster.sub_servers, cluster.member_threshold) = (&[0, 1, 2, 3], Some(1));
        // It was started without a part in the cluster.
        lab.stop_server(2)?;
        for position in [2, 0] {
            lab.start_server(position)?;
        }
        lab.stop_server(ROOT)?;
        lab.start_server(ROOT)?;
        for position in [3, 1] {
            lab.start_server(position)?;
        }
        let step = wait_in_step(lab, &ALL)?;
        let after = sending_spi(lab, G1)?;
        if after != before {
            bail!("g1 has another key: {after:#x} after {before:#x}");
        }
        Ok(format!("SPI {after:#010x} before and after; {step}"))
    })
}

fn spilled(lab: &mut Lab, narrative: &mut Narrative) -> Result<bool> {
    narrative.chapter("Members move to sub-servers that take one member each");
    let statement = ("spill-over", "each member is at the first server of its list with room");
    let held = under_traffic(lab, narrative, statement, |lab| {
        lab.change(|plan| {
            plan.cluster.get_or_insert(Cluster::OF_TWO).lists = LISTS;
        })?;
        lab.start_member(2)?;
        lab.wait_registered(WITHIN)?;
        lab.start_member(3)?;
        lab.wait_registered(WITHIN)?;
        // The first two ask the first server at once, and it takes either.
        let expected: [&[&str]; 4] = [&["g1", "g2"], &["g1", "g2"], &["g4"], &["g3"]];
        let began = Instant::now();
        loop {
            let at = (0..4).map(|position| registered_at(lab, position));
            let at = at.collect::<Result<Vec<Vec<String>>>>()?;
            let is_one = |(names, expected): (&Vec<String>, &[&str])| match names.as_slice() {
                [name] => expected.contains(&name.as_str()),
                _ => false,
            };
            let found: Vec<String> = at.iter().map(|names| names.join(" ")).collect();
            let found = format!("at s1 to s4: {}", found.join(", "));
            let apart = at.first() != at.get(1);
            if apart && at.iter().zip(expected).all(is_one) {
                return Ok(found);
            }
            if began.elapsed() > WITHIN {
                bail!("{found}");
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    })?;
    narrative.show(
        "the first sub-server's figures",
        &lab.show_text(SERVERS[0], &["server", "statistics"])?,
    );
    Ok(held)
}

fn relayed(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("The root rekeys, and four sub-servers relay");
    let moment = lab.now()?;
    under_traffic(lab, narrative, ("rekeyed", "all members send with the new key"), |lab| {
        Ok(format!("SPI {:#010x}", rekey(lab, SERVERS[ROOT], &MEMBERS, WITHIN)?))
    })?;
    let text = "all members were sent the very same octets, and the root sent none to members that never were its own";
    narrative.state("one-push", text, || {
        let crossed = lab.core_since(moment)?;
        let all = ADDRESSES.map(|to| pushes_to(&crossed, Ipv4Addr::from(to)));
        let counts = all.each_ref().map(Vec::len);
        let same = all.iter().all(|pushes| *pushes == all[0] && pushes.len() == 1);
        let root: Ipv4Addr = server_address(ROOT).parse()?;
        // The first two were registered there before it was a root.
        let [.., third, fourth] = ADDRESSES.map(Ipv4Addr::from);
        let own = crossed.iter().map(|captured| &captured.packet);
        let own = own.filter(|packet| packet.source == root);
        let own = own.filter(|packet| [third, fourth].contains(&packet.destination)).count();
        let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
        let counts = counts.join(", ");
        let evidence = format!("different pushes to each member: {counts}; {own} of the root");
        Ok(Finding::new(same && own == 0, evidence))
    });
    Ok(())
}

fn sub_server_dies(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("More room on all servers, then a sub-server dies");
    let statement =
        ("next-server", "its member goes down its list, and the next rekey reaches all");
    under_traffic(lab, narrative, statement, |lab| {
        plan_of(lab).member_threshold = None;
        for position in [ROOT, 0, 1, 2, 3] {
            lab.reload_server(position)?;
        }
        let names = registered_at(lab, 0)?;
        let (node, name) = if names == ["g1"] { (G1, "g1") } else { (G2, "g2") };
        lab.kill_server(0)?;
        come(lab, node, name, 1)?;
        let spi = rekey(lab, SERVERS[ROOT], &MEMBERS, WITHIN)?;
        lab.start_server(0)?;
        Ok(format!("{name} is at s2, SPI {spi:#010x}; {}", wait_in_step(lab, &ALL)?))
    })?;
    Ok(())
}

/// Longer than it takes to call the other dead.
fn cut_off(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A sub-server with two members is cut off from the root");
    let statement = ("partition", "both call each other inactive, and are in step when it heals");
    under_traffic(lab, narrative, statement, |lab| {
        let (sub, root) = (server_address(1), server_address(ROOT));
        R.nft(&format!(
            "table ip cut {{ chain forward {{ type filter hook forward priority 0; \
             ip saddr {sub} ip daddr {root} drop; ip saddr {root} ip daddr {sub} drop; }}; }}"
        ))?;
        let began = Instant::now();
        let is_inactive = |lab: &Lab, position: usize, peer: &str| -> Result<bool> {
            let Some(server) = SERVERS.get(position) else { bail!("no such server") };
            let peers = lab.show(*server, &["server", "cluster"], "peers")?;
            let mut peers = peers.as_array().into_iter().flatten();
            Ok(peers.any(|one| one["name"] == peer && one["status"] == "inactive"))
        };
        while !(is_inactive(lab, 1, "s5")? && is_inactive(lab, ROOT, "s2")?) {
            if began.elapsed() > WITHIN {
                bail!("they do not call each other inactive after {} s", WITHIN.as_secs());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        let noticed = began.elapsed().as_secs_f32();
        R.nft("delete table ip cut")?;
        let step = wait_in_step(lab, &ALL)?;
        let spi = rekey(lab, SERVERS[ROOT], &MEMBERS, WITHIN)?;
        Ok(format!("noticed after {noticed:.1} s; healed, {step}; SPI {spi:#010x}"))
    })?;
    Ok(())
}

fn policy_changes(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("Another cipher on all servers at once");
    let statement = ("policy", "the next rekey brings it to all members together");
    under_traffic(lab, narrative, statement, |lab| {
        lab.plan.teks = vec![Tek { encryption: "aes-128-cbc", ..Tek::default() }];
        for position in [ROOT, 0, 1, 2, 3] {
            lab.reload_server(position)?;
        }
        let step = wait_in_step(lab, &ALL)?;
        let spi = rekey(lab, SERVERS[ROOT], &MEMBERS, WITHIN)?;
        let mut ciphers = Vec::new();
        for member in MEMBERS {
            let teks = lab.show(member, &["member", "ipsec"], "teks")?;
            let sends = teks.as_array().into_iter().flatten().find(|tek| tek["sends"] == true);
            ciphers.push(sends.map_or(Value::Null, |tek| tek["encryption"].clone()));
        }
        if ciphers.iter().any(|cipher| cipher != "aes-128-cbc") {
            let ciphers: Vec<String> = ciphers.iter().map(ToString::to_string).collect();
            bail!("members send with {}", ciphers.join(", "));
        }
        Ok(format!("{step}; SPI {spi:#010x}, all send with aes-128-cbc"))
    })?;
    Ok(())
}

fn sub_server_goes_and_comes(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A sub-server is taken out of the cluster, and comes back into it");
    let statement = ("taken-out", "its member is at another one, and the others rekey without it");
    under_traffic(lab, narrative, statement, |lab| {
        plan_of(lab).sub_servers = &[0, 1, 3];
        lab.stop_server(ROOT)?;
        lab.start_server(ROOT)?;
        lab.stop_server(2)?;
        come(lab, G4, "g4", 3)?;
        let step = wait_in_step(lab, &[0, 1, 3, ROOT])?;
        let spi = rekey(lab, SERVERS[ROOT], &MEMBERS, WITHIN)?;
        Ok(format!("{step}; SPI {spi:#010x}"))
    })?;
    let statement = ("taken-in", "it is in step with the others");
    under_traffic(lab, narrative, statement, |lab| {
        plan_of(lab).sub_servers = &[0, 1, 2, 3];
        lab.stop_server(ROOT)?;
        lab.start_server(ROOT)?;
        lab.start_server(2)?;
        wait_in_step(lab, &ALL)
    })?;
    Ok(())
}

/// Without a key hierarchy all keys are deleted, so that packets are lost until the others have
/// registered again.
fn removed(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A member of a sub-server is removed at the root");
    let moment = lab.now()?;
    let before = sending_spi(lab, G1)?;
    narrative.state("removed", "the others have a new key and it has none", || {
        lab.gdoictl(SERVERS[ROOT], &["remove", GROUP, "g4"])?;
        let spi = wait_new_spi(lab, &MEMBERS[..3], before, WITHIN)?;
        let held = lab.outbound(G4)?.len();
        let _ = lab.gdoictl(G4, &["register", GROUP]);
        std::thread::sleep(Duration::from_secs(10));
        let later = lab.outbound(G4)?.len();
        let evidence =
            format!("SPI {spi:#010x}; g4 has {held} states to send with, {later} after it asked");
        Ok(Finding::new(held == 0 && later == 0, evidence))
    });
    answered(narrative, "ping", "ha reaches hb", HA, &[], &HB_ADDRESS.to_string());
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}
