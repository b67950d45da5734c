//! What is configured for one peer.

use crate::config::{
    Credential, Identity, PeerCredential, Phase1Mode, Phase1Policy, RetransmissionPolicy,
};
use ipnet::IpNet;

use crate::dead_peer_detection;
use crate::endpoint::{EndpointConfig, Limits, PeerMobility};
use crate::fragmentation;
use crate::phase1::NatTraversal;
use crate::quick::{ChildPolicy, Selectors};
use crate::session::PeerAddress;
use crate::wire::vendor::VendorId;

/// One peer, and what may be negotiated with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Where it is, and where we are. With the unspecified address it may be anywhere, and begins.
    pub address: PeerAddress,
    pub identity: Identity,
    /// The one that it must prove.
    pub expected_identity: Identity,
    pub credential: Credential,
    /// The exchange of phase 1 that we begin. Aggressive mode is answered only where it is begun.
    pub mode: Phase1Mode,
    /// Whether other peers may be at the same address: then the identity that is proved decides whose
    /// ISAKMP SA it is, see [`Peer::poll_foreign`](super::Peer::poll_foreign).
    pub shares_address: bool,
    /// What phase 1 may negotiate, under the IPsec DOI.
    pub phase1: Phase1Policy,
    /// When messages are repeated.
    pub retransmission: RetransmissionPolicy,
    /// Whether and when the peer is asked if it is still there.
    pub dead_peer_detection: dead_peer_detection::Settings,
    /// What is done about address translation. With anything but `Off` the peer may begin from
    /// any port.
    pub nat: NatTraversal,
    /// What phase 1 states beside dead peer detection and address translation.
    pub vendor_ids: Vec<VendorId>,
    /// What SAs there may be. Their positions name them.
    pub children: Vec<ChildConfig>,
}

/// SAs for one pair of traffic selectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildConfig {
    pub selectors: Selectors,
    /// What may be negotiated.
    pub policy: ChildPolicy,
}

impl PeerConfig {
    /// What phase 1 states beside address translation.
    pub(super) fn all_vendor_ids(&self) -> Vec<VendorId> {
        let detection = self.dead_peer_detection.mode.vendor_ids().into_iter();
        // Without certificates every message is short.
        let long = matches!(self.credential, Credential::Certificate(_));
        let fragments = long.then(fragmentation::vendor_id);
        detection.chain(self.vendor_ids.iter().cloned()).chain(fragments).collect()
    }

    /// Whether the peer may be anywhere.
    pub(super) fn is_anywhere(&self) -> bool {
        self.address.remote.ip().is_unspecified()
    }

    /// Whether the identity that the peer proves decides whose ISAKMP SA that is. Aggressive mode
    /// says it first, so that only the tunnel of this identity answers.
    pub(super) fn identity_decides(&self) -> bool {
        self.shares_address
            && self.mode == Phase1Mode::Main
            && matches!(self.credential, Credential::Certificate(_))
    }

    /// The identity that phase 1 must prove; `None` where it decides whose ISAKMP SA that is.
    fn awaited_identity(&self) -> Option<Identity> {
        (!self.identity_decides()).then(|| self.expected_identity.clone())
    }

    fn addresses(&self) -> IpNet {
        let remote = self.address.remote.ip().to_canonical();
        let all = IpNet::new(remote, 0).unwrap_or_else(|_| remote.into());
        if self.is_anywhere() { all } else { remote.into() }
    }

    /// What the endpoint that answers main mode is made with.
    pub(super) fn endpoint(&self) -> EndpointConfig {
        EndpointConfig {
            identity: Some(self.identity.clone()),
            peers: vec![PeerCredential {
                addresses: self.addresses(),
                identity: self.awaited_identity(),
                credential: self.credential.clone(),
            }],
            phase1: vec![self.phase1.clone()],
            aggressive: self.mode == Phase1Mode::Aggressive,
            mobility: PeerMobility::Translated,
            nat: self.nat,
            vendor_ids: self.all_vendor_ids(),
            limits: Limits {
                half_open: HALF_OPEN,
                computations: HALF_OPEN,
                established: ESTABLISHED,
                ..Limits::default()
            },
        }
    }
}

/// Half-open exchanges with one peer: whoever forges its address must not cost more.
const HALF_OPEN: usize = 16;

/// ISAKMP SAs with one peer: one, the one that replaces it, and those that both sides began at
/// once.
const ESTABLISHED: usize = 8;
