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

use ike::BootTime;
use ike::crypto::Secret;
use thiserror::Error;

use super::codec::{Clock, Decoder, Encoder, StateError};
use super::seal::{SealError, Sealer};
use crate::clock::{boot_identifier, wall};
use crate::replace::write_atomically;

/// About a million registrations.
const LONGEST: u64 = 256 * 1024 * 1024;

/// The state cannot be written or read. Each message is one line and names the remedy.
#[derive(Debug, Error)]
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
    #[error(transparent)]
    Seal(#[from] SealError),
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
    /// Octets of [`Moment::encode`]: boot identifier, boot-time clock and wall clock.
    pub const LENGTH: usize = 16 + 12 + 8;

    /// The clocks as of now; `now` is the boot-time clock.
    pub fn at(now: BootTime) -> Self {
        Self { boot: boot_identifier(), now, wall: wall() }
    }

    /// How points in time that were written at `written` read now, and by how much the wall clock
    /// went back over a reboot: then nobody knows how much time has passed, and none is counted but
    /// that since this boot.
    pub fn clock_since(&self, written: &Self) -> (Clock, Duration) {
        if self.boot == written.boot && self.boot != [0; 16] && self.now >= written.now {
            // The same boot: the clock went on, whatever happened to the wall clock.
            return (Clock::same(written.now), Duration::ZERO);
        }
        let is_reboot = self.boot != written.boot && ![self.boot, written.boot].contains(&[0; 16]);
        let certain = if is_reboot { self.now.since_boot() } else { Duration::ZERO };
        let elapsed = self.wall.saturating_sub(written.wall).max(certain);
        let certain = Some(certain);
        let clock = Clock { written: written.now, now: self.now, elapsed, certain };
        (clock, written.wall.saturating_sub(self.wall))
    }

    /// Writes it, for [`Moment::decode`].
    pub fn encode(&self, out: &mut Encoder) {
        out.put(&self.boot);
        out.time(self.now);
        out.u64(self.wall.as_secs());
    }

    /// Reads what [`Moment::encode`] wrote.
    ///
    /// # Errors
    /// The octets are no moment.
    pub fn decode(octets: &[u8]) -> Result<Self, StateError> {
        let mut from = Decoder::new(octets, Clock::same(BootTime::default()));
        let boot = from.array()?;
        Ok(Self { boot, now: from.time()?, wall: Duration::from_secs(from.u64()?) })
    }
}

/// A file that holds the sealed state.
pub struct SealedFile {
    path: PathBuf,
    owner: Owner,
    sealer: Sealer,
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
        Ok(Self { path, owner, sealer: Sealer::new(key)? })
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
        moment.encode(&mut plain);
        plain.put(state.expose());
        let sealed = self.sealer.seal(plain.finish().expose(), self.owner.magic)?;
        let octets = [self.owner.magic, &sealed].concat();
        write_atomically(&self.path, &octets).map_err(|source| self.failed("written", source))
    }

    /// Reads and decrypts the state, if there is one, and how to translate its points in time at
    /// `moment`.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, was sealed with another key, or its age cannot be
    /// known.
    pub fn load(&self, moment: &Moment) -> Result<Option<(Secret, Clock)>, SealedFileError> {
        let Some((state, written)) = self.open()? else { return Ok(None) };
        match moment.clock_since(&written) {
            (clock, Duration::ZERO) => Ok(Some((state, clock))),
            _ => Err(SealedFileError::Clock { path: self.path.clone(), owner: self.owner }),
        }
    }

    /// Reads and opens the state, if there is one, and the moment when it was written.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or was sealed with another key.
    pub fn open(&self) -> Result<Option<(Secret, Moment)>, SealedFileError> {
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
        let plain = self.sealer.open(sealed, self.owner.magic).ok_or_else(damaged)?;
        let (stamp, state) = plain.expose().split_at_checked(Moment::LENGTH).ok_or_else(damaged)?;
        let written = Moment::decode(stamp).map_err(|_| damaged())?;
        Ok(Some((Secret::copy_from(state), written)))
    }

    fn damaged(&self) -> SealedFileError {
        SealedFileError::Damaged { path: self.path.clone(), owner: self.owner }
    }

    fn failed(&self, what: &'static str, source: io::Error) -> SealedFileError {
        SealedFileError::File { path: self.path.clone(), what, source }
    }
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

    /// A machine without a battery for its clock, or one that was set wrongly for a while.
    #[test]
    fn a_wall_clock_that_went_back_counts_no_time() {
        let (written, later) = (moment(1, 100, 5000), moment(2, 7, 4000));
        let (clock, behind) = later.clock_since(&written);
        // But for the time since this boot.
        assert_eq!((clock.elapsed.as_secs(), behind.as_secs()), (7, 1000));
        assert!(clock.is_unknown() && clock.at_least() == clock);
        assert_eq!(
            clock.translate(BootTime::new(Duration::from_secs(160))).since_boot().as_secs(),
            60
        );
        let (clock, behind) = moment(2, 7, 5060).clock_since(&written);
        assert_eq!((clock.elapsed.as_secs(), behind), (60, Duration::ZERO));
        assert!(!clock.is_unknown() && clock.at_least().elapsed.as_secs() == 7);
        // The wall clock was ahead when the state was written: this boot alone took longer.
        let (clock, behind) = moment(2, 90, 5060).clock_since(&written);
        assert_eq!((clock.elapsed.as_secs(), behind), (90, Duration::ZERO));
        // Nobody knows whether that is another boot.
        let (clock, _) = moment(0, 90, 5060).clock_since(&written);
        assert_eq!((clock.elapsed.as_secs(), clock.certain), (60, Some(Duration::ZERO)));
        // Within one boot the wall clock counts for nothing.
        assert_eq!(
            moment(1, 200, 1).clock_since(&written),
            (Clock::same(written.now), Duration::ZERO)
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
