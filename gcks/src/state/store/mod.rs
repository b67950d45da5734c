//! Where records of the state are kept: a [`Store`] holds sealed octets under names that say
//! nothing, and [`sealed`] is between it and the [`Records`](super::Records).

pub mod embedded;
pub mod etcd;
pub mod sealed;

use std::fmt::Debug;

use thiserror::Error;

/// Names a record in a store.
pub type Key = [u8; 16];

/// What happens in one step: all of it or nothing.
#[derive(Debug, Default)]
pub struct Batch {
    /// Records that are new or change.
    pub puts: Vec<(Key, Vec<u8>)>,
    pub removals: Vec<Key>,
}

/// Where records are kept from one run to the next.
pub trait Store: Debug + Send {
    /// Every record, in any order.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&mut self) -> Result<Vec<(Key, Vec<u8>)>, StoreError>;

    /// Carries out a batch as a whole; it survives a loss of power when this returns.
    ///
    /// # Errors
    /// It cannot be written. Nobody knows whether it was then: [`Store::read`] tells.
    fn write(&mut self, batch: &Batch) -> Result<(), StoreError>;
}

/// The state cannot be kept. One line, with the remedy.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error(
        "{place}: the state cannot be {what}: {reason}; let the daemon's user read and write in the folder, and see that the disk has room"
    )]
    Unavailable { place: String, what: &'static str, reason: String },
    #[error(
        "{place}: another gcks has this state open; stop it, or give each a state-directory of its own"
    )]
    InUse { place: String },
    #[error(
        "{place}: the state is damaged or was sealed with another key; restore the file or the key, or remove it and let all members register again"
    )]
    Damaged { place: String },
    #[error("{place}: {source}")]
    Etcd { place: String, source: crate::etcd::client::EtcdError },
    #[error("{place}: another key server was elected")]
    Superseded { place: String },
    /// The next attempt reads what is there first.
    #[error("{place}: the state is not the one that was written last")]
    Changed { place: String },
    #[error(transparent)]
    Seal(#[from] daemon::sealed::seal::SealError),
}
