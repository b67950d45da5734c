//! Files of every fault, and the one line that each is told by.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use ike::certificate::testing::{Authority, Contents, DAY, NOW, key, key_encipherment};
use ike::crypto::{KeyKind, SigningKey};

use super::super::parse;
use super::super::setting::tables;
use super::*;

struct Files {
    directory: tempfile::TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let files =
            Self { directory: tempfile::tempdir().unwrap(), authority: authority("CN=Root") };
        let key = key(KeyKind::Ecdsa256, 9);
        files.write("host.crt", pem("CERTIFICATE", &files.authority.certify(host(), &key)));
        files.write_key(&key);
        files.write("ca.crt", pem("CERTIFICATE", &files.authority.der()));
        files.write("ca.crl", pem("X509 CRL", &files.authority.revoke(&[], NOW + 90 * DAY)));
        files
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }

    fn write_key(&self, key: &SigningKey) {
        self.write("host.key", pem("PRIVATE KEY", key.to_pkcs8_der().unwrap().expose()));
    }

    /// What is told of the files, with `more` lines in the table.
    fn told(&self, more: &str) -> String {
        let at = |name: &str| self.directory.path().join(name).display().to_string();
        let text = format!(
            "[[certificate]]\nname = \"site\"\nchain-file = \"{}\"\nprivate-key-file = \"{}\"\n\
             authority-files = [\"{}\"]\nrevocation-list-files = [\"{}\"]\n{more}\n",
            at("host.crt"),
            at("host.key"),
            at("ca.crt"),
            at("ca.crl"),
        );
        let loaded = parse("f", &text, |mut root| {
            let report = root.report();
            let typed: Vec<CertificateTable> = tables("certificate").read(&mut root);
            root.finish();
            let read = |table: &CertificateTable, report: &Report| {
                read_certificate(table, report, NOW).map(Credential::Certificate)
            };
            Certificates::new(&typed, report, read).of().next().map(drop)
        });
        let told = match loaded {
            Ok(loaded) => loaded.warnings.iter().map(|entry| format!("{entry}\n")).collect(),
            Err(report) => report.to_string(),
        };
        told.replace(&self.directory.path().display().to_string(), "")
    }

    fn is_told(&self, more: &str, expected: &str) {
        let told = self.told(more);
        let first = told.lines().next().unwrap_or_default();
        assert_eq!(first, expected, "{told}");
    }
}

fn authority(name: &str) -> Authority {
    Authority::with(
        1,
        Contents { valid: (NOW - DAY, NOW + 999 * DAY), ..Contents::authority(name) },
    )
}

fn host() -> Contents {
    Contents { valid: (NOW - DAY, NOW + 365 * DAY), ..Contents::new("CN=m1,O=Example") }
}

fn pem(label: &str, der: &[u8]) -> String {
    pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der).unwrap()
}

#[test]
fn files_in_order_are_read() {
    let files = Files::new();
    assert_eq!(files.told(""), "");
    assert_eq!(files.told("strict-revocation = true"), "");
    // In DER, with words around, with another certificate behind.
    let key = key(KeyKind::Ecdsa256, 9);
    files.write("host.crt", files.authority.certify(host(), &key));
    files.write("host.key", key.to_pkcs8_der().unwrap().expose());
    let both =
        pem("CERTIFICATE", &files.authority.der()) + &pem("CERTIFICATE", &files.authority.der());
    files.write("ca.crt", format!("Certificate:\n  of ours\n{both}"));
    assert_eq!(files.told(""), "");
}

#[test]
fn each_fault_of_a_certificate_is_one_line_with_its_place() {
    let files = Files::new();
    files.write("host.crt", "");
    files.is_told("", "f:3:14: error: certificate.chain-file: /host.crt: there is no certificate in it; write it as `openssl x509 -in FILE` does");
    files.write("host.crt", [0x30, 1]);
    files.is_told("", "f:3:14: error: certificate: the octets are no X.509 certificate in DER form; write it as PEM, as `openssl x509 -in FILE` does");
    files.write("host.crt", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    assert!(
        files.told("").starts_with("f:3:14: error: certificate.chain-file: /host.crt: damaged PEM")
    );
    files.write("host.crt", vec![0x30; 300_000]);
    files.is_told("", "f:3:14: error: certificate.chain-file: /host.crt: it has more than 262144 octets; name a file with nothing else in it");
    fs::remove_file(files.directory.path().join("host.crt")).unwrap();
    assert!(files.told("").contains(
        "/host.crt: No such file or directory (os error 2); create it, or correct the path"
    ));
    let wrong = |contents: Contents| {
        let key = key(KeyKind::Ecdsa256, 9);
        files.write("host.crt", pem("CERTIFICATE", &files.authority.certify(contents, &key)));
        files.told("")
    };
    let ended = wrong(Contents { valid: (NOW - 2 * DAY, NOW - DAY), ..host() });
    assert!(ended.starts_with("line 1, column 1: certificate: the certificate of CN=m1,O=Example ended at 2025-12-31T00:00:00Z: peers refuse it; renew it and reload"), "{ended}");
    let soon = wrong(Contents { valid: (NOW - 99 * DAY, NOW + DAY), ..host() });
    assert!(soon.contains("certificate: the certificate of CN=m1,O=Example ends at 2026-01-02T00:00:00Z; renew it and reload"), "{soon}");
    let usage = Some(key_encipherment());
    let usage = wrong(Contents { usage, ..host() });
    assert!(usage.contains("error: certificate: the certificate's key is not for signatures (key usage); issue it with the key usage digitalSignature"), "{usage}");
}

#[test]
fn each_fault_of_a_key_is_one_line_with_its_place() {
    let files = Files::new();
    files.write_key(&key(KeyKind::Ecdsa256, 10));
    files.is_told("", "f:4:20: error: certificate: the private key does not belong to the certificate; name the key that the certificate was requested with");
    files.write("host.key", pem("ENCRYPTED PRIVATE KEY", &[0x30, 0]));
    assert!(
        files
            .told("")
            .contains("certificate: private key: file /host.key is encrypted with a passphrase")
    );
    files.write("host.key", pem("EC PRIVATE KEY", &[0x30, 0]));
    assert!(
        files.told("").contains("is no RSA or ECDSA private key in PKCS #8 form; convert it with")
    );
    files.write("host.key", vec![b'a'; 20_000]);
    assert!(files.told("").contains("holds more than 16384 octets"));
    fs::set_permissions(files.directory.path().join("host.key"), Permissions::from_mode(0o644))
        .unwrap();
    assert!(files.told("").contains("is readable by everybody; run `chmod 600"));
}

#[test]
fn each_fault_of_the_authorities_is_one_line_with_its_place() {
    let files = Files::new();
    files.write("ca.crl", pem("X509 CRL", &[0x30, 0]));
    files.is_told("", "f:6:26: error: certificate: a revocation list is no X.509 CRL in DER form, or of a kind that is not read; write it as PEM, as `openssl crl -in FILE` does");
    files.write("ca.crl", pem("X509 CRL", &files.authority.revoke(&[], NOW - DAY)));
    assert!(files.told("").contains("certificate: the revocation list of CN=Root ended at 2025-12-31T00:00:00Z: who was revoked since is believed; fetch the present one and reload"), "{}", files.told(""));
    files.write("ca.crt", pem("X509 CRL", &[0x30, 0]));
    assert!(
        files
            .told("")
            .contains("certificate.authority-files: /ca.crt: there is no certificate in it")
    );
    files.write("ca.crt", pem("CERTIFICATE", &[0x30, 0]));
    assert!(files.told("").contains("a certificate of the authorities is no X.509 certificate"));
}
