//! What else a router does beside the group: another IPsec tunnel, policy routing, a full routing
//! table with a neighbour that flaps, a second uplink with a smaller MTU, a VRF.

use super::rekey::multicast_everywhere;
use super::{Context, bring_up, close, registered};
use crate::lab::Lab;
use crate::lab::nodes::Node;
use crate::lab::plan::{Plan, Rekey};
use crate::lab::topology::{G1, G2, G3, HA, HB, R, SERVERS};
use crate::observe::leak::TUNNEL_SPIS;
use crate::observe::pushes::rekey;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{Forgery, answered, forged, guard_drops, nothing_clear, ping};
use anyhow::{Context as _, Result};
use std::fmt::Write;
use std::time::{Duration, Instant};

const FAR: &str = "172.16.2.10";
/// The host of a partner, whose gateway is no member here, inside the protected prefix.
const PARTNER: &str = "172.16.3.10";
const PARTNERS_NETWORK: &str = "172.16.3.0/24";
/// The ends of the tunnel to it.
const OWN_END: &str = "10.0.1.1";
const PARTNERS_END: &str = "10.0.5.1";
/// The interfaces are looked at so often without an event.
const NOTICED_WITHIN: Duration = Duration::from_secs(45);

/// All of them on one lab.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let rekey = Some(Rekey { multicast: true, ..Rekey::default() });
    let mut lab = context.build(Plan { rekey, ..Plan::default() })?;
    multicast_everywhere()?;
    if !bring_up(&mut lab, narrative)? {
        return close(context, lab, narrative);
    }
    partner(&mut lab, narrative)?;
    rule_by_input(&lab, narrative)?;
    smaller_uplink(&lab, narrative)?;
    full_table(&lab, narrative)?;
    within_a_vrf(&mut lab, narrative)?;
    close(context, lab, narrative)
}

/// What `gdoictl show member` says about `what`, as soon as it does.
fn problem(lab: &Lab, node: Node, what: &str) -> Result<Finding> {
    let started = Instant::now();
    loop {
        let shown = lab.show_text(node, &["member"])?;
        let line = shown.lines().find(|line| line.contains(what)).map(str::to_owned);
        if let Some(line) = line {
            let seconds = started.elapsed().as_secs();
            return Ok(Finding::new(true, format!("after {seconds} s: {}", line.trim())));
        }
        if started.elapsed() > NOTICED_WITHIN {
            return Ok(Finding::new(false, shown));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The keys of the partner's tunnel; they protect nothing but this lab.
const TUNNEL_KEYS: &str = "enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f auth-trunc hmac(sha256) \
    0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 128";
/// What strongSwan computes for two prefixes of 24 bits.
const TUNNEL_PRIORITY: u32 = 371_327;

/// The tunnel on one of its ends.
fn tunnel(own: &str, far: &str, own_net: &str, far_net: &str) -> String {
    let mut lines = String::new();
    let [to, back] = TUNNEL_SPIS;
    for (source, destination, spi) in [(OWN_END, PARTNERS_END, to), (PARTNERS_END, OWN_END, back)] {
        let _ = writeln!(
            lines,
            "xfrm state add src {source} dst {destination} proto esp spi {spi} reqid 7 mode tunnel {TUNNEL_KEYS}"
        );
    }
    for (direction, from, to, source, destination) in [
        ("out", own_net, far_net, own, far),
        ("in", far_net, own_net, far, own),
        ("fwd", far_net, own_net, far, own),
    ] {
        let _ = writeln!(
            lines,
            "xfrm policy add dir {direction} src {from} dst {to} priority {TUNNEL_PRIORITY} \
             tmpl src {source} dst {destination} proto esp reqid 7 mode tunnel"
        );
    }
    lines
}

/// The same lines, taken back.
fn without_tunnel(own_net: &str, far_net: &str) -> String {
    let [to, back] = TUNNEL_SPIS;
    format!(
        "xfrm policy delete dir out src {own_net} dst {far_net}\n\
         xfrm policy delete dir in src {far_net} dst {own_net}\n\
         xfrm policy delete dir fwd src {far_net} dst {own_net}\n\
         xfrm state delete src {OWN_END} dst {PARTNERS_END} proto esp spi {to}\n\
         xfrm state delete src {PARTNERS_END} dst {OWN_END} proto esp spi {back}\n"
    )
}

/// Somebody else's tunnel inside the protected prefix: it keeps its traffic if that is excluded,
/// and is reported if not.
fn partner(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("g1 has a tunnel to a partner inside the protected prefix");
    let own_net = "172.16.1.0/24";
    G3.batch(&tunnel(PARTNERS_END, OWN_END, PARTNERS_NETWORK, own_net))?;
    G1.batch(&tunnel(OWN_END, PARTNERS_END, own_net, PARTNERS_NETWORK))?;
    let moment = lab.now()?;
    narrative.state(
        "foreign-policy",
        "without an exclude rule ha cannot reach the partner",
        || {
            let (sent, answers, _) = ping(HA, &["-c", "3"], PARTNER)?;
            Ok(Finding::new(answers == 0, format!("{sent} requests, {answers} answers")))
        },
    );
    narrative.state("foreign-policy", "and g1 names the reason as a problem", || {
        problem(lab, G1, "matched by an XFRM policy of another program")
    });
    answered(narrative, "ping", "ha reaches hb", HA, &[], FAR);
    lab.change(|plan| plan.excluded_networks = Some((own_net, PARTNERS_NETWORK)))?;
    std::thread::sleep(Duration::from_secs(3));
    answered(narrative, "foreign-policy", "with one ha reaches the partner", HA, &[], PARTNER);
    narrative.state("foreign-policy", "by the tunnel", || {
        let [to, _] = TUNNEL_SPIS;
        let of = format!("src {OWN_END} dst {PARTNERS_END} proto esp spi {to}");
        let state = G3.ip(&format!("-s xfrm state get {of}"))?;
        let mut lines = state.lines().map(str::trim);
        let carried =
            lines.find(|line| line.starts_with(char::is_numeric) && line.contains("(packets)"));
        let carried = carried.context("no counters")?;
        Ok(Finding::new(!carried.starts_with("0("), carried.to_owned()))
    });
    answered(narrative, "ping", "ha reaches hb", HA, &[], FAR);
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    lab.change(|plan| plan.excluded_networks = None)?;
    G1.batch(&without_tunnel(own_net, PARTNERS_NETWORK))?;
    G3.batch(&without_tunnel(PARTNERS_NETWORK, own_net))
}

/// ESP is the router's own: a rule about what arrives by the LAN does not see it.
fn rule_by_input(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("A routing rule on g1 is about what arrives by the LAN");
    G1.ip("rule add iif lan lookup main pref 500")?;
    narrative.state("rule", "g1 names it as a problem", || {
        problem(lab, G1, "a routing rule is about what arrives by lan")
    });
    answered(narrative, "ping", "ha reaches hb", HA, &[], FAR);
    G1.ip("rule del iif lan lookup main pref 500").map(drop)
}

/// The MTU of the group's path is that of the uplink which its routes take.
fn smaller_uplink(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("The group's route leads over the second uplink, which has a smaller MTU");
    let moment = lab.now()?;
    G1.ip("link set wan2 mtu 1400")?;
    R.ip("link set w3 mtu 1400")?;
    G1.ip("route add 172.16.0.0/12 via 10.0.3.254")?;
    R.ip("route replace 172.16.1.0/24 via 10.0.3.1")?;
    narrative.state("placeholder", "the placeholder's route follows it", || {
        let started = Instant::now();
        loop {
            let route = G1.ip("route show 192.0.2.1")?;
            let follows =
                route.contains("via 10.0.3.254 dev wan2") && route.contains("mtu lock 1400");
            if follows || started.elapsed() > NOTICED_WITHIN {
                return Ok(Finding::new(follows, route));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    narrative.state("too-big", "g1 tells ha the MTU that fits, and a packet of it arrives", || {
        let (_, _, text) = ping(HA, &["-c", "2", "-M", "do", "-s", "1372"], FAR)?;
        let (_, answers, _) = ping(HA, &["-c", "3", "-M", "do", "-s", "1290"], FAR)?;
        let told = text.lines().find(|line| line.contains("mtu")).unwrap_or_default().to_owned();
        let value = told
            .rsplit(['=', ' ', ')'])
            .find_map(|word| word.trim_end_matches(')').parse::<u32>().ok());
        let fits = value.is_some_and(|value| value < 1400);
        Ok(Finding::new(fits && answers == 3, format!("{told}\n{answers} of 3 answers")))
    });
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    R.ip("route replace 172.16.1.0/24 via 10.0.1.1")?;
    G1.ip("route del 172.16.0.0/12 via 10.0.3.254")?;
    G1.ip("link set wan2 mtu 1500")?;
    R.ip("link set w3 mtu 1500").map(drop)
}

const ROUTES: u32 = 30_000;
/// So long a prefix flaps, and so often in a second.
const FLAPS_FOR: Duration = Duration::from_secs(10);
const FLAPS_PER_SECOND: u32 = 5;

/// Routes of others concern nobody.
fn full_table(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter(&format!("g1 has {ROUTES} routes, and one of them flaps"));
    let member = lab.member(0).context("g1 does not run")?.id();
    let all = |what: &str| -> String {
        let line = |n: u32| {
            let (a, b) = (n / 250, n % 250);
            format!(
                "route {what} 100.{}.{}.{b}/32 via 10.0.1.254 proto bgp\n",
                64 + a / 250,
                a % 250
            )
        };
        (0..ROUTES).map(line).collect()
    };
    let before = processor_seconds(member)?;
    G1.batch(&all("add"))?;
    let loaded = processor_seconds(member)?;
    narrative.state(
        "full-table",
        "loading them costs the agent less than 2 s of processor",
        || {
            let used = loaded - before;
            Ok(Finding::new(used < 2.0, format!("{used:.2} s")))
        },
    );
    narrative.state("full-table", "the agent uses less than 5 % of a processor meanwhile", || {
        let started = Instant::now();
        let mut flaps = 0;
        while started.elapsed() < FLAPS_FOR {
            G1.batch(
                "route del 100.64.0.7/32\nroute add 100.64.0.7/32 via 10.0.1.254 proto bgp\n",
            )?;
            flaps += 1;
            std::thread::sleep(Duration::from_secs(1) / FLAPS_PER_SECOND);
        }
        let took = started.elapsed().as_secs_f64();
        let used = processor_seconds(member)? - loaded;
        let evidence = format!(
            "{used:.2} s of processor in {took:.1} s, {flaps} flaps; {:.1} %",
            used / took * 100.0
        );
        Ok(Finding::new(flaps >= 5 && used / took < 0.05, evidence))
    });
    narrative.state("full-table", "it answers gdoictl within 2 s", || {
        let started = Instant::now();
        lab.show_text(G1, &["member"])?;
        let took = started.elapsed();
        Ok(Finding::new(took < Duration::from_secs(2), format!("{} ms", took.as_millis())))
    });
    answered(narrative, "ping", "ha reaches hb", HA, &[], FAR);
    G1.batch(&all("del"))
}

/// User and system time of a process.
fn processor_seconds(id: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("no such line")?;
    let number = |position| -> Option<f64> { rest.split_whitespace().nth(position)?.parse().ok() };
    let ticks = number(11).zip(number(12)).map(|(user, system)| user + system);
    // 100 ticks a second on every Linux of today.
    Ok(ticks.context("no times")? / 100.0)
}

/// A push by multicast arrives within this time, or not at all.
const PUSHED_WITHIN: Duration = Duration::from_secs(30);

/// LAN, WAN and the way to the key servers lie in a VRF, and no option says so.
fn within_a_vrf(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("LAN and WAN of g2 are in a VRF");
    lab.stop_member(1)?;
    G2.batch(
        "link add blue type vrf table 10\nlink set blue up\n\
         link set lan master blue\nlink set wan master blue\n\
         route add default via 10.0.2.254 dev wan table 10\n",
    )?;
    lab.start_member(1)?;
    if !registered(lab, narrative, "g2 registers through the VRF") {
        return Ok(());
    }
    let moment = lab.now()?;
    answered(narrative, "vrf", "ha reaches hb", HA, &[], FAR);
    answered(narrative, "vrf", "hb reaches ha", HB, &[], "172.16.1.10");
    answered(narrative, "vrf", "hb reaches its own router", HB, &[], "172.16.2.1");
    narrative.state("vrf", "the placeholder's route is in the table of the VRF, alone", || {
        let (own, main) = (G2.ip("route show table 10")?, G2.ip("route show table main")?);
        let holds = own.contains("192.0.2.1 via 10.0.2.254") && !main.contains("192.0.2.1");
        Ok(Finding::new(holds, own))
    });
    forged(
        narrative,
        lab,
        &Forgery {
            what: "into the VRF",
            source: "172.16.1.99:6000",
            destination: "172.16.2.10:5000",
        },
    );
    forwarded_port(lab, narrative)?;
    narrative.state("vrf", "a push by multicast reaches g2 there", || {
        let started = Instant::now();
        let spi = rekey(lab, SERVERS[0], &[G1, G2], PUSHED_WITHIN)?;
        let took = started.elapsed().as_secs_f32();
        Ok(Finding::new(true, format!("SPI {spi:#010x} after {took:.1} s")))
    });
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

/// The translation hides the packet from the first look, and the device of the VRF, which LAN and
/// WAN share, is what it arrives by at the second.
fn forwarded_port(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    G2.nft(
        "table ip user {
             chain forward_port {
                 type nat hook prerouting priority dstnat; policy accept;
                 iifname wan udp dport 9999 counter dnat to 172.16.2.10:5000
             }
         }",
    )?;
    let before = guard_drops(G2)?;
    let forgery = Forgery {
        what: "to a port of g2 that is forwarded into the VRF, with a source of the group",
        source: "172.16.1.99:6000",
        destination: "10.0.2.1:9999",
    };
    forged(narrative, lab, &forgery);
    narrative.state("vrf", "the port was forwarded, and g2's guard dropped that", || {
        let dropped = guard_drops(G2)? - before;
        let table = G2.run("nft", &["list", "table", "ip", "user"])?;
        let forwarded = table.contains("counter packets") && !table.contains("counter packets 0 ");
        Ok(Finding::new(forwarded && dropped >= 5, format!("{dropped} dropped\n{table}")))
    });
    G2.run("nft", &["delete", "table", "ip", "user"]).map(drop)
}
