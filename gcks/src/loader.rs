//! Reads the configuration again, beside the event loop: thousands of members and a new RSA key
//! take seconds.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use ::control::server::Call;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::config::change::Change;
use crate::config::{self, Config, Fixed, Report};
use crate::group::signing_key::{self, SigningKeyError, SigningKeys};

/// Who wants the configuration read.
#[derive(Debug)]
pub enum Asked {
    Signal,
    /// `gdoictl reload`, perhaps with `--dry-run`.
    Call {
        call: Call,
        /// Whether nothing is to be changed.
        dry_run: bool,
    },
    /// A standby server, which makes no keys, for later.
    Check {
        call: Option<Call>,
    },
}

/// A configuration that was read.
#[derive(Debug)]
pub struct Loaded {
    pub asked: Asked,
    /// The configuration, or what is wrong with it.
    pub result: Result<Ready, LoadError>,
}

/// Why a configuration cannot be taken over. `Display` prints a line for each defect.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("{0}")]
    Configuration(Report),
    #[error(transparent)]
    SigningKey(#[from] SigningKeyError),
}

/// A configuration without defects.
#[derive(Debug)]
pub struct Ready {
    /// The configuration, with the running values of what only a restart changes.
    pub config: Config,
    /// Keys that sign pushes.
    pub keys: SigningKeys,
    /// What takes a restart.
    pub held: Vec<Change>,
    /// What the check warns about.
    pub warnings: Vec<String>,
}

/// Reads one configuration at a time.
#[derive(Debug)]
pub struct Loader {
    path: PathBuf,
    fixed: Arc<Fixed>,
    is_busy: bool,
    waiting: VecDeque<Asked>,
    sender: mpsc::Sender<Loaded>,
    results: mpsc::Receiver<Loaded>,
}

impl Loader {
    /// For the file at `path` and a daemon that runs with `fixed`.
    pub fn new(path: PathBuf, fixed: Fixed) -> Self {
        let (sender, results) = mpsc::channel(1);
        let (is_busy, waiting) = (false, VecDeque::new());
        Self { path, fixed: Arc::new(fixed), is_busy, waiting, sender, results }
    }

    /// Begins to read, or does so when what is being read is there. Needs a tokio runtime.
    pub fn ask(&mut self, asked: Asked) {
        let is_signal = |asked: &Asked| matches!(asked, Asked::Signal);
        // What comes while one waits says nothing new. Calls are few: connections are.
        if !(is_signal(&asked) && self.waiting.iter().any(is_signal)) {
            self.waiting.push_back(asked);
        }
        self.begin();
    }

    /// The next configuration that was asked for. Cancel safe.
    pub async fn next(&mut self) -> Option<Loaded> {
        let loaded = self.results.recv().await?;
        self.is_busy = false;
        self.begin();
        Some(loaded)
    }

    fn begin(&mut self) {
        if self.is_busy {
            return;
        }
        let Some(asked) = self.waiting.pop_front() else { return };
        self.is_busy = true;
        let (path, fixed, sender) =
            (self.path.clone(), Arc::clone(&self.fixed), self.sender.clone());
        tokio::task::spawn_blocking(move || {
            let is_dry = matches!(asked, Asked::Call { dry_run: true, .. } | Asked::Check { .. });
            let result = load(&path, &fixed, is_dry);
            // The loop has ended if nobody takes it.
            let _ = sender.blocking_send(Loaded { asked, result });
        });
    }
}

fn load(path: &std::path::Path, fixed: &Fixed, is_dry: bool) -> Result<Ready, LoadError> {
    let loaded = config::load_again(path, fixed).map_err(LoadError::Configuration)?;
    let (config, held) = loaded.value;
    let keys = match is_dry {
        true => signing_key::load_or_imagine(&config.groups),
        false => signing_key::load_all(&config.groups),
    }?;
    let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
    Ok(Ready { config, keys, held, warnings })
}
