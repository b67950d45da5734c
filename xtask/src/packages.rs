//! The Debian packages the lab needs: installed when we are root, named in one line otherwise.

use crate::command;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// A program and the Debian package it comes from.
pub struct Need {
    /// Name of the program, looked for in the usual directories.
    pub program: &'static str,
    /// Debian 12's package.
    pub package: &'static str,
}

const fn need(program: &'static str, package: &'static str) -> Need {
    Need { program, package }
}

/// What a scenario calls, on the host or inside the machine.
pub const SCENARIOS: &[Need] = &[
    need("ip", "iproute2"),
    need("nft", "nftables"),
    need("ping", "iputils-ping"),
    need("tcpdump", "tcpdump"),
    need("sysctl", "procps"),
    need("modprobe", "kmod"),
];

/// What the throw-away machine needs on top.
pub const MACHINE: &[Need] =
    &[need("qemu-system-x86_64", "qemu-system-x86"), need("busybox", "busybox-static")];

/// What the remaining tests need on top.
pub const TESTS: &[Need] = &[need("systemd-analyze", "systemd")];

const DIRECTORIES: &[&str] =
    &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Where a program is installed; root's directories count for everybody.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.exists())
}

/// Installs what is missing.
///
/// # Errors
/// When something is missing and cannot be installed; the message is the command to run.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let mut missing: Vec<&str> =
        needs.iter().filter(|need| find(need.program).is_none()).map(|need| need.package).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install --no-install-recommends --yes {}", missing.join(" "));
    if !command::is_root() {
        bail!("Debian packages are missing; run as root:  apt-get update && {line}");
    }
    println!("xtask: installing {}", missing.join(" "));
    fill_lists()?;
    let install = || {
        Command::new("apt-get")
            .args(["install", "--no-install-recommends", "--yes", "--quiet"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status()
    };
    // A list that is days old may name a package version the archive no longer has.
    if !install()?.success() {
        command::run(Command::new("apt-get").args(["update", "--quiet"]))?;
        if !install()?.success() {
            bail!("{line}: failed");
        }
    }
    Ok(())
}

/// Downloads the package lists when there are none.
///
/// # Errors
/// When there are none and we may not, or the archive cannot be reached.
pub fn fill_lists() -> Result<()> {
    let known = command::output("apt-cache", &["policy", "linux-image-amd64"]).unwrap_or_default();
    if known
        .lines()
        .any(|line| line.trim_start().starts_with("Candidate:") && !line.contains("(none)"))
    {
        return Ok(());
    }
    if !command::is_root() {
        bail!("there are no package lists; run as root:  apt-get update");
    }
    command::run(Command::new("apt-get").args(["update", "--quiet"]))
}
