//! What happens to a membership, as data for the log.

use std::time::Duration;

use gdoi::event::RegistrationFailure;
use gdoi::group::Spi;
use gdoi::push::KekChange;
use ike::config::Phase1Transform;

use super::error::{PushRejected, RekeySaUnusable};
use super::sending::SendingProblem;

use crate::membership::failover::{PassedOver, ServerIndex};
use crate::membership::local_interface::{Local, Missing};

/// Why a group suspects that its keys are not those of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// ESP with SPIs that are not known here.
    UnknownSpi,
    /// ESP with this SPI that fails the integrity check: others may have another key under it.
    IntegrityFailure(Spi),
}

/// What happened, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The group has an address to speak from.
    LocalFound(Local),
    /// The group lost it, or never had one.
    LocalMissing(Missing),
    Trying(ServerIndex),
    /// The key server proved its identity.
    Phase1Established {
        server: ServerIndex,
        transform: Phase1Transform,
    },
    /// An attempt brought no key.
    PassedOver(PassedOver),
    /// All servers were passed over.
    Pausing {
        pause: Duration,
    },
    Registered {
        server: ServerIndex,
        /// SPIs of the TEKs.
        spis: Vec<Spi>,
        /// Until the first of them ends.
        lifetime: Duration,
    },
    /// The key server gave a KEK and no TEK, which is to come by push.
    AwaitingTek {
        server: ServerIndex,
    },
    /// Keys were activated, deactivated or have ended; some are left.
    RolledOver {
        /// SPIs that are left.
        spis: Vec<Spi>,
    },
    /// All keys have ended.
    Expired,
    /// The key server ended the ISAKMP SA. Keys stay valid.
    IsakmpSaEnded(ServerIndex),
    /// A pull under the ISAKMP SA of the registration before failed; main mode follows.
    IsakmpSaUnusable {
        server: ServerIndex,
        failure: RegistrationFailure,
    },
    /// A push was carried out.
    Pushed {
        /// Its number under its KEK.
        sequence_number: u32,
        /// SPIs of the TEKs that it brought.
        spis: Vec<Spi>,
        /// How many deletes it held.
        deletions: usize,
        /// What became of the KEK.
        kek: KekChange,
    },
    /// The kernel holds what a push said.
    PushApplied {
        /// Its number under its KEK.
        sequence_number: u32,
        /// Time since it was received.
        after: Duration,
    },
    /// An authentic push that cannot be used. The keys in use stay, and the group registers again.
    PushUnusable {
        /// Its number under its KEK.
        sequence_number: u32,
        reason: PushRejected,
    },
    /// The key server deleted every TEK.
    TeksDeleted,
    /// Keys of an earlier run stay in use.
    Restored {
        /// SPIs of the TEKs.
        spis: Vec<Spi>,
        /// Whether some were not in the kernel any more, but in the sealed state.
        sealed: bool,
    },
    /// The sealed state holds keys, and by the wall clock all of them have ended.
    SealedKeysEnded,
    /// The KEK of an earlier run cannot be used under this configuration.
    KekUnusable {
        reason: RekeySaUnusable,
    },
    /// ESP arrives that no key here opens: a push may have been lost, and the group pulls and
    /// compares.
    Probing(Suspicion),
    /// The sequence number of a counter-mode TEK is near exhaustion (RFC 4303 §3.3.3): a new TEK is
    /// asked for.
    SequenceNearExhaustion {
        spi: Spi,
    },
    /// Traffic of the group is blocked although its keys are valid.
    SendingBlocked(SendingProblem),
    /// Nothing of the kind is left.
    SendingRecovered,
    /// The KEK has ended: no push can come any more, and the group registers again.
    KekExpired,
}
