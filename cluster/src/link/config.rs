//! What a channel is made with.

use std::time::Duration;

use ike::config::{Credential, Identity, Phase1Mode, Phase1Policy, RetransmissionPolicy};
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
    /// Where it is as well, if several machines are this server and one of them is active: tried in
    /// this order behind `address`.
    pub further: Vec<PeerAddress>,
    pub identity: Identity,
    /// The one that it must prove; `None` is the address that it is spoken to at.
    pub expected_identity: Option<Identity>,
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

    /// The places where it may be.
    pub(super) fn addresses(&self) -> impl Iterator<Item = PeerAddress> {
        std::iter::once(self.address).chain(self.further.iter().copied())
    }

    pub(super) fn peer(&self, place: usize, vendor_id: VendorId) -> PeerConfig {
        let address = self.addresses().nth(place).unwrap_or(self.address);
        let of_address = || Identity::Address(address.remote.ip());
        PeerConfig {
            address,
            identity: self.identity.clone(),
            expected_identity: self.expected_identity.clone().unwrap_or_else(of_address),
            credential: self.credential.clone(),
            phase1: self.phase1.clone(),
            retransmission: RetransmissionPolicy::default(),
            dead_peer_detection: Settings {
                mode: Mode::Always,
                interval: self.liveness_interval,
                threshold: self.liveness_threshold,
            },
            mode: Phase1Mode::Main,
            shares_address: false,
            nat: NatTraversal::Off,
            vendor_ids: vec![vendor_id],
            children: Vec::new(),
        }
    }
}
