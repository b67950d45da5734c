//! The store of the state: what is written comes back whole, and nothing that was changed does.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon::sealed::file::Moment;
use gcks::group::key_generation::OsEntropy;
use gcks::server::KeyServer;
use gcks::state::store::embedded::EmbeddedStore;
use gcks::state::store::sealed::SealedStore;
use gcks::state::store::{Batch, Key, Store, StoreError};
use gcks::state::{Change, Name, Records};
use ike::crypto::Secret;
use support::world::server;
use support::*;

type Shared = Arc<Mutex<BTreeMap<Key, Vec<u8>>>>;

/// A store in memory that fails when it is told to, after or before it has written.
#[derive(Clone, Debug, Default)]
struct Memory {
    records: Shared,
    full: Arc<Mutex<Option<bool>>>,
    writes: Arc<Mutex<usize>>,
}

impl Store for Memory {
    fn read(&mut self) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
        let records = self.records.lock().unwrap();
        Ok(records.iter().map(|(key, value)| (*key, value.clone())).collect())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let failure = *self.full.lock().unwrap();
        if failure != Some(false) {
            let mut records = self.records.lock().unwrap();
            batch.removals.iter().for_each(|key| _ = records.remove(key));
            records.extend(batch.puts.iter().cloned());
            *self.writes.lock().unwrap() += batch.puts.len() + batch.removals.len();
        }
        let (place, reason) = (String::from("memory"), String::from("full"));
        match failure {
            Some(_) => Err(StoreError::Unavailable { place, what: "written", reason }),
            None => Ok(()),
        }
    }
}

fn sealed(memory: &Memory) -> SealedStore {
    let key = Secret::new(vec![7; 32]);
    SealedStore::new(Box::new(memory.clone()), String::from("memory"), &key).unwrap()
}

fn moment(seconds: u64) -> Moment {
    Moment { boot: [1; 16], now: at(seconds), wall: Duration::from_secs(seconds) }
}

fn name(text: &str) -> Name {
    Name::from_octets(text.as_bytes())
}

fn put(key: &str, value: &str) -> Change {
    Change::Put(name(key), Secret::copy_from(value.as_bytes()))
}

fn records(of: &[(&str, &str)]) -> Records {
    let mut records = Records::default();
    records.apply(of.iter().map(|(key, value)| put(key, value)));
    records
}

#[test]
fn what_is_written_comes_back_and_what_stays_as_it_is_costs_nothing() {
    let memory = Memory::default();
    let mut store = sealed(&memory);
    assert!(store.load().unwrap().is_none());
    store.write(&[put("a1", "x"), put("a2", "y"), put("b", "z")], &moment(1)).unwrap();
    assert_eq!(*memory.writes.lock().unwrap(), 4, "with the head");
    store.write(&[put("a1", "x"), Change::Remove(name("c"))], &moment(2)).unwrap();
    assert_eq!(*memory.writes.lock().unwrap(), 4);
    let mut again = sealed(&memory);
    let loaded = again.load().unwrap().unwrap();
    assert_eq!(loaded.records, records(&[("a1", "x"), ("a2", "y"), ("b", "z")]));
    assert_eq!(loaded.written, moment(1));
    again.write(&[Change::Clear(name("a")), put("a2", "y"), put("a3", "v")], &moment(3)).unwrap();
    assert_eq!(*memory.writes.lock().unwrap(), 7, "one goes, one comes, and the head");
    let loaded = sealed(&memory).load().unwrap().unwrap();
    assert_eq!(loaded.records, records(&[("a2", "y"), ("a3", "v"), ("b", "z")]));
    assert_eq!(loaded.written, moment(3));
}

#[test]
fn a_write_that_failed_may_have_been_carried_out() {
    for carried_out in [false, true] {
        let memory = Memory::default();
        let mut store = sealed(&memory);
        store.write(&[put("a", "1"), put("b", "1")], &moment(1)).unwrap();
        *memory.full.lock().unwrap() = Some(carried_out);
        store.write(&[put("a", "2"), put("c", "2")], &moment(2)).unwrap_err();
        *memory.full.lock().unwrap() = None;
        // What was new then is not wanted any more.
        store.write(&[put("a", "3"), Change::Remove(name("c"))], &moment(3)).unwrap();
        let loaded = sealed(&memory).load().unwrap().unwrap();
        assert_eq!(loaded.records, records(&[("a", "3"), ("b", "1")]), "{carried_out}");
    }
}

#[test]
fn nothing_is_in_clear_and_every_change_is_noticed() {
    let memory = Memory::default();
    let mut store = sealed(&memory);
    store.write(&[put("member one", "key octets"), put("other", "1")], &moment(1)).unwrap();
    let before = memory.records.lock().unwrap().clone();
    store.write(&[put("other", "2"), put("third", "3")], &moment(2)).unwrap();
    let whole = memory.records.lock().unwrap().clone();
    for octets in whole.iter().flat_map(|(key, value)| [key.to_vec(), value.clone()]) {
        for text in [&b"member"[..], b"octets"] {
            assert!(!octets.windows(text.len()).any(|window| window == text));
        }
    }
    let damaged = |records: BTreeMap<Key, Vec<u8>>| {
        *memory.records.lock().unwrap() = records;
        let error = sealed(&memory).load().unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("remove it"), "{error}");
    };
    for (key, value) in &whole {
        let mut without = whole.clone();
        without.remove(key);
        damaged(without);
        for place in 0..value.len() {
            let mut changed = whole.clone();
            changed.get_mut(key).unwrap()[place] ^= 1;
            damaged(changed);
        }
        // A record of an earlier moment among those of now, and one in another's place.
        if let Some(earlier) = before.get(key).filter(|earlier| *earlier != value) {
            let mut mixed = whole.clone();
            mixed.insert(*key, earlier.clone());
            damaged(mixed);
        }
        for other in whole.keys().filter(|other| *other != key) {
            let mut moved = whole.clone();
            moved.insert(*other, value.clone());
            damaged(moved);
        }
    }
    *memory.records.lock().unwrap() = whole;
    sealed(&memory).load().unwrap().unwrap();
    let other = Secret::new(vec![8; 32]);
    let mut other = SealedStore::new(Box::new(memory), String::from("memory"), &other).unwrap();
    assert!(matches!(other.load(), Err(StoreError::Damaged { .. })), "another key");
}

#[test]
fn a_file_is_one_servers_alone_and_nobody_elses_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gcks.db");
    // What a server left that was killed while it made the file.
    std::fs::write(folder.path().join("gcks.new"), "half").unwrap();
    let mut store = EmbeddedStore::open(path.clone()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(store.read().unwrap().is_empty());
    let batch = |puts: &[u8], removals: &[u8]| Batch {
        puts: puts.iter().map(|key| ([*key; 16], vec![*key; 5000])).collect(),
        removals: removals.iter().map(|key| [*key; 16]).collect(),
    };
    store.write(&batch(&[1, 2, 3], &[])).unwrap();
    store.write(&batch(&[4], &[2])).unwrap();
    let error = EmbeddedStore::open(path.clone()).unwrap_err().to_string();
    assert!(error.contains("another gcks has this state open"), "{error}");
    drop(store);
    let mut store = EmbeddedStore::open(path.clone()).unwrap();
    let keys = |store: &mut EmbeddedStore| -> Vec<u8> {
        store.read().unwrap().iter().map(|(key, _)| key[0]).collect()
    };
    assert_eq!(keys(&mut store), [1, 3, 4]);
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    // No page that is altered is trusted, wherever the file is hit.
    let mut noticed = 0;
    for place in (0..whole.len()).step_by(whole.len() / 199) {
        let mut altered = whole.clone();
        altered[place..][..1].iter_mut().for_each(|octet| *octet ^= 0xff);
        std::fs::write(&path, &altered).unwrap();
        match EmbeddedStore::open(path.clone()) {
            Ok(mut store) => assert_eq!(keys(&mut store), [1, 3, 4]),
            Err(error) => {
                assert!(matches!(error, StoreError::Damaged { .. }), "{place}: {error}");
                noticed += 1;
            }
        }
    }
    assert!(noticed > 0, "no octet of use was hit");
    std::fs::write(&path, b"no such file").unwrap();
    assert!(matches!(EmbeddedStore::open(path), Err(StoreError::Damaged { .. })));
}

/// A file that lost its end, or all of it, is told as such and never taken for a new one.
#[test]
fn a_truncated_file_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gcks.db");
    let mut store = EmbeddedStore::open(path.clone()).unwrap();
    let puts = (0..40_u8).map(|key| ([key; 16], vec![key; 5000])).collect();
    store.write(&Batch { puts, removals: Vec::new() }).unwrap();
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    for left in (0..whole.len()).step_by(whole.len() / 97) {
        std::fs::write(&path, &whole[..left]).unwrap();
        match EmbeddedStore::open(path.clone()) {
            Ok(mut store) => assert_eq!(store.read().unwrap().len(), 40, "{left}"),
            Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{left}: {error}"),
        }
    }
}

/// A state of the moment before must not come back: numbers would be used twice.
#[test]
fn a_damaged_file_of_a_killed_server_is_not_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("gcks.db"), folder.path().join("killed.db"));
    let mut store = EmbeddedStore::open(path.clone()).unwrap();
    let mut image = |key: u8| {
        let puts = vec![([key; 16], vec![key; 5000])];
        store.write(&Batch { puts, removals: Vec::new() }).unwrap();
        // As it is on the disk when the server is killed now.
        std::fs::read(&path).unwrap()
    };
    let (_, before, whole) = (image(1), image(2), image(3));
    let differing: Vec<usize> = (0..whole.len())
        .filter(|place| before.get(*place).is_none_or(|octet| *octet != whole[*place]))
        .collect();
    // One bit says which of two batches is the last.
    let bits = (0..64).flat_map(|place| (0..8).map(move |bit| (place, 1 << bit)));
    let bits = bits.filter(|bit| *bit != (9, 1));
    let pages = differing.iter().step_by(differing.len() / 97).map(|place| (*place, 0xff));
    let mut noticed = 0;
    for (place, flipped) in bits.chain(pages) {
        let mut altered = whole.clone();
        altered[place] ^= flipped;
        std::fs::write(&copy, &altered).unwrap();
        match EmbeddedStore::open(copy.clone()) {
            Ok(mut store) => assert_eq!(store.read().unwrap().len(), 3, "{place} ^ {flipped}"),
            Err(error) => {
                assert!(matches!(error, StoreError::Damaged { .. }), "{place}: {error}");
                noticed += 1;
            }
        }
    }
    assert!(noticed > 0);
}

/// Whoever removes the file of a running server, to make room for example, must not get one that
/// holds nothing but the last changes.
#[test]
fn a_store_that_was_removed_is_not_made_anew_by_a_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gcks.db");
    let mut store = EmbeddedStore::open(path.clone()).unwrap();
    let batch = |key: u8| Batch { puts: vec![([key; 16], vec![key])], removals: Vec::new() };
    store.write(&batch(1)).unwrap();
    // As after an error.
    store.close();
    std::fs::remove_file(&path).unwrap();
    let error = store.write(&batch(2)).unwrap_err().to_string();
    assert!(error.contains("the state cannot be read") && error.lines().count() == 1, "{error}");
    assert!(!path.exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_one_clear_line() {
    let error = EmbeddedStore::open("/proc/gcks.db".into()).unwrap_err().to_string();
    assert!(error.starts_with("/proc/gcks.db: the state cannot be written: "), "{error}");
    assert!(error.contains("let the daemon's user") && error.lines().count() == 1, "{error}");
}

/// The cost of a registration is that of its records, however many members there are.
#[test]
fn a_registration_writes_its_own_record() {
    let directory = keys();
    let text = configuration_with(directory.path(), "", "10.0.0", GCM, &pushes("lkh = true"));
    let config = parse(&text);
    let signing = signing_keys(&config);
    let mut service = KeyServer::new(config, &signing, [1; 32], OsEntropy);
    service.keep_state();
    let mut sizes = Vec::new();
    let save = |service: &mut KeyServer<OsEntropy>, sizes: &mut Vec<usize>| {
        let memory = service.changes();
        sizes.push(memory.iter().filter(|change| matches!(change, Change::Put(..))).count());
        service.saved();
    };
    save(&mut service, &mut sizes);
    for others in [10, 5000] {
        // Members that registered before.
        let group = service.groups().next().unwrap().id();
        for number in 0..others {
            let address = std::net::Ipv4Addr::from(0x0a01_0000_u32 + number).into();
            let identity = ike::config::Identity::Address(address);
            let id = gcks::members::registry::MemberId { identity, address };
            let pulled = gcks::members::registry::Pulled {
                name: "other".into(),
                address: (address, 848).into(),
                local: server(),
                keys_end: None,
                leaf: None,
            };
            let (group, _) = service.group_mut(group).unwrap();
            group.registry_mut().record(id, pulled, at(0));
        }
        save(&mut service, &mut sizes);
        let number = if others == 10 { 1 } else { 2 };
        register_saving(&mut service, number, &mut |service| save(service, &mut sizes));
    }
    let (few, many) = (sizes[2], *sizes.last().unwrap());
    assert!(sizes[1] > 10 && sizes[sizes.len() - 2] > 4000, "{sizes:?}");
    assert!(many <= few && many < 16, "{sizes:?}");
}

/// Registers a member of group 1 while nothing leaves before it is written.
fn register_saving(
    service: &mut KeyServer<OsEntropy>,
    number: u8,
    save: &mut dyn FnMut(&mut KeyServer<OsEntropy>),
) {
    let config = registration(number, number, 1, address(number), server());
    let mut member = gdoi::member::Registration::new(config, [number; 32], at(1));
    for _ in 0..40 {
        while let Some(transmit) = member.poll_transmit() {
            let source = address(number);
            service.handle_datagram(source, server(), &transmit.payload, at(1)).unwrap();
        }
        if service.is_unsaved() {
            save(service);
        }
        while let Some(transmit) = service.poll_transmit() {
            let _ = member.handle_datagram(server(), &transmit.payload, at(1));
        }
        if outcome(&mut member, at(1)).is_some() {
            return;
        }
    }
    panic!("no keys");
}
