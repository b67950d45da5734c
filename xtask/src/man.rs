//! `cargo xtask man`: the example files and manual pages of the configuration files, made from the
//! declarations of the options in `agent/src/config` and `gcks/src/config`, and the table of events.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::{command, events};

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
    let (path, table) = (command::workspace().join(events::DOCUMENT), events::document()?);
    if !man.check {
        std::fs::write(&path, table).with_context(|| path.display().to_string())?;
    } else if std::fs::read_to_string(&path).ok() != Some(table) {
        eprintln!(
            "{} is out of date: run `cargo xtask man` and commit the result",
            events::DOCUMENT
        );
        sound = false;
    }
    Ok(sound)
}
