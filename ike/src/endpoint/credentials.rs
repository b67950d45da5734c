//! Who may start phase 1: in main mode the source address is all there is to find the key by (RFC
//! 2409 §5.4).

use std::collections::{BTreeMap, BTreeSet};

use core::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Identity, PeerCredential};

/// Credentials by prefix, longest match first.
#[derive(Debug)]
pub(super) struct Credentials {
    by_prefix: BTreeMap<IpNet, PeerCredential>,
    /// Prefix lengths in use, IPv4 and IPv6: one look-up each.
    lengths: BTreeSet<u8>,
}

impl Credentials {
    pub(super) fn new(peers: Vec<PeerCredential>) -> Self {
        let by_prefix: BTreeMap<_, _> =
            peers.into_iter().map(|peer| (peer.addresses.trunc(), peer)).collect();
        let lengths = by_prefix.keys().map(IpNet::prefix_len).collect();
        Self { by_prefix, lengths }
    }

    /// The credential that covers `address`.
    pub(super) fn find(&self, address: IpAddr) -> Option<&PeerCredential> {
        let address = address.to_canonical();
        self.lengths.iter().rev().find_map(|length| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            self.by_prefix.get(&prefix)
        })
    }
}

/// The identity that a peer at `address` must prove.
pub(super) fn expected_identity(credential: &PeerCredential, address: IpAddr) -> Identity {
    credential.identity.clone().unwrap_or(Identity::Address(address.to_canonical()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Credential;
    use crate::crypto::Secret;

    fn credentials(prefixes: &[&str]) -> Credentials {
        let peer = |prefix: &&str| PeerCredential {
            addresses: prefix.parse().unwrap(),
            identity: Some(Identity::Fqdn((*prefix).to_owned())),
            credential: Credential::PreSharedKey(Arc::new(Secret::copy_from(b"key"))),
        };
        Credentials::new(prefixes.iter().map(peer).collect())
    }

    #[test]
    fn the_longest_match_wins() {
        let credentials =
            credentials(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "2001:db8::/32"]);
        let found =
            |address: &str| match credentials.find(address.parse().unwrap())?.identity.clone()? {
                Identity::Fqdn(name) => Some(name),
                _ => None,
            };
        assert_eq!(found("10.9.9.9").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(found("10.1.9.9").as_deref(), Some("10.1.0.0/16"));
        assert_eq!(found("10.1.2.3").as_deref(), Some("10.1.2.3/32"));
        assert_eq!(found("2001:db8::1").as_deref(), Some("2001:db8::/32"));
        assert_eq!(found("::ffff:10.1.2.3").as_deref(), Some("10.1.2.3/32"));
        assert_eq!(found("192.0.2.1"), None);
        assert_eq!(found("2001:db9::1"), None);
    }

    #[test]
    fn the_default_identity_is_the_address() {
        let mut credentials = credentials(&["10.0.0.0/8"]);
        let credential = credentials.by_prefix.values_mut().next().unwrap();
        credential.identity = None;
        let address = "10.3.2.1".parse().unwrap();
        assert_eq!(expected_identity(credential, address), Identity::Address(address));
    }
}
