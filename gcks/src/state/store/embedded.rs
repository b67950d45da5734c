//! The default store: one file that `redb` keeps, a B-tree whose pages are never changed in place.
//!
//! A file is made beside its place and moved there, so that a server that is killed meanwhile
//! leaves none that is half made.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase as _, TableDefinition};

use super::{Batch, Key, Store, StoreError};

const RECORDS: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("records");

/// Octets of the file that are kept in memory: those of ten thousand members.
const CACHE: usize = 8 * 1024 * 1024;

/// A file of records.
#[derive(Debug)]
pub struct EmbeddedStore {
    path: PathBuf,
    /// Closed after an error, which leaves a database of no more use.
    database: Option<Database>,
}

impl EmbeddedStore {
    /// Opens the file at `path`, which is made if it is not there, with mode 0600. A file that was
    /// altered is noticed.
    ///
    /// # Errors
    /// It cannot be made or opened, is damaged, or another process has it open.
    pub fn open(path: PathBuf) -> Result<Self, StoreError> {
        if !path.exists() {
            make(&path)?;
        }
        let database = Some(open(&path)?);
        Ok(Self { path, database })
    }

    /// Closes the file, as an error does; the next call opens it again.
    pub fn close(&mut self) {
        self.database = None;
    }

    fn failed(&self, what: &'static str, error: impl Into<redb::Error>) -> StoreError {
        failed(&self.path, what, error.into())
    }

    /// The file is not made here: one that was removed meanwhile would come back with nothing but
    /// the latest changes.
    fn database(&mut self) -> Result<&Database, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        Ok(self.database.insert(database))
    }

    fn read_all(&mut self) -> Result<Vec<(Key, Vec<u8>)>, redb::Error> {
        let Some(database) = &self.database else { return Ok(Vec::new()) };
        let table = match database.begin_read()?.open_table(RECORDS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let records = table.range::<Key>(..)?.map(|record| {
            let (key, value) = record?;
            Ok((key.value(), value.value().to_vec()))
        });
        records.collect()
    }

    fn write_all(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        // Or else a damaged page of the last batch would silently bring back the one before, and
        // with it numbers that were used.
        transaction.set_two_phase_commit(true);
        {
            let mut table = transaction.open_table(RECORDS)?;
            for key in &batch.removals {
                table.remove(key)?;
            }
            for (key, value) in &batch.puts {
                table.insert(key, value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Store for EmbeddedStore {
    fn read(&mut self) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
        self.database()?;
        self.read_all().map_err(|error| self.failed("read", error))
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let written = Self::write_all(self.database()?, batch);
        written.map_err(|error| {
            self.close();
            self.failed("written", error)
        })
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    builder().open(path).map_err(|error| failed(path, "read", error.into()))
}

fn make(path: &Path) -> Result<(), StoreError> {
    let beside = path.with_extension("new");
    let made = || -> Result<(), redb::Error> {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        builder().create(&beside)?.close()?;
        fs::rename(&beside, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        Ok(File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?)
    };
    made().map_err(|error| failed(path, "written", error))
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

fn failed(path: &Path, what: &'static str, error: redb::Error) -> StoreError {
    let place = path.display().to_string();
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse { place },
        redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => {
            StoreError::Damaged { place }
        }
        redb::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            StoreError::Damaged { place }
        }
        redb::Error::Io(error) => {
            StoreError::Unavailable { place, what, reason: error.to_string() }
        }
        error => StoreError::Unavailable { place, what, reason: error.to_string() },
    }
}
