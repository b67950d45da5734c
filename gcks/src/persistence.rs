//! The state that a server left, opened and taken over at its start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use daemon::entropy;
use daemon::sealed::codec::Clock;
use daemon::sealed::file::{Moment, Owner, SealedFile};
use daemon::secrets::own_aes_key;
use ike::BootTime;
use ike::crypto::Secret;
use tracing::{info, warn};

use crate::config::{self, Config};
use crate::etcd::election::Term;
use crate::group::key_generation::OsEntropy;
use crate::group::signing_key::{self, SigningKeys};
use crate::server::KeyServer;
use crate::state::store::Store;
use crate::state::store::embedded::EmbeddedStore;
use crate::state::store::etcd::EtcdStore;
use crate::state::store::sealed::SealedStore;
use crate::state::{self, Stored};
use crate::writer::Writer;

/// In the state directory.
const STORE: &str = "gcks.db";
const KEY: &str = "state.key";
/// The file that held the whole state up to version 5.
const BEFORE: &str = "gcks.state";

/// By which clocks of two servers may differ that keep time.
const SKEW: Duration = Duration::from_secs(10);

const OWNER: Owner = Owner {
    program: "gcks",
    magic: b"gcks state\x01",
    otherwise: "remove it and let all members register again",
};

/// A state as it was found, and where it will be kept.
#[derive(Debug)]
pub struct Opened {
    store: SealedStore,
    stored: Option<(Stored, Moment)>,
    /// What messages call it.
    place: String,
    /// A state of an earlier version, until the store has it.
    before: Option<PathBuf>,
    /// Whether other servers write to it as well, each in its time.
    is_shared: bool,
}

/// Opens the state of `config` and reads it, which takes its time; `term` is needed where it is
/// in etcd.
///
/// # Errors
/// The state directory cannot be written, or the state is damaged or sealed with another key.
pub fn open(config: &Config, term: Option<&Term>) -> anyhow::Result<Opened> {
    let folder = &config.state_directory;
    let key = match &config.state_key {
        Some(key) => key.duplicate(),
        None => own_aes_key(&folder.join(KEY))?,
    };
    let (store, place): (Box<dyn Store>, _) = match (&config.etcd, term) {
        (Some(settings), Some(term)) => {
            (Box::new(EtcdStore::new(settings.clone(), term.elected)), settings.place())
        }
        _ => {
            let path = folder.join(STORE);
            let place = path.display().to_string();
            (Box::new(EmbeddedStore::open(path)?), place)
        }
    };
    let mut store = SealedStore::new(store, place.clone(), &key)?;
    let is_shared = config.etcd.is_some();
    let before = folder.join(BEFORE);
    let (stored, place) = match store.load()? {
        Some(loaded) => (Some((Stored::Records(loaded.records), loaded.written)), place),
        None if is_shared => (None, place),
        None => (version5(&before, &key)?, before.display().to_string()),
    };
    let before = (!is_shared && before.exists()).then_some(before);
    Ok(Opened { store, stored, place, before, is_shared })
}

/// The keys that sign pushes. Servers that share a state share these: where a file is missing, it
/// gets the key that is in the state.
///
/// # Errors
/// A key cannot be loaded, made or written.
pub fn signing_keys(
    config: &Config,
    opened: &Opened,
    now: BootTime,
) -> anyhow::Result<SigningKeys> {
    let is_missing = |group: &config::Group| {
        group.rekey.as_ref().is_some_and(|rekey| !rekey.signing_key_file.exists())
    };
    if opened.is_shared
        && config.groups.iter().any(is_missing)
        && let Some((stored, written)) = &opened.stored
    {
        let clock = Clock::same(written.now);
        let restored = state::decode(stored, clock, &config.members, now)?;
        for group in config.groups.iter().filter(|group| is_missing(group)) {
            let of_it = restored.groups.iter().find(|restored| restored.id() == group.id);
            let key = of_it.and_then(|restored| Some(&restored.rekey_sa()?.private_key));
            // A sub-server has none.
            let key = key.filter(|key| !key.is_empty());
            if let (Some(key), Some(rekey)) = (key, &group.rekey) {
                signing_key::write(&rekey.signing_key_file, key)?;
            }
        }
    }
    Ok(signing_key::load_all(&config.groups)?)
}

/// The key server with the state that was left, if one is kept.
///
/// # Errors
/// The state is of another version, or the system gives no randomness.
pub fn start(
    config: Config,
    keys: &SigningKeys,
    opened: Option<Opened>,
    now: BootTime,
) -> anyhow::Result<(KeyServer<OsEntropy>, Option<Writer>)> {
    let seed = entropy::seed()?;
    let Some(Opened { store, stored, place, before, .. }) = opened else {
        return Ok((KeyServer::new(config, keys, seed, OsEntropy), None));
    };
    let mut key_server = match stored {
        None => KeyServer::new(config, keys, seed, OsEntropy),
        Some((stored, written)) => {
            let clock = clock_since(&Moment::at(now), &written);
            let restored = KeyServer::restore(config, keys, seed, OsEntropy, (&stored, clock), now);
            let key_server = restored.with_context(|| {
                format!("{place}: another version wrote this state; remove it and let all members register again")
            })?;
            let members: usize = key_server.groups().map(|group| group.registry().len()).sum();
            info!(event = "state-restored", path = place, members, "state restored");
            key_server
        }
    };
    key_server.keep_state();
    key_server.join_cluster(now);
    Ok((key_server, Some(Writer::start(store, before)?)))
}

fn version5(path: &Path, key: &Secret) -> anyhow::Result<Option<(Stored, Moment)>> {
    let before = SealedFile::new(path.to_owned(), OWNER, key)?.open()?;
    Ok(before.map(|(octets, written)| (Stored::Version5(octets), written)))
}

/// A clock that went back is no reason to forget everybody: keys and numbers are held longer than
/// they need to be.
fn clock_since(moment: &Moment, written: &Moment) -> Clock {
    let (clock, behind) = moment.clock_since(written);
    // It may be another machine's, whose boot says nothing about this one's.
    let elapsed = moment.wall.saturating_sub(written.wall);
    let is_known = elapsed.is_zero() && behind <= SKEW;
    let clock = match clock.certain {
        Some(_) => Clock { elapsed, certain: (!is_known).then_some(Duration::ZERO), ..clock },
        None => clock,
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(boot: u8, now: u64, wall: u64) -> Moment {
        let now = BootTime::new(Duration::from_secs(now));
        Moment { boot: [boot; 16], now, wall: Duration::from_secs(wall) }
    }

    /// Another server takes over, or the disk is in another machine: how long this one has been up
    /// says nothing about the age of the state.
    #[test]
    fn a_machine_that_has_been_up_for_long_ends_no_keys() {
        let written = moment(1, 100, 5_000);
        for (boot, wall, elapsed) in [(2, 5_002, 2), (2, 4_000, 0), (1, 4_000, 0)] {
            let clock = clock_since(&moment(boot, 1_000_000, wall), &written);
            let passed = if boot == 1 { 1_000_000 - 100 } else { elapsed };
            let end = BootTime::new(Duration::from_secs(100 + 3_600));
            let left = clock.translate(end).saturating_since(moment(boot, 1_000_000, 0).now);
            assert_eq!(left.as_secs(), 3_600_u64.saturating_sub(passed), "{boot} {wall}");
        }
        // Nobody replaces keys because clocks differ by a moment.
        let is_unknown = |wall| clock_since(&moment(2, 7, wall), &written).is_unknown();
        assert_eq!([5_000, 4_995, 4_000].map(is_unknown), [false, false, true]);
    }
}
