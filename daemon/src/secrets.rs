//! Pre-shared and private keys from files and from systemd credentials.

use std::env;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ike::crypto::{Secret, SignatureError, SigningKey};
use nix::libc;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::entropy;
use crate::replace::write_atomically;

/// Longest pre-shared key in octets.
pub const LONGEST: usize = 1024;

/// Longest private key in octets: an RSA key of 8192 bits has 6,400 as PEM.
const LONGEST_PRIVATE_KEY: usize = 16 * 1024;

/// Shorter keys can be brute-forced: whoever answers a member's first messages can test keys
/// offline.
pub const SHORT: usize = 16;

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretSource {
    /// A file of its own.
    File(PathBuf),
    /// A credential that the systemd unit loads (systemd.exec(5), LoadCredential=).
    Credential(String),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Credential(name) => write!(f, "credential \"{name}\""),
        }
    }
}

/// Why a secret cannot be used. No variant holds any octet of it.
#[derive(Debug, Error)]
pub enum SecretError {
    #[error("{origin}: {error}; {remedy}")]
    Unreadable { origin: SecretSource, error: io::Error, remedy: &'static str },
    #[error(
        "{path}: the state key cannot be made: {error}; make the state directory, owned by the daemon's user and writable", path = .path.display()
    )]
    Unwritable { path: PathBuf, error: io::Error },
    #[error("{origin} is readable by {who}; run `chmod 600 {path}`", path = .path.display())]
    Exposed { origin: SecretSource, who: &'static str, path: PathBuf },
    #[error("{origin} is not a regular file; name a file that holds the key and nothing else")]
    NotAFile { origin: SecretSource },
    #[error("{origin} is empty; write the key into it")]
    Empty { origin: SecretSource },
    #[error("{origin} holds more than {LONGEST} octets; a pre-shared key has at most {LONGEST}")]
    TooLong { origin: SecretSource },
    #[error(
        "{origin} holds {have} octets; a key has 16 or 32, as `openssl rand -out FILE 32` makes it"
    )]
    KeyLength { origin: SecretSource, have: usize },
    #[error(
        "{origin} holds more than {LONGEST_PRIVATE_KEY} octets; name a file with the private key alone"
    )]
    PrivateKeyTooLong { origin: SecretSource },
    #[error(
        "{origin} is encrypted with a passphrase, which nobody types at boot; decrypt it with `openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW`"
    )]
    EncryptedPrivateKey { origin: SecretSource },
    #[error(
        "{origin} is no RSA or ECDSA private key in PKCS #8 form; convert it with `openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW`"
    )]
    NotAPrivateKey { origin: SecretSource },
    #[error(
        "{origin}: {error}; make a key with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072`"
    )]
    PrivateKey { origin: SecretSource, error: SignatureError },
    #[error(
        "{origin}: the service manager passed no credentials; add LoadCredential={name}:/path/to/key to the unit, or name a file"
    )]
    NoCredentials { origin: SecretSource, name: String },
    #[error("{origin}: a credential's name has no '/' and is not \".\" or \"..\"")]
    CredentialName { origin: SecretSource },
}

/// The directory that the daemon's unit loads as credentials, `LoadCredential=psk:DIRECTORY`.
static UNIT: OnceLock<PathBuf> = OnceLock::new();

/// What the unit loads where no service manager does: `--check` and a start by hand find the same
/// keys. The file `g1` in it is the credential `psk_g1`.
pub fn credentials_of_unit(directory: &str) {
    UNIT.get_or_init(|| PathBuf::from(directory));
}

/// Where credentials come from.
#[derive(Clone, Copy)]
enum Credentials<'p> {
    /// The directory that the service manager passed.
    Passed(&'p Path),
    /// Nobody passed one; this is what the unit loads.
    Unit(&'p Path),
    None,
}

fn credentials<T>(with: impl FnOnce(Credentials<'_>) -> T) -> T {
    match (env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from), UNIT.get()) {
        (Some(passed), _) => with(Credentials::Passed(&passed)),
        (None, Some(unit)) => with(Credentials::Unit(unit)),
        (None, None) => with(Credentials::None),
    }
}

/// Reads a pre-shared key: all octets of the file but one newline at its end.
///
/// # Errors
/// The file is missing, not regular, open to others, empty or too long.
pub fn read_pre_shared_key(origin: &SecretSource) -> Result<Secret, SecretError> {
    credentials(|credentials| read_from(origin, credentials))
}

/// Reads the private key of a certificate: PKCS #8 as PEM or DER, without a passphrase.
///
/// # Errors
/// The file is missing, not regular, open to others, or holds something else.
pub fn read_private_key(origin: &SecretSource) -> Result<SigningKey, SecretError> {
    let octets = credentials(|credentials| octets_from(origin, credentials, LONGEST_PRIVATE_KEY))?;
    let not_a_key = || SecretError::NotAPrivateKey { origin: origin.clone() };
    match octets.len() {
        0 => return Err(SecretError::Empty { origin: origin.clone() }),
        length if length > LONGEST_PRIVATE_KEY => {
            return Err(SecretError::PrivateKeyTooLong { origin: origin.clone() });
        }
        _ => {}
    }
    let der = match octets.starts_with(&[0x30]) {
        true => octets,
        false => {
            let (label, der) = pem_rfc7468::decode_vec(&octets).map_err(|_| not_a_key())?;
            let der = Zeroizing::new(der);
            match label {
                "PRIVATE KEY" => der,
                "ENCRYPTED PRIVATE KEY" => {
                    return Err(SecretError::EncryptedPrivateKey { origin: origin.clone() });
                }
                _ => return Err(not_a_key()),
            }
        }
    };
    SigningKey::from_pkcs8_der(&der, false).map_err(|error| match error {
        SignatureError::ModulusLength { .. } => {
            SecretError::PrivateKey { origin: origin.clone(), error }
        }
        _ => not_a_key(),
    })
}

/// Reads an AES key: 16 or 32 octets of any value, and nothing else.
///
/// # Errors
/// The file is missing, not regular, open to others, or of another length.
pub fn read_aes_key(origin: &SecretSource) -> Result<Secret, SecretError> {
    let octets = credentials(|credentials| octets_from(origin, credentials, LONGEST))?;
    match octets.len() {
        16 | 32 => Ok(Secret::copy_from(&octets)),
        have => Err(SecretError::KeyLength { origin: origin.clone(), have }),
    }
}

/// The AES key in the file at `path`; made there, with mode 0600, if there is none.
///
/// # Errors
/// As [`read_aes_key`], or it cannot be made.
pub fn own_aes_key(path: &Path) -> Result<Secret, SecretError> {
    if !path.exists() {
        let made = || -> io::Result<()> {
            let key = Zeroizing::new(entropy::seed().map_err(io::Error::other)?);
            write_atomically(path, &*key)
        };
        made().map_err(|error| SecretError::Unwritable { path: path.to_owned(), error })?;
    }
    read_aes_key(&SecretSource::File(path.to_owned()))
}

fn read_from(origin: &SecretSource, credentials: Credentials<'_>) -> Result<Secret, SecretError> {
    let octets = octets_from(origin, credentials, LONGEST)?;
    let mut key = octets.as_slice();
    if let Some(rest) = key.strip_suffix(b"\n") {
        key = rest.strip_suffix(b"\r").unwrap_or(rest);
    }
    match key.len() {
        0 => Err(SecretError::Empty { origin: origin.clone() }),
        length if length > LONGEST => Err(SecretError::TooLong { origin: origin.clone() }),
        _ => Ok(Secret::copy_from(key)),
    }
}

/// The octets of a secret, read at most slightly past the limit.
fn octets_from(
    origin: &SecretSource,
    credentials: Credentials<'_>,
    longest: usize,
) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let (path, forbidden_mode) = match origin {
        // Group and others may neither read nor write it.
        SecretSource::File(path) => (path.clone(), 0o066),
        SecretSource::Credential(name) => {
            if name.is_empty() || name.contains('/') || name == "." || name == ".." {
                return Err(SecretError::CredentialName { origin: origin.clone() });
            }
            match (credentials, name.strip_prefix("psk_")) {
                // systemd admits the service's user by an access control list, whose mask shows as
                // the group's mode bits; others have no access in any case.
                (Credentials::Passed(directory), _) => (directory.join(name), 0o006),
                (Credentials::Unit(directory), Some(file)) if directory.exists() => {
                    (directory.join(file), 0o066)
                }
                _ => {
                    let (origin, name) = (origin.clone(), name.clone());
                    return Err(SecretError::NoCredentials { origin, name });
                }
            }
        }
    };
    let unreadable = |error: io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "create it, or correct the path",
            io::ErrorKind::PermissionDenied => {
                "make the daemon's user its owner (`chown`) and keep mode 600"
            }
            _ => "check the file",
        };
        SecretError::Unreadable { origin: origin.clone(), error, remedy }
    };
    // Without O_NONBLOCK, opening a FIFO blocks until somebody writes.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(SecretError::NotAFile { origin: origin.clone() });
    }
    let exposed = metadata.mode() & forbidden_mode;
    if exposed != 0 {
        let who = if exposed & 0o006 != 0 { "everybody" } else { "its group" };
        return Err(SecretError::Exposed { origin: origin.clone(), who, path });
    }
    read_bounded(&mut file, longest).map_err(unreadable)
}

/// Reads into one allocation of fixed size, which is wiped on drop.
fn read_bounded(file: &mut File, longest: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for the newline and one more octet, which reveals a secret that is too long.
    let mut octets = Zeroizing::new(vec![0; longest + 3]);
    let mut length = 0;
    while let Some(rest) = octets.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    octets.truncate(length);
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(directory: &Path, name: &str, mode: u32, octets: &[u8]) -> SecretSource {
        let path = directory.join(name);
        fs::write(&path, octets).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        SecretSource::File(path)
    }

    #[test]
    fn one_newline_is_taken_off() {
        let directory = tempfile::tempdir().unwrap();
        for (octets, key) in [
            (&b"correct horse\n"[..], &b"correct horse"[..]),
            (b"correct horse\r\n", b"correct horse"),
            (b"correct horse", b"correct horse"),
            (b"correct horse\n\n", b"correct horse\n"),
            (b" spaces stay ", b" spaces stay "),
        ] {
            let origin = file(directory.path(), "key", 0o600, octets);
            assert_eq!(read_pre_shared_key(&origin).unwrap(), Secret::copy_from(key));
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        for (mode, who) in
            [(0o644, "everybody"), (0o604, "everybody"), (0o640, "its group"), (0o620, "its group")]
        {
            let origin = file(directory.path(), "key", mode, b"key");
            let error = read_pre_shared_key(&origin).unwrap_err().to_string();
            let path = directory.path().join("key");
            assert_eq!(
                error,
                format!("file {0} is readable by {who}; run `chmod 600 {0}`", path.display())
            );
        }
        for mode in [0o600, 0o400] {
            let origin = file(directory.path(), "private", mode, b"key");
            assert!(read_pre_shared_key(&origin).is_ok());
            fs::remove_file(directory.path().join("private")).unwrap();
        }
    }

    #[test]
    fn what_is_not_a_key_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let read = |origin: &SecretSource| read_pre_shared_key(origin).unwrap_err();
        assert!(matches!(
            read(&file(directory.path(), "empty", 0o600, b"")),
            SecretError::Empty { .. }
        ));
        assert!(matches!(
            read(&file(directory.path(), "newline", 0o600, b"\n")),
            SecretError::Empty { .. }
        ));
        assert!(matches!(
            read(&file(directory.path(), "long", 0o600, &[b'a'; LONGEST + 1])),
            SecretError::TooLong { .. }
        ));
        assert!(matches!(
            read(&file(directory.path(), "huge", 0o600, &[b'a'; 100_000])),
            SecretError::TooLong { .. }
        ));
        assert!(matches!(
            read(&SecretSource::File(directory.path().into())),
            SecretError::NotAFile { .. }
        ));
        let missing = read(&SecretSource::File(directory.path().join("none")));
        assert!(missing.to_string().contains("create it, or correct the path"), "{missing}");
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(matches!(read(&SecretSource::File(fifo)), SecretError::NotAFile { .. }));
        let longest =
            file(directory.path(), "longest", 0o600, &[&[b'a'; LONGEST][..], b"\r\n"].concat());
        assert_eq!(read_pre_shared_key(&longest).unwrap().len(), LONGEST);
    }

    #[test]
    fn an_aes_key_has_all_its_octets() {
        let directory = tempfile::tempdir().unwrap();
        for octets in [&[b'\n'; 16][..], &[0xff; 32]] {
            let origin = file(directory.path(), "key", 0o600, octets);
            assert_eq!(read_aes_key(&origin).unwrap(), Secret::copy_from(octets));
        }
        let error =
            read_aes_key(&file(directory.path(), "key", 0o600, &[1; 33])).unwrap_err().to_string();
        assert!(error.contains("holds 33 octets; a key has 16 or 32"), "{error}");
        let open = read_aes_key(&file(directory.path(), "open", 0o644, &[1; 32])).unwrap_err();
        assert!(matches!(open, SecretError::Exposed { .. }));
    }

    #[test]
    fn credentials_come_from_the_service_manager() {
        let directory = tempfile::tempdir().unwrap();
        file(directory.path(), "branches", 0o440, b"key\n");
        let origin = SecretSource::Credential(String::from("branches"));
        assert_eq!(
            read_from(&origin, Credentials::Passed(directory.path())).unwrap(),
            Secret::copy_from(b"key")
        );
        let error = read_from(&origin, Credentials::None).unwrap_err().to_string();
        assert!(error.contains("LoadCredential=branches:"), "{error}");
        for name in ["../branches", "", ".."] {
            let origin = SecretSource::Credential(name.to_owned());
            let error = read_from(&origin, Credentials::Passed(directory.path())).unwrap_err();
            assert!(matches!(error, SecretError::CredentialName { .. }));
        }
    }

    /// From a shell there is no service manager: `--check` finds what the unit would load.
    #[test]
    fn without_a_service_manager_the_units_directory_counts() {
        let directory = tempfile::tempdir().unwrap();
        file(directory.path(), "branches", 0o600, b"key\n");
        let read = |name: &str, directory: &Path| {
            let origin = SecretSource::Credential(name.to_owned());
            read_from(&origin, Credentials::Unit(directory))
        };
        assert_eq!(read("psk_branches", directory.path()).unwrap(), Secret::copy_from(b"key"));
        for (name, place) in [
            ("branches", directory.path().to_owned()),
            ("psk_branches", directory.path().join("missing")),
        ] {
            let error = read(name, &place).unwrap_err();
            assert!(matches!(error, SecretError::NoCredentials { .. }), "{error}");
        }
        file(directory.path(), "open", 0o644, b"key");
        let error = read("psk_open", directory.path()).unwrap_err();
        assert!(matches!(error, SecretError::Exposed { .. }), "{error}");
    }

    #[test]
    fn no_error_shows_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let origin = file(directory.path(), "key", 0o644, b"hunter2");
        let error = read_pre_shared_key(&origin).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
