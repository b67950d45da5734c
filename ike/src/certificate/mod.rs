//! X.509 certificates as proof of an identity in phase 1 (RFC 4945, RFC 5280).
//!
//! Paths, validity, name constraints and revocation are `webpki`'s work, the structures are
//! `x509-cert`'s, the signatures those of this crate's own libraries. What is here is what IKE asks
//! of them: which certificates are trusted, what their keys are for, and which identities they
//! prove. Time is a parameter, in seconds since 1970.

mod algorithm;
mod error;
mod name;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod validity;

use core::net::IpAddr;

use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{KeyUsage, KeyUsages, SubjectAltName};
use x509_cert::name::Name;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyPurposeId, KeyPurposeIdIter,
    OwnedCertRevocationList, RequiredEkuNotFoundContext, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::config::{Authentication, Identity};
use crate::crypto::{KeyKind, PublicKey, SigningKey};

pub use error::CertificateError;
pub(crate) use name::{name_covers, name_is_pattern, text_covers};
pub use name::{name_from_text, name_text};
pub use validity::CertificateProblem;

/// Whom to believe, and who has lost that.
#[derive(Debug)]
pub struct Trust {
    authorities: Vec<Vec<u8>>,
    lists: Vec<Vec<u8>>,
    parsed: Vec<CertRevocationList<'static>>,
    strict: bool,
}

/// Our certificate with its key, and whom we believe.
#[derive(Debug)]
pub struct CertificateCredential {
    chain: Vec<Vec<u8>>,
    key: SigningKey,
    authentication: Authentication,
    trust: Trust,
}

/// A certificate of a peer that was verified up to an authority. Its key still has to prove that
/// the peer is its owner.
#[derive(Debug)]
pub struct PeerCertificate {
    certificate: x509_cert::Certificate,
    subject: Vec<u8>,
    key: PublicKey,
}

impl Trust {
    /// Believes what `authorities` certify, each a DER certificate, but not what `lists`, DER CRLs,
    /// revoke. `strict` demands for every certificate that a list in date says that it is not
    /// revoked; otherwise a list that is missing or old takes nobody's trust away.
    ///
    /// # Errors
    /// No authority, or octets that are none or no list.
    pub fn new(
        authorities: Vec<Vec<u8>>,
        lists: Vec<Vec<u8>>,
        strict: bool,
    ) -> Result<Self, CertificateError> {
        if authorities.is_empty() {
            return Err(CertificateError::NoAuthority);
        }
        let trust = Self {
            parsed: lists
                .iter()
                .map(|list| OwnedCertRevocationList::from_der(list).map(CertRevocationList::from))
                .collect::<Result<_, _>>()
                .map_err(|_| CertificateError::MalformedList)?,
            authorities,
            lists,
            strict,
        };
        trust.anchors()?;
        Ok(trust)
    }

    /// Verifies `chain`, the peer's certificate first, others in any order behind it.
    ///
    /// # Errors
    /// The first reason found why it is not to be believed.
    pub fn verify(
        &self,
        chain: &[Vec<u8>],
        unix_seconds: u64,
    ) -> Result<PeerCertificate, CertificateError> {
        let [leaf, others @ ..] = chain else { return Err(CertificateError::Missing) };
        if others.len() >= MOST {
            return Err(CertificateError::TooMany { have: chain.len(), maximum: MOST });
        }
        let peer = PeerCertificate::read(leaf)?;
        peer.check_usage()?;
        let leaf = CertificateDer::from_slice(leaf);
        let leaf = EndEntityCert::try_from(&leaf).map_err(|error| self.explain(error, &peer))?;
        let others: Vec<CertificateDer<'_>> =
            others.iter().map(|other| CertificateDer::from_slice(other)).collect();
        let lists: Vec<&CertRevocationList<'_>> = self.parsed.iter().collect();
        let revocation = match RevocationOptionsBuilder::new(&lists) {
            Ok(options) => {
                let (status, expiration) = match self.strict {
                    true => (UnknownStatusPolicy::Deny, ExpirationPolicy::Enforce),
                    false => (UnknownStatusPolicy::Allow, ExpirationPolicy::Ignore),
                };
                let options = options.with_depth(RevocationCheckDepth::Chain);
                Some(options.with_status_policy(status).with_expiration_policy(expiration).build())
            }
            Err(_) if self.strict => return Err(CertificateError::RevocationUnknown),
            Err(_) => None,
        };
        let time = UnixTime::since_unix_epoch(core::time::Duration::from_secs(unix_seconds));
        let algorithms = algorithm::ALL;
        leaf.verify_for_usage(algorithms, &self.anchors()?, &others, time, Ike, revocation, None)
            .map_err(|error| self.explain(error, &peer))?;
        Ok(peer)
    }

    /// DER names of the authorities: what a certificate request may name (RFC 2408 §3.10).
    pub fn authority_names(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.authorities.iter().filter_map(|authority| {
            x509_cert::Certificate::from_der(authority)
                .ok()?
                .tbs_certificate()
                .subject()
                .to_der()
                .ok()
        })
    }

    fn anchors(&self) -> Result<Vec<TrustAnchor<'static>>, CertificateError> {
        let anchor = |authority: &Vec<u8>| {
            let der = CertificateDer::from_slice(authority);
            let anchor = webpki::anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned());
            anchor.map_err(|_| CertificateError::MalformedAuthority)
        };
        self.authorities.iter().map(anchor).collect()
    }

    fn explain(&self, error: webpki::Error, peer: &PeerCertificate) -> CertificateError {
        let issuer = peer.certificate.tbs_certificate().issuer();
        match error {
            webpki::Error::UnknownIssuer
                if issuer == peer.certificate.tbs_certificate().subject() =>
            {
                CertificateError::SelfSigned
            }
            webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer(issuer.to_string()),
            other => CertificateError::from(other),
        }
    }
}

impl CertificateCredential {
    /// Our certificate and those between it and an authority, each in DER, ours first.
    ///
    /// # Errors
    /// Octets that are no certificate, a key that is another's, or one of a kind that IKEv1 has no
    /// method for.
    pub fn new(
        chain: Vec<Vec<u8>>,
        key: SigningKey,
        trust: Trust,
    ) -> Result<Self, CertificateError> {
        let own = PeerCertificate::read(chain.first().ok_or(CertificateError::Missing)?)?;
        own.check_usage()?;
        if own.key != key.public_key() {
            return Err(CertificateError::ForeignKey);
        }
        let authentication = method(key.kind())?;
        Ok(Self { chain, key, authentication, trust })
    }

    /// The method that goes with the key.
    pub fn authentication(&self) -> Authentication {
        self.authentication
    }

    /// Our identity unless another one is configured: `address`, which we speak from, if our
    /// certificate names it, otherwise its subject or, where that is empty, the first of its
    /// alternative names.
    pub fn identity(&self, address: IpAddr) -> Identity {
        let address = Identity::Address(address.to_canonical());
        let Some(own) = self.own().filter(|own| !own.proves(&address)) else { return address };
        match is_empty(&own.subject) {
            false => Identity::DistinguishedName(own.subject),
            true => own.first_name().unwrap_or(address),
        }
    }

    /// The subject of our certificate as people write it (RFC 4514).
    pub fn subject(&self) -> String {
        self.own().map(|own| own.subject()).unwrap_or_default()
    }

    /// Whether our certificate lets us use `identity`.
    pub fn proves(&self, identity: &Identity) -> bool {
        self.own().is_some_and(|own| own.proves(identity))
    }

    fn own(&self) -> Option<PeerCertificate> {
        PeerCertificate::read(self.chain.first()?).ok()
    }

    pub(crate) fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }
}

/// Whether nothing that a peer could notice is different.
impl PartialEq for CertificateCredential {
    fn eq(&self, other: &Self) -> bool {
        let trust = |trust: &Trust| (trust.authorities.clone(), trust.lists.clone(), trust.strict);
        self.chain == other.chain
            && self.key.public_key() == other.key.public_key()
            && trust(&self.trust) == trust(&other.trust)
    }
}

impl Eq for CertificateCredential {}

impl PeerCertificate {
    fn read(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > LONGEST {
            return Err(CertificateError::TooLong { have: der.len(), maximum: LONGEST });
        }
        let malformed = |_| CertificateError::Malformed;
        let certificate = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        let body = certificate.tbs_certificate();
        let subject = body.subject().to_der().map_err(malformed)?;
        let key = body.subject_public_key_info().to_der().map_err(malformed)?;
        let kinds = [KeyKind::Rsa, KeyKind::Ecdsa256, KeyKind::Ecdsa384];
        let key = kinds.iter().find_map(|kind| PublicKey::from_der(*kind, &key, false).ok());
        Ok(Self { key: key.ok_or(CertificateError::UnusableKey)?, certificate, subject })
    }

    /// The subject as people write it (RFC 4514).
    pub fn subject(&self) -> String {
        self.certificate.tbs_certificate().subject().to_string()
    }

    /// The key that has to prove that the peer is the owner.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The method that goes with the key.
    pub fn authentication(&self) -> Option<Authentication> {
        method(self.key.kind()).ok()
    }

    /// Whether its owner may use `identity`: its subject, or one of its alternative names of the
    /// same type (RFC 4945 §3.1).
    pub fn proves(&self, identity: &Identity) -> bool {
        let names = self.alternative_names();
        match identity {
            Identity::DistinguishedName(name) => *name == self.subject && !is_empty(name),
            Identity::Fqdn(name) => names.iter().any(|other| match other {
                GeneralName::DnsName(other) => other.as_str().eq_ignore_ascii_case(name),
                _ => false,
            }),
            Identity::UserFqdn(name) => names.iter().any(|other| match other {
                GeneralName::Rfc822Name(other) => same_mailbox(other.as_str(), name),
                _ => false,
            }),
            Identity::Address(address) => names.iter().any(|other| match (other, address) {
                (GeneralName::IpAddress(other), IpAddr::V4(address)) => {
                    other.as_bytes() == address.octets()
                }
                (GeneralName::IpAddress(other), IpAddr::V6(address)) => {
                    other.as_bytes() == address.octets()
                }
                _ => false,
            }),
            // Nothing in a certificate says such octets.
            Identity::KeyId(_) => false,
        }
    }

    fn alternative_names(&self) -> Vec<GeneralName> {
        match self.certificate.tbs_certificate().get_extension::<SubjectAltName>() {
            Ok(Some((_, names))) => names.0,
            Ok(None) | Err(_) => Vec::new(),
        }
    }

    /// The first alternative name that is an identity of phase 1.
    fn first_name(&self) -> Option<Identity> {
        self.alternative_names().iter().find_map(|name| match name {
            GeneralName::DnsName(name) => Some(Identity::Fqdn(name.as_str().to_owned())),
            GeneralName::Rfc822Name(name) => Some(Identity::UserFqdn(name.as_str().to_owned())),
            _ => None,
        })
    }

    /// Signatures of phase 1 need the bit digitalSignature or nonRepudiation, if the certificate
    /// says what its key is for at all (RFC 4945 §5.1.3.2).
    fn check_usage(&self) -> Result<(), CertificateError> {
        let usage = self.certificate.tbs_certificate().get_extension::<KeyUsage>();
        match usage.map_err(|_| CertificateError::Malformed)? {
            Some((_, KeyUsage(usage)))
                if !usage.contains(KeyUsages::DigitalSignature)
                    && !usage.contains(KeyUsages::NonRepudiation) =>
            {
                Err(CertificateError::KeyUsage)
            }
            _ => Ok(()),
        }
    }
}

fn method(kind: KeyKind) -> Result<Authentication, CertificateError> {
    match kind {
        KeyKind::Rsa => Ok(Authentication::RsaSignature),
        KeyKind::Ecdsa256 => Ok(Authentication::Ecdsa256),
        KeyKind::Ecdsa384 => Ok(Authentication::Ecdsa384),
        KeyKind::Ecdsa521 => Err(CertificateError::UnusableKey),
    }
}

/// A name without any part.
fn is_empty(name: &[u8]) -> bool {
    Name::from_der(name).is_ok_and(|name| name.is_empty())
}

/// The part before the @ is the host's own business, the host is not (RFC 5280 §7.5).
fn same_mailbox(one: &str, other: &str) -> bool {
    match (one.rsplit_once('@'), other.rsplit_once('@')) {
        (Some((one, host)), Some((other, other_host))) => {
            one == other && host.eq_ignore_ascii_case(other_host)
        }
        _ => one == other,
    }
}

/// What an extended key usage, if there is one, may say: IKE, anything, or a use of TLS, which most
/// certificates of gateways have (RFC 4945 §5.1.3.12).
struct Ike;

impl webpki::ExtendedKeyUsageValidator for Ike {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        const KEY_PURPOSE: [usize; 8] = [1, 3, 6, 1, 5, 5, 7, 3];
        const ANY: [usize; 5] = [2, 5, 29, 37, 0];
        // The same as ipsecIKE below, as DER has it.
        const IPSEC_IKE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 17];
        let fits = |usage: &KeyPurposeId<'_>| {
            let oid = usage.to_decoded_oid();
            let last = oid.strip_prefix(&KEY_PURPOSE[..]);
            // serverAuth, clientAuth, ipsecEndSystem, ipsecTunnel, ipsecUser, ipsecIKE.
            oid == ANY || matches!(last, Some([1 | 2 | 5 | 6 | 7 | 17]))
        };
        let (mut some, mut fitting) = (false, false);
        for usage in usages {
            some = true;
            fitting |= fits(&usage?);
        }
        match some && !fitting {
            true => Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext {
                required: webpki::KeyUsage::required_if_present(IPSEC_IKE),
                present: Vec::new(),
            })),
            false => Ok(()),
        }
    }
}

/// Octets of one certificate: several times what any real one has.
const LONGEST: usize = 16_384;

/// Certificates that a peer may send.
const MOST: usize = 8;
