//! The `[[certificate]]` tables of both daemons: what proves our identity without a key shared with
//! each peer, and whom we believe (RFC 2409 §5.1, RFC 4945).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ike::certificate::{CertificateCredential, CertificateError, Trust};
use ike::config::Credential;
use nix::libc;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use super::report::Report;
use super::setting::{is_named, key_source, list, list_or, place, required, value};
use super::table::{Located, Place};
use crate::options;
use crate::secrets::{SecretSource, read_private_key};

/// Longest file with certificates in octets.
const LONGEST: u64 = 256 * 1024;
/// Longest file with revocation lists.
const LONGEST_LIST: u64 = 8 * 1024 * 1024;

options! {
    /// A certificate that proves our identity in phase 1, and the authorities whose certificates
    /// prove the peers'. Files are PEM or DER and are read again with every reload. gdoictl and the
    /// log tell when a certificate ends soon or a revocation list is old.
    pub struct CertificateTable {
        pub place: Option<Place> = place();
        /// The name that other tables refer to.
        pub name: Option<Located<String>> = required("name").example("\"site\"");
        /// Our certificate, and behind it those between it and the authority.
        pub chain: Option<Located<PathBuf>> =
            required("chain-file").example("\"/etc/pki/gdoi/site.crt\"");
        /// Its private key, RSA of 2048 bits or more, or ECDSA P-256 or P-384: a file in PKCS #8
        /// form, without a passphrase, readable by its owner only.
        pub private_key: Option<Located<SecretSource>> =
            key_source("private-key-file", "private-key-credential")
                .example("\"/etc/pki/gdoi/site.key\"");
        /// Whether a key was named, right or wrong.
        pub names_key: bool = is_named(&["private-key-file", "private-key-credential"]);
        /// Certificates of the authorities that are trusted to name peers.
        pub authorities: Vec<Located<PathBuf>> =
            list("authority-files").example("[\"/etc/pki/gdoi/ca.crt\"]");
        /// Their revocation lists. Whoever stands in one is refused, also in an old one.
        pub lists: Vec<Located<PathBuf>> = list_or("revocation-list-files", [])
            .may_be_empty().example("[\"/etc/pki/gdoi/ca.crl\"]");
        /// Refuse peers of whom no revocation list in date says that they are not revoked.
        pub strict: bool = value("strict-revocation", false);
    }
}

/// Reads the files of a table; `None` when something is wrong, which is then noted.
pub fn read_certificate(
    table: &CertificateTable,
    report: &Report,
    unix_seconds: u64,
) -> Option<Arc<CertificateCredential>> {
    let chain = table.chain.as_ref().and_then(|path| {
        certificates(path, "chain-file", report).filter(|chain| !chain.is_empty())
    });
    if !table.names_key {
        let remedy =
            "add private-key-file = \"/path/to/file\" or private-key-credential = \"name\"";
        report.error(table.place.clone(), "certificate: no private key", remedy);
    }
    let key = table.private_key.as_ref().and_then(|source| {
        read_private_key(&source.value)
            .map_err(|error| {
                let line = format!("certificate: private key: {error}");
                let (message, remedy) = line.rsplit_once("; ").unwrap_or((&line, "correct it"));
                report.error(Some(source.place.clone()), message, remedy);
            })
            .ok()
    });
    // `None` where a file is wrong.
    let authorities: Option<Vec<_>> = table
        .authorities
        .iter()
        .map(|path| certificates(path, "authority-files", report))
        .collect();
    let lists: Option<Vec<_>> =
        table.lists.iter().map(|path| revocation_lists(path, report)).collect();
    let (chain, key) = (chain?, key?);
    let (authorities, lists) = (authorities?.concat(), lists?.concat());
    if authorities.is_empty() {
        return None;
    }
    let place_of = |error: &CertificateError| match error {
        CertificateError::ForeignKey => {
            table.private_key.as_ref().map(|source| source.place.clone())
        }
        CertificateError::MalformedList => table.lists.first().map(|path| path.place.clone()),
        CertificateError::MalformedAuthority | CertificateError::NoAuthority => {
            table.authorities.first().map(|path| path.place.clone())
        }
        _ => table.chain.as_ref().map(|path| path.place.clone()),
    };
    let credential = Trust::new(authorities, lists, table.strict)
        .and_then(|trust| CertificateCredential::new(chain, key, trust))
        .map_err(|error| {
            report.error(place_of(&error), format!("certificate: {error}"), error.remedy());
        })
        .ok()?;
    for problem in credential.problems(unix_seconds) {
        let line = problem.to_string();
        let (message, remedy) = match line.rsplit_once("; ") {
            Some(parts) => parts,
            None => line.rsplit_once(": ").unwrap_or((&line, "renew it")),
        };
        report.warning(table.place.clone(), format!("certificate: {message}"), remedy);
    }
    Some(Arc::new(credential))
}

/// Certificates by name, for the tables that refer to them. One that is wrong is there without a
/// value.
#[derive(Debug, Default)]
pub struct Certificates {
    by_name: BTreeMap<String, Option<Credential>>,
}

impl Certificates {
    /// Takes `tables`, whose files `read` reads.
    pub fn new(
        tables: &[CertificateTable],
        report: &Report,
        read: impl Fn(&CertificateTable, &Report) -> Option<Credential>,
    ) -> Self {
        let mut by_name = BTreeMap::new();
        for table in tables {
            let credential = read(table, report);
            let Some(name) = &table.name else { continue };
            if by_name.insert(name.value.clone(), credential).is_some() {
                let message = format!("certificate.name: there is another \"{}\"", name.value);
                report.error(Some(name.place.clone()), message, "give each its own name");
            }
        }
        Self { by_name }
    }

    /// The one that `named`, an option of the path `key`, means; `None` when there is none, which is
    /// then noted, or when it is wrong.
    pub fn find(&self, named: &Located<String>, key: &str, report: &Report) -> Option<Credential> {
        let Some(credential) = self.by_name.get(&named.value) else {
            let message = format!("{key}: there is no certificate \"{}\"", named.value);
            let known: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
            let remedy = match known.is_empty() {
                true => String::from("add a [[certificate]] with this name"),
                false => format!("known are {}", known.join(", ")),
            };
            report.error(Some(named.place.clone()), message, remedy);
            return None;
        };
        credential.clone()
    }

    /// What is wrong, or soon will be, with each of them, by its name.
    pub fn of(&self) -> impl Iterator<Item = (&str, &Arc<CertificateCredential>)> {
        self.by_name.iter().filter_map(|(name, credential)| match credential {
            Some(Credential::Certificate(credential)) => Some((name.as_str(), credential)),
            _ => None,
        })
    }
}

/// A certificate by the name that it has in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCertificate {
    pub name: String,
    pub credential: Arc<CertificateCredential>,
}

impl NamedCertificate {
    /// One line for each thing that is wrong with it, or soon will be.
    pub fn problems(&self, unix_seconds: u64) -> impl Iterator<Item = String> {
        let problems = self.credential.problems(unix_seconds).into_iter();
        problems.map(|problem| format!("certificate {}: {problem}", self.name))
    }
}

impl From<&Certificates> for Vec<NamedCertificate> {
    fn from(all: &Certificates) -> Self {
        let named = all.of().map(|(name, credential)| NamedCertificate {
            name: name.to_owned(),
            credential: Arc::clone(credential),
        });
        named.collect()
    }
}

/// The certificates in a file, at least one; `None` is noted.
fn certificates(path: &Located<PathBuf>, key: &str, report: &Report) -> Option<Vec<Vec<u8>>> {
    let read = |octets: &[u8]| sections::<CertificateDer<'_>>(octets, |one| one.as_ref().to_vec());
    file(path, key, report, LONGEST, "certificate", "openssl x509", read)
}

fn revocation_lists(path: &Located<PathBuf>, report: &Report) -> Option<Vec<Vec<u8>>> {
    let read = |octets: &[u8]| {
        sections::<CertificateRevocationListDer<'_>>(octets, |one| one.as_ref().to_vec())
    };
    let key = "revocation-list-files";
    file(path, key, report, LONGEST_LIST, "revocation list", "openssl crl", read)
}

fn file(
    path: &Located<PathBuf>,
    key: &str,
    report: &Report,
    longest: u64,
    what: &str,
    tool: &str,
    read: impl Fn(&[u8]) -> Result<Vec<Vec<u8>>, pem::Error>,
) -> Option<Vec<Vec<u8>>> {
    let error = |message: &dyn Display, remedy: &str| {
        let message = format!("certificate.{key}: {}: {message}", path.value.display());
        report.error(Some(path.place.clone()), message, remedy);
    };
    let octets = match octets_of(&path.value, longest) {
        Ok(octets) => octets,
        Err(failure) => {
            let remedy = match failure.kind() {
                io::ErrorKind::NotFound => "create it, or correct the path",
                io::ErrorKind::PermissionDenied => "let the daemon's user read it",
                io::ErrorKind::FileTooLarge => "name a file with nothing else in it",
                _ => "name a regular file",
            };
            error(&failure, remedy);
            return None;
        }
    };
    let remedy = format!("write it as `{tool} -in FILE` does");
    // What is not PEM may be DER; then the octets are judged as a whole.
    if !octets.windows(11).any(|window| window == b"-----BEGIN ") {
        if octets.first() == Some(&0x30) {
            return Some(vec![octets]);
        }
        error(&format!("there is no {what} in it"), &remedy);
        return None;
    }
    match read(&octets) {
        Ok(found) if !found.is_empty() => Some(found),
        Ok(_) => {
            error(&format!("there is no {what} in it"), &remedy);
            None
        }
        Err(damage) => {
            error(&format!("damaged PEM: {damage}"), "restore the file");
            None
        }
    }
}

fn sections<T: PemObject>(
    octets: &[u8],
    take: impl Fn(&T) -> Vec<u8>,
) -> Result<Vec<Vec<u8>>, pem::Error> {
    T::pem_slice_iter(octets).map(|one| one.map(|one| take(&one))).collect()
}

fn octets_of(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    // Without O_NONBLOCK, opening a FIFO blocks until somebody writes.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut octets = Vec::new();
    file.take(longest.saturating_add(1)).read_to_end(&mut octets)?;
    if u64::try_from(octets.len()).is_ok_and(|length| length > longest) {
        let message = format!("it has more than {longest} octets");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(octets)
}

#[cfg(test)]
mod tests;
