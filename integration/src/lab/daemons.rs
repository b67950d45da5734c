//! The daemons under test as child processes: started on a node, awaited by their readiness, ended
//! as a scenario wants.

use crate::lab::nodes::{Node, Process};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// An orderly end may take this long.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// Blocks in place or sockets bound within this time.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// The niceness of a daemon, as its unit says.
fn niceness(program: &Path) -> &'static str {
    let unit = match program.ends_with("gcks") {
        true => include_str!("../../../systemd/gcks.service"),
        false => include_str!("../../../systemd/gdoi-agent.service"),
    };
    unit.lines().find_map(|line| line.strip_prefix("Nice=")).unwrap_or("0")
}

#[derive(Debug)]
pub struct Daemon {
    process: Process,
    log: PathBuf,
    name: &'static str,
}

impl Daemon {
    /// Starts `program --config FILE` on a node, with more in its environment, and waits until it
    /// says that it is ready (sd_notify).
    ///
    /// # Errors
    /// When it ends or stays silent instead; its log is in the message.
    pub fn start(
        program: &Path,
        node: Node,
        configuration: &Path,
        directory: &Path,
        environment: &[(&str, &OsStr)],
    ) -> Result<Self> {
        let (mut daemon, socket) =
            Self::spawn(program, node, configuration, directory, environment)?;
        daemon.wait_ready(&socket)?;
        Ok(daemon)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Starts it as [`Daemon::start`] does, and does not wait: it may die at any time.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(
        program: &Path,
        node: Node,
        configuration: &Path,
        directory: &Path,
        environment: &[(&str, &OsStr)],
    ) -> Result<(Self, UnixDatagram)> {
        let socket_path = directory.join(format!("{}.notify", node.0));
        let _ = fs::remove_file(&socket_path);
        let socket =
            UnixDatagram::bind(&socket_path).with_context(|| socket_path.display().to_string())?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let log = directory.join(format!("{}.log", node.0));
        let output = OpenOptions::new().create(true).append(true).open(&log)?;
        let niceness = niceness(program);
        let (program, configuration) = (program.to_string_lossy(), configuration.to_string_lossy());
        let line = ["-n", niceness, &program, "--config", &configuration];
        let boot = boot_file(node, directory);
        let mut command = match boot.exists() {
            false => node.command("nice", &line),
            // A program on a node has a mount namespace of its own, so nobody else sees this.
            true => {
                let mount = r#"mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec nice "$@""#;
                let boot = boot.to_string_lossy();
                node.command("sh", &[&["-c", mount, "sh", &boot], &line[..]].concat())
            }
        };
        command.envs(environment.iter().copied()).env("NOTIFY_SOCKET", &socket_path);
        command.stdout(Stdio::from(output.try_clone()?)).stderr(output);
        let process = Process::start(&mut command)?;
        Ok((Self { process, log, name: node.0 }, socket))
    }

    fn wait_ready(&mut self, socket: &UnixDatagram) -> Result<()> {
        let started = Instant::now();
        let mut buffer = [0; 4096];
        while started.elapsed() < READY_WITHIN {
            if let Ok(length) = socket.recv(&mut buffer)
                && String::from_utf8_lossy(buffer.get(..length).unwrap_or_default())
                    .lines()
                    .any(|line| line == "READY=1")
            {
                return Ok(());
            }
            if let Some(status) = self.process.ended()? {
                bail!(
                    "the daemon on {} ended at its start ({status}):\n{}",
                    self.name,
                    self.log_tail(12)
                );
            }
        }
        bail!(
            "the daemon on {} is not ready after {} s:\n{}{}",
            self.name,
            READY_WITHIN.as_secs(),
            self.log_tail(12),
            self.waits_for()
        )
    }

    /// What the process does in the kernel: a daemon that is silent says nothing of it itself.
    fn waits_for(&self) -> String {
        let of = |name: &str| {
            let text = fs::read_to_string(format!("/proc/{}/{name}", self.id()));
            format!("{name}: {}\n", text.unwrap_or_else(|error| error.to_string()).trim())
        };
        ["comm", "wchan", "syscall", "stack"].map(of).concat()
    }

    /// Asks for an orderly end and waits for it.
    ///
    /// # Errors
    /// When it does not end, or not with status 0.
    pub fn stop(self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// Ends it as `systemctl restart` does: the next run finds what this one leaves.
    ///
    /// # Errors
    /// When it does not end, or not with status 0.
    pub fn end_for_restart(self) -> Result<()> {
        self.end(Signal::SIGUSR1)
    }

    fn end(mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)?;
        let status = self.process.wait(ENDS_WITHIN)?;
        if !status.success() {
            bail!("the daemon on {} ended with {status}:\n{}", self.name, self.log_tail(12));
        }
        Ok(())
    }

    /// Ends it without a chance to do anything.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(ENDS_WITHIN).map(drop)
    }

    /// Asks for an orderly end without waiting for it.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn terminate(&self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)
    }

    /// Has it read its configuration again.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn reload(&self) -> Result<()> {
        self.process.signal(Signal::SIGHUP)
    }

    /// Freezes it: it cannot repair anything until [`Daemon::thaw`].
    ///
    /// # Errors
    /// When it is gone already.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.ended(), Ok(None))
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }
}

/// Where daemons of a node find the identifier of their boot, if it is to be another one than the
/// machine's.
pub fn boot_file(node: Node, directory: &Path) -> PathBuf {
    directory.join(format!("{}.boot_id", node.0))
}

/// Writes a file only its owner may read, as daemons demand of a pre-shared key.
///
/// # Errors
/// When it cannot be written.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// A pre-shared key of 128 random bits, in hexadecimal.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn random_key() -> Result<String> {
    let mut octets = [0u8; 16];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut octets)?;
    Ok(octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>() + "\n")
}

#[cfg(test)]
mod tests {
    /// What every unit says about memory that holds keys, and about the boot.
    #[test]
    fn units_are_bounded_and_ordered() {
        let daemons = [
            include_str!("../../../systemd/gcks.service"),
            include_str!("../../../systemd/gdoi-agent.service"),
        ];
        let block = include_str!("../../../systemd/gdoi-agent-block.service");
        let has = |unit: &str, line: &str| unit.lines().any(|one| one == line);
        let begins = |unit: &str, key: &str| unit.lines().any(|one| one.starts_with(key));
        for unit in daemons.iter().chain([&block]) {
            for line in ["MemorySwapMax=0", "LimitCORE=0", "NoNewPrivileges=yes"] {
                assert!(has(unit, line), "{line} in\n{unit}");
            }
            assert!(begins(unit, "MemoryMax=") && begins(unit, "TasksMax="), "{unit}");
        }
        assert!(daemons.iter().all(|unit| begins(unit, "OOMScoreAdjust=-")));
        assert!(has(block, "Before=network-pre.target shutdown.target"));
        assert!(has(block, "DefaultDependencies=no"));
        let ordered = |line: &str| line.starts_with("After=") && line.contains("gdoi-agent-block");
        assert!(
            daemons[1].lines().any(ordered) && has(daemons[1], "Also=gdoi-agent-block.service")
        );
    }
}
