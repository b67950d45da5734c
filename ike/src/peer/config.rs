//! What is configured for one peer.

use crate::config::{Credential, Identity, PeerCredential, Phase1Policy, RetransmissionPolicy};
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
    /// Where it is, and where we are.
    pub address: PeerAddress,
    pub identity: Identity,
    /// The one that it must prove.
    pub expected_identity: Identity,
    pub credential: Credential,
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

    /// What the endpoint that answers main mode is made with.
    pub(super) fn endpoint(&self) -> EndpointConfig {
        EndpointConfig {
            identity: Some(self.identity.clone()),
            peers: vec![PeerCredential {
                addresses: self.address.remote.ip().to_canonical().into(),
                identity: Some(self.expected_identity.clone()),
                credential: self.credential.clone(),
            }],
            phase1: vec![self.phase1.clone()],
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
