//! The configuration read again: taken over, or only compared.

use ::control::Response;
use daemon::clock;
use daemon::configuration::Report;
use policies::GroupUnusable;
use thiserror::Error;
use tracing::{error, info, warn};
use xfrm::Kernel;

use super::EventLoop;
use super::surroundings::keep;
use crate::config::Config;
use crate::config::change::{Change, changes};
use crate::config::check::{Machine, load};
use crate::control;
use crate::member::blocks;
use crate::membership::local_interface::{self, Interfaces};

/// Why a configuration is not taken over. The one in use stays.
#[derive(Debug, Error)]
pub(crate) enum ReloadError {
    #[error("interfaces cannot be read: {0}")]
    Interfaces(#[from] xfrm::Error),
    /// A line for each defect.
    #[error("{0}")]
    Configuration(Report),
    #[error("the blocks cannot be made out of this configuration: {0}")]
    Blocks(#[from] GroupUnusable),
}

/// A configuration without defects.
struct Again {
    config: Config,
    interfaces: Interfaces,
    warnings: Vec<String>,
    /// What differs from the one in use.
    changes: Vec<Change>,
}

impl<K: Kernel> EventLoop<K> {
    /// Reads the configuration again and changes over to the difference. A file with a defect
    /// changes nothing.
    pub(super) async fn reload(&mut self) {
        match self.read_again().await {
            Ok(again) => self.take_over(again),
            Err(error) => self.refuse(&error),
        }
    }

    /// The same for `gdoictl`; in a dry run the difference is only told.
    pub(super) async fn reload_for(&mut self, dry_run: bool) -> Response {
        match self.read_again().await {
            Ok(again) => {
                let response = control::configuration(dry_run, &again.warnings, &again.changes);
                if !dry_run {
                    self.take_over(again);
                }
                response
            }
            Err(error) => {
                if !dry_run {
                    self.refuse(&error);
                }
                control::defects(&error.to_string())
            }
        }
    }

    async fn read_again(&self) -> Result<Again, ReloadError> {
        let interfaces = local_interface::read(&self.config.groups).await?;
        let loaded = load(&self.source.path, &Machine::this(Some(&interfaces)))
            .map_err(ReloadError::Configuration)?;
        let config = loaded.value;
        blocks(&config, &interfaces)?;
        let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
        let changes = changes(&self.config, &config);
        Ok(Again { config, interfaces, warnings, changes })
    }

    fn take_over(&mut self, again: Again) {
        let now = clock::now();
        let Again { config, interfaces, warnings, changes } = again;
        for warning in &warnings {
            warn!(event = "configuration-warning", warning, "configuration warning");
        }
        changes.iter().for_each(log_change);
        self.member.reload(&config, &mut self.seeds, &interfaces, now);
        self.tunnels.configure(&config.tunnels, now);
        self.tunnels.set_bandwidth(&config.gateways);
        self.config.groups = config.groups;
        self.config.gateways = config.gateways;
        self.config.tunnels = config.tunnels;
        self.config.certificates = config.certificates;
        self.not_kept = keep(&self.source);
        self.refused = None;
        self.check_settings();
        self.check_certificates();
        self.check_placement(&interfaces);
        let (changed, groups) = (!changes.is_empty(), self.config.groups.len());
        info!(event = "configuration-reloaded", changed, groups, "configuration reloaded");
    }

    fn refuse(&mut self, error: &ReloadError) {
        error!(
            event = "reload-failed",
            file = %self.source.path.display(),
            "configuration not reloaded; the previous one stays in use"
        );
        for line in error.to_string().lines() {
            error!(event = "configuration-error", error = %line, "configuration error");
        }
        let first = error.to_string().lines().next().unwrap_or_default().to_owned();
        self.refused =
            Some(format!("configuration not reloaded, the previous one stays in use: {first}"));
    }
}

fn log_change(change: &Change) {
    let Change { subject, option, before, after, consequence } = change;
    let (subject, option) = (subject.to_string(), option.to_string());
    if *consequence == crate::config::change::Consequence::Restart {
        warn!(
            event = "restart-required",
            subject, option, before, after, "this option changes with a restart only"
        );
        return;
    }
    info!(
        event = "configuration-changed",
        subject,
        option,
        before,
        after,
        consequence = consequence.name(),
        detail = %consequence,
        "configuration changed"
    );
}
