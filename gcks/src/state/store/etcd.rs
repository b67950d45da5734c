//! The store for two or more key servers: etcd.
//!
//! ```text
//! PREFIX/active            who is elected; goes with its lease
//! PREFIX/version           another value with every write
//! PREFIX/records/KEY.PART  a record, in parts of a size that etcd takes; the first says how many
//! PREFIX/journal/PART      a batch that is too large for one transaction
//! PREFIX/journal-committed the batch in the journal counts, and is carried out before all else
//! ```
//!
//! Every write is a transaction that compares two revisions. That of `active` is the fence: a
//! server that has lost the election without having noticed writes nothing. That of
//! `version` is for a write that was given up: should etcd carry it out later, after others, it
//! finds another version and does nothing.

use serde_json::{Value, json};

use super::{Batch, Key, Store, StoreError};
use crate::etcd::Settings;
use crate::etcd::client::{
    Client, EtcdError, decoded, encoded, equal, get, number, pairs, put, response, revision,
};

/// etcd takes 128 operations in a transaction, and one of ours is the version.
const OPERATIONS: usize = 120;

/// etcd takes 1.5 MiB in a request, its own octets included.
const OCTETS: usize = 1024 * 1024;

/// Octets of one part of a record or of the journal.
const PART: usize = 128 * 1024;

/// Keys that are read with one call.
const PAGE: usize = 256;

/// One change of a key.
enum Operation {
    Put(String, Vec<u8>),
    /// All keys from the first to before the second.
    Delete(String, String),
}

impl Operation {
    fn size(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len().saturating_add(value.len()),
            Self::Delete(from, to) => from.len().saturating_add(to.len()),
        }
    }

    fn request(&self) -> Value {
        match self {
            Self::Put(key, value) => put(key, value),
            Self::Delete(from, to) => json!({
                "request_delete_range": { "key": encoded(from), "range_end": encoded(to) }
            }),
        }
    }
}

/// The records of one server in etcd, for as long as it is elected.
#[derive(Debug)]
pub struct EtcdStore {
    client: Client,
    settings: Settings,
    place: String,
    /// The revision at which this server was elected.
    elected: i64,
    /// The revision of the last write; `None` if nobody knows.
    version: Option<i64>,
}

impl EtcdStore {
    /// For the server that was elected at the revision `elected`.
    pub fn new(settings: Settings, elected: i64) -> Self {
        let client = Client::new(&settings.endpoints, settings.patience());
        let place = settings.place();
        Self { client, settings, place, elected, version: None }
    }

    fn key(&self, name: &str) -> String {
        self.settings.key(name)
    }

    fn failed(&self, source: EtcdError) -> StoreError {
        StoreError::Etcd { place: self.place.clone(), source }
    }

    fn garbage(&self) -> StoreError {
        StoreError::Damaged { place: self.place.clone() }
    }

    /// The version, and whether there is a journal to carry out.
    fn open(&mut self) -> Result<bool, StoreError> {
        let active = self.key("active");
        let request = json!({
            "compare": [equal(&active, "create_revision", self.elected)],
            "success": [get(&self.key("version")), get(&self.key("journal-committed"))],
        });
        let answer = self.client.call("/v3/kv/txn", &request).map_err(|e| self.failed(e))?;
        if answer.get("succeeded").and_then(Value::as_bool) != Some(true) {
            return Err(StoreError::Superseded { place: self.place.clone() });
        }
        let [version, journal] =
            [0, 1].map(|place| pairs(response(&answer, place, "response_range")).first());
        self.version = Some(version.map_or(0, |version| number(version, "mod_revision")));
        Ok(journal.is_some())
    }

    /// Carries out operations in one transaction.
    fn commit(&mut self, operations: &[Operation]) -> Result<(), StoreError> {
        let Some(before) = self.version.take() else { return Err(self.changed()) };
        let (active, version) = (self.key("active"), self.key("version"));
        let mut success: Vec<Value> = operations.iter().map(Operation::request).collect();
        let mut token = [0; 8];
        daemon::entropy::fill(&mut token).map_err(|error| StoreError::Unavailable {
            place: self.place.clone(),
            what: "written",
            reason: error.to_string(),
        })?;
        success.push(put(&version, token));
        let request = json!({
            "compare": [
                equal(&active, "create_revision", self.elected),
                equal(&version, "mod_revision", before),
            ],
            "success": success,
            "failure": [get(&active)],
        });
        let answer = self.client.call("/v3/kv/txn", &request).map_err(|e| self.failed(e))?;
        if answer.get("succeeded").and_then(Value::as_bool) == Some(true) {
            self.version = Some(revision(&answer));
            return Ok(());
        }
        let active = pairs(response(&answer, 0, "response_range")).first();
        match active.is_some_and(|active| number(active, "create_revision") == self.elected) {
            true => Err(self.changed()),
            false => Err(StoreError::Superseded { place: self.place.clone() }),
        }
    }

    fn changed(&self) -> StoreError {
        StoreError::Changed { place: self.place.clone() }
    }

    /// Carries out operations that are harmless to repeat, in as many transactions as it takes.
    fn commit_all(&mut self, operations: &[Operation]) -> Result<(), StoreError> {
        let mut rest = operations;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest).max(1).min(rest.len()));
            self.commit(now)?;
            rest = later;
        }
        Ok(())
    }

    /// Keys from one name to before another, with their values.
    fn range(&self, from: &str, to: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let (mut found, mut next, mut at) = (Vec::new(), from.to_owned(), 0);
        loop {
            let request = json!({
                "key": encoded(&next),
                "range_end": encoded(to),
                "limit": PAGE.to_string(),
                "revision": at.to_string(),
            });
            let answer = self.client.call("/v3/kv/range", &request).map_err(|e| self.failed(e))?;
            // All pages are of one moment.
            at = if at == 0 { revision(&answer) } else { at };
            for pair in pairs(&answer) {
                let key = decoded(pair, "key").and_then(|key| String::from_utf8(key).ok());
                let (Some(key), Some(value)) = (key, decoded(pair, "value")) else {
                    return Err(self.garbage());
                };
                next = format!("{key}\0");
                found.push((key, value));
            }
            if answer.get("more").and_then(Value::as_bool) != Some(true) {
                return Ok(found);
            }
        }
    }

    fn record(&self, key: &Key) -> String {
        let mut name = self.key("records/");
        key.iter().for_each(|octet| name.push_str(&format!("{octet:02x}")));
        name
    }

    fn operations(&self, batch: &Batch) -> Vec<Operation> {
        let mut operations = Vec::new();
        for key in &batch.removals {
            let name = self.record(key);
            operations.push(Operation::Delete(format!("{name}."), format!("{name}/")));
        }
        for (key, value) in &batch.puts {
            let name = self.record(key);
            let parts = value.chunks(PART);
            let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
            for (place, part) in parts.enumerate() {
                // What is left of a longer value stays there and is not read.
                let head = if place == 0 { &count.to_be_bytes()[..] } else { &[] };
                operations
                    .push(Operation::Put(format!("{name}.{place:04x}"), [head, part].concat()));
            }
        }
        operations
    }

    /// A batch in the journal first: it happens as a whole, whenever this server ends.
    fn write_by_journal(&mut self, operations: &[Operation]) -> Result<(), StoreError> {
        let (journal, end) = (self.key("journal/"), self.key("journal0"));
        let octets = encode(operations);
        let mut steps = vec![Operation::Delete(journal.clone(), end)];
        let parts = octets.chunks(PART).enumerate();
        steps.extend(
            parts.map(|(place, part)| Operation::Put(format!("{journal}{place:06x}"), part.into())),
        );
        // What an earlier attempt has left goes first, and by itself: etcd refuses a transaction
        // that deletes and puts one key.
        let (clear, parts) = steps.split_at(1);
        self.commit(clear)?;
        self.commit_all(parts)?;
        let length = octets.len().to_string().into_bytes();
        self.commit(&[Operation::Put(self.key("journal-committed"), length)])?;
        self.finish_journal(operations)
    }

    fn finish_journal(&mut self, operations: &[Operation]) -> Result<(), StoreError> {
        self.commit_all(operations)?;
        let committed = self.key("journal-committed");
        self.commit(&[Operation::Delete(committed.clone(), format!("{committed}\0"))])?;
        self.commit(&[Operation::Delete(self.key("journal/"), self.key("journal0"))])
    }

    fn carry_out_journal(&mut self) -> Result<(), StoreError> {
        let parts = self.range(&self.key("journal/"), &self.key("journal0"))?;
        let octets: Vec<u8> = parts.into_iter().flat_map(|(_, part)| part).collect();
        let operations = decode(&octets).ok_or_else(|| self.garbage())?;
        self.finish_journal(&operations)
    }
}

impl Store for EtcdStore {
    fn read(&mut self) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
        if self.open()? {
            self.carry_out_journal()?;
        }
        let (from, to) = (self.key("records/"), self.key("records0"));
        let mut records: Vec<(Key, Vec<u8>)> = Vec::new();
        let mut missing = 0;
        for (name, value) in self.range(&from, &to)? {
            let name = name.strip_prefix(&from).and_then(|name| name.split_once('.'));
            let (key, part) = name.ok_or_else(|| self.garbage())?;
            let key = hexadecimal(key).ok_or_else(|| self.garbage())?;
            match (part, records.last_mut()) {
                ("0000", _) if missing == 0 => {
                    let (count, value) = value.split_first_chunk().ok_or_else(|| self.garbage())?;
                    missing = u16::from_be_bytes(*count).saturating_sub(1);
                    records.push((key, value.to_vec()));
                }
                ("0000", _) => return Err(self.garbage()),
                (_, Some((last, whole))) if *last == key && missing > 0 => {
                    whole.extend_from_slice(&value);
                    missing = missing.saturating_sub(1);
                }
                _ => {}
            }
        }
        match missing {
            0 => Ok(records),
            _ => Err(self.garbage()),
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let operations = self.operations(batch);
        match fitting(&operations) == operations.len() {
            true => self.commit(&operations),
            false => self.write_by_journal(&operations),
        }
    }
}

/// How many operations fit into one transaction.
fn fitting(operations: &[Operation]) -> usize {
    let mut octets = 0_usize;
    let sizes = operations.iter().map(Operation::size).take(OPERATIONS);
    sizes
        .take_while(|size| {
            octets = octets.saturating_add(*size);
            octets <= OCTETS
        })
        .count()
}

/// The journal: for each operation its kind, and two texts or octets with their lengths.
fn encode(operations: &[Operation]) -> Vec<u8> {
    let mut octets = Vec::new();
    for operation in operations {
        let (kind, first, second) = match operation {
            Operation::Put(key, value) => (0, key.as_bytes(), value.as_slice()),
            Operation::Delete(from, to) => (1, from.as_bytes(), to.as_bytes()),
        };
        octets.push(kind);
        for part in [first, second] {
            octets.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            octets.extend(part);
        }
    }
    octets
}

fn decode(mut octets: &[u8]) -> Option<Vec<Operation>> {
    fn part<'a>(octets: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, rest) = octets.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (part, rest) = rest.split_at_checked(length)?;
        *octets = rest;
        Some(part)
    }
    let mut operations = Vec::new();
    while let Some((kind, rest)) = octets.split_first() {
        octets = rest;
        let (first, second) = (part(&mut octets)?, part(&mut octets)?);
        let text = |part: &[u8]| String::from_utf8(part.to_vec()).ok();
        operations.push(match kind {
            0 => Operation::Put(text(first)?, second.to_vec()),
            1 => Operation::Delete(text(first)?, text(second)?),
            _ => return None,
        });
    }
    Some(operations)
}

fn hexadecimal(text: &str) -> Option<Key> {
    let mut key = Key::default();
    if text.len() != key.len().saturating_mul(2) {
        return None;
    }
    for (place, octet) in key.iter_mut().enumerate() {
        let start = place.checked_mul(2)?;
        *octet = u8::from_str_radix(text.get(start..start.checked_add(2)?)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_read_as_it_was_written_and_damage_is_noticed() {
        let operations = [
            Operation::Put("a".to_owned(), vec![1, 2, 3]),
            Operation::Delete("b.".to_owned(), "b/".to_owned()),
            Operation::Put("c".to_owned(), Vec::new()),
        ];
        let octets = encode(&operations);
        assert_eq!(encode(&decode(&octets).unwrap()), octets);
        for length in 1..octets.len() {
            let cut = decode(&octets[..length]).map(|operations| operations.len());
            assert!(cut.is_none_or(|count| count < 3), "{length}");
        }
        assert!(decode(&[7, 0, 0, 0, 0, 0, 0, 0, 0]).is_none());
    }

    #[test]
    fn a_transaction_has_as_many_operations_as_etcd_takes() {
        let put = |octets| Operation::Put("k".to_owned(), vec![0; octets]);
        let small: Vec<Operation> = (0..200).map(|_| put(1)).collect();
        assert_eq!(fitting(&small), OPERATIONS);
        let large: Vec<Operation> = (0..20).map(|_| put(PART)).collect();
        assert_eq!(fitting(&large), 7);
    }
}
