//! What proves identities to key servers and to the peers of tunnels: pre-shared keys and
//! certificates.

use std::sync::Arc;

use daemon::clock;
use daemon::configuration::{
    CertificateTable, Located, Place, Report, check_length, read_certificate,
};
use daemon::secrets::SecretSource;
use ike::config::{Credential, Identity};
use ike::crypto::Secret;

use super::Check;

/// The keys that a table may name.
pub(super) struct Named<'t> {
    pub(super) pre_shared_key: &'t Option<Located<SecretSource>>,
    pub(super) certificate: &'t Option<Located<String>>,
    /// Path of the certificate's option.
    pub(super) path: &'static str,
}

impl Check<'_> {
    /// What a table names; `None` when that is wrong, which is then noted, or nothing.
    pub(super) fn credential(&mut self, named: &Named<'_>) -> Option<Credential> {
        match (named.pre_shared_key, named.certificate) {
            (Some(_), Some(certificate)) => {
                let message = format!("{}: a pre-shared key is named as well", named.path);
                self.error(&certificate.place, message, "keep one of them");
                None
            }
            (Some(source), None) => self.secret(source).map(Credential::PreSharedKey),
            (None, Some(certificate)) => {
                self.certificates.find(certificate, named.path, self.report)
            }
            (None, None) => None,
        }
    }

    /// The certificate must name the identity that is to be proved by it, and without one nobody
    /// can prove a pattern.
    pub(super) fn identities(
        &self,
        credential: Option<&Credential>,
        ours: Option<&Located<Identity>>,
        theirs: Option<&Located<Identity>>,
        path: &str,
    ) {
        if let (Some(Credential::Certificate(own)), Some(identity)) = (credential, ours)
            && !own.proves(&identity.value)
        {
            let message = format!(
                "{path}: the certificate of {} does not name {}",
                own.subject(),
                identity.value
            );
            let remedy = "remove the identity, or issue a certificate with it";
            self.error(&identity.place, message, remedy);
        }
        if let (Some(Credential::PreSharedKey(_)), Some(identity)) = (credential, theirs)
            && matches!(identity.value, Identity::DistinguishedName(_))
        {
            let message = format!("{path}: who has a pre-shared key proves no distinguished name");
            self.error(&identity.place, message, "name a certificate, or another identity");
        } else if let (Some(Credential::PreSharedKey(_)), Some(identity)) = (credential, theirs)
            && identity.value.is_pattern()
        {
            let message = format!("{path}: {} means several, and the key is one", identity.value);
            self.error(&identity.place, message, "name a certificate, or one identity");
        }
    }

    pub(super) fn secret(&mut self, source: &Located<SecretSource>) -> Option<Arc<Secret>> {
        if let Some(known) = self.secrets.get(&source.value) {
            return known.clone();
        }
        let secret = match (self.machine.secret)(&source.value) {
            Ok(secret) => {
                check_length(self.report, source.place.clone(), &secret);
                Some(Arc::new(secret))
            }
            Err(error) => {
                // The reader's one line holds the remedy behind its last semicolon.
                let line = format!("pre-shared key: {error}");
                let (message, remedy) = line.rsplit_once("; ").unwrap_or((&line, "correct it"));
                self.error(&source.place, message, remedy);
                None
            }
        };
        self.secrets.insert(source.value.clone(), secret.clone());
        secret
    }

    pub(super) fn no_credential(&self, place: Option<Place>, message: String) {
        let remedy = "write pre-shared-key-file = \"..\" with the path of its file, or certificate = \
                      \"..\" with the name of a [[certificate]]";
        self.report.error(place, message, remedy);
    }
}

/// Reads a certificate of the machine that this runs on.
pub(super) fn read(table: &CertificateTable, report: &Report) -> Option<Credential> {
    read_certificate(table, report, clock::wall().as_secs()).map(Credential::Certificate)
}

/// A credential that proves nothing, in the place of a certificate that is not read.
pub(super) fn placeholder(_: &CertificateTable, _: &Report) -> Option<Credential> {
    Some(Credential::PreSharedKey(Arc::new(Secret::new(vec![0; 32]))))
}
