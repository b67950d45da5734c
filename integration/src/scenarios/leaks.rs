//! Ways in which a member could let the group's packets out in clear, each one tried.

use super::{Context, close, registered};
use crate::lab::Lab;
use crate::lab::firewall;
use crate::lab::nodes::Node;
use crate::lab::plan::Plan;
use crate::lab::topology::{G1, G2, HA, HB, HB_ADDRESS, R, is_protected, server_address};
use crate::observe::leak::from_member;
use crate::observe::packet::ESP;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{
    Forgery, answered, flow, forged, guard_drops, nothing_clear, ping, preserved,
};
use crate::traffic::value;
use anyhow::Result;
use std::time::{Duration, Instant};

const FAR: &str = "172.16.2.10";

/// All of them on one lab.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let mut lab = context.build(Plan::default())?;
    shortcut_before_the_daemon(&mut lab, narrative)?;
    lab.start_server(0)?;
    if !registered(&lab, narrative, "both members are registered") {
        return close(context, lab, narrative);
    }
    shortcut(&lab, narrative)?;
    beside_other_software(&mut lab, narrative)?;
    quoted(&lab, narrative);
    vlan(&lab, narrative)?;
    close(context, lab, narrative)
}

/// Rows of the second table of `SECURITY.md`, on members that are registered.
pub(super) fn beside_other_software(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    plain_masquerade(lab, narrative)?;
    classified_masquerade(lab, narrative)?;
    port_forward(lab, narrative)?;
    past_the_router(lab, narrative)?;
    raw_socket(lab, narrative)?;
    foreign_ipcomp(lab, narrative)?;
    marked_raw(lab, narrative)?;
    behind_the_lan(lab, narrative)
}

/// A firewall that shortcuts connections past the forward hooks, with a mark on what the LAN sends.
const SHORTCUTS: &str = "
    table netdev user { chain marks { type filter hook ingress device lan priority -10; meta mark set 0x63; }; }
    table ip user {
        flowtable fast { hook ingress priority 0; devices = { lan, wan }; }
        chain forward {
            type filter hook forward priority filter; policy accept;
            meta l4proto { tcp, udp } ct state established flow add @fast
        }
    }";

/// Translates whatever leaves by an uplink, the group's packets not exempted.
pub(super) const MASQUERADE: &str = "
    table ip user {
        chain nat {
            type nat hook postrouting priority srcnat; policy accept;
            oifname { wan, wan2 } counter masquerade
        }
    }";

/// Removes what this scenario loads.
pub(super) fn unload(node: Node) {
    for table in ["ip", "netdev"] {
        let _ = node.run("nft", &["delete", "table", table, "user"]);
    }
}

/// A connection that a flowtable carries in clear must end with the start of the daemon, not with
/// the connection.
fn shortcut_before_the_daemon(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A flowtable offloads a connection before the daemons start");
    G1.nft(SHORTCUTS)?;
    let _sink = lab.start_sink(HB, "tcp-sink --port 5002 --silence-seconds 60")?;
    let _flow = lab.start_traffic(
        HA,
        &format!("tcp-flow --to {HB_ADDRESS}:5002 --seconds 60 --pause-milliseconds 50"),
    )?;
    narrative.state(
        "shortcut",
        "a TCP connection between the hosts is in the flowtable of g1",
        || {
            let shortcuts = wait_for_shortcut(5002)?;
            Ok(Finding::new(shortcuts > 0, format!("{shortcuts} connections")))
        },
    );
    lab.start_member(0)?;
    lab.start_member(1)?;
    let moment = lab.now()?;
    std::thread::sleep(Duration::from_secs(2));
    narrative.state(
        "nothing-clear",
        "from the moment the members are ready nothing of it leaves in clear",
        || {
            let crossed = lab.core_since(moment)?;
            let left = crossed.iter().filter(|captured| {
                from_member(captured) && is_protected(captured.packet.destination)
            });
            Ok(Finding::new(
                left.count() == 0,
                format!("{} packets crossed the core", crossed.len()),
            ))
        },
    );
    lab.guarded_from(moment);
    Ok(())
}

fn wait_for_shortcut(port: u16) -> Result<usize> {
    let started = Instant::now();
    loop {
        let shortcuts = firewall::shortcuts(G1, port)?;
        if shortcuts > 0 || started.elapsed() > Duration::from_secs(10) {
            return Ok(shortcuts);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The flowtable sends what it shortcuts through XFRM's own output, whose postrouting hook it does
/// not skip: the inner addresses are put aside there as for every other packet.
fn shortcut(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A flowtable and marks on the members");
    let moment = lab.now()?;
    let sink = lab.start_sink(HB, "tcp-sink --port 5003 --silence-seconds 20")?;
    let sender = lab.start_traffic(
        HA,
        &format!("tcp-flow --to {HB_ADDRESS}:5003 --seconds 4 --pause-milliseconds 20"),
    )?;
    narrative.state(
        "shortcut",
        "a TCP connection is offloaded to the flowtable, arrives complete and leaves as ESP only",
        || {
            let shortcuts = wait_for_shortcut(5003)?;
            let sent = sender.output(Duration::from_secs(60))?;
            let received = value(&sink.output(Duration::from_secs(60))?, "octets").unwrap_or(0);
            let crossed = lab.core_since(moment)?;
            let group = crossed.iter().filter(|captured| from_member(captured) && is_protected(captured.packet.source));
            let (esp, other): (Vec<_>, Vec<_>) = group.partition(|captured| captured.packet.protocol == ESP);
            let octets = value(&sent, "sent").unwrap_or(0);
            let evidence = format!(
                "{shortcuts} in the flowtable; {octets} octets sent, {received} received; {} ESP and {} other packets\n{}",
                esp.len(),
                other.len(),
                lab.log_tail(G1, 6)
            );
            Ok(Finding::new(shortcuts > 0 && octets > 0 && octets == received && other.is_empty(), evidence))
        },
    );
    preserved(narrative, lab);
    unload(G1);
    Ok(())
}

fn plain_masquerade(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("Masquerading without exemptions");
    let moment = lab.now()?;
    for node in [G1, G2] {
        node.nft(MASQUERADE)?;
    }
    answered(narrative, "unrelated", "ha reaches s3", HA, &[], &server_address(2));
    let report = flow(lab, 50, "", |_| Ok(()))?;
    narrative.say(&format!("ha to hb: {report}"));
    nothing_clear(
        narrative,
        lab,
        moment,
        "members sent no clear packet, and none whose source was translated",
    );
    let moment = lab.now()?;
    let report = flow(lab, 200, "", |_| {
        for node in [G1, G2] {
            node.ip("xfrm policy flush")?;
        }
        // Something must leave, or the statement says nothing.
        ping(HA, &["-c", "2"], &server_address(2)).map(drop)
    })?;
    narrative.say(&format!("the policies of both members are flushed meanwhile: {report}"));
    nothing_clear(narrative, lab, moment, "members sent no clear packet");
    for node in [G1, G2] {
        unload(node);
    }
    let repaired = Instant::now();
    narrative.state("repaired", "without the masquerade ha reaches hb", || {
        loop {
            let (sent, answers, _) = ping(HA, &["-c", "2"], FAR)?;
            if sent == answers || repaired.elapsed() > Duration::from_secs(20) {
                return Ok(Finding::new(
                    answers > 0,
                    format!("after {:.0} s", repaired.elapsed().as_secs_f32()),
                ));
            }
        }
    });
    Ok(())
}

/// The class takes the place of whatever else is remembered in a packet's priority.
fn classified_masquerade(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A class for a queueing discipline, and a masquerade");
    let moment = lab.now()?;
    G1.nft(&format!(
        "{MASQUERADE}
         table ip user {{
             chain forward {{
                 type filter hook forward priority filter; policy accept;
                 meta priority set 1:10
             }}
             chain classify {{
                 type filter hook postrouting priority mangle; policy accept;
                 oifname wan counter meta priority set 1:10
             }}
         }}"
    ))?;
    let report = flow(lab, 50, "", |_| Ok(()))?;
    narrative.say(&format!("ha to hb: {report}"));
    // Something must leave, or the statement says nothing.
    answered(narrative, "unrelated", "ha reaches s3", HA, &[], &server_address(2));
    nothing_clear(narrative, lab, moment, "members sent no clear packet, and none translated");
    unload(G1);
    answered(narrative, "ping", "without them ha reaches hb", HA, &[], FAR);
    Ok(())
}

/// The kernel undoes the translation before it asks the FWD policy.
pub(super) fn port_forward(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A port of the uplink is forwarded to ha");
    G1.nft(
        "table ip user {
             chain forward_port {
                 type nat hook prerouting priority dstnat; policy accept;
                 iifname wan udp dport 9999 counter dnat to 172.16.1.10:5000
             }
         }",
    )?;
    let forgery = Forgery {
        what: "to the forwarded port, with a source of the group",
        source: "172.16.2.99:6000",
        destination: "10.0.1.1:9999",
    };
    forged(narrative, lab, &forgery);
    narrative.state("translated", "the port was forwarded, and g1's guard dropped that", || {
        let table = G1.run("nft", &["list", "table", "ip", "user"])?;
        let forwarded = table.contains("counter packets") && !table.contains("counter packets 0 ");
        Ok(Finding::new(forwarded, table))
    });
    unload(G1);
    Ok(())
}

/// A copy that a user's rule sends by the uplink passes no hook of IP, as a raw socket's packet.
fn past_the_router(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("Packets that are handed to the uplink past the router");
    G1.nft(
        "table netdev user {
             chain copies {
                 type filter hook ingress device lan priority 0; policy accept;
                 ip daddr 172.16.2.0/24 counter dup to wan
             }
         }",
    )?;
    let moment = lab.now()?;
    let before = guard_drops(G1)?;
    narrative.state("past-the-router", "ha reaches hb, and g1's guard drops the copies", || {
        let (sent, answers, _) = ping(HA, &["-c", "3"], FAR)?;
        let dropped = guard_drops(G1)? - before;
        let evidence = format!("{sent} requests, {answers} answers, {dropped} dropped");
        Ok(Finding::new(sent == 3 && answers == 3 && dropped >= 3, evidence))
    });
    nothing_clear(narrative, lab, moment, "members sent no clear packet");
    unload(G1);
    Ok(())
}

/// A program on the router that writes its own IP headers: the kernel asks for the policy of the
/// address that it would have chosen itself, which is not the group's.
pub(super) fn raw_socket(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    const OTHER: &str = "172.16.1.77:6000";
    narrative.chapter("A raw socket on the router sends in the name of a host");
    let moment = lab.now()?;
    let before = guard_drops(G1)?;
    // It is told that its packets are dropped, and gives up.
    let sent =
        lab.traffic(G1, &format!("forge --source {OTHER} --destination {FAR}:5000 --count 5"));
    narrative.state("raw-socket", "g1's guard drops its packets", || {
        let dropped = guard_drops(G1)? - before;
        let told =
            sent.map_or_else(|error| format!("{error:#}"), |_| String::from("it was told nothing"));
        Ok(Finding::new(dropped > 0, format!("{dropped} dropped\n{told}")))
    });
    // Something must leave, or the next statement says nothing.
    answered(narrative, "unrelated", "ha reaches s3", HA, &[], &server_address(2));
    nothing_clear(narrative, lab, moment, "members sent no clear packet");
    Ok(())
}

/// Compression is no protection, although XFRM does it.
fn foreign_ipcomp(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A policy of somebody else compresses the group's packets");
    let hosts = "src 172.16.1.0/24 dst 172.16.2.0/24";
    let moment = lab.now()?;
    G1.batch(&format!(
        "xfrm policy add dir out {hosts} priority 1 tmpl src 10.0.1.1 dst 10.0.2.1 proto comp mode tunnel\n\
         xfrm state add src 10.0.1.1 dst 10.0.2.1 proto comp spi 0x4242 mode tunnel comp deflate\n"
    ))?;
    narrative.state("foreign-policy", "ha cannot reach hb, and g1's guard says why", || {
        let (sent, answers, _) = ping(HA, &["-c", "3", "-s", "400"], FAR)?;
        let rules = G1.run("nft", &["list", "chain", "ip", "gdoi", "leaving"])?;
        let counted = rules
            .lines()
            .find(|line| line.contains("taken by a foreign policy"))
            .is_some_and(|line| !line.contains("counter packets 0 "));
        Ok(Finding::new(
            answers == 0 && counted,
            format!("{sent} requests, {answers} answers\n{rules}"),
        ))
    });
    answered(narrative, "unrelated", "ha reaches s3", HA, &[], &server_address(2));
    nothing_clear(narrative, lab, moment, "members sent no clear packet");
    G1.batch(&format!(
        "xfrm policy delete dir out {hosts}\n\
         xfrm state delete src 10.0.1.1 dst 10.0.2.1 proto comp spi 0x4242\n"
    ))?;
    answered(narrative, "ping", "without it ha reaches hb", HA, &[], FAR);
    Ok(())
}

/// A mark in the raw table would take the place of an inner address.
fn marked_raw(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A user's raw table marks whatever the router sends");
    G1.nft(
        "table ip user {
             chain marks {
                 type filter hook output priority raw; policy accept;
                 meta mark set 0x1
             }
         }",
    )?;
    answered(narrative, "ping", "ha reaches hb", HA, &[], FAR);
    preserved(narrative, lab);
    unload(G1);
    Ok(())
}

/// Interfaces decide what is inside, whatever the networks behind them are.
fn behind_the_lan(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A routed network behind the LAN of g1");
    HA.ip("addr add 172.16.5.1/24 dev lo")?;
    G1.ip("route add 172.16.5.0/24 via 172.16.1.10")?;
    R.ip("route add 172.16.5.0/24 via 10.0.1.1")?;
    let moment = lab.now()?;
    for (text, from, options, to) in [
        ("g1 reaches it", G1, &[][..], "172.16.5.1"),
        ("it reaches its own router", HA, &["-I", "172.16.5.1"], "172.16.1.1"),
        ("it reaches hb", HA, &["-I", "172.16.5.1"], FAR),
        ("hb reaches it", HB, &[], "172.16.5.1"),
    ] {
        answered(narrative, "routed", text, from, options, to);
    }
    forged(
        narrative,
        lab,
        &Forgery {
            what: "with a source of that network",
            source: "172.16.5.7:6000",
            destination: "172.16.1.10:5000",
        },
    );
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    R.ip("route del 172.16.5.0/24")?;
    G1.ip("route del 172.16.5.0/24")?;
    HA.ip("addr del 172.16.5.1/24 dev lo").map(drop)
}

/// The hop limit ends at g1, behind the SA: what its ICMP error quotes has been decrypted.
fn quoted(lab: &Lab, narrative: &mut Narrative) {
    narrative.chapter("ICMP errors that quote the group's packets");
    quotes(lab, narrative);
    answered(narrative, "ping", "hb still reaches ha", HB, &[], "172.16.1.10");
}

/// States that such an error does not leave.
pub(super) fn quotes(lab: &Lab, narrative: &mut Narrative) {
    let text = "a packet whose hops end behind the SA: g1's ICMP error does not leave in clear";
    narrative.state("quoted", text, || find_quotes(lab));
}

fn find_quotes(lab: &Lab) -> Result<Finding> {
    let moment = lab.now()?;
    let before = guard_drops(G1)?;
    let (sent, answers, _) = ping(HB, &["-c", "3", "-t", "2"], "172.16.1.10")?;
    let errors = lab.core_since(moment)?;
    let errors = errors
        .iter()
        .filter(|captured| from_member(captured) && captured.packet.protocol == 1)
        .count();
    let dropped = guard_drops(G1)? - before;
    let evidence = format!(
        "{sent} requests, {answers} answers; g1's guard dropped {dropped}, {errors} ICMP packets in the core"
    );
    Ok(Finding::new(sent == 3 && answers == 0 && errors == 0 && dropped >= 3, evidence))
}

/// Whatever is not a LAN by name counts as WAN, devices that nobody has named included.
fn vlan(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A VLAN on the uplink of g1 that no configuration names");
    let moment = lab.now()?;
    for (node, parent, number) in [(G1, "wan", 1), (R, "w1", 254)] {
        node.batch(&format!(
            "link add link {parent} name {parent}.7 type vlan id 7\nlink set {parent}.7 up\n\
             addr add 10.9.7.{number}/24 dev {parent}.7\n"
        ))?;
    }
    R.ip("route replace 172.16.1.0/24 via 10.9.7.1")?;
    let forgery = Forgery {
        what: "through the VLAN",
        source: "172.16.2.10:6000",
        destination: "172.16.1.10:5000",
    };
    forged(narrative, lab, &forgery);
    G1.ip("route replace default via 10.9.7.254")?;
    answered(narrative, "ping", "ha reaches hb through the VLAN", HA, &[], FAR);
    preserved(narrative, lab);
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    G1.ip("route replace default via 10.0.1.254")?;
    R.ip("route replace 172.16.1.0/24 via 10.0.1.1")?;
    G1.ip("link del wan.7").map(drop)
}
