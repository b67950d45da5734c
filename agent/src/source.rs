//! Where the configuration comes from: the file, and a copy of the one that was accepted last,
//! whose blocks stand in for those of a file with errors.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use daemon::configuration::Report;
use daemon::replace::write_atomically;
use thiserror::Error;
use tracing::{info, warn};

use crate::config::Config;
use crate::config::check::Interfaces;
use crate::config::check::{Machine, load};
use crate::member::blocks;

/// Name of the copy in the state directory.
const COPY: &str = "accepted.toml";

/// The configuration file and its copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    /// Where the last one without errors is kept; `None` where nothing is kept.
    pub accepted: Option<PathBuf>,
}

/// Why no copy of the configuration was kept; the one before stays.
#[derive(Debug, Error)]
pub enum KeepError {
    /// Somebody is writing the file: only what is without errors is kept.
    #[error("{}: changed while it was read", path.display())]
    Changed { path: PathBuf, report: Report },
    #[error("{}: cannot be read again: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
}

impl Source {
    /// The file at `path`. Without a name of its own the copy is in the first of the directories
    /// that the service manager names (`STATE_DIRECTORY`, systemd.exec(5)).
    pub fn new(path: PathBuf, accepted: Option<PathBuf>) -> Self {
        let accepted = accepted.or_else(|| in_first(&std::env::var_os("STATE_DIRECTORY")?));
        Self { path, accepted }
    }

    /// Keeps a copy of the file, which has just been accepted.
    ///
    /// # Errors
    /// The file has changed or cannot be read, or the copy cannot be written.
    pub fn keep(&self) -> Result<(), KeepError> {
        let Some(accepted) = &self.accepted else { return Ok(()) };
        if let Err(report) = load(&self.path, &Machine::unseen()) {
            return Err(KeepError::Changed { path: self.path.clone(), report });
        }
        let octets = std::fs::read(&self.path)
            .map_err(|source| KeepError::Unreadable { path: self.path.clone(), source })?;
        if std::fs::read(accepted).is_ok_and(|kept| kept == octets) {
            return Ok(());
        }
        write_atomically(accepted, &octets)
            .map_err(|source| KeepError::Unwritable { path: accepted.clone(), source })
    }

    /// The configuration as far as blocks depend on it: no key is read, and interfaces need not be
    /// there. In the place of a file with errors, which are returned, or whose blocks cannot be
    /// made, the copy counts.
    ///
    /// # Errors
    /// What is wrong with the file, and there is no copy.
    pub fn blocks(&self, interfaces: &Interfaces) -> Result<(Config, Option<Report>), Report> {
        let report = match blockable(&self.path, interfaces) {
            Ok(config) => return Ok((config, None)),
            Err(report) => report,
        };
        let Some(accepted) = &self.accepted else { return Err(report) };
        match blockable(accepted, interfaces) {
            Ok(config) => {
                info!(
                    event = "accepted-configuration-used",
                    file = %accepted.display(),
                    "configuration has errors; blocking by the last accepted configuration"
                );
                Ok((config, Some(report)))
            }
            Err(error) => {
                warn!(
                    event = "accepted-configuration-unusable",
                    %error,
                    "no previously accepted configuration can be used"
                );
                Err(report)
            }
        }
    }
}

/// The configuration in a file, if blocks can be made out of it.
fn blockable(path: &Path, interfaces: &Interfaces) -> Result<Config, Report> {
    let config = load(path, &Machine::unseen())?.value;
    match blocks(&config, interfaces) {
        Ok(_) => Ok(config),
        Err(unusable) => {
            let report = Report::new(&path.display().to_string(), "");
            report.error(None, unusable.to_string(), "correct that group");
            Err(report)
        }
    }
}

fn in_first(directories: &OsString) -> Option<PathBuf> {
    let first = std::env::split_paths(directories).next()?;
    (!first.as_os_str().is_empty()).then(|| first.join(COPY))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[group]]\nname = \"branches\"\nid = 1\nlocal-address = \"nowan0\"\nlan = [\"nolan0\"]\n\
                        wan = [\"nowan0\"]\nprotected = [\"172.16.0.0/12\"]\npre-shared-key-file = \"/none\"\n\
                        [[group.server]]\naddress = \"10.0.9.1\"\n";

    #[test]
    fn blocks_need_neither_keys_nor_interfaces_and_outlive_a_broken_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let source = Source::new(at("agent.toml"), Some(at(COPY)));
        assert!(source.blocks(&Interfaces::default()).is_err());
        std::fs::write(at("agent.toml"), GOOD).unwrap();
        let (config, errors) = source.blocks(&Interfaces::default()).unwrap();
        assert!(config.groups.len() == 1 && errors.is_none());
        source.keep().unwrap();
        std::fs::write(at("agent.toml"), GOOD.replace("id = 1", "id = one")).unwrap();
        assert!(matches!(source.keep(), Err(KeepError::Changed { .. })));
        let (config, errors) = source.blocks(&Interfaces::default()).unwrap();
        assert_eq!(config.groups[0].id.0, 1);
        assert!(errors.unwrap().to_string().contains("agent.toml:3:6: error"));
        std::fs::remove_file(at("agent.toml")).unwrap();
        assert!(
            source
                .blocks(&Interfaces::default())
                .unwrap()
                .1
                .unwrap()
                .to_string()
                .contains("cannot be read")
        );
        // A copy that is cut short or is none is no help, and the report is that of the file.
        for copy in [&GOOD.as_bytes()[..GOOD.len() / 2], b"\xff\x00", b""] {
            std::fs::write(at(COPY), copy).unwrap();
            let report = source.blocks(&Interfaces::default()).unwrap_err().to_string();
            assert!(report.contains("agent.toml") && !report.contains(COPY), "{report}");
        }
        std::fs::remove_file(at(COPY)).unwrap();
        std::fs::create_dir(at(COPY)).unwrap();
        assert!(source.blocks(&Interfaces::default()).is_err());
        std::fs::write(at("agent.toml"), GOOD).unwrap();
        assert!(matches!(source.keep(), Err(KeepError::Unwritable { .. })));
    }

    /// Such a file has no error in any line, and still there are no blocks of it.
    #[test]
    fn a_file_whose_blocks_cannot_be_made_counts_as_broken() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let source = Source::new(at("agent.toml"), Some(at(COPY)));
        std::fs::write(at("agent.toml"), GOOD).unwrap();
        source.keep().unwrap();
        // 14 prefixes on either side, both ways: more policies than there is room for.
        let mut text = GOOD.to_owned();
        for net in 0..22 {
            text += &format!(
                "[[group.exclude]]\nsource = \"10.{net}.0.1-10.{net}.0.254\"\n\
                 destination = \"10.99.0.1-10.99.0.254\"\n"
            );
        }
        std::fs::write(at("agent.toml"), text).unwrap();
        let (config, errors) = source.blocks(&Interfaces::default()).unwrap();
        assert!(config.groups[0].exclude.is_empty());
        let errors = errors.unwrap().to_string();
        assert!(errors.contains("policies"), "{errors}");
    }

    #[test]
    fn the_copy_lies_in_the_first_state_directory() {
        let of = |text: &str| in_first(&OsString::from(text));
        assert_eq!(of("/var/lib/a:/var/lib/b"), Some(PathBuf::from("/var/lib/a/accepted.toml")));
        assert_eq!(of(""), None);
    }
}
