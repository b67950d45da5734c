//! `cargo xtask lab`: builds everything and plays the lab.

use crate::command;
use crate::kernel::Series;
use crate::machine::{self, Job};
use crate::packages;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Minutes that the ordinary scenarios take in an emulated machine on two cores, measured.
const MINUTES: &str = "18 to 20";

#[derive(Args, Default)]
pub(crate) struct Lab {
    /// Leaves the lab running afterwards, with a shell: `lab shell g1` opens one on a node.
    #[arg(long)]
    pub keep: bool,
    /// Plays only these scenarios (`cargo xtask lab --list` names them).
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub scenario: Vec<String>,
    /// Breaks the lab in every known way as well, and demands that the matching statement fails.
    #[arg(long)]
    pub sabotage: bool,
    /// Plays what has been built already.
    #[arg(long)]
    pub no_build: bool,
    /// Print the name of each scenario and what it shows
    #[arg(long)]
    pub list: bool,
    /// Boots the machine even when this host's kernel has ESP and nf_tables.
    #[arg(long)]
    pub machine: bool,
    /// Boots a machine with this kernel of Debian 12.
    #[arg(long, value_enum)]
    pub kernel: Option<Series>,
    /// Build with optimisation, for measurements
    #[arg(long)]
    pub release: bool,
    /// Ends the machine after this many minutes.
    #[arg(long, default_value_t = 40, value_name = "MINUTES")]
    pub timeout: u64,
}

/// Builds and plays; true when every statement held.
///
/// # Errors
/// When something cannot be built, installed or booted.
pub(crate) fn run(lab: &Lab) -> Result<bool> {
    let binaries = if lab.no_build { directory(lab.release)? } else { build(lab.release)? };
    if lab.list {
        return command::succeeds(std::process::Command::new(binaries.join("lab")).arg("list"));
    }
    let mut arguments = vec!["run".to_owned()];
    if lab.sabotage {
        arguments.push("--sabotage".to_owned());
    }
    for name in &lab.scenario {
        arguments.extend(["--scenario".to_owned(), name.clone()]);
    }
    if lab.keep {
        arguments.push("--keep".to_owned());
    }
    if lab.scenario.iter().any(|name| name == "tunnels-libreswan") {
        packages::unpack_libreswan()?;
    }
    machine::play(&Job {
        arguments,
        binaries,
        lab: None,
        keep: lab.keep,
        timeout: Duration::from_secs(lab.timeout.max(1) * 60),
        force_machine: lab.machine || lab.kernel.is_some(),
        kernel: lab.kernel.unwrap_or_default(),
        system: None,
        minutes: lab.scenario.is_empty().then_some(MINUTES),
    })
}

/// Builds the daemons, `gdoictl` and the lab; returns where they are.
///
/// # Errors
/// When the build fails.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    // The whole workspace: with fewer packages other features of the dependencies would be on, and
    // all be built again.
    let mut arguments = vec!["build", "--quiet", "--workspace", "--bins"];
    if release {
        arguments.push("--release");
    }
    println!("xtask: building the daemons and the lab");
    command::run(&mut command::cargo(&arguments))?;
    directory(release)
}

/// Where a build leaves its programs.
///
/// # Errors
/// When cargo does not say.
pub(crate) fn directory(release: bool) -> Result<PathBuf> {
    Ok(command::target_directory()?.join(if release { "release" } else { "debug" }))
}
