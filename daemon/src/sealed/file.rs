//! The state on disk, encrypted and authenticated with AES-CCM (RFC 3610).
//!
//! ```text
//! name | version | nonce (11) | AES-CCM( boot identifier | boot-time clock | wall clock | state ) | tag (16)
//! ```
//!
//! Name and version are authenticated too, so that one program never accepts the state of another.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aes::{Aes128, Aes256};
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U11, U16};
use ccm::{Ccm, Nonce};
use ike::BootTime;
use ike::crypto::Secret;
use thiserror::Error;
use zeroize::Zeroizing;

use super::codec::{Clock, Encoder};
use crate::clock::{boot_identifier, wall};
use crate::entropy::{self, EntropyError};
use crate::replace::write_atomically;

/// With 11 octets of nonce, four of the 15 remain for the message length.
const NONCE: usize = 11;
const TAG: usize = 16;
/// Boot identifier, boot-time clock and wall clock: 16, 12 and 8 octets.
const STAMP: usize = 36;
/// About a million registrations.
const LONGEST: u64 = 256 * 1024 * 1024;

/// The state cannot be written or read. Each message is one line and names the remedy.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SealedFileError {
    #[error(
        "{path}: the state cannot be {what}: {source}; let the daemon's user read and write in the folder"
    )]
    File { path: PathBuf, what: &'static str, source: io::Error },
    #[error("{path}: this is no state of {program}; restore the file, or {otherwise}", program = .owner.program, otherwise = .owner.otherwise)]
    Foreign { path: PathBuf, owner: Owner },
    #[error(
        "{path}: the state is damaged or was sealed with another key; restore the file or the key, or {otherwise}",
        otherwise = .owner.otherwise
    )]
    Damaged { path: PathBuf, owner: Owner },
    #[error(
        "{path}: the clock shows a time before the state was written; set the clock, or {otherwise}",
        otherwise = .owner.otherwise
    )]
    Clock { path: PathBuf, owner: Owner },
    #[error("the state key has {0} octets; it must have 16 or 32")]
    Key(usize),
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// The program that owns a state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name of the program.
    pub program: &'static str,
    /// First octets of the file; the last of them is the version of the encoding inside.
    pub magic: &'static [u8],
    /// What to do if the file is lost for good, as the rest of a sentence.
    pub otherwise: &'static str,
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Identifier of this boot; zero if it is not known.
    pub boot: [u8; 16],
    pub now: BootTime,
    /// The wall clock, as the time since 1970 in UTC.
    pub wall: Duration,
}

impl Moment {
    /// The clocks as of now; `now` is the boot-time clock.
    pub fn at(now: BootTime) -> Self {
        Self { boot: boot_identifier(), now, wall: wall() }
    }

    /// How to translate points in time of a state from `written`; `None` if the wall clock went
    /// backwards across a reboot.
    fn clock_since(&self, written: &Self) -> Option<Clock> {
        let elapsed =
            match self.boot == written.boot && self.boot != [0; 16] && self.now >= written.now {
                // Same boot: the boot-time clock counts, whatever happened to the wall clock.
                true => return Some(Clock::same(written.now)),
                false => self.wall.checked_sub(written.wall)?,
            };
        Some(Clock { written: written.now, now: self.now, elapsed })
    }
}

/// A file that holds the sealed state.
pub struct SealedFile {
    path: PathBuf,
    owner: Owner,
    cipher: Cipher,
}

enum Cipher {
    Aes128(Box<Ccm<Aes128, U16, U11>>),
    Aes256(Box<Ccm<Aes256, U16, U11>>),
}

impl std::fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedFile({})", self.path.display())
    }
}

impl SealedFile {
    /// The state of `owner` at `path`, sealed with `key` of 16 or 32 octets.
    ///
    /// # Errors
    /// The key has another length.
    pub fn new(path: PathBuf, owner: Owner, key: &Secret) -> Result<Self, SealedFileError> {
        let wrong = |_| SealedFileError::Key(key.len());
        let cipher = match key.len() {
            16 => Cipher::Aes128(Box::new(Ccm::new_from_slice(key.expose()).map_err(wrong)?)),
            _ => Cipher::Aes256(Box::new(Ccm::new_from_slice(key.expose()).map_err(wrong)?)),
        };
        Ok(Self { path, owner, cipher })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Seals and writes a state; it is on the disk when this returns.
    ///
    /// # Errors
    /// The system's error; the previous state is intact.
    pub fn save(&self, state: &Secret, moment: &Moment) -> Result<(), SealedFileError> {
        let mut plain = Encoder::default();
        plain.put(&moment.boot);
        plain.time(moment.now);
        plain.u64(moment.wall.as_secs());
        plain.put(state.expose());
        let plain = plain.finish();
        let mut buffer = Zeroizing::new(Vec::with_capacity(plain.len().saturating_add(TAG)));
        buffer.extend_from_slice(plain.expose());
        let mut nonce = [0; NONCE];
        entropy::fill(&mut nonce)?;
        let sealed = match &self.cipher {
            Cipher::Aes128(cipher) => {
                cipher.encrypt_in_place(&Nonce::from(nonce), self.owner.magic, &mut *buffer)
            }
            Cipher::Aes256(cipher) => {
                cipher.encrypt_in_place(&Nonce::from(nonce), self.owner.magic, &mut *buffer)
            }
        };
        sealed.map_err(|_| self.damaged())?;
        let octets = [self.owner.magic, &nonce, &buffer].concat();
        write_atomically(&self.path, &octets).map_err(|source| self.failed("written", source))
    }

    /// Reads and decrypts the state, if there is one, and how to translate its points in time at
    /// `moment`.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, was sealed with another key, or its age cannot be
    /// known.
    pub fn load(&self, moment: &Moment) -> Result<Option<(Secret, Clock)>, SealedFileError> {
        let file = match OpenOptions::new().read(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read", error)),
        };
        let mut octets = Vec::new();
        file.take(LONGEST)
            .read_to_end(&mut octets)
            .map_err(|source| self.failed("read", source))?;
        let sealed = octets.strip_prefix(self.owner.magic);
        let sealed = sealed.ok_or_else(|| SealedFileError::Foreign {
            path: self.path.clone(),
            owner: self.owner,
        })?;
        let damaged = || self.damaged();
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or_else(damaged)?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        let opened = match &self.cipher {
            Cipher::Aes128(cipher) => {
                cipher.decrypt_in_place(&Nonce::from(*nonce), self.owner.magic, &mut *plain)
            }
            Cipher::Aes256(cipher) => {
                cipher.decrypt_in_place(&Nonce::from(*nonce), self.owner.magic, &mut *plain)
            }
        };
        opened.map_err(|_| damaged())?;
        let written = stamp(&plain).ok_or_else(damaged)?;
        let clock = moment.clock_since(&written);
        let clock = clock
            .ok_or_else(|| SealedFileError::Clock { path: self.path.clone(), owner: self.owner })?;
        let state = plain.get(STAMP..).ok_or_else(damaged)?;
        Ok(Some((Secret::copy_from(state), clock)))
    }

    fn damaged(&self) -> SealedFileError {
        SealedFileError::Damaged { path: self.path.clone(), owner: self.owner }
    }

    fn failed(&self, what: &'static str, source: io::Error) -> SealedFileError {
        SealedFileError::File { path: self.path.clone(), what, source }
    }
}

fn stamp(plain: &[u8]) -> Option<Moment> {
    let mut decoder = super::codec::Decoder::new(plain, Clock::same(BootTime::default()));
    let boot = decoder.array().ok()?;
    let (now, wall) = (decoder.time().ok()?, Duration::from_secs(decoder.u64().ok()?));
    Some(Moment { boot, now, wall })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner =
        Owner { program: "test", magic: b"test state\x01", otherwise: "remove it" };

    fn moment(boot: u8, now: u64, wall: u64) -> Moment {
        let (now, wall) = (BootTime::new(Duration::from_secs(now)), Duration::from_secs(wall));
        Moment { boot: [boot; 16], now, wall }
    }

    #[test]
    fn a_state_comes_back_with_its_clock() {
        let folder = tempfile::tempdir().unwrap();
        for length in [16, 32] {
            let file =
                SealedFile::new(folder.path().join("state"), OWNER, &Secret::new(vec![9; length]))
                    .unwrap();
            let _ = std::fs::remove_file(file.path());
            assert!(file.load(&moment(1, 1, 1)).unwrap().is_none());
            let state = Secret::new(b"keys and numbers".to_vec());
            file.save(&state, &moment(1, 100, 5000)).unwrap();
            let (read, clock) = file.load(&moment(1, 150, 4000)).unwrap().unwrap();
            assert_eq!(
                (read, clock),
                (state, Clock::same(BootTime::new(Duration::from_secs(100))))
            );
            let (_, clock) = file.load(&moment(2, 7, 5060)).unwrap().unwrap();
            assert_eq!((clock.now.since_boot().as_secs(), clock.elapsed.as_secs()), (7, 60));
            let error = file.load(&moment(2, 7, 4000)).unwrap_err();
            assert!(matches!(error, SealedFileError::Clock { .. }), "its age cannot be known");
        }
        let file =
            SealedFile::new(folder.path().join("state"), OWNER, &Secret::new(vec![9; 16])).unwrap();
        assert!(
            matches!(file.load(&moment(1, 200, 5000)), Err(SealedFileError::Damaged { .. })),
            "another key"
        );
    }

    #[test]
    fn every_damaged_octet_is_noticed_and_nothing_is_in_clear() {
        let folder = tempfile::tempdir().unwrap();
        let file =
            SealedFile::new(folder.path().join("state"), OWNER, &Secret::new(vec![9; 32])).unwrap();
        file.save(&Secret::new(b"keys and numbers".to_vec()), &moment(1, 1, 1)).unwrap();
        let whole = std::fs::read(file.path()).unwrap();
        assert!(!whole.windows(4).any(|window| window == b"keys"));
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            std::fs::write(file.path(), &damaged).unwrap();
            let error = file.load(&moment(1, 2, 2)).unwrap_err().to_string();
            assert!(error.contains("remove") && error.lines().count() == 1, "{error}");
            std::fs::write(file.path(), &whole[..place]).unwrap();
            assert!(file.load(&moment(1, 2, 2)).is_err());
        }
        std::fs::write(file.path(), &whole).unwrap();
        assert!(file.load(&moment(1, 2, 2)).is_ok());
        let other = Owner { magic: b"other state\x01", ..OWNER };
        let other =
            SealedFile::new(file.path().to_owned(), other, &Secret::new(vec![9; 32])).unwrap();
        assert!(matches!(other.load(&moment(1, 2, 2)), Err(SealedFileError::Foreign { .. })));
        file.save(&Secret::new(b"keys and numbers".to_vec()), &moment(1, 1, 1)).unwrap();
        assert_ne!(std::fs::read(file.path()).unwrap(), whole, "a new nonce every time");
    }
}
