//! The main job: the first key server is down, the next one serves, and from then on the kernel
//! encrypts everything between the branches, whatever happens to routes, uplinks and the daemon.

use super::{Context, close, flushes, registered};
use crate::lab::Lab;
use crate::lab::firewall;
use crate::lab::plan::Plan;
use crate::lab::topology::{
    self, G1, G2, HA, HA_ADDRESS, HB, HB_ADDRESS, R, SERVERS, server_address,
};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{
    Forgery, answered, blocked, decrypts, flow, forged, guard_drops, nothing_clear, ping,
    preserved, same_keys, show_kernel, tcp,
};
use anyhow::Result;
use std::time::Duration;

const FAR: &str = "172.16.2.10";

/// Without anything else on the members.
pub(super) fn plain(context: &Context, narrative: &mut Narrative) -> Result<()> {
    play(context, narrative, false)
}

/// Beside a user's firewall.
pub(super) fn beside_a_firewall(context: &Context, narrative: &mut Narrative) -> Result<()> {
    play(context, narrative, true)
}

fn play(context: &Context, narrative: &mut Narrative, with_firewall: bool) -> Result<()> {
    narrative.chapter("The network");
    narrative.say(
        "ha 172.16.1.10 -- g1 10.0.1.1 (and 10.0.3.1) -- r -- 10.0.2.1 g2 -- hb 172.16.2.10; servers s1..s4 behind r",
    );
    // The second run follows the interface instead of naming its address.
    let first_local = if with_firewall { "wan" } else { "10.0.1.1" };
    let mut lab = context.build(Plan { first_local, ..Plan::default() })?;
    narrative.say("all links of r, ha and hb are captured from now on");
    before_the_first_key(&mut lab, narrative, with_firewall)?;
    if !failover(&mut lab, narrative, with_firewall)? {
        return close(context, lab, narrative);
    }
    traffic(&mut lab, narrative, with_firewall)?;
    attacks(&lab, narrative, with_firewall)?;
    sizes(&mut lab, narrative)?;
    uplinks(&mut lab, narrative)?;
    if with_firewall {
        // The flowtable went with the interface it was on.
        load_firewall(narrative)?;
    }
    flushes::play(&mut lab, narrative)?;
    if with_firewall {
        load_firewall(narrative)?;
    }
    stop_and_restart(&mut lab, narrative)?;
    killed(&mut lab, narrative)?;
    close(context, lab, narrative)
}

fn load_firewall(narrative: &mut Narrative) -> Result<()> {
    narrative
        .say("both members get a user's firewall: conntrack, masquerading, marks, a flowtable");
    for (node, interfaces) in [(G1, "lan, wan, wan2"), (G2, "lan, wan")] {
        let _ = node.run("nft", &["delete", "table", "ip", "user"]);
        firewall::load(node, interfaces)?;
    }
    Ok(())
}

fn before_the_first_key(
    lab: &mut Lab,
    narrative: &mut Narrative,
    with_firewall: bool,
) -> Result<()> {
    narrative.chapter("Before the first key");
    answered(
        narrative,
        "unprotected",
        "the network routes: ha reaches hb while no daemon has run yet",
        HA,
        &[],
        FAR,
    );
    if with_firewall {
        // It lets nothing in that is not decapsulated.
        load_firewall(narrative)?;
    }
    lab.start_member(0)?;
    lab.start_member(1)?;
    narrative.say("both members run, no key server does");
    blocked(narrative, lab, "ha cannot reach hb", HA, &[], FAR);
    blocked(
        narrative,
        lab,
        "the member itself cannot reach hb from its LAN address",
        G1,
        &["-I", "172.16.1.1"],
        FAR,
    );
    outside_of_the_group(narrative);
    inbound_is_blocked(lab, narrative);
    Ok(())
}

/// Traffic that passes in clear, with a key and without one.
fn outside_of_the_group(narrative: &mut Narrative) {
    answered(narrative, "own-lan", "ha reaches its own router", HA, &[], "172.16.1.1");
    answered(
        narrative,
        "unrelated",
        "unrelated traffic passes: ha reaches s3",
        HA,
        &[],
        &server_address(2),
    );
}

fn inbound_is_blocked(lab: &Lab, narrative: &mut Narrative) {
    let forgery = Forgery {
        what: "with the other branch's source",
        source: "172.16.1.10:6000",
        destination: "172.16.2.10:5000",
    };
    forged(narrative, lab, &forgery);
}

fn failover(lab: &mut Lab, narrative: &mut Narrative, silent: bool) -> Result<bool> {
    narrative.chapter("The first key server is down");
    if silent {
        narrative.say("s1 drops everything silently; gcks starts on s2");
        R.ip("link set k1 down")?;
        R.ip("route add blackhole 10.0.11.0/24")?;
    } else {
        narrative.say("no gcks on s1: its kernel answers port unreachable; gcks starts on s2");
    }
    lab.start_server(1)?;
    if !registered(lab, narrative, "both members are registered") {
        return Ok(false);
    }
    // Only now: each stand-alone server has keys of its own, and both members must have come to the
    // same one.
    lab.start_server(2)?;
    lab.start_server(3)?;
    served_by_the_second(lab, narrative);
    same_keys(narrative, lab);
    show_kernel(narrative)?;
    narrative.show("g1: gdoictl show member", &lab.show_text(G1, &["member"])?);
    narrative.show(
        "s2: gdoictl show server members",
        &lab.show_text(SERVERS[1], &["server", "members"])?,
    );
    Ok(true)
}

fn served_by_the_second(lab: &Lab, narrative: &mut Narrative) {
    narrative.state(
        "failover",
        "s2 serves both members, and both say why s1 was passed over",
        || {
            let (mut holds, mut evidence) = (true, String::new());
            for node in [G1, G2] {
                let groups = lab.show(node, &["member"], "groups")?;
                let group = groups.get(0).cloned().unwrap_or_default();
                let server = group.get("server").map(ToString::to_string).unwrap_or_default();
                let passed = group.get("passed_over").map(ToString::to_string).unwrap_or_default();
                holds &= server.contains(&server_address(1)) && passed.contains(&server_address(0));
                evidence.push_str(&format!("{}: server {server}, passed over {passed}\n", node.0));
            }
            Ok(Finding::new(holds, evidence))
        },
    );
}

fn traffic(lab: &mut Lab, narrative: &mut Narrative, with_firewall: bool) -> Result<()> {
    narrative.chapter("Traffic");
    let moment = lab.now()?;
    answered(narrative, "ping", "ha reaches hb", HA, &[], FAR);
    answered(narrative, "ping", "hb reaches ha", HB, &[], "172.16.1.10");
    answered(
        narrative,
        "ping",
        "the member itself reaches hb from its LAN address",
        G1,
        &["-I", "172.16.1.1"],
        FAR,
    );
    outside_of_the_group(narrative);
    tcp(narrative, lab, HA, HB, 2_000_000);
    tcp(narrative, lab, HB, HA, 2_000_000);
    let report = flow(lab, 300, "", |_| Ok(()));
    narrative.state("flow", "300 datagrams from ha to hb, none lost", || {
        let report = report?;
        Ok(Finding::new(report.received == 300 && report.duplicates == 0, report.to_string()))
    });
    if with_firewall {
        narrative.state(
            "conntrack",
            "the firewall tracks the hosts' connections meanwhile",
            || {
                let table = G1.run("cat", &["/proc/net/nf_conntrack"])?;
                let tracked = table.lines().filter(|line| line.contains("dst=172.16.2.10")).count();
                Ok(Finding::new(tracked > 0, format!("{tracked} connections")))
            },
        );
    }
    preserved(narrative, lab);
    let keys = lab.states(G2)?;
    decrypts(narrative, lab, &keys, moment);
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

fn attacks(lab: &Lab, narrative: &mut Narrative, with_firewall: bool) -> Result<()> {
    narrative.chapter("Clear packets from the core");
    let list = [
        Forgery {
            what: "with a foreign source of the group",
            source: "172.16.9.1:6000",
            destination: "172.16.2.10:5000",
        },
        Forgery {
            what: "with a forged source of the LAN itself",
            source: "172.16.2.99:6000",
            destination: "172.16.2.10:5000",
        },
        Forgery {
            what: "with the tuple of a running flow",
            source: "172.16.1.10:6000",
            destination: "172.16.2.10:5000",
        },
        Forgery {
            what: "towards the first branch",
            source: "172.16.1.99:6000",
            destination: "172.16.1.10:5000",
        },
    ];
    let before = guard_drops(G1)? + guard_drops(G2)?;
    for forgery in &list {
        forged(narrative, lab, forgery);
    }
    narrative.state(
        "own-address",
        "a clear packet to the member's own LAN address is dropped as well",
        || {
            let moment = lab.now()?;
            let drops = guard_drops(G2)?;
            lab.traffic(R, "forge --source 172.16.9.1:6000 --destination 172.16.2.1:7 --count 5")?;
            let answers =
                lab.core_since(moment)?.iter().filter(|captured| !captured.outgoing).count();
            let counted = guard_drops(G2)? - drops;
            Ok(Finding::new(
                counted == 5 && answers == 0,
                format!("5 sent, {counted} counted by the guard, {answers} answers"),
            ))
        },
    );
    narrative.state("guards", "the guards counted every one of them", || {
        let counted = guard_drops(G1)? + guard_drops(G2)? - before;
        Ok(Finding::new(counted >= 25, format!("{counted} counted, 25 sent")))
    });
    narrative.state("forged-esp", "ESP with the group's SPI that was not made with the key is dropped", || {
        let spi = lab.outbound(G2)?.first().map_or(0, |state| state.spi);
        let moment = lab.now()?;
        lab.traffic(R, &format!("forge --source 172.16.1.10:0 --destination {HB_ADDRESS}:0 --count 5 --spi {spi}"))?;
        let arrived = lab.host_since(HB, moment)?.len();
        let counters = G2.run("cat", &["/proc/net/xfrm_stat"])?;
        let line = counters.lines().find(|line| line.starts_with("XfrmInStateProtoError")).unwrap_or_default();
        Ok(Finding::new(arrived == 0 && !line.ends_with(" 0"), format!("{arrived} packets at hb; {}", line.trim())))
    });
    if with_firewall {
        answered(narrative, "ping", "ha still reaches hb", HA, &[], FAR);
    }
    Ok(())
}

fn sizes(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("Big packets and fragments");
    let moment = lab.now()?;
    answered(
        narrative,
        "fragments",
        "3,000 octets that the hosts fragment",
        HA,
        &["-M", "dont", "-s", "3000"],
        FAR,
    );
    narrative.state(
        "path-mtu",
        "a packet too big for ESP with Don't Fragment: the member itself reports the MTU",
        || {
            let (_, answers, text) = ping(HA, &["-c", "2", "-M", "do", "-s", "1460"], FAR)?;
            let said = text
                .lines()
                .find(|line| line.contains("mtu"))
                .unwrap_or("no MTU in ping's output")
                .trim();
            Ok(Finding::new(answers == 0 && said.contains("mtu"), said))
        },
    );
    narrative
        .say("the link between r and g2 shrinks to 1,300 octets: ESP is fragmented in the core");
    R.ip("link set w2 mtu 1300")?;
    G2.ip("link set wan mtu 1300")?;
    HA.ip("route flush cache")?;
    answered(
        narrative,
        "fragments",
        "1,350 octets arrive although ESP is fragmented on the way",
        HA,
        &["-M", "dont", "-s", "1350"],
        FAR,
    );
    let report = flow(lab, 100, "--size 1350", |_| Ok(()));
    narrative.state("fragments", "100 datagrams of 1,350 octets, none lost", || {
        let report = report?;
        let parts =
            lab.core_since(moment)?.iter().filter(|captured| captured.packet.is_fragment()).count();
        Ok(Finding::new(
            report.received == 100 && parts > 0,
            format!("{report}; {parts} fragments of ESP captured"),
        ))
    });
    R.ip("link set w2 mtu 1500")?;
    G2.ip("link set wan mtu 1500")?;
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

fn uplinks(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("The uplinks of the first member");
    let moment = lab.now()?;
    let report = flow(lab, 300, "", |_| {
        std::thread::sleep(Duration::from_secs(1));
        G1.ip("route replace default via 10.0.3.254").map(drop)
    });
    narrative.state(
        "second-uplink",
        "the default route moves to the second uplink during a flow",
        || {
            let report = report?;
            let index = R.run("cat", &["/sys/class/net/w3/ifindex"])?.trim().parse::<u32>()?;
            let there = lab
                .core_since(moment)?
                .iter()
                .filter(|captured| {
                    captured.interface == index && captured.packet.source == HA_ADDRESS
                })
                .filter(|captured| captured.packet.spi().is_some())
                .count();
            Ok(Finding::new(
                report.last == 299 && there > 0,
                format!("{report}; {there} ESP packets on the second uplink"),
            ))
        },
    );
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    let moment = lab.now()?;
    let report = flow(lab, 900, "", |_| recreate_uplink());
    narrative.state(
        "re-created",
        "the first uplink is deleted and re-created under the same name during a flow",
        || {
            let report = report?;
            Ok(Finding::new(report.last == 899, report.to_string()))
        },
    );
    registered(lab, narrative, "the member has keys afterwards");
    answered(narrative, "ping", "ha reaches hb over the new uplink", HA, &[], FAR);
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

/// The interface disappears as a modem's would, and comes back with another index.
fn recreate_uplink() -> Result<()> {
    std::thread::sleep(Duration::from_secs(1));
    G1.ip("link del wan")?;
    std::thread::sleep(Duration::from_secs(1));
    topology::uplink(G1, "wan", "w1", 1)?;
    G1.ip("route replace default via 10.0.1.254")?;
    R.ip("route replace 172.16.1.0/24 via 10.0.1.1").map(drop)
}

fn stop_and_restart(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A member stops and starts again");
    let moment = lab.now()?;
    lab.stop_member(0)?;
    narrative.state("keys-removed", "after an orderly end no key is left in the kernel", || {
        let left = lab.states(G1)?.len();
        Ok(Finding::new(left == 0, format!("{left} states")))
    });
    blocked(narrative, lab, "the fail-close policies stay: ha cannot reach hb", HA, &[], FAR);
    blocked(
        narrative,
        lab,
        "the fail-close policies stay for the member itself",
        G1,
        &["-I", "172.16.1.1"],
        FAR,
    );
    inbound_is_blocked(lab, narrative);
    lab.start_member(0)?;
    registered(lab, narrative, "the member is registered again");
    answered(narrative, "ping", "ha reaches hb again", HA, &[], FAR);
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

fn killed(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A member's daemon is killed");
    let moment = lab.now()?;
    lab.kill_member(0)?;
    narrative.say("kill -9: no daemon is left to clean up or repair");
    second_guard(narrative, false);
    preserved(narrative, lab);
    let forgery = Forgery {
        what: "towards the member whose daemon is dead",
        source: "172.16.1.99:6000",
        destination: "172.16.1.10:5000",
    };
    forged(narrative, lab, &forgery);
    narrative.say("its keys are removed by hand: what is left must block");
    G1.ip("xfrm state flush")?;
    blocked(narrative, lab, "the fail-close policies stay: ha cannot reach hb", HA, &[], FAR);
    lab.start_member(0)?;
    registered(lab, narrative, "the member is registered again");
    second_guard(narrative, true);
    answered(narrative, "ping", "ha reaches hb again", HA, &[], FAR);
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

/// The table that only its owner may change: without a daemon, kernels from 6.9 on keep it.
fn second_guard(narrative: &mut Narrative, is_running: bool) {
    let text = match is_running {
        false => {
            "the second guard table stays where the kernel can keep it (Linux 6.9), or has gone"
        }
        true => "the new daemon owns the second guard table",
    };
    narrative.state("second-guard", text, || {
        let release = G1.run("uname", &["-r"])?;
        let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        let keeps = numbers.next().zip(numbers.next()) >= Some((6, 9));
        let table = G1.output("nft", &["list", "table", "ip", "gdoi-guard"])?;
        let listed = String::from_utf8_lossy(&table.stdout).into_owned();
        let is_there = listed.contains("chain");
        // Without an owner nothing says so.
        let flags = listed.lines().find(|line| line.contains("flags")).unwrap_or("no flags").trim();
        let is_owned = flags.contains("owner");
        let there = if is_there { "there" } else { "gone" };
        let evidence = format!("Linux {}: {there}, {flags}", release.trim());
        let holds = if is_running { is_there && is_owned } else { is_there == keeps && !is_owned };
        Ok(Finding::new(holds, evidence))
    });
}
