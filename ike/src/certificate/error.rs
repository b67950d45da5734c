//! Why a certificate is not to be believed: for each reason what an operator can do.

use super::validity::date;

/// Why a certificate is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    #[error("no certificate was sent; the peer must send its own")]
    Missing,
    #[error("{have} certificates were sent, at most {maximum} are read")]
    TooMany { have: usize, maximum: usize },
    #[error("a certificate of {have} octets is too long, at most {maximum} are read")]
    TooLong { have: usize, maximum: usize },
    #[error("the octets are no X.509 certificate in DER form")]
    Malformed,
    #[error("a certificate of the authorities is no X.509 certificate in DER form")]
    MalformedAuthority,
    #[error("a revocation list is no X.509 CRL in DER form, or of a kind that is not read")]
    MalformedList,
    #[error("no authority is trusted: name at least one CA certificate")]
    NoAuthority,
    #[error("the certificate's key is neither RSA of 2048 to 8192 bits nor ECDSA P-256 or P-384")]
    UnusableKey,
    #[error("the private key does not belong to the certificate")]
    ForeignKey,
    #[error("the certificate ended at {} and it is {}", date(*.not_after), date(*.time))]
    Expired { time: u64, not_after: u64 },
    #[error("the certificate begins at {} and it is {}", date(*.not_before), date(*.time))]
    NotYetValid { time: u64, not_before: u64 },
    #[error("the certificate is signed by its own key and by none of the trusted authorities")]
    SelfSigned,
    #[error("none of the trusted authorities has issued the certificate; its issuer is {0}")]
    UnknownIssuer(String),
    #[error("the certificate was revoked by its issuer")]
    Revoked,
    #[error("no revocation list says that the certificate is not revoked, and lists are mandatory")]
    RevocationUnknown,
    #[error("the revocation list ended at {} and it is {}", date(*.next_update), date(*.time))]
    ListExpired { time: u64, next_update: u64 },
    #[error("the certificate's key is not for signatures (key usage)")]
    KeyUsage,
    #[error("the certificate is not for IKE (extended key usage)")]
    ExtendedKeyUsage,
    #[error("the certificate is one of an authority and not of a host")]
    Authority,
    #[error("a certificate of the chain may not issue others")]
    NoAuthorityInChain,
    #[error("a signature in the chain is wrong")]
    Signature,
    #[error("a signature in the chain is of a kind that is not accepted, SHA-1 for example")]
    Algorithm,
    #[error("the certificate's key is of another kind than the negotiated method")]
    Method,
    #[error("the certificate of {subject} does not name the identity {identity}")]
    Identity { subject: String, identity: crate::config::Identity },
    /// What the library says, where it says more than the cases above.
    #[error("the chain of certificates is not accepted: {0}")]
    Chain(String),
}

impl CertificateError {
    /// What an operator can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Missing => "have the peer send its certificate",
            Self::TooMany { .. } => "send the certificate and those between it and the authority",
            Self::TooLong { .. } => "issue a certificate with fewer names",
            Self::Malformed | Self::MalformedAuthority => {
                "write it as PEM, as `openssl x509 -in FILE` does"
            }
            Self::MalformedList => "write it as PEM, as `openssl crl -in FILE` does",
            Self::NoAuthority => "name the file of the authority's certificate",
            Self::UnusableKey => "issue a certificate for an RSA 2048 or ECDSA P-256 key",
            Self::ForeignKey => "name the key that the certificate was requested with",
            Self::Expired { .. } => "renew the certificate, or set the clock",
            Self::NotYetValid { .. } => "set the clock, or wait",
            Self::SelfSigned | Self::UnknownIssuer(_) => {
                "have an authority of ours issue it, or trust its issuer"
            }
            Self::Revoked => "issue a new certificate if the peer is to be believed",
            Self::RevocationUnknown => {
                "name the revocation lists of all authorities, or turn strict off"
            }
            Self::ListExpired { .. } => "fetch the present revocation list, or set the clock",
            Self::KeyUsage => "issue it with the key usage digitalSignature",
            Self::ExtendedKeyUsage => "issue it with the extended key usage ipsecIKE, or without",
            Self::Authority => "issue one for the host itself (CA:FALSE)",
            Self::NoAuthorityInChain => "issue it by an authority (CA:TRUE)",
            Self::Signature => "check that chain and authority belong together",
            Self::Algorithm => "issue the chain with SHA-256 or stronger",
            Self::Method => "let the peer offer the method of its key",
            Self::Identity { .. } => {
                "add the identity to the certificate's alternative names, or use one that it has"
            }
            Self::Chain(_) => "check the chain with `openssl verify`",
        }
    }
}

impl From<webpki::Error> for CertificateError {
    fn from(error: webpki::Error) -> Self {
        use webpki::Error;
        match error {
            Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => Self::Malformed,
            Error::CertExpired { time, not_after } => {
                Self::Expired { time: time.as_secs(), not_after: not_after.as_secs() }
            }
            Error::CertNotValidYet { time, not_before } => {
                Self::NotYetValid { time: time.as_secs(), not_before: not_before.as_secs() }
            }
            Error::CertRevoked => Self::Revoked,
            Error::CrlExpired { time, next_update } => {
                Self::ListExpired { time: time.as_secs(), next_update: next_update.as_secs() }
            }
            Error::UnknownRevocationStatus => Self::RevocationUnknown,
            Error::RequiredEkuNotFoundContext(_) => Self::ExtendedKeyUsage,
            Error::CaUsedAsEndEntity => Self::Authority,
            Error::EndEntityUsedAsCa => Self::NoAuthorityInChain,
            Error::InvalidSignatureForPublicKey => Self::Signature,
            Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::Algorithm,
            other => Self::Chain(other.to_string()),
        }
    }
}
