//! What the kernel tells about changes that others make.

use crate::error::Error;
use crate::model::SaId;

/// What somebody else's change, or the kernel's own, touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum What {
    States,
    Policies,
    Tables,
}

/// Something that happened in the kernel. Our own changes are not reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// Entries of this kind were flushed or deleted, ours perhaps among them: repair.
    Flushed(What),
    /// Entries were added or changed by others.
    Changed {
        /// Of which kind.
        what: What,
    },
    /// Events were lost: repair and read all facts anew.
    Overrun,
    /// A state of ours came to the end of its life time.
    SaExpired {
        /// Which one.
        id: SaId,
        /// `false` for the soft limit.
        hard: bool,
    },
    /// An interface appeared, disappeared or changed.
    LinkChanged,
    /// An address was added or removed.
    AddressChanged,
    /// A route was added or removed.
    RouteChanged,
}

/// The stream of events, on sockets of its own.
#[derive(Debug)]
pub struct EventSource {}

impl EventSource {
    /// Waits for the next event. Cancelling loses nothing.
    pub async fn next(&mut self) -> Result<KernelEvent, Error> {
        core::future::pending().await
    }
}
