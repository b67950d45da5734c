//! Site-to-site tunnels with strongSwan: the agent on g1, charon on g2, a host behind each.

pub(super) mod ends;

use self::ends::{AGREED, EXTENDED, Ends, KEY, STRONG, TRANSPORT, ours, theirs};
use super::leaks::{MASQUERADE, port_forward, raw_socket, unload};
use super::{Context, no_errors};
use crate::lab::Lab;
use crate::lab::daemons::{Daemon, write_secret};
use crate::lab::nodes::Node;
use crate::lab::peers::IkePeer;
use crate::lab::peers::strongswan::StrongSwan;
use crate::lab::plan::Plan;
use crate::lab::topology::{G1, G2, HA, HA_ADDRESS, HB, HB_ADDRESS, is_protected, server_address};
use crate::observe::packet::ESP;
use crate::report::listed;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{FlowReport, answered, flow, flow_during, nothing_clear, ping};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::time::{Duration, Instant};

/// A negotiation is over within this time, also where the processor is emulated.
const WITHIN: Duration = Duration::from_secs(40);

pub(super) struct Play<'l, P = StrongSwan> {
    pub(super) lab: &'l mut Lab,
    agent: Daemon,
    pub(super) charon: P,
}

/// Plays everything with one agent and one charon: each change is a reload.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    play_with(context, narrative, |play, narrative| {
        play.agreements(narrative);
        play.modes(narrative);
        play.rekeys(narrative);
        play.mishaps(narrative);
        play.beside_other_software(narrative)?;
        play.refusals(narrative);
        Ok(())
    })
}

/// Plays `chapters` between the start of both daemons and their end.
pub(super) fn play_with(
    context: &Context,
    narrative: &mut Narrative,
    chapters: impl FnOnce(&mut Play<'_>, &mut Narrative) -> Result<()>,
) -> Result<()> {
    narrative.chapter("The agent on g1, strongSwan's charon on g2");
    let start = |lab: &Lab| StrongSwan::start(G2, &lab.file(""));
    play_beside(context, narrative, start, &theirs(&STRONG), chapters)
}

/// The same with another peer and its configuration.
pub(super) fn play_beside<P: IkePeer>(
    context: &Context,
    narrative: &mut Narrative,
    start: impl FnOnce(&Lab) -> Result<P>,
    theirs: &str,
    chapters: impl FnOnce(&mut Play<'_, P>, &mut Narrative) -> Result<()>,
) -> Result<()> {
    let mut lab = context.build(Plan::default())?;
    let charon = start(&lab)?;
    charon.load(theirs)?;
    write_secret(&lab.file("tunnel.psk"), KEY)?;
    std::fs::write(lab.file("g1.toml"), ours(&lab, &STRONG, "now"))?;
    let agent = Daemon::start(
        &context.binaries().join("gdoi-agent"),
        G1,
        &lab.file("g1.toml"),
        &lab.file(""),
        &[],
    )?;
    let moment = lab.now()?;
    let mut play = Play { lab: &mut lab, agent, charon };
    chapters(&mut play, narrative)?;
    let Play { agent, charon, .. } = play;
    narrative.state("nothing-clear", "meanwhile no clear packet of the networks crossed", || {
        let crossed = lab.core_since(moment)?;
        let clear = crossed
            .iter()
            .filter(|one| is_protected(one.packet.source) && is_protected(one.packet.destination));
        let (clear, all) = (clear.count(), crossed.len());
        Ok(Finding::new(clear == 0 && all > 0, format!("{clear} of {all} packets")))
    });
    let errors = lab.errors();
    narrative.state("stopped", "the agent ends in order; its policies go on dropping", || {
        agent.stop()?;
        let (sent, answers, _) = ping(HA, &["-c", "2"], &HB_ADDRESS.to_string())?;
        let states = G1.ip("xfrm state")?;
        let policies = G1.ip("xfrm policy")?.matches("172.16.2.0/24").count();
        let evidence = format!("{answers} of {sent} answered, {policies} lines of policies");
        Ok(Finding::new(answers == 0 && states.is_empty() && policies > 0, evidence))
    });
    no_errors(narrative, &errors);
    drop(charon);
    if context.keep {
        lab.leave_running()?;
    } else {
        lab.finish()?;
    }
    Ok(())
}

impl Play<'_> {
    /// Every configuration in both roles.
    fn agreements(&mut self, narrative: &mut Narrative) {
        narrative.chapter("What both sides agree on, each begun by either");
        for ends in AGREED {
            let text = format!("{}: begun by the agent", ends.what);
            narrative.state("tunnel", &text, || {
                self.change(ends, "now")?;
                self.carries(true)
            });
            let text = format!("{}: begun by strongSwan", ends.what);
            narrative.state("tunnel", &text, || {
                self.change(ends, "answer")?;
                let began = self.charon.initiate("net")?;
                let finding = self.carries(true)?;
                Ok(Finding::new(finding.holds && began, finding.evidence))
            });
        }
        if let Ok(text) = self.lab.show_text(G1, &["tunnel", "detail"]) {
            narrative.show("gdoictl show tunnel detail", &text);
        }
    }

    /// What an SA between two peers can have beside algorithms.
    fn modes(&mut self, narrative: &mut Narrative) {
        narrative.chapter("Sequence numbers of 64 bits, one protocol, transport mode");
        for start in ["now", "answer"] {
            narrative.state("esn", &format!("{}, start = {start}", EXTENDED.what), || {
                self.change(&EXTENDED, start)?;
                if start == "answer" {
                    self.charon.initiate("net")?;
                }
                let finding = self.carries(true)?;
                let count = |node: Node| {
                    let states = node.ip("xfrm state")?;
                    // Not "anti-replay esn context", which is the form of a wide window.
                    let is_extended =
                        |line: &&str| line.contains(" flag ") && line.trim_end().ends_with(" esn");
                    Ok::<_, anyhow::Error>(states.lines().filter(is_extended).count())
                };
                let extended = [count(G1)?, count(G2)?];
                let evidence = format!("{}; {} SAs", finding.evidence, listed(extended));
                Ok(Finding::new(finding.holds && extended == [2, 2], evidence))
            });
        }
        narrative.state("protocol", "ICMP alone goes through the tunnel", || {
            let alone = Ends { tunnel: "protocol = 1", networks: "172.16.2.0/24[icmp]", ..STRONG };
            self.change(&alone, "now")?;
            let finding = self.carries(true)?;
            let policies = G1.ip("xfrm policy")?.matches("proto icmp").count();
            Ok(Finding::new(
                finding.holds && policies == 3,
                format!("{}; {policies} policies", finding.evidence),
            ))
        });
        for start in ["now", "answer"] {
            narrative.state("transport", &format!("{}, start = {start}", TRANSPORT.what), || {
                self.change(&TRANSPORT, start)?;
                if start == "answer" {
                    self.charon.initiate("net")?;
                }
                let state = self.wait_state(|state| state == "active")?;
                let moment = self.lab.now()?;
                let answers = pings(G1, "10.0.2.1")?;
                let crossed = self.lab.core_since(moment)?;
                let packets = crossed.iter().filter(|one| one.packet.protocol == ESP).count();
                let modes = G1.ip("xfrm state")?.matches("mode transport").count();
                let evidence = format!(
                    "{state}; {answers} of 3 answers, {packets} ESP packets seen, {modes} SAs"
                );
                Ok(Finding::new(
                    state == "active" && answers == 3 && packets >= 6 && modes == 2,
                    evidence,
                ))
            });
        }
    }

    fn rekeys(&mut self, narrative: &mut Narrative) {
        narrative.chapter("New keys under load");
        let short = Ends { what: "", tunnel: "lifetime = \"60s\"", ..STRONG };
        narrative.state("rekey", "the agent renews SAs of 60 seconds: nothing is lost", || {
            self.change(&short, "now")?;
            self.carries(true)?;
            let before = self.spis()?;
            let report = flow_during(self.lab, |_| {
                std::thread::sleep(Duration::from_secs(75));
                Ok(())
            })?;
            Ok(rekeyed(&report, &before, &self.spis()?))
        });
        narrative.state("rekey", "strongSwan renews three times: nothing is lost", || {
            self.change(&STRONG, "answer")?;
            self.charon.initiate("net")?;
            self.carries(true)?;
            let before = self.spis()?;
            let charon = &self.charon;
            let report = flow_during(self.lab, |_| {
                for _ in 0..3 {
                    std::thread::sleep(Duration::from_secs(4));
                    charon.rekey(&["--child", "net"])?;
                }
                std::thread::sleep(Duration::from_secs(4));
                Ok(())
            })?;
            Ok(rekeyed(&report, &before, &self.spis()?))
        });
    }

    /// What happens when the peer goes, and what happens by volume.
    fn mishaps(&mut self, narrative: &mut Narrative) {
        narrative.chapter("A peer that goes and comes back; a lifetime in kilobytes");
        narrative.state(
            "kilobytes",
            "after 2 MB of 1 MB there are new SAs: nothing is lost",
            || {
                let small = Ends { tunnel: "lifetime-kilobytes = 1024", ..STRONG };
                self.change(&small, "now")?;
                self.carries(true)?;
                let before = self.spis()?;
                let report = flow(self.lab, 1500, "--size 1300", |_| Ok(()))?;
                Ok(rekeyed(&report, &before, &self.spis()?))
            },
        );
        let text = "charon frozen: the agent notices within half a minute and drops, then takes it up again";
        narrative.state("dead-peer", text, || {
            let quick = Ends { tunnel: "dead-peer-interval = \"3s\"", ..STRONG };
            self.change(&quick, "now")?;
            self.carries(true)?;
            self.charon.freeze()?;
            let state = self.wait_state(|state| state != "active")?;
            let states = G1.ip("xfrm state")?.matches("spi 0x").count();
            self.charon.thaw()?;
            let back = self.carries(true)?;
            let evidence = format!("{state}; then {}", back.evidence);
            Ok(Finding::new(state != "active" && states <= 1 && back.holds, evidence))
        });
        narrative.state(
            "traffic",
            "start = \"traffic\": the first packet begins the tunnel",
            || {
                self.change(&STRONG, "traffic")?;
                std::thread::sleep(Duration::from_secs(3));
                let before = self.wait_state(|state| state.contains("waits for traffic"))?;
                let _ = pings(HA, &HB_ADDRESS.to_string())?;
                let back = self.carries(true)?;
                let holds = before.contains("waits for traffic") && back.holds;
                Ok(Finding::new(holds, format!("{before}; then {}", back.evidence)))
            },
        );
        narrative.state("restart", "charon restarted: the tunnel comes back", || {
            self.charon.restart()?;
            self.charon.load(&theirs(&STRONG))?;
            self.charon.initiate("net")?;
            self.carries(true)
        });
    }

    /// What the policies of XFRM alone would let pass.
    fn beside_other_software(&mut self, narrative: &mut Narrative) -> Result<()> {
        narrative.chapter("A masquerade on g1 that exempts nothing");
        let quick = Ends { tunnel: "dead-peer-interval = \"3s\"", ..STRONG };
        self.change(&quick, "now")?;
        let active = self.wait_state(|state| state == "active")?;
        let moment = self.lab.now()?;
        G1.nft(MASQUERADE)?;
        narrative.state("masquerade", "it takes packets out of the tunnel: dropped", || {
            let (sent, answers, _) = ping(HA, &["-c", "3"], &HB_ADDRESS.to_string())?;
            let evidence = format!("{active}; {sent} requests, {answers} answers");
            Ok(Finding::new(active == "active" && answers == 0, evidence))
        });
        narrative.state("masquerade", "nothing passes while the peer is gone, either", || {
            self.charon.freeze()?;
            let state = self.wait_state(|state| state != "active")?;
            let (sent, answers, _) = ping(HA, &["-c", "3"], &HB_ADDRESS.to_string())?;
            self.charon.thaw()?;
            let evidence = format!("{state}; {sent} requests, {answers} answers");
            Ok(Finding::new(state != "active" && answers == 0, evidence))
        });
        answered(narrative, "unrelated", "ha reaches s3", HA, &[], &server_address(2));
        nothing_clear(
            narrative,
            self.lab,
            moment,
            "members sent no clear packet, nor a translated one",
        );
        unload(G1);
        narrative.state("masquerade", "without it the tunnel carries", || self.carries(true));
        port_forward(self.lab, narrative)?;
        raw_socket(self.lab, narrative)?;
        narrative.chapter("Somebody flushes the policies of g1 under load");
        let moment = self.lab.now()?;
        let report = flow(self.lab, 200, "", |_| {
            for _ in 0..5 {
                G1.ip("xfrm policy flush")?;
                std::thread::sleep(Duration::from_millis(300));
            }
            Ok(())
        })?;
        narrative.say(&format!("ha to hb: {report}"));
        narrative.state("nothing-clear", "meanwhile none left in clear", || {
            let crossed = self.lab.core_since(moment)?;
            let to_networks = crossed.iter().filter(|one| is_protected(one.packet.destination));
            let (clear, all) = (to_networks.count(), crossed.len());
            Ok(Finding::new(clear == 0 && all > 0, format!("{clear} of {all} packets")))
        });
        narrative.state("repaired", "the tunnel carries", || self.carries(true));
        Ok(())
    }

    fn refusals(&mut self, narrative: &mut Narrative) {
        narrative.chapter("What cannot work is named in one line");
        let other_key = Ends { key: "another key", ..STRONG };
        let other_esp = Ends { esp: "aes128-sha256", ..STRONG };
        let other_ike = Ends { ike: "aes128-sha512-modp3072", ..STRONG };
        let other_networks = Ends { networks: "172.16.99.0/24", ..STRONG };
        for (what, ends, start, words) in [
            ("another pre-shared key", other_key, "now", "pre-shared key"),
            ("another IKE policy", other_ike, "now", "encryption, hash and DH group"),
            ("another IKE policy, begun by strongSwan", other_ike, "answer", "hash algorithm 6"),
            ("another ESP proposal", other_esp, "now", "NO_PROPOSAL_CHOSEN"),
            ("another ESP proposal, begun by strongSwan", other_esp, "answer", "key length 128"),
            ("other networks", other_networks, "now", "other networks"),
            ("other networks, begun by strongSwan", other_networks, "answer", "172.16.99.0/24"),
        ] {
            narrative.state("refusal", what, || {
                self.change(&ends, start)?;
                if start == "answer" {
                    self.charon.initiate("net")?;
                }
                let state = self.wait_state(|state| state.contains(words))?;
                let (_, answers, _) = ping(HA, &["-c", "1"], &HB_ADDRESS.to_string())?;
                Ok(Finding::new(state.contains(words) && answers == 0, state))
            });
        }
        narrative.state("recovered", "with the right configuration again it works", || {
            self.change(&STRONG, "now")?;
            self.carries(true)
        });
    }

    /// strongSwan first, so that the agent finds it ready.
    pub(super) fn change(&mut self, ends: &Ends, start: &str) -> Result<()> {
        let ours = ours(self.lab, ends, start);
        self.change_to(&ours, &theirs(ends))
    }
}

impl<P: IkePeer> Play<'_, P> {
    /// Changes over to these configurations, the peer's first.
    pub(super) fn change_to(&mut self, ours: &str, theirs: &str) -> Result<()> {
        // A tunnel that is as it was would go on.
        std::fs::write(self.lab.file("g1.toml"), EMPTY.replace("{}", &socket(self.lab)))?;
        self.agent.reload()?;
        self.wait_gone()?;
        self.charon.load(theirs)?;
        std::fs::write(self.lab.file("g1.toml"), ours)?;
        self.agent.reload()
    }

    fn wait_gone(&self) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < WITHIN {
            let tunnels = self.lab.show(G1, &["tunnel"], "tunnels")?;
            if tunnels
                .as_array()
                .is_some_and(|all| all.iter().all(|one| text(one, "name") == "idle"))
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        anyhow::bail!("the tunnel does not go")
    }

    pub(super) fn tunnel(&self) -> Result<Value> {
        let tunnels = self.lab.show(G1, &["tunnel"], "tunnels")?;
        let find = |all: &Vec<Value>| all.iter().find(|one| text(one, "name") == "site").cloned();
        tunnels.as_array().and_then(find).context("gdoictl shows no tunnel")
    }

    pub(super) fn wait_state(&self, is_there: impl Fn(&str) -> bool) -> Result<String> {
        let started = Instant::now();
        loop {
            let state = match self.tunnel() {
                Ok(tunnel) => text(&tunnel, "state"),
                Err(error) => error.to_string(),
            };
            if is_there(&state) || started.elapsed() > WITHIN {
                return Ok(state);
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn spis(&self) -> Result<Vec<String>> {
        let tunnel = self.tunnel()?;
        let sas = tunnel.pointer("/networks/0/sas").and_then(Value::as_array);
        let sending = sas
            .into_iter()
            .flatten()
            .filter(|sa| sa.get("sending").and_then(Value::as_bool).unwrap_or_default());
        Ok(sending.map(|sa| text(sa, "inbound_spi")).collect())
    }

    /// Both hosts answer each other, in ESP.
    pub(super) fn carries(&self, esp: bool) -> Result<Finding> {
        let state = self.wait_state(|state| state == "active")?;
        let moment = self.lab.now()?;
        let there = pings(HA, &HB_ADDRESS.to_string())?;
        let back = pings(HB, &HA_ADDRESS.to_string())?;
        let crossed = self.lab.core_since(moment)?;
        let packets = crossed.iter().filter(|one| one.packet.protocol == ESP).count();
        let holds = state == "active" && there == 3 && back == 3 && (packets >= 12) == esp;
        let mut evidence =
            format!("{state}; {there} and {back} of 3 answers, {packets} ESP packets seen");
        if !holds {
            evidence.push_str(&format!(
                "\n{}\n{}",
                self.charon.log_tail(12),
                self.agent.log_tail(6)
            ));
        }
        Ok(Finding::new(holds, evidence))
    }
}

/// That the SAs are others and no packet was lost meanwhile.
fn rekeyed(report: &FlowReport, before: &[String], after: &[String]) -> Finding {
    let evidence = format!("{report}; SPIs {}, then {}", listed(before), listed(after));
    Finding::new(report.sent > 0 && report.sent == report.received && before != after, evidence)
}

/// A text field of what gdoictl printed.
fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn pings(from: Node, to: &str) -> Result<u64> {
    Ok(ping(from, &["-c", "3"], to)?.1)
}

pub(super) fn socket(lab: &Lab) -> String {
    lab.file("g1.sock").display().to_string()
}

/// A tunnel to nobody that only answers: a file needs one.
const EMPTY: &str = "control-socket = \"{}\"\n\n[[gateway]]\nname = \"idle\"\n\n[[tunnel]]\n\
    name = \"idle\"\ngateway = \"idle\"\nlocal-address = \"10.0.1.1\"\npeer = \"10.0.9.9\"\n\
    local-networks = [\"192.168.1.0/24\"]\nremote-networks = [\"192.168.2.0/24\"]\n\
    pre-shared-key-file = \"/run/gdoi-lab/tunnel.psk\"\nstart = \"answer\"\n";
