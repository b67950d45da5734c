//! Child processes of the tasks, and where the workspace and its binaries are.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The workspace's root directory.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo's target directory: xtask itself was built into `<target>/<profile>/`.
///
/// # Errors
/// When the running executable has no such place.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let executable = std::env::current_exe().context("where is this executable?")?;
    let target = executable.ancestors().nth(2).context("xtask was not started by cargo")?;
    Ok(target.to_path_buf())
}

/// `cargo` as it was called, in the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace());
    command
}

/// Runs a command with inherited output; true when it ended with status 0.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    Ok(status.success())
}

/// Runs a command with inherited output and demands status 0.
///
/// # Errors
/// When it cannot be started or ends with another status.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    if !succeeds(command)? {
        let line: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.display().to_string())
            .collect();
        bail!("`{}` failed", line.join(" "));
    }
    Ok(())
}

/// Standard output of a command that ends with status 0.
///
/// # Errors
/// When it cannot be started or ends with another status; standard error is in the message.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether this process may do what only root may.
pub(crate) fn is_root() -> bool {
    output("id", &["-u"]).is_ok_and(|id| id.trim() == "0")
}
