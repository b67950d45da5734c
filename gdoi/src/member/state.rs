//! The states of a registration; every state holds what it needs and nothing for later.

use ike::phase1::{Cookies, Initiator};
use ike::retransmission::Retransmission;
use ike::session::Session;

use crate::event::Stage;
use crate::pull::member::{ExpectKeys, ExpectPolicy, PolicyOffered};

/// Where a registration stands.
#[derive(Debug)]
pub(super) enum State {
    /// Main mode waits for its next message.
    MainMode {
        initiator: Initiator,
        retransmission: Retransmission,
    },
    /// Phase 1 is over. Keys have arrived when no pull is left.
    Established(Session<Pull>),
    Ended,
}

/// One pull under the session.
#[derive(Debug)]
pub(super) enum Pull {
    /// Message 1 is sent, again and again.
    ExpectPolicy(ExpectPolicy, Retransmission),
    /// The caller decides about the policy.
    Offered(PolicyOffered),
    /// Message 3 is sent, again and again.
    ExpectKeys(ExpectKeys, Retransmission),
}

impl Pull {
    fn retransmission(&self) -> Option<&Retransmission> {
        match self {
            Self::ExpectPolicy(_, retransmission) | Self::ExpectKeys(_, retransmission) => {
                Some(retransmission)
            }
            Self::Offered(_) => None,
        }
    }

    fn retransmission_mut(&mut self) -> Option<&mut Retransmission> {
        match self {
            Self::ExpectPolicy(_, retransmission) | Self::ExpectKeys(_, retransmission) => {
                Some(retransmission)
            }
            Self::Offered(_) => None,
        }
    }
}

impl State {
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::MainMode { .. } => Stage::Phase1,
            Self::Established(session) if session.exchanges().is_empty() => Stage::Registered,
            Self::Established(_) => Stage::Pull,
            Self::Ended => Stage::Ended,
        }
    }

    pub(super) fn session(&self) -> Option<&Session<Pull>> {
        if let Self::Established(session) = self { Some(session) } else { None }
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session<Pull>> {
        if let Self::Established(session) = self { Some(session) } else { None }
    }

    /// The message whose answer has been missing longest.
    pub(super) fn retransmission(&self) -> Option<&Retransmission> {
        match self {
            Self::MainMode { retransmission, .. } => Some(retransmission),
            Self::Established(session) => session
                .exchanges()
                .values()
                .filter_map(Pull::retransmission)
                .min_by_key(|retransmission| retransmission.at()),
            Self::Ended => None,
        }
    }

    pub(super) fn retransmission_mut(&mut self) -> Option<&mut Retransmission> {
        match self {
            Self::MainMode { retransmission, .. } => Some(retransmission),
            Self::Established(session) => session
                .exchanges_mut()
                .filter_map(Pull::retransmission_mut)
                .min_by_key(|retransmission| retransmission.at()),
            Self::Ended => None,
        }
    }

    /// Whether a header with `cookies` can belong to this exchange.
    pub(super) fn has_cookies(&self, cookies: Cookies) -> bool {
        match self {
            // The responder's cookie is only known once it has answered; the initiator compares it.
            Self::MainMode { initiator, .. } => initiator.cookie() == cookies.initiator,
            Self::Established(session) => session.cookies() == cookies,
            Self::Ended => false,
        }
    }
}
