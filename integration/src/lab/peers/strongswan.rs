//! strongSwan from Debian on a node: its daemon charon, driven by swanctl.

use super::IkePeer;
use crate::lab::nodes::{Node, Process};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

const CHARON: &str = "/usr/lib/ipsec/charon";
/// charon answers swanctl within this time.
const READY_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct StrongSwan {
    node: Node,
    directory: PathBuf,
    /// Ended when this is dropped.
    process: Process,
}

impl StrongSwan {
    /// Starts charon on a node, without any connection.
    ///
    /// # Errors
    /// When it is not installed or does not answer.
    pub fn start(node: Node, directory: &Path) -> Result<Self> {
        let directory = directory.join(format!("{}-strongswan", node.0));
        fs::create_dir_all(&directory)?;
        let settings = directory.join("strongswan.conf");
        let text = format!(
            "charon {{\n  install_routes = no\n  install_virtual_ip = no\n  retransmit_tries = 3\n  \
             i_dont_care_about_security_and_use_aggressive_mode_psk = yes\n  \
             retransmit_timeout = 2.0\n  start-scripts {{\n  }}\n  filelog {{\n    log {{\n      \
             path = {}\n      default = 1\n      ike = 2\n      cfg = 2\n      chd = 2\n      \
             flush_line = yes\n    }}\n  }}\n  plugins {{\n    vici {{\n      socket = {}\n    \
             }}\n  }}\n}}\n",
            directory.join("charon.log").display(),
            uri(&directory),
        );
        fs::write(&settings, text)?;
        let process = Self::spawn(node, &directory)?;
        let charon = Self { node, directory, process };
        charon.wait_ready()?;
        Ok(charon)
    }

    fn spawn(node: Node, directory: &Path) -> Result<Process> {
        let output =
            OpenOptions::new().create(true).append(true).open(directory.join("output.log"))?;
        let mut command = node.command(CHARON, &[]);
        command.env("STRONGSWAN_CONF", directory.join("strongswan.conf"));
        command.stdout(Stdio::from(output.try_clone()?)).stderr(output);
        Process::start(&mut command).context("strongSwan's charon")
    }

    fn wait_ready(&self) -> Result<()> {
        let started = Instant::now();
        while !self.swanctl(&["--stats"])?.status.success() {
            if started.elapsed() > READY_WITHIN {
                bail!("charon on {} does not answer:\n{}", self.node.0, self.log_tail(12));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    /// Kills it and starts it again: what it had is gone, also from its kernel.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        let _ = self.process.wait(Duration::from_secs(10));
        self.node.ip("xfrm state flush")?;
        self.node.ip("xfrm policy flush")?;
        let _ = fs::remove_file("/var/run/charon.pid");
        let _ = fs::remove_file(self.directory.join("vici"));
        self.process = Self::spawn(self.node, &self.directory)?;
        self.wait_ready()
    }

    /// It says nothing any more until [`StrongSwan::thaw`].
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

    /// Ends what is under way and takes over these connections and secrets.
    ///
    /// # Errors
    /// When swanctl refuses the file.
    pub fn load(&self, text: &str) -> Result<()> {
        let _ = self.swanctl(&["--terminate", "--ike", "lab", "--force", "--timeout", "3"])?;
        let file = self.directory.join("swanctl.conf");
        fs::write(&file, text)?;
        let file = file.to_string_lossy().into_owned();
        let output = self.swanctl(&["--load-all", "--noprompt", "--file", &file])?;
        if !output.status.success() {
            bail!("swanctl on {}: {}", self.node.0, both(&output));
        }
        Ok(())
    }

    /// Has it begin a child; whether that worked.
    ///
    /// # Errors
    /// When swanctl cannot be run.
    pub fn initiate(&self, child: &str) -> Result<bool> {
        let line = ["--initiate", "--child", child, "--timeout", "20"];
        Ok(self.swanctl(&line)?.status.success())
    }

    /// Has it renew the SAs of a child, or the ISAKMP SA.
    ///
    /// # Errors
    /// When swanctl refuses.
    pub fn rekey(&self, what: &[&str]) -> Result<()> {
        let output = self.swanctl(&[&["--rekey"], what].concat())?;
        if !output.status.success() {
            bail!("swanctl on {}: {}", self.node.0, both(&output));
        }
        Ok(())
    }

    /// Where it reads, beside its configuration, certificates (`x509`, `x509ca`), revocation lists (`x509crl`) and keys
    /// (`private`).
    pub fn credentials(&self) -> &Path {
        &self.directory
    }

    /// Its SAs in its own words.
    ///
    /// # Errors
    /// When swanctl cannot be run.
    pub fn sas(&self) -> Result<String> {
        Ok(both(&self.swanctl(&["--list-sas"])?))
    }

    /// Runs swanctl against it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn swanctl(&self, arguments: &[&str]) -> Result<Output> {
        let uri = uri(&self.directory);
        let (command, rest) = arguments.split_first().context("swanctl without a command")?;
        self.node.output("swanctl", &[&[*command, "--uri", &uri], rest].concat())
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read_to_string(self.directory.join("charon.log")).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }
}

impl IkePeer for StrongSwan {
    fn load(&self, text: &str) -> Result<()> {
        Self::load(self, text)
    }

    fn initiate(&self, child: &str) -> Result<bool> {
        Self::initiate(self, child)
    }

    fn log_tail(&self, lines: usize) -> String {
        Self::log_tail(self, lines)
    }
}

fn uri(directory: &Path) -> String {
    format!("unix://{}", directory.join("vici").display())
}

fn both(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).trim().to_owned()
}
