//! The state on disk, sealed with AES-CCM (RFC 3610): who can read the file learns nothing and can change nothing.
//!
//! ```text
//! "gcks state" | version | nonce (11) | AES-CCM( boot identifier | boot-time clock | wall clock | state ) | tag (16)
//! ```
//!
//! A state is written before anything leaves that it describes, so that no number is ever used twice.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aes::{Aes128, Aes256};
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U11, U16};
use ccm::{Ccm, Nonce};
use daemon::entropy::{self, EntropyError};
use gdoi::BootTime;
use gdoi::crypto::Secret;
use thiserror::Error;
use zeroize::Zeroizing;

use super::codec::{Clock, Encoder};
use crate::signing::write_atomically;

const MAGIC: &[u8; 11] = b"gcks state\x01";
/// The length of a message has the four octets that 15 leave.
const NONCE: usize = 11;
const TAG: usize = 16;
/// Boot identifier, boot-time clock and wall clock: 16, 12 and 8 octets.
const STAMP: usize = 36;
/// About a million registrations.
const LONGEST: u64 = 256 * 1024 * 1024;

/// The state cannot be kept. One line, with the remedy.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum StateFileError {
    #[error("{path}: the state cannot be {what}: {source}; let the daemon's user read and write in the folder")]
    File { path: PathBuf, what: &'static str, source: io::Error },
    #[error("{path}: this is no state of gcks; restore the file, or remove it and let all members register again")]
    Foreign { path: PathBuf },
    #[error(
        "{path}: the state is damaged or was sealed with another key; restore the file or the key, or remove the file and let all members register again"
    )]
    Damaged { path: PathBuf },
    #[error(
        "{path}: the clock shows a time before the state was written; set the clock, or remove the file and let all members register again"
    )]
    Clock { path: PathBuf },
    #[error("the state key has {0} octets; it must have 16 or 32")]
    Key(usize),
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Identifier of this boot; zero if it is not known.
    pub boot: [u8; 16],
    /// The boot-time clock.
    pub now: BootTime,
    /// Since 1970.
    pub wall: Duration,
}

impl Moment {
    /// This moment; `now` is what the boot-time clock shows.
    pub fn at(now: BootTime) -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: Vec<u8> =
            text.bytes().filter_map(|digit| char::from(digit).to_digit(16)?.try_into().ok()).collect();
        let mut boot = [0; 16];
        for (octet, pair) in boot.iter_mut().zip(digits.chunks_exact(2)) {
            *octet = pair.iter().fold(0, |octet, digit| octet << 4 | digit);
        }
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { boot, now, wall }
    }

    /// How points in time that were written at `written` read now; `None` if the wall clock went back over a reboot.
    fn clock_since(&self, written: &Self) -> Option<Clock> {
        let elapsed = match self.boot == written.boot && self.boot != [0; 16] && self.now >= written.now {
            // The same boot: the clock went on, whatever happened to the wall clock.
            true => return Some(Clock::same(written.now)),
            false => self.wall.checked_sub(written.wall)?,
        };
        Some(Clock { written: written.now, now: self.now, elapsed })
    }
}

/// A file that holds the sealed state.
pub struct StateFile {
    path: PathBuf,
    cipher: Cipher,
}

enum Cipher {
    Aes128(Box<Ccm<Aes128, U16, U11>>),
    Aes256(Box<Ccm<Aes256, U16, U11>>),
}

impl std::fmt::Debug for StateFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateFile({})", self.path.display())
    }
}

impl StateFile {
    /// The state in `folder`, sealed with `key` of 16 or 32 octets.
    ///
    /// # Errors
    /// The key has another length.
    pub fn new(folder: &Path, key: &Secret) -> Result<Self, StateFileError> {
        let wrong = |_| StateFileError::Key(key.len());
        let cipher = match key.len() {
            16 => Cipher::Aes128(Box::new(Ccm::new_from_slice(key.expose()).map_err(wrong)?)),
            _ => Cipher::Aes256(Box::new(Ccm::new_from_slice(key.expose()).map_err(wrong)?)),
        };
        Ok(Self { path: folder.join("gcks.state"), cipher })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Seals and writes a state; it is on the disk when this returns.
    ///
    /// # Errors
    /// What the system says; the state before is still there.
    pub fn save(&self, state: &Secret, moment: &Moment) -> Result<(), StateFileError> {
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
            Cipher::Aes128(cipher) => cipher.encrypt_in_place(&Nonce::from(nonce), MAGIC, &mut *buffer),
            Cipher::Aes256(cipher) => cipher.encrypt_in_place(&Nonce::from(nonce), MAGIC, &mut *buffer),
        };
        sealed.map_err(|_| StateFileError::Damaged { path: self.path.clone() })?;
        let octets = [MAGIC.as_slice(), &nonce, &buffer].concat();
        write_atomically(&self.path, &octets).map_err(|source| self.failed("written", source))
    }

    /// Reads and opens the state, if there is one, and how its points in time read at `moment`.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, was sealed with another key, or its age cannot be known.
    pub fn load(&self, moment: &Moment) -> Result<Option<(Secret, Clock)>, StateFileError> {
        let path = || self.path.clone();
        let file = match OpenOptions::new().read(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read", error)),
        };
        let mut octets = Vec::new();
        file.take(LONGEST).read_to_end(&mut octets).map_err(|source| self.failed("read", source))?;
        let sealed = octets.strip_prefix(MAGIC).ok_or(StateFileError::Foreign { path: path() })?;
        let damaged = || StateFileError::Damaged { path: path() };
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or_else(damaged)?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        let opened = match &self.cipher {
            Cipher::Aes128(cipher) => cipher.decrypt_in_place(&Nonce::from(*nonce), MAGIC, &mut *plain),
            Cipher::Aes256(cipher) => cipher.decrypt_in_place(&Nonce::from(*nonce), MAGIC, &mut *plain),
        };
        opened.map_err(|_| damaged())?;
        let written = stamp(&plain).ok_or_else(damaged)?;
        let clock = moment.clock_since(&written).ok_or(StateFileError::Clock { path: path() })?;
        let state = plain.get(STAMP..).ok_or_else(damaged)?;
        Ok(Some((Secret::copy_from(state), clock)))
    }

    fn failed(&self, what: &'static str, source: io::Error) -> StateFileError {
        StateFileError::File { path: self.path.clone(), what, source }
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

    fn moment(boot: u8, now: u64, wall: u64) -> Moment {
        let (now, wall) = (BootTime::new(Duration::from_secs(now)), Duration::from_secs(wall));
        Moment { boot: [boot; 16], now, wall }
    }

    #[test]
    fn a_state_comes_back_with_its_clock() {
        let folder = tempfile::tempdir().unwrap();
        for length in [16, 32] {
            let file = StateFile::new(folder.path(), &Secret::new(vec![9; length])).unwrap();
            let _ = std::fs::remove_file(file.path());
            assert!(file.load(&moment(1, 1, 1)).unwrap().is_none());
            let state = Secret::new(b"keys and numbers".to_vec());
            file.save(&state, &moment(1, 100, 5000)).unwrap();
            let (read, clock) = file.load(&moment(1, 150, 4000)).unwrap().unwrap();
            assert_eq!((read, clock), (state, Clock::same(BootTime::new(Duration::from_secs(100)))));
            let (_, clock) = file.load(&moment(2, 7, 5060)).unwrap().unwrap();
            assert_eq!((clock.now.since_boot().as_secs(), clock.elapsed.as_secs()), (7, 60));
            let error = file.load(&moment(2, 7, 4000)).unwrap_err();
            assert!(matches!(error, StateFileError::Clock { .. }), "its age cannot be known");
        }
        let file = StateFile::new(folder.path(), &Secret::new(vec![9; 16])).unwrap();
        assert!(matches!(file.load(&moment(1, 200, 5000)), Err(StateFileError::Damaged { .. })), "another key");
    }

    #[test]
    fn every_damaged_octet_is_noticed_and_nothing_is_in_clear() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path(), &Secret::new(vec![9; 32])).unwrap();
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
        file.save(&Secret::new(b"keys and numbers".to_vec()), &moment(1, 1, 1)).unwrap();
        assert_ne!(std::fs::read(file.path()).unwrap(), whole, "a new nonce every time");
    }
}
