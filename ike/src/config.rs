//! What the caller decides before phase 1 begins.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use crate::certificate::{self, CertificateCredential};
use crate::crypto::{DhGroup, HashAlgorithm, Phase1Encryption, Secret};
use crate::wire::registry::Doi;

/// Phase-1 identity (RFC 2407 §4.6.2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// An address, sent as ID_IPV4_ADDR or ID_IPV6_ADDR.
    Address(IpAddr),
    /// A host name, sent as ID_FQDN.
    Fqdn(String),
    /// A name of the form `user@host`, sent as ID_USER_FQDN.
    UserFqdn(String),
    /// Octets without a structure, sent as ID_KEY_ID.
    KeyId(Vec<u8>),
    /// The subject of a certificate in DER form, sent as ID_DER_ASN1_DN.
    DistinguishedName(Vec<u8>),
}

impl Identity {
    /// Whether this, as a rule about identities that certificates prove, means `proved`. `*` in a
    /// name stands for any characters, in a distinguished name for any within one value. Case does
    /// not count (RFC 5280 §7), except in front of the @ of a user's name.
    pub fn covers(&self, proved: &Self) -> bool {
        match (self, proved) {
            (Self::DistinguishedName(rule), Self::DistinguishedName(name)) => {
                certificate::name_covers(rule, name)
            }
            (Self::Fqdn(rule), Self::Fqdn(name)) => {
                certificate::text_covers(&rule.to_ascii_lowercase(), &name.to_ascii_lowercase())
            }
            (Self::UserFqdn(rule), Self::UserFqdn(name)) => {
                let host_folded = |name: &str| match name.rsplit_once('@') {
                    Some((user, host)) => format!("{user}@{}", host.to_ascii_lowercase()),
                    None => name.to_owned(),
                };
                certificate::text_covers(&host_folded(rule), &host_folded(name))
            }
            _ => self == proved,
        }
    }

    /// Whether it may mean several: it has a `*`.
    pub fn is_pattern(&self) -> bool {
        match self {
            Self::Fqdn(name) | Self::UserFqdn(name) => name.contains('*'),
            Self::DistinguishedName(name) => certificate::name_is_pattern(name),
            Self::Address(_) | Self::KeyId(_) => false,
        }
    }
}

/// As configurations spell it, for example `fqdn gcks.example`.
impl core::fmt::Display for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "address {address}"),
            Self::Fqdn(name) => write!(f, "fqdn {name}"),
            Self::UserFqdn(name) => write!(f, "user-fqdn {name}"),
            Self::DistinguishedName(name) => write!(f, "dn {}", certificate::name_text(name)),
            Self::KeyId(octets) => write!(f, "key-id \"{}\"", octets.escape_ascii()),
        }
    }
}

/// UDP port of IKE (RFC 2408 §2.5.1).
pub const IKE_PORT: u16 = 500;

/// One phase-1 transform: encryption, hash, group and authentication method belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phase1Transform {
    pub encryption: Phase1Encryption,
    pub hash: HashAlgorithm,
    pub group: DhGroup,
    /// How the peers prove their identities.
    pub authentication: Authentication,
}

/// The exchange of phase 1 (RFC 2409 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Phase1Mode {
    /// Six messages; identities travel encrypted.
    #[default]
    Main,
    /// Three messages. Identities travel in clear, and with a pre-shared key the responder shows
    /// anybody who asks a hash to try keys against.
    Aggressive,
}

impl core::fmt::Display for Phase1Mode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Main => "main mode",
            Self::Aggressive => "aggressive mode",
        })
    }
}

/// How the peers prove their identities in phase 1 (RFC 2409 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Authentication {
    /// By a key that both know (RFC 2409 §5.4).
    #[default]
    PreSharedKey,
    /// By RSA signatures with certificates (RFC 2409 §5.1).
    RsaSignature,
    /// By ECDSA on the curve P-256 with certificates (RFC 4754).
    Ecdsa256,
    /// By ECDSA on the curve P-384 with certificates (RFC 4754).
    Ecdsa384,
}

impl Authentication {
    /// As sentences name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PreSharedKey => "a pre-shared key",
            Self::RsaSignature => "RSA signatures",
            Self::Ecdsa256 => "ECDSA signatures on P-256",
            Self::Ecdsa384 => "ECDSA signatures on P-384",
        }
    }
}

impl core::fmt::Display for Phase1Transform {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (encryption, hash) = (self.encryption.name(), self.hash.name());
        let group = self.group.number();
        let authentication = self.authentication.name();
        write!(f, "{encryption} with {hash}, group {group} and {authentication}")
    }
}

impl Phase1Transform {
    /// Whether a part of it is weak: DES, 3DES, MD5, MODP 768, 1024, 1536, and the MODP group of
    /// RFC 5114, whose primes come without a proof that nobody chose them (RFC 8247 §2.4).
    pub fn is_legacy(&self) -> bool {
        matches!(self.encryption, Phase1Encryption::DesCbc | Phase1Encryption::TripleDesCbc)
            || self.hash == HashAlgorithm::Md5
            || matches!(
                self.group,
                DhGroup::Modp768
                    | DhGroup::Modp1024
                    | DhGroup::Modp1536
                    | DhGroup::Modp2048Subgroup256
            )
    }
}

/// What phase 1 may negotiate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase1Policy {
    /// Domain of interpretation of the ISAKMP SA and of the exchanges under it.
    pub doi: Doi,
    /// UDP port that its exchanges are spoken on. Identities may state it or IKE's own (RFC 2407
    /// §4.6.2).
    pub port: u16,
    /// Acceptable transforms in order of preference; the initiator offers them all.
    pub transforms: Vec<Phase1Transform>,
    /// Lifetime of the ISAKMP SA that the initiator offers; the responder accepts any and applies
    /// the smaller.
    pub lifetime: Duration,
}

impl Phase1Policy {
    /// The same with this authentication in every transform.
    #[must_use]
    pub fn authenticated_by(mut self, authentication: Authentication) -> Self {
        for transform in &mut self.transforms {
            transform.authentication = authentication;
        }
        self
    }
}

/// Retransmission by the initiator (RFC 2408 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetransmissionPolicy {
    /// Wait before the first repetition.
    pub initial: Duration,
    /// Longest wait; each wait is twice the one before.
    pub maximum: Duration,
    /// How many times one message is sent again before the exchange is given up.
    pub repetitions: u32,
}

impl Default for RetransmissionPolicy {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), maximum: Duration::from_secs(8), repetitions: 4 }
    }
}

/// A peer that may start phase 1 with a key server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCredential {
    /// Addresses that use this key: a host or a prefix. The longest match wins (RFC 2409 §5.4: main
    /// mode knows no more).
    pub addresses: ipnet::IpNet,
    /// The identity that the peer must prove; `None` accepts the one that equals its address, and
    /// with certificates any that the peer's names. With certificates it may be a pattern: see
    /// [`Identity::covers`].
    pub identity: Option<Identity>,
    /// What proves our identity to the peer, and the peer's to us.
    pub credential: Credential,
}

/// What proves our identity to a peer, and the peer's to us (RFC 2409 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// A key that both know (RFC 2409 §5.4).
    PreSharedKey(Arc<Secret>),
    /// A certificate with its key, and whom we believe (RFC 2409 §5.1).
    Certificate(Arc<CertificateCredential>),
}

impl Credential {
    /// The authentication method that it is for.
    pub fn authentication(&self) -> Authentication {
        match self {
            Self::PreSharedKey(_) => Authentication::PreSharedKey,
            Self::Certificate(credential) => credential.authentication(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_as_text_tells_its_kind() {
        assert_eq!(Identity::Fqdn(String::from("10.0.0.1")).to_string(), "fqdn 10.0.0.1");
        assert_eq!(Identity::KeyId(vec![b'a', 0, b'\n']).to_string(), "key-id \"a\\x00\\n\"");
    }
}
