//! The life of a registration as states; every state holds what it needs and nothing for later.

use std::collections::BTreeSet;

use crate::error::{Error, NotAccepted};
use crate::event::Stage;
use crate::exchange::Retransmission;
use crate::phase1::{Cookies, Informational, Initiator, IsakmpSa};
use crate::pull::member::{ExpectKeys, ExpectPolicy, PolicyOffered};
use crate::time::BootTime;

/// Where a registration stands.
#[derive(Debug)]
pub(super) enum State {
    /// Main mode waits for its next message.
    MainMode { initiator: Initiator, retransmission: Retransmission },
    /// The pull waits for message 2.
    ExpectPolicy { kept: Kept, pull: ExpectPolicy, retransmission: Retransmission },
    /// The caller thinks about the policy.
    Offered { kept: Kept, offer: PolicyOffered },
    /// The pull waits for message 4.
    ExpectKeys { kept: Kept, pull: ExpectKeys, retransmission: Retransmission },
    /// Keys have arrived.
    Registered { kept: Kept },
    /// Nothing is left.
    Ended,
}

impl State {
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::MainMode { .. } => Stage::Phase1,
            Self::ExpectPolicy { .. } | Self::Offered { .. } | Self::ExpectKeys { .. } => Stage::Pull,
            Self::Registered { .. } => Stage::Registered,
            Self::Ended => Stage::Ended,
        }
    }

    /// The established ISAKMP SA.
    pub(super) fn kept(&self) -> Option<&Kept> {
        match self {
            Self::ExpectPolicy { kept, .. }
            | Self::Offered { kept, .. }
            | Self::ExpectKeys { kept, .. }
            | Self::Registered { kept } => Some(kept),
            Self::MainMode { .. } | Self::Ended => None,
        }
    }

    pub(super) fn kept_mut(&mut self) -> Option<&mut Kept> {
        match self {
            Self::ExpectPolicy { kept, .. }
            | Self::Offered { kept, .. }
            | Self::ExpectKeys { kept, .. }
            | Self::Registered { kept } => Some(kept),
            Self::MainMode { .. } | Self::Ended => None,
        }
    }

    pub(super) fn retransmission(&self) -> Option<&Retransmission> {
        match self {
            Self::MainMode { retransmission, .. }
            | Self::ExpectPolicy { retransmission, .. }
            | Self::ExpectKeys { retransmission, .. } => Some(retransmission),
            Self::Offered { .. } | Self::Registered { .. } | Self::Ended => None,
        }
    }

    pub(super) fn retransmission_mut(&mut self) -> Option<&mut Retransmission> {
        match self {
            Self::MainMode { retransmission, .. }
            | Self::ExpectPolicy { retransmission, .. }
            | Self::ExpectKeys { retransmission, .. } => Some(retransmission),
            Self::Offered { .. } | Self::Registered { .. } | Self::Ended => None,
        }
    }

    /// Whether a header with `cookies` can belong to this exchange.
    pub(super) fn has_cookies(&self, cookies: Cookies) -> bool {
        match self {
            // The responder's cookie is only known once it has answered; the initiator compares it.
            Self::MainMode { initiator, .. } => initiator.cookie() == cookies.initiator,
            state => state.kept().is_some_and(|kept| kept.sa.cookies() == cookies),
        }
    }
}

/// The ISAKMP SA and what outlives a single pull.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) sa: IsakmpSa,
    pub(super) expires: BootTime,
    /// Message identifiers of authentic Informational messages: each counts once.
    heard: BTreeSet<u32>,
}

impl Kept {
    pub(super) fn new(sa: IsakmpSa, now: BootTime) -> Self {
        let expires = now + sa.lifetime();
        Self { sa, expires, heard: BTreeSet::new() }
    }

    /// Reads a protected Informational message that was not heard before.
    pub(super) fn open_informational(&mut self, message_id: u32, datagram: &[u8]) -> Result<Vec<Informational>, Error> {
        if self.heard.contains(&message_id) {
            return Err(NotAccepted::Replayed.into());
        }
        let said = self.sa.open_informational(datagram)?;
        if self.heard.len() >= HEARD {
            // Forgetting any would let it be said again; a peer that talks that much has nothing to say.
            return Err(NotAccepted::Unexpected.into());
        }
        self.heard.insert(message_id);
        Ok(said)
    }
}

/// Informational messages that one ISAKMP SA may carry to us.
const HEARD: usize = 4096;
