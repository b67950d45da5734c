//! One attempt to register with one key server (RFC 6407 §3), and what its failure means.

use gdoi::BootTime;
use gdoi::config::{Identity, Phase1Transform};
use gdoi::event::RegistrationFailure;
use gdoi::member::Registration;

use crate::failover::{Reason, ServerIndex};

/// The ISAKMP SA in use, for show commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsakmpSa {
    /// Initiator and responder cookie.
    pub cookies: ([u8; 8], [u8; 8]),
    /// What was negotiated.
    pub transform: Phase1Transform,
    /// Whom the key server proved to be.
    pub peer_identity: Identity,
    /// When it ends.
    pub end: BootTime,
}

/// One registration with one key server, from the first message to the end of its ISAKMP SA.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Whom it asks.
    pub(crate) server: ServerIndex,
    pub(crate) registration: Registration,
    pub(crate) isakmp: Option<IsakmpSa>,
    /// Why we refused the policy, for the failure that follows.
    pub(crate) unusable: Option<String>,
}

/// What a failure means for the failover, and the line that says it.
pub(crate) fn explain(failure: RegistrationFailure, unusable: Option<String>) -> (Reason, String) {
    let reason = match &failure {
        RegistrationFailure::NoAnswer { .. } => Reason::NoAnswer,
        RegistrationFailure::Refused { .. } => Reason::Refused,
        RegistrationFailure::PeerIdentity { .. } | RegistrationFailure::AuthenticationFailed => {
            Reason::AuthenticationFailed
        }
        RegistrationFailure::NoProposalChosen => Reason::NoProposalChosen,
        RegistrationFailure::PolicyNotUnderstood(_) | RegistrationFailure::PolicyRefused => {
            Reason::PolicyUnusable
        }
        RegistrationFailure::PeerMisbehaved(_)
        | RegistrationFailure::PeerDeleted
        | RegistrationFailure::IsakmpSaExpired => Reason::PeerMisbehaved,
        RegistrationFailure::Configuration(_) => Reason::NotStarted,
    };
    (reason, unusable.unwrap_or_else(|| failure.to_string()))
}
