//! What the machine must have: a kernel with ESP and nf_tables, and settings that forward.

use std::collections::BTreeSet;

use anyhow::bail;
use xfrm::prerequisites::{Problem, check_prerequisites, check_settings};

use crate::config::Config;

/// Looks at the machine. Returns what is worth a warning, each with its remedy.
///
/// # Errors
/// Starting makes no sense; all reasons, each with its remedy.
pub async fn check(config: &Config) -> anyhow::Result<Vec<Problem>> {
    let (fatal, warnings): (Vec<Problem>, Vec<Problem>) =
        check_prerequisites(&interfaces(config), &lans(config))
            .await
            .into_iter()
            .partition(Problem::is_fatal);
    if !fatal.is_empty() {
        let lines: Vec<String> = fatal.iter().map(ToString::to_string).collect();
        bail!("{}", lines.join("\n"));
    }
    Ok(warnings)
}

/// Settings of the machine that are wrong at the moment; they can change at any time.
pub fn wrong_settings(config: &Config) -> Vec<Problem> {
    check_settings(&interfaces(config), &lans(config))
}

fn interfaces(config: &Config) -> Vec<String> {
    let names: BTreeSet<String> =
        config.groups.iter().flat_map(|group| group.interfaces().map(str::to_owned)).collect();
    names.into_iter().collect()
}

fn lans(config: &Config) -> Vec<String> {
    let names: BTreeSet<&String> = config.groups.iter().flat_map(|group| &group.lan).collect();
    names.into_iter().cloned().collect()
}
