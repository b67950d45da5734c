//! `cargo xtask package`: Debian packages of both daemons and of the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::kernel::{self, Series};
use crate::machine::{self, Job, System};
use crate::{command, lab, packages};

/// The programs of the packages.
const PROGRAMS: &[&str] = &["gdoi-agent", "gcks", "gdoictl"];

/// What the packages are made of beside programs: from the workspace to the package's source.
const FILES: &[(&str, &str)] = &[
    ("packaging/debian", "debian"),
    ("packaging/conf", "conf"),
    ("man", "man"),
    ("README.md", "README.md"),
    ("SECURITY.md", "SECURITY.md"),
    ("docs", "docs"),
    ("control/PROTOCOL.md", "control/PROTOCOL.md"),
    ("agent/gdoi-agent.example.toml", "agent/gdoi-agent.example.toml"),
    ("gcks/gcks.example.toml", "gcks/gcks.example.toml"),
    ("systemd/gdoi-agent.service", "debian/gdoi-agent.service"),
    ("systemd/gdoi-agent-block.service", "debian/gdoi-agent.gdoi-agent-block.service"),
    ("systemd/gdoi-agent.sysusers.conf", "debian/gdoi-agent.sysusers"),
    ("systemd/gdoi-agent.tmpfiles.conf", "debian/gdoi-agent.tmpfiles"),
    ("systemd/gcks.service", "debian/gcks.service"),
    ("systemd/gcks.sysusers.conf", "debian/gcks.sysusers"),
    ("systemd/gcks.tmpfiles.conf", "debian/gcks.tmpfiles"),
];

/// Shells, and what each calls the file with its completions.
const COMPLETIONS: &[(&str, &str)] =
    &[("bash", "gdoictl.bash"), ("zsh", "_gdoictl"), ("fish", "gdoictl.fish")];

#[derive(Args, Default)]
pub(crate) struct Package {
    /// Packages a build without optimisation.
    #[arg(long)]
    pub debug: bool,
    /// Packages what has been built already.
    #[arg(long)]
    pub no_build: bool,
    /// Installs, runs, upgrades and purges them in a machine with systemd as well.
    #[arg(long)]
    pub lab: bool,
}

/// Builds the packages and holds them against the rules of Debian; true when lintian has no error.
///
/// # Errors
/// When something cannot be built.
pub(crate) fn run(package: &Package) -> Result<bool> {
    packages::ensure(&[packages::PACKAGE])?;
    let binaries = match package.no_build {
        true => lab::directory(!package.debug)?,
        false => lab::build(!package.debug)?,
    };
    let results = command::target_directory()?.join("package");
    let made = build(&binaries, &results)?;
    for file in &made {
        println!("xtask: {}", file.display());
    }
    println!("xtask: lintian");
    let sound =
        command::succeeds(Command::new("lintian").args(["--fail-on", "error"]).args(&made))?;
    Ok(sound && (!package.lab || play(binaries, made)?))
}

/// Plays the life of the packages on a router with systemd.
fn play(binaries: PathBuf, made: Vec<PathBuf>) -> Result<bool> {
    machine::play(&Job {
        arguments: Vec::new(),
        binaries,
        lab: None,
        keep: false,
        timeout: Duration::from_secs(40 * 60),
        minutes: Some("10 to 20"),
        force_machine: true,
        kernel: Series::default(),
        system: Some(System {
            root: debian()?,
            script: command::workspace().join("integration/machine/packages"),
            files: made,
        }),
    })
}

/// What a router has beside the least of Debian.
const INCLUDE: &str =
    "systemd,systemd-sysv,dbus,iproute2,nftables,iputils-ping,procps,kmod,openssl";

/// A Debian 12 with systemd, made once.
fn debian() -> Result<PathBuf> {
    let root = kernel::cache_directory()?.join("debian-12-systemd");
    if root.join("complete").exists() {
        return Ok(root);
    }
    println!("xtask: making a Debian 12 with systemd (about 260 MB, once)");
    let _ = fs::remove_dir_all(&root);
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", &format!("--include={INCLUDE}"), "bookworm"])
        .arg(&root)
        .stdout(std::process::Stdio::null());
    command::run(&mut debootstrap)?;
    fs::write(root.join("complete"), "")?;
    Ok(root)
}

/// The packages, in `results`, which is made again.
///
/// # Errors
/// When a file is missing or a tool fails.
pub(crate) fn build(binaries: &Path, results: &Path) -> Result<Vec<PathBuf>> {
    let _ = fs::remove_dir_all(results);
    let source = results.join("source");
    for (from, to) in FILES {
        copy(&command::workspace().join(from), &source.join(to))?;
    }
    same_version(&source.join("debian/changelog"))?;
    for program in PROGRAMS {
        copy(&binaries.join(program), &source.join("built").join(program))?;
    }
    fs::create_dir_all(source.join("completions"))?;
    for (shell, file) in COMPLETIONS {
        let program = binaries.join("gdoictl").display().to_string();
        let text = command::output(&program, &["completion", shell])?;
        fs::write(source.join("completions").join(file), text)?;
    }
    let log = results.join("build.log");
    let output = fs::File::create(&log)?;
    let mut debian = Command::new("dpkg-buildpackage");
    debian
        .args(["--build=binary", "--no-sign"])
        // Debug information stays in the build that it came from.
        .env("DEB_BUILD_OPTIONS", "noautodbgsym")
        .current_dir(&source)
        .stderr(output.try_clone()?)
        .stdout(output);
    if !command::succeeds(&mut debian)? {
        let log = fs::read_to_string(&log).unwrap_or_default();
        bail!("dpkg-buildpackage fails:\n{log}");
    }
    let mut made = Vec::new();
    for entry in fs::read_dir(results)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            made.push(path);
        }
    }
    made.sort();
    Ok(made)
}

/// The packages say the version that the programs do.
fn same_version(changelog: &Path) -> Result<()> {
    let text = fs::read_to_string(changelog)?;
    let version = text.split(['(', ')']).nth(1).unwrap_or_default();
    if version != env!("CARGO_PKG_VERSION") {
        bail!(
            "packaging/debian/changelog begins with version {version}, and Cargo.toml says {}: add \
             an entry",
            env!("CARGO_PKG_VERSION")
        );
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("cannot copy {} to {}", from.display(), to.display());
    if from.is_dir() {
        for entry in fs::read_dir(from).with_context(failed)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let directory = to.parent().with_context(failed)?;
    fs::create_dir_all(directory).with_context(failed)?;
    fs::copy(from, to).with_context(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document that a package names and nobody copies ends `cargo xtask package`, which no other
    /// test builds.
    #[test]
    fn what_the_packages_name_is_there() {
        let workspace = command::workspace();
        for package in ["gcks", "gdoi-agent", "gdoictl"] {
            let list = workspace.join(format!("packaging/debian/{package}.docs"));
            let list = fs::read_to_string(list).unwrap_or_default();
            for document in list.lines().filter(|line| !line.trim().is_empty()) {
                assert!(workspace.join(document).exists(), "{package}: {document}");
                let copied = FILES.iter().any(|(_, to)| Path::new(document).starts_with(to));
                assert!(copied, "{package}: {document} is not in FILES");
            }
        }
    }
}
