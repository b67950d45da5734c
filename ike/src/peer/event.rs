//! What happened with a peer.

use core::fmt;

use super::private_use::{PrivateBody, QuestionId, RequestId};
use crate::config::{Authentication, Identity, Phase1Mode, Phase1Transform};
use crate::endpoint::SessionEnd;
use crate::error::{Error, PeerMisbehaved};
use crate::phase1::{Cookies, Role};
use crate::quick::{Child, Selectors};
use crate::session::PeerAddress;
use crate::wire::registry::{ExchangeType, NotifyType};

/// What happened with a peer.
#[derive(Debug)]
pub enum PeerEvent {
    /// There is a new ISAKMP SA.
    Established {
        /// The identity that the peer proved.
        identity: Identity,
        transform: Phase1Transform,
        cookies: Cookies,
        /// Our side of main mode.
        role: Role,
        /// Whether the peer says that it has no SA with us but this one (INITIAL-CONTACT): all that
        /// it had before are of no use to anybody.
        restarted: bool,
    },
    /// Main mode of ours failed. What was to be negotiated under it is not.
    Phase1Failed(Phase1Failure),
    /// The peer is at another address or port, by an authentic message from there: address
    /// translation gave it one. SAs in UDP go there.
    Moved { cookies: Cookies, from: PeerAddress, to: PeerAddress },
    /// An ISAKMP SA is gone.
    Ended { cookies: Cookies, cause: SessionEnd },
    /// A pair of SAs was negotiated: the inbound one belongs into the kernel now. The peer may send
    /// on it as soon as the datagrams leave that are due.
    Prepared {
        /// Position in the configuration.
        child: usize,
        /// Where the peer is.
        address: PeerAddress,
        sas: Box<Child>,
        /// Our side of Quick Mode.
        role: Role,
    },
    /// The peer has the keys too, or gets them with the next datagram: the pair may be sent on.
    Confirmed {
        /// Position in the configuration.
        child: usize,
        spi: u32,
    },
    /// The peer never confirmed that it has the keys: the pair is of no use.
    Abandoned {
        /// Position in the configuration.
        child: usize,
        spi: u32,
    },
    /// Quick Mode of ours failed.
    Failed {
        /// Position in the configuration.
        child: usize,
        failure: ChildFailure,
    },
    /// The peer, authenticated, asked for something that cannot be followed, and was told so.
    Refused {
        /// The traffic it asked for, ours first, if that could be read.
        selectors: Option<Selectors>,
        error: Error,
    },
    /// The peer answers no question whether it is there: its SAs are of no use (RFC 3706 §5.4).
    Dead,
    /// The peer asks by an exchange of private use (authenticated); told again with every copy
    /// until [`Peer::answer_question`](super::Peer::answer_question).
    Asked {
        question: QuestionId,
        /// The ISAKMP SA that it came under.
        cookies: Cookies,
        kind: ExchangeType,
        body: PrivateBody,
    },
    /// The peer has answered a request of ours (authenticated).
    Answered { request: RequestId, body: PrivateBody },
    /// The ISAKMP SA of a request of ours ended before the answer came.
    RequestLost { request: RequestId },
    /// The peer does not receive any more on these SPIs of its own (authenticated).
    Deleted { spis: Vec<u32> },
}

/// Why main mode of ours failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase1Failure {
    /// No answer to a message, by its number.
    NoAnswer {
        mode: Phase1Mode,
        /// 1, 3 or 5.
        message: u8,
        /// How often it was sent.
        transmissions: u32,
    },
    /// The peer is silent about our proof in message 5.
    ProofNotAccepted { authentication: Authentication },
    /// The responder's HASH of aggressive mode does not fit our pre-shared key, if it is hers.
    ForeignKey,
    /// The peer has to begin: nobody knows where it is.
    AddressUnknown,
    /// The peer's certificate is not to be believed, or its signature is wrong.
    Untrusted(PeerMisbehaved),
    /// The peer said, without proof, that nothing of our offer is acceptable.
    NoProposalChosen,
    /// The peer said, without proof, that it cannot believe us.
    Rejected(NotifyType),
    /// The peer knows the key and is somebody else.
    Identity {
        /// Whom the configuration names.
        expected: Identity,
        proved: Identity,
    },
    /// A configuration that no exchange can be run with.
    Configuration(Error),
}

/// Why Quick Mode of ours failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildFailure {
    /// No answer to message 1.
    NoAnswer,
    /// The peer refused (authenticated).
    Refused(NotifyType),
    /// The peer's answer cannot be followed.
    Unusable(Error),
    /// The ISAKMP SA ended meanwhile.
    IsakmpSaEnded,
    /// A configuration that no exchange can be run with.
    Configuration(Error),
}

impl fmt::Display for Phase1Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProofNotAccepted { authentication: Authentication::PreSharedKey } => f.write_str(
                "no answer to message 5 of main mode: the peer may have another pre-shared key or \
                 expect another identity",
            ),
            Self::ProofNotAccepted { .. } => f.write_str(
                "no answer to message 5 of main mode: the peer may not trust the authority of our \
                 certificate, know it for revoked, or expect another identity",
            ),
            Self::ForeignKey => f.write_str(
                "the peer's proof in aggressive mode does not fit: it may have another pre-shared key",
            ),
            Self::AddressUnknown => {
                f.write_str("the address of the peer is not known until it begins itself")
            }
            Self::Untrusted(error) => write!(f, "{error}"),
            Self::NoAnswer { mode, message, transmissions } => {
                write!(f, "no answer to message {message} of {mode}, sent {transmissions} times")
            }
            Self::NoProposalChosen => f.write_str(
                "the peer accepts no combination of the gateway's encryption, hash and DH group",
            ),
            Self::Rejected(kind) => write!(f, "the peer ended main mode with {kind}"),
            Self::Identity { expected, proved } => {
                write!(f, "the peer is {proved}, {expected} was expected")
            }
            Self::Configuration(error) => write!(f, "{error}"),
        }
    }
}

impl fmt::Display for ChildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("no answer to message 1 of quick mode"),
            Self::Refused(NotifyType::NO_PROPOSAL_CHOSEN) => f.write_str(
                "the peer accepts no ESP proposal of the tunnel, or another PFS group \
                 (NO_PROPOSAL_CHOSEN)",
            ),
            Self::Refused(NotifyType::INVALID_ID_INFORMATION) => {
                f.write_str("the peer has other networks for the tunnel (INVALID_ID_INFORMATION)")
            }
            Self::Refused(kind) => write!(f, "the peer refused with {kind}"),
            Self::Unusable(error) | Self::Configuration(error) => write!(f, "{error}"),
            Self::IsakmpSaEnded => f.write_str("the ISAKMP SA ended during quick mode"),
        }
    }
}
