//! The statements that scenarios share: each does something to the lab, looks, and says what it
//! found.

use crate::lab::nodes::Node;
use crate::lab::topology::{G1, G2, HA, HA_ADDRESS, HB, HB_ADDRESS, R, is_protected};
use crate::lab::{Lab, Moment};
use crate::observe::capture::Captured;
use crate::observe::esp;
use crate::observe::leak::{from_member, leaks};
use crate::observe::packet::{ESP, Packet, reassemble};
use crate::observe::states;
use crate::observe::states::State;
use crate::report::narrative::{Finding, Narrative};
use crate::traffic::{FORGED_MARKER, MARKER, value, word};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::time::Duration;

/// Sends echo requests; returns how many were sent and answered, and ping's own words.
///
/// # Errors
/// When ping cannot be started.
pub fn ping(node: Node, options: &[&str], target: &str) -> Result<(u64, u64, String)> {
    let output =
        node.output("ping", &[&["-n", "-i", "0.2", "-W", "1"], options, &[target]].concat())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let summary = text
        .lines()
        .find(|line| line.contains("packets transmitted"))
        .unwrap_or_default()
        .to_owned();
    let number = |position| {
        summary.split_whitespace().nth(position).and_then(|word: &str| word.parse().ok())
    };
    Ok((number(0).unwrap_or(0), number(3).unwrap_or(0), text))
}

/// Every echo request is answered.
pub fn answered(
    narrative: &mut Narrative,
    name: &'static str,
    text: &str,
    node: Node,
    options: &[&str],
    target: &str,
) {
    narrative.state(name, text, || {
        let (sent, answers, _) = ping(node, &[&["-c", "3"], options].concat(), target)?;
        Ok(Finding::new(sent > 0 && sent == answers, format!("{sent} requests, {answers} answers")))
    });
}

/// No echo request is answered, and a member sends nothing of the group into the core.
pub fn blocked(
    narrative: &mut Narrative,
    lab: &Lab,
    text: &str,
    node: Node,
    options: &[&str],
    target: &str,
) {
    narrative.state("blocked", text, || {
        let moment = lab.now()?;
        let (sent, answers, _) = ping(node, &[&["-c", "3"], options].concat(), target)?;
        let crossed = lab.core_since(moment)?;
        let group: Vec<&Captured> = crossed
            .iter()
            .filter(|captured| from_member(captured) && is_protected(captured.packet.destination))
            .collect();
        let mut evidence =
            format!("{sent} requests, {answers} answers, {} packets in the core", group.len());
        for captured in group.iter().take(4) {
            evidence.push_str(&format!("\n{}", captured.line()));
        }
        Ok(Finding::new(answers == 0 && group.is_empty(), evidence))
    });
}

/// A TCP transfer from one host to the other arrives octet for octet.
pub fn tcp(narrative: &mut Narrative, lab: &Lab, from: Node, to: Node, octets: u64) {
    let address = address_of(to);
    narrative.state(
        "tcp",
        &format!("{} octets over TCP from {} to {}", octets, from.0, to.0),
        || {
            let sink = lab.start_sink(to, "tcp-sink --port 5002 --silence-seconds 20")?;
            let line = lab.traffic(
                from,
                &format!("tcp-flow --to {address}:5002 --octets {octets} --seconds 60"),
            )?;
            sink.output(Duration::from_secs(20))?;
            let (received, milliseconds) =
                (value(&line, "received").unwrap_or(0), value(&line, "milliseconds").unwrap_or(0));
            Ok(Finding::new(
                received == octets,
                format!("{received} octets arrived unchanged in {milliseconds} ms"),
            ))
        },
    );
}

/// What a flow of numbered datagrams found.
#[derive(Debug, Clone)]
pub struct FlowReport {
    /// Datagrams the sender's kernel took.
    pub sent: u64,
    /// Different datagrams that arrived.
    pub received: u64,
    /// Datagrams that arrived more than once.
    pub duplicates: u64,
    /// The longest silence between two, in milliseconds.
    pub gap_milliseconds: u64,
    /// Number of the last datagram that arrived.
    pub last: u64,
    /// The first holes: numbers, and the time of day at which the next datagram arrived.
    pub missing: String,
}

impl FlowReport {
    /// Reads what the generator and the sink printed.
    ///
    /// # Errors
    /// When one of them did not print what is needed.
    pub fn read(sent: &str, received: &str) -> Result<Self> {
        let wanted = |line: &str, name: &str| {
            value(line, name).with_context(|| format!("no {name} in: {line}"))
        };
        Ok(Self {
            sent: wanted(sent, "sent")? + value(sent, "refused").unwrap_or(0),
            received: wanted(received, "received")?,
            duplicates: wanted(received, "duplicates")?,
            gap_milliseconds: wanted(received, "gap")?,
            last: wanted(received, "last")?,
            missing: word(received, "missing").unwrap_or_default().to_owned(),
        })
    }
}

impl std::fmt::Display for FlowReport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} sent, {} received, {} lost, {} duplicates, longest gap {} ms",
            self.sent,
            self.received,
            self.sent.saturating_sub(self.received),
            self.duplicates,
            self.gap_milliseconds
        )?;
        if !self.missing.is_empty() {
            write!(formatter, "\nmissing or late: {}", self.missing)?;
        }
        Ok(())
    }
}

/// Runs a flow from the first host to the second (port 6000 to port 5000) while something happens
/// to the lab.
///
/// # Errors
/// When the flow or what happens fails.
pub fn flow(
    lab: &mut Lab,
    count: u64,
    options: &str,
    meanwhile: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<FlowReport> {
    let sink = lab.start_sink(HB, "sink --port 5000 --silence-seconds 15")?;
    let sender = lab.start_traffic(
        HA,
        &format!("flow --to {HB_ADDRESS}:5000 --from-port 6000 --count {count} --pause-milliseconds 10 {options}"),
    )?;
    meanwhile(lab)?;
    let sent = sender.output(Duration::from_secs(120))?;
    let received = sink.output(Duration::from_secs(60))?;
    FlowReport::read(&sent, &received)
}

/// Runs a flow as [`flow`] does, for as long as what happens takes.
///
/// # Errors
/// As [`flow`].
pub fn flow_during(
    lab: &mut Lab,
    meanwhile: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<FlowReport> {
    let over = lab.file("over");
    let _ = std::fs::remove_file(&over);
    let happened = std::cell::Cell::new(Ok(()));
    let report = flow(lab, 0, &format!("--until {}", over.display()), |lab| {
        happened.set(meanwhile(lab));
        std::fs::write(&over, "")?;
        Ok(())
    });
    happened.into_inner()?;
    report
}

/// Sends datagrams from the first host to a UDP port of the second; returns how many arrived and
/// what the first member's LAN sent into the core meanwhile.
///
/// # Errors
/// When the flow fails.
pub fn to_port(lab: &Lab, port: u16, count: u64, size: usize) -> Result<(u64, Vec<Captured>)> {
    let moment = lab.now()?;
    let sink = lab.start_sink(HB, &format!("sink --port {port} --silence-seconds 4"))?;
    lab.traffic(
        HA,
        &format!(
            "flow --to {HB_ADDRESS}:{port} --count {count} --size {size} --pause-milliseconds 10"
        ),
    )?;
    let received = value(&sink.output(Duration::from_secs(30))?, "received").unwrap_or(0);
    let mut crossed = lab.core_since(moment)?;
    crossed.retain(|captured| from_member(captured) && captured.packet.source == HA_ADDRESS);
    Ok((received, crossed))
}

/// Since a moment members sent nothing of the group but ESP between the group's own addresses.
pub fn nothing_clear(narrative: &mut Narrative, lab: &Lab, moment: Moment, text: &str) {
    narrative.state("nothing-clear", text, || {
        let crossed = lab.core_since(moment)?;
        Ok(clear_count(&crossed, lab.plan.excluded_port))
    });
}

/// Counts what members sent in clear, the service aside that they never encrypt.
pub fn clear_count(crossed: &[Captured], excluded_port: Option<u16>) -> Finding {
    let members = crossed.iter().filter(|captured| from_member(captured)).count();
    let leaks = leaks(crossed, excluded_port);
    let mut evidence = format!(
        "{} clear packets in {members} packets that members sent into the core",
        leaks.len()
    );
    for leak in leaks.iter().take(6) {
        evidence.push_str(&format!("\n{}", leak.line()));
    }
    Finding::new(leaks.is_empty() && members > 0, evidence)
}

/// On the core links: ESP, one SPI, the hosts' own addresses outside.
pub fn preserved(narrative: &mut Narrative, lab: &Lab) {
    narrative.state(
        "preserved",
        "the core sees ESP only, one SPI, with the hosts' own addresses outside",
        || {
            let moment = lab.now()?;
            ping(HA, &["-c", "3"], &HB_ADDRESS.to_string())?;
            let crossed = lab.core_since(moment)?;
            let group: Vec<&Captured> = crossed
                .iter()
                .filter(|captured| from_member(captured))
                .filter(|captured| {
                    is_protected(captured.packet.source) || captured.packet.protocol == ESP
                })
                .collect();
            let spis: BTreeSet<u32> =
                group.iter().filter_map(|captured| captured.packet.spi()).collect();
            let hosts = [HA_ADDRESS, HB_ADDRESS];
            let foreign = group.iter().any(|captured| {
                let packet = &captured.packet;
                packet.protocol != ESP
                    || !hosts.contains(&packet.source)
                    || !hosts.contains(&packet.destination)
            });
            let lines: Vec<String> = group.iter().take(6).map(|captured| captured.line()).collect();
            Ok(Finding::new(group.len() >= 6 && spis.len() == 1 && !foreign, lines.join("\n")))
        },
    );
}

/// A packet forged in the core must not arrive behind a member.
pub struct Forgery {
    /// What is special about it.
    pub what: &'static str,
    /// Source address and port.
    pub source: &'static str,
    /// Destination address and port.
    pub destination: &'static str,
}

/// Forges clear packets in the core; they cross the core's link but never arrive.
pub fn forged(narrative: &mut Narrative, lab: &Lab, forgery: &Forgery) {
    let text = format!("clear packets from the core, {}, are dropped", forgery.what);
    narrative.state("forged", &text, || {
        let moment = lab.now()?;
        let line = format!(
            "forge --source {} --destination {} --count 5",
            forgery.source, forgery.destination
        );
        lab.traffic(R, &line)?;
        let is_forged = |captured: &&Captured| captured.packet.contains(FORGED_MARKER);
        let crossed = lab
            .core_since(moment)?
            .iter()
            .filter(|captured| captured.outgoing)
            .filter(is_forged)
            .count();
        let arrived: Vec<Captured> = [HA, HB]
            .into_iter()
            .map(|host| lab.host_since(host, moment))
            .collect::<Result<Vec<_>>>()?
            .concat()
            .iter()
            .filter(is_forged)
            .cloned()
            .collect();
        let mut evidence =
            format!("{crossed} crossed the core's link to the member, {} arrived", arrived.len());
        if let Some(first) = arrived.first() {
            evidence.push_str(&format!("\n{}", first.line()));
        }
        // The shared address of a member's own is checked by its guard's counter, since nobody
        // listens behind it. A VLAN's packets are captured on its parent as well.
        Ok(Finding::new(crossed >= 5 && arrived.is_empty(), evidence))
    });
}

/// Sum of the packets that counters with a drop in our tables counted on a member.
///
/// # Errors
/// When nft refuses.
pub fn guard_drops(node: Node) -> Result<u64> {
    let rules = node.run("nft", &["list", "ruleset"])?;
    let mut sum = 0;
    for line in rules.lines().filter(|line| line.contains("counter packets")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.contains(&"drop") {
            continue;
        }
        let counted = words
            .iter()
            .skip_while(|word| **word != "packets")
            .nth(1)
            .and_then(|word| word.parse::<u64>().ok());
        sum += counted.unwrap_or(0);
    }
    Ok(sum)
}

/// What was captured since a moment decrypts with the keys the kernel has, and says the same
/// addresses inside.
pub fn decrypts(narrative: &mut Narrative, lab: &Lab, known: &[State], moment: Moment) {
    narrative.state("decrypts", "the capture decrypts with the TEK in user space", || {
        let crossed = lab.core_since(moment)?;
        let sent: Vec<&Packet> = crossed
            .iter()
            .filter(|captured| from_member(captured) && captured.packet.protocol == ESP)
            .map(|captured| &captured.packet)
            .collect();
        let whole = reassemble(sent.iter().copied());
        let (mut opened, mut failures, mut ours) = (Vec::new(), Vec::new(), 0);
        for packet in &whole {
            match open_with_any(packet, known) {
                Ok(inner) if (inner.source, inner.destination) == (packet.source, packet.destination) => {
                    ours += usize::from(inner.contains(MARKER));
                    opened.push((packet, inner));
                }
                Ok(inner) => failures.push(format!("{packet}: inside is {inner}")),
                Err(error) => failures.push(format!("{packet}: {error:#}")),
            }
        }
        let mut evidence = format!(
            "{} ESP packets, {} opened with the same addresses inside, {} not; {ours} carry the flow's own text",
            whole.len(),
            opened.len(),
            failures.len()
        );
        for (outer, inner) in opened.iter().take(2) {
            evidence.push_str(&format!("\n{outer}\n  inside: {inner}"));
        }
        for failure in failures.iter().take(3) {
            evidence.push_str(&format!("\n{failure}"));
        }
        Ok(Finding::new(!opened.is_empty() && failures.is_empty() && ours > 0, evidence))
    });
}

fn open_with_any(packet: &Packet, known: &[State]) -> Result<Packet> {
    let spi = packet.spi().context("no SPI")?;
    let state = known.iter().find(|state| state.spi == spi);
    let Some(state) = state else { bail!("no key for SPI {spi:#x}") };
    esp::open(packet, state)
}

/// Shows the kernel's states and policies of both members, keys masked.
///
/// # Errors
/// When iproute2 refuses.
pub fn show_kernel(narrative: &mut Narrative) -> Result<()> {
    for node in [G1, G2] {
        narrative
            .show(&format!("{}: ip xfrm state", node.0), &states::mask(&node.ip("xfrm state")?));
        narrative.show(&format!("{}: ip xfrm policy", node.0), &node.ip("xfrm policy")?);
    }
    Ok(())
}

/// Both members have the same SPI and key: one state that sends, one that receives.
pub fn same_keys(narrative: &mut Narrative, lab: &Lab) {
    narrative.state(
        "same-keys",
        "both members hold the same TEK: one SPI, one key, one inbound and one outbound state each",
        || {
            let (first, second) = (lab.states(G1)?, lab.states(G2)?);
            let all: Vec<&State> = first.iter().chain(&second).collect();
            let one = all.first().context("no state")?;
            let same = all.iter().all(|state| {
                (state.spi, &state.encryption, &state.integrity, &state.combined)
                    == (one.spi, &one.encryption, &one.integrity, &one.combined)
            });
            let evidence = format!(
                "g1 has {} states, g2 {}; SPI {:#010x}",
                first.len(),
                second.len(),
                one.spi
            );
            Ok(Finding::new(same && first.len() == 2 && second.len() == 2, evidence))
        },
    );
}

pub fn address_of(host: Node) -> std::net::Ipv4Addr {
    if host == HA { HA_ADDRESS } else { HB_ADDRESS }
}
