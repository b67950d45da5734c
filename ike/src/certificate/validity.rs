//! What of our own certificates ends, or has ended: an operator should know before peers do.

use core::fmt;
use core::time::Duration;

use x509_cert::crl::CertificateList;
use x509_cert::der::{DateTime, Decode as _};

use super::{CertificateCredential, Trust};

/// What is wrong, or soon will be, with our certificates or what we believe others by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CertificateProblem {
    Ended {
        subject: String,
        not_after: u64,
    },
    EndsSoon {
        subject: String,
        not_after: u64,
    },
    NotYetValid {
        subject: String,
        not_before: u64,
    },
    /// A revocation list that a newer one should have replaced.
    OldList {
        issuer: String,
        next_update: u64,
        /// Whether peers are refused for it.
        strict: bool,
    },
    /// Lists are mandatory and none is there.
    NoList,
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { subject, not_after } => write!(
                f,
                "the certificate of {subject} ended at {}: peers refuse it; renew it and reload",
                date(*not_after)
            ),
            Self::EndsSoon { subject, not_after } => write!(
                f,
                "the certificate of {subject} ends at {}: renew it and reload",
                date(*not_after)
            ),
            Self::NotYetValid { subject, not_before } => write!(
                f,
                "the certificate of {subject} begins at {}: set the clock, or wait",
                date(*not_before)
            ),
            Self::OldList { issuer, next_update, strict } => write!(
                f,
                "the revocation list of {issuer} ended at {}: {}; fetch the present one and reload",
                date(*next_update),
                match strict {
                    true => "its peers are refused",
                    false => "who was revoked since is believed",
                }
            ),
            Self::NoList => f.write_str(
                "revocation lists are mandatory and there is none: all peers are refused; name the \
                 lists of the authorities, or turn strict off",
            ),
        }
    }
}

impl CertificateCredential {
    /// What is wrong, or soon will be, at `unix_seconds`.
    pub fn problems(&self, unix_seconds: u64) -> Vec<CertificateProblem> {
        let own = self.chain.iter().filter_map(|der| of_certificate(der, unix_seconds));
        let mut problems: Vec<CertificateProblem> = own.collect();
        problems.extend(self.trust.problems(unix_seconds));
        problems
    }
}

impl Trust {
    fn problems(&self, unix_seconds: u64) -> Vec<CertificateProblem> {
        let authorities = self.authorities.iter();
        let mut problems: Vec<CertificateProblem> =
            authorities.filter_map(|der| of_certificate(der, unix_seconds)).collect();
        for list in self.lists.iter().filter_map(|der| <CertificateList>::from_der(der).ok()) {
            let next_update = list.tbs_cert_list.next_update;
            let next_update = next_update.map(|time| time.to_unix_duration().as_secs());
            if let Some(next_update) = next_update.filter(|end| *end < unix_seconds) {
                let (issuer, strict) = (list.tbs_cert_list.issuer.to_string(), self.strict);
                problems.push(CertificateProblem::OldList { issuer, next_update, strict });
            }
        }
        if self.strict && self.lists.is_empty() {
            problems.push(CertificateProblem::NoList);
        }
        problems
    }
}

fn of_certificate(der: &[u8], unix_seconds: u64) -> Option<CertificateProblem> {
    let certificate = x509_cert::Certificate::from_der(der).ok()?;
    let body = certificate.tbs_certificate();
    let subject = body.subject().to_string();
    let not_before = body.validity().not_before.to_unix_duration().as_secs();
    let not_after = body.validity().not_after.to_unix_duration().as_secs();
    let soon = SOON.min(not_after.saturating_sub(not_before) / 4);
    if unix_seconds > not_after {
        Some(CertificateProblem::Ended { subject, not_after })
    } else if unix_seconds < not_before {
        Some(CertificateProblem::NotYetValid { subject, not_before })
    } else if not_after - unix_seconds < soon {
        Some(CertificateProblem::EndsSoon { subject, not_after })
    } else {
        None
    }
}

/// As people write it, in UTC.
pub(super) fn date(unix_seconds: u64) -> String {
    match DateTime::from_unix_duration(Duration::from_secs(unix_seconds)) {
        Ok(date) => date.to_string(),
        Err(_) => format!("{unix_seconds} seconds since 1970"),
    }
}

/// How long before its end a certificate is complained about, or a quarter of its life.
const SOON: u64 = 21 * 86_400;

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, Contents, DAY, NOW, key};
    use super::*;
    use crate::crypto::KeyKind;

    fn problems(contents: Contents, lists: Vec<Vec<u8>>, strict: bool) -> Vec<String> {
        let authority = Authority::with(
            1,
            Contents { valid: (NOW - DAY, NOW + 9000 * DAY), ..Contents::authority("CN=Root") },
        );
        let key = key(KeyKind::Ecdsa256, 9);
        let chain = vec![authority.certify(contents, &key)];
        let trust = Trust::new(vec![authority.der()], lists, strict).unwrap();
        let credential = CertificateCredential::new(chain, key, trust).unwrap();
        credential.problems(NOW).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_ends_is_told_before_it_ends() {
        let host =
            |from: u64, to: u64| Contents { valid: (from, to), ..Contents::new("CN=m1,O=Example") };
        assert!(problems(host(NOW - DAY, NOW + 365 * DAY), vec![], false).is_empty());
        assert_eq!(
            problems(host(NOW - 365 * DAY, NOW + 20 * DAY), vec![], false),
            [
                "the certificate of CN=m1,O=Example ends at 2026-01-21T00:00:00Z: renew it and reload"
            ]
        );
        // One of a day is not always about to end.
        assert!(problems(host(NOW - DAY / 2, NOW + DAY / 2), vec![], false).is_empty());
        assert_eq!(
            problems(host(NOW - 2 * DAY, NOW - DAY), vec![], false),
            ["the certificate of CN=m1,O=Example ended at 2025-12-31T00:00:00Z: peers refuse it; \
              renew it and reload"]
        );
        assert!(
            problems(host(NOW + DAY, NOW + 2 * DAY), vec![], false)[0].contains("set the clock")
        );
    }

    #[test]
    fn old_and_missing_lists_are_told() {
        let authority = Authority::with(1, Contents::authority("CN=Root"));
        let host =
            || Contents { valid: (NOW - DAY, NOW + 365 * DAY), ..Contents::new("CN=m1,O=Example") };
        assert!(problems(host(), vec![authority.revoke(&[], NOW + DAY)], true).is_empty());
        let old = || vec![authority.revoke(&[], NOW - 1)];
        assert!(
            problems(host(), old(), false)[0].contains(
                "CN=Root ended at 2025-12-31T23:59:59Z: who was revoked since is believed"
            )
        );
        assert!(problems(host(), old(), true)[0].contains("its peers are refused"));
        assert!(problems(host(), vec![], true)[0].contains("there is none"));
    }
}
