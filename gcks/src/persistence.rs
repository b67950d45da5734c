//! The state on the disk: opened and taken over at the start, written before anything leaves that
//! it describes, so that no number is ever used twice.

use std::path::{Path, PathBuf};

use anyhow::Context;
use daemon::entropy;
use daemon::sealed::codec::Clock;
use daemon::sealed::file::{Moment, Owner, SealedFile};
use daemon::secrets::own_aes_key;
use ike::BootTime;
use ike::crypto::Secret;
use tracing::{info, warn};

use crate::config::Config;
use crate::group::key_generation::OsEntropy;
use crate::group::signing_key::SigningKeys;
use crate::server::KeyServer;
use crate::state::Stored;
use crate::state::store::StoreError;
use crate::state::store::embedded::EmbeddedStore;
use crate::state::store::sealed::SealedStore;

/// In the state directory.
const STORE: &str = "gcks.db";
const KEY: &str = "state.key";
/// The file that held the whole state up to version 5.
const BEFORE: &str = "gcks.state";

const OWNER: Owner = Owner {
    program: "gcks",
    magic: b"gcks state\x01",
    otherwise: "remove it and let all members register again",
};

/// The store that a running server writes to.
#[derive(Debug)]
pub struct Persistence {
    store: SealedStore,
    /// A state of an earlier version, until the store has it.
    before: Option<PathBuf>,
}

/// The key server with the state that it left, if one is kept.
///
/// # Errors
/// The state directory cannot be written, the state is damaged or sealed with another key, or the
/// system gives no randomness.
pub fn start(
    config: Config,
    keys: &SigningKeys,
    now: BootTime,
) -> anyhow::Result<(KeyServer<OsEntropy>, Option<Persistence>)> {
    if !config.keep_state {
        return Ok((KeyServer::new(config, keys, entropy::seed()?, OsEntropy), None));
    }
    let folder = config.state_directory.clone();
    let key = match &config.state_key {
        Some(key) => key.duplicate(),
        None => own_aes_key(&folder.join(KEY))?,
    };
    let (path, before) = (folder.join(STORE), folder.join(BEFORE));
    let store = Box::new(EmbeddedStore::open(path.clone())?);
    let mut store = SealedStore::new(store, path.display().to_string(), &key)?;
    let moment = Moment::at(now);
    let (stored, path) = match store.load()? {
        Some(loaded) => (Some((Stored::Records(loaded.records), loaded.written)), path),
        None => (version5(&before, &key)?, before.clone()),
    };
    let mut key_server = match stored {
        None => KeyServer::new(config, keys, entropy::seed()?, OsEntropy),
        Some((stored, written)) => {
            let clock = clock_since(&moment, &written);
            let restored = KeyServer::restore(
                config,
                keys,
                entropy::seed()?,
                OsEntropy,
                (&stored, clock),
                now,
            );
            let key_server = restored.with_context(|| {
                let path = path.display();
                format!("{path}: another version wrote this state; remove it and let all members register again")
            })?;
            let members: usize = key_server.groups().map(|group| group.registry().len()).sum();
            info!(event = "state-restored", path = %path.display(), members, "state restored");
            key_server
        }
    };
    key_server.keep_state();
    key_server.join_cluster(now);
    let before = before.exists().then_some(before);
    Ok((key_server, Some(Persistence { store, before })))
}

impl Persistence {
    /// Writes what has changed, if there is something that must not be forgotten.
    ///
    /// # Errors
    /// It cannot be written; nothing may be sent until it can be.
    pub fn save(
        &mut self,
        key_server: &mut KeyServer<OsEntropy>,
        now: BootTime,
    ) -> Result<(), StoreError> {
        if !key_server.is_unsaved() {
            return Ok(());
        }
        self.store.write(&key_server.changes(), &Moment::at(now))?;
        key_server.saved();
        if let Some(before) = self.before.take()
            && let Err(error) = std::fs::remove_file(&before)
        {
            let path = before.display();
            warn!(event = "old-state-not-removed", %path, %error, "state of an earlier version not removed; remove it, it holds keys");
        }
        Ok(())
    }
}

fn version5(path: &Path, key: &Secret) -> anyhow::Result<Option<(Stored, Moment)>> {
    let before = SealedFile::new(path.to_owned(), OWNER, key)?.open()?;
    Ok(before.map(|(octets, written)| (Stored::Version5(octets), written)))
}

/// A clock that went back is no reason to forget everybody: keys and numbers are held longer than
/// they need to be.
fn clock_since(moment: &Moment, written: &Moment) -> Clock {
    let (clock, behind) = moment.clock_since(written);
    if !behind.is_zero() {
        let behind_seconds = behind.as_secs();
        warn!(
            event = "clock-behind-state",
            behind_seconds,
            "the clock shows a time before the state was written: lifetimes go on as if no time had passed; set the clock"
        );
    }
    clock
}
