//! A scripted key server: the protocol machine of a real one, and keys as a test wants them.

use std::sync::Arc;
use std::time::Duration;

use gdoi::config::ServerConfig;
use gdoi::event::PullRefusal;
use gdoi::group::{AddressRange, EncapsulationMode, EspTransform, GroupId, IssuedSa, Spi, TekKeys};
use gdoi::server::Server;
use ike::config::{Credential, PeerCredential, Phase1Policy, Phase1Transform};
use ike::crypto::Secret;
use ike::crypto::{DhGroup, HashAlgorithm, Phase1Encryption};
use ike::endpoint::Limits;

use super::configuration::PRE_SHARED_KEY;
use super::group_sa::{copy, group_sa};
use super::kek::Kek;

/// A key server and how it behaves.
pub struct KeyServer {
    pub server: Server,
    pub up: bool,
    pub refusal: Option<PullRefusal>,
    pub mode: EncapsulationMode,
    pub lifetime: Duration,
    pub spi: Spi,
    /// All groups get the traffic selectors of the first one.
    pub same_selectors: bool,
    pub transform: EspTransform,
    /// What pushes come under, if there are any.
    pub kek: Option<Kek>,
    /// All of the first group's traffic selectors and keys, if not the usual ones.
    pub custom: Option<IssuedSa>,
    pub pulls: usize,
    pub goodbyes: usize,
}

/// What the servers accept in phase 1.
pub fn phase1() -> Phase1Policy {
    let transform = |group| Phase1Transform {
        encryption: Phase1Encryption::Aes128Cbc,
        hash: HashAlgorithm::Sha2_256,
        group,
        authentication: Default::default(),
    };
    Phase1Policy {
        doi: ike::wire::registry::Doi::GDOI,
        port: gdoi::PORT,
        transforms: vec![transform(DhGroup::Modp2048), transform(DhGroup::Ecp256)],
        lifetime: Duration::from_secs(3_600),
    }
}

/// The protocol machine of a server.
pub fn gdoi_server(number: u8) -> Server {
    let config = ServerConfig {
        identity: None,
        peers: vec![PeerCredential {
            addresses: "10.0.1.0/24".parse().unwrap(),
            identity: None,
            credential: Credential::PreSharedKey(Arc::new(Secret::copy_from(PRE_SHARED_KEY))),
        }],
        phase1: phase1(),
        limits: Limits::default(),
    };
    Server::new(config, [100 + number; 32])
}

pub(super) fn key_server(number: u8) -> KeyServer {
    KeyServer {
        server: gdoi_server(number),
        up: true,
        refusal: None,
        mode: EncapsulationMode::TUNNEL,
        lifetime: Duration::from_secs(3_600),
        spi: 0x1000 * u32::from(number),
        same_selectors: false,
        transform: EspTransform::AES_CBC,
        kek: None,
        custom: None,
        pulls: 0,
        goodbyes: 0,
    }
}

impl KeyServer {
    pub(super) fn group_sa(&self, group: GroupId) -> IssuedSa {
        if let Some(custom) = &self.custom {
            return copy(custom, self.kek.as_ref());
        }
        let second = group == GroupId(2222);
        let prefix =
            if second && !self.same_selectors { "192.168.0.0/16" } else { "172.16.0.0/12" };
        let side = AddressRange::Subnet(prefix.parse().unwrap());
        let spi = self.spi + u32::from(second);
        let plain = group_sa(group, side, spi, self.mode, self.lifetime);
        if self.transform != EspTransform::AES_CBC {
            let mut policy = plain.policy().clone();
            policy.teks[0].protection.transform = self.transform;
            policy.teks[0].protection.authentication = None;
            let keys = TekKeys {
                encryption: Secret::new(vec![spi.to_be_bytes()[2]; 20]),
                integrity: Secret::new(vec![]),
            };
            let combined = IssuedSa::new(policy, [(spi, keys)].into(), None, None, None);
            return copy(&combined, self.kek.as_ref());
        }
        copy(&plain, self.kek.as_ref())
    }
}
