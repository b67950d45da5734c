//! What the process gives up and what it needs: no core dumps, two capabilities, a kernel with ESP
//! and nf_tables.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use xfrm::prerequisites::{Problem, check_prerequisites, check_settings};

use crate::config::Config;

/// Turns core dumps off, so that keys in memory do not reach a disk, and keeps processes of the
/// same user from reading that memory.
///
/// # Errors
/// The kernel refuses.
pub fn no_core_dumps() -> anyhow::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("core dumps cannot be turned off")?;
    prctl::set_dumpable(false).context("core dumps cannot be turned off")
}

/// Looks at the machine. Returns what is worth a warning, each with its remedy.
///
/// # Errors
/// Starting makes no sense; all reasons, each with its remedy.
pub async fn check(config: &Config) -> anyhow::Result<Vec<Problem>> {
    let (fatal, warnings): (Vec<Problem>, Vec<Problem>) =
        check_prerequisites(&interfaces(config)).await.into_iter().partition(Problem::is_fatal);
    if !fatal.is_empty() {
        let lines: Vec<String> = fatal.iter().map(ToString::to_string).collect();
        bail!("{}", lines.join("\n"));
    }
    Ok(warnings)
}

/// Settings of the machine that are wrong at the moment; they can change at any time.
pub fn wrong_settings(config: &Config) -> Vec<Problem> {
    check_settings(&interfaces(config))
}

fn interfaces(config: &Config) -> Vec<String> {
    let names: BTreeSet<String> =
        config.groups.iter().flat_map(|group| group.interfaces().map(str::to_owned)).collect();
    names.into_iter().collect()
}
