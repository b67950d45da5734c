//! What a channel is made with.

use std::time::Duration;

use ike::config::{Credential, Identity, Phase1Policy, RetransmissionPolicy};
use ike::dead_peer_detection::{Mode, Settings};
use ike::peer::PeerConfig;
use ike::phase1::NatTraversal;
use ike::session::PeerAddress;
use ike::wire::vendor::VendorId;

/// One server of the cluster, as it is configured here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Where it is, and where we are.
    pub address: PeerAddress,
    pub identity: Identity,
    /// The one that it must prove.
    pub expected_identity: Identity,
    pub credential: Credential,
    /// What phase 1 may negotiate.
    pub phase1: Phase1Policy,
    /// Interval of the questions whether it is alive, 10 to 60 seconds.
    pub liveness_interval: Duration,
    /// How many of them a dead server leaves unanswered, 1 to 5.
    pub liveness_threshold: u32,
    /// When a part of a message is repeated.
    pub period: Duration,
    /// Whether we are the one that needs the channel: a sub-server.
    pub begins: bool,
}

impl LinkConfig {
    /// How long a server is silent that is called dead.
    pub fn time_to_live(&self) -> Duration {
        self.liveness_interval.saturating_mul(self.liveness_threshold)
    }

    pub(super) fn peer(&self, vendor_id: VendorId) -> PeerConfig {
        PeerConfig {
            address: self.address,
            identity: self.identity.clone(),
            expected_identity: self.expected_identity.clone(),
            credential: self.credential.clone(),
            phase1: self.phase1.clone(),
            retransmission: RetransmissionPolicy::default(),
            dead_peer_detection: Settings {
                mode: Mode::Always,
                interval: self.liveness_interval,
                threshold: self.liveness_threshold,
            },
            nat: NatTraversal::Off,
            vendor_ids: vec![vendor_id],
            children: Vec::new(),
        }
    }
}
