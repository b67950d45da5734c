//! Nodes of the lab: each one a network namespace, driven by iproute2.

use anyhow::{Context, Result, bail};
use std::process::{Child, Command, Output, Stdio};

/// One node. Its namespace carries a prefix, so that nobody else's `g1` is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node(pub &'static str);

/// Prefix of every namespace of the lab.
pub const NAMESPACE_PREFIX: &str = "lab-";

impl Node {
    /// Name of the network namespace.
    pub fn namespace(self) -> String {
        format!("{NAMESPACE_PREFIX}{}", self.0)
    }

    /// Whether the namespace is there.
    pub fn is_up(self) -> bool {
        std::path::Path::new("/run/netns").join(self.namespace()).exists()
    }

    /// A command that will run on this node.
    pub fn command(self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace(), program])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a program on the node and returns what it printed, whatever its status.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(self, program: &str, arguments: &[&str]) -> Result<Output> {
        self.command(program, arguments)
            .output()
            .with_context(|| format!("cannot start {program} on {}", self.0))
    }

    /// Runs a program on the node and demands status 0.
    ///
    /// # Errors
    /// Names the node, the command and its standard error.
    pub fn run(self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.output(program, arguments)?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {program} {}: {}", self.0, arguments.join(" "), error.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `ip -n NODE ...`, the arguments as a person would type them.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub fn ip(self, line: &str) -> Result<String> {
        let output = Command::new("ip")
            .args(["-n", &self.namespace()])
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .output()
            .context("cannot start ip")?;
        if !output.status.success() {
            bail!("{}: ip {line}: {}", self.0, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Several `ip -n NODE ...` at once, one to a line.
    ///
    /// # Errors
    /// Names the line that failed.
    pub fn batch(self, lines: &str) -> Result<()> {
        run_batch(&["-n", &self.namespace()], lines)
    }

    /// Feeds rules to `nft -f -` on the node.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub fn nft(self, rules: &str) -> Result<()> {
        let mut child = self
            .command("nft", &["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start nft")?;
        if let Some(mut input) = child.stdin.take() {
            std::io::Write::write_all(&mut input, rules.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{}: nft: {}", self.0, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Sets kernel parameters of the namespace.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub fn sysctl(self, settings: &[&str]) -> Result<()> {
        self.run("sysctl", &[&["-q", "-w"], settings].concat()).map(drop)
    }
}

/// Runs iproute2 commands of the machine itself, one to a line.
///
/// # Errors
/// Names the line that failed.
pub fn batch(lines: &str) -> Result<()> {
    run_batch(&[], lines)
}

fn run_batch(before: &[&str], lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(before)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ip")?;
    if let Some(mut input) = child.stdin.take() {
        std::io::Write::write_all(&mut input, lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip {} -batch: {}", before.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A child process that is ended when nobody holds it any more.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Takes charge of a child.
    pub fn new(child: Child) -> Self {
        Self { child }
    }

    /// Starts a command and takes charge of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self::new(child))
    }

    /// Process id; `ip netns exec` replaces itself, so it is the program's own.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(id, signal)
            .with_context(|| format!("cannot send {signal} to process {id}"))
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// When the operating system cannot tell.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the end, at most so long; killed after that, which is an error.
    ///
    /// # Errors
    /// When it did not end in time.
    pub fn wait(&mut self, limit: std::time::Duration) -> Result<std::process::ExitStatus> {
        let started = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() >= limit {
                let _ = self.child.kill();
                let _ = self.child.wait();
                bail!("process {} did not end within {} s", self.child.id(), limit.as_secs());
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Waits for the first line a child prints: a sink says when it listens.
    ///
    /// # Errors
    /// When it ends without one.
    pub fn first_line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        if let Some(output) = self.child.stdout.as_mut() {
            let mut octet = [0];
            while std::io::Read::read(output, &mut octet)? == 1 && octet != *b"\n" {
                line.extend_from_slice(&octet);
            }
        }
        if line.is_empty() {
            bail!("process {} ended without a word", self.child.id());
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Standard output of a child that has one piped; waits for its end.
    ///
    /// # Errors
    /// When it did not end in time or cannot be read.
    pub fn output(mut self, limit: std::time::Duration) -> Result<String> {
        self.wait(limit)?;
        let mut text = String::new();
        if let Some(mut output) = self.child.stdout.take() {
            std::io::Read::read_to_string(&mut output, &mut text)?;
        }
        Ok(text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
