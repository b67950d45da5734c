//! The keys that sign pushes, in files of their own (PKCS #8, PEM, RFC 7468).
//!
//! A key that is missing is made. It appears under its name complete or not at all, readable by the
//! daemon's user alone.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemon::entropy::{self, EntropyError};
use daemon::replace::write_atomically;
use ike::crypto::{KeyKind, Secret, SeededRng, SignatureError, SigningKey};
use pem_rfc7468::LineEnding;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::config::cluster::Role;
use crate::config::{Group, Rekey, SigningKeyKind};

/// Longest file that is read: an RSA key of 8192 bits has 6,400 octets.
const LONGEST: u64 = 32 * 1024;
const LABEL: &str = "PRIVATE KEY";

/// A signing key cannot be loaded or made. One line, with the remedy.
#[derive(Debug, Error)]
pub enum SigningKeyError {
    #[error(
        "{path}: the signing key cannot be {what}: {source}; let the daemon's user write in the folder"
    )]
    File { path: PathBuf, what: &'static str, source: io::Error },
    #[error(
        "{path}: the signing key can be read by others; run `chmod 600 {path}`, and replace it if anybody did"
    )]
    Exposed { path: PathBuf },
    #[error(
        "{path}: this is no RSA or ECDSA key in PKCS #8 PEM form; restore the file, or remove it to have a new key made"
    )]
    Damaged { path: PathBuf },
    #[error("{path}: {source}; name another signing-key-file")]
    Unusable { path: PathBuf, source: SignatureError },
    #[error(
        "{path}: the key does not go with signature-hash = \"{hash}\"; write \"{fixed}\", or name another signing-key-file"
    )]
    Hash { path: PathBuf, hash: &'static str, fixed: &'static str },
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// The signing keys of groups by the name of the group.
pub type SigningKeys = BTreeMap<String, Arc<SigningKey>>;

/// Loads the signing keys of all groups that have pushes, and makes those that are missing.
///
/// # Errors
/// The first that cannot be loaded or made.
pub fn load_all(groups: &[Group]) -> Result<SigningKeys, SigningKeyError> {
    with_keys(groups).map(|(name, rekey)| Ok((name, Arc::new(load(rekey)?)))).collect()
}

/// The same without writing a file: where a key is missing, one that is forgotten again.
///
/// # Errors
/// As for [`load_all`].
pub fn load_or_imagine(groups: &[Group]) -> Result<SigningKeys, SigningKeyError> {
    let key = |rekey: &Rekey| match read(&rekey.signing_key_file)? {
        Some(_) => load(rekey),
        None => made(&rekey.signing_key_file, rekey.signing_key),
    };
    with_keys(groups).map(|(name, rekey)| Ok((name, Arc::new(key(rekey)?)))).collect()
}

/// The groups whose pushes are signed here. A sub-server relays what its root signs.
fn with_keys(groups: &[Group]) -> impl Iterator<Item = (String, &Rekey)> {
    let signs = |group: &&Group| {
        group.cluster.as_ref().is_none_or(|cluster| cluster.role == Role::RootServer)
    };
    let signing = groups.iter().filter(signs);
    signing.filter_map(|group| Some((group.name.clone(), group.rekey.as_ref()?)))
}

fn made(path: &Path, kind: SigningKeyKind) -> Result<SigningKey, SigningKeyError> {
    let unusable = |source| SigningKeyError::Unusable { path: path.to_owned(), source };
    generate(kind)?.map_err(unusable)
}

/// Loads the signing key of a group, or makes it.
///
/// # Errors
/// It cannot be loaded or made, or does not go with the hash.
pub fn load(rekey: &Rekey) -> Result<SigningKey, SigningKeyError> {
    let path = &rekey.signing_key_file;
    let key = match read(path)? {
        Some(pem) => parse(path, &pem, rekey.legacy)?,
        None => create(path, rekey.signing_key)?,
    };
    match key.kind().fixed_hash() {
        Some(fixed) if fixed != rekey.signature_hash => Err(SigningKeyError::Hash {
            path: path.clone(),
            hash: rekey.signature_hash.name(),
            fixed: fixed.name(),
        }),
        _ => Ok(key),
    }
}

/// # Errors
/// The system gives no randomness.
pub fn generate(kind: SigningKeyKind) -> Result<Result<SigningKey, SignatureError>, EntropyError> {
    let mut rng = SeededRng::from_seed(entropy::seed()?);
    Ok(match kind {
        SigningKeyKind::Rsa(bits) => SigningKey::generate_rsa(bits, &mut rng),
        SigningKeyKind::EcdsaP256 => SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut rng),
        SigningKeyKind::EcdsaP384 => SigningKey::generate_ecdsa(KeyKind::Ecdsa384, &mut rng),
    })
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, SigningKeyError> {
    let failed = |source| SigningKeyError::File { path: path.to_owned(), what: "read", source };
    // Without O_NONBLOCK a FIFO would hold the daemon until somebody writes.
    let file = match OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        return Err(SigningKeyError::Damaged { path: path.to_owned() });
    }
    if metadata.mode() & 0o066 != 0 {
        return Err(SigningKeyError::Exposed { path: path.to_owned() });
    }
    let mut pem = Zeroizing::new(Vec::with_capacity(
        usize::try_from(metadata.len()).unwrap_or(0).saturating_add(1),
    ));
    file.take(LONGEST).read_to_end(&mut pem).map_err(failed)?;
    Ok(Some(pem))
}

fn parse(path: &Path, pem: &[u8], legacy: bool) -> Result<SigningKey, SigningKeyError> {
    let damaged = || SigningKeyError::Damaged { path: path.to_owned() };
    let (label, der) = pem_rfc7468::decode_vec(pem).map_err(|_| damaged())?;
    let der = Zeroizing::new(der);
    if label != LABEL {
        return Err(damaged());
    }
    SigningKey::from_pkcs8_der(&der, legacy).map_err(|source| match source {
        SignatureError::PrivateKey => damaged(),
        source => SigningKeyError::Unusable { path: path.to_owned(), source },
    })
}

fn create(path: &Path, kind: SigningKeyKind) -> Result<SigningKey, SigningKeyError> {
    let unusable = |source| SigningKeyError::Unusable { path: path.to_owned(), source };
    let key = made(path, kind)?;
    write(path, &key.to_pkcs8_der().map_err(unusable)?)?;
    Ok(key)
}

/// Writes a key, in PKCS #8 form, to a file of mode 600.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, der: &Secret) -> Result<(), SigningKeyError> {
    let damaged = |_| SigningKeyError::Damaged { path: path.to_owned() };
    let pem = Zeroizing::new(
        pem_rfc7468::encode_string(LABEL, LineEnding::LF, der.expose()).map_err(damaged)?,
    );
    write_atomically(path, pem.as_bytes()).map_err(|source| SigningKeyError::File {
        path: path.to_owned(),
        what: "written",
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use ike::crypto::HashAlgorithm;

    use super::*;
    use crate::config::Transport;

    fn rekey(path: &Path, kind: SigningKeyKind, hash: HashAlgorithm) -> Rekey {
        let usual = crate::group::kek::tests::rekey(Transport::Unicast);
        Rekey {
            signing_key: kind,
            signing_key_file: path.to_owned(),
            signature_hash: hash,
            ..usual
        }
    }

    #[test]
    fn a_key_is_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        for (name, kind, hash) in [
            ("rsa", SigningKeyKind::Rsa(2048), HashAlgorithm::Sha2_512),
            ("p256", SigningKeyKind::EcdsaP256, HashAlgorithm::Sha2_256),
            ("p384", SigningKeyKind::EcdsaP384, HashAlgorithm::Sha2_384),
        ] {
            let path = directory.path().join(name);
            let rekey = rekey(&path, kind, hash);
            let made = load(&rekey).unwrap().public_key_der().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(
                fs::read_to_string(&path).unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n")
            );
            assert_eq!(load(&rekey).unwrap().public_key_der().unwrap(), made);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "nothing else is left");
    }

    #[test]
    fn what_is_wrong_with_a_key_is_one_clear_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let at = |hash| rekey(&path, SigningKeyKind::EcdsaP256, hash);
        load(&at(HashAlgorithm::Sha2_256)).unwrap();
        let pem = fs::read_to_string(&path).unwrap();
        let error = load(&at(HashAlgorithm::Sha2_384)).unwrap_err().to_string();
        assert!(
            error.contains("does not go with signature-hash = \"sha2-384\"; write \"sha2-256\""),
            "{error}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(&at(HashAlgorithm::Sha2_256)), Err(SigningKeyError::Exposed { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for damaged in
            ["", "hello", &pem[..100], &pem.replace("PRIVATE", "PUBLIC"), &pem.replace('M', "N")]
        {
            fs::write(&path, damaged).unwrap();
            let error = load(&at(HashAlgorithm::Sha2_256)).unwrap_err();
            assert!(matches!(error, SigningKeyError::Damaged { .. }), "{error}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
        let missing = rekey(
            &directory.path().join("no/key"),
            SigningKeyKind::EcdsaP256,
            HashAlgorithm::Sha2_256,
        );
        assert!(matches!(load(&missing), Err(SigningKeyError::File { what: "written", .. })));
    }
}
