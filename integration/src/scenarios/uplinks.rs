//! Uplinks that are more than a network card: a VLAN above a flowtable, GRE, IPv6 within IPv4, and a
//! VRF with a group whose policy is about everything.

use super::{Context, bring_up, close, registered};
use crate::lab::firewall::shortcuts;
use crate::lab::nodes::Node;
use crate::lab::plan::{Plan, PolicyLine, Tek};
use crate::lab::topology::{G1, G2, HA, HB, R, is_protected, server_address};
use crate::lab::{Lab, Moment};
use crate::observe::capture::Captured;
use crate::observe::leak::from_member;
use crate::observe::packet::{ESP, Packet};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{
    Forgery, answered, forged, guard_drops, nothing_clear, ping, preserved,
};
use crate::traffic::MARKER;
use anyhow::Result;
use std::time::{Duration, Instant};

const FAR: &str = "172.16.2.10";
const PROTECTED_IPV6: &str = "fd00:ac10::/32";
const GRE: u8 = 47;
const IPV6_IN_IPV4: u8 = 41;

/// First on one lab what leads around a guard of the uplink, then a group of everything on another.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let plan = Plan { protected_ipv6: Some(PROTECTED_IPV6), ..Plan::default() };
    let mut lab = context.build(plan)?;
    if flowtable_below_a_vlan(&mut lab, narrative)? {
        gre(&lab, narrative)?;
        ipv6_in_ipv4(&lab, narrative)?;
        segment_routing(&lab, narrative)?;
    }
    close(context, lab, narrative)?;
    everything_in_a_vrf(context, narrative)
}

/// The flowtable's hook is at the card, and sees a connection's packets before the VLAN does.
fn flowtable_below_a_vlan(lab: &mut Lab, narrative: &mut Narrative) -> Result<bool> {
    narrative.chapter("The uplink of g1 is a VLAN, and a flowtable has a connection below it");
    G1.batch(
        "link set wan down\nlink set wan name card\naddr flush dev card\nlink set card up\n\
         link add link card name wan type vlan id 7\nlink set wan up\n\
         addr add 10.0.1.1/24 dev wan\nroute replace default via 10.0.1.254\n",
    )?;
    R.batch(
        "link add link w1 name w1.7 type vlan id 7\nlink set w1.7 up\n\
         addr del 10.0.1.254/24 dev w1\naddr add 10.0.1.254/24 dev w1.7\n\
         route replace 172.16.1.0/24 via 10.0.1.1\n",
    )?;
    G1.nft(
        "table ip user {
             flowtable fast { hook ingress priority 0; devices = { lan, card }; }
             chain forward {
                 type filter hook forward priority filter; policy accept;
                 meta l4proto { tcp, udp } ct state established flow add @fast
             }
         }",
    )?;
    let flow = |node, to: &str, port| {
        lab.start_traffic(
            node,
            &format!("flow --to {to} --from-port {port} --seconds 90 --pause-milliseconds 50"),
        )
    };
    let flows = [flow(HA, "172.16.2.10:5000", 6000)?, flow(HB, "172.16.1.10:6000", 5000)?];
    narrative.state("shortcut", "a flow both ways is in the flowtable of g1", || {
        let started = Instant::now();
        while shortcuts(G1, 5000)? == 0 && started.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let shortcuts = shortcuts(G1, 5000)?;
        Ok(Finding::new(shortcuts > 0, format!("{shortcuts} connections")))
    });
    // g2 goes on sending in clear what hb sends.
    lab.start_member(0)?;
    let moment = lab.now()?;
    std::thread::sleep(Duration::from_secs(3));
    let of_flow = |captured: &&Captured| captured.packet.contains(MARKER);
    narrative.state(
        "nothing-clear",
        "from the moment g1 is ready nothing of it leaves g1 in clear",
        || {
            let crossed = lab.core_since(moment)?;
            let left = crossed
                .iter()
                .filter(of_flow)
                .filter(|captured| from_hosts_of_g1(captured))
                .count();
            let shortcuts = shortcuts(G1, 5000)?;
            let evidence =
                format!("{left} of {} packets; {shortcuts} in the flowtable", crossed.len());
            Ok(Finding::new(left == 0 && !crossed.is_empty(), evidence))
        },
    );
    narrative.state("nothing-arrives", "and nothing that hb sends in clear comes to ha", || {
        let sent = lab.host_since(HB, moment)?.iter().filter(of_flow).count();
        let arrived = lab.host_since(HA, moment)?;
        let arrived = arrived.iter().filter(of_flow).filter(|captured| !captured.outgoing).count();
        Ok(Finding::new(sent > 0 && arrived == 0, format!("{sent} sent, {arrived} arrived")))
    });
    drop(flows);
    lab.start_server(0)?;
    lab.start_member(1)?;
    let moment = lab.now()?;
    lab.guarded_from(moment);
    if !registered(lab, narrative, "both members are registered") {
        return Ok(false);
    }
    answered(narrative, "ping", "ha reaches hb through the VLAN", HA, &[], FAR);
    preserved(narrative, lab);
    G1.run("nft", &["delete", "table", "ip", "user"])?;
    nothing_clear(narrative, lab, moment, "members sent no clear packet");
    Ok(true)
}

fn from_hosts_of_g1(captured: &Captured) -> bool {
    from_member(captured) && captured.packet.source.octets()[2] == 1
}

/// Packets within packets that a member sent, by the protocol that says so.
fn wrapped(lab: &Lab, moment: Moment, protocol: u8, header: usize) -> Result<Vec<Packet>> {
    let crossed = lab.core_since(moment)?;
    let outer = crossed
        .iter()
        .filter(|captured| from_member(captured) && captured.packet.protocol == protocol);
    Ok(outer.filter_map(|one| Packet::read(one.packet.payload.get(header..)?)).collect())
}

/// The group's path is a tunnel that encrypts nothing.
fn gre(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("The group's path leads over GRE");
    let moment = lab.now()?;
    G1.batch(
        "link del wan2\nlink add wan2 type gre local 10.0.1.1 remote 10.0.1.254 ttl 64\n\
         link set wan2 up\naddr add 10.0.3.1/24 dev wan2\n\
         route add 172.16.0.0/12 via 10.0.3.254 dev wan2\n",
    )?;
    R.batch(
        "link add w9 type gre local 10.0.1.254 remote 10.0.1.1 ttl 64\nlink set w9 up\n\
         addr add 10.0.3.254/24 dev w9\nroute replace 172.16.1.0/24 via 10.0.3.1 dev w9\n",
    )?;
    let leads = |expected: [&str; 2]| -> Result<Finding> {
        let started = Instant::now();
        loop {
            let route = G1.ip("route show 192.0.2.1")?;
            let follows = expected.iter().all(|part| route.contains(part));
            if follows || started.elapsed() > Duration::from_secs(45) {
                return Ok(Finding::new(follows, route));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    };
    narrative.state("placeholder", "the placeholder's route is that of GRE, with its MTU", || {
        leads(["dev wan2 ", "mtu lock 1476"])
    });
    answered(narrative, "ping", "ha reaches hb over GRE", HA, &[], FAR);
    let largest = ["-M", "do", "-s", "1372"];
    narrative.state("too-big", "what fits into ESP and GRE passes whole, more is told so", || {
        ping(HA, &["-c", "2", "-M", "do", "-s", "1440"], FAR)?;
        let (_, answers, text) = ping(HA, &[&["-c", "3"][..], &largest].concat(), FAR)?;
        Ok(Finding::new(answers == 3, text))
    });
    let forgery = Forgery {
        what: "through GRE",
        source: "172.16.2.10:6000",
        destination: "172.16.1.10:5000",
    };
    forged(narrative, lab, &forgery);
    narrative.state(
        "nothing-clear",
        "within GRE there is ESP, and nothing else of the group",
        || {
            let inner = wrapped(lab, moment, GRE, 4)?;
            let group = |one: &&Packet| is_protected(one.source) || is_protected(one.destination);
            let (esp, clear): (Vec<_>, Vec<_>) =
                inner.iter().filter(group).partition(|one| one.protocol == ESP);
            let mut evidence = format!("{} ESP packets, {} others", esp.len(), clear.len());
            for packet in clear.iter().take(4) {
                evidence.push_str(&format!("\n{packet}"));
            }
            Ok(Finding::new(esp.len() >= 6 && clear.is_empty(), evidence))
        },
    );
    G1.ip("link set wan2 down")?;
    R.ip("route replace 172.16.1.0/24 via 10.0.1.1")?;
    answered(narrative, "ping", "without GRE ha reaches hb by the VLAN", HA, &[], FAR);
    narrative.state("placeholder", "and the placeholder's route follows", || {
        leads(["dev wan ", "mtu lock 1500"])
    });
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    R.ip("link del w9")?;
    G1.ip("link del wan2").map(drop)
}

/// Addresses and the switch of IPv6 on nodes that have none in other scenarios.
fn with_ipv6(node: Node, lines: &str) -> Result<()> {
    node.sysctl(&["net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.disable_ipv6=0"])?;
    node.batch(lines)
}

/// 6in4 to the core: its packets arrive by an interface that nobody has named.
fn ipv6_in_ipv4(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("IPv6 within IPv4 leads from g1 to the core");
    with_ipv6(
        HA,
        "addr add fd00:ac10:1::10/64 dev eth0 nodad\nroute add default via fd00:ac10:1::1\n",
    )?;
    with_ipv6(
        G1,
        "addr add fd00:ac10:1::1/64 dev lan nodad\n\
         link add six type sit local 10.0.1.1 remote 10.0.1.254 ttl 64\nlink set six up\n\
         addr add fd00:6::1/64 dev six nodad\nroute add default via fd00:6::2 dev six\n",
    )?;
    with_ipv6(
        R,
        "link add six type sit local 10.0.1.254 remote 10.0.1.1 ttl 64\nlink set six up\n\
         addr add fd00:6::2/64 dev six nodad\naddr add fd00:ac10:2::10/128 dev lo nodad\n\
         route add fd00:ac10:1::/64 via fd00:6::1 dev six\n",
    )?;
    G1.sysctl(&["net.ipv6.conf.all.forwarding=1"])?;
    answered(narrative, "unrelated", "the core reaches ha through it", R, &[], "fd00:ac10:1::10");
    for (text, node, options, target) in [
        (
            "with a source of the group it does not",
            R,
            &["-I", "fd00:ac10:2::10"][..],
            "fd00:ac10:1::10",
        ),
        ("and ha does not reach that address", HA, &[], "fd00:ac10:2::10"),
    ] {
        let moment = lab.now()?;
        narrative.state("blocked", text, || {
            let before = guard_drops(G1)?;
            let (sent, answers, _) = ping(node, &[&["-c", "3"], options].concat(), target)?;
            let dropped = guard_drops(G1)? - before;
            let crossed = lab.core_since(moment)?;
            let left = crossed.iter().filter(|captured| {
                from_member(captured) && captured.packet.protocol == IPV6_IN_IPV4
            });
            let left = left.count();
            let evidence = format!(
                "{sent} requests, {answers} answers, {dropped} dropped, {left} packets of g1 in the core"
            );
            // What ha sends is stopped by a policy already.
            let stopped = node == HA || dropped >= 3;
            Ok(Finding::new(answers == 0 && stopped && left == 0, evidence))
        });
    }
    G1.ip("link del six")?;
    R.ip("link del six").map(drop)
}

/// A route that wraps what comes in takes it past every hook, unless the kernel is told otherwise.
fn segment_routing(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("The route of g1 to the group wraps packets in a segment route");
    for (node, interface, number) in [(G1, "wan", 1), (R, "w1.7", 2)] {
        with_ipv6(node, &format!("addr add fd00:201::{number}/64 dev {interface} nodad\n"))?;
    }
    R.nft(
        "table ip6 user {
             chain segments { type filter hook prerouting priority raw; ip6 nexthdr 43 counter; }
         }",
    )?;
    let arrived = || -> Result<bool> {
        let table = R.run("nft", &["list", "table", "ip6", "user"])?;
        Ok(!table.contains("counter packets 0 "))
    };
    let moment = lab.now()?;
    G1.ip("route add 172.16.0.0/12 encap seg6 mode encap segs fd00:201::2 dev wan")?;
    narrative.state("wrapped", "g1 names it as a problem", || {
        let started = Instant::now();
        loop {
            let shown = lab.show_text(G1, &["member"])?;
            let named = shown.contains("wraps packets of hosts in another header");
            if named || started.elapsed() > Duration::from_secs(45) {
                return Ok(Finding::new(named, shown));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    // Otherwise the statement behind it would prove nothing.
    narrative.state("wrapped", "what ha sends leaves like that", || {
        ping(HA, &["-c", "2"], FAR)?;
        Ok(Finding::new(arrived()?, ""))
    });
    // Stays so until the machine ends.
    G1.sysctl(&["net.netfilter.nf_hooks_lwtunnel=1"])?;
    R.run("nft", &["flush", "chain", "ip6", "user", "segments"])?;
    R.run("nft", &["add", "rule", "ip6", "user", "segments", "ip6", "nexthdr", "43", "counter"])?;
    narrative.state("wrapped", "with nf_hooks_lwtunnel the guards of g1 drop it", || {
        let before = guard_drops(G1)?;
        let (sent, answers, _) = ping(HA, &["-c", "3"], FAR)?;
        let (dropped, left) = (guard_drops(G1)? - before, arrived()?);
        let evidence =
            format!("{sent} requests, {answers} answers, {dropped} dropped, left: {left}");
        Ok(Finding::new(dropped >= 3 && !left, evidence))
    });
    G1.ip("route del 172.16.0.0/12 encap seg6 mode encap segs fd00:201::2 dev wan")?;
    answered(narrative, "ping", "without that route ha reaches hb", HA, &[], FAR);
    nothing_clear(narrative, lab, moment, "members sent no clear packet that is not wrapped");
    R.run("nft", &["delete", "table", "ip6", "user"]).map(drop)
}

/// Whatever crosses g2 is the group's, and only g2's own interfaces tell inside from outside.
fn everything_in_a_vrf(context: &Context, narrative: &mut Narrative) -> Result<()> {
    const ANY: &str = "any";
    narrative.chapter("A policy from everything to everything, and g2 in a VRF");
    let lines = vec![PolicyLine { source: ANY, destination: ANY, service: None }];
    let teks = vec![Tek { lines, ..Tek::default() }];
    let mut lab = context.build(Plan { teks, ..Plan::default() })?;
    G2.batch(
        "link add blue type vrf table 10\nlink set blue up\n\
         link set lan master blue\nlink set wan master blue\n\
         route add default via 10.0.2.254 dev wan table 10\n",
    )?;
    if !bring_up(&mut lab, narrative)? {
        return close(context, lab, narrative);
    }
    answered(narrative, "vrf", "ha reaches hb", HA, &[], FAR);
    answered(narrative, "vrf", "hb reaches ha", HB, &[], "172.16.1.10");
    answered(narrative, "vrf", "hb reaches its own router", HB, &[], "172.16.2.1");
    let server = server_address(2);
    let clear = |lab: &Lab, what: &str, narrative: &mut Narrative| {
        let text = format!("{what} nothing that hb sends to s3 leaves g2 in clear");
        narrative.state("nothing-clear", &text, || {
            let moment = lab.now()?;
            let (sent, answers, _) = ping(HB, &["-c", "3"], &server)?;
            let crossed = lab.core_since(moment)?;
            let from_hb = |one: &&Captured| from_member(one) && is_protected(one.packet.source);
            let (esp, clear): (Vec<_>, Vec<_>) =
                crossed.iter().filter(from_hb).partition(|one| one.packet.protocol == ESP);
            let evidence = format!(
                "{sent} requests, {answers} answers; {} ESP packets, {} in clear",
                esp.len(),
                clear.len()
            );
            Ok(Finding::new(sent == 3 && answers == 0 && clear.is_empty(), evidence))
        });
    };
    clear(&lab, "with keys", narrative);
    let forgery = Forgery {
        what: "into the VRF, from an address outside of the protected prefixes",
        source: "198.51.100.7:6000",
        destination: "172.16.2.10:5000",
    };
    forged(narrative, &lab, &forgery);
    // Nothing repairs what is flushed while the daemon is dead.
    lab.kill_member(1)?;
    G2.ip("xfrm policy flush")?;
    clear(&lab, "with the policies flushed and the daemon dead", narrative);
    forged(narrative, &lab, &forgery);
    // ESP to whatever address is the policy's doing here, and would count as a leak.
    match context.keep {
        true => lab.leave_running().map(drop),
        false => lab.finish().map(drop),
    }
}
