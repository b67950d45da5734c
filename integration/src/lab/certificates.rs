//! An authority for the lab, with certificates and keys in files. Everything is made in each run.

use crate::lab::daemons::write_secret;
use anyhow::{Context, Result, bail};
use ike::certificate::testing::{Authority, Contents};
use ike::crypto::{KeyKind, SeededRng, SigningKey};
use pem_rfc7468::LineEnding;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// A folder with an authority's certificate, `ca.crt`, and what it issued.
pub struct Certificates {
    directory: PathBuf,
    authority: Authority,
    now: u64,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It stands in `ca.crl`.
    Revoked,
    Expired,
}

impl Certificates {
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let subject = "CN=Authority of the lab,O=Lab";
        let valid = (now - DAY, now + 999 * DAY);
        let authority =
            Authority::with(1, Contents { valid, serial: 1, ..Contents::authority(subject) });
        let certificates = Self { directory: directory.to_owned(), authority, now };
        certificates.write("ca.crt", "CERTIFICATE", &certificates.authority.der())?;
        let revoked = certificates.authority.revoke(&[REVOKED], now + 99 * DAY);
        certificates.write("ca.crl", "X509 CRL", &revoked)?;
        let none = certificates.authority.revoke(&[4_000_000], now + 99 * DAY);
        certificates.write("empty.crl", "X509 CRL", &none)?;
        Ok(certificates)
    }

    /// The file with this name.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Makes `NAME.crt` and `NAME.key` for the host at `address`. `padding` alternative names make
    /// the certificate longer.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn host(
        &self,
        name: &str,
        (kind, seed): (KeyKind, u8),
        address: &str,
        fault: Fault,
        padding: usize,
    ) -> Result<()> {
        let key = match kind {
            KeyKind::Rsa => rsa_key()?,
            kind => SigningKey::generate_ecdsa(kind, &mut SeededRng::from_seed([seed; 32]))?,
        };
        let valid = match fault {
            Fault::Expired => (self.now - 99 * DAY, self.now - DAY),
            _ => (self.now - DAY, self.now + 99 * DAY),
        };
        let serial = if fault == Fault::Revoked { REVOKED } else { 1000 + u32::from(seed) };
        let subject = format!("CN={name},OU=Sites,O=Lab");
        let mut contents = Contents { valid, serial, ..Contents::new(&subject) }.address(address);
        for number in 0..padding {
            contents = contents.dns(&format!("name-{number:04}-that-makes-it-longer.lab.example"));
        }
        let der = self.authority.certify(contents, &key);
        self.write(&format!("{name}.crt"), "CERTIFICATE", &der)?;
        self.write(&format!("{name}.key"), "PRIVATE KEY", key.to_pkcs8_der()?.expose())
    }

    /// Copies what strongSwan needs to be `host` into its folders.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn install(&self, host: &str, list: &str, directory: &Path) -> Result<()> {
        for (folder, name) in [
            ("x509", format!("{host}.crt")),
            ("x509ca", "ca.crt".to_owned()),
            ("x509crl", list.to_owned()),
            ("private", format!("{host}.key")),
        ] {
            let folder = directory.join(folder);
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder)?;
            let target = match folder.ends_with("x509") {
                true => folder.join("host.crt"),
                false => folder.join(&name),
            };
            fs::copy(self.file(&name), target)?;
        }
        Ok(())
    }

    /// The `[[certificate]]` table of a daemon that is `host`.
    pub fn table(&self, host: &str, list: &str) -> String {
        let path = |name: &str| self.file(name).display().to_string();
        format!(
            "[[certificate]]\nname = \"lab\"\nchain-file = \"{}\"\nprivate-key-file = \"{}\"\n\
             authority-files = [\"{}\"]\nrevocation-list-files = [\"{}\"]\nstrict-revocation = true\n",
            path(&format!("{host}.crt")),
            path(&format!("{host}.key")),
            path("ca.crt"),
            path(list)
        )
    }

    fn write(&self, name: &str, label: &str, der: &[u8]) -> Result<()> {
        let text = pem_rfc7468::encode_string(label, LineEnding::LF, der);
        let text = text.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
        write_secret(&self.file(name), &text)
    }
}

/// The serial number that `ca.crl` revokes.
const REVOKED: u32 = 666;

/// OpenSSL finds primes quickly also where the processor is emulated.
fn rsa_key() -> Result<SigningKey> {
    let arguments = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    let output = Command::new("openssl").args(arguments).output().context("openssl")?;
    if !output.status.success() {
        bail!("openssl genpkey: {}", String::from_utf8_lossy(&output.stderr));
    }
    let (_, der) =
        pem_rfc7468::decode_vec(&output.stdout).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(SigningKey::from_pkcs8_der(&der, false)?)
}
