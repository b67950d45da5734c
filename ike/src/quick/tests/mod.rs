mod recorded;
mod refused;
mod two_party;

use core::time::Duration;

use super::*;
use crate::crypto::DhGroup;

/// AES-256 in both forms, no perfect forward secrecy.
fn policy() -> ChildPolicy {
    ChildPolicy {
        algorithms: vec![
            EspAlgorithms::combined(EspEncryption::Aes256Gcm),
            EspAlgorithms::separate(EspEncryption::Aes256Cbc, EspIntegrity::HmacSha2_256),
        ],
        pfs: None,
        mode: Mode::Tunnel,
        lifetime: Duration::from_secs(3600),
        kilobytes: None,
        extended_sequence_numbers: false,
    }
}

fn with_pfs(group: DhGroup) -> ChildPolicy {
    ChildPolicy { pfs: Some(group), ..policy() }
}

fn selectors() -> Selectors {
    Selectors {
        local: TrafficSelector::net("172.16.1.0/24".parse().unwrap()),
        remote: TrafficSelector::net("172.16.2.0/24".parse().unwrap()),
    }
}

fn reversed(Selectors { local, remote }: Selectors) -> Selectors {
    Selectors { local: remote, remote: local }
}
