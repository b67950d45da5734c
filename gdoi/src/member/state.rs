//! The life of a registration as states; every state holds what it needs and nothing for later.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::event::Stage;
use crate::phase1::{Cookies, Informational, Initiator, IsakmpSa};
use crate::pull::member::{ExpectKeys, ExpectPolicy, PolicyOffered};
use crate::time::BootTime;
use ike::error::NotAccepted;
use ike::retransmission::Retransmission;

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
            Self::ExpectPolicy { .. } | Self::Offered { .. } | Self::ExpectKeys { .. } => {
                Stage::Pull
            }
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
    pub(super) fn open_informational(
        &mut self,
        message_id: u32,
        datagram: &[u8],
    ) -> Result<Vec<Informational>, Error> {
        if self.heard.contains(&message_id) {
            return Err(NotAccepted::Replayed.into());
        }
        let said = self.sa.open_informational(datagram)?;
        if self.heard.len() >= HEARD {
            // Forgetting any would let it be said again; a peer that talks that much has nothing to
            // say.
            return Err(NotAccepted::Unexpected.into());
        }
        self.heard.insert(message_id);
        Ok(said)
    }
}

/// Informational messages that one ISAKMP SA may carry to us.
const HEARD: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SeededRng;
    use crate::wire::header;
    use crate::wire::registry::NotifyType;
    use ike::testing::worked_isakmp_sa;

    fn kept() -> Kept {
        Kept::new(worked_isakmp_sa(), BootTime::default())
    }

    fn hear(kept: &mut Kept, datagram: &[u8]) -> Result<Vec<Informational>, Error> {
        let message_id = header::split(datagram).unwrap().0.message_id;
        kept.open_informational(message_id, datagram)
    }

    fn refusal(rng: &mut SeededRng) -> Vec<u8> {
        let sa = worked_isakmp_sa();
        sa.seal_notification(sa.notification(NotifyType::INVALID_ID_INFORMATION), rng).unwrap()
    }

    /// Otherwise the recorded refusal of one pull would end every later one under the same ISAKMP
    /// SA.
    #[test]
    fn an_informational_message_counts_once() {
        let rng = &mut SeededRng::from_seed([5; 32]);
        let (first, second) = (refusal(rng), refusal(rng));
        let mut kept = kept();
        assert_eq!(hear(&mut kept, &first).unwrap().len(), 1);
        assert_eq!(hear(&mut kept, &second).unwrap().len(), 1);
        for datagram in [&first, &second] {
            assert_eq!(hear(&mut kept, datagram), Err(NotAccepted::Replayed.into()));
        }
    }

    #[test]
    fn a_forgery_does_not_use_an_identifier_up() {
        let datagram = refusal(&mut SeededRng::from_seed([5; 32]));
        let mut forged = datagram.clone();
        *forged.last_mut().unwrap() ^= 1;
        let mut kept = kept();
        assert!(hear(&mut kept, &forged).is_err());
        assert!(hear(&mut kept, &datagram).is_ok());
    }

    #[test]
    fn informational_messages_are_bounded() {
        let rng = &mut SeededRng::from_seed([5; 32]);
        let mut kept = kept();
        kept.heard = (1..=HEARD as u32).collect();
        assert_eq!(hear(&mut kept, &refusal(rng)), Err(NotAccepted::Unexpected.into()));
        assert_eq!(kept.heard.len(), HEARD);
    }
}
