//! Both files that outlive the process: read once at the start, written around every change of the
//! kernel.
//!
//! ```text
//! push accepted -> state file -> kernel -> sealed state, on the disk -> acknowledgement
//! ```
//!
//! The state file comes before the kernel, so that a crash finds what the kernel may hold
//! described. The sealed state comes after it, because the disk is slow and the keys are waited
//! for, and before the acknowledgement, so that a key that the key server knows to be here is still
//! here after a loss of power.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daemon::sealed::file::{Moment, SealedFile, SealedFileError};
use daemon::secrets::own_aes_key;
use ike::BootTime;
use ike::crypto::Secret;
use tracing::{error, info, warn};
use xfrm::Kernel;

use crate::config::Config;
use crate::dataplane::Dataplane;
use crate::member::Member;
use crate::membership::restore::{Earlier, Installed};
use crate::persistence::sealed_keys::{self, Unsealed};
use crate::persistence::state_file::{Boot, Saved, StateFile};

/// What an operator reads as long as it is so.
const AWAITS_CLOCK: &str = "the clock shows a time before the keys of the groups were stored: they wait until it is right; set the clock";

#[derive(Debug)]
pub struct Checkpoint {
    boot: Boot,
    state: StateFile,
    /// LANs that somebody else has exempted from checks.
    exempt: BTreeSet<String>,
    sealed: Option<SealedFile>,
    /// What the sealed file holds, as far as this run wrote it.
    written: Option<Secret>,
    /// A sealed file that was refused may be another one's, or its key the wrong one: it stays
    /// until there are keys.
    refused: bool,
    /// The sealed file is from a time that the clock has not reached.
    awaits_clock: bool,
    /// The kernel was changed, and the sealed file was not.
    behind: bool,
    last_error: Option<String>,
    /// Why the state file is not what it should be.
    not_written: Option<String>,
}

impl Checkpoint {
    /// The files that `config` names.
    ///
    /// # Errors
    /// The state key has a wrong length.
    pub fn new(config: &Config, boot: Boot) -> Result<Self, SealedFileError> {
        let path = sealed_path(config);
        let own = || config.own_state_key.as_deref().and_then(own_key).map(Arc::new);
        let sealed = config
            .state_key
            .clone()
            .or_else(own)
            .map(|key| SealedFile::new(path, sealed_keys::OWNER, &key))
            .transpose()?;
        Ok(Self {
            boot,
            state: StateFile::new(config.state_file.clone()),
            exempt: BTreeSet::new(),
            sealed,
            written: None,
            refused: false,
            awaits_clock: false,
            behind: false,
            last_error: None,
            not_written: None,
        })
    }

    /// Restores what an earlier run left. What cannot be read is left out; without the state file
    /// keys in the kernel count as stale and are deleted. `wall` is the time since 1970.
    pub async fn restore<K: Kernel>(
        &mut self,
        member: &mut Member,
        dataplane: &mut Dataplane<K>,
        wall: Duration,
        now: BootTime,
    ) {
        let saved = self.state.read().unwrap_or_else(|error| {
            warn!(
                event = "state-unreadable",
                %error,
                file = %self.state.path().display(),
                "state of an earlier run cannot be read; its keys are deleted"
            );
            None
        });
        self.exempt = saved.as_ref().map(|saved| saved.exempt(self.boot)).unwrap_or_default();
        dataplane.remember_exempt(self.exempt.clone());
        let mut unsealed = self.unseal(Moment { boot: self.boot, now, wall });
        if saved.is_none() && unsealed.is_none() {
            return;
        }
        let installed = dataplane.installed().await.unwrap_or_else(|error| {
            warn!(
                event = "kernel-unreadable",
                %error,
                "kernel entries of an earlier run cannot be read; its keys are deleted"
            );
            Installed::new()
        });
        let (boot, sealed) = (self.boot, unsealed.as_mut());
        member.restore(Earlier { boot, saved: saved.as_ref(), sealed, installed: &installed }, now);
        for id in unsealed.iter().flat_map(Unsealed::left) {
            info!(
                event = "sealed-group-dropped",
                group = id,
                "sealed state has keys of a group that is not configured; dropped"
            );
        }
    }

    /// To be called before the kernel is changed. `exempt` are the LANs that somebody else has
    /// exempted from checks.
    pub fn before_change(&mut self, member: &Member, exempt: &BTreeSet<String>, now: BootTime) {
        self.behind = true;
        self.exempt.clone_from(exempt);
        self.write_state(member, now);
    }

    /// What could not be written is tried again without a change as well.
    pub fn try_again(&mut self, member: &Member, now: BootTime) {
        if self.not_written.is_some() {
            self.write_state(member, now);
        }
        self.behind |= self.last_error.is_some();
    }

    /// Takes up the sealed keys that waited for the clock, for groups that have none: a machine
    /// whose clock does not run on without power gets the time from the network. `wall` is the
    /// time since 1970.
    pub fn handle_clock(&mut self, member: &mut Member, wall: Duration, now: BootTime) {
        if self.awaits_clock
            && let Some(mut unsealed) = self.unseal(Moment { boot: self.boot, now, wall })
        {
            member.resume(&mut unsealed, now);
        }
    }

    /// Files that are not what they should be, each with its remedy.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let lost = |error: &String, lost: &str| {
            format!("{error}: {lost}; make room or let the daemon's user write there")
        };
        let state = self.not_written.iter();
        let state =
            state.map(move |error| lost(error, "a crash would lose the keys in the kernel"));
        let sealed = self.last_error.iter();
        let sealed = sealed.map(move |error| lost(error, "a reboot would lose newer keys"));
        let clock = self.awaits_clock.then(|| AWAITS_CLOCK.to_owned());
        state.chain(sealed).chain(clock)
    }

    fn saved(&self, member: &Member, now: BootTime) -> Saved {
        member.save(self.boot, now).with_exempt(self.boot, self.exempt.clone())
    }

    fn write_state(&mut self, member: &Member, now: BootTime) {
        let Err(error) = self.state.write(&self.saved(member, now)) else {
            self.not_written = None;
            return;
        };
        let text = format!("state file {}: {error}", self.state.path().display());
        // The same failure again and again is one piece of news.
        if self.not_written.as_ref() != Some(&text) {
            error!(
                event = "state-write-failed",
                %error,
                file = %self.state.path().display(),
                "state cannot be written; a crash would lose the keys in the kernel"
            );
        }
        self.not_written = Some(text);
    }

    /// To be called when the kernel holds the desired state, before any acknowledgement leaves.
    pub fn after_change(&mut self, member: &Member, wall: Duration, now: BootTime) {
        if !std::mem::take(&mut self.behind) {
            return;
        }
        let Some(file) = &self.sealed else { return };
        let Ok(description) = member.save(self.boot, now).to_octets() else { return };
        if self.refused && member.secrets(now).all(|group| group.is_empty()) {
            return;
        }
        let state = sealed_keys::encode(&description, member.secrets(now));
        if self.written.as_ref() == Some(&state) {
            return;
        }
        match file.save(&state, &Moment { boot: self.boot, now, wall }) {
            Ok(()) => {
                (self.written, self.refused, self.last_error) = (Some(state), false, None);
                self.awaits_clock = false;
            }
            Err(error) => {
                // With the next change it is tried again.
                let text = error.to_string();
                if self.last_error.as_ref() != Some(&text) {
                    error!(
                        event = "sealed-state-write-failed",
                        error = %text,
                        "sealed state cannot be written; a reboot would lose newer keys"
                    );
                }
                self.last_error = Some(text);
            }
        }
    }

    fn unseal(&mut self, moment: Moment) -> Option<Unsealed> {
        let file = self.sealed.as_ref()?;
        let waited = std::mem::take(&mut self.awaits_clock);
        let unsealed = match file.load(&moment) {
            Ok(None) => return None,
            Err(SealedFileError::Clock { .. }) => {
                (self.refused, self.awaits_clock) = (true, true);
                if !waited {
                    warn!(
                        event = "sealed-state-awaits-clock",
                        "clock shows a time before the keys of the groups were stored; they wait until it is set"
                    );
                }
                return None;
            }
            Ok(Some((octets, clock))) => {
                sealed_keys::decode(&octets, self.boot, clock).map_err(|error| {
                    format!("{}: {error}; it was written by another version", file.path().display())
                })
            }
            Err(error) => Err(error.to_string()),
        };
        unsealed
            .map_err(|error| {
                self.refused = true;
                warn!(
                    event = "sealed-state-refused",
                    %error,
                    "sealed state refused; starting without its keys"
                );
            })
            .ok()
    }
}

/// Writes down for the daemon which LANs somebody else has exempted from checks, before the blocks
/// are installed without it. Everything else that an earlier run left stays.
pub fn keep_exempt(path: &Path, boot: Boot, exempt: &BTreeSet<String>) {
    let mut file = StateFile::new(path.to_owned());
    let saved = file.read().ok().flatten();
    if saved.is_none() && exempt.is_empty() {
        return;
    }
    let saved = saved.unwrap_or_else(|| Saved::new(boot, Vec::new()));
    if let Err(error) = file.write(&saved.with_exempt(boot, exempt.clone())) {
        warn!(
            event = "state-write-failed",
            %error,
            file = %path.display(),
            "state cannot be written; disable_policy of the LANs is reset when the agent is removed"
        );
    }
}

/// Removes a sealed state that no key is configured for: deletes of the key server no longer reach
/// it.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove_orphan(config: &Config) -> io::Result<bool> {
    if config.state_key.is_some() || config.own_state_key.is_some() {
        return Ok(false);
    }
    match std::fs::remove_file(sealed_path(config)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The key in the state directory, made if need be. The machine's group traffic does not depend on
/// it: without one the agent goes on and keeps nothing across a reboot.
fn own_key(path: &Path) -> Option<Secret> {
    own_aes_key(path)
        .map_err(|error| {
            error!(
                event = "state-key-unusable",
                %error,
                "no state key; no key of a group survives a reboot"
            );
        })
        .ok()
}

fn sealed_path(config: &Config) -> PathBuf {
    config.state_file.with_extension("sealed")
}
