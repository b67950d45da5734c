//! What the daemon stands on: the configuration file, interfaces and settings of the machine. What
//! is wrong with them is looked at again and again, and shown as long as it is so.

use ike::BootTime;
use tracing::{error, warn};
use xfrm::Kernel;

use daemon::clock;

use super::{EventLoop, open_control};
use crate::config::placement::misplaced;
use crate::membership::local_interface::{self, Interfaces};
use crate::privileges;
use crate::source::Source;

impl<K: Kernel> EventLoop<K> {
    /// Everything that an operator should mend, each with its remedy.
    pub(super) fn problems(&self, now: BootTime) -> Vec<String> {
        let missing = self.dataplane.missing_interfaces().iter();
        let missing = missing.filter(|name| !self.member.names_missing(name));
        let missing = missing.map(|name| format!("interface {name} is missing: create it"));
        let misplaced = self.misplaced.iter().map(ToString::to_string);
        let foreign =
            self.dataplane.foreign().map(|(entry, error)| match self.member.owner(entry, now) {
                Some(group) => format!("group {group}: {error}"),
                None => error.to_string(),
            });
        let own =
            self.missing.iter().chain(&self.settings).chain(&self.not_kept).chain(&self.refused);
        let own = own.chain(&self.certificates);
        own.cloned()
            .chain(self.dataplane.last_error().map(str::to_owned))
            .chain(self.member.problems())
            .chain(foreign)
            .chain(self.dataplane.foreign_policy(now).map(str::to_owned))
            .chain(self.checkpoint.problems())
            .chain(self.sockets.problems())
            .chain(self.ike.problems())
            .chain(missing)
            .chain(misplaced)
            .collect()
    }

    /// What could not be had before may be there now.
    pub(super) async fn try_again(&mut self, now: BootTime) {
        if !self.missing.is_empty() {
            // A permission is not lost on the way.
            let missing = privileges::check(&self.config).await.unwrap_or_default();
            self.missing = missing.iter().map(ToString::to_string).collect();
        }
        if self.no_control.is_some() {
            (self.calls, self.no_control) = open_control(&self.config.control_socket);
        }
        if self.not_kept.is_some() {
            self.not_kept = keep(&self.source);
        }
        self.checkpoint.handle_clock(&mut self.member, clock::wall(), now);
        self.checkpoint.try_again(&self.member, now);
    }

    pub(super) async fn read_interfaces(&mut self, now: BootTime) {
        match local_interface::read(&self.config.groups).await {
            Ok(interfaces) => {
                self.check_placement(&interfaces);
                self.member.handle_interfaces(&interfaces, now);
            }
            Err(error) => {
                if let Some(pass) = self.limiter.admit("interfaces-unreadable", now) {
                    error!(
                        event = "interfaces-unreadable",
                        %error,
                        suppressed = pass.suppressed,
                        "interfaces cannot be read; using the last known ones"
                    );
                }
            }
        }
    }

    pub(super) fn check_placement(&mut self, interfaces: &Interfaces) {
        let misplaced = misplaced(&self.config.groups, interfaces);
        for one in misplaced.difference(&self.misplaced) {
            warn!(event = "interface-misplaced", reason = %one, "interface is on the wrong side");
        }
        self.misplaced = misplaced;
    }

    /// Tells once of every certificate that ends soon or has ended.
    pub(super) fn check_certificates(&mut self) {
        let wall = clock::wall().as_secs();
        let certificates = self.config.certificates.iter();
        let problems: Vec<String> =
            certificates.flat_map(|certificate| certificate.problems(wall)).collect();
        for problem in problems.iter().filter(|one| !self.certificates.contains(one)) {
            warn!(event = "certificate-problem", reason = %problem, "certificate needs attention");
        }
        self.certificates = problems;
    }

    pub(super) fn check_settings(&mut self) {
        let problems: Vec<String> =
            privileges::wrong_settings(&self.config).iter().map(ToString::to_string).collect();
        for problem in problems.iter().filter(|problem| !self.settings.contains(problem)) {
            error!(event = "wrong-setting", reason = %problem, "kernel setting stops group traffic");
        }
        self.settings = problems;
    }
}

/// Keeps a copy of the configuration. Returns why that is not possible.
pub(super) fn keep(source: &Source) -> Option<String> {
    let error = source.keep().err()?;
    let problem = format!("copy of the configuration for the boot: {error}");
    warn!(event = "configuration-not-kept", %error, "copy of the configuration not written; a start with a broken configuration blocks by an older copy");
    Some(problem)
}
