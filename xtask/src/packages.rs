//! The Debian packages that lab and tests need: installed by root, named in one line otherwise.

use crate::command;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// One line of `packages.list`.
struct Need {
    /// A program, looked for in the usual directories, or the path of a file.
    what: &'static str,
    package: &'static str,
    purpose: &'static str,
}

/// What the packages are for: a word of `packages.list`.
pub(crate) const LAB: &str = "lab";
/// The lab in a machine of its own.
pub(crate) const MACHINE: &str = "machine";
/// Debian packages of the daemons.
pub(crate) const PACKAGE: &str = "package";
/// What libreswan needs, which is unpacked and not installed.
pub(crate) const LIBRESWAN: &str = "libreswan";
/// The tests beside the lab.
pub(crate) const TEST: &str = "test";

/// The list that the scripts `lab` and `test` read as well.
const LIST: &str = include_str!("../packages.list");

fn needs() -> impl Iterator<Item = Need> {
    LIST.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some(Need { what: words.next()?, package: words.next()?, purpose: words.next()? })
    })
}

const DIRECTORIES: &[&str] =
    &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Where a program is installed, its directory searched for every user; or the file itself.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.exists())
}

/// Installs what is missing for these purposes.
///
/// # Errors
/// When something is missing and cannot be installed; the message is the command to run.
pub(crate) fn ensure(purposes: &[&str]) -> Result<()> {
    let mut missing: Vec<&str> = needs()
        .filter(|need| purposes.contains(&need.purpose) && find(need.what).is_none())
        .map(|need| need.package)
        .collect();
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

/// Where the lab finds libreswan.
const LIBRESWAN_ROOT: &str = "/var/cache/gdoi-lab/libreswan";

/// Unpacks libreswan into a directory of its own: its package and strongSwan's exclude each other.
///
/// # Errors
/// When it cannot be downloaded or unpacked.
pub(crate) fn unpack_libreswan() -> Result<()> {
    const PACKAGES: [&str; 5] =
        ["libreswan", "libldns3", "libcap-ng0", "libevent-pthreads-2.1-7", "libnss3-tools"];
    let root = Path::new(LIBRESWAN_ROOT);
    if root.join("usr/libexec/ipsec/pluto").exists() {
        return Ok(());
    }
    if !command::is_root() {
        bail!(
            "libreswan is not there; run once as root:  cargo xtask lab --scenario tunnels-libreswan"
        );
    }
    ensure(&[LIBRESWAN])?;
    fill_lists()?;
    println!("xtask: unpacking libreswan");
    let download = root.join("download");
    std::fs::create_dir_all(&download)?;
    let mut fetch = Command::new("apt-get");
    command::run(fetch.args(["download", "--quiet"]).args(PACKAGES).current_dir(&download))?;
    for entry in std::fs::read_dir(&download)? {
        let file = entry?.path();
        command::run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(root))?;
    }
    std::fs::remove_dir_all(&download)?;
    Ok(())
}

/// Downloads the package lists when there are none.
///
/// # Errors
/// When there are none and we may not, or the archive cannot be reached.
pub(crate) fn fill_lists() -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_has_a_known_purpose() {
        let lines = LIST.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(needs().count(), lines);
        for need in needs() {
            assert!(
                ["build", LAB, MACHINE, PACKAGE, TEST, LIBRESWAN].contains(&need.purpose),
                "{}",
                need.what
            );
        }
    }

    #[test]
    fn a_path_is_found_where_it_says() {
        assert_eq!(find("/bin/sh").unwrap(), Path::new("/bin/sh"));
        assert!(find("sh").is_some());
        assert!(find("/no/such/file").is_none());
    }
}
