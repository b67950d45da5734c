//! What an endpoint is made with.

use core::time::Duration;

use std::collections::BTreeSet;

use crate::config::{IKE_PORT, Identity, PeerCredential, Phase1Policy};
use crate::phase1::nat_traversal::{self, NatTraversal};
use crate::wire::registry::Doi;
use crate::wire::vendor::VendorId;

/// What an endpoint answers, and to whom.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Our phase-1 identity; `None` is the address the peer wrote to.
    pub identity: Option<Identity>,
    pub peers: Vec<PeerCredential>,
    /// What phase 1 may negotiate, for each domain of interpretation that is spoken here. Of several
    /// for one domain the first counts.
    pub phase1: Vec<Phase1Policy>,
    /// Whether aggressive mode is answered too.
    pub aggressive: bool,
    /// Whether a peer may be somewhere else after phase 1.
    pub mobility: PeerMobility,
    /// What is done about address translation.
    pub nat: NatTraversal,
    /// What message 2 states.
    pub vendor_ids: Vec<VendorId>,
    /// Bounds on work for strangers.
    pub limits: Limits,
}

impl EndpointConfig {
    /// All that message 2 states.
    pub(super) fn all_vendor_ids(&self) -> Vec<VendorId> {
        let nat = nat_traversal::vendor_ids(self.nat).into_iter();
        self.vendor_ids.iter().cloned().chain(nat).collect()
    }

    pub(super) fn policy(&self, doi: Doi) -> Option<&Phase1Policy> {
        self.phase1.iter().find(|policy| policy.doi == doi)
    }

    /// Ports that IKE and the protocols under it are spoken on.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        self.phase1.iter().map(|policy| policy.port).chain([IKE_PORT]).collect()
    }
}

/// Whether a peer with an ISAKMP SA may change its address or port. Address translation changes
/// them for it, when its state is lost or UDP encapsulation begins (RFC 3947 §4, §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PeerMobility {
    /// It stays where phase 1 found it, and nothing is heard from elsewhere.
    #[default]
    Fixed,
    /// It is where its last fresh and authentic message came from: answers go there. Copies of old
    /// messages and forgeries move nobody.
    Follow,
    /// As [`Follow`](Self::Follow) under ISAKMP SAs that found address translation, as
    /// [`Fixed`](Self::Fixed) under others.
    Translated,
}

/// Bounds that keep a flood of first messages from costing memory or arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Half-open exchanges in all.
    pub half_open: usize,
    /// Half-open exchanges of one source address: as many from the ports of IKE and of the policies,
    /// and as many from all others.
    pub half_open_per_source: usize,
    /// How long a half-open exchange may wait for its next message.
    pub half_open_timeout: Duration,
    /// Computations handed out whose results have not come back: see
    /// [`Arithmetic::HandedOut`](super::Arithmetic::HandedOut).
    pub computations: usize,
    /// Established ISAKMP SAs in all.
    pub established: usize,
    /// Established ISAKMP SAs of one peer; a further one replaces the oldest.
    pub established_per_peer: usize,
    /// Exchanges in progress under one ISAKMP SA.
    pub exchanges: usize,
    /// How long the answer to a last message is kept for duplicates of it.
    pub finished_exchange: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            half_open: 4096,
            half_open_per_source: 4,
            half_open_timeout: Duration::from_secs(30),
            computations: 1024,
            established: 20_000,
            established_per_peer: 4,
            exchanges: 8,
            finished_exchange: Duration::from_secs(60),
        }
    }
}
