//! What happened in a group that an operator may want to read.

use std::net::SocketAddr;
use std::sync::Arc;

use super::push::PushError;
use super::tek_schedule::TekLifetime;

/// Something that an operator may want to read.
#[derive(Debug)]
pub enum Event {
    /// A TEK was created.
    TekCreated { lifetime: TekLifetime },
    /// A KEK was created.
    KekCreated { spi: [u8; 16] },
    Registered {
        /// Name of the member.
        member: Arc<str>,
        peer: SocketAddr,
        /// Whether it had no keys before.
        new: bool,
    },
    /// The keys of a member ended and it did not come for new ones.
    Expired {
        /// Name of the member.
        member: Arc<str>,
    },
    /// A push is on its way.
    Pushed {
        /// What it is for.
        purpose: &'static str,
        /// Its number under its KEK.
        sequence_number: u32,
        /// To how many members.
        members: usize,
    },
    /// A push could not be made; it is tried again.
    PushFailed { error: PushError },
    /// A member did not acknowledge a push.
    Unacknowledged {
        /// Name of the member.
        member: Arc<str>,
        /// How many pushes in a row.
        pushes: u64,
    },
    /// An unresponsive member is no longer pushed to.
    Dropped {
        /// Name of the member.
        member: Arc<str>,
    },
    /// After a reboot: all keys have ended if the wall clock is right. They were kept.
    AgeUnknown,
    /// All sender identifiers were in use: the group was reinitialized with new keys.
    Reinitialized,
}
