//! Gateways and tunnels managed by `gdoictl` alone, with strongSwan at the other end; and the
//! bandwidth of a gateway.

use super::Context;
use super::tunnels::ends::{KEY, STRONG, theirs};
use crate::lab::Lab;
use crate::lab::daemons::{Daemon, write_secret};
use crate::lab::peers::strongswan::StrongSwan;
use crate::lab::plan::Plan;
use crate::lab::topology::{G1, G2, HA, HA_ADDRESS, HB, HB_ADDRESS};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::ping;
use crate::traffic::value;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(40);

/// What a person wrote by hand.
const FILE: &str = "# The gateway of the lab.\n[[gateway]]\nname = \"lab\"   # one is enough\n";

/// Octets of UDP payload, and of the ESP packet around them: AES-GCM in tunnel mode.
const PAYLOAD: u64 = 1000;
const PACKET: u64 = 1000 + 28 + 20 + 8 + 8 + 16 + 2;

struct Console<'l> {
    lab: &'l mut Lab,
    charon: StrongSwan,
}

pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("An agent with a gateway alone");
    let mut lab = context.build(Plan::default())?;
    let charon = StrongSwan::start(G2, &lab.file(""))?;
    charon.load(&theirs(&STRONG))?;
    write_secret(&lab.file("tunnel.psk"), KEY)?;
    let socket = lab.file("g1.sock").display().to_string();
    let file = format!("control-socket = \"{socket}\"\n\n{FILE}");
    std::fs::write(lab.file("g1.toml"), &file)?;
    let program = context.binaries().join("gdoi-agent");
    let agent = Daemon::start(&program, G1, &lab.file("g1.toml"), &lab.file(""), &[])?;
    let errors = lab.errors();
    let mut console = Console { lab: &mut lab, charon };
    console.create(narrative);
    console.refusals(narrative);
    console.bandwidth(narrative);
    console.delete(narrative, &file);
    drop(console);
    agent.stop()?;
    super::no_errors(narrative, &errors);
    if context.keep {
        lab.leave_running()?;
    } else {
        lab.finish()?;
    }
    Ok(())
}

impl Console<'_> {
    fn gdoictl(&self, line: &[&str]) -> Result<String> {
        self.lab.gdoictl(G1, line)
    }

    fn file(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.lab.file("g1.toml"))?)
    }

    fn create_line(&self) -> Vec<String> {
        let key = format!("pre-shared-key-file={}", self.lab.file("tunnel.psk").display());
        let fixed = [
            "tunnel",
            "create",
            "site",
            "gateway=lab",
            "local-address=10.0.1.1",
            "peer=10.0.2.1",
            "local-networks=172.16.1.0/24",
            "remote-networks=172.16.2.0/24",
        ];
        fixed.iter().map(|one| (*one).to_owned()).chain([key]).collect()
    }

    fn tunnel(&self) -> Result<Value> {
        let text = self.gdoictl(&["--json", "tunnel", "show", "site"])?;
        serde_json::from_str(&text).context("gdoictl printed no JSON")
    }

    fn wait_active(&self) -> Result<String> {
        let started = Instant::now();
        loop {
            let tunnel = self.tunnel()?;
            let state = tunnel.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
            if state == "active" || started.elapsed() > WITHIN {
                return Ok(state);
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn spis(&self) -> Result<String> {
        let sas = self.tunnel()?.pointer("/networks/0/sas").cloned().unwrap_or_default();
        let spi = |sa: &Value| sa.get("inbound_spi").and_then(Value::as_str).map(str::to_owned);
        let spis: Vec<String> = sas.as_array().into_iter().flatten().filter_map(spi).collect();
        Ok(spis.join(", "))
    }

    fn create(&mut self, narrative: &mut Narrative) {
        narrative.chapter("A tunnel is created");
        narrative.state("dry-run", "a dry run shows the table and writes nothing", || {
            let (before, mut line) = (self.file()?, self.create_line());
            line.push("--dry-run".to_owned());
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            let shown = self.gdoictl(&line)?;
            let holds =
                shown.contains("its networks are blocked until") && before == self.file()?;
            Ok(Finding::new(holds, shown.trim_end()))
        });
        narrative.state("create", "the tunnel carries, and the file has its comments", || {
            let mut line = self.create_line();
            line.push("--yes".to_owned());
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            self.gdoictl(&line)?;
            let state = self.wait_active()?;
            let (sent, answers, _) = ping(HA, &["-c", "3"], &HB_ADDRESS.to_string())?;
            let file = self.file()?;
            let holds = state == "active"
                && sent == answers
                && file.contains(FILE)
                && file.contains("[[tunnel]]\nname = \"site\"\n");
            Ok(Finding::new(holds, format!("{state}; {answers} of {sent} answers\n{file}")))
        });
        for line in [&["tunnel", "show", "site"][..], &["gateway", "show"]] {
            if let Ok(text) = self.gdoictl(line) {
                narrative.show(&format!("gdoictl {}", line.join(" ")), &text);
            }
        }
    }

    fn refusals(&mut self, narrative: &mut Narrative) {
        narrative.chapter("What does not fit is refused, and nothing changes");
        let overlapping: Vec<String> = self
            .create_line()
            .iter()
            .map(|word| match word.as_str() {
                "site" => "second".to_owned(),
                "peer=10.0.2.1" => "peer=10.0.5.1".to_owned(),
                "remote-networks=172.16.2.0/24" => "remote-networks=172.16.2.128/25".to_owned(),
                other => other.to_owned(),
            })
            .chain(["--yes".to_owned()])
            .collect();
        let overlapping: Vec<&str> = overlapping.iter().map(String::as_str).collect();
        for (what, line, words) in [
            (
                "networks that overlap",
                &overlapping[..],
                "overlaps with 172.16.2.0/24 of tunnel site",
            ),
            (
                "an option that is not known",
                &["tunnel", "set", "site", "liftime=1h", "-y"],
                "did you mean \"lifetime\"?",
            ),
            (
                "a value out of range",
                &["tunnel", "set", "site", "lifetime=1s", "-y"],
                "write \"1m\" to \"1d\"",
            ),
            (
                "a gateway with tunnels",
                &["gateway", "delete", "lab", "-y"],
                "is used by tunnel site",
            ),
            (
                "a name that is taken",
                &["gateway", "create", "lab", "-y"],
                "there is a gateway \"lab\" already",
            ),
        ] {
            narrative.state("refused", what, || {
                let before = (self.file()?, self.spis()?);
                let said = match self.gdoictl(line) {
                    Ok(text) => text,
                    Err(error) => error.to_string(),
                };
                let same = before == (self.file()?, self.spis()?);
                Ok(Finding::new(said.contains(words) && same, said))
            });
        }
    }

    fn bandwidth(&mut self, narrative: &mut Narrative) {
        narrative
            .chapter("Bandwidth, changed under way; 1.5 Mbit/s are offered in both directions");
        // Emulated processors do not carry much more than that.
        for (figure, is_over) in [(1_u32, true), (20, false), (1, true)] {
            let text = match is_over {
                true => "of 1.5 Mbit/s offered 1 is carried each way, and the SAs stay",
                false => "20 Mbit/s drop nothing of it, and the SAs stay",
            };
            narrative.state("bandwidth", text, || {
                let before = self.spis()?;
                let option = format!("bandwidth-mbit={figure}");
                self.gdoictl(&["gateway", "set", "lab", &option, "--yes"])?;
                let rates = self.rates()?;
                let same = before == self.spis()?;
                let shown: Value =
                    serde_json::from_str(&self.gdoictl(&["--json", "gateway", "show", "lab"])?)?;
                let dropped = ["sent", "received"].map(|direction| {
                    let place = format!("/gateways/0/bandwidth/dropped_{direction}/packets");
                    shown.pointer(&place).and_then(Value::as_u64)
                });
                let carried = |rate: f64| if is_over { 0.5 < rate && rate <= 1.05 } else { rate > 0.5 };
                let counted = |count: Option<u64>| count.is_some_and(|count| (count > 0) == is_over);
                let [there, back] = rates;
                let number = |count: Option<u64>| {
                    count.map_or_else(|| String::from("not shown"), |count| count.to_string())
                };
                let [sent, received] = dropped.map(number);
                let evidence = format!(
                    "{there:.2} Mbit/s of ESP from ha to hb, {back:.2} back; the same SPIs: {same}; \
                     dropped when sent: {sent}, when received: {received}"
                );
                let holds = same && rates.into_iter().all(carried) && dropped.into_iter().all(counted);
                Ok(Finding::new(holds, evidence))
            });
        }
        narrative.state("bandwidth", "without a figure there is no policer", || {
            self.gdoictl(&["gateway", "set", "lab", "--unset", "bandwidth-mbit", "--yes"])?;
            let rules = G1.run("nft", &["list", "ruleset"])?.matches("limit rate").count();
            Ok(Finding::new(rules == 0, format!("{rules} rules with a limit")))
        });
    }

    /// Megabits of ESP that arrive in a second, each way. The second that the bucket of a policer of
    /// 1 Mbit/s holds on top is taken off.
    fn rates(&mut self) -> Result<[f64; 2]> {
        const SECONDS: u64 = 12;
        let per_second = 125_000 * 3 / 2 / PACKET;
        let line = |to| {
            format!(
                "flow --to {to}:5000 --from-port 6000 --seconds {SECONDS} --per-second {per_second} \
                 --size {PAYLOAD}"
            )
        };
        let far = self.lab.start_sink(HB, "sink --port 5000 --silence-seconds 4")?;
        let near = self.lab.start_sink(HA, "sink --port 5000 --silence-seconds 4")?;
        let there = self.lab.start_traffic(HA, &line(HB_ADDRESS))?;
        let back = self.lab.start_traffic(HB, &line(HA_ADDRESS))?;
        let limit = Duration::from_secs(60);
        there.output(limit)?;
        back.output(limit)?;
        let rate = |sink: crate::lab::nodes::Process| {
            let octets = value(&sink.output(limit)?, "received").unwrap_or(0) * PACKET;
            let settled = u32::try_from(octets.saturating_sub(125_000))?;
            Ok::<f64, anyhow::Error>(f64::from(settled) * 8.0 / 12e6)
        };
        Ok([rate(far)?, rate(near)?])
    }

    fn delete(&mut self, narrative: &mut Narrative, file: &str) {
        narrative.chapter("The tunnel is deleted");
        narrative.state(
            "delete",
            "SAs are gone at both ends, the peer was told, the file is as before",
            || {
                self.gdoictl(&["tunnel", "delete", "site", "--yes"])?;
                let started = Instant::now();
                let mut theirs = self.charon.sas()?;
                while theirs.contains("lab:") && started.elapsed() < Duration::from_secs(10) {
                    std::thread::sleep(Duration::from_millis(300));
                    theirs = self.charon.sas()?;
                }
                let states = G1.ip("xfrm state")?;
                let same = self.file()? == file;
                let holds = states.is_empty() && !theirs.contains("lab:") && same;
                let none = |text: &str| match text.trim() {
                    "" => String::from("none"),
                    text => text.to_owned(),
                };
                let (states, theirs) = (none(&states), none(&theirs));
                let evidence = format!(
                    "states of g1: {states}; SAs of strongSwan: {theirs}; the file is as it was: {same}"
                );
                Ok(Finding::new(holds, evidence))
            },
        );
    }
}
