//! `cargo xtask man`: the example files and manual pages of the configuration files, made from the
//! declarations of the options in `agent/src/config` and `gcks/src/config`.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::command;

#[derive(Args)]
pub(crate) struct Man {
    /// Compares instead of writing, and fails when a document is not what the declarations say.
    #[arg(long)]
    pub check: bool,
}

/// Writes the documents, or checks them; true when they are as they should be.
///
/// # Errors
/// Cargo cannot be started.
pub(crate) fn run(man: &Man) -> Result<bool> {
    let mut sound = true;
    for package in ["agent", "gcks"] {
        let mut cargo = Command::new(env!("CARGO"));
        // Examples of one name would overwrite each other in the target directory.
        let example = format!("{package}_documents");
        cargo.args(["run", "--quiet", "--package", package, "--example", &example]);
        cargo.current_dir(command::workspace());
        if man.check {
            cargo.args(["--", "--check"]);
        }
        sound &= cargo.status().context("cannot start cargo")?.success();
    }
    Ok(sound)
}
