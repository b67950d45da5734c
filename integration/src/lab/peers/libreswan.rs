//! libreswan from Debian on a node: its daemon pluto, driven by addconn and whack.
//!
//! Its package and strongSwan's exclude each other, so that it is unpacked into a directory of its
//! own and finds its libraries there.

use super::IkePeer;
use crate::lab::nodes::{Node, Process};
use anyhow::{Context, Result, bail};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Where `cargo xtask lab` unpacks it.
const ROOT: &str = "/var/cache/gdoi-lab/libreswan";
const LIBRARIES: &str = "/var/cache/gdoi-lab/libreswan/usr/lib/x86_64-linux-gnu:\
    /var/cache/gdoi-lab/libreswan/lib/x86_64-linux-gnu";
/// pluto answers whack within this time.
const READY_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Libreswan {
    node: Node,
    directory: PathBuf,
    /// Ended when this is dropped.
    _process: Process,
}

impl Libreswan {
    /// Starts pluto on a node, without any connection.
    ///
    /// # Errors
    /// When it is not there or does not answer.
    pub fn start(node: Node, directory: &Path) -> Result<Self> {
        let directory = directory.join(format!("{}-libreswan", node.0));
        for part in ["nss", "run", "ipsec.d"] {
            fs::create_dir_all(directory.join(part))?;
        }
        fs::write(directory.join("ipsec.conf"), "config setup\n    ikev1-policy=accept\n")?;
        fs::write(directory.join("ipsec.secrets"), "")?;
        let nss = format!("sql:{}", directory.join("nss").display());
        let made = program("usr/bin/certutil", &["-N", "-d", &nss, "--empty-password"]).output()?;
        if !made.status.success() {
            bail!("certutil: {}", both(&made));
        }
        let file = |name: &str| directory.join(name).display().to_string();
        let (config, secrets, run) = (file("ipsec.conf"), file("ipsec.secrets"), file("run"));
        let (nss, own) = (file("nss"), file("ipsec.d"));
        let arguments = [
            "--nofork",
            "--stderrlog",
            "--no-dnssec",
            "--config",
            &config,
            "--secretsfile",
            &secrets,
            "--rundir",
            &run,
            "--nssdir",
            &nss,
            "--ipsecdir",
            &own,
        ];
        let log = OpenOptions::new().create(true).append(true).open(directory.join("pluto.log"))?;
        // It looks for its helpers where its package would have put them. The mount is seen by
        // what runs in this namespace alone.
        let script = format!(
            "mount --bind {ROOT}/usr/libexec /usr/libexec && exec /usr/libexec/ipsec/pluto \"$@\""
        );
        let mut command = node.command("sh", &["-c", &script, "pluto"]);
        command.args(arguments);
        command.env("LD_LIBRARY_PATH", LIBRARIES);
        command.stdout(Stdio::from(log.try_clone()?)).stderr(log);
        let process = Process::start(&mut command).context("libreswan's pluto")?;
        let pluto = Self { node, directory, _process: process };
        pluto.wait_ready()?;
        Ok(pluto)
    }

    fn wait_ready(&self) -> Result<()> {
        let started = Instant::now();
        while !self.whack(&["--listen"])?.status.success() {
            if started.elapsed() > READY_WITHIN {
                bail!("pluto on {} does not answer:\n{}", self.node.0, self.log_tail(12));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    /// Runs whack against it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn whack(&self, arguments: &[&str]) -> Result<Output> {
        let run = self.directory.join("run").display().to_string();
        self.run("whack", &[&["--rundir", &run], arguments].concat())
    }

    /// Imports a certificate with its key and the authority behind it, all in one PKCS#12 file
    /// without a password.
    ///
    /// # Errors
    /// When pk12util refuses it.
    pub fn import(&self, file: &Path) -> Result<()> {
        let nss = format!("sql:{}", self.directory.join("nss").display());
        let file = file.display().to_string();
        let output = program("usr/bin/pk12util", &["-i", &file, "-d", &nss, "-W", ""]).output()?;
        if !output.status.success() {
            bail!("pk12util: {}", both(&output));
        }
        Ok(())
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Result<Output> {
        let path = format!("{ROOT}/usr/libexec/ipsec/{name}");
        let mut command = self.node.command(&path, arguments);
        Ok(command.env("LD_LIBRARY_PATH", LIBRARIES).output()?)
    }
}

impl IkePeer for Libreswan {
    /// The secret stands in the first line, behind a `#`.
    fn load(&self, text: &str) -> Result<()> {
        let _ = self.whack(&["--name", "net", "--terminate"])?;
        let _ = self.whack(&["--name", "net", "--delete"])?;
        let secret = text.lines().next().unwrap_or_default().trim_start_matches("# ");
        fs::write(self.directory.join("ipsec.secrets"), format!("{secret}\n"))?;
        let config = self.directory.join("ipsec.conf");
        fs::write(&config, format!("config setup\n    ikev1-policy=accept\n\n{text}"))?;
        let read = self.whack(&["--rereadsecrets"])?;
        let socket = self.directory.join("run/pluto.ctl").display().to_string();
        let config = config.display().to_string();
        let added = self.run("addconn", &["--config", &config, "--ctlsocket", &socket, "net"])?;
        if !added.status.success() {
            bail!("libreswan on {}: {} {}", self.node.0, both(&added), both(&read));
        }
        Ok(())
    }

    fn initiate(&self, child: &str) -> Result<bool> {
        let mut command = self.node.command("timeout", &["25"]);
        command.arg(format!("{ROOT}/usr/libexec/ipsec/whack"));
        command.arg("--rundir").arg(self.directory.join("run"));
        command.args(["--name", child, "--initiate"]);
        Ok(command.env("LD_LIBRARY_PATH", LIBRARIES).output()?.status.success())
    }

    fn log_tail(&self, lines: usize) -> String {
        let text = fs::read_to_string(self.directory.join("pluto.log")).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }
}

fn program(path: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(format!("{ROOT}/{path}"));
    command.args(arguments).env("LD_LIBRARY_PATH", LIBRARIES).stdin(Stdio::null());
    command
}

fn both(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).trim().to_owned()
}
