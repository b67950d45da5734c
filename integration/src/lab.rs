//! A lab that is up: topology, captures, daemons, and what a scenario does with them.

use crate::capture::{Capture, Captured, Mark, Tally};
use crate::daemons::{Daemon, random_key, write_secret};
use crate::nodes::{Node, Process};
use crate::packet::ESP;
use crate::plan::{MEMBERS, Plan, member_file, server_file};
use crate::states::{self, State};
use crate::topology::{self, G1, G2, HA, HB, MEMBER_MAC, R, SERVERS, is_protected};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where a lab keeps its files while it runs.
pub const DIRECTORY: &str = "/run/gdoi-lab";

/// Packets travel through a buffer before they are in a capture's file.
const SETTLES: Duration = Duration::from_millis(300);

/// The members' nodes.
pub const MEMBER_NODES: [Node; 2] = [G1, G2];

/// Moments in the three captures.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    core: Mark,
    ha: Mark,
    hb: Mark,
}

/// The captures of a lab: all links of the core router and of both hosts.
#[derive(Debug)]
struct Captures {
    core: Capture,
    ha: Capture,
    hb: Capture,
}

/// A lab that is up.
pub struct Lab {
    /// What varies from run to run.
    pub plan: Plan,
    directory: PathBuf,
    binaries: PathBuf,
    by_hand: Option<PathBuf>,
    captures: Option<Captures>,
    /// When the first member was started: what crossed before was nobody's to protect.
    guarded_since: Option<Mark>,
    members: [Option<Daemon>; 2],
    servers: [Option<Daemon>; 4],
}

impl Lab {
    /// Builds the topology and starts the captures; no daemon runs yet.
    ///
    /// # Errors
    /// When a namespace, a link or a capture cannot be made.
    pub fn build(plan: Plan, binaries: &Path, by_hand: Option<&Path>) -> Result<Self> {
        let mut lab = Self::build_unwatched(plan, binaries, by_hand)?;
        let start = |node| Capture::start(node, &lab.directory);
        lab.captures = Some(Captures { core: start(R)?, ha: start(HA)?, hb: start(HB)? });
        Ok(lab)
    }

    /// Builds the topology only: a capture would be part of what a benchmark measures.
    ///
    /// # Errors
    /// When a namespace or a link cannot be made.
    pub fn build_unwatched(plan: Plan, binaries: &Path, by_hand: Option<&Path>) -> Result<Self> {
        let directory = PathBuf::from(DIRECTORY);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        topology::build()?;
        let lab = Self {
            plan,
            binaries: binaries.to_path_buf(),
            by_hand: by_hand.map(Path::to_path_buf),
            directory,
            captures: None,
            guarded_since: None,
            members: [None, None],
            servers: [None, None, None, None],
        };
        for (member, _, _) in MEMBERS {
            let key = random_key()?;
            write_secret(&lab.file(&format!("{member}.psk")), &key)?;
            for server in SERVERS {
                write_secret(&lab.file(&format!("{}-{member}.psk", server.0)), &key)?;
            }
        }
        Ok(lab)
    }

    /// A file of this lab.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Starts a member and returns when its blocks are in place.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start_member(&mut self, position: usize) -> Result<()> {
        let node = *MEMBER_NODES.get(position).context("no such member")?;
        if self.by_hand.is_some() {
            return self.hand("start", node);
        }
        if self.guarded_since.is_none()
            && let Some(captures) = &self.captures
        {
            self.guarded_since = Some(captures.core.mark()?);
        }
        let file = self.file(&format!("{}.toml", node.0));
        fs::write(&file, member_file(&self.plan, position, &self.directory))?;
        let daemon = Daemon::start(&self.binaries.join("gdoi-agent"), node, &file, &self.directory)?;
        *self.members.get_mut(position).context("no such member")? = Some(daemon);
        Ok(())
    }

    /// Starts a key server.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start_server(&mut self, position: usize) -> Result<()> {
        let node = *SERVERS.get(position).context("no such server")?;
        if self.by_hand.is_some() {
            return Ok(());
        }
        let file = self.file(&format!("{}.toml", node.0));
        fs::write(&file, server_file(&self.plan, position, &self.directory))?;
        let daemon = Daemon::start(&self.binaries.join("gcks"), node, &file, &self.directory)?;
        *self.servers.get_mut(position).context("no such server")? = Some(daemon);
        Ok(())
    }

    /// Ends a member in order.
    ///
    /// # Errors
    /// When it does not end in time or not with status 0.
    pub fn stop_member(&mut self, position: usize) -> Result<()> {
        if self.by_hand.is_some() {
            return self.hand("stop", *MEMBER_NODES.get(position).context("no such member")?);
        }
        self.members.get_mut(position).and_then(Option::take).context("the member does not run")?.stop()
    }

    /// Ends a key server in order.
    ///
    /// # Errors
    /// When it does not end in time or not with status 0.
    pub fn stop_server(&mut self, position: usize) -> Result<()> {
        match self.servers.get_mut(position).and_then(Option::take) {
            Some(server) => server.stop(),
            None => Ok(()),
        }
    }

    /// Ends a member with SIGKILL.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill_member(&mut self, position: usize) -> Result<()> {
        match self.members.get_mut(position).and_then(Option::take) {
            Some(member) => member.kill(),
            None if self.by_hand.is_some() => Ok(()),
            None => bail!("the member does not run"),
        }
    }

    /// A member's daemon.
    pub fn member(&self, position: usize) -> Option<&Daemon> {
        self.members.get(position)?.as_ref()
    }

    /// The last lines of the log of whatever runs on a node.
    pub fn log_tail(&self, node: Node, lines: usize) -> String {
        let text = fs::read_to_string(self.file(&format!("{}.log", node.0))).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }

    /// Whether the members are set up by a script instead of the daemons.
    pub fn is_by_hand(&self) -> bool {
        self.by_hand.is_some()
    }

    fn hand(&self, verb: &str, node: Node) -> Result<()> {
        let script = self.by_hand.as_ref().context("no script")?;
        let output = Command::new(script).args([verb, node.0, &node.namespace()]).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("{} {verb} {}: {}", script.display(), node.0, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Waits until every member has a state to send with; returns how long it took.
    ///
    /// # Errors
    /// When a member has none after the time; its log is in the message.
    pub fn wait_registered(&self, limit: Duration) -> Result<Duration> {
        let started = Instant::now();
        for node in MEMBER_NODES {
            while self.outbound(node)?.is_empty() {
                if started.elapsed() > limit {
                    bail!(
                        "{} has no key after {} s; its log ends:\n{}",
                        node.0,
                        limit.as_secs(),
                        self.log_tail(node, 15)
                    );
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(started.elapsed())
    }

    /// The kernel's states on a node, keys included: never to be printed.
    ///
    /// # Errors
    /// When iproute2 refuses or prints what is not understood.
    pub fn states(&self, node: Node) -> Result<Vec<State>> {
        states::parse(&node.ip("xfrm state")?)
    }

    /// States that send.
    ///
    /// # Errors
    /// As [`Lab::states`].
    pub fn outbound(&self, node: Node) -> Result<Vec<State>> {
        // Inbound states of a group name no source.
        Ok(self.states(node)?.into_iter().filter(|state| state.source != "0.0.0.0").collect())
    }

    /// What `gdoictl --json` answers, from the object with this key on.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn show(&self, node: Node, what: &[&str], key: &str) -> Result<Value> {
        let socket = self.file(&format!("{}.sock", node.0));
        let output = Command::new(self.binaries.join("gdoictl"))
            .arg("--socket")
            .arg(socket)
            .args(["--json", "show"])
            .args(what)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!("gdoictl on {}: {}", node.0, String::from_utf8_lossy(&output.stderr).trim());
        }
        let answer: Value = serde_json::from_slice(&output.stdout).context("gdoictl printed no JSON")?;
        find(&answer, key).cloned().with_context(|| format!("no {key} in what gdoictl printed: {answer}"))
    }

    /// What `gdoictl` prints for people.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn show_text(&self, node: Node, what: &[&str]) -> Result<String> {
        let socket = self.file(&format!("{}.sock", node.0));
        let mut command = Command::new(self.binaries.join("gdoictl"));
        let output = command.arg("--socket").arg(socket).arg("show").args(what).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("gdoictl on {}: {}", node.0, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `lab traffic ...` on a node and waits for its line.
    ///
    /// # Errors
    /// When it fails.
    pub fn traffic(&self, node: Node, line: &str) -> Result<String> {
        let program = self.binaries.join("lab").to_string_lossy().into_owned();
        let arguments: Vec<&str> = std::iter::once("traffic").chain(line.split_whitespace()).collect();
        node.run(&program, &arguments)
    }

    /// Starts `lab traffic ...` on a node.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_traffic(&self, node: Node, line: &str) -> Result<Process> {
        let program = self.binaries.join("lab").to_string_lossy().into_owned();
        let arguments: Vec<&str> = std::iter::once("traffic").chain(line.split_whitespace()).collect();
        let mut command = node.command(&program, &arguments);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.file("traffic.log"))?;
        Process::start(command.stdout(Stdio::piped()).stderr(log))
    }

    /// Starts a sink on a node and returns when it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_sink(&self, node: Node, line: &str) -> Result<Process> {
        let mut sink = self.start_traffic(node, line)?;
        sink.first_line()?;
        Ok(sink)
    }

    /// This moment, to count from.
    ///
    /// # Errors
    /// When a capture cannot be read.
    pub fn now(&self) -> Result<Moment> {
        std::thread::sleep(SETTLES);
        let captures = self.captures()?;
        Ok(Moment { core: captures.core.mark()?, ha: captures.ha.mark()?, hb: captures.hb.mark()? })
    }

    fn captures(&self) -> Result<&Captures> {
        self.captures.as_ref().context("this lab captures nothing")
    }

    /// What crossed the core's links since a moment.
    ///
    /// # Errors
    /// When the capture cannot be read.
    pub fn core_since(&self, moment: Moment) -> Result<Vec<Captured>> {
        std::thread::sleep(SETTLES);
        self.captures()?.core.since(moment.core)
    }

    /// What came to or left a host since a moment.
    ///
    /// # Errors
    /// When the capture cannot be read.
    pub fn host_since(&self, host: Node, moment: Moment) -> Result<Vec<Captured>> {
        std::thread::sleep(SETTLES);
        let captures = self.captures()?;
        if host == HA { captures.ha.since(moment.ha) } else { captures.hb.since(moment.hb) }
    }

    /// Ends daemons and captures; returns all that crossed the core and what tcpdump counted.
    ///
    /// # Errors
    /// When a daemon does not end in order or the capture cannot be read.
    pub fn finish(mut self) -> Result<(Vec<Captured>, Tally)> {
        for position in 0..self.members.len() {
            if self.member(position).is_some() || self.is_by_hand() {
                self.stop_member(position)?;
            }
        }
        for position in 0..self.servers.len() {
            self.stop_server(position)?;
        }
        std::thread::sleep(SETTLES);
        let captures = self.captures.take().context("this lab captures nothing")?;
        let all = captures.core.since(self.guarded_since.unwrap_or(Mark::START))?;
        let file = captures.core.file().to_path_buf();
        let tally = captures.core.stop()?;
        captures.ha.stop()?;
        captures.hb.stop()?;
        // Beside the binaries is the place a person finds it: in the machine that is the directory shared with the host.
        let keep = self.binaries.parent().unwrap_or(Path::new("/")).join("core.pcap");
        let _ = fs::copy(file, keep);
        topology::tear_down();
        Ok((all, tally))
    }

    /// Leaves everything running when this program ends; `lab down` removes it.
    ///
    /// # Errors
    /// When the capture cannot be read.
    pub fn leave_running(self) -> Result<Vec<Captured>> {
        std::thread::sleep(SETTLES);
        let all = self.captures()?.core.since(self.guarded_since.unwrap_or(Mark::START))?;
        std::mem::forget(self);
        Ok(all)
    }
}

/// Whether a member sent this into the core.
pub fn from_member(captured: &Captured) -> bool {
    !captured.outgoing && captured.mac.starts_with(&MEMBER_MAC)
}

/// Whether a member let something of the group into the core that is not ESP between the group's own addresses:
/// a clear packet, one whose source was translated, or ESP with another source or destination. ESP to a placeholder is
/// no leak: it is what flushed tables leave of a packet, encrypted and lost.
pub fn is_leak(captured: &Captured) -> bool {
    let packet = &captured.packet;
    if !from_member(captured) {
        return false;
    }
    if packet.protocol == ESP {
        let preserved = is_protected(packet.source) && is_protected(packet.destination);
        let lost = matches!(packet.destination.octets(), [192, 0, 2, _]);
        return !preserved && !lost;
    }
    is_protected(packet.destination)
}

fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields.get(key).or_else(|| fields.values().find_map(|field| find(field, key))),
        Value::Array(items) => items.iter().find_map(|item| find(item, key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Packet;
    use std::net::Ipv4Addr;

    fn captured(mac: [u8; 6], source: [u8; 4], destination: [u8; 4], protocol: u8) -> Captured {
        let packet = Packet {
            source: Ipv4Addr::from(source),
            destination: Ipv4Addr::from(destination),
            protocol,
            identification: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            payload: Vec::new(),
        };
        Captured { time: 0, interface: 1, outgoing: false, mac, packet }
    }

    #[test]
    fn leaks_are_what_members_send_and_must_not() {
        let member = [0x02, 0x67, 0x31, 0, 1, 1];
        let (a, b, wan, server) = ([172, 16, 1, 10], [172, 16, 2, 10], [10, 0, 1, 1], [10, 0, 11, 1]);
        assert!(is_leak(&captured(member, a, b, 17)));
        assert!(is_leak(&captured(member, wan, b, 17)), "masqueraded");
        assert!(is_leak(&captured(member, wan, b, ESP)), "source not put back");
        assert!(!is_leak(&captured(member, wan, [192, 0, 2, 1], ESP)), "lost, but encrypted");
        assert!(!is_leak(&captured(member, a, b, ESP)));
        assert!(!is_leak(&captured(member, wan, server, 17)));
        assert!(!is_leak(&captured([2, 0, 0, 0, 0, 1], a, b, 17)), "forged by the core");
        assert!(!is_leak(&Captured { outgoing: true, ..captured(member, a, b, 17) }));
    }
}
