//! One Quick Mode under an ISAKMP SA, in either role.

use core::time::Duration;

use crate::quick::initiator::ExpectChoice;
use crate::quick::responder::ExpectLast;
use crate::retransmission::{Answered, Retransmission};
use crate::session::Exchange;
use crate::time::BootTime;

/// An exchange that takes longer has been given up by both sides.
pub(super) const TIME: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Quick {
    pub(super) id: u64,
    /// Position in the configuration.
    pub(super) child: usize,
    pub(super) spi: u32,
    pub(super) phase: Phase,
    /// When it is given up, or forgotten.
    pub(super) until: BootTime,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Message 1 is on its way.
    ExpectChoice(Box<ExpectChoice>, Retransmission),
    /// Message 2 is on its way, and again for copies of message 1.
    ExpectLast(Box<ExpectLast>, Answered, Retransmission),
    /// It is over; the answer to copies of the peer's last message, if that has one.
    Finished(Option<Answered>),
}

impl Quick {
    /// Whether we ask for this child.
    pub(super) fn asks_for(&self, child: usize) -> bool {
        self.child == child && matches!(self.phase, Phase::ExpectChoice(..))
    }

    /// When a message is due again.
    pub(super) fn repeats_at(&self) -> Option<BootTime> {
        match &self.phase {
            Phase::ExpectChoice(_, retransmission) | Phase::ExpectLast(_, _, retransmission) => {
                Some(retransmission.at())
            }
            Phase::Finished(_) => None,
        }
    }
}

impl Exchange for Quick {
    type Id = u64;

    fn id(&self) -> u64 {
        self.id
    }

    fn is_running(&self) -> bool {
        !matches!(self.phase, Phase::Finished(_))
    }

    fn deadline(&self) -> BootTime {
        self.until
    }
}
