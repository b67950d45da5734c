//! `gateway` and `tunnel`: create, set, delete, show. The daemon says what the configuration file
//! becomes and what follows; here it is shown, confirmed and written, and the daemon reads it again.
//!
//! The daemon has fewer rights than whoever writes the file, root as a rule. So it does not choose
//! the file, the text must be that of the file so far but for what was asked for, and the difference
//! that is confirmed is made here.

mod compare;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use control::client::{ClientError, ask};
use control::edit::{Edit, EditArgument, EditedConfiguration, EditedTable, OptionValue};
use control::{ErrorCode, ReloadArgument, Request, Response};
use serde_json::json;
use similar::TextDiff;

use super::{of_member, pretty, reload};
use crate::format::clean;

/// What is done to a gateway or a tunnel.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Task {
    /// Add one to the configuration, and have it taken over
    Create {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        how: How,
    },
    /// Change options of one; all others stay as they are
    Set {
        #[command(flatten)]
        options: Options,
        /// Remove an option, so that its default holds
        #[arg(long, value_name = "OPTION")]
        unset: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Remove one with its SAs; the peer is told
    Delete {
        /// Its name in the configuration
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// Show its state, or that of all
    Show {
        /// Its name in the configuration
        name: Option<String>,
    },
}

/// The name and options of a table.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Its name in the configuration
    name: String,
    /// Options as in gdoi-agent.toml(5), without quotes; elements of a list are separated by commas
    #[arg(value_name = "OPTION=VALUE", value_parser = option_value)]
    options: Vec<OptionValue>,
}

/// How a change is made.
#[derive(Clone, Debug, Args)]
pub(crate) struct How {
    /// The configuration file that gdoi-agent was started with; no other is written
    #[arg(long, value_name = "FILE", default_value = "/etc/gdoi-agent/gdoi-agent.toml")]
    config: PathBuf,

    /// Tell what would follow, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
}

fn option_value(text: &str) -> Result<OptionValue, String> {
    match text.split_once('=') {
        Some((option, value)) if !option.trim().is_empty() && !value.trim().is_empty() => {
            Ok(OptionValue { option: option.trim().to_owned(), value: value.to_owned() })
        }
        Some((_, "")) => Err(String::from("no value; remove an option with --unset OPTION")),
        _ => Err(String::from("write OPTION=VALUE")),
    }
}

impl Task {
    /// The change that is wanted of a table of this kind; `None` to show it.
    pub(crate) fn change(&self, table: EditedTable) -> Option<(EditArgument, How)> {
        let (name, edit, how) = match self {
            Self::Create { options: Options { name, options }, how } => {
                (name, Edit::Create { options: options.clone() }, how)
            }
            Self::Set { options: Options { name, options }, unset, how } => {
                (name, Edit::Set { options: options.clone(), unset: unset.clone() }, how)
            }
            Self::Delete { name, how } => (name, Edit::Delete, how),
            Self::Show { .. } => return None,
        };
        Some((EditArgument { table, name: name.clone(), edit }, how.clone()))
    }

    /// The name of what is to be shown.
    pub(crate) fn shown(&self) -> Option<&str> {
        match self {
            Self::Show { name } => name.as_deref(),
            _ => None,
        }
    }
}

/// Makes a change: asks the daemon what it is, shows it, writes the file, and has it read again.
///
/// # Errors
/// One line with the remedy. The file and the daemon are as they were, unless the line says that
/// this is not known.
pub(crate) async fn run(
    socket: &Path,
    (argument, how): (EditArgument, How),
    json: bool,
) -> anyhow::Result<String> {
    let Response::Edited(edited) = ask(socket, Request::Edit(argument.clone())).await? else {
        bail!("the daemon sent an answer to another request: its version differs");
    };
    let file = own_file(&how.config, &edited)?;
    compare::is_as_asked(&argument, &edited.before, &edited.after).map_err(|excess| {
        anyhow!(
            "the daemon answers with a change that was not asked for: {excess}; nothing was written"
        )
    })?;
    if how.dry_run {
        return told(&edited, json);
    }
    if edited.before == edited.after && edited.changes.is_empty() {
        return if json { told(&edited, json) } else { Ok(String::from("nothing has changed\n")) };
    }
    if !how.yes {
        confirm(&edited, json)?;
    }
    replace(&file, &edited.before, &edited.after)?;
    let answer = ask(socket, Request::Reload(ReloadArgument { dry_run: false })).await;
    let shown = file.display();
    let cause = match answer {
        Ok(Response::Configuration(changes)) if json => return pretty(&changes),
        Ok(Response::Configuration(changes)) => return Ok(reload::text(&changes)),
        Err(error) if is_refusal(&error) => {
            replace(&file, &edited.after, &edited.before)
                .with_context(|| format!("{shown} has the change, and the daemon has not"))?;
            let message = format!("the change was not taken over, {shown} is as it was");
            return Err(anyhow::Error::new(error).context(message));
        }
        Ok(_) => anyhow!("the daemon sent an answer to another request"),
        Err(error) => anyhow::Error::new(of_member(error)),
    };
    let EditArgument { table, name, .. } = argument;
    Err(cause.context(format!(
        "{shown} has the change, and whether the daemon has it is unknown: look with `gdoictl reload \
         member --dry-run` and `gdoictl {table} show {name}`"
    )))
}

/// The configuration file that the user named, if it is the one that the daemon read, and has the
/// text that it read.
fn own_file(config: &Path, edited: &EditedConfiguration) -> anyhow::Result<PathBuf> {
    let unreadable = |error: io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "use sudo",
            _ => "name the file that gdoi-agent was started with by --config",
        };
        anyhow!("{} cannot be read: {error}; {remedy}", config.display())
    };
    let file = fs::canonicalize(config).map_err(unreadable)?;
    if file != edited.file {
        bail!(
            "the daemon says that its configuration is {}, and that is not {}; if it was started \
             with another file (systemctl cat gdoi-agent), name that by --config",
            edited.file.display(),
            file.display()
        );
    }
    if fs::read_to_string(&file).map_err(unreadable)? != edited.before {
        bail!(
            "{}: the daemon has read another text than it holds; if somebody has changed it \
             meanwhile, look at it and try again",
            file.display()
        );
    }
    Ok(file)
}

/// Whether a reload was refused, and so not carried out. A daemon that was too slow may carry it
/// out yet, and of an answer that is not understood nothing is known.
fn is_refusal(error: &ClientError) -> bool {
    let ClientError::Refused { source, .. } = error else { return false };
    !matches!(source.code, ErrorCode::Unavailable | ErrorCode::Malformed | ErrorCode::Version)
}

fn told(edited: &EditedConfiguration, json: bool) -> anyhow::Result<String> {
    if json {
        let EditedConfiguration { file, table, warnings, changes, .. } = edited;
        return pretty(&json!({
            "dry_run": true,
            "file": file,
            "difference": difference(edited),
            "table": table,
            "warnings": warnings,
            "changes": changes,
        }));
    }
    Ok(format!("{}{}", preview(edited), reload::text(&edited.dry_run())))
}

/// What differs in the file, as `diff -u` has it.
fn difference(edited: &EditedConfiguration) -> String {
    TextDiff::from_lines(&edited.before, &edited.after).unified_diff().to_string()
}

fn preview(edited: &EditedConfiguration) -> String {
    let difference = difference(edited);
    if difference.is_empty() {
        return difference;
    }
    let lines: Vec<String> =
        difference.lines().map(|line| format!("  {}\n", clean(line))).collect();
    format!("{}:\n{}", clean(&edited.file.display().to_string()), lines.concat())
}

/// Asks on the terminal.
fn confirm(edited: &EditedConfiguration, json: bool) -> anyhow::Result<()> {
    if json || !io::stdin().is_terminal() {
        bail!("nobody can be asked for confirmation here: add --yes, or look first with --dry-run");
    }
    let mut terminal = io::stderr().lock();
    let changes = reload::changes(&edited.dry_run());
    write!(terminal, "{}{changes}Apply this? [y/N] ", preview(edited))?;
    terminal.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("not confirmed; nothing was done"),
    }
}

/// Puts a text in the place of a file that still holds `before`: complete or not at all. Owner and
/// mode stay.
fn replace(path: &Path, before: &str, after: &str) -> anyhow::Result<()> {
    let beside = beside(path);
    let failed = |error: io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "use sudo",
            io::ErrorKind::AlreadyExists => "another gdoictl writes it; if none runs, remove it",
            _ => "the configuration is as it was",
        };
        anyhow::anyhow!("{} cannot be written: {error}; {remedy}", beside.display())
    };
    // Whoever makes it is the only one who writes until it is renamed.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed)?;
    let written = write(&mut file, path, before, after);
    let renamed = written.and_then(|()| fs::rename(&beside, path).map_err(failed));
    if renamed.is_err() {
        let _ = fs::remove_file(&beside);
        return renamed;
    }
    if let Some(folder) = path.parent() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    Ok(())
}

fn write(file: &mut File, path: &Path, before: &str, after: &str) -> anyhow::Result<()> {
    let at = || path.display().to_string();
    if fs::read_to_string(path).with_context(at)? != before {
        bail!("{}: somebody has changed it meanwhile; look at it and try again", at());
    }
    let metadata = fs::metadata(path).with_context(at)?;
    file.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    fchown(&*file, Some(metadata.uid()), Some(metadata.gid()))
        .with_context(|| format!("{}: its owner cannot be kept; use sudo", at()))?;
    file.write_all(after.as_bytes())?;
    file.sync_all()?;
    Ok(())
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_mode_unless_it_changed_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        fs::write(&path, "before").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        replace(&path, "before", "after").unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        assert_ne!(metadata.ino(), inode);
        let error = replace(&path, "before", "other").unwrap_err().to_string();
        assert!(error.contains("somebody has changed it"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        // Nothing is left behind, and who is there first goes first.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(beside(&path), "").unwrap();
        let error = replace(&path, "after", "other").unwrap_err().to_string();
        assert!(error.contains("another gdoictl"), "{error}");
    }

    #[test]
    fn an_option_has_a_name_and_a_value() {
        let option = option_value("identity={ fqdn = \"a=b\" }").unwrap();
        assert_eq!(
            (option.option.as_str(), option.value.as_str()),
            ("identity", "{ fqdn = \"a=b\" }")
        );
        assert!(option_value("lifetime=").unwrap_err().contains("--unset"));
        assert!(option_value("lifetime").is_err() && option_value("=1h").is_err());
    }
}
