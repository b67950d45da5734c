//! Daemons of a lab: started, ended, killed, and awaited until they have keys.

use super::{Lab, MEMBER_NODES};
use crate::lab::daemons::{Daemon, boot_file};
use crate::lab::nodes::Node;
use crate::lab::plan::{Plan, member_file, server_file};
use crate::lab::topology::SERVERS;
use crate::observe::states::{self, HeldKey, State};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The file with the number of kernel operations left until the crash agent crashes.
const COUNTDOWN: &str = "countdown";
/// How systemd names a unit's state directory.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

impl Lab {
    /// Starts a member and returns when its blocks are in place.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start_member(&mut self, position: usize) -> Result<()> {
        let (node, file) = self.member_to_start(position)?;
        let state = self.state_directory(node)?;
        let mut environment = self.environment();
        environment.push((STATE_DIRECTORY, state.as_os_str()));
        let daemon = Daemon::start(
            &self.binaries.join("gdoi-agent"),
            node,
            &file,
            &self.directory,
            &environment,
        )?;
        *self.members.get_mut(position).context("no such member")? = Some(daemon);
        Ok(())
    }

    /// Runs a member's program to its end, as its units do: with `--block`, or with a file that has
    /// an error. Returns whether its status was 0, and what it said.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run_member(
        &mut self,
        position: usize,
        arguments: &[&str],
        broken: bool,
    ) -> Result<(bool, String)> {
        let (node, file) = self.member_to_start(position)?;
        if broken {
            let text = fs::read_to_string(&file)?;
            fs::write(&file, text.replace("protected = ", "protectet = "))?;
        }
        let program = self.binaries.join("gdoi-agent");
        let (program, file) = (program.to_string_lossy(), file.to_string_lossy());
        let mut command = node.command(&program, &[&["--config", &file], arguments].concat());
        command.env(STATE_DIRECTORY, self.state_directory(node)?);
        let output = command.output().context("cannot start gdoi-agent")?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// What a unit's `StateDirectory=` is to a daemon on this node.
    fn state_directory(&self, node: Node) -> Result<PathBuf> {
        let directory = self.file(&format!("{}-kept", node.0));
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// Starts a member that crashes after the number of kernel operations set by [`Lab::arm`], and
    /// does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_crash_agent(&mut self, position: usize) -> Result<()> {
        let (node, file) = self.member_to_start(position)?;
        let countdown = self.file(COUNTDOWN);
        let environment = [("LAB_COUNTDOWN", countdown.as_os_str())];
        let program = self.binaries.join("crash-agent");
        let (daemon, _) = Daemon::spawn(&program, node, &file, &self.directory, &environment)?;
        *self.members.get_mut(position).context("no such member")? = Some(daemon);
        Ok(())
    }

    fn environment(&self) -> Vec<(&'static str, &'static OsStr)> {
        self.plan.log.map(|filter| ("RUST_LOG", OsStr::new(filter))).into_iter().collect()
    }

    /// Sets the number of kernel operations until the crash; with `None` there is no crash.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn arm(&self, operations: Option<u64>) -> Result<()> {
        let text = operations.map(|count| count.to_string()).unwrap_or_default();
        Ok(fs::write(self.file(COUNTDOWN), text)?)
    }

    /// Operations left until the crash.
    pub fn operations_left(&self) -> Option<u64> {
        fs::read_to_string(self.file(COUNTDOWN)).ok()?.trim().parse().ok()
    }

    /// Whether a member that was started is still running.
    pub fn is_alive(&mut self, position: usize) -> bool {
        self.members.get_mut(position).and_then(Option::as_mut).is_some_and(Daemon::is_running)
    }

    /// A member that is about to be started: its node and its file.
    fn member_to_start(&mut self, position: usize) -> Result<(Node, PathBuf)> {
        let node = *MEMBER_NODES.get(position).context("no such member")?;
        if self.guarded_since.is_none()
            && let Some(captures) = &self.captures
        {
            self.guarded_since = Some(captures.core.mark()?);
        }
        let file = self.file(&format!("{}.toml", node.0));
        fs::write(&file, member_file(&self.plan, position, &self.directory))?;
        Ok((node, file))
    }

    /// Has every running member read its file again, made of another plan.
    ///
    /// # Errors
    /// When a file cannot be written or a member is gone.
    pub fn change(&mut self, change: impl FnOnce(&mut Plan)) -> Result<()> {
        change(&mut self.plan);
        for (position, (node, daemon)) in MEMBER_NODES.iter().zip(&self.members).enumerate() {
            if let Some(daemon) = daemon {
                fs::write(
                    self.file(&format!("{}.toml", node.0)),
                    member_file(&self.plan, position, &self.directory),
                )?;
                daemon.reload()?;
            }
        }
        Ok(())
    }

    /// Starts a key server.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start_server(&mut self, position: usize) -> Result<()> {
        let node = *SERVERS.get(position).context("no such server")?;
        let file = self.file(&format!("{}.toml", node.0));
        fs::write(&file, server_file(&self.plan, position, &self.directory))?;
        let daemon = Daemon::start(
            &self.binaries.join("gcks"),
            node,
            &file,
            &self.directory,
            &self.environment(),
        )?;
        *self.servers.get_mut(position).context("no such server")? = Some(daemon);
        Ok(())
    }

    /// Has a key server that runs read its file again, made of the plan as it is now.
    ///
    /// # Errors
    /// When the file cannot be written or the server is gone.
    pub fn reload_server(&self, position: usize) -> Result<()> {
        let node = *SERVERS.get(position).context("no such server")?;
        let file = self.file(&format!("{}.toml", node.0));
        fs::write(&file, server_file(&self.plan, position, &self.directory))?;
        self.server(position)?.reload()
    }

    /// Ends a member in order.
    ///
    /// # Errors
    /// When it does not end in time or not with status 0.
    pub fn stop_member(&mut self, position: usize) -> Result<()> {
        self.members
            .get_mut(position)
            .and_then(Option::take)
            .context("the member does not run")?
            .stop()
    }

    /// Ends a member as `systemctl restart` does, before the new start.
    ///
    /// # Errors
    /// When it does not end in time or not with status 0.
    pub fn end_member_for_restart(&mut self, position: usize) -> Result<()> {
        self.members
            .get_mut(position)
            .and_then(Option::take)
            .context("the member does not run")?
            .end_for_restart()
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

    /// Ends a key server with SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_server(&mut self, position: usize) -> Result<()> {
        self.servers
            .get_mut(position)
            .and_then(Option::take)
            .context("the server does not run")?
            .kill()
    }

    /// Ends a member with SIGKILL.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill_member(&mut self, position: usize) -> Result<()> {
        match self.members.get_mut(position).and_then(Option::take) {
            Some(member) => member.kill(),
            None => bail!("the member does not run"),
        }
    }

    /// Ends a member as a loss of power does: nothing is left in its kernel, and its next start is
    /// in another boot.
    ///
    /// # Errors
    /// When it does not run or something stays.
    pub fn cut_power(&mut self, position: usize) -> Result<()> {
        let node = *MEMBER_NODES.get(position).context("no such member")?;
        self.kill_member(position)?;
        node.ip("xfrm state flush")?;
        node.ip("xfrm policy flush")?;
        node.run("nft", &["flush", "ruleset"])?;
        for line in
            node.ip("route show type unicast")?.lines().filter(|line| line.starts_with("192.0.2."))
        {
            node.ip(&format!(
                "route delete {}",
                line.split_whitespace().next().unwrap_or_default()
            ))?;
        }
        // As random as the kernel's own.
        let boot = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        fs::write(boot_file(node, &self.directory), boot)?;
        Ok(())
    }

    /// The members whose daemons run.
    pub fn running(&self) -> Vec<Node> {
        MEMBER_NODES
            .into_iter()
            .zip(&self.members)
            .filter_map(|(node, daemon)| daemon.as_ref().map(|_| node))
            .collect()
    }

    /// A key server that runs.
    ///
    /// # Errors
    /// It does not.
    pub fn server(&self, position: usize) -> Result<&Daemon> {
        let server = self.servers.get(position).and_then(Option::as_ref);
        server.context("the server does not run")
    }

    pub fn member(&self, position: usize) -> Option<&Daemon> {
        self.members.get(position)?.as_ref()
    }

    /// The last lines of the log of whatever runs on a node.
    pub fn log_tail(&self, node: Node, lines: usize) -> String {
        let text = fs::read_to_string(self.file(&format!("{}.log", node.0))).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }

    /// Waits until every member that runs has a state to send with, or to receive with where it
    /// does not send with keys; returns how long it took.
    ///
    /// # Errors
    /// When a member has none after the time; its log is in the message.
    pub fn wait_registered(&self, limit: Duration) -> Result<Duration> {
        let started = Instant::now();
        for node in self.running() {
            while !self.has_key(node)? {
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

    fn has_key(&self, node: Node) -> Result<bool> {
        let states = if self.plan.mode == "receive-only" {
            self.states(node)?
        } else {
            self.outbound(node)?
        };
        Ok(!states.is_empty())
    }

    /// The kernel's states on a node, keys included: never to be printed.
    ///
    /// # Errors
    /// When iproute2 refuses or prints what is not understood.
    pub fn states(&self, node: Node) -> Result<Vec<State>> {
        states::parse(&node.ip("xfrm state")?)
    }

    /// The keys on a node.
    ///
    /// # Errors
    /// As [`Lab::states`].
    pub fn held_keys(&self, node: Node) -> Result<BTreeSet<HeldKey>> {
        Ok(self.states(node)?.into_iter().map(State::held).collect())
    }

    /// The states whose source is the node itself.
    ///
    /// # Errors
    /// As [`Lab::states`].
    pub fn outbound(&self, node: Node) -> Result<Vec<State>> {
        // Inbound states of a group name no source.
        Ok(self.states(node)?.into_iter().filter(|state| state.source != "0.0.0.0").collect())
    }
}
