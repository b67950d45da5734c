//! What the machines of this crate want done: plain, comparable data.

use core::net::SocketAddr;
use core::time::Duration;

use crate::error::Error;
use crate::group::{GroupId, GroupPolicy, GroupSa};
use ike::config::{Identity, Phase1Transform};
use ike::wire::registry::NotifyType;

pub use ike::event::Transmit;
use ike::time::BootTime;

/// When a machine wants `handle_timeout`, and why.
pub type Deadline = ike::event::Deadline<Timer>;

/// Every timer of the protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Phase 1, or an exchange under an ISAKMP SA.
    Ike(ike::event::Timer),
    /// When a KEK ends.
    KekLifetime,
    /// When the rest of the update arrays of a key hierarchy is waited for no longer.
    UpdateArrays,
    /// When a push is sent again.
    PushRepetition,
    /// When a missing acknowledgement is called missing.
    Acknowledgement,
}

/// What happened to a registration.
#[derive(Debug, PartialEq, Eq)]
pub enum RegistrationEvent {
    /// The key server proved the expected identity; the pull begins.
    Phase1Established {
        /// The identity that the key server proved.
        peer_identity: Identity,
        /// Algorithms agreed in phase 1.
        transform: Phase1Transform,
        /// Remaining lifetime of the ISAKMP SA.
        lifetime: Duration,
        /// Initiator and responder cookie.
        cookies: ([u8; 8], [u8; 8]),
    },
    /// Message 2 of the pull is authentic and understood. The exchange goes on with
    /// [`accept_policy`](crate::member::Registration::accept_policy) or ends with
    /// [`refuse_policy`](crate::member::Registration::refuse_policy); no key has arrived yet.
    PolicyOffered(GroupPolicy),
    /// The keys have arrived.
    Registered(GroupSa),
    /// The key server deleted the ISAKMP SA (authenticated). Keys already delivered stay valid.
    PeerDeleted,
    /// The ISAKMP SA reached the end of its lifetime. Keys already delivered stay valid.
    IsakmpSaExpired,
    /// The attempt has failed; nothing more will come.
    Failed(RegistrationFailure),
}

/// Why an attempt to register failed: each calls for another answer by the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages explain the fields")]
pub enum RegistrationFailure {
    /// Nothing usable came back within the retransmission budget.
    #[error("no answer in {stage} after {transmissions} transmissions")]
    NoAnswer {
        /// Where the exchange stood.
        stage: Stage,
        /// How often the message that got no answer was sent.
        transmissions: u32,
    },
    /// The key server refused by an authenticated notification (RFC 2408 §3.14.1).
    #[error("refused by the key server: notification {notify}")]
    Refused { notify: NotifyType },
    /// The key server proved another identity than the configured one.
    #[error("the key server proved the identity {proved}, {expected} was expected")]
    PeerIdentity {
        /// Whom the configuration names.
        expected: Identity,
        /// The identity that it proved instead.
        proved: Identity,
    },
    /// The key server's proof of the pre-shared key was missing or wrong. Probably the two keys
    /// differ.
    #[error(
        "phase 1 was not authenticated: the pre-shared keys differ, or the identity is not accepted there"
    )]
    AuthenticationFailed,
    /// The key server is silent about our certificate.
    #[error(
        "phase 1 was not authenticated: the key server may not trust the authority of our certificate, know it for revoked, or not know the identity"
    )]
    CertificateNotAccepted,
    /// The key server's certificate is not to be believed, or its signature is wrong.
    #[error("the key server is not to be believed: {0}")]
    Untrusted(ike::error::PeerMisbehaved),
    /// The key server accepts none of the phase-1 transforms offered.
    #[error("the key server accepts none of the IKE transforms offered: {}", in_words(offered))]
    NoProposalChosen {
        /// What was offered, in order of preference.
        offered: Vec<Phase1Transform>,
    },
    /// The group's policy has a part that is not understood (RFC 6407 §3.3).
    #[error("the group's policy cannot be used: {0}")]
    PolicyNotUnderstood(Error),
    /// The caller refused the policy.
    #[error("the group's policy was refused here")]
    PolicyRefused,
    /// The authenticated key server broke the protocol.
    #[error("{0}")]
    PeerMisbehaved(Error),
    /// The key server ended the ISAKMP SA before the keys arrived.
    #[error("the key server deleted the ISAKMP SA before the keys arrived")]
    PeerDeleted,
    /// The ISAKMP SA reached the end of its lifetime before the keys arrived.
    #[error("the ISAKMP SA ended before the keys arrived")]
    IsakmpSaExpired,
    /// The configuration cannot be used: nothing was sent.
    #[error("{0}")]
    Configuration(Error),
}

fn in_words(transforms: &[Phase1Transform]) -> String {
    transforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Main mode with the key server.
    Phase1,
    /// GROUPKEY-PULL under the ISAKMP SA.
    Pull,
    /// Keys have arrived; the ISAKMP SA is kept.
    Registered,
    /// The ISAKMP SA is gone.
    Ended,
}

impl core::fmt::Display for Stage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Phase1 => "phase 1",
            Self::Pull => "pull",
            Self::Registered => "registered",
            Self::Ended => "ended",
        })
    }
}

/// Names one pull while the server runs; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PullId(pub(crate) u64);

/// Names one push on its way while the server runs; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushId(pub(crate) u64);

/// What happened at a key server's endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// A peer has proved its identity.
    Phase1Established {
        /// Address and port of the peer.
        peer: SocketAddr,
        /// The identity that the peer proved.
        identity: Identity,
        /// Algorithms agreed in phase 1.
        transform: Phase1Transform,
        /// Initiator and responder cookie.
        cookies: ([u8; 8], [u8; 8]),
    },
    /// A peer asks for a group: authorise (identity, group), then answer or refuse. The group is
    /// read in network order; [`ByteOrder::group`](crate::config::ByteOrder::group) turns it.
    PullRequested {
        /// Names the pull in the answer.
        pull: PullId,
        /// Our address that the peer talks to: pushes leave from it.
        local: SocketAddr,
        /// Where the peer is.
        peer: SocketAddr,
        /// The identity proved in phase 1.
        identity: Identity,
        /// The group asked for.
        group: GroupId,
    },
    /// Message 3 was valid: give the peer its keys, or refuse.
    PullAccepted {
        /// Names the pull in the answer.
        pull: PullId,
        /// Our address that the peer talks to: pushes leave from it.
        local: SocketAddr,
        /// Where the peer is.
        peer: SocketAddr,
        /// The identity proved in phase 1.
        identity: Identity,
        /// The group asked for in message 1.
        group: GroupId,
        /// How many sender identifiers the member asks for, if it does (RFC 6407 §5.4.2).
        sender_ids: Option<u16>,
        /// When the phase 1 ended in which the member said that it has no other ISAKMP SA with us
        /// (INITIAL-CONTACT): the keys that it had before, it used in an earlier run.
        initial_contact: Option<BootTime>,
    },
    /// Message 3 was valid and the keys, which were known before, are on their way: from here on
    /// the peer is a member (RFC 6407 §3.2).
    PullCompleted {
        /// The pull that has ended.
        pull: PullId,
        /// Our address that the peer talks to: pushes leave from it.
        local: SocketAddr,
        /// Where the peer is.
        peer: SocketAddr,
        /// The identity proved in phase 1.
        identity: Identity,
        /// The group that the peer joined.
        group: GroupId,
    },
    /// A pull ended without keys being sent.
    PullAborted {
        /// The pull that has ended.
        pull: PullId,
        /// Where the peer is.
        peer: SocketAddr,
        /// The identity proved in phase 1.
        identity: Identity,
        /// The group asked for in message 1.
        group: GroupId,
        /// What broke the pull off.
        reason: PullAbort,
    },
    /// A peer restarted and said that it has lost an ISAKMP SA (INITIAL-CONTACT): ended here, too.
    PeerRestarted {
        /// Address and port of the peer.
        peer: SocketAddr,
        /// The identity proved in phase 1.
        identity: Identity,
    },
    /// A peer deleted its ISAKMP SA (authenticated).
    PeerDeleted {
        /// Address and port of the peer.
        peer: SocketAddr,
        /// The identity proved in phase 1.
        identity: Identity,
    },
}

/// Why a pull ended without keys being sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullAbort {
    /// Message 3 was authentic but cannot be followed.
    Misbehaved(Error),
    /// The next message did not come in time.
    TimedOut,
    /// The ISAKMP SA under it is gone: deleted by the peer, by us, or at the end of its lifetime.
    IsakmpSaEnded,
}

/// How a key server says no to a pull. RFC 6407 defines no notification for it, so the choice is
/// policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PullRefusal {
    /// INVALID-ID-INFORMATION: no such group.
    InvalidId,
    /// AUTHENTICATION-FAILED: the identity may not have this group.
    AuthenticationFailed,
    /// A protected Delete of the ISAKMP SA that the pull runs under: what the member was promised is
    /// gone, and it may begin again at once.
    IsakmpSaDeleted,
    /// No answer: the member goes on to its next server after its own budget.
    Silence,
}
